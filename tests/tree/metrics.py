# SPDX-License-Identifier: Apache-2.0
"""What .tooz/ tells a monitor: metrics as Prometheus reads them, and changes that can be polled for."""
import os
import select
import fcntl

import lib
import proxy
from lib import EX, NB, SLOW, UN, read, touch, wait_until

try:
    from prometheus_client import parser
except ImportError:
    parser = None

RW = os.O_RDWR | os.O_CREAT


class Metrics:
    def setUp(self):
        super().setUp()
        if not parser:
            self.skipTest("python3-prometheus-client is not installed")

    def metrics(self, mount=None):
        """{name: {labels as a sorted tuple: value}}, and what the parser says of each family."""
        text = read((mount or self.a)(".tooz/metrics")).decode()
        found = {}
        for family in parser.text_string_to_metric_families(text):
            self.assertTrue(family.documentation, family.name)
            self.assertIn(family.type, ("counter", "gauge", "histogram"), family.name)
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                self.assertNotIn(labels, found.get(sample.name, {}), sample.name)
                found.setdefault(sample.name, {})[labels] = sample.value
        return found

    def value(self, name, mount=None, **labels):
        return self.metrics(mount)["toozfs_" + name][tuple(sorted(labels.items()))]

    def test_all_of_it(self):
        metrics = self.metrics()
        self.assertEqual(list(metrics["toozfs_info"].values()), [1])
        labels = dict(list(metrics["toozfs_info"])[0])
        self.assertEqual(labels["member"], self.a.member)
        self.assertEqual(labels["driver"], read(self.a(".tooz/driver")).decode().strip())
        self.assertEqual(self.value("state", state="connected"), 1)
        self.assertEqual(self.value("state", state="lost"), 0)
        self.assertEqual(self.value("operations_total", call="open"), 1)

    def test_locks(self):
        before = self.value("operations_total", call="lock")
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        self.assertEqual(self.value("locks_held"), 1)
        self.assertEqual(self.value("operations_total", call="lock"), before + 1)
        agent = self.agent()
        agent.start("flock", agent.open(self.a("locks/l")), EX)
        agent.wait_blocked()
        self.assertEqual(self.value("lock_waiters"), 1)
        fcntl.flock(fd, UN)
        agent.result()
        agent.kill()
        wait_until(lambda: self.value("locks_held") == 0, "the release")
        self.assertEqual(self.value("lock_waiters"), 0)

    def test_an_id_that_is_no_text(self):
        mount = self.tree(self.a.url, member="h\udcff")
        labels = dict(list(self.metrics(mount)["toozfs_info"])[0])
        self.assertEqual(labels["member"], "h%FF")

    def test_members(self):
        os.mkdir(self.a("groups/g"))
        touch(self.a("groups/g/m"))
        self.assertEqual(self.value("members"), 1)
        os.unlink(self.a("groups/g/m"))
        self.assertEqual(self.value("members"), 0)

    def test_errors_are_counted(self):
        os.mkdir(self.a("groups/g"))
        touch(self.a("groups/g/m"))
        before = self.value("operation_errors_total", call="group_delete")
        self.fails(lib.errno.ENOTEMPTY, os.rmdir, self.a("groups/g"))
        self.assertEqual(self.value("operation_errors_total", call="group_delete"), before + 1)

    def test_histogram(self):
        for _ in range(5):
            fd = self.open(self.a("locks/l"))
            fcntl.flock(fd, EX | NB)
            os.close(fd)
        metrics = self.metrics()
        buckets = [(float(dict(labels)["le"]), value) for labels, value in
                   metrics["toozfs_operation_seconds_bucket"].items() if ("call", "lock") in labels]
        buckets.sort()
        counts = [count for _, count in buckets]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(buckets[-1][0], float("inf"))
        count = metrics["toozfs_operation_seconds_count"][(("call", "lock"),)]
        self.assertEqual(counts[-1], count)
        self.assertEqual(count, metrics["toozfs_operations_total"][(("call", "lock"),)])
        total = metrics["toozfs_operation_seconds_sum"][(("call", "lock"),)]
        self.assertGreaterEqual(total, 0)  # microseconds, of a call that may take less
        self.assertLess(total, 10 * SLOW)

    def test_requests(self):
        before = self.value("requests_total")
        os.mkdir(self.a("groups/g"))
        os.listdir(self.a("groups/g"))
        if getattr(self, "kind", ""):
            self.assertGreater(self.value("requests_total"), before)
        else:
            self.assertEqual(self.value("requests_total"), 0)


class MetricsMemory(Metrics, lib.Memory):
    pass


class MetricsFile(Metrics, lib.File):
    pass


class MetricsRedis(Metrics, lib.Redis):
    pass


class MetricsZooKeeper(Metrics, lib.ZooKeeper):
    pass


class Polled:
    """.tooz/state and session: what they say now is read, then a change is awaited."""

    def setUp(self):
        self.server = lib.server(self.kind)
        self.between = proxy.Proxy(self.server.port)
        self.addCleanup(self.between.stop)
        self.a = self.tree(self.server.url(port=self.between.port), "timeout=10")

    def ready(self, fd, seconds):
        poll = select.poll()
        poll.register(fd, select.POLLIN | select.POLLPRI)
        found = poll.poll(1000 * seconds)
        return found[0][1] if found else 0

    def test_state(self):
        fds = [self.open(self.a(".tooz", name), os.O_RDONLY) for name in ("state", "session")]
        for fd in fds:
            self.assertEqual(self.ready(fd, 1), select.POLLIN)
            self.assertTrue(os.pread(fd, 1000, 0))
            self.assertEqual(self.ready(fd, 0.1), 0)
        self.between.refuse(True)
        for fd in fds:
            self.assertEqual(self.ready(fd, 20 * SLOW), select.POLLIN | select.POLLPRI)
        self.assertEqual(os.pread(fds[0], 1000, 0), b"suspended\n")
        self.assertEqual(self.ready(fds[0], 0.1), 0)
        self.between.refuse(False)
        self.assertTrue(self.ready(fds[0], 30 * SLOW))
        self.assertEqual(os.pread(fds[0], 1000, 0), b"connected\n")

    def test_other_facts_are_ready(self):
        fd = self.open(self.a(".tooz/driver"), os.O_RDONLY)
        os.pread(fd, 100, 0)
        self.assertEqual(self.ready(fd, 1), select.POLLIN)


class PolledRedis(Polled, lib.Case):
    kind = "redis"


class PolledZooKeeper(Polled, lib.Case):
    kind = "zookeeper"


if __name__ == "__main__":
    lib.main()
