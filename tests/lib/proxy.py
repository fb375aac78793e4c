# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy between a client and its server that makes trouble on command, and counts.

    with Proxy(server.port) as proxy:
        url = server.url(port=proxy.port)
        proxy.delay(100)        each way, in milliseconds
        proxy.drop("up")        what goes to the server vanishes; "down", "both", "none": for connections that
                                lost nothing meanwhile, and new ones
        proxy.stall("down")     as drop, but what was held back is delivered at "none"
        proxy.cut()             all connections end at once, with a reset
        proxy.half_close()      the server seems to have said all it had to say
        proxy.refuse(True)      connections end, and new ones are refused
        proxy.garble(8)         the next 8 bytes to the client are noise
        proxy.one(3, "cut")     only the fourth of those that are open (they are counted around): cut, half_close,
                                drop, stall, delay; proxy.one_none() ends the latter three
        proxy.counts()          connections, open, bytes_up, bytes_down, trips

A trip is a turn: bytes to the server after bytes from it. What is pipelined is one trip. reset_counts()
begins anew. It runs in a process of its own, so that forked test processes hold no end of its
connections open, and dies with the process that made it.
"""
import ctypes
import heapq
import json
import os
import selectors
import signal
import socket
import struct
import sys
import time
import traceback

PR_SET_PDEATHSIG = 1
HELD_MAX = 64 << 20
ONE_DELAY_S = 0.2


class _Side:
    """One of the two sockets of a connection, with what is to be written to it."""

    def __init__(self, sock, direction):
        self.sock, self.direction = sock, direction  # direction of what is written to it
        self.out, self.eof = b"", False
        self.due, self.delayed = 0.0, 0  # when the last piece that is delayed goes out, and how many are
        self.peer = self.connection = None


class _Connection:
    def __init__(self, client, server):
        self.client, self.server = _Side(client, "down"), _Side(server, "up")
        self.client.peer, self.server.peer = self.server, self.client
        self.client.connection = self.server.connection = self
        self.turned, self.closed = True, False
        self.way, self.held = "none", []  # what is done to this one alone
        self.broken = False  # something was dropped: no byte after it is ever delivered, as with TCP


class _Relay:
    """The process: one loop."""

    def __init__(self, control, listener, target):
        self.control, self.listener, self.target = control, listener, target
        self.address = listener.getsockname()
        self.selector = selectors.DefaultSelector()
        self.connections, self.timers, self.serial = [], [], 0
        self.delay_s, self.dropped, self.stalled, self.noise = 0.0, "none", "none", 0
        self.held = []
        self.reset_counts()

    def reset_counts(self):
        self.count = {"connections": 0, "bytes_up": 0, "bytes_down": 0, "trips": 0}

    def run(self):
        self.selector.register(self.control, selectors.EVENT_READ, self.command)
        self.listen()
        while True:
            timeout = None
            if self.timers:
                timeout = max(0.0, self.timers[0][0] - time.monotonic())
            for key, events in self.selector.select(timeout):
                if isinstance(key.data, _Side):
                    self.ready(key.data, events)
                else:
                    key.data()
            while self.timers and self.timers[0][0] <= time.monotonic():
                _, _, side, data = heapq.heappop(self.timers)
                side.delayed -= 1
                self.deliver(side, data)

    def listen(self):
        self.selector.register(self.listener, selectors.EVENT_READ, self.accept)

    # ---- commands ----

    def command(self):
        data = self.control.recv(65536)
        if not data:
            os._exit(0)
        name, *args = json.loads(data)
        answer = getattr(self, "do_" + name)(*args)
        self.control.send(json.dumps(answer).encode())

    def do_delay(self, ms):
        self.delay_s = ms / 1000

    def do_drop(self, which):
        self.dropped = which

    def do_stall(self, which):
        self.stalled = which
        held, self.held = self.held, []
        for side, data in held:
            self.pass_on(side, data)

    def do_garble(self, count):
        self.noise = count

    def do_counts(self):
        return dict(self.count, open=len(self.connections))

    def do_reset_counts(self):
        self.reset_counts()

    def do_cut(self):
        cut = len(self.connections)
        for connection in list(self.connections):
            self.close(connection, reset=True)
        return cut

    def do_half_close(self):
        for connection in self.connections:
            self.half_close(connection)

    @staticmethod
    def half_close(connection):
        try:
            connection.client.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def do_one(self, number, way):
        """True if there is one."""
        if not self.connections:
            return False
        connection = self.connections[number % len(self.connections)]
        if way == "cut":
            self.close(connection, reset=True)
        elif way == "half_close":
            self.half_close(connection)
        else:
            connection.way = way
        return True

    def do_one_none(self):
        for connection in self.connections:
            held, connection.held, connection.way = connection.held, [], "none"
            for side, data in held:
                self.pass_on(side, data)

    def do_refuse(self, on):
        if on and self.listener:
            self.selector.unregister(self.listener)
            self.listener.close()
            self.listener = None
        if not on and not self.listener:
            self.listener = _listen(self.address)
            self.listen()
        if on:
            self.do_cut()

    def do_target(self, port):
        self.target = ("127.0.0.1", port)

    # ---- traffic ----

    def accept(self):
        if not self.listener:  # closed by a command that came at the same time
            return
        try:
            client = self.listener.accept()[0]
        except OSError:
            return
        try:
            server = socket.create_connection(self.target, 5)
        except OSError:
            _reset(client)
            return
        connection = _Connection(client, server)
        self.connections.append(connection)
        self.count["connections"] += 1
        for side in (connection.client, connection.server):
            side.sock.setblocking(False)
            side.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(side.sock, selectors.EVENT_READ, side)

    def ready(self, side, events):
        if side.connection.closed:
            return
        if events & selectors.EVENT_WRITE:
            self.flush(side)
        if events & selectors.EVENT_READ and not side.connection.closed:
            try:
                data = side.sock.recv(262144)
            except BlockingIOError:
                return
            except OSError:
                self.close(side.connection, reset=True)
                return
            if not data:
                self.interest(side, reading=False)
            self.arrived(side.peer, data)

    def arrived(self, side, data):
        """data (b"": an end) is to go out at side."""
        way, connection = side.direction, side.connection
        self.count["bytes_" + way] += len(data)
        if data and way == "up" and connection.turned:
            self.count["trips"] += 1
            connection.turned = False
        if way == "down":
            connection.turned = True
        connection.broken |= self.dropped in (way, "both") or connection.way == "drop"
        if connection.broken:
            return
        if connection.way == "stall":
            if sum(len(x) for _, x in connection.held) < HELD_MAX:
                connection.held.append((side, data))
            return
        if self.stalled in (way, "both"):
            if sum(len(x) for _, x in self.held) < HELD_MAX:
                self.held.append((side, data))
            return
        self.pass_on(side, data)

    def pass_on(self, side, data):
        if side.direction == "down" and self.noise and data:
            n = min(self.noise, len(data))
            self.noise -= n
            data = os.urandom(n) + data[n:]
        delay_s = max(self.delay_s, ONE_DELAY_S if side.connection.way == "delay" else 0.0)
        if delay_s or side.delayed:
            # A stream stays in order when the delay becomes shorter.
            side.due = max(time.monotonic() + delay_s, side.due)
            side.delayed += 1
            self.serial += 1
            heapq.heappush(self.timers, (side.due, self.serial, side, data))
        else:
            self.deliver(side, data)

    def deliver(self, side, data):
        if side.connection.closed:
            return
        if data:
            side.out += data
        else:
            side.eof = True
        self.flush(side)

    def flush(self, side):
        try:
            while side.out:
                side.out = side.out[side.sock.send(side.out):]
        except BlockingIOError:
            pass
        except OSError:
            self.close(side.connection, reset=True)
            return
        if side.eof and not side.out:
            side.eof = None
            try:
                side.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            if side.peer.eof is None:
                self.close(side.connection)
                return
        self.interest(side)

    def interest(self, side, reading=True):
        if not reading:
            side.done = True
        events = 0 if getattr(side, "done", False) else selectors.EVENT_READ
        events |= selectors.EVENT_WRITE if side.out else 0
        registered = side.sock in self.selector.get_map()
        if events and registered:
            self.selector.modify(side.sock, events, side)
        elif events:
            self.selector.register(side.sock, events, side)
        elif registered:
            self.selector.unregister(side.sock)

    def close(self, connection, reset=False):
        if connection.closed:
            return
        connection.closed = True
        self.connections.remove(connection)
        for side in (connection.client, connection.server):
            if side.sock in self.selector.get_map():
                self.selector.unregister(side.sock)
            if reset:
                _reset(side.sock)
            else:
                side.sock.close()


def _reset(sock):
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()


def _listen(address):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(128)
    return listener


class Proxy:
    """port listens, and leads to target on the loopback."""

    relay = _Relay  # one that does more answers to more commands

    def __init__(self, target):
        listener = _listen(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.control, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(0)
                _close_but(child.fileno(), listener.fileno())
                self.relay(child, listener, ("127.0.0.1", target)).run()
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        listener.close()
        child.close()

    def __getattr__(self, name):
        if not hasattr(self.relay, "do_" + name):
            raise AttributeError(name)

        def call(*args):
            self.control.send(json.dumps([name, *args]).encode())
            answer = self.control.recv(65536)
            if not answer:
                raise RuntimeError("the proxy died")
            return json.loads(answer)
        return call

    def stop(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.control.close()
            self.pid = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def _close_but(*kept):
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd not in kept:
            try:
                os.close(fd)
            except OSError:
                pass
