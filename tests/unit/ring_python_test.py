#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The hash ring against Python's: tooz.hashring over the same members, weights and partitions.

Usage: ring_python_test.py RING_TOOL. Exits with 77 where tooz is not installed.
"""
import random
import subprocess
import sys

try:
    from oslo_serialization import msgpackutils
    from tooz import hashring
except ImportError:
    sys.exit(77)

RINGS = 1000
OBJECTS = 5


def name_of(rng):
    """Random bytes; an empty id is one too, and some are longer than a block of md5."""
    return rng.randbytes(rng.choice((0, 1, 1, 2, 5, 12, 16, 31, 64, 65, 200)))


def weight_of(rng):
    """Now and then one that has no points."""
    return rng.randint(1, 5) if rng.random() < 0.95 else rng.choice((0, -1, -2 ** 40, False))


def caps_of(rng, weight):
    """Capabilities that say this weight, one way or another."""
    values = [{"weight": weight}, {"a": [1, {"weight": 9}], "weight": weight, b"weight": 7}]
    if weight == 1:
        values += [{}, {"weight": True}, {"Weight": 5}, {b"weight": 3}]
    return rng.choice(values)


def preference(ring, data):
    """All nodes with a point in order: who comes in when there is one replica more."""
    order, before = [], set()
    for replicas in range(1, sum(weight > 0 for weight in ring.nodes.values()) + 1):
        now = ring.get_nodes(data, replicas=replicas)
        (new,) = now - before
        order.append(new)
        before = now
    return order


def ring_of(rng):
    """(partitions, {name: capabilities}, objects)"""
    members = {name_of(rng): caps_of(rng, weight_of(rng)) for _ in range(rng.randint(0, 12))}
    objects = [rng.randbytes(rng.choice((1, 2, 8, 40))) for _ in range(OBJECTS)]
    return rng.randint(1, 64), members, objects


def changed(rng, ring):
    """Some members more, some less, some of another weight."""
    partitions, members, objects = ring
    members = {name: caps_of(rng, weight_of(rng)) if rng.random() < 0.2 else caps
               for name, caps in members.items() if rng.random() < 0.8}
    for _ in range(rng.randint(0, 3)):
        members[name_of(rng)] = caps_of(rng, weight_of(rng))
    return partitions, members, objects


def main():
    seed = random.randrange(2 ** 32)
    print("seed", seed)
    rng = random.Random(seed)
    rings = [ring_of(rng)]
    while len(rings) < RINGS:
        rings.append(changed(rng, rings[-1]) if rng.random() < 0.5 else ring_of(rng))
    lines, wanted = [], []
    for partitions, members, objects in rings:
        lines.append(f"r {partitions}")
        python = hashring.HashRing([], partitions=partitions)
        for name, caps in members.items():
            lines.append(f"m {name.hex()} {msgpackutils.dumps(caps).hex()}")
            python.add_node(name, caps.get("weight", 1))
        for data in objects:
            lines.append(f"o {data.hex()}")
            wanted.append((partitions, members, data, preference(python, data)))
    done = subprocess.run([sys.argv[1]], input="\n".join(lines) + "\n", text=True, check=True,
                          stdout=subprocess.PIPE)
    answers = done.stdout.split("\n")[:-1]
    assert len(answers) == len(wanted), (len(answers), len(wanted))
    for answer, (partitions, members, data, order) in zip(answers, wanted):
        given = [bytes.fromhex(name) for name in answer.split(" ")] if order else []
        assert given == order, (partitions, members, data, given, order)
    print(len(rings), "rings,", len(wanted), "look-ups")


main()
