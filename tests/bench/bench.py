# SPDX-License-Identifier: Apache-2.0
"""How much slower than an empty file system is the tree? Ratios of one run, on one machine.

usage: bench.py FLOOR LOAD [--rounds N] [--lock-rounds N] [--seconds S] [--members N] [--idle S]
                [--json FILE] [--url URL]

The floor is an empty FUSE file system with libfuse's own loop, the tree a mount of memory:// (TOOZFS
is the program). Each load runs in short slices, on one and then on the other, the first of the two
changing each round. What counts is the median of the ratios of such neighbours: whatever else the
machine does slows both, and a slice in which it slowed only one is an outlier. (The best rate of each,
which is shown too, compares two moments that may be minutes apart.) Only one ratio decides: with
flock and unlock below 0.8 of the floor, also when they are measured once more with twice the rounds,
the status is 1. Times are of the machine, and no pass mark.

Daemon and load share one core: where the scheduler puts them otherwise is luck, and changes the rate
of any FUSE file system tenfold, more than there is to measure. The locks are measured without that
too ("free"), for information.
"""
import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tree"))
import lib  # noqa: E402

# name: (what load does, unit, do they share a core?)
LOADS = {"lock": ("lock", "flock+unlock/s", True), "lock_free": ("lock", "flock+unlock/s, free", False),
         "stat": ("stat", "stat/s", True), "read": ("read", "open+read+close/s", True),
         "readdir": ("readdir", "readdir/s", True)}
LOCK_RATIO_MIN = 0.8


class Usage:
    """What a process has used so far, over all its threads."""

    def __init__(self, pid):
        self.cpu_s, self.switches = 0.0, 0
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
                self.cpu_s += int(f.read().split()[0]) * 1e-9
            with open(f"/proc/{pid}/task/{task}/status", encoding="ascii") as f:
                self.switches += sum(int(x.split()[1]) for x in f if "ctxt_switches" in x)


class Floor:
    name = "floor"

    def __init__(self, program, members):
        self.path = os.path.join(lib.WORK, "floor")
        os.mkdir(self.path)
        self.process = subprocess.Popen([program, self.path, str(members)])
        self.pid = self.process.pid
        lib.wait_until(lambda: lib.mounted(self.path), "the floor")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(lib.PATIENCE_S)


class Ours:
    name = "tree"

    def __init__(self, url, members):
        self.tree = lib.Tree(url).wait_ready()
        self.path, self.pid = self.tree.path, self.tree.pid
        os.mkdir(self.tree("groups/g"))
        for i in range(members):
            lib.write(self.tree(f"groups/g/m{i}"), b"floor")

    def stop(self):
        self.tree.stop()


CPUS = os.sched_getaffinity(0)


def place(target, cpus):
    for task in os.listdir(f"/proc/{target.pid}/task"):
        os.sched_setaffinity(int(task), cpus)


def measure(load, target, what, seconds, cpus):
    """(rate, CPU seconds of the daemon for one operation)"""
    place(target, cpus)
    before = Usage(target.pid)
    done = subprocess.run([load, target.path, what, str(seconds)], capture_output=True, text=True,
                          timeout=60 + 10 * seconds, check=False,
                          preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    if done.returncode:
        raise SystemExit(f"{what} on {target.name}: {done.stderr}")
    rate, count, _ = done.stdout.split()
    return float(rate), (Usage(target.pid).cpu_s - before.cpu_s) / int(count)


def compare(args, targets, loads):
    """{load: {"floor": ..., "tree": ..., "ratio": ...}}"""
    found = {}
    for name, (what, unit, together) in loads.items():
        cpus = {min(CPUS)} if together else CPUS
        rates = {t.name: [] for t in targets}
        costs = {t.name: [] for t in targets}
        for i in range(args.lock_rounds if name == "lock" else args.rounds):
            for target in targets[::-1] if i % 2 else targets:
                rate, cost = measure(args.load, target, what, args.seconds, cpus)
                rates[target.name].append(rate)
                costs[target.name].append(cost)
        best = {key: max(values) for key, values in rates.items()}
        cost = {key: 1e6 * statistics.median(values) for key, values in costs.items()}
        found[name] = {
            "unit": unit, "floor": best["floor"], "tree": best["tree"],
            "ratio": statistics.median(t / f for t, f in zip(rates["tree"], rates["floor"])),
            "ratio_best": best["tree"] / best["floor"],
            "floor_cpu_us": cost["floor"], "tree_cpu_us": cost["tree"]}
        print("{unit:20} floor {floor:10.0f} ({floor_cpu_us:6.1f} us CPU)  tree {tree:10.0f} "
              "({tree_cpu_us:6.1f} us CPU)  ratio {ratio:.2f} (of the best {ratio_best:.2f})"
              .format(**found[name]), flush=True)
    for target in targets:
        place(target, CPUS)
    return found


def idle(args, targets):
    """CPU seconds and context switches a second of daemons that nobody asks anything."""
    time.sleep(0.5)  # after the last requests, so that what they left to do is done
    before = {t.name: Usage(t.pid) for t in targets}
    begin = time.monotonic()
    time.sleep(args.idle)
    passed = time.monotonic() - begin
    found = {}
    for target in targets:
        after = Usage(target.pid)
        found[target.name] = {
            "cpu_percent": 100 * (after.cpu_s - before[target.name].cpu_s) / passed,
            "switches_per_s": (after.switches - before[target.name].switches) / passed}
        print("{:20} {:>10}: {cpu_percent:.2f} % CPU, {switches_per_s:.1f} context switches/s"
              .format("idle", target.name, **found[target.name]), flush=True)
    return found


def memory(targets):
    found = {}
    for target in targets:
        with open(f"/proc/{target.pid}/status", encoding="ascii") as f:
            found[target.name] = int(next(x for x in f if x.startswith("VmRSS")).split()[1])
    return found


def run():
    parser = argparse.ArgumentParser()
    parser.add_argument("floor")
    parser.add_argument("load")
    parser.add_argument("--rounds", type=int, default=20, help="even")
    parser.add_argument("--lock-rounds", type=int, help="of the ratio that decides; as many as the others")
    parser.add_argument("--seconds", type=float, default=0.2, help="of a slice")
    parser.add_argument("--members", type=int, default=10000)
    parser.add_argument("--idle", type=float, default=5.0)
    parser.add_argument("--json")
    parser.add_argument("--url", default="memory://")
    args = parser.parse_args()
    args.lock_rounds = args.lock_rounds or args.rounds
    targets = [Floor(args.floor, args.members), Ours(args.url, args.members)]
    found = {"loads": compare(args, targets, LOADS), "idle": idle(args, targets),
             "rss_kib": memory(targets), "members": args.members, "rounds": args.rounds,
             "url": args.url.split("://", 1)[0]}
    if found["loads"]["lock"]["ratio"] < LOCK_RATIO_MIN:
        args.lock_rounds *= 2
        found["loads"].update(compare(args, targets, {"lock": LOADS["lock"]}))
    for target in targets:
        target.stop()
    text = json.dumps(found, indent=1)
    if args.json:
        with open(args.json, "w", encoding="ascii") as f:
            f.write(text + "\n")
    else:
        print(text)
    if found["loads"]["lock"]["ratio"] < LOCK_RATIO_MIN:
        print(f"flock+unlock is below {LOCK_RATIO_MIN} of the floor", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    lib.supervise(run, 600)
