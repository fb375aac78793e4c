# SPDX-License-Identifier: Apache-2.0
"""What the tree costs on a server: rates against a bare client's, hand-over, waiters, round trips.

usage: bench_servers.py redis|zookeeper FLOOR LOAD WAITERS [--rounds N] [--seconds S] [--json FILE]

The floor is a program that does the same requests in the plainest way, one after the other, on the same
server in the same run, in slices that alternate with the tree's. The server has one core, whatever asks it
the other: client, or client and daemon. Times and rates are of the machine, and
no pass mark. Round trips are: they are counted by a proxy between mount and server, and more than
TRIPS allows is status 1.
"""
import argparse
import fcntl
import json
import os
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tree"))
sys.path.insert(0, os.path.join(HERE, "..", "interop"))
import lib  # noqa: E402
import proxy  # noqa: E402
import streams  # noqa: E402

MEMBERS = 100
WAITERS, LOCKS = 1000, 10
STORES = ("redis", "zookeeper")
# What an operation may cost, with the lookups on its way. {}: the tree's directory.
TRIPS = {
    # name: (prepared once, operation, most trips on redis, on ZooKeeper)
    "acquire and release": ("", "flock {}/locks/l true", 2, 5),
    "acquire and release, tried": ("", "flock -n {}/locks/l true", 2, 5),
    "cat a member": ("", "cat {}/groups/g/m0", 1, 1),
    "ls -l a group": ("", "ls -l {}/groups/g", 2, 2),
    "ls groups": ("", "ls {}/groups", 1, 1),
    "ls locks": ("", "ls {}/locks", 1, 2),
    "cat a lock": ("exec 9<>{}/locks/held; flock 9", "cat {}/locks/held", 1, 1),
    "update": ("", "echo x >{}/groups/g/m0", 1, 3),
    "join and leave": ("", "echo x >{0}/groups/g/new; rm {0}/groups/g/new", 3, 4),
    "mkdir and rmdir": ("", "mkdir {0}/groups/n; rmdir {0}/groups/n", 4, 5),
}


CPUS = sorted(os.sched_getaffinity(0))
ASKING = {CPUS[-1]}


def place(pid, cpus):
    for task in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(task), cpus)


def start(*args):
    return subprocess.Popen([str(x) for x in args], stdout=subprocess.PIPE, text=True,
                            preexec_fn=lambda: os.sched_setaffinity(0, ASKING))


def rate_of(processes):
    total = 0.0
    for process in processes:
        out, _ = process.communicate(timeout=120)
        if process.returncode:
            raise SystemExit(f"{process.args} failed")
        total += float(out.split()[0])
    return total


