# SPDX-License-Identifier: Apache-2.0
"""redis://: what a mount is told of its keys, whatever was refused, written or left over before.

Leases are long here: nothing may be found out only by the next renewal.
"""
import errno
import fcntl
import os
import re
import select
import signal

import lib
from lib import EX, SH, servers
import proxy  # of tests/lib

RW = os.O_RDWR | os.O_CREAT
OPTIONS = "timeout=40"
SOON_S = 2 * lib.SLOW


class Base:
    kind = "redis"
    options = ()

    def setUp(self):
        lib.need_module("redis")
        self.server = servers.Redis(options=self.options)
        self.addCleanup(self.server.stop)
        self.ns = self.server.namespace()
        self.a, self.b = (self.tree(self.server.url(self.ns), OPTIONS) for _ in range(2))

    def key(self, what):
        return f"{self.ns}:toozfs:{what}"

    def lock_keys(self, name):
        """Of tooz 9, and of tooz before it."""
        return f"{self.ns}_{name}_lock", f"{self.ns.encode()!r}_{name.encode()!r}_lock"

    def stats(self, section, pattern):
        found = re.search(pattern, self.server("INFO", section).decode())
        return int(found[1]) if found else 0

    def forbid(self, command):
        self.server("ACL", "SETUSER", "default", f"-{command}")

    def allow(self, command):
        self.server("ACL", "SETUSER", "default", f"+{command}")

    def told(self, fd, change):
        """The holder hears of it at once."""
        poll = select.poll()
        poll.register(fd, select.POLLERR)
        self.assertEqual(poll.poll(0), [])
        change()
        self.assertTrue(poll.poll(1000 * SOON_S), "the holder was not told")


class Refused(Base, lib.Case):
    """An error ends no tracking, and is not the last word."""

    def test_check(self):
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        self.forbid("get")
        self.fails((errno.EACCES, errno.EIO), os.fsync, fd)
        self.allow("get")
        self.told(fd, lambda: self.server("DEL", f"{self.ns}_l_lock"))

    def test_look(self):
        """A holder whose keys could not be read."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        before = self.stats("commandstats", r"cmdstat_mget:.*rejected_calls=(\d+)")
        self.forbid("mget")
        self.server("PEXPIRE", f"{self.ns}_l_lock", 39000)
        lib.wait_until(lambda: self.stats(
            "commandstats", r"cmdstat_mget:.*rejected_calls=(\d+)") > before, "the refusal")
        self.allow("mget")
        self.told(fd, lambda: self.server("DEL", f"{self.ns}_l_lock"))

    def test_share_beside_a_longer_one(self):
        """A full server renews a share, even where only its own mark of time is to be written."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, SH)
        longer = self.tree(self.server.url(self.ns), "timeout=300")
        fcntl.flock(self.open(longer("locks/l")), SH)
        self.server("CONFIG", "SET", "maxmemory", "1")
        os.fsync(fd)

    def test_renewal_of_one(self):
        """It is lost in its time, and nothing else is."""
        tree = self.tree(self.server.url(self.ns), "timeout=3")
        kept, shared = (self.open(tree("locks", name)) for name in ("kept", "shared"))
        fcntl.flock(kept, EX)
        fcntl.flock(shared, SH)
        self.forbid("zscore")
        poll = select.poll()
        poll.register(shared, select.POLLERR)
        self.assertTrue(poll.poll(1000 * lib.PATIENCE_S))
        lib.wait_until(lambda: self.server("PTTL", f"{self.ns}_kept_lock") > 2500, "a renewal")
        os.fsync(kept)
        self.assertNotIn("the session was", tree.read_log())


class Written(Base, lib.Case):
    """A mount's own writes do not make it blind for those of others."""

    def deleted(self, group):
        """By a Python client, say."""
        self.server("DEL", f"{self.ns}_group:{group}", self.key(f"group:{group}"))
        self.server("SREM", f"{self.ns}_groups", group)
        lib.wait_until(lambda: not os.path.exists(self.a("groups", group)), "the end of the group",
                       SOON_S)

    def test_group_created(self):
        self.assertFalse(os.path.exists(self.a("groups/g")))
        os.mkdir(self.a("groups/g"))
        self.assertEqual(os.listdir(self.a("groups/g")), [])
        self.deleted("g")

    def test_member_joined_updated_and_left(self):
        for last in ("join", "update", "leave"):
            os.mkdir(self.a("groups", last))
            self.assertEqual(os.listdir(self.a("groups", last)), [])
            lib.write(self.a("groups", last, "m"), b"x")
            if last != "join":
                lib.write(self.a("groups", last, "m"), b"y")
            if last == "leave":
                os.unlink(self.a("groups", last, "m"))
            with self.subTest(last=last):
                self.assertTrue(os.path.exists(self.a("groups", last)))
                self.deleted(last)


