"""Loops: the steps that a step with `again` has done once more. Pure; `check_loops` says whether they can be."""

from __future__ import annotations

from collections.abc import Mapping

from baton_schemas.flow.flow import Flow

Earlier = Mapping[str, frozenset[str]]
"""By step: all that come before it, near and far."""


def loops_of(flow: Flow, earlier: Earlier) -> dict[str, frozenset[str]]:
    """Return the steps of each loop by the step that ends it: all between the one that begins it and that, and both."""
    found: dict[str, frozenset[str]] = {}
    for last, step in flow.steps.items():
        if step.again is not None:
            first = step.again.start
            between = {name for name in earlier[last] if first in earlier[name]}
            found[last] = frozenset({*between, first, last})
    return found
