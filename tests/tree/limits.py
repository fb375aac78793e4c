# SPDX-License-Identifier: Apache-2.0
"""What one user may take: bytes for each uid, handles that cost others nothing, old snapshots."""
import errno
import fcntl
import os
import resource
import subprocess

import lib
from lib import EX, UN

ALICE, BOB = 61001, 61002
RW = os.O_RDWR | os.O_CREAT
DIR = os.O_RDONLY | os.O_DIRECTORY
MIB = 1 << 20
BUDGET_MIB = 64


def until_refused(code, call, most):
    """Calls until it is refused with code; how often it was not. AssertionError: never."""
    for i in range(most):
        try:
            call(i)
        except OSError as error:
            if error.errno != code:
                raise
            return i
    raise AssertionError(f"not refused {most} times")


class Bytes(lib.Case):
    """What handles keep is counted for the uid that opened them."""

    def setUp(self):
        self.a = self.tree("memory://", "allow_other,umask=0")
        os.mkdir(self.a("groups/g"))
        self.alice, self.bob = self.agent(ALICE), self.agent(BOB)

    def begin_draft(self, agent, fds):
        """1 MiB of JSON that has no end."""
        fds.append(agent.open(self.a("groups/g/m")))
        text = b'{"a":"' + b"x" * (MIB - 7)
        while text:
            text = text[agent.write_fd(fds[-1], text):]

    def test_drafts(self):
        fds = []
        count = until_refused(errno.EDQUOT, lambda i: self.begin_draft(self.alice, fds), 80)
        self.assertEqual(count, BUDGET_MIB)
        self.begin_draft(self.bob, [])
        self.alice.write(self.a("groups/g/other"), None)
        self.fails(errno.EDQUOT, self.alice.write, self.a("groups/g/m"), b"x")
        for fd in fds[:2]:
            self.alice.ftruncate(fd, 0)
            self.alice.close(fd)
        self.alice.write(self.a("groups/g/m"), b"small")
        self.assertEqual(lib.read(self.a("groups/g/m")), b"small")

    def test_contents(self):
        lib.write(self.a("groups/g/m"), b"x" * (MIB - 16))
        path = self.a("groups/g/m")
        for i in range(BUDGET_MIB + 10):
            self.assertEqual(len(self.alice.read_fd(self.alice.open(path, os.O_RDONLY))), MIB - 16)
        count = until_refused(errno.EDQUOT, lambda i: self.alice.pread(
            self.alice.open(path, os.O_RDONLY), 1, 0), BUDGET_MIB + 10)
        self.assertGreaterEqual(count, BUDGET_MIB)
        self.assertEqual(self.bob.pread(self.bob.open(path, os.O_RDONLY), 1, 0), b"x")

    def test_listings(self):
        for i in range(2000):
            lib.write(self.a(f"groups/g/{i}{'n' * 100}"), b"x")
        fds = []
        count = until_refused(
            errno.ENFILE, lambda i: fds.append(self.alice.open(self.a("groups/g"), DIR)), 500)
        self.assertGreater(count, 10)
        self.fails(errno.ENFILE, self.alice.listdir, self.a("groups/g"))
        self.assertEqual(len(self.bob.listdir(self.a("groups/g"))), 2000)
        for fd in fds[:2]:
            self.alice.close(fd)
        self.assertEqual(len(self.alice.listdir(self.a("groups/g"))), 2000)


class Files(lib.Case):
    """Where a lock takes open files of the daemon, one user cannot take them all."""

    def test_locks(self):
        store, path = (lib.tempfile.mkdtemp(prefix=name, dir=lib.WORK) for name in ("store", "m"))
        self.spawn("prlimit", "--nofile=2000", lib.TOOZFS, "file://" + store, path, "-o",
                   "foreground,allow_other,umask=0", stderr=subprocess.DEVNULL)
        self.addCleanup(lib.sh, 'umount -l "$1"', path)
        lib.wait_until(lambda: lib.mounted(path), "the mount")
        locks = os.path.join(path, "locks/")
        alice, bob = self.agent(ALICE), self.agent(BOB)
        count = until_refused(errno.ENFILE, lambda i: alice.open_flock(f"{locks}{i}", RW, EX), 1000)
        self.assertIn(count, range(200, 251))
        for i in range(100):
            bob.open_flock(f"{locks}b{i}", RW, EX)
        self.assertEqual(len(os.listdir(locks)), count + 100)


