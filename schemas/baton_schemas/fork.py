"""A run that goes on from another: its first handoff, and the records of the other that are copied into it.

The copies are made by the worker that holds the first handoff, create-only, so that a crash half-way changes
nothing. A record comes before the handoff of its step, and a copied handoff says that it is one: its step is
looked up before its handler is called, and found done.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from .messages import Decisive, Failed, Handoff, Message, Outcome, OutcomeRecord, Reply
from .names import DEADLINE, JOIN, START
from .plan import Plan
from .routing import Routed


class Logged(NamedTuple):
    """A message of the log, with its stream sequence and the actor in its subject."""

    seq: int
    actor: str
    message: Message


def forked_start(first: Handoff, run: str, until_seq: int = 0) -> Handoff:
    """Return the first handoff of `run`, which goes on from the run that `first` began."""
    return replace(first, run=run, forked_from=first.run, until_seq=until_seq, start_seq=0)


def copies(plan: Plan, log: Iterable[Logged], run: str, start_seq: int, until_seq: int = 0) -> list[Routed]:
    """Return what is copied into `run`, in the order in which to write it: the latest record first.

    Steps whose failure ended the run are left out, and so are done again; joins close by themselves once
    their replies are there. With `until_seq` only records up to that sequence are copied.
    """
    copied: list[Routed] = []
    for seq, actor, message in sorted(log, key=lambda logged: -logged.seq):
        if (until_seq and seq > until_seq) or not isinstance(message, Handoff | Reply | OutcomeRecord):
            continue
        if not _is_copied(plan, message):
            continue
        if isinstance(message, OutcomeRecord):
            copied.append(Routed(actor, replace(message, run=run, start_seq=start_seq)))
        else:
            copied.append(Routed(actor, replace(message, run=run, start_seq=start_seq, copied=True)))
    return copied


def _is_copied(plan: Plan, message: Decisive) -> bool:
    match message:
        case Handoff(source=source) if source == JOIN or (source == START and not message.start_seq):
            return False
        case Handoff():
            return not _fatal(message.outcome, plan.fails_run(message.source))
        case Reply(branch=branch) if branch == DEADLINE:
            return False
        case Reply():
            return not _fatal(message.outcome, plan.on_failed_branch(message.step, message.branch) == "fail")
        case OutcomeRecord():
            step = plan.name_of(message.step)
            ends = any(plan.ends_run(message.step, successor) for successor in plan.successors[step])
            return not _fatal(message.outcome, ends)
        case _:
            return False


def _fatal(outcome: Outcome | None, ends_run: bool) -> bool:
    return ends_run and isinstance(outcome, Failed)
