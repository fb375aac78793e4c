# SPDX-License-Identifier: Apache-2.0
"""on_loss=: who is signalled when a lock is lost, and who is not."""
import contextlib
import os
import re
import signal
import subprocess

import lib
from lib import EX

# Holds argv[1], and what it forks then inherits the handle; the child waits for its end, with one of these:
# "uid": as another user. "blocked": in a request for argv[2], of a handle of its own.
HOLDER = """
import fcntl, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
child = os.fork()
if child:
    print(child, flush=True)
elif sys.argv[3] == "uid":
    os.setuid(65534)
    os.write(1, b"ready")
elif sys.argv[3] == "blocked":
    other = os.open(sys.argv[2], os.O_RDWR)
    os.write(1, b"ready")
    fcntl.flock(other, fcntl.LOCK_EX)
while True:
    signal.pause()
"""


class Base(lib.Case):
    def setUp(self):
        self.mount = self.tree(options="on_loss=term")
        self.lock = self.mount("locks/l")

    def session(self, script, *args):
        """A script in a session of its own; its $1 is the lock."""
        return self.spawn("bash", "-c", script, "bash", self.lock, *args, start_new_session=True)

    def held(self, *command):
        """A process that holds the lock and runs a command, in a session of its own."""
        return self.spawn("flock", self.lock, *command, start_new_session=True)

    def mark(self):
        """A file that is not there yet."""
        return os.path.join(lib.tempfile.mkdtemp(prefix="mark", dir=lib.WORK), "mark")

    def pid_in(self, path):
        return int(lib.wait_until(lambda: os.path.exists(path) and lib.read(path).endswith(b"\n") and
                                  lib.read(path), path))

    def lose(self, path=None):
        """Breaks the lock, from another session."""
        subprocess.run(["setsid", "-w", "rm", path or self.lock], check=True, timeout=lib.PATIENCE_S)

    def logged(self, text):
        lib.wait_until(lambda: text in self.mount.read_log(), "the log: " + text)

    def signalled(self, pid):
        self.logged(f"locks/l was lost: signal 15 to process {pid}\n")

    def spared(self, pid):
        """Walks come one after the other: that of a later loss shows that this one's is over."""
        path = self.mount("locks/later")
        mark = self.mark()
        later = self.spawn("flock", path, "bash", "-c", 'echo $$ >"$1"; exec sleep 70', "bash", mark,
                           start_new_session=True)
        self.pid_in(mark)
        self.lose(path)
        self.assertEqual(later.wait(lib.PATIENCE_S), -signal.SIGTERM)
        self.assertNotIn(f"to process {pid}\n", self.mount.read_log())
        self.assertEqual(lib.read(f"/proc/{pid}/stat").split(b") ")[1][:1], b"S")


class Namespaces(Base):
    """The mount need not be in the mount namespace of who has the file open, nor in any."""

    def test_taker_in_another(self):
        taker = self.session('exec 9<>"$1"; flock 9; exec unshare -m sleep 70')
        lib.wait_until(lambda: lib.read(f"/proc/{taker.pid}/comm") == b"sleep\n", "the namespace")
        self.lose()
        self.assertEqual(taker.wait(lib.PATIENCE_S), -signal.SIGTERM)

    def test_job_that_does_not_see_the_mount(self):
        mark = self.mark()
        holder = self.held("unshare", "-m", "--propagation", "private", "bash", "-c",
                           'umount -l "$1"; echo $$ >"$2"; exec sleep 70', "bash", self.mount.path, mark)
        job = self.pid_in(mark)
        self.lose()
        self.assertEqual(holder.wait(lib.PATIENCE_S), -signal.SIGTERM)
        self.signalled(job)

    def test_after_a_lazy_umount(self):
        """The daemon serves on, and another mount breaks the lock."""
        url = "file://" + self.store()
        self.mount, other = self.tree(url, "on_loss=term"), self.tree(url)
        self.lock = self.mount("locks/l")
        mark = self.mark()
        holder = self.held("bash", "-c", 'echo $$ >"$1"; exec sleep 70', "bash", mark)
        job = self.pid_in(mark)
        subprocess.run(["umount", "-l", self.mount.path], check=True, timeout=lib.PATIENCE_S)
        lib.wait_until(lambda: os.path.exists(other("locks/l")), "the lock")
        os.unlink(other("locks/l"))
        self.assertEqual(holder.wait(lib.PATIENCE_S), -signal.SIGTERM)
        self.signalled(job)
        self.assertEqual(self.mount.wait_exit(), 0)


