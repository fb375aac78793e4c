# SPDX-License-Identifier: Apache-2.0
"""Readers of events/, for tests."""
import os
import select
import time

from lib import SLOW


class Reader:
    """One open handle of a stream. What was read is in lines."""

    def __init__(self, path):
        self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.lines, self.rest, self.ended = [], b"", False

    def take(self, timeout_s, size=65536):
        """Reads once; False: nothing came in time."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if not poll.poll(1000 * timeout_s):
            return False
        try:
            data = os.read(self.fd, size)
        except BlockingIOError:
            return True
        if not data:
            self.ended = True
            return True
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.lines += [line.decode() for line in lines]
        return True

    def until(self, line, timeout_s=10, size=65536):
        """The lines up to and with this one, taken off."""
        end = time.monotonic() + timeout_s * SLOW
        while line not in self.lines:
            if self.ended or not self.take(max(0, end - time.monotonic()), size):
                raise AssertionError(f"no {line!r}: {self.lines}, end of file {self.ended}")
        at = self.lines.index(line) + 1
        found, self.lines = self.lines[:at], self.lines[at:]
        return found

    def silent(self, seconds=0.2):
        return not self.lines and not self.take(seconds)

    def close(self):
        os.close(self.fd)


def fold(lines, state=None):
    """The members and the leader that a reader of these lines knows."""
    members, leader = state or (set(), None)
    for line in lines:
        word, _, name = line.partition(" ")
        if word == "overflow":
            members, leader = set(), None
        elif word in ("member", "join"):
            assert name not in members, f"{line!r} twice: {lines}"
            members = members | {name}
        elif word == "leave":
            assert name in members, f"{line!r}, but it was no member: {lines}"
            members = members - {name}
        elif word == "update":
            assert name in members, f"{line!r}, but it was no member: {lines}"
        elif word == "leader":
            leader = name
        elif word == "no-leader":
            leader = None
        else:
            assert word in ("ready", "suspended", "resumed", "deleted"), line
    return members, leader
