# SPDX-License-Identifier: Apache-2.0
"""The ZooKeeper driver and Python's (kazoo's recipes), on one server, both ways round.

Python shows the directory of a group's leader as a member `leader`, and that of the locks as a group: so
what it lists is compared without them. The mount must not show them.
"""
import errno
import fcntl
import os
import time

import common
import interop
import lib
from lib import EX, NB, SH, UN, fields, read, touch, wait_until, write

RW = os.O_RDWR | os.O_CREAT


class ZooKeeper(common.Base):
    options = "timeout=3"
    HEARTBEATS_S = 7

    def setUp(self):
        self.server = lib.server("zookeeper")
        self.ns = self.server.namespace()
        self.url = self.server.url(self.ns)
        self.mount = self.tree(self.url, self.options)

    def peer(self, member=b"py", heart=True, timeout=10):
        return self.python(f"{self.url}&timeout={timeout}", member, heart)

    def kazoo(self, auth=None):
        """A client that looks from outside."""
        from kazoo.client import KazooClient
        client = KazooClient(f"127.0.0.1:{self.server.port}", timeout=10,
                             auth_data=[("digest", auth)] if auth else None)
        client.start(10)
        self.addCleanup(client.close)
        self.addCleanup(client.stop)
        return client

    def held(self, path="locks/l", mode=EX):
        fd = self.open(self.mount(path))
        fcntl.flock(fd, mode)
        return fd


class Groups(common.Groups, ZooKeeper):
    def test_hidden(self):
        """What the store keeps beside groups and members is not shown, and cannot be made."""
        os.mkdir(self.mount("groups/g"))
        self.held()
        self.held("leaders/g")
        self.assertEqual(self.names("groups"), ["g"])
        self.assertEqual(self.names("groups/g"), [])
        self.fails(errno.EINVAL, os.mkdir, self.mount("groups/locks"))
        self.fails(errno.EINVAL, write, self.mount("groups/g/leader"), b"x")
        self.fails(errno.ENOENT, read, self.mount("groups/g/leader"))
        self.fails(errno.ENOENT, os.listdir, self.mount("groups/locks"))

    def test_python_sees(self):
        os.mkdir(self.mount("groups/g"))
        self.held("leaders/g")
        py = self.peer()
        self.assertEqual(py.members(b"g") - {b"leader"}, set())
        self.held()
        self.assertEqual(py.groups() - {b"locks"}, {b"g"})

    def test_removed_after_an_election(self):
        """Python never gets rid of a group that had a leader; the mount does."""
        py = self.peer()
        self.assertIsNone(py.create(b"g"))
        self.assertEqual(py.elect(b"g"), b"py")
        self.assertTrue(py.stand_down(b"g"))
        self.assertEqual(py.delete(b"g"), "GroupNotEmpty")
        os.rmdir(self.mount("groups/g"))
        self.assertEqual(py.groups() - {b"locks"}, set())

    def test_other_nodes(self):
        """Whatever else lies in the namespace harms nobody."""
        os.mkdir(self.mount("groups/g"))
        write(self.mount("groups/g/good"), b"good")
        client = self.kazoo()
        client.create(f"/{self.ns}/g/persistent", b"\xdd\xff\xff\xff\xff")
        client.create(f"/{self.ns}/g/deep/er/node", b"x", makepath=True)
        client.create(f"/{self.ns}/locks/l/stranger", b"x", makepath=True)
        client.create(f"/{self.ns}/locks/l/x__lock__abc", b"x")
        client.create(f"/{self.ns}/locks/l/x__lock__99999999999", b"x")
        client.create(f"/{self.ns}/locks/d/e/f", b"x", makepath=True)
        self.assertEqual(read(self.mount("groups/g/good")), b"good")
        self.fails((errno.EBADMSG, errno.ENOENT), read, self.mount("groups/g/persistent"))
        fcntl.flock(self.open(self.mount("locks/l")), EX | NB)
        lib.sh('ls -lR "$1"', self.mount.path)
        self.assertEqual(read(self.mount(".tooz/state")), b"connected\n")


