# SPDX-License-Identifier: Apache-2.0
"""The stores of the fault suite: how each is started, reached by a mount, hurt and healed."""
import contextlib
import tempfile
import time

import lib
import proxy
import servers

# What was answered survives a kill: it was given to the kernel before.
HOSTS = 3  # for mounts, where each has one
DURABLE = ("appendonly yes", "appendfsync no", "auto-aof-rewrite-percentage 0")


class Store:
    """May be hurt in one way at a time."""

    promises = True  # that two never hold at once
    leased = True    # who does not renew loses; else only who dies
    servers = ()

    def __init__(self):
        self.proxies = {}  # of a mount
        self.hurt = None

    def url(self, mount):
        """For a mount; None: for Python, which goes straight to the server."""
        raise NotImplementedError

    def place(self, mount):
        """Where the mount's daemon is to be started."""
        del mount
        return contextlib.nullcontext()

    def victim(self, kind, pick):
        """The server that this fault is about."""
        del kind
        return self.servers[int(pick * len(self.servers))]

    def begin(self, kind, pick):
        self.hurt = victim = self.victim(kind, pick)
        if kind.endswith("-stop"):
            victim.pause()
        else:
            victim.kill()

    def end(self, kind):
        """Not awaited here: a server takes its time to start."""
        victim, self.hurt = self.hurt, None
        if kind.endswith("-stop"):
            victim.cont()
        else:
            victim.spawn()

    def heal(self):
        for server in self.servers:
            end = time.monotonic() + servers.READY_S
            while time.monotonic() < end:
                try:
                    server.wait_ready()
                    break
                except servers.RedisError:  # it still loads what it had
                    time.sleep(0.01)

    def stop(self):
        for proxies in self.proxies.values():
            for p in proxies:
                p.stop()
        for server in self.servers:
            server.stop()

    def through(self, mount):
        """Ports that lead to the servers, for this mount alone."""
        if mount not in self.proxies:
            self.proxies[mount] = [proxy.Proxy(server.port) for server in self.servers]
        return [p.port for p in self.proxies[mount]]

    def net(self, mount, kind, arg):
        """Faults of a mount's link."""
        for p in self.proxies[mount]:
            if kind.startswith("one-"):
                p.one(arg["number"], kind[4:])
            elif kind == "delay":
                p.delay(arg["ms"])
            elif kind in ("drop", "stall"):
                getattr(p, kind)(arg["way"])
            elif kind == "garble":
                p.garble(8)
            elif kind == "refuse":
                p.refuse(True)
            else:
                getattr(p, kind)()

    def net_end(self, mount, kind):
        for p in self.proxies[mount]:
            if kind.startswith("one-"):
                p.one_none()
            elif kind == "delay":
                p.delay(0)
            elif kind in ("drop", "stall"):
                getattr(p, kind)("none")
            elif kind == "garble":
                p.garble(0)
            elif kind == "refuse":
                p.refuse(False)


class File(Store):
    leased = False

    def __init__(self):
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="store", dir=lib.WORK)

    def url(self, mount):
        return "file://" + self.directory


class Redis(Store):
    def __init__(self):
        super().__init__()
        self.servers = [servers.Redis(options=DURABLE)]

    def url(self, mount):
        server = self.servers[0]
        return server.url("n", port=None if mount is None else self.through(mount)[0])


class ZooKeeper(Redis):
    def __init__(self):
        Store.__init__(self)
        self.servers = [servers.ZooKeeper()]


class Ensemble(Store):
    def __init__(self):
        super().__init__()
        self.ensemble = servers.Ensemble()
        self.servers = self.ensemble.servers

    def url(self, mount):
        ports = [s.port for s in self.servers] if mount is None else self.through(mount)
        return "zookeeper://" + ",".join(f"127.0.0.1:{p}" for p in ports) + "?namespace=n"

    def victim(self, kind, pick):
        if kind.startswith("leader"):
            leader = self.ensemble.leader()
            if leader:
                return leader
        return super().victim(kind, pick)


