# SPDX-License-Identifier: Apache-2.0
"""What holds between Python's tooz and a mount on any store. The files here mix these into their cases, which
make self.mount on self.url, and Python clients by self.peer().

Python asks the store each time. A mount may show for a moment what was before Python did something, or a hand on
the store: sees() and wait_until() then.
"""
import datetime
import errno
import fcntl
import os
import stat
import time

import interop
import lib
from lib import EX, NB, SH, UN, fields, read, touch, wait_until, write
from streams import Reader, fold


class Base(interop.Case):
    options = ""
    HEARTBEATS_S = 5  # more than two time-outs

    def peer(self, member=b"py", heart=True, timeout=10):
        mark = "&" if "?" in self.url else "?"
        return self.python(f"{self.url}{mark}timeout={timeout}", member, heart)

    def held(self, path="locks/l", mode=EX):
        fd = self.open(self.mount(path))
        fcntl.flock(fd, mode)
        return fd

    def names(self, *parts):
        return sorted(os.listdir(self.mount(*parts)))

    def sees(self, names, *parts):
        """What another client did is seen as soon as the store tells."""
        wait_until(lambda: self.names(*parts) == names, f"{names} in {parts}: {self.names(*parts)}",
                   1 * lib.SLOW)

    def leader(self, path="leaders/g"):
        """What the mount shows; None: that nobody leads."""
        try:
            return read(self.mount(path))
        except FileNotFoundError:
            return None

    def free_for(self, py, name=b"l"):
        """An unlock is answered when its request is on its way."""
        wait_until(lambda: py.acquire(name, blocking=False), "the lock", 1 * lib.SLOW)


class Served(Base):
    """On a server, which the whole program shares."""

    served_by = login = ""
    options = "timeout=3"
    HEARTBEATS_S = 7

    def setUp(self):
        self.server = lib.server(self.served_by)
        self.ns = self.server.namespace()
        self.url = self.server.url(self.ns).replace("://", "://" + self.login)
        self.mount = self.tree(self.url, self.options)


class Groups:
    def test_python_makes(self):
        py = self.peer()
        self.assertIsNone(py.create(b"g"))
        self.sees(["g"], "groups")
        self.sees([], "groups/g")
        self.fails(errno.EEXIST, os.mkdir, self.mount("groups/g"))
        self.assertIsNone(py.delete(b"g"))
        self.sees([], "groups")
        self.fails(errno.ENOENT, os.rmdir, self.mount("groups/g"))

    def test_mount_makes(self):
        py = self.peer()
        os.mkdir(self.mount("groups/g"))
        self.assertEqual(py.groups(), {b"g"})
        self.assertEqual(py.create(b"g"), "GroupAlreadyExist")
        self.assertEqual(py.members(b"g"), set())
        os.rmdir(self.mount("groups/g"))
        self.assertEqual(py.groups(), set())
        self.assertEqual(py.members(b"g"), "GroupNotCreated")
        # And again, after each has touched it.
        self.assertIsNone(py.create(b"g"))
        os.rmdir(self.mount("groups/g"))
        os.mkdir(self.mount("groups/g"))
        self.assertIsNone(py.delete(b"g"))

    def test_many(self):
        py = self.peer()
        for i in range(50):
            if i % 2:
                py.create(b"g%d" % i)
            else:
                os.mkdir(self.mount(f"groups/g{i}"))
        self.assertEqual(len(py.groups()), 50)
        self.assertEqual(len(self.names("groups")), 50)


