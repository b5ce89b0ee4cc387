"""Prices in a terminal, and that what is rehearsed was made by no model. Pure."""

from __future__ import annotations

from rich.text import Text

from baton_schemas.show.costs import REHEARSED as REHEARSED
from baton_schemas.show.costs import cost_of as cost_of
from baton_schemas.show.costs import dollars as dollars


def rehearsal_line() -> Text:
    """Say that what follows was made by no model."""
    return Text("rehearsed: no model was called, set ANTHROPIC_API_KEY to ask Claude", style="yellow")


def rehearsing_line() -> Text:
    """Say that what is to come is made by no model."""
    return Text("rehearses: no model is called, set ANTHROPIC_API_KEY to ask Claude", style="yellow")
