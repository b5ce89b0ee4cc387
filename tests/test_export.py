"""Logs as JSON lines, and the logs of released versions."""

from __future__ import annotations

from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from baton_schemas.errors import BadMessage
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry, read_entry
from baton_schemas.show.export import dump, load

from .logs import first, log, logs, second

GOLDEN = Path(__file__).parent / "golden"


@given(logs)
def test_exported_log_comes_back_byte_for_byte(entries: list[Entry]) -> None:
    lines = b"".join(dump(entry) for entry in entries).splitlines(keepends=True)

    assert [load(line, number) for number, line in enumerate(lines, start=1)] == entries


def test_message_stands_in_its_line_as_json() -> None:
    (entry,) = log(first("write"))

    line = msgspec.json.decode(dump(entry))

    assert line == {
        "seq": 1,
        "at": "2026-11-24T09:00:01Z",
        "subject": "b.any.a.r1.s",
        "message": msgspec.json.decode(entry.data),
    }


def test_message_of_a_newer_release_stays_readable() -> None:
    (entry,) = log(b'{"kind":"handoff","v":9}')

    assert b'"message":{"kind":"handoff","v":9}' in dump(entry)
    assert load(dump(entry), 1).message is None


@pytest.mark.parametrize("data", [b"", b"\xff\x00", b'{"kind":"task",\n"input":{}}', b' {"kind":"task"}'])
def test_bytes_that_do_not_fit_in_a_line_are_kept_in_base64(data: bytes) -> None:
    (entry,) = log(data)

    line = dump(entry)

    assert b'"bytes":"' in line
    assert load(line, 1) == entry


def test_times_come_back_in_utc() -> None:
    there = second(1).astimezone(timezone(timedelta(hours=5)))

    entry = load(dump(read_entry(1, there, "s", b"x")), 1)

    assert entry.at == second(1)
    assert entry.at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 9999,
        b'{"seq":1,"at":"2026-11-24T09:00:01Z","subject":"s"}',
        b'{"seq":1,"at":"2026-11-24T09:00:01","subject":"s","message":{}}',
        b'{"seq":1,"at":"0001-01-01T00:00:00+05:00","subject":"s","message":{}}',
        b'{"seq":1,"at":"2026-11-24T09:00:01Z","subject":"s","bytes":"no base64"}',
    ],
)
def test_line_that_is_no_entry_is_named_by_its_number(line: bytes) -> None:
    with pytest.raises(BadMessage, match="line 7 is no entry of a log") as caught:
        load(line, 7)

    assert "Export the run again" in str(caught.value)


class Expected(msgspec.Struct, forbid_unknown_fields=True):
    """What a golden log must replay to."""

    status: str
    steps: dict[str, str]
    outputs: dict[str, Any]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("v*/*.jsonl")), ids=lambda path: path.stem)
def test_log_of_a_released_version_keeps_replaying(path: Path) -> None:
    expected = msgspec.json.decode(path.with_suffix(".expected.json").read_bytes(), type=Expected)
    lines = path.read_bytes().splitlines(keepends=True)

    entries = [load(line, number) for number, line in enumerate(lines, start=1)]
    state = fold(entries)

    assert [dump(entry) for entry in entries] == lines
    assert (state.status, state.unreadable) == (expected.status, 0)
    assert {name: step.status for name, step in state.steps.items()} == expected.steps
    outputs = {name: step.output for name, step in state.steps.items() if step.output is not None}
    assert {name: msgspec.json.decode(output) for name, output in outputs.items()} == expected.outputs


def test_there_are_golden_logs_of_every_version() -> None:
    assert {path.stem for path in GOLDEN.glob("v1/*.jsonl")} == {"failed", "fan-out", "pipeline"}