class Cost(lib.Case):
    """An open handle of a directory costs those nothing who lock in it."""

    def setUp(self):
        self.a = self.tree()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (8192, max(8192, before[1])))
        # On one core: to wake another one up costs more than what is measured.
        cores = os.sched_getaffinity(0)
        self.addCleanup(os.sched_setaffinity, 0, cores)
        for pid in (0, self.a.pid):
            os.sched_setaffinity(pid, {min(cores)})

    def daemon_ns(self):
        with open(f"/proc/{self.a.pid}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[0])

    def pairs_ns(self):
        """The daemon's CPU time for open, flock and close of a free lock: the least of some slices."""
        best = None
        for _ in range(8):
            begin = self.daemon_ns()
            for _ in range(100):
                fd = os.open(self.a("locks/l"), RW)
                fcntl.flock(fd, EX)
                os.close(fd)
            passed = self.daemon_ns() - begin
            best = min(best or passed, passed)
        return best

    def test_directory_handles(self):
        self.open(self.a("locks/other"))
        before = self.pairs_ns()
        for _ in range(6000):
            self.open(self.a("locks"), DIR)
        self.assertLess(self.pairs_ns(), 3 * before)


class Snapshots(lib.Case):
    """A directory that is kept open does not answer for ever with what it saw."""

    def setUp(self):
        self.a, self.b = self.pair()

    def test_lock_released_elsewhere(self):
        fd = self.open(self.b("locks/l"))
        fcntl.flock(fd, EX)
        kept = self.open(self.a("locks"), DIR)
        fcntl.flock(fd, UN)

        def taken():
            try:
                return os.open("l", RW | os.O_EXCL, dir_fd=kept)
            except FileExistsError:
                return None
        os.close(lib.wait_until(taken, "O_EXCL"))
        self.assertFalse(os.path.exists(self.a("locks/l")))

    def test_member_left_and_joined_elsewhere(self):
        os.mkdir(self.a("groups/g"))
        lib.write(self.b("groups/g/m"), b"x")
        self.open(self.a("groups/g"), DIR)
        os.unlink(self.b("groups/g/m"))
        lib.wait_until(lambda: not os.path.exists(self.a("groups/g/m")), "the leave")
        lib.write(self.b("groups/g/m"), b"longer")
        self.assertEqual(os.stat(self.a("groups/g/m")).st_size, 6)

    def test_changed_here(self):
        """What this mount changed is asked at once, whoever has the directory open."""
        os.mkdir(self.a("groups/g"))
        for i in range(50):
            lib.write(self.a(f"groups/g/m{i}"), b"x")
        for i in range(50):
            self.open(self.a("groups/g"), DIR)
            lib.write(self.a(f"groups/g/m{i}"), b"longer")
            self.assertEqual(os.stat(self.a(f"groups/g/m{i}")).st_size, 6)
            os.unlink(self.a(f"groups/g/m{i}"))
            self.assertFalse(os.path.exists(self.a(f"groups/g/m{i}")))


class Makers(lib.Case):
    """Who made a group may remove it, but not another one of that name."""

    def setUp(self):
        self.a, self.b = self.pair("allow_other,umask=0")
        self.alice = self.agent(ALICE)

    def test_removed_and_looked_at(self):
        self.alice.mkdir(self.a("groups/g"))
        os.rmdir(self.b("groups/g"))
        lib.wait_until(lambda: not os.path.exists(self.a("groups/g")), "the removal")
        os.mkdir(self.b("groups/g"))
        self.fails(errno.EACCES, self.alice.rmdir, self.a("groups/g"))

    def test_removed_unseen(self):
        """There are no records without end of groups that others removed."""
        for i in range(1024):
            self.alice.mkdir(self.a(f"groups/g{i}"))
        os.rmdir(self.b("groups/g0"))
        self.alice.mkdir(self.a("groups/more"))
        self.assertEqual(len(os.listdir(self.a("groups"))), 1024)
        os.mkdir(self.b("groups/g0"))
        self.fails(errno.EACCES, self.alice.rmdir, self.a("groups/g0"))
        self.alice.rmdir(self.a("groups/g1"))
        self.alice.rmdir(self.a("groups/more"))


if __name__ == "__main__":
    lib.main()
