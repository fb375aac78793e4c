# SPDX-License-Identifier: Apache-2.0
"""redis:// on servers that refuse, fail, forget, are full, are taken over; and on keys full of junk."""
import errno
import fcntl
import http.server
import os
import re
import select
import socket
import threading
import time

import lib
import trouble
import unread_log
from lib import EX, NB, SH, UN, servers
from trouble import LEASE_S, OPTIONS, RW

JUNK = [b"+OK\r\n" * 1000, b"-ERR no\r\n" * 1000, b"*-1\r\n$-1\r\n:0\r\n" * 500,
        b"*2147483647\r\n", b"$2147483647\r\n", b"$-2147483648\r\n", b"*1\r\n" * 10000,
        b"%1\r\n+server\r\n+fake\r\n", b">3\r\n+invalidate\r\n*0\r\n", b":99999999999999999999999\r\n",
        b"$5\r\nab", b"+" + b"x" * 100000, b"_\r\n#t\r\n,nan\r\n(3492890328409238509324850943850943\r\n"]


def drip(listener):
    """A long answer, a drop at a time."""
    try:
        client = listener.accept()[0]
        client.sendall(b"$60000000\r\n")
        while True:
            client.sendall(b"x")
            time.sleep(0.05)
    except OSError:
        pass


class Silent(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Refused(trouble.Refused, lib.Case):
    kind = scheme = "redis"
    junk = JUNK
    mute_words, closed_words = ("no answer at all",), ("before it answered: is it a redis server?",)
    junk_words = ("not a redis server", "is too large", "no answer", *closed_words)

    def setUp(self):
        lib.need_module("redis")

    def redis(self, **keywords):
        server = servers.Redis(**keywords)
        self.addCleanup(server.stop)
        return server

    def test_wrong_password(self):
        server = self.redis(password="right-one")
        url = server.url().replace("right-one", "wrong-one")
        self.refused(url, "WRONGPASS", secret="wrong-one")
        self.refused(re.sub("://.*@", "://", url), "auth", "password")
        self.tree(server.url(), OPTIONS)

    def test_wrong_user(self):
        server = self.redis(password="right-one", user="alice")
        self.refused(server.url().replace("alice", "bob"), "auth", "password", secret="right-one")
        self.refused(server.url().replace("right-one", "wrong-one"), "auth", "password",
                     secret="wrong-one")
        tree = self.tree(server.url(), OPTIONS)
        self.assertNotIn(b"right-one", lib.read(tree(".tooz/url")))

    def test_user_who_may_nothing(self):
        server = self.redis()
        server("ACL", "SETUSER", "weak", "on", ">pass", "~other*", "&*", "+@all")
        server("ACL", "SETUSER", "mute", "on", ">pass", "~*", "&*", "-@all", "+ping", "+info")
        for user in ("weak", "mute"):
            self.refused(server.url().replace("://", f"://{user}:pass@"), "perm", "noperm", "access",
                         "denied")

    def test_password_where_none_is_wanted(self):
        """As redis itself: an error, or let through."""
        server = self.redis()
        try:
            self.refused(server.url().replace("://", "://:secret@"), "auth", "password",
                         secret="secret")
        except AssertionError:
            self.tree(server.url().replace("://", "://:secret@"), OPTIONS)

    def test_wrong_kind_of_server(self):
        try:
            other = servers.shared("zookeeper")
        except servers.Missing as missing:
            self.skipTest(str(missing))
        self.refused(f"redis://127.0.0.1:{other.port}", *self.closed_words)

    def test_web_server(self):
        web = http.server.HTTPServer(("127.0.0.1", 0), Silent)
        self.addCleanup(web.server_close)
        self.addCleanup(web.shutdown)
        threading.Thread(target=web.serve_forever, daemon=True).start()
        self.refused(f"redis://127.0.0.1:{web.server_port}", "not a redis server")
        self.refused(f"redis://:secret@127.0.0.1:{web.server_port}", "not a redis server",
                     secret="secret")

    def test_tls_where_there_is_none(self):
        self.refused(self.redis().url() + "&ssl=true", "is that a port for TLS?", within=2 * LEASE_S)
        tls = self.redis(tls=True)
        self.refused(f"redis://127.0.0.1:{tls.port}", "TLS (ssl=true)?")
        self.refused(f"redis://127.0.0.1:{tls.port}?ssl=true&ssl_ca_certs={tls.path('ca.crt')}")
        other = self.redis(tls=True)
        self.refused(tls.url().replace(tls.path("ca.crt"), other.path("ca.crt")), "certif", "verif")
        self.tree(tls.url(), OPTIONS)

    def test_answer_by_drops(self):
        """An answer that never ends is none."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        self.refused(f"redis://127.0.0.1:{listener.getsockname()[1]}", "no answer")

    def test_no_such_socket(self):
        self.refused("redis:///nonexistent/socket")

    def test_no_such_db(self):
        self.refused(self.redis().url() + "&db=99", "db", "index", "range")

    def test_read_only_replica(self):
        """Named as what it is."""
        master = self.redis()
        replica = self.redis(replica_of=master)
        namespace = master.namespace()
        self.refused(replica.url(namespace), "read", "replica")
        self.tree(master.url(namespace), OPTIONS)

    def test_full_server(self):
        server = self.redis(options=["maxmemory 1mb", "maxmemory-policy noeviction"])
        fill(server)
        self.refused(server.url(), f"127.0.0.1:{server.port}: OOM command not allowed when used memory > "
                     "'maxmemory'\n")

    def test_loading_server(self):
        """A server that has not read its data yet is waited for."""
        server = self.redis()
        server("DEBUG", "SET-ACTIVE-EXPIRE", "1")
        server.pause()
        url = server.url()
        agent = self.agent()
        agent.start("sleep_cont", server.pid, 0.7)
        self.tree(url, OPTIONS)
        agent.result()

    def test_no_slot_left(self):
        """A mount has three connections; the server says no to whichever is too many."""
        server = self.redis(options=["maxclients 10"])
        others = [server.connect() for _ in range(10)]
        for free in (0, 1, 2):
            while len(others) > 10 - free:
                others.pop().close()
                lib.wait_until(lambda: f"connected_clients:{len(others)}".encode() in others[0]("INFO"),
                               "a free slot")
            self.refused(server.url(), "max number of clients reached (a mount needs")
        for other in others:
            other.close()
        self.tree(server.url(), OPTIONS)

    def test_reason_is_said_once(self):
        mount, path, _ = self.begin(f"redis://127.0.0.1:{servers.free_port()}")
        text = mount.communicate(timeout=6 * lib.PATIENCE_S)[1]
        self.assertEqual(text.count("Connection refused"), 1, text)
        os.rmdir(path)

    def test_sentinels_each_with_its_reason(self):
        dead, other = servers.free_port(), self.redis()
        mount = self.begin(f"redis://127.0.0.1:{dead}?sentinel=m&sentinel_fallback=127.0.0.1:{other.port}")
        text = mount[0].communicate(timeout=6 * lib.PATIENCE_S)[1]
        self.assertRegex(text, f"{dead}: Connection refused; sentinel 127.0.0.1:{other.port}: not a sent")

    def test_sentinel_that_knows_nothing(self):
        server = self.redis()
        self.refused(server.url() + "&sentinel=mymaster")
        self.refused(f"redis://127.0.0.1:{servers.free_port()}?sentinel=mymaster")


def sleep_cont(pid, seconds):
    time.sleep(seconds)
    os.kill(pid, lib.signal.SIGCONT)


lib.ACTIONS["sleep_cont"] = sleep_cont


def fill(server):
    """To the last byte, as far as that can be: connections come and go."""
    with server.connect() as c:
        for size in (10000, 500, 1, 10000, 500, 1):
            try:
                while True:
                    c("SET", os.urandom(8), b"x" * size)
            except servers.RedisError:
                pass


def replace(server, key, command, *words):
    """In one step: a mount makes keys of its own again."""
    with server.connect() as c:
        c("MULTI")
        c("DEL", key)
        c(command, key, *words)
        c("EXEC")


class Own:
    """A server of the test's own; with trouble.Trouble or its set-up."""

    kind = "redis"
    options = ()

    def setUp(self):
        lib.need_module("redis")
        self.server = servers.Redis(options=self.options)
        self.addCleanup(self.server.stop)
        self.ns = self.server.namespace()
        super().setUp()

    def url(self, port=None):
        return self.server.url(self.ns, port)


class Trouble(Own, trouble.Trouble, lib.Case):
    def more_trouble(self, choose):
        self.server("CLIENT", "KILL", "TYPE", choose.choice(("normal", "pubsub")), "SKIPME", "yes")

    def test_each_connection_killed(self):
        """Whichever of a mount's connections goes, nothing is lost and no notice is missed."""
        self.hold()
        for _ in range(3):
            for line in self.server("CLIENT", "LIST").decode().splitlines():
                number = re.search(r"\bid=(\d+)", line)[1]
                self.server("CLIENT", "KILL", "ID", number)
                self.keeps(self.holder, self.fd)
        self.served()
        # A release by hand is noticed as ever.
        self.server("SET", f"{self.ns}_m_lock", "x", "PX", "60000")
        agent = self.agent()
        agent.start("open_flock", self.a("locks/m"), RW, EX)
        lib.wait_until(lambda: lib.in_lock_request(agent.pid), "the wait")
        self.stays_blocked(agent)
        for line in self.server("CLIENT", "LIST").decode().splitlines():
            self.server("CLIENT", "KILL", "ID", re.search(r"\bid=(\d+)", line)[1])
        self.server("DEL", f"{self.ns}_m_lock")
        watch = lib.Stopwatch()
        agent.result()
        watch.within(2 * lib.SLOW)

    def test_restarted_and_forgotten(self):
        """All keys gone: locks are lost, waiters served, members and groups as the store has them."""
        self.hold()
        self.server.restart()
        self.loses(self.holder, self.fd)
        self.drain()
        self.works()

    def test_emptied(self):
        self.hold()
        self.server("FLUSHALL")
        self.loses(self.holder, self.fd)
        self.drain()
        self.works()

    def test_killed_for_long(self):
        self.hold()
        self.server.kill()
        self.loses(self.holder, self.fd)
        for agent in self.waiters:
            self.assertFalse(agent.done())
        self.server.start()
        self.drain()
        self.works()

    def test_scripts_forgotten(self):
        self.hold()
        for _ in range(3):
            self.server("SCRIPT", "FLUSH")
            self.keeps(self.holder, self.fd)
        self.served()
        self.works()

    def test_tracking_table_overflows(self):
        """redis forgets whom to tell, and says so with empty hands."""
        self.server("CONFIG", "SET", "tracking-table-max-keys", "1")
        self.hold()
        for i in range(20):
            fcntl.flock(self.open(self.b(f"locks/x{i}")), EX)
        watch = lib.Stopwatch()
        self.served()
        watch.within(4 * lib.SLOW)

    def test_becomes_a_replica(self):
        """Writes are refused from now on; what is held is lost in time, and all is well after."""
        other = servers.Redis()
        self.addCleanup(other.stop)
        self.hold()
        self.server("REPLICAOF", "127.0.0.1", other.port)
        self.loses(self.holder, self.fd)
        self.server("REPLICAOF", "NO", "ONE")
        self.drain()
        self.works()

    def test_something_else_in_its_place(self):
        """For a while: it is named, and what was held is kept."""
        self.hold()
        for words, said in ((b"HTTP/1.1 400 Bad Request\r\n\r\n", "not a redis server"), (b"", "")):
            listener = trouble.Listener(words)
            self.addCleanup(listener.close)
            self.proxy.target(listener.port)
            self.proxy.cut()
            self.state(self.a, "suspended")
            lib.wait_until(lambda: said in self.a.read_log(), f"the words '{said}'")
            self.proxy.target(self.server.port)
            self.proxy.cut()
            self.keeps(self.holder, self.fd)
        self.served()
        self.works()

    def test_password_changed(self):
        """Who is not let in any more is told why; let in again in time, nothing is lost."""
        self.hold()
        with self.server.connect() as c:
            c("CONFIG", "SET", "requirepass", "another")
            c("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            lib.wait_until(lambda: "a password is needed" in self.a.read_log(), "the refusal")
            c("CONFIG", "SET", "requirepass", "")
        self.keeps(self.holder, self.fd)
        self.served()
        self.works()

    def test_password_changed_for_long(self):
        """Not away, but closed: calls say so while the lease lives, and when it is over."""
        with self.server.connect() as c:
            c("CONFIG", "SET", "requirepass", "another")
            c("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            lib.wait_until(lambda: "a password is needed" in self.a.read_log(), "the refusal")
            for _ in range(2):
                self.fails(errno.EACCES, os.mkdir, self.a("groups/g"))
                self.state(self.a, "lost")
            c("CONFIG", "SET", "requirepass", "")
        self.works()

    def test_clients_paused(self):
        self.hold()
        self.server("CLIENT", "PAUSE", "700", "ALL")
        self.keeps(self.holder, self.fd)
        self.served()

    def test_slow_script_of_somebody_else(self):
        """BUSY: the server answers everybody with an error for a while."""
        self.server("CONFIG", "SET", "lua-time-limit", "50")
        self.hold()
        agent = self.agent()
        agent.start("busy", self.server.port, 400)
        time.sleep(0.2)
        self.keeps(self.holder, self.fd)
        agent.result()
        self.served()


def busy(port, ms):
    with servers.RedisConnection(("127.0.0.1", port)) as c:
        c("EVAL", "local t = redis.call('TIME') local e = t[1] * 1000000 + t[2] + ARGV[1] * 1000 "
          "repeat t = redis.call('TIME') until t[1] * 1000000 + t[2] > e", 0, ms)


lib.ACTIONS["busy"] = busy


class Full(Own, trouble.Base, lib.Case):
    options = ("maxmemory 3mb", "maxmemory-policy noeviction")

    def refused(self, codes, call):
        """At last: the server looks at its memory before a command, and what goes frees some."""
        def tried():
            fill(self.server)
            try:
                call(f"n{time.monotonic_ns()}")
            except OSError as error:
                self.assertIn(error.errno, codes)
                return True
            return False
        lib.wait_until(tried, "a refusal")

    def test_full(self):
        """New things are refused, what there is lives on and can be let go."""
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"x")
        self.hold()
        other = self.agent()
        held = other.open_flock(self.a("locks/held"), RW, EX)
        fill(self.server)
        agent = self.agent()
        self.refused((errno.ENOLCK, errno.ENOSPC), lambda name: agent.open_flock(
            self.a("locks", name), RW, EX | NB))
        self.refused((errno.ENOSPC, errno.ENOMEM), lambda name: lib.write(
            self.a("groups/g/m"), b"y" * 20000))
        self.refused((errno.ENOSPC, errno.ENOMEM), lambda name: os.mkdir(self.a("groups", name)))
        end = time.monotonic() + LEASE_S + 1
        while time.monotonic() < end:
            self.keeps(self.holder, self.fd)
            self.assertEqual(os.listdir(self.b("groups/g")), ["m"])
            time.sleep(0.2)
        os.unlink(self.a("groups/g/m"))
        os.rmdir(self.a("groups/g"))
        other.flock(held, UN)
        lib.wait_until(lambda: not os.path.exists(self.b("locks/held")), "the release")
        self.server("CONFIG", "SET", "maxmemory", "0")
        self.served()
        self.works()


    def test_full_for_long(self):
        """Not one byte to be had: what is held is kept, shares too."""
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"x")
        self.hold()
        other = self.agent()
        share = other.open_flock(self.b("locks/share"), RW, SH)
        self.server("CONFIG", "SET", "maxmemory", "1")
        end = time.monotonic() + LEASE_S + 1
        while time.monotonic() < end:
            self.keeps(self.holder, self.fd)
            self.assertEqual(os.listdir(self.b("groups/g")), ["m"])
            time.sleep(0.2)
        self.keeps(other, share)
        for tree in (self.a, self.b):
            self.assertNotIn("lost", tree.read_log())
        self.server("CONFIG", "SET", "maxmemory", "0")
        self.served()
        self.works()


class UnreadLog(Own, trouble.Base, lib.Case):
    def test_holders_are_told(self):
        """Of a lease that ends, while others wait for what they hold, and nobody reads the log."""
        _, path, pipe = unread_log.mount_unread(self, self.url(port=self.proxy.port),
                                                "foreground,member=unread," + OPTIONS)
        holder, waiter = self.agent(), self.agent()
        names = [f"locks/l{i:02}" for i in range(25)]
        fds = [holder.open_flock(os.path.join(path, name), RW, EX) for name in names]
        fd = waiter.open(self.b(names[-1]))
        waiter.start("flock", fd, EX)
        waiter.wait_blocked()
        self.proxy.stall("both")
        watch = lib.Stopwatch()
        for held in fds:
            lib.wait_until(lambda: holder.poll(held, select.POLLIN, 100) & select.POLLERR, "the loss")
        watch.stop().within(LEASE_S + 1 * lib.SLOW, "the loss")
        waiter.result()
        self.proxy.stall("none")
        text = b""
        while b"more were lost" not in text:
            text += pipe.read(65536)
        lost = re.findall(rb"lock (l\d\d) was lost: its lease was not renewed in time "
                          rb"\(held by process (\d+)\)", text)
        self.assertEqual(len(set(lost)), 20, text)
        self.assertEqual({int(pid) for _, pid in lost}, {holder.pid})
        self.assertIn(b"... and 5 more were lost: its lease was not renewed in time", text)


def is_claim(server, key):
    try:
        return re.match(rb"[0-9a-f]{16}\n", server("GET", key) or b"")
    except servers.RedisError:
        return False


class Keys(Own, trouble.Base, lib.Case):
    """What others do to keys of ours, or to tooz's, and what that must not touch."""

    def key(self, what):
        return f"{self.ns}:toozfs:{what}"

    def junk(self, key, command, *words):
        replace(self.server, key, command, *words)

    def untroubled(self, tree, agent, fd):
        """Still the same session, and what it holds."""
        agent.fsync(fd)
        self.assertNotIn("lost", tree.read_log())
        self.state(tree, "connected")

    def test_junk_in_claim(self):
        """The claim on a member id is made again, and nothing that is held suffers."""
        agent = self.agent()
        fd = agent.open_flock(self.b("locks/l"), RW, EX)
        key = self.key(f"member:{self.b.member}")
        for command, *words in (*Hostile.VALUES[1::4], ("SET", b"0123456789abcdef no claim")):
            with self.subTest(value=(command, words[0][:9])):
                self.junk(key, command, *words)
                lib.wait_until(lambda: is_claim(self.server, key), "the claim")
                self.untroubled(self.b, agent, fd)
        self.says(self.b, re.escape(key))
        # Nor does it keep a mount out, or the claim of a session that is no more.
        for command, *words in (("SET", b"junk"), ("LPUSH", b"x"),
                                ("SET", b"0123456789abcdef\nversion=1\n")):
            begin = time.monotonic()
            self.junk(self.key("member:third"), command, *words)
            tree = self.tree(self.url(), OPTIONS, member="third")
            self.assertLess(time.monotonic() - begin, 2 * lib.SLOW)
            self.assertEqual(self.key("member:third") in tree.read_log(), b"\n" not in words[0])
            tree.umount()
            self.assertEqual(self.server("EXISTS", self.key("member:third")), 0)

    def test_claim_of_another(self):
        """One that lives keeps others out, whatever it says of itself."""
        self.server("SET", self.key("session:0123456789abcdef"), "x")
        self.junk(self.key("member:third"), "SET", b"0123456789abcdef\njunk")
        tree = self.tree(self.url(), OPTIONS, member="third", ready=False)
        self.assertEqual(tree.wait_exit(), 32)
        self.assertIn("member id 'third' is in use", tree.read_log())

    def test_another_link_counts(self):
        """A session's key that says so: nothing is taken any more, until the mount is sure of itself again."""
        agent = self.agent()
        fd = agent.open_flock(self.b("locks/l"), RW, EX)
        key = self.session_key()
        text = self.server("GET", key)
        self.assertRegex(text, f"^{self.b.member}\n[0-9]+$".encode())
        for command, *words in (("SET", self.b.member + "\n0"), ("SET", "junk"), ("LPUSH", "x")):
            self.server("DEL", key)
            self.server(command, key, *words)
            other = self.agent()
            other.open_flock(self.b("locks/m"), RW, EX)
            other.kill()
            self.assertEqual(self.server("GET", key), text)
            self.untroubled(self.b, agent, fd)

    def session_key(self):
        claim = self.server("GET", f"{self.ns}:toozfs:member:{self.b.member}")
        return f"{self.ns}:toozfs:session:{claim.decode().splitlines()[0]}"

    def test_junk_beside(self):
        """A key of the wrong type costs what it belongs to, and no more."""
        os.mkdir(self.b("groups/g"))
        os.mkdir(self.b("groups/h"))
        for name in ("groups/g/m", "groups/h/m", "groups/h/n"):
            lib.write(self.b(name), b"x")
        agent = self.agent()
        fd = agent.open_flock(self.b("locks/l"), RW, EX)
        for name in ("other", "shared"):
            setattr(self, name, agent.open_flock(self.b("locks", name), RW,
                                                 SH if name == "shared" else EX))
        self.junk(f"{self.ns}_other_lock", "LPUSH", "x")
        self.loses(agent, self.other)
        self.junk(self.key("sharers:shared"), "LPUSH", "x")
        self.loses(agent, self.shared)
        self.junk(f"{self.ns}_group:g", "LPUSH", "x")
        self.junk(self.key("beats:n"), "LPUSH", "x")
        end = time.monotonic() + LEASE_S + 1
        while time.monotonic() < end:
            agent.fsync(fd)
            self.assertEqual(sorted(os.listdir(self.a("groups/h"))), ["m", "n"])
            time.sleep(0.1)
        self.assertEqual(self.server("TYPE", self.key("beats:n")), b"hash")
        self.assertNotIn("session is lost", self.b.read_log())
        self.fails(errno.EBADMSG, os.listdir, self.a("groups/g"))
        self.says(self.a, "a key of group 'g' holds something else: WRONGTYPE")

    def test_junk_in_token(self):
        """No token, no lock: who tries is refused, and the log says which key it is."""
        agent = self.agent()
        kept = agent.open_flock(self.b("locks/kept"), RW, EX)
        token = int(lib.fields(agent.pread(kept, 4096, 0))["token"])
        key = self.key("token")
        for value in ("nan", "-nan", "inf", "x", "9" * 30):
            self.server("SET", key, value)
            self.fails((errno.ENOLCK, errno.EBADMSG, errno.EIO), agent.open_flock,
                       self.b("locks/l"), RW, EX | NB)
            self.untroubled(self.b, agent, kept)
        self.says(self.b, f"the key {re.escape(key)} holds no token")
        self.server("DEL", key)
        fd = agent.open_flock(self.b("locks/l"), RW, EX)
        self.assertGreater(int(lib.fields(agent.pread(fd, 4096, 0))["token"]), token)

    def test_beat_of_another(self):
        """A member that leaves takes no heartbeat with it that a Python client of the same id has set."""
        os.mkdir(self.b("groups/g"))
        beat = f"{self.ns}_beats:m"
        for ttl in (LEASE_S * 1000, LEASE_S * 1000 + 1, 60000):
            for late in (False, True):
                lib.write(self.b("groups/g/m"), b"x")
                self.assertEqual(self.server("EXISTS", beat), 1)
                self.server("PSETEX", beat, ttl, "Not dead!")
                if late:  # the mount has seen it
                    lib.wait_until(lambda: self.server("HEXISTS", self.key("beats:m"), "foreign"),
                                   "a renewal")
                os.unlink(self.b("groups/g/m"))
                self.assertEqual(self.server("EXISTS", beat), 1)
                self.server("DEL", beat)
        lib.write(self.b("groups/g/m"), b"x")
        os.unlink(self.b("groups/g/m"))
        self.assertEqual(self.server("EXISTS", beat, self.key("beats:m")), 0)
        # On servers that know no PEXPIRETIME it is nearly as exact.
        self.server("ACL", "SETUSER", "default", "-pexpiretime")
        for python in (True, False):
            lib.write(self.b("groups/g/m"), b"x")
            if python:
                self.server("PSETEX", beat, LEASE_S * 1000 + 100, "Not dead!")
            os.unlink(self.b("groups/g/m"))
            self.assertEqual(self.server("EXISTS", beat), python)
            self.server("DEL", beat)

    def test_leaves_at_once(self):
        """Two memberships of one id that end together: the last ends the heartbeat."""
        for name in ("g", "h"):
            os.mkdir(self.a("groups", name))
            lib.write(self.a("groups", name, "m"), b"x")
        self.assertEqual(self.server("EXISTS", f"{self.ns}_beats:m"), 1)
        agents = [self.agent(), self.agent()]
        self.proxy.stall("up")
        for agent, name in zip(agents, ("g", "h")):
            agent.start("unlink", self.a("groups", name, "m"))
            agent.wait_blocked()
        self.proxy.stall("none")
        for agent in agents:
            agent.result()
        self.assertEqual(self.server("EXISTS", f"{self.ns}_beats:m", self.key("beats:m")), 0)

    def test_leaves_what_it_did_not_join(self):
        """Its own id, from an earlier life: the memberships that it did join have their heartbeat on."""
        for name in ("g", "h"):
            os.mkdir(self.b("groups", name))
        lib.write(self.b("groups/h", self.b.member), b"x")
        for _ in range(3):
            self.server("HSET", f"{self.ns}_group:g", self.b.member, b"\xc0")
            os.unlink(self.b("groups/g", self.b.member))
            self.assertEqual(os.listdir(self.a("groups/h")), [self.b.member])
            self.assertEqual(os.listdir(self.a("groups/g")), [])

    def test_list_ends(self):
        """A list that takes too long is given up, and not only by who asked for it."""
        self.server("DEBUG", "POPULATE", 200000)
        self.proxy.delay(50)
        self.fails(errno.ETIMEDOUT, os.listdir, self.a("locks"))

        def calls():
            stats = self.server("INFO", "commandstats").decode()
            return int(re.search(r"cmdstat_scan:calls=(\d+)", stats)[1])
        before = None
        while before != calls():
            before = calls()
            self.assertLess(before, 100)
            time.sleep(0.5)

    def test_join_after_flush(self):
        """A member that joins a server that has forgotten its mount is there, and stays."""
        for _ in range(3):
            self.server("FLUSHALL")
            os.mkdir(self.b("groups/g"))
            lib.write(self.b("groups/g/m"), b"x")
            self.assertEqual(os.listdir(self.a("groups/g")), ["m"])
            self.assertEqual(lib.read(self.a("groups/g/m")), b"x")
            key = self.key(f"member:{self.b.member}")
            lib.wait_until(lambda: is_claim(self.server, key), "a new session")
            lib.wait_until(lambda: os.listdir(self.a("groups/g")) == ["m"], "the member")
            os.unlink(self.b("groups/g/m"))
            os.rmdir(self.b("groups/g"))


class Past(Own, trouble.Base, lib.Case):
    """What the server carries out long after it was sent."""

    def test_late_requests(self):
        """Nobody holds what was asked for before, and who waits is served when the mount is back."""
        long = f"timeout={LEASE_S},lock_timeout=60,membership_timeout={LEASE_S}"
        b = self.tree(self.url(), long)
        os.mkdir(b("groups/h"))
        wanted = [("locks/free", EX), ("locks/shared", SH), ("leaders/h", EX)]
        killed, waits = ([self.agent() for _ in wanted] for _ in range(2))
        fds = [[agent.open(b(name), RW) for agent, (name, _) in zip(agents, wanted)] for agents in (killed, waits)]
        tries = self.agent()
        fd = tries.open(b("locks/try"), RW)
        self.server.pause()
        for agents, agent_fds in zip((killed, waits), fds):
            for agent, agent_fd, (_, mode) in zip(agents, agent_fds, wanted):
                agent.start("flock", agent_fd, mode)
        tries.start("flock", fd, EX | NB)
        self.state(b, "lost")
        self.fails(errno.ENOLCK, tries.result)
        for agent in killed:
            agent.kill()
        self.server.cont()
        for tree in (self.a, b):
            self.state(tree, "connected")
        watch = lib.Stopwatch()
        for agent in waits:
            agent.result()
        for name, mode in (("locks/try", EX), ("locks/shared", SH)):
            self.agent().open_flock(self.a(name), RW, mode | NB)
        watch.within(10 * lib.SLOW)


class Forgotten(Own, lib.Case):
    """A server that loses its data, and has the groups again at once."""

    def setUp(self):
        super().setUp()
        self.a, self.b = self.tree(self.url(), OPTIONS), self.tree(self.url(), OPTIONS)
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"caps")

    def test_members_are_joined_again(self):
        """Whichever answer comes first, of the members or of the session that they belong to."""
        for _ in range(3):
            with self.server.connect() as c:
                c("MULTI")
                c("FLUSHALL")
                c("SADD", f"{self.ns}_groups", "g")
                c("HSET", f"{self.ns}_group:g", "__created__", "1")
                c("EXEC")
            lib.wait_until(lambda: os.listdir(self.b("groups/g")) == ["m"], "the member")
            self.assertEqual(lib.read(self.b("groups/g/m")), b"caps")
        self.assertNotIn("removed by somebody", self.a.read_log())
        self.says(self.a, "the claim on the member id is gone")

    def test_removed_by_another(self):
        """One member alone is another matter: it is not joined again."""
        self.server("HDEL", f"{self.ns}_group:g", "m")
        lib.wait_until(lambda: "removed by somebody" in self.a.read_log(), "the word")
        self.assertEqual(os.listdir(self.b("groups/g")), [])


