# SPDX-License-Identifier: Apache-2.0
"""What any server can do to a mount: be away, be slow, be something else, answer junk, end connections.

servers_redis.py and servers_zookeeper.py mix these into cases that say how to make a server and its URLs.
A mount here is `a` behind a proxy, and `b` directly on the server.
"""
import errno
import fcntl
import os
import random
import signal
import socket
import subprocess
import threading
import time

import lib
from lib import EX, NB, SH, UN
import proxy  # of tests/lib

RW = os.O_RDWR | os.O_CREAT
LEASE_S = 3
OPTIONS = f"timeout={LEASE_S}"
UNKNOWN = (errno.EHOSTDOWN, errno.ETIMEDOUT, errno.ENOLCK)


def hammer(path, marker, log, seconds):
    """Takes and releases for so long; (turns, errors, what went wrong)."""
    turns, errors, wrong = 0, 0, []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        fd = -1
        try:
            fd = os.open(path, RW)
            fcntl.flock(fd, EX)
            token = int(lib.fields(os.pread(fd, 4096, 0))["token"])
        except (OSError, KeyError) as error:
            errors += 1
            if isinstance(error, OSError) and error.errno not in (*UNKNOWN, errno.EIO, errno.EINTR):
                wrong.append(repr(error))
            if fd >= 0:
                _close(fd)
            time.sleep(0.01)
            continue
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            wrong.append("two hold at once")
        else:
            with open(log, "a", encoding="ascii") as f:
                f.write(f"{token}\n")
            os.unlink(marker)
        turns += 1
        _close(fd)
    return turns, errors, wrong


def _close(fd):
    try:
        os.close(fd)
    except OSError:
        pass


lib.ACTIONS["hammer"] = hammer
lib.ACTIONS["fstat"] = lambda fd: tuple(os.fstat(fd))


def tries(path):
    """Is the lock free, and the mount able to take it?"""
    try:
        fd = os.open(path, RW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, EX | NB)
        return True
    except OSError:
        return False
    finally:
        _close(fd)


class Listener:
    """Accepts, says something to each, and keeps silent or closes."""

    def __init__(self, words, close=False):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(64)
        self.port = self.socket.getsockname()[1]
        self.words, self.close_each, self.open, self.count = words, close, [], 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client = self.socket.accept()[0]
                self.count += 1
                client.sendall(self.words)
            except OSError:
                if self.socket.fileno() < 0:
                    return
                continue
            self.open.append(client)
            # Whoever does not like what he hears comes again and again; the older ones are gone.
            while len(self.open) > (0 if self.close_each else 50):
                self.open.pop(0).close()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for client in self.open:
            client.close()


