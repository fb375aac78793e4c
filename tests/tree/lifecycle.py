# SPDX-License-Identifier: Apache-2.0
"""Beginning and end of a mount: umount, signals, kill -9, a dead mount point, the daemon."""
import errno
import fcntl
import os
import re
import signal
import subprocess
import time

import lib
from lib import EX, NB, SH, UN

RW = os.O_RDWR | os.O_CREAT
GONE = (errno.ECONNABORTED, errno.ENOTCONN, errno.ENOLCK, errno.EIO, errno.ESHUTDOWN)


class End:
    """What is left of a mount that ended: nothing, at once, for the other mount."""

    def end(self):
        raise NotImplementedError

    def populate(self):
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"x")
        self.holder, self.leader, self.waiter = self.agent(), self.agent(), self.agent()
        self.fd = self.holder.open_flock(self.a("locks/l"), RW, EX)
        self.leader.open_flock(self.a("leaders/g"), RW, EX)
        self.waiter.start("flock", self.waiter.open(self.a("locks/l")), EX)
        self.waiter.wait_blocked()

    def test_everything_is_released(self):
        self.populate()
        other = self.agent()
        other.start("flock", other.open(self.b("locks/l")), EX)
        other.wait_blocked()
        self.end()
        other.result()
        self.assertEqual(os.listdir(self.b("groups/g")), [])
        self.assertEqual(os.listdir(self.b("leaders")), [])
        fcntl.flock(self.open(self.b("leaders/g")), EX | NB)
        self.fails(GONE, self.waiter.result)

    def test_at_once(self):
        """No lease has to pass."""
        self.populate()
        watch = lib.Stopwatch()
        self.end()
        fcntl.flock(self.open(self.b("locks/l")), EX)
        lib.wait_until(lambda: os.listdir(self.b("groups/g")) == [])
        watch.within(3 * lib.SLOW)

    def test_the_name_is_free_for_a_new_mount(self):
        self.populate()
        self.end()
        while lib.mounted(self.a.path):
            subprocess.run(["umount", "-l", self.a.path], check=True, timeout=lib.PATIENCE_S)
        again = self.tree(self.a.url, member=self.a.member)
        lib.write(again("groups/g/m"), b"y")
        self.assertEqual(lib.read(self.b("groups/g/m")), b"y")


class Terminated(End):
    def end(self):
        self.a.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.a.wait_exit(), 0)
        self.assertFalse(lib.mounted(self.a.path))


class Interrupted(End):
    def end(self):
        self.a.process.send_signal(signal.SIGINT)
        self.assertEqual(self.a.wait_exit(), 0)
        self.assertFalse(lib.mounted(self.a.path))


class Killed(End):
    def end(self):
        self.a.kill()


class KilledLeased(Killed):
    """Somebody else has to wait until the leases have run out."""

    options = "timeout=3"

    def test_at_once(self):
        self.populate()
        watch = lib.Stopwatch()
        self.end()
        fcntl.flock(self.open(self.b("locks/l")), EX)
        lib.wait_until(lambda: os.listdir(self.b("groups/g")) == [])
        watch.within(3 + 2 * lib.SLOW)

    def test_everything_is_released(self):
        self.populate()
        self.end()
        lib.wait_until(lambda: os.listdir(self.b("leaders")) == [])
        fcntl.flock(self.open(self.b("leaders/g")), EX)
        self.fails(GONE, self.waiter.result)


class Aborted(End):
    """umount -f ends the connection under the daemon."""

    def end(self):
        subprocess.run(["umount", "-f", self.a.path], check=False, timeout=lib.PATIENCE_S,
                       capture_output=True)
        self.assertEqual(self.a.wait_exit(), 0)
        self.assertFalse(lib.mounted(self.a.path))

    def test_a_mere_working_directory(self):
        """Keeps the tree busy, too; what is mounted there afterwards is another one."""
        self.agent().chdir(self.a.path)
        self.end()
        again = self.tree(self.a.url, directory=self.a.path, member=self.a.member)
        self.assertEqual(lib.read(again(".tooz/state")), b"connected\n")
        self.assertNotIn("detached", again.read_log())


