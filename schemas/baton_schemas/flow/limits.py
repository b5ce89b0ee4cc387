"""Bounds on the numbers of a flow file."""

from __future__ import annotations

import math

from baton_schemas.errors import FlowError

TIMEOUT_MAX_S = 7 * 24 * 3600.0
"""Seven days: the longest that a handler may hold a step; longer work is several steps."""

PARTS_MAX = 500
"""Steps, agents, and fields of the input, each: working out who follows whom takes time with their product, and every
worker that meets a run of a flow does it. Ten thousand of one kind are a fan-out."""

ROUNDS_MAX = 1_000
"""Of a loop, each of which has its own steps in the log: what people mean is rarely over 10."""

DEADLINE_MAX_S = 366 * 24 * 3600.0
"""A year: a deadline further away is more likely a mistake in the unit."""

NESTED_MAX = 8
"""Flows within one another. What people mean is rarely over 3, and each run within another waits for it."""
NESTED_BYTES_MAX = 256 * 1024
"""Of a flow with all that are within it, as JSON: it stands in the first message of each of its runs."""

TOOL_OUTPUT_BYTES_MAX = 100_000
"""Of what a tool gave: some 25,000 tokens, an eighth of what a model holds in mind."""

BATCH_COUNT_MAX = 100_000
"""Model calls in a batch, as the API has it."""
BATCH_SECONDS_MAX = 24 * 3600.0
"""A day: a batch may take as long again."""

CONCURRENCY_MAX = 1_000_000
"""Branches at once: more than any fan-out has."""


def check_parts(place: str, count: int) -> None:
    """Raise `FlowError` when a flow has more of these than anybody could look through."""
    if count > PARTS_MAX:
        raise FlowError(
            place, f"{count} of them", f"at most {PARTS_MAX}", hint="One step fans out over a list: `each`."
        )


def check_deadline(place: str, deadline_s: float) -> None:
    """Raise `FlowError` unless this is a deadline that a run or a join may have, in seconds."""
    if not (math.isfinite(deadline_s) and 0 < deadline_s <= DEADLINE_MAX_S):
        raise FlowError(place, f"{deadline_s:g}", f"seconds: more than 0, at most {DEADLINE_MAX_S:.0f} (a year)")


def check_timeout(place: str, timeout_s: float) -> None:
    """Raise `FlowError` unless this is a time that an attempt, or a wait for a provider, may take, in seconds."""
    if not (math.isfinite(timeout_s) and 0 < timeout_s <= TIMEOUT_MAX_S):
        raise FlowError(place, f"{timeout_s:g}", f"seconds: more than 0, at most {TIMEOUT_MAX_S:.0f} (seven days)")


def check_at_least(place: str, found: float, least: float) -> None:
    """Raise `FlowError` for a number that is less than `least`, or none at all."""
    if not (math.isfinite(found) and found >= least):
        raise FlowError(place, f"{found:g}", f"a number of at least {least:g}")
