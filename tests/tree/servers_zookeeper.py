# SPDX-License-Identifier: Apache-2.0
"""zookeeper:// on servers that refuse, fail, stop, restart and elect; and on nodes full of junk."""
import errno
import fcntl
import os
import re
import resource
import struct
import time
import unittest

import lib
import proxy
import trouble
from lib import EX, NB, SH, UN, servers
from trouble import LEASE_S, OPTIONS, RW

RECORD = struct.Struct(">iiiqi")  # of a connect response: length, version, time-out, session, password
JUNK = [b"\x00\x00\x00\x00" * 100, b"\x10\x00\x00\x00" + b"x" * 1000, b"\xff\xff\xff\xff" + b"x" * 100,
        RECORD.pack(37, 0, 0, 1, 16) + bytes(17), RECORD.pack(37, 0, 4000, 1, -5) + bytes(17),
        RECORD.pack(37, 0, 4000, 1, 1 << 30) + bytes(17),
        RECORD.pack(37, 0, 4000, 7, 16) + bytes(17) + os.urandom(2000),
        RECORD.pack(37, 0, 4000, 7, 16) + bytes(17)
        + struct.pack(">iiqi", 16, -1, 1, 0) * 50,
        RECORD.pack(37, 0, 4000, 7, 16) + bytes(17)
        + struct.pack(">iiqiii", 24, 1, 1, 0, 1 << 30, 5),
        b"This ZooKeeper instance is not currently serving requests\n"]


