# SPDX-License-Identifier: Apache-2.0
"""Locks of file:// while somebody works in the directory: files removed, requests forged, waiters gone."""
import errno
import fcntl
import hashlib
import os
import signal
import time

import lib
from lib import EX, NB, SH

RW = os.O_RDWR | os.O_CREAT
OFD_GETLK, OFD_SETLK = 36, 37


def sha1(name):
    return hashlib.sha1(name.encode()).hexdigest()


def ofd(fd, kind):
    return lib.fcntl_lock(fd, OFD_SETLK, kind)


def token(fd):
    return int(lib.fields(os.pread(fd, 4096, 0))["token"])


class Store(lib.File):
    def setUp(self):
        super().setUp()
        self.dir = self.a.url.removeprefix("file://")

    def side(self, *parts):
        return os.path.join(self.dir, ".toozfs", *parts)


class Removed(Store):
    def test_holders_are_told(self):
        """Whatever becomes of the file, its holder is told at once."""
        os.mkdir(os.path.join(self.dir, "d"))

        def replace(path):
            with open(path + ".new", "wb"):
                pass
            os.rename(path + ".new", path)
        for name in ("l", "d/l"):
            path = os.path.join(self.dir, name)
            for change in (os.unlink, lambda path: os.rename(path, path + ".old"), replace):
                for mode in (EX, SH):
                    fd = self.open(self.a("locks", name.replace("/", "%2F")))
                    fcntl.flock(fd, mode)
                    change(path)
                    self.told_of_loss(fd)
                    os.close(fd)
        self.says(self.a, "its file was removed")

    def test_others_are_kept(self):
        """What is removed beside does no harm."""
        one, two = self.open(self.a("locks/one")), self.open(self.a("locks/two"))
        fcntl.flock(one, EX)
        fcntl.flock(two, EX)
        os.unlink(os.path.join(self.dir, "two"))
        self.told_of_loss(two)
        os.fsync(one)
        self.fails(errno.EAGAIN, fcntl.flock, self.open(self.b("locks/one")), EX | NB)

    def test_leader(self):
        os.mkdir(self.a("groups/g"))
        fd = self.open(self.a("leaders/g"))
        fcntl.flock(fd, EX)
        os.unlink(self.side("leaders", sha1("g")))
        self.told_of_loss(fd)

    def test_upgrade(self):
        """Two were told that they hold, one exclusively."""
        for i in range(5):
            name = f"l{i}"
            fd = self.open(self.a("locks", name))
            ofd(fd, fcntl.F_RDLCK)
            os.unlink(os.path.join(self.dir, name))
            other = self.open(self.b("locks", name))
            ofd(other, fcntl.F_WRLCK)
            self.fails((errno.EIO, errno.ENOLCK), ofd, fd, fcntl.F_WRLCK)
            os.fsync(other)

    def test_second_sharer(self):
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, SH)
        os.unlink(os.path.join(self.dir, "l"))
        fcntl.flock(self.open(self.b("locks/l")), EX | NB)
        self.told_of_loss(fd)
        self.fails(errno.EAGAIN, fcntl.flock, self.open(self.a("locks/l")), SH | NB)


class Tokens(Store):
    def test_conversions(self):
        """Each exclusive hold has a token of its own, also where the grant never changed."""
        fd = self.open(self.a("locks/l"))
        last, since = 0, set()
        for i in range(4):
            ofd(fd, fcntl.F_WRLCK)
            self.assertGreater(token(fd), last, f"exclusive for the {i + 1}. time")
            last = token(fd)
            since.add(lib.fields(os.pread(fd, 4096, 0))["since"])
            ofd(fd, fcntl.F_RDLCK)
        self.assertEqual(len(since), 1, since)
        other = self.open(self.a("locks/l"))
        lib.fcntl_lock(other, OFD_SETLK + 1, fcntl.F_RDLCK)
        self.assertGreater(token(other), last)
        ofd(other, fcntl.F_UNLCK)
        self.assertGreaterEqual(token(fd), last)
        ofd(fd, fcntl.F_WRLCK)
        self.assertGreater(token(fd), last + 1)


    def test_new_file(self):
        """Where the counter went with the file, sharers too go on from the clock."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        last = token(fd)
        os.close(fd)
        time.sleep(0.05)  # the time of a file is that of the last tick
        os.unlink(os.path.join(self.dir, "l"))
        one, two = self.open(self.a("locks/l")), self.open(self.b("locks/l"))
        fcntl.flock(one, SH)
        fcntl.flock(two, SH)
        self.assertEqual(token(one), token(two))
        self.assertGreater(token(one), last)
        shared = token(one)
        os.close(one)
        fcntl.flock(two, EX)
        self.assertGreater(token(two), shared)


    def test_counter_ahead(self):
        """Of a host whose clock was ahead: tokens count on from there."""
        ahead = int(time.time() + 3600) * 1000000
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        fcntl.flock(fd, lib.UN)
        os.fsync(fd)
        with open(os.path.join(self.dir, "l"), "r+b") as f:
            f.write(b"%020d\n" % ahead)
        tokens = [ahead]
        for tree in (self.a, self.b):
            fd = self.open(tree("locks/l"))
            fcntl.flock(fd, EX)
            tokens.append(token(fd))
            os.close(fd)
        self.assertLess(tokens[0], tokens[1])
        self.assertLess(tokens[1], tokens[2])


class Released(Store):
    def test_nobody_is_named(self):
        """Who held it before is not shown as the owner of what is held now."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        self.assertEqual(lib.fields(lib.read(self.b("locks/l")))["owner"], self.a.member)
        fcntl.flock(fd, lib.UN)
        os.fsync(fd)
        agent = self.agent()
        agent.fcntl_lock(agent.open(os.path.join(self.dir, "l")), OFD_SETLK, fcntl.F_WRLCK)
        lib.wait_until(lambda: os.path.exists(self.b("locks/l")), "the lock")
        self.assertNotIn("owner", lib.fields(lib.read(self.b("locks/l"))))


