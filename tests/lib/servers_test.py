# SPDX-License-Identifier: Apache-2.0
"""The servers and the proxy of the tests: that they do what tests believe they do."""
import os
import signal
import socket
import subprocess
import sys
import time
import unittest

import proxy
import servers

HERE = os.path.dirname(os.path.abspath(__file__))


def wait_until(check):
    end = time.monotonic() + 10 * servers.SLOW
    while not check():
        if time.monotonic() > end:
            raise AssertionError("timed out")
        time.sleep(0.005)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


class Kinds(unittest.TestCase):
    def start(self, kind):
        try:
            server = servers.KINDS[kind]()
        except servers.Missing as missing:
            self.skipTest(str(missing))
        self.addCleanup(server.stop)
        return server

    def test_redis(self):
        for kind in ("redis", "redis-password", "redis-user", "redis-unix", "redis-tls"):
            server = self.start(kind)
            self.assertEqual(server("SET", "a", "b"), b"OK")
            port = server.port
            server.restart()
            self.assertEqual(server.port, port)
            self.assertIsNone(server("GET", "a"))
            directory = server.dir
            server.stop()
            self.assertFalse(os.path.exists(directory))

    def test_replica(self):
        master = self.start("redis")
        replica = servers.Redis(replica_of=master)
        self.addCleanup(replica.stop)
        with self.assertRaises(servers.RedisError):
            replica("SET", "a", "b")

    def test_sentinels(self):
        site = self.start("redis-sentinel")
        site.fail_over()
        self.assertEqual(site.master()("SET", "a", "b"), b"OK")

    def test_zookeeper(self):
        server = self.start("zookeeper")
        self.assertEqual(server.mode(), "standalone")
        server.restart()

    def test_ensemble(self):
        site = self.start("zookeeper-ensemble")
        old = site.fail_over()
        self.assertIsNot(site.leader(), old)
        site.leader().pause()
        site.revive()
        self.assertEqual(sorted(x.mode() for x in site.servers), ["follower", "follower", "leader"])

    def test_namespaces_differ(self):
        server = self.start("redis")
        self.assertNotEqual(server.url(), server.url())

    def test_ports_differ(self):
        """Also from those of other processes, which have not opened theirs yet."""
        script = ("import sys; sys.path.insert(0, sys.argv[1]); import random, servers\n"
                  "random.SystemRandom = lambda: random.Random(1)\n"
                  "print(*(servers.free_port() for _ in range(20)), flush=True); sys.stdin.read()")
        programs = [subprocess.Popen([sys.executable, "-c", script, HERE], text=True,
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
        ports = [port for program in programs for port in program.stdout.readline().split()]
        for program in programs:
            program.communicate()
        self.assertEqual(len(ports), 60)
        self.assertEqual(len(set(ports)), 60)


class Traces(unittest.TestCase):
    SCRIPT = ("import sys, time; sys.path.insert(0, sys.argv[1])\n"
              "import servers; s = servers.KINDS[sys.argv[2]]()\n"
              "print(*[str(y) for x in getattr(s, 'servers', [s]) for y in (x.pid, x.dir)], flush=True)\n"
              "time.sleep(60)")
    # A test of the tree: a supervisor, its child, and what that starts.
    SUPERVISED = ("import os, sys, time; sys.path.insert(0, sys.argv[1] + '/../tree')\n"
                  "import lib, subprocess\n"
                  "def run():\n"
                  " s = lib.servers.KINDS[sys.argv[2]]()\n"
                  " p = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
                  " a = lib.Agent()\n"
                  " print(s.pid, s.dir, p.pid, lib.WORK, a.pid, lib.WORK, os.getpid(), lib.WORK, "
                  "flush=True)\n"
                  " time.sleep(60)\n"
                  "lib.supervise(run, 60)")

    def killed(self, number, kind, script=None):
        process = subprocess.Popen([sys.executable, "-c", script or self.SCRIPT, HERE, kind], text=True,
                                   stderr=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   env=dict(os.environ, TOOZFS="/bin/true"))
        words = process.stdout.readline().split()
        pids, directories = words[::2], words[1::2]
        self.assertTrue(pids, f"{kind} did not start")
        self.assertTrue(all(map(os.path.isdir, directories)) and all(map(alive, pids)))
        process.send_signal(number)
        process.communicate()
        wait_until(lambda: not any(map(alive, pids)) and not any(map(os.path.exists, directories)))

    def need(self, kind):
        try:
            servers.KINDS[kind]().stop()
        except servers.Missing as missing:
            self.skipTest(str(missing))

    def test_nothing_is_left(self):
        self.need("redis")
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
            self.killed(number, "redis")

    def test_nothing_is_left_of_an_ensemble(self):
        self.need("zookeeper")
        self.killed(signal.SIGKILL, "zookeeper-ensemble")

    def test_nothing_is_left_by_a_supervisor(self):
        self.need("redis")
        if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
            self.skipTest("needs root and /dev/fuse")
        for number in (signal.SIGKILL, signal.SIGTERM):
            self.killed(number, "redis", self.SUPERVISED)


class Command(unittest.TestCase):
    def run_it(self, *argv):
        return subprocess.run([sys.executable, os.path.join(HERE, "servers.py"), *argv], text=True,
                              capture_output=True, timeout=60 * servers.SLOW, check=False)

    def test_url_and_status(self):
        done = self.run_it("redis", "redis-password", "--", "sh", "-c", 'echo "$1" "$2"; exit 5', "sh",
                           "@URL@", "@URL2@")
        if done.returncode == 77:
            self.skipTest(done.stdout)
        self.assertEqual(done.returncode, 5, done.stderr)
        self.assertRegex(done.stdout, r"^redis://127\S+ redis://:\S+@127\S+\n$")

    def test_killed_program(self):
        done = self.run_it("redis", "--", "sh", "-c", "kill -9 $$")
        self.assertIn(done.returncode, (77, 128 + 9))

    def test_wrong_use(self):
        self.assertEqual(self.run_it("redis").returncode, 2)

    def test_missing(self):
        script = ("import sys; sys.path.insert(0, sys.argv[1]); import servers\n"
                  "def need(*_): raise servers.Missing('needs x, of the package y')\n"
                  "servers._need = need; sys.exit(servers.main(['redis', '--', 'true']))")
        done = subprocess.run([sys.executable, "-c", script, HERE], text=True, capture_output=True,
                              timeout=60, check=False)
        self.assertEqual((done.returncode, done.stdout), (77, "skipped: needs x, of the package y\n"))


class Echo:
    """A server that says what it is told."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.pid = os.fork()
        if self.pid == 0:
            clients = []
            import selectors
            selector = selectors.DefaultSelector()
            selector.register(self.socket, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self.socket:
                        clients.append(self.socket.accept()[0])
                        selector.register(clients[-1], selectors.EVENT_READ)
                        continue
                    try:
                        data = key.fileobj.recv(65536)
                        key.fileobj.sendall(data)
                    except OSError:
                        data = b""
                    if not data:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()
        self.socket.close()

    def stop(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Trouble(unittest.TestCase):
    def setUp(self):
        echo = Echo()
        self.addCleanup(echo.stop)
        self.proxy = proxy.Proxy(echo.port)
        self.addCleanup(self.proxy.stop)
        self.client = self.connect()

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.proxy.port), 5)
        client.settimeout(0.2 * servers.SLOW)
        self.addCleanup(client.close)
        return client

    def say(self, data=b"hello"):
        self.client.sendall(data)
        return self.client.recv(65536)

    def test_counts(self):
        for _ in range(3):
            self.assertEqual(self.say(), b"hello")
        counts = self.proxy.counts()
        self.assertEqual((counts["trips"], counts["bytes_up"], counts["bytes_down"]), (3, 15, 15))
        self.assertEqual((counts["connections"], counts["open"]), (1, 1))
        self.proxy.reset_counts()
        self.assertEqual(self.proxy.counts()["trips"], 0)

    def test_delay(self):
        self.client.settimeout(5 * servers.SLOW)
        self.proxy.delay(60)
        begin = time.monotonic()
        self.say()
        self.assertGreater(time.monotonic() - begin, 0.11)

    def test_order(self):
        """A stream stays one, whatever becomes of the delay."""
        self.client.settimeout(5 * servers.SLOW)
        for i in range(10):
            self.proxy.delay(30 * (i % 2))
            self.client.sendall(b"%d" % i)
        text = b""
        while len(text) < 10:
            text += self.client.recv(10)
        self.assertEqual(text, b"0123456789")

    def test_drop(self):
        self.proxy.drop("down")
        with self.assertRaises(TimeoutError):
            self.say()
        self.proxy.drop("none")
        with self.assertRaises(TimeoutError):  # a stream has no gaps
            self.say(b"again")
        self.client = self.connect()
        self.assertEqual(self.say(b"again"), b"again")

    def test_one(self):
        self.say()
        first, self.client = self.client, self.connect()
        self.say()
        self.assertTrue(self.proxy.one(3, "stall"))  # the second, counted around
        with self.assertRaises(TimeoutError):
            self.say(b"second")
        self.client, second = first, self.client
        self.assertEqual(self.say(b"first"), b"first")
        self.proxy.one_none()
        self.assertEqual(second.recv(100), b"second")
        self.assertTrue(self.proxy.one(0, "cut"))
        with self.assertRaises(ConnectionError):
            self.say()

    def test_stall(self):
        self.proxy.stall("up")
        with self.assertRaises(TimeoutError):
            self.say()
        self.proxy.stall("none")
        self.assertEqual(self.client.recv(100), b"hello")

    def test_cut(self):
        self.say()
        self.assertEqual(self.proxy.cut(), 1)
        with self.assertRaises(ConnectionResetError):
            self.client.recv(1)
        self.client = self.connect()
        self.assertEqual(self.say(), b"hello")

    def test_half_close(self):
        self.say()
        self.proxy.half_close()
        self.assertEqual(self.client.recv(1), b"")

    def test_refuse(self):
        self.say()
        self.proxy.refuse(True)
        with self.assertRaises(ConnectionRefusedError):
            self.connect()
        self.proxy.refuse(False)
        self.client = self.connect()
        self.assertEqual(self.say(), b"hello")

    def test_garble(self):
        self.proxy.garble(16)
        data = bytes(range(32))
        self.assertNotEqual(self.say(data)[:16], data[:16])
        self.assertEqual(self.say(data), data)


if __name__ == "__main__":
    program = unittest.main(exit=False, verbosity=2)
    sys.exit(0 if program.result.wasSuccessful() else 1)
