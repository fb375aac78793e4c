# SPDX-License-Identifier: Apache-2.0
"""Several users on one mount: modes, owners, who may take, break, leave and remove."""
import errno
import fcntl
import os
import stat

import lib
from lib import EX, NB, SH, UN

ALICE, BOB, CAROL, OPS = 61001, 61002, 61003, 61010
NOBODY = 65534  # fusermount3 wants to know the name of who mounts
RW = os.O_RDWR | os.O_CREAT
NO = (errno.EACCES, errno.EPERM)


class Shared(lib.Case):
    """A mount of root's that others may use."""

    options = f"allow_other,gid={OPS},umask=002"

    def setUp(self):
        self.a = self.tree("memory://", self.options)
        self.alice = self.agent(ALICE, groups=[OPS])
        self.bob = self.agent(BOB, groups=[OPS])
        self.carol = self.agent(CAROL)

    def test_modes_and_owners(self):
        for path in ("locks", "leaders", "groups"):
            st = os.stat(self.a(path))
            self.assertEqual((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid), (0o775, 0, OPS))
        self.alice.umask(0o077)
        self.alice.mkdir(self.a("groups/g"))
        self.alice.write(self.a("groups/g/m"), b"x")
        self.alice.open_flock(self.a("locks/l"), RW, EX)
        for path, mode in (("groups/g", 0o775), ("groups/g/m", 0o664), ("locks/l", 0o664)):
            st = os.stat(self.a(path))
            self.assertEqual((stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid), (mode, 0, OPS), path)

    def test_two_users_take_turns(self):
        fd = self.alice.open_flock(self.a("locks/l"), RW, EX)
        found = lib.fields(lib.read(self.a("locks/l")))
        self.assertEqual((found["uid"], found["pid"]), (str(ALICE), str(self.alice.pid)))
        other = self.bob.open(self.a("locks/l"))
        self.fails(errno.EAGAIN, self.bob.flock, other, EX | NB)
        self.bob.start("flock", other, EX)
        self.bob.wait_blocked()
        self.alice.flock(fd, UN)
        self.bob.result()
        self.assertEqual(lib.fields(lib.read(self.a("locks/l")))["uid"], str(BOB))

    def test_flock_command_of_two_users(self):
        """With fs.protected_regular=2, as distributions set it."""
        with sysctl("fs/protected_regular", "2"):
            fd = self.alice.open_flock(self.a("locks/l"), RW, EX)
            code, _, err = self.bob.system("flock", "-n", self.a("locks/l"), "true")
            self.assertEqual((code, err), (1, ""))
            self.alice.close(fd)
            code, _, err = self.bob.system("flock", "-w", "5", self.a("locks/l"), "true")
            self.assertEqual((code, err), (0, ""))
            self.open(self.a("locks/l"), RW)

    def test_others_may_look_only(self):
        self.fails(errno.EACCES, self.carol.open, self.a("locks/l"))
        self.fails(errno.EACCES, self.carol.mkdir, self.a("groups/c"))
        self.alice.mkdir(self.a("groups/g"))
        self.alice.write(self.a("groups/g/m"), b"caps")
        self.fails(errno.EACCES, self.carol.write, self.a("groups/g/c"), b"x")
        self.fails(errno.EACCES, self.carol.write, self.a("groups/g/m"), b"x")
        self.assertEqual(self.carol.read(self.a("groups/g/m")), b"caps")
        fd = self.alice.open_flock(self.a("locks/l"), RW, EX)
        self.assertIn(b"uid=", self.carol.read(self.a("locks/l")))
        self.assertEqual(self.carol.listdir(self.a("locks")), ["l"])
        look = self.carol.open(self.a("locks/l"), os.O_RDONLY)
        for mode in (EX, SH, EX | NB, SH | NB):
            self.fails(errno.EACCES, self.carol.flock, look, mode)
        self.fails(errno.EACCES, self.carol.fcntl_lock, look, fcntl.F_SETLK, fcntl.F_RDLCK)
        self.fails(errno.EACCES, self.carol.unlink, self.a("locks/l"))
        self.alice.flock(fd, UN)
        self.fails(errno.EACCES, self.carol.flock, look, SH | NB)
        self.assertEqual(os.listdir(self.a("locks")), [])

    def test_read_only_handle_of_who_may_write(self):
        fd = self.alice.open(self.a("locks/l"), os.O_RDONLY | os.O_CREAT)
        self.alice.flock(fd, EX)
        self.assertEqual(os.listdir(self.a("locks")), ["l"])

    def test_who_may_break_a_lock(self):
        fd = self.alice.open_flock(self.a("locks/l"), RW, EX)
        self.fails(NO, self.bob.unlink, self.a("locks/l"))
        self.fails(errno.EEXIST, self.bob.open, self.a("locks/l"), RW | os.O_EXCL)
        self.alice.fsync(fd)
        other = self.agent(ALICE, groups=[OPS])
        other.unlink(self.a("locks/l"))
        self.fails(errno.EIO, self.alice.fsync, fd)
        self.alice.flock(fd, UN)
        self.alice.flock(fd, EX)
        os.unlink(self.a("locks/l"))
        self.fails(errno.EIO, self.alice.fsync, fd)

    def test_who_may_end_shares(self):
        """Of a lock that users share each may end his own, and the owner all."""
        for first, second in ((self.alice, self.bob), (self.bob, self.alice)):
            fds = {agent: agent.open_flock(self.a("locks/l"), RW, SH) for agent in (first, second)}
            self.fails(NO, self.carol.unlink, self.a("locks/l"))
            self.agent(BOB, groups=[OPS]).unlink(self.a("locks/l"))
            self.fails(errno.EIO, self.bob.fsync, fds[self.bob])
            self.alice.fsync(fds[self.alice])
            os.unlink(self.a("locks/l"))
            self.fails(errno.EIO, self.alice.fsync, fds[self.alice])
            for agent, fd in fds.items():
                agent.close(fd)

    def test_who_may_bind_a_member(self):
        """With the handle it would leave."""
        self.alice.mkdir(self.a("groups/g"))
        self.alice.write(self.a("groups/g/m"), b"x")
        fd = self.bob.open(self.a("groups/g/m"), RW)
        self.fails(NO, self.bob.flock, fd, EX | NB)
        self.bob.close(fd)
        self.assertEqual(os.listdir(self.a("groups/g")), ["m"])
        fd = self.alice.open_flock(self.a("groups/g/m"), RW, EX | NB)
        self.alice.close(fd)
        lib.wait_until(lambda: not os.listdir(self.a("groups/g")), "the end of the member")

    def test_who_may_make_a_member_leave(self):
        self.alice.mkdir(self.a("groups/g"))
        for leaver in (self.alice, self.agent()):
            self.alice.write(self.a("groups/g/m"), b"x")
            self.fails(NO, self.bob.unlink, self.a("groups/g/m"))
            self.fails(NO, self.carol.unlink, self.a("groups/g/m"))
            leaver.unlink(self.a("groups/g/m"))
        self.assertEqual(os.listdir(self.a("groups/g")), [])

    def test_who_may_remove_a_group(self):
        for remover in (self.alice, self.agent()):
            self.alice.mkdir(self.a("groups/g"))
            self.fails(NO, self.bob.rmdir, self.a("groups/g"))
            self.fails(NO, self.carol.rmdir, self.a("groups/g"))
            remover.rmdir(self.a("groups/g"))

    def test_who_may_lead_as_a_member(self):
        self.alice.mkdir(self.a("groups/g"))
        self.alice.write(self.a("groups/g/worker"), b"")

        def campaign(agent):
            fd = agent.open(self.a("leaders/g"))
            agent.write_fd(fd, b"worker\n")
            agent.flock(fd, EX | NB)
        self.fails((errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOENT), campaign, self.bob)
        campaign(self.alice)
        self.assertEqual(lib.read(self.a("leaders/g")), b"worker\n")

    def test_utimens_takes_write_permission(self):
        self.alice.open_flock(self.a("locks/l"), RW, EX)
        self.bob.utime(self.a("locks/l"))
        self.fails(errno.EACCES, self.carol.utime, self.a("locks/l"))

    def test_chmod_by_others(self):
        self.alice.open_flock(self.a("locks/l"), RW, EX)
        self.fails(errno.EPERM, self.alice.chmod, self.a("locks/l"), 0o777)

    def test_killed_user(self):
        self.alice.open_flock(self.a("locks/l"), RW, EX)
        self.bob.start("flock", self.bob.open(self.a("locks/l")), EX)
        self.bob.wait_blocked()
        self.alice.kill()
        self.bob.result()


