# SPDX-License-Identifier: Apache-2.0
"""What the tests with Python's tooz share: a Python client as an agent, a process of its own.

Mounts, agents and the supervisor come from tests/tree/lib.py.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tree"))
import lib  # noqa: E402

try:
    import tooz
    from tooz import coordination
except ImportError:
    print("needs the system's python3-tooz")
    sys.exit(77)

state = {}  # the agent's own


def tooz_start(url, member, heart=True):
    state["coord"] = coordination.get_coordinator(url, member)
    state["coord"].start(start_heart=heart)
    state["locks"], state["elected"] = {}, {}


def tooz_stop():
    state["coord"].stop()


def answer(future):
    """The result, or the name of tooz's exception."""
    try:
        return future.get(timeout=lib.PATIENCE_S)
    except tooz.ToozError as error:
        return type(error).__name__


def tooz_acquire(name, **keywords):
    lock = state["locks"].setdefault(name, state["coord"].get_lock(name))
    return lock.acquire(**keywords)


def tooz_elect(group):
    """One attempt to lead; the id under which the client leads, if it does."""
    if group not in state["elected"]:
        state["elected"][group] = None
        state["coord"].watch_elected_as_leader(
            group, lambda event: state["elected"].update({group: event.member_id}))
    state["coord"].run_watchers()
    return state["elected"][group]


def tooz_watch(group):
    state["events"] = []
    state["coord"].watch_join_group(group, lambda e: state["events"].append(("join", e.member_id)))
    state["coord"].watch_leave_group(group, lambda e: state["events"].append(("leave", e.member_id)))


def tooz_events():
    state["coord"].run_watchers()
    found, state["events"][:] = list(state["events"]), []
    return found


lib.ACTIONS.update({
    "elect": tooz_elect,
    "watch": tooz_watch,
    "events": tooz_events,
    "leader": lambda group: answer(state["coord"].get_leader(group)),
    "stand_down": lambda group: state["coord"].stand_down_group_leader(group),
    "update": lambda group, caps: answer(state["coord"].update_capabilities(group, caps)),
    "info": lambda group, member: answer(state["coord"].get_member_info(group, member)),
    "is_owner": lambda name: state["locks"][name].is_still_owner(),
    "break_": lambda name: state["coord"].get_lock(name).break_(),
    "tooz_start": tooz_start,
    "tooz_stop": tooz_stop,
    "heartbeat": lambda: state["coord"].heartbeat(),
    "groups": lambda: set(answer(state["coord"].get_groups())),
    "create": lambda group: answer(state["coord"].create_group(group)),
    "delete": lambda group: answer(state["coord"].delete_group(group)),
    "join": lambda group, caps=b"": answer(state["coord"].join_group(group, caps)),
    "leave": lambda group: answer(state["coord"].leave_group(group)),
    "members": lambda group: answer(state["coord"].get_members(group)),
    "caps": lambda group, member: answer(state["coord"].get_member_capabilities(group, member)),
    "acquire": tooz_acquire,
    "release": lambda name: state["locks"][name].release(),
})


class Case(lib.Case):
    def python(self, url, member, heart=True):
        """A Python client with this member id."""
        agent = self.agent()
        agent.tooz_start(url, member, heart)
        return agent
