# SPDX-License-Identifier: Apache-2.0
"""zookeeper://: the nodes of a mount, when an answer is lost at the worst moment, or another hand changes them.

Leases are long here where they are not the topic: nothing may be mended by the end of a session.
"""
import errno
import fcntl
import os
import socket
import struct
import threading

import lib
from lib import EX, NB, UN

RW = os.O_RDWR | os.O_CREAT
LEASE_S = 20 * lib.SLOW
OPTIONS = f"timeout={LEASE_S:g}"
CREATE, SYNC, CLOSE = (1, 15), 9, -11  # create and create2


class Wire:
    """Leads to the server, and reads along: what nodes are asked for, in `created`; before(path) is called for each.
    lose: "request", the next such one and all behind it never arrive; "answer", all arrives, and nothing is ever
    heard again. lose_at: the same for requests of other types. heal() ends the connections, and what was lost is
    lost."""

    def __init__(self, target):
        self.target, self.created, self.open, self.count = target, [], [], 0
        self.lose, self.lose_at, self.before = None, {}, lambda path: None
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            with server:
                link = {"sockets": (client, server), "mute": None}
                self.open.append(link)
                self.count += 1
                up = threading.Thread(target=self._up, args=(client, server, link), daemon=True)
                up.start()
                self._down(client, server, link)
                self._end(client, server)
                up.join()

    def _up(self, client, server, link):
        greeted = False
        try:
            with client.makefile("rb") as stream:
                while head := stream.read(4):
                    body = stream.read(struct.unpack(">i", head)[0])
                    kind = struct.unpack_from(">i", body, 4)[0] if greeted else None
                    link["mute"] = link["mute"] or self.lose_at.pop(kind, None)
                    if kind in CREATE:
                        self._create(body[12:12 + struct.unpack_from(">i", body, 8)[0]].decode(), link)
                    greeted = True
                    if link["mute"] != "request":
                        server.sendall(head + body)
        except (OSError, struct.error):
            pass
        self._end(client, server)

    def _create(self, path, link):
        link["mute"] = link["mute"] or self.lose
        self.created.append(path)
        self.before(path)

    def _down(self, client, server, link):
        try:
            while data := server.recv(65536):
                if not link["mute"]:
                    client.sendall(data)
        except OSError:
            pass

    @staticmethod
    def _end(*sockets):
        for sock in sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def heal(self):
        self.lose = None
        while self.open:
            self._end(*self.open.pop()["sockets"])

    def stop(self):
        self._end(self.listener)
        self.listener.close()
        self.heal()


class Base:
    """Mount a behind a wire, b directly, and a client that looks at the nodes and changes them."""

    kind = "zookeeper"

    def setUp(self):
        from kazoo.client import KazooClient
        self.server = lib.server("zookeeper")
        self.client = KazooClient(f"127.0.0.1:{self.server.port}", timeout=30)
        self.client.start(10)
        self.addCleanup(self.client.close)
        self.addCleanup(self.client.stop)
        self.wire = Wire(self.server.port)
        self.addCleanup(self.wire.stop)
        self.ns = self.server.namespace()
        self.a = self.tree(self.server.url(self.ns, port=self.wire.port), OPTIONS)
        self.b = self.tree(self.server.url(self.ns), OPTIONS)

    def path(self, *parts):
        return "/".join(("", self.ns, *parts))

    def claim(self, tree):
        return f"/{self.ns}.toozfs/members/{tree.member}"

    def contenders(self, name):
        try:
            return sorted(self.client.get_children(self.path("locks", name)))
        except Exception as error:  # pylint: disable=broad-except
            self.assertEqual(type(error).__name__, "NoNodeError")
            return []

    def replace(self, path, ephemeral=True):
        """In one step, by a node of another session."""
        change = self.client.transaction()
        change.delete(path)
        change.create(path, b"", ephemeral=ephemeral)
        for result in change.commit():
            self.assertNotIsInstance(result, Exception)


