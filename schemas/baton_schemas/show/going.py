"""What a run that goes on from another takes over of it, and what is done again: the facts that people are told."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.run.changes import Change, changed_agents, why_changed
from baton_schemas.run.fork import copied_into, origin_of, told_by
from baton_schemas.run.keeping import keeping, texts_needed
from baton_schemas.run.past import Logged, Past, past_of
from baton_schemas.run.refs import whole
from baton_schemas.wire.messages import Handoff
from baton_schemas.wire.outcomes import NULL

from .rows import Row


class Going(Struct, frozen=True):
    """What the new run takes over, and what not."""

    reused: list[str]
    again: dict[str, str]
    """Steps that had ended and are done again, with the reason."""
    changed: dict[str, list[Change]]
    """Agents that are others than in the run that it goes on from."""
    others: list[str]
    """Steps that are others for a reason of their own, in words."""


def going_on_from(before: Plan, log: Sequence[Logged], rows: Sequence[Row], plan: Plan, first: Handoff) -> Going:
    """Return what the run that `first` begins, under `plan`, takes over of one with this log and these rows.

    By the functions that its worker uses.
    """
    origin = origin_of(first)
    past = past_of(log, origin.until_seq) if origin is not None else None
    assert origin is not None
    assert past is not None
    kept = keeping(past, plan, first.state, failed=origin.failed)
    texts = dict.fromkeys(texts_needed(past, plan, kept), NULL)
    ended = told_by(copied_into(plan, log, first, origin, 0, texts))
    is_other = plan.digest != before.digest
    again = {step: why for step, why in kept.again.items() if past.tokens(step)}
    changed = changed_agents(before, plan) if is_other else {}
    return Going(
        reused=steps_in_words(rows, before, ended),
        again=again if is_other or origin.failed else {},
        changed=changed,
        others=_others(past, plan, first, changed) if is_other else [],
    )


def _others(past: Past, plan: Plan, first: Handoff, changed: Mapping[str, object]) -> list[str]:
    """Return the steps that are others not because of their agents, and those that are no more, in words."""
    whys = {step: why_changed(past, plan, first.state, step) for step in plan.flow.steps}
    for step, of in plan.implied.items():
        if step in past.plan.steps and not whys[of]:
            whys[of] = why_changed(past, plan, first.state, step)
    words = [f"{step} ({why})" for step, why in whys.items() if why and plan.flow.steps[step].agent not in changed]
    return [*words, *(f"{step} (gone)" for step in past.plan.flow.steps if step not in plan.flow.steps)]


def steps_in_words(rows: Sequence[Row], plan: Plan, ended: Collection[str]) -> list[str]:
    """Return the steps that are among these, in the order of the flow; of a fan-out, how many branches if not all."""
    words = []
    for row in rows:
        branches = sum(1 for name in ended if name != row.step and whole(name) == row.step)
        if row.step in ended or branches == row.count > 0:
            words.append(row.step)
        elif branches:
            words.append(f"{row.step} {branches}/{row.count}")
    return words