class Kernel(Base):
    """What a walk asks about a descriptor the kernel answers, not the daemon, which may wait for the walk."""

    def ask(self, cached):
        return self.spawn("stat", "-L", f"--cached={cached}", "-c", "%i", self.path,
                          stdout=subprocess.PIPE, text=True)

    def answered_without_daemon(self, ino):
        os.kill(self.mount.pid, signal.SIGSTOP)
        try:
            default = self.ask("default")
            for _ in range(3):
                out, _ = self.ask("always").communicate(timeout=lib.PATIENCE_S)
                self.assertEqual(out, f"{ino}\n")
            # What the kernel knows is out of date: whoever wants more waits for the daemon.
            never = self.ask("never")
            self.assertFalse(lib.select.select([never.stdout], [], [], lib.SHORT_S)[0])
        finally:
            os.kill(self.mount.pid, signal.SIGCONT)
        for asked in (default, never):
            self.assertEqual(asked.communicate(timeout=lib.PATIENCE_S)[0], f"{ino}\n")

    def test_daemon_that_does_not_answer(self):
        agent = self.agent()  # whose descriptor no child of ours inherits and closes, which asks the daemon
        fd = agent.open_flock(self.lock, os.O_RDWR | os.O_CREAT, lib.EX)
        self.path = f"/proc/{agent.pid}/fd/{fd}"
        ino = os.stat(self.path).st_ino
        self.answered_without_daemon(ino)
        os.truncate(self.lock, 0)  # attributes are out of date from now on
        self.answered_without_daemon(ino)
        subprocess.run(["umount", "-l", self.mount.path], check=True, timeout=lib.PATIENCE_S)
        self.answered_without_daemon(ino)


class Taker(Base):
    def test_who_asked_last_and_execs(self):
        """Of one handle: his execve closes files of ours, and the first of them grants the other what he asked for."""
        process = self.spawn("/usr/bin/python3", "-c", """
import fcntl, os, signal, sys, time
path = sys.argv[1]
held = os.open(path, os.O_RDWR | os.O_CREAT)
fcntl.lockf(held, fcntl.LOCK_EX)
shared = os.open(path, os.O_RDWR)
more = [os.open(path, os.O_RDWR) for _ in range(200)]
child = os.fork()
if child == 0:
    print(os.getpid(), flush=True)
    fcntl.flock(shared, fcntl.LOCK_EX)
    print("granted", flush=True)
    signal.pause()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
try:
    fcntl.flock(shared, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    os.execv("/bin/sleep", ["sleep", "70"])
""", self.lock, stdout=subprocess.PIPE, start_new_session=True)
        self.addCleanup(os.killpg, process.pid, signal.SIGKILL)
        child = int((process.stdout.readline() + process.stdout.readline()).replace(b"ready\n", b""))
        lib.wait_until(lambda: lib.in_lock_request(child), "the wait")
        os.kill(process.pid, signal.SIGUSR1)
        self.assertEqual(process.stdout.readline(), b"granted\n")
        self.lose()
        self.signalled(child)


class Stuck(Base):
    """A process that hangs in execve, as another mount's daemon does not answer, and that cannot be looked at."""

    EXEC = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)  # closed by execve