class Bench:
    def __init__(self, args):
        self.args, self.found = args, {}
        self.server = lib.server(args.store)
        self.ns = self.server.namespace()

    def url(self, port=None):
        return self.server.url(self.ns, port)

    def tree(self, port=None, options="timeout=30"):
        return lib.Tree(self.url(port), options).wait_ready()

    def floor(self, count):
        prefix = f"{self.ns}-floor" if self.args.store == "redis" else f"/{self.ns}/floor"
        return rate_of([start(self.args.floor, self.server.port, f"{prefix}{i}", self.args.seconds)
                        for i in range(count)])

    def load(self, count, tree):
        return rate_of([start(self.args.load, tree.path, "lock", self.args.seconds, f"l{i}")
                        for i in range(count)])

    def rates(self, tree):
        """Medians of the ratios of slices that are neighbours in time."""
        kinds = {"floor 1": (self.floor, 1), "tree 1": (self.load, 1, tree),
                 "tree 8": (self.load, 8, tree), "floor 8": (self.floor, 8)}
        rates = {kind: [] for kind in kinds}
        place(self.server.pid, set(CPUS[:1]))
        place(tree.pid, ASKING)
        for i in range(self.args.rounds):
            for kind in list(kinds)[::-1 if i % 2 else 1]:
                run, *args = kinds[kind]
                rates[kind].append(run(*args))
        ratios = {"tree 1 / floor 1": 0, "tree 8 / floor 8": 0, "tree 8 / tree 1": 0}
        for ratio in ratios:
            over, under = ratio.split(" / ")
            ratios[ratio] = statistics.median(
                x / y for x, y in zip(rates[over], rates[under]))
        self.found["lock"] = {"best": {kind: max(x) for kind, x in rates.items()}, "ratio": ratios}
        print("flock+unlock/s, best slices:",
              ", ".join(f"{kind} at once {max(x):.0f}" for kind, x in rates.items()), flush=True)
        print("flock+unlock, medians:",
              ", ".join(f"{ratio} {x:.2f}" for ratio, x in ratios.items()), flush=True)
        place(self.server.pid, CPUS)
        place(tree.pid, CPUS)

    def show_times(self, name, times):
        times = sorted(1000 * x for x in times)
        self.found[name] = {"median_ms": statistics.median(times), "worst_ms": times[-1]}
        print(f"{name}: median {statistics.median(times):.2f} ms, worst {times[-1]:.2f} ms",
              flush=True)

    def hand_over(self, one, two):
        """From before the holder's unlock to after the waiter's return."""
        agents, fds, times = [lib.Agent(), lib.Agent()], [], []
        for agent, mount in zip(agents, (one, two)):
            fds.append(agent.open(mount("locks/handed")))
        agents[0].flock(fds[0], lib.EX)
        for i in range(self.args.turns):
            holder, waiter = i % 2, 1 - i % 2
            agents[waiter].start("flock", fds[waiter], lib.EX)
            agents[waiter].wait_blocked()
            time.sleep(0.005)  # so that its request is at the server
            begin = time.monotonic()
            agents[holder].flock(fds[holder], lib.UN)
            agents[waiter].result()
            times.append(time.monotonic() - begin)
        for agent in agents:
            agent.kill()
        self.show_times("hand-over between two mounts", times)

    def python_hand_over(self, tree):
        try:
            import interop  # noqa: F401, pylint: disable=unused-import
        except SystemExit:
            return
        python, waiter, times = lib.Agent(), lib.Agent(), []
        python.tooz_start(self.url(), b"py")
        fd = waiter.open(tree("locks/handed"))
        for _ in range(self.args.turns):
            python.acquire(b"handed")
            waiter.start("flock", fd, lib.EX)
            waiter.wait_blocked()
            time.sleep(0.005)
            begin = time.monotonic()
            python.release(b"handed")
            waiter.result()
            times.append(time.monotonic() - begin)
            waiter.flock(fd, lib.UN)
            time.sleep(0.005)
        python.kill()
        waiter.kill()
        self.show_times("hand-over from Python", times)

    def events(self, one, two):
        """From before a join to the line that a reader on another mount has of it."""
        os.mkdir(one("groups/told"))
        reader = streams.Reader(two("events/told"))
        reader.until("ready")
        self.show_times("event of a mount's join", [
            self.event(reader, f"m{i}", lambda i=i: lib.touch(one(f"groups/told/m{i}")))
            for i in range(self.args.turns)])
        python, times = lib.Agent(), []
        try:
            import interop  # noqa: F401, pylint: disable=unused-import
            python.tooz_start(self.url(), b"py")
        except SystemExit:
            python.kill()
            return
        for _ in range(self.args.turns):
            times.append(self.event(reader, "py", lambda: python.join(b"told")))
            python.leave(b"told")
            reader.until("leave py")
        python.kill()
        reader.close()
        self.show_times("event of Python's join", times)

    @staticmethod
    def event(reader, name, join):
        begin = time.monotonic()
        join()
        reader.until(f"join {name}")
        return time.monotonic() - begin

    def waiters(self, other):
        """What the server is asked for by many waiters, as they come and while they wait."""
        with proxy.Proxy(self.server.port) as between:
            tree = self.tree(between.port)
            fds = []
            for i in range(LOCKS):
                fds.append(os.open(other(f"locks/w{i}"), os.O_RDWR | os.O_CREAT))
                fcntl.flock(fds[-1], lib.EX)
            between.reset_counts()
            programs = [subprocess.Popen(
                [self.args.waiters, tree(f"locks/w{i}"), str(WAITERS // LOCKS)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for i in range(LOCKS)]
            for program in programs:
                assert program.stdout.readline() == "queued\n"
            time.sleep(0.5)
            coming = between.counts()["trips"]
            between.reset_counts()
            time.sleep(2)
            idle = between.counts()["trips"] / 2
            between.reset_counts()
            begin = time.monotonic()
            for program in programs:
                program.stdin.write("go\n")
                program.stdin.flush()
            for fd in fds:
                os.close(fd)
            for program in programs:
                program.stdout.readline()
            passed = time.monotonic() - begin
            trips = between.counts()["trips"]
            for program in programs:
                program.kill()
                program.communicate()
            tree.stop()
        self.found["waiters"] = {"trips_to_queue": coming, "trips_a_second_waiting": idle,
                                 "trips_to_serve": trips, "served_a_second": WAITERS / passed}
        print(f"{WAITERS} waiters on {LOCKS} locks: {coming} trips to queue, {idle:.1f} a second to "
              f"wait, {trips} to be served, {WAITERS / passed:.0f} served a second", flush=True)
        return [] if coming <= 6 * LOCKS else [f"{coming} trips for {WAITERS} waiters"]

    def trips(self, members=MEMBERS):
        bad = []
        with proxy.Proxy(self.server.port) as between:
            tree = self.tree(between.port, "timeout=60")
            os.mkdir(tree("groups/g"))
            for i in range(members):
                lib.write(tree(f"groups/g/m{i}"), b"x")
            for name, (before, operation, *most) in TRIPS.items():
                most = most[STORES.index(self.args.store)]
                script = (f"{before.format(tree.path)}\n"
                          f"while read -r _; do {{ {operation.format(tree.path)}; }} >/dev/null; "
                          "echo $?; done")
                shell = subprocess.Popen(["bash", "-c", script], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                counts = []
                for _ in range(7):
                    time.sleep(0.03)  # for what the last one left to do
                    between.reset_counts()
                    shell.stdin.write("\n")
                    shell.stdin.flush()
                    line = shell.stdout.readline()
                    if line != "0\n":
                        raise SystemExit(f"{name} failed: {line}")
                    time.sleep(0.03)
                    counts.append(between.counts()["trips"])
                shell.stdin.close()
                shell.wait()
                shell.stdout.close()
                # The first may arm a watch; keep-alives, and a long pipeline seen in pieces, only add.
                trips = min(counts[1:])
                self.found.setdefault("trips", {})[name] = {"first": counts[0], "then": trips}
                print(f"trips: {name}: {trips:g} (at first {counts[0]})", flush=True)
                if trips > most:
                    bad.append(f"{name}: {trips:g} trips, more than {most}")
            os.makedirs(tree.path, exist_ok=True)
            tree.stop()
        return bad

    def run(self):
        bad = self.trips()
        one, two = self.tree(), self.tree()
        self.rates(one)
        self.hand_over(one, two)
        self.python_hand_over(one)
        self.events(one, two)
        bad += self.waiters(two)
        one.stop()
        two.stop()
        return bad


def run():
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("floor")
    parser.add_argument("load")
    parser.add_argument("waiters")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a slice")
    parser.add_argument("--turns", type=int, default=200, help="of a hand-over")
    parser.add_argument("--json")
    args = parser.parse_args()
    try:
        bench = Bench(args)
    except lib.unittest.SkipTest as reason:
        print(f"skipped: {reason}")
        return 77
    bad = bench.run()
    if args.json:
        with open(args.json, "w", encoding="ascii") as f:
            f.write(json.dumps(bench.found, indent=1) + "\n")
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    lib.supervise(run, 600)
