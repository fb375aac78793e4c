# SPDX-License-Identifier: Apache-2.0
"""The redis driver and Python's, on one server, both ways round.

Python's tooz up to 8 names a lock's key by the repr of its bytes, from 9 on plainly; the installed one is
the older. The newer is played here by its keys: that is all there is of it on the wire.
"""
import errno
import fcntl
import os
import signal
import time
import uuid

import common
import lib
from lib import EX, NB, SH, UN, read, wait_until, write

RW = os.O_RDWR | os.O_CREAT


class Redis(common.Served):
    served_by = "redis"

    def plain(self, name="l"):
        return f"{self.ns}_{name}_lock"

    def old(self, name=b"l"):
        return f"{self.ns.encode()!r}_{name!r}_lock"

    def keys(self):
        return {key.decode("utf-8", "surrogateescape")
                for key in self.server("KEYS", "*") if self.ns.encode() in key}


class Groups(common.Groups, Redis):
    def test_names(self):
        py = self.peer()
        for name, shown in ((b"a/b", "a%2Fb"), (b"100%", "100%25"), (b".x", "%2Ex"),
                            ("é".encode(), "é"), (b"a:b", "a:b"), (b"sp ace", "sp ace")):
            self.assertIsNone(py.create(name))
            self.sees([shown], "groups")
            os.rmdir(self.mount("groups", shown))
            os.mkdir(self.mount("groups", shown))
            self.assertEqual(py.groups(), {name})
            os.rmdir(self.mount("groups", shown))

    def test_keys(self):
        os.mkdir(self.mount("groups/g"))
        self.assertEqual(self.server("SMEMBERS", f"{self.ns}_groups"), [b"g"])
        self.assertEqual(self.server("HGET", f"{self.ns}_group:g", "__created__"), b"1")
        write(self.mount("groups/g/m"), b"x")
        self.assertEqual(self.server("HGET", f"{self.ns}_group:g", "m"), b"\xa1x")
        self.assertGreater(self.server("PTTL", f"{self.ns}_beats:m"), 0)

    def test_created_is_no_member(self):
        os.mkdir(self.mount("groups/g"))
        self.fails((errno.EINVAL, errno.ENOENT), write, self.mount("groups/g/__created__"), b"x")
        self.assertEqual(self.names("groups/g"), [])


class Members(common.ServedMembers, Redis):
    def test_python_updates(self):
        py = self.peer()
        self.assertIsNone(py.join(b"g", b"one"))
        self.sees(["py"], "groups/g")
        self.assertIsNone(py.update(b"g", {"weight": 2}))
        wait_until(lambda: read(self.mount("groups/g/py")) == b'{"weight":2}\n', "the update")


class Events(common.Events, Redis):
    LED_UNDER = ""  # a lock there carries no name


