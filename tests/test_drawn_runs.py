"""What is drawn of runs, worked out: branches by sign, a timeline as strokes, boxes and lines of a graph."""

from __future__ import annotations

import re
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Flow
from baton_schemas.run.fold import RunFold, fold
from baton_schemas.run.state import Entry
from baton_schemas.show.boxes import HIGH, WIDE, drawing_of
from baton_schemas.show.branching import (
    SIGNS,
    Branches,
    Looked,
    branches_in,
    causes_of,
    histogram_of,
    looked_for,
    seconds_of,
)
from baton_schemas.show.layout import layout_of
from baton_schemas.show.plan import plan_of
from baton_schemas.show.row_words import facts_in_words, status_in_words
from baton_schemas.show.rows import rows_of
from baton_schemas.show.strokes import gaps_of, strokes_of
from baton_schemas.show.timeline import timeline_of
from baton_schemas.wire.facts import Retry
from baton_schemas.wire.outcomes import Error

from .logs import done, failed, first, handoff, log, logs, note, reply, result, second
from .simulated import entries_of, simulated
from .strategies import flows

LANE = re.compile(r"[a-z]\d+(?:[a-z]\d+)*[a-z]?\Z")


def fanned() -> list[Entry]:
    """A fan-out of five: one is done, one failed, one waits for a retry, one is queued, one's turn has not come."""
    again = Retry(attempt=1, error=Error(step="digest-2", type="Overloaded", message="busy 17"), delay_s=9)
    return log(
        first("split"),
        *(handoff("split", f"digest-{index}", done("x") if not index else None, of=5) for index in range(4)),
        reply("digest-0", "merge", done("the tea of acme"), of=5),
        reply("digest-1", "merge", failed("digest-1", "no title in piece 1"), of=5),
        note("digest-2", again),
    )


def branches(entries: list[Entry], running: dict[str, int] | None = None) -> Branches:
    return branches_in(fold(entries), running)["digest"]


def test_each_branch_has_a_sign_of_how_it_stands() -> None:
    assert branches(fanned()).signs == "dfyq."
    assert branches(fanned(), {"digest-2": 2, "digest-3": 1}).signs == "dfrr."
    ended = [*fanned(), *log(*[first("split")] * 8, result("cancelled"))[-1:]]
    assert branches(ended).signs == "dfsss"
    assert branches(fanned()).counts == {"waiting": 1, "queued": 1, "retry": 1, "done": 1, "failed": 1}


def test_lengths_and_errors_of_branches_are_said_shortly() -> None:
    found = branches(fanned())
    assert found.took == "334,334,,,"  # to the base of 36: 4,000 ms
    assert found.errors == [("Overloaded: no title in piece 1", "1"), ("Overloaded: busy 17", "2")]
    assert (found.pattern, found.token(3)) == ("digest-#", "digest-3")


def test_branches_are_found_by_status_cause_text_and_index_with_the_odd_ones_first() -> None:
    found = branches(fanned())
    assert looked_for(found, Looked()) == [1, 2, 0, 3, 4]
    assert looked_for(found, Looked(order="index")) == [0, 1, 2, 3, 4]
    assert looked_for(found, Looked(statuses=("failed", "retry"))) == [1, 2]
    assert looked_for(found, Looked(text="ACME")) == [0]
    assert looked_for(found, Looked(text="piece")) == [1]
    assert looked_for(found, Looked(text="3")) == [3]
    (cause,) = causes_of(found)
    assert looked_for(found, Looked(cause=cause.key)) == [1]
    with pytest.raises(ValueError, match="the order 'size' is none of outliers, index"):
        looked_for(found, Looked(order="size"))  # type: ignore[arg-type] # that is what is tested


def test_failures_of_branches_that_differ_in_numbers_have_one_cause() -> None:
    entries = log(
        first("split"),
        *(handoff("split", f"digest-{index}", of=3) for index in range(3)),
        *(reply(f"digest-{i}", "merge", failed(f"digest-{i}", f"no title in piece {i}"), of=3) for i in range(3)),
    )
    (cause,) = causes_of(branches(entries))
    assert (cause.count, cause.error) == (3, "Overloaded: no title in piece 0")


def test_histogram_has_each_branch_that_ended_once() -> None:
    bins = histogram_of(branches(fanned()))
    assert (sum(each.count for each in bins), sum(each.failed for each in bins)) == (2, 1)
    assert histogram_of(Branches(step="digest", branches=(), statuses=())) == []


