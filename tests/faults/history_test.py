# SPDX-License-Identifier: Apache-2.0
"""The checker of the fault suite finds what is planted in a history, and nothing in a good one."""
import unittest

import history


def want(w, t, lock="l", mode="x", mount=0):
    return {"e": "want", "w": w, "t": t, "l": lock, "m": mode, "mount": mount}


def ev(what, w, t, **more):
    return {"e": what, "w": w, "t": t, **more}


def hold(w, begin, clean, end, token, how="free", mode="x", mount=0, asked=None):
    """A whole holding."""
    events = [want(w, begin - 0.1 if asked is None else asked, mode=mode, mount=mount), ev("got", w, begin)]
    if token is not None:
        events.append(ev("token", w, begin, tok=token))
    if clean is not None:
        events.append(ev("clean", w, clean))
    return events + [ev(how, w, end)]


def fault(kind, target, begin, end):
    return {"e": "fault", "kind": kind, "target": target, "t": begin, "begin": begin, "end": end}


class Checker(unittest.TestCase):
    def good(self, events):
        h = history.History(events)
        self.assertEqual((h.exclusion(), h.notices()[0], h.tokens(), h.forgotten(), h.wrong), ([], [], [], [], []))
        return h

    def test_good(self):
        h = self.good(hold("a", 1, 2, 2.1, 10) + hold("b", 2.2, 3, 3.1, 12, mount=1)
                      + hold("a", 4, 5, 5.5, 14, how="told"))
        self.assertEqual((len(h.holds), len(h.losses())), (3, 1))

    def test_two_holders(self):
        h = history.History(hold("a", 1, 3, 3.1, 10) + hold("b", 2.9, 4, 4.1, 12, mount=1))
        self.assertEqual(len(h.exclusion()), 1)

    def test_two_holders_are_never_excused(self):
        h = history.History(hold("a", 1, 3, 3.1, 10) + hold("b", 2.9, 4, 4.1, 12, mount=1)
                            + [fault("daemon-stop", "mount 0", 1.5, 2.8)])
        self.assertEqual(len(h.exclusion()), 1)

    def test_a_long_holder_and_several_after_him(self):
        h = history.History(hold("a", 1, 9, 9.1, 10) + hold("b", 2, 3, 3.1, 12, mount=1)
                            + hold("c", 4, 5, 5.1, 14, mount=1))
        self.assertEqual(len(h.exclusion()), 2)

    def test_sharers(self):
        self.good(hold("a", 1, 3, 3.1, 10, mode="s") + hold("b", 2, 4, 4.1, 10, mode="s", mount=1))
        h = history.History(hold("a", 1, 3, 3.1, 10, mode="s") + hold("b", 2, 4, 4.1, 12, mount=1))
        self.assertEqual(len(h.exclusion()), 1)

    def test_python_counts_when_it_has_looked(self):
        mine = hold("a", 1, 3, 3.1, 10)
        self.good(mine + hold("p", 2, None, 2.5, None, mount=None))
        h = history.History(mine + hold("p", 2, 2.2, 2.5, None, mount=None))
        self.assertEqual(len(h.exclusion()), 1)

    def test_late_notice(self):
        events = hold("a", 1, 2, 6, 10, how="told") + hold("b", 5, 7, 7.1, 12, mount=1)
        late, excused = history.History(events).notices()
        self.assertEqual((len(late), excused), (1, []))
        # Another's daemon, or at another time, is no excuse.
        for excuse in (("daemon-stop", "mount 1", 2, 5.9), ("daemon-stop", "mount 0", 0, 1.9),
                       ("server-stop", "server", 2, 5), ("worker-stop", "worker b", 2, 5)):
            self.assertEqual(len(history.History(events + [fault(*excuse)]).notices()[0]), 1, excuse)
        for excuse in (("daemon-stop", "mount 0", 2.5, 5.9), ("daemon-kill", "mount 0", 4, 5),
                       ("worker-stop", "worker a", 2, 5.9)):
            late, excused = history.History(events + [fault(*excuse)]).notices()
            self.assertEqual((late, len(excused)), ([], 1), excuse)
            self.assertAlmostEqual(excused[0][0], 1)

    def test_stalls(self):
        events = hold("a", 1, 2, 6, 10, how="told") + hold("b", 5, 7, 7.1, 12, mount=1)
        self.assertEqual(history.History(events + [{"e": "stall", "t": 3, "begin": 3, "end": 6}]).notices()[0], [])
        self.assertEqual(len(history.History(
            events + [{"e": "stall", "t": 3, "begin": 3, "end": 3.1}]).notices()[0]), 1)

    def test_told_in_time(self):
        late, excused = history.History(
            hold("a", 1, 2, 4.9, 10, how="told") + hold("b", 5, 7, 7.1, 12, mount=1)).notices()
        self.assertEqual((late, excused), ([], []))

    def test_the_killed_believe_nothing(self):
        self.good(hold("a", 1, 2, 2.5, 10, how="end") + hold("b", 3, 7, 7.1, 12, mount=1))

    def test_lost_and_found(self):
        h = history.History(hold("a", 1, 2, 3, 10, how="told") + [ev("clean", "a", 4)])
        self.assertEqual(len(h.wrong), 1)

    def test_token_back(self):
        h = history.History(hold("a", 1, 2, 2.1, 12) + hold("b", 3, 4, 4.1, 11, mount=1))
        self.assertEqual(len(h.tokens()), 1)

    def test_token_twice(self):
        h = history.History(hold("a", 1, 2, 2.1, 12) + hold("b", 3, 4, 4.1, 12, mount=1))
        self.assertEqual(len(h.tokens()), 1)

    def test_tokens_of_sharers(self):
        self.good(hold("a", 1, 2, 2.1, 12, mode="s") + hold("b", 3, 4, 4.1, 12, mode="s", mount=1))
        h = history.History(hold("a", 1, 2, 2.1, 12) + hold("b", 3, 4, 4.1, 12, mode="s", mount=1))
        self.assertEqual(len(h.tokens()), 1)
        h = history.History(hold("a", 1, 2, 2.1, 12, mode="s") + hold("b", 3, 4, 4.1, 12, mount=1))
        self.assertEqual(len(h.tokens()), 1)

    def test_tokens_of_those_who_asked_before(self):
        """The one who asked first may be granted first, and be told last."""
        self.good(hold("a", 2, None, 2.1, 12) + hold("b", 3, 4, 4.1, 11, mount=1, asked=1))

    def test_modes(self):
        events = hold("a", 1, 2, 2.1, 14) + hold("b", 3, 4, 4.1, 10, mode="s") + [ev("refused", "b", 3.5, last=14)]
        h = history.History(events)
        self.assertEqual([len(h.tokens(m)) for m in ("x", "s", "xs")], [0, 1, 1])
        self.assertEqual([len(h.refusals(m)) for m in ("x", "s", "xs")], [0, 1, 1])

    def test_guarded(self):
        h = history.History([])
        self.assertEqual(h.guarded([("l", 1), ("l", 1), ("k", 1), ("l", 3)]), [])
        self.assertEqual(len(h.guarded([("l", 3), ("k", 1), ("l", 2)])), 1)

    def test_refused_though_he_holds(self):
        events = hold("a", 1, 2, 2.1, 12)
        self.assertEqual(len(history.History(events + [ev("refused", "a", 1.5, last=14)]).refusals()), 1)
        self.assertEqual(history.History(events + [ev("refused", "a", 2.05, last=14)]).refusals(), [])

    def test_unguarded(self):
        def line(w, t, c, token, mount):
            return ev("line", w, t, c=c, tok=token, l="l", mount=mount)
        events = [line("a", 1, 0.9, 10, 0), line("b", 4, 3.9, 12, 1), line("a", 5, 1.5, 10, 0)]
        found, count = history.History(events).unguarded()
        self.assertEqual((len(found), count), (1, 1))
        found, count = history.History(events + [fault("worker-stop", "worker a", 2, 4.9)]).unguarded()
        self.assertEqual((len(found), count), (0, 1))

    def test_forgotten_waiter(self):
        h = history.History([want("a", 1), want("b", 1), ev("answer", "b", 2, why="again"),
                             want("c", 1), ev("end", "c", 2)])
        self.assertEqual(len(h.forgotten()), 1)
        self.assertIn("a for l", h.forgotten()[0])

    def test_recovery(self):
        self.assertEqual(history.recovery(10, {"m": 12}, 6), [])
        self.assertEqual(len(history.recovery(10, {"m": 17, "n": None, "o": 11}, 6)), 2)

    def test_followed(self):
        self.assertEqual(history.followed({"a"}, {"a"}), [])
        self.assertEqual(len(history.followed({"a"}, {"a", "b"})), 1)

    def lost(self, events):
        return dict(history.History(events).notice_times())

    def test_notice_times(self):
        events = hold("a", 1, 2, 4, 10, how="told")
        self.assertEqual(self.lost(events), {"without a fault": [2]})
        events.append(fault("drop", "mount 0", 2.5, 5))
        events.append(fault("drop", "mount 1", 2.7, 5))
        self.assertEqual(self.lost(events), {"broken": [1.5]})
        events[4]["until"] = 5
        self.assertEqual(self.lost(events), {"broken": [1.5]})
        events[4]["until"] = 3.5
        self.assertEqual(self.lost(events), {"lease over": [0.5]})
        for stop in (fault("daemon-stop", "mount 0", 3, 3.75), fault("worker-stop", "worker a", 3, 3.75)):
            self.assertEqual(self.lost([*events, stop]), {"lease over while stopped": [0.25]})
        self.assertEqual(self.lost([*events, fault("daemon-kill", "mount 0", 3, 5)]), {"daemon killed": [1]})

    def test_spare_times(self):
        h = history.History(hold("a", 1, 2, 3, 10, how="told") + hold("b", 4, 4.5, 5, 12, mode="s", mount=1)
                            + hold("c", 6, 7, 8, 14, mount=1))
        self.assertEqual(dict(h.spare_times()), {"holders told": [1]})
        h = history.History(hold("a", 1, 2, 3, 10, how="told", mode="s") + hold("b", 4, 4.5, 5, 12, mode="s", mount=1)
                            + hold("c", 6, 7, 8, 14, mount=1))
        self.assertEqual(dict(h.spare_times()), {"holders told": [3]})

    def test_served_times(self):
        h = history.History([*hold("a", 3, 4, 4.1, 10, asked=1), *hold("b", 5, 6, 6.1, 12, asked=2),
                             *hold("c", 1.5, 1.6, 1.7, 8, asked=1), want("d", 1), ev("answer", "d", 4, why="again")])
        self.assertEqual(sorted(h.served_times(2.5)), [0.5, 1.5, 2.5])

    # ---- Commands under tooz-run ----

    def command(self, w, begin, alive, code=122, free=False, token=10):
        events = [dict(want(w, begin - 0.1), via="tooz-run"), ev("got", w, begin), ev("token", w, begin, tok=token),
                  ev("alive", w, alive)]
        return events + ([ev("free", w, alive)] if free else []) + [ev("over", w, alive + 3, code=code)]

    def test_commands(self):
        h = self.good(self.command("a.0.1", 1, 2, free=True, code=0) + self.command("a.0.2", 3, 4, token=12)
                      + hold("b", 5, 6, 6.1, 14, mount=1))
        self.assertEqual((len(h.losses()), dict(h.notice_times())), (1, {}))
        self.assertEqual(dict(h.spare_times()), {"commands ended": [1]})

    def test_command_that_outlives_its_lock(self):
        events = self.command("a.0.1", 1, 5) + hold("b", 4.5, 6, 6.1, 12, mount=1)
        self.assertEqual(len(history.History(events).notices()[0]), 1)
        # Neither the daemon nor tooz-run has to be asked for that.
        for stop in (fault("daemon-stop", "mount 0", 2, 6), fault("daemon-kill", "mount 0", 4, 6),
                     fault("worker-stop", "worker a", 2, 6)):
            self.assertEqual(len(history.History(events + [stop]).notices()[0]), 1, stop)
        self.assertEqual(len(history.History(events + [fault("daemon-kill", "mount 0", 4, 6)],
                                             leased=False).notices()[0]), 0)
        late, excused = history.History(events + [{"e": "stall", "t": 4, "begin": 4, "end": 5}]).notices()
        self.assertEqual((late, len(excused)), ([], 1))

    def test_command_that_begins_after_the_next(self):
        events = hold("b", 0.5, 3, 3.1, 12, mount=1) + self.command("a.0.1", 1, 1.1)
        self.assertEqual(len(history.History(events).exclusion()), 1)
        for kind, leased, wrong in (("daemon-kill", False, 0), ("daemon-kill", True, 1), ("daemon-stop", False, 1)):
            self.assertEqual(len(history.History(events + [fault(kind, "mount 0", 0.4, 6)], leased=leased).exclusion()),
                             wrong, (kind, leased))

    def test_command_that_ends_by_itself_without_its_last_word(self):
        self.assertEqual(len(history.History(self.command("a.0.1", 1, 5, code=0)).wrong), 1)

    def test_command_of_a_killed_worker(self):
        self.good([want("a.0.1", 1), ev("end", "a.0", 2)])
        self.assertEqual(len(history.History([want("a.0.1", 1), ev("end", "b.0", 2)]).forgotten()), 1)
        late = self.command("a.0.1", 1, 5)[:-1]
        self.assertEqual(len(history.History(late + [ev("end", "a.0", 2)] + hold("b", 4.5, 6, 6.1, 12, mount=1))
                             .notices()[0]), 1)

    def test_late_lines_of_commands(self):
        def line(w, t, token, **more):
            return ev("line", w, t, c=t, tok=token, l="l", mount=0, **more)
        events = [line("b", 4, 12), line("a.0.1", 5, 10, run=True), fault("daemon-stop", "mount 0", 2, 6)]
        self.assertEqual(len(history.History(events).unguarded()[0]), 1)


if __name__ == "__main__":
    unittest.main()