class Sentinels(Store):
    """Mounts find the master themselves, without a proxy. A fail-over forgets what was not copied yet."""

    promises = False

    def __init__(self):
        super().__init__()
        self.group = servers.Sentinels(options=DURABLE)
        self.servers = [*self.group.servers, *self.group.sentinels]

    def url(self, mount):
        return self.group.url("n")

    def victim(self, kind, pick):
        if kind.startswith("leader"):
            with contextlib.suppress(OSError, StopIteration):
                return self.group.master()
        return super().victim(kind, pick)

    def heal(self):
        """Who is master, and whose replica the others are, has changed since they were made."""
        end = time.monotonic() + 60 * lib.SLOW
        while time.monotonic() < end:
            with contextlib.suppress(OSError, StopIteration, servers.RedisError):
                master = self.group.master()
                if all(self._names(s) == master.port for s in self.group.sentinels) and all(
                        self._right(s, master) for s in self.group.servers):
                    return
            time.sleep(0.05)
        raise AssertionError("the sentinels and their servers do not agree")

    def _names(self, sentinel):
        return int(sentinel("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.group.name)[1])

    @staticmethod
    def _right(server, master):
        role = server("ROLE")
        if server is master:
            return role[0] == b"master"
        return role[0] == b"slave" and role[2] == master.port and role[3] == b"connected"


class Parted(Store):
    """Servers and mounts are hosts in network namespaces, the servers first. Links fail in the kernel: what was sent is
    sent again later, connections outlive a short cut, and nobody says that one has ended."""

    def __init__(self, network, made):
        super().__init__()
        self.network, self.servers = network, made

    @staticmethod
    def home(server, network, i):
        """Before it is made."""
        server.host, server.netns = network.address(i), network.namespaces[i]
        return server

    def host(self, mount):
        return len(self.servers) + mount

    def place(self, mount):
        return self.network.place(self.host(mount))

    def net(self, mount, kind, arg):
        self._hurt(self.host(mount), kind, arg["way"])

    def _hurt(self, host, kind, way):
        if kind.endswith("unplug"):
            self.network.link(host, False)
        else:
            self.network.cut(host, way, "unreachable" if kind.endswith("unreachable") else "blackhole")

    def net_end(self, mount, kind):
        self._mend(self.host(mount), kind)

    def _mend(self, host, kind):
        if kind.endswith("unplug"):
            self.network.link(host, True)
        else:
            self.network.heal(host)

    def begin(self, kind, pick):
        if kind.endswith(("stop", "kill")):
            super().begin(kind, pick)
            return
        self.hurt = self.victim(kind, pick)
        self._hurt(self.servers.index(self.hurt), kind, "both")

    def end(self, kind):
        if kind.endswith(("stop", "kill")):
            super().end(kind)
            return
        victim, self.hurt = self.hurt, None
        self._mend(self.servers.index(victim), kind)

    def stop(self):
        super().stop()
        self.network.stop()


class PartedRedis(Parted):
    def __init__(self):
        network = servers.Network(1 + HOSTS)
        server = self.home(servers.Redis.__new__(servers.Redis), network, 0)
        server.__init__(options=DURABLE)
        super().__init__(network, [server])

    def url(self, mount):
        return self.servers[0].url("n")


class PartedEnsemble(Parted):
    def __init__(self):
        self.ensemble = servers.PartedEnsemble(more=HOSTS)
        super().__init__(self.ensemble.network, self.ensemble.servers)

    def url(self, mount):
        return self.ensemble.url("n")

    def victim(self, kind, pick):
        return kind.startswith("leader") and self.ensemble.leader() or super().victim(kind, pick)


STORES = {"redis-parted": PartedRedis, "zookeeper-parted": PartedEnsemble, "file": File, "redis": Redis, "redis-sentinel": Sentinels, "zookeeper": ZooKeeper,
          "zookeeper-ensemble": Ensemble}


