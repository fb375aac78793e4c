# SPDX-License-Identifier: Apache-2.0
"""Mounts on a real store, processes that take locks through them, and everything that can go wrong.

    faults.py --store STORE [--seed N] [--minutes M] [--seconds S] [--verbose] [--dump FILE]

Without --minutes it is one round, the short form. With them rounds follow each other, each with a seed one greater. A
round: several mounts on one store, each behind a proxy of its own where there is a server, or in a network namespace of
its own (the stores that are "parted"); faults in the order of a
schedule that is a function of the seed (schedule.py); then all is healed, and what the processes saw is checked
(history.py):

- no two hold at once, as they know it; who lost is told before the next is granted, except where nobody could
  tell him; a command under tooz-run is ended before that, without exception;
- fencing tokens grow, and what the resource's guard let through is in order;
- whoever waits is served; every mount is connected and every membership back within two leases;
- who follows a group's events ends with what ls shows.

The seed replays the schedule, not the timing. Bounds are in lengths of leases; TOOZFS_SLOW stretches them.
redis-sentinel cannot promise the first, nor that members are back (a fail-over forgets): what happened there is
reported, and no failure. TOOZFS_LONG=1 is --minutes 3.
"""
import argparse
import collections
import contextlib
import heapq
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", x) for x in ("tree", "lib", "interop")]
import lib  # noqa: E402
import servers  # noqa: E402

from streams import fold  # noqa: E402

import history  # noqa: E402
import schedule  # noqa: E402
import stores  # noqa: E402
import workers  # noqa: E402

TTL_S = 3.0 if lib.SLOW <= 1 else 6.0
SHORT_S = 15.0          # of faults, in one round
TICK_S = 0.01
MOUNTS, TAKERS = stores.HOSTS, 2   # and takers a mount, beside one that uses tooz-run
PYTHON = 1
OPTIONS = f"timeout={TTL_S:g}"
BOUND_S = 2 * TTL_S * max(1.0, lib.SLOW / 2)
now = time.monotonic


class Process:
    """One of workers.py, with lives."""

    def __init__(self, round_, name, run, *args, taker=False):
        self.round, self.name, self.run, self.args, self.taker = round_, name, run, args, taker
        self.pid, self.lives, self.stopped, self.failed = None, 0, None, False

    def start(self):
        args = list(self.args)
        if self.taker:
            args.insert(0, f"{self.name}.{self.lives}")
        self.lives += 1
        self.pid, self.stopped = workers.spawn(self.run, self.round.desk, *args), None

    def kill(self):
        """Not awaited: it may hang in a request until its daemon runs again."""
        if self.pid is None:
            return
        if self.taker:
            self.round.note(e="end", w=f"{self.name}.{self.lives - 1}", t=now())
        os.kill(self.pid, signal.SIGKILL)
        self.round.dying.add(self.pid)
        self.pid, self.stopped = None, None

    def ended(self):
        """By itself."""
        if self.pid is not None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid, self.failed = None, self.failed or status != 0
        return self.pid is None

    def stop(self):
        """Of one that uses tooz-run, that: the command has to end nevertheless. False: there is none now."""
        pid = self._child() if self.run is workers.take_by_run else self.pid
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            self.stopped = pid
        return pid is not None

    def _child(self):
        try:
            with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as f:
                return next(map(int, f.read().split()), None)
        except OSError:
            return None

    def cont(self):
        if self.stopped is not None:
            with contextlib.suppress(ProcessLookupError):  # who began it may be dead, and it with him
                os.kill(self.stopped, signal.SIGCONT)
            self.stopped = None


