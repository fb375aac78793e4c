# SPDX-License-Identifier: Apache-2.0
"""tooz-run on a terminal: who has it, what its keys do, and what a shell sees of that."""
import os
import pty
import re
import select
import signal
import time

import lib
from run import Helper, TOOZ_RUN


class Terminal(Helper, lib.Memory):
    """An interactive bash in a terminal of its own, and what one types there."""

    def setUp(self):
        super().setUp()
        self.pid, self.tty = pty.fork()
        if self.pid == 0:
            os.environ.update(PS1="$ ", L=self.a("locks/l"), R=TOOZ_RUN, INPUTRC="/dev/null",
                              TERM="dumb", HISTFILE="")
            os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
        self.addCleanup(self.end)
        self.screen = b""
        self.sees(rb"\$ ")
        self.types("stty -echo; bind 'set enable-bracketed-paste off' 2>&-; echo be''gin")
        self.sees(rb"begin\r\n")

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.tty)
        os.waitpid(self.pid, 0)

    def types(self, line):
        os.write(self.tty, line.encode() + b"\n")

    def key(self, byte):
        os.write(self.tty, byte)

    def sees(self, pattern):
        """Until it is on the screen; what was before it is forgotten."""
        end = time.monotonic() + lib.PATIENCE_S
        while True:
            match = re.search(pattern, self.screen)
            if match:
                self.screen = self.screen[match.end():]
                return match
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.tty], [], [], left)[0]:
                raise AssertionError(f"{pattern!r} does not appear: {self.screen!r}")
            self.screen += os.read(self.tty, 65536)

    READER = "sh -c 'echo ready; read x; echo got:$x'"

    def test_reads(self):
        self.types(f"$R -l $L {self.READER}; echo code:$?")
        self.sees(rb"ready")
        self.types("hello")
        self.sees(rb"got:hello")
        self.sees(rb"code:0")
        self.types(f"$R -l $L {self.READER}; echo code:$?")
        self.sees(rb"ready")

    def test_ctrl_c(self):
        self.types("while :; do $R -l $L sh -c 'echo ready; exec sleep 1000'; done; echo broken")
        self.sees(rb"ready")
        self.key(b"\x03")
        self.sees(rb"\$ ")
        self.types("echo code:$?")
        self.sees(rb"code:130")
        self.assertTrue(self.free(self.a("locks/l")))

    def test_ctrl_z(self):
        self.types(f"$R -l $L {self.READER}")
        self.sees(rb"ready")
        self.key(b"\x1a")
        self.sees(rb"Stopped")
        self.assertFalse(self.free(self.a("locks/l")))
        self.types("fg")
        self.sees(rb"\$R -l")
        self.types("on and on")
        self.sees(rb"got:on and on")
        self.types("echo code:$?")
        self.sees(rb"code:0")

    def test_continued_in_the_background(self):
        program = self.file()
        lib.write(program, b"import signal\n"
                  b"usr1 = [signal.SIGUSR1]\n"
                  b"signal.pthread_sigmask(signal.SIG_BLOCK, usr1)\n"
                  b"print('ready', flush=True)\n"
                  b"signal.sigwait(usr1)\n"
                  b"print('awake', flush=True)\n"
                  b"open('/dev/tty').readline()\n")
        self.types(f"$R -l $L /usr/bin/python3 {program}")
        self.sees(rb"ready")
        self.key(b"\x1a")
        self.sees(rb"Stopped")
        self.types("bg; kill -USR1 %1")
        self.sees(rb"awake")
        lib.wait_until(self.stopped, "the stop")
        self.types("kill -HUP %1; kill -CONT %1; wait %1; echo code:$?")
        self.sees(rb"code:129")

    def test_background_job_that_reads(self):
        self.types(f"$R -l $L {self.READER} &")
        self.sees(rb"ready")
        lib.wait_until(self.stopped, "the stop")
        self.types("fg")
        self.sees(rb"\$R -l")
        self.types("late")
        self.sees(rb"got:late")

    def stopped(self):
        """Has bash noticed?"""
        self.types("jobs; echo lis''ted")
        end = time.monotonic() + 0.2
        while time.monotonic() < end and b"Stopped" not in self.screen:
            if select.select([self.tty], [], [], 0.05)[0]:
                self.screen += os.read(self.tty, 65536)
        return b"Stopped" in self.screen

    def test_script(self):
        """Ctrl-C is passed on to a command that has not got the terminal."""
        self.types("sh -c 'trap : INT; \"$R\" -l \"$L\" sh -c \"trap \\\"echo caught; exit 3\\\" INT; "
                   "echo ready; while :; do read x < /dev/null; done\"; echo code:$?'")
        self.sees(rb"ready")
        self.key(b"\x03")
        self.sees(rb"caught")
        self.sees(rb"code:3")

    def test_ctrl_c_ends_the_loop_of_a_script(self):
        self.types("bash -c 'while :; do $R -l $L sh -c \"echo ready; exec sleep 1000\"; done'")
        self.sees(rb"ready")
        self.key(b"\x03")
        self.sees(rb"\$ ")
        self.types("echo code:$?")
        self.sees(rb"code:130")

    def test_ctrl_z_in_the_foreground(self):
        self.types(f"$R -f -l $L {self.READER}")
        self.sees(rb"ready")
        self.key(b"\x1a")
        self.sees(rb"Stopped")
        self.types("fg")
        self.sees(rb"\$R -f")
        self.types("on and on")
        self.sees(rb"got:on and on")

    def test_command_that_sets_the_terminal(self):
        """It is stopped where it has not got it, and that is said."""
        self.types("sh -c '\"$R\" -l \"$L\" stty echo; exit'")
        self.sees(rb"wants to use the terminal")
        self.key(b"\x03")
        self.sees(rb"\$ ")
        self.types("echo code:$?")
        self.sees(rb"code:130")

    def test_pipeline(self):
        """The terminal is left to the others."""
        self.types("$R -l $L sh -c 'echo ready; sleep 1000' | (cat; read x < /dev/tty; echo got:$x)")
        self.sees(rb"ready")
        self.agent().unlink(self.a("locks/l"))
        self.types("mine")
        self.sees(rb"got:mine")

    def test_foreground(self):
        self.types("$R -f -l $L sh -c 'echo ready; read x < /dev/tty; echo got:$x' | cat")
        self.sees(rb"ready")
        self.types("me")
        self.sees(rb"got:me")

    def test_lost_while_stopped(self):
        self.types("$R -l $L sh -c 'trap \"\" TERM; echo ready; while :; do read x < /dev/null; done'")
        self.sees(rb"ready")
        self.key(b"\x1a")
        self.sees(rb"Stopped")
        self.agent().unlink(self.a("locks/l"))
        self.types("fg; echo code:$?")
        self.sees(rb"code:122")


if __name__ == "__main__":
    lib.main()