class Refused(trouble.Refused, lib.Case):
    kind = scheme = "zookeeper"
    junk = JUNK

    def setUp(self):
        lib.need_module("zookeeper")

    def test_wrong_kind_of_server(self):
        try:
            other = servers.shared("redis")
        except servers.Missing as missing:
            self.skipTest(str(missing))
        self.refused(f"zookeeper://127.0.0.1:{other.port}",
                     f"127.0.0.1:{other.port}: accepts the connection and says nothing")
        self.refused(self.listener(b"", close=True), "closes the connection", "failed to send a handshake")

    def test_not_a_server(self):
        """Named by its address, with what it said."""
        url = self.listener(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.refused(url, url.split("//")[1] + ": not a ZooKeeper server (it says 'HTTP/1.1 400")
        port = servers.free_port()
        self.refused(f"zookeeper://127.0.0.1:{port}", f"127.0.0.1:{port}: server refused")

    def test_a_server_that_spoils_each_connection(self):
        """It is tried again, and not a thousand times a second."""
        welcome = RECORD.pack(37, 0, 4000, 7, 16) + bytes(17)
        for words in (struct.pack(">i", -1) + b"x" * 100, struct.pack(">iiqi", 16, 1234567, 1, 0)):
            listener = trouble.Listener(welcome + words)
            self.addCleanup(listener.close)
            self.refused(f"zookeeper://127.0.0.1:{listener.port}")
            self.assertIn(listener.count, range(3, 100))

    def test_shorter_sessions(self):
        server = lib.server("zookeeper")
        tree = self.tree(server.url(), "timeout=3600")
        self.assertRegex(tree.read_log(), "gives sessions of .* where 3600 s were asked for")
        self.assertNotIn("gives sessions", self.tree(server.url(), OPTIONS).read_log())

    def test_wrong_password(self):
        """The namespace belongs to somebody: who is not that one is told so."""
        server = lib.server("zookeeper")
        namespace = server.namespace()
        right = server.url(namespace).replace("://", "://user:right-one@")
        tree = self.tree(right, OPTIONS)
        self.assertEqual(lib.read(tree(".tooz/state")), b"connected\n")
        said = f"/{namespace}.toozfs/members: made by another user, or with another password"
        self.refused(right.replace("right-one", "wrong-one"), said, secret="wrong-one")
        self.refused(server.url(namespace), said)

    def checked(self, url, code, *said):
        """The options alone, without a server."""
        path = os.path.join(lib.WORK, "checked")
        os.makedirs(path, exist_ok=True)
        done = lib.subprocess.run([lib.TOOZFS, "-f", url, path], capture_output=True, text=True,
                                  timeout=lib.PATIENCE_S, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        for word in said:
            self.assertIn(word, done.stderr)

    def test_half_a_login(self):
        """One of user and password would leave all nodes open to everybody."""
        self.checked("zookeeper://alice@h", 1, "user name without a password")
        self.checked("zookeeper://:secret@h", 1, "password without a user name")
        self.checked("zookeeper://alice:secret@h", 0)

    def test_names_that_mislead(self):
        self.checked("zookeeper://h/prod", 0, "'/prod'", "hosts=h/prod")
        self.checked("zookeeper://h/", 0)
        for namespace in ("zookeeper", "zookeeper/quota"):
            self.checked(f"zookeeper://h?namespace={namespace}", 1, "ZooKeeper's own")
        self.checked("zookeeper://h?namespace=zookeepers", 0)
        self.checked("zookeeper://h?namespace=zookeeper&hosts=x/prod", 0)

    def test_one_of_an_ensemble_alone(self):
        """It answers, and serves nobody."""
        peers = [(i + 1, "127.0.0.1", servers.free_port(), servers.free_port()) for i in range(3)]
        server = servers.ZooKeeper.__new__(servers.ZooKeeper)
        server.wait_ready = lambda: None
        servers.ZooKeeper.__init__(server, peers, 1)
        self.addCleanup(server.stop)
        lib.wait_until(lambda: "not currently serving" in said(server), "its word", lib.PATIENCE_S)
        self.refused(server.url())

    def test_one_host_of_several_is_enough(self):
        server = lib.server("zookeeper")
        dead = [f"127.0.0.1:{servers.free_port()}" for _ in range(2)]
        url = server.url().replace("://", "://" + ",".join(dead) + ",")
        for _ in range(3):
            tree = self.tree(url, OPTIONS)
            fcntl.flock(self.open(tree("locks/l")), EX)
            tree.stop()


def said(server):
    try:
        return server.word("srvr")
    except OSError:
        return ""


class Own:
    kind = "zookeeper"

    def setUp(self):
        self.server = lib.server("zookeeper")
        self.addCleanup(self.revive)
        self.ns = self.server.namespace()
        super().setUp()

    def revive(self):
        """Whatever a test that failed left it in."""
        if self.server.process.poll() is not None:
            self.server.start()
        elif self.server.paused:
            self.server.cont()

    def url(self, port=None):
        return self.server.url(self.ns, port)


class Trouble(Own, trouble.Trouble, lib.Case):
    """On the server of the whole program: it comes back as it was."""

    believes_junk = True

    def test_restarted(self):
        """Sessions survive a restart that is quick enough. The JVM may not be; then it is a loss."""
        self.hold()
        self.server.kill()
        self.server.start()
        watch = lib.Stopwatch()
        kept = None
        while kept is None:
            try:
                self.holder.fsync(self.fd)
                kept = True
            except OSError as error:
                kept = False if error.errno == errno.EIO else None
            watch.within(2 * lib.PATIENCE_S)
        if kept:
            self.assertFalse(any(x.done() for x in self.waiters), "two hold at once")
            self.holder.flock(self.fd, UN)
        self.drain()
        trouble.tries(self.b("locks/w"))

    def test_killed_for_long(self):
        self.hold()
        self.server.kill()
        self.loses(self.holder, self.fd)
        self.says(self.b, rf"127.0.0.1:{self.server.port}: .* \(")
        for agent in self.waiters:
            self.assertFalse(agent.done())
        self.server.start()
        self.drain()
        trouble.tries(self.b("locks/w"))


class _Liar(proxy._Relay):  # pylint: disable=protected-access
    """lie(CLAIM): the next list of children says that it has so many."""

    LISTS = (8, 12)  # getChildren, getChildren2

    def __init__(self, *args):
        super().__init__(*args)
        self.claim, self.lists, self.lied = None, set(), False

    def do_lie(self, claim):
        self.claim, self.lied = claim, False

    def do_lied(self):
        return self.lied

    @staticmethod
    def frames(data):
        """Both sides write whole ones here."""
        while len(data) >= 8:
            length = struct.unpack(">i", data[:4])[0]
            yield data[:4 + length]
            data = data[4 + length:]

    def arrived(self, side, data):
        if side.direction == "up":
            self.lists |= {f[4:8] for f in self.frames(data) if f[8:12] in [struct.pack(">i", x) for x in self.LISTS]}
        elif self.claim is not None:
            data = b"".join(self.lie(f) for f in self.frames(data))
        super().arrived(side, data)

    def lie(self, frame):
        if self.claim is None or frame[4:8] not in self.lists or len(frame) < 24:
            return frame
        frame, self.claim, self.lied = frame[:20] + struct.pack(">i", self.claim) + frame[24:], None, True
        return frame


class Liars(Own, trouble.Base, lib.Case):
    CLAIMS, GROWS_KIB = (3 << 24, -3), 160 << 10  # eight bytes for each that is claimed

    def setUp(self):
        # It would fill what the library asks for.
        perturb = os.environ.pop("MALLOC_PERTURB_", None)
        if perturb is not None:
            self.addCleanup(os.environ.__setitem__, "MALLOC_PERTURB_", perturb)
        super().setUp()

    def proxied(self):
        class Link(proxy.Proxy):
            relay = _Liar
        made = Link(self.server.port)
        self.addCleanup(made.stop)
        return made

    def memory_kib(self):
        with open(f"/proc/{self.a.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmHWM:\s+(\d+) kB", f.read())[1])

    def test_a_list_that_claims_to_be_long(self):
        """The client library has memory for what a list says that it has; it must not be all looked at."""
        os.mkdir(self.a("groups/g"))
        for count in self.CLAIMS:
            before = self.memory_kib()
            self.proxy.lie(count)

            def listed():
                with lib.suppressed():
                    os.listdir(self.a("groups"))
                return self.proxy.lied()
            lib.wait_until(listed, "the lie")
            lib.wait_until(lambda: lib.read(self.a(".tooz/state")) == b"connected\n", "the mount")
            self.assertIsNone(self.a.process.poll())
            self.assertLess(self.memory_kib() - before, self.GROWS_KIB)
            lib.wait_until(lambda: os.listdir(self.a("groups")) == ["g"], "the group")
        self.works()


class Hostile(lib.ZooKeeper):
    """Nodes of the tree with something else in them."""

    options = OPTIONS
    DATA = (b"", b"\xc1", b"\xff" * 300, b"\xdd\xff\xff\xff\xff", b"x" * 500000, b"a\nb")

    def setUp(self):
        super().setUp()
        from kazoo.client import KazooClient
        self.client = KazooClient(f"127.0.0.1:{lib.server('zookeeper').port}", timeout=10)
        self.client.start(10)
        self.addCleanup(self.client.close)
        self.addCleanup(self.client.stop)
        self.ns = "/" + self.a.url.split("namespace=")[1].split("&")[0]

    def nodes(self, path):
        yield path
        for child in self.client.get_children(path):
            yield from self.nodes(f"{path}/{child}")

    def test_every_node(self):
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"x")
        agent = self.agent()
        agent.open_flock(self.a("locks/l"), RW, EX)
        agent.open_flock(self.a("locks/s"), RW, SH)
        agent.open_flock(self.a("leaders/g"), RW, EX)
        nodes = list(self.nodes(self.ns))
        self.assertGreater(len(nodes), 8)
        for node in nodes:
            for data in self.DATA:
                self.client.set(node, data)
                for tree in (self.a, self.b):
                    self.use(tree)
            self.client.set(node, b"")
        self.alive()

    def test_every_node_deleted(self):
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"x")
        agent = self.agent()
        fd = agent.open_flock(self.a("locks/l"), RW, EX)
        self.client.delete(self.ns, recursive=True)
        for tree in (self.a, self.b):
            self.use(tree)
        self.fails(errno.EIO, agent.fsync, fd)
        self.alive()

    def use(self, tree):
        watch = lib.Stopwatch()
        for name in ("locks/l", "locks/s", "leaders/g"):
            try:
                fd = os.open(tree(name), os.O_RDWR | os.O_CREAT)
            except OSError:
                continue
            try:
                fcntl.flock(fd, EX | NB)
            except OSError:
                pass
            finally:
                os.close(fd)
        lib.sh('ls -lR "$1"; cat "$1"/[!e]*/* "$1"/groups/g/*', tree.path, timeout=4 * lib.PATIENCE_S)
        self.assertIsNone(tree.process.poll(), tree.read_log())
        watch.within(3 * LEASE_S + 2 * lib.SLOW)

    def alive(self):
        for tree in (self.a, self.b):
            def works():
                try:
                    with lib.suppressed():
                        os.mkdir(tree("groups/after"))
                    lib.write(tree("groups/after/m"), b"x")
                    os.unlink(tree("groups/after/m"))
                    fd = os.open(tree("locks/after"), os.O_RDWR | os.O_CREAT)
                    try:
                        fcntl.flock(fd, EX | NB)
                    finally:
                        os.close(fd)
                    return True
                except OSError:
                    return False
            lib.wait_until(works, "the mount to work again", 2 * lib.PATIENCE_S)


