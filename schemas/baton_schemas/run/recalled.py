"""What a step need not ask again that is done again in another run: answers and facts of the run that it goes on from.

A child is named by what is asked, so an answer fits wherever the same is asked of the same agent. Only answers that are
well are taken over: what failed is asked again. Recorded values come along, as what is asked may be made of them; and
so do the answers of models in a conversation, which then goes on where it was, and what its tools gave: none is called
again that may have run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.facts import ModelCall, Offered, Recorded, ToolBegun, ToolCall
from baton_schemas.wire.messages import Answer, Asked, Handoff, Note
from baton_schemas.wire.names import BATCH
from baton_schemas.wire.outcomes import Done

from .changes import answers_alike
from .fits import knows_step
from .past import Logged, Past
from .refs import asked_name, key_of_child, parse

_DEPTH_MAX = 1_000
"""More than any flow allows: a stranger's children may ask each other in a circle."""


class Recalled(NamedTuple):
    """A message of the other run, as one of the new run, with the actor in its subject."""

    actor: str
    message: Answer | Note


def recalled(
    past: Past, plan: Plan, log: Sequence[Logged], run: str, start_seq: int, until_seq: int, done: frozenset[str]
) -> list[Recalled]:
    """Return what `run` takes over for steps of this plan that are not `done` in it; `log` is that of the other run.

    With `until_seq` only what was recorded up to that sequence.
    """
    asker = {
        message.step: message.cause.step
        for _, _, message in log
        if isinstance(message, Handoff) and isinstance(message.cause, Asked)
    }
    found: list[Recalled] = []
    for seq, _, message in log:
        if until_seq and seq > until_seq:
            continue
        match message:
            case Answer(child=child) if asked_name(child) == BATCH:
                pass  # what it brought is a fact of its own
            case Answer(step=step, child=child, outcome=Done()) if _is_open(plan, asker, step, done):
                if answers_alike(past.plan, plan, parse(child).name):  # people, the clock and events always do
                    answer = replace(message, run=run, digest=plan.digest, start_seq=start_seq, wakes=None, copied=True)
                    found.append(Recalled(plan.actor(step), answer))
            case Note(step=step, fact=Recorded()) if _is_open(plan, asker, step, done):
                found.append(Recalled(plan.actor(step), replace(message, run=run)))
            case Note(step=step, fact=ModelCall() | Offered() | ToolBegun() | ToolCall()) if _is_open(
                plan, asker, step, done
            ):
                if plan.agent(step).workers or plan.agent(step).tools:
                    fact = message.fact
                    fact = replace(fact, copied=True) if isinstance(fact, ModelCall) else fact
                    found.append(Recalled(plan.actor(step), replace(message, run=run, fact=fact)))
            case _:
                pass
    return found


def _is_open(plan: Plan, asker: dict[str, str], step: str, done: Iterable[str]) -> bool:
    """Say whether a step, or the step of the flow that a child is asked for in the end, is to be done in this plan."""
    for _ in range(_DEPTH_MAX):
        if step in done or not knows_step(plan, step):
            return False
        if not key_of_child(step):
            return True
        step = asker.get(step, "")
    return False
