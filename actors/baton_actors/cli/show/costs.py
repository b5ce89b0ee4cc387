"""Prices as people see them, and that what is rehearsed was made by no model. Pure."""

from __future__ import annotations

from rich.text import Text

from baton_schemas.run.state import RunState
from baton_schemas.show.summary import Summary

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


def rehearsal_line() -> Text:
    """Say that what follows was made by no model."""
    return Text("rehearsed: no model was called, set ANTHROPIC_API_KEY to ask Claude", style="yellow")


def rehearsing_line() -> Text:
    """Say that what is to come is made by no model."""
    return Text("rehearses: no model is called, set ANTHROPIC_API_KEY to ask Claude", style="yellow")