class Unsure(Base, lib.Case):
    """A create whose answer is lost is looked up by its owner value: of it there is one node, then none."""

    def setUp(self):
        super().setUp()
        for tree in (self.a, self.b):  # so that the directory is there
            fd = self.open(tree("locks/l"))
            fcntl.flock(fd, EX)
            os.close(fd)
        lib.wait_until(lambda: not self.contenders("l"), "the release")
        del self.wire.created[:]

    def ask(self, lose, flags=EX):
        """Begins a request of a whose create, or the answer to it, is lost."""
        self.wire.lose = lose
        agent = self.agent()
        agent.fd = agent.open(self.a("locks/l"))
        agent.start("flock", agent.fd, flags)
        lib.wait_until(lambda: self.wire.created, "the create")
        return agent

    def made(self, count=1):
        lib.wait_until(lambda: len(self.contenders("l")) == count, "the node")
        return self.contenders("l")

    def owner(self, node):
        return node.rsplit("/", 1)[-1].split("__")[0]

    def ends(self, agent):
        agent.flock(agent.fd, UN)
        lib.wait_until(lambda: not self.contenders("l"), "the end of the node", 1 * lib.SLOW)

    def test_made(self):
        agent = self.ask("answer")
        made = self.made()
        self.wire.heal()
        agent.result()
        self.assertEqual(self.contenders("l"), made)
        agent.fsync(agent.fd)
        self.ends(agent)

    def test_not_made(self):
        """Another is made under another owner value: the first one may still come to be."""
        agent = self.ask("request")
        self.wire.heal()
        agent.result()
        made = self.contenders("l")
        self.assertEqual(len(made), 1)
        self.assertNotEqual(self.owner(made[0]), self.owner(self.wire.created[0]))
        self.ends(agent)

    def test_made_late(self):
        """When nobody waits for it any more: whoever comes next removes it."""
        agent = self.ask("request")
        self.wire.heal()
        agent.result()
        self.ends(agent)
        self.client.create(self.wire.created[0], b"", ephemeral=True, sequence=True)
        self.assertEqual(len(self.contenders("l")), 1)
        agent.start("flock", agent.fd, EX)
        agent.result(LEASE_S / 4)
        self.assertEqual(len(self.contenders("l")), 1)
        self.ends(agent)

    def test_given_up(self):
        """Nobody waits for the answer any more: what may be there is looked for, and goes."""
        agent = self.ask("answer")
        self.made()
        agent.kill()
        self.wire.heal()
        lib.wait_until(lambda: not self.contenders("l"), "the end of the node", LEASE_S / 4)
        fcntl.flock(self.open(self.b("locks/l")), EX | NB)

    def test_made_behind_another(self):
        """A try that came second: found behind the holder, it is none."""
        gate = threading.Event()
        self.addCleanup(gate.set)
        self.wire.before = lambda path: gate.wait(lib.PATIENCE_S)
        agent = self.ask("answer", EX | NB)
        held = self.agent()
        fd = held.open_flock(self.b("locks/l"), RW, EX)
        first = self.contenders("l")
        gate.set()
        self.made(2)
        self.wire.heal()
        self.fails((errno.EAGAIN, errno.ENOLCK), agent.result)
        held.fsync(fd)
        lib.wait_until(lambda: self.contenders("l") == first, "the end of the node", LEASE_S / 4)


