# SPDX-License-Identifier: Apache-2.0
"""events/: the state, then each change, for each reader from where it stands."""
import errno
import fcntl
import os
import signal
import statistics
import subprocess
import time

import lib
import proxy
from lib import EX, SLOW, touch, wait_until, write
from streams import Reader, fold

RW = os.O_RDWR | os.O_CREAT
LONG = bool(os.environ.get("TOOZFS_LONG"))
STORM, READERS = (1000, 50) if LONG else (100, 20)


class Events:
    large = False

    def setUp(self):
        super().setUp()
        os.mkdir(self.a("groups/g"))

    def reader(self, path=None):
        reader = Reader(path or self.a("events/g"))
        self.addCleanup(reader.close)
        return reader

    def ready(self, path=None):
        reader = self.reader(path)
        reader.until("ready")
        return reader

    def test_state_first(self):
        touch(self.a("groups/g/one"))
        touch(self.b("groups/g/two"))
        fd = self.open(self.b("leaders/g"))
        fcntl.flock(fd, EX)
        for mount in (self.a, self.b):
            lines = self.reader(mount("events/g")).until("ready")
            self.assertEqual(lines, ["member one", "member two", f"leader {self.b.member}", "ready"])

    def test_each_change(self):
        readers = [self.ready(), self.ready(self.b("events/g"))]

        def all_say(line):
            for reader in readers:
                self.assertEqual(reader.until(line), [line])
        touch(self.b("groups/g/m"))
        all_say("join m")
        write(self.b("groups/g/m"), b'{"a": 1}')
        all_say("update m")
        fd = self.open(self.b("leaders/g"))
        fcntl.flock(fd, EX)
        all_say(f"leader {self.b.member}")
        self.assertEqual(lib.read(self.a("leaders/g")).decode(), self.b.member + "\n")
        fcntl.flock(fd, lib.UN)
        all_say("no-leader")
        os.unlink(self.b("groups/g/m"))
        all_say("leave m")
        os.rmdir(self.b("groups/g"))
        all_say("deleted")
        for reader in readers:
            reader.take(5 * SLOW)
            self.assertTrue(reader.ended)

    def test_same_capabilities_are_no_update(self):
        write(self.a("groups/g/m"), b"x")
        reader = self.ready()
        write(self.a("groups/g/m"), b"x")
        write(self.a("groups/g/m"), b"y")
        self.assertEqual(reader.until("update m"), ["update m"])

    def test_each_reader_has_its_position(self):
        one = self.ready()
        touch(self.a("groups/g/m"))
        one.until("join m")
        two = self.reader()
        self.assertEqual(two.until("ready"), ["member m", "ready"])
        os.unlink(self.a("groups/g/m"))
        self.assertEqual(one.until("leave m"), ["leave m"])
        self.assertEqual(two.until("leave m"), ["leave m"])

    def test_byte_by_byte(self):
        touch(self.a("groups/g/m"))
        reader = self.reader()
        self.assertEqual(reader.until("ready", size=1), ["member m", "ready"])
        os.unlink(self.a("groups/g/m"))
        self.assertEqual(reader.until("leave m", size=1), ["leave m"])

    def test_nothing_to_read(self):
        reader = self.ready()
        self.assertTrue(reader.silent())
        self.fails(errno.EAGAIN, os.read, reader.fd, 10)

    def test_two_readers_of_one_handle(self):
        """Neither waits for the other, nor is beyond a signal's reach."""
        fd = self.open(self.a("events/g"), os.O_RDONLY)
        os.read(fd, 4096)
        one, two = self.agent(), self.agent()  # both have inherited the handle
        one.start("read_once", fd)
        two.start("read_once", fd)
        self.stays_blocked(one)
        begin = lib.Stopwatch()
        two.kill()
        begin.within(1 * SLOW)
        touch(self.a("groups/g/m"))
        self.assertEqual(one.result(), b"join m\n")

    def test_too_large_to_be_read_whole(self):
        """Then it is followed by its names."""
        if not self.large:
            self.skipTest("the store takes no such group in seconds")
        os.mkdir(self.a("groups/big"))
        for i in range(70):
            write(self.a(f"groups/big/m{i:02}"), b"x" * 1000000)
        self.assertEqual(sorted(os.listdir(self.a("groups/big")))[0], "m00")
        reader = self.reader(self.a("events/big"))
        self.assertEqual(len(reader.until("ready", 30)), 71)
        touch(self.a("groups/big/new"))
        self.assertEqual(reader.until("join new", 30), ["join new"])
        self.fails(errno.EFBIG, lib.read, self.a("rings/big/object"))

    def test_no_seeking(self):
        reader = self.ready()
        self.fails(errno.ESPIPE, os.lseek, reader.fd, 0, os.SEEK_SET)

    def test_no_writing(self):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            self.fails(errno.EACCES, os.open, self.a("events/g"), flags)
        self.fails(errno.EPERM, os.open, self.a("events/new"), RW)
        self.fails(errno.EPERM, os.mkdir, self.a("events/new"))
        self.fails(errno.EPERM, os.unlink, self.a("events/g"))
        self.assertEqual(os.stat(self.a("events/g")).st_mode & 0o777, 0o444)

    def test_which_there_are(self):
        os.mkdir(self.b("groups/%25odd"))
        wait_until(lambda: sorted(os.listdir(self.a("events"))) == ["%25odd", "g"], "both")
        self.fails(errno.ENOENT, os.open, self.a("events/none"), os.O_RDONLY)
        self.assertEqual(self.reader(self.a("events/%25odd")).until("ready"), ["ready"])

    def test_names_are_encoded(self):
        touch(self.b("groups/g/%2Ehidden"))
        self.assertEqual(self.reader().until("ready"), ["member %2Ehidden", "ready"])

    def test_made_anew(self):
        old = self.ready()
        os.rmdir(self.a("groups/g"))
        old.until("deleted")
        os.mkdir(self.a("groups/g"))
        new = self.ready()
        touch(self.a("groups/g/m"))
        new.until("join m")
        self.assertTrue(old.take(5 * SLOW) and old.ended)
        self.assertEqual(old.lines, [])

    def test_cat_can_be_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            cat = self.spawn("cat", self.a("events/g"), stdout=subprocess.PIPE)
            self.assertEqual(cat.stdout.readline(), b"ready\n")
            watch = lib.Stopwatch()
            cat.send_signal(number)
            self.assertEqual(cat.wait(10 * SLOW), -number)
            watch.within(0.5 * SLOW)

    def test_a_shell_follows(self):
        done = lib.sh('exec 9<"$1"; while read -r -t 20 word name <&9; do case $word in '
                      'ready) touch "$2";; join) echo "$name came"; rm "$2";; '
                      'leave) echo "$name left"; break;; esac; done',
                      self.a("events/g"), self.b("groups/g/m"))
        self.assertEqual(done.stdout, "m came\nm left\n", done.stderr)

    def test_short_life_of_a_member(self):
        """Leaving and joining again at once is told as both, or as nothing that is wrong."""
        touch(self.b("groups/g/m"))
        reader = self.ready()
        known = fold(["member m"])
        for _ in range(20):
            os.unlink(self.b("groups/g/m"))
            touch(self.b("groups/g/m"))
        touch(self.b("groups/g/last"))
        lines = reader.until("join last")
        self.assertIn("leave m", lines)
        self.assertEqual(fold(lines, known)[0], {"m", "last"})

    def test_leader_is_never_older_than_the_line(self):
        reader, fd = self.ready(), self.open(self.b("leaders/g"))
        for _ in range(30):
            fcntl.flock(fd, EX)
            reader.until(f"leader {self.b.member}")
            self.assertEqual(lib.read(self.a("leaders/g")).decode(), self.b.member + "\n")
            fcntl.flock(fd, lib.UN)
            reader.until("no-leader")
            self.assertFalse(os.path.exists(self.a("leaders/g")))

    def test_too_slow(self):
        """A reader that does not read costs bounded memory, is told, and is right again."""
        slow, fast = self.ready(), self.ready()
        name, told, state = "n" * 200, 0, (set(), None)
        while told < 300 << 10:
            touch(self.a("groups/g", name))
            os.unlink(self.a("groups/g", name))
            lines = fast.until(f"leave {name}")
            told += sum(len(line) + 1 for line in lines)
            state = fold(lines, state)
        touch(self.a("groups/g/last"))
        self.assertEqual(fold(fast.until("join last"), state)[0], {"last"})
        self.assertEqual(slow.until("ready"), ["overflow", "member last", "ready"])
        os.unlink(self.a("groups/g/last"))
        self.assertEqual(slow.until("leave last"), ["leave last"])

    def test_storm(self):
        """Whoever follows a storm of changes ends with what `ls` shows."""
        readers = [self.reader((self.a, self.b)[i % 2]("events/g")) for i in range(READERS)]
        state = []
        for reader in readers:
            state.append(fold(reader.until("ready")))
        for i in range(STORM):
            mount = (self.a, self.b)[i % 2]
            touch(mount("groups/g", f"m{i}"))
            if i % 3 == 0:
                os.unlink(mount("groups/g", f"m{i}"))
            if i % 7 == 0:
                write(mount("groups/g", f"m{i}"), b'{"n": %d}' % i)
        touch(self.b("groups/g/z-last"))
        found = set(os.listdir(self.a("groups/g")))
        for reader, before in zip(readers, state):
            known = fold(reader.until("join z-last", 60), before)
            end = time.monotonic() + 10 * SLOW
            while known[0] != found and time.monotonic() < end:
                reader.take(1)
                known, reader.lines = fold(reader.lines, known), []
            self.assertEqual(known[0], found)

    def test_how_soon(self):
        reader, times = self.ready(self.a("events/g")), []
        for i in range(20):
            begin = time.monotonic()
            touch(self.b(f"groups/g/m{i}"))
            reader.until(f"join m{i}")
            times.append(time.monotonic() - begin)
        print(f"from before touch to the line: median {1000 * statistics.median(times):.2f} ms")
        self.assertLess(statistics.median(times), 0.5 * SLOW)

    def test_the_end_of_the_mount(self):
        mount = self.tree(self.a.url, member="other")
        if not os.path.isdir(mount("groups/g")):
            os.mkdir(mount("groups/g"))
        agent = self.agent()
        fd = agent.open(mount("events/g"), os.O_RDONLY)
        self.assertEqual(agent.read_once(fd)[-6:], b"ready\n")
        agent.start("read_once", fd)
        self.stays_blocked(agent)
        mount.process.terminate()
        self.fails(errno.ESHUTDOWN, agent.result)
        agent.kill()
        mount.wait_exit()


