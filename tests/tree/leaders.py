# SPDX-License-Identifier: Apache-2.0
"""Elections: campaigning, standing down, under which id, who leads."""
import errno
import fcntl
import os

import lib
from lib import EX, NB, SH, UN

RW = os.O_RDWR | os.O_CREAT


class Leaders:
    odd = "%2Ea%2Fb"

    def setUp(self):
        super().setUp()
        os.mkdir(self.a("groups/g"))
        self.here, self.there = self.a("leaders/g"), self.b("leaders/g")

    def leader(self):
        try:
            return lib.read(self.there).decode()
        except FileNotFoundError:
            return None

    def test_no_leader(self):
        self.assertEqual(os.listdir(self.a("leaders")), [])
        self.assertFalse(os.path.exists(self.here))
        self.fails(errno.ENOENT, lib.read, self.here)

    def test_no_such_group(self):
        self.fails(errno.ENOENT, os.open, self.a("leaders/none"), RW)
        self.assertNotEqual(lib.sh('flock -n "$1" true', self.a("leaders/none")).returncode, 0)

    def test_lead_while_a_command_runs(self):
        done = lib.sh('flock "$1" sh -c \'cat "$0"; ls "$1"\' "$2" "$3"', self.here, self.there,
                      self.b("leaders"))
        self.assertEqual(done.stdout, f"{self.a.member}\ng\n", done.stderr)
        lib.wait_until(lambda: self.leader() is None, "standing down")
        self.assertEqual(os.listdir(self.b("leaders")), [])

    def test_one_leader(self):
        fd = self.open(self.here)
        fcntl.flock(fd, EX)
        for path in (self.here, self.there):
            self.fails(errno.EAGAIN, fcntl.flock, self.open(path), EX | NB)
            self.fails(errno.EEXIST, os.open, path, RW | os.O_EXCL)
        self.assertEqual(self.leader(), self.a.member + "\n")

    def test_succession(self):
        one, two = self.agent(), self.agent()
        one.open_flock(self.here, RW, EX)
        two.start("flock", two.open(self.there), EX)
        two.wait_blocked()
        self.stays_blocked(two)
        one.kill()
        two.result()
        self.assertEqual(self.leader(), self.b.member + "\n")

    def test_unlock_stands_down(self):
        fd = self.open(self.here)
        fcntl.flock(fd, EX)
        fcntl.flock(fd, UN)
        lib.wait_until(lambda: self.leader() is None)
        fcntl.flock(self.open(self.there), EX | NB)

    def test_exclusive_creation(self):
        fd = self.open(self.here, RW | os.O_EXCL)
        self.assertEqual(self.leader(), self.a.member + "\n")
        os.close(fd)
        lib.wait_until(lambda: self.leader() is None)

    def test_shared_makes_no_sense(self):
        self.fails(errno.EINVAL, fcntl.flock, self.open(self.here), SH | NB)
        self.fails(errno.EINVAL, fcntl.flock, self.open(self.here), SH)
        self.assertIsNone(self.leader())

    def test_opening_campaigns_for_nothing(self):
        self.open(self.here)
        self.assertIsNone(self.leader())
        self.assertEqual(os.listdir(self.b("leaders")), [])

    def test_under_the_id_of_a_member(self):
        lib.write(self.a("groups/g/worker"), b"")
        done = lib.sh('exec 9<>"$1"; echo worker >&9 || exit 9; flock 9 && cat "$2"', self.here,
                      self.there)
        self.assertEqual((done.returncode, done.stdout), (0, "worker\n"), done.stderr)

    def test_under_an_id_that_is_no_member(self):
        fd = self.open(self.here)

        def campaign():
            os.write(fd, b"nobody\n")
            fcntl.flock(fd, EX | NB)
        error = self.fails((errno.EACCES, errno.EPERM, errno.ENOENT, errno.EINVAL), campaign)
        self.assertIsNotNone(error)
        self.assertIsNone(self.leader())

    def test_reading_the_leading_handle(self):
        done = lib.sh('exec 9<>"$1"; flock 9; cat <&9; cat <&9', self.here)
        self.assertEqual(done.stdout, f"{self.a.member}\n" * 2, done.stderr)

    def test_fsync(self):
        fd = self.open(self.here)
        fcntl.flock(fd, EX)
        os.fsync(fd)

    def test_break(self):
        agent = self.agent()
        fd = agent.open_flock(self.here, RW, EX)
        os.unlink(self.there)
        fcntl.flock(self.open(self.there), EX)

        lib.wait_until(lambda: lib.lost(agent.fsync, fd), "the loss")

    def test_fcntl_campaigns_too(self):
        fd = self.open(self.here)
        fcntl.lockf(fd, EX)
        self.assertEqual(self.leader(), self.a.member + "\n")
        fcntl.lockf(fd, UN)
        lib.wait_until(lambda: self.leader() is None)

    def test_group_names_are_encoded(self):
        os.mkdir(self.a("groups", self.odd))
        fcntl.flock(self.open(self.a("leaders", self.odd)), EX)
        self.assertEqual(os.listdir(self.b("leaders")), [self.odd])


class LeadersMemory(Leaders, lib.Memory):
    pass


class TwoMounts(Leaders):
    def test_under_the_id_of_another_mounts_member(self):
        lib.write(self.b("groups/g/theirs"), b"")
        fd = self.open(self.here)

        def campaign():
            os.write(fd, b"theirs\n")
            fcntl.flock(fd, EX | NB)
        self.fails((errno.EACCES, errno.EPERM, errno.ENOENT, errno.EINVAL), campaign)


class LeadersFile(TwoMounts, lib.File):
    pass


class LeadersRedis(TwoMounts, lib.Redis):
    pass


class LeadersZooKeeper(TwoMounts, lib.ZooKeeper):
    odd = "%2Ea%25b"  # no name has a slash there


if __name__ == "__main__":
    lib.main()
