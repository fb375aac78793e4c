# SPDX-License-Identifier: Apache-2.0
"""What the fault suite runs under tooz-run: it works as long as it lives, and does not look at the lock.

    command.py DIRECTORY NAME LOCK MODE MOUNT SECONDS HOW

HOW: "deaf" ignores SIGTERM, so that only SIGKILL ends it; "slow" takes a while over its last words; "meek" ends.
"""
import os
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from diary import Diary, Resource, now  # noqa: E402

TURN_S = 0.01


def main(directory, name, lock, mode, mount, seconds, how):
    tell = Diary(directory, name)
    tell("got")
    if how != "meek":
        signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "deaf" else lambda *_: time.sleep(0.2) or sys.exit(0))
    enough, over = now() + float(seconds), os.path.join(directory, "over")
    token = int(os.environ["TOOZ_TOKEN"]) if mode == "x" and "TOOZ_TOKEN" in os.environ else None
    resource = Resource(directory, lock)
    if token is not None:
        tell("token", tok=token)
    while True:
        t = now()
        tell("alive", t=t)
        if token is not None:
            tell("line", t=t, l=lock, tok=token, c=t, mount=int(mount), run=True)
            last = resource.write(token)
            if last is not None:
                tell("refused", last=last)
        if now() >= enough or os.path.exists(over):
            break
        time.sleep(TURN_S)
    tell("free")


if __name__ == "__main__":
    main(*sys.argv[1:])