class EventsMemory(Events, lib.Memory):
    large = True


class EventsFile(Events, lib.File):
    pass


class Away:
    """What a reader sees of a lost connection; and what many readers cost."""

    def setUp(self):
        self.server = lib.server(self.kind)
        self.between = proxy.Proxy(self.server.port)
        self.addCleanup(self.between.stop)
        ns = self.server.namespace()
        self.a = self.tree(self.server.url(ns, self.between.port), self.options)
        self.b = self.tree(self.server.url(ns), self.options)
        os.mkdir(self.a("groups/g"))

    def test_suspended_and_resumed(self):
        for name in ("stays", "goes", "changes"):
            touch(self.b("groups/g", name))
        reader = Reader(self.a("events/g"))
        self.addCleanup(reader.close)
        reader.until("ready")
        late = Reader(self.a("events/g"))
        self.addCleanup(late.close)
        self.between.refuse(True)
        reader.until("suspended", 20)
        self.assertEqual(late.until("suspended")[-2:], ["ready", "suspended"])
        os.unlink(self.b("groups/g/goes"))
        write(self.b("groups/g/changes"), b"x")
        touch(self.b("groups/g/comes"))
        self.between.refuse(False)
        self.assertEqual(reader.until("resumed", 30),
                         ["leave goes", "update changes", "join comes", "resumed"])
        self.assertEqual(late.until("resumed"),
                         ["leave goes", "update changes", "join comes", "resumed"])
        touch(self.b("groups/g/later"))
        self.assertEqual(reader.until("join later"), ["join later"])

    def test_many_readers_one_watch(self):
        readers = [Reader(self.a("events/g")) for _ in range(1000 if LONG else 200)]
        for reader in readers:
            self.addCleanup(reader.close)
            reader.until("ready")
        self.between.reset_counts()
        touch(self.b("groups/g/m"))
        for reader in readers:
            self.assertEqual(reader.until("join m"), ["join m"])
        self.assertLessEqual(self.between.counts()["trips"], 6)


class EventsRedis(Events, lib.Redis):
    pass


class EventsZooKeeper(Events, lib.ZooKeeper):
    pass


class AwayRedis(Away, lib.Case):
    kind, options = "redis", "timeout=10"


class AwayZooKeeper(Away, lib.Case):
    kind, options = "zookeeper", "timeout=10"


if __name__ == "__main__":
    lib.main()
