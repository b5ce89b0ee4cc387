"""What going on from a run would do, step by step, and about what it would cost: by what its own steps cost. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.run.fork import copied_into, forked_start, origin_of, told_by
from baton_schemas.run.keeping import keeping, texts_needed
from baton_schemas.run.past import Logged, past_of
from baton_schemas.run.refs import whole
from baton_schemas.run.state import Entry, RunState
from baton_schemas.wire.messages import Handoff, Started
from baton_schemas.wire.outcomes import NULL

from .children import is_child
from .going import Going, going_on_from
from .rows import Row, rows_of
from .spending import Spending

Fate = Literal["reused", "again", "partly", "first"]
"""What becomes of a step: taken over; done again; some of its branches are; done for the first time."""


class StepOutlook(Struct, frozen=True, kw_only=True):
    """What becomes of a step."""

    step: str
    fate: Fate
    count: int = 1
    """How many branches it has, as far as the other run tells; 1 for a step that is none."""
    reused: int = 0
    """How many of them are taken over."""
    saved_usd: float = 0.0
    """What those cost, which is not paid again."""
    about_usd: float | None = 0.0
    """What the others may cost, as in the other run; None where nothing tells."""
    why: str = ""
    """Why it is done again though it had ended."""


class Outlook(Struct, frozen=True, kw_only=True):
    """What becomes of the steps of a run, in the order in which they are done."""

    going: Going
    steps: list[StepOutlook]
    saved_usd: float
    about_usd: float
    """Of steps whose price is known: see `unknown`."""
    unknown: list[str]
    """Steps that were never done there, so that nothing tells what they cost."""
    rehearsed: bool
    """The other run was rehearsed, so that nothing in it had a price."""


def outlook(
    before: Plan,
    entries: Sequence[Entry],
    log: Sequence[Logged],
    state: RunState,
    plan: Plan,
    *,
    until_seq: int = 0,
    failed: bool = False,
) -> Outlook | None:
    """Return what a run would do that goes on from this one, under `plan`; None without the message that began it.

    By the functions that its worker uses; where `plan` takes another input, that is taken as it was.
    """
    begun = next((each.message for each in log if isinstance(each.message, Handoff) and _begins(each.message)), None)
    if begun is None:
        return None
    first = forked_start(begun, "", until_seq, failed=failed)
    rows = rows_of(state, before, children_max=0)
    going = going_on_from(before, log, rows, plan, first)
    ended = _ended(log, plan, first)
    prices = _prices(entries, state)
    ours = [row for row in rows if plan.name_of(row.step) in plan.steps]
    found = [_of(row, ended, prices, going.again, pays=_pays(plan, row.step)) for row in ours]
    there = {row.step for row in rows}
    found += [
        StepOutlook(step=name, fate="first", about_usd=None if _pays(plan, name) else 0.0)
        for name in plan.order
        if name not in there
    ]
    return Outlook(
        going=going,
        steps=found,
        saved_usd=math.fsum(each.saved_usd for each in found),
        about_usd=math.fsum(each.about_usd or 0.0 for each in found),
        unknown=[each.step for each in found if each.about_usd is None],
        rehearsed=state.rehearsed,
    )


def _pays(plan: Plan, step: str) -> bool:
    """Say whether a step asks a model by itself, or a flow that may: so that it has a price that one does not know."""
    agent = plan.flow.agents[plan.steps[plan.name_of(step)].agent]
    return agent.asks_models or bool(agent.flow)


def _begins(message: Handoff) -> bool:
    return isinstance(message.cause, Started) and message.cause.begins is not None


def _ended(log: Sequence[Logged], plan: Plan, first: Handoff) -> Collection[str]:
    """Return the steps and branches that the new run finds done."""
    origin = origin_of(first)
    past = past_of(log, origin.until_seq) if origin is not None else None
    if origin is None or past is None:
        return ()
    texts = dict.fromkeys(texts_needed(past, plan, keeping(past, plan, first.state, failed=origin.failed)), NULL)
    return told_by(copied_into(plan, log, first, origin, 0, texts))


class _Price(Struct):
    """What a step or a branch cost."""

    paid: float = 0.0
    in_vain: float = 0.0
    done: bool = False

    @property
    def usual(self) -> float:
        return self.paid or self.in_vain


def _prices(entries: Iterable[Entry], state: RunState) -> Mapping[str, _Price]:
    """Return what each step and branch cost, with all that it asked for."""
    found: dict[str, _Price] = {}
    for name, step in state.steps.items():
        if is_child(name):
            continue
        price = found.setdefault(name, _Price())
        price.done = step.status in ("done", "failed", "skipped")
        if step.reused and step.work is not None:
            price.paid = step.work.cost_usd or 0.0
    spending = Spending()
    calls = [call for entry in entries for call in spending.take(entry)]
    for call in [*calls, *spending.rest()]:
        price = found.setdefault(_asker(call.step, state), _Price())
        if call.in_vain:
            price.in_vain += call.cost_usd or 0.0
        else:
            price.paid += call.cost_usd or 0.0
    return found


def _asker(step: str, state: RunState) -> str:
    """Return the step of the flow for which this one was asked: itself, unless it is a child."""
    seen: set[str] = set()
    while is_child(step) and step in state.steps and step not in seen:
        seen.add(step)
        step = state.steps[step].source
    return step


def _of(
    row: Row, ended: Collection[str], prices: Mapping[str, _Price], again: Mapping[str, str], *, pays: bool
) -> StepOutlook:
    own = {name: price for name, price in prices.items() if row.step in (name, whole(name))}
    # The branches of a fan-out; of a step that is none, itself.
    parts = {name: price for name, price in own.items() if name != row.step or not row.count}
    kept = [name for name in parts if name in ended]
    count = row.count or 1
    reused = count if row.step in ended else min(len(kept), count)
    saved = math.fsum(own[name].paid for name in (own if row.step in ended else kept))
    left = count - reused
    known = [price.usual for price in own.values() if price.done or price.usual]
    about = math.fsum(known) / len(known) * left if known else None if pays else 0.0
    if not left:
        return StepOutlook(
            step=row.step, fate="reused", count=count, reused=reused, saved_usd=saved, why=again.get(row.step, "")
        )
    fate: Fate = "partly" if reused else "again" if known else "first"
    return StepOutlook(
        step=row.step,
        fate=fate,
        count=count,
        reused=reused,
        saved_usd=saved,
        about_usd=about,
        why=again.get(row.step, ""),
    )