class Many(Own, trouble.Base, lib.Case):
    """What is watched stays within bounds, and survives a connection that breaks."""

    def watches(self):
        return int(re.search(r"Total watches:(\d+)", self.server.word("wchs")).group(1))

    def test_names_that_are_not_there(self):
        """Looking at them leaves nothing at the server for longer than somebody looks."""
        before, views = self.watches(), 10240  # so many looks at locks are kept
        for i in range(300):
            for path in (f"groups/absent{i}", f"groups/absent{i}/member"):
                self.assertFalse(os.path.exists(self.b(path)))
        lib.wait_until(lambda: self.watches() < before + 100, "the watches to go")
        for i in range(views + 800):
            self.assertFalse(os.path.exists(self.b(f"locks/absent{i}")))
        self.assertGreater(self.watches(), views // 2)
        lib.wait_until(lambda: self.watches() < before + views + 400, "the oldest watches to go")

    def test_long_names_held(self):
        """What the client library says on a new connection is one request, and has to fit in."""
        self.a.stop()
        self.a = self.tree(self.url(port=self.proxy.port), f"timeout={10 * lib.SLOW:g}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (9000, 9000))
        fds = []
        for i in range(5000):
            fds.append(self.open(self.a("locks/" + f"{i:04}" * 60)))
            fcntl.flock(fds[-1], EX)
        lib.wait_until(lambda: self.watches() > 500, "many of them to be watched")
        self.proxy.cut()
        for fd in fds[::500]:
            self.keeps(os, fd)
        self.assertEqual(lib.read(self.a(".tooz/state")), b"connected\n")
        # A loss is seen, of what is watched and of what is not.
        for i in (0, 4999):
            os.unlink(self.b("locks/" + f"{i:04}" * 60))
            poll = lib.select.poll()
            poll.register(fds[i], lib.select.POLLIN)
            self.assertTrue(poll.poll(1000 * lib.PATIENCE_S))
        for fd in fds:
            os.close(fd)

    def test_hand_over(self):
        """Who waits, mount or Python's way, is one watch; a release is one notice and one round trip for the
        next one, and nothing at all for those behind."""
        from kazoo.client import KazooClient
        python = KazooClient(f"127.0.0.1:{self.server.port}", timeout=30)
        python.start(10)
        self.addCleanup(python.close)
        self.addCleanup(python.stop)
        options = f"timeout={60 * lib.SLOW:g}"  # so that keep-alives are few
        proxies = [self.proxied() for _ in range(2)]
        trees = [self.tree(self.url(port=x.port), options) for x in proxies]
        agents = [self.agent() for _ in trees]
        fds = [agent.open(tree("locks/l")) for agent, tree in zip(agents, trees)]
        counts = []
        for _ in range(5):
            lock = python.Lock(f"/{self.ns}/locks/l", "py")
            self.assertTrue(lock.acquire(timeout=lib.PATIENCE_S))
            for place, (agent, fd) in enumerate(zip(agents, fds)):
                before = self.watches()
                agent.start("flock", fd, EX)
                lib.wait_until(lambda: self.queued() == place + 2, "its place in the queue")
                lib.wait_until(lambda: self.watches() > before, "its watch")
                self.assertEqual(self.watches(), before + 1)
            for between in proxies:
                between.reset_counts()
            lock.release()
            agents[0].result()
            counts.append([x.counts()["trips"] for x in proxies])
            agents[0].flock(fds[0], UN)
            agents[1].result()
            agents[1].flock(fds[1], UN)
            lib.wait_until(lambda: self.queued() == 0, "the last release")
        # What is done some milliseconds later, or a keep-alive, may be counted in.
        self.assertEqual(min(x for x, _ in counts), 1, counts)
        self.assertEqual(min(x for _, x in counts), 0, counts)
        self.assertLessEqual(max(x for x, _ in counts), 3, counts)

    def queued(self):
        return self.server.word("dump").count(f"/{self.ns}/locks/l/")

    def settled_down(self):
        """Some keep-alives later, whatever was asked before has been answered."""
        trips = self.proxy.counts()["trips"]
        lib.wait_until(lambda: self.proxy.counts()["trips"] > trips + 2, "keep-alives")

    def behind(self, trouble):
        """One waits behind the proxy, has trouble, and another comes after: the order is that of arrival."""
        holder, first, second = (self.agent() for _ in range(3))
        held = holder.open_flock(self.b("locks/l"), RW, EX)
        options = f"timeout={2 * LEASE_S * lib.SLOW:g}"  # all of it is shorter than the lease
        other = self.tree(self.url(), options)
        self.a.stop()
        self.a = self.tree(self.url(port=self.proxy.port), options)
        one, two = first.open(self.a("locks/l")), second.open(other("locks/l"))
        self.proxy.delay(100)
        first.start("flock", one, EX)
        lib.wait_until(lambda: self.queued() == 2, "the first waiter's node")
        trouble(0)
        second.start("flock", two, EX)
        lib.wait_until(lambda: self.queued() == 3, "the second waiter's node")
        trouble(1)
        self.proxy.delay(0)
        self.state(self.a, "connected")
        self.settled_down()
        holder.flock(held, UN)
        first.result()
        self.assertFalse(second.done(), "two at once")
        self.keeps(first, one)
        first.flock(one, UN)
        second.result()

    def test_place_kept_without_an_answer(self):
        """The connection breaks when the node is made and the answer is on its way."""
        def trouble(step):
            if step == 0:
                self.assertGreater(self.proxy.cut(), 0)
        self.behind(trouble)

    def test_place_kept_while_looking(self):
        """The connection breaks again, while the waiter looks whether he still waits."""
        def trouble(step):
            for _ in range(4 if step else 0):
                self.assertGreater(self.proxy.cut(), 0)
                self.state(self.a, "suspended")
                self.state(self.a, "connected")
        self.behind(trouble)

    def test_sharers_stand_back(self):
        """For as long as a writer elsewhere waits, however long that is."""
        first, writer, second = self.agent(), self.agent(), self.agent()
        fd = first.open_flock(self.a("locks/l"), RW, SH)
        other = writer.open(self.b("locks/l"))
        writer.start("flock", other, EX)
        writer.wait_blocked()
        wait_s = time.monotonic() + 3.5
        place = second.open(self.a("locks/l"))
        lib.wait_until(lambda: self.stands_back(second, place), "sharers to stand back")
        second.start("flock", place, SH)
        while time.monotonic() < wait_s:
            self.assertFalse(second.done(wait_s - time.monotonic()), "a sharer passed the writer")
        first.flock(fd, UN)
        writer.result()
        self.assertFalse(second.done())
        writer.flock(other, UN)
        second.result()

    def stands_back(self, agent, fd):
        try:
            agent.flock(fd, SH | NB)
        except BlockingIOError:
            return True
        agent.flock(fd, UN)
        return False


class Several(lib.Case):
    """On an ensemble that is whole again after each."""

    kind = "zookeeper"

    def setUp(self):
        self.site = self.ensemble()
        self.addCleanup(self.site.revive)

    def ensemble(self):
        return lib.server("zookeeper-ensemble")

    def token(self, agent, fd):
        return int(lib.fields(agent.pread(fd, 4096, 0))["token"])

    def contenders(self, site, namespace, lock):
        """How many nodes there are for a lock, as a leader has it."""
        leader = site.leader()
        return leader.word("dump").count(f"/{namespace}/locks/{lock}/") if leader else None


class Ensemble(Several):
    costly = "ensemble"

    def setUp(self):
        super().setUp()
        url = self.site.url(self.site.namespace())
        self.a, self.b = self.tree(url, OPTIONS), self.tree(url, OPTIONS)
        self.holder, self.waiter = self.agent(), self.agent()
        self.fd = self.holder.open_flock(self.a("locks/l"), RW, EX)
        self.other = self.waiter.open(self.b("locks/l"))
        self.waiter.start("flock", self.other, EX)
        self.waiter.wait_blocked()

    def settled(self):
        """True: the holder still holds; False: it was told that not."""
        end = time.monotonic() + 2 * lib.PATIENCE_S
        while True:
            try:
                self.holder.fsync(self.fd)
                return True
            except OSError as error:
                if error.errno == errno.EIO:
                    return False
            self.assertLess(time.monotonic(), end, "neither kept nor lost")

    def handed_over(self, token):
        if self.settled():
            self.assertFalse(self.waiter.done(), "two hold at once")
            self.holder.flock(self.fd, UN)
        self.waiter.result(2 * lib.PATIENCE_S)
        self.assertGreater(self.token(self.waiter, self.other), token)

    def test_leader_killed(self):
        token = self.token(self.holder, self.fd)
        self.site.fail_over()
        self.handed_over(token)

    def test_one_after_the_other(self):
        """Each server is away once; sessions move, and live."""
        token = self.token(self.holder, self.fd)
        for server in list(self.site.servers):
            server.kill()
            servers.Sentinels._until(self.site.leader, "a leader")
            lib.wait_until(lambda: trouble.tries(self.b("locks/w")), "a lock", 2 * lib.PATIENCE_S)
            server.start()
        self.handed_over(token)

    def test_no_majority(self):
        """One server left decides nothing: the holder is told in time, and nobody gets the lock."""
        leader = self.site.leader()
        killed = [x for x in self.site.servers if x is not leader][:1] + [leader]
        watch = lib.Stopwatch()
        for server in killed:
            server.kill()
        self.holder.start("poll", self.fd, lib.select.POLLIN, int(4000 * lib.PATIENCE_S))
        self.assertTrue(self.holder.result(4 * lib.PATIENCE_S) & lib.select.POLLERR)
        watch.within(LEASE_S + 1 * lib.SLOW)
        self.assertFalse(self.waiter.done(), "granted by a minority")
        for server in killed:
            server.spawn()
        for server in killed:
            server.wait_ready()
        self.waiter.result(2 * lib.PATIENCE_S)

    def test_leader_stopped(self):
        """A leader that stands still is replaced; it does not come back with another truth."""
        token = self.token(self.holder, self.fd)
        leader = self.site.leader()
        leader.pause()
        try:
            kept = self.settled()
        finally:
            leader.cont()
        if kept:
            self.assertFalse(self.waiter.done(), "two hold at once")
        self.handed_over(token)

    def test_deposed_leader(self):
        """Stopped over an election and a break, it goes on and does not know for a moment that it leads no more."""
        leader = self.site.leader()
        others = [server for server in self.site.servers if server is not leader]
        namespace = self.site.namespace()
        here = self.tree(leader.url(namespace), "timeout=8,membership_timeout=40")
        there = self.tree(others[0].url(namespace), "timeout=8,membership_timeout=40")
        fd = self.open(here("locks/x"))
        fcntl.flock(fd, EX)
        os.fsync(fd)
        leader.pause()
        self.addCleanup(leader.cont)

        def broken():
            try:
                os.unlink(there("locks/x"))
                return True
            except OSError:
                return False
        lib.wait_until(broken, "the others to go on", 2 * lib.PATIENCE_S)
        other = self.open(there("locks/x"))
        fcntl.flock(other, EX)
        os.fsync(other)
        leader.cont()
        end = time.monotonic() + 2 * lib.PATIENCE_S
        while True:
            error = self.fails((errno.EIO, errno.EHOSTDOWN, errno.ETIMEDOUT), os.fsync, fd)
            if error.errno == errno.EIO:
                break
            self.assertLess(time.monotonic(), end, "the holder was never told")
        os.fsync(other)


class Queue(Several):
    """Sessions with time enough to outlive an election."""

    costly = Ensemble.costly

    def queued(self, count):
        """A holder and mounts that wait, in this order; [(agent, fd)]."""
        namespace = self.site.namespace()
        queue = []
        for i in range(count):
            tree = self.tree(self.site.url(namespace), f"timeout={10 * lib.SLOW:g}")
            agent = self.agent()
            fd = agent.open(tree("locks/l"))
            agent.start("flock", fd, EX)
            queue.append((agent, fd))
            lib.wait_until(lambda: self.contenders(self.site, namespace, "l") == i + 1,
                           "its place in the queue")
        queue[0][0].result()
        return queue

    def served_in_order(self, queue):
        token = 0
        for i, (agent, fd) in enumerate(queue):
            if i:
                agent.result(2 * lib.PATIENCE_S)
            for later, _ in queue[i + 1:]:
                self.assertFalse(later.done(), "out of order, or two at once")
            agent.fsync(fd)
            self.assertGreater(self.token(agent, fd), token)
            token = self.token(agent, fd)
            agent.flock(fd, UN)

    def holds_on(self, agent, fd):
        """The lock is confirmed in the end, and never was lost."""
        def confirmed():
            try:
                agent.fsync(fd)
                return True
            except OSError as error:
                self.assertNotEqual(error.errno, errno.EIO, "lost")
                return False
        lib.wait_until(confirmed, "the confirmation", 3 * lib.PATIENCE_S)

    def test_order_over_an_election(self):
        """The leader dies: who held holds, and who waited is served in the order of arrival."""
        queue = self.queued(5)
        token = self.token(*queue[0])
        self.site.fail_over()
        self.holds_on(*queue[0])
        self.assertEqual(self.token(*queue[0]), token)
        self.served_in_order(queue)

    def test_order_over_all_restarted(self):
        """Each server dies once, the next as soon as the one before is back: nobody's place is lost."""
        queue = self.queued(4)
        for server in list(self.site.servers):
            server.kill()
            servers.Sentinels._until(self.site.leader, "a leader")
            self.holds_on(*queue[0])
            server.start()
        self.served_in_order(queue)


class Parted(Several):
    """A follower that is cut off from its leader answers reads and pings, and would for half a minute."""

    costly = "parted"

    @classmethod
    def setUpClass(cls):
        lib.need_module("zookeeper")
        try:
            cls.parted = servers.PartedEnsemble(options=["syncLimit=150"])
        except servers.Missing as missing:
            raise unittest.SkipTest(str(missing)) from missing
        cls.addClassCleanup(cls.parted.stop)  # the process is in its network until then

    def ensemble(self):
        return self.parted

    def setUp(self):
        super().setUp()
        self.leader = self.site.leader()
        self.follower, self.third = [x for x in self.site.servers if x is not self.leader]
        self.ns = self.site.namespace()

    def mount(self, *places, options=OPTIONS):
        return self.tree(self.site.url_of(places, namespace=self.ns, randomize_hosts="false"), options)

    def hold(self, tree):
        """A handle that agents made after this share with us."""
        self.fd = self.open(tree("locks/l"))
        fcntl.flock(self.fd, EX)
        self.poller = self.agent()

    def wait(self, tree):
        self.waiter = self.agent()
        self.other = self.waiter.open(tree("locks/l"))
        self.waiter.start("flock", self.other, EX)
        lib.wait_until(lambda: self.contenders(self.site, self.ns, "l") == 2, "the waiter's node")

    def holder_is_told(self, asked):
        a, b = self.mount(self.follower), self.mount(self.leader, self.third)
        self.hold(a)
        self.wait(b)
        os.fsync(self.fd)
        asker = self.agent()
        begin = time.monotonic()
        self.site.cut(self.follower)
        self.poller.start("poll", self.fd, lib.select.POLLIN, int(4000 * lib.PATIENCE_S))
        while not self.poller.done(0.002):
            self.assertFalse(self.waiter.done(), "another holds it, and the holder was not told")
            if asked:
                self.fails((errno.EIO, *trouble.UNKNOWN), asker.fsync, self.fd)
            self.assertLess(time.monotonic() - begin, LEASE_S + 1 * lib.SLOW, "not told in time")
        self.assertTrue(self.poller.result() & lib.select.POLLERR)
        self.fails(errno.EIO, asker.fsync, self.fd)
        self.fails(errno.EIO, os.pread, self.fd, 4096, 0)
        self.assertEqual(self.follower.mode(), "follower", "it was to answer all the time")
        self.waiter.result(LEASE_S + lib.PATIENCE_S)
        self.waiter.fsync(self.other)
        # Here nothing is granted, and the calls end.
        self.fails(trouble.UNKNOWN, self.agent().open_flock, a("locks/new"), RW, EX | NB)
        self.site.heal(self.follower)
        self.goes_on(a, b)

    def test_holder_at_the_follower(self):
        """Nothing is confirmed there, and the loss is told before the other side grants the lock."""
        self.holder_is_told(asked=True)

    def test_silent_holder_at_the_follower(self):
        """Also if nobody asks: only the keep-alive can find out."""
        self.holder_is_told(asked=False)

    def test_try_at_the_follower(self):
        """That a lock is taken is no answer of a server that does not know what was let go."""
        a, b = self.mount(self.follower), self.mount(self.leader, self.third)
        self.hold(b)
        self.fails(errno.EAGAIN, fcntl.flock, self.open(a("locks/l")), EX | NB)
        self.site.cut(self.follower)
        fcntl.flock(self.fd, UN)
        os.fsync(self.fd)
        self.fails(trouble.UNKNOWN, fcntl.flock, self.open(a("locks/l")), EX | NB)
        self.site.heal(self.follower)
        self.goes_on(a, b)

    def test_waiter_at_the_follower(self):
        """What it saw before, it does not take for the truth: a lock is not granted there."""
        a, b = self.mount(self.follower), self.mount(self.leader, self.third)
        self.hold(b)
        self.wait(a)
        self.site.cut(self.follower)
        fcntl.flock(self.fd, UN)
        third = self.agent()
        place = third.open(b("locks/l"))
        third.start("flock", place, EX)
        lib.wait_until(third.done, "the lock, when the waiter's session is over", 3 * lib.PATIENCE_S)
        third.result()
        self.assertFalse(self.waiter.done(), "granted by a server that is alone")
        third.fsync(place)
        self.site.heal(self.follower)
        third.flock(place, UN)
        self.waiter.result(3 * lib.PATIENCE_S)
        self.waiter.flock(self.other, UN)
        self.goes_on(a, b)

    def test_moves_to_another(self):
        """A mount that knows the others leaves the follower, and keeps what it holds."""
        options = f"timeout={2 * LEASE_S * lib.SLOW:g}"
        a = self.mount(self.follower, self.third, self.leader, options=options)
        b = self.mount(self.leader, self.third, options=options)
        self.hold(a)
        self.wait(b)
        self.site.cut(self.follower)
        begin = time.monotonic()
        while True:
            try:
                os.fsync(self.fd)
                break
            except OSError as error:
                self.assertNotEqual(error.errno, errno.EIO, "lost")
            self.assertLess(time.monotonic() - begin, 2 * lib.PATIENCE_S)
        self.assertFalse(self.waiter.done())
        fcntl.flock(self.fd, UN)
        self.waiter.result()
        self.site.heal(self.follower)
        self.waiter.flock(self.other, UN)
        self.goes_on(a, b)

    def goes_on(self, *trees):
        for tree in trees:
            lib.wait_until(lambda t=tree: trouble.tries(t("locks/w")), "the mount to work again",
                           4 * lib.PATIENCE_S)
            self.assertEqual(lib.read(tree(".tooz/state")), b"connected\n")


if __name__ == "__main__":
    lib.main(400)
