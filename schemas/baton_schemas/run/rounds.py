"""Rounds of loops: the tokens of steps in each, whether there is another, and what that begins with. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec.structs import replace

from baton_schemas.flow.conditions import written
from baton_schemas.flow.graph import LAST, Plan
from baton_schemas.wire.messages import Message, OutcomeRecord, Result
from baton_schemas.wire.outcomes import Done, State

from .refs import parse, token_of

Follows = Literal["on", "again", "fail"]
"""What comes after a step: those after it in the flow, another round of its loop, or the failure of the run."""


def round_of(token: str) -> int:
    """Return which round of its loop a step is in, from 1."""
    return parse(token).round or 1


def in_round(step: str, number: int) -> str:
    """Return the token of a step in a round, from 1: in the first it is its name."""
    return token_of(step, round=number if number > 1 else 0)


def after(plan: Plan, token: str, successor: str) -> str:
    """Return the token of a step that comes right after another: in the same round, or in none behind the loop."""
    if not plan.loops:
        return successor
    ref = parse(token)
    return in_round(successor, 1 if plan.step(ref.name).again is not None else ref.round)


def may_follow(plan: Plan, token: str) -> frozenset[str]:
    """Return the tokens of all that may be handed on by a step of the flow, without the indices of branches."""
    name = plan.name_of(token)
    if not plan.loops:
        return plan.followers.get(name, frozenset())
    found = {after(plan, token, successor) for successor in plan.successors.get(name, ())}
    if name in plan.loops and round_of(token) < plan.rounds_max(name):
        found.add(next_first(plan, token))
    return frozenset(found)


def follows(plan: Plan, record: OutcomeRecord, holds: bool) -> Follows:
    """Return what comes after the step of a record; `holds` says whether the condition of its `again` does.

    There is another round only after a step that is done: one that failed or was left out has decided nothing.
    """
    step = plan.step(record.step)
    if step.again is None or not holds or not isinstance(record.outcome, Done):
        return "on"
    if round_of(record.step) < step.again.max_rounds:
        return "again"
    return "fail" if step.again.on_last == "fail" else "on"


def next_first(plan: Plan, token: str) -> str:
    """Return the token of the step that begins the next round of the loop that the step of this token ends."""
    return in_round(plan.first_of_loop(plan.name_of(token)), round_of(token) + 1)


def next_state(plan: Plan, last: str, state: State) -> State:
    """Return what the next round of the loop that `last` ends begins with; `state` has what this round put out.

    That is found under keys of its own from now on (see `Plan.key`): under its name a step has what it puts out in the
    round that goes on, or nothing.
    """
    first, loop = plan.first_of_loop(last), plan.loops[last]
    wanted = {key.removesuffix(LAST) for key in plan.carried[first] | plan.entered_by(first) if key.endswith(LAST)}

    def moved(names: Iterable[str]) -> dict[str, str]:
        kept = (name for name in names if name in wanted or (name not in loop and not name.endswith(LAST)))
        return {name: name + LAST if name in loop else name for name in kept}

    return replace(
        state,
        outputs={key: state.outputs[name] for name, key in moved(state.outputs).items()},
        blobs={key: state.blobs[name] for name, key in moved(state.blobs).items()},
    )


def outlasted(plan: Plan, last: str) -> str:
    """Return why a run fails whose loop has had its last round, and is to fail then; `last` ends the loop."""
    again = plan.step(last).again
    assert again is not None
    said = " and ".join(written(again.when))
    return f"after {again.max_rounds} rounds from {again.start!r} to {plan.name_of(last)!r} still {said}"


def ended_by_loop(plan: Plan, message: Message) -> str:
    """Return the step at whose end a run failed though that went well, as its loop had its last round; else nothing."""
    match message:
        case Result(status="failed", outcome=None, step=step) if plan.name_of(step) in plan.loops:
            return step
        case _:
            return ""
