# SPDX-License-Identifier: Apache-2.0
"""Groups and members: each row of the table, from shells and from calls."""
import errno
import fcntl
import os
import time

import lib
from lib import EX, NB, SH, UN

RW = os.O_RDWR | os.O_CREAT


class Groups:
    def group(self):
        os.mkdir(self.a("groups/g"))

    def test_make_and_remove(self):
        self.assertEqual(os.listdir(self.a("groups")), [])
        os.mkdir(self.a("groups/g"))
        for mount in (self.a, self.b):
            self.fails(errno.EEXIST, os.mkdir, mount("groups/g"))
            self.assertEqual(os.listdir(mount("groups")), ["g"])
            self.assertEqual(os.listdir(mount("groups/g")), [])
        os.rmdir(self.b("groups/g"))
        for mount in (self.a, self.b):
            self.assertEqual(os.listdir(mount("groups")), [])
            self.fails(errno.ENOENT, os.rmdir, mount("groups/g"))
            self.fails(errno.ENOENT, os.listdir, mount("groups/g"))
            self.assertFalse(os.path.exists(mount("groups/g")))

    def test_the_daemon_ends_while_a_removed_group_is_open(self):
        """What it still had is freed, which a sanitizer checks."""
        self.group()
        self.open(self.a("groups/g"), os.O_RDONLY)
        os.rmdir(self.a("groups/g"))
        self.a.process.terminate()
        self.assertEqual(self.a.wait_exit(), 0)

    def test_remove_with_members(self):
        self.group()
        lib.write(self.a("groups/g/m"), b"x")
        for mount in (self.a, self.b):
            self.fails(errno.ENOTEMPTY, os.rmdir, mount("groups/g"))
        os.unlink(self.a("groups/g/m"))
        os.rmdir(self.b("groups/g"))

    def test_join_show_leave(self):
        self.group()
        done = lib.sh('echo caps > "$1"', self.a("groups/g/m"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for mount in (self.a, self.b):
            self.assertEqual(os.listdir(mount("groups/g")), ["m"])
            self.assertEqual(lib.read(mount("groups/g/m")), b"caps\n")
        os.unlink(self.a("groups/g/m"))
        for mount in (self.a, self.b):
            self.assertEqual(os.listdir(mount("groups/g")), [])
            self.fails(errno.ENOENT, lib.read, mount("groups/g/m"))
            self.fails(errno.ENOENT, os.unlink, mount("groups/g/m"))

    def test_update(self):
        self.group()
        for text in (b"one", b"two", b"", b"three"):
            lib.write(self.a("groups/g/m"), text)
            for mount in (self.a, self.b):
                self.assertEqual(lib.read(mount("groups/g/m")), text)

    def test_no_such_group(self):
        for call in (lambda: lib.write(self.a("groups/none/m"), b"x"),
                     lambda: lib.read(self.a("groups/none/m")),
                     lambda: os.unlink(self.a("groups/none/m"))):
            self.fails(errno.ENOENT, call)

    def test_group_removed_between_open_and_write(self):
        self.group()
        fd = self.open(self.a("groups/g/m"), os.O_WRONLY | os.O_CREAT)
        os.rmdir(self.a("groups/g"))
        self.fails(errno.ENOENT, os.write, fd, b"x")

    def test_joined_by_another_while_open(self):
        self.group()
        fd = self.open(self.a("groups/g/m"), os.O_WRONLY | os.O_CREAT)
        lib.write(self.b("groups/g/m"), b"first")
        if self.crossing:
            self.fails(errno.EACCES, os.write, fd, b"second")
            self.assertEqual(lib.read(self.a("groups/g/m")), b"first")

    def test_exclusive_creation(self):
        self.group()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        lib.write(self.a("groups/g/m"), b"x", flags)
        for mount in (self.a, self.b):
            self.fails(errno.EEXIST, lib.write, mount("groups/g/m"), b"y", flags)
        self.assertEqual(lib.read(self.b("groups/g/m")), b"x")

    def test_open_to_create_joins_nothing(self):
        self.group()
        fd = self.open(self.a("groups/g/m"), RW)
        for mount in (self.a, self.b):
            self.assertEqual(os.listdir(mount("groups/g")), [])
            self.assertFalse(os.path.exists(mount("groups/g/m")))
        os.write(fd, b"caps")
        for mount in (self.a, self.b):
            self.assertEqual(lib.read(mount("groups/g/m")), b"caps")

    def test_members_of_two_mounts(self):
        self.group()
        lib.write(self.a("groups/g/m1"), b"1")
        lib.write(self.b("groups/g/m2"), b"2")
        for mount in (self.a, self.b):
            self.assertEqual(sorted(os.listdir(mount("groups/g"))), ["m1", "m2"])
            done = lib.sh('ls -l "$1"', mount("groups/g"))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(len(done.stdout.splitlines()), 3)

    def test_touch(self):
        self.group()
        lib.touch(self.a("groups/g/m"))
        self.assertEqual(lib.read(self.b("groups/g/m")), b"")
        lib.write(self.a("groups/g/m"), b"caps")
        lib.touch(self.a("groups/g/m"))
        self.assertEqual(lib.read(self.b("groups/g/m")), b"caps")

    def test_fsync_joins(self):
        self.group()
        fd = self.open(self.a("groups/g/m"), RW)
        os.fsync(fd)
        self.assertEqual(lib.read(self.b("groups/g/m")), b"")

    def test_last_close_joins(self):
        self.group()
        os.close(os.open(self.a("groups/g/m"), os.O_WRONLY | os.O_CREAT, 0o666))
        self.assertEqual(lib.read(self.a("groups/g/m")), b"")
        self.assertEqual(lib.sh(': > "$1"', self.a("groups/g/m2")).returncode, 0)
        self.assertEqual(sorted(os.listdir(self.a("groups/g"))), ["m", "m2"])

    def test_close_of_a_read_only_handle_joins_nothing(self):
        self.group()
        os.close(os.open(self.a("groups/g/m"), os.O_RDONLY | os.O_CREAT, 0o666))
        self.assertFalse(os.path.exists(self.a("groups/g/m")))
        self.assertEqual(os.listdir(self.b("groups/g")), [])

    def test_directories_only_below_groups(self):
        self.group()
        self.fails(errno.EPERM, os.mkdir, self.a("groups/g/sub"))

    def test_times(self):
        self.group()
        before = time.time() - 1
        lib.write(self.a("groups/g/m"), b"x")
        joined = os.stat(self.a("groups/g/m"))
        self.assertTrue(before < joined.st_ctime < time.time() + 1)
        self.assertEqual(joined.st_mtime_ns, joined.st_ctime_ns, "one join, no update")
        lib.wait_until(lambda: time.time() > joined.st_ctime + 0.02)
        lib.write(self.a("groups/g/m"), b"y")
        updated = os.stat(self.a("groups/g/m"))
        self.assertEqual(updated.st_ctime_ns, joined.st_ctime_ns)
        self.assertGreater(updated.st_mtime_ns, joined.st_mtime_ns)

    def test_modes(self):
        self.group()
        lib.write(self.a("groups/g/m"), b"x")
        self.assertEqual(os.stat(self.a("groups/g")).st_mode & 0o7777, 0o755)
        self.assertEqual(os.stat(self.a("groups/g/m")).st_mode & 0o7777, 0o644)
        if self.crossing:
            self.assertEqual(os.stat(self.b("groups/g/m")).st_mode & 0o7777, 0o444)

    def test_rm_r(self):
        self.group()
        for i in range(20):
            lib.write(self.a("groups/g", f"m{i}"), b"x")
        done = lib.sh('rm -r "$1"', self.a("groups/g"))
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(os.listdir(self.b("groups")), [])

    def test_many_members(self):
        self.group()
        names = {f"member-{i:04}" for i in range(500)}
        for name in names:
            lib.write(self.a("groups/g", name), name.encode())
        for mount in (self.a, self.b):
            self.assertEqual(set(os.listdir(mount("groups/g"))), names)
        self.assertEqual(lib.read(self.b("groups/g/member-0123")), b"member-0123")

    # ---- Membership bound to a handle ----

    def test_flock_binds(self):
        self.group()
        done = lib.sh('flock "$1" ls "$2"', self.a("groups/g/m"), self.b("groups/g"))
        self.assertEqual((done.returncode, done.stdout), (0, "m\n"), done.stderr)
        lib.wait_until(lambda: os.listdir(self.b("groups/g")) == [], "the leave")

    def test_flock_joins_with_nothing(self):
        self.group()
        fd = self.open(self.a("groups/g/m"), RW)
        fcntl.flock(fd, EX)
        self.assertEqual(lib.read(self.b("groups/g/m")), b"")
        os.write(fd, b"caps")
        self.assertEqual(lib.read(self.b("groups/g/m")), b"caps")
        fcntl.flock(fd, UN)
        lib.wait_until(lambda: os.listdir(self.b("groups/g")) == [], "the leave")

    def test_flock_binds_a_member_that_is_joined(self):
        self.group()
        lib.write(self.a("groups/g/m"), b"caps")
        fd = self.open(self.a("groups/g/m"), os.O_RDWR)
        fcntl.flock(fd, EX)
        self.assertEqual(lib.read(self.b("groups/g/m")), b"caps")
        os.close(fd)
        lib.wait_until(lambda: os.listdir(self.b("groups/g")) == [], "the leave")

    def test_close_after_the_unlock_joins_nothing(self):
        """Whatever the handle has not published by then: nothing at all, an unfinished value, a
        truncation; and whoever joined the member first."""
        self.group()
        path = self.a("groups/g/m")
        for lock in (fcntl.flock, fcntl.lockf):
            for joined in (False, True):
                for flags, text in ((0, b""), (0, b'{"a":'), (os.O_TRUNC, b""), (os.O_TRUNC, b"[")):
                    with self.subTest(lock=lock.__name__, joined=joined, flags=flags, text=text):
                        if joined:
                            lib.write(path, b'{"a":1}')
                        fd = os.open(path, RW | flags, 0o666)
                        try:
                            os.write(fd, text)
                            lock(fd, EX)
                            self.assertEqual(os.listdir(self.b("groups/g")), ["m"])
                            lock(fd, UN)
                            if not text:
                                self.assertEqual(os.listdir(self.a("groups/g")), [])
                        finally:
                            os.close(fd)
                        self.assertEqual(os.listdir(self.a("groups/g")), [])
                        self.assertEqual(os.listdir(self.b("groups/g")), [])

    def test_fcntl_lock_that_the_close_ends(self):
        self.group()
        fd = os.open(self.a("groups/g/m"), RW, 0o666)
        os.write(fd, b'{"a":')
        fcntl.lockf(fd, EX)
        os.close(fd)
        lib.wait_until(lambda: os.listdir(self.b("groups/g")) == [], "the leave")
        self.assertEqual(os.listdir(self.a("groups/g")), [])

    def test_a_write_after_the_unlock_joins_again(self):
        self.group()
        fd = os.open(self.a("groups/g/m"), RW, 0o666)
        fcntl.flock(fd, EX)
        fcntl.flock(fd, UN)
        self.assertEqual(os.listdir(self.a("groups/g")), [])
        os.write(fd, b"one")
        self.assertEqual(os.listdir(self.b("groups/g")), ["m"])
        os.ftruncate(fd, 0)
        os.write(fd, b"[1,")
        os.close(fd)
        self.assertEqual(lib.read(self.a("groups/g/m")), b"[1,")

    def test_flock_excludes_among_handles(self):
        self.group()
        one = self.open(self.a("groups/g/m"), RW)
        two = self.open(self.a("groups/g/m"), RW)
        fcntl.flock(one, EX)
        self.fails(errno.EAGAIN, fcntl.flock, two, SH | NB)
        fcntl.flock(one, SH)
        fcntl.flock(two, SH | NB)
        fcntl.flock(one, UN)
        self.assertEqual(os.listdir(self.b("groups/g")), ["m"])
        os.close(two)
        lib.wait_until(lambda: os.listdir(self.b("groups/g")) == [], "the leave")

    def test_flock_waits_for_the_other_handle(self):
        self.group()
        one, two = self.agent(), self.agent()
        fd = one.open_flock(self.a("groups/g/m"), RW, EX)
        two.start("flock", two.open(self.a("groups/g/m")), EX)
        two.wait_blocked()
        one.close(fd)
        two.result()
        self.assertEqual(os.listdir(self.b("groups/g")), ["m"])

    def test_killed_server_leaves(self):
        self.group()
        agent = self.agent()
        agent.open_flock(self.a("groups/g/m"), RW, EX)
        self.assertEqual(os.listdir(self.b("groups/g")), ["m"])
        agent.kill()
        lib.wait_until(lambda: os.listdir(self.b("groups/g")) == [], "the leave")

    def test_without_flock_the_member_stays(self):
        self.group()
        agent = self.agent()
        agent.write(self.a("groups/g/m"), b"x")
        agent.kill()
        self.assertEqual(os.listdir(self.b("groups/g")), ["m"])

    def test_listing_is_a_snapshot(self):
        self.group()
        for i in range(100):
            lib.write(self.a("groups/g", f"m{i}"), b"x")
        with os.scandir(self.a("groups/g")) as scan:
            names = {next(scan).name}
            for i in range(100):
                os.unlink(self.a("groups/g", f"m{i}"))
            names |= {x.name for x in scan}
        self.assertEqual(len(names), 100)
        self.assertEqual(os.listdir(self.a("groups/g")), [])


class GroupsMemory(Groups, lib.Memory):
    pass


class TwoMounts(Groups):
    """What only two mounts can show: members of others."""

    def others_member(self):
        self.group()
        lib.write(self.a("groups/g/m"), b"x")
        return self.b("groups/g/m")

    def test_not_ours_cannot_be_written(self):
        path = self.others_member()
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC,
                      os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
            self.fails(errno.EACCES, os.open, path, flags)
        self.assertEqual(lib.read(self.a("groups/g/m")), b"x")

    def test_not_ours_cannot_be_removed(self):
        path = self.others_member()
        self.fails(errno.EACCES, os.unlink, path)
        self.assertEqual(lib.read(path), b"x")

    def test_not_ours_cannot_be_touched(self):
        path = self.others_member()
        self.fails(errno.EACCES, os.utime, path)
        self.assertNotEqual(lib.sh('touch "$1"', path).returncode, 0)
        self.fails(errno.EACCES, os.truncate, path, 0)

    def test_not_ours_cannot_be_locked(self):
        path = self.others_member()
        fd = self.open(path, os.O_RDONLY)
        self.fails(errno.EACCES, fcntl.flock, fd, EX | NB)
        self.fails(errno.EACCES, fcntl.flock, fd, SH)

    def test_rm_r_removes_ours_and_fails_on_the_others(self):
        self.others_member()
        lib.write(self.b("groups/g/mine"), b"y")
        done = lib.sh('rm -rf "$1"', self.b("groups/g"))
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(os.listdir(self.a("groups/g")), ["m"])

    def test_our_own_id_is_ours(self):
        """A member that bears the mount's id belongs to it, whoever joined it."""
        self.group()
        lib.write(self.a("groups/g", self.b.member), b"x")
        self.assertEqual(lib.read(self.b("groups/g", self.b.member)), b"x")
        os.unlink(self.b("groups/g", self.b.member))
        self.assertEqual(os.listdir(self.a("groups/g")), [])

    def test_left_behind_name_can_be_joined_again(self):
        self.others_member()
        os.unlink(self.a("groups/g/m"))
        lib.write(self.b("groups/g/m"), b"y")
        self.assertEqual(lib.read(self.a("groups/g/m")), b"y")
        self.fails(errno.EACCES, os.unlink, self.a("groups/g/m"))


class GroupsFile(TwoMounts, lib.File):
    pass


class GroupsRedis(TwoMounts, lib.Redis):
    pass


class GroupsZooKeeper(TwoMounts, lib.ZooKeeper):
    pass


if __name__ == "__main__":
    lib.main()
