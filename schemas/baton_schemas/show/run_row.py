"""A run as a row of a list, and the words that it is found by; made of its state: a list says what `show` says. Pure."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from msgspec import Raw, Struct

from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.run.refs import asked_name
from baton_schemas.run.state import RunState, RunStatus
from baton_schemas.wire.outcomes import Done, Failed

from .errors import told
from .excerpt import text_of

INPUT_MAX = 2_000
"""Characters of the input that a run is found by; a list of a million runs holds them all."""
OUTPUT_MAX = 1_000
"""The same of its output, and of why it failed."""
_ERROR_MAX = 400
_FLOWS_KEPT = 256
"""Versions of flows whose actors are remembered: working them out takes longer than all the rest of a row."""


class RunRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run as a list shows it."""

    run: str
    flow: str
    start_seq: int
    """Stream sequence of the message that it begins with."""
    status: RunStatus
    started_at: datetime
    ended_at: datetime | None = None
    parent: str = ""
    """The run that asked for it."""
    forked_from: str = ""
    cost_usd: float | None = None
    wasted_usd: float = 0.0
    unpriced: int = 0
    rehearsed: bool = False
    tokens_in: int = 0
    tokens_out: int = 0
    waits: tuple[str, ...] = ()
    """The roles of the people that it waits for."""
    error: str = ""
    """Why it failed, or the reason that was given for its end."""
    actors: tuple[str, ...] = ()
    """Who appears in the subjects of its messages; empty when its flow cannot be read."""


def row_of(state: RunState, run: str, start_seq: int, started_at: datetime) -> RunRow:
    """Return a run as a row. Its id is that of its subjects, as what is in its messages may say anything."""
    return RunRow(
        run=run,
        flow=state.flow,
        start_seq=start_seq,
        status=state.status,
        started_at=started_at,
        ended_at=state.ended_at,
        parent=state.parent,
        forked_from=state.forked_from,
        cost_usd=state.cost_usd,
        wasted_usd=state.wasted_usd,
        unpriced=state.unpriced,
        rehearsed=state.rehearsed,
        tokens_in=state.usage.prompt_tokens,
        tokens_out=state.usage.output_tokens,
        waits=tuple(open_roles(state)),
        error=_error(state)[:_ERROR_MAX],
        actors=_actors(bytes(state.flow_body)) if state.flow_body is not None else (),
    )


def words_of(state: RunState) -> str:
    """Return what a run is found by: the beginnings of its input, of its output, and of why it failed."""
    said = [_cut(value, INPUT_MAX) for value in state.input.values()]
    said.append(_error(state)[:OUTPUT_MAX])
    outcome = state.result.outcome if state.result is not None else None
    if isinstance(outcome, Done) and outcome.blob is None:
        said.append(_cut(outcome.output, OUTPUT_MAX))
    return "\n".join(text for text in said if text)[: INPUT_MAX + 2 * OUTPUT_MAX]


def open_roles(state: RunState) -> list[str]:
    """Return the roles that a run waits for, each once."""
    if state.result is not None:
        return []
    waiting = (step for step in state.steps.values() if step.asked == "person" and step.status == "queued")
    return list(dict.fromkeys(asked_name(step.name) for step in waiting))


def _error(state: RunState) -> str:
    result = state.result
    if result is None or result.status == "done":
        return ""
    return told(result.outcome.error) if isinstance(result.outcome, Failed) else result.reason


def _cut(value: Raw, most: int) -> str:
    data = bytes(value)
    # What is longer than it can become is not taken apart: a character is up to twelve bytes of JSON.
    return text_of(data)[:most] if len(data) <= 12 * most else data[: 4 * most].decode(errors="replace")[:most]


@lru_cache(maxsize=_FLOWS_KEPT)
def _actors(flow_body: bytes) -> tuple[str, ...]:
    try:
        return tuple(Plan(decode_flow(Raw(flow_body))).actors())
    except (ValueError, KeyError, RecursionError):  # a flow of another release; msgspec's errors are ValueErrors
        return ()