class Both(Base, lib.Case):
    """A lock is two keys: one of them alone is none."""

    def test_deleted(self):
        for key in range(2):
            fd = self.open(self.a("locks", f"l{key}"))
            fcntl.flock(fd, EX)
            self.told(fd, lambda: self.server("DEL", self.lock_keys(f"l{key}")[key]))

    def test_broken(self):
        """Also if only a client of one of the two versions holds it."""
        for key in range(2):
            name = f"l{key}"
            self.server("SET", self.lock_keys(name)[key], "x", "PX", 60000)
            lib.wait_until(lambda: os.path.exists(self.a("locks", name)), "the lock")
            os.unlink(self.a("locks", name))
            self.assertEqual(self.server("EXISTS", *self.lock_keys(name)), 0)

    def test_counter_ahead(self):
        """Of a server whose clock was ahead: tokens count on from there."""
        ahead = 1000000 * (int(self.server("TIME")[0]) + 3600)
        self.server("SET", self.key("token"), ahead)
        tokens = [ahead]
        for tree in (self.a, self.b):
            fd = self.open(tree("locks/l"))
            fcntl.flock(fd, EX)
            tokens.append(int(lib.fields(os.pread(fd, 4096, 0))["token"]))
            fcntl.flock(fd, lib.UN)
            os.fsync(fd)
        self.assertLess(tokens[0], tokens[1])
        self.assertLess(tokens[1], tokens[2])


class Behind(Base):
    """a is behind a proxy."""

    def setUp(self):
        super().setUp()
        self.proxy = proxy.Proxy(self.server.port)
        self.addCleanup(self.proxy.stop)
        self.a.stop()
        self.a = self.behind()

    def behind(self):
        return self.tree(self.server.url(self.ns, port=self.proxy.port), OPTIONS)


class Deaf(Behind, lib.Case):
    """What is asked of the server is right, whether a notice came or not."""

    def setUp(self):
        super().setUp()
        clients = self.server("CLIENT", "LIST").decode()
        names = [name for _, name in sorted((int(number), name) for number, name in re.findall(
            r"\bid=(\d+) .*\bname=(toozfs-\S+)", clients))][-self.proxy.counts()["open"]:]
        self.assertTrue(self.proxy.one(names.index("toozfs-notices"), "stall"))

    def test_check(self):
        for key in range(2):
            fd = self.open(self.a("locks", f"l{key}"))
            fcntl.flock(fd, EX)
            self.server("DEL", self.lock_keys(f"l{key}")[key])
            self.fails(errno.EIO, os.fsync, fd)

    def test_convert(self):
        for key in range(2):
            fd = self.open(self.a("locks", f"l{key}"))
            lib.fcntl_lock(fd, fcntl.F_SETLK, fcntl.F_RDLCK)
            self.server("DEL", self.lock_keys(f"l{key}")[key])
            self.fails(errno.EIO, lib.fcntl_lock, fd, fcntl.F_SETLK, fcntl.F_WRLCK)

    def test_share_is_over(self):
        """The time of one of two sharers."""
        fds = [self.open(tree("locks/l")) for tree in (self.a, self.b)]
        for fd in fds:
            fcntl.flock(fd, SH)
        first = self.server("GET", self.lock_keys("l")[0]).decode().removeprefix("S:")
        self.server("ZADD", self.key("sharers:l"), "XX", 1, f"{first}:{first}")
        self.fails(errno.EIO, os.fsync, fds[0])
        os.fsync(fds[1])


class Cut(Behind, lib.Case):
    def test_deleted_meanwhile(self):
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        self.proxy.refuse(True)
        self.server("DEL", self.lock_keys("l")[0])
        self.told(fd, lambda: self.proxy.refuse(False))

    def test_deleted_after(self):
        """What was held before the cut is listened to after it."""
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        self.proxy.cut()
        lib.wait_until(lambda: "is back" in self.a.read_log(), "the connection")
        lib.wait_until(lambda: self.server("PTTL", self.lock_keys("l")[0]) > 39000, "a renewal")
        self.told(fd, lambda: self.server("DEL", self.lock_keys("l")[0]))


