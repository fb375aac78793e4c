# SPDX-License-Identifier: Apache-2.0
"""What the tests of the tree share: mounts, agents, and a supervisor that cleans up.

A test file is a program: it ends with lib.main(). Its cases run in a child of a supervisor that has
a time limit and, whatever happened, ends every process that is left and unmounts what lies below
the work directory. Nothing here sleeps for a fixed time: tests wait for what they expect. How long
something took is asked of a Stopwatch, which knows what of that the machine was busy with other things.

What another party did (another mount, Python, a hand on the server) is awaited too, wherever a look may be
answered from what the mount knows until a notice comes: see docs/guarantees.md.

Where the supervisor itself is killed with SIGKILL its shadow does that, a process that waits for its end.

An agent is a process that does system calls on command, so that a test can say in which order
several processes open, lock, write and die.

Environment: TOOZFS (the program), TOOZFS_TEST_LIMIT (seconds, default 120), TOOZFS_SLOW (a factor for
all waits, for sanitizers and valgrind), TOOZFS_LONG=1 (the long form of a test), TOOZFS_STORE (redis or
zookeeper: only the cases on that; without it, those on memory and file), TOOZFS_PART=1/2 (the first of two parts of
the cases, which is all of them in the parts together).
"""
import contextlib
import ctypes
import errno
import fcntl
import os
import pickle
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import servers  # noqa: E402

TOOZFS = os.environ.get("TOOZFS", "")
SLOW = float(os.environ.get("TOOZFS_SLOW", "1"))
LONG = os.environ.get("TOOZFS_LONG") == "1"
LIMIT_S = float(os.environ.get("TOOZFS_TEST_LIMIT", "120"))
PATIENCE_S = 20 * SLOW  # how long something that must happen may take
SHORT_S = 0.25 * SLOW   # how long something that must not happen is given
WORK = None             # the supervisor's directory

EX, SH, UN, NB = fcntl.LOCK_EX, fcntl.LOCK_SH, fcntl.LOCK_UN, fcntl.LOCK_NB
PR_SET_CHILD_SUBREAPER = 36
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def read(path):
    """All of a file, by its own handle."""
    with open(path, "rb", buffering=0) as f:
        return read_fd(f.fileno())


def read_fd(fd):
    parts = []
    while True:
        part = os.read(fd, 65536)
        if not part:
            return b"".join(parts)
        parts.append(part)


def write(path, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
    """One open, one write, one close, as echo does it."""
    fd = os.open(path, flags, 0o666)
    try:
        if data is not None:
            os.write(fd, data)
    finally:
        os.close(fd)


def touch(path):
    subprocess.run(["touch", path], check=True, timeout=PATIENCE_S, capture_output=True)


def fields(text):
    """key=value lines as an ordered dict of strings."""
    return dict(line.split("=", 1) for line in text.decode().splitlines())


def flock_struct(kind, start=0, length=0, pid=0):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, pid)


def fcntl_lock(fd, cmd, kind, start=0, length=0):
    """fcntl(2) with a struct flock; returns (type, start, length, pid)."""
    out = fcntl.fcntl(fd, cmd, flock_struct(kind, start, length))
    kind, _, start, length, pid = struct.unpack("hhqqi4x", out)
    return kind, start, length, pid


def sh(script, *args, timeout=None, **keywords):
    """Runs a bash script; its $1 ... are args."""
    return subprocess.run(["bash", "-c", script, "bash", *map(str, args)], capture_output=True,
                          text=True, errors="surrogateescape", timeout=timeout or PATIENCE_S,
                          **keywords)


def _busy_s():
    """For how long, since ever, something on this machine had to wait for a core or a disk, and for how long
    the cores were another machine's."""
    total = 0.0
    for what in ("cpu", "io"):
        try:
            with open(f"/proc/pressure/{what}", encoding="ascii") as f:
                total += int(f.readline().rsplit("=", 1)[1]) / 1e6
        except OSError:  # a kernel that keeps no account
            pass
    with open("/proc/stat", encoding="ascii") as f:
        return total + int(f.readline().split()[8]) / os.sysconf("SC_CLK_TCK")