class Members:
    def setUp(self):
        super().setUp()
        os.mkdir(self.mount("groups/g"))

    def test_python_joins(self):
        py = self.peer(b"py")
        self.assertIsNone(py.join(b"g", b"caps"))
        self.sees(["py"], "groups/g")
        self.assertEqual(read(self.mount("groups/g/py")), b"caps")
        self.assertEqual(stat.S_IMODE(os.stat(self.mount("groups/g/py")).st_mode), 0o444)
        self.fails(errno.EACCES, write, self.mount("groups/g/py"), b"x")
        self.fails(errno.EACCES, os.unlink, self.mount("groups/g/py"))
        self.fails(errno.ENOTEMPTY, os.rmdir, self.mount("groups/g"))
        self.assertIsNone(py.leave(b"g"))
        self.sees([], "groups/g")

    def test_mount_joins(self):
        py = self.peer()
        write(self.mount("groups/g/m"), b"caps")
        self.assertEqual(py.members(b"g"), {b"m"})
        self.assertEqual(py.caps(b"g", b"m"), "caps")
        self.assertEqual(py.delete(b"g"), "GroupNotEmpty")
        write(self.mount("groups/g/m"), b"new")
        self.assertEqual(py.caps(b"g", b"m"), "new")
        os.unlink(self.mount("groups/g/m"))
        self.assertEqual(py.members(b"g"), set())
        self.assertEqual(py.caps(b"g", b"m"), "MemberNotJoined")

    def test_one_id(self):
        """The same id joins once, whoever is first."""
        touch(self.mount("groups/g/py"))
        py = self.peer(b"py")
        self.assertEqual(py.join(b"g"), "MemberAlreadyExist")
        os.unlink(self.mount("groups/g/py"))
        self.assertIsNone(py.join(b"g"))
        self.fails(errno.EEXIST, write, self.mount("groups/g/py"), b"x",
                   os.O_WRONLY | os.O_CREAT | os.O_EXCL)

    def test_joined_on(self):
        touch(self.mount("groups/g/m"))
        self.assertLess(abs(os.stat(self.mount("groups/g/m")).st_ctime - time.time()), 60)
        py = self.peer(b"py")
        py.join(b"g")
        self.assertLess(abs(os.stat(self.mount("groups/g/py")).st_ctime - time.time()), 60)

    def test_own_id(self):
        """The member with the mount's own id is ours, also if Python joined it."""
        py = self.peer(self.mount.member.encode())
        self.assertIsNone(py.join(b"g", b"old"))
        own = self.mount("groups/g", self.mount.member)
        self.assertEqual(read(own), b"old")
        write(own, b"new")
        self.assertEqual(py.caps(b"g", self.mount.member.encode()), "new")
        os.unlink(own)
        self.assertEqual(py.members(b"g"), set())

    def test_umount(self):
        touch(self.mount("groups/g/m"))
        self.assertEqual(self.mount.umount(), 0)
        py = self.peer()
        self.assertEqual(py.members(b"g"), set())
        self.assertIsNone(py.delete(b"g"))

    def test_heartbeats(self):
        """Each stays visible to the other for longer than the time-out."""
        py = self.peer(b"py", heart=True, timeout=2)
        self.assertIsNone(py.join(b"g"))
        touch(self.mount("groups/g/m"))
        self.sees(["m", "py"], "groups/g")
        end = time.monotonic() + self.HEARTBEATS_S * lib.SLOW
        while time.monotonic() < end:
            self.assertEqual(self.names("groups/g"), ["m", "py"])
            self.assertEqual(py.members(b"g"), {b"m", b"py"})
            time.sleep(0.1)

    def test_removed(self):
        """A member of ours that Python's client of the same id takes out."""
        py = self.peer(b"m")
        touch(self.mount("groups/g/m"))
        self.assertIsNone(py.leave(b"g"))
        self.sees([], "groups/g")

    def test_leaves_and_joins(self):
        """Our own leaving is no loss, however quick we are back."""
        for _ in range(50):
            write(self.mount("groups/g/m"), b"x")
            os.unlink(self.mount("groups/g/m"))
        write(self.mount("groups/g/m"), b"x")
        for i in range(50):
            write(self.mount("groups/g/m"), b"%d" % i)
        self.assertEqual(read(self.mount("groups/g/m")), b"49")
        self.assertNotIn("removed by somebody else", self.mount.read_log())


