# SPDX-License-Identifier: Apache-2.0
"""The processes of the fault suite that use the mounts. Each writes what it sees into a diary of its own."""
import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import random
import select
import signal
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "tree"), os.path.join(HERE, "..", "interop")]
import lib  # noqa: E402
from streams import Reader  # noqa: E402

from diary import Diary, Resource, now  # noqa: E402

LOCKS = ("l0", "l1", "l2")
LOOK_S = 0.025    # how often a holder looks
CLEAN_S = 0.2     # how often it notes that all is well
LEASE_S = 0.075   # how often it asks how long that is
TOOZ_RUN = os.environ.get("TOOZ_RUN", "")


class Desk:
    """What all processes of a round share: a directory, its length of lease, and whether it is over."""

    def __init__(self, directory, ttl_s, seed):
        self.directory, self.ttl_s, self.seed = directory, ttl_s, seed
        os.makedirs(directory)
        self._over = mmap.mmap(-1, 1)
        for lock in LOCKS:
            lib.write(self.path(f"guard-{lock}"), b"0")

    def path(self, name):
        return os.path.join(self.directory, name)

    def over(self):
        return self._over[0] == 1

    def finish(self):
        self._over[0] = 1
        lib.write(self.path("over"), b"")


def spawn(run, *args):
    """A process for run(*args); returns its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent, pid = os.getpid(), os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(lib.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            os.setsid()
            run(*args)
        os._exit(0)
    except BaseException:
        lib.traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


# ---- Who takes locks ----

class _TimeUp(Exception):
    pass


def _time_up(*_):
    raise _TimeUp


# What takes a lock in this way: how it is asked for, exclusive or shared, waiting or not.
def _flock(fd, mode, wait):
    fcntl.flock(fd, (lib.SH if mode == "s" else lib.EX) | (0 if wait else lib.NB))


def _record(wait_command, try_command):
    def lock(fd, mode, wait):
        lib.fcntl_lock(fd, wait_command if wait else try_command, fcntl.F_RDLCK if mode == "s" else fcntl.F_WRLCK)
    return lock


WAYS = {"flock": _flock, "ofd": _record(fcntl.F_OFD_SETLKW, fcntl.F_OFD_SETLK),
        "posix": _record(fcntl.F_SETLKW, fcntl.F_SETLK)}


class Taker:
    """Takes a lock in one of the ways that there are, works, lets go, again and again."""

    def __init__(self, desk, name, mount, path, sharers=True):
        self.desk, self.mount, self.path = desk, mount, path
        self.tell = Diary(desk.directory, name)
        self.rng = random.Random(f"{desk.seed} {name}")
        self.resources = {lock: Resource(desk.directory, lock) for lock in LOCKS}
        self.sharers = sharers

    def how_long(self):
        if self.desk.over():
            return 0.01
        r = self.rng.random()
        if r < 0.6:
            return self.rng.uniform(0, 0.1)
        return self.rng.uniform(0, 0.4 if r < 0.92 else 1.3 * self.desk.ttl_s)

    def run(self):
        signal.signal(signal.SIGALRM, _time_up)
        while not self.desk.over():
            lock = self.rng.choice(LOCKS)
            mode = "s" if self.sharers and self.rng.random() < 0.25 else "x"
            how = self.rng.choice(("wait", "wait", "try", "timed"))
            via = self.rng.choice((*WAYS, "flock", "excl"))
            if via == "excl":
                mode, how = "x", "try"
            self.tell("want", l=lock, m=mode, mount=self.mount, how=how, via=via)
            try:
                self.take(lock, mode, how, via)
            except _TimeUp:
                self.tell("answer", why="time up")
            except OSError as error:
                self.tell("answer", why=errno.errorcode.get(error.errno, str(error.errno)))
                if error.errno not in (errno.EAGAIN, errno.EEXIST):
                    time.sleep(0.05)
            if self.rng.random() < 0.3:
                time.sleep(self.rng.uniform(0, 0.05))

    def take(self, lock, mode, how, via):
        flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if via == "excl" else 0)
        fd = os.open(os.path.join(self.path, "locks", lock), flags, 0o666)
        try:
            if via != "excl":
                self.lock(fd, mode, how, via)
            self.tell("got")
            self.hold(fd, lock, mode)
            self.tell("free")
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)

    def lock(self, fd, mode, how, via):
        if how == "timed":
            signal.setitimer(signal.ITIMER_REAL, self.rng.uniform(0.01, self.desk.ttl_s))
        try:
            WAYS[via](fd, mode, how != "try")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def hold(self, fd, lock, mode):
        """Until it is enough, or it is lost."""
        asks = self.rng.random() < 0.5  # the others wait to be told
        enough, noted = now() + self.how_long(), 0.0
        poll = select.poll()
        poll.register(fd, 0)
        token, clean, lost = self.token(fd), now(), None
        until, asked = None, 0.0
        while lost is None:
            began = now()
            if poll.poll(0):
                lost = "poll"
            elif asks or not noted:
                lost = self.ask(fd)
            if lost == "unknown":
                lost = None
            elif lost is None:
                clean = began
                if token is not None and mode == "x":
                    self.work(lock, token, clean)
                if began - noted > CLEAN_S:
                    noted = began
                    self.tell("clean", t=began)
                if began - asked > LEASE_S:
                    until, asked = self.until() or until, began
            if lost is None and (now() >= enough or self.desk.over()):
                break
            if lost is None:
                poll.poll(1000 * LOOK_S)
        # The last look that was good belongs before what came then.
        at = now()
        if clean > noted > 0:
            self.tell("clean", t=clean)
        if lost:
            self.tell("told", t=at, by=lost, until=until)
            if self.ask(fd) is None:
                self.tell("clean")  # which the checker does not like

    def until(self):
        """To when the mount counts on what it holds, at the least; None: for ever, or that is not known."""
        began = now()
        try:
            left = lib.fields(lib.read(os.path.join(self.path, ".tooz", "session"))).get("left")
            return began + float(left) if left else None
        except (OSError, ValueError):
            return None

    def token(self, fd):
        try:
            token = int(lib.fields(os.pread(fd, 4096, 0))["token"])
        except (OSError, KeyError):
            return None
        self.tell("token", tok=token)
        return token

    @staticmethod
    def ask(fd):
        """None: the backend says that it is still held. "unknown", or how the loss was told."""
        try:
            os.fsync(fd)
            return None
        except OSError as error:
            if error.errno in (errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EINTR):
                return "unknown"
            return errno.errorcode[error.errno]

    def work(self, lock, token, clean):
        if self.rng.random() < 0.5:
            time.sleep(self.rng.uniform(0, 0.02))  # between the look and the write
        self.tell("line", l=lock, tok=token, c=clean, mount=self.mount)
        last = self.resources[lock].write(token)
        if last is not None:
            self.tell("refused", last=last)


class PythonTaker(Taker):
    """The same through Python's tooz. It is not told of losses: it looks."""

    def __init__(self, desk, name, url):
        super().__init__(desk, name, None, None, sharers=False)
        self.url, self.coordinator = url, None

    def start(self):
        import interop
        name = self.tell.name.encode()
        self.coordinator = interop.coordination.get_coordinator(self.url, name)
        self.coordinator.start(start_heart=True)
        return {lock: self.coordinator.get_lock(lock.encode()) for lock in LOCKS}

    def run(self):
        import logging
        logging.disable(logging.CRITICAL)
        locks = None
        while not self.desk.over():
            try:
                locks = locks or self.start()
                self.once(*self.rng.choice(list(locks.items())))
            except Exception as error:  # pylint: disable=broad-except
                # Whatever its libraries raise while servers fail.
                self.tell("answer", why=f"Python: {type(error).__name__}")
                time.sleep(0.05)
        os._exit(0)  # without a word to the server: its lease ends

    def once(self, name, lock):
        self.tell("want", l=name, m="x", mount=None, how="python", via="Python")
        if not lock.acquire(blocking=self.rng.choice((False, 0.3))):
            self.tell("answer", why="Python: not acquired")
            time.sleep(0.02)
            return
        self.tell("got")
        try:
            enough = now() + min(self.how_long(), 0.5)
            while True:
                began = now()
                if not lock.is_still_owner():
                    break
                self.tell("clean", t=began)
                if now() >= enough or self.desk.over():
                    break
                time.sleep(0.05)
        finally:
            self.tell("free")
            lock.release()