class Refused:
    """Mounts that cannot be: a message, exit status 32, in bounded time."""

    scheme = ""
    # What is said of a server that is mute, that closes, that says junk; (): not known here.
    mute_words = closed_words = junk_words = ()

    def begin(self, url, options=OPTIONS):
        """Starts a mount that is to fail."""
        lib.Tree.count += 1
        path = os.path.join(lib.WORK, f"refused{lib.Tree.count}")
        os.mkdir(path)
        # A client library may allocate what a hostile length says; to fill that would take its time.
        env = {key: value for key, value in os.environ.items() if key != "MALLOC_PERTURB_"}
        process = subprocess.Popen([lib.TOOZFS, url, path, "-o", options], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   env=env)
        return process, path, lib.Stopwatch()

    def end(self, begun, *said, secret=None, within=None):
        process, path, watch = begun
        try:
            _, text = process.communicate(timeout=6 * lib.PATIENCE_S)
            watch.stop()
            self.assertFalse(lib.mounted(path))
        finally:
            process.kill()
            while lib.mounted(path):
                subprocess.run(["umount", "-l", path], check=False, timeout=10)
        self.assertEqual(process.returncode, 32, text)
        watch.within((within or LEASE_S) + 3 * lib.SLOW, text)
        self.assertTrue(text.strip(), "no word of why")
        if said:
            self.assertTrue(any(word.lower() in text.lower() for word in said), text)
        if secret:
            self.assertNotIn(secret, text)

    def refused(self, url, *said, **keywords):
        self.end(self.begin(url), *said, **keywords)

    def listener(self, words, close=False):
        listener = Listener(words, close)
        self.addCleanup(listener.close)
        return f"{self.scheme}://127.0.0.1:{listener.port}"

    def test_nobody_listens(self):
        port = lib.servers.free_port()
        self.refused(f"{self.scheme}://127.0.0.1:{port}")

    def test_no_such_host(self):
        self.refused(f"{self.scheme}://no-such-host.invalid")

    def test_accepts_and_says_nothing(self):
        self.refused(self.listener(b""), *self.mute_words)

    def test_accepts_and_closes(self):
        self.refused(self.listener(b"", close=True), *self.closed_words)

    def test_junk(self):
        words = [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n",
                 b"\0" * 4096, b"\xff" * 4096, b"\r\n" * 3000, os.urandom(5000)]
        junk = [(x, close) for x in words + self.junk for close in (False, True)]
        for i in range(0, len(junk), 16):
            # Together: each may take its whole time.
            begun = [(x, self.begin(self.listener(*x))) for x in junk[i:i + 16]]
            for (words, close), mount in begun:
                with self.subTest(junk=words[:20], close=close):
                    self.end(mount, *self.junk_words, within=2 * LEASE_S)

    junk = []


class Holders:
    """What becomes of what is held."""

    NEEDS_S = 0.5  # a lease is lost to a machine that is busy for so long between two renewals

    def setUp(self):
        self.confirmed = lib.Stopwatch()

    def settled(self, agent, fd):
        """True: the backend confirms it; False: it is lost."""
        watch = lib.Stopwatch()
        while True:
            try:
                agent.fsync(fd)
                self.confirmed = lib.Stopwatch()
                return True
            except OSError as error:
                if error.errno == errno.EIO:
                    return False
            self.assertLess(watch.passed(), 2 * lib.PATIENCE_S, "neither kept nor lost")

    def keeps(self, agent, fd):
        """Until the backend confirms it; a loss is an error."""
        if self.settled(agent, fd):
            return
        if self.confirmed.busy() > self.NEEDS_S:
            self.skipTest(f"the machine is too busy to keep a lease of {LEASE_S} s")
        self.fail("lost")

    def loses(self, agent, fd):
        lib.wait_until(lambda: lib.lost(agent.fsync, fd), "the loss", 2 * lib.PATIENCE_S)