class Mount:
    """One mount, its daemon's lives, and the processes that use it."""

    def __init__(self, round_, number):
        self.round, self.number, self.member = round_, number, f"m{number}"
        self.tree = None
        self.state = "down"  # up, starting, ending, down
        self.url = round_.store.url(number)
        self.path = os.path.join(lib.WORK, f"{round_.name}-m{number}")
        self.logs, self.umount, self.refused, self.looked = [], None, 0, 0
        here = (number, self.path)
        self.takers = [Process(round_, f"t{number}{k}", workers.take, *here, taker=True) for k in range(TAKERS)]
        self.takers.append(Process(round_, f"run{number}", workers.take_by_run, *here, taker=True))
        self.keeper = Process(round_, f"keep{number}", workers.keep, *here, self.member)
        self.looker = Process(round_, f"look{number}", workers.look, *here)
        self.others = [Process(round_, f"churn{number}", workers.churn, *here),
                       Process(round_, f"follow{number}", workers.follow, *here)]

    def processes(self):
        return [*self.takers, self.keeper, *self.others]

    def start(self):
        with self.round.store.place(self.number):
            self.tree = lib.Tree(self.url, OPTIONS, directory=self.path, member=self.member)
        self.logs.append(self.tree.log.name)
        self.state = "starting"

    def kill(self):
        """The daemon; its processes find out."""
        self.tree.process.kill()
        self.state = "killed"

    def unmount(self):
        for process in self.processes():
            process.kill()
        self.state = "ending"

    def tick(self, healing=False):
        """What comes next in its life."""
        exited = self.tree.process.poll()
        if self.state == "starting":
            if exited is not None:
                self._refused(exited)
            elif lib.mounted(self.path):
                self.state = "up"
                for process in self.processes():
                    if process.ended() and not (healing and process.taker):
                        process.start()
        elif self.state == "up" and exited is not None:
            self.round.wrong.append(f"the daemon of {self.member} ended by itself, with {exited}")
            self._again()
        elif self.state == "ending":
            self._ending(exited)

    def _refused(self, status):
        """The store does not answer: once more. But it must say so, as mount(8) does, not die."""
        self.refused += 1
        if status != 32:
            self.round.wrong.append(f"the daemon of {self.member} ended with {status} while it was mounted")
        self._again()

    def _ending(self, exited):
        if exited is None and not (self.umount and self.umount.poll() is None) and lib.mounted(self.path):
            self.umount = subprocess.Popen(["umount", self.path], stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if exited is not None:
            if exited:
                self.round.wrong.append(f"the daemon of {self.member} ended with {exited} after umount")
            self._again()

    def _again(self):
        self.clear()
        self.start()

    def clear(self):
        """Nothing is left of a daemon that has ended."""
        self.tree.process.wait()
        self.tree.log.close()
        while lib.mounted(self.path):
            subprocess.run(["umount", "-l", self.path], timeout=lib.PATIENCE_S, check=False)

    def remount(self):
        self._again()

    def looks(self):
        """What was seen since this was asked last: {t, began, state, members}."""
        try:
            with open(self.round.desk.path(f"look-{self.number}"), encoding="utf-8") as f:
                lines = f.read().split("\n")[:-1]
        except FileNotFoundError:
            return []
        lines, self.looked = lines[self.looked:], len(lines)
        return [json.loads(line) for line in lines]

    def follower_knows(self):
        try:
            with open(self.round.desk.path(f"follow-{self.number}"), encoding="utf-8") as f:
                lines = f.read().splitlines()
        except FileNotFoundError:
            return None
        if "#open" not in lines:
            return None
        begin = len(lines) - lines[::-1].index("#open")
        return fold(lines[begin:])

    def text_of_logs(self):
        parts = []
        for name in self.logs:
            with open(name, encoding="utf-8", errors="replace") as f:
                parts.append(f.read())
        return "".join(parts)


class Round:
    count = 0

    def __init__(self, store, seed, seconds, verbose):
        Round.count += 1
        self.kind, self.seed, self.seconds, self.verbose = store, seed, seconds, verbose
        self.name = f"r{Round.count}"
        self.desk = workers.Desk(os.path.join(lib.WORK, self.name), TTL_S, seed)
        self.notes, self.wrong, self.dying, self.said = [], [], set(), []
        self.begun, self.done_to = {}, collections.Counter()
        self.store = stores.STORES[store]()
        self.mounts = [Mount(self, i) for i in range(MOUNTS)]
        self.python = [Process(self, f"py{k}", workers.take_python, self.python_url(), taker=True)
                       for k in range(PYTHON)]
        self.pulse = Process(self, "pulse", workers.pulse)
        self.start = now()
        self.back, self.forgotten = {}, []

    def python_url(self):
        url = self.store.url(None)
        return url + ("&" if "?" in url else "?") + f"timeout={TTL_S:g}"

    def note(self, **event):
        self.notes.append(event)

    def say(self, text):
        self.said.append(f"{now():10.3f} {text}")
        if self.verbose:
            print(self.said[-1], flush=True)

    # ---- The course of a round ----

    def run(self):
        try:
            self.open()
            self.hurt()
            healed = self.heal()
            self.recover(healed)
            self.serve_again()
            self.leave()
            return self.check(healed)
        finally:
            self.close()

    def open(self):
        for mount in self.mounts:
            mount.start()
        lib.wait_until(lambda: self.tick() or all(m.state == "up" and m.keeper.ended() for m in self.mounts),
                       "the mounts", 5 * lib.PATIENCE_S)
        for process in [*self.python, self.pulse]:
            process.start()

    def tick(self, healing=False):
        for mount in self.mounts:
            mount.tick(healing)
        self.bury()

    def bury(self):
        """True: nobody is dying any more."""
        for pid in list(self.dying):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self.dying.discard(pid)
        return not self.dying

    def hurt(self):
        takers = [p.name for m in self.mounts for p in m.takers]
        plan = schedule.make(self.kind, self.seed, self.seconds, TTL_S, MOUNTS, takers)
        order = itertools.count()
        todo = [(f["at"], next(order), "begin", f) for f in plan]
        heapq.heapify(todo)
        self.start = now()
        while todo:
            while todo and todo[0][0] <= now() - self.start:
                at, _, what, fault = heapq.heappop(todo)
                if what == "begin":
                    if self.begin(fault):
                        heapq.heappush(todo, (at + fault["lasts"], next(order), "end", fault))
                else:
                    self.end(fault)
            self.tick()
            time.sleep(TICK_S)
        self.say("no more faults")

    def _process(self, fault):
        name = fault["target"].split()[1]
        return next(p for m in self.mounts for p in m.takers if p.name == name)

    def begin(self, fault):
        """False: it cannot be done now."""
        kind, target, arg = fault["kind"], fault["target"], fault["arg"]
        began = now()
        if kind.startswith(("server", "leader")):
            self.store.begin(kind, arg["pick"])
        elif kind.startswith("worker"):
            process = self._process(fault)
            if process.ended():
                return False
            if kind == "worker-stop" and not process.stop():
                return False
            if kind == "worker-kill":
                process.kill()
        else:
            mount = self.mounts[int(target.split()[1])]
            if kind in schedule.OWN:
                if mount.state != "up":
                    return False
                {"daemon-stop": lambda: os.kill(mount.tree.pid, signal.SIGSTOP), "daemon-kill": mount.kill,
                 "remount": mount.unmount}[kind]()
            else:
                self.store.net(mount.number, kind, arg)
        self.begun[id(fault)] = began
        self.done_to[kind] += 1
        self.say(f"{kind} {target} for {fault['lasts']:.2f} s "
                 f"{arg['way'] if kind in ('drop', 'stall', 'vanish', 'unreachable') else ''}")
        return True

    def end(self, fault):
        kind, target = fault["kind"], fault["target"]
        if kind.startswith(("server", "leader")):
            self.store.end(kind)
        elif kind == "worker-stop":
            self._process(fault).cont()
        elif kind == "worker-kill":
            process = self._process(fault)
            if self.mounts[process.args[0]].state == "up":
                process.start()
        else:
            mount = self.mounts[int(target.split()[1])]
            if kind == "daemon-stop":
                os.kill(mount.tree.pid, signal.SIGCONT)
            elif kind == "daemon-kill":
                mount.remount()
            elif kind != "remount":
                self.store.net_end(mount.number, kind)
        self.note(e="fault", kind=kind, target=target, t=self.begun[id(fault)], begin=self.begun[id(fault)],
                  end=now())
        self.say(f"{kind} {target} ends")

    def heal(self):
        """Since when all that a user has to put right is so."""
        self.store.heal()
        lib.wait_until(lambda: self.tick(True) or all(m.state == "up" for m in self.mounts),
                       "the mounts that were ended", 5 * lib.PATIENCE_S)
        healed = now()
        self.desk.finish()
        self.say("healed")
        return healed

    def recover(self, healed):
        """Whoever waits is served: each worker ends after the lock that it is about; and all is as it should be."""
        takers = [p for m in self.mounts for p in m.takers]
        self.back = {f"{m.member}, {x}": None for m in self.mounts for x in ("connected", "members", "followed")}
        for mount in self.mounts:
            mount.looker.start()
        differs, served = {}, None
        while now() < healed + 2 * BOUND_S + TTL_S * lib.SLOW and (served is None or None in self.back.values()):
            self.tick(True)
            for mount in self.mounts:
                differs[mount.number] = self._look(mount)
            if served is None and all([p.ended() for p in takers]):
                served = now()
                for process in self.python:
                    process.kill()
            time.sleep(TICK_S)
        for mount in self.mounts:
            mount.looker.kill()
        self.say(f"every waiter served after {(served or now()) - healed:.2f} s")
        self.wrong += [f"{p.name} failed" for p in takers if p.failed]
        late = history.recovery(healed, self.back, BOUND_S) + [x for m in differs.values() for x in m]
        # A fail-over may forget a membership, which then counts as removed by somebody.
        kept = [x for x in late if self.store.promises or "connected" in x]
        self.wrong += kept
        self.forgotten = [x for x in late if x not in kept]
        self.say("all is back after " + ", ".join(f"{k} {'-' if t is None else f'{t - healed:.2f}'}"
                                                  for k, t in self.back.items()))

    def _look(self, mount):
        """Notes what is as it should be; in what the mount's follower differs from what ls shows."""
        differs = []
        for shown in mount.looks():
            knows = mount.follower_knows()
            differs = history.followed(knows[0], set(shown["members"])) if knows else []
            good = {"connected": shown["state"] == "connected",
                    "members": {m.member for m in self.mounts} <= set(shown["members"]),
                    "followed": knows and not differs}
            for x, is_so in good.items():
                key = f"{mount.member}, {x}"
                if is_so and self.back[key] is None:
                    self.back[key] = shown["t"]
        return differs if self.back[f"{mount.member}, followed"] is None else []

    def serve_again(self):
        """Every mount can take every lock."""
        for mount in self.mounts:
            for lock in workers.LOCKS:
                try:
                    done = subprocess.run(["flock", mount.tree("locks", lock), "true"], capture_output=True,
                                          text=True, timeout=BOUND_S, check=False)
                    if done.returncode:
                        self.wrong.append(f"{mount.member} does not get {lock}: {done.stderr.strip()}")
                except subprocess.TimeoutExpired:
                    self.wrong.append(f"{mount.member} waits for ever for {lock}")

    def leave(self):
        """Each daemon ends in order, and a sanitizer has its last word. Not by umount: where another program has a copy
        of all mounts in a namespace of its own, they live on."""
        for process in [p for m in self.mounts for p in m.processes()]:
            process.kill()
        lib.wait_until(self.bury, "the end of all processes")
        for mount in self.mounts:
            mount.tree.process.terminate()
        for mount in self.mounts:
            try:
                status = mount.tree.process.wait(lib.PATIENCE_S)
            except subprocess.TimeoutExpired:
                status = "nothing, ever"
            if status != 0:
                self.wrong.append(f"the daemon of {mount.member} ended with {status} after SIGTERM")

    # ---- The outcome ----

    def events(self):
        found = list(self.notes)
        for name in os.listdir(self.desk.directory):
            if name.startswith("events-"):
                with open(self.desk.path(name), encoding="utf-8") as f:
                    found += [json.loads(line) for line in f]
        # The last word of one who was killed may be later than his death.
        dead = {e["w"]: e["t"] for e in found if e["e"] == "end"}
        return [e for e in found if e["e"] == "end" or e["t"] <= dead.get(e.get("w"), e["t"])]

    def guarded_log(self):
        for lock in workers.LOCKS:
            with contextlib.suppress(FileNotFoundError), open(self.desk.path(f"guarded-{lock}"), encoding="ascii") as f:
                yield from ((lock, int(line)) for line in f)

    def check(self, healed):
        h = history.History(self.events(), self.store.leased)
        late, excused = h.notices()
        unexplained, disorder = h.unguarded()
        # A share has the token of the first who shared.
        may_fail = {"two held at once": h.exclusion(), "told too late": late, "wrote too late": unexplained,
                    "memberships forgotten": self.forgotten, "shares behind a writer": h.tokens("s"),
                    "shares that the guard refused": h.refusals("s")}
        must = {"tokens": h.tokens("x"), "refused": h.refusals("x"), "guard": h.guarded(self.guarded_log()),
                "waiters": h.forgotten(),
                "lost for good": h.wrong, "mounts": self.wrong, "logs": self.reports_of_sanitizers()}
        if self.store.promises:
            must.update(may_fail)
            may_fail = {}
        back = {"waiters served": h.served_times(healed)}
        for key, t in self.back.items():
            back.setdefault(key.split(", ")[1], []).append(None if t is None else max(0.0, t - healed))
        return {"violations": [f"{k}: {x}" for k, found in must.items() for x in found],
                "not promised": {k: len(found) for k, found in may_fail.items() if found},
                "grants": len(h.holds), "by python": sum(h_.python for h_ in h.holds), "losses": len(h.losses()),
                "faults": self.done_to, "answers": h.answers, "ways": h.ways(), "notice_s": h.notice_times(),
                "spare_s": h.spare_times(), "back_s": back, "refused": len(h.refused), "disorder": disorder,
                "excused": excused, "stalls": len(h.stalls), "lines": len(h.lines),
                "mounts refused": sum(m.refused for m in self.mounts)}

    def dump(self, path):
        with open(path, "w", encoding="utf-8") as f:
            f.writelines(json.dumps(e) + "\n" for e in sorted(self.events(), key=lambda e: e["t"]))

    def reports_of_sanitizers(self):
        return [line for m in self.mounts for line in m.text_of_logs().splitlines()
                if any(x in line for x in ("ERROR: AddressSanitizer", "runtime error:", "Assertion", "LeakSanitizer"))]

    def close(self):
        for mount in self.mounts:
            for process in mount.processes():
                process.kill()
        for process in [*self.python, self.pulse, *(m.looker for m in self.mounts)]:
            process.kill()
        for mount in self.mounts:
            if mount.tree and not mount.tree.log.closed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(mount.tree.pid, signal.SIGCONT)
                mount.tree.process.kill()
                mount.clear()
        self.store.stop()


def figures(seconds):
    """Of what never happened: nothing."""
    known = sorted(x for x in seconds if x is not None)
    if not known:
        return f"{len(seconds)}"
    return f"{len(seconds)}, median {statistics.median(known):.3f} s, worst {known[-1]:.3f} s"


def together(rounds, key):
    found = collections.defaultdict(list)
    for round_ in rounds:
        for what, seconds in round_[key].items():
            found[what] += seconds
    return found


def report(store, rounds, seconds):
    def total(key):
        return sum(r[key] for r in rounds)

    def counts(counter):
        return ", ".join(f"{n} {k}" for k, n in counter.most_common())
    faults, answers, missing, ways = (sum((collections.Counter(r[k]) for r in rounds), collections.Counter())
                                      for k in ("faults", "answers", "not promised", "ways"))
    excused = [x for r in rounds for x in r["excused"]]
    print(f"{store}: {len(rounds)} rounds, {seconds:.0f} s, leases of {TTL_S:g} s")
    print(f"  {total('grants')} grants: {counts(ways)}; {total('losses')} losses; refused or given up: {counts(answers)}")
    print(f"  {sum(faults.values())} faults: {counts(faults)}")
    for what, times in sorted(together(rounds, "notice_s").items()):
        print(f"  from the loss to the notice, {what}: {figures(times)}")
    for what, times in sorted(together(rounds, "spare_s").items()):
        print(f"  {what} before the next grant: {figures(times)}, nearest {min(times):.3f} s")
    for what, times in together(rounds, "back_s").items():
        print(f"  from the heal, {what}: {figures(times)}")
    for why in sorted({why for _, why in excused}):
        times = [s for s, w in excused if w == why]
        print(f"  {len(times)} believed on beside the next, for {max(times):.2f} s at most: {why}")
    print(f"  the resource: {total('lines')} lines without a guard, {total('disorder')} of them too late; "
          f"the guard refused {total('refused')}")
    if total("stalls"):
        print(f"  the machine stood still {total('stalls')} times")
    if missing:
        print("  not promised here, and seen: " + ", ".join(f"{n} {k}" for k, n in missing.items()))


def arguments():
    parser = argparse.ArgumentParser(prog="faults.py")
    parser.add_argument("--store", required=True, choices=stores.STORES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=3 if lib.LONG else 0)
    parser.add_argument("--seconds", type=float, default=SHORT_S, help="of faults, in each round")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--dump", metavar="FILE", help="all events of the last bad round")
    return parser.parse_args()


def main(args):
    # ZooKeeper's client library has memory for as much as an answer claims to be, up to 2 GiB. That costs nothing as
    # long as nobody fills it.
    os.environ.pop("MALLOC_PERTURB_", None)
    try:
        if args.store != "file":
            lib.need_module(args.store.split("-", maxsplit=1)[0])
        if not workers.TOOZ_RUN:
            raise lib.unittest.SkipTest("TOOZ_RUN names no program")
    except lib.unittest.SkipTest as skip:
        print(f"skipped: {skip}")
        return 77
    begin, seed, rounds, bad = now(), args.seed, [], 0
    while not rounds or now() - begin < 60 * args.minutes:
        try:
            round_ = Round(args.store, seed, args.seconds, args.verbose)
            outcome = round_.run()
        except servers.Missing as missing:
            print(f"skipped: {missing}")
            return 77
        rounds.append(outcome)
        if outcome["violations"]:
            bad += 1
            print(f"--store {args.store} --seed {seed} --seconds {args.seconds:g}:")
            for line in outcome["violations"][:20]:
                print("  " + line)
            print("\n".join(round_.said))
            if args.dump:
                round_.dump(args.dump)
            for mount in round_.mounts:
                print(f"--- {mount.member}\n{mount.text_of_logs()[-3000:]}---")
            sys.stdout.flush()
        seed += 1
    report(args.store, rounds, now() - begin)
    print(f"seeds {args.seed} to {seed - 1}: {bad} rounds with violations")
    return 1 if bad else 0


if __name__ == "__main__":
    ARGS = arguments()
    lib.supervise(lambda: main(ARGS), 240 + 120 * ARGS.minutes)