class Capabilities(common.Capabilities, Redis):
    def test_hostile(self):
        """What does not decode is that member's trouble alone."""
        os.mkdir(self.mount("groups/g"))
        write(self.mount("groups/g/good"), b"good")
        self.server("SET", f"{self.ns}_beats:bad", "Not dead!")
        for data in (b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xa3ab", os.urandom(100), b"\xc0\xc0"):
            self.server("HSET", f"{self.ns}_group:g", "bad", data)
            self.sees(["bad", "good"], "groups/g")
            wait_until(lambda: self.bad(), "EBADMSG")
            self.assertEqual(read(self.mount("groups/g/good")), b"good")

    def bad(self):
        try:
            read(self.mount("groups/g/bad"))
            return False
        except OSError as error:
            return error.errno == errno.EBADMSG


class Locks(common.Locks, Redis):
    def test_python_dies(self):
        py = self.peer(timeout=2)
        self.assertTrue(py.acquire(b"l"))
        py.kill()
        watch = lib.Stopwatch()
        fcntl.flock(self.open(self.mount("locks/l")), EX)
        watch.within(3.5 * lib.SLOW)

    def test_python_breaks(self):
        fd = self.held()
        self.assertTrue(self.peer().break_(b"l"))
        self.told_of_loss(fd)
        self.free_for_all()

    def test_mount_breaks(self):
        py = self.peer()
        self.assertTrue(py.acquire(b"l"))
        os.unlink(self.mount("locks/l"))
        self.assertFalse(py.is_owner(b"l"))
        self.free_for_all()

    def test_python_is_kept_alive(self):
        """Python's beat extends its lock under the mount's eyes."""
        py = self.peer(timeout=2)
        self.assertTrue(py.acquire(b"l"))
        fd = self.open(self.mount("locks/l"))
        end = time.monotonic() + 3 * lib.SLOW
        while time.monotonic() < end:
            self.fails(errno.EAGAIN, fcntl.flock, fd, EX | NB)
            time.sleep(0.1)

    def free_for_all(self):
        """Nothing is left of a lost lock, in either dialect."""
        fcntl.flock(self.open(self.mount("locks/l")), EX | NB)


class Dialects(Redis):
    """The newer Python client, by its keys."""

    def take(self, key=None, ttl_ms=10000):
        token = uuid.uuid1().hex
        self.assertEqual(self.server("SET", key or self.plain(), token, "NX", "PX", ttl_ms), b"OK")
        return token

    def test_mount_holds_both(self):
        self.held()
        for key in (self.plain(), self.old()):
            self.assertIsNone(self.server("SET", key, "x", "NX"), key)
            self.assertTrue(0 < self.server("PTTL", key) <= 3000, key)

    def test_sharers_hold_both(self):
        self.held(mode=SH)
        for key in (self.plain(), self.old()):
            self.assertIsNone(self.server("SET", key, "x", "NX"), key)

    def test_each_excludes_the_mount(self):
        fd = self.open(self.mount("locks/l"))
        for key in (self.plain(), self.old()):
            self.take(key)
            self.fails(errno.EAGAIN, fcntl.flock, fd, EX | NB)
            self.fails(errno.EAGAIN, fcntl.flock, fd, SH | NB)
            self.assertEqual(self.server("EXISTS", self.plain(), self.old()), 1,
                             "a half of the lock was taken")
            wait_until(lambda: self.names("locks") == ["l"], "the lock to be seen")
            self.server("DEL", key)
            fcntl.flock(fd, EX | NB)
            fcntl.flock(fd, UN)
            self.free_keys()

    def test_release_is_noticed(self):
        for key in (self.plain(), self.old()):
            self.take(key, 60000)
            agent = self.agent()
            fd = agent.open(self.mount("locks/l"))
            agent.start("flock", fd, EX)
            agent.wait_blocked()
            self.stays_blocked(agent)
            watch = lib.Stopwatch()
            self.server("DEL", key)
            agent.result()
            watch.within(0.5 * lib.SLOW)
            agent.close(fd)
            self.free_keys()

    def free_keys(self):
        wait_until(lambda: self.server("EXISTS", self.plain(), self.old()) == 0, "the release")

    def test_expiry_is_noticed(self):
        for key in (self.plain(), self.old()):
            watch = lib.Stopwatch()
            self.take(key, 1500)
            fd = self.open(self.mount("locks/l"))
            fcntl.flock(fd, EX)
            self.assertGreater(watch.passed(), 1.49)
            watch.within(1.5 + 0.5 * lib.SLOW)
            os.close(fd)
            self.free_keys()

    def test_no_expiry(self):
        """A key without a time to live is held for ever, and noticed when it goes."""
        self.server("SET", self.plain(), "x")
        fd = self.open(self.mount("locks/l"))
        self.fails(errno.EAGAIN, fcntl.flock, fd, EX | NB)
        self.server("DEL", self.plain())
        fcntl.flock(fd, EX | NB)

    def broken(self, key, change, mode=EX):
        fd = self.held(mode=mode)
        change(key)
        self.told_of_loss(fd)
        return fd

    def test_break_of_either(self):
        for mode in (EX, SH):
            for key, other in ((self.plain(), self.old()), (self.old(), self.plain())):
                with self.subTest(key=key, mode=mode):
                    fd = self.broken(key, lambda k: self.server("DEL", k), mode)
                    wait_until(lambda: self.server("EXISTS", other) == 0, "our other half to go")
                    fcntl.flock(self.open(self.mount("locks/l")), EX | NB)
                    os.close(fd)
                    self.server("DEL", key, other)

    def test_overwrite_of_either(self):
        for key, other in ((self.plain(), self.old()), (self.old(), self.plain())):
            with self.subTest(key=key):
                fd = self.broken(key, lambda k: self.server("SET", k, "theirs", "PX", 10000))
                wait_until(lambda: self.server("EXISTS", other) == 0, "our other half to go")
                self.assertEqual(self.server("GET", key), b"theirs")
                self.fails(errno.EAGAIN, fcntl.flock, self.open(self.mount("locks/l")), EX | NB)
                self.server("DEL", key)
                os.close(fd)

    def test_wrong_types(self):
        """Keys of ours that hold something else altogether: an error or a held lock, no harm."""
        for key in (self.plain(), self.old()):
            for make in (("LPUSH", key, "x"), ("HSET", key, "a", "b"), ("SADD", key, "x"),
                         ("SET", key, b"\x00\xff" * 100000), ("SET", key, ""),
                         ("SET", key, "S:"), ("SET", key, "S:99999999999999999999")):
                self.server(*make)
                try:
                    fcntl.flock(self.open(self.mount("locks/l")), EX | NB)
                    self.fail(f"taken over {make[:2]}")
                except OSError:
                    pass
                lib.sh('ls -l "$1"; cat "$1"/l', self.mount("locks"))
                self.server("DEL", key)
        fcntl.flock(self.open(self.mount("locks/l")), EX | NB)

    def test_odd_names(self):
        """As Python writes the repr of a name."""
        py = self.peer()
        for name in (b"it's", b'say "x"', b"it's \"x\"", b"back\\slash", b"tab\tx", b"line\nx",
                     b"cr\rx", b"\x00nul", b"\x7f", b"\xff\xfe", "é".encode(), b"a/b", b"%41",
                     b"{x}", b" "):
            shown = "".join(f"%{c:02X}" if c in b"/%\x7f" or c < 32 else chr(c)
                            for c in name).encode("latin-1")
            with self.subTest(name=name):
                fd = self.open(os.path.join(os.fsencode(self.mount("locks")), shown))
                fcntl.flock(fd, EX | NB)
                self.assertFalse(py.acquire(name, blocking=False))
                fcntl.flock(fd, UN)
                self.free_for(py, name)
                self.fails(errno.EAGAIN, fcntl.flock, fd, EX | NB)
                py.release(name)
                fcntl.flock(fd, EX | NB)
                os.close(fd)


class Leaders(Redis):
    def setUp(self):
        super().setUp()
        os.mkdir(self.mount("groups/g"))

    def test_python_leads(self):
        py = self.peer()
        self.assertEqual(py.elect(b"g"), b"py")
        fd = self.open(self.mount("leaders/g"))
        self.fails(errno.EAGAIN, fcntl.flock, fd, EX | NB)
        self.assertEqual(self.names("leaders"), ["g"])
        self.assertEqual(read(self.mount("leaders/g")), b"")
        agent = self.agent()
        handle = agent.open(self.mount("leaders/g"))
        agent.start("flock", handle, EX)
        agent.wait_blocked()
        watch = lib.Stopwatch()
        py.tooz_stop()
        agent.result()
        watch.within(1 * lib.SLOW)
        self.assertEqual(read(self.mount("leaders/g")), self.mount.member.encode() + b"\n")

    def test_mount_leads(self):
        py = self.peer()
        fd = self.held("leaders/g")
        self.assertIsNone(py.elect(b"g"))
        for key in (self.plain("leader_of_g"), self.old(b"leader_of_g")):
            self.assertIsNone(self.server("SET", key, "x", "NX"), key)
        fcntl.flock(fd, UN)
        wait_until(lambda: py.elect(b"g") == b"py", "Python's election")

    def test_is_a_lock(self):
        """A lock of that name is the leadership: refused as a name, or one excludes the other."""
        self.held("leaders/g")
        try:
            fd = self.open(self.mount("locks/leader_of_g"))
        except OSError as error:
            self.assertEqual(error.errno, errno.EINVAL)
            return
        self.fails(errno.EAGAIN, fcntl.flock, fd, EX | NB)

    def test_id_of_a_python_leader_after_ours(self):
        """The record of our id does not count for who came after."""
        fd = self.held("leaders/g")
        for key in (self.plain("leader_of_g"), self.old(b"leader_of_g")):
            self.server("DEL", key)
        self.server("SET", self.plain("leader_of_g"), "theirs", "PX", 60000)
        self.told_of_loss(fd)
        wait_until(lambda: self.leader() == b"", "a leader without a name", 1 * lib.SLOW)
        self.assertEqual(self.leader(), b"")


    def test_python_leads_before_the_loss_is_noticed(self):
        """What was lost is not free."""
        fd = self.held("leaders/g")
        self.mount.process.send_signal(signal.SIGSTOP)
        for key in (self.plain("leader_of_g"), self.old(b"leader_of_g")):
            self.server("DEL", key)
        self.server("SET", self.plain("leader_of_g"), "theirs", "PX", 60000)
        self.mount.process.send_signal(signal.SIGCONT)
        self.told_of_loss(fd)
        wait_until(lambda: self.leader() == b"", "a leader without a name", 1 * lib.SLOW)


class End(Redis):
    def test_nothing_is_left(self):
        """Only counters stay: one key, or a few, however many locks there were."""
        os.mkdir(self.mount("groups/g"))
        write(self.mount("groups/g/m"), b"x")
        fds = [self.held(f"locks/l{i}", SH if i % 2 else EX) for i in range(20)]
        fds.append(self.held("leaders/g"))
        self.assertGreater(len(self.keys()), 20)
        for fd in fds:
            os.close(fd)
        os.unlink(self.mount("groups/g/m"))
        os.rmdir(self.mount("groups/g"))
        self.assertEqual(self.mount.umount(), 0)
        left = self.keys()
        self.assertLessEqual(len(left), 2, left)
        for key in left:
            self.assertNotIn("l1", key)
            self.assertNotIn("beats", key)

    def test_killed_leaves_nothing_that_stays(self):
        """What a dead daemon left runs out by itself, but for the group and the counters."""
        write_dir = self.mount("groups/g")
        os.mkdir(write_dir)
        write(self.mount("groups/g/m"), b"x")
        agent = self.agent()
        for i in range(4):
            agent.open_flock(self.mount(f"locks/l{i}"), RW, SH if i % 2 else EX)
        agent.open_flock(self.mount("leaders/g"), RW, EX)
        self.mount.kill()
        wait_until(lambda: len(self.keys()) <= 4, "the keys to run out", 8 * lib.SLOW)
        for key in self.keys():
            if self.server("PTTL", key) == -1:
                self.assertNotIn("_lock", key)


if __name__ == "__main__":
    lib.main(240)