class Waiters(Store):
    def mark(self):
        return self.side("waiters", "lock-" + sha1("l"))

    def marked(self, byte):
        """Does a mount wait to hold exclusively (0), or to share (1)?"""
        try:
            fd = os.open(self.mark(), os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            return lib.fcntl_lock(fd, OFD_GETLK, fcntl.F_WRLCK, byte, 1)[0] != fcntl.F_UNLCK
        finally:
            os.close(fd)

    def blocked(self, path, mode):
        agent = self.agent()
        agent.start("open_flock", path, RW, mode)
        agent.wait_blocked()
        return agent

    def test_who_gave_up(self):
        """Nobody waits for one that waits no more, also where its mount still looks at the lock."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, SH)
        lib.read(self.b("locks/l"))
        agent = self.blocked(self.b("locks/l"), EX)
        lib.wait_until(lambda: self.marked(0), "the mark")
        agent.kill()
        lib.wait_until(lambda: not os.path.exists(self.mark()), "the end of the mark", 4 * lib.SLOW)

    def test_who_upgrades(self):
        fd, other = self.open(self.a("locks/l")), self.agent()
        fcntl.flock(fd, SH)
        lib.read(self.b("locks/l"))
        handle = other.open(self.b("locks/l"))
        other.fcntl_lock(handle, OFD_SETLK, fcntl.F_RDLCK)
        other.start("fcntl_lock", handle, OFD_SETLK + 1, fcntl.F_WRLCK)
        other.wait_blocked()
        lib.wait_until(lambda: self.marked(0), "the mark")
        other.kill()
        lib.wait_until(lambda: not os.path.exists(self.mark()), "the end of the mark", 4 * lib.SLOW)

    def test_new_readers_wait(self):
        """Behind a writer of another mount."""
        first = self.agent()
        fd = first.open_flock(self.a("locks/l"), RW, SH)
        writer = self.blocked(self.b("locks/l"), EX)
        lib.wait_until(lambda: self.marked(0), "the mark")
        reader = self.blocked(self.tree(self.a.url)("locks/l"), SH)
        # Its try, which would have been granted. It gives way for a second only.
        lib.wait_until(lambda: reader.done() or self.marked(1), "the reader's mark")
        first.flock(fd, lib.UN)
        held = writer.result()
        self.assertFalse(reader.done())
        writer.flock(held, lib.UN)
        reader.result()

    def test_others_come_first(self):
        """Who released it looks for those of other mounts, also if they began to wait before he held it."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        os.close(fd)
        holder = self.agent()
        file = holder.open(os.path.join(self.dir, "l"))
        lib.wait_until(lambda: self.taken(holder, file), "the release")
        other = self.blocked(self.b("locks/l"), EX)
        lib.wait_until(lambda: self.marked(0), "the mark")
        ours = [self.blocked(self.a("locks/l"), EX) for _ in range(2)]
        self.b.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.b.process.send_signal, signal.SIGCONT)
        holder.fcntl_lock(file, OFD_SETLK, fcntl.F_UNLCK)
        lib.wait_until(lambda: any(x.done() for x in ours), "the lock")
        one, two = sorted(ours, key=lambda x: not x.done())
        held = one.result()
        self.b.process.send_signal(signal.SIGCONT)
        lib.read(self.b(".tooz/state"))
        one.flock(held, lib.UN)
        lib.wait_until(lambda: other.done() or two.done(), "the next one")
        self.assertFalse(two.done())
        held = other.result()
        other.flock(held, lib.UN)
        two.result()

    @staticmethod
    def taken(agent, fd):
        try:
            agent.fcntl_lock(fd, OFD_SETLK, fcntl.F_WRLCK)
            return True
        except BlockingIOError:
            return False

    def test_readers_behind_a_writer(self):
        """When the writer gives up, the mark says that readers wait."""
        fcntl.flock(self.open(self.a("locks/l")), EX)
        writer = self.blocked(self.b("locks/l"), EX)
        reader = self.blocked(self.b("locks/l"), SH)
        lib.wait_until(lambda: self.marked(0), "the writer's mark")
        writer.kill()
        lib.wait_until(lambda: self.marked(1) and not self.marked(0), "the reader's mark", 4 * lib.SLOW)
        self.assertFalse(reader.done())


