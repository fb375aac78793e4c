# SPDX-License-Identifier: Apache-2.0
"""Acquiring and releasing locks with flock(1) and flock(2), on one mount and between two."""
import errno
import os
import signal
import subprocess
import time

import lib
from lib import EX, NB, SH, UN


class Flock:
    def test_command_runs_and_releases(self):
        done = lib.sh('flock "$1" cat "$1"', self.a("locks/l"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("mode=exclusive", done.stdout)
        lib.wait_until(lambda: not os.path.exists(self.b("locks/l")), "release")

    def test_command_nonblocking(self):
        fd = self.open(self.a("locks/l"))
        lib.fcntl.flock(fd, EX)
        self.assertEqual(lib.sh('flock -n "$1" true', self.b("locks/l")).returncode, 1)
        self.assertEqual(lib.sh('flock -n -E 9 "$1" true', self.b("locks/l")).returncode, 9)
        lib.fcntl.flock(fd, UN)
        lib.wait_until(lambda: lib.sh('flock -n "$1" true', self.b("locks/l")).returncode == 0,
                       "the release", 1 * lib.SLOW)

    def test_command_times_out(self):
        fd = self.open(self.a("locks/l"))
        lib.fcntl.flock(fd, EX)
        begin = time.monotonic()
        self.assertEqual(lib.sh('flock -w 0.5 "$1" true', self.b("locks/l")).returncode, 1)
        self.assertGreaterEqual(time.monotonic() - begin, 0.45)
        lib.fcntl.flock(fd, UN)
        self.assertEqual(lib.sh('flock -w 5 "$1" true', self.b("locks/l")).returncode, 0)

    def test_command_shared(self):
        fd = self.open(self.a("locks/l"))
        lib.fcntl.flock(fd, SH)
        self.assertEqual(lib.sh('flock -s -n "$1" true', self.b("locks/l")).returncode, 0)
        self.assertEqual(lib.sh('flock -n "$1" true', self.b("locks/l")).returncode, 1)

    def test_tokens_grow(self):
        """The same one by each of the ways to it, above all before it, whichever mount took the lock."""
        os.mkdir(self.a("groups/g"))
        for path in ("locks/l", "leaders/g"):
            last = 0
            for i in range(10):
                mount = (self.a, self.b)[i % 2]
                fd = self.open(mount(path))
                lib.fcntl.flock(fd, EX)
                token = int(os.getxattr(mount(path), "user.tooz.token"))
                self.assertEqual(int(os.getxattr(fd, "user.tooz.token")), token)
                self.assertEqual(os.listxattr(fd), ["user.tooz.token"])
                if path == "locks/l":
                    for text in (os.pread(fd, 4096, 0), lib.read(mount(path))):
                        self.assertEqual(lib.fields(text)["token"], str(token))
                self.assertGreater(token, last)
                last = token
                os.close(fd)

    def test_a_share_that_stays_is_shown(self):
        mine, theirs = self.open(self.a("locks/l")), self.open(self.b("locks/l"))
        lib.fcntl.flock(mine, SH)
        lib.fcntl.flock(theirs, SH)
        lib.read(self.a("locks/l"))
        lib.fcntl.flock(mine, UN)
        os.fsync(mine)
        for _ in range(20):
            self.assertIn("mode=shared", lib.read(self.a("locks/l")).decode())
            time.sleep(0.01)  # whenever it is looked at

    def test_command_unlocks_a_descriptor(self):
        done = lib.sh('exec 9>"$1"; flock 9 && flock -n "$2" true; test $? = 1 || exit 20\n'
                      'flock -u 9 && flock -w 5 "$2" true', self.a("locks/l"), self.b("locks/l"))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_every_way_to_open(self):
        for redirection in ("9>", "9>>", "9<>"):
            done = lib.sh(f'exec {redirection}"$1"; flock -n 9 && cat "$1"', self.a("locks/l"))
            self.assertIn("mode=exclusive", done.stdout, redirection)

    def test_blocked_until_released(self):
        one, two = self.agent(), self.agent()
        fd = one.open_flock(self.a("locks/l"), os.O_RDWR | os.O_CREAT, EX)
        other = two.open(self.b("locks/l"))
        two.start("flock", other, EX)
        two.wait_blocked()
        self.stays_blocked(two)
        one.flock(fd, UN)
        two.result()
        self.fails(errno.EAGAIN, one.flock, fd, EX | NB)

    def test_released_by_close(self):
        one, two = self.agent(), self.agent()
        fd = one.open_flock(self.a("locks/l"), os.O_RDWR | os.O_CREAT, EX)
        other = two.open(self.b("locks/l"))
        two.start("flock", other, EX)
        two.wait_blocked()
        one.close(fd)
        two.result()

    def test_killed_holder(self):
        one, two = self.agent(), self.agent()
        one.open_flock(self.a("locks/l"), os.O_RDWR | os.O_CREAT, EX)
        other = two.open(self.b("locks/l"))
        two.start("flock", other, EX)
        two.wait_blocked()
        one.kill()
        two.result()

    def test_two_handles_of_one_process(self):
        one = self.open(self.a("locks/l"))
        two = self.open(self.b("locks/l"))
        lib.fcntl.flock(one, EX)
        self.fails(errno.EAGAIN, lib.fcntl.flock, two, EX | NB)
        lib.fcntl.flock(one, UN)
        self.free_soon(two)

    def test_duplicate_is_one_holding(self):
        one = self.agent()
        fd = one.open_flock(self.a("locks/l"), os.O_RDWR | os.O_CREAT, EX)
        copy = one.dup(fd)
        one.close(fd)
        other = self.open(self.b("locks/l"))
        self.fails(errno.EAGAIN, lib.fcntl.flock, other, EX | NB)
        one.flock(copy, EX | NB)
        one.close(copy)
        lib.fcntl.flock(other, EX)

    def test_forked_child_keeps_the_handle(self):
        one = self.agent()
        fd = one.open_flock(self.a("locks/l"), os.O_RDWR | os.O_CREAT, EX)
        child = one.fork_sleeper()
        one.close(fd)
        other = self.open(self.b("locks/l"))
        self.fails(errno.EAGAIN, lib.fcntl.flock, other, EX | NB)
        one.kill_child(child)
        lib.fcntl.flock(other, EX)

    def test_killed_flock_leaves_the_lock_to_its_command(self):
        flock = self.spawn("flock", self.a("locks/l"), "sh", "-c", "echo $$; exec sleep 60",
                           stdout=subprocess.PIPE)
        sleep = int(flock.stdout.readline())
        flock.kill()
        flock.wait()
        other = self.open(self.b("locks/l"))
        try:
            self.fails(errno.EAGAIN, lib.fcntl.flock, other, EX | NB)
        finally:
            os.kill(sleep, signal.SIGKILL)
        lib.fcntl.flock(other, EX)

    def test_locking_again_is_no_second_holding(self):
        fd = self.open(self.a("locks/l"))
        lib.fcntl.flock(fd, EX)
        lib.fcntl.flock(fd, EX)
        lib.fcntl.flock(fd, UN)
        self.free_soon(self.open(self.b("locks/l")))

    def test_unlock_of_nothing(self):
        lib.fcntl.flock(self.open(self.a("locks/l")), UN)

    def test_names_do_not_interfere(self):
        lib.fcntl.flock(self.open(self.a("locks/l1")), EX)
        lib.fcntl.flock(self.open(self.b("locks/l2")), EX | NB)
        self.assertEqual(set(os.listdir(self.b("locks"))), {"l1", "l2"})

    def test_downgrade_lets_sharers_in(self):
        one, two = self.agent(), self.agent()
        fd = one.open_flock(self.a("locks/l"), os.O_RDWR | os.O_CREAT, EX)
        other = two.open(self.b("locks/l"))
        two.start("flock", other, SH)
        two.wait_blocked()
        one.flock(fd, SH)
        two.result()
        self.fails(errno.EAGAIN, lib.fcntl.flock, self.open(self.b("locks/l")), EX | NB)

    def test_upgrade(self):
        one, two = self.agent(), self.agent()
        fd = one.open_flock(self.a("locks/l"), os.O_RDWR | os.O_CREAT, SH)
        other = two.open_flock(self.b("locks/l"), os.O_RDWR | os.O_CREAT, SH)
        one.start("flock", fd, EX)
        one.wait_blocked()
        two.flock(other, UN)
        one.result()
        self.fails(errno.EAGAIN, two.flock, other, SH | NB)

    def test_hand_over_is_prompt(self):
        """Not a poll every second: twenty hand-overs there and back."""
        one, two = self.agent(), self.agent()
        fd = one.open_flock(self.a("locks/l"), os.O_RDWR | os.O_CREAT, EX)
        other = two.open(self.b("locks/l"))
        watch = lib.Stopwatch()
        for _ in range(20):
            two.start("flock", other, EX)
            two.wait_blocked()
            one.flock(fd, UN)
            two.result()
            one.start("flock", fd, EX)
            one.wait_blocked()
            two.flock(other, UN)
            one.result()
        watch.within(8 * lib.SLOW)


class FlockMemory(Flock, lib.Memory):
    pass


class FlockFile(Flock, lib.File):
    pass


class FlockRedis(Flock, lib.Redis):
    pass


class FlockZooKeeper(Flock, lib.ZooKeeper):
    pass


if __name__ == "__main__":
    lib.main()
