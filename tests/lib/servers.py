# SPDX-License-Identifier: Apache-2.0
"""Real servers for tests, on free loopback ports, in directories of their own.

As a module: Redis, Sentinels, ZooKeeper and Ensemble start when they are made and are ready when that
returns: they answer, which is asked for and not slept for. shared(kind) gives one server for a whole
program; url() names a namespace that nobody used before, so that tests do not meet.

As a command:

    servers.py KIND [KIND ...] -- PROGRAM ARG ...

starts servers, runs the program with @URL@ in its arguments replaced by the URL of the first (@URL2@ of
the second ...) and passes its exit status on. Kinds: see KINDS. What is not installed is named, with
exit status 77.

Nothing is left behind: a server dies with the process that started it, and a janitor, a process that
waits for the end of that process, removes the directories. All servers are stopped by their pid.
"""
import atexit
import base64
import ctypes
import glob
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

PR_SET_PDEATHSIG = 1
SLOW = float(os.environ.get("TOOZFS_SLOW", "1"))
READY_S = 30 * SLOW
libc = ctypes.CDLL(None, use_errno=True)


class Missing(Exception):
    """What a server needs is not installed."""


# ---- Leaving nothing behind ----

class _Janitor:
    """Removes directories when the process that made it is gone, or tells it to."""

    pid, pipe, owner = None, None, None

    @classmethod
    def watch(cls, path):
        if cls.owner != os.getpid():
            cls._start()
        os.write(cls.pipe, os.fsencode(path) + b"\n")

    @classmethod
    def _start(cls):
        read_end, cls.pipe = os.pipe()
        cls.owner = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        cls.pid = os.fork()
        if cls.pid:
            os.close(read_end)
            return
        try:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            null = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            os.closerange(3, read_end)
            os.closerange(read_end + 1, 1024)
            text = b""
            while part := os.read(read_end, 65536):
                text += part
            time.sleep(0.05)  # for servers that write their last
            for path in text.split(b"\n")[:-1]:
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os._exit(0)


def _die_with_parent(parent):
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.setpgid(0, 0)


CLONE_NEWNET = 0x40000000


def _enter(fd):
    """Into a network namespace."""
    if libc.setns(fd, CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), "setns")


