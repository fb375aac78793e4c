# SPDX-License-Identifier: Apache-2.0
"""A log that nobody reads holds up nothing, and says afterwards what it does not have.

Everything happens in a mount namespace of its own, with a /dev whose log is ours.
"""
import ctypes
import errno
import fcntl
import os
import pty
import re
import select
import signal
import socket
import subprocess
import threading

import lib
from lib import EX

CLONE_NEWNS = 0x20000
LOCKS = 15
FLUSH_S = 1  # how long a daemon waits at its end for a reader
LINES_MAX = 1024  # of the queue
LOST = re.compile(r"lock (\S+) was lost: it was broken \(held by process (\d+)\)")


def fill(send):
    """Sends until nothing more is taken."""
    for size in (100, 1):
        try:
            while True:
                send(b"x" * size)
        except BlockingIOError:
            pass


class Syslog:
    """A /dev/log."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("/dev/log")

    def fill(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.connect("/dev/log")
            fill(to.send)

    def line(self):
        self.socket.settimeout(lib.PATIENCE_S)
        return self.socket.recv(4096).decode()

    def lines(self):
        """All that is there."""
        self.socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return found

    def close(self):
        self.socket.close()
        os.unlink("/dev/log")


class Holders(lib.Case):
    """They lose their locks to rm, which has its answer from the loop."""

    def hold(self, path, count=LOCKS):
        """By an agent, for an rm by a descendant of the holder is a release."""
        holder = self.agent()
        names = [os.path.join(path, f"locks/l{i}") for i in range(count)]
        return holder, names, [holder.open_flock(name, os.O_RDWR | os.O_CREAT, EX) for name in names]

    def lose(self, path):
        holder, names, fds = self.hold(path)
        remover = self.agent()
        remover.start("system", "rm", *names)
        for fd in fds:
            lib.wait_until(lambda: holder.poll(fd, select.POLLIN, 100) & select.POLLERR, "the loss",
                           1 * lib.SLOW)
            self.fails(errno.EIO, holder.fsync, fd)
        self.assertEqual(remover.result()[0], 0)
        self.answers(path)
        return holder

    def answers(self, path):
        agent = self.agent()
        agent.start("read", os.path.join(path, ".tooz/state"))
        self.assertEqual(agent.result(), b"connected\n")
        fd = self.open(os.path.join(path, "locks/other"))
        fcntl.flock(fd, EX)
        os.close(fd)


class ToSyslog(Holders):
    def setUp(self):
        self.dir = lib.tempfile.mkdtemp(prefix="m", dir=lib.WORK)
        self.log = Syslog()
        self.addCleanup(self.log.close)

    def mount(self, *args):
        done = subprocess.run([lib.TOOZFS, "memory://unread", self.dir, *args], capture_output=True,
                              timeout=lib.PATIENCE_S, check=True, text=True)
        # What it says at its end is nothing that the next test may read.
        self.addCleanup(lib.sh, 'while mountpoint -q "$1"; do umount -l "$1"; done; "$2" --wait "$1"', self.dir,
                        lib.TOOZFS)
        self.assertEqual(done.stderr, "")

    def end(self):
        subprocess.run(["umount", self.dir], check=True, timeout=lib.PATIENCE_S)
        subprocess.run([lib.TOOZFS, "--wait", self.dir], check=True, timeout=lib.PATIENCE_S)

    def test_unread(self):
        self.mount()
        begin = self.log.line()
        self.assertIn("memory://unread on " + self.dir, begin)
        self.log.fill()
        self.lose(self.dir).kill()
        watch = lib.Stopwatch()
        self.end()
        pid = re.search(r"toozfs\[(\d+)\]", begin)[1]
        lib.wait_until(lambda: lib.read(f"/proc/{pid}/stat").split()[2] == b"Z", "the end")
        watch.within(FLUSH_S + 1 * lib.SLOW, "the end")

    def test_read_late(self):
        self.mount()
        self.log.line()
        self.log.fill()
        holder = self.lose(self.dir)
        lines = [line for line in self.log.lines() if not line.endswith("x")]
        while len(lines) < LOCKS:
            lines.append(self.log.line())
        for i, line in enumerate(lines):
            found = LOST.search(line)
            self.assertTrue(found, line)
            self.assertEqual((found[1], int(found[2])), (f"l{i}", holder.pid))
            self.assertIn(self.dir + ": ", line)

    def test_nothing_is_missing_at_the_end(self):
        self.mount()
        holder, names, _ = self.hold(self.dir, 3)
        os.unlink(names[0])
        holder.kill()
        self.end()
        lines = [self.log.line()]
        while "the session is stopped" not in lines[-1]:
            lines.append(self.log.line())
        self.assertIn("on " + self.dir, lines[0])
        self.assertIn("l0 was lost", lines[1])


class NoSyslog(ToSyslog):
    """It is told to who asks, or types the command; a script's output stays clean."""

    def setUp(self):
        super().setUp()
        self.assertTrue(os.path.exists("/dev/log"))
        os.rename("/dev/log", "/dev/other")
        self.addCleanup(os.rename, "/dev/other", "/dev/log")

    test_unread = test_read_late = test_nothing_is_missing_at_the_end = None

    def test_script(self):
        self.mount()
        self.end()

    def test_verbose(self):
        done = lib.sh('"$1" -v memory://unread "$2"', lib.TOOZFS, self.dir)
        self.end()
        self.assertIn("no syslog here (/dev/log)", done.stderr)
        self.assertEqual(done.stderr.count("no syslog"), 1)

    def test_terminal(self):
        ours, theirs = pty.openpty()
        subprocess.run([lib.TOOZFS, "memory://unread", self.dir], stderr=theirs, check=True,
                       timeout=lib.PATIENCE_S)
        os.close(theirs)
        self.assertIn(b"-o foreground writes it", os.read(ours, 4096))
        os.close(ours)
        self.end()