@given(logs)
@settings(max_examples=100)
def test_branches_of_any_log_have_as_many_signs_as_places(entries: list[Entry]) -> None:
    state = fold(entries)
    for name, found in branches_in(state).items():
        assert len(found.signs) == len(found.branches) == len(found.took.split(","))
        assert set(found.signs) <= set(SIGNS.values())
        assert sum(found.counts.values()) == len(found.signs)
        assert sorted(looked_for(found, Looked())) == list(range(len(found.signs)))
        assert sum(each.count for each in histogram_of(found)) == sum(
            seconds_of(step) is not None for step in found.branches
        )
        assert all(step is None or step.name == found.token(index) for index, step in enumerate(found.branches)), name


def test_strokes_of_a_lane_say_when_it_began_and_what_followed() -> None:
    entries = log(
        first("split"), handoff("start", "facts"), reply("facts", "merge", done("x", elapsed_s=0.5, worker="w"))
    )
    (facts,) = [each for each in strokes_of(timeline_of(entries)) if each.step == "facts"]
    assert (facts.count, facts.lanes) == (1, "d1000q500w500")


@given(flows(), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=40)
def test_strokes_are_all_lanes_that_took_time(flow: Flow, choose: Random, stops: bool) -> None:
    entries = entries_of(simulated(flow, choose, stops=stops))
    timeline = timeline_of(entries)
    found = strokes_of(timeline)
    assert sum(each.count for each in found) == sum(bool(lane.spans) for lane in timeline.lanes.values())
    for each in found:
        assert len(each.lanes.split(";")) == each.count
        assert all(LANE.match(lane) for lane in each.lanes.split(";"))


def test_time_in_which_nothing_works_is_a_gap_when_it_is_more_than_a_fifth() -> None:
    entries = log(
        first("split"),
        handoff("start", "facts"),
        reply("facts", "merge", done("x", elapsed_s=0.5, worker="w")),
        reply("split", "merge", done("x", elapsed_s=0.5, worker="w")),
    )
    late = [*entries[:-1], replace(entries[-1], at=second(40))]
    assert gaps_of(timeline_of(late), second(40)) == [(2000, 38500)]
    assert gaps_of(timeline_of(entries[:1]), second(1)) == []


@given(flows(loops=True), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=40)
def test_boxes_of_any_flow_stand_apart_and_all_arrows_lead_from_box_to_box(
    flow: Flow, choose: Random, stops: bool
) -> None:
    entries = entries_of(simulated(flow, choose, stops=stops))
    state = fold(entries)
    plan = plan_of(state) or check_flow(flow)
    drawing = drawing_of(layout_of(plan), rows_of(state, plan), state)
    assert {box.name for box in drawing.boxes if box.node} == set(flow.steps)
    for one, other in combinations(drawing.boxes, 2):
        assert abs(one.x - other.x) >= WIDE or abs(one.y - other.y) >= HIGH
    names = {box.name for box in drawing.boxes}
    assert all(line.source in names and line.target in names for line in drawing.lines)
    assert all(0 <= box.x <= drawing.wide - WIDE and 0 <= box.y <= drawing.high - HIGH for box in drawing.boxes)


def test_arrow_out_of_the_step_that_broke_the_run_is_marked() -> None:
    ended = failed("split", "no")
    state = fold(log(first("split"), handoff("start", "facts"), result("failed", step="split", outcome=ended)))
    plan = plan_of(state)
    assert plan is not None
    drawing = drawing_of(layout_of(plan), rows_of(state, plan), state)
    assert {(line.source, line.state) for line in drawing.lines} == {
        ("split", "broke"),
        ("facts", "open"),
        ("digest", "open"),
    }


@given(logs)
@settings(max_examples=60)
def test_any_row_is_said_in_a_few_words(entries: list[Entry]) -> None:
    state = fold(entries)
    for row in rows_of(state, plan_of(state), now=second(20)):
        assert status_in_words(row)
        assert facts_in_words(row)


@given(logs, st.data())
@settings(max_examples=100)
def test_fold_that_was_copied_goes_on_by_itself(entries: list[Entry], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(entries)))
    one = RunFold()
    for entry in entries[:number]:
        one.apply(entry)
    other = one.copied()
    for entry in entries[number:]:
        other.apply(entry)
    assert one.state == fold(entries[:number])
    assert other.state == fold(entries)