class ServedMembers(Members):
    """Where a membership lasts as long as a lease."""

    def test_python_dies(self):
        """Hidden when its time is over, and its name is free then."""
        py = self.peer(b"py", heart=False, timeout=2)
        self.assertIsNone(py.join(b"g", b"x"))
        self.sees(["py"], "groups/g")
        py.kill()
        wait_until(lambda: self.names("groups/g") == [], "the dead member to be hidden", 4 * lib.SLOW)
        touch(self.mount("groups/g/py"))
        self.assertEqual(self.names("groups/g"), ["py"])

    def test_daemon_dies(self):
        py = self.peer()
        other = self.tree(self.url, self.options)
        write(other("groups/g/theirs"), b"x")
        self.assertEqual(py.members(b"g"), {b"theirs"})
        other.kill()
        watch = lib.Stopwatch()
        wait_until(lambda: py.members(b"g") == set(), "the member to go")
        wait_until(lambda: self.names("groups/g") == [], "the mount to see it")
        watch.within(5 * lib.SLOW)

    def test_python_watches(self):
        py = self.peer()
        py.watch(b"g")
        write(self.mount("groups/g/m"), b"x")
        wait_until(lambda: py.events() == [("join", b"m")], "the join")
        os.unlink(self.mount("groups/g/m"))
        wait_until(lambda: py.events() == [("leave", b"m")], "the leave")


class Events:
    """What Python does is a line in every reader, as fast as the store tells."""
    LED_UNDER = "py"  # the id that the store carries of a leader of Python's
    UPDATES = True  # Python can update capabilities there

    def setUp(self):
        super().setUp()
        os.mkdir(self.mount("groups/g"))
        self.reader = Reader(self.mount("events/g"))
        self.addCleanup(self.reader.close)
        self.reader.until("ready")

    def test_joins_and_leaves(self):
        py = self.peer()
        for _ in range(3):
            self.assertIsNone(py.join(b"g", b"caps"))
            self.assertEqual(self.reader.until("join py"), ["join py"])
            if self.UPDATES:
                self.assertIsNone(py.update(b"g", b"new"))
                self.assertEqual(self.reader.until("update py"), ["update py"])
            self.assertIsNone(py.leave(b"g"))
            self.assertEqual(self.reader.until("leave py"), ["leave py"])

    def test_leads(self):
        py = self.peer()
        self.assertEqual(py.elect(b"g"), b"py")
        line = f"leader {self.LED_UNDER}".strip()
        self.assertEqual(self.reader.until(line), [line])
        self.assertEqual(read(self.mount("leaders/g")).decode().strip(), self.LED_UNDER)
        py.tooz_stop()
        self.assertIn("no-leader", self.reader.until("no-leader", 20))

    def test_dies(self):
        """Nothing tells the store of it but that time passes, or that a connection ends."""
        py = self.peer(b"py", heart=False, timeout=2)
        self.assertIsNone(py.join(b"g"))
        self.reader.until("join py")
        py.kill()
        self.assertEqual(self.reader.until("leave py", 20), ["leave py"])

    def test_deletes_the_group(self):
        py = self.peer()
        self.assertIsNone(py.delete(b"g"))
        self.assertEqual(self.reader.until("deleted"), ["deleted"])

    def test_many(self):
        """Python joins and leaves under many ids while others do: who reads ends with what there is."""
        peers = [self.peer(b"py%d" % i) for i in range(4)]
        known = (set(), None)
        for turn in range(6):
            for i, py in enumerate(peers):
                self.assertIsNone(py.join(b"g") if turn % 2 == 0 else py.leave(b"g"))
                if i % 2:
                    touch(self.mount(f"groups/g/m{turn}-{i}"))
        touch(self.mount("groups/g/z-last"))
        known = fold(self.reader.until("join z-last", 30), known)
        there = set(self.names("groups/g"))
        wait_until(lambda: self.reader.silent() or known[0] == there, "the end of the changes")
        self.assertEqual(fold(self.reader.lines, known)[0], there)