class ByDefault(lib.Case):
    """allow_other alone: only the owner takes locks."""

    def test_default_modes(self):
        a = self.tree("memory://", "allow_other")
        alice = self.agent(ALICE)
        self.fails(errno.EACCES, alice.open, a("locks/l"))
        self.assertEqual(alice.listdir(a("locks")), [])
        self.fails(errno.EACCES, alice.mkdir, a("groups/g"))
        self.assertEqual(os.stat(a("locks")).st_mode & 0o7777, 0o755)

    def test_without_allow_other(self):
        a = self.tree("memory://")
        self.fails(errno.EACCES, self.agent(ALICE).listdir, a.path)

    def test_open_to_all(self):
        a = self.tree("memory://", "allow_other,umask=0")
        fd = self.agent(ALICE).open_flock(a("locks/l"), RW, EX)
        self.assertEqual(os.stat(a("locks/l")).st_mode & 0o7777, 0o666)
        self.assertEqual(os.stat(a("locks")).st_mode & 0o7777, 0o777)
        self.assertIsNotNone(fd)

    def test_owner_by_option(self):
        a = self.tree("memory://", f"allow_other,uid={ALICE},gid={ALICE}")
        alice, bob = self.agent(ALICE), self.agent(BOB)
        fd = alice.open_flock(a("locks/l"), RW, EX)
        self.assertEqual(os.stat(a("locks/l")).st_uid, ALICE)
        self.fails(errno.EACCES, bob.open, a("locks/k"))
        alice.flock(fd, UN)
        root = self.open(a("locks/l"))
        fcntl.flock(root, EX)
        alice.unlink(a("locks/l"))
        self.fails(errno.EIO, os.fsync, root)