class Unmounted:
    def test_umount_releases_and_ends(self):
        os.mkdir(self.a("groups/g"))
        lib.write(self.a("groups/g/m"), b"x")
        self.assertEqual(self.a.umount(), 0)
        self.assertEqual(os.listdir(self.b("groups/g")), [])

    def test_umount_is_refused_while_handles_are_open(self):
        fd = self.open(self.a("locks/l"))
        done = subprocess.run(["umount", self.a.path], capture_output=True, timeout=10, check=False)
        self.assertNotEqual(done.returncode, 0)
        fcntl.flock(fd, EX)

    def test_lazy_umount_serves_until_the_last_close(self):
        fd = self.open(self.a("locks/l"))
        fcntl.flock(fd, EX)
        subprocess.run(["umount", "-l", self.a.path], check=True, timeout=10)
        self.assertFalse(lib.mounted(self.a.path))
        os.fsync(fd)
        self.fails(errno.EAGAIN, fcntl.flock, self.open(self.b("locks/l")), EX | NB)
        self.assertIsNone(self.a.process.poll())
        os.close(fd)
        self.assertEqual(self.a.wait_exit(), 0)
        fcntl.flock(self.open(self.b("locks/l")), EX)


class HolderAtTheEnd(lib.Case):
    def test_holders_get_errors_not_hangs(self):
        a = self.tree()
        fd = self.open(a("locks/l"))
        fcntl.flock(fd, EX)
        a.process.terminate()
        a.wait_exit()
        self.fails(GONE, os.fsync, fd)
        self.fails(GONE, os.pread, fd, 10, 0)

    def test_holders_are_told_and_have_a_moment(self):
        """At SIGTERM; a second one takes the moment away, and nothing else."""
        a, b = self.pair()
        names = ["a b", "k", "l", "m", "n"]
        fds = [self.open(a("locks", name)) for name in names]
        for fd in fds:
            fcntl.flock(fd, EX)
        waiter, other = self.agent(), self.agent()
        waiter.start("flock", waiter.open(a("locks/l")), EX)
        other.start("flock", other.open(b("locks/l")), EX)
        waiter.wait_blocked()
        other.wait_blocked()
        a.process.terminate()
        self.told_of_loss(fds[0])
        self.fails(errno.ENOLCK, waiter.result)
        self.fails(errno.ENOLCK, fcntl.flock, self.open(a("locks/z")), EX)
        self.assertFalse(other.done())
        a.process.terminate()
        self.assertEqual(a.wait_exit(), 0)
        other.result()
        lost = re.findall(r"lock (.+) was lost: the mount is ending \(held by process \d+\)", a.read_log())
        self.assertEqual(sorted(lost), sorted(names))
        self.assertIn("again: releasing without waiting for those who held", a.read_log())

    def test_terminated_with_many_waiters(self):
        a = self.tree()
        fcntl.flock(self.open(a("locks/l")), EX)
        agents = [self.agent() for _ in range(20)]
        for agent in agents:
            agent.start("flock", agent.open(a("locks/l")), EX)
            agent.wait_blocked()
        a.process.terminate()
        self.assertEqual(a.wait_exit(), 0)
        for agent in agents:
            self.fails(GONE, agent.result)


class Signalled(lib.Case):
    def test_log_names_the_lock(self):
        a = self.tree(options="on_loss=term")
        holder = self.spawn("setsid", "flock", a("locks/a b"), "sleep", "60")
        lib.wait_until(lambda: os.path.exists(a("locks/a b")), "the lock")
        subprocess.run(["setsid", "-w", "rm", a("locks/a b")], check=True, timeout=lib.PATIENCE_S)
        self.assertEqual(holder.wait(lib.PATIENCE_S), -signal.SIGTERM)
        lib.wait_until(lambda: "locks/a b was lost: signal 15" in a.read_log(), "the line")


