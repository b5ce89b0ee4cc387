"""A run as the object that `--json` prints, for commands and pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Raw

from baton_actors.models.saved import saved_by_run
from baton_schemas.run.state import RunState
from baton_schemas.show.rows import Row
from baton_schemas.show.spans import Timeline, shares_of
from baton_schemas.show.step_facts import person_facts
from baton_schemas.show.why import error_of
from baton_schemas.wire.messages import Result
from baton_schemas.wire.outcomes import NULL, Blob, Done, Skipped


def output_in(result: Result | None) -> Raw | Blob | None:
    """Return the output of a run that is done, or where it is kept; None without one."""
    if result is not None and result.status == "done" and isinstance(result.outcome, Skipped):
        return NULL
    if result is None or not isinstance(result.outcome, Done):
        return None
    return result.outcome.blob or result.outcome.output


def run_facts(state: RunState, rows: list[Row], output: Raw | None = None) -> dict[str, Any]:
    """Return a run as the object that `--json` prints."""
    elapsed_s = None
    if state.started_at and state.ended_at:
        elapsed_s = round((state.ended_at - state.started_at).total_seconds(), 3)
    return {
        "run": state.run,
        "flow": state.flow,
        "forked_from": state.forked_from,
        "parent": state.parent,
        "status": state.status,
        "output": Raw(bytes(output).decode(errors="replace").encode()) if output is not None else None,
        "error": error_of(state),
        "reason": state.result.reason if state.result else "",
        "started_at": state.started_at,
        "elapsed_s": elapsed_s,
        "cost_usd": state.cost_usd,
        "wasted_usd": state.wasted_usd,
        "saved_usd": saved_by_run(state),
        "unpriced": state.unpriced,
        "rehearsed": state.rehearsed,
        "usage": state.usage,
        "steps": rows,
        "people": [person_facts(step) for step in state.steps.values() if step.asked in ("person", "event")],
        "rejected": state.rejected,
        "messages": state.messages,
        "foreign": state.foreign,
    }


def shown_facts(
    state: RunState,
    rows: list[Row],
    timeline: Timeline,
    now: datetime,
    *,
    output: Raw | None = None,
    unplayed: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what `baton show --json` prints: `unplayed` are actors that it waits for and nobody plays."""
    return {
        **run_facts(state, rows, output),
        "unplayed": list(unplayed),
        "time": {kind: round(took_s, 6) for kind, took_s in shares_of(timeline, now).items()},
        "lanes": list(timeline.lanes.values()),
    }
