# SPDX-License-Identifier: Apache-2.0
"""file:// on a bad store: files that do not decode, a full disk, a read-only directory."""
import errno
import fcntl
import hashlib
import os
import subprocess
import time

import lib
from lib import EX, NB, SH, UN

RW = os.O_RDWR | os.O_CREAT
LOOK_S = 6  # what no event tells is looked after every five seconds
HOSTILE = [b"", b"\xc1", b"garbage", b"\x84", b"\xdd\x01\x00\x00\x00", b"\xdf\xff\xff\xff\xff",
           b"\xdb\xff\xff\xff\xffx", b"\xc6\xff\xff\xff\xff", b"\x91" * 10000, b"\xdc\xff\xff" * 1000,
           b"\x81\xaccapabilities", b"\x80", b"\xc0", bytes(4096), os.urandom(300),
           b"\x84\xaccapabilities\xdd\x7f\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01"]


def sha1(name):
    return hashlib.sha1(name.encode()).hexdigest()


def rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(next(x for x in f if x.startswith("VmHWM")).split()[1])


class Corrupt(lib.File):
    def setUp(self):
        super().setUp()
        self.dir = self.a.url[len("file://"):]
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/good"), b"good")
        lib.write(self.a("groups/g/bad"), b"bad")
        self.group = os.path.join(self.dir, "groups", sha1("g"))
        self.bad = os.path.join(self.group, sha1("bad") + ".raw")

    def alive(self, tree):
        self.assertEqual(lib.read(tree("groups/g/good")), b"good")
        self.assertIn("good", os.listdir(tree("groups/g")))
        fcntl.flock(self.open(tree("locks/alive")), SH)
        self.assertLess(rss_kib(tree.pid), 200 * 1024)

    def test_member_files(self):
        self.assertTrue(os.path.exists(self.bad), os.listdir(self.group))
        with open(self.bad, "rb") as f:
            whole = f.read()
        cut = [whole[:n] for n in range(0, len(whole), 7)]
        flipped = [whole[:n] + bytes([whole[n] ^ 0xff]) + whole[n + 1:]
                   for n in range(0, len(whole), 5)]
        for data in HOSTILE + cut + flipped:
            with open(self.bad, "wb") as f:
                f.write(data)
            for tree in (self.a, self.b):
                try:
                    lib.read(tree("groups/g/bad"))
                except OSError as error:
                    self.assertIn(error.errno, (errno.EBADMSG, errno.ENOENT), data[:20])
                done = lib.sh('ls -l "$1"; true', tree("groups/g"))
                self.assertIn("good", done.stdout)
        self.alive(self.a)
        self.alive(self.b)

    def test_capabilities_that_do_not_decode(self):
        with open(self.bad, "rb") as f:
            whole = f.read()
        self.assertIn(b"\xa3bad", whole)
        with open(self.bad, "wb") as f:
            f.write(whole.replace(b"\xa3bad", b"\xc1\xc1\xc1\xc1"))
        self.fails((errno.EBADMSG, errno.ENOENT), lib.read, self.b("groups/g/bad"))
        self.alive(self.b)

    def test_stray_member_file(self):
        for i, data in enumerate(HOSTILE):
            with open(os.path.join(self.group, sha1(f"stray{i}") + ".raw"), "wb") as f:
                f.write(data)
        os.mkdir(os.path.join(self.group, sha1("directory") + ".raw"))
        os.symlink("/etc/passwd", os.path.join(self.group, sha1("link") + ".raw"))
        os.mkfifo(os.path.join(self.group, sha1("fifo") + ".raw"))
        self.alive(self.a)
        self.alive(self.b)

    def test_group_metadata(self):
        path = os.path.join(self.dir, "groups", sha1("h"))
        os.mkdir(path)
        for data in HOSTILE:
            with open(os.path.join(path, ".metadata"), "wb") as f:
                f.write(data)
            for tree in (self.a, self.b):
                self.assertIn("g", os.listdir(tree("groups")))
        with open(os.path.join(self.dir, "groups", "stray"), "wb") as f:
            f.write(b"x")
        self.assertIn("g", os.listdir(self.b("groups")))
        self.alive(self.b)

    def test_abandoned_members(self):
        """A Python client's file is in the way for six time-outs, and hidden after one."""
        tree = self.tree(self.a.url, "membership_timeout=10")
        with open(self.bad, "rb") as f:
            theirs = f.read().replace(b"session", b"another")
        os.unlink(self.a("groups/g/good"))
        os.unlink(self.a("groups/g/bad"))
        with open(self.bad, "wb") as f:
            f.write(theirs)
        lib.wait_until(lambda: os.listdir(tree("groups/g")) == ["bad"], "the member")
        os.utime(self.bad, (time.time() - 25,) * 2)
        lib.wait_until(lambda: os.listdir(tree("groups/g")) == [], "the end of its time")
        self.fails(errno.ENOTEMPTY, os.rmdir, tree("groups/g"))
        os.utime(self.bad, (time.time() - 70,) * 2)
        os.rmdir(tree("groups/g"))

    def test_lock_file_content(self):
        """The counter in the lock file is garbage: the lock still works and tokens still grow."""
        last = 0
        for data in HOSTILE + [b"9" * 20 + b"\n", b"18446744073709551615\n", b"-1\n",
                               b"0" * 20 + b"\n", b"00000000000000000042\n"]:
            with open(os.path.join(self.dir, "l"), "wb") as f:
                f.write(data)
            for tree in (self.a, self.b):
                fd = self.open(tree("locks/l"))
                try:
                    fcntl.flock(fd, EX | NB)
                except OSError as error:
                    self.assertNotEqual(error.errno, errno.EAGAIN, data[:20])
                    continue
                token = int(lib.fields(os.pread(fd, 4096, 0)).get("token", "0"))
                if data in HOSTILE:
                    self.assertGreater(token, 0, data[:20])
                    self.assertLess(token, 1 << 63)
                self.assertGreater(token, last, data[:20])
                fcntl.flock(fd, UN)
                last = token
                os.close(fd)
        self.alive(self.a)

    def test_lock_name_that_is_a_directory(self):
        os.mkdir(os.path.join(self.dir, "dir"))
        fd = self.open(self.a("locks/dir"))
        watch = lib.Stopwatch()
        with self.assertRaises(OSError):
            fcntl.flock(fd, EX | NB)
        watch.within(15 * lib.SLOW)
        self.alive(self.a)

    def test_lock_name_that_is_a_fifo_or_a_link(self):
        os.mkfifo(os.path.join(self.dir, "fifo"))
        os.symlink("/nonexistent/x", os.path.join(self.dir, "link"))
        for name in ("fifo", "link"):
            agent = self.agent()
            try:
                agent.open_flock(self.a("locks", name), RW, EX | NB)
            except OSError:
                pass
        self.alive(self.a)

    def test_side_files(self):
        """Whatever lies below .toozfs is garbage."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        side = os.path.join(self.dir, ".toozfs")
        for folder, _, _ in list(os.walk(side)):
            for i, data in enumerate(HOSTILE):
                with open(os.path.join(folder, f"stray{i}"), "wb") as f:
                    f.write(data)
        self.fails(errno.EAGAIN, fcntl.flock, self.open(self.b("locks/l")), EX | NB)
        lib.sh('ls -lR "$1"; cat "$1"/locks/*', self.b.path)
        fcntl.flock(fd, UN)
        fcntl.flock(self.open(self.b("locks/l")), EX)
        self.alive(self.b)
        again = self.tree(self.a.url)
        self.alive(again)

    def test_driver_lock_stopped(self):
        """Somebody stopped sits on .driver_lock: errors in bounded time, locks go on."""
        agent = self.agent()
        agent.fcntl_lock(agent.open(os.path.join(self.dir, ".driver_lock")), fcntl.F_SETLK,
                         fcntl.F_WRLCK)
        a = self.agent()
        fd = self.open(self.b("locks/l"))
        fcntl.flock(fd, EX)
        fcntl.flock(fd, UN)
        watch = lib.Stopwatch()
        a.start("mkdir", self.a("groups/h"))
        try:
            a.result(30 * lib.SLOW)
        except OSError as error:
            self.assertIn(error.errno, (errno.ETIMEDOUT, errno.EHOSTDOWN))
        watch.within(15 * lib.SLOW)
        agent.kill()

        def works():
            try:
                return lib.read(self.a("groups/g/good")) == b"good"
            except OSError:
                return False
        lib.wait_until(works, "recovery", 3 * lib.PATIENCE_S)


class Mounted(lib.Case):
    """A store on a file system of its own."""

    def tmpfs(self, options):
        path = self.store()
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", path], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", path], check=False)
        return path

    def test_full_disk(self):
        path = self.tmpfs("size=256k")
        a, b = self.tree("file://" + path), self.tree("file://" + path)
        os.mkdir(a("groups/g"))
        lib.write(a("groups/g/m"), b"before")
        held = self.open(a("locks/held"))
        fcntl.flock(held, EX)
        with open(os.path.join(path, "ballast"), "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(512))
            except OSError:
                pass
        self.fails(errno.ENOSPC, lib.write, a("groups/g/big"), b"x" * 100000)
        self.fails(errno.ENOSPC, lib.write, a("groups/g/m"), b"y" * 100000)
        self.assertEqual(lib.read(b("groups/g/m")), b"before", "a failed update lost the old one")
        self.assertNotIn("big", os.listdir(b("groups/g")))
        for i in range(50):
            try:
                fcntl.flock(self.open(a("locks", f"l{i}")), EX | NB)
            except OSError as error:
                self.assertIn(error.errno, (errno.ENOSPC, errno.ENOLCK))
        os.fsync(held)
        fcntl.flock(held, UN)
        os.unlink(os.path.join(path, "ballast"))
        fcntl.flock(self.open(b("locks/held")), EX)
        lib.write(a("groups/g/m"), b"after")
        self.assertEqual(lib.read(b("groups/g/m")), b"after")

    def test_read_only_store(self):
        path = self.tmpfs("size=1m")
        a = self.tree("file://" + path)
        os.mkdir(a("groups/g"))
        lib.write(a("groups/g/m"), b"x")
        a.stop()
        subprocess.run(["mount", "-o", "remount,ro", path], check=True)
        lib.Tree.count += 1
        point = os.path.join(lib.WORK, f"ro{lib.Tree.count}")
        os.mkdir(point)
        done = subprocess.run([lib.TOOZFS, "file://" + path, point], capture_output=True, text=True,
                              timeout=30 * lib.SLOW, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("ead-only", done.stderr)
        observer = self.tree("file://" + path, "ro")
        self.assertEqual(os.listdir(observer("groups")), ["g"])

    def test_store_becomes_read_only(self):
        path = self.store()
        a = self.tree("file://" + path)
        os.mkdir(a("groups/g"))
        subprocess.run(["mount", "--bind", path, path], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", path], check=False)
        b = self.tree("file://" + path)
        subprocess.run(["mount", "-o", "remount,ro,bind", path], check=False, capture_output=True)
        watch = lib.Stopwatch()
        for tree in (a, b):
            try:
                lib.write(tree("groups/g/m"), b"x")
                os.unlink(tree("groups/g/m"))
            except OSError as error:
                self.assertIn(error.errno, (errno.EROFS, errno.EACCES, errno.EIO))
            self.assertIsNone(tree.process.poll())
        watch.within(30 * lib.SLOW)

    def test_store_removed(self):
        path = self.store()
        a = self.tree("file://" + path)
        os.mkdir(a("groups/g"))
        subprocess.run(["rm", "-rf", path], check=True)
        watch = lib.Stopwatch()
        for call in (lambda: os.listdir(a("groups")), lambda: os.mkdir(a("groups/h")),
                     lambda: fcntl.flock(self.open(a("locks/l")), EX | NB)):
            try:
                call()
            except OSError:
                pass
        watch.within(40 * lib.SLOW)
        self.assertIsNone(a.process.poll())

    def state(self, tree):
        return lib.read(tree(".tooz/state")).decode().strip()

    def held(self, tree):
        fd = self.open(tree("locks/l"))
        fcntl.flock(fd, EX)
        return fd

    def again(self, path, *trees):
        """The mounts are back, and exclude each other and a new one."""
        for tree in trees:
            lib.wait_until(lambda: self.state(tree) == "connected", f"{tree.member} to be back")
        fd = self.held(trees[0])
        for tree in trees[1:] + (self.tree("file://" + path),):
            self.fails(errno.EAGAIN, fcntl.flock, self.open(tree("locks/l")), EX | NB)
        fcntl.flock(fd, UN)

    def test_store_moved(self):
        """Two mounts of one URL on two directories would both hold: the older one has lost."""
        path = self.store()
        a, b = self.tree("file://" + path), self.tree("file://" + path)
        fd = self.held(a)
        os.rename(path, path + ".old")
        self.told_of_loss(fd, LOOK_S)
        lib.wait_until(lambda: self.state(a) != "connected", "the loss of the session")
        self.assertFalse(os.path.exists(path), "a directory that was moved was made again")
        os.mkdir(path)
        self.again(path, a, b)
        self.says(a, path + ", or a directory in it, was moved")
        self.assertEqual(os.listdir(os.path.join(path + ".old", ".toozfs", "sessions")), [])

    def test_store_covered(self):
        path = self.store()
        a = self.tree("file://" + path, "membership_timeout=2")
        fd = self.held(a)
        subprocess.run(["mount", "-t", "tmpfs", "none", path], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", path], check=False)
        self.told_of_loss(fd, LOOK_S)
        self.again(path, a)

    def test_store_removed_under_a_holder(self):
        path = self.store()
        a = self.tree("file://" + path)
        os.mkdir(a("groups/g"))
        lib.write(a("groups/g/m"), b"x")
        fd = self.held(a)
        subprocess.run(["rm", "-rf", path], check=True)
        self.told_of_loss(fd, LOOK_S)
        lib.wait_until(lambda: "cannot open the session again" in a.read_log(), "the loss of the session")
        self.assertFalse(os.path.exists(path), "a directory that was removed was made again")
        os.mkdir(path)
        self.again(path, a)
        self.assertEqual(os.listdir(a("groups")), [])

    def test_our_side_removed(self):
        """Without its session file a mount counts as dead."""
        path = self.store()
        a, b = self.tree("file://" + path), self.tree("file://" + path)
        fd = self.held(a)
        subprocess.run(["rm", "-rf", os.path.join(path, ".toozfs")], check=True)
        self.told_of_loss(fd, LOOK_S)
        self.again(path, a, b)

    def test_our_session_file_removed(self):
        path = self.store()
        a = self.tree("file://" + path)
        fd = self.held(a)
        sessions = os.path.join(path, ".toozfs", "sessions")
        (session,) = os.listdir(sessions)
        os.unlink(os.path.join(sessions, session))
        self.told_of_loss(fd, LOOK_S)
        self.again(path, a)

    def refused(self, url, options=""):
        lib.Tree.count += 1
        point = os.path.join(lib.WORK, f"refused{lib.Tree.count}")
        os.mkdir(point)
        done = subprocess.run([lib.TOOZFS, url, point, "-o", "member=m" + options],
                              capture_output=True, text=True, timeout=30 * lib.SLOW, check=False)
        self.assertNotEqual(done.returncode, 0, url)
        return done.stderr

    def test_directories_that_no_url_names(self):
        path = self.store()
        self.assertIn("#", self.refused(f"file://{path}/a#b"))
        self.assertIn("#", self.refused(f"file://{path}/a?executor=x#"))
        self.assertEqual(os.listdir(path), [])
        for url in ("file:///", "file:////", "file:///.", "file:///./.."):
            self.assertIn("root directory", self.refused(url))

    def test_long_path(self):
        """An error tells the end of the path."""
        path = os.path.join(self.store(), "long" * 30, "the-end")
        self.assertIn("the-end does not exist", self.refused("file://" + path))

    def test_claim_kept_locked(self):
        path = self.store()
        a = self.tree("file://" + path, member="m")
        a.stop()
        claim = os.path.join(path, ".toozfs", "members", sha1("m"))
        agent = self.agent()
        agent.fcntl_lock(agent.open(claim), fcntl.F_SETLK, fcntl.F_WRLCK)
        watch = lib.Stopwatch()
        text = self.refused("file://" + path, ",timeout=1")
        self.assertIn("members/" + sha1("m") + " locked", text)
        watch.within(3 * lib.SLOW)

    def test_lock_file_removed_under_a_holder(self):
        """The path gives another file: our holding is worth nothing and must say so, or be kept."""
        path = self.store()
        a, b = self.tree("file://" + path), self.tree("file://" + path)
        fd = self.open(a("locks/l"))
        fcntl.flock(fd, EX)
        os.unlink(os.path.join(path, "l"))
        other = self.open(b("locks/l"))
        try:
            fcntl.flock(other, EX | NB)
        except OSError:
            return
        self.fails(errno.EIO, os.fsync, fd)


if __name__ == "__main__":
    lib.main(240)
