"""Why a step is left out: its `when` does not hold, or all that comes right before it was left out. Pure.

Whoever holds the handoff of a step asks, before its handler is called; of a fan-out, whoever hands it on. What they
look at is in the log, so that all come to the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import After, Handoff
from baton_schemas.wire.outcomes import Outcome, Skipped

from .refs import joined, name_of


def left_out_before(plan: Plan, handoff: Handoff) -> str:
    """Return that all that comes right before a step was left out, in words; empty when something was not."""
    closing = joined(handoff)
    if closing is not None:
        sources = plan.sources[plan.name_of(handoff.step)]
        return were_left_out(sources) if closing.left_out.keys() >= frozenset(sources) else ""
    match handoff.cause:
        case After(step=step, outcome=outcome) if is_left_out(outcome):
            return were_left_out([name_of(step)])
        case _:
            return ""


def is_left_out(outcome: Outcome | None) -> bool:
    """Say whether this is the outcome of a step that was left out."""
    return isinstance(outcome, Skipped) and outcome.left_out


def were_left_out(steps: Iterable[str]) -> str:
    """Return the reason of a step that comes after these alone: `refund and complaint were skipped`."""
    *most, last = steps
    return f"{', '.join(most)} and {last} were skipped" if most else f"{last} was skipped"
