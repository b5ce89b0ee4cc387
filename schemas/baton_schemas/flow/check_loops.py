"""Whether the loops of a flow can be done: bounded, entered and left by one step each, with no half of a fan-out."""

from __future__ import annotations

from collections.abc import Mapping

from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.check_conditions import check_conditions
from baton_schemas.flow.flow import Again, Flow
from baton_schemas.flow.limits import ROUNDS_MAX
from baton_schemas.flow.loops import Earlier, loops_of

Sources = Mapping[str, tuple[str, ...]]
"""By step: those that come right before it."""


def check_loops(flow: Flow, sources: Sources, earlier: Earlier) -> dict[str, frozenset[str]]:
    """Return the loops of a flow whose steps form a graph. Raises `FlowError` for the first that cannot be done."""
    for last, step in flow.steps.items():
        if step.again is not None:
            _check_again(flow, last, step.again, earlier)
    loops = loops_of(flow, earlier)
    inside: dict[str, str] = {}
    for last, steps in loops.items():
        for name in (name for name in flow.steps if name in steps):
            if name in inside:
                raise FlowError(
                    f"steps.{last}.again",
                    f"step {name!r} in this loop and in that of {inside[name]!r}",
                    "loops that share no step: one within another cannot be done",
                    hint="Put the inner one into a flow of its own, or make one loop of both.",
                )
            inside[name] = last
        _check_ways(flow, last, steps, sources)
    return loops


def _check_again(flow: Flow, last: str, again: Again, earlier: Earlier) -> None:
    place = f"steps.{last}.again"
    if flow.steps[last].each:
        raise FlowError(
            place,
            "`again` on a step with `each`",
            "it on a step that runs once",
            hint=f"Put it on the step that joins the branches of {last!r}.",
        )
    if again.start not in {*earlier[last], last}:
        raise FlowError(
            f"{place}.from",
            f"the step {again.start!r}" if again.start in flow.steps else f"the unknown step {again.start!r}",
            f"{last!r} itself, or a step that comes before it",
            hint=nearest(again.start, {*earlier[last], last}),
        )
    if not 2 <= again.max_rounds <= ROUNDS_MAX:
        expected = f"a whole number from 2 to {ROUNDS_MAX}: the first round counts"
        raise FlowError(f"{place}.max_rounds", str(again.max_rounds), expected)
    known = earlier[last] | flow.input.keys() | {last}
    what = f"a path into an input, into {last!r}, or into a step that comes before it"
    check_conditions(f"{place}.when", again.when, known, what)


def _check_ways(flow: Flow, last: str, steps: frozenset[str], sources: Sources) -> None:
    """Refuse a loop that can be entered or left by another way than its first and its last step."""
    again, place = flow.steps[last].again, f"steps.{last}.again"
    assert again is not None
    first, loop = again.start, f"the loop from {again.start!r} to {last!r}"
    for name in (name for name in flow.steps if name in steps):
        before = [source for source in sources[name] if source not in steps]
        if name != first and before:
            raise FlowError(
                place,
                f"step {name!r} within {loop}, and after {before[0]!r}, which is outside of it",
                f"a loop that is entered by {first!r} alone",
                hint=f"Begin it earlier, or have {first!r} come after {before[0]!r}, and {name!r} read that.",
            )
        halves = [source for source in before if flow.steps[source].each]
        if halves:
            raise FlowError(
                place,
                f"half a fan-out within {loop}: {first!r} joins the branches of {halves[0]!r}, which is outside of it",
                "a loop with the fan-out wholly in it, or outside of it",
                hint=f"Begin it at {halves[0]!r}, or put a step between {halves[0]!r} and {first!r}.",
            )
        for other in flow.steps:
            if name != last and name in sources[other] and other not in steps:
                half = "half a fan-out" if flow.steps[name].each else f"step {name!r}"
                raise FlowError(
                    place,
                    f"{half} within {loop}, and {other!r}, which is outside of it, comes after {name!r}",
                    f"a loop that is left by {last!r} alone",
                    hint=f"Have {other!r} come after {last!r}, and read {name!r} there.",
                )
