# SPDX-License-Identifier: Apache-2.0
"""What the processes of the fault suite write: what they see, each into a file of its own, a line for each event, at
once, so that nothing is missing when it is killed; and to the resource that the locks protect. Imports little:
a command under tooz-run begins with it."""
import fcntl
import json
import os
import time

now = time.monotonic


class Diary:
    def __init__(self, directory, name):
        self.name = name
        self.fd = os.open(os.path.join(directory, f"events-{name}"),
                          os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def __call__(self, what, t=None, **more):
        event = {"e": what, "w": self.name, "t": now() if t is None else t, **more}
        os.write(self.fd, json.dumps(event).encode() + b"\n")

    def close(self):
        os.close(self.fd)


class Resource:
    """What the lock protects. One of its logs is guarded: the guard knows the greatest token it has seen."""

    def __init__(self, directory, lock):
        self.guard = os.open(os.path.join(directory, f"guard-{lock}"), os.O_RDWR | os.O_CLOEXEC)
        self.log = os.open(os.path.join(directory, f"guarded-{lock}"),
                           os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, token):
        """None; or what the guard has seen, if that is more."""
        try:
            fcntl.flock(self.guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None  # nobody waits for one that may be stopped
        try:
            last = int(os.pread(self.guard, 64, 0))
            if token < last:
                return last
            os.pwrite(self.guard, b"%020d" % token, 0)
            os.write(self.log, b"%d\n" % token)
            return None
        finally:
            fcntl.flock(self.guard, fcntl.LOCK_UN)
