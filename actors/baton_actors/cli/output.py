"""What commands print on stdout: the output of a run, and facts as JSON."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_actors.cli.exits import ENDED, FAILED, OK
from baton_actors.cli.text import plain_lines, wrapped
from baton_actors.models.run_facts import output_in
from baton_bus.client.runs import RunHead
from baton_bus.store.bus import Bus
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry, RunState
from baton_schemas.wire.messages import Result
from baton_schemas.wire.outcomes import Blob


async def output_of(bus: Bus, result: Result | None) -> Raw | None:
    """Return the output of a run that is done, wherever it is kept. Raises `BlobMissing`."""
    found = output_in(result)
    return Raw(await bus.blobs.get(found)) if isinstance(found, Blob) else found


def print_output(output: Raw) -> None:
    """Print an output: a JSON string as its text, anything else as JSON that people can read.

    On a terminal long lines of a text are broken between words.

    What is no JSON, as a stranger may have published it, is printed as it is, in UTF-8.
    """
    data, value = bytes(output), None
    with contextlib.suppress(ValueError, RecursionError):  # msgspec's errors are ValueErrors
        value = msgspec.json.decode(output)
        data = value.encode() if isinstance(value, str) else msgspec.json.format(data, indent=2)
    text = data.decode(errors="replace")
    if sys.stdout.isatty():
        text = plain_lines(text)
        text = wrapped(text, shutil.get_terminal_size().columns) if isinstance(value, str) else text
    data = text.encode()
    sys.stdout.buffer.write(data if data.endswith(b"\n") else data + b"\n")
    sys.stdout.buffer.flush()


def print_json(facts: Any) -> None:
    """Print facts as one line of JSON."""
    sys.stdout.buffer.write(msgspec.json.encode(facts) + b"\n")
    sys.stdout.buffer.flush()


def state_of(head: RunHead, entries: Iterable[Entry]) -> RunState:
    """Return the state of a run, with the id that it was found by: what its messages say may be anything."""
    state = fold(entries)
    return replace(state, run=head.run, flow=state.flow or head.flow)


def exit_code_of(result: Result) -> int:
    """Return the exit code of a run that has ended so."""
    match result.status:
        case "done":
            return OK
        case "failed":
            return FAILED
        case _:
            return ENDED