class Stopwatch:
    """Time since it was made, until stop(). So that a bound holds on a busy machine too, and can be a narrow
    one, the time does not count for which something had to wait for a core."""

    ACCOUNT_S = 2.1  # the kernel's account is so old at the most

    def __init__(self):
        self.begin, self.busy_s, self.end = time.monotonic(), _busy_s(), None

    def passed(self):
        return (self.end or time.monotonic()) - self.begin

    def stop(self):
        self.end = time.monotonic()
        return self

    def busy(self):
        """For how much of it the machine was busy with something else."""
        time.sleep(max(0.0, self.begin + self.passed() + self.ACCOUNT_S - time.monotonic()))
        return _busy_s() - self.busy_s

    def within(self, seconds, what="it"):
        """Fails if more passed."""
        passed = self.passed()
        if passed <= seconds:
            return
        busy = self.busy()
        if passed - busy > seconds:
            raise AssertionError(f"{what} took {passed:.2f} s, {busy:.2f} s of it for other reasons, and "
                                 f"may take {seconds:.2f} s")


def wait_until(check, what="condition", timeout=None):
    """Calls check until it is true; returns what it gave. A time-out of its own is a claim about how long that
    takes, and checked by a Stopwatch."""
    watch = Stopwatch()
    while True:
        value = check()
        if value:
            if timeout:
                watch.within(timeout, what)
            return value
        if watch.passed() > max(timeout or 0, PATIENCE_S):
            raise AssertionError(f"timed out waiting for {what}")
        time.sleep(0.002)


def lost(fsync, fd):
    """Does the handle say that what it held is lost?"""
    try:
        fsync(fd)
    except OSError as error:
        return error.errno == errno.EIO
    return False


def suppressed():
    """For closes on a mount whose daemon is dead."""
    return contextlib.suppress(OSError)


def mounted(path):
    with open("/proc/self/mountinfo", encoding="ascii", errors="surrogateescape") as f:
        return any(line.split()[4] == path for line in f)


def in_lock_request(pid):
    """Is this process waiting for an answer to a request?"""
    try:
        with open(f"/proc/{pid}/wchan", encoding="ascii") as f:
            return "request_wait_answer" in f.read()
    except OSError:
        return False


class Agent:
    """A process of its own, in a session of its own, that makes calls on command."""

    def __init__(self, uid=None, gid=None, groups=(), newsession=True):
        self.to, child_from = socket.socketpair()
        self.signals, wakeup = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.to.close()
                os.close(self.signals)
                os.set_blocking(wakeup, False)
                signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
                self._serve(child_from, uid, gid, groups, newsession)
            except BaseException:
                traceback.print_exc()
            os._exit(3)
        child_from.close()
        os.close(wakeup)
        self.dead = False

    @staticmethod
    def _serve(sock, uid, gid, groups, newsession):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if newsession:
            os.setsid()
        if uid is not None:
            os.setgroups(list(groups))
            os.setgid(gid if gid is not None else uid)
            os.setuid(uid)
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        while True:
            head = sock.recv(4, socket.MSG_WAITALL)
            if len(head) < 4:
                os._exit(0)
            name, args, keywords = pickle.loads(
                sock.recv(struct.unpack("I", head)[0], socket.MSG_WAITALL))
            try:
                answer = (True, ACTIONS[name](*args, **keywords))
            except BaseException as error:
                answer = (False, error)
            data = pickle.dumps(answer)
            sock.sendall(struct.pack("I", len(data)) + data)

    def start(self, name, *args, **keywords):
        """Begins a call; result() gives its outcome."""
        data = pickle.dumps((name, args, keywords))
        self.to.sendall(struct.pack("I", len(data)) + data)

    def done(self, timeout=0):
        return bool(select.select([self.to], [], [], timeout)[0])

    def result(self, timeout=None):
        if not self.done(timeout or PATIENCE_S):
            raise AssertionError(f"agent {self.pid} got no answer to its call")
        head = self.to.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            raise AssertionError(f"agent {self.pid} died")
        good, value = pickle.loads(self.to.recv(struct.unpack("I", head)[0], socket.MSG_WAITALL))
        if not good:
            raise value
        return value

    def call(self, name, *args, **keywords):
        self.start(name, *args, **keywords)
        return self.result()

    def __getattr__(self, name):
        if name in ACTIONS:
            return lambda *args, **keywords: self.call(name, *args, **keywords)
        raise AttributeError(name)

    def wait_blocked(self):
        """Until the call that was begun hangs in the kernel, its request sent."""
        wait_until(lambda: self.done() or in_lock_request(self.pid), "a blocked call")
        if self.done():
            raise AssertionError(f"the call did not block: {self.result()!r}")

    def signal(self, number):
        os.kill(self.pid, number)

    def interrupt(self):
        """A signal with a handler; when this returns the interrupted call was begun again."""
        os.kill(self.pid, signal.SIGUSR1)
        if not select.select([self.signals], [], [], PATIENCE_S)[0]:
            raise AssertionError(f"agent {self.pid} did not handle its signal")
        os.read(self.signals, 1)
        self.wait_blocked()

    def kill(self):
        """SIGKILL, and gone when this returns."""
        if not self.dead:
            self.dead = True
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.signals)
        self.to.close()