class Members(common.Members, ZooKeeper):
    def test_python_dies(self):
        py = self.peer(b"py", timeout=2)
        self.assertIsNone(py.join(b"g", b"x"))
        self.sees(["py"], "groups/g")
        py.kill()
        begin = time.monotonic()
        wait_until(lambda: self.names("groups/g") == [], "the dead member to go")
        self.assertLess(time.monotonic() - begin, 4 * lib.SLOW)

    def test_daemon_dies(self):
        py = self.peer()
        other = self.tree(self.url, self.options)
        write(other("groups/g/theirs"), b"x")
        self.assertEqual(py.members(b"g"), {b"theirs"})
        other.kill()
        begin = time.monotonic()
        wait_until(lambda: py.members(b"g") == set(), "the member to go")
        wait_until(lambda: self.names("groups/g") == [], "the mount to see it")
        self.assertLess(time.monotonic() - begin, 5 * lib.SLOW)

    def test_info(self):
        write(self.mount("groups/g/m"), b"x")
        py = self.peer()
        self.assertEqual(py.info(b"g", b"m")["capabilities"], "x")
        self.assertIsNone(py.join(b"g"))
        self.sees(["m", "py"], "groups/g")
        begin = os.stat(self.mount("groups/g/py"))
        time.sleep(0.05)
        self.assertIsNone(py.update(b"g", b"new"))
        wait_until(lambda: read(self.mount("groups/g/py")) == b"new", "the update")
        after = os.stat(self.mount("groups/g/py"))
        self.assertEqual(begin.st_ctime_ns, after.st_ctime_ns)
        self.assertGreater(after.st_mtime_ns, begin.st_mtime_ns)

    def test_python_watches(self):
        py = self.peer()
        py.watch(b"g")
        write(self.mount("groups/g/m"), b"x")
        wait_until(lambda: py.events() == [("join", b"m")], "the join")
        os.unlink(self.mount("groups/g/m"))
        wait_until(lambda: py.events() == [("leave", b"m")], "the leave")

    def test_umount(self):
        py = self.peer()
        touch(self.mount("groups/g/m"))
        self.assertEqual(self.mount.umount(), 0)
        self.assertEqual(py.members(b"g"), set())
        self.assertIsNone(py.delete(b"g"))


class Capabilities(common.Capabilities, ZooKeeper):
    pass


class Locks(common.Locks, ZooKeeper):
    def test_python_first(self):
        py = self.peer()
        self.assertTrue(py.acquire(b"l", blocking=False))
        fd = self.open(self.mount("locks/l"))
        self.fails(errno.EAGAIN, fcntl.flock, fd, EX | NB)
        self.fails(errno.EAGAIN, fcntl.flock, fd, SH | NB)
        shown = fields(read(self.mount("locks/l")))
        self.assertEqual((shown["mode"], shown["owner"]), ("exclusive", "py"))
        client = self.kazoo()
        (node,) = client.get_children(f"/{self.ns}/locks/l")
        self.assertEqual(int(shown["token"]),
                         client.exists(f"/{self.ns}/locks/l/{node}").czxid)
        self.assertEqual(self.names("locks"), ["l"])
        py.release(b"l")
        fcntl.flock(fd, EX | NB)
        self.assertFalse(py.acquire(b"l", blocking=False))

    def test_token_is_the_nodes(self):
        fd = self.held()
        client = self.kazoo()
        (node,) = client.get_children(f"/{self.ns}/locks/l")
        data, stat = client.get(f"/{self.ns}/locks/l/{node}")
        self.assertEqual(data, self.mount.member.encode())
        self.assertEqual(int(fields(os.pread(fd, 4096, 0))["token"]), stat.czxid)
        self.assertNotEqual(stat.ephemeralOwner, 0)

    def test_in_order(self):
        """One queue for all: who came first is served first, Python or not."""
        holder = self.peer(b"py0")
        self.assertTrue(holder.acquire(b"l"))
        agents = []
        for i in range(6):
            if i % 2:
                agent = self.peer(b"py%d" % i)
                agent.start("acquire", b"l", blocking=True)
            else:
                agent = self.agent()
                other = self.tree(self.url, self.options)
                agent.fd = agent.open(other("locks/l"))
                agent.start("flock", agent.fd, EX)
            agents.append(agent)
            client = self.kazoo()
            wait_until(lambda: len(client.get_children(f"/{self.ns}/locks/l")) == i + 2,
                       "the place in the queue")
        holder.release(b"l")
        for i, agent in enumerate(agents):
            agent.result()
            self.assertFalse(any(x.done() for x in agents[i + 1:]), "out of order")
            if i % 2:
                agent.release(b"l")
            else:
                agent.close(agent.fd)

    def test_python_waits_behind_sharers(self):
        other = self.tree(self.url, self.options)
        one, two = self.open(self.mount("locks/l")), self.open(other("locks/l"))
        fcntl.flock(one, SH | NB)
        fcntl.flock(two, SH | NB)
        py = self.peer()
        py.start("acquire", b"l", blocking=True)
        self.stays_blocked(py)
        fcntl.flock(one, UN)
        self.stays_blocked(py)
        fcntl.flock(two, UN)
        self.assertTrue(py.result())

    def test_daemon_dies(self):
        py = self.peer()
        fd = os.open(self.mount("locks/l"), RW)
        try:
            fcntl.flock(fd, EX)
            self.mount.kill()
            begin = time.monotonic()
            self.assertTrue(py.acquire(b"l", blocking=True))
            self.assertLess(time.monotonic() - begin, 5 * lib.SLOW)
        finally:
            with lib.suppressed():
                os.close(fd)

    def test_node_deleted(self):
        """What a hand on the store takes away is lost at once."""
        fd = self.held()
        client = self.kazoo()
        (node,) = client.get_children(f"/{self.ns}/locks/l")
        client.delete(f"/{self.ns}/locks/l/{node}")
        poll = lib.select.poll()
        poll.register(fd, lib.select.POLLIN)
        found = poll.poll(1000 * lib.SLOW)
        self.assertTrue(found and found[0][1] & lib.select.POLLERR, "nothing noticed")
        self.fails(errno.EIO, os.fsync, fd)

    def test_slashes(self):
        """Refused, or the nested lock that Python means."""
        try:
            fd = self.open(self.mount("locks/a%2Fb"))
        except OSError as error:
            self.assertEqual(error.errno, errno.EINVAL)
            return
        fcntl.flock(fd, EX | NB)
        self.assertFalse(self.peer().acquire(b"a/b", blocking=False))

    def test_session_expires(self):
        """The server's word ends everything: locks lost, members back, a new session."""
        os.mkdir(self.mount("groups/g"))
        write(self.mount("groups/g/m"), b"x")
        fd = self.held()
        client = self.kazoo()
        (node,) = client.get_children(f"/{self.ns}/locks/l")
        owner = client.exists(f"/{self.ns}/locks/l/{node}").ephemeralOwner
        self.mount.process.send_signal(lib.signal.SIGSTOP)
        try:
            wait_until(lambda: client.get_children(f"/{self.ns}/locks/l") == [], "the expiry")
        finally:
            self.mount.process.send_signal(lib.signal.SIGCONT)
        self.fails(errno.EIO, os.fsync, fd)
        wait_until(lambda: self.names("groups/g") == ["m"], "the member to come back")
        self.assertNotEqual(client.exists(f"/{self.ns}/g/m").ephemeralOwner, owner)
        fcntl.flock(self.open(self.mount("locks/l")), EX)