class Capabilities:
    PYTHON = (
        (None, b""), (b"", b""), ("", b""), (b"abc", b"abc"), ("abc\n", b"abc\n"),
        (b"\xff\x00\x01", b"\xff\x00\x01"), ("é", "é".encode()),
        ({"weight": 2}, b'{"weight":2}\n'), ({}, b"{}\n"), ([], b"[]\n"), ((1, 2), b"[1,2]\n"),
        ({"a": [1, 2.5, True]}, b'{"a":[1,2.5,true]}\n'), ({"n": None}, b'{"n":null}\n'),
        ({"n": -5, "big": 70000, "u": "é"}, '{"n":-5,"big":70000,"u":"é"}\n'.encode()),
        ({"b": b"abc"}, b'{"b":"abc"}\n'), ({"b": b"\xff"}, b'{"b":"data:;base64,/w=="}\n'),
        (5, b"5\n"), (True, b"true\n"), (2.5, b"2.5\n"),
        ({"big": 2 ** 64 - 1, "low": -2 ** 63},
         b'{"big":18446744073709551615,"low":-9223372036854775808}\n'),
        ("x" * 70000, b"x" * 70000),
    )
    MOUNT = (
        (b"", None), (b"abc", "abc"), (b"abc\n", "abc\n"), (b"\xff\x00", b"\xff\x00"),
        (b'{"weight": 2}\n', {"weight": 2}), (b"[1,2.5,true,null]", [1, 2.5, True, None]),
        (b"{}", {}), ('{"u":"é"}'.encode(), {"u": "é"}), (b"12", "12"), (b'"s"', '"s"'),
        (b'{"a":{"b":[-1,70000]}}', {"a": {"b": [-1, 70000]}}), (b"y" * 70000, "y" * 70000),
    )

    def test_python_writes(self):
        py = self.peer()
        py.create(b"g")
        for value, shown in self.PYTHON:
            with self.subTest(value=str(value)[:40]):
                self.assertIsNone(py.join(b"g", value))
                self.sees(["py"], "groups/g")
                self.assertEqual(read(self.mount("groups/g/py")), shown)
                self.assertIsNone(py.leave(b"g"))
                self.sees([], "groups/g")

    def test_mount_writes(self):
        py = self.peer()
        py.create(b"g")
        for i, (text, value) in enumerate(self.MOUNT):
            with self.subTest(text=text[:40]):
                path = self.mount("groups/g", f"m{i}")
                write(path, text or None)
                if not text:  # joins when the kernel tells of the close, which does not wait for that
                    wait_until(lambda: f"m{i}" in self.names("groups/g"), "the join")
                self.assertEqual(py.caps(b"g", b"m%d" % i), value)
                self.assertEqual(type(py.caps(b"g", b"m%d" % i)), type(value))

    def test_odd_types(self):
        """Values that JSON has no word for are readable, whatever they look like."""
        py = self.peer()
        py.create(b"g")
        for value in (datetime.datetime(2024, 1, 2, 3, 4, 5, 678), {1, 2}, {"d": {3}}):
            with self.subTest(value=str(value)):
                self.assertIsNone(py.join(b"g", value))
                self.sees(["py"], "groups/g")
                self.assertIsNone(py.leave(b"g"))
                self.sees([], "groups/g")