def _close(fd):
    os.close(fd)


def _open_all_flock(path, flags, operation):
    fd = os.open(path, flags, 0o666)
    fcntl.flock(fd, operation)
    return fd


def _system(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S)
    return done.returncode, done.stdout, done.stderr


def _fork_sleeper():
    """A child that inherits every handle and waits to be killed."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return pid


def _kill_child(pid):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _poll(fd, events, timeout_ms):
    poll = select.poll()
    poll.register(fd, events)
    return sum(found for _, found in poll.poll(timeout_ms))


ACTIONS = {
    "open": lambda path, flags=os.O_RDWR | os.O_CREAT: os.open(path, flags, 0o666),
    "close": _close,
    "dup": os.dup,
    "flock": fcntl.flock,
    "open_flock": _open_all_flock,
    "fcntl_lock": fcntl_lock,
    "read": read,
    "read_fd": read_fd,
    "read_once": lambda fd: os.read(fd, 4096),
    "pread": os.pread,
    "write": write,
    "write_fd": os.write,
    "fsync": os.fsync,
    "ftruncate": os.ftruncate,
    "stat": lambda path: tuple(os.stat(path)),
    "listdir": os.listdir,
    "mkdir": lambda path: os.mkdir(path),
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "utime": os.utime,
    "chmod": os.chmod,
    "umask": os.umask,
    "system": _system,
    "fork_sleeper": _fork_sleeper,
    "kill_child": _kill_child,
    "poll": _poll,
    "chdir": os.chdir,
    "getsid": lambda: os.getsid(0),
}


class Tree:
    """One mount, served by a daemon in the foreground that is our child."""

    count = 0

    def __init__(self, url, options="", directory=None, member=None, agent_uid=None):
        Tree.count += 1
        self.member = member or f"host-{Tree.count}"
        self.path = directory or os.path.join(WORK, f"mnt{Tree.count}")
        self.url = url
        os.makedirs(self.path, exist_ok=True)
        self.log = open(os.path.join(WORK, f"log{Tree.count}"), "w+b")
        options = ",".join(x for x in ("foreground", f"member={self.member}", options) if x)
        self.argv = [TOOZFS, url, self.path, "-o", options]
        user = {}
        if agent_uid is not None:
            os.chown(self.path, agent_uid, agent_uid)
            user = dict(user=agent_uid, group=agent_uid, extra_groups=[])
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, **user)
        self.pid = self.process.pid
        self.uid = agent_uid

    def wait_ready(self):
        """Until the tree answers and the session is open."""
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"{' '.join(self.argv)}: exit {self.process.returncode}\n"
                                     + self.read_log())
            if not mounted(self.path):
                return False
            if self.uid is not None:
                return True
            try:
                return read(self(".tooz/state")).strip() == b"connected"
            except OSError:
                return False
        wait_until(ready, "the mount", 3 * PATIENCE_S)
        return self

    def __call__(self, *parts):
        return os.path.join(self.path, *parts)

    def read_log(self):
        self.log.flush()
        with open(self.log.name, "r", errors="replace") as f:
            return f.read()

    def wait_exit(self, timeout=None):
        return self.process.wait(timeout or PATIENCE_S)

    def umount(self):
        """umount(8), then waits for the daemon; returns its exit status."""
        subprocess.run(["umount", self.path], check=True, timeout=PATIENCE_S)
        return self.wait_exit()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.log.closed:
            return
        wrong = None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                if self.process.wait(PATIENCE_S) != 0:
                    wrong = f"ended with {self.process.returncode}"
            except subprocess.TimeoutExpired:
                wrong = "ignored SIGTERM"
                self.kill()
        while mounted(self.path):
            subprocess.run(["umount", "-l", self.path], timeout=PATIENCE_S, check=False)
        text = self.read_log()
        if text:
            print(f"--- {' '.join(self.argv)}\n{text}---", file=sys.stderr)
        self.log.close()
        if wrong:
            raise AssertionError(f"the daemon of {self.path} {wrong}")


class Case(unittest.TestCase):
    """A test with mounts and agents that end with it."""

    def tree(self, url="memory://", options="", ready=True, **keywords):
        tree = Tree(url, options, **keywords)
        self.addCleanup(tree.stop)
        return tree.wait_ready() if ready else tree

    def store(self):
        """A fresh directory for file://."""
        return tempfile.mkdtemp(prefix="store", dir=WORK)

    def pair(self, options="", url=None):
        """Two mounts on one store."""
        url = url or "file://" + self.store()
        one, two = Tree(url, options), Tree(url, options)
        self.addCleanup(one.stop)
        self.addCleanup(two.stop)
        return one.wait_ready(), two.wait_ready()

    def agent(self, uid=None, **keywords):
        agent = Agent(uid, **keywords)
        self.addCleanup(agent.kill)
        return agent

    def spawn(self, *argv, **keywords):
        """A program that is killed at the end of the test."""
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **keywords)

        def end():
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()
        self.addCleanup(end)
        return process

    def open(self, path, flags=os.O_RDWR | os.O_CREAT):
        """A handle of the test itself; gives the number, closed at the end unless it was before."""
        fd = os.open(path, flags, 0o666)

        def end():
            try:
                os.close(fd)
            except OSError:
                pass
        self.addCleanup(end)
        return fd

    def fails(self, code, call, *args, **keywords):
        """The call must fail with this errno (or one of these)."""
        codes = code if isinstance(code, tuple) else (code,)
        names = "/".join(errno.errorcode[c] for c in codes)
        try:
            value = call(*args, **keywords)
        except OSError as error:
            if error.errno not in codes:
                raise AssertionError(f"{errno.errorcode.get(error.errno, error.errno)} instead of "
                                     f"{names}: {error}") from error
            return error
        raise AssertionError(f"succeeded ({value!r}) instead of {names}")

    def free_soon(self, fd, mode=EX):
        """An unlock is answered when it is on its way: another mount may come before it."""
        def taken():
            try:
                fcntl.flock(fd, mode | NB)
                return True
            except BlockingIOError:
                return False
        wait_until(taken, "the release", 1 * SLOW)

    def says(self, tree, words):
        """A line is written soon after what it tells of."""
        wait_until(lambda: re.search(words, tree.read_log()), f"'{words}' in the log")

    def told_of_loss(self, fd, seconds=1):
        """The holder is told, without asking, and soon."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        wait_until(lambda: any(events & select.POLLERR for _, events in poll.poll(100)), "the loss",
                   seconds * SLOW)
        self.fails(errno.EIO, os.fsync, fd)

    def stays_blocked(self, agent):
        self.assertFalse(agent.done(SHORT_S), "a call that had to wait was answered")

    def wait_waiters(self, path, count):
        """Until the lock shows so many waiters on its mount."""
        wait_until(lambda: int(fields(read(path)).get("waiters", "0")) == count,
                   f"{count} waiters at {path}")


class Memory(Case):
    """a and b are one mount of memory://."""

    crossing = False

    def setUp(self):
        self.a = self.b = self.tree("memory://", self.options)

    options = ""


