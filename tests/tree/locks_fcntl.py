# SPDX-License-Identifier: Apache-2.0
"""Locks by fcntl(2): POSIX, OFD, lockf(3), ranges, F_GETLK, and how they meet flock(2)."""
import errno
import fcntl
import os
import signal
import threading

import lib
from lib import EX, NB, SH, UN

RD, WR, UNLCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SET, WAIT, GET = fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GETLK
OFD_SET, OFD_WAIT, OFD_GET = 37, 38, 36
HELD = (errno.EAGAIN, errno.EACCES)


class Fcntl:
    def two(self):
        one, two = self.agent(), self.agent()
        return one, one.open(self.a("locks/l")), two, two.open(self.b("locks/l"))

    def excludes(self, set_, wait):
        one, fd, two, other = self.two()
        one.fcntl_lock(fd, set_, WR)
        self.fails(HELD, two.fcntl_lock, other, set_, WR)
        self.fails(HELD, two.fcntl_lock, other, set_, RD)
        two.start("fcntl_lock", other, wait, WR)
        two.wait_blocked()
        self.stays_blocked(two)
        one.fcntl_lock(fd, set_, UNLCK)
        two.result()
        self.fails(HELD, one.fcntl_lock, fd, set_, RD)

    def test_posix(self):
        self.excludes(SET, WAIT)

    def test_ofd(self):
        self.excludes(OFD_SET, OFD_WAIT)

    def test_lockf(self):
        fd = self.open(self.a("locks/l"))
        fcntl.lockf(fd, EX)
        other = self.agent()
        self.fails(HELD, other.fcntl_lock, other.open(self.b("locks/l")), SET, WR)
        fcntl.lockf(fd, UN)
        other.fcntl_lock(other.open(self.b("locks/l")), SET, WR)

    def test_readers_share(self):
        one, fd, two, other = self.two()
        one.fcntl_lock(fd, SET, RD)
        two.fcntl_lock(other, SET, RD)
        self.fails(HELD, lib.fcntl_lock, self.open(self.b("locks/l")), OFD_SET, WR)

    def test_ranges(self):
        fd = self.open(self.a("locks/l"))
        for start, length in ((1, 0), (5, 1), (1, 100)):
            self.fails(errno.EINVAL, lib.fcntl_lock, fd, SET, WR, start, length)
            self.fails(errno.EINVAL, lib.fcntl_lock, fd, OFD_SET, WR, start, length)
        lib.fcntl_lock(fd, SET, WR, 0, 1)
        other = self.agent()
        self.fails(HELD, other.fcntl_lock, other.open(self.b("locks/l")), SET, WR, 0, 0)
        lib.fcntl_lock(fd, SET, UNLCK, 0, 1)
        other.fcntl_lock(other.open(self.b("locks/l")), SET, WR, 0, 9)

    def test_closing_any_handle_of_the_owner_ends_a_posix_lock(self):
        one, fd, two, other = self.two()
        again = one.open(self.a("locks/l"))
        one.fcntl_lock(fd, SET, WR)
        one.close(again)
        two.fcntl_lock(other, WAIT, WR)

    def test_closing_another_handle_keeps_an_ofd_lock(self):
        one, fd, two, other = self.two()
        again = one.open(self.a("locks/l"))
        one.fcntl_lock(fd, OFD_SET, WR)
        one.close(again)
        self.fails(HELD, two.fcntl_lock, other, OFD_SET, WR)
        one.close(fd)
        two.fcntl_lock(other, OFD_WAIT, WR)

    def test_closing_another_handle_keeps_a_flock(self):
        one, fd, two, other = self.two()
        again = one.open(self.a("locks/l"))
        one.flock(fd, EX)
        one.close(again)
        self.fails(errno.EAGAIN, two.flock, other, EX | NB)

    def test_killed_holder(self):
        for wait in (WAIT, OFD_WAIT):
            one, fd, two, other = self.two()
            one.fcntl_lock(fd, wait, WR)
            two.start("fcntl_lock", other, wait, WR)
            two.wait_blocked()
            one.kill()
            two.result()
            two.kill()

    def test_flock_and_fcntl_exclude_each_other(self):
        one, fd, two, other = self.two()
        one.flock(fd, EX)
        for cmd in (SET, OFD_SET):
            self.fails(HELD, two.fcntl_lock, other, cmd, WR)
        one.flock(fd, UN)
        for cmd in (SET, OFD_SET):
            two.fcntl_lock(other, cmd, WR)
            self.fails(errno.EAGAIN, one.flock, fd, EX | NB)
            two.fcntl_lock(other, cmd, UNLCK)

    def test_flock_and_fcntl_through_one_handle_are_one_holding(self):
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        lib.fcntl_lock(fd, SET, WR)
        self.assertEqual(lib.fields(lib.read(self.a("locks/l")))["mode"], "exclusive")

    def test_flock_and_fcntl_through_two_handles_of_one_process(self):
        one = self.open(self.a("locks/l"))
        two = self.open(self.a("locks/l"))
        fcntl.flock(one, EX)
        self.fails(HELD, lib.fcntl_lock, two, SET, WR)
        self.fails(HELD, lib.fcntl_lock, two, OFD_SET, WR)

    def test_posix_locks_of_one_process_do_not_conflict(self):
        one = self.open(self.a("locks/l"))
        two = self.open(self.a("locks/l"))
        lib.fcntl_lock(one, SET, WR)
        lib.fcntl_lock(two, SET, WR)

    def test_getlk(self):
        one, fd, two, other = self.two()
        self.assertEqual(two.fcntl_lock(other, GET, WR)[0], UNLCK)
        pids = (one.pid, 0) if self.crossing else (one.pid,)
        for take, drop, kind in ((lambda: one.fcntl_lock(fd, SET, WR),
                                  lambda: one.fcntl_lock(fd, SET, UNLCK), WR),
                                 (lambda: one.fcntl_lock(fd, SET, RD),
                                  lambda: one.fcntl_lock(fd, SET, UNLCK), RD),
                                 (lambda: one.flock(fd, EX), lambda: one.flock(fd, UN), WR),
                                 (lambda: one.flock(fd, SH), lambda: one.flock(fd, UN), RD)):
            take()
            found = two.fcntl_lock(other, GET, WR)
            self.assertEqual(found[0], kind)
            self.assertIn(found[3], pids)
            if kind == RD:
                self.assertEqual(two.fcntl_lock(other, GET, RD)[0], UNLCK)
            drop()

    def test_getlk_shows_another_owner_of_the_same_handle(self):
        fd = self.open(self.a("locks/l"))
        lib.fcntl_lock(fd, OFD_SET, WR)
        self.assertEqual(lib.fcntl_lock(fd, GET, WR)[0], WR)
        self.assertEqual(lib.fcntl_lock(fd, OFD_GET, WR)[0], UNLCK)
        lib.fcntl_lock(fd, OFD_SET, UNLCK)
        fcntl.flock(fd, EX)
        self.assertEqual(lib.fcntl_lock(fd, GET, WR)[0], UNLCK, "it would share the flock's")

    def test_getlk_of_a_sharer_names_another(self):
        one, fd, two, other = self.two()
        for first, its, second, pid in ((one, fd, two, two.pid), (two, other, one, one.pid)):
            one.fcntl_lock(fd, SET, RD)
            two.fcntl_lock(other, SET, RD)
            found = first.fcntl_lock(its, GET, WR)
            self.assertEqual(found[0], RD)
            self.assertIn(found[3], (pid, 0) if self.crossing else (pid,))
            self.assertEqual(first.fcntl_lock(its, GET, RD)[0], UNLCK)
            second.fcntl_lock(fd if second is one else other, SET, UNLCK)
            lib.wait_until(lambda: first.fcntl_lock(its, GET, WR)[0] == UNLCK)
            first.fcntl_lock(its, SET, UNLCK)

    def test_an_interrupted_conversion_of_flock_has_let_go(self):
        fd = self.open(self.a("locks/l"))
        other = self.agent()
        there = other.open_flock(self.b("locks/l"), os.O_RDWR | os.O_CREAT, SH)
        fcntl.flock(fd, SH)
        self.interrupted(fcntl.flock, fd, EX)
        other.flock(there, UN)
        lib.fcntl_lock(fd, SET, WR)
        lib.fcntl_lock(fd, SET, UNLCK)
        other.flock(there, EX)

    def test_a_failed_conversion_of_flock_keeps_the_lock_of_fcntl(self):
        fd = self.open(self.a("locks/l"))
        other = self.agent()
        there = other.open_flock(self.b("locks/l"), os.O_RDWR | os.O_CREAT, SH)
        lib.fcntl_lock(fd, SET, RD)
        fcntl.flock(fd, SH)
        self.fails((errno.EAGAIN, errno.ENOLCK), fcntl.flock, fd, EX | NB)
        self.fails((errno.EAGAIN, errno.ENOLCK), other.flock, there, EX | NB)

    def test_an_unlock_leaves_what_the_other_of_the_two_asked_for(self):
        fd = self.open(self.a("locks/l"))
        other = self.agent()
        there = other.open(self.a("locks/l"))
        for take, leave, end in (
                (lambda: (lib.fcntl_lock(fd, SET, RD), fcntl.flock(fd, EX)),
                 lambda: fcntl.flock(fd, UN), lambda: lib.fcntl_lock(fd, SET, UNLCK)),
                (lambda: (fcntl.flock(fd, SH), lib.fcntl_lock(fd, SET, WR)),
                 lambda: lib.fcntl_lock(fd, SET, UNLCK), lambda: fcntl.flock(fd, UN))):
            try:
                take()
            except OSError as error:
                self.assertEqual(error.errno, errno.ENOLCK)
                return
            self.fails(HELD, other.fcntl_lock, there, SET, RD)
            leave()
            other.fcntl_lock(there, SET, RD)
            self.fails(HELD, other.fcntl_lock, there, SET, WR)
            end()
            other.fcntl_lock(there, SET, WR)
            other.fcntl_lock(there, SET, UNLCK)

    def test_downgrade_is_atomic(self):
        one, fd, two, other = self.two()
        third = self.agent()
        last = third.open(self.a("locks/l"))
        one.fcntl_lock(fd, SET, WR)
        third.start("fcntl_lock", last, WAIT, WR)
        third.wait_blocked()
        one.fcntl_lock(fd, SET, RD)
        self.stays_blocked(third)
        one.fcntl_lock(fd, SET, UNLCK)
        third.result()

    def test_upgrade_of_the_only_reader(self):
        one, fd, two, other = self.two()
        one.fcntl_lock(fd, SET, RD)
        try:
            one.fcntl_lock(fd, SET, WR)
            self.fails(HELD, two.fcntl_lock, other, SET, RD)
        except OSError as error:
            self.assertEqual(error.errno, errno.ENOLCK)
            self.fails(HELD, two.fcntl_lock, other, SET, WR)

    def test_failed_upgrade_keeps_the_read_lock(self):
        one, fd, two, other = self.two()
        one.fcntl_lock(fd, SET, RD)
        two.fcntl_lock(other, SET, RD)
        self.fails(HELD + (errno.ENOLCK,), one.fcntl_lock, fd, SET, WR)
        two.fcntl_lock(other, SET, UNLCK)
        self.fails(HELD, two.fcntl_lock, other, SET, WR)

    def test_second_upgrader_is_a_deadlock(self):
        one, two = self.agent(), self.agent()
        fd, other = one.open(self.a("locks/l")), two.open(self.a("locks/l"))
        one.fcntl_lock(fd, SET, RD)
        two.fcntl_lock(other, SET, RD)
        one.start("fcntl_lock", fd, WAIT, WR)
        lib.wait_until(lambda: one.done() or lib.in_lock_request(one.pid))
        if one.done():
            self.fails(errno.ENOLCK, one.result)
            return
        self.fails((errno.EDEADLK, errno.ENOLCK), two.fcntl_lock, other, WAIT, WR)
        self.stays_blocked(one)
        two.fcntl_lock(other, SET, UNLCK)
        one.result()

    def test_flock_through_the_second_handle_of_a_posix_lock(self):
        """It shares the holding of the one handle through which it is asked for."""
        one, two = self.open(self.a("locks/l")), self.open(self.a("locks/l"))
        for fd in (one, two):
            lib.fcntl_lock(fd, SET, WR)
        fcntl.flock(two, EX | NB)
        self.fails(errno.EAGAIN, fcntl.flock, one, EX | NB)
        os.close(one)
        other = self.agent()
        there = other.open(self.b("locks/l"))
        self.fails(errno.EAGAIN, other.flock, there, EX | NB)
        os.fsync(two)
        fcntl.flock(two, UN)
        other.flock(there, EX)

    def test_what_rm_took_of_both_is_lost_until_both_unlock(self):
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        lib.fcntl_lock(fd, SET, WR)
        os.unlink(self.a("locks/l"))
        self.fails(errno.EIO, lib.fcntl_lock, fd, SET, WR)
        lib.fcntl_lock(fd, SET, UNLCK)
        self.fails(errno.EIO, os.fsync, fd)
        fcntl.flock(fd, EX)
        os.fsync(fd)

    def wait_in_thread(self, fd, kind=WR):
        """A thread of the test that waits; gives what ends with it."""
        found = []

        def run():
            try:
                lib.fcntl_lock(fd, WAIT, kind)
                found.append(0)
            except OSError as error:
                found.append(error.errno)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        lib.wait_until(lambda: found or lib.in_lock_request(f"self/task/{thread.native_id}"))

        def end():
            thread.join(lib.PATIENCE_S)
            return found[0] if found else None
        return end

    def interrupted(self, call, *args):
        """Makes a call that blocks, and interrupts it with a signal."""
        class Alarm(Exception):
            pass

        def ring(*_):
            raise Alarm
        before = signal.signal(signal.SIGALRM, ring)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1 * lib.SLOW)
            self.assertRaises(Alarm, call, *args)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_closing_the_handle_of_an_interrupted_wait(self):
        """Another thread waits for the same owner through another handle."""
        holder = self.agent()
        held = holder.open(self.a("locks/l"))
        holder.fcntl_lock(held, SET, WR)
        one, two = self.open(self.a("locks/l")), self.open(self.a("locks/l"))
        self.interrupted(lib.fcntl_lock, one, WAIT, WR)
        end = self.wait_in_thread(two)
        os.close(one)
        holder.close(held)
        self.assertEqual(end(), 0)
        os.fsync(two)
        os.write(two, b"x")

    def test_every_handle_through_which_it_was_taken_holds(self):
        one, two = self.open(self.a("locks/l")), self.open(self.a("locks/l"))
        lib.fcntl_lock(one, SET, WR)
        lib.fcntl_lock(two, SET, WR)
        os.write(two, b"x")
        self.assertIn(b"token=", os.read(two, 1000))
        other = self.agent()
        other.unlink(self.b("locks/l"))
        for fd in (one, two):
            lib.wait_until(lambda fd=fd: lib.lost(os.fsync, fd), "the loss")
        lib.fcntl_lock(two, SET, UNLCK)
        os.fsync(one)
        os.fsync(two)

    def test_closing_the_handle_of_the_read_lock_while_an_upgrade_waits(self):
        """The read lock goes, and the request waits on as any other."""
        reader = self.agent()
        fd = reader.open(self.a("locks/l"))
        reader.fcntl_lock(fd, SET, RD)
        one, two = self.open(self.a("locks/l")), self.open(self.a("locks/l"))
        lib.fcntl_lock(one, SET, RD)
        end = self.wait_in_thread(two)
        os.close(one)
        reader.close(fd)
        self.assertIn(end(), (0, errno.ENOLCK))

    def test_a_flock_does_not_shut_out_who_shares_its_handle(self):
        """The first of two processes shares the flock's holding, then the other."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        ready, go = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            try:
                lib.fcntl_lock(fd, SET, WR)
                os.write(ready[1], b"x")
                os.read(go[0], 1)
            finally:
                os._exit(0)
        os.read(ready[0], 1)
        self.fails(HELD, lib.fcntl_lock, fd, SET, WR)
        end = self.wait_in_thread(fd)
        os.write(go[1], b"x")
        os.waitpid(child, 0)
        self.assertEqual(end(), 0)
        fcntl.flock(fd, UN)
        other = self.agent()
        there = other.open(self.b("locks/l"))
        self.fails(errno.EAGAIN, other.flock, there, EX | NB)
        lib.fcntl_lock(fd, SET, UNLCK)
        other.flock(there, EX)
        for pipe in ready + go:
            os.close(pipe)

    def test_unlock_of_nothing(self):
        lib.fcntl_lock(self.open(self.a("locks/l")), SET, UNLCK)


class FcntlMemory(Fcntl, lib.Memory):
    pass


class FcntlFile(Fcntl, lib.File):
    pass


if __name__ == "__main__":
    lib.main()