for _ in range(2):
    os.set_inheritable(os.open(sys.argv[2], os.O_RDWR | os.O_CREAT), True)
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
os.execv("/bin/sleep", ["sleep", "70"])
"""

    def holder(self, path):
        agent = self.agent()
        agent.open_flock(path, os.O_RDWR | os.O_CREAT, EX)
        return agent

    def ended(self, agent):
        lib.wait_until(lambda: b"State:\tZ" in lib.read(f"/proc/{agent.pid}/status"), "the end of a holder")

    def cannot_be_looked_at(self, pid):
        look = self.spawn("stat", "-L", f"/proc/{pid}/fd/1", stdout=subprocess.DEVNULL)
        try:
            look.wait(lib.SHORT_S)
        except subprocess.TimeoutExpired:
            return True
        return False

    def setUp(self):
        if os.environ.get("TOOZFS_SANITIZED"):
            self.skipTest("LeakSanitizer stops all threads at the end, and cannot stop one that hangs")
        super().setUp()
        self.hanging = self.tree()

    def stop(self):
        os.kill(self.hanging.pid, signal.SIGSTOP)
        self.addCleanup(os.kill, self.hanging.pid, signal.SIGCONT)

    def ready(self, script):
        """Runs it with a file of the mount that will hang, and the lock; it waits for SIGUSR1."""
        process = self.spawn("/usr/bin/python3", "-c", script, self.hanging("locks/x"), self.lock,
                             stdout=subprocess.PIPE, start_new_session=True)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        return process

    def hang(self, *processes):
        self.stop()
        for process in processes:
            os.kill(process.pid, signal.SIGUSR1)
        for process in processes[-2:]:
            lib.wait_until(lambda p=process: self.cannot_be_looked_at(p.pid), "the hanging execve")

    def passed(self):
        """Whom the log says to have been passed over, in that order."""
        return [int(pid) for pid in re.findall(
            r"on_loss: process (\d+) cannot be looked at, maybe it hangs in execve: passed over\n",
            self.mount.read_log())]

    def test_neither_the_walk_nor_the_end_waits(self):
        second = self.mount("locks/other")
        holders = self.holder(self.lock), self.holder(second)
        stuck = self.ready(self.EXEC)
        self.hang(stuck)
        for agent, path in zip(holders, (self.lock, second)):
            self.lose(path)
            self.ended(agent)
        # As long as it hangs it costs no time again.
        self.assertEqual(self.passed(), [stuck.pid])
        os.kill(self.mount.pid, signal.SIGTERM)
        self.assertEqual(self.mount.wait_exit(), 0)

    def test_others_of_one_user(self):
        """Before the holder, and after it, and whether they have anything to do with the lock."""
        apart = self.EXEC.replace("for _ in range(2):", "for _ in ():")
        before = [self.ready(apart) for _ in range(3)]
        holder = self.holder(self.lock)
        after = [self.ready(self.EXEC) for _ in range(3)]
        self.hang(*before, *after)
        self.lose()
        self.ended(holder)
        self.assertEqual(self.passed(), [p.pid for p in before + after])

    def test_processes_of_another_user(self):
        """However many of one's hang, the other's holder is signalled."""
        self.mount = self.tree(options="on_loss=term,allow_other,umask=000")
        self.lock = self.mount("locks/l")
        other = self.agent(uid=65534)
        for agent in (self.agent(), other):
            agent.open_flock(self.lock, os.O_RDWR | os.O_CREAT, lib.SH)
        self.hang(*[self.ready(self.EXEC) for _ in range(18)])
        self.lose()
        self.ended(other)
        self.logged(" cannot be looked at: passed over, as are others of its user\n")

    def test_holder_that_hangs_with_an_epoll_descriptor(self):
        """Whoever reads what the kernel says of the descriptor waits for the poll."""
        holder = self.ready("""
