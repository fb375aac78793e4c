# SPDX-License-Identifier: Apache-2.0
"""From mount to the end of the daemon: background, signals, --wait, dead mounts, mount(8), fstab, users.

Everything happens in a mount namespace of its own, where /sbin, /dev/fuse and sysctls can be covered.
"""
import ctypes
import fcntl
import os
import re
import signal
import subprocess
import time
import unittest

import lib

CLONE_NEWNS = 0x20000
NOBODY = 65534


def daemons():
    """{mount point: pid} of the daemons that root's or our user's runtime directory names."""
    found = {}
    for place in ("/run/toozfs", f"/tmp/toozfs-{NOBODY}"):
        for name in os.listdir(place) if os.path.isdir(place) else []:
            try:
                found[lib.read(os.path.join(place, name)).decode()] = int(name.split(".")[0])
            except OSError:
                pass
    return found


class Base(lib.Case):
    user = ()  # what a command is put behind
    program = lib.TOOZFS

    def setUp(self):
        self.dir = lib.tempfile.mkdtemp(prefix="m", dir=lib.WORK)
        self.addCleanup(self.end)

    def end(self):
        while lib.mounted(self.dir):
            subprocess.run(["umount", "-l", self.dir], check=True, timeout=10)
        pid = daemons().get(self.dir)
        if pid and b"tooz" in (self.command(pid) or b""):
            os.kill(pid, signal.SIGKILL)

    @staticmethod
    def command(pid):
        try:
            return lib.read(f"/proc/{pid}/cmdline")
        except OSError:
            return None

    def run_program(self, *args, **keywords):
        return subprocess.run(args, capture_output=True, text=True, timeout=60 * lib.SLOW, check=False,
                              **keywords)

    def mount(self, *args, url="memory://life", code=0, **keywords):
        done = self.run_program(lib.TOOZFS, url, self.dir, *args, **keywords)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def wait(self, directory=None):
        done = self.run_program(lib.TOOZFS, "--wait", directory or self.dir)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def alive(self):
        """The mount answers as soon as mount.tooz returned."""
        self.assertEqual(lib.read(os.path.join(self.dir, ".tooz/state")), b"connected\n")


