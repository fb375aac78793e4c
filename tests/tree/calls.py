# SPDX-License-Identifier: Apache-2.0
"""Calls that the tree refuses or answers in a way of its own, and what .tooz/ says."""
import ctypes
import errno
import fcntl
import os
import signal
import socket
import stat

import lib
from lib import EX, NB, SH, UN

RW = os.O_RDWR | os.O_CREAT


class Calls(lib.Case):
    def setUp(self):
        self.a = self.tree()
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"caps")
        self.fd = self.open(self.a("locks/l"))
        fcntl.flock(self.fd, EX)

    def files(self):
        return self.a("locks/l"), self.a("groups/g/m"), self.a(".tooz/driver")

    def test_rename(self):
        for path in self.files():
            self.fails(errno.EPERM, os.rename, path, path + "2")
        self.fails(errno.EPERM, os.rename, self.a("groups/g"), self.a("groups/h"))
        self.fails(errno.EPERM, os.rename, self.a("locks"), self.a("locks2"))
        self.fails(errno.EPERM, os.rename, self.a("groups/g/m"), self.a("locks/m"))

    def test_link(self):
        for path in self.files():
            self.fails(errno.EPERM, os.link, path, path + "2")

    def test_symlink(self):
        for folder in ("", "locks", "leaders", "groups", "groups/g", ".tooz"):
            self.fails(errno.EPERM, os.symlink, "x", self.a(folder, "new"))

    def test_mknod(self):
        for folder in ("", "locks", "leaders", "groups", "groups/g", ".tooz"):
            self.fails(errno.EPERM, os.mkfifo, self.a(folder, "new"))
            self.fails(errno.EPERM, os.mknod, self.a(folder, "new"), stat.S_IFREG | 0o600)
            with socket.socket(socket.AF_UNIX) as s:
                self.fails(errno.EPERM, s.bind, self.a(folder, "new"))

    def test_mkdir(self):
        for folder in ("", "locks", "leaders", "groups/g", ".tooz"):
            self.fails(errno.EPERM, os.mkdir, self.a(folder, "new"))

    def test_create_in_fixed_places(self):
        for folder in ("", "groups", ".tooz"):
            self.fails((errno.EPERM, errno.EACCES), os.open, self.a(folder, "new"), RW)

    def test_fixed_things_stay(self):
        for path in (".tooz/driver",):
            self.fails((errno.EPERM, errno.EACCES), os.unlink, self.a(path))
            self.fails((errno.EPERM, errno.EACCES), os.open, self.a(path), os.O_WRONLY)
        for path in ("locks", "leaders", "groups", ".tooz"):
            self.fails((errno.EPERM, errno.EACCES, errno.EBUSY, errno.ENOTEMPTY), os.rmdir,
                       self.a(path))

    def test_chmod(self):
        for path in (*self.files(), self.a("locks"), self.a("groups/g"), self.a.path):
            st = os.stat(path)
            os.chmod(path, stat.S_IMODE(st.st_mode))
            self.fails(errno.EPERM, os.chmod, path, 0o600 if stat.S_ISREG(st.st_mode) else 0o700)

    def test_chown(self):
        for path in (*self.files(), self.a("locks"), self.a("groups/g")):
            os.chown(path, 0, 0)
            os.chown(path, -1, -1)
            self.fails(errno.EPERM, os.chown, path, 12345, 0)
            self.fails(errno.EPERM, os.chown, path, -1, 12345)

    def test_utimens(self):
        for path in (self.a("locks/l"), self.a("groups/g/m"), self.a("groups/g")):
            os.utime(path)
            os.utime(path, (1, 1))
        os.utime(self.fd)

    def test_fallocate(self):
        self.fails(errno.EOPNOTSUPP, posix_fallocate, self.fd)
        self.fails(errno.EOPNOTSUPP, posix_fallocate, self.open(self.a("groups/g/m"), os.O_RDWR))

    def test_xattrs(self):
        for path in self.files():
            self.fails(errno.EOPNOTSUPP, os.setxattr, path, "user.x", b"1")
            self.fails(errno.EOPNOTSUPP, os.setxattr, path, "user.tooz.token", b"1")
            self.fails(errno.ENODATA, os.getxattr, path, "user.x")
            self.fails(errno.ENODATA, os.getxattr, path, "security.capability")

    def test_ls_with_acls_is_quiet(self):
        for path in ("", "locks", "groups/g", ".tooz"):
            done = lib.sh('ls -la "$1"', self.a(path))
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_shared_mmap(self):
        import mmap
        for fd in (self.fd, self.open(self.a("groups/g/m"), os.O_RDWR)):
            for prot in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
                libc = lib.libc
                libc.mmap.restype = ctypes.c_void_p
                libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                                      ctypes.c_int, ctypes.c_long]
                got = libc.mmap(None, 4096, prot, mmap.MAP_SHARED, fd, 0)
                self.assertEqual(got, ctypes.c_void_p(-1).value)
                self.assertEqual(ctypes.get_errno(), errno.ENODEV)

    def test_statfs(self):
        for path in ("", "locks", "locks/l"):
            st = os.statvfs(self.a(path))
            self.assertEqual((st.f_blocks, st.f_bfree, st.f_files, st.f_namemax), (0, 0, 0, 255))
        self.assertEqual(lib.sh('df "$1"', self.a.path).returncode, 0)

    def test_link_counts(self):
        for path in ("", "locks", "leaders", "groups", "groups/g", ".tooz", "locks/l"):
            self.assertEqual(os.stat(self.a(path)).st_nlink, 1, path)

    def test_find_enters_everything(self):
        found = lib.sh('cd "$1" && find . -type f', self.a.path).stdout.split()
        self.assertIn("./locks/l", found)
        self.assertIn("./groups/g/m", found)
        self.assertIn("./.tooz/driver", found)

    def test_flock_on_a_directory_is_local(self):
        one, two = self.open(self.a("locks"), os.O_RDONLY), self.open(self.a("locks"), os.O_RDONLY)
        fcntl.flock(one, EX)
        self.fails(errno.EAGAIN, fcntl.flock, two, EX | NB)

    def test_locks_on_other_files(self):
        fd = self.open(self.a(".tooz/driver"), os.O_RDONLY)
        self.fails(errno.EOPNOTSUPP, fcntl.flock, fd, EX | NB)
        self.fails(errno.EOPNOTSUPP, fcntl.flock, fd, SH)
        self.fails(errno.EOPNOTSUPP, lib.fcntl_lock, fd, fcntl.F_SETLK, fcntl.F_RDLCK)

    def test_what_there_is(self):
        self.assertEqual(sorted(os.listdir(self.a.path)),
                         [".tooz", "events", "groups", "leaders", "locks", "rings"])
        self.fails(errno.ENOENT, os.stat, self.a("nothing"))

    def test_wrong_kind(self):
        self.fails(errno.ENOTDIR, os.listdir, self.a("locks/l"))
        self.fails(errno.EISDIR, os.open, self.a("locks"), os.O_RDWR)
        self.fails(errno.EISDIR, os.unlink, self.a("groups/g"))
        self.fails(errno.ENOTDIR, os.rmdir, self.a("groups/g/m"))

    def test_rewinddir_reads_anew(self):
        fd = self.open(self.a("groups/g"), os.O_RDONLY | os.O_DIRECTORY)
        self.assertEqual(os.listdir(fd), ["m"])
        lib.write(self.a("groups/g/m2"), b"")
        self.assertEqual(sorted(os.listdir(fd)), ["m", "m2"])

    def test_poll(self):
        import select
        poll = select.poll()
        poll.register(self.fd, select.POLLIN | select.POLLOUT | select.POLLPRI)
        self.assertEqual(poll.poll(50), [], "a healthy holding handle polls as nothing")
        os.unlink(self.a("locks/l"))  # ours, so a release: the handle is an ordinary one again
        other = self.open(self.a("groups/g/m"), os.O_RDWR)
        poll = select.poll()
        poll.register(other, select.POLLIN | select.POLLOUT)
        self.assertEqual(len(poll.poll(1000)), 1)

    def test_poll_tells_a_loss(self):
        import select
        holder = self.agent()
        fd = holder.open_flock(self.a("locks/polled"), RW, EX)
        holder.start("poll", fd, select.POLLIN, int(lib.PATIENCE_S * 1000))
        self.stays_blocked(holder)
        os.unlink(self.a("locks/polled"))
        self.assertEqual(holder.result(), select.POLLIN | select.POLLERR | select.POLLHUP)
        holder.flock(fd, UN)

    def test_about(self):
        about = {name: lib.read(self.a(".tooz", name)).decode()
                 for name in os.listdir(self.a(".tooz"))}
        self.assertLessEqual({"driver", "url", "member", "state", "characteristics", "session",
                              "version"}, set(about))
        self.assertEqual(about["driver"].strip(), "memory")
        self.assertEqual(about["member"].strip(), self.a.member)
        self.assertEqual(about["state"], "connected\n")
        self.assertTrue(about["url"].startswith("memory://"))
        for name in about:
            self.fails((errno.EACCES, errno.EPERM), os.open, self.a(".tooz", name), os.O_WRONLY)


