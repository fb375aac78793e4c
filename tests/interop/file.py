# SPDX-License-Identifier: Apache-2.0
"""The file driver and Python's, on one directory, both ways round."""
import errno
import hashlib
import os
import shutil
import signal
import stat
import time

import common
import interop
import lib
from lib import EX, NB, UN, fields, read, touch, wait_until, write

import fasteners
import fcntl


def sha(name):
    return hashlib.sha1(name).hexdigest()


def driver_lock(directory):
    interop.state["driver"] = fasteners.InterProcessLock(os.path.join(directory, ".driver_lock"))
    return interop.state["driver"].acquire()


lib.ACTIONS["driver_lock"] = driver_lock


class File(common.Base):
    MEMBERSHIP_S = 2
    options = f"membership_timeout={MEMBERSHIP_S}"

    def setUp(self):
        self.dir = self.store()
        self.url = "file://" + self.dir
        self.mount = self.tree(self.url, self.options)

    def raw(self, group, member):
        return os.path.join(self.dir, "groups", sha(group), sha(member) + ".raw")


class Groups(common.Groups, File):
    def test_names(self):
        py = self.peer()
        for name, shown in ((b"a/b", "a%2Fb"), (b"100%", "100%25"), (b".x", "%2Ex"),
                            ("é".encode(), "é")):
            self.assertIsNone(py.create(name))
            self.sees([shown], "groups")
            os.rmdir(self.mount("groups", shown))
            os.mkdir(self.mount("groups", shown))
            self.assertEqual(py.groups(), {name})
            os.rmdir(self.mount("groups", shown))

    def test_str_ids(self):
        """Ids that Python gave as str are stored as UTF-8 with a mark."""
        py = self.python(self.url, "m-str")
        self.assertIsNone(py.create("g-str"))
        self.assertIsNone(py.join("g-str", "x"))
        self.sees(["g-str"], "groups")
        self.sees(["m-str"], "groups/g-str")

    def test_metadata(self):
        os.mkdir(self.mount("groups/g1"))
        path = os.path.join(self.dir, "groups", sha(b"g1"), ".metadata")
        self.assertEqual(read(path), bytes.fromhex(
            "82a867726f75705f6964c4026731a7656e636f646564c2"))
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode) & 0o444, 0o444)