class Changed(Base, lib.Case):
    """By another hand."""

    def test_lock_replaced(self):
        """A node of the same name is not the one that was made."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        (node,) = self.contenders("l")
        self.replace(self.path("locks", "l", node))
        self.told_of_loss(fd)

    def test_member_replaced(self):
        """Who left in his place stays there."""
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"x")
        node = self.path("g", "m")
        lib.wait_until(lambda: self.client.exists(node), "the member")
        self.replace(node)
        with lib.suppressed():
            os.unlink(self.a("groups/g/m"))
        self.a.stop()
        self.assertEqual(self.client.exists(node).ephemeralOwner, self.client.client_id[0])

    def test_claim_deleted(self):
        """The id may be another's by now: nothing is held under it."""
        tree = self.tree(self.server.url(self.ns), "timeout=3")
        fd = self.open(tree("locks/l"))
        fcntl.flock(fd, EX)
        self.client.delete(self.claim(tree))
        self.told_of_loss(fd, 4)
        lib.wait_until(lambda: lib.read(tree(".tooz/state")) == b"connected\n", "a new session")
        self.assertIn("the claim on the member id was taken away", tree.read_log())
        self.assertTrue(self.client.exists(self.claim(tree)))


    def test_session_that_was_left(self):
        """Its end was never heard of: what it left is replaced by the next one, and not waited for."""
        self.a.stop()
        tree = self.tree(self.server.url(self.ns, port=self.wire.port), f"timeout={12 * lib.SLOW:g}")
        os.mkdir(tree("groups/g"))
        lib.write(tree("groups/g/m"), b"x")
        member = self.path("g", "m")
        lib.wait_until(lambda: self.client.exists(member), "the member")
        old = self.client.exists(member).ephemeralOwner
        self.wire.lose_at[CLOSE] = "request"
        self.client.delete(self.claim(tree))
        lib.wait_until(lambda: self.client.exists(member).ephemeralOwner != old, "the member to be joined again")
        self.assertIn(f"{old:#x}", self.server.word("dump"), "the old session is over")


class Claimed(Base, lib.Case):
    def test_elsewhere(self):
        """The claim of a dead process becomes that of a mount elsewhere when it is about to be replaced."""
        words = dict(x.split("=") for x in self.client.get(self.claim(self.b))[0].decode().split("\n")[0].split())
        dead, elsewhere = (" ".join(f"{key}={value}" for key, value in {**words, **change}.items()).encode()
                           for change in ({"start": "1"}, {"machine": "another"}))
        claim = f"/{self.ns}.toozfs/members/m"
        self.client.create(claim, dead, ephemeral=True)

        def before(path):
            if self.wire.created.count(claim) == 2 and path == claim:
                self.client.set(claim, elsewhere)
        self.wire.before = before
        tree = self.tree(self.server.url(self.ns, port=self.wire.port), OPTIONS, ready=False, member="m")
        lib.wait_until(lambda: self.wire.created.count(claim) > 3, "attempts")
        self.assertEqual(self.client.get(claim)[0], elsewhere)
        self.client.delete(claim)
        tree.wait_ready()


class Cut(Base, lib.Case):
    def test_changed_meanwhile(self):
        """What was watched and changed behind a cut is seen soon after it."""
        self.assertFalse(os.path.exists(self.a("locks/l")))
        before, target = self.wire.count, self.wire.target
        self.wire.target = lib.servers.free_port()
        self.wire.heal()
        fcntl.flock(self.open(self.b("locks/l")), EX)
        self.wire.target = target
        lib.wait_until(lambda: self.wire.count > before, "another connection")
        lib.wait_until(lambda: os.path.exists(self.a("locks/l")), "the lock", LEASE_S / 4)

    def test_silent_server(self):
        """It is left a fifth of the lease after a keep-alive, and not when the client library would."""
        self.a.stop()
        lease_s = 12 * lib.SLOW
        tree = self.tree(self.server.url(self.ns, port=self.wire.port), f"timeout={lease_s:g}")
        fd = self.open(tree("locks/l"))
        fcntl.flock(fd, EX)
        before = self.wire.count
        self.wire.lose_at[SYNC] = "answer"
        lib.wait_until(lambda: not self.wire.lose_at, "a keep-alive")
        lib.wait_until(lambda: self.wire.count > before, "another connection")
        self.assertIn("does not answer: trying the next", tree.read_log())
        self.assertNotIn("timed out", tree.read_log())  # so would the library
        os.fsync(fd)


if __name__ == "__main__":
    lib.main(240)
