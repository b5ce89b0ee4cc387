"""What a run spent on what: on each step, its agent and model, by day. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.run.refs import name_of

from .children import asked_name, is_child
from .spending import PaidCall

USD = 1_000_000_000
"""Of the unit in which money is added up: sums of whole numbers are the same in any order."""
_DAY_S = 86_400


class SpentOn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The calls of one model for one step on one day, in one run or in all."""

    day: int
    """Of Unix time, in UTC."""
    step: str
    """Without branch and round; of a child what was asked for."""
    agent: str
    model: str
    rehearsed: bool = False
    """These were made up, and cost nothing."""
    calls: int = 0
    cost: int = 0
    """In billionths of a USD, of calls that have a price: those of failed attempts too."""
    waste: int = 0
    """The part of it that was in vain."""
    unpriced: int = 0
    """Calls with tokens and without a price: when not 0, the cost is a lower bound."""
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0


def spent_on(calls: Iterable[PaidCall], plan: Plan | None) -> tuple[SpentOn, ...]:
    """Return what calls of a run were spent on; `plan` is that of its flow, and knows the agents."""
    found: dict[tuple[int, str, str, bool], list[int]] = {}
    for call in calls:
        step = asked_name(call.step) if is_child(call.step) else name_of(call.step)
        key = (day_of(call.at), step, call.model, call.rehearsed)
        sums = found.setdefault(key, [0] * 8)
        cost, usage = round((call.cost_usd or 0.0) * USD), call.usage
        sums[0] += 1
        sums[1] += cost
        sums[2] += cost if call.in_vain else 0
        sums[3] += call.cost_usd is None and not call.rehearsed and bool(usage.tokens)
        sums[4] += usage.input_tokens
        sums[5] += usage.cache_read_tokens
        sums[6] += usage.cache_write_tokens
        sums[7] += usage.output_tokens
    return tuple(
        SpentOn(
            day=day,
            step=step,
            agent=_agent(plan, step),
            model=model,
            rehearsed=rehearsed,
            calls=sums[0],
            cost=sums[1],
            waste=sums[2],
            unpriced=sums[3],
            input_tokens=sums[4],
            cache_read_tokens=sums[5],
            cache_write_tokens=sums[6],
            output_tokens=sums[7],
        )
        for (day, step, model, rehearsed), sums in found.items()
    )


def day_of(at: datetime) -> int:
    """Return which day of Unix time a time is on, in UTC."""
    return int(at.timestamp() // _DAY_S)


def _agent(plan: Plan | None, step: str) -> str:
    own = plan.steps.get(step) if plan is not None else None
    return own.agent if own is not None and own.agent else step