class Runner(Taker):
    """The same through tooz-run: a process for each lock, which holds while it lives, and looks at nothing."""

    def run(self):
        number = 0
        while not self.desk.over():
            number += 1
            self.once(Diary(self.desk.directory, f"{self.tell.name}.{number}"))
            if self.rng.random() < 0.3:
                time.sleep(self.rng.uniform(0, 0.05))

    def once(self, tell):
        lock, mode = self.rng.choice(LOCKS), "s" if self.rng.random() < 0.25 else "x"
        how = self.rng.choice(([], [], ["-n"], ["-w", f"{self.rng.uniform(0.01, self.desk.ttl_s):.2f}"]))
        argv = [TOOZ_RUN, "-l", os.path.join(self.path, "locks", lock), *(["-s"] if mode == "s" else []), *how]
        if self.rng.random() < 0.3:
            argv += ["-g", "0"]
        argv += ["--", sys.executable, "-I", "-S", os.path.join(HERE, "command.py"), self.desk.directory, tell.name,
                 lock, mode, str(self.mount), f"{self.how_long():.3f}", self.rng.choice(("deaf", "slow", "meek"))]
        tell("want", l=lock, m=mode, mount=self.mount, how=" ".join(how) or "wait", via="tooz-run")
        with open(self.desk.path("said"), "ab") as said:
            # pylint: disable=subprocess-popen-preexec-fn
            code = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                                    preexec_fn=lambda: ctypes.CDLL(None).prctl(lib.PR_SET_PDEATHSIG,
                                                                               signal.SIGKILL)).wait()
        tell("over", code=code)
        tell.close()
        if code not in (0, 1):
            time.sleep(0.05)


