# SPDX-License-Identifier: Apache-2.0
"""What the holders of locks saw, and what must be true of it.

A history is a list of events, each a dict with at least e (what) and t (CLOCK_MONOTONIC, in seconds). Of a worker w,
a process that takes one lock after the other:

    want    asks for the lock l in mode m ("x" or "s") in some way (via), on a mount (None: through Python's tooz)
    answer  was refused, or gave up
    got     was told that it holds
    token   has read its fencing token, tok
    clean   a check that began at t said: still held
    told    was told of the loss (by a poll or a check that returned at t); to when his mount had counted on what it
            holds, as far as he knew (until)
    line    wrote to the resource without asking its guard, with tok, after a check that began at c
    refused was refused by the resource's guard, which had seen last
    free    is about to let go
    end     was killed, or ended

Of a command under tooz-run, which is a worker of its own (w.1, w.2 ... are those of the worker w):

    want, got, token, line, refused, free: as above; nobody tells it anything
    alive   was alive at t
    over    tooz-run has ended, with code

and of everything else:

    fault   kind, target, begin, end: what was done to whom
    stall   begin, end: the machine gave nobody a core

What somebody knows is compared, never what leases say. A hold is *proven* from "got" to the beginning of the last check
that said so, and *believed* from "got" until he was told, or let go. Two that are proven at once are always wrong.
Believed is too much where nobody could tell: the daemon was stopped or dead, the process itself was stopped, or the
machine stood still. Those are excused, and counted; the resource's guard is for them. A command under tooz-run
believes as long as it lives. It is ended also when a daemon stands still or is dead, where there are leases: only
the machine is an excuse.
"""
import bisect
import collections

BLIND = ("daemon-stop", "daemon-kill")  # the mount cannot tell its holders
NUMB = ("worker-stop",)                 # who is told cannot listen
STALL_S = 0.3
RUN = "tooz-run"
RUN_S = 2.0  # so long may the end of a command take, where nothing is leased


class Hold:
    """One holding, as its worker knows it."""

    def __init__(self, want, t):
        self.worker, self.lock, self.mode = want["w"], want["l"], want["m"]
        self.mount, self.want, self.got, self.clean = want["mount"], want["t"], t, t
        self.via, self.alive, self.until = want.get("via"), t, None
        self.token = self.told = self.freed = self.ended = None
        self.checked = False

    @property
    def python(self):
        return self.mount is None

    @property
    def run(self):
        return self.via == RUN

    def believed_until(self):
        if self.run:
            return self.alive
        return min((x for x in (self.told, self.freed, self.ended) if x is not None), default=self.clean)

    def excludes(self, other):
        return self.lock == other.lock and "x" in (self.mode, other.mode)

    def __repr__(self):
        def at(t):
            return "-" if t is None else f"{t:.3f}"
        return (f"{self.worker} {self.lock} {self.mode} want {at(self.want)} got {at(self.got)} clean {at(self.clean)} "
                f"told {at(self.told)} free {at(self.freed)} end {at(self.ended)} token {self.token}")


