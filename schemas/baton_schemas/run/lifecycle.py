"""The lifecycle of a run: what is to be written when something happened. One pure function, `decide`.

An event is a fact (a handoff was taken, a step ended, a record is stored); the actions are what follows from it and
from the flow alone. All that is created is created only where nothing is yet, so that deciding and doing it twice, by
whoever comes, changes nothing. `baton_bus.engine` does what is decided here.
"""

from __future__ import annotations

from typing import assert_never

from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import Handoff
from baton_schemas.wire.outcomes import Skipped, State

from .entering import join_timers, spreads, spreads_again
from .events import (
    Action,
    Begun,
    CancelTimer,
    Create,
    Ended,
    Entered,
    Event,
    Gathered,
    Lists,
    Recorded,
    SetTimer,
    Stopped,
    Submitted,
    View,
)
from .handoffs import result_of
from .records import decisive, ends_run, gathered, next_branch, recorded
from .starting import begun, first_of


def decide(view: View, event: Event) -> list[Action]:
    """Return what follows from an event, in the order in which to do it."""
    plan = view.plan
    match event:
        case Submitted():
            return [first_of(view, event)]
        case Begun():
            return begun(view, event)
        case Entered():
            return [*join_timers(view, event.handoff.run, [event.handoff.step], event.state, event.start_seq)]
        case Ended():
            return [decisive(plan, event)]
        case Recorded():
            return recorded(view, event)
        case Gathered(chain):
            return gathered(plan, chain)
        case Stopped():
            result = result_of(plan, event.run, event.step, None, event.start_seq)
            return [Create("", replace(result, status=event.status, reason=event.reason))]
        case _:
            assert_never(event)


def decisive_of(plan: Plan, handoff: Handoff) -> Create:
    """Return a record on the subject that decides the step of a handoff: what it says is not meant."""
    (action,) = decide(View(plan), Ended(handoff, State(), Skipped(reason=""), 0))
    assert isinstance(action, Create)
    return action


__all__ = [
    "Action",
    "Begun",
    "CancelTimer",
    "Create",
    "Ended",
    "Entered",
    "Event",
    "Gathered",
    "Lists",
    "Recorded",
    "SetTimer",
    "Stopped",
    "Submitted",
    "View",
    "decide",
    "decisive_of",
    "ends_run",
    "next_branch",
    "spreads",
    "spreads_again",
]