class Breaks(Store):
    def session(self, tree):
        for name in os.listdir(self.side("sessions")):
            with open(self.side("sessions", name), "rb") as f:
                if tree.member.encode() in f.read()[1024:]:
                    return name
        raise AssertionError(f"no session of {tree.member}")

    def requests(self):
        return [name for _, _, names in os.walk(self.side("break")) for name in names]

    def test_requests_of_old(self):
        """A request means a holding that was there when it was made."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        anybody, now = b"0" * 32, b"%020d" % (1 << 60)
        for data in (b"", anybody + b" " + b"0" * 20 + b"\n", b"1" * 32 + b" " + now + b"\n",
                     anybody + b" " + now, anybody + b" " + bytes(21), os.urandom(54), b"x" * 1000):
            with open(self.side("request"), "wb") as f:
                f.write(data)
            os.rename(self.side("request"),
                      self.side("break", self.session(self.a), "lock-" + sha1("l")))
            lib.wait_until(lambda: not self.requests(), "the request to be read")
            os.fsync(fd)
        with open(self.side("request"), "wb") as f:
            f.write(anybody + b" " + now + b"\n")
        os.rename(self.side("request"), self.side("break", self.session(self.a), "lock-" + sha1("l")))
        self.told_of_loss(fd)

    def test_who_comes_later_is_spared(self):
        """A daemon that was stopped while a lock was broken keeps what it takes afterwards."""
        later = self.tree(self.a.url)
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, SH)
        agent = self.agent()
        handle = agent.open(later("locks/l"))
        agent.start("flock", handle, EX)
        agent.wait_blocked()
        os.kill(later.pid, signal.SIGSTOP)
        try:
            os.unlink(self.b("locks/l"))
            self.assertEqual(self.requests(), [])
        finally:
            os.kill(later.pid, signal.SIGCONT)
        agent.result()
        self.told_of_loss(fd)
        lib.wait_until(lambda: not self.requests(), "the requests")
        agent.fsync(handle)

    def test_stopped_holder(self):
        """Who does not answer keeps its lock, and is not asked any more."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        os.kill(self.a.pid, signal.SIGSTOP)
        try:
            self.fails(errno.EBUSY, os.unlink, self.b("locks/l"))
            lib.wait_until(lambda: not self.requests(), "the request to be taken back")
        finally:
            os.kill(self.a.pid, signal.SIGCONT)
        os.fsync(fd)


class Foreign(Store):
    def test_a_lock_that_makes_no_event(self):
        """A Python client that opened the file earlier takes the lock: nothing tells."""
        for tree in (self.a, self.b):
            agent = self.agent()
            fd = self.open(tree("locks/l"))
            fcntl.flock(fd, EX)
            python = agent.open(os.path.join(self.dir, "l"), os.O_RDWR)
            os.close(fd)
            # Until the looks that follow a release are over.
            end = time.monotonic() + lib.SHORT_S
            lib.wait_until(lambda: not os.path.exists(tree("locks/l")) and time.monotonic() > end,
                           "the release")
            agent.fcntl_lock(python, fcntl.F_SETLK, fcntl.F_WRLCK)
            lib.wait_until(lambda: os.path.exists(tree("locks/l")), "the lock to show", 2 * lib.SLOW)
            self.assertEqual(lib.fields(lib.read(tree("locks/l")))["pid"], str(agent.pid))
            agent.close(python)
            lib.wait_until(lambda: not os.path.exists(tree("locks/l")), "the end")


if __name__ == "__main__":
    lib.main()