class Locks:
    def shown_of(self, py):
        """What the mount shows of a lock that py holds, beside its mode."""
        return {}

    def test_python_first(self):
        py = self.peer()
        self.assertTrue(py.acquire(b"l", blocking=False))
        fd = self.open(self.mount("locks/l"))
        self.fails(errno.EAGAIN, fcntl.flock, fd, EX | NB)
        self.fails(errno.EAGAIN, fcntl.flock, fd, SH | NB)
        shown = fields(read(self.mount("locks/l")))
        expected = {"mode": "exclusive", **self.shown_of(py)}
        self.assertEqual({key: shown[key] for key in expected}, expected)
        self.assertEqual(self.names("locks"), ["l"])
        py.release(b"l")
        fcntl.flock(fd, EX | NB)
        self.assertFalse(py.acquire(b"l", blocking=False))

    def test_daemon_dies(self):
        py = self.peer()
        fd = os.open(self.mount("locks/l"), os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, EX)
            self.assertFalse(py.acquire(b"l", blocking=False))
            self.mount.kill()
            watch = lib.Stopwatch()
            self.assertTrue(py.acquire(b"l", blocking=lib.PATIENCE_S / 2))
            watch.within(5 * lib.SLOW)
        finally:
            with lib.suppressed():
                os.close(fd)

    def test_mount_first(self):
        py = self.peer()
        fd = self.open(self.mount("locks/l"))
        fcntl.flock(fd, EX)
        self.assertFalse(py.acquire(b"l", blocking=False))
        py.start("acquire", b"l", blocking=True)
        self.stays_blocked(py)
        fcntl.flock(fd, UN)
        self.assertTrue(py.result())
        self.fails(errno.EAGAIN, fcntl.flock, fd, EX | NB)
        py.release(b"l")
        fcntl.flock(fd, EX | NB)

    def wait_for_python(self, end):
        py = self.peer()
        watches = []
        waiter = self.agent()
        fd = waiter.open(self.mount("locks/l"))
        for _ in range(5):
            self.assertTrue(py.acquire(b"l"))
            waiter.start("flock", fd, EX)
            waiter.wait_blocked()
            watches.append(lib.Stopwatch())
            py = end(py)
            waiter.result()
            watches[-1].stop()
            waiter.flock(fd, UN)
        # By notice, not by the safety poll of a second.
        sorted(watches, key=lib.Stopwatch.passed)[2].within(0.5 * lib.SLOW)

    def test_python_releases(self):
        def end(py):
            py.release(b"l")
            return py
        self.wait_for_python(end)

    def test_shared(self):
        """Sharers of two mounts share, and keep Python out until the last has let go."""
        other = self.tree(self.url, self.options)
        py = self.peer()
        one, two = self.open(self.mount("locks/l")), self.open(other("locks/l"))
        fcntl.flock(one, SH | NB)
        fcntl.flock(two, SH | NB)
        self.assertFalse(py.acquire(b"l", blocking=False))
        fcntl.flock(one, UN)
        self.assertFalse(py.acquire(b"l", blocking=False))
        fcntl.flock(two, UN)
        self.free_for(py)

    def test_tokens(self):
        """Tokens grow, also with Python in between and with a new daemon."""
        py, tokens = self.peer(), []
        for _ in range(3):
            fd = os.open(self.mount("locks/l"), os.O_RDWR | os.O_CREAT)
            fcntl.flock(fd, EX)
            tokens.append(int(fields(os.pread(fd, 4096, 0))["token"]))
            os.close(fd)
            self.assertTrue(py.acquire(b"l"))
            py.release(b"l")
        self.mount.umount()
        self.mount = self.tree(self.url, self.options)
        fd = self.open(self.mount("locks/l"))
        fcntl.flock(fd, EX)
        tokens.append(int(fields(os.pread(fd, 4096, 0))["token"]))
        self.assertEqual(tokens, sorted(set(tokens)))

    def test_exclusion(self):
        """Python processes and handles of two mounts count to a hundred together."""
        other = self.tree(self.url, self.options)
        path = os.path.join(self.store(), "count")
        write(path, b"0")

        def count_python(url, member, turns):
            interop.tooz_start(url, member)
            for _ in range(turns):
                interop.tooz_acquire(b"l")
                lib.ACTIONS["bump"](path)
                interop.state["locks"][b"l"].release()

        def count_mount(lock, turns):
            for _ in range(turns):
                fd = os.open(lock, os.O_RDWR | os.O_CREAT)
                fcntl.flock(fd, EX)
                lib.ACTIONS["bump"](path)
                os.close(fd)

        def bump(name):
            value = int(read(name))
            time.sleep(0.001)
            write(name, b"%d" % (value + 1))
        lib.ACTIONS.update(bump=bump, count_python=count_python, count_mount=count_mount)
        agents = [self.agent() for _ in range(5)]
        agents[0].start("count_python", self.url, b"p0", 20)
        agents[1].start("count_python", self.url, b"p1", 20)
        agents[2].start("count_mount", self.mount("locks/l"), 20)
        agents[3].start("count_mount", other("locks/l"), 20)
        agents[4].start("count_mount", other("locks/l"), 20)
        for agent in agents:
            agent.result(6 * lib.PATIENCE_S)
        self.assertEqual(read(path), b"100")