class Members(common.Members, File):
    def test_python_dies(self):
        """A Python member without heartbeats is hidden when its time is over, and can be replaced."""
        py = self.peer(b"py", heart=False)
        begin = time.monotonic()
        self.assertIsNone(py.join(b"g"))
        self.sees(["py"], "groups/g")
        py.kill()
        names = self.names("groups/g")
        if time.monotonic() - begin < self.MEMBERSHIP_S:
            self.assertEqual(names, ["py"])
        wait_until(lambda: self.names("groups/g") == [], "the dead member to be hidden")
        self.fails(errno.ENOENT, read, self.mount("groups/g/py"))
        self.assertTrue(os.path.exists(self.raw(b"g", b"py")))
        touch(self.mount("groups/g/py"))
        self.assertEqual(self.names("groups/g"), ["py"])

    def test_python_wakes(self):
        """A hidden member that beats again is there again."""
        py = self.peer(b"py", heart=False, timeout=60)
        self.assertIsNone(py.join(b"g"))
        wait_until(lambda: self.names("groups/g") == [], "the member to be hidden")

        def beats():
            py.heartbeat()
            return self.names("groups/g") == ["py"]
        wait_until(beats, "the member to come back", 1 * lib.SLOW)

    def test_future(self):
        py = self.peer(b"py", heart=False)
        self.assertIsNone(py.join(b"g"))
        os.utime(self.raw(b"g", b"py"), (time.time() + 1000,) * 2)
        wait_until(lambda: self.names("groups/g") == [], "the member from the future to be hidden")
        self.assertEqual(py.members(b"g"), set())

    def test_daemon_dies(self):
        """What a killed daemon joined is gone at once, for mounts and for Python."""
        other = self.tree(self.url, self.options)
        py = self.peer()
        touch(other("groups/g/theirs"))
        touch(self.mount("groups/g/ours"))
        self.assertEqual(self.names("groups/g"), ["ours", "theirs"])
        other.kill()
        watch = lib.Stopwatch()
        wait_until(lambda: self.names("groups/g") == ["ours"], "the dead member to go")
        wait_until(lambda: py.members(b"g") == {b"ours"}, "Python to see it gone")
        watch.within(1 * lib.SLOW)
        self.assertFalse(os.path.exists(self.raw(b"g", b"theirs")))

    def test_all_daemons_die(self):
        """The next mount clears up, and takes the member id over."""
        touch(self.mount("groups/g/m"))
        member = self.mount.member
        self.mount.kill()
        self.assertTrue(os.path.exists(self.raw(b"g", b"m")))
        self.mount = self.tree(self.url, self.options, member=member)
        self.assertEqual(self.names("groups/g"), [])
        wait_until(lambda: not os.path.exists(self.raw(b"g", b"m")), "the file to be removed")
        os.rmdir(self.mount("groups/g"))

    def test_umount(self):
        super().test_umount()
        for name in "sessions", "members", "break", "waiters":
            self.assertEqual(os.listdir(os.path.join(self.dir, ".toozfs", name)), [])

    def until_lost(self, member):
        """The loss is noticed at once, not at the next touch after seconds."""
        self.until_told()
        self.assertNotIn(member, self.names("groups/g"))

    def until_told(self):
        wait_until(lambda: "removed by somebody else" in self.mount.read_log(), "the loss", 1 * lib.SLOW)

    def test_removed_while_bound(self):
        """Who is a member by its handle can join again by it."""
        py = self.peer(b"m")
        fd = self.open(self.mount("groups/g/m"))
        fcntl.flock(fd, EX)
        touch(self.mount("groups/g/other"))
        self.assertIsNone(py.leave(b"g"))
        self.until_lost("m")
        self.assertEqual(self.names("groups/g"), ["other"])
        fcntl.flock(fd, UN)
        fcntl.flock(fd, EX)
        self.assertEqual(self.names("groups/g"), ["m", "other"])
        self.assertEqual(py.members(b"g"), {b"m", b"other"})

    def test_replaced(self):
        """The member that Python put in the place of ours is Python's."""
        py = self.peer(b"m")
        write(self.mount("groups/g/m"), b"ours")
        self.assertIsNone(py.leave(b"g"))
        self.assertIsNone(py.join(b"g", b"theirs"))
        self.until_told()
        self.assertEqual(read(self.mount("groups/g/m")), b"theirs")
        self.fails(errno.EACCES, write, self.mount("groups/g/m"), b"x")
        self.fails(errno.EACCES, os.unlink, self.mount("groups/g/m"))

    def test_directory_removed(self):
        """Somebody removes the whole group by force."""
        write(self.mount("groups/g/m"), b"x")
        shutil.rmtree(os.path.dirname(self.raw(b"g", b"m")))
        self.until_told()
        wait_until(lambda: not os.path.exists(self.mount("groups/g")), "the group to go", 1 * lib.SLOW)
        self.assertEqual(self.names("groups"), [])
        os.mkdir(self.mount("groups/g"))
        write(self.mount("groups/g/m"), b"x", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self.assertEqual(self.names("groups/g"), ["m"])

    def test_garbage(self):
        """Spoilt files hide nobody else."""
        touch(self.mount("groups/g/m"))
        group = os.path.dirname(self.raw(b"g", b"x"))
        for i, data in enumerate((b"", b"\xdd\x01\x00\x00\x00", b"\xdf\xff\xff\xff\xff\xc0",
                                  b"garbage", read(self.raw(b"g", b"m"))[:40],
                                  os.urandom(3000), b"\x81\xa9member_id\xc4\xff")):
            write(os.path.join(group, sha(b"bad%d" % i) + ".raw"), data)
        with open(os.path.join(group, sha(b"huge") + ".raw"), "wb") as f:
            f.truncate(1 << 40)
        os.symlink("/etc/passwd", os.path.join(group, sha(b"link") + ".raw"))
        os.mkfifo(os.path.join(group, sha(b"fifo") + ".raw"))
        self.assertEqual(self.names("groups/g"), ["m"])
        for bad in "bad0", "bad4", "huge", "link", "fifo":
            self.fails(errno.EBADMSG, read, self.mount("groups/g", bad))
        os.makedirs(os.path.join(self.dir, "groups", sha(b"nometa")))
        bad = os.path.join(self.dir, "groups", sha(b"badmeta"))
        os.makedirs(bad)
        write(os.path.join(bad, ".metadata"), b"\xdd\xff\xff\xff\xff")
        self.assertEqual(self.names("groups"), ["g"])
        self.fails(errno.ENOENT, os.listdir, self.mount("groups/nometa"))


class Events(common.Events, File):
    UPDATES = False
    test_leads = None  # Python has no leaders there


class Capabilities(common.Capabilities, File):
    pass


class Locks(common.Locks, File):
    def shown_of(self, py):
        return {"pid": str(py.pid)}

    def test_python_cannot_be_broken(self):
        py = self.peer()
        self.assertTrue(py.acquire(b"l", blocking=False))
        self.fails(errno.EBUSY, os.unlink, self.mount("locks/l"))
        self.fails(errno.EAGAIN, fcntl.flock, self.open(self.mount("locks/l")), EX | NB)

    def test_python_is_killed(self):
        def end(py):
            py.kill()
            return self.peer()
        self.wait_for_python(end)

    def test_slashes(self):
        """A lock's name may name directories below DIR."""
        py = self.peer()
        fd = self.open(self.mount("locks/a%2Fb%2Fc"))
        fcntl.flock(fd, EX)
        self.assertTrue(os.path.isfile(os.path.join(self.dir, "a/b/c")))
        self.assertFalse(py.acquire(b"a/b/c", blocking=False))
        self.assertTrue(py.acquire(b"a/b/d", blocking=False))
        self.assertEqual(self.names("locks"), ["a%2Fb%2Fc", "a%2Fb%2Fd"])

    def test_reserved(self):
        for name in ("groups", "tmp", ".driver_lock", ".toozfs", "groups/x", "tmp/x", "..", ".",
                     "a/../b", "/etc/x", "a//b", "a/", ".toozfs/sessions/x"):
            shown = name.replace("/", "%2F")
            if shown.startswith("."):
                shown = "%2E" + shown[1:]
            with self.subTest(name=name):
                self.fails(errno.EINVAL, os.open, self.mount("locks", shown),
                           os.O_RDWR | os.O_CREAT)

    def test_links(self):
        """No symbolic link leads out of DIR."""
        outside = self.store()
        os.symlink(outside, os.path.join(self.dir, "dir"))
        os.symlink(os.path.join(outside, "file"), os.path.join(self.dir, "file"))
        for name in "dir%2Fl", "file":
            with self.subTest(name=name):
                def take():
                    fd = self.open(self.mount("locks", name))
                    fcntl.flock(fd, EX | NB)
                self.fails((errno.EINVAL, errno.EIO, errno.ENOLCK), take)
        self.assertEqual(os.listdir(outside), [])

    def test_foreign_content(self):
        """A file that holds something else can be locked, and is not written to."""
        path = os.path.join(self.dir, "thesis")
        write(path, b"It was a dark and stormy night.\n" * 10)
        fd = self.open(self.mount("locks/thesis"))
        fcntl.flock(fd, EX)
        self.assertFalse(self.peer().acquire(b"thesis", blocking=False))
        fcntl.flock(fd, UN)
        self.assertEqual(read(path), b"It was a dark and stormy night.\n" * 10)


class DriverLock(File):
    options = "timeout=3," + File.options

    def test_stopped_client(self):
        """A Python client that is stopped in an operation on groups stops those, and nothing else."""
        other = self.tree(self.url, self.options)
        os.mkdir(self.mount("groups/g"))
        os.mkdir(self.mount("groups/gone"))
        py = self.agent()
        self.assertTrue(py.driver_lock(self.dir))
        py.signal(signal.SIGSTOP)
        fd = self.open(self.mount("locks/l"))
        stuck = self.agent()
        stuck.start("write", self.mount("groups/g/m"), b"x")
        self.assertFalse(stuck.done(0.5))
        # What needs no driver lock goes on, on both mounts, also after the first time-out.
        self.others(fd, other, "before")
        self.fails((errno.ETIMEDOUT, errno.EHOSTDOWN), stuck.result)
        self.others(fd, other, "after")
        # What does fails in bounded time, on either mount.
        for mount in self.mount, other:
            watch = lib.Stopwatch()
            self.fails((errno.ETIMEDOUT, errno.EHOSTDOWN), os.rmdir, mount("groups/gone"))
            watch.within(4 * lib.SLOW)
        py.signal(signal.SIGCONT)
        py.kill()
        wait_until(lambda: self._joins(), "the group to work again")
        self.assertEqual(self.names("groups/g"), ["m"])
        self.assertEqual(self.names("groups"), ["g", "g2-after", "g2-before", "gone"])
        os.rmdir(self.mount("groups/g2-before"))
        # The other mount sees that it answers again at its next look.
        wait_until(lambda: self._removes(other("groups/g2-after")), "the other mount to go on")

    def others(self, fd, other, name):
        watch = lib.Stopwatch()
        fcntl.flock(fd, EX | NB)
        self.assertEqual(fields(read(other("locks/l")))["owner"], self.mount.member)
        fcntl.flock(fd, UN)
        os.mkdir(self.mount("groups", f"g2-{name}"))
        self.assertIn(f"g2-{name}", os.listdir(other("groups")))
        self.fails(errno.EEXIST, os.mkdir, other("groups", f"g2-{name}"))
        leader = os.open(self.mount("leaders", f"g2-{name}"), os.O_RDWR | os.O_CREAT)
        fcntl.flock(leader, EX | NB)
        self.assertEqual(read(other("leaders", f"g2-{name}")), self.mount.member.encode() + b"\n")
        os.close(leader)
        watch.within(2 * lib.SLOW)

    def _removes(self, path):
        try:
            os.rmdir(path)
            return True
        except TimeoutError:
            return False

    def _joins(self):
        try:
            write(self.mount("groups/g/m"), b"x")
            return True
        except OSError:
            return False


class Leaders(File):
    def test_python_ignores(self):
        """A leader is nothing that Python's driver would trip over."""
        py = self.peer()
        py.create(b"g")
        fd = self.open(self.mount("leaders/g"))
        fcntl.flock(fd, EX)
        self.assertEqual(read(self.mount("leaders/g")), self.mount.member.encode() + b"\n")
        self.assertEqual(py.groups(), {b"g"})
        self.assertEqual(py.members(b"g"), set())
        self.assertIsNone(py.delete(b"g"))

    def test_two_mounts(self):
        other = self.tree(self.url, self.options)
        os.mkdir(self.mount("groups/g"))
        fd = self.open(self.mount("leaders/g"))
        fcntl.flock(fd, EX)
        self.assertEqual(read(other("leaders/g")), self.mount.member.encode() + b"\n")
        next_leader = self.agent()
        handle = next_leader.open(other("leaders/g"))
        next_leader.start("flock", handle, EX)
        next_leader.wait_blocked()
        fcntl.flock(fd, UN)
        next_leader.result()
        wait_until(lambda: self.leader() == other.member.encode() + b"\n", "the new leader",
                   1 * lib.SLOW)


if __name__ == "__main__":
    lib.main(240)
