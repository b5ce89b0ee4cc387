"""The lines that `baton log` shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from msgspec import Raw

from baton_schemas.run.state import Entry
from baton_schemas.show.lines import one_line, seconds
from baton_schemas.wire.facts import Begun, GivenBack, ModelCall, Rejected, Retry, Spent, Waits
from baton_schemas.wire.messages import Joined, Message, Started, Task
from baton_schemas.wire.outcomes import Error, Skipped, Usage, Work

from .logs import closing, done, failed, first, handoff, join, log, logs, note, outcome, reply, result, woken

USAGE = Usage(input_tokens=112, output_tokens=204, cache_read_tokens=700)
WORK = {"elapsed_s": 1.2, "model": "claude-haiku-4-5", "usage": USAGE, "cost_usd": 0.0031}
ERROR = Error(step="write", type="Overloaded", message="try\nlater")

LINES: list[tuple[Message | bytes, str]] = [
    (Task(input={"topic": Raw(b'"tea"')}, run="r1"), "task     r1   input: topic"),
    (first("write"), "handoff  start → write"),
    (
        handoff("research", "write", done("x", **WORK)),
        "handoff  research → write   done in 1.2 s, attempt 1, claude-haiku-4-5, 812+204 tokens (700 cached), $0.0031",
    ),
    (handoff("split", "digest-3", of=60), "handoff  split → digest-3   branch 4 of 60"),
    (
        closing("merge", {"a": "*"}, error=ERROR),
        "handoff  join → merge   closes with 1 branch: Overloaded: try later",
    ),
    (
        reply("digest-3", "merge", done("x", rehearsed=True), of=60),
        "reply    digest-3 → merge   branch 4 of 60, done in 0 ms, attempt 1, rehearsed",
    ),
    (first("write", forked_from="r0"), "handoff  start → write   goes on from r0"),
    (
        reply("facts", "merge", done("x"), copied=True),
        "reply    facts → merge   done in 0 ms, attempt 1, copied",
    ),
    (outcome("split", done("x"), copied=True), "outcome  split   done in 0 ms, attempt 1, copied"),
    (reply("deadline", "merge", Skipped(reason="")), "reply    deadline → merge   the join's time is up"),
    (
        outcome("split", failed("split", "no \x1b[31manswer", attempt=3)),
        "outcome  split   failed, attempt 3: Overloaded: no \ufffd[31manswer",
    ),
    (
        join("merge", came={"digest": "0-58", "facts": "*"}, failed={"digest": "0,7"}, deadline=True),
        "join     merge   60 branches came, 2 failed, its time is up",
    ),
    (join("merge", came={"digest": "3"}, counts={"digest": 60}), "join     merge   1 branch came"),
    (join("merge", deadline=True), "join     merge   its time is up"),
    (closing("merge", {"digest": "0-4,7", "facts": "*"}), "handoff  join → merge   closes with 7 branches"),
    (
        handoff("start", "merge", cause=Started(joined=Joined(counts={"digest": 0}))),
        "handoff  start → merge   closes with 0 branches",
    ),
    (woken("write", 7), "handoff  wake-1 → write   woken, waited for its retry, its handoff is at sequence 7"),
    (
        note("write", Retry(attempt=1, error=ERROR, delay_s=2.3)),
        "note     write   attempt 1: retry in 2.3 s: Overloaded: try later",
    ),
    (
        note("write", Retry(attempt=1, error=ERROR, delay_s=2.3, work=Work(usage=USAGE, cost_usd=0.5))),
        "note     write   attempt 1: retry in 2.3 s: Overloaded: try later, attempt 1, 812+204 tokens (700 cached), "
        "$0.5000",
    ),
    (
        note("write", Begun(attempt=2, number=1)),
        "note     write   attempt 2: begins alone, as it may have killed its last worker",
    ),
    (
        note("write", GivenBack(attempt=2, begun=1, reason="worker stops")),
        "note     write   attempt 2: given back to the bus: worker stops",
    ),
    (
        note("write", Waits(what="handler", reason="a worker that has 'm:f'")),
        "note     write   waits for a worker that has 'm:f'",
    ),
    (
        note("write", Spent(id="1", reason="Overloaded: cut off", work=Work(usage=USAGE, cost_usd=0.5))),
        "note     write   spent on nothing: Overloaded: cut off, attempt 1, 812+204 tokens (700 cached), $0.5000",
    ),
    (
        note("rejected", Rejected(seq=9, subject="b.x", reason="no JSON")),
        "note     rejected   rejected; its bytes are at sequence 9: no JSON",
    ),
    (
        note("write", ModelCall(request_sha256="0" * 64, model="claude-haiku-4-5", usage=USAGE)),
        "note     write   attempt 1: claude-haiku-4-5, 812+204 tokens (700 cached)",
    ),
    (
        note("write", ModelCall(request_sha256="0" * 64, rehearsed=True, attempt=2)),
        "note     write   attempt 2: model, rehearsed",
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