def posix_fallocate(fd):
    if lib.libc.fallocate(fd, 0, ctypes.c_long(0), ctypes.c_long(100)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Interrupted(lib.File):
    """Signals end no call but flock and F_SETLKW, as on other file systems."""

    def setUp(self):
        super().setUp()
        before = signal.signal(signal.SIGALRM, lambda *_: None)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        signal.siginterrupt(signal.SIGALRM, False)

    def call(self, name, *args):
        """By libc: Python makes an interrupted call again."""
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0005)
        result = getattr(lib.libc, name)(*args)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")
        return result

    def test_calls(self):
        os.mkdir(self.a("groups/g"))
        for i in range(60):
            self.call("mkdir", self.a("groups/h").encode(), 0o755)
            self.call("access", self.b("groups/h").encode(), 0)
            self.call("rmdir", self.a("groups/h").encode())
            fd = self.call("open", self.a(f"groups/g/m{i}").encode(), RW, 0o666)
            self.call("write", fd, b"caps", ctypes.c_size_t(4))
            self.call("write", fd, b"more", ctypes.c_size_t(4))
            self.call("close", fd)
            self.assertEqual(lib.read(self.b(f"groups/g/m{i}")), b"capsmore")
            # The kernel tells of a close later.
            lib.wait_until(lambda: not os.path.exists(self.a("locks/l")), "the last round's release")
            fd = self.call("open", self.a("locks/l").encode(), RW | os.O_EXCL, 0o666)
            self.call("fsync", fd)
            self.call("close", fd)


class ReadOnly(lib.Case):
    """-o ro: an observer."""

    def test_observer(self):
        url = "file://" + self.store()
        writer, observer = self.tree(url), self.tree(url, "ro")
        os.mkdir(writer("groups/g"))
        lib.write(writer("groups/g/m"), b"caps")
        fd = self.open(writer("locks/l"))
        fcntl.flock(fd, EX)
        self.assertEqual(lib.read(observer("groups/g/m")), b"caps")
        self.assertEqual(os.listdir(observer("locks")), ["l"])
        self.assertIn(b"mode=exclusive", lib.read(observer("locks/l")))
        for call in (lambda: lib.write(observer("groups/g/o"), b"x"),
                     lambda: os.mkdir(observer("groups/h")),
                     lambda: os.rmdir(observer("groups/g")),
                     lambda: os.unlink(observer("locks/l")),
                     lambda: os.open(observer("locks/new"), RW),
                     lambda: os.open(observer("locks/l"), os.O_RDWR),
                     lambda: fcntl.flock(self.open(observer("locks/l"), os.O_RDONLY), EX | NB)):
            self.fails(errno.EROFS, call)


if __name__ == "__main__":
    lib.main()
