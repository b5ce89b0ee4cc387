"""How often a process that is all ours looks for garbage: seldom, as what it makes is freed without."""

from __future__ import annotations

import gc

_ALLOCATIONS = 50_000
"""From one look at new objects to the next, in place of Python's 700. What a step makes is freed by its references as
the step ends; but with a thousand steps in hand each look walks all of theirs, and with 700 that was 40 % of the CPU
time of a fan-out of a thousand. Cycles, as those of tracebacks, wait a little longer: some megabytes at most."""
_OLDER = 20
"""Looks at the new before one at those that have survived one, and of these before one at all."""


def look_seldom() -> None:
    """Set it for this process, and leave out for good what it has made so far: modules, and what is in them.

    Not even once is that looked at: in a worker it is memory that the fork server shares until somebody writes to it,
    as the collector does (49 MB for an idle LLM agent in place of 20).
    """
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, _OLDER, _OLDER)
