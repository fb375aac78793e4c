# SPDX-License-Identifier: Apache-2.0
"""tooz-run: what it hands to its command, what it does with signals, and that the command ends in time."""
import contextlib
import fcntl
import os
import random
import signal
import subprocess
import sys
import time

import lib
import servers_redis
import servers_zookeeper
import trouble
from lib import EX, NB, UN
from trouble import LEASE_S, RW

TOOZ_RUN = os.environ.get("TOOZ_RUN", "")
CONFLICT, LOST, FAILED, CANNOT_RUN, NOT_FOUND = 1, 122, 125, 126, 127

# Appends the time to a file, again and again. "deaf": TERM does nothing. "tidy": it ends after a word of its own.
# "child": a child of its own does it.
WRITER = """
import os, signal, sys, time
def tidy(*_):
    open(sys.argv[1] + ".tidy", "w").close()
    os._exit(0)
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "tidy" in sys.argv:
    signal.signal(signal.SIGTERM, tidy)
if "child" in sys.argv and os.fork():
    os.wait()
    sys.exit(1)
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
while True:
    os.write(fd, b"%d\\n" % time.monotonic_ns())
    time.sleep(0.001)
"""

# Its first thread ends; another one says "ready" after that, and reads a file to its end.
HEADLESS = """
import ctypes, os, platform, sys, threading
def run():
    while open("/proc/%d/stat" % os.getpid()).read().rsplit(")", 1)[1].split()[0] != "Z":
        pass
    print("ready", flush=True)
    open(sys.argv[1]).read()
    os._exit(0)
threading.Thread(target=run).start()
ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)
"""

# Deaf; appends its token and the time until the seconds are over.
RACER = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    os.write(fd, b"%s %d\\n" % (os.environb[b"TOOZ_TOKEN"], time.monotonic_ns()))
    time.sleep(0.001)
"""
# One tooz-run after the other, until the file is there.
RACE = 'while ! [ -e "$1" ]; do "$2" -l "$3" /usr/bin/python3 -c "$4" "$5" "$6" || read -t 0.05; done <> <(:)'


def writer(path, *how):
    return ("/usr/bin/python3", "-c", WRITER, path, *how)


def stamps(path):
    """What a writer wrote, in ns; the last line may be half of one."""
    try:
        return [int(x) for x in lib.read(path).split(b"\n")[:-1]]
    except FileNotFoundError:
        return []


def take_and_stamp(path):
    """Waits for the lock; when it was granted, in ns."""
    fd = os.open(path, RW)
    fcntl.flock(fd, EX)
    now = time.monotonic_ns()
    os.close(fd)
    return now


lib.ACTIONS["take_and_stamp"] = take_and_stamp


def take_and_look(path, pid):
    """Waits for the lock; in what state the process is when it was granted, "": it has gone."""
    fd = os.open(path, RW)
    fcntl.flock(fd, EX)
    try:
        return state_of(pid)
    except OSError:
        return ""
    finally:
        os.close(fd)


lib.ACTIONS["take_and_look"] = take_and_look


def keeper_of(pid):
    """The keeper of a tooz-run; None: there is none yet."""
    for child in lib._descendants(pid):  # pylint: disable=protected-access
        with contextlib.suppress(OSError), open(f"/proc/{child}/comm", encoding="ascii") as f:
            if f.read() == "tooz-keeper\n":
                return child
    return None


def command_of(pid):
    """The first process of a tooz-run's command."""
    return next(x for x in lib._descendants(pid) if x != keeper_of(pid))  # pylint: disable=protected-access