def _need(program, package, *places):
    found = shutil.which(program, path=os.pathsep.join(
        (*places, os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
    if not found:
        raise Missing(f"needs {program}, of the package {package}")
    return found


_taken = []


def _reserve(port):
    """An abstract name that is ours until this process and its children have ended; OSError: another has it."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0toozfs-test-port-{port}")
    except OSError:
        name.close()
        raise
    _taken.append(name)


def free_port():
    """A port that nobody listens on, nor another process of tests is about to, below those that the kernel
    gives to clients."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as f:
        low = int(f.read().split()[0])
    choose = random.SystemRandom()
    for _ in range(1000):
        port = choose.randrange(10000, max(low, 12000))
        with socket.socket() as s:
            # Other programs find it by a failing start at the latest.
            try:
                _reserve(port)
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise Missing("a free port")


class Server:
    """One process, with a port that it keeps over restarts."""

    ATTEMPTS = 5
    host = "127.0.0.1"
    netns = None  # a handle of the network namespace that it runs in, if that is not ours

    def __init__(self):
        self.process, self.paused = None, False
        self.dir = tempfile.mkdtemp(prefix="server-", dir=os.environ.get("TOOZFS_SERVERS_DIR"))
        _Janitor.watch(self.dir)
        self._names = 0
        for attempt in range(self.ATTEMPTS):
            self.port = free_port()
            try:
                self.start()
                return
            except RuntimeError:
                # Somebody may have been quicker to take the port.
                if attempt == self.ATTEMPTS - 1:
                    raise

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def command(self):
        raise NotImplementedError

    def answers(self):
        """Is it ready? OSError is no."""
        raise NotImplementedError

    def spawn(self):
        argv, parent = self.command(), os.getpid()
        with open(self.path("log"), "ab") as log:
            # pylint: disable=subprocess-popen-preexec-fn
            self.process = subprocess.Popen(argv, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log,
                                            preexec_fn=lambda: self._begin(parent))
        self.paused = False

    def _begin(self, parent):
        _die_with_parent(parent)
        if self.netns is not None:
            _enter(self.netns)

    def wait_ready(self):
        end = time.monotonic() + READY_S
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.process.args[0]} ended: {self.log()[-2000:]}")
            try:
                if self.answers():
                    return self
            except OSError:
                pass
            if time.monotonic() > end:
                raise RuntimeError(f"{self.process.args[0]} is not ready: {self.log()[-2000:]}")
            time.sleep(0.001)

    def start(self):
        self.spawn()
        return self.wait_ready()

    def log(self):
        with open(self.path("log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        """kill -9, and gone when this returns."""
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()

    def pause(self):
        """SIGSTOP: connections stay, nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)
        self.paused = True

    def cont(self):
        os.kill(self.pid, signal.SIGCONT)
        self.paused = False

    def restart(self):
        """On the same port. What it kept in memory only is forgotten."""
        self.kill()
        return self.start()

    def stop(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def namespace(self):
        self._names += 1
        return f"t{os.getpid()}-{self._names}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


# ---- redis ----

class RedisError(Exception):
    pass


class RedisConnection:
    """The protocol's requests and answers, blocking; for looking at a server from outside."""

    def __init__(self, address, password=None, user=None, context=None, timeout=5.0):
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context:
            self.socket = context.wrap_socket(self.socket)
        self.file = self.socket.makefile("rb")
        if password is not None:
            self("AUTH", *([user] if user else []), password)

    def __call__(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            word = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        self.socket.sendall(b"".join(parts))
        return self.answer()

    def answer(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RedisError(rest.decode("utf-8", "replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.answer() for _ in range(int(rest))]
        raise ConnectionError(f"not an answer: {line!r}")

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Redis(Server):
    """password: of the user `user`, or of the default one. unix: a UNIX socket too. tls: only TLS on the
    port, with a client certificate demanded. replica_of: another Redis. options: of redis.conf. forbidden:
    commands to `user`."""

    SCHEME = "redis"

    def __init__(self, password=None, user=None, unix=False, tls=False, replica_of=None, options=(),
                 forbidden=()):
        self.program = _need("redis-server", "redis-server")
        self.password, self.user, self.tls = password, user, tls
        self.replica_of, self.options = replica_of, list(options)
        self.unix, self.forbidden = unix, forbidden
        super().__init__()

    @property
    def socket_path(self):
        return self.path("socket")

    def config(self):
        lines = [f"bind {self.host}", f"dir {self.dir}", "daemonize no", "save ''", "appendonly no",
                 "protected-mode no", "repl-diskless-sync yes", "repl-diskless-sync-delay 0",
                 "shutdown-timeout 0", "enable-debug-command yes"]
        if self.tls:
            make_certificates(self.dir)
            lines += ["port 0", f"tls-port {self.port}", "tls-cert-file server.crt",
                      "tls-key-file server.key", "tls-ca-cert-file ca.crt", "tls-auth-clients yes"]
        else:
            lines.append(f"port {self.port}")
        if self.unix:
            lines += [f"unixsocket {self.socket_path}", "unixsocketperm 777"]
        if self.password and self.user:
            rights = " ".join(("+@all", *(f"-{x}" for x in self.forbidden)))
            lines += [f"user {self.user} on >{self.password} ~* &* {rights}", "user default off"]
        elif self.password:
            lines += [f"requirepass {self.password}", f"masterauth {self.password}"]
        if self.replica_of:
            lines.append(f"replicaof {self.replica_of.host} {self.replica_of.port}")
        return lines + self.options

    def command(self):
        if not os.path.exists(self.path("redis.conf")) or not self.process:
            self.write("redis.conf", "\n".join(self.config()) + "\n")
        return [self.program, self.path("redis.conf")]

    def answers(self):
        with self.connect(1.0) as c:
            if c("PING") != b"PONG":
                return False
            return not self.replica_of or b"master_link_status:up" in c("INFO", "replication")

    def connect(self, timeout=5.0):
        context = None
        if self.tls:
            import ssl
            context = ssl.create_default_context(cafile=self.path("ca.crt"))
            context.check_hostname = False
            context.load_cert_chain(self.path("client.crt"), self.path("client.key"))
        return RedisConnection((self.host, self.port), self.password, self.user, context, timeout)

    def __call__(self, *words):
        """One command on a connection of its own."""
        with self.connect() as c:
            return c(*words)

    def url(self, namespace=None, port=None, unix=False, **options):
        """port: of a proxy before it."""
        options = {"namespace": namespace or self.namespace(), **options}
        if self.tls:
            options.update(ssl="true", ssl_ca_certs=self.path("ca.crt"),
                           ssl_certfile=self.path("client.crt"), ssl_keyfile=self.path("client.key"))
        login = f"{self.user or ''}:{self.password}@" if self.password else ""
        place = self.socket_path if unix else f"{self.host}:{port or self.port}"
        return f"redis://{login}{place}" + query(options)


class _Sentinel(Server):
    def __init__(self, program, master, name, quorum, down_ms):
        self.program, self.master, self.name = program, master, name
        self.quorum, self.down_ms = quorum, down_ms
        super().__init__()

    def command(self):
        if not os.path.exists(self.path("sentinel.conf")) or not self.process:
            lines = ["bind 127.0.0.1", f"port {self.port}", f"dir {self.dir}", "protected-mode no",
                     f"sentinel monitor {self.name} 127.0.0.1 {self.master.port} {self.quorum}",
                     f"sentinel down-after-milliseconds {self.name} {self.down_ms}",
                     f"sentinel failover-timeout {self.name} 4000"]
            self.write("sentinel.conf", "\n".join(lines) + "\n")
        return [self.program, self.path("sentinel.conf"), "--sentinel"]

    def __call__(self, *words):
        with RedisConnection(("127.0.0.1", self.port)) as c:
            return c(*words)

    def answers(self):
        return self("PING") == b"PONG"


class Sentinels:
    """A master, replicas and sentinels that elect a new master about a second after one fell silent (where all is
    slow, four)."""

    def __init__(self, replicas=1, sentinels=3, name="mymaster", down_ms=int(1000 * SLOW), options=()):
        program = _need("redis-sentinel", "redis-sentinel")
        self.name, self._names = name, 0
        self.servers = [Redis(options=options)]
        self.servers += [Redis(replica_of=self.servers[0], options=[*options, "repl-timeout 5"])
                         for _ in range(replicas)]
        self.sentinels = [_Sentinel(program, self.servers[0], name, sentinels // 2 + 1, down_ms)
                          for _ in range(sentinels)]
        self._until(self._see_each_other, "sentinels to see each other")

    def _see_each_other(self):
        for sentinel in self.sentinels:
            # Every sentinel must know the replicas, and the others, to be able to elect.
            state = sentinel("SENTINEL", "MASTER", self.name)
            state = dict(zip(state[::2], state[1::2]))
            if (int(state[b"num-slaves"]), int(state[b"num-other-sentinels"])) != (
                    len(self.servers) - 1, len(self.sentinels) - 1):
                return False
        return True

    @staticmethod
    def _until(check, what):
        end = time.monotonic() + READY_S
        while not check():
            if time.monotonic() > end:
                raise RuntimeError(f"timed out waiting for {what}")
            time.sleep(0.01)

    def master(self):
        """As the sentinels have it."""
        port = int(self.sentinels[0]("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)[1])
        return next(s for s in self.servers if s.port == port)

    def fail_over(self):
        """Kills the master; returns when the sentinels name another, which takes writes."""
        old = self.master()
        old.kill()
        self._until(lambda: self.master() is not old, "a new master")
        self._until(lambda: self.master()("ROLE")[0] == b"master", "the new master's promotion")
        return old

    def namespace(self):
        self._names += 1
        return f"t{os.getpid()}-{self._names}"

    def url(self, namespace=None, **options):
        first, *others = self.sentinels
        options = {"namespace": namespace or self.namespace(), "sentinel": self.name, **options}
        text = f"redis://127.0.0.1:{first.port}" + query(options)
        return text + "".join(f"&sentinel_fallback=127.0.0.1:{s.port}" for s in others)

    def stop(self):
        for server in self.sentinels + self.servers:
            server.stop()


def make_certificates(directory):
    """ca.crt, and server and client with key and certificate of it, if they are not there."""
    openssl = _need("openssl", "openssl")
    if os.path.exists(os.path.join(directory, "client.crt")):
        return

    def run(*argv):
        subprocess.run([openssl, *argv], cwd=directory, check=True, capture_output=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj",
        "/CN=Test CA")
    for name in ("server", "client"):
        run("req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2",
            "-subj", f"/CN={name}", "-CA", "ca.crt", "-CAkey", "ca.key", "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE")


# ---- ZooKeeper ----

TICK_MS = 200


def _zookeeper_classpath():
    jar = "/usr/share/java/zookeeper.jar"
    if not os.path.exists(jar):
        raise Missing("needs zookeeper.jar, of the package zookeeper")
    # Without a binding the log is lost; with the one for log4j it needs a configuration.
    return os.pathsep.join([jar, *glob.glob("/usr/share/java/slf4j-simple.jar")])


class ZooKeeper(Server):
    """One server. peers: (id, host, peer port, election port) of an ensemble, of which this is one."""

    SCHEME = "zookeeper"

    def __init__(self, peers=(), number=0, options=()):
        self.java = _need("java", "default-jre-headless")
        self.classpath = _zookeeper_classpath()
        self.peers, self.number, self.options = list(peers), number, list(options)
        super().__init__()

    def command(self):
        os.makedirs(self.path("data"), exist_ok=True)
        lines = [f"tickTime={TICK_MS}", f"dataDir={self.path('data')}", f"clientPort={self.port}",
                 f"clientPortAddress={self.host}", "admin.enableServer=false",
                 "4lw.commands.whitelist=*", "maxClientCnxns=0", "minSessionTimeout=500",
                 "maxSessionTimeout=60000", "initLimit=50", "syncLimit=10", *self.options]
        for number, host, peer, election in self.peers:
            lines.append(f"server.{number}={host}:{peer}:{election}")
        if self.peers:
            self.write("data/myid", f"{self.number}\n")
        self.write("zoo.cfg", "\n".join(lines) + "\n")
        return [self.java, "-Xmx96m", "-Xss512k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                "-XX:-UsePerfData", "-Xshare:auto", "-Dzookeeper.forceSync=no",
                "-Dzookeeper.preAllocSize=64", "-Dzookeeper.skipACL=no",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", self.classpath,
                "org.apache.zookeeper.server.quorum.QuorumPeerMain", self.path("zoo.cfg")]

    def word(self, word):
        """One of the four-letter commands."""
        with socket.create_connection((self.host, self.port), 2.0) as s:
            s.sendall(word.encode())
            parts = []
            while part := s.recv(65536):
                parts.append(part)
        return b"".join(parts).decode("utf-8", "replace")

    def mode(self):
        """standalone, leader, follower; or None while it serves nobody."""
        for line in self.word("srvr").splitlines():
            if line.startswith("Mode: "):
                return line[6:]
        return None

    def answers(self):
        return self.mode() is not None

    def decides(self):
        """Does it open a session? That needs a majority, which a server can be cut off from without knowing."""
        with socket.create_connection((self.host, self.port), 2.0) as s:
            s.sendall(struct.pack(">iiqiqi16s?", 45, 0, 0, 4000, 0, 16, b"", False))
            opened = len(s.recv(20, socket.MSG_WAITALL)) == 20
            s.sendall(struct.pack(">iii", 8, 1, -11))  # and closes it
        return opened

    def url(self, namespace=None, port=None, **options):
        options = {"namespace": namespace or self.namespace(), **options}
        return f"zookeeper://{self.host}:{port or self.port}" + query(options)


class Ensemble:
    """Servers that elect a leader among them."""

    def __init__(self, count=3, options=()):
        self._names = 0
        hosts = self.hosts(count)
        peers = [(i + 1, host, free_port(), free_port()) for i, (host, _) in enumerate(hosts)]
        self.servers = []
        for i, (host, netns) in enumerate(hosts):
            # A single one of an ensemble is never ready: started all, then awaited.
            server = ZooKeeper.__new__(ZooKeeper)
            server.wait_ready = lambda: None
            server.host, server.netns = host, netns
            ZooKeeper.__init__(server, peers, i + 1, options)
            del server.wait_ready
            self.servers.append(server)
        for server in self.servers:
            server.wait_ready()

    def hosts(self, count):
        """Where each of them lives: its address, and its network namespace."""
        return [("127.0.0.1", None)] * count

    def leader(self):
        """The server that leads, or None."""
        for server in self.servers:
            try:
                if server.process.poll() is None and server.mode() == "leader":
                    return server
            except OSError:
                pass
        return None

    def fail_over(self):
        """Kills the leader; returns when another leads."""
        old = self.leader()
        old.kill()
        Sentinels._until(self.leader, "a new leader")
        return old

    def revive(self):
        """All of them, whatever was done to them; returns when one leads and all others follow it."""
        for server in self.servers:
            if server.process.poll() is not None:
                server.spawn()
            elif server.paused:
                server.cont()
        Sentinels._until(self._whole, "all servers of the ensemble")

    def _whole(self):
        try:
            modes = sorted(str(server.mode()) for server in self.servers)
            return (modes == ["follower"] * (len(modes) - 1) + ["leader"]
                    and all(server.decides() for server in self.servers))
        except OSError:
            return False

    def namespace(self):
        self._names += 1
        return f"t{os.getpid()}-{self._names}"

    def url(self, namespace=None, **options):
        options = {"namespace": namespace or self.namespace(), **options}
        return self.url_of(self.servers, **options)

    @staticmethod
    def url_of(servers, **options):
        """Of some of them, in this order."""
        hosts = ",".join(f"{s.host}:{s.port}" for s in servers)
        return f"zookeeper://{hosts}" + query(options)

    def stop(self):
        for server in self.servers:
            server.stop()


class Network:
    """A network namespace for the process, from when this is made until stop(), and below it one for each
    of some hosts that can be cut off from each other, but not from us. The kernel removes all of it with
    its last process. Whoever is to be seen by the hosts has to be started meanwhile."""

    def __init__(self, count):
        self.ip = _need("ip", "iproute2")
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.router, self.namespaces, self.cut_off, self._rule = None, [], {}, 0
        try:
            self.router = self._unshare()
            self._ip("link set lo up")
            with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as f:
                f.write("1")
            for i in range(count):
                self._add(i)
        except OSError as error:
            self.stop()
            raise Missing(f"network namespaces ({error})") from error

    @staticmethod
    def _unshare():
        if libc.unshare(CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), "unshare")
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _ip(self, command):
        done = subprocess.run([self.ip, *command.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(0, f"ip {command}: {done.stderr.strip()}")

    def address(self, i):
        return f"10.99.{i}.2"

    def _add(self, i):
        netns = self._unshare()
        self.namespaces.append(netns)
        try:
            self._ip("link set lo up")
            self._ip(f"link add out type veth peer name host{i} netns /proc/{os.getpid()}/fd/{self.router}")
            self._ip(f"address add 10.99.{i}.2/24 dev out")
            self._ip("link set out up")
            self._ip(f"route add default via 10.99.{i}.1")
        finally:
            _enter(self.router)
        self._ip(f"address add 10.99.{i}.1/24 dev host{i}")
        self._ip(f"link set host{i} up")

    def _rules(self, i, way, what):
        if way in ("both", "up"):
            yield f"iif host{i} {what}"  # what is for us is looked up before
        for other in range(len(self.namespaces)):
            if other != i and way in ("both", "down"):
                yield f"iif host{other} to {self.address(i)} {what}"

    def cut(self, i, way="both", what="blackhole"):
        """Nothing goes from this host to the others ("up"), or to it ("down"), and nobody is told; with "unreachable"
        as what each sender is. In one way at a time."""
        self.cut_off[i] = []
        for rule in self._rules(i, way, what):
            # By its number: a rule that says less would be taken for one that says more.
            self._rule = self._rule % 30000 + 1
            self._ip(f"rule add pref {self._rule} {rule}")
            self.cut_off[i].append(self._rule)

    def heal(self, i):
        for number in self.cut_off.pop(i, ()):
            self._ip(f"rule del pref {number}")

    def link(self, i, up):
        """The cable: without it the host knows that it has none."""
        self._ip(f"link set host{i} {'up' if up else 'down'}")

    def place(self, i):
        """Whoever is started meanwhile is on this host. The process must have one thread."""
        return _Place(self, i)

    def stop(self):
        if self.home is None:
            return
        _enter(self.home)
        for fd in (self.home, self.router, *self.namespaces):
            if fd is not None:
                os.close(fd)
        self.home = None


class _Place:
    def __init__(self, network, i):
        self.network, self.i = network, i

    def __enter__(self):
        _enter(self.network.namespaces[self.i])

    def __exit__(self, *_):
        _enter(self.network.router)


class PartedEnsemble(Ensemble):
    """Each server in a network namespace of its own: cut(server), heal(server). more: hosts beside them."""

    def hosts(self, count):
        self.network = Network(count + self.more)
        return [(self.network.address(i), self.network.namespaces[i]) for i in range(count)]

    def __init__(self, *args, more=0, **keywords):
        self.network, self.more = None, more
        try:
            super().__init__(*args, **keywords)
        except BaseException:
            if self.network:
                self.network.stop()
            raise

    def cut(self, server):
        self.network.cut(self.servers.index(server))

    def heal(self, server):
        self.network.heal(self.servers.index(server))

    def revive(self):
        for server in self.servers:
            self.heal(server)
        super().revive()

    def stop(self):
        super().stop()
        self.network.stop()


# ---- All ----

def query(options):
    from urllib.parse import quote
    text = "&".join(f"{key}={quote(str(value), safe='/:,')}" for key, value in options.items())
    return "?" + text if text else ""


def secret():
    return base64.b32encode(os.urandom(10)).decode().lower()


class RedisUnix(Redis):
    def __init__(self):
        super().__init__(unix=True)

    def url(self, namespace=None, port=None, unix=True, **options):
        return super().url(namespace, port, unix, **options)


KINDS = {
    "redis": Redis,
    "redis-password": lambda: Redis(password=secret()),
    "redis-user": lambda: Redis(password=secret(), user="alice"),
    "redis-unix": RedisUnix,
    "redis-polled": lambda: Redis(password=secret(), user="alice", forbidden=("client|tracking", "pexpiretime")),
    "redis-tls": lambda: Redis(tls=True),
    "redis-sentinel": Sentinels,
    "zookeeper": ZooKeeper,
    "zookeeper-ensemble": Ensemble,
}
_shared = {}


def shared(kind):
    """One server of this kind for the whole program, and for the processes it forked."""
    if kind not in _shared:
        _shared[kind] = KINDS[kind]()
        owner = os.getpid()
        atexit.register(lambda: _shared[kind].stop() if os.getpid() == owner else None)
    return _shared[kind]


def main(argv):
    if "--" not in argv or argv.index("--") + 1 == len(argv):
        print(__doc__.split("As a command:")[1].split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    kinds, program = argv[:argv.index("--")], argv[argv.index("--") + 1:]
    servers = []

    def end(number, _):
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    process = None
    try:
        try:
            servers += [KINDS[kind]() for kind in kinds]
        except Missing as missing:
            print(f"skipped: {missing}")
            return 77
        for i, server in enumerate(servers):
            url = server.url()
            program = [arg.replace(f"@URL{i + 1 if i else ''}@", url) for arg in program]
        process = subprocess.Popen(program, preexec_fn=lambda: libc.prctl(
            PR_SET_PDEATHSIG, signal.SIGTERM))
        code = process.wait()
        return 128 - code if code < 0 else code
    finally:
        if process and process.poll() is None:
            process.terminate()
        for server in servers:
            server.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