def take(*args):
    Taker(*args).run()


def take_by_run(*args):
    Runner(*args).run()


def take_python(*args):
    PythonTaker(*args).run()


# ---- Who is a member, and who follows ----

def keep(desk, mount, tree_path, member):
    """Joins under the mount's own id, once, as soon as it can; ends then."""
    del desk, mount
    group = os.path.join(tree_path, "groups", "g")
    while True:
        try:
            if lib.read(os.path.join(tree_path, ".tooz/state")).strip() == b"connected":
                with contextlib.suppress(FileExistsError):
                    os.mkdir(group)
                lib.write(os.path.join(group, member), b'{"a":1}')
                return
        except OSError:
            pass
        time.sleep(0.05)


def churn(desk, mount, tree_path):
    """Joins and leaves, so that there is something to follow."""
    rng = random.Random(f"{desk.seed} churn {mount}")
    path = os.path.join(tree_path, "groups", "g", f"extra-{mount}")
    while not desk.over():
        with contextlib.suppress(OSError):
            if rng.random() < 0.6:
                lib.write(path, b"%d" % rng.randrange(100))
            else:
                os.unlink(path)
        time.sleep(rng.uniform(0.02, 0.4))


def follow(desk, mount, tree_path):
    """Writes down what a reader of the group's events is told; a line "#open" where it began anew."""
    out = os.open(desk.path(f"follow-{mount}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    while True:
        reader = None
        try:
            reader = Reader(os.path.join(tree_path, "events", "g"))
            os.write(out, b"#open\n")
            while not reader.ended:
                reader.take(10)
                if reader.lines:
                    os.write(out, "".join(line + "\n" for line in reader.lines).encode())
                    reader.lines = []
        except OSError:
            pass
        finally:
            if reader:
                with contextlib.suppress(OSError):
                    reader.close()
        time.sleep(0.05)


def look(desk, mount, tree_path):
    """What a user sees, again and again: state, and members."""
    out = os.open(desk.path(f"look-{mount}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    while True:
        began = now()
        try:
            state = lib.read(os.path.join(tree_path, ".tooz/state")).decode().strip()
            members = os.listdir(os.path.join(tree_path, "groups", "g"))
            os.write(out, json.dumps({"t": now(), "began": began, "state": state, "members": members}).encode() + b"\n")
        except OSError:
            pass
        time.sleep(LOOK_S)


def pulse(desk):
    """Notes when the machine gave nobody a core for long."""
    tell = Diary(desk.directory, "pulse")
    while True:
        began = now()
        time.sleep(0.02)
        if now() - began > 0.15:
            tell("stall", begin=began, end=now())
