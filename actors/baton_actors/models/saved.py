"""What caching saved of a step or of a run, in USD, by the prices that calls from here have."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable

from baton_actors.models.errors import ModelError
from baton_actors.models.prices import Prices, load_prices, saved_usd
from baton_schemas.run.state import RunState
from baton_schemas.show.paid import Paid, paid_for
from baton_schemas.show.step import StepSeen
from baton_schemas.wire.outcomes import Usage

_Took = tuple[str, Usage]
"""A model, and what it took."""


def saved_by_step(paid: Paid) -> float | None:
    """Return what caching saved of the calls of a step, in USD; negative when what was written was not read."""
    return _saved(paid.by_model.items())


def saved_by_run(state: RunState) -> float | None:
    """Return what caching saved of a run, as far as its steps tell of it, in USD."""
    works = [step.work for step in state.steps.values() if step.work and not step.reused and step.asked != "flow"]
    return _saved((work.model, work.usage) for work in works if work.usage and not work.rehearsed)


def saved_by_seen(seen: StepSeen) -> float | None:
    """Return the same of a step that is seen."""
    paid = paid_for(seen)
    return saved_by_step(paid) if paid is not None else None


def _saved(took: Iterable[_Took]) -> float | None:
    """Return the sum; None where nothing was cached that has a price."""
    cached = [(model, usage) for model, usage in took if usage.cache_read_tokens or usage.cache_write_tokens]
    found = [saved_usd(model, usage, _prices()) for model, usage in cached]
    known = [value for value in found if value is not None]
    return math.fsum(known) if known else None


@functools.cache
def _prices() -> Prices:
    """Return the prices that calls from here have: a file of them that is broken is told when a call is made."""
    try:
        return load_prices(os.environ.get("BATON_PRICES", "").strip())
    except ModelError:
        return load_prices()
