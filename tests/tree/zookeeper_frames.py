# SPDX-License-Identifier: Apache-2.0
"""zookeeper://: a server that says what makes no sense, in a frame of its own or as the answer to a question. The
connection is given up and the next one is good: the daemon is the same, and keeps what it holds."""
import fcntl
import os
import struct
import time

import lib
import proxy
import trouble
from lib import EX
from trouble import RW

LEASE_S = 20 * lib.SLOW
OPTIONS = f"timeout={LEASE_S:g}"
OWN = (-1, -2, -4, -8)  # xids of notices, pings, passwords and watches
EXISTS, GET, CHILDREN, SYNC, MULTI, CREATE = 3, 4, 8, 9, 14, 15
STAT = bytes(68)
NONSENSE = "says what makes no sense"


def ints(*values):
    return struct.pack(f">{len(values)}i", *values)


def string(text):
    return ints(len(text)) + text


def frame(xid, body=b"", err=0):
    return ints(16 + len(body)) + struct.pack(">iqi", xid, 1, err) + body


def result(kind, end=0, err=0):
    """Of a transaction."""
    return struct.pack(">ibi", kind, end, err)


class _Liar(proxy._Relay):  # pylint: disable=protected-access
    """Hands on whole frames, and lies once on command; done() tells whether it has.

        insert(HEX, TIMES)      these bytes, while no answer is due
        replace(OP, HEX)        behind the header of the next good answer to such a request
        patch(OP, OFFSET, HEX, LEAST)   in the next answer to such a request that has so many bytes; OP 0: in the
                                next welcome
        hold(OP, COUNT)         of the next good answer to such a request, for now, so many bytes arrive; release()
                                the rest
        pieces(SIZE)            what arrives does so in such pieces, a millisecond apart; 0: as it is
    """

    def __init__(self, *args):
        super().__init__(*args)
        self.lie, self.told, self.size, self.parts, self.rest = None, False, 0, {}, None

    def set(self, *lie):
        self.lie, self.told = lie, False

    def do_insert(self, text, times):
        self.set("insert", bytes.fromhex(text) * times)
        for connection in self.connections:
            self.insert(connection)

    def do_replace(self, op, text):
        self.set("replace", op, bytes.fromhex(text))

    def do_patch(self, op, offset, text, least):
        self.set("patch", op, offset, bytes.fromhex(text), least)

    def do_hold(self, op, count):
        self.set("hold", op, count)

    def do_release(self):
        (side, data), self.rest = self.rest, None
        super().arrived(side, data)

    def do_pieces(self, size):
        self.size = size

    def do_done(self):
        return self.told

    def insert(self, connection):
        if self.lie and self.lie[0] == "insert" and getattr(connection, "asked", None) == []:
            data, self.lie, self.told = self.lie[1], None, True
            super().arrived(connection.client, data)

    def arrived(self, side, data):
        if not data:
            super().arrived(side, data)
            return
        data, whole = self.parts.pop(side, b"") + data, b""
        while len(data) >= 4 and len(data) >= 4 + struct.unpack(">i", data[:4])[0]:
            end = 4 + struct.unpack(">i", data[:4])[0]
            whole += getattr(self, side.direction)(side.connection, data[:end])
            data = data[end:]
        if data:
            self.parts[side] = data
        if whole:
            self.pass_frames(side, whole)
        if side.direction == "down":
            self.insert(side.connection)

    def pass_frames(self, side, data):
        if side.direction == "down" and self.rest and self.rest[0] is side:
            self.rest = (side, self.rest[1] + data)
        elif side.direction == "down" and self.size and len(data) > self.size:
            for i in range(0, len(data), self.size):
                self.delay_s = i / self.size / 1000
                super().arrived(side, data[i:i + self.size])
            self.delay_s = 0.0
        else:
            super().arrived(side, data)

    @staticmethod
    def up(connection, data):
        if not hasattr(connection, "asked"):
            connection.asked, connection.welcomed = [], False
        elif struct.unpack(">i", data[4:8])[0] not in OWN:
            connection.asked.append(struct.unpack(">ii", data[4:12]))
        return data

    def down(self, connection, data):
        op = None
        if not connection.welcomed:
            connection.welcomed, op = True, 0
        elif connection.asked and struct.unpack(">i", data[4:8])[0] == connection.asked[0][0]:
            op = connection.asked.pop(0)[1]
        if op is None or not self.lie or self.lie[0] == "insert" or self.lie[1] != op:
            return data
        return getattr(self, self.lie[0])(connection, data)

    def replace(self, _, data):
        if data[16:20] == ints(0):
            body, self.lie, self.told = data[4:20] + self.lie[2], None, True
            data = ints(len(body)) + body
        return data

    def patch(self, _, data):
        _, _, offset, text, least = self.lie
        if len(data) >= least:
            self.lie, self.told = None, True
            data = data[:offset] + text + data[offset + len(text):]
        return data

    def hold(self, connection, data):
        if data[16:20] != ints(0):
            return data
        (_, _, count), self.lie, self.told = self.lie, None, True
        self.rest = (connection.client, data[count:])
        super().arrived(connection.client, data[:count])
        return b""