import fcntl, os, select, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
epoll = select.epoll()
x = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(os.open(sys.argv[2], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
epoll.register(x, select.EPOLLIN)
""")
        self.stop()
        os.kill(holder.pid, signal.SIGUSR1)
        lib.wait_until(lambda: lib.in_lock_request(holder.pid), "the hanging poll")
        self.lose()
        self.signalled(holder.pid)

    def test_rm_by_a_child(self):
        """Whose lock it removes is asked of its parents."""
        holder = self.agent()
        holder.open_flock(self.lock, os.O_RDWR | os.O_CREAT, EX)
        parent = self.ready(self.EXEC.replace("for _", """
if os.fork() == 0:
    os.setsid()
    signal.sigwait([signal.SIGUSR1])
    os.unlink(sys.argv[2])
    print("removed", flush=True)
    os._exit(0)
for _"""))
        child = int(lib.read(f"/proc/{parent.pid}/task/{parent.pid}/children"))
        self.hang(parent)
        os.kill(child, signal.SIGUSR1)
        self.assertEqual(parent.stdout.readline(), b"removed\n")


class Queue(Base):
    """Who has a handle of its own that lost nothing is told from who lost."""

    def two(self, second):
        """The script holds in one subshell, and does something in a second one. Gives the pids that they
        write, and both fds are 9."""
        holder, other = self.mark(), self.mark()
        script = self.session('''(flock 9; echo $BASHPID >"$2"; sleep 70; :) 9>"$1" &
            until [ -s "$2" ]; do sleep 0.01; done
            (''' + second + '''; :) 9>"$1" & wait''', holder, other)
        return script, self.pid_in(holder), self.pid_in(other)

    def test_the_next_of_one_script(self):
        """flock(1)'s own idiom: the subshell opened the file, and waits for its flock."""
        script, holder, waiter = self.two('echo $BASHPID >"$3"; flock 9; sleep 70')
        self.wait_waiters(self.lock, 1)
        self.lose()
        self.signalled(holder)
        self.spared(waiter)
        self.assertIsNone(script.poll())

    def test_the_job_of_the_next(self):
        """Whom it started, too."""
        script, holder, job = self.two('sleep 70 & echo $! >"$3"; flock 9; sleep 70')
        self.wait_waiters(self.lock, 1)
        self.lose()
        self.signalled(holder)
        self.spared(job)
        self.assertIsNone(script.poll())

    def test_two_descriptors_of_one_handle(self):
        _, holder, other = self.two('exec 8>&9; echo $BASHPID >"$3"; sleep 70')
        self.lose()
        self.signalled(holder)
        self.spared(other)

    def test_thread_that_opened(self):
        """The kernel says which thread it was."""
        program = """
import os, sys, threading, time
def work():
    fd = os.open(sys.argv[1], os.O_RDWR)
    os.set_inheritable(fd, True)
    with open(sys.argv[2], "w") as f:
        print(os.getpid(), file=f)
    time.sleep(70)
threading.Thread(target=work).start()
"""
        _, holder, other = self.two(f"exec 9>&-; exec '{lib.sys.executable}' -c '{program}' \"$1\" \"$3\"")
        self.lose()
        self.signalled(holder)
        self.spared(other)

    def test_holder_that_opened_it_again(self):
        """Beside the handle that it inherited, and that lost the lock, it has one that lost nothing."""
        mark = self.mark()
        self.held("bash", "-c", 'exec 8<"$1"; echo $$ >"$2"; sleep 70; :', "bash", self.lock, mark)
        job = self.pid_in(mark)
        self.lose()
        self.signalled(job)

    def test_descendants_of_those_who_end_first(self):
        """Who is of another session is known by a parent, which the same loss ends."""
        marks = [self.mark() for _ in range(12)]
        script = 'echo $$ >"$1"; shift; [ $# = 0 ] && exec sleep 70; setsid bash -c "$0" "$0" "$@"; :'
        self.held("bash", "-c", script, script, *marks)
        pids = [self.pid_in(mark) for mark in marks]
        self.lose()
        for pid in pids:
            self.signalled(pid)

    def test_each_of_those_who_shared(self):
        holders = []
        for _ in range(3):
            mark = self.mark()
            holders.append(self.spawn("flock", "-s", self.lock, "bash", "-c",
                                      'echo $$ >"$1"; exec sleep 70', "bash", mark, start_new_session=True))
            self.pid_in(mark)
        self.lose()
        for holder in holders:
            self.assertEqual(holder.wait(lib.PATIENCE_S), -signal.SIGTERM)


class Kin(Base):
    """Processes are known by number and start, whatever they do since."""

    def python(self, script, *args):
        """Says a number when it is ready."""
        process = self.spawn("/usr/bin/python3", "-c", script, self.lock, *args, stdout=subprocess.PIPE,
                             start_new_session=True)

        def end():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        self.addCleanup(end)
        return process, int(process.stdout.readline())

    def test_job_of_a_holder_that_grows(self):
        holder, job = self.python("""
import fcntl, mmap, os, signal, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
ready, go = os.pipe()
job = os.fork()
if job == 0:
    os.setsid()
    os.write(go, b"x")
    signal.pause()
os.read(ready, 1)
more = mmap.mmap(-1, 1 << 20)
print(job, flush=True)
signal.pause()
""")
        self.lose()
        self.assertEqual(holder.wait(lib.PATIENCE_S), -signal.SIGTERM)
        self.signalled(job)
        self.signalled(holder.pid)

    def inherited_from_a_thread(self, uid):
        """A threaded process of that user, of the holder's session, opens the file for itself, and another has that."""
        self.mount = self.tree(options="on_loss=term,allow_other,umask=000")
        self.lock = self.mount("locks/l")
        holder, child = self.python("""
import fcntl, os, signal, subprocess, sys, threading
path, uid = sys.argv[1], int(sys.argv[2])
ready, go = os.pipe()
if os.fork() == 0:
    if uid:
        os.setuid(uid)
    got = []
    thread = threading.Thread(target=lambda: got.append(os.open(path, os.O_RDWR | os.O_CREAT)) or signal.pause())
    thread.start()
    while not got:
        pass
    child = subprocess.Popen(["sleep", "70"], pass_fds=got, user=None if uid else 65534)
    os.write(go, b"%d\\n" % child.pid)
    signal.pause()
child = int(os.read(ready, 100))
os.setuid(65534)
fd = os.open(path, os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print(child, flush=True)
signal.pause()
""", str(uid))
        self.lose()
        self.assertEqual(holder.wait(lib.PATIENCE_S), -signal.SIGTERM)
        self.spared(child)

    def test_inherited_from_a_thread(self):
        self.inherited_from_a_thread(65534)

    def test_inherited_from_a_thread_of_another_user(self):
        self.inherited_from_a_thread(0)


class Nobody(Base):
    def test_it_is_logged(self):
        """Who has the descriptor now has nothing to do with those who opened and locked it."""
        mark = self.mark()
        script = self.session('''exec 9<>"$1"; flock 9
            setsid bash -c 'echo $$ >"$1"; exec sleep 70' bash "$2" &''', mark)
        job = self.pid_in(mark)
        script.wait(lib.PATIENCE_S)
        self.lose()
        self.logged("warning: locks/l was lost: on_loss found no process to signal\n")
        self.spared(job)


class Spared(Base):
    """Who has the file open, would die of the signal, and does not get it."""

    def child_is_spared(self, how):
        """Of two processes that have the handle, that of HOLDER's child."""
        other = self.agent()
        other.open_flock(self.mount("locks/other"), os.O_RDWR | os.O_CREAT, EX)
        holder = self.spawn("/usr/bin/python3", "-c", HOLDER, self.lock, self.mount("locks/other"), how,
                            stdout=subprocess.PIPE, start_new_session=True)
        said = b""
        while not (b"ready" in said and b"\n" in said):
            more = os.read(holder.stdout.fileno(), 100)
            self.assertTrue(more, "the holder ended")
            said += more
        child = int(said.replace(b"ready", b""))
        self.addCleanup(os.kill, child, signal.SIGKILL)
        if how == "blocked":
            lib.wait_until(lambda: lib.in_lock_request(child), "the wait")
        self.lose()
        self.assertEqual(holder.wait(lib.PATIENCE_S), -signal.SIGTERM)
        self.spared(child)
        self.signalled(holder.pid)

    def test_process_of_another_user(self):
        self.child_is_spared("uid")

    def test_process_that_waits(self):
        """In a lock request it is told without a signal, when that is answered."""
        self.child_is_spared("blocked")

    def test_unrelated_process(self):
        """Neither the opener nor its kin."""
        other, holder = self.agent(), self.held("sleep", "70")
        lib.wait_until(lambda: os.path.exists(self.lock), "the lock")
        fd = other.open(self.lock)
        self.lose()
        self.assertEqual(holder.wait(lib.PATIENCE_S), -signal.SIGTERM)
        self.spared(other.pid)
        other.close(fd)


if __name__ == "__main__":
    lib.main(120)
