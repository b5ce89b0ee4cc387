"""What a step read, by who put it out; who read what it put out; and the messages that are about it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from baton_schemas.flow.graph import Plan, each_of
from baton_schemas.run.fork import decided_by
from baton_schemas.run.refs import key_of_child
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Answer

from .step import StepSeen

_BRANCH = ("item",)


class Mention(Struct, frozen=True):
    """A message that is about a step."""

    number: int
    """Which of its run, from 1."""
    entry: Entry


def source_of_value(plan: Plan, seen: StepSeen, name: str) -> str:
    """Return the step that put out what a step read under a name; empty for what went into the run, or was asked."""
    if seen.kind is not None:
        return ""
    if name in _BRANCH and seen.index is not None:
        name = next(iter(each_of(plan, seen.of)), "") if seen.of in plan.steps else ""
    return name if name in plan.steps else ""


def readers_of(plan: Plan, step: str) -> list[str]:
    """Return the steps of the flow that read what a step, or a branch of it, puts out, in the order of the flow."""
    if key_of_child(step):
        return []
    name = plan.name_of(step)
    return [other for other in plan.order if name in plan.reads[other] | each_of(plan, other)]


def mentions_of(entries: Sequence[Entry], step: str) -> list[Mention]:
    """Return the messages that give a step to somebody, tell of it, or end it, in their order."""
    return [Mention(number, entry) for number, entry in enumerate(entries, start=1) if _is_about(entry, step)]


def _is_about(entry: Entry, step: str) -> bool:
    message = entry.message
    if message is None:
        return step in entry.subject.split(".")
    if getattr(message, "step", "") == step or decided_by(message) == step:
        return True
    return isinstance(message, Answer) and message.child == step
