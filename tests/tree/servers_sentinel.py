# SPDX-License-Identifier: Apache-2.0
"""redis:// behind sentinels, whose master changes."""
import errno
import os
import time

import lib
from lib import EX, NB, UN, servers
from trouble import LEASE_S, OPTIONS, RW


class Sentinel(lib.Case):
    kind = "redis"

    def setUp(self):
        lib.need_module("redis")
        try:
            self.site = servers.Sentinels()
        except servers.Missing as missing:
            self.skipTest(str(missing))
        self.addCleanup(self.site.stop)
        url = self.site.url(self.site.namespace())
        self.a, self.b = self.tree(url, OPTIONS), self.tree(url, OPTIONS)

    def token(self, agent, fd):
        return int(lib.fields(agent.pread(fd, 4096, 0))["token"])

    def test_fail_over(self):
        """The mounts find the new master. A holder keeps its lock or is told; never do two hold it."""
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"caps")
        holder, waiter = self.agent(), self.agent()
        fd = holder.open_flock(self.a("locks/l"), RW, EX)
        token = self.token(holder, fd)
        other = waiter.open(self.b("locks/l"))
        waiter.start("flock", other, EX)
        waiter.wait_blocked()
        self.site.fail_over()
        watch = lib.Stopwatch()
        lost = None
        while lost is None:
            try:
                holder.fsync(fd)
                lost = False
            except OSError as error:
                lost = True if error.errno == errno.EIO else None
            watch.within(2 * lib.PATIENCE_S)
        if not lost:
            self.assertFalse(waiter.done(), "two hold at once")
        holder.flock(fd, UN)
        waiter.result(2 * lib.PATIENCE_S)
        self.assertGreater(self.token(waiter, other), token)
        lib.wait_until(lambda: self.members() == ["m"], "the member", 2 * lib.PATIENCE_S)
        self.assertEqual(lib.read(self.a(".tooz/state")), b"connected\n")

    def members(self):
        try:
            return os.listdir(self.b("groups/g"))
        except OSError:
            return None

    def settled(self):
        """The master, once the sentinels and all others follow it."""
        try:
            masters = [server for server in self.site.servers if server("ROLE")[0] == b"master"]
            return masters[0] if masters == [self.site.master()] else None
        except OSError:
            return None  # who makes a replica of a server ends its connections

    def test_old_master_comes_back(self):
        """It is a replica then, and nobody talks to it."""
        self.site.fail_over().start()
        agent = self.agent()

        def taken():
            try:
                return agent.open_flock(self.a("locks/l"), RW, EX | NB)
            except OSError:
                return None

        def serves():
            fd = lib.wait_until(taken, "a lock", 2 * lib.PATIENCE_S)
            time.sleep(LEASE_S / 2)
            agent.fsync(fd)
            self.fails(errno.EAGAIN, self.agent().open_flock, self.b("locks/l"), RW, EX | NB)
        while True:
            master = lib.wait_until(self.settled, "one master", 4 * lib.PATIENCE_S)
            try:
                return serves()
            except (OSError, AssertionError):
                # Where the machine stood still for a second the master is another again.
                if lib.wait_until(self.settled, "one master", 4 * lib.PATIENCE_S) is master:
                    raise

    def test_sentinels_die(self):
        """Without them what works goes on."""
        fd = self.agent().open_flock(self.a("locks/l"), RW, EX)
        for sentinel in self.site.sentinels:
            sentinel.kill()
        self.assertGreaterEqual(fd, 0)
        time.sleep(LEASE_S / 2)
        self.fails(errno.EAGAIN, self.agent().open_flock, self.b("locks/l"), RW, EX | NB)


if __name__ == "__main__":
    lib.main(400)
