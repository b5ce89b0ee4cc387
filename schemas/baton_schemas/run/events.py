"""What can happen to a run, and what can follow from it: the two sides of `lifecycle.decide`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import (
    Decisive,
    Handoff,
    Parent,
    Reply,
    Result,
)
from baton_schemas.wire.money import Budget
from baton_schemas.wire.outcomes import Outcome, ResultStatus, State, Value

from .joins import Chain

Lists = Mapping[str, Sequence[Value]]
"""The lists to fan out over, by the step that does so (see `spreads`)."""


class View(Struct, frozen=True):
    """What `decide` sees besides the event."""

    plan: Plan
    now_s: float = 0.0
    """The broker's time, in seconds of Unix time."""
    lists: Lists = {}
    """For the steps in `spreads` of the event's step; one that is missing is empty."""
    left_out: Mapping[str, str] = {}
    """Those of the same steps whose `when` does not hold, and why."""
    again: bool = False
    """Whether the condition of the `again` of the event's step holds, if it has one."""
    item: Value | None = None
    """That of the branch in `next_branch`; None when its turn is not to come any more: its joins have closed."""


# ---- events --------------------------------------------------------------------------------------


class Submitted(NamedTuple):
    """A client asks for a run with this input. The first of what follows is the one write that it waits for."""

    run: str
    state: State
    deadline_s: float = 0.0
    parent: Parent | None = None
    """The step of another run that asks for it."""
    budget: Budget | None = None
    """What the client allows it to spend; the plan's flow has it too."""


class Begun(NamedTuple):
    """A worker holds the first handoff of a run, stored at this sequence and time."""

    first: Handoff
    seq: int
    stored_at_s: float


class Entered(NamedTuple):
    """A worker holds a handoff; its step sees this state."""

    handoff: Handoff
    state: State
    start_seq: int


class Ended(NamedTuple):
    """A step ended: its handoff, what it saw, and how."""

    handoff: Handoff
    state: State
    outcome: Outcome
    start_seq: int


class Recorded(NamedTuple):
    """A decisive record is stored, whoever wrote it; `handoff` is the one that gave the step, where it is in hand."""

    record: Decisive
    handoff: Handoff | None = None


class Gathered(NamedTuple):
    """The chain of a join is complete."""

    chain: Chain


class Stopped(NamedTuple):
    """A run is to end beside its steps: cancelled, expired, or failed for a reason of its own."""

    run: str
    status: ResultStatus
    reason: str
    start_seq: int
    step: str = ""


Event = Submitted | Begun | Entered | Ended | Recorded | Gathered | Stopped


# ---- actions -------------------------------------------------------------------------------------


class Create(NamedTuple):
    """Write a message where there is none. `actor` is who reads it (for a result: nobody)."""

    actor: str
    message: Decisive


class SetTimer(NamedTuple):
    """Have the broker send this message at a time to come (the broker's), with everybody dead."""

    who: str
    run: str
    step: str
    due_s: float
    message: Handoff | Reply | Result


class CancelTimer(NamedTuple):
    """Take a timer back."""

    who: str
    run: str
    step: str


Action = Create | SetTimer | CancelTimer