class _Link(proxy.Proxy):
    relay = _Liar


class Mounted(trouble.Holders, lib.Case):
    """a is behind the one that lies, and holds a lock; b is on the server."""

    kind = "zookeeper"

    def setUp(self):
        # It would fill what the library asks for.
        perturb = os.environ.pop("MALLOC_PERTURB_", None)
        if perturb is not None:
            self.addCleanup(os.environ.__setitem__, "MALLOC_PERTURB_", perturb)
        super().setUp()
        self.server = lib.server("zookeeper")
        self.proxy = _Link(self.server.port)
        self.addCleanup(self.proxy.stop)
        namespace = self.server.namespace()
        self.a = self.tree(self.server.url(namespace, self.proxy.port), OPTIONS)
        self.b = self.tree(self.server.url(namespace), OPTIONS)
        self.namespace, self.names = namespace, 0
        os.mkdir(self.b("groups/g"))
        self.holder = self.agent()
        self.fd = self.holder.open_flock(self.a("locks/held"), RW, EX)

    def name(self):
        self.names += 1
        return f"n{self.names}"

    # ---- what makes a mount ask ----

    def takes(self):
        """Holds a lock until the lie is told: it is looked at then."""
        fd = os.open(self.a("locks", self.name()), RW)
        try:
            fcntl.flock(fd, EX)
            lib.wait_until(self.proxy.done, "a look at it", 1)
        except (OSError, AssertionError):
            pass
        finally:
            os.close(fd)

    def tries(self):
        trouble.tries(self.a("locks", self.name()))

    def confirms(self):
        with lib.suppressed():
            self.holder.fsync(self.fd)

    def lists(self):
        name = self.name()
        os.mkdir(self.b("groups", name))
        with lib.suppressed():
            os.listdir(self.a("groups", name))

    def reads(self):
        name = self.name()
        lib.write(self.b("groups/g", name), b"x")
        with lib.suppressed():
            lib.read(self.a("groups/g", name))

    # ---- what must hold then ----

    def log_count(self, words):
        return self.a.read_log().count(words)

    def alive(self):
        self.assertIsNone(self.a.process.poll(), "the daemon has ended")
        return True

    def wait_until(self, check, what):
        lib.wait_until(lambda: self.alive() and check(), what)

    def lied(self, ask=lambda: None):
        self.wait_until(lambda: ask() or self.proxy.done(), "the lie")

    def survives(self, words=None, before=0):
        if words:
            self.wait_until(lambda: self.log_count(words) > before, f"'{words}' in the log")
        self.alive()
        self.holder.start("fsync", self.fd)
        self.wait_until(lambda: trouble.tries(self.a("locks/l")), "a lock")
        self.holder.result()
        self.assertEqual(lib.read(self.a(".tooz/state")), b"connected\n")

    def inserted(self, words, *lies, times=1):
        words = f"127.0.0.1:{self.proxy.port}: {NONSENSE} ({words})"
        for lie in lies:
            with self.subTest(words=words, lie=lie[:64].hex()):
                before = self.log_count(words)
                self.proxy.insert(lie.hex(), times)
                self.lied()
                self.survives(words, before)

    def answered(self, words, op, ask, *bodies):
        for body in bodies:
            with self.subTest(words=words, op=op, body=body[:64].hex()):
                before = self.log_count(words)
                self.proxy.replace(op, body.hex())
                self.lied(ask)
                self.survives(words, before)


