"""Why a run did not end well, in a sentence, and the command that shows more. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from shlex import quote

from baton_actors.cli.text import plain
from baton_schemas.run.state import RunState
from baton_schemas.show.children import is_child
from baton_schemas.show.errors import told
from baton_schemas.show.rows import Row
from baton_schemas.wire.outcomes import Error, Failed


def why(state: RunState) -> str:
    """Return why a run did not end well, as one sentence."""
    error = error_of(state)
    reason = state.result.reason if state.result else ""
    if error is not None:
        return plain(f"step {error.step!r} failed: {told(error)}")
    return plain(f"the run was {state.status}" + (f": {reason}" if reason else ""))


def look_at(state: RunState, rows: Iterable[Row]) -> str:
    """Return the command that shows more: of the step that failed, if one did, else of the run."""
    failed = [
        row.error_of or row.error.step or row.step
        for row in rows
        if row.error and (row.failed or row.status == "failed")
    ]
    error = error_of(state)
    step = error.step if error is not None and error.step in state.steps else next(iter(failed), "")
    return plain(f"baton show {state.run} {quote(step) if step else ''}".rstrip())


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
