"""What the model calls of a step took: those whose answer was used, and those in vain."""

from __future__ import annotations

import math

from msgspec import Struct

from baton_schemas.wire.facts import Exchange, ModelCall
from baton_schemas.wire.outcomes import Usage, total

from .step import StepSeen


class Paid(Struct, frozen=True, kw_only=True):
    """Tokens and price of all calls of a step."""

    usage: Usage
    cost_usd: float | None
    """None when none of them has a known price."""
    rehearsed: bool
    """No model was called for any of them."""
    by_model: dict[str, Usage] = {}
    """The tokens by who answered; what was rehearsed is left out."""


def paid_for(seen: StepSeen) -> Paid | None:
    """Return what a step took; None when the log tells of no call. Each is counted once, whoever tells of it."""
    calls: list[ModelCall | Exchange] = [*seen.calls, *seen.exchanges]
    told = {call.request_id for call in calls if call.request_id}
    paid = [(call.usage, call.cost_usd, call.rehearsed, call.model) for call in calls]
    works = [spent.work for spent in seen.spent]
    paid += [(work.usage, work.cost_usd, work.rehearsed, work.model) for work in works if work.usage is not None]
    for attempt in seen.attempts:
        is_told = attempt.request_id in told or (attempt.came_to == "done" and bool(calls))
        if attempt.usage is not None and not is_told:
            paid.append((attempt.usage, attempt.cost_usd, attempt.rehearsed, attempt.model))
    if not paid:
        return None
    prices = [cost_usd for _, cost_usd, _, _ in paid if cost_usd is not None]
    by_model: dict[str, list[Usage]] = {}
    for usage, _, rehearsed, model in paid:
        if not rehearsed:
            by_model.setdefault(model, []).append(usage)
    return Paid(
        usage=total(usage for usage, _, _, _ in paid),
        cost_usd=math.fsum(prices) if prices else None,
        rehearsed=all(rehearsed for _, _, rehearsed, _ in paid),
        by_model={model: total(usages) for model, usages in by_model.items()},
    )