class Base(Holders):
    """Two mounts, one behind a proxy."""

    # self.server: pause, cont; self.url(port=None): of a mount in the test's namespace

    def setUp(self):
        super().setUp()
        self.proxy = self.proxied()
        self.a = self.tree(self.url(port=self.proxy.port), OPTIONS)
        self.b = self.tree(self.url(), OPTIONS)

    def proxied(self):
        made = proxy.Proxy(self.server.port)
        self.addCleanup(made.stop)
        return made

    def hold(self):
        """a holds, a and b wait."""
        self.holder = self.agent()
        self.fd = self.holder.open_flock(self.a("locks/l"), RW, EX)
        self.waiters = []
        for mount in (self.a, self.b):
            agent = self.agent()
            agent.fd = agent.open(mount("locks/l"))
            agent.start("flock", agent.fd, EX)
            agent.wait_blocked()
            self.waiters.append(agent)

    def served(self):
        """The holder lets go, and each waiter has its turn."""
        for agent in self.waiters:
            self.assertFalse(agent.done(), "a waiter got in")
        self.holder.flock(self.fd, UN)
        self.drain()

    def drain(self):
        """Each waiter has its turn. One that was granted the lock may have lost it by the time that it is
        looked at: its mount was about to find out that the server has forgotten its session."""
        left = list(self.waiters)
        while left:
            lib.wait_until(lambda: any(x.done() for x in left), "the next holder",
                           2 * lib.PATIENCE_S)
            ready = [x for x in left if x.done()]
            for agent in ready:
                agent.result()
            if len(ready) > 1:
                holders = sum(self.settled(x, x.fd) for x in ready)
                self.assertLessEqual(holders, 1, "two hold at once")
            for agent in ready:
                agent.flock(agent.fd, UN)
                left.remove(agent)

    def state(self, tree, *states):
        lib.wait_until(lambda: lib.read(tree(".tooz/state")).decode().strip() in states,
                       f"the state {states}", 2 * lib.PATIENCE_S)

    def works(self):
        """Everything on both mounts, after whatever happened."""
        name = f"works{random.randrange(1 << 30)}"

        def done():
            try:
                if not tries(self.a("locks", name)) or not tries(self.b("locks", name)):
                    return False
                with lib.suppressed():
                    os.mkdir(self.a("groups", name))
                lib.write(self.a("groups", name, "m"), b"x")
                same = lib.read(self.b("groups", name, "m")) == b"x"
                os.unlink(self.a("groups", name, "m"))
                os.rmdir(self.a("groups", name))
                return same
            except OSError:
                return False
        lib.wait_until(done, "the mounts to work again", 3 * lib.PATIENCE_S)
        self.state(self.a, "connected")


