"""A run as one row: it says what was paid, how far it is and what it waits for, whatever its log holds."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baton_actors.cli.show.runs_table import runs_table
from baton_schemas.flow.flow import Flow
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry
from baton_schemas.show.export import load
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import rows_of
from baton_schemas.show.summary import SummaryFold, searchable, standing_of, summarise
from baton_schemas.wire.facts import ModelCall, Retry, Waits
from baton_schemas.wire.messages import Question
from baton_schemas.wire.outcomes import Skipped, Usage, Work

from .golden.expected import Expected
from .logs import (
    answer,
    asked,
    closing,
    done,
    failed,
    first,
    handoff,
    log,
    logs,
    note,
    outcome,
    reply,
    result,
    second,
)
from .simulated import entries_of, simulated
from .strategies import flows
from .test_cli_views import text_of

GOLDEN = sorted((Path(__file__).parent / "golden").glob("v*/*.jsonl"))
USAGE = Usage(input_tokens=10, output_tokens=5)


def read(path: Path) -> list[Entry]:
    return [load(line, number) for number, line in enumerate(path.read_bytes().splitlines(), start=1)]


@given(flows(), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=60)
def test_cost_is_that_of_every_call_that_was_paid_whatever_became_of_the_run(
    flow: Flow, choose: Random, stops: bool
) -> None:
    run = simulated(flow, choose, stops=stops)
    summary = summarise(entries_of(run))

    assert summary.cost_usd == (sum(cost for _, cost, _ in run.paid) if run.paid else None)
    assert summary.wasted_usd == sum(cost for _, cost, in_vain in run.paid if in_vain)
    assert summary.usage.tokens == 12 * len(run.paid)
    assert summary.cost_usd == fold(entries_of(run)).cost_usd, "the page of the run says the same"
    assert 0 <= summary.steps_done <= summary.steps == len(summary.cells)
    assert (summary.error != "") == (summary.status not in ("running", "done"))
    assert not summary.waits, "it has ended"


@given(logs)
@settings(max_examples=60)
def test_cells_say_of_each_step_what_its_row_says(entries: list[Entry]) -> None:
    state = fold(entries)
    rows = rows_of(state, plan_of(state), children_max=0)
    cells = [(cell.step, cell.status, cell.count, cell.ended, cell.failed) for cell in summarise(entries).cells]
    assert cells == [(row.step, row.status, row.count, row.ended, row.failed) for row in rows]


@given(flows(steps_max=4), st.randoms(use_true_random=False))
@settings(max_examples=6)
def test_row_grows_message_by_message_and_what_comes_twice_changes_nothing(flow: Flow, choose: Random) -> None:
    entries = entries_of(simulated(flow, choose))
    grown = SummaryFold()
    for number, entry in enumerate(entries, start=1):
        grown.apply(entry)
        grown.apply(entry)
        assert grown.summary() == summarise(entries[:number])
    costs = [summarise(entries[:number]).cost_usd or 0.0 for number in range(len(entries))]
    assert costs == list(accumulate(costs, max)), "what is paid stays paid"


@given(logs)
@settings(max_examples=60)
def test_any_log_has_a_row(entries: list[Entry]) -> None:
    summary = summarise(entries)

    assert summary.messages == len(entries)
    assert "\n" not in summary.input + summary.error
    assert isinstance(searchable(fold(entries)), str)
    assert text_of(runs_table([summary], second(9), 160), 160)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_log_has_the_row_that_its_state_tells_of(path: Path) -> None:
    expected = msgspec.json.decode(path.with_suffix("").with_suffix(".expected.json").read_bytes(), type=Expected)
    summary = summarise(read(path))

    assert (summary.status, summary.forked_from) == (expected.status, expected.forked_from)
    assert summary.retries == sum(expected.retries.values())
    if path.stem in ("tools", "batch"):  # their outcomes, written by hand, tell of less than the notes on their calls
        assert (summary.cost_usd or 0) > (expected.cost_usd or 0)
    else:
        assert summary.cost_usd == pytest.approx(expected.cost_usd)


def test_run_that_goes_on_is_told_with_its_input_its_steps_and_its_attempts() -> None:
    error = failed("facts").error
    entries = log(
        first("split"),
        handoff("start", "facts"),
        outcome("split", done("x", attempt=1)),
        handoff("split", "digest-0", of=2),
        handoff("split", "digest-1", of=2),
        note("facts", Retry(attempt=1, error=error, delay_s=60.0)),
        reply("digest-1", "merge", done("two", attempt=1), of=2),
    )
    summary = summarise(entries)

    assert (summary.run, summary.flow, summary.status, summary.input) == ("r1", "report", "running", "tea")
    assert (summary.steps_done, summary.steps, summary.attempts, summary.retries) == (1, 4, 3, 1)
    assert [(cell.step, cell.status, cell.ended, cell.count) for cell in summary.cells] == [
        ("split", "done", 0, 0),
        ("facts", "queued", 0, 0),
        ("digest", "running", 1, 2),
        ("merge", "joining", 0, 0),
    ]
    assert (summary.started_at, summary.ended_at) == (second(1), None)
    assert (summary.waits, standing_of(summary)) == ("its retry", "waits for its retry")
    assert summarise(entries, second(90)).waits == "", "its retry is due"


def test_people_are_waited_for_before_anything_else() -> None:
    entries = log(
        first("split"),
        handoff("start", "facts"),
        note("facts", Waits(what="provider", reason="the model's provider, which asks for 20 s")),
    )
    waits = [*entries, *later(entries, asked("split", "editors", kind="person", question=Question(text="May it go?")))]
    paid = [*waits, *later(waits, asked("split", "paid", kind="event"))]

    assert summarise(entries).waits == "the model's provider, which asks for 20 s"
    assert summarise(waits).waits == "editors and 1 more"
    assert summarise(paid).waits == "editors and 2 more"
    assert summarise(paid).asked == 2
    ended = [*paid, *later(paid, result("cancelled"))]
    assert (summarise(ended).waits, standing_of(summarise(ended))) == ("", "cancelled")


def test_run_that_failed_says_why_in_a_line() -> None:
    error = failed("split", "no\nanswer", attempt=3)
    summary = summarise(log(first("split"), result("failed", step="split", outcome=error)))

    assert summary.error == "step 'split' failed: Overloaded: no answer (3 tries)"
    assert "no\nanswer" in searchable(fold(log(first("split"), result("failed", step="split", outcome=error))))


def test_calls_that_were_paid_in_the_run_before_are_not_paid_again() -> None:
    old = note("split", ModelCall(request_sha256="a", usage=USAGE, cost_usd=0.5, copied=True, request_id="r1"))
    new = note("split", ModelCall(request_sha256="b", usage=USAGE, cost_usd=0.25, request_id="r2"))
    both = done("x", usage=Usage(input_tokens=20, output_tokens=10), cost_usd=0.75, model="m")
    entries = log(first("split", forked_from="r0"), old, new, outcome("split", both))

    summary, state = summarise(entries), fold(entries)
    assert (summary.cost_usd, summary.usage, summary.forked_from) == (0.25, USAGE, "r0")
    assert (state.cost_usd, state.usage) == (0.25, USAGE), "`show` says the same"


def test_call_that_failed_after_answers_of_the_run_before_is_paid_here() -> None:
    old = note("split", ModelCall(request_sha256="a", usage=USAGE, cost_usd=0.5, copied=True, request_id="r1"))
    ended = failed("split", usage=USAGE, cost_usd=0.25, model="m")
    entries = log(first("split", forked_from="r0"), old, outcome("split", ended))

    assert summarise(entries).cost_usd == fold(entries).cost_usd == 0.25


def test_price_that_is_not_known_makes_the_cost_a_lower_bound() -> None:
    calls = [note("split", ModelCall(request_sha256=f"{n}", usage=USAGE, cost_usd=price)) for n, price in [(1, None)]]
    assert (summarise(log(first("split"), *calls)).cost_usd, summarise(log(first("split"), *calls)).unpriced) == (
        None,
        1,
    )


def test_skipped_steps_count_as_done_and_children_are_counted_apart() -> None:
    entries = log(
        first("split"),
        handoff("start", "facts"),
        asked("facts", "a"),
        answer("facts", "a", done("yes", attempt=2)),
        reply("facts", "merge", done("f", attempt=1, usage=USAGE, cost_usd=0.5, model="m")),
        outcome("split", done("x", attempt=1)),
        reply("digest", "merge", Skipped(reason="'split' is empty"), of=0),
        closing("merge", {"facts": "*"}),
    )
    summary = summarise(entries)
    assert (summary.steps_done, summary.steps, summary.asked, summary.attempts) == (3, 4, 1, 4)


def test_list_has_steps_and_input_only_where_there_is_room() -> None:
    going = summarise(log(first("split"), handoff("start", "facts")))
    broke = summarise(log(first("split"), result("failed", step="split", outcome=failed("split"))))
    narrow = text_of(runs_table([going, broke], second(9)))
    wide = text_of(runs_table([going, broke], second(9), 120), 120)

    assert "tea" not in narrow
    assert "0/4" in wide
    assert "tea" in wide
    assert "step 'split' failed: Overloaded: no answer" in wide


def later(entries: list[Entry], *messages: object) -> list[Entry]:
    """More entries after these."""
    more = log(*[b"{}"] * len(entries), *messages)  # type: ignore[arg-type]
    return more[len(entries) :]


def test_work_of_a_run_without_notes_is_told_by_its_outcomes() -> None:
    ended = done("text", usage=USAGE, cost_usd=0.5, model="m")
    entries = log(first("split"), outcome("split", ended), reply("split", "merge", ended))
    assert (summarise(entries).cost_usd, summarise(entries).wasted_usd) == (0.5, 0.0)
    vain = note("split", Retry(attempt=1, error=failed("split").error, work=Work(usage=USAGE, cost_usd=0.25)))
    assert summarise(log(first("split"), vain)).wasted_usd == 0.25
