"""A run that goes on from another: its first handoff, and the records of the other that are copied into it.

The copies are made by the worker that holds the first handoff, create-only, so that a crash half-way changes
nothing. A record comes before the handoff of its step, and a copied handoff says that it is one: its step is
looked up before its handler is called, and found done.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import After, Handoff, Message, Origin, OutcomeRecord, Reply, Result, Started
from baton_schemas.wire.names import DEADLINE
from baton_schemas.wire.outcomes import Failed

from .lifecycle import Create, ends_run
from .refs import name_of, replied


class Logged(NamedTuple):
    """A message of the log, with its stream sequence and the actor in its subject."""

    seq: int
    actor: str
    message: Message


def forked_start(first: Handoff, run: str, until_seq: int = 0) -> Handoff:
    """Return the first handoff of `run`, which goes on from the run that `first` began."""
    assert isinstance(first.cause, Started)
    assert first.cause.begins is not None
    begins = replace(first.cause.begins, origin=Origin(run=first.run, until_seq=until_seq))
    return replace(first, run=run, start_seq=0, cause=replace(first.cause, begins=begins))


def copies(plan: Plan, log: Iterable[Logged], run: str, start_seq: int, until_seq: int = 0) -> list[Create]:
    """Return what is copied into `run`, in the order in which to write it: what goes to the last steps first.

    So the record of a step comes before whatever could start it, and what a join had before whatever could
    bring it more.

    Steps whose failure ended the run are left out, and so are done again; joins close by themselves once
    their replies are there. With `until_seq` only records up to that sequence are copied.
    """
    copied: list[Create] = []
    for seq, actor, message in log:
        if (until_seq and seq > until_seq) or not isinstance(message, Handoff | Reply | OutcomeRecord):
            continue
        if _is_ours(plan, message) and _is_copied(plan, message):
            copied.append(Create(actor, replace(message, run=run, start_seq=start_seq, copied=True)))
    places = {step: place for place, step in enumerate(reversed(plan.order))}

    def place(create: Create) -> tuple[int, bool]:
        # An outcome record starts nothing, and comes before the handoff of its own step.
        message = create.message
        return places[name_of(message.step)], not isinstance(message, OutcomeRecord)

    return sorted(copied, key=place)


def reused(plan: Plan, log: Iterable[Logged], until_seq: int = 0) -> frozenset[str]:
    """Return the steps, and branches of steps, whose outcome a fork takes over."""
    return frozenset(decided_by(create.message) for create in copies(plan, log, "", 0, until_seq)) - {""}


def seq_after(plan: Plan, log: Iterable[Logged], step: str) -> int:
    """Return the sequence by which the log says how a step (each of its branches) ended; 0 when it does not."""
    decided: dict[str, int] = {}
    for seq, _, message in log:
        decided.setdefault(decided_by(message), seq)
    return max((seq for name, seq in decided.items() if name and step in (name, plan.name_of(name))), default=0)


def decided_by(message: Message) -> str:
    """Return the step or branch whose outcome a message tells; `""` when it tells none."""
    match message:
        case Handoff(cause=After(step=step)):
            return step
        case Reply(source=source) if source != DEADLINE:
            return replied(message)
        case OutcomeRecord(step=step) | Result(step=step):
            return step
        case _:
            return ""


def _is_ours(plan: Plan, message: Handoff | Reply | OutcomeRecord) -> bool:
    """Say whether the lifecycle could have written it: the log keeps what it rejected, too."""
    if (message.flow, message.digest) != (plan.flow.name, plan.digest):
        return False
    sources = plan.sources.get(name_of(message.step))
    match message:
        case Handoff(cause=After(step=step)):
            return sources is not None and name_of(step) in sources
        case Reply(source=source) if source != DEADLINE:
            return sources is not None and source in sources
        case _:
            return sources is not None


def _is_copied(plan: Plan, message: Handoff | Reply | OutcomeRecord) -> bool:
    match message:
        case Handoff(cause=After()):
            return not ends_run(plan, message)
        case Handoff(cause=Started(begins=None)):
            return True
        case Handoff():
            return False  # the first, which the fork has its own of; one that closes a join; one that woke a step
        case Reply(source=source) if source == DEADLINE:
            return False
        case Reply(outcome=Failed()):
            return plan.on_failed_branch(message.step, message.source) != "fail"
        case OutcomeRecord(outcome=Failed()):
            base = name_of(message.step)
            return not any(plan.ends_run(base, successor) for successor in plan.successors[base])
        case _:
            return True
