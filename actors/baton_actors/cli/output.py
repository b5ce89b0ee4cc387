"""What commands print on stdout: the output of a run, and facts as JSON."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from msgspec import Raw

from baton_actors.cli.exits import ENDED, FAILED, OK
from baton_actors.cli.rows import Row
from baton_actors.cli.view import error_of, plain
from baton_bus import Bus
from baton_schemas.run.state import RunState
from baton_schemas.wire.messages import Done, Result


async def output_of(bus: Bus, result: Result | None) -> Raw | None:
    """Return the output of a run that is done, from the object store if it is large. Raises `BlobMissing`."""
    if result is None or not isinstance(result.outcome, Done):
        return None
    outcome = result.outcome
    return Raw(await bus.blobs.get(outcome.blob)) if outcome.blob is not None else outcome.output


def print_output(output: Raw) -> None:
    """Print an output: a JSON string as its text, anything else as JSON that people can read."""
    value = msgspec.json.decode(output)
    data = value.encode() if isinstance(value, str) else msgspec.json.format(bytes(output), indent=2)
    if sys.stdout.isatty():
        data = "\n".join(plain(line) for line in data.decode().expandtabs().split("\n")).encode()
    sys.stdout.buffer.write(data if data.endswith(b"\n") else data + b"\n")
    sys.stdout.buffer.flush()


def print_json(facts: Any) -> None:
    """Print facts as one line of JSON."""
    sys.stdout.buffer.write(msgspec.json.encode(facts) + b"\n")
    sys.stdout.buffer.flush()


def run_facts(state: RunState, rows: list[Row], output: Raw | None = None) -> dict[str, Any]:
    """Return a run as the object that `--json` prints."""
    elapsed_s = None
    if state.started_at and state.ended_at:
        elapsed_s = round((state.ended_at - state.started_at).total_seconds(), 3)
    return {
        "run": state.run,
        "flow": state.flow,
        "forked_from": state.forked_from,
        "status": state.status,
        "output": output,
        "error": error_of(state),
        "reason": state.result.reason if state.result else "",
        "started_at": state.started_at,
        "elapsed_s": elapsed_s,
        "cost_usd": state.cost_usd,
        "unpriced": state.unpriced,
        "rehearsed": state.rehearsed,
        "usage": state.usage,
        "steps": rows,
        "messages": state.messages,
    }


def exit_code_of(result: Result) -> int:
    """Return the exit code of a run that has ended so."""
    match result.status:
        case "done":
            return OK
        case "failed":
            return FAILED
        case _:
            return ENDED
