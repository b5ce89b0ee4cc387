"""Why a run did not end well, in a sentence, and the command that shows more. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from shlex import quote

from baton_actors.cli.text import plain
from baton_schemas.run.state import RunState
from baton_schemas.show.rows import Row
from baton_schemas.show.why import error_of
from baton_schemas.show.why import why as why_of


def why(state: RunState) -> str:
    """Return why a run did not end well, as one sentence."""
    return plain(why_of(state))


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
