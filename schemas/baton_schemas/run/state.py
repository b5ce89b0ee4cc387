"""What a log says: its entries, and the state of a run and of its steps. `fold.py` makes one of the other."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Literal

from msgspec import Raw, Struct

from baton_schemas.errors import BadMessage, NewerMessage
from baton_schemas.wire.codec import decode, decode_say
from baton_schemas.wire.facts import Rejected
from baton_schemas.wire.messages import AskedKind, Message, Result
from baton_schemas.wire.outcomes import Blob, Error, Usage, Value, Work

RunStatus = Literal["running", "done", "failed", "cancelled", "expired"]

StepStatus = Literal["joining", "queued", "done", "failed", "skipped", "dropped"]
"""`joining`: replies came, its handoff has not. `queued`: its handoff is in the log and its outcome is not (a
worker may hold it; the log does not say). `dropped`: the run ended before it did."""


class Entry(Struct, frozen=True, kw_only=True):
    """One message of the log, as the broker stored it. `message` is None when `data` is no message."""

    seq: int
    """Stream sequence."""
    at: datetime
    """When the broker stored it, in UTC."""
    subject: str
    data: bytes
    message: Message | None


def read_entry(seq: int, at: datetime, subject: str, data: bytes) -> Entry:
    """Return the entry with these bytes; never raises on what the bytes are."""
    message: Message | None
    try:
        message = _decoded(data, subject)
    except (BadMessage, NewerMessage):
        message = None
    return Entry(seq=seq, at=at, subject=subject, data=data, message=message)


def known(entry: Entry | None) -> Message | None:
    """Return the message of an entry, None when there is none or it is no message of any release.

    What a later release wrote is there all the same, and nothing may be concluded from it: raises `NewerMessage`.
    """
    if entry is not None and entry.message is None:
        with contextlib.suppress(BadMessage):
            return _decoded(entry.data, entry.subject)
    return entry.message if entry is not None else None


def is_newer(entry: Entry) -> bool:
    """Say whether a later release wrote an entry, in a way that this one cannot read."""
    try:
        known(entry)
    except NewerMessage:
        return True
    return False


def _decoded(data: bytes, subject: str) -> Message:
    """Return a message by its place: a word from outside need not say what it is."""
    return decode_say(data, subject) if ".say." in subject and subject.split(".")[1] == "say" else decode(data, subject)


class StepState(Struct, frozen=True, kw_only=True):
    """What the log says of one step, or of one branch of it."""

    name: str
    status: StepStatus
    source: str = ""
    """Who handed it on: a step, `start` or `join`; empty until its handoff is seen."""
    waits: str = ""
    """What it waits for, as a note says; empty once it goes on."""
    due_at: datetime | None = None
    """When its retry is due: from then on it does not wait for it, whether or not it has begun."""
    attempts: int = 0
    retries: int = 0
    queued_at: datetime | None = None
    ended_at: datetime | None = None
    output: Raw | None = None
    blob: Blob | None = None
    """The output, when it was too large to be inline."""
    truncated: bool = False
    reason: str = ""
    """Why it was skipped."""
    error: Error | None = None
    """Why it failed; before it has ended, why its last attempt did."""
    work: Work | None = None
    branches: list[str] = []
    """A join: the branches that its handoff names, in the order of the flow."""
    arrived: int = 0
    expected: int = 0
    """A join: how many branches have replied, and of how many as far as the log says."""
    reused: bool = False
    """It was done in the run that this one goes on from."""
    asked: AskedKind | None = None
    """Of a child: who answers. `source` is then the step that asked."""
    arguments: dict[str, Value] = {}
    """Of a child: what it was asked with, by name."""
    answers_at: datetime | None = None
    """Of a child: when it is answered by itself."""
    question: str = ""
    """What a person is asked."""
    expects: str = ""
    """What they may answer, in a few words."""
    answered_by: str = ""
    """Of a person's answer: who gave it, as they say themselves, and with which note."""
    note: str = ""
    by_itself: bool = False
    """Nobody answered in its time."""
    batch: str = ""
    """Of a model call that goes with a batch: which."""
    unasked: int = 0
    """How many children it asked for once, and not when it was done last."""


class RunState(Struct, frozen=True, kw_only=True):
    """What the log says of a run."""

    run: str
    flow: str
    status: RunStatus
    input: dict[str, Raw]
    input_blobs: dict[str, Blob]
    """Fields of the input that were too large to be inline."""
    flow_body: Raw | None
    """The flow itself, from the first handoff."""
    steps: dict[str, StepState]
    """Steps and branches (`digest-3`) by name, in the order in which the log names them."""
    result: Result | None
    started_at: datetime | None
    ended_at: datetime | None
    messages: int
    """Entries folded, each sequence once."""
    unreadable: int
    """Entries among them that are no message of ours."""
    cost_usd: float | None
    """Sum of what was paid, for attempts that failed too, reused steps left out; None when nothing has a price."""
    unpriced: int
    """Outcomes with real tokens whose price is not known: when not 0, `cost_usd` is a lower bound."""
    usage: Usage
    """Of the steps that this run did itself."""
    rehearsed: bool
    """Whether the rehearsal model answered any step, reused steps included."""
    late: list[str]
    """Branches that replied to a join and are not in the handoff that closed it."""
    wasted_usd: float = 0.0
    """What of `cost_usd` was paid for attempts that failed."""
    forked_from: str = ""
    """The run that this one goes on from."""
    parent: str = ""
    """The run that asked for this one."""
    parent_step: str = ""
    """The step of that one which did."""
    source: str = ""
    """Where the flow's file was when the run was asked for, if that is known: a path, or the name of a shipped flow."""
    rejected: list[Rejected] = []
    """What was rejected of the run's messages and words from outside: the latest of it."""
    foreign: int = 0
    """Results beside the run's own: of another flow, by a client that took its id. They change nothing."""
    counts: dict[str, int] = {}
    """By fan-out: how many branches it has, those included whose turn has not come; 1 for a step that is none."""
