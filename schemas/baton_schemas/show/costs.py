"""Prices as people see them, the same in a terminal and on a page. Pure."""

from __future__ import annotations

from baton_schemas.run.state import RunState

from .summary import Summary

REHEARSED = "rehearsed"


def cost_of(state: RunState | Summary) -> str:
    """Return the price of a run; a lower bound where a price is not known; nothing where no model was called."""
    if not state.cost_usd and not state.unpriced:
        return REHEARSED if state.rehearsed else "" if state.cost_usd is None else dollars(0.0)
    cost = dollars(state.cost_usd or 0.0)
    return ("at least " if state.unpriced else "") + cost + (f", partly {REHEARSED}" if state.rehearsed else "")


def dollars(value_usd: float) -> str:
    """Return a price with as many digits as matter: `$0.0042`, `$1.30`."""
    return f"${value_usd:,.2f}" if value_usd >= 1 else f"${value_usd:.4f}"