def state_of(pid):
    """A letter, as /proc has it."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        return f.read().rsplit(")", 1)[1].split()[0]


class Helper:
    """Mixed into cases with the mounts a and b."""

    count = 0

    def file(self):
        Helper.count += 1
        return os.path.join(lib.WORK, f"file{Helper.count}")

    def done(self, *args, **keywords):
        """tooz-run to its end."""
        return subprocess.run([TOOZ_RUN, *args], capture_output=True, text=True, check=False,
                              timeout=3 * lib.PATIENCE_S, stdin=subprocess.DEVNULL, **keywords)

    def code(self, *args, **keywords):
        return self.done(*args, **keywords).returncode

    def begin(self, *args, **keywords):
        """tooz-run in a session of its own."""
        return self.spawn(TOOZ_RUN, *args, start_new_session=True, **keywords)

    def begin_sh(self, *args, script):
        """A shell script under tooz-run that has said "ready". What it says goes to process.said."""
        process = self.begin(*args, "sh", "-c", script, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL)
        self.says(process, b"ready\n")
        return process

    def says(self, process, line):
        os.set_blocking(process.stdout.fileno(), False)
        said = b""

        def found():
            nonlocal said
            said += process.stdout.read() or b""
            return line in said
        lib.wait_until(found, f"{line!r}")
        return said

    def ended(self, process, timeout=None):
        return process.wait(timeout or 3 * lib.PATIENCE_S)

    def free(self, path):
        fd = self.open(path)
        try:
            fcntl.flock(fd, EX | NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def begin_writer(self, *args, how=()):
        """A writer under tooz-run that has begun to write. Returns (process, file)."""
        path = self.file()
        process = self.begin(*args, *writer(path, *how), stderr=subprocess.PIPE)
        lib.wait_until(lambda: stamps(path), "the writer", 2 * lib.PATIENCE_S)
        return process, path

    def silent(self, path):
        """Until nobody writes there any more."""
        count = -1

        def silent():
            nonlocal count
            before, count = count, len(stamps(path))
            time.sleep(0.05)
            return before == count
        lib.wait_until(silent, "the writer's end")


class Plain(Helper, lib.Memory):
    def test_environment(self):
        lock, group = self.a("locks/l"), self.a("groups/g")
        os.mkdir(group)
        done = self.done("-l", lock, "-L", self.a("leaders/g"), "-m", group + "/m={\"a\":\"b=c\"}",
                         "-l", self.a("locks/k"), "sh", "-c", 'env; cat "$TOOZ_LOCK"')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        said = dict(x.split("=", 1) for x in done.stdout.splitlines())
        self.assertEqual(said["TOOZ_LOCK"], lock)
        self.assertEqual(said["TOOZ_TOKEN"], said["token"])
        self.assertEqual(said["TOOZ_LOCK_2"], self.a("locks/k"))
        self.assertGreater(int(said["TOOZ_TOKEN_2"]), 0)
        self.assertEqual(said["TOOZ_LEADER"], self.a("leaders/g"))
        self.assertEqual(said["TOOZ_MEMBER"], group + "/m")

    def test_environment_of_another_one_above(self):
        script = 'echo "$TOOZ_LOCK $TOOZ_LOCK_2 $TOOZ_TOKEN_2 $TOOZ_MEMBER"'
        os.mkdir(self.a("groups/g"))
        done = self.done("-l", self.a("locks/a"), "-l", self.a("locks/b"), "-m", self.a("groups/g/m"),
                         TOOZ_RUN, "-l", self.a("locks/c"), "sh", "-c", script)
        self.assertEqual(done.stdout.split(), [self.a("locks/c"), self.a("groups/g/m")])

    def test_tokens_grow(self):
        got = [int(self.done("-l", self.a("locks/l"), "sh", "-c", "echo $TOOZ_TOKEN").stdout)
               for _ in range(5)]
        self.assertEqual(got, sorted(set(got)))

    def test_exit_codes(self):
        hold = ("-l", self.a("locks/l"))
        plain = self.file()
        lib.write(plain, b"")
        self.assertEqual(self.code(*hold, "true"), 0)
        self.assertEqual(self.code(*hold, "--", "sh", "-c", "exit 7"), 7)
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.assertEqual(self.code(*hold, "sh", "-c", f"kill -{int(number)} $$"), 128 + number)
        # Which a shell shows as 130; it ends the loop of a script.
        self.assertEqual(self.code(*hold, "sh", "-c", "kill -INT $$"), -signal.SIGINT)
        self.assertEqual(self.code(*hold, "no-such-program"), NOT_FOUND)
        self.assertEqual(self.code(*hold, plain), CANNOT_RUN)
        for wrong in ((), hold, ("true",), (*hold, "-w", "x", "true"), (*hold, "-w", "-1", "true"),
                      (*hold, "-E", "256", "true"), (*hold, "-g", "nan", "true"), ("-l",),
                      (*hold, "--no-such-option", "true")):
            self.assertEqual(self.code(*wrong), FAILED, wrong)
            self.assertRegex(self.done(*wrong).stderr, r"\Atooz-run: .*\n\Z")
        for wrong, what in (("-l", "-l: needs a value"), ("--lock", "--lock: needs a value"),
                            ("-vx", "-x: is no such option"), ("--shared=yes", "--shared=yes: is no such"),
                            ("--no-such-option", "--no-such-option: is no such option")):
            self.assertIn(f"tooz-run: {what}", self.done("--verbose", wrong).stderr)
        self.assertTrue(self.free(self.a("locks/l")))
        self.assertEqual(self.code("--help"), 0)
        self.assertTrue(self.done("--version").stdout.startswith("tooz-run "))

    def test_what_is_no_lock(self):
        """Nothing that would lock this host alone, or nothing at all."""
        os.mkdir(self.a("groups/g"))
        there = self.file()
        os.makedirs(there + "/locks")
        for option, path in (("-l", self.file()), ("-l", there + "/locks/l"), ("-l", self.a("locks")),
                             ("-l", self.a("groups/g/l")), ("-l", self.a("leaders/g")),
                             ("-L", self.a("locks/l")), ("-L", self.a("leaders/none")),
                             ("-m", self.a("groups/none/m")), ("-m", self.a("groups/m")),
                             ("-m", self.a("locks/l")), ("-l", self.a("locks/.swp")),
                             ("-l", self.a(".tooz/state")), ("-l", self.a("locks/../locks"))):
            done = self.done("-n", option, path, "echo", "ran")
            self.assertEqual((done.returncode, done.stdout), (FAILED, ""), path)
            self.assertIn(os.path.basename(path), done.stderr)
        for option, path in (("-l", "/locks/l"), ("-L", "/leaders/g"), ("-m", "/groups/g/m")):
            self.assertIn("no tree is mounted there", self.done(option, self.file() + path, "true").stderr)
        self.assertIn("there is no such group", self.done("-m", self.a("groups/none/m"), "true").stderr)
        for option, path in (("-l", "lock/l"), ("-L", "leader/g"), ("-m", "group/g/m")):
            self.assertIn("of a mounted tree", self.done(option, self.a(path), "true").stderr)
        self.assertEqual(os.listdir(there + "/locks"), [])
        self.assertEqual(os.listdir(self.a("groups/g")), [])

    def test_conflict(self):
        lock = self.a("locks/l")
        fcntl.flock(self.open(self.b("locks/l")), EX)
        done = self.done("-n", "-l", lock, "echo", "ran")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (CONFLICT, "", ""))
        self.assertEqual(self.code("-n", "-E", "9", "-l", lock, "true"), 9)
        done = self.done("-n", "-E", "0", "-l", lock, "echo", "ran")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        done = self.done("-w", "0.1", "-E", "0", "-l", lock, "echo", "ran")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertIn("held", self.done("-v", "-n", "-l", lock, "true").stderr)
        begin = time.monotonic()
        self.assertEqual(self.code("-w", "0.3", "-E", "10", "-l", lock, "true"), 10)
        self.assertGreaterEqual(time.monotonic() - begin, 0.3)
        self.wait_waiters(lock, 0)
        self.assertEqual(self.code("-w", "0", "-l", lock, "true"), CONFLICT)

    def test_waits(self):
        lock = self.a("locks/l")
        fd = self.open(lock)
        fcntl.flock(fd, EX)
        process = self.begin("-w", "60", "-l", lock, "true")
        self.wait_waiters(lock, 1)
        fcntl.flock(fd, UN)
        self.assertEqual(self.ended(process), 0)

    def test_given_up_while_it_waits(self):
        """However it ends while it waits, the wait ends with it, and nothing is run."""
        lock, ran = self.a("locks/l"), self.file()
        fd = self.open(lock)
        fcntl.flock(fd, EX)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
            process = self.begin("-l", lock, "touch", ran)
            self.wait_waiters(lock, 1)
            process.send_signal(number)
            self.assertEqual(self.ended(process), -number)
            self.wait_waiters(lock, 0)
        self.assertFalse(os.path.exists(ran))

    def test_shared(self):
        lock = self.a("locks/l")
        for options in (("-l", lock, "-s"), ("-s", "-l", lock)):
            other = ("-n", *options, "true")
            self.assertEqual(self.code(*options, TOOZ_RUN, *other), 0)
            self.assertEqual(self.code("-l", lock, TOOZ_RUN, *other), CONFLICT)
        os.mkdir(self.a("groups/g"))
        for options in (("-s", "-L", self.a("leaders/g")), ("-L", self.a("leaders/g"), "-s")):
            done = self.done(*options, "echo", "ran")
            self.assertEqual((done.returncode, done.stdout), (FAILED, ""))
            self.assertIn("-s: ", done.stderr)
        self.assertEqual(self.code("-s", "-L", self.a("leaders/g"), "-l", lock, TOOZ_RUN, *other), 0)
        # Of the lock before it only.
        two = ("-l", lock, "-s", "-l", self.a("locks/k"))
        self.assertEqual(self.code(*two, TOOZ_RUN, "-n", "-s", "-l", self.a("locks/k"), "true"),
                         CONFLICT)

    def test_two_locks(self):
        """Both, or none."""
        locks = [self.a("locks/x"), self.a("locks/y")]
        args = [x for lock in locks for x in ("-l", lock)]
        fd = self.open(locks[1])
        fcntl.flock(fd, EX)
        self.assertEqual(self.code("-n", *args, "true"), CONFLICT)
        lib.wait_until(lambda: self.free(locks[0]), "the first to be let go of")
        fcntl.flock(fd, UN)
        process = self.begin_sh(*args, script="echo ready; sleep 1000")
        self.assertEqual([self.free(x) for x in locks], [False, False])
        process.terminate()
        self.assertEqual(self.ended(process), 128 + signal.SIGTERM)
        self.assertEqual([self.free(x) for x in locks], [True, True])

    def test_leader(self):
        os.mkdir(self.a("groups/g"))
        done = self.done("-L", self.a("leaders/g"), "cat", self.a("leaders/g"))
        self.assertEqual(done.stdout.strip(), self.a.member)
        self.assertEqual(os.listdir(self.a("leaders")), [])

    def test_member(self):
        """Joined with its capabilities while the command runs."""
        os.mkdir(self.a("groups/g"))
        path = self.a("groups/g/m")
        done = self.done("-m", path + "=[1, 2]", "sh", "-c", f'ls {self.a("groups/g")}; cat {path}')
        self.assertEqual(done.stdout.split(), ["m", "[1,2]"])
        lib.wait_until(lambda: not os.listdir(self.a("groups/g")), "its leaving")

    def test_member_with_unfinished_json(self):
        os.mkdir(self.a("groups/g"))
        path = self.a("groups/g/m")
        for text in ('{"port":', "[", '"'):
            done = self.done("-m", f"{path}={text}", "sh", "-c", f'ls {self.a("groups/g")}; cat {path}')
            self.assertEqual((done.returncode, done.stdout.split()), (0, ["m", text]), done.stderr)
            lib.wait_until(lambda: not os.listdir(self.a("groups/g")), "its leaving")

    def test_member_that_is_held(self):
        """It is not written to before it is free."""
        os.mkdir(self.a("groups/g"))
        path = self.a("groups/g/m")
        fd = self.open(path)
        os.write(fd, b"old")
        fcntl.flock(fd, EX)
        self.assertEqual(self.code("-n", "-m", path + "=new", "true"), CONFLICT)
        self.assertEqual(lib.read(path), b"old")
        process = self.begin("-m", path + "=new", "cat", path, stdout=subprocess.PIPE)
        lib.wait_until(lambda: lib.in_lock_request(keeper_of(process.pid)), "the wait")
        fcntl.flock(fd, UN)
        self.assertEqual(self.ended(process), 0)
        self.assertEqual(process.stdout.read(), b"new")

    def test_member_that_is_removed(self):
        """No reason to end what runs."""
        os.mkdir(self.a("groups/g"))
        process = self.begin_sh("-m", self.a("groups/g/m"), script="echo ready; sleep 1000")
        os.unlink(self.a("groups/g/m"))
        self.assertEqual(self.code("-l", self.a("locks/l"), "true"), 0)
        self.assertIsNone(process.poll())
        process.terminate()
        self.assertEqual(self.ended(process), 128 + signal.SIGTERM)

    def test_the_command_has_no_handle(self):
        done = self.done("-l", self.a("locks/l"), "ls", "-l", "/proc/self/fd")
        self.assertNotIn(self.a.path, done.stdout)
        self.assertNotIn("socket", done.stdout)

    def test_the_keeper_has_nothing_of_the_caller(self):
        """Whoever waits for the end of a pipe, or for a lock on a file, does not wait for the keeper."""
        mine = os.open(self.file(), os.O_RDWR | os.O_CREAT)
        name = os.readlink(f"/proc/self/fd/{mine}")
        process = self.begin("-l", self.a("locks/l"), "sh", "-c", "echo ready; sleep 1000",
                             stdout=subprocess.PIPE, pass_fds=[mine])
        os.close(mine)
        self.says(process, b"ready\n")

        def files(pid):
            return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        self.assertIn(name, files(command_of(process.pid)))
        self.assertNotIn(name, files(keeper_of(process.pid)))

    def test_relative_paths(self):
        done = self.done("-l", "locks/l", "sh", "-c", "cd /; cat $TOOZ_LOCK", cwd=self.a.path)
        self.assertIn("token=", done.stdout, done.stderr)

    def test_relative_path_of_a_member(self):
        """The first = that counts is its own."""
        os.mkdir(self.a("groups/g=h"))
        done = self.done("-m", "m=[1]", "sh", "-c", 'cat "$TOOZ_MEMBER"', cwd=self.a("groups/g=h"))
        self.assertEqual((done.returncode, done.stdout.strip()), (0, "[1]"), done.stderr)

    def test_the_same_twice(self):
        """In whatever spelling: it would wait for itself."""
        os.mkdir(self.a("groups/g"))
        link = self.file()
        os.symlink(self.a.path, link)
        for option, first, second in (("-l", self.a("locks/l"), self.a("locks/l")),
                                      ("-l", self.a("locks/l"), self.a("locks//./l")),
                                      ("-l", self.a("locks/l"), link + "/locks/l"),
                                      ("-L", self.a("leaders/g"), self.a("locks/../leaders/g")),
                                      ("-m", self.a("groups/g/m=1"), self.a("groups/./g/m=2"))):
            done = self.done(option, first, option, second, "echo", "ran")
            self.assertEqual((done.returncode, done.stdout), (FAILED, ""), second)
            self.assertIn("the same twice", done.stderr)
        self.assertTrue(self.free(self.a("locks/l")))

    def test_closed_descriptors(self):
        done = lib.sh('"$1" -l "$2" sh -c \'exit 5\' <&- >&- 2>&-', TOOZ_RUN, self.a("locks/l"))
        self.assertEqual(done.returncode, 5)

    def test_group_of_its_own(self):
        done = self.done("-l", self.a("locks/l"), "sh", "-c", "cut -d' ' -f5 /proc/$$/stat; echo $$")
        self.assertEqual(*done.stdout.split())


class Signals(Helper, lib.Memory):
    PASSED = ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "ALRM")

    def test_passed_on(self):
        traps = "; ".join(f"trap 'echo got {x}' {x}" for x in self.PASSED)
        process = self.begin_sh("-l", self.a("locks/l"), script=traps + "; echo ready; "
                                "while :; do read x < /dev/null; done")
        for name in self.PASSED:
            process.send_signal(signal.Signals["SIG" + name])
            self.says(process, f"got {name}\n".encode())
        self.assertIsNone(process.poll())

    def test_whole_group(self):
        """What the command started gets them too."""
        process = self.begin_sh("-l", self.a("locks/l"), script="trap '' USR1; (trap 'echo child; exit' "
                                "USR1; echo ready; while :; do read x < /dev/null; done); exit 5")
        process.send_signal(signal.SIGUSR1)
        self.says(process, b"child\n")
        self.assertEqual(self.ended(process), 5)

    def test_ignored_ones_are_not(self):
        """As nohup wants it."""
        process = self.spawn("sh", "-c", 'trap "" HUP; exec "$@"', "sh", TOOZ_RUN, "-l",
                             self.a("locks/l"), "sh", "-c", "echo ready; sleep 1000",
                             stdout=subprocess.PIPE)
        self.says(process, b"ready\n")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.ended(process), 128 + signal.SIGTERM)

    def test_stop_and_continue(self):
        """Without a terminal: the command stops, and goes on."""
        path = self.file()
        process = self.begin("-l", self.a("locks/l"), *writer(path))
        lib.wait_until(lambda: stamps(path), "the writer")
        child = command_of(process.pid)
        process.send_signal(signal.SIGTSTP)
        lib.wait_until(lambda: state_of(child) == "T", "the stop")
        process.send_signal(signal.SIGCONT)
        lib.wait_until(lambda: state_of(child) != "T", "the continuation")
        process.terminate()
        self.assertEqual(self.ended(process), 128 + signal.SIGTERM)

    def test_a_stopped_command_can_be_ended(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            process = self.begin_sh("-l", self.a("locks/l"), script="ulimit -c 0; echo ready; exec sleep 1000")
            child = command_of(process.pid)
            os.kill(child, signal.SIGSTOP)
            lib.wait_until(lambda pid=child: state_of(pid) == "T", "the stop")
            process.send_signal(number)
            self.assertEqual(self.ended(process), -number if number == signal.SIGINT else 128 + number)

    def test_held_until_the_whole_group_has_ended(self):
        lock, pipe = self.a("locks/l"), self.file()
        os.mkfifo(pipe)
        process = self.begin("-l", lock, "sh", "-c", f"(read x < {pipe}) & exit 3")
        with open(pipe, "w", encoding="ascii"):
            lib.wait_until(lambda: not self.free(lock), "the lock")
            self.assertIsNone(process.poll())
        self.assertEqual(self.ended(process), 3)
        self.assertTrue(self.free(lock))

    def test_held_while_a_thread_runs(self):
        """Of a process whose first thread has ended, which makes it look like a zombie."""
        lock, pipe = self.a("locks/l"), self.file()
        os.mkfifo(pipe)
        process = self.begin("-l", lock, "sh", "-c", '/usr/bin/python3 -c "$1" "$2" & exit 3', "sh",
                             HEADLESS, pipe, stdout=subprocess.PIPE)
        with open(pipe, "w", encoding="ascii"):
            self.says(process, b"ready\n")
            with self.assertRaises(subprocess.TimeoutExpired):
                process.wait(0.5)
            self.assertFalse(self.free(lock))
        self.assertEqual(self.ended(process), 3)
        self.assertTrue(self.free(lock))

    def test_what_has_left_the_group_is_not_waited_for(self):
        lock, pipe = self.a("locks/l"), self.file()
        os.mkfifo(pipe)
        process = self.begin("-l", lock, "setsid", "-f", "sh", "-c", f"read x < {pipe}")
        with open(pipe, "w", encoding="ascii"):
            self.assertEqual(self.ended(process), 0)
            self.assertTrue(self.free(lock))

    def test_killed(self):
        """kill -9: all that the command is has ended before the lock is granted to another."""
        for how in ((), ("deaf",), ("deaf", "child")):
            process, path = self.begin_writer("-l", self.a("locks/l"), how=how)
            other = self.agent()
            other.start("take_and_stamp", self.b("locks/l"))
            other.wait_blocked()
            process.kill()
            granted = other.result()
            self.silent(path)
            self.assertLess(stamps(path)[-1], granted)

    def test_keeper_killed(self):
        process, path = self.begin_writer("-l", self.a("locks/l"), how=("deaf", "child"))
        os.kill(keeper_of(process.pid), signal.SIGKILL)
        self.assertEqual(self.ended(process), LOST)
        last = stamps(path)[-1]
        self.silent(path)
        self.assertEqual(stamps(path)[-1], last)
        self.assertTrue(self.free(self.a("locks/l")))

    def test_keeper_killed_is_no_time_for_a_grace(self):
        """Another may hold it already."""
        process, path = self.begin_writer("-g", "20", "-l", self.a("locks/l"), how=("deaf", "child"))
        begin = time.monotonic_ns()
        os.kill(keeper_of(process.pid), signal.SIGKILL)
        self.assertEqual(self.ended(process), LOST)
        self.assertLess(stamps(path)[-1] - begin, 15e9)


class Lost(Helper, lib.Memory):
    """Broken by another, or with the daemon."""

    def broken(self, *args, how=()):
        """Returns (exit code, seconds from the break to the end)."""
        process, path = self.begin_writer("-l", self.a("locks/l"), *args, how=how)
        begin = time.monotonic()
        self.agent().unlink(self.b("locks/l"))
        code = self.ended(process)
        took = time.monotonic() - begin
        self.said = process.stderr.read().decode()
        self.assertIn("locks/l: lost", self.said)
        last = stamps(path)[-1]
        self.silent(path)
        self.assertEqual(stamps(path)[-1], last)
        return code, took

    def test_broken(self):
        code, took = self.broken()
        self.assertEqual(code, LOST)
        self.assertLess(took, 0.9 * lib.SLOW)

    def test_broken_under_a_deaf_command(self):
        code, took = self.broken(how=("deaf", "child"))
        self.assertEqual(code, LOST)
        self.assertGreater(took, 0.9)
        self.assertLess(took, 2 * lib.SLOW)

    def test_grace(self):
        code, took = self.broken("-g", "0.3", how=("deaf",))
        self.assertEqual(code, LOST)
        self.assertGreater(took, 0.3)
        self.assertLess(took, 0.9 * lib.SLOW)

    def test_no_grace(self):
        """KILL at once."""
        self.broken("-g", "0", "-v")
        self.assertIn("killing", self.said)

    def test_released_by_the_command(self):
        """rm by a descendant is a release, and no lock is no lock."""
        done = self.done("-l", self.a("locks/l"), "sh", "-c", 'rm -f "$TOOZ_LOCK"; sleep 1000')
        self.assertEqual(done.returncode, LOST, done.stderr)

    def test_command_that_cleans_up(self):
        """The time between TERM and KILL is its own; the code is still that of a loss."""
        path = self.file()
        process = self.begin_sh("-l", self.a("locks/l"), script=f"trap 'echo clean > {path}; exit 0' "
                                "TERM; echo ready; while :; do read x < /dev/null; done")
        self.agent().unlink(self.b("locks/l"))
        self.assertEqual(self.ended(process), LOST)
        self.assertEqual(lib.read(path), b"clean\n")

    def test_stopped_command(self):
        process, _ = self.begin_writer("-l", self.a("locks/l"))
        process.send_signal(signal.SIGTSTP)
        self.agent().unlink(self.b("locks/l"))
        self.assertEqual(self.ended(process), LOST)

    def test_stopped_command_cleans_up(self):
        """It is continued, for TERM to reach it."""
        process, path = self.begin_writer("-g", "20", "-l", self.a("locks/l"), how=("tidy",))
        child = command_of(process.pid)
        os.kill(child, signal.SIGSTOP)
        lib.wait_until(lambda: state_of(child) == "T", "the stop")
        self.agent().unlink(self.b("locks/l"))
        self.assertEqual(self.ended(process), LOST)
        self.assertTrue(os.path.exists(path + ".tidy"))

    def test_leadership(self):
        os.mkdir(self.a("groups/g"))
        process, _ = self.begin_writer("-L", self.a("leaders/g"))
        self.agent().unlink(self.b("leaders/g"))
        self.assertEqual(self.ended(process), LOST)

    def test_while_the_next_is_waited_for(self):
        fd = self.open(self.b("locks/y"))
        fcntl.flock(fd, EX)
        process = self.begin("-l", self.a("locks/x"), "-l", self.a("locks/l"), "-l", self.a("locks/y"),
                             "echo", "ran", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.wait_waiters(self.a("locks/y"), 1)
        self.agent().unlink(self.b("locks/l"))
        fcntl.flock(fd, UN)
        self.assertEqual(self.ended(process), LOST)
        self.assertEqual(process.stdout.read(), b"")
        self.assertIn("locks/l: lost before the command began", process.stderr.read().decode())

    def test_second_of_two(self):
        process, _ = self.begin_writer("-l", self.a("locks/x"), "-l", self.a("locks/l"))
        self.agent().unlink(self.b("locks/l"))
        self.assertEqual(self.ended(process), LOST)
        self.assertTrue(self.free(self.a("locks/x")))

    def test_stopped_tooz_run(self):
        """The keeper stands in."""
        process, path = self.begin_writer("-l", self.a("locks/l"), how=("deaf", "child"))
        process.send_signal(signal.SIGSTOP)
        self.agent().unlink(self.b("locks/l"))
        self.silent(path)
        process.send_signal(signal.SIGCONT)
        self.assertEqual(self.ended(process), LOST)

    def test_nobody_reads_what_it_says(self):
        """A full pipe keeps tooz-run from its work, and not the keeper from its own."""
        path, (read_end, full) = self.file(), os.pipe()
        os.set_blocking(full, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(full, bytes(4096))
        os.set_blocking(full, True)
        process = self.begin("-l", self.a("locks/l"), *writer(path, "deaf"), stderr=full)
        lib.wait_until(lambda: stamps(path), "the writer")
        self.agent().unlink(self.b("locks/l"))
        self.silent(path)
        os.read(read_end, 65536)
        self.assertEqual(self.ended(process), LOST)
        os.close(read_end)
        os.close(full)

    def test_daemon_killed(self):
        process, _ = self.begin_writer("-l", self.a("locks/l"))
        member = self.begin_sh("-m", self.member(), script="echo ready; sleep 1000")
        self.a.kill()
        self.assertEqual(self.ended(process), LOST)
        self.assertEqual(self.ended(member), LOST)

    def member(self):
        os.mkdir(self.a("groups/g"))
        return self.a("groups/g/m")

    def test_daemon_terminated(self):
        process, _ = self.begin_writer("-l", self.a("locks/l"))
        self.a.process.terminate()
        self.assertEqual(self.ended(process), LOST)
        self.assertEqual(self.a.wait_exit(), 0)

    def test_unmounted_lazily(self):
        """The daemon serves on until the command has ended."""
        path = self.file()
        process = self.begin_sh("-l", self.a("locks/l"),
                                script=f"trap 'exit 4' USR1; echo ready; while :; do read x < /dev/null; done")
        subprocess.run(["umount", "-l", self.a.path], check=True, timeout=lib.PATIENCE_S)
        self.assertIsNone(process.poll())
        self.assertIsNone(self.a.process.poll())
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(self.ended(process), 4)
        self.assertEqual(self.a.wait_exit(), 0)


class Order:
    """One mount loses, and another is granted what was lost: after the command's end."""

    def race(self, trouble_now, *args, how=(), after=lambda: None):
        """The exit code of a writer whose mount gets into trouble."""
        process, path = self.begin_writer("-l", self.a("locks/l"), *args, how=how)
        other = self.agent()
        other.start("take_and_stamp", self.b("locks/l"))
        other.wait_blocked()
        begin = time.monotonic_ns()
        trouble_now(process)
        code = self.ended(process)
        self.said = process.stderr.read().decode()
        after()
        granted = other.result(4 * lib.PATIENCE_S)
        self.silent(path)
        last = stamps(path)[-1]
        self.assertLess(last, granted)
        self.lasted = (granted - begin) / 1e9
        print(f"{self.id()}: ended after {(last - begin) / 1e9:.2f} s, granted after "
              f"{(granted - begin) / 1e9:.2f} s", file=sys.stderr)
        return code

    def terminate(self, _):
        self.a.process.terminate()

    def umount_by_force(self, _):
        """Which says that it is busy, and ends the mount all the same."""
        done = subprocess.run(["umount", "-f", self.a.path], capture_output=True, text=True, check=False,
                              timeout=lib.PATIENCE_S)
        self.assertIn("busy", done.stderr)

    def stops(self, end, how=()):
        watch = lib.Stopwatch()
        self.assertEqual(self.race(end, how=how), LOST)
        self.assertEqual(self.a.wait_exit(), 0)
        self.assertRegex(self.a.read_log(), r"lock l was lost: the mount is ending \(held by process \d+\)\n")
        watch.stop().within(4 * lib.SLOW, "the stop")

    def test_terminated(self):
        self.stops(self.terminate)

    def test_terminated_under_a_deaf_command(self):
        self.stops(self.terminate, how=("deaf", "child"))

    def test_unmounted_by_force(self):
        self.stops(self.umount_by_force)
        self.assertFalse(lib.mounted(self.a.path))

    def test_unmounted_by_force_under_a_deaf_command(self):
        self.stops(self.umount_by_force, how=("deaf", "child"))
        self.assertFalse(lib.mounted(self.a.path))

    def test_unmounted_lazily_and_terminated(self):
        def end(_):
            subprocess.run(["umount", "-l", self.a.path], check=True, timeout=lib.PATIENCE_S)
            self.a.process.terminate()
        self.stops(end, how=("deaf",))