class File(Case):
    """a and b are two mounts on one directory of file://."""

    crossing = True

    def setUp(self):
        self.a, self.b = self.pair(self.options)

    options = ""


_modules = {}


def need_module(name):
    """Skips where this driver is not built."""
    if not _modules:
        done = subprocess.run([TOOZFS, "--drivers"], capture_output=True, text=True, timeout=30,
                              check=False)
        _modules.update({line.split(":")[0]: 1 for line in done.stdout.splitlines()
                         if line[:1].isalpha()})
    if name not in _modules:
        raise unittest.SkipTest(f"the driver {name} is not built")


def server(kind):
    """One of tests/lib/servers.py for the whole program; a test that needs it alone makes its own."""
    need_module(kind.split("-")[0])
    try:
        return servers.shared(kind)
    except servers.Missing as missing:
        raise unittest.SkipTest(str(missing)) from missing


class Served(Case):
    """a and b are two mounts on a server of kind, in a namespace of their own."""

    crossing = True
    kind = options = ""

    def setUp(self):
        self.a, self.b = self.pair(self.options, server(self.kind).url())


class Redis(Served):
    kind = "redis"


class ZooKeeper(Served):
    kind = "zookeeper"


class _Loader(unittest.TestLoader):
    """Only the cases of the store that the environment names, or those that need no server; of them the part that
    it names, where it names one."""

    def loadTestsFromModule(self, module, *args, **keywords):  # noqa: N802, pylint: disable=invalid-name
        found = super().loadTestsFromModule(module, *args, **keywords)
        part, count = map(int, os.environ.get("TOOZFS_PART", "1/1").split("/"))
        units = {}
        for case in (case for cases in found for case in cases):
            # What shares something that is costly to make stays together.
            units.setdefault(getattr(case, "costly", case.id()), []).append(case)
        units = sorted(units.values(), key=len, reverse=True)
        return self.suiteClass(case for unit in units[part - 1::count] for case in unit)

    def loadTestsFromTestCase(self, testCaseClass):  # noqa: N802, pylint: disable=invalid-name
        if getattr(testCaseClass, "kind", "") != os.environ.get("TOOZFS_STORE", ""):
            return self.suiteClass()
        return super().loadTestsFromTestCase(testCaseClass)


