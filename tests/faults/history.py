# SPDX-License-Identifier: Apache-2.0
"""What the holders of locks saw, and what must be true of it.

A history is a list of events, each a dict with at least e (what) and t (CLOCK_MONOTONIC, in seconds). Of a worker w,
a process that takes one lock after the other:

    want    asks for the lock l in mode m ("x" or "s"), on a mount (None: through Python's tooz)
    answer  was refused, or gave up
    got     was told that it holds
    token   has read its fencing token, tok
    clean   a check that began at t said: still held
    told    was told of the loss (by a poll or a check that returned at t)
    line    wrote to the resource without asking its guard, with tok, after a check that began at c
    refused was refused by the resource's guard, which had seen last
    free    is about to let go
    end     was killed, or ended

and of everything else:

    fault   kind, target, begin, end: what was done to whom
    stall   begin, end: the machine gave nobody a core

What somebody knows is compared, never what leases say. A hold is *proven* from "got" to the beginning of the last check
that said so, and *believed* from "got" until he was told, or let go. Two that are proven at once are always wrong.
Believed is too much where nobody could tell: the daemon was stopped or dead, the process itself was stopped, or the
machine stood still. Those are excused, and counted; the resource's guard is for them.
"""
import bisect
import collections

BLIND = ("daemon-stop", "daemon-kill")  # the mount cannot tell its holders
NUMB = ("worker-stop",)                 # who is told cannot listen
STALL_S = 0.3


class Hold:
    """One holding, as its worker knows it."""

    def __init__(self, want, t):
        self.worker, self.lock, self.mode = want["w"], want["l"], want["m"]
        self.mount, self.want, self.got, self.clean = want["mount"], want["t"], t, t
        self.token = self.told = self.freed = self.ended = None
        self.checked = False

    @property
    def python(self):
        return self.mount is None

    def believed_until(self):
        return min((x for x in (self.told, self.freed, self.ended) if x is not None), default=self.clean)

    def excludes(self, other):
        return self.lock == other.lock and "x" in (self.mode, other.mode)

    def __repr__(self):
        def at(t):
            return "-" if t is None else f"{t:.3f}"
        return (f"{self.worker} {self.lock} {self.mode} want {at(self.want)} got {at(self.got)} clean {at(self.clean)} "
                f"told {at(self.told)} free {at(self.freed)} end {at(self.ended)} token {self.token}")


class History:
    def __init__(self, events):
        self.holds, self.waiting, self.answers = [], [], collections.Counter()
        self.faults = [e for e in events if e["e"] == "fault"]
        self.stalls = [e for e in events if e["e"] == "stall" and e["end"] - e["begin"] >= STALL_S]
        self.lines = [e for e in events if e["e"] == "line"]
        self.refused, self.wrong = [], []
        want, hold = {}, {}
        for e in sorted((e for e in events if "w" in e), key=lambda e: e["t"]):
            self._add(e, want, hold)
        self.waiting = [w for w in want.values() if not w.get("ended")]
        self.holds.sort(key=lambda h: h.got)

    def _add(self, e, want, hold):
        what, who = e["e"], e["w"]
        if what == "want":
            want[who] = e
        elif what == "answer":
            want.pop(who, None)
            self.answers[e["why"]] += 1
        elif what == "got":
            hold[who] = Hold(want.pop(who), e["t"])
            self.holds.append(hold[who])
        elif what == "end":
            want.pop(who, None)
            if who in hold:
                hold.pop(who).ended = e["t"]
        elif what in ("token", "clean", "told", "free", "refused"):
            self._of_hold(e, hold[who])

    def _of_hold(self, e, hold):
        if e["e"] == "token":
            hold.token = e["tok"]
        elif e["e"] == "clean":
            if hold.told is not None:
                self.wrong.append(f"still held, after it was told of the loss: {hold!r}, at {e['t']:.3f}")
            hold.clean, hold.checked = max(hold.clean, e["t"]), True
        elif e["e"] == "told" and hold.told is None:
            hold.told = e["t"]
        elif e["e"] == "free":
            hold.freed = e["t"]
        elif e["e"] == "refused":
            self.refused.append((e, hold))

    # ---- What excuses ----

    def _hit(self, kinds, target, begin, end):
        return any(f["kind"] in kinds and f["target"] == target and f["begin"] <= end and f["end"] >= begin
                   for f in self.faults)

    def excuse(self, hold, begin, end):
        """Why this holder may not have been told between the two; None: he should have been."""
        if self._hit(BLIND, f"mount {hold.mount}", begin, end):
            return "its daemon was stopped or dead"
        if self._hit(NUMB, f"worker {hold.worker.split('.')[0]}", begin, end):
            return "the holder was stopped"
        if any(s["begin"] <= end and s["end"] >= begin for s in self.stalls):
            return "the machine stood still"
        return None

    # ---- What must be so ----

    def exclusion(self):
        """Two, of whom one holds alone, who both had it proven to them at one moment."""
        found, active = [], collections.defaultdict(list)
        for hold in self.holds:
            # What Python was told is what was true when its request was sent; only what it checked counts.
            if hold.python and not hold.checked:
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
                why = self.excuse(h, h.clean, h.believed_until())
                text = f"told {h.believed_until() - hold.got:.3f} s after the next grant: {h!r}; {hold!r}"
                (excused if why else late).append((overlap, why, text))
            before.append(hold)
        return [text for _, _, text in late], [(seconds, why) for seconds, why, _ in excused]

    def tokens(self):
        """Who asked after another one was told that he holds has a greater token than he."""
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
            for hold in holds:
                at = bisect.bisect_left(times, hold.want) - 1
                earlier = None if at < 0 else (top if hold.mode == "x" else top_exclusive)[at]
                if earlier and earlier.token >= hold.token:
                    found.append(f"token {hold.token} after {earlier.token}: {earlier!r}; {hold!r}")
        return found

    def guarded(self, log):
        """log: (lock, token) in the order of the resource. Nor may it refuse who can prove that he holds."""
        found, last = [], {}
        for lock, token in log:
            if token < last.get(lock, 0):
                found.append(f"the guarded log of {lock} has {token} after {last[lock]}")
            last[lock] = token
        for e, hold in self.refused:
            if hold.clean > e["t"]:
                found.append(f"a holder's token was refused, the guard had seen {e['last']}: {hold!r}")
        return found

    def unguarded(self):
        """(unexplained, count): lines that came after one with a greater token."""
        found, count, last = [], 0, {}
        for e in sorted(self.lines, key=lambda e: e["t"]):
            if e["tok"] < last.get(e["l"], 0):
                count += 1
                hold = Hold(dict(e, m="x", t=e["c"]), e["c"])
                if not self.excuse(hold, e["c"], e["t"]):
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
        """From the last fault that began before, until the holder was told."""
        times = []
        for hold in self.losses():
            begun = [f["begin"] for f in self.faults if f["begin"] <= hold.told
                     and not f["target"].startswith("worker")
                     and (not f["target"].startswith("mount") or f["target"] == f"mount {hold.mount}")
                     and f["end"] >= hold.clean]
            if begun:
                times.append(hold.told - min(begun))
        return times


def recovery(healed, back, bound_s):
    """back: for each what, when it was as it should be again (None: not in the end)."""
    return [f"{what} is not back" if t is None else f"{what} came back after {t - healed:.2f} s of {bound_s:.2f} s"
            for what, t in back.items() if t is None or t - healed > bound_s]


def followed(known, shown):
    """known: what a follower's lines add up to; shown: what ls shows."""
    return [] if known == shown else [f"a follower knows {sorted(known)}, and ls shows {sorted(shown)}"]