class OnFile(Order, Helper, lib.File):
    """Two mounts."""

    test_conflict = Plain.test_conflict
    test_killed = Signals.test_killed

    def test_broken_by_the_other_mount(self):
        process, _ = self.begin_writer("-l", self.a("locks/l"))
        os.unlink(self.b("locks/l"))
        self.assertEqual(self.ended(process), LOST)

    def test_member_of_another_mount(self):
        os.mkdir(self.a("groups/g"))
        lib.write(self.b("groups/g/m"), b"theirs")
        self.assertEqual(self.code("-m", self.a("groups/g/m") + "=ours", "true"), FAILED)
        self.assertEqual(lib.read(self.b("groups/g/m")), b"theirs")

    def test_released_when_the_command_has_ended(self):
        """And not when its grace is over."""
        self.stops(self.terminate)
        self.assertLess(self.lasted, 1 * lib.SLOW)


class Leased(Order):
    """The same on a server."""

    def test_cut_off(self):
        """By the clock, and early enough for TERM."""
        self.assertEqual(self.race(lambda _: self.proxy.drop("both"), how=("tidy",)), LOST)
        self.assertTrue(os.path.exists(os.path.join(lib.WORK, f"file{Helper.count}.tidy")))

    def test_cut_off_under_a_deaf_command(self):
        """However long a grace was asked for."""
        code = self.race(lambda _: self.proxy.drop("both"), "-g", "60", how=("deaf", "child"))
        self.assertEqual(code, LOST)
        self.assertIn("-g: the lease allows 0.375", self.said)

    def test_tooz_run_stopped_and_cut_off(self):
        def stop(process):
            process.send_signal(signal.SIGSTOP)
            self.proxy.drop("both")
            self.silent(os.path.join(lib.WORK, f"file{Helper.count}"))
            process.send_signal(signal.SIGCONT)
        self.assertEqual(self.race(stop, how=("deaf", "child")), LOST)

    def test_daemon_stopped(self):
        """It says nothing, and tooz-run ends by its own clock."""
        def stop(_):
            self.a.process.send_signal(signal.SIGSTOP)
            self.addCleanup(self.a.process.send_signal, signal.SIGCONT)
        self.assertEqual(self.race(stop, how=("deaf",)), LOST)
        self.assertIn("not confirmed in time", self.said)

    def test_daemon_killed(self):
        self.assertEqual(self.race(lambda _: self.a.kill(), how=("deaf", "child")), LOST)

    def test_daemon_killed_and_mounted_again(self):
        """With the same member id, which ends what the dead one left."""
        def again(_):
            self.a.kill()
            self.a = self.tree(self.a.url, trouble.OPTIONS, directory=self.a.path, member=self.a.member,
                               ready=False)
        self.assertEqual(self.race(again, how=("deaf", "child")), LOST)
        self.a.wait_ready()

    def test_server_stopped_and_continued(self):
        code = self.race(lambda _: self.server.pause(), how=("deaf",), after=self.server.cont)
        self.assertEqual(code, LOST)

    def test_server_is_back_when_the_lease_is_over(self):
        """The mount lets go of what it lost as soon as it can."""
        def stop(_):
            self.server.pause()
            self.state(self.a, "lost")
            self.server.cont()
        self.assertEqual(self.race(stop, how=("deaf", "child")), LOST)

    def test_killed_while_the_command_cannot_end(self):
        """Its last call to a file system goes on for a while: so long the lock is kept."""
        os.mkdir(self.a("groups/g"))
        process = self.begin("-l", self.b("locks/l"), "sh", "-c", 'echo ready; read x < "$1"; exec mkdir "$2"',
                             "sh", self.fifo(), self.a("groups/h"), stdout=subprocess.PIPE)
        self.says(process, b"ready\n")
        child = command_of(process.pid)
        other = self.agent()
        other.start("take_and_look", self.b("locks/l"), child)
        other.wait_blocked()
        self.proxy.stall("both")
        lib.write(os.path.join(lib.WORK, f"file{Helper.count}"), b"go\n", os.O_WRONLY)
        lib.wait_until(lambda: lib.in_lock_request(child), "the call")
        with self.assertRaises(subprocess.TimeoutExpired):
            process.wait(lib.SHORT_S)
        process.kill()
        self.assertIn(other.result(4 * lib.PATIENCE_S), ("", "Z", "X"))

    def fifo(self):
        path = self.file()
        os.mkfifo(path)
        return path

    def test_broken_by_the_other_mount(self):
        process, _ = self.begin_writer("-l", self.a("locks/l"))
        os.unlink(self.b("locks/l"))
        self.assertEqual(self.ended(process), LOST)

    def test_never_two(self):
        """Whatever happens to a connection, a daemon and the server: the commands come one after the other."""
        log, stop, choose = self.file(), self.file(), random.Random(os.getpid())
        loops = [subprocess.Popen(["bash", "-c", RACE, "bash", stop, TOOZ_RUN, tree("locks/l"), RACER, log,
                                   str(seconds)], stderr=subprocess.DEVNULL, start_new_session=True)
                 for tree, seconds in ((self.a, 0.1), (self.a, 2.5), (self.b, 0.1), (self.b, 0.5))]
        end = time.monotonic() + (60 if lib.LONG else 12) * lib.SLOW
        try:
            while time.monotonic() < end:
                time.sleep(choose.uniform(0.05, 0.5))
                self.trouble_for_a_while(choose)
        finally:
            lib.write(stop, b"")
            for loop in loops:
                loop.wait(6 * lib.PATIENCE_S)
        spans = {}
        for line in lib.read(log).splitlines():
            token, stamp = map(int, line.split())
            first, last = spans.get(token, (stamp, stamp))
            spans[token] = min(first, stamp), max(last, stamp)
        order = [spans[token] for token in sorted(spans)]
        print(f"{self.id()}: {len(order)} commands", file=sys.stderr)
        self.assertGreater(len(order), 5)
        for (_, last), (first, _) in zip(order, order[1:]):
            self.assertLess(last, first, "two ran at once")

    def trouble_for_a_while(self, choose):
        what, seconds = choose.randrange(4), choose.choice((0.2, 1, 2 * LEASE_S))
        if what == 0:
            self.proxy.cut()
        elif what == 1:
            self.proxy.drop("both")
            time.sleep(seconds)
            self.proxy.drop("none")
            self.proxy.cut()
        elif what == 2:
            self.a.process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            self.a.process.send_signal(signal.SIGCONT)
        else:
            self.server.pause()
            time.sleep(seconds)
            self.server.cont()

    def test_not_obtained_in_an_outage(self):
        """Nobody may hold it: that is no conflict."""
        lock = self.a("locks/l")
        for wait in ("-n", "-w0.3"):
            self.assertEqual(self.code(wait, "-E", "75", "-l", self.a("locks/free"), "true"), 0)
        self.server.pause()
        self.addCleanup(self.server.cont)
        self.state(self.a, "suspended", "lost")
        for wait in ("-n", "-w0.3"):
            done = self.done(wait, "-E", "75", "-l", lock, "echo", "ran")
            self.assertEqual((done.returncode, done.stdout), (FAILED, ""), done.stderr)
            self.assertRegex(done.stderr, r"\Atooz-run: .*/locks/l: .*the backend cannot be asked now.*\n\Z")
        self.state(self.a, "lost")
        done = self.done("-w", "0.3", "-E", "75", "-l", lock, "echo", "ran")
        self.assertEqual((done.returncode, done.stdout), (FAILED, ""), done.stderr)
        self.assertIn("the mount is lost", done.stderr)
        self.server.cont()
        self.state(self.a, "connected")
        self.works()
        # And a conflict is one again.
        holder = self.agent()
        holder.open_flock(self.b("locks/l"), RW, EX)
        self.assertEqual(self.code("-w", "0.3", "-E", "75", "-l", lock, "true"), 75)

    def test_not_obtained_of_a_daemon_that_stands_still(self):
        self.a.process.send_signal(signal.SIGSTOP)
        self.addCleanup(self.a.process.send_signal, signal.SIGCONT)
        for what, wait, seconds in (("-l", "-w0.3", 0.3), ("-L", "-n", 2)):
            watch = lib.Stopwatch()
            path = self.a("locks/l" if what == "-l" else "leaders/g")
            done = self.done(wait, "-E", "75", what, path, "echo", "ran")
            self.assertEqual((done.returncode, done.stdout), (FAILED, ""), done.stderr)
            self.assertIn("the mount does not answer", done.stderr)
            watch.within(seconds + 3 + 1 * lib.SLOW)

    def test_no_wait_with_a_slow_backend(self):
        """The mount is well, and it is no conflict."""
        tree = self.tree(self.url(port=self.proxy.port), "timeout=30")
        self.proxy.delay(1200)
        done = self.done("-n", "-E", "75", "-l", tree("locks/l"), "echo", "ran")
        self.proxy.delay(0)
        self.assertEqual((done.returncode, done.stdout), (0, "ran\n"), done.stderr)

    def test_outage_that_is_short(self):
        """Suspended is not lost."""
        process, _ = self.begin_writer("-l", self.a("locks/l"))
        self.proxy.cut()
        self.state(self.a, "connected")
        process.terminate()
        self.assertEqual(self.ended(process), 128 + signal.SIGTERM)

    def test_runs_on(self):
        """Longer than the lease, when nothing is wrong."""
        process, path = self.begin_writer("-l", self.a("locks/l"))
        end = stamps(path)[0] + int(1.5e9 * LEASE_S)
        lib.wait_until(lambda: stamps(path)[-1] > end, "time to pass", 3 * LEASE_S * lib.SLOW)
        process.terminate()
        self.assertEqual(self.ended(process), 128 + signal.SIGTERM)


class LeasedRedis(Leased, Helper, servers_redis.Own, trouble.Base, lib.Case):
    def test_key_deleted(self):
        process, _ = self.begin_writer("-l", self.a("locks/l"))
        self.server("DEL", f"{self.ns}_l_lock")
        self.assertEqual(self.ended(process), LOST)

    def test_broken_by_python(self):
        """tooz: lock.break_()."""
        process, _ = self.begin_writer("-l", self.a("locks/l"))
        script = ("import sys; from tooz import coordination; c = coordination.get_coordinator("
                  "sys.argv[1], b'py'); c.start(); print(c.get_lock(b'l').break_())")
        done = subprocess.run(["/usr/bin/python3", "-c", script, self.url()], capture_output=True,
                              text=True, check=False, timeout=2 * lib.PATIENCE_S)
        self.assertIn("True", done.stdout, done.stderr)
        self.assertEqual(self.ended(process), LOST)


class LeasedZooKeeper(Leased, Helper, servers_zookeeper.Own, trouble.Base, lib.Case):
    pass


if __name__ == "__main__":
    lib.main(240)