def _descendants(pid):
    """Every process below pid, children first named."""
    found = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as f:
                children = [int(x) for x in f.read().split()]
        except OSError:
            continue
        for child in children:
            found.append(child)
            try:
                found += _descendants(child)
            except OSError:
                pass
    return found


def _clean_up():
    for _ in range(100):
        left = _descendants(os.getpid())
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        time.sleep(0.02)
    _forget_mounts()


def _shadow():
    """A process that cleans up after a supervisor that could not."""
    waits, alive = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() != 0:
        os.close(waits)
        return alive  # of the supervisor alone
    try:
        os.close(alive)
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        os.read(waits, 1)
        mark = b"TOOZFS_SERVERS_DIR=" + os.fsencode(WORK)
        for _ in range(100):
            # Programs are known by what they inherited; forks of ours die with their parent.
            found = [pid for pid in os.listdir("/proc") if pid.isdigit() and _bears(pid, mark)]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if not found:
                break
            time.sleep(0.02)
        _forget_mounts()
    finally:
        os._exit(0)


def _bears(pid, mark):
    """Nor does it wait for one that hangs in execve, as the daemon that it waits for may be one of those to be killed."""
    found = []

    def look():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as f:
            found.append(mark in f.read().split(b"\0"))
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(1)
    return any(found)


def _forget_mounts():
    with open("/proc/self/mountinfo", encoding="ascii", errors="surrogateescape") as f:
        points = [line.split()[4] for line in f]
    for point in reversed(points):
        if point.startswith(WORK + "/"):
            subprocess.run(["umount", "-l", point], timeout=10, check=False)
    shutil.rmtree(WORK, ignore_errors=True)


def _run_cases():
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    program = unittest.main(module="__main__", exit=False, verbosity=2, testLoader=_Loader())
    sys.stderr.flush()
    result = program.result
    if not result.wasSuccessful():
        return 1
    if result.skipped and len(result.skipped) >= result.testsRun:
        return 77
    if not result.testsRun:
        print("there is no case")
        return 1
    return 0


def supervise(run, limit_s=None):
    """Runs run() in a child with a work directory and a time limit; exits with its status."""
    global WORK
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        print("needs root and /dev/fuse")
        sys.exit(77)
    if not os.access(TOOZFS, os.X_OK):
        print(f"TOOZFS={TOOZFS!r} is no program")
        sys.exit(77)
    # Short, because the name of a mount has room for little, and of mode 0755 for other users.
    WORK = os.path.realpath(tempfile.mkdtemp(prefix="toozfs-"))
    os.chmod(WORK, 0o755)
    os.environ["TOOZFS_SERVERS_DIR"] = WORK
    alive, supervisor = _shadow(), os.getpid()
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        status = 1
        os.close(alive)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        # What nohup and a shell's background jobs ignore, the programs under test would, too.
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            if os.getppid() != supervisor:
                os._exit(1)
            status = run()
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    status = None

    def out_of_time(*_):
        raise TimeoutError
    signal.signal(signal.SIGALRM, out_of_time)
    signal.signal(signal.SIGTERM, out_of_time)
    signal.signal(signal.SIGINT, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, (limit_s or LIMIT_S) * SLOW)
    try:
        while status is None:
            pid, code = os.wait()
            if pid == child:
                status = os.waitstatus_to_exitcode(code)
    except TimeoutError:
        print("out of time", file=sys.stderr)
    signal.setitimer(signal.ITIMER_REAL, 0)
    _clean_up()
    sys.exit(1 if status is None or status < 0 else status)


def main(limit_s=None):
    supervise(_run_cases, limit_s)