class Large(lib.Redis):
    def test_large_group(self):
        """More than one answer may have: the names are there, and each member by itself."""
        server = lib.server("redis")
        namespace = re.search("namespace=([^&]*)", self.a.url)[1]
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/ours"), b"x")
        value = b"\xdb" + (1000000).to_bytes(4, "big") + b"x" * 1000000
        for i in range(52):
            server("SET", f"{namespace}_beats:m{i}", "Not dead!", "PX", "120000")
            server("HSET", f"{namespace}_group:g", f"m{i}", value)
        for tree in (self.a, self.b):
            names = ["ours"] + [f"m{i}" for i in range(52)]
            self.assertEqual(sorted(os.listdir(tree("groups/g"))), sorted(names))
            directory = os.open(tree("groups/g"), os.O_RDONLY)
            try:
                self.assertEqual(os.stat("m7", dir_fd=directory).st_size, 1000000)
            finally:
                os.close(directory)
            self.assertEqual(len(lib.read(tree("groups/g/m7"))), 1000000)
            self.assertEqual(lib.read(tree("groups/g/ours")), b"x")
        # As soon as it fits it is read as a whole.
        server("HDEL", f"{namespace}_group:g", *(f"m{i}" for i in range(10, 52)))
        self.assertEqual(len(os.listdir(self.b("groups/g"))), 11)


