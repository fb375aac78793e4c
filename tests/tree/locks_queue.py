# SPDX-License-Identifier: Apache-2.0
"""The queue of one mount: first come first served, through signals and deaths."""
import errno
import os
import signal
import subprocess

import lib
from lib import EX, NB, SH, UN


class Queue:
    def held(self):
        holder = self.agent()
        return holder, holder.open_flock(self.a("locks/l"), os.O_RDWR | os.O_CREAT, EX)

    def waiter(self, mode):
        agent = self.agent()
        agent.fd = agent.open(self.a("locks/l"))
        agent.start("flock", agent.fd, mode)
        agent.wait_blocked()
        return agent

    def test_exclusive_in_order(self):
        holder, fd = self.held()
        waiters = [self.waiter(EX) for _ in range(8)]
        self.wait_waiters(self.a("locks/l"), 8)
        holder.flock(fd, UN)
        for i, agent in enumerate(waiters):
            agent.result()
            self.assertFalse(any(x.done() for x in waiters[i + 1:]))
            agent.close(agent.fd)

    def test_shared_and_exclusive_in_order(self):
        holder, fd = self.held()
        first, second = self.waiter(SH), self.waiter(SH)
        writer, late = self.waiter(EX), self.waiter(SH)
        holder.flock(fd, UN)
        first.result()
        second.result()
        self.stays_blocked(writer)
        self.stays_blocked(late)
        first.flock(first.fd, UN)
        self.stays_blocked(writer)
        second.flock(second.fd, UN)
        writer.result()
        self.stays_blocked(late)
        writer.flock(writer.fd, UN)
        late.result()

    def test_sharers_do_not_pass_a_waiting_writer(self):
        holder = self.agent()
        fd = holder.open_flock(self.a("locks/l"), os.O_RDWR | os.O_CREAT, SH)
        writer = self.waiter(EX)
        self.fails(errno.EAGAIN, lib.fcntl.flock, self.open(self.a("locks/l")), SH | NB)
        holder.flock(fd, UN)
        writer.result()

    def test_released_and_taken_again_goes_behind_the_queue(self):
        holder, fd = self.held()
        first = self.waiter(EX)
        holder.flock(fd, UN)
        holder.start("flock", fd, EX)
        first.result()
        self.stays_blocked(holder)
        first.flock(first.fd, UN)
        holder.result()

    def test_killed_waiter_is_gone(self):
        holder, fd = self.held()
        first, second = self.waiter(EX), self.waiter(EX)
        self.wait_waiters(self.a("locks/l"), 2)
        watch = lib.Stopwatch()
        first.kill()
        self.wait_waiters(self.a("locks/l"), 1)
        # The place of a waiter that was only interrupted would be kept for five seconds.
        watch.within(2.5 * lib.SLOW)
        holder.flock(fd, UN)
        second.result()

    def test_only_waiter_killed(self):
        holder, fd = self.held()
        self.waiter(EX).kill()
        holder.flock(fd, UN)
        lib.fcntl.flock(self.open(self.b("locks/l")), EX)

    def test_flock_w_leaves_the_queue(self):
        holder, fd = self.held()
        self.assertEqual(lib.sh('flock -w 0.2 "$1" true', self.a("locks/l")).returncode, 1)
        self.wait_waiters(self.a("locks/l"), 0)
        second = self.waiter(EX)
        holder.flock(fd, UN)
        second.result()

    def test_interrupted_flock_ends(self):
        holder, fd = self.held()
        flock = self.spawn("flock", self.a("locks/l"), "true")
        lib.wait_until(lambda: lib.in_lock_request(flock.pid))
        flock.send_signal(signal.SIGINT)
        self.assertEqual(flock.wait(lib.PATIENCE_S), -signal.SIGINT)
        self.wait_waiters(self.a("locks/l"), 0)

    def test_stopped_and_continued_keeps_its_place(self):
        holder, fd = self.held()
        first, second = self.waiter(EX), self.waiter(EX)
        for _ in range(3):
            first.signal(signal.SIGSTOP)
            lib.wait_until(lambda: state_of(first.pid) == "T", "the stop")
            first.signal(signal.SIGCONT)
            lib.wait_until(lambda: lib.in_lock_request(first.pid), "the restart")
        holder.flock(fd, UN)
        first.result()
        self.stays_blocked(second)
        first.flock(first.fd, UN)
        second.result()

    def test_stopped_waiter_is_skipped(self):
        holder, fd = self.held()
        first, second = self.waiter(EX), self.waiter(EX)
        first.signal(signal.SIGSTOP)
        lib.wait_until(lambda: state_of(first.pid) == "T", "the stop")
        holder.flock(fd, UN)
        second.result()
        first.signal(signal.SIGCONT)
        second.flock(second.fd, UN)
        first.result()

    def test_signal_keeps_the_place(self):
        holder, fd = self.held()
        first, second = self.waiter(EX), self.waiter(EX)
        for _ in range(5):
            first.interrupt()
        holder.flock(fd, UN)
        first.result()
        self.stays_blocked(second)

    def test_many_signals_while_granting(self):
        """No error number of the kernel's own leaks, and no grant is lost."""
        holder, fd = self.held()
        one = self.agent()
        one.fd = one.open(self.a("locks/l"))
        for _ in range(100):
            one.start("flock", one.fd, EX)
            one.signal(signal.SIGUSR1)
            holder.flock(fd, UN)
            one.signal(signal.SIGUSR1)
            one.result()
            holder.start("flock", fd, EX)
            one.flock(one.fd, UN)
            holder.result()

    def test_closed_by_another_thread_while_waiting(self):
        """A waiter keeps its file open: the close of the number does not end the wait."""
        holder, fd = self.held()
        waiting = self.spawn(
            "/usr/bin/python3", "-c",
            "import fcntl, os, sys, threading\n"
            "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
            "t = threading.Thread(target=fcntl.flock, args=(fd, fcntl.LOCK_EX))\n"
            "t.start()\n"
            "wchan = f'/proc/self/task/{t.native_id}/wchan'\n"
            "while 'request_wait_answer' not in open(wchan).read():\n"
            "    pass\n"
            "os.close(fd)\n"
            "print('closed', flush=True)\n"
            "t.join()\n", self.a("locks/l"), stdout=subprocess.PIPE)
        self.assertEqual(waiting.stdout.readline(), b"closed\n")
        self.wait_waiters(self.a("locks/l"), 1)
        holder.flock(fd, UN)
        self.assertEqual(waiting.wait(lib.PATIENCE_S), 0)
        lib.fcntl.flock(self.open(self.b("locks/l")), EX)