class Identity:
    def test_member_id_of_a_live_mount_is_refused(self):
        a = self.a
        second = lib.Tree(a.url, member=a.member)
        self.addCleanup(second.stop)
        self.assertNotEqual(second.wait_exit(20 * lib.SLOW), 0)
        self.assertIn("member=", second.read_log())
        self.assertFalse(lib.mounted(second.path))

    def test_member_id_of_a_dead_mount_is_taken_over(self):
        a = self.a
        os.mkdir(a("groups/g"))
        lib.write(a("groups/g/m"), b"x")
        a.kill()
        watch = lib.Stopwatch()
        b = self.tree(a.url, member=a.member)
        watch.within(5 * lib.SLOW)
        self.assertEqual(os.listdir(b("groups/g")), [])


class TerminatedFile(Terminated, lib.File):
    pass


class InterruptedFile(Interrupted, lib.File):
    pass


class KilledFile(Killed, lib.File):
    pass


class AbortedFile(Aborted, lib.File):
    pass


class UnmountedFile(Unmounted, lib.File):
    def test_store_is_left_clean(self):
        """Sessions of mounts that ended leave no file behind."""
        store = self.a.url[len("file://"):]
        fcntl.flock(self.open(self.a("locks/l")), EX)
        self.a.stop()
        self.b.stop()
        sessions = os.path.join(store, ".toozfs", "sessions")
        self.assertEqual(os.listdir(sessions) if os.path.exists(sessions) else [], [])

    def test_no_member_file_is_left(self):
        """Who reads the directory as Python's driver does would take it for a member."""
        store = self.a.url[len("file://"):]
        os.mkdir(self.a("groups/g"))

        def members():
            return sorted(name for _, _, names in os.walk(os.path.join(store, "groups")) for name in names
                          if not name.startswith("."))
        lib.write(self.b("groups/g/theirs"), b"x")
        before = members()
        self.assertEqual(len(before), 1)
        lib.write(self.a("groups/g/ours"), b"x")
        self.assertEqual(len(members()), 2)
        self.assertEqual(self.a.umount(), 0)
        self.assertEqual(members(), before)


class IdentityFile(Identity, lib.File):
    pass


class TerminatedRedis(Terminated, lib.Redis):
    pass


class InterruptedRedis(Interrupted, lib.Redis):
    pass


class KilledRedis(KilledLeased, lib.Redis):
    pass


class AbortedRedis(Aborted, lib.Redis):
    pass


class UnmountedRedis(Unmounted, lib.Redis):
    pass


class IdentityRedis(Identity, lib.Redis):
    pass


class TerminatedZooKeeper(Terminated, lib.ZooKeeper):
    pass


class InterruptedZooKeeper(Interrupted, lib.ZooKeeper):
    pass


class KilledZooKeeper(KilledLeased, lib.ZooKeeper):
    pass


class AbortedZooKeeper(Aborted, lib.ZooKeeper):
    pass


class UnmountedZooKeeper(Unmounted, lib.ZooKeeper):
    pass


class IdentityZooKeeper(Identity, lib.ZooKeeper):
    pass


