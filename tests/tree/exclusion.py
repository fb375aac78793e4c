# SPDX-License-Identifier: Apache-2.0
"""Mutual exclusion between processes and between mounts, under random kills.

TOOZFS_EXCLUSION is the program exclusion. 20,000 acquisitions, 3,000 on a server, 1,000,000 with
TOOZFS_LONG=1; TOOZFS_SEED replays the choices (not the schedule) of an earlier run.
"""
import os
import subprocess
import sys
import time

import lib

PROGRAM = os.environ.get("TOOZFS_EXCLUSION", "")
TARGET = 1000000 if lib.LONG else 3000 if os.environ.get("TOOZFS_STORE") else 20000
LIMIT_S = 7200 if lib.LONG else 240


class Exclusion:
    def test_random_kills(self):
        seed = os.environ.get("TOOZFS_SEED", str(time.time_ns() % 1000000007))
        done = subprocess.run([PROGRAM, self.a("locks/l"), self.b("locks/l"), str(TARGET), "16", seed],
                              stdout=subprocess.PIPE, text=True, timeout=LIMIT_S * lib.SLOW,
                              check=False)
        print(done.stdout, file=sys.stderr)
        self.assertEqual(done.returncode, 0)
        self.assertIsNone(self.a.process.poll())
        lib.wait_until(lambda: not os.path.exists(self.a("locks/l")), "the last release")
        self.assertFalse(os.path.exists(self.b("locks/l")))


class ExclusionMemory(Exclusion, lib.Memory):
    pass


class ExclusionFile(Exclusion, lib.File):
    pass


class ExclusionRedis(Exclusion, lib.Redis):
    pass


class ExclusionZooKeeper(Exclusion, lib.ZooKeeper):
    pass


if __name__ == "__main__":
    lib.main(2 * LIMIT_S)
