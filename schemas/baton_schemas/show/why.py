"""Why a run did not end well, in a sentence. Pure."""

from __future__ import annotations

from datetime import datetime

from baton_schemas.run.state import RunState
from baton_schemas.wire.outcomes import Error, Failed

from .children import is_child
from .errors import told


def why(state: RunState) -> str:
    """Return why a run did not end well, as one sentence; its texts are as the log has them."""
    error = error_of(state)
    reason = state.result.reason if state.result else ""
    if error is not None:
        return f"step {error.step!r} failed: {told(error)}"
    return f"the run was {state.status}" + (f": {reason}" if reason else "")


def error_of(state: RunState) -> Error | None:
    """Return the error of the step that broke the run; None when none did."""
    result = state.result
    if result is None or result.status == "done":
        return None
    if isinstance(result.outcome, Failed):
        return result.outcome.error
    # That a child failed breaks no run: who asked for it does, or goes on.
    failed = [
        step
        for step in state.steps.values()
        if step.status == "failed" and step.ended_at is not None and not is_child(step.name)
    ]
    first = min(failed, key=lambda step: step.ended_at or datetime.max, default=None)
    return first.error if first else None