class Leaders(ZooKeeper):
    def setUp(self):
        super().setUp()
        os.mkdir(self.mount("groups/g"))

    def leader(self):
        try:
            return read(self.mount("leaders/g"))
        except FileNotFoundError:
            return None

    def test_python_leads(self):
        py = self.peer()
        self.assertEqual(py.elect(b"g"), b"py")
        wait_until(lambda: self.leader() == b"py\n", "the leader to be seen")
        self.assertEqual(self.names("leaders"), ["g"])
        self.fails(errno.EAGAIN, fcntl.flock, self.open(self.mount("leaders/g")), EX | NB)
        agent = self.agent()
        handle = agent.open(self.mount("leaders/g"))
        agent.start("flock", handle, EX)
        agent.wait_blocked()
        begin = time.monotonic()
        self.assertTrue(py.stand_down(b"g"))
        agent.result()
        self.assertLess(time.monotonic() - begin, 1 * lib.SLOW)
        self.assertEqual(py.leader(b"g"), self.mount.member.encode())

    def test_mount_leads(self):
        py = self.peer()
        fd = self.held("leaders/g")
        self.assertEqual(py.leader(b"g"), self.mount.member.encode())
        self.assertIsNone(py.elect(b"g"))
        fcntl.flock(fd, UN)
        wait_until(lambda: py.elect(b"g") == b"py", "Python's election")
        wait_until(lambda: self.leader() == b"py\n", "the leader to be seen")


class Credentials(ZooKeeper):
    def setUp(self):
        self.server = lib.server("zookeeper")
        self.ns = self.server.namespace()
        self.url = self.server.url(self.ns).replace("://", "://user:s3cr3t@")
        self.mount = self.tree(self.url, self.options)

    def test_both_may_change_both(self):
        py = self.peer()
        os.mkdir(self.mount("groups/g"))
        self.assertIsNone(py.join(b"g", b"x"))
        self.sees(["py"], "groups/g")
        write(self.mount("groups/g/m"), b"y")
        self.assertEqual(py.caps(b"g", b"m"), "y")
        self.held()
        self.assertFalse(py.acquire(b"l", blocking=False))
        self.assertIsNone(py.leave(b"g"))
        os.unlink(self.mount("groups/g/m"))
        self.assertIsNone(py.delete(b"g"))

    def test_acl(self):
        os.mkdir(self.mount("groups/g"))
        client = self.kazoo("user:s3cr3t")
        (acl,), _ = client.get_acls(f"/{self.ns}/g")
        self.assertEqual((acl.perms, acl.id.scheme), (31, "digest"))
        self.assertTrue(acl.id.id.startswith("user:"))

    def test_others_may_not(self):
        os.mkdir(self.mount("groups/g"))
        write(self.mount("groups/g/m"), b"x")
        stranger = self.tree(self.server.url(self.ns), self.options, ready=False)
        begin = time.monotonic()
        try:
            stranger.wait_ready()
        except AssertionError:
            self.assertLess(time.monotonic() - begin, 3 * lib.PATIENCE_S)
            self.assertNotIn("s3cr3t", stranger.read_log())
            return
        self.fails((errno.EACCES, errno.EPERM), read, stranger("groups/g/m"))

    def test_password_is_not_shown(self):
        self.assertNotIn(b"s3cr3t", read(self.mount(".tooz/url")))
        self.assertNotIn("s3cr3t", self.mount.read_log())
        with open("/proc/mounts", encoding="utf-8") as f:
            self.assertNotIn("s3cr3t", f.read())


if __name__ == "__main__":
    interop.lib.main(240)
