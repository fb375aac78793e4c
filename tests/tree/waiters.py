# SPDX-License-Identifier: Apache-2.0
"""Very many blocked waiters for one lock: no thread, little memory, in order, gone at once.

The first argument is the program waiters. 1,000 of them, 10,000 with TOOZFS_LONG=1.
"""
import fcntl
import os
import subprocess
import sys
import time

import lib
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


if __name__ == "__main__":
    lib.main(600 if lib.LONG else 120)
