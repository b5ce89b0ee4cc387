"""Logs as JSON lines, and the logs of released versions."""

from __future__ import annotations

from datetime import timedelta, timezone
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given

from baton_schemas.errors import BadMessage
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry, read_entry
from baton_schemas.show.export import dump, load
from baton_schemas.wire.facts import ASKED_LATER, Fact
from baton_schemas.wire.messages import (
    VERSION,
    Answer,
    Asked,
    Batch,
    Cause,
    Handoff,
    Message,
    Note,
    Parked,
    Reply,
    Say,
    Task,
)
from baton_schemas.wire.outcomes import Outcome

from .golden.expected import Expected, expected_of
from .golden.runs import RUNS
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


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("v*/*.jsonl")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_log_of_a_released_version_keeps_replaying(path: Path) -> None:
    expected = msgspec.json.decode(path.with_suffix(".expected.json").read_bytes(), type=Expected)
    lines = path.read_bytes().splitlines(keepends=True)

    entries = [load(line, number) for number, line in enumerate(lines, start=1)]

    assert [dump(entry) for entry in entries] == lines
    assert fold(entries).unreadable == 0
    assert expected_of(entries) == expected


def test_there_are_golden_logs_of_every_version_with_every_kind_of_message() -> None:
    for version in range(1, VERSION + 1):
        lines = b"".join(path.read_bytes() for path in GOLDEN.glob(f"v{version}/*.jsonl")).splitlines()
        messages = [load(line, number).message for number, line in enumerate(lines, start=1)]
        kinds = {type(message) for message in messages}
        facts = {type(message.fact) for message in messages if isinstance(message, Note)}
        causes = {type(message.cause) for message in messages if isinstance(message, Handoff)}
        outcomes = {type(message.outcome) for message in messages if isinstance(message, Reply)}
        later = set() if version == VERSION else {Answer, Parked, Say, Batch}
        assert kinds == set(get_args(Message)) - {Task} - later
        assert facts == set(get_args(Fact)) - (set(get_args(ASKED_LATER)) if later else set())
        assert causes == set(get_args(Cause)) - ({Asked} if later else set())
        assert outcomes == set(get_args(Outcome))


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_the_golden_logs_can_be_made_anew(name: str) -> None:
    state = fold(RUNS[name]().entries)

    assert (state.unreadable, state.foreign) == (0, 0)
    assert state.status in {"done", name, "failed", "running"}