class Hostile(lib.Redis):
    """Every key that the driver has ever made, with something else in it."""

    options = OPTIONS
    VALUES = (("SET", b""), ("SET", b"\xff" * 100), ("SET", b"S:1"), ("SET", b"S:x:y"),
              ("SET", b"\x00" * 200000), ("SET", b"9" * 400), ("SET", b"-1"), ("SET", b"nan"),
              ("LPUSH", b"x"), ("SADD", b"\xff"), ("SADD", b""), ("HSET", b"a", b"b"),
              ("HSET", b"__created__", b"\xff" * 70), ("HSET", b"", b""), ("HSET", b"m", b"\xc1"),
              ("ZADD", b"inf", b"x"), ("ZADD", b"-1", b"\xff" * 300), ("XADD", b"*", b"a", b"b"))

    def test_every_key(self):
        server = lib.server("redis")
        namespace = re.search("namespace=([^&]*)", self.a.url)[1]
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"x")
        agent = self.agent()
        agent.open_flock(self.a("locks/l"), RW, EX)
        agent.open_flock(self.a("locks/s"), RW, SH)
        self.agent().open_flock(self.b("locks/s"), RW, SH)
        agent.open_flock(self.a("leaders/g"), RW, EX)
        keys = [k for k in server("KEYS", "*") if namespace.encode() in k]
        self.assertGreater(len(keys), 5)
        begin = time.monotonic()
        for key in keys:
            for command, *words in self.VALUES:
                replace(server, key, command, *words)
                with self.subTest(key=key, value=(command, words[0][:9])):
                    self.use(self.b)
            self.use(self.a)
            server("DEL", key)
        print(f"{len(keys)} keys in {time.monotonic() - begin:.1f} s", file=lib.sys.stderr)
        for key in server("KEYS", "*"):
            if namespace.encode() in key:
                server("DEL", key)
        for tree in (self.a, self.b):
            self.assertIsNone(tree.process.poll(), tree.read_log())
            lib.wait_until(lambda: self.clean(tree), "the mount to work again", 2 * lib.PATIENCE_S)

    def test_every_key_at_once(self):
        """Each value in all keys of a mount, for as long as it takes to renew what it holds."""
        server = lib.server("redis")
        namespace = re.search("namespace=([^&]*)", self.a.url)[1]
        claim = f"{namespace}:toozfs:member:{self.b.member}"
        os.mkdir(self.b("groups/g"))
        lib.write(self.b("groups/g/m"), b"x")
        agent = self.agent()
        for name, mode in (("locks/l", EX), ("locks/s", SH), ("leaders/g", EX)):
            agent.open_flock(self.b(name), RW, mode)
        keys = [k for k in server("KEYS", "*") if namespace.encode() in k]
        self.assertIn(claim.encode(), keys)
        for command, *words in self.VALUES:
            with self.subTest(value=(command, words[0][:9])):
                for key in keys:
                    replace(server, key, command, *words)
                lib.wait_until(lambda: is_claim(server, claim), "a renewal")
                self.use(self.b)
        for key in server("KEYS", "*"):
            if namespace.encode() in key:
                server("DEL", key)
        for tree in (self.a, self.b):
            self.assertIsNone(tree.process.poll(), tree.read_log())
            lib.wait_until(lambda: self.clean(tree), "the mount to work again", 2 * lib.PATIENCE_S)

    def use(self, tree):
        """Any answer will do, in bounded time."""
        watch = lib.Stopwatch()
        for name in ("locks/l", "locks/s", "leaders/g"):
            for mode in (EX, SH):
                try:
                    fd = os.open(tree(name), os.O_RDWR | os.O_CREAT)
                except OSError:
                    continue
                try:
                    fcntl.flock(fd, mode | NB)
                except OSError:
                    pass
                finally:
                    with lib.suppressed():
                        os.close(fd)
        for call in (lambda: os.listdir(tree("locks")), lambda: os.listdir(tree("leaders")),
                     lambda: os.listdir(tree("groups")), lambda: os.listdir(tree("groups/g")),
                     lambda: lib.read(tree("groups/g/m")), lambda: lib.read(tree("leaders/g")),
                     lambda: lib.read(tree("locks/l")),
                     lambda: lib.write(tree("groups/g/m2"), b"x")):
            try:
                call()
            except OSError:
                pass
        self.assertIsNone(tree.process.poll(), tree.read_log())
        watch.within(3 * LEASE_S + 2 * lib.SLOW)

    def clean(self, tree):
        name = f"after{tree.member}"
        try:
            with lib.suppressed():
                os.mkdir(tree("groups", name))
            lib.write(tree("groups", name, "m"), b"x")
            os.unlink(tree("groups", name, "m"))
            os.rmdir(tree("groups", name))
            fd = os.open(tree("locks/after"), os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(fd, EX | NB)
            finally:
                os.close(fd)
            return lib.read(tree(".tooz/state")) == b"connected\n"
        except OSError:
            return False


def user_of_the_docs(server, namespace):
    """The line of the manual that makes a user, as words of a command."""
    page = os.path.join(os.path.dirname(__file__), "../../docs/drivers/redis.md")
    line = re.search(r"^ACL SETUSER tooz .*$", lib.read(page).decode(), re.M)[0]
    words = line.replace("PASSWORD", "pw").replace("_tooz", namespace).split()
    server(*words)
    return words


class Rights(Own, lib.Case):
    """Users who may do what they must, and users who may not."""

    OPTIONAL = ("script|load", "pexpiretime", "client|", "hello", "info", "ping", "select", "subscribe")

    refused, begin, end = trouble.Refused.refused, trouble.Refused.begin, trouble.Refused.end

    def setUp(self):
        super().setUp()
        self.words = user_of_the_docs(self.server, self.ns)
        self.login = self.url().replace("://", "://tooz:pw@")

    def use(self):
        """Everything, also where one waits for another; the log has nothing to complain about."""
        self.a, self.b = self.tree(self.login, OPTIONS), self.tree(self.login + "&db=0", OPTIONS)
        trouble.Base.works(self)
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"x")
        holder, waiter = self.agent(), self.agent()
        for mode, name in ((EX, "locks/l"), (SH, "locks/l"), (EX, "leaders/g")):
            fd, other = holder.open_flock(self.a(name), RW, mode), waiter.open(self.b(name))
            waiter.start("flock", other, EX)
            waiter.wait_blocked()
            holder.fsync(fd)
            self.assertTrue(os.listdir(self.b(name.split("/")[0])))
            lib.read(self.b(name))
            holder.flock(fd, UN)
            waiter.result()
            waiter.flock(other, mode)
            waiter.flock(other, UN)
        fd = holder.open_flock(self.a("locks/l"), RW, SH)
        holder.flock(fd, EX)
        os.unlink(self.b("locks/l"))
        self.fails(errno.EIO, holder.fsync, fd)
        self.says(self.a, "lock l was lost: it was broken")
        self.assertEqual(os.listdir(self.b("groups")), ["g"])
        with lib.suppressed():
            os.rmdir(self.b("groups/g"))
        time.sleep(LEASE_S / 2)  # a renewal
        os.unlink(self.a("groups/g/m"))
        os.rmdir(self.a("groups/g"))
        for tree in (self.a, self.b):
            self.assertNotRegex(tree.read_log(), "(?i)perm|refuse|polling")
            tree.stop()
        left = [x for x in self.server("KEYS", "*") if b"token" not in x]
        self.assertEqual(left, [], "a trace")

    state = trouble.Base.state

    def test_user_of_the_docs(self):
        self.use()

    def test_what_is_asked_for(self):
        """Each right of the line is needed, and a mount without it is refused before it writes."""
        rights = [x[1:] for x in self.words if x.startswith("+")]
        needed = [x for x in rights if not x.startswith(self.OPTIONAL)]
        self.assertGreater(len(needed), 30)
        for right in needed:
            self.server("ACL", "SETUSER", "tooz", "-" + right)
            with self.subTest(right=right):
                self.refused(self.login, right)
            self.server("ACL", "SETUSER", "tooz", "+" + right)
        self.assertEqual(self.server("KEYS", "*"), [])
        for pattern, word in (("~other*", "toozfs"), (f"~{self.ns}:*", "_groups")):
            self.server("ACL", "SETUSER", "tooz", "resetkeys", pattern)
            self.refused(self.login, word)
        self.assertEqual(self.server("KEYS", "*"), [])

    def test_optional_rights(self):
        rights = [x[1:] for x in self.words if x.startswith("+")]
        for right in rights:
            if right.startswith(self.OPTIONAL):
                self.server("ACL", "SETUSER", "tooz", "-" + right)
                self.tree(self.login, OPTIONS).stop()
                self.server("ACL", "SETUSER", "tooz", "+" + right)

    def test_taken_away(self):
        """Inside a script: EACCES, and the log has the server's words."""
        tree = self.tree(self.login, OPTIONS)
        os.mkdir(tree("groups/g"))
        fd = self.open(tree("locks/l"))
        fcntl.flock(fd, EX)
        self.server("ACL", "SETUSER", "tooz", "-hset")
        self.fails(errno.EACCES, lib.write, tree("groups/g/m"), b"x")
        self.says(tree, "refuses.*can't run|refuses.*hset")
        self.server("ACL", "SETUSER", "tooz", "-pexpire")
        lib.wait_until(lambda: lib.read(tree(".tooz/state")) != b"connected\n", "the loss")
        self.says(tree, "the server refuses to renew")
        self.assertEqual(tree.read_log().count("the server refuses a request"), 1, tree.read_log())
        self.assertEqual(tree.read_log().count("the server refuses to renew"), 1, tree.read_log())


if __name__ == "__main__":
    lib.main(400)
