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
import lib
from lib import EX, NB, SH, UN, fields, read, wait_until, write


class ZooKeeper(common.Served):
    served_by = "zookeeper"

    def kazoo(self, auth=None):
        """A client that looks from outside."""
        from kazoo.client import KazooClient
        client = KazooClient(f"127.0.0.1:{self.server.port}", timeout=10,
                             auth_data=[("digest", auth)] if auth else None)
        client.start(10)
        self.addCleanup(client.close)
        self.addCleanup(client.stop)
        return client

    def node(self, client):
        """Name, content and state of the one node of the lock."""
        (node,) = client.get_children(f"/{self.ns}/locks/l")
        return node, *client.get(f"/{self.ns}/locks/l/{node}")


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


class Members(common.ServedMembers, ZooKeeper):
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


class Events(common.Events, ZooKeeper):
    pass


class Capabilities(common.Capabilities, ZooKeeper):
    pass


class Locks(common.Locks, ZooKeeper):
    def shown_of(self, py):
        return {"owner": "py", "token": str(self.node(self.kazoo())[2].czxid)}

    def test_token_is_the_nodes(self):
        fd = self.held()
        _, data, stat = self.node(self.kazoo())
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

    def test_node_deleted(self):
        """What a hand on the store takes away is lost at once."""
        fd = self.held()
        client = self.kazoo()
        client.delete(f"/{self.ns}/locks/l/{self.node(client)[0]}")
        self.told_of_loss(fd)

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
        owner = self.node(client)[2].ephemeralOwner
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
        watch = lib.Stopwatch()
        self.assertTrue(py.stand_down(b"g"))
        agent.result()
        watch.within(1 * lib.SLOW)
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
    login = "user:s3cr3t@"

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
        watch = lib.Stopwatch()
        try:
            stranger.wait_ready()
        except AssertionError:
            watch.within(3 * lib.PATIENCE_S)
            self.assertNotIn("s3cr3t", stranger.read_log())
            return
        self.fails((errno.EACCES, errno.EPERM), read, stranger("groups/g/m"))

    def test_password_is_not_shown(self):
        self.assertNotIn(b"s3cr3t", read(self.mount(".tooz/url")))
        self.assertNotIn("s3cr3t", self.mount.read_log())
        with open("/proc/mounts", encoding="utf-8") as f:
            self.assertNotIn("s3cr3t", f.read())


if __name__ == "__main__":
    lib.main(240)