class Inserted(Mounted):
    """Frames out of the blue."""

    def test_answers(self):
        self.inserted("an answer to nothing", frame(1), frame(1, err=-101), frame(12345, STAT), frame(-3), frame(0))

    def test_notices(self):
        self.inserted("a notice of nothing", *(frame(-1, body) for body in (
            b"", ints(1), ints(1, 3), ints(1, 3, -1), ints(1, 3, 0), ints(1, 3, 1 << 30) + b"/a",
            ints(1, 3) + string(b"a"), ints(1, 3) + string(b"/a\0b"), ints(-1, -112) + string(b"/"))))

    def test_passwords(self):
        self.inserted("an answer to a password that it was not given", frame(-4, err=-115), frame(-4))

    def test_lengths(self):
        self.inserted("a length that is too short", *(ints(n) + bytes(64) for n in (0, 1, 15, -1, -(1 << 31))))
        self.inserted("a length that is too long", *(ints(n) + bytes(64) for n in ((64 << 20) + 1, (1 << 31) - 1)))
        self.inserted("more than there is to say", *(frame(xid, bytes(20000)) for xid in (-1, -2, -8)))

    def test_many_at_once(self):
        self.inserted("an answer to nothing", frame(1) + b"\xff" * 300, times=3000)

    def test_storm(self):
        """The log does not grow by thousands of lines while each connection is spoilt."""
        watch, lies = lib.Stopwatch(), 0
        while watch.passed() < 2:
            self.proxy.insert(frame(1).hex(), 1)
            self.lied()
            lies += 1
        self.survives("an answer to nothing")
        self.assertGreater(lies, 3)
        self.assertLess(self.log_count(NONSENSE), 60)


class Answered(Mounted):
    """Answers to what was asked."""

    def test_transactions(self):
        self.answered("an answer to a transaction that is none", MULTI, self.confirms, b"", result(13),
                      result(-1, 1, -1), result(13) * 1000, result(13) + result(13) + result(-1, 1, -1),
                      result(2) + result(-1, 1, -1), result(13, 0, -4) + result(-1, 1, -1))

    def test_lists(self):
        self.answered("a list", CHILDREN, self.lists, b"", ints(3 << 24), ints(-1), ints((1 << 31) - 1), ints(-(1 << 31)),
                      ints(2) + string(b"abcd"), ints(1, 1 << 30), ints(1, -5))

    def test_created(self):
        self.answered("an answer to something else", CREATE, self.tries, b"", ints(-1) + STAT, ints(100) + b"/a" + STAT,
                      string(b"a") + STAT, string(b"/a"))

    def test_data(self):
        self.answered("data longer than the answer", GET, self.reads, b"", ints(-2) + STAT, ints(1 << 30) + STAT)
        self.answered("an answer that is too short", GET, self.reads, ints(4) + STAT, ints(-1), string(b"abcd"))

    def test_looks(self):
        self.answered("an answer to something else", EXISTS, self.takes, b"", bytes(67))

    def test_syncs(self):
        self.answered("an answer to something else", SYNC, self.tries, b"", ints(-1), ints(0), ints(8) + b"/a")

    def test_welcomes(self):
        """Offsets: length, time-out, session, length of the password, read-only."""
        for offset, value in ((0, ints(38)), (0, b"HTTP"), (8, ints(-1)), (8, ints((1 << 31) - 1)), (8, ints(0)),
                              (12, bytes(8)), (16, b"\x01\x02\x03\x04"), (20, ints(-1)), (20, ints(1 << 30)), (40, b"\1")):
            with self.subTest(offset=offset, value=value.hex()):
                self.proxy.patch(0, offset, value.hex(), 40)
                self.proxy.cut()
                self.lied()
                self.survives()


