"""Who waited and worked when: one line of time for each step, without a gap, and no longer than the run."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from baton_schemas.flow.flow import Flow
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.attempts import attempts_of
from baton_schemas.show.spans import Lane, Timeline, shares_of
from baton_schemas.show.timeline import timeline_of
from baton_schemas.wire.facts import Begun, Fact, GivenBack, ModelCall, Retry, ToolCall, Waits
from baton_schemas.wire.messages import Message
from baton_schemas.wire.outcomes import Work

from .logs import (
    answer,
    asked,
    child,
    closing,
    done,
    failed,
    first,
    handoff,
    log,
    logs,
    note,
    outcome,
    parked,
    reply,
    result,
    second,
    woken,
)
from .simulated import entries_of, simulated
from .strategies import flows
from .test_summary import GOLDEN, read


def spans_of(lane: Lane) -> list[tuple[str, float, float | None]]:
    """What a lane shows, in seconds of `second`."""
    zero = second(0)
    return [
        (span.kind, (span.begin - zero).total_seconds(), (span.end - zero).total_seconds() if span.end else None)
        for span in lane.spans
    ]


def lane_of(*messages: Message, step: str = "split") -> Lane:
    return timeline_of(log(*messages)).lanes[step]


def work(elapsed_s: float, attempt: int = 1) -> Work:
    return Work(attempt=attempt, elapsed_s=elapsed_s, worker="w")


def fact(fact: Fact, step: str = "split") -> Message:
    return note(step, fact)


def assert_sound(timeline: Timeline, state: RunState) -> None:
    """What holds of any log: no gap, nothing backwards, nothing beyond the run."""
    assert list(timeline.lanes) == [name for name, step in state.steps.items() if step.asked != "batch"]
    for name, lane in timeline.lanes.items():
        step = state.steps[name]
        for span in lane.spans:
            assert span.end is None or span.begin < span.end
        assert all(one.end == other.begin for one, other in pairwise(lane.spans))
        assert lane.end == (step.ended_at or state.ended_at if lane.spans else None)
        for one in lane.tries:
            assert one.end is None or one.begin <= one.end
            assert one.came_to or one.end is None
        for one, other in pairwise(lane.tries):
            assert one.end is not None
            assert one.end <= other.begin
        for each in lane.within:
            assert each.end is None or each.begin <= each.end
        if lane.begin is not None and lane.end is not None:
            took = (lane.end - lane.begin).total_seconds()
            assert sum((span.end - span.begin).total_seconds() for span in lane.spans if span.end) == pytest.approx(
                took
            )


@given(flows(), st.randoms(use_true_random=False), st.booleans())
@settings(max_examples=60)
def test_lanes_of_a_run_have_no_gap_and_an_attempt_for_each_that_was_made(
    flow: Flow, choose: Random, stops: bool
) -> None:
    entries = entries_of(simulated(flow, choose, stops=stops))
    state = fold(entries)
    timeline = timeline_of(entries, state)

    assert_sound(timeline, state)
    for name, lane in timeline.lanes.items():
        step = state.steps[name]
        over_at = step.ended_at or state.ended_at
        in_time = [entry for entry in entries if over_at is None or entry.at <= over_at]
        made = [(each.number, each.came_to) for each in attempts_of(in_time, step) if each.worker]
        assert [(one.number, one.came_to) for one in lane.tries if one.worker] == made
    took = (state.ended_at - state.started_at).total_seconds() if state.ended_at and state.started_at else 0.0
    assert sum(shares_of(timeline).values()) <= took + 1e-6


@given(logs)
@settings(max_examples=150)
def test_any_log_has_lanes_that_hold_together(entries: list[Entry]) -> None:
    state = fold(entries)
    timeline = timeline_of(entries, state)
    assert_sound(timeline, state)
    assert all(seconds >= 0 for seconds in shares_of(timeline, second(20)).values())


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_log_has_lanes_that_hold_together(path: Path) -> None:
    entries = read(path)
    state = fold(entries)
    timeline = timeline_of(entries, state)
    assert_sound(timeline, state)
    assert bool(shares_of(timeline, entries[-1].at)) == bool(timeline.lanes), "a batch is no run"


def test_step_waits_for_a_worker_until_as_long_before_its_end_as_it_took() -> None:
    lane = lane_of(first("split"), handoff("start", "facts"), outcome("split", done("x", elapsed_s=1.5)))
    assert spans_of(lane) == [("queued", 1, 1.5), ("working", 1.5, 3)]
    assert (lane.seconds("working"), lane.seconds("queued"), lane.seconds("person")) == (1.5, 0.5, 0)
    assert [(one.number, one.came_to) for one in lane.tries] == [(1, "done")]


def test_failed_attempt_is_followed_by_the_wait_for_its_retry_and_that_by_the_wait_for_a_worker() -> None:
    retry = Retry(attempt=1, error=failed("split").error, delay_s=1.5, work=work(0.5))
    lane = lane_of(
        *(first("split"), fact(retry)),
        *(handoff("start", "facts"), handoff("start", "merge")),
        outcome("split", done("x", attempt=2, elapsed_s=0.25)),
    )
    assert spans_of(lane) == [
        *(("queued", 1, 1.5), ("working", 1.5, 2), ("retry", 2, 3.5), ("queued", 3.5, 4.75)),
        ("working", 4.75, 5),
    ]
    assert [(one.number, one.came_to, one.error) for one in lane.tries] == [
        (1, "failed", "Overloaded: no answer"),
        (2, "done", ""),
    ]


def test_wait_that_a_provider_asks_for_is_no_work_though_the_step_is_in_hand() -> None:
    waits = Waits(what="provider", reason="the model's provider", since_s=(second(2)).timestamp())
    lane = lane_of(
        *(first("split"), fact(waits), handoff("start", "facts")),
        fact(ModelCall(request_sha256="a", model="m")),
        outcome("split", done("x", elapsed_s=3.5)),
    )
    assert spans_of(lane) == [("queued", 1, 1.5), ("working", 1.5, 2), ("provider", 2, 4), ("working", 4, 5)]
    assert lane.spans[2].reason == "the model's provider"
    assert len(lane.tries) == 1


@pytest.mark.parametrize("what", ["limits", "handler", "budget"])
def test_wait_for_what_a_step_needs_ends_when_it_is_woken(what: str) -> None:
    waits = Waits(what=what, reason="it", since_s=second(2).timestamp())
    lane = lane_of(first("split"), fact(waits), woken("split", 1), outcome("split", done("x", elapsed_s=0.5)))
    assert spans_of(lane) == [("queued", 1, 2), (what, 2, 3), ("queued", 3, 3.5), ("working", 3.5, 4)]


def test_step_that_is_parked_upon_a_person_waits_for_the_person_and_then_for_a_worker() -> None:
    lane = lane_of(
        *(first("split"), asked("split", "editors", kind="agent"), parked("split", "editors")),
        *(handoff("start", "facts"), answer("split", "editors", done("yes")), woken("split", 1)),
        outcome("split", done("x", elapsed_s=0.5)),
    )
    assert spans_of(lane) == [("queued", 1, 2), ("agent", 2, 5), ("queued", 5, 6.5), ("working", 6.5, 7)]
    assert [one.came_to for one in lane.tries] == ["parked", "done"]
    assert [(each.kind, each.name) for each in lane.within] == [("asked", child("split", "editors"))]


def test_step_in_hand_does_not_count_as_working_while_it_waits_for_what_it_asked() -> None:
    messages: list[Message] = [
        *(first("split"), asked("split", "a"), asked("split", "b")),
        *(answer("split", "b", done("2", elapsed_s=0.5)), answer("split", "a", done("1", elapsed_s=3.0))),
        outcome("split", done("x", elapsed_s=4.5)),
    ]
    lane, other = lane_of(*messages), lane_of(*messages, step=child("split", "a"))
    assert spans_of(lane) == [("queued", 1, 1.5), ("working", 1.5, 2), ("agent", 2, 5), ("working", 5, 6)]
    assert spans_of(other) == [("working", 2, 5)]


@pytest.mark.parametrize("kind", ["person", "event", "sleep", "flow"])
def test_what_no_worker_does_is_waited_for_from_its_question_to_its_answer(kind: str) -> None:
    who = asked("split", "editors", kind=kind)  # type: ignore[arg-type]
    messages: list[Message] = [first("split"), who, handoff("start", "facts"), answer("split", "editors", done("yes"))]
    lane = lane_of(*messages, step=who.step)
    assert spans_of(lane) == [(kind, 2, 4)]
    assert lane.tries == ()
    assert shares_of(timeline_of(log(*messages)))[lane.spans[0].kind] == 2


def test_join_waits_for_those_before_it_and_then_for_a_worker() -> None:
    lane = lane_of(
        *(first("split"), reply("digest-0", "merge", done("a"), of=2), reply("digest-1", "merge", done("b"), of=2)),
        *(closing("merge", {"digest": "0-1"}), result("done", step="merge", outcome=done("all", elapsed_s=0.25))),
        step="merge",
    )
    assert spans_of(lane) == [("joining", 2, 4), ("queued", 4, 4.75), ("working", 4.75, 5)]


def test_worker_that_died_is_told_by_the_next_beginning() -> None:
    lane = lane_of(
        *(first("split"), fact(Begun(attempt=1, number=1)), fact(Begun(attempt=2, number=2))),
        outcome("split", done("x", attempt=2, elapsed_s=1.0)),
    )
    assert [(one.number, one.came_to) for one in lane.tries] == [(1, "died"), (2, "done")]
    assert spans_of(lane) == [("queued", 1, 2), ("working", 2, 3), ("working", 3, 4)]


def test_worker_that_stopped_gave_its_step_back() -> None:
    lane = lane_of(
        *(first("split"), fact(Begun(attempt=1, number=1))),
        *(fact(GivenBack(attempt=1, begun=1, reason="worker stops")), handoff("start", "facts")),
        outcome("split", done("x", elapsed_s=0.5)),
    )
    assert spans_of(lane) == [("queued", 1, 2), ("working", 2, 3), ("queued", 3, 4.5), ("working", 4.5, 5)]
    assert lane.tries[0].error == "worker stops"


def test_worker_of_which_nothing_is_heard_after_its_first_signs_died() -> None:
    lane = lane_of(
        *(first("split"), fact(ModelCall(request_sha256="a")), handoff("start", "facts"), handoff("start", "merge")),
        outcome("split", done("x", elapsed_s=0.5)),
    )
    assert [(one.came_to, one.begin) for one in lane.tries] == [
        ("died", second(2)),
        ("done", second(5) - timedelta(seconds=0.5)),
    ]


def test_step_that_goes_on_is_in_hand_once_there_is_a_sign_of_it() -> None:
    queued = lane_of(first("split"))
    going = lane_of(first("split"), fact(ModelCall(request_sha256="a", model="m")))
    assert spans_of(queued) == [("queued", 1, None)]
    assert spans_of(going) == [("queued", 1, 2), ("working", 2, None)]
    assert going.seconds("working", second(9)) == 7
    assert going.end is None
    ended = lane_of(first("split"), fact(ModelCall(request_sha256="a", model="m")), result("cancelled"))
    assert spans_of(ended) == [("queued", 1, 2), ("working", 2, 3)]
    assert ended.tries[0].came_to == "dropped"


def test_step_that_a_worker_says_it_has_in_hand_works_since_then() -> None:
    entries = log(first("split"), handoff("start", "facts"))
    lanes = timeline_of(entries, running={"split": second(2), "facts": second(0)}).lanes
    assert spans_of(lanes["split"]) == [("queued", 1, 2), ("working", 2, None)]
    assert spans_of(lanes["facts"]) == [("working", 2, None)]
    ended = log(first("split"), outcome("split", done("x", elapsed_s=0.25)))
    assert timeline_of(ended, running={"split": second(1)}).lanes == timeline_of(ended).lanes


def test_model_that_is_asked_in_a_batch_is_waited_for_and_has_no_lane() -> None:
    messages: list[Message] = [
        *(first("split"), asked("split", "-batch", kind="batch"), parked("split", "-batch")),
        fact(ModelCall(request_sha256="a", model="m", batch="b1")),
        *(answer("split", "-batch", done("")), woken("split", 1), outcome("split", done("x", elapsed_s=0.5))),
    ]
    lanes = timeline_of(log(*messages)).lanes
    assert list(lanes) == ["split"]
    assert spans_of(lanes["split"]) == [("queued", 1, 2), ("batch", 2, 5), ("queued", 5, 6.5), ("working", 6.5, 7)]
    assert [(each.kind, each.name) for each in lanes["split"].within] == [("model", "m")]


def test_calls_of_models_begin_where_what_was_done_before_them_ended() -> None:
    lane = lane_of(
        *(first("split"), fact(ModelCall(request_sha256="a", model="m"))),
        fact(ToolCall(request_sha256="a", place=0, name="look_up", elapsed_s=0.25, is_error=True)),
        *(fact(ModelCall(request_sha256="b", model="m")), outcome("split", done("x", elapsed_s=3.75))),
    )
    zero = second(0)
    assert [(each.name, (each.begin - zero).total_seconds(), each.is_exact, each.failed) for each in lane.within] == [
        ("m", 1.25, False, False),
        ("look_up", 2.75, True, True),
        ("m", 3.0, False, False),
    ]


def test_what_is_reused_took_no_time() -> None:
    lane = lane_of(
        first("split", forked_from="r0"), outcome("split", done("x", elapsed_s=1.0), copied=True), handoff("x", "facts")
    )
    assert (lane.reused, lane.spans, lane.tries) == (True, (), ())


def test_time_of_a_run_is_work_where_anybody_works_and_else_what_people_can_do_something_about() -> None:
    timeline = timeline_of(
        log(
            *(first("split"), handoff("start", "facts"), outcome("split", done("x", elapsed_s=1.0))),
            asked("facts", "editors", kind="person"),
            reply("facts", "merge", done("f", elapsed_s=0.5)),
            result("cancelled"),
        )
    )
    assert shares_of(timeline) == {"person": 2.0, "queued": 2.0, "working": 1.0}


def test_lengths_that_no_attempt_can_have_do_no_harm() -> None:
    for elapsed_s in (-5.0, 1e300, float("inf")):
        lane = lane_of(first("split"), outcome("split", done("x", elapsed_s=elapsed_s)))
        assert sum(lane.seconds(span.kind) for span in lane.spans[:1]) <= 1


def test_lanes_of_ten_thousand_branches_are_there_at_once() -> None:
    count = 10_000
    messages: list[Message] = [first("split"), outcome("split", done("x"))]
    messages += [handoff("split", f"digest-{index}", of=count) for index in range(count)]
    messages += [reply(f"digest-{index}", "merge", done("y", elapsed_s=0.5), of=count) for index in range(count)]
    entries = log(*messages)
    state = fold(entries)
    began = time.process_time()
    timeline = timeline_of(entries, state)
    shares = shares_of(timeline)
    assert time.process_time() - began < 3
    assert len(timeline.lanes) == count + 2
    assert shares["queued"] > 0


def test_clock_of_a_broker_that_was_put_back_leaves_lanes_that_hold_together() -> None:
    entries = log(first("split"), fact(Begun(attempt=1, number=1)), outcome("split", done("x", elapsed_s=0.5)))
    entries = [replace(entry, at=_back(entry.at, number)) for number, entry in enumerate(entries)]
    timeline = timeline_of(entries)
    assert all(span.end is None or span.end > span.begin for span in timeline.lanes["split"].spans)


def _back(at: datetime, number: int) -> datetime:
    return at - timedelta(seconds=3 * number)
