# SPDX-License-Identifier: Apache-2.0
"""The way to a server that vanishes without a word: every holder is told before the server lets go.

The packets of several mounts are dropped at one moment. Each holder waits in poll(); when the server would have given the
lock away is asked of the server itself: from redis what the key has left to live, from ZooKeeper when the node was
still there. TOOZFS_LONG=1: 100 holders instead of 10.
"""
import os
import select
import sys
import time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", x) for x in ("tree", "lib")]
import lib  # noqa: E402
import proxy  # noqa: E402

TTL_S = 3.0 if lib.SLOW <= 1 else 6.0
MOUNTS = 10
ROUNDS = 10 if lib.LONG else 1
now = time.monotonic


def wait_for_loss(fd, timeout_s):
    """When the poll fired; None: never."""
    poll = select.poll()
    poll.register(fd, 0)
    return now() if poll.poll(1000 * timeout_s) else None


lib.ACTIONS["wait_for_loss"] = wait_for_loss


class Vanish(lib.Case):
    """ends(locks, until): for each lock a moment at which the server still had it, the last one that is known."""

    kind = ""

    def setUp(self):
        self.server = lib.server(self.kind)
        self.namespace = self.server.namespace()

    def mounts(self):
        pairs = []
        for _ in range(MOUNTS):
            link = proxy.Proxy(self.server.port)
            self.addCleanup(link.stop)
            pairs.append((link, self.tree(self.server.url(self.namespace, port=link.port), f"timeout={TTL_S:g}",
                                          ready=False), self.agent()))
        for _, tree, _ in pairs:
            tree.wait_ready()
        return pairs

    def test_every_holder_is_told_in_time(self):
        pairs, spare = self.mounts(), []
        for _ in range(ROUNDS):
            spare += self.one_round(pairs)
        print(f"{len(spare)} holders were told, at the latest {min(spare):.2f} s before the server let go, "
              f"{max(spare):.2f} s at the earliest", file=sys.stderr)

    def one_round(self, pairs):
        handles, locks = [], {}
        for i, (_, tree, agent) in enumerate(pairs):
            lib.wait_until(lambda t=tree: lib.read(t(".tooz/state")).strip() == b"connected", "the mount")
            handles.append(agent.open_flock(tree("locks", f"l{i}"), os.O_RDWR | os.O_CREAT, lib.EX | lib.NB))
            locks[f"l{i}"] = agent
        for fd, agent in zip(handles, locks.values()):
            agent.start("wait_for_loss", fd, 4 * TTL_S)
        for link, _, _ in pairs:
            link.drop("both")
        dropped = now()
        ends = self.ends(set(locks), dropped + 4 * TTL_S)
        told = {lock: agent.result(6 * TTL_S) for lock, agent in locks.items()}
        for lock, agent in locks.items():
            self.assertIsNotNone(told[lock], f"nobody was told of {lock}")
            self.assertGreater(told[lock], dropped)
            self.assertLess(told[lock], ends[lock], f"{lock}: the server let go before")
        for link, _, _ in pairs:
            link.drop("none")
        for fd, agent in zip(handles, locks.values()):
            agent.close(fd)
        return [ends[lock] - told[lock] for lock in locks]


class Redis(Vanish):
    kind = "redis"

    def ends(self, locks, until):
        with self.server.connect() as c:
            ends = {}
            for lock in locks:
                asked = now()  # before: the end that is found is not too late
                left_ms = c("PTTL", f"{self.namespace}_{lock}_lock")
                self.assertGreater(left_ms, 0)
                ends[lock] = asked + left_ms / 1000
            lib.wait_until(lambda: not any(c("EXISTS", f"{self.namespace}_{lock}_lock") for lock in locks),
                           "the server to let go", until - now())
        return ends


class ZooKeeper(Vanish):
    kind = "zookeeper"

    def ends(self, locks, until):
        ends, left = {}, set(locks)
        while left:
            asked = now()
            self.assertLess(asked, until, f"the server does not let go: {left}")
            text = self.server.word("dump")
            for lock in list(left):
                if f"/{self.namespace}/locks/{lock}/" in text:
                    ends[lock] = asked
                else:
                    left.discard(lock)
        return ends


if __name__ == "__main__":
    lib.main()