class OrdinaryUser(lib.Case):
    """A mount by a user who is not root, through fusermount3."""

    def setUp(self):
        mode = os.stat("/dev/fuse").st_mode & 0o777
        if mode & 0o006 != 0o006:
            os.chmod("/dev/fuse", 0o666)
            self.addCleanup(os.chmod, "/dev/fuse", mode)
        self.a = self.tree("memory://", agent_uid=NOBODY)
        self.alice = self.agent(NOBODY)

    def test_use(self):
        lib.wait_until(lambda: "locks" in self.alice.listdir(self.a.path))
        self.assertEqual(self.alice.read(self.a(".tooz/state")), b"connected\n")
        fd = self.alice.open_flock(self.a("locks/l"), RW, EX)
        other = self.agent(NOBODY)
        self.fails(errno.EEXIST, other.open, self.a("locks/l"), RW | os.O_EXCL)
        self.alice.close(fd)
        self.alice.mkdir(self.a("groups/g"))
        self.alice.write(self.a("groups/g/m"), b"x")
        self.assertEqual(other.stat(self.a("groups/g/m"))[4], NOBODY)
        self.assertEqual(other.read(self.a("groups/g/m")), b"x")

    def test_nobody_else_sees_it(self):
        self.fails(errno.EACCES, self.agent(BOB).listdir, self.a.path)
        self.fails(errno.EACCES, os.listdir, self.a.path)

    def test_unmount_by_the_user(self):
        done = self.alice.system("fusermount3", "-u", self.a.path)
        self.assertEqual(done[0], 0, done)
        self.assertEqual(self.a.wait_exit(), 0)


class sysctl:
    def __init__(self, name, value):
        self.path, self.value = "/proc/sys/" + name, value

    def __enter__(self):
        with open(self.path, encoding="ascii") as f:
            self.before = f.read()
        self.set(self.value)

    def set(self, value):
        with open(self.path, "w", encoding="ascii") as f:
            f.write(value)

    def __exit__(self, *_):
        self.set(self.before)


if __name__ == "__main__":
    lib.main()
