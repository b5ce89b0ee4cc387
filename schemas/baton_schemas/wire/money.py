"""Money: what a run may spend, and how amounts are counted. Pure.

USD are counted in whole billionths, so that sums are exact whatever their order; tokens one by one.
"""

from __future__ import annotations

import math
from typing import Literal

from msgspec import Struct

from .outcomes import Usage

Unit = Literal["usd", "tokens"]
UNITS: tuple[Unit, ...] = ("usd", "tokens")
_PER_USD = 10**9
OVER_BUDGET = "over_budget"
"""The type of the error of a step whose call would have cost more than was left."""


UNPRICED = "unpriced_model"
"""That of one whose model has no price, where a budget is in USD."""


class Budget(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a run, and all runs of a flow in a day, may spend on models. A day is one of UTC."""

    usd: float | None = None
    """What one run may spend, in USD at list prices."""
    tokens: int | None = None
    """What one run may read and write, in tokens, those from the cache included."""
    usd_per_day: float | None = None
    """What all runs of the flow may spend in a day, in USD."""
    tokens_per_day: int | None = None
    """What all runs of the flow may read and write in a day, in tokens."""


class Amount(Struct, frozen=True, order=False):
    """How much: of money in billionths of a USD, and of tokens."""

    usd: int = 0
    tokens: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.usd + other.usd, self.tokens + other.tokens)

    def of(self, unit: Unit) -> int:
        """Return how much of a unit."""
        return self.usd if unit == "usd" else self.tokens


def amount_of(usage: Usage | None, cost_usd: float | None) -> Amount:
    """Return what a call took; one without a price counts in tokens only."""
    return Amount(counted("usd", cost_usd or 0.0), usage.tokens if usage is not None else 0)


def counted(unit: Unit, cap: float) -> int:
    """Return a number of USD or of tokens as it is counted."""
    return round(cap * _PER_USD) if unit == "usd" else int(cap)


def shown(unit: Unit, count: int) -> str:
    """Return an amount for people: `$1.50`, `1,200 tokens`."""
    if unit == "tokens":
        return f"{count:,} tokens"
    return shown_usd(count / _PER_USD)


def shown_budget(budget: Budget) -> str:
    """Return what a run may spend, for people."""
    caps = {unit: cap for unit in UNITS if (cap := cap_of(budget, unit)) is not None}
    return " and ".join(shown(unit, counted(unit, cap)) for unit, cap in caps.items())


def shown_usd(usd: float) -> str:
    """Return USD for people: cents, or as many places as a small amount needs to be told from nothing."""
    if usd == 0 or abs(usd) >= 0.1:
        return f"${usd:,.2f}"
    places = min(9, 2 - math.floor(math.log10(abs(usd))))
    return f"${usd:.{places}f}"


_HELD = 2**64
"""A counter of money is one number for two: what is spent, and so many times this what is held for calls under way.
So each call is one write at its beginning and one at its end, and whoever adds is told both."""


def packed(spent: int, held: int) -> int:
    """Return what is spent and what is held as one number, to be added to a counter."""
    return spent + held * _HELD


def unpacked(total: int) -> tuple[int, int]:
    """Return what is spent, and what is held, as a counter has them."""
    held, spent = divmod(total, _HELD)
    return spent, held


def cap_of(budget: Budget | None, unit: Unit, *, per_day: bool = False) -> float | None:
    """Return what a budget allows of a unit; None for no limit."""
    if budget is None:
        return None
    if unit == "usd":
        return budget.usd_per_day if per_day else budget.usd
    return budget.tokens_per_day if per_day else budget.tokens
