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
from baton_schemas.run.lifecycle import Routed
from baton_schemas.wire.messages import Failed, Handoff, Message, OutcomeRecord, Reply, Result
from baton_schemas.wire.names import DEADLINE, JOIN, START


class Logged(NamedTuple):
    """A message of the log, with its stream sequence and the actor in its subject."""

    seq: int
    actor: str
    message: Message


def forked_start(first: Handoff, run: str, until_seq: int = 0) -> Handoff:
    """Return the first handoff of `run`, which goes on from the run that `first` began."""
    return replace(first, run=run, forked_from=first.run, until_seq=until_seq, start_seq=0)


def copies(plan: Plan, log: Iterable[Logged], run: str, start_seq: int, until_seq: int = 0) -> list[Routed]:
    """Return what is copied into `run`, in the order in which to write it: what goes to the last steps first.

    So the record of a step comes before whatever could start it, and what a join had before whatever could
    bring it more.

    Steps whose failure ended the run are left out, and so are done again; joins close by themselves once
    their replies are there. With `until_seq` only records up to that sequence are copied.
    """
    copied: list[Routed] = []
    for seq, actor, message in log:
        if (until_seq and seq > until_seq) or not isinstance(message, Handoff | Reply | OutcomeRecord):
            continue
        if _is_copied(plan, message):
            copied.append(Routed(actor, replace(message, run=run, start_seq=start_seq, copied=True)))
    places = {step: place for place, step in enumerate(reversed(plan.order))}

    def place(routed: Routed) -> tuple[int, bool]:
        # An outcome record starts nothing, and comes before the handoff of its own step.
        return places[plan.name_of(routed.message.step)], not isinstance(routed.message, OutcomeRecord)

    return sorted(copied, key=place)


def reused(plan: Plan, log: Iterable[Logged], until_seq: int = 0) -> frozenset[str]:
    """Return the steps, and branches of steps, whose outcome a fork takes over."""
    return frozenset(decided_by(message) for _, message in copies(plan, log, "", 0, until_seq)) - {""}


def seq_after(plan: Plan, log: Iterable[Logged], step: str) -> int:
    """Return the sequence by which the log says how a step (each of its branches) ended; 0 when it does not."""
    decided: dict[str, int] = {}
    for seq, _, message in log:
        decided.setdefault(decided_by(message), seq)
    return max((seq for name, seq in decided.items() if name and step in (name, plan.name_of(name))), default=0)


def decided_by(message: Message) -> str:
    """Return the step or branch whose outcome a message tells; `""` when it tells none."""
    match message:
        case Handoff(source=source) if source not in (START, JOIN):
            return source
        case Reply(branch=branch) if branch != DEADLINE:
            return branch
        case OutcomeRecord(step=step) | Result(step=step):
            return step
        case _:
            return ""


def _is_copied(plan: Plan, message: Handoff | Reply | OutcomeRecord) -> bool:
    match message:
        case Handoff(start_seq=0):
            return False  # the first, which the fork has its own of
        case Handoff() if message.branches:
            return False  # it closes a join
        case Handoff(outcome=Failed()):
            return not plan.fails_run(message.source)
        case Reply(branch=branch) if branch == DEADLINE:
            return False
        case Reply(outcome=Failed()):
            return plan.on_failed_branch(message.step, message.branch) != "fail"
        case OutcomeRecord(outcome=Failed()):
            successors = plan.successors[plan.name_of(message.step)]
            return not any(plan.ends_run(message.step, successor) for successor in successors)
        case _:
            return True
