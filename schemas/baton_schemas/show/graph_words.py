"""What is said of the steps and arrows of a flow where it is drawn: what is to hold, what is fanned out over. Pure."""

from __future__ import annotations

from baton_schemas.flow.conditions import written
from baton_schemas.flow.graph import Plan

TIMES = "\N{MULTIPLICATION SIGN}"


def each_of(plan: Plan, name: str) -> list[str]:
    """Return over what a step fans out, and how many at once; nothing for one that does not."""
    step = plan.flow.steps[name]
    at_once = f", {step.concurrency} at once" if step.concurrency is not None else ""
    return [f"{TIMES} each {step.each}{at_once}"] if step.each else []


def arrow_of(plan: Plan, name: str) -> list[str]:
    """Return what an arrow to a step says: over what it fans out, and what is to hold for it to be done."""
    return each_of(plan, name) + conditions_of(plan, name)


def conditions_of(plan: Plan, name: str) -> list[str]:
    """Return what is to hold for a step to be done, a line for each condition: `if classify.kind is 'refund'`."""
    return [f"{'and' if number else 'if'} {text}" for number, text in enumerate(written(plan.flow.steps[name].when))]


def again_of(plan: Plan, last: str, *, arrow: bool = True) -> list[str]:
    """Return what is to hold for another round of the loop that a step ends, and how many there are at the most.

    Without an `arrow` it says from where. Nothing for a step that ends none.
    """
    again = plan.flow.steps[last].again
    if again is None:
        return []
    where = [] if arrow else [f"again from {again.start}"]
    texts = [
        f"{'and' if number else 'again if' if arrow else 'if'} {text}"
        for number, text in enumerate(written(again.when))
    ]
    return [*where, *texts, f"at most {again.max_rounds} rounds"]