class Pieces(Mounted):
    """What is good arrives in any pieces, and as long as it may be."""

    def cpu_s(self):
        with open(f"/proc/{self.a.pid}/stat", encoding="ascii") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def many(self, count):
        """Members with names of 48 letters."""
        from kazoo.client import KazooClient
        client = KazooClient(f"127.0.0.1:{self.server.port}", timeout=10)
        client.start(10)
        try:
            for i in range(0, count, 500):
                with client.transaction() as transaction:
                    for k in range(i, i + 500):
                        transaction.create(f"/{self.namespace}/g/{k:048}", b"")
        finally:
            client.stop()
            client.close()

    def test_small(self):
        before = self.proxy.counts()["connections"]
        for size in (1, 5, 19):
            self.proxy.pieces(size)
            for _ in range(4):
                self.assertTrue(trouble.tries(self.a("locks", self.name())))
            self.reads()
            self.lists()
        self.assertEqual(self.proxy.counts()["connections"], before)

    def test_welcome(self):
        self.proxy.pieces(3)
        for _ in range(3):
            self.proxy.cut()
            self.survives()

    def test_long(self):
        """Lists and data that are longer than what is looked at as a whole."""
        before, data = self.proxy.counts()["connections"], os.urandom(1000000)
        self.many(3000)
        lib.write(self.b("groups/g/big"), data)
        for size in (0, 7001):
            self.proxy.pieces(size)
            tree = self.tree(self.a.url, OPTIONS)
            self.assertEqual(len(os.listdir(tree("groups/g"))), 3001)
            self.assertEqual(lib.read(tree("groups/g/big")), data)
            tree.stop()
        self.assertEqual(self.proxy.counts()["connections"], before + 2)

    def test_long_lies(self):
        self.many(3000)
        words = f"127.0.0.1:{self.proxy.port}: {NONSENSE} (a list"
        # The count, a name that is looked at, and one that only the library sees.
        for offset in (20, 24, 24 + 52 * 2000):
            for value in (ints(3 << 24), ints(-1)):
                before = self.log_count(words)
                self.proxy.patch(CHILDREN, offset, value.hex(), 100000)

                def listed():
                    name = self.b("groups/g", self.name())
                    lib.write(name, b"")
                    with lib.suppressed():
                        os.listdir(self.a("groups/g"))
                    os.unlink(name)
                self.lied(listed)
                self.survives(words, before)

                def whole():
                    with lib.suppressed():
                        return len(os.listdir(self.a("groups/g"))) == 3000
                lib.wait_until(whole, "the members")

    def held_back(self, count):
        agent = self.agent()
        self.proxy.hold(CREATE, count)
        agent.start("open_flock", self.a("locks", self.name()), RW, EX)
        self.wait_until(self.proxy.done, "a part of an answer")
        return agent

    def test_waiting_costs_nothing(self):
        for count in (2, 10, 40):
            agent = self.held_back(count)
            before = self.cpu_s()
            time.sleep(1)
            self.assertLess(self.cpu_s() - before, 0.1)
            self.assertFalse(agent.done())
            self.proxy.release()
            agent.result()

    def test_end_within(self):
        words = f"127.0.0.1:{self.proxy.port}: ends in the middle of an answer"
        for count in (2, 10, 40):
            before, agent = self.log_count(words), self.held_back(count)
            self.proxy.half_close()
            self.survives(words, before)
            agent.result()
            agent = self.held_back(count)
            self.proxy.cut()
            agent.result()
            self.survives()

    def test_silence_within(self):
        """Who stops in the middle is left, before the lease is over."""
        before, agent = self.proxy.counts()["connections"], self.held_back(40)
        lib.wait_until(lambda: self.proxy.counts()["connections"] > before, "another connection", LEASE_S)
        agent.result()
        self.survives()


if __name__ == "__main__":
    lib.main(240)
