# SPDX-License-Identifier: Apache-2.0
"""Rings: the members responsible for an object, as Python's tooz has them.

What must be is made by tooz's own HashRing and Partitioner, so it skips without the system's python3-tooz.
"""
import errno
import fcntl
import json
import os
import signal
import sys
import time

import lib
import names
import servers
from lib import EX, NB

try:
    from tooz import coordination, hashring
except ImportError:
    print("needs the system's python3-tooz")
    sys.exit(77)

EFBIG_WEIGHT = 10 ** 9
OBJECTS = [b"hello", b"object-1", b"42", b"wrap-56", b"\0\xff", b"x" * 255] + names.NAMES + \
    [b"job-%d" % i for i in range(40)]


# ---- An agent with a Python client ----

state = {}


def tooz_join(url, member, group, weight):
    state["coord"] = coordination.get_coordinator(url, member)
    state["coord"].start(start_heart=True)
    state["coord"].join_group(group, {"weight": weight}).get(timeout=lib.PATIENCE_S)


def tooz_leave(group):
    state["coord"].leave_group(group).get(timeout=lib.PATIENCE_S)
    state["coord"].stop()


class Hashed:
    def __init__(self, data):
        self.data = data

    def __tooz_hash__(self):
        return self.data


def tooz_orders(group, partitions, objects):
    """For each object all members in order of preference, as the Partitioner has them."""
    partitioner = coordination.partitioner.Partitioner(state["coord"], group, partitions)
    answer = [order_of(lambda n, data=data: partitioner.members_for_object(Hashed(data), replicas=n),
                       len(partitioner.ring.nodes)) for data in objects]
    partitioner.stop()
    return answer


lib.ACTIONS.update(tooz_join=tooz_join, tooz_leave=tooz_leave, tooz_orders=tooz_orders)


# ---- What must be ----

def order_of(owners, count):
    """Who comes in when there is one replica more, for each number of replicas."""
    order, before = [], set()
    for replicas in range(1, count + 1):
        now = owners(replicas)
        (new,) = now - before
        order.append(new)
        before = now
    return order


def python_order(members, data, partitions=32):
    """members: {name: weight above 0}"""
    ring = hashring.HashRing([], partitions=partitions)
    for name, weight in members.items():
        ring.add_node(name, weight)
    return order_of(lambda n: ring.get_nodes(data, replicas=n), len(members))


def content_of(order):
    return b"".join(names.encode(name) + b"\n" for name in order)


def bytes_path(mount, *parts):
    return b"/".join([os.fsencode(mount.path), *parts])