class Life(Base):
    # ---- background and end ----

    def test_mount_and_umount(self):
        done = self.mount()
        self.assertEqual(done.stderr, "")
        self.alive()
        pid = daemons()[self.dir]
        self.assertEqual(os.getsid(pid), pid)
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
        for fd in (0, 1, 2):
            self.assertEqual(os.readlink(f"/proc/{pid}/fd/{fd}"), "/dev/null")
        with open("/proc/self/mountinfo", encoding="ascii") as f:
            line = next(line for line in f if line.split()[4] == self.dir)
        self.assertIn(" - fuse.tooz memory://life ", line)
        subprocess.run(["umount", self.dir], check=True, timeout=30)
        self.wait()
        self.assertIn(self.command(pid), (None, b""))  # ended, perhaps not reaped yet
        self.assertNotIn(self.dir, daemons())

    def test_relative_directory_and_links(self):
        done = self.run_program(lib.TOOZFS, "memory://life", "./" + os.path.basename(self.dir) + "/",
                                cwd=lib.WORK)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.alive()
        link = self.dir + "-link"
        os.symlink(self.dir, link)
        subprocess.run(["umount", self.dir], check=True, timeout=30)
        self.wait(link)
        self.assertNotIn(self.dir, daemons())

    def test_wait_without_daemon(self):
        self.wait()
        self.wait("/nonexistent/x")

    def test_signals(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self.mount()
            pid = daemons()[self.dir]
            agent = self.agent()
            agent.open_flock(os.path.join(self.dir, "locks/l"), os.O_RDWR | os.O_CREAT, lib.EX)
            os.kill(pid, number)
            self.wait()
            self.assertFalse(lib.mounted(self.dir))
            agent.kill()

    def test_hangup_is_for_the_foreground(self):
        self.mount()
        os.kill(daemons()[self.dir], signal.SIGHUP)
        self.alive()

    def test_wait_waits(self):
        self.mount()
        waiter = self.spawn(*self.user, self.program, "--wait", self.dir)
        time.sleep(lib.SHORT_S)
        self.assertIsNone(waiter.poll())
        subprocess.run(["umount", self.dir], check=True, timeout=30)
        self.assertEqual(waiter.wait(lib.PATIENCE_S), 0)

    def test_release_reaches_the_store(self):
        """After umount and --wait another mount gets the lock at the first try."""
        store = "file://" + self.store()
        for _ in range(3):
            self.mount(url=store)
            agent = self.agent()
            fd = agent.open_flock(os.path.join(self.dir, "locks/l"), os.O_RDWR | os.O_CREAT,
                                  lib.EX | lib.NB)
            agent.close(fd)
            agent.kill()
            subprocess.run(["umount", self.dir], check=True, timeout=30)
            self.wait()

    def test_inherited_descriptors_are_closed(self):
        """A daemon must not keep the lock of the script that mounts."""
        path = os.path.join(lib.WORK, "script-lock")
        with open(path, "w", encoding="ascii") as held:
            fcntl.flock(held, lib.EX)
            self.mount(pass_fds=[held.fileno()])
        with open(path, "w", encoding="ascii") as again:
            fcntl.flock(again, lib.EX | lib.NB)

    def test_output_through_a_pipe_ends(self):
        done = lib.sh('x=$("$1" memory://life "$2" 2>&1); echo "$?:$x"', lib.TOOZFS, self.dir,
                      timeout=30)
        self.assertEqual(done.stdout, "0:\n")

    # ---- what may lie at the mount point ----

    def test_live_tree_is_refused(self):
        self.mount()
        done = self.mount("-o", "member=other", code=32)
        self.assertIn("mounted there already", done.stderr)
        self.alive()

    def test_dead_tree_is_replaced(self):
        self.mount()
        pid = daemons()[self.dir]
        os.kill(pid, signal.SIGKILL)
        lib.wait_until(lambda: self.command(pid) in (None, b""), "the daemon's death")
        done = self.mount()
        self.assertIn("daemon is gone", done.stderr)
        self.alive()
        with open("/proc/self/mountinfo", encoding="ascii") as f:
            self.assertEqual(sum(line.split()[4] == self.dir for line in f), 1)

    def test_member_in_use(self):
        store = "file://" + self.store()
        self.mount("-o", "member=same", url=store)
        other = lib.tempfile.mkdtemp(prefix="m", dir=lib.WORK)
        done = self.run_program(lib.TOOZFS, store, other, "-o", "member=same")
        self.assertEqual(done.returncode, 32)
        self.assertIn("member=", done.stderr)
        self.assertFalse(lib.mounted(other))

    # ---- the kernel ----

    def test_request_timeout(self):
        for name in ("max_request_timeout", "default_request_timeout"):
            sysctl = "/proc/sys/fs/fuse/" + name
            if not os.path.exists(sysctl):
                self.skipTest("this kernel has no request time-outs")
            path = os.path.join(lib.WORK, "sysctl")
            lib.write(path, b"30\n")
            subprocess.run(["mount", "--bind", path, sysctl], check=True, timeout=10)
            try:
                done = self.mount(code=32)
            finally:
                subprocess.run(["umount", sysctl], check=True, timeout=10)
            self.assertIn("fs.fuse." + name, done.stderr)
            self.assertFalse(lib.mounted(self.dir))

    def test_namespace(self):
        """-N: the tree is seen there, and not here."""
        holder = self.spawn("unshare", "-m", "--propagation", "private", "sleep", "60")
        ours = os.readlink("/proc/self/ns/mnt")
        lib.wait_until(lambda: os.readlink(f"/proc/{holder.pid}/ns/mnt") != ours and
                       b"sleep" == self.command(holder.pid)[:5], "the namespace")
        self.mount("-N", str(holder.pid))
        self.assertFalse(lib.mounted(self.dir))
        inside = ["nsenter", "-m", "-t", str(holder.pid)]
        done = self.run_program(*inside, "cat", os.path.join(self.dir, ".tooz/state"))
        self.assertEqual(done.stdout, "connected\n")
        done = self.run_program(*inside, "umount", self.dir)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.wait()
        done = self.run_program(lib.TOOZFS, "memory://life", self.dir, "-N", "/nonexistent")
        self.assertEqual(done.returncode, 32)
        self.assertIn("/nonexistent", done.stderr)


class Start(Base):
    """What surrounds a start: the caller's state, earlier daemons, interruptions."""

    def umount(self, *flags):
        subprocess.run(["umount", *flags, self.dir], check=True, timeout=30)

    def serve_on(self, url, *options):
        """A daemon that lives on after umount -l, for a handle is open; gives its pid."""
        self.mount(*options, url=url)
        pid = daemons()[self.dir]
        handle = os.open(os.path.join(self.dir, ".tooz/state"), os.O_RDONLY)

        def end():
            try:
                os.close(handle)
            except OSError:
                pass  # its daemon has ended
            self.wait()
        self.addCleanup(end)
        self.umount("-l")
        return pid

    def test_closed_descriptors(self):
        for closed in ("0<&-", "0<&- 1>&-", "1>&- 2>&-", "0<&- 1>&- 2>&-"):
            done = lib.sh(f'"$1" memory://life "$2" {closed}', lib.TOOZFS, self.dir)
            self.assertEqual(done.returncode, 0, closed + done.stderr)
            self.alive()
            pid = daemons()[self.dir]
            for fd in (0, 1, 2):
                self.assertEqual(os.readlink(f"/proc/{pid}/fd/{fd}"), "/dev/null")
            self.umount()
            self.wait()

    def test_mount_at_once_after_umount(self):
        store = "file://" + self.store()
        for _ in range(10):
            self.assertEqual(self.mount(url=store).stderr, "")
            self.umount()

    def test_mount_at_once_after_kill(self):
        """The daemon that was killed is still ending: its member id and its locks are waited for."""
        store = "file://" + self.store()
        for _ in range(8):
            self.mount("-o", "member=a", url=store)
            agent = self.agent()
            agent.open_flock(os.path.join(self.dir, "locks/l"), os.O_RDWR | os.O_CREAT, lib.EX | lib.NB)
            os.kill(next(iter(self.held())), signal.SIGKILL)
            done = self.mount("-o", "member=a", url=store)
            self.assertIn("daemon is gone", done.stderr)
            agent.kill()
            agent = self.agent()
            agent.open_flock(os.path.join(self.dir, "locks/l"), os.O_RDWR | os.O_CREAT, lib.EX | lib.NB)
            agent.kill()
            os.kill(next(iter(self.held())), signal.SIGTERM)
            self.wait()

    def held(self):
        """The pids of daemons of our directory that live: killed ones leave their file."""
        return {pid for pid in self.pids() if self.command(pid)}

    def test_earlier_daemon_that_serves_on(self):
        """It is waited for no longer than the time-out, and its end leaves the new tree alone."""
        store = "file://" + self.store()
        old = self.serve_on(store, "-o", "member=a")
        done = self.mount("-o", "member=a,timeout=0.5", url=store, code=32)
        self.assertIn("--wait", done.stderr)
        self.mount("-o", "member=b,timeout=0.5", url=store)
        os.kill(old, signal.SIGTERM)
        lib.wait_until(lambda: self.command(old) in (None, b""), "the old daemon's end")
        self.alive()
        self.assertEqual(lib.read(os.path.join(self.dir, ".tooz/member")), b"b\n")
        os.kill(next(p for p in self.pids() if p != old), signal.SIGTERM)
        lib.wait_until(lambda: not lib.mounted(self.dir), "the new tree's end")

    def pids(self):
        """Of all daemons of our directory."""
        return [int(name.split(".")[0]) for name in os.listdir("/run/toozfs")
                if lib.read("/run/toozfs/" + name).decode() == self.dir]

    def interrupted(self, send, number):
        starting = self.spawn(lib.TOOZFS, "memory://life", self.dir, stderr=subprocess.PIPE,
                              start_new_session=True)
        children = f"/proc/{starting.pid}/task/{starting.pid}/children"
        lib.wait_until(lambda: lib.read(children), "the daemon")
        send(starting.pid, number)
        self.assertEqual(starting.wait(lib.PATIENCE_S), 8)
        text = starting.stderr.read().decode()
        self.assertEqual(text.count("interrupted"), 1, text)
        self.assertFalse(lib.mounted(self.dir))

    def test_interrupted_start(self):
        self.serve_on("memory://life")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.interrupted(os.kill, number)
            self.interrupted(os.killpg, number)

    def test_parent_killed(self):
        self.serve_on("memory://life")
        starting = self.spawn(lib.TOOZFS, "memory://life", self.dir, stderr=subprocess.PIPE)
        children = f"/proc/{starting.pid}/task/{starting.pid}/children"
        daemon = int(lib.wait_until(lambda: lib.read(children), "the daemon").split()[0])
        starting.kill()
        lib.wait_until(lambda: self.command(daemon) in (None, b""), "the daemon's end")
        self.assertFalse(lib.mounted(self.dir))

    def test_stopped_daemon(self):
        self.mount()
        pid = daemons()[self.dir]
        os.kill(pid, signal.SIGSTOP)
        try:
            done = self.mount("-o", "member=x", code=32)
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertIn("does not answer", done.stderr)
        self.assertIn(f"(pid {pid})", done.stderr)
        self.alive()

    def test_stopped_daemon_is_replaced(self):
        """By doing what the message says."""
        store = "file://" + self.store()
        self.mount("-o", "member=a", url=store)
        pid = daemons()[self.dir]
        os.kill(pid, signal.SIGSTOP)
        done = self.mount("-o", "member=a", url=store, code=32)
        command = re.search(r"to end it: (kill -9 \d+),", done.stderr)[1]
        self.assertEqual(command, f"kill -9 {pid}")
        subprocess.run(command.split(), check=True, timeout=10)
        self.mount("-o", "member=a", url=store)
        self.alive()
        self.assertNotEqual(daemons()[self.dir], pid)

    def test_bad_option_touches_nothing(self):
        self.mount()
        self.mount("-o", "bogus", code=1)
        self.mount(url="file://host/x", code=1)
        pid = daemons()[self.dir]
        os.kill(pid, signal.SIGKILL)
        lib.wait_until(lambda: self.command(pid) in (None, b""), "the daemon's death")
        self.mount("-o", "bogus", code=1)
        self.assertTrue(lib.mounted(self.dir))
        state = lib.tempfile.mkdtemp(prefix="state", dir=lib.WORK)
        done = self.run_program("setpriv", f"--reuid={NOBODY}", "--clear-groups", lib.TOOZFS, "none",
                                self.dir, "-o", "bogus", env={"XDG_STATE_HOME": state, **os.environ})
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(os.listdir(state), [])

    def test_inherited_signals(self):
        def strange():
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.mount(preexec_fn=strange)
        os.kill(daemons()[self.dir], signal.SIGTERM)
        self.wait()
        self.assertFalse(lib.mounted(self.dir))
        self.assertEqual(self.mount("-o", "remount", preexec_fn=strange, code=32).stdout, "")

    def test_descriptors_in_the_foreground(self):
        path = os.path.join(lib.WORK, "script-lock-2")
        with open(path, "w", encoding="ascii") as held:
            fcntl.flock(held, lib.EX)
            self.spawn(lib.TOOZFS, "memory://life", self.dir, "-o", "foreground",
                       pass_fds=[held.fileno()], stderr=subprocess.DEVNULL)
        lib.wait_until(lambda: lib.mounted(self.dir), "the mount")
        with open(path, "w", encoding="ascii") as again:
            fcntl.flock(again, lib.EX | lib.NB)

    def test_few_descriptors(self):
        for count in (6, 7, 8, 11, 14):
            done = lib.sh('ulimit -n "$3"; exec "$1" "$2" "$4"', lib.TOOZFS, "file://" + self.store(),
                          count, self.dir)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("Too many open files", done.stderr)
        done = lib.sh('ulimit -n 64; exec "$1" memory://life "$2"', lib.TOOZFS, self.dir)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("64 open files", done.stderr)

    def test_directory_that_is_gone(self):
        for args in (("--wait", "x"), ("memory://life", "x")):
            done = lib.sh('mkdir "$1/d"; cd "$1/d"; rmdir "$1/d"; shift; exec "$@"', lib.WORK,
                          lib.TOOZFS, *args)
            self.assertEqual(done.returncode, 2)
            self.assertIn("No such file or directory", done.stderr)


class Mount8(Life):
    """Through mount(8): /sbin/mount.tooz lies on an overlay that only this namespace sees."""

    @classmethod
    def setUpClass(cls):
        top = os.path.join(lib.WORK, "overlay")
        os.makedirs(top)
        done = lib.sh('''set -e; mount -t tmpfs tmpfs "$1"; mkdir "$1/upper" "$1/scratch"
            mount -t overlay -o "lowerdir=/usr/sbin,upperdir=$1/upper,workdir=$1/scratch" overlay /usr/sbin
            ln -sf "$2" /usr/sbin/mount.tooz; ln -sf "$2" /usr/sbin/mount.fuse.tooz''', top, lib.TOOZFS)
        if done.returncode:
            raise unittest.SkipTest("no overlay over /usr/sbin: " + done.stderr.strip())

    @classmethod
    def tearDownClass(cls):
        lib.sh('umount -l /usr/sbin; umount -l "$1"', os.path.join(lib.WORK, "overlay"))

    def mount(self, *args, url="memory://life", code=0, **keywords):
        done = self.run_program("mount", "-t", "tooz", url, self.dir, *args, **keywords)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def test_fuse_type(self):
        done = self.run_program("mount", "-t", "fuse.tooz", "memory://life", self.dir)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.alive()

    def test_fstab(self):
        fstab = os.path.join(lib.WORK, "fstab")
        store = self.store()
        lib.write(fstab, f"file://{store} {self.dir} tooz member=fs\\040tab,umask=002,nofail,_netdev,"
                  "x-systemd.device-timeout=5 0 0\n".encode())
        done = self.run_program("mount", "-T", fstab, self.dir)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.alive()
        self.assertEqual(lib.read(os.path.join(self.dir, ".tooz/member")), b"fs tab\n")
        for comma in ('"a,b"', "a\\,b"):
            subprocess.run(["umount", self.dir], check=True, timeout=30)
            lib.write(fstab, f"file://{store} {self.dir} tooz member={comma} 0 0\n".encode())
            done = self.run_program("mount", "-T", fstab, self.dir)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(lib.read(os.path.join(self.dir, ".tooz/member")), b"a,b\n")
        done = self.run_program("mount", "-T", fstab, "-a", "-t", "tooz")
        self.assertIn(done.returncode, (0, 32, 64), done.stderr)
        self.alive()

    def test_remount(self):
        self.mount()
        done = self.run_program("mount", "-o", "remount,ro", self.dir)
        self.assertEqual(done.returncode, 32, done.stderr)
        self.alive()

    def test_observer(self):
        self.mount("-r")
        self.fails(lib.errno.EROFS, os.mkdir, os.path.join(self.dir, "groups/g"))

    test_inherited_descriptors_are_closed = None  # mount(8) closes them itself
    test_namespace = None  # mount(8) -N opens its own way
    test_output_through_a_pipe_ends = None


class User(Life):
    """An ordinary user, through fusermount3, with a device node of mode 0666."""

    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

    @classmethod
    def setUpClass(cls):
        if not lib.shutil.which("fusermount3"):
            raise unittest.SkipTest("no fusermount3")
        # The build tree may be out of reach for others.
        cls.program = os.path.join(lib.WORK, "toozfs")
        lib.shutil.copy(lib.TOOZFS, cls.program)
        os.chmod(cls.program, 0o755)
        cls.node = os.path.join(lib.WORK, "fuse")
        done = lib.sh('''set -e; mkdir "$1"; mount -t tmpfs -o dev tmpfs "$1"; mknod "$1/fuse" c 10 229
            chmod 666 "$1/fuse"; mount --bind "$1/fuse" /dev/fuse''', cls.node)
        if done.returncode:
            raise unittest.SkipTest("no device node of our own: " + done.stderr.strip())

    @classmethod
    def tearDownClass(cls):
        lib.sh('umount -l /dev/fuse; umount -l "$1"', cls.node)

    def setUp(self):
        super().setUp()
        os.chown(self.dir, NOBODY, NOBODY)
        self.home = lib.tempfile.mkdtemp(prefix="home", dir=lib.WORK)
        os.chown(self.home, NOBODY, NOBODY)

    def as_user(self, *args):
        env = {"HOME": self.home, "PATH": os.environ["PATH"]}
        env.update((k, v) for k, v in os.environ.items() if k.endswith("SAN_OPTIONS"))
        return self.run_program(*self.user, *args, env=env, cwd="/")

    def mount(self, *args, url="memory://life", code=0, **_):
        done = self.as_user(self.program, url, self.dir, *args)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def wait(self, directory=None):
        done = self.as_user(self.program, "--wait", directory or self.dir)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def alive(self):
        done = self.as_user("cat", os.path.join(self.dir, ".tooz/state"))
        self.assertEqual(done.stdout, "connected\n", done.stderr)

    def test_mount_and_umount(self):
        self.mount()
        self.alive()
        pid = daemons()[self.dir]
        self.fails(lib.errno.EACCES, os.listdir, self.dir)  # not even root
        done = self.run_program(lib.TOOZFS, "--wait", self.dir)
        self.assertEqual(done.returncode, 32)
        self.assertIn("user", done.stderr)
        done = self.as_user("flock", "-n", os.path.join(self.dir, "locks/l"), "echo", "held")
        self.assertEqual(done.stdout, "held\n", done.stderr)
        done = self.as_user("fusermount3", "-u", self.dir)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.wait()
        self.assertIn(self.command(pid), (None, b""))  # ended, perhaps not reaped yet

    def test_embedded_default(self):
        self.mount(url="none")
        self.alive()
        self.assertTrue(os.path.isdir(os.path.join(self.home, ".local/state/tooz")))
        done = self.as_user("cat", os.path.join(self.dir, ".tooz/url"))
        self.assertEqual(done.stdout, f"file://{self.home}/.local/state/tooz\n")
        os.kill(daemons()[self.dir], signal.SIGTERM)
        self.wait()
        self.assertFalse(lib.mounted(self.dir))

    def test_signals(self):
        self.mount()
        os.kill(daemons()[self.dir], signal.SIGTERM)
        self.wait()
        self.assertFalse(lib.mounted(self.dir))

    def test_not_ours(self):
        os.chown(self.dir, 0, 0)
        done = self.mount(code=32)
        self.assertIn("fusermount3", done.stderr)

    def test_no_device(self):
        path = os.path.join(lib.WORK, "nodevice")
        lib.write(path, b"")
        os.chmod(path, 0)
        subprocess.run(["mount", "--bind", path, "/dev/fuse"], check=True, timeout=10)
        try:
            done = self.as_user(self.program, "memory://life", self.dir)
        finally:
            subprocess.run(["umount", "/dev/fuse"], check=True, timeout=10)
        self.assertEqual(done.returncode, 32)
        self.assertIn("/dev/fuse", done.stderr)
        self.assertIn("0666", done.stderr)

    test_relative_directory_and_links = None
    test_release_reaches_the_store = None
    test_inherited_descriptors_are_closed = None
    test_output_through_a_pipe_ends = None
    test_request_timeout = None
    test_namespace = None
    test_member_in_use = None


class Permissions(lib.Case):
    """allow_other, uid=, gid= and umask= as another user sees them."""

    def test_default(self):
        tree = self.tree(options="allow_other")
        agent = self.agent(uid=NOBODY)
        self.fails(lib.errno.EACCES, agent.open, tree("locks/l"))
        self.fails(lib.errno.EACCES, agent.mkdir, tree("groups/g"))
        self.assertEqual(agent.listdir(tree("locks")), [])

    def test_opened_to_a_group(self):
        tree = self.tree(options=f"allow_other,gid={NOBODY},umask=002")
        agent = self.agent(uid=NOBODY)
        fd = agent.open_flock(tree("locks/l"), os.O_RDWR | os.O_CREAT, lib.EX)
        self.assertIn(b"mode=exclusive\n", lib.read(tree("locks/l")))
        agent.close(fd)
        st = os.stat(tree("locks"))
        self.assertEqual((st.st_uid, st.st_gid, st.st_mode & 0o7777), (0, NOBODY, 0o775))

    def test_without_allow_other(self):
        tree = self.tree()
        self.fails(lib.errno.EACCES, self.agent(uid=NOBODY).listdir, tree.path)

    def test_observer(self):
        tree = self.tree(options="ro")
        self.fails(lib.errno.EROFS, os.mkdir, tree("groups/g"))
        self.fails(lib.errno.EROFS, os.open, tree("locks/l"), os.O_RDWR | os.O_CREAT)


if __name__ == "__main__":
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and libc.unshare(CLONE_NEWNS) == 0:
        subprocess.run(["mount", "--make-rprivate", "/"], check=True, timeout=10)
    lib.main(limit_s=240)