def state_of(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        return f.read().rpartition(") ")[2][0]


class QueueMemory(Queue, lib.Memory):
    pass


class TwoQueues(Queue):
    def test_both_mounts_are_served(self):
        """Waiters of two mounts all get the lock, though one mount hands over at once."""
        agents = []
        holder, fd = self.held()
        for i in range(12):
            agent = self.agent()
            agent.fd = agent.open((self.a, self.b)[i % 2]("locks/l"))
            agent.start("flock", agent.fd, EX)
            agent.wait_blocked()
            agents.append(agent)
        holder.flock(fd, UN)
        while agents:
            lib.wait_until(lambda: any(x.done() for x in agents), "the next holder")
            ready = [x for x in agents if x.done()]
            self.assertEqual(len(ready), 1, "two hold at once")
            ready[0].result()
            ready[0].close(ready[0].fd)
            agents.remove(ready[0])

    def test_greedy_mount_does_not_starve_the_other(self):
        greedy = self.spawn("bash", "-c", 'while :; do flock "$1" true; done', "bash",
                            self.a("locks/l"), stderr=subprocess.DEVNULL)
        self.assertIsNone(greedy.poll())
        for _ in range(3):
            done = lib.sh('flock -w "$2" "$1" true', self.b("locks/l"), int(lib.PATIENCE_S / 2))
            self.assertEqual(done.returncode, 0, "starved")


class QueueFile(TwoQueues, lib.File):
    pass


class QueueRedis(TwoQueues, lib.Redis):
    pass


class QueueZooKeeper(TwoQueues, lib.ZooKeeper):
    pass


if __name__ == "__main__":
    lib.main()