class Trouble(Base):
    """Connections that end, stall and lie, with locks held and waiters queued."""

    believes_junk = False  # may noise look as if the session had ended?

    def test_cut(self):
        self.hold()
        for _ in range(5):
            self.assertGreater(self.proxy.cut(), 0)
            self.state(self.a, "connected")
            self.keeps(self.holder, self.fd)
        self.served()
        self.works()

    def test_cut_while_nothing_is_held(self):
        for _ in range(5):
            self.proxy.cut()
            lib.wait_until(lambda: tries(self.a("locks/l")), "the lock")

    def test_half_closed(self):
        self.hold()
        self.proxy.half_close()
        self.keeps(self.holder, self.fd)
        self.served()

    def test_garbled(self):
        """A connection that lies is given up; what was held is kept."""
        self.hold()
        for count in (1, 4, 1000):
            self.proxy.garble(count)
            if not self.believes_junk:
                self.keeps(self.holder, self.fd)
            elif not self.settled(self.holder, self.fd):
                break
            self.proxy.garble(0)
            self.proxy.cut()
        self.proxy.garble(0)
        self.assertIsNone(self.a.process.poll())
        self.holder.flock(self.fd, UN)
        self.drain()
        self.works()

    def test_silence_while_sharers_read(self):
        """Who asks who else shares his lock, and gets no answer, is told of the loss before the next holds."""
        readers, waiter = [self.agent() for _ in range(7)], self.agent()
        fds = [reader.open_flock(self.a("locks/l"), RW, lib.SH) for reader in readers]
        waiter.start("open_flock", self.b("locks/l"), RW, EX)
        waiter.wait_blocked()
        # Each read is two questions, so some are asked the one, some the other.
        self.proxy.delay(150)
        for reader, fd in zip(readers, fds):
            reader.start("pread", fd, 4096, 0)
            time.sleep(0.1)
        self.proxy.drop("both")
        told = [reader for reader in readers if not reader.done()]
        lib.wait_until(lambda: waiter.done() or all(x.done() for x in told), "an answer", 2 * lib.PATIENCE_S)
        self.assertFalse(waiter.done(), f"granted, and {sum(not x.done() for x in told)} were not told before")
        for reader in told:
            self.fails(errno.EIO, reader.result)
        waiter.result()

    def test_slow(self):
        """A tenth of a second each way: slower, and nothing else."""
        self.proxy.delay(100)
        self.hold()
        end = time.monotonic() + LEASE_S + 1
        while time.monotonic() < end:
            self.keeps(self.holder, self.fd)
            time.sleep(0.2)
        self.assertEqual(lib.read(self.a(".tooz/state")), b"connected\n")
        self.served()

    def test_short_silence(self):
        """Less than the lease: suspended at the most, and nothing is lost."""
        self.hold()
        self.proxy.stall("both")
        time.sleep(0.6)
        self.proxy.stall("none")
        self.keeps(self.holder, self.fd)
        self.served()

    def test_short_absence(self):
        self.hold()
        self.proxy.refuse(True)
        time.sleep(0.6)
        self.proxy.refuse(False)
        self.keeps(self.holder, self.fd)
        self.served()
        self.works()

    def test_long_absence(self):
        """Lost before anybody else can get it; what waits waits on; members come back."""
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"caps")
        self.hold()
        watch = lib.Stopwatch()
        self.proxy.refuse(True)
        self.holder.start("poll", self.fd, lib.select.POLLIN, int(1000 * 4 * lib.PATIENCE_S))
        # b's waiter may have it only when a's holder was told.
        lib.wait_until(lambda: self.holder.done() or self.waiters[1].done(), "the loss",
                       4 * lib.PATIENCE_S)
        self.assertTrue(self.holder.done(), "another held it before its holder was told")
        self.assertTrue(self.holder.result() & lib.select.POLLERR)
        watch.within(LEASE_S + 1 * lib.SLOW)
        self.fails(errno.EIO, self.holder.fsync, self.fd)
        self.waiters[1].result(LEASE_S + lib.PATIENCE_S)
        self.assertFalse(self.waiters[0].done())
        watch = lib.Stopwatch()
        self.fails(errno.ENOLCK, self.agent().open_flock, self.a("locks/other"), RW, EX | NB)
        lib.sh('ls -lR "$1"', self.a.path, timeout=4 * lib.PATIENCE_S)
        watch.within(3 * LEASE_S + 2 * lib.SLOW)
        self.proxy.refuse(False)
        self.state(self.a, "connected")
        self.fails(errno.EIO, self.holder.fsync, self.fd)
        lib.wait_until(lambda: self._members() == ["m"], "the member to come back")
        self.assertEqual(lib.read(self.b("groups/g/m")), b"caps")
        self.assertFalse(self.waiters[0].done())
        self.waiters[1].flock(self.waiters[1].fd, UN)
        self.waiters[0].result()

    def looks(self, tree, count):
        """So many look-ups, of names never seen before and of one that is held."""
        for i in range(count):
            self.assertFalse(os.path.exists(tree(f"locks/free{random.randrange(1 << 30)}")))
        return os.path.exists(tree("locks/held"))

    def calls_that_fail(self, tree):
        """One of each kind; how many."""
        name = f"x{random.randrange(1 << 30)}"
        no_answer = (*UNKNOWN, errno.ENOENT)
        calls = [(os.stat, tree("locks", name)), (lib.read, tree("locks", name)),
                 (os.unlink, tree("locks", name)), (os.open, tree("locks", name), RW | os.O_EXCL),
                 (os.listdir, tree("locks")), (os.listdir, tree("groups")),
                 (os.mkdir, tree("groups", name)), (os.rmdir, tree("groups/g")),
                 (os.listdir, tree("groups/g")), (lib.write, tree("groups/g", name), b"x"),
                 (lib.read, tree("leaders/g")), (lib.read, tree("rings/g", name))]
        for call, *args in calls:
            self.fails(no_answer, call, *args)
        fd = os.open(tree("locks", name), RW)
        self.fails(errno.ENOLCK, fcntl.flock, fd, EX | NB)
        os.fstat(fd)
        self.fails(UNKNOWN, os.read, fd, 100)
        os.close(fd)
        return len(calls) + 4

    def test_an_outage_is_waited_for_once(self):
        """When nobody has answered for as long as a call may wait, the next are told at once."""
        os.mkdir(self.a("groups/g"))
        self.agent().open_flock(self.b("locks/held"), RW, EX)
        self.assertTrue(self.looks(self.a, 0))
        self.proxy.drop("both")
        self.state(self.a, "lost")
        watch, count = lib.Stopwatch(), 0
        for _ in range(5):
            count += self.calls_that_fail(self.a)
            self.assertFalse(self.looks(self.a, 5))
            count += 6
        # A second, and the time-out.
        self.assertGreater(count, 100)
        watch.within(1 + LEASE_S + 2 * lib.SLOW, f"{count} calls")
        lib.sh('ls -lR "$1"; df "$1"; find "$1"; cat "$1"/.tooz/*', self.a.path)
        watch.within(1 + LEASE_S + 4 * lib.SLOW)
        self.proxy.drop("none")
        self.proxy.cut()
        self.state(self.a, "connected")
        # No call is told what was true before.
        self.assertTrue(self.looks(self.a, 0))
        self.works()

    def test_a_silence_is_waited_for_once(self):
        """Also while the connection is not known to be down; and an answer is enough to end that."""
        slow = self.tree(self.url(port=self.proxy.port), "timeout=30")
        self.agent().open_flock(self.b("locks/held"), RW, EX)
        self.assertTrue(self.looks(slow, 1))
        self.proxy.stall("both")
        watch = lib.Stopwatch()
        self.looks(slow, 8)
        fd = os.open(slow("locks/other"), RW)
        os.fstat(fd)
        os.close(fd)
        for i in range(4):
            self.fails(UNKNOWN, os.open, slow(f"locks/new{i}"), RW | os.O_EXCL)
        watch.within(2 + 2 * lib.SLOW)
        self.assertGreater(watch.passed(), 0.5, "it was not waited for at all")
        self.proxy.stall("none")
        lib.wait_until(lambda: self.looks(slow, 0), "an answer")
        self.state(slow, "connected")
        self.assertTrue(self.looks(slow, 1))

    def _members(self):
        try:
            return os.listdir(self.b("groups/g"))
        except OSError:
            return None

    def test_holder_of_a_member_ends_while_away(self):
        """Before the loss, or after it: the member does not come back without its holder."""
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/stays"), b"x")
        lost = lambda: lib.read(self.a(".tooz/state")) == b"lost\n"
        holders = [self.agent() for _ in range(3)]
        for i, agent in enumerate(holders):
            agent.open_flock(self.a(f"groups/g/m{i}"), RW, EX)
        self.proxy.drop("both")
        holders[0].kill()
        lib.wait_until(lost, "the loss", 4 * lib.PATIENCE_S)
        holders[1].kill()
        # Long enough that the leaves have timed out.
        self.fails(UNKNOWN, self.agent().mkdir, self.a("groups/h"))
        self.fails(UNKNOWN, self.agent().mkdir, self.a("groups/h"))
        self.proxy.drop("none")
        self.proxy.cut()
        lib.wait_until(lambda: sorted(self._members() or ()) == ["m2", "stays"],
                       "the members to come back", 4 * lib.PATIENCE_S)
        self.state(self.a, "connected")
        self.assertEqual(sorted(os.listdir(self.a("groups/g"))), ["m2", "stays"])
        holders[2].kill()
        lib.wait_until(lambda: self._members() == ["stays"], "the leave", 2 * lib.PATIENCE_S)

    def test_black_hole(self):
        """What is sent vanishes: calls end in bounded time, the loss comes in time."""
        self.hold()
        agent, taker = self.agent(), self.agent()
        fd = taker.open(self.a("locks/other"))
        watch = lib.Stopwatch()
        self.proxy.drop("both")
        taker.start("flock", fd, EX | NB)
        self.holder.start("poll", self.fd, lib.select.POLLIN, int(1000 * 4 * lib.PATIENCE_S))
        agent.start("mkdir", self.a("groups/g"))
        self.fails(UNKNOWN, agent.result, 3 * lib.PATIENCE_S)
        self.fails(errno.ENOLCK, taker.result, 3 * lib.PATIENCE_S)
        watch.within(2 * LEASE_S + 1 * lib.SLOW)
        self.assertTrue(self.holder.result(3 * lib.PATIENCE_S) & lib.select.POLLERR)
        watch.within(LEASE_S + LEASE_S + 1 * lib.SLOW)
        self.proxy.drop("none")
        self.proxy.cut()
        self.waiters[1].result(4 * lib.PATIENCE_S)
        self.waiters[1].flock(self.waiters[1].fd, UN)
        self.waiters[0].result(2 * lib.PATIENCE_S)
        self.waiters[0].flock(self.waiters[0].fd, UN)
        self.works()

    def test_server_stopped_and_continued(self):
        self.hold()
        self.server.pause()
        time.sleep(0.6)
        self.server.cont()
        self.keeps(self.holder, self.fd)
        self.served()

    def patient(self, **options):
        """One more mount behind the proxy, that waits for long before it calls a silence an outage."""
        options = ",".join(f"{key}={value}" for key, value in {"timeout": 20, **options}.items())
        return self.tree(self.url(port=self.proxy.port), options)

    def test_fsync_waits_for_the_release(self):
        """Unlocking does not wait for a server that says nothing; fsync tells when it has arrived."""
        slow, agent = self.patient(), self.agent()
        fd = agent.open_flock(slow("locks/l"), RW, EX)
        self.proxy.stall("both")
        watch = lib.Stopwatch()
        agent.flock(fd, UN)
        watch.within(1 + 1 * lib.SLOW)
        agent.start("fsync", fd)
        agent.wait_blocked()
        self.stays_blocked(agent)
        self.assertFalse(tries(self.b("locks/l")))
        self.proxy.stall("none")
        agent.result()
        self.assertTrue(tries(self.b("locks/l")))

    def test_no_answer_in_time(self):
        """A look-up that nobody answers is not in the way of who goes on to lock it: there is no such file. And
        flock has an errno of its own."""
        quick = self.patient(timeout=0.5, lock_timeout=20, membership_timeout=20)
        self.agent().open_flock(self.b("locks/held"), RW, EX)
        self.assertTrue(os.path.exists(quick("locks/held")))
        self.agent().open_flock(self.b("locks/held2"), RW, EX)
        fd = self.open(quick("locks/free"))
        self.proxy.stall("both")
        self.fails(errno.ENOLCK, fcntl.flock, fd, EX | NB)
        self.fails(errno.ENOENT, os.stat, quick("locks/held2"))
        self.proxy.stall("none")
        lib.wait_until(lambda: os.path.exists(quick("locks/held2")), "an answer")

    def test_first_to_find_a_silence(self):
        """Each of these has a second, and not the whole time-out, also when nobody has waited before it."""
        slow, holder, agent = self.patient(timeout=60), self.agent(), self.agent()
        holder.open_flock(self.b("locks/held"), RW, EX)
        for call, wrong in (("fstat", None), ("stat", errno.ENOENT), ("excl", UNKNOWN), ("unlink", UNKNOWN)):
            # The mount knows that one is held, and has no longer an idea of the other.
            fd = agent.open(slow("locks/free"))
            agent.flock(fd, SH)
            agent.flock(fd, UN)
            agent.fsync(fd)
            lib.wait_until(lambda: os.path.exists(slow("locks/held")), "an answer")
            self.proxy.stall("both")
            watch = lib.Stopwatch()
            agent.start(*{"fstat": ("fstat", fd), "unlink": ("unlink", slow("locks/held")),
                          "stat": ("stat", slow("locks/free2")),
                          "excl": ("open", slow("locks/free3"), RW | os.O_EXCL)}[call])
            if wrong:
                self.fails(wrong, agent.result)
            else:
                agent.result()
            # A lookup may come before the call itself.
            watch.within(2 + 1 * lib.SLOW, call)
            self.proxy.stall("none")
            agent.close(fd)

    def test_killed_while_nobody_answers(self):
        """A process that waits for an answer is soon gone."""
        slow = self.patient(timeout=60)
        os.mkdir(self.b("groups/g"))
        lib.write(self.b("groups/g/m"), b"x")
        self.assertEqual(lib.read(slow("groups/g/m")), b"x")
        self.proxy.stall("both")
        process = self.spawn("cat", slow("groups/g/m"), stdout=subprocess.DEVNULL)
        lib.wait_until(lambda: lib.in_lock_request(process.pid), "the call")
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(lib.SHORT_S)
        watch = lib.Stopwatch()
        process.kill()
        self.assertEqual(process.wait(4 * lib.PATIENCE_S), -signal.SIGKILL)
        watch.within(1 + 1 * lib.SLOW)
        self.proxy.stall("none")
        lib.wait_until(lambda: os.listdir(slow("groups/g")) == ["m"], "an answer")

    def test_terminated_while_away(self):
        """The daemon's end does not wait for a server that is gone."""
        self.hold()
        self.proxy.drop("both")
        watch = lib.Stopwatch()
        self.a.process.send_signal(signal.SIGTERM)
        self.a.wait_exit(6 * lib.PATIENCE_S)
        watch.within(2 * LEASE_S + 3 * lib.SLOW)
        self.assertIn("the backend is away: 1 lock stays there until the lease ends", self.a.read_log())
        self.waiters[1].result(LEASE_S + lib.PATIENCE_S)

    def test_exclusion_through_trouble(self):
        """Whatever happens to connections, one at a time, tokens in order, and it goes on after."""
        seconds = 30 if lib.LONG else 8
        marker, log = os.path.join(lib.WORK, "marker"), os.path.join(lib.WORK, "tokens")
        for path in (marker, log):
            if os.path.exists(path):
                os.unlink(path)
        agents = [self.agent() for _ in range(4)]
        for i, agent in enumerate(agents):
            agent.start("hammer", (self.a, self.b)[i % 2]("locks/l"), marker, log, seconds * lib.SLOW)
        choose, end = random.Random(os.getpid()), time.monotonic() + (seconds - 2) * lib.SLOW
        while time.monotonic() < end:
            time.sleep(choose.uniform(0.05, 0.4))
            what = choose.randrange(6)
            if what == 0:
                self.proxy.cut()
            elif what == 1:
                self.proxy.delay(choose.choice((0, 1, 20)))
            elif what == 2:
                self.proxy.stall(choose.choice(("up", "down", "both")))
                time.sleep(choose.uniform(0, 0.5))
                self.proxy.stall("none")
            elif what == 3:
                self.proxy.drop(choose.choice(("up", "down", "both")))
                time.sleep(choose.uniform(0, 0.5))
                self.proxy.cut()
                self.proxy.drop("none")
            elif what == 4:
                self.proxy.garble(choose.randrange(1, 50))
            else:
                self.more_trouble(choose)
        self.proxy.garble(0)
        self.proxy.delay(0)
        self.proxy.cut()
        results = [agent.result(6 * lib.PATIENCE_S) for agent in agents]
        wrong = [x for _, _, found in results for x in found]
        self.assertEqual(wrong, [])
        with open(log, encoding="ascii") as f:
            tokens = [int(line) for line in f]
        self.assertEqual(tokens, sorted(set(tokens)))
        print(f"turns and errors: {[x[:2] for x in results]}", file=lib.sys.stderr)
        self.assertGreater(len(tokens), 20)
        self.works()

    def more_trouble(self, choose):
        pass