class Command(lib.Case):
    """The command as users call it: it returns when the tree answers."""

    def directory(self):
        lib.Tree.count += 1
        path = os.path.join(lib.WORK, f"cmd{lib.Tree.count}")
        os.mkdir(path)

        def end():
            while lib.mounted(path):
                subprocess.run(["umount", "-l", path], timeout=10, check=False)
        self.addCleanup(end)
        return path

    def mount(self, url, path, *options):
        return subprocess.run([lib.TOOZFS, url, path, *options], capture_output=True, text=True,
                              timeout=3 * lib.PATIENCE_S, check=False)

    def daemons(self):
        return {pid for pid in lib._descendants(os.getpid()) if is_toozfs(pid)}

    def test_returns_when_the_tree_answers(self):
        path = self.directory()
        before = self.daemons()
        done = self.mount("memory://", path)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(lib.read(path + "/.tooz/state"), b"connected\n")
        # The process between the command and the daemon may still be ending.
        lib.wait_until(lambda: len(self.daemons() - before) == 1, "one daemon")
        (daemon,) = self.daemons() - before
        self.assertNotEqual(os.getsid(daemon), os.getsid(0))
        self.assertEqual(os.readlink(f"/proc/{daemon}/cwd"), "/")
        done = lib.sh('flock "$1" cat "$1"', path + "/locks/l")
        self.assertIn("mode=exclusive", done.stdout)
        subprocess.run(["umount", path], check=True, timeout=10)
        wait_for_process(daemon)

    def test_keeps_no_pipe_of_the_caller(self):
        """x=$(toozfs ...) returns although the daemon lives on."""
        path = self.directory()
        done = lib.sh('x=$("$1" memory:// "$2" 2>&1); echo "$? $x"', lib.TOOZFS, path)
        self.assertEqual(done.stdout, "0 \n")

    def test_shown_in_mounts(self):
        path = self.directory()
        self.mount("file://" + self.store(), path)
        with open("/proc/mounts", encoding="ascii") as f:
            line = next(x for x in f if x.split()[1] == path)
        self.assertEqual(line.split()[2], "fuse.tooz")
        self.assertTrue(line.startswith("file://"))

    def test_umount_with_wait(self):
        path, url = self.directory(), "file://" + self.store()
        self.mount(url, path)
        waiting = self.spawn(lib.TOOZFS, "--wait", path)
        before = self.daemons()
        time.sleep(0.1)
        self.assertIsNone(waiting.poll())
        subprocess.run(["umount", path], check=True, timeout=10)
        self.assertEqual(waiting.wait(lib.PATIENCE_S), 0)
        # All but its last steps: a sanitizer looks for leaks after them.
        lib.wait_until(lambda: not any(x != waiting.pid and is_toozfs(x) for x in before), "the daemon's end",
                       1 * lib.SLOW)
        self.assertEqual(self.mount(url, path).returncode, 0)

    def test_failure_has_a_status_and_a_message(self):
        path = self.directory()
        for url, options, said in (("file:///proc/none/store", (), "file"),
                                   ("nosuch://x", (), "nosuch"),
                                   ("memory://?nosuch=1", (), "nosuch"),
                                   ("memory://", ("-o", "nosuch"), "nosuch"),
                                   ("memory://", ("-o", "remount"), "")):
            done = self.mount(url, path, *options)
            self.assertNotEqual(done.returncode, 0, url)
            self.assertIn(said, done.stderr)
            self.assertFalse(lib.mounted(path))
        self.assertEqual(self.mount("memory://", path, "-o", "remount").returncode, 32)

    def test_mount_point_that_is_none(self):
        done = self.mount("memory://", "/nonexistent/directory")
        self.assertNotEqual(done.returncode, 0)
        self.assertTrue(done.stderr)

    def test_over_a_dead_mount(self):
        path, url = self.directory(), "file://" + self.store()
        before = self.daemons()
        self.mount(url, path)
        # The process between the command and the daemon may still be ending.
        lib.wait_until(lambda: len(self.daemons() - before) == 1, "one daemon")
        (daemon,) = self.daemons() - before
        os.kill(daemon, signal.SIGKILL)
        wait_for_process(daemon)
        self.fails(errno.ENOTCONN, os.listdir, path)
        done = self.mount(url, path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(lib.read(path + "/.tooz/state"), b"connected\n")
        with open("/proc/self/mountinfo", encoding="ascii") as f:
            self.assertEqual(sum(x.split()[4] == path for x in f), 1)

    def test_daemon_terminated(self):
        path = self.directory()
        before = self.daemons()
        self.mount("memory://", path)
        # The process between the command and the daemon may still be ending.
        lib.wait_until(lambda: len(self.daemons() - before) == 1, "one daemon")
        (daemon,) = self.daemons() - before
        os.kill(daemon, signal.SIGTERM)
        wait_for_process(daemon)
        self.assertFalse(lib.mounted(path))


def is_toozfs(pid):
    try:
        return os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath(lib.TOOZFS)
    except OSError:
        return False


def wait_for_process(pid):
    """A daemon is reparented to us, and is reaped here."""
    def gone():
        try:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        except ChildProcessError:
            return not os.path.exists(f"/proc/{pid}")
    lib.wait_until(gone, f"the end of {pid}")


if __name__ == "__main__":
    lib.main(240)
