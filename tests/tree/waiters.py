# SPDX-License-Identifier: Apache-2.0
"""Very many blocked waiters for one lock: no thread, little memory, in order, gone at once. On a server:
those of one mount are one there.

TOOZFS_WAITERS is the program waiters. 1,000 of them, 10,000 with TOOZFS_LONG=1.
"""
import fcntl
import os
import subprocess
import sys
import time

import lib
import proxy  # of tests/lib
from lib import EX, UN

PROGRAM = os.environ.get("TOOZFS_WAITERS", "")
COUNT = 10000 if lib.LONG else 1000


def status_of(pid, key):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(next(x for x in f if x.startswith(key + ":")).split()[1])


class Waiters:
    def setUp(self):
        self.a = self.tree(self.url())
        self.fd = self.open(self.a("locks/l"))
        fcntl.flock(self.fd, EX)

    def start(self, count):
        program = self.spawn_program(PROGRAM, self.a("locks/l"), str(count))
        self.expect(program, "queued\n", 0.02 * count)
        return program

    def spawn_program(self, *argv):
        program = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def end():
            program.kill()
            program.wait()
            program.stdin.close()
            program.stdout.close()
        self.addCleanup(end)
        return program

    def expect(self, program, line, more_s=0.0):
        import select
        if not select.select([program.stdout], [], [], lib.PATIENCE_S + more_s * lib.SLOW)[0]:
            raise AssertionError(f"no answer, instead of {line!r}")
        self.assertEqual(program.stdout.readline(), line)

    def say(self, program, word):
        program.stdin.write(word + "\n")
        program.stdin.flush()

    def warm_up(self):
        """So that what the daemon needs once is not counted for the waiters."""
        program = self.start(50)
        self.say(program, "go")
        fcntl.flock(self.fd, UN)
        self.expect(program, "served 50 out-of-order 0\n")
        fcntl.flock(self.fd, EX)

    def test_cost_and_order(self):
        self.warm_up()
        threads, rss = status_of(self.a.pid, "Threads"), status_of(self.a.pid, "VmRSS")
        program = self.start(COUNT)
        self.wait_waiters(self.a("locks/l"), COUNT)
        grown = status_of(self.a.pid, "VmRSS") - rss
        self.assertEqual(status_of(self.a.pid, "Threads"), threads)
        print(f"RSS grew by {grown / COUNT:.2f} KiB a waiter", file=sys.stderr)
        if not os.environ.get("TOOZFS_SANITIZED"):
            # A page or two of rounding for each pool does not count.
            self.assertLessEqual(grown, COUNT + 64)
        watch = lib.Stopwatch()
        self.say(program, "kill")
        self.expect(program, "killed\n")
        self.wait_waiters(self.a("locks/l"), COUNT - 1)
        watch.within(0.1 * lib.SLOW)
        begin = time.monotonic()
        self.say(program, "go")
        fcntl.flock(self.fd, UN)
        self.expect(program, f"served {COUNT - 1} out-of-order 0\n", 0.02 * COUNT)
        print(f"{(COUNT - 1) / (time.monotonic() - begin):.0f} hand-overs a second",
              file=sys.stderr)

    def test_all_die(self):
        """kill -9 of the process with all waiters: none is left, and the lock goes on."""
        program = self.start(COUNT)
        watch = lib.Stopwatch()
        program.kill()
        program.wait()
        self.wait_waiters(self.a("locks/l"), 0)
        watch.within((1 + COUNT / 2000) * lib.SLOW)
        fcntl.flock(self.fd, UN)
        other = self.open(self.a("locks/l"))
        fcntl.flock(other, EX)


class WaitersMemory(Waiters, lib.Case):
    def url(self):
        return "memory://"


class WaitersFile(Waiters, lib.Case):
    def url(self):
        return "file://" + self.store()


class Served(Waiters):
    LOCKS = 10

    def url(self):
        return lib.server(self.kind).url()

    def programs(self, tree):
        programs = [self.spawn_program(PROGRAM, tree(f"locks/w{i}"), str(COUNT // self.LOCKS))
                    for i in range(self.LOCKS)]
        for program in programs:
            self.expect(program, "queued\n", 0.02 * COUNT)
        return programs

    def test_one_for_all_of_a_mount(self):
        """So many waiters on ten locks cost ten waits on the server, and a release wakes one lock's."""
        server = lib.server(self.kind)
        namespace = server.namespace()
        between = proxy.Proxy(server.port)
        self.addCleanup(between.stop)
        options = f"timeout={60 * lib.SLOW:g}"  # so that keep-alives are few
        other = self.tree(server.url(namespace), options)
        tree = self.tree(server.url(namespace, between.port), options)
        fds = [self.open(other(f"locks/w{i}")) for i in range(self.LOCKS)]
        for fd in fds:
            fcntl.flock(fd, EX)
        between.reset_counts()
        programs = self.programs(tree)
        for i in range(self.LOCKS):
            self.wait_waiters(tree(f"locks/w{i}"), COUNT // self.LOCKS)
        trips = between.counts()["trips"]
        print(f"{trips} trips to queue", file=sys.stderr)
        self.assertLessEqual(trips, 10 * self.LOCKS)
        self.check_waits(server, namespace)
        between.reset_counts()
        self.assertFalse(any(lib.select.select([x.stdout for x in programs], [], [], 1.0)))
        self.assertLessEqual(between.counts()["trips"], 3, "waiting is not free")
        for i, program in enumerate(programs):
            self.say(program, "go")
            fcntl.flock(fds[i], UN)
            self.expect(program, f"served {COUNT // self.LOCKS} out-of-order 0\n", 0.02 * COUNT)
            for later in range(i + 1, self.LOCKS):
                self.wait_waiters(tree(f"locks/w{later}"), COUNT // self.LOCKS)

    def check_waits(self, server, namespace):
        pass


class WaitersRedis(Served, lib.Case):
    kind = "redis"


class WaitersZooKeeper(Served, lib.Case):
    kind = "zookeeper"

    def check_waits(self, server, namespace):
        """A holder and one who waits, in each directory."""
        nodes = server.word("dump")
        for i in range(self.LOCKS):
            self.assertEqual(nodes.count(f"/{namespace}/locks/w{i}/"), 2)


if __name__ == "__main__":
    lib.main(600 if lib.LONG else 120)