class Rings:
    python_url = None
    partitions = 32

    def setUp(self):
        super().setUp()
        os.mkdir(self.a("groups/g"))

    def put(self, mount, name, weight=None, group=b"g"):
        text = b"" if weight is None else json.dumps({"weight": weight}).encode() + b"\n"
        path = bytes_path(mount, b"groups", group, names.encode(name))
        if text:
            lib.write(path, text)
        else:
            lib.touch(path)

    def get(self, mount, data, group=b"g"):
        return lib.read(bytes_path(mount, b"rings", group, names.encode(data)))

    def agrees(self, members, data=b"object", mounts=None):
        """Now on a, and soon on b."""
        wanted = content_of(python_order(members, data, self.partitions))
        for mount in mounts or (self.a, self.b):
            if mount is not self.a:
                lib.wait_until(lambda m=mount: self.get(m, data) == wanted,
                               "the change on another mount", 2 * lib.SLOW)
            self.assertEqual(self.get(mount, data), wanted)

    # ---- The same as Python ----

    def test_agrees_with_hash_ring(self):
        members = {}
        for i, name in enumerate([b"m1", b"m2", b"m3", b"m%4", b".m5", b"m 6"]):
            members[name] = i % 4 + 1
            self.put(self.a if i % 2 else self.b, name, i % 4 + 1)
        self.agrees(members)
        for mount in (self.a, self.b):
            for data in OBJECTS:
                if len(names.encode(data)) > 255:
                    continue
                self.assertEqual(self.get(mount, data),
                                 content_of(python_order(members, data, self.partitions)), data)

    def test_agrees_with_partitioner(self):
        if not self.python_url:
            self.skipTest("no Python client comes to this store")
        one, two = self.agent(), self.agent()
        one.tooz_join(self.python_url(), b"py-one", b"g", 3)
        two.tooz_join(self.python_url(), b"py-two", b"g", 1)
        self.put(self.a, b"m1", 2)
        self.put(self.b, b"m2", 5)
        objects = [data for data in OBJECTS if len(names.encode(data)) <= 255]
        orders = one.tooz_orders(b"g", self.partitions, objects)
        self.assertEqual(len(orders[0]), 4)
        for mount in (self.a, self.b):
            lib.wait_until(lambda m=mount: len(self.get(m, b"x").splitlines()) == 4, "all members")
            for data, order in zip(objects, orders):
                self.assertEqual(self.get(mount, data), content_of(order), data)
        two.tooz_leave(b"g")
        orders = one.tooz_orders(b"g", self.partitions, objects[:5])
        for mount in (self.a, self.b):
            lib.wait_until(lambda m=mount: len(self.get(m, b"x").splitlines()) == 3, "the leave")
            for data, order in zip(objects, orders):
                self.assertEqual(self.get(mount, data), content_of(order), data)
        one.tooz_leave(b"g")

    # ---- Changes ----

    def test_changes(self):
        """At once on the mount that made them, soon on the other."""
        self.agrees({})
        members = {}
        for step in range(3):
            for i in range(4):
                name = b"m%d" % i
                members[name] = step + i + 1
                self.put(self.a, name, members[name])
                self.agrees(members)
        for i in range(4):
            os.unlink(self.a(f"groups/g/m{i}"))
            del members[b"m%d" % i]
            self.agrees(members)

    def test_every_way_to_join_and_leave(self):
        self.agrees({}, mounts=[self.a])
        lib.touch(self.a("groups/g/touched"))
        self.agrees({b"touched": 1})
        fd = self.open(self.a("groups/g/bound"))
        fcntl.flock(fd, EX)
        self.agrees({b"touched": 1, b"bound": 1})
        os.write(fd, b'{"weight":4}')
        self.agrees({b"touched": 1, b"bound": 4})
        os.close(fd)
        self.agrees({b"touched": 1})
        os.close(os.open(self.a("groups/g/closed"), os.O_WRONLY | os.O_CREAT, 0o666))
        self.agrees({b"touched": 1, b"closed": 1})

    def test_an_open_handle_reads_anew(self):
        self.put(self.a, b"m1")
        fd = self.open(self.a("rings/g/x"), os.O_RDONLY)
        self.assertEqual(lib.read_fd(fd), b"m1\n")
        self.put(self.a, b"m2")
        self.assertEqual(lib.read_fd(fd), content_of(python_order({b"m1": 1, b"m2": 1}, b"x")))
        self.assertEqual(os.pread(fd, 3, 0), lib.read(self.a("rings/g/x"))[:3])

    def test_every_answer_was_true(self):
        """While members come and go, each answer is one of the two that there are."""
        self.put(self.a, b"m1")
        self.put(self.a, b"m2")
        data = b"x"
        two = content_of(python_order({b"m1": 1, b"m2": 1}, data))
        three = content_of(python_order({b"m1": 1, b"m2": 1, b"m3": 2}, data))
        agent = self.agent()
        path = self.a("groups/g/m3")
        agent.start("system", "bash", "-c", 'for i in {1..50}; do echo "{\\"weight\\":2}" > "$0"; '
                    'rm "$0"; done', path)
        seen = set()
        while not agent.done():
            for mount in (self.a, self.b):
                seen.add(self.get(mount, data))
        self.assertEqual(agent.result()[0], 0)
        self.assertLessEqual(seen, {two, three})
        self.agrees({b"m1": 1, b"m2": 1}, data)

    # ---- Weights ----

    def test_weights(self):
        """What is no int at "weight" counts as 1, as does what is no map; 0 and below own nothing."""
        texts = {b"m1": b"text", b"m2": b"", b"m3": b"[1,2]", b"m4": b'{"weight":"5"}',
                 b"m5": b'{"weight":2.5}', b"m6": b'{"weight":null}', b"m7": b'{"weight":true}',
                 b"m8": b'{"Weight":4}', b"m9": b"\xff\xfe", b"z1": b'{"weight":0}',
                 b"z2": b'{"weight":-3}', b"z3": b'{"weight":false}'}
        for name, text in texts.items():
            lib.write(bytes_path(self.a, b"groups/g", name), text)
        self.agrees({name: 1 for name in texts if name.startswith(b"m")})
        for name in texts:
            if name.startswith(b"m"):
                os.unlink(bytes_path(self.a, b"groups/g", name))
        self.agrees({})

    def test_a_weight_without_bounds(self):
        self.put(self.a, b"m1")
        self.put(self.a, b"greedy", EFBIG_WEIGHT)
        for call in (lambda: self.get(self.a, b"x"), lambda: os.stat(self.a("rings/g/x"))):
            self.fails(errno.EFBIG, call)
        self.put(self.a, b"greedy", 2 ** 64 - 1)
        self.fails(errno.EFBIG, self.get, self.a, b"x")
        self.put(self.a, b"greedy", 1000)
        self.agrees({b"m1": 1, b"greedy": 1000})

    # ---- Files ----

    def test_listings(self):
        self.assertEqual(os.listdir(self.a("rings")), ["g"])
        self.put(self.a, b"m1")
        for mount in (self.a, self.b):
            self.assertEqual(os.listdir(mount("rings")), ["g"])
            self.assertEqual(os.listdir(mount("rings/g")), [])
            lib.read(mount("rings/g/x"))
            self.assertEqual(os.listdir(mount("rings/g")), [])
            done = lib.sh('ls -l "$1"', mount("rings"))
            self.assertRegex(done.stdout, r"(?m)^dr-xr-xr-x.* g$", done.stderr)

    def test_sizes(self):
        for data in ("x", "y"):
            self.assertEqual(os.stat(self.a("rings/g", data)).st_size, 0)
        self.put(self.a, b"m1")
        self.put(self.a, b"a%b", 3)
        for mount in (self.a, self.b):
            lib.wait_until(lambda m=mount: len(lib.read(m("rings/g/x"))) == 9, "both members")
            done = lib.sh('wc -c < "$1"; cat "$1" | wc -c; test -s "$1" && echo full',
                          mount("rings/g/x"))
            self.assertEqual(done.stdout.split(), ["9", "9", "full"], done.stderr)
            self.assertEqual(os.stat(mount("rings/g/x")).st_mode, 0o100444)

    def test_owner(self):
        """The first line, as a script takes it."""
        for i in range(50):
            self.put(self.a, b"member-%d" % i)
        members = {b"member-%d" % i: 1 for i in range(50)}
        for data in (b"one", b"two", b"three"):
            (owner, second) = python_order(members, data)[:2]
            done = lib.sh('read -r owner < "$1"; echo "$owner"; head -n 2 "$1"',
                          self.a("rings/g", os.fsdecode(data)))
            self.assertEqual(done.stdout.encode().split(), [owner, owner, second], done.stderr)

    def test_no_such_group(self):
        self.fails(errno.ENOENT, os.stat, self.a("rings/none"))
        self.fails(errno.ENOENT, lib.read, self.a("rings/none/x"))
        self.fails(errno.ENOENT, os.listdir, self.a("rings/none"))

    def test_a_group_that_goes_and_comes(self):
        self.put(self.a, b"m1")
        for mount in (self.a, self.b):
            lib.wait_until(lambda m=mount: self.get(m, b"x") == b"m1\n", "the member")
        fds = [self.open(mount("rings/g/x"), os.O_RDONLY) for mount in (self.a, self.b)]
        folder = self.open(self.a("rings/g"), os.O_RDONLY | os.O_DIRECTORY)
        os.unlink(self.a("groups/g/m1"))
        os.rmdir(self.a("groups/g"))
        self.fails(errno.ENOENT, lib.read, self.a("rings/g/x"))
        self.fails(errno.ENOENT, lib.read_fd, fds[0])
        self.fails(errno.ENOENT, os.stat, "x", dir_fd=folder)
        self.assertEqual(os.listdir(self.a("rings")), [])

        def gone():
            try:
                return os.pread(fds[1], 10, 0) is None
            except FileNotFoundError:
                return True
        lib.wait_until(gone, "the end of the group on another mount")
        os.mkdir(self.a("groups/g"))
        self.put(self.a, b"m2")
        self.agrees({b"m2": 1}, b"x")
        self.assertEqual(lib.read_fd(fds[0]), b"m2\n")

    def test_a_group_made_again_at_once(self):
        """What the core was still reading then is of the group before."""
        for i in range(60):
            name = b"m%d" % i
            self.put(self.a, name)
            self.assertEqual(self.get(self.a, b"x"), name + b"\n")
            os.unlink(bytes_path(self.a, b"groups/g", name))
            os.rmdir(self.a("groups/g"))
            os.mkdir(self.a("groups/g"))

    def test_read_only(self):
        path = self.a("rings/g/x")
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
            self.fails(errno.EACCES, os.open, path, flags)
        self.fails(errno.EEXIST, os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        self.fails(errno.EACCES, os.utime, path)
        self.fails(errno.EACCES, os.utime, self.a("rings"))
        self.fails(errno.EACCES, os.truncate, path, 0)
        self.fails(errno.EPERM, os.unlink, path)
        self.fails(errno.EPERM, os.chmod, path, 0o600)
        self.fails(errno.EPERM, os.rename, path, self.a("rings/g/y"))
        self.fails(errno.EPERM, os.mkdir, self.a("rings/new"))
        self.fails(errno.EPERM, os.rmdir, self.a("rings/g"))
        fd = self.open(path, os.O_RDONLY)
        self.fails(errno.EOPNOTSUPP, fcntl.flock, fd, EX | NB)

    def makes(self, name):
        """A group and a member of that name, if the store can have them."""
        try:
            os.mkdir(bytes_path(self.a, b"groups", names.encode(name)))
            self.put(self.a, name, 2, names.encode(name))
            return True
        except OSError as error:
            if error.errno != errno.EINVAL or self.kind != "zookeeper":
                raise
            return False

    def test_names(self):
        self.put(self.a, b"m1")
        for name in names.WRONG:
            self.fails(errno.ENOENT, os.stat, bytes_path(self.a, b"rings/g", name))
        groups = [name for name in names.NAMES if self.makes(name)]
        self.assertGreater(len(groups), 10)
        for name in groups:
            for data in names.NAMES[:5]:
                self.assertEqual(self.get(self.a, data, names.encode(name)),
                                 names.encode(name) + b"\n")
        self.fails(errno.ENAMETOOLONG, os.stat, self.a("rings/g", "x" * 256))

    def test_many_groups(self):
        """More than rings are kept; twice, so that each was let go and is made again."""
        count = 300 if self.kind == "" else 270
        for i in range(count):
            os.mkdir(self.a(f"groups/many-{i}"))
            self.put(self.a, b"m%d" % i, 2, b"many-%d" % i)
        for _ in range(2):
            for i in range(count):
                self.assertEqual(lib.read(self.a(f"rings/many-{i}/x")), b"m%d\n" % i)
        self.assertEqual(len(os.listdir(self.a("rings"))), count + 1)

    # ---- Cost ----

    def cpu_ns(self):
        with open(f"/proc/{self.a.pid}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[0])

    def measured(self, call):
        """The daemon's CPU time, and the time, in microseconds."""
        cpu, begin = self.cpu_ns(), time.monotonic()
        call()
        return (self.cpu_ns() - cpu) / 1e3, (time.monotonic() - begin) * 1e6

    def metric(self, name):
        for line in lib.read(self.a(".tooz/metrics")).decode().splitlines():
            if line.startswith(f"toozfs_{name} "):
                return int(line.split()[1])
        raise AssertionError(f"no metric {name}")

    def test_look_ups_do_not_build(self):
        """Of 1,000 members. The first look-up makes the ring, one after a change makes it again from the last
        one, and no other does. What they cost is printed."""
        members, look_ups = 1000, 100000 if lib.LONG else 3000
        for i in range(members):
            lib.write(self.a(f"groups/g/member-{i:04}"), b'{"weight":1}')
        self.assertEqual((self.metric("rings"), self.metric("rings_built_total")), (0, 0))
        first = self.measured(lambda: lib.read(self.a("rings/g/x")))
        self.assertEqual((self.metric("rings"), self.metric("rings_built_total")), (1, 1))
        after = []
        for i in range(10):
            self.put(self.a, b"member-0500", i + 2)
            after.append(self.measured(lambda: lib.read(self.a("rings/g/x"))))
        after.sort()
        self.assertEqual(self.metric("rings_built_total"), 11)

        def many():
            for i in range(look_ups):
                lib.read(self.a(f"rings/g/object-{i}"))
        cpu, took = (x / look_ups for x in self.measured(many))
        print(f"CPU of the daemon, time in us: first {first[0]:.0f}, {first[1]:.0f}; after a change "
              f"{after[5][0]:.0f}, {after[5][1]:.0f}; each of {look_ups} {cpu:.1f}, {took:.1f}",
              file=sys.stderr)
        self.assertEqual(self.metric("rings_built_total"), 11)
        for i in range(10):
            self.put(self.a, b"member-0500", i + 20)
        self.agrees_at_last({b"member-%04d" % i: 29 if i == 500 else 1 for i in range(members)})
        self.assertEqual(self.metric("rings_built_total"), 12)

    def agrees_at_last(self, members):
        """As agrees, for so many members that Python's get_nodes takes long: the first three."""
        ring = hashring.HashRing([])
        for name, weight in members.items():
            ring.add_node(name, weight)
        for data in (b"one", b"two"):
            wanted = order_of(lambda n, data=data: ring.get_nodes(data, replicas=n), 3)
            self.assertEqual(self.get(self.a, data).splitlines()[:3], wanted)

    def test_kept(self):
        """Rings are kept for many groups, not for all."""
        count = 300
        for i in range(count):
            os.mkdir(self.a(f"groups/kept-{i}"))
            self.assertEqual(lib.read(self.a(f"rings/kept-{i}/x")), b"")
        self.assertEqual(self.metric("rings"), 256)
        built = self.metric("rings_built_total")
        lib.read(self.a(f"rings/kept-{count - 1}/x"))
        lib.read(self.a(f"rings/kept-{count - 256}/x"))
        self.assertEqual(self.metric("rings_built_total"), built)
        lib.read(self.a("rings/kept-0/x"))
        self.assertEqual(self.metric("rings_built_total"), built + 1)


class RingsMemory(Rings, lib.Memory):
    kind = ""


class Served(Rings):
    """Where Python clients come too."""

    def python_url(self):
        return self.a.url


class RingsFile(Served, lib.File):
    kind = ""


class RingsRedis(Served, lib.Redis):
    pass


class RingsZooKeeper(Served, lib.ZooKeeper):
    pass


class Partitions(lib.Memory):
    options = "partitions=7"

    def test_partitions(self):
        os.mkdir(self.a("groups/g"))
        members = {b"m%d" % i: i + 1 for i in range(5)}
        for name, weight in members.items():
            lib.write(self.a("groups/g", name.decode()), b'{"weight":%d}' % weight)
        found = [lib.read(self.a(f"rings/g/{i}")) for i in range(100)]
        for partitions in (7, 32):
            wanted = [content_of(python_order(members, b"%d" % i, partitions)) for i in range(100)]
            self.assertEqual(found == wanted, partitions == 7)


class Trouble(lib.Case):
    """A server that is away."""

    kind = "redis"

    def setUp(self):
        lib.need_module("redis")
        try:
            self.server = servers.Redis()
        except servers.Missing as missing:
            self.skipTest(str(missing))
        self.addCleanup(self.server.stop)

    def mount(self, options):
        mount = self.tree(self.server.url(), options)
        os.mkdir(mount("groups/g"))
        lib.touch(mount("groups/g/m1"))
        self.assertEqual(lib.read(mount("rings/g/x")), b"m1\n")
        return mount

    def go_away(self, mount):
        self.server.kill()
        lib.wait_until(lambda: lib.read(mount(".tooz/state")).strip() != b"connected", "the loss")

    def test_bounded(self):
        mount = self.mount("timeout=3")
        fd = self.open(mount("rings/g/x"), os.O_RDONLY)
        self.go_away(mount)
        begin = time.monotonic()
        self.fails(errno.EHOSTDOWN, os.read, fd, 100)
        self.fails((errno.EHOSTDOWN, errno.ETIMEDOUT), lib.read, mount("rings/g/x"))
        self.assertLess(time.monotonic() - begin, 8 * lib.SLOW)
        self.server.restart()  # and everything is forgotten
        lib.wait_until(lambda: lib.read(mount(".tooz/state")).strip() == b"connected",
                       "the connection", 3 * lib.PATIENCE_S)
        self.fails(errno.ENOENT, os.read, fd, 100)
        os.mkdir(mount("groups/g"))
        lib.touch(mount("groups/g/m2"))
        self.assertEqual(os.read(fd, 100), b"m2\n")

    def test_killed(self):
        """Whoever waits for a ring can be killed."""
        mount = self.mount("timeout=30")
        agent = self.agent()
        fd = agent.open(mount("rings/g/x"), os.O_RDONLY)
        self.go_away(mount)
        agent.start("read_fd", fd)
        agent.wait_blocked()
        begin = time.monotonic()
        os.kill(agent.pid, signal.SIGKILL)
        lib.wait_until(lambda: not lib.in_lock_request(agent.pid), "the end")
        self.assertLess(time.monotonic() - begin, 5 * lib.SLOW)


if __name__ == "__main__":
    lib.main(240)
