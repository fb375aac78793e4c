# SPDX-License-Identifier: Apache-2.0
"""Lock files as files: existence, content, O_EXCL, fsync, rm, writes, the token."""
import errno
import fcntl
import os
import select
import re
import time

import lib
from lib import EX, NB, SH, UN

ORDER = ["owner", "mode", "token", "since", "pid", "uid", "holders", "waiters"]
RW, EXCL = os.O_RDWR | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_EXCL


def token(path):
    """Of the current holder; None: there is none."""
    try:
        return int(os.getxattr(path, "user.tooz.token"))
    except FileNotFoundError:
        return None


class Files:
    def test_a_free_lock_does_not_exist(self):
        self.assertEqual(os.listdir(self.a("locks")), [])
        self.assertFalse(os.path.exists(self.a("locks/l")))
        done = lib.sh('exec 9<"$1"', self.a("locks/l"))
        self.assertIn("No such file", done.stderr)
        self.fails(errno.ENOENT, os.open, self.a("locks/l"), os.O_RDWR)

    def test_opening_acquires_nothing(self):
        for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY, os.O_WRONLY | os.O_APPEND,
                      os.O_WRONLY | os.O_TRUNC):
            fd = self.open(self.a("locks/l"), flags | os.O_CREAT)
            if flags & os.O_ACCMODE != os.O_WRONLY:
                self.assertEqual(os.read(fd, 4096), b"")
            self.assertFalse(os.path.exists(self.a("locks/l")))
            self.assertEqual(os.listdir(self.b("locks")), [])
        fcntl.flock(self.open(self.b("locks/l")), EX | NB)

    def test_reading_and_listing_acquire_nothing(self):
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, SH)
        for mount in (self.a, self.b):
            lib.read(mount("locks/l"))
            lib.sh('find "$1" -type f -exec cat {} + >/dev/null; ls -l "$1/locks"', mount.path)
        fcntl.flock(fd, UN)
        fcntl.flock(self.open(self.b("locks/l")), EX | NB)

    def test_listing(self):
        for name in ("one", "two", "three"):
            fcntl.flock(self.open(self.a("locks", name)), EX)
        for mount in (self.a, self.b):
            self.assertEqual(sorted(os.listdir(mount("locks"))), ["one", "three", "two"])
            self.assertEqual(lib.sh('test -e "$1"', mount("locks/one")).returncode, 0)

    def test_content(self):
        agent = self.agent()
        before = time.time()
        fd = agent.open_flock(self.a("locks/l"), RW, EX)
        text = lib.read(self.a("locks/l"))
        self.assertTrue(text.endswith(b"\n"))
        found = lib.fields(text)
        self.assertEqual(list(found), [x for x in ORDER if x in found])
        self.assertEqual(found["owner"], self.a.member)
        self.assertEqual(found["mode"], "exclusive")
        self.assertEqual(found["pid"], str(agent.pid))
        self.assertEqual(found["uid"], "0")
        self.assertGreater(int(found["token"]), 0)
        self.assertRegex(found["since"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
        since = time.strptime(found["since"][:19], "%Y-%m-%dT%H:%M:%S")
        import calendar
        self.assertLess(abs(calendar.timegm(since) - before), 60)
        agent.flock(fd, UN)
        self.fails(errno.ENOENT, lib.read, self.a("locks/l"))

    def test_content_at_the_other_mount(self):
        agent = self.agent()
        agent.open_flock(self.a("locks/l"), RW, EX)
        found = lib.fields(lib.read(self.b("locks/l")))
        self.assertEqual(found["owner"], self.a.member)
        self.assertEqual(found["mode"], "exclusive")
        self.assertEqual(list(found), [x for x in ORDER if x in found])
        here = lib.fields(lib.read(self.a("locks/l")))
        self.assertEqual(found.get("token", here["token"]), here["token"])
        self.assertEqual(found["since"], here["since"])

    def test_content_shared(self):
        fcntl.flock(self.open(self.a("locks/l")), SH)
        fcntl.flock(self.open(self.a("locks/l")), SH)
        found = lib.fields(lib.read(self.a("locks/l")))
        self.assertEqual(found["mode"], "shared")
        self.assertEqual(found["holders"], "2")
        other = self.open(self.b("locks/l"))
        fcntl.flock(other, SH | NB)
        # The handles here, and one for each other mount.
        for mount, count in ((self.a, "3"), (self.b, "2" if self.crossing else "3")):
            lib.wait_until(lambda: lib.fields(lib.read(mount("locks/l")))["holders"] == count,
                           f"{count} holders at {mount.member}")
        lib.wait_until(lambda: b"holders=2\n" in os.pread(other, 4096, 0) or not self.crossing,
                       "the count at the holding handle")

    def test_waiters(self):
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        agents = [self.agent() for _ in range(3)]
        for agent in agents:
            agent.start("flock", agent.open(self.a("locks/l")), EX)
        self.wait_waiters(self.a("locks/l"), 3)

    def test_reading_the_holding_handle(self):
        done = lib.sh('exec 9<>"$1"; cat <&9; echo -; flock 9; cat <&9; echo -; cat <&9; echo -\n'
                      'cat "$1"; flock -u 9; echo -; cat <&9', self.a("locks/l"))
        self.assertEqual(done.returncode, 0, done.stderr)
        parts = re.split(r"^-\n", done.stdout, flags=re.MULTILINE)
        self.assertEqual(parts[0], "")
        self.assertIn("mode=exclusive", parts[1])
        self.assertEqual(parts[1], parts[2])
        self.assertEqual(parts[2], parts[3])
        self.assertEqual(parts[4], "")

    def test_read_and_write_of_a_holding_handle(self):
        done = lib.sh('exec 9<>"$1"; flock 9; cat <&9; echo hello >&9; cat <&9',
                      self.a("locks/l"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("mode="), 2)
        self.assertNotIn("hello", done.stdout)

    def test_small_reads(self):
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        whole = lib.read(self.a("locks/l"))
        parts = []
        while part := os.read(fd, 3):
            parts.append(part)
        self.assertEqual(b"".join(parts), whole)
        self.assertEqual(os.pread(fd, 4096, 0), whole)
        self.assertEqual(os.pread(fd, 4096, 6), whole[6:])

    def test_size_is_that_of_the_content(self):
        fcntl.flock(self.open(self.a("locks/l")), EX)
        done = lib.sh('test -s "$1" && wc -c <"$1" && stat -c %s "$1" && cat "$1" | wc -c',
                      self.a("locks/l"))
        self.assertEqual(len(set(done.stdout.split())), 1, done.stdout + done.stderr)

    def test_writes(self):
        fd = self.open(self.a("locks/l"))
        self.fails(errno.EPERM, os.write, fd, b"x")
        fcntl.flock(fd, EX)
        self.assertEqual(os.write(fd, b"1234\n"), 5)
        fcntl.flock(fd, UN)
        self.fails(errno.EPERM, os.write, fd, b"x")

    def test_fsync(self):
        fd = self.open(self.a("locks/l"))
        for mode in (EX, SH):
            fcntl.flock(fd, mode)
            os.fsync(fd)
            os.fdatasync(fd)
            fcntl.flock(fd, UN)
        os.fsync(fd)

    def test_exclusive_creation(self):
        fd = self.open(self.a("locks/l"), EXCL)
        self.assertEqual(lib.fields(lib.read(self.a("locks/l")))["mode"], "exclusive")
        for mount in (self.a, self.b):
            self.fails(errno.EEXIST, os.open, mount("locks/l"), EXCL)
            self.fails(errno.EAGAIN, fcntl.flock, self.open(mount("locks/l")), SH | NB)
        os.write(fd, b"accepted")
        os.fsync(fd)
        fcntl.flock(fd, UN)
        other = self.open_exclusive(self.b("locks/l"))
        os.close(other)
        self.free_soon(fd)

    def open_exclusive(self, path):
        """The release of another mount is seen with a delay, as by ls."""
        def attempt():
            try:
                return os.open(path, EXCL)
            except FileExistsError:
                if not self.crossing:
                    raise
                return None
        return lib.wait_until(attempt, "a lock that was released")

    def test_exclusive_creation_where_shared(self):
        fcntl.flock(self.open(self.a("locks/l")), SH)
        self.fails(errno.EEXIST, os.open, self.b("locks/l"), EXCL)

    def test_noclobber(self):
        script = 'set -C; exec 9>"$1" && echo got; (set -C; exec 8>"$2") || echo held\n' \
                 'exec 9>&-; until set -C; exec 7>"$2"; do :; done; echo again'
        done = lib.sh(script, self.a("locks/l"), self.b("locks/l"))
        self.assertEqual(done.stdout, "got\nheld\nagain\n", done.stderr)

    def test_token_grows(self):
        last = 0
        for i in range(10):
            mount = (self.a, self.b)[i % 2]
            fd = self.open(mount("locks/l"))
            fcntl.flock(fd, EX)
            mine = int(lib.fields(os.pread(fd, 4096, 0))["token"])
            self.assertGreater(mine, last)
            # The other mount looks again when it is told, and that takes its time.
            lib.wait_until(lambda: token(self.a("locks/l")) == mine, "the token at the mount a")
            last = mine
            fcntl.flock(fd, UN)

    def test_token_of_sharers(self):
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        first = int(lib.fields(os.pread(fd, 4096, 0))["token"])
        fcntl.flock(fd, SH)
        shared = int(lib.fields(os.pread(fd, 4096, 0))["token"])
        other = self.open(self.b("locks/l"))
        fcntl.flock(other, SH)
        beside = int(lib.fields(os.pread(other, 4096, 0))["token"])
        fcntl.flock(fd, UN)
        fcntl.flock(other, UN)
        fcntl.flock(other, EX)
        later = int(lib.fields(os.pread(other, 4096, 0))["token"])
        self.assertLess(first, shared)
        self.assertLess(first, beside)
        self.assertLess(shared, later)
        self.assertLess(beside, later)

    def test_xattr(self):
        self.fails(errno.ENOENT, os.getxattr, self.a("locks/l"), "user.tooz.token")
        fcntl.flock(self.open(self.a("locks/l")), EX)
        self.assertRegex(os.getxattr(self.a("locks/l"), "user.tooz.token"), rb"^\d+$")
        self.fails(errno.ENODATA, os.getxattr, self.a("locks/l"), "user.other")

    def test_inode_number_is_that_of_the_path(self):
        seen = set()
        for name in ("l", "l", "other"):
            fd = self.open(self.a("locks", name))
            fcntl.flock(fd, EX)
            seen.add(os.stat(self.a("locks", name)).st_ino)
            self.assertEqual(os.fstat(fd).st_ino, os.stat(self.a("locks", name)).st_ino)
            os.close(fd)
        self.assertEqual(len(seen), 2)

    def test_rm_by_the_taker_releases(self):
        agent = self.agent()
        fd = agent.open_flock(self.a("locks/l"), RW, EX)
        agent.unlink(self.a("locks/l"))
        lib.wait_until(lambda: not os.path.exists(self.a("locks/l")), "the release", 1 * lib.SLOW)
        self.assertEqual(agent.poll(fd, select.POLLIN, 0),
                         select.POLLIN | select.POLLERR | select.POLLHUP)
        agent.flock(fd, EX | NB)
        agent.fsync(fd)
        self.assertEqual(agent.poll(fd, select.POLLIN, 0), 0)

    def test_rm_of_the_same_session_is_a_loss_for_the_holder(self):
        """It was not asked: it must not believe in its lock, nor read the token of the next."""
        for take, release in (
                (lambda fd: holder.flock(fd, SH | NB), lambda fd: holder.flock(fd, UN)),
                (lambda fd: holder.fcntl_lock(fd, fcntl.F_SETLK, fcntl.F_WRLCK),
                 lambda fd: holder.fcntl_lock(fd, fcntl.F_SETLK, fcntl.F_UNLCK))):
            holder = self.agent(newsession=False)
            fd = holder.open(self.a("locks/l"))
            lib.wait_until(lambda: works(take, fd), "the end of the last round", 1 * lib.SLOW)
            holder.pread(fd, 100, 0)
            os.unlink(self.a("locks/l"))
            other = self.agent()
            there = other.open_flock(self.b("locks/l"), RW, EX)
            self.fails(errno.EIO, holder.fsync, fd)
            self.fails(errno.EIO, holder.pread, fd, 100, 8)
            self.fails(errno.EIO, holder.pread, fd, 100, 0)
            self.fails(errno.EIO, holder.write_fd, fd, b"x")
            self.fails((errno.EAGAIN, errno.EACCES), take, fd)
            self.fails(errno.EIO, holder.fsync, fd)
            release(fd)
            holder.fsync(fd)
            self.fails(errno.EAGAIN, holder.flock, fd, EX | NB)
            other.close(there)
            holder.kill()

    def test_rm_by_a_descendant_releases(self):
        done = lib.sh('exec 9>"$1"; flock 9; rm "$1" && flock -n 9 && cat "$1"', self.a("locks/l"))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_rm_by_somebody_else_breaks(self):
        agent = self.agent()
        fd = agent.open_flock(self.a("locks/l"), RW, EX)
        os.unlink(self.b("locks/l"))
        lib.wait_until(lambda: not os.path.exists(self.b("locks/l")), "the break")
        fcntl.flock(self.open(self.b("locks/l")), EX)

        lib.wait_until(lambda: lib.lost(agent.fsync, fd), "the loss")
        self.fails(errno.EIO, agent.pread, fd, 100, 0)
        self.fails(errno.EIO, agent.write_fd, fd, b"x")
        self.fails((errno.EIO, errno.ENOLCK), agent.flock, fd, EX | NB)
        agent.flock(fd, UN)
        self.fails(errno.EAGAIN, agent.flock, fd, EX | NB)

    def test_rm_breaks_every_sharer(self):
        one, two = self.agent(), self.agent()
        fd = one.open_flock(self.a("locks/l"), RW, SH)
        other = two.open_flock(self.b("locks/l"), RW, SH)
        os.unlink(self.b("locks/l"))
        fcntl.flock(self.open(self.b("locks/l")), EX)
        for agent, handle in ((one, fd), (two, other)):
            lib.wait_until(lambda: lib.lost(agent.fsync, handle), "the loss")

    def test_rm_of_a_free_lock(self):
        self.open(self.a("locks/l"))
        self.fails(errno.ENOENT, os.unlink, self.a("locks/l"))

    def test_break_serves_the_next_waiter(self):
        one, two = self.agent(), self.agent()
        one.open_flock(self.a("locks/l"), RW, EX)
        two.start("flock", two.open(self.b("locks/l")), EX)
        two.wait_blocked()
        os.unlink(self.b("locks/l"))
        two.result()

    def test_closing_a_lost_handle_hurts_nobody(self):
        one = self.agent()
        fd = one.open_flock(self.a("locks/l"), RW, EX)
        os.unlink(self.a("locks/l"))
        lib.wait_until(lambda: lib.lost(one.fsync, fd), "the loss")
        other = self.open(self.b("locks/l"))
        fcntl.flock(other, EX)
        one.close(fd)
        os.fsync(other)
        self.fails(errno.EAGAIN, fcntl.flock, self.open(self.a("locks/l")), EX | NB)


def works(call, *args):
    try:
        call(*args)
        return True
    except OSError:
        return False


class FilesMemory(Files, lib.Memory):
    pass


class FilesFile(Files, lib.File):
    def shown(self, mount, **expected):
        """Waits until the mount shows this of the lock; what it shows beside is returned."""
        def matches():
            try:
                found = lib.fields(lib.read(mount("locks/l")))
            except FileNotFoundError:
                return None
            return found if all(found.get(k) == v for k, v in expected.items()) else None
        return lib.wait_until(matches, f"{expected} at {mount.member}")

    def test_sharers_at_another_mount(self):
        """Each mount that shares counts once; the one that began first is shown."""
        observer = self.tree(self.a.url)
        one, two = self.open(self.a("locks/l")), self.open(self.a("locks/l"))
        fcntl.flock(one, SH)
        fcntl.flock(two, SH)
        found = self.shown(observer, mode="shared", holders="1", owner=self.a.member)
        self.assertEqual(list(found), [x for x in ORDER if x in found])
        self.assertIn("since", found)
        other = self.open(self.b("locks/l"))
        fcntl.flock(other, SH)
        self.shown(observer, mode="shared", holders="2", owner=self.a.member)
        self.assertIn(f"owner={self.a.member}", lib.sh('cat "$1"/*', observer("locks")).stdout)
        fcntl.flock(one, UN)
        self.shown(observer, mode="shared", holders="2", owner=self.a.member)
        fcntl.flock(two, UN)
        self.shown(observer, mode="shared", holders="1", owner=self.b.member)
        fcntl.flock(other, EX)
        self.assertNotIn("holders", self.shown(observer, mode="exclusive", owner=self.b.member))
        fcntl.flock(other, SH)
        self.shown(observer, mode="shared", holders="1", owner=self.b.member)
        fcntl.flock(one, SH)
        self.shown(observer, mode="shared", holders="2", owner=self.b.member)
        self.b.kill()
        self.shown(observer, mode="shared", holders="1", owner=self.a.member)
        fcntl.flock(one, UN)
        lib.wait_until(lambda: not os.path.exists(observer("locks/l")), "the last release")

    def test_garbage_about_sharers(self):
        """What others write into the files of sessions counts for nothing, and hurts nobody."""
        observer = self.tree(self.a.url)
        fcntl.flock(self.open(self.a("locks/l")), SH)
        fcntl.flock(self.open(self.b("locks/l")), SH)
        self.shown(observer, holders="2")
        sessions = os.path.join(self.a.url.removeprefix("file://"), ".toozfs", "sessions")
        for name in os.listdir(sessions):
            with open(os.path.join(sessions, name), "r+b", buffering=0) as f:
                if self.a.member.encode() in f.read():
                    continue
                self.assertTrue(f.seek(1024) and f.write(b"tzs1\xff\xff"))
                self.assertTrue(f.seek(4096) and f.write(b"tzh1" + b"\xff" * 3000))
                f.truncate(1 << 40)
        with open(os.path.join(sessions, "f" * 32), "wb") as f:
            f.write(b"\xff" * 8192)
        os.symlink("/etc/passwd", os.path.join(sessions, "e" * 32))
        os.mkfifo(os.path.join(sessions, "d" * 32))
        fd = self.open(self.a("locks/l2"))
        fcntl.flock(fd, SH)
        fcntl.flock(fd, UN)
        other = self.tree(self.a.url)
        found = lib.fields(lib.read(other("locks/l")))
        self.assertEqual((found["mode"], found["holders"], found["owner"]),
                         ("shared", "1", self.a.member))
        self.assertEqual(os.listdir(other("locks")), ["l"])


if __name__ == "__main__":
    lib.main()