class Refusals(Base, lib.Case):
    def test_renewal_for_a_moment(self):
        """What could not be renewed once is not lost before its time."""
        tree = self.tree(self.server.url(self.ns), "timeout=9")
        fd = self.open(tree("locks/l"))
        fcntl.flock(fd, SH)
        refused = r"cmdstat_zscore:.*rejected_calls=(\d+)"
        before = self.stats("commandstats", refused)
        self.forbid("zscore")
        lib.wait_until(lambda: self.stats("commandstats", refused) > before, "a renewal")
        self.allow("zscore")
        os.fsync(fd)


    def test_another_type(self):
        """Of a key that tells nobody: lost at the next renewal."""
        tree = self.tree(self.server.url(self.ns), "timeout=15")
        fd = self.open(tree("locks/l"))
        fcntl.flock(fd, SH)
        self.server("DEL", self.key("sharers:l"))
        self.server("SET", self.key("sharers:l"), "x")
        self.told_of_loss(fd, 7)
        self.assertIn("it was broken, or the server forgot it", tree.read_log())


class Ended(Base, lib.Case):
    def test_another_takes_the_claim(self):
        """What was held under it is given up at once, and not left until its time is over."""
        tree = self.tree(self.server.url(self.ns), "membership_timeout=3,lock_timeout=60", member="third")
        fd = self.open(tree("locks/l"))
        fcntl.flock(fd, EX)
        self.server("SET", self.key("session:0123456789abcdef"), "x")
        self.server("SET", self.key("member:third"), b"0123456789abcdef\njunk")
        self.told_of_loss(fd, 3)
        lib.wait_until(lambda: not self.server("EXISTS", *self.lock_keys("l")), "the end of the lock", SOON_S)

    def test_another_takes_the_name(self):
        """A record of another session: the member is that one's."""
        tree = self.tree(self.server.url(self.ns), "timeout=3")
        os.mkdir(tree("groups/g"))
        lib.write(tree("groups/g/m"), b"x")
        record = self.server("HGET", self.key("group:g"), "m")
        self.server("HSET", self.key("group:g"), "m", record[:16] + b"f" * 16 + record[32:])
        lib.wait_until(lambda: "member m of group g was removed by somebody else" in tree.read_log(),
                       "the next renewal", 3 * lib.SLOW)


class Turns(Base, lib.Case):
    """Who waits on another mount has his turn."""

    def setUp(self):
        super().setUp()
        self.c = self.tree(self.server.url(self.ns), OPTIONS)
        self.mark = self.key("mark:l")

    def test_sharers_come_after(self):
        first, writer, second = self.agent(), self.agent(), self.agent()
        one = first.open_flock(self.a("locks/l"), RW, SH)
        two, three = writer.open(self.b("locks/l")), second.open(self.c("locks/l"))
        writer.start("flock", two, EX)
        lib.wait_until(lambda: (self.server("GET", self.mark) or b"").startswith(b"?x"), "the mark")
        second.start("flock", three, SH)
        self.stays_blocked(second)
        first.flock(one, lib.UN)
        writer.result()
        self.assertFalse(second.done())
        writer.flock(two, lib.UN)
        second.result()

    def test_freed_for_who_waits(self):
        """Here he is stopped, so that his turn is to be seen."""
        first, writer = self.agent(), self.agent()
        one, two = first.open_flock(self.a("locks/l"), RW, EX), writer.open(self.b("locks/l"))
        writer.start("flock", two, EX)
        lib.wait_until(lambda: (self.server("GET", self.mark) or b"").startswith(b"?x"), "the mark")
        self.b.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.b.process.send_signal, signal.SIGCONT)
        with self.server.connect() as watcher:
            watcher("CONFIG", "SET", "notify-keyspace-events", "K$")
            watcher("SUBSCRIBE", f"__keyspace@0__:{self.mark}")
            first.flock(one, lib.UN)
            self.assertEqual(watcher.answer()[2], b"set")
        self.b.process.send_signal(signal.SIGCONT)
        writer.result()


