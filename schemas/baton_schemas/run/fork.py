"""A run that goes on from another: its first handoff, and the records of the other that are copied into it.

The copies are made by the worker that holds the first handoff, create-only, so that a crash half-way changes
nothing. A record comes before the handoff of its step, and a copied handoff says that it is one: its step is
looked up before its handler is called, and found done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import After, Handoff, Message, Origin, OutcomeRecord, Reply, Result, Started
from baton_schemas.wire.names import DEADLINE
from baton_schemas.wire.outcomes import Failed

from .lifecycle import Create, ends_run
from .past import Logged, is_ours, past_of
from .refs import ended_by, name_of
from .remaking import Texts, in_order, remade
from .rounds import ended_by_loop


def forked_start(first: Handoff, run: str, until_seq: int = 0, *, failed: bool = False) -> Handoff:
    """Return the first handoff of `run`, which goes on from the run that `first` began, under the same flow.

    With `failed`, failures that did not end that run are done again too.
    """
    origin = Origin(run=first.run, until_seq=until_seq, failed=failed)
    return going_on(replace(first, run=run, start_seq=0), origin)


def going_on(first: Handoff, origin: Origin) -> Handoff:
    """Return the first handoff of a run, as one of a run that goes on from another.

    Nobody waits for it: a step that asked for the other one has its answer, or gets it from that one.
    """
    assert isinstance(first.cause, Started)
    assert first.cause.begins is not None
    return replace(first, cause=replace(first.cause, begins=replace(first.cause.begins, origin=origin, parent=None)))


def origin_of(first: Handoff) -> Origin | None:
    """Return which run the one that begins with this handoff goes on from."""
    begins = first.cause.begins if isinstance(first.cause, Started) else None
    return begins.origin if begins is not None else None


def copies(plan: Plan, log: Iterable[Logged], run: str, start_seq: int, until_seq: int = 0) -> list[Create]:
    """Return what is copied into `run`, which has the same flow, in the order in which to write it.

    Steps whose failure ended the run are left out, and so are done again; joins close by themselves once
    their replies are there. With `until_seq` only records up to that sequence are copied.
    """
    copied: list[Create] = []
    log = list(log)
    vain = {ended_by_loop(plan, message) for _, _, message in log}
    for seq, actor, message in log:
        if (until_seq and seq > until_seq) or not isinstance(message, Handoff | Reply | OutcomeRecord):
            continue
        if isinstance(message, OutcomeRecord) and message.step in vain:
            continue  # the run failed as this was the last round of its loop
        if is_ours(plan, message) and _is_copied(plan, message):
            copied.append(Create(actor, replace(message, run=run, start_seq=start_seq, copied=True)))
    return in_order(plan, copied)


def copied_into(
    plan: Plan, log: Sequence[Logged], first: Handoff, origin: Origin, start_seq: int, texts: Texts | None = None
) -> list[Create]:
    """Return what is copied into the run that `first` begins, whatever its flow; `log` is that of the other run.

    `texts` has values that are kept beside the log (see `keeping.texts_needed`).
    """
    past = past_of(log, origin.until_seq)
    if past is None or (past.plan.digest == plan.digest and not origin.failed):
        return copies(plan, log, first.run, start_seq, origin.until_seq)
    return remade(past, plan, first, start_seq, failed=origin.failed, texts=texts)


def reused(plan: Plan, log: Iterable[Logged], until_seq: int = 0) -> frozenset[str]:
    """Return the steps, and branches of steps, whose outcome a fork under the same flow takes over."""
    return told_by(copies(plan, log, "", 0, until_seq))


def told_by(copied: Iterable[Create]) -> frozenset[str]:
    """Return the steps, and branches of steps, whose outcome is in these copies."""
    return frozenset(decided_by(create.message) for create in copied) - {""}


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
            return ended_by(message)
        case OutcomeRecord(step=step) | Result(step=step):
            return step
        case _:
            return ""


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
        case Reply(outcome=Failed(ends_run=True)) | OutcomeRecord(outcome=Failed(ends_run=True)):
            return False
        case Reply(outcome=Failed()):
            return plan.on_failed_branch(message.step, message.source) != "fail"
        case OutcomeRecord(outcome=Failed()):
            base = name_of(message.step)
            successors = plan.successors[base]
            return bool(successors) and not any(plan.ends_run(base, successor) for successor in successors)
        case _:
            return True
