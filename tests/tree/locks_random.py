# SPDX-License-Identifier: Apache-2.0
"""Random locking: step by step beside an ordinary file system, and wildly until somebody breaks."""
import errno
import fcntl
import os
import random
import signal
import threading
import time

import lib
from lib import EX, NB, SH, UN

RD, WR, UNLCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
SET, WAIT, GET = fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_GETLK
OFD_SET, OFD_WAIT = 37, 38
RW = os.O_RDWR | os.O_CREAT
SEED = int(os.environ.get("TOOZFS_SEED", random.randrange(1 << 30)))
WILD_S = 30 if lib.LONG else 2


class Beside(lib.Case):
    """The same calls on a lock and on a file of the work directory end in the same way."""

    STEPS = 2000 if lib.LONG else 250

    def setUp(self):
        self.a = self.tree()
        self.random = random.Random(SEED)

    def step(self, agent, fds, kinds, paths):
        """One call on both files; what each gave."""
        choice = self.random.choice
        slot, kind = self.random.randrange(3), choice(kinds + ("open", "close", "dup"))
        if kind == "open" or slot not in fds:
            for fd in fds.pop(slot, ()):
                agent.close(fd)
            fds[slot] = [agent.open(path) for path in paths]
            return kind, slot, [0, 0]
        if kind == "close":
            for fd in fds.pop(slot):
                agent.close(fd)
            return kind, slot, [0, 0]
        if kind == "dup":
            copies = [agent.dup(fd) for fd in fds[slot]]
            to = self.random.randrange(3)
            for fd in fds.pop(to, ()):
                agent.close(fd)
            fds[to] = copies
            return kind, (slot, to), [0, 0]
        what = choice((SH, EX, UN)) | NB if kind == "flock" else choice((RD, WR, UNLCK))
        if kind == "getlk" and what == UNLCK:
            what = WR
        return kind, (slot, what), [self.outcome(agent, kind, fd, what) for fd in fds[slot]]

    @staticmethod
    def outcome(agent, kind, fd, what):
        try:
            if kind == "flock":
                agent.flock(fd, what)
            elif kind == "getlk":
                return agent.fcntl_lock(fd, GET, what)[0]
            else:
                agent.fcntl_lock(fd, SET if kind == "posix" else OFD_SET, what)
        except OSError as error:
            return error.errno
        return 0

    def compare(self, *kinds):
        agents = [(self.agent(), {}) for _ in range(3)]
        paths = self.a("locks/l"), os.path.join(lib.WORK, "beside")
        steps = []
        for _ in range(self.STEPS):
            number = self.random.randrange(3)
            step = (number,) + self.step(*agents[number], kinds, paths)
            steps.append(step)
            ours, theirs = step[-1]
            self.assertEqual(ours, theirs, f"TOOZFS_SEED={SEED}: {steps[-12:]}")

    def test_flock(self):
        self.compare("flock")

    def test_posix(self):
        self.compare("posix", "getlk")

    def test_ofd(self):
        self.compare("ofd")

    def test_posix_and_ofd(self):
        self.compare("posix", "ofd", "getlk")


class Interrupt(Exception):
    pass


class Wild:
    """One process: threads that share handles, signals, forks. Ends by being killed."""

    def __init__(self, paths, seed):
        self.paths, self.fds = paths, []
        self.random = random.Random(seed)

    def one(self, pick, blocking):
        action, fd = pick.random(), pick.choice(self.fds) if self.fds else -1
        kind = pick.choice((RD, WR, UNLCK))
        if action < 0.15 or not self.fds:
            self.fds.append(os.open(pick.choice(self.paths), RW | pick.choice((0, 0, os.O_EXCL)),
                                    0o666))
        elif action < 0.30 or len(self.fds) > 12:
            os.close(self.fds.pop(pick.randrange(len(self.fds))))
        elif action < 0.50:
            fcntl.flock(fd, pick.choice((SH, EX, UN)) | (0 if blocking else NB))
        elif action < 0.85:
            cmd = pick.choice((SET, WAIT if blocking else SET, OFD_SET,
                               OFD_WAIT if blocking else OFD_SET))
            lib.fcntl_lock(fd, cmd, kind)
        elif action < 0.88:
            lib.fcntl_lock(fd, GET, pick.choice((RD, WR)))
        elif action < 0.92:
            pick.choice((os.fsync, lambda fd: os.pread(fd, 100, 0)))(fd)
        elif action < 0.94:
            os.unlink(pick.choice(self.paths))
        elif action < 0.96:
            self.fds.append(os.dup(fd))
        else:
            self.fork(fd, kind)

    @staticmethod
    def fork(fd, kind):
        pid = os.fork()
        if pid == 0:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                lib.fcntl_lock(fd, SET, kind)
                time.sleep(0.002)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    def loop(self, pick, alarmed):
        while True:
            try:
                if alarmed:
                    signal.setitimer(signal.ITIMER_REAL, 0.0005 + pick.random() * 0.01)
                self.one(pick, pick.random() < 0.5)
            except (Interrupt, IndexError):
                pass
            except OSError as error:
                if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
                    os._exit(1)

    def run(self):
        lib.libc.prctl(lib.PR_SET_PDEATHSIG, signal.SIGKILL)

        def ring(*_):
            raise Interrupt
        signal.signal(signal.SIGALRM, ring)
        threading.Thread(target=self.loop, daemon=True,
                         args=(random.Random(self.random.random()), False)).start()
        while True:
            try:
                self.loop(self.random, True)
            except Interrupt:
                pass


class Wildly:
    def test_everything_at_once(self):
        seeds = random.Random(SEED)
        paths = [tree("locks", name) for tree in (self.a, self.b) for name in ("x", "y")]
        paths += [self.a("groups/g/m")]
        os.mkdir(self.a("groups/g"))
        children = set()
        end = time.monotonic() + WILD_S
        try:
            while time.monotonic() < end:
                while len(children) < 5:
                    child = os.fork()
                    if child == 0:
                        try:
                            Wild(paths, seeds.random()).run()
                        finally:
                            os._exit(2)
                    seeds.random()
                    children.add(child)
                time.sleep(0.02)
                victim = seeds.choice(sorted(children))
                os.kill(victim, seeds.choice((signal.SIGSTOP, signal.SIGCONT, signal.SIGKILL)))
                done, status = os.waitpid(victim, os.WNOHANG)
                children.discard(done)
                self.assertFalse(done and os.WIFEXITED(status), f"TOOZFS_SEED={SEED}: {status}")
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
            for child in children:
                os.waitpid(child, 0)
        for path in paths:
            lib.wait_until(lambda path=path: self.free(path), f"{path}, TOOZFS_SEED={SEED}")

    def free(self, path):
        """Nobody is left, so nothing is held."""
        fd = os.open(path, RW, 0o666)
        try:
            fcntl.flock(fd, EX | NB)
        except OSError as error:
            self.assertEqual(error.errno, errno.EAGAIN)
            return False
        finally:
            os.close(fd)
        return True


class WildMemory(Wildly, lib.Memory):
    pass


class WildFile(Wildly, lib.File):
    pass


if __name__ == "__main__":
    lib.main()