class Left(Base, lib.Case):
    """What a mount that was killed left behind."""

    def setUp(self):
        super().setUp()
        self.records = self.key("group:g")
        tree = self.tree(self.server.url(self.ns), OPTIONS)
        os.mkdir(self.a("groups/g"))
        lib.write(tree("groups/g/m"), b"x")
        self.field = self.server("HGET", f"{self.ns}_group:g", "m")
        session = self.server("HGET", self.records, "m")[:16].decode()
        tree.kill()
        self.server("DEL", self.key(f"session:{session}"))

    def listed(self):
        return os.listdir(self.b("groups/g"))

    def replaced(self):
        """By a Python client of the same id, and with the same capabilities."""
        self.server("HDEL", f"{self.ns}_group:g", "m")
        self.server("PSETEX", f"{self.ns}_beats:m", 50000, "Not dead!")
        self.server("HSET", f"{self.ns}_group:g", "m", self.field)

    def test_member(self):
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.server("EXISTS", self.records), 0)

    def test_record(self):
        self.server("HDEL", f"{self.ns}_group:g", "m")
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.server("EXISTS", self.records), 0)

    def test_record_of_another(self):
        self.replaced()
        self.assertEqual(lib.read(self.a("groups/g/m")), b"x")
        self.assertEqual(self.listed(), ["m"])
        self.fails(errno.EEXIST, os.open, self.a("groups/g/m"), RW | os.O_EXCL)
        self.fails(errno.ENOTEMPTY, os.rmdir, self.a("groups/g"))
        self.assertEqual(self.server("EXISTS", self.records), 0)
        self.assertTrue(self.server("HEXISTS", f"{self.ns}_group:g", "m"))

    def test_heartbeat_of_two(self):
        """A mount keeps the id elsewhere: the client's heartbeat counts in the time that it has."""
        os.mkdir(self.a("groups/h"))
        self.server("PSETEX", f"{self.ns}_beats:m", 1000, "Not dead!")
        lib.write(self.a("groups/h/m"), b"y")
        until = int(self.server("HGET", self.key("beats:m"), "foreign"))
        lib.wait_until(lambda: 1000 * int(self.server("TIME")[0]) >= until, "the end of that time")
        self.assertEqual(self.listed(), [])
        self.assertEqual(os.listdir(self.b("groups/h")), ["m"])


class Many(Base, lib.Case):
    def test_groups(self):
        """More than an answer can hold cost an error, and not the session."""
        holder = self.agent()
        fd = holder.open_flock(self.a("locks/l"), RW, EX)
        for i in range(0, 1100000, 5000):
            self.server("SADD", f"{self.ns}_groups", *range(i, i + 5000))
        self.fails(errno.EFBIG, os.listdir, self.a("groups"))
        self.server("DEL", f"{self.ns}_groups")
        os.mkdir(self.a("groups/g"))
        self.assertEqual(os.listdir(self.a("groups")), ["g"])
        self.server("SADD", f"{self.ns}_groups", b"x" * 50000000)
        self.fails(errno.EFBIG, os.listdir, self.a("groups"))
        holder.fsync(fd)
        self.assertNotIn("suspended", self.a.read_log())

    def test_scripts_forgotten(self):
        """All are known again at once, and not each when it is called for."""
        def known():
            return self.stats("memory", r"number_of_cached_scripts:(\d+)")
        before = known()
        self.server("SCRIPT", "FLUSH")
        fcntl.flock(self.open(self.a("locks/l")), EX)
        lib.wait_until(lambda: known() == before, "the scripts")


class Shared(Base, lib.Case):
    """Of several that share, the first is named as the owner: as long as it is there."""

    def fields(self):
        return lib.fields(lib.read(self.c("locks/l")))

    def test_first_leaves(self):
        self.c = self.tree(self.server.url(self.ns), OPTIONS)
        first = self.open(self.a("locks/l"))
        fcntl.flock(first, SH)
        fcntl.flock(self.open(self.b("locks/l")), SH)
        lib.wait_until(lambda: self.fields()["holders"] == "2", "both")
        token = self.fields()["token"]
        self.assertEqual(self.fields()["owner"], self.a.member)
        os.close(first)
        lib.wait_until(lambda: self.fields()["holders"] == "1", "the release")
        self.assertEqual(self.fields()["token"], token)
        self.assertFalse({"owner", "since"} & set(self.fields()))
        self.assertEqual(os.listdir(self.c("locks")), ["l"])


class Sharers(Base, lib.Case):
    """Without the set of its sharers a shared lock is nobody's, and nobody waits for its time to be over."""

    def test_deleted(self):
        mine, theirs = self.open(self.a("locks/l")), self.agent()
        fcntl.flock(mine, SH)
        fd = theirs.open(self.b("locks/l"))
        self.server("DEL", self.key("sharers:l"))
        self.fails(errno.EIO, os.fsync, mine)
        theirs.flock(fd, EX | fcntl.LOCK_NB)
        theirs.fsync(fd)

    def test_deleted_and_let_go(self):
        mine, theirs = self.open(self.a("locks/l")), self.agent()
        fcntl.flock(mine, SH)
        fd = theirs.open(self.b("locks/l"))
        theirs.start("flock", fd, EX)
        theirs.wait_blocked()
        self.server("DEL", self.key("sharers:l"))
        fcntl.flock(mine, fcntl.LOCK_UN)
        theirs.result()


if __name__ == "__main__":
    lib.main(240)
