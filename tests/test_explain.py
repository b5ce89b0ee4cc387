"""The lines that `baton log` shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from msgspec import Raw

from baton_schemas.run.state import Entry
from baton_schemas.show.lines import one_line, seconds
from baton_schemas.wire.messages import Branch, Error, Message, Skipped, Task, Usage

from .logs import done, failed, first, handoff, join, log, logs, note, outcome, reply, result

USAGE = Usage(input_tokens=112, output_tokens=204, cache_read_tokens=700)
WORK = {"elapsed_s": 1.2, "model": "claude-haiku-4-5", "usage": USAGE, "cost_usd": 0.0031}
ERROR = Error(step="write", type="Overloaded", message="try\nlater")

LINES: list[tuple[Message | bytes, str]] = [
    (Task(input={"topic": Raw(b'"tea"')}, run="r1"), "task     r1   input: topic"),
    (first("write"), "handoff  start → write"),
    (
        handoff("research", "write", outcome=done("x", **WORK)),
        "handoff  research → write   done in 1.2 s, attempt 1, claude-haiku-4-5, 812+204 tokens (700 cached), $0.0031",
    ),
    (handoff("split", "digest-3", index=3, count=60), "handoff  split → digest-3   branch 4 of 60"),
    (
        handoff("join", "merge", branches=[Branch(name="a", seq=1)], error=ERROR),
        "handoff  join → merge   closes with 1 branch: Overloaded: try later",
    ),
    (
        reply("digest-3", "merge", index=3, count=60, outcome=done("x", rehearsed=True)),
        "reply    digest-3 → merge   branch 4 of 60, done in 0 ms, attempt 1, rehearsed",
    ),
    (first("write", forked_from="r0"), "handoff  start → write   goes on from r0"),
    (
        reply("facts", "merge", outcome=done("x"), copied=True),
        "reply    facts → merge   done in 0 ms, attempt 1, copied",
    ),
    (outcome("split", done("x"), copied=True), "outcome  split   done in 0 ms, attempt 1, copied"),
    (reply("deadline", "merge", outcome=Skipped(reason="")), "reply    deadline → merge   the join's time is up"),
    (
        outcome("split", failed("split", "no \x1b[31manswer", attempt=3)),
        "outcome  split   failed, attempt 3: Overloaded: no \ufffd[31manswer",
    ),
    (
        join("merge", expected={"digest": 60}, arrived={"digest-0": 1}, failed=["digest-0"], closed=True),
        "join     merge   closed with 1 of 60, 1 failed",
    ),
    (
        join("merge", expected={"digest": 60}, arrived={"digest-0": 1}),
        "join     merge   1 arrived, 60 expected so far",
    ),
    (
        note("write", "retry", error=ERROR, delay_s=2.3),
        "note     write   attempt 1: retry in 2.3 s: Overloaded: try later",
    ),
    (
        note("write", "given_back", attempt=2, message="worker stops"),
        "note     write   attempt 2: given back to the bus: worker stops",
    ),
    (
        note("write", "rejected", seq=9, message="no JSON"),
        "note     write   attempt 1: rejected; its bytes are at sequence 9: no JSON",
    ),
    (
        result("done", step="write", outcome=done("x")),
        "result   done   step write: done in 0 ms, attempt 1",
    ),
    (result("cancelled", reason="no longer needed"), "result   cancelled   no longer needed"),
    (b"\xff", "unknown  b.any.a.r1.s   1 byte that this release cannot read"),
]


@pytest.mark.parametrize(("message", "line"), LINES, ids=[line.split("   ")[0] for _, line in LINES])
def test_entry_reads_as_a_sentence(message: Message | bytes, line: str) -> None:
    (entry,) = log(message)

    assert one_line(entry) == line


@given(logs)
def test_every_entry_is_one_printable_line(entries: list[Entry]) -> None:
    assert all(one_line(entry).isprintable() for entry in entries)


@pytest.mark.parametrize(("value_s", "text"), [(0.0123, "12 ms"), (1.25, "1.2 s"), (185, "3 min 5 s")])
def test_durations_read_as_people_write_them(value_s: float, text: str) -> None:
    assert seconds(value_s) == text


def test_long_errors_are_cut() -> None:
    (entry,) = log(outcome("split", failed("split", "x" * 500)))

    assert one_line(entry).endswith("x…")
    assert len(one_line(entry)) < 220
