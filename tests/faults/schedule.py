# SPDX-License-Identifier: Apache-2.0
"""What goes wrong when, from a seed alone."""
import random

OWN = {"daemon-stop": 3, "daemon-kill": 2, "remount": 1, "worker-kill": 3, "worker-stop": 2}
NET = {"cut": 2, "half_close": 1, "delay": 2, "drop": 4, "stall": 3, "garble": 1, "refuse": 2,
       "one-cut": 2, "one-half_close": 1, "one-drop": 3, "one-stall": 3, "one-delay": 2}
SERVER = {"server-stop": 3, "server-kill": 2}
# Between network namespaces: packets vanish, or the sender is told that there is no way, or there is no cable.
LINK = {"vanish": 4, "unreachable": 2, "unplug": 2}
KINDS = {
    "file": OWN,
    "redis": OWN | NET | SERVER,
    "zookeeper": OWN | NET | SERVER,
    "zookeeper-ensemble": OWN | NET | SERVER | {"leader-stop": 3, "leader-kill": 2},
    "redis-parted": OWN | LINK | SERVER | {"server-vanish": 2, "server-unplug": 1},
    "zookeeper-parted": OWN | LINK | SERVER | {"leader-stop": 2, "leader-kill": 2, "leader-vanish": 3,
                                               "server-vanish": 2, "leader-unplug": 1, "server-unplug": 1},
    "redis-sentinel": OWN | SERVER | {"leader-stop": 4, "leader-kill": 4},
}
AT_ONCE = ("cut", "half_close", "garble", "one-cut", "one-half_close", "worker-kill", "remount")
WAYS = ("up", "down", "both")
STEP_S = 0.5  # between two faults, on the average


def _target(kind, rng, mounts, workers):
    if kind.startswith(("server", "leader")):
        return "server"
    if kind.startswith("worker"):
        return f"worker {rng.choice(workers)}"
    return f"mount {rng.randrange(mounts)}"


def _duration(rng, ttl_s):
    """Mostly short, some about as long as a lease, some longer."""
    r = rng.random()
    if r < 0.6:
        return rng.uniform(0.03, 0.3) * ttl_s
    if r < 0.82:
        return rng.uniform(0.3, 1.0) * ttl_s
    return rng.uniform(1.1, 1.7) * ttl_s


def make(store, seed, seconds, ttl_s, mounts, workers):
    """[{at, lasts, kind, target, arg}]: no two at one time on one target. A mount's link is a target of its own."""
    rng = random.Random(f"{store} {seed}")
    kinds = KINDS[store]
    free_at, found, t = {}, [], 0.3 * ttl_s
    while t < seconds:
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        target = _target(kind, rng, mounts, workers)
        lasts = 0.0 if kind in AT_ONCE else _duration(rng, ttl_s) * (0.3 if kind == "daemon-kill" else 1.0)
        arg = {"way": rng.choice(WAYS), "number": rng.randrange(1000), "ms": rng.choice((5, 50, 200, 600)),
               "pick": rng.random()}
        place = target + (" link" if kind in NET | LINK else "")
        if free_at.get(place, 0) <= t:
            lasts = min(lasts, seconds - t)
            found.append({"at": t, "lasts": lasts, "kind": kind, "target": target, "arg": arg})
            # A mount that was ended takes a while to come back.
            free_at[place] = t + lasts + (ttl_s if kind in ("remount", "daemon-kill") else 0.1)
        t += rng.expovariate(1 / STEP_S)
    return found