class History:
    def __init__(self, events, leased=True):
        self.leased = leased
        self.holds, self.wants, self.waiting, self.answers = [], [], [], collections.Counter()
        self.faults = [e for e in events if e["e"] == "fault"]
        self.stalls = [e for e in events if e["e"] == "stall" and e["end"] - e["begin"] >= STALL_S]
        self.lines = [e for e in events if e["e"] == "line"]
        self.refused, self.wrong = [], []
        want, hold, killed = {}, {}, {e["w"] for e in events if e["e"] == "end"}
        for e in sorted((e for e in events if "w" in e), key=lambda e: e["t"]):
            self._add(e, want, hold)
        self.wants += want.values()
        # What ran for a worker that was killed ends with it.
        self.waiting = [w for w in want.values() if w["w"].rsplit(".", 1)[0] not in killed]
        self.holds.sort(key=lambda h: h.got)

    def _add(self, e, want, hold):
        what, who = e["e"], e["w"]
        if what == "want":
            want[who] = e
        elif what in ("answer", "over") and who in want:
            self.wants.append(dict(want.pop(who), answered=e["t"]))
            self.answers[e.get("why", f"tooz-run: {e.get('code')}")] += 1
        elif what == "over":
            self._over(e, hold.pop(who))
        elif what == "got":
            asked = want.pop(who)
            hold[who] = Hold(asked, e["t"])
            self.holds.append(hold[who])
            self.wants.append(dict(asked, answered=e["t"]))
        elif what == "end":
            want.pop(who, None)
            if who in hold:
                hold.pop(who).ended = e["t"]
        elif what in ("token", "clean", "told", "free", "refused", "alive"):
            self._of_hold(e, hold[who])

    def _over(self, e, hold):
        """The command has ended."""
        if hold.freed is None:
            hold.told = hold.alive
            if e["code"] == 0:
                self.wrong.append(f"tooz-run said nothing of the end of its command: {hold!r}")

    def _of_hold(self, e, hold):
        if e["e"] == "token":
            hold.token = e["tok"]
        elif e["e"] == "clean":
            if hold.told is not None:
                self.wrong.append(f"still held, after it was told of the loss: {hold!r}, at {e['t']:.3f}")
            hold.clean, hold.checked = max(hold.clean, e["t"]), True
        elif e["e"] == "alive":
            hold.alive = e["t"]
        elif e["e"] == "told" and hold.told is None:
            hold.told, hold.until = e["t"], e.get("until")
        elif e["e"] == "free":
            hold.freed = hold.alive = e["t"]
        elif e["e"] == "refused":
            self.refused.append((e, hold))

    # ---- What excuses ----

    def _hit(self, kinds, target, begin, end):
        return any(f["kind"] in kinds and f["target"] == target and f["begin"] <= end and f["end"] >= begin
                   for f in self.faults)

    def excuse(self, hold, begin, end):
        """Why this holder may not have been told between the two; None: he should have been."""
        if any(s["begin"] <= end and s["end"] >= begin for s in self.stalls):
            return "the machine stood still"
        if hold.run:
            if not self.leased and self._hit(("daemon-kill",), f"mount {hold.mount}", end - RUN_S, end):
                return "its daemon was dead, without leases, and its command was being ended"
            return None
        if self._hit(BLIND, f"mount {hold.mount}", begin, end):
            return "its daemon was stopped or dead"
        if self._hit(NUMB, f"worker {hold.worker.split('.')[0]}", begin, end):
            return "the holder was stopped"
        return None

    # ---- What must be so ----

    def exclusion(self):
        """Two, of whom one holds alone, who both had it proven to them at one moment."""
        found, active = [], collections.defaultdict(list)
        for hold in self.holds:
            # What Python was told is what was true when its request was sent; only what it checked counts.
            if hold.python and not hold.checked:
                continue
            # Nor can a command tell whether its daemon died between the grant and its first line.
            if hold.run and self.excuse(hold, hold.got, hold.got):
                continue
            before = active[hold.lock] = [h for h in active[hold.lock] if h.clean > hold.got]
            found += [f"two hold for {min(h.clean, hold.clean) - hold.got:.3f} s: {h!r}; {hold!r}"
                      for h in before if h.excludes(hold)]
            before.append(hold)
        return found

    def notices(self):
        """(late, excused): holders who still believed when the next one was told that he holds."""
        late, excused, active = [], [], collections.defaultdict(list)
        for hold in self.holds:
            if hold.python:
                continue
            before = active[hold.lock] = [h for h in active[hold.lock] if h.believed_until() > hold.got]
            for h in before:
                if not h.excludes(hold) or h.clean > hold.got:
                    continue
                overlap = min(h.believed_until(), hold.believed_until()) - hold.got
                since = h.believed_until() - RUN_S if h.run else h.clean
                why = self.excuse(h, since, h.believed_until())
                text = f"told {h.believed_until() - hold.got:.3f} s after the next grant: {h!r}; {hold!r}"
                (excused if why else late).append((overlap, why, text))
            before.append(hold)
        return [text for _, _, text in late], [(seconds, why) for seconds, why, _ in excused]

    def tokens(self, modes="xs"):
        """Who asked after another one was told that he holds, in one of these modes, has a greater token than he."""
        found = []
        by_lock = collections.defaultdict(list)
        for hold in self.holds:
            if hold.token is not None:
                by_lock[hold.lock].append(hold)
        for holds in by_lock.values():
            times, top, top_exclusive = [], [], []
            for hold in holds:  # in the order of got
                times.append(hold.got)
                best = max([hold, *top[-1:]], key=lambda h: h.token)
                top.append(best)
                alone = ([hold] if hold.mode == "x" else []) + [h for h in top_exclusive[-1:] if h]
                top_exclusive.append(max(alone, key=lambda h: h.token) if alone else None)
            for hold in (h for h in holds if h.mode in modes):
                at = bisect.bisect_left(times, hold.want) - 1
                earlier = None if at < 0 else (top if hold.mode == "x" else top_exclusive)[at]
                if earlier and earlier.token >= hold.token:
                    found.append(f"token {hold.token} after {earlier.token}: {earlier!r}; {hold!r}")
        return found

    def refusals(self, modes="xs"):
        """The guard may not refuse who can prove that he holds, in one of these modes."""
        return [f"a holder's token was refused, the guard had seen {e['last']}: {hold!r}"
                for e, hold in self.refused if hold.clean > e["t"] and hold.mode in modes]

    @staticmethod
    def guarded(log):
        """log: (lock, token) in the order of the resource."""
        found, last = [], {}
        for lock, token in log:
            if token < last.get(lock, 0):
                found.append(f"the guarded log of {lock} has {token} after {last[lock]}")
            last[lock] = token
        return found

    def unguarded(self):
        """(unexplained, count): lines that came after one with a greater token."""
        found, count, last = [], 0, {}
        for e in sorted(self.lines, key=lambda e: e["t"]):
            if e["tok"] < last.get(e["l"], 0):
                count += 1
                hold = Hold(dict(e, m="x", t=e["c"], via=RUN if e.get("run") else None), e["c"])
                if not self.excuse(hold, e["c"] - (RUN_S if hold.run else 0), e["t"]):
                    found.append(f"{e['w']} wrote {e['tok']} to {e['l']} after {last[e['l']]}, "
                                 f"{e['t'] - e['c']:.3f} s after it had looked")
            last[e["l"]] = max(e["tok"], last.get(e["l"], 0))
        return found, count

    def forgotten(self):
        return [f"waits for ever: {w['w']} for {w['l']} {w['m']} since {w['t']:.3f}" for w in self.waiting]

    # ---- What it came to ----

    def losses(self):
        return [h for h in self.holds if h.told is not None]

    def notice_times(self):
        """{what the loss was: [seconds from it to the notice]}. A lock is lost at the end that its own mount gave it, or
        when the daemon was killed; else it was broken, by the last fault that could. Who could be told nothing for a
        while, because he or his daemon was stopped, is counted from the end of that."""
        times = collections.defaultdict(list)
        for hold in self.losses():
            if hold.run:
                continue  # it is never told: see spare_times
            what, since = self._loss(hold)
            times[what].append(hold.told - since)
        return times

    def _loss(self, hold):
        near = [f for f in self.faults if f["begin"] <= hold.told and f["end"] >= hold.clean]
        mine = [f for f in near if f["target"] == f"mount {hold.mount}"]
        he = f"worker {hold.worker.split('.')[0]}"
        stopped = [f["end"] for f in near if f["end"] <= hold.told and (
            f["kind"] == "worker-stop" and f["target"] == he or f["kind"] == "daemon-stop" and f in mine)]
        killed = [f["begin"] for f in mine if f["kind"] == "daemon-kill"]
        if killed:
            return "daemon killed", max([*killed, *(x for x in stopped if x > killed[-1])])
        if hold.until is not None and hold.until <= hold.told:
            late = [x for x in stopped if x > hold.until]
            return ("lease over while stopped", max(late)) if late else ("lease over", hold.until)
        broken = [f["begin"] for f in near if not f["target"].startswith(("mount", "worker")) or f in mine]
        return ("broken", max(broken)) if broken else ("without a fault", hold.clean)

    def spare_times(self):
        """{who: [seconds from the notice, or the end of the command, to the next grant to somebody else]}, where that
        came after it: how near it was."""
        spare, by_lock = collections.defaultdict(list), collections.defaultdict(list)
        for hold in self.holds:
            by_lock[hold.lock].append(hold)
        for hold in self.losses():
            holds = by_lock[hold.lock]
            at = bisect.bisect_right(holds, hold.clean, key=lambda h: h.got)
            after = next((h for h in holds[at:] if h is not hold and h.excludes(hold)), None)
            if after and after.got >= hold.told:
                spare["commands ended" if hold.run else "holders told"].append(after.got - hold.told)
        return spare

    def served_times(self, healed):
        """How long after it everybody had his answer who waited then."""
        return [max(0.0, w["answered"] - healed) for w in self.wants
                if w["t"] <= healed and w.get("answered", 0) > healed]

    def ways(self):
        return collections.Counter(f"{h.via} {'shared' if h.mode == 's' else 'alone'}" for h in self.holds)


def recovery(healed, back, bound_s):
    """back: for each what, when it was as it should be again (None: not in the end)."""
    return [f"{what} is not back" if t is None else f"{what} came back after {t - healed:.2f} s of {bound_s:.2f} s"
            for what, t in back.items() if t is None or t - healed > bound_s]


def followed(known, shown):
    """known: what a follower's lines add up to; shown: what ls shows."""
    return [] if known == shown else [f"a follower knows {sorted(known)}, and ls shows {sorted(shown)}"]