def mount_unread(case, url, options="foreground", blocking=True):
    """A mount in the foreground whose standard error is a pipe, full and not read: (daemon, directory, pipe)."""
    path = lib.tempfile.mkdtemp(prefix="m", dir=lib.WORK)
    ours, theirs = os.pipe()
    daemon = case.spawn(lib.TOOZFS, url, path, "-o", options, stdout=subprocess.DEVNULL,
                        stderr=theirs)
    case.addCleanup(lib.sh, 'while mountpoint -q "$1"; do umount -l "$1"; done', path)
    pipe = open(ours, "rb", buffering=0)
    case.addCleanup(pipe.close)
    text = b""
    while b", member " not in text:
        text += pipe.read(4096)
    os.set_blocking(theirs, blocking)
    # Through a description of our own: the daemon's is to wait.
    again = os.open(f"/proc/self/fd/{theirs}", os.O_WRONLY | os.O_NONBLOCK)
    os.close(theirs)

    def write(data):
        if not os.write(again, data):
            raise BlockingIOError
    fill(write)
    os.close(again)
    return daemon, path, pipe


class ToPipe(Holders):
    blocking = True

    def setUp(self):
        self.daemon, self.dir, self.pipe = mount_unread(self, "memory://unread", blocking=self.blocking)

    def lines(self):
        """All until the daemon's end."""
        text = self.pipe.read()
        part = b""
        while part := self.pipe.read(65536):
            text += part
        return text.decode().lstrip("x").splitlines()

    def test_unread(self):
        self.lose(self.dir)
        watch = lib.Stopwatch()
        self.daemon.send_signal(signal.SIGTERM)
        self.assertEqual(self.daemon.wait(lib.PATIENCE_S), 0)
        watch.within(FLUSH_S + 1 * lib.SLOW, "the end")

    def test_what_was_dropped_is_counted(self):
        path, count = os.path.join(self.dir, "locks/l"), LINES_MAX + 100
        holder = self.agent()
        for _ in range(count):
            fd = holder.open_flock(path, os.O_RDWR | os.O_CREAT, EX)
            os.unlink(path)
            holder.close(fd)
        reader = threading.Thread(target=lambda: setattr(self, "found", self.lines()))
        reader.start()
        self.answers(self.dir)
        subprocess.run(["umount", self.dir], check=True, timeout=lib.PATIENCE_S)
        self.assertEqual(self.daemon.wait(lib.PATIENCE_S), 0)
        reader.join()
        dropped = [int(m[1]) for m in map(re.compile(r": (\d+) lines? w\w+ not logged").search,
                                          self.found) if m]
        lost = sum(bool(LOST.search(line)) for line in self.found)
        self.assertEqual(len(dropped), 1, self.found[-3:])
        self.assertEqual(lost + dropped[0], count)
        self.assertGreaterEqual(lost, LINES_MAX)
        self.assertIn("the session is stopped", self.found[-1])


class ToPipeThatDoesNotBlock(ToPipe):
    """As of a supervisor that reads its services' output by an event loop."""

    blocking = False


def own_dev():
    """A /dev of the same devices, without a log."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) < 0:
        return False
    script = """
        mount --make-rprivate / && mount -t tmpfs tmpfs /mnt && mkdir /mnt/pts /mnt/shm &&
        for name in null zero full random urandom tty fuse; do
            touch /mnt/$name && mount --bind /dev/$name /mnt/$name || exit
        done
        mount --bind /dev/pts /mnt/pts && ln -s pts/ptmx /mnt/ptmx && ln -s /proc/self/fd /mnt/fd &&
        mount --move /mnt /dev"""
    return subprocess.run(["sh", "-c", script], timeout=30, check=False).returncode == 0


if __name__ == "__main__":
    if os.geteuid() != 0 or not own_dev():
        print("needs root and mount namespaces")
        lib.sys.exit(77)
    lib.main()
