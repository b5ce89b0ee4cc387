"""The fold of a log into the state of its run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from baton_schemas.run.fold import RunFold, fold
from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import Blob, Branch, Done, Error, Message, Skipped, State, Usage, Work

from .logs import done, failed, first, handoff, join, log, logs, note, outcome, reply, result, second

PIPELINE = log(
    first("research"),
    handoff("research", "write", outcome=done("facts", attempt=1, elapsed_s=0.5)),
    result("done", step="write", outcome=done("text", attempt=2)),
)

FAN_OUT = log(
    first("split"),
    handoff("start", "facts"),
    outcome("split", Done(output=Raw(b"[1,2]"))),
    handoff("split", "digest-0", index=0, count=2),
    handoff("split", "digest-1", index=1, count=2),
    reply("digest-1", "merge", index=1, count=2, outcome=done("two")),
    reply("digest-0", "merge", index=0, count=2, outcome=done("one")),
    join("merge", arrived={"digest-1": 6, "digest-0": 7}),
    reply("facts", "merge", outcome=done("fact")),
    handoff("join", "merge", branches=[Branch(name=name, seq=7) for name in ("digest-0", "digest-1", "facts")]),
    result("done", step="merge", outcome=done("all")),
)


def test_run_without_a_message_is_running_and_empty() -> None:
    state = fold([])

    assert (state.run, state.status, state.steps, state.cost_usd) == ("", "running", {}, None)


def test_pipeline_gives_each_step_its_output_and_times() -> None:
    state = fold(PIPELINE)

    assert (state.run, state.flow, state.status) == ("r1", "report", "done")
    assert state.input == {"topic": Raw(b'"tea"')}
    assert (state.started_at, state.ended_at, state.messages) == (second(1), second(3), 3)
    research, write = state.steps.values()
    assert (research.name, research.status, research.source) == ("research", "done", "start")
    assert (research.queued_at, research.ended_at, research.output) == (second(1), second(2), Raw(b'"facts"'))
    assert (write.status, write.source, write.attempts) == ("done", "research", 2)
    assert write.output == Raw(b'"text"')


def test_step_whose_outcome_is_not_in_the_log_is_queued() -> None:
    state = fold(PIPELINE[:2])

    assert state.status == "running"
    assert [step.status for step in state.steps.values()] == ["done", "queued"]


def test_fan_out_shows_each_branch_and_the_join_counts_them() -> None:
    state = fold(FAN_OUT)

    assert list(state.steps) == ["split", "facts", "digest-0", "digest-1", "merge"]
    assert {step.status for step in state.steps.values()} == {"done"}
    merge = state.steps["merge"]
    assert (merge.arrived, merge.expected) == (3, 3)
    assert merge.branches == ["digest-0", "digest-1", "facts"]
    assert state.late == []


def test_join_knows_from_the_flow_what_it_waits_for() -> None:
    merge = fold(FAN_OUT[:6]).steps["merge"]

    assert (merge.status, merge.arrived, merge.expected, merge.queued_at) == ("joining", 1, 3, None)


def test_join_without_the_flow_counts_the_branches_it_has_heard_of() -> None:
    merge = fold(FAN_OUT[5:6]).steps["merge"]

    assert (merge.arrived, merge.expected) == (1, 2)


def test_reply_that_is_not_in_the_closing_handoff_is_late() -> None:
    closing = handoff("join", "merge", branches=[Branch(name="facts", seq=9)])
    late = reply("digest-0", "merge", count=2, outcome=done("one"))

    state = fold(log(first("split"), reply("facts", "merge", outcome=done("fact")), closing, late))

    assert state.late == ["digest-0"]
    assert (state.steps["digest-0"].status, state.steps["merge"].status) == ("done", "queued")


def test_deadline_is_no_branch() -> None:
    fired = reply("deadline", "merge", outcome=Skipped(reason="deadline"))

    state = fold(log(first("split"), fired, handoff("join", "merge")))

    assert list(state.steps) == ["split", "merge"]
    assert (state.steps["merge"].arrived, state.late) == (0, [])


def test_fan_out_over_an_empty_list_is_one_skipped_step() -> None:
    skipped = reply("digest", "merge", count=0, outcome=Skipped(reason="'split' is empty"))

    state = fold(log(first("split"), skipped))

    assert (state.steps["digest"].status, state.steps["digest"].reason) == ("skipped", "'split' is empty")
    assert (state.steps["merge"].arrived, state.steps["merge"].expected) == (1, 2)


def test_failed_step_ends_the_run_and_what_was_queued_is_dropped() -> None:
    error = failed("research", "no answer", attempt=3)
    records = log(first("research"), handoff("research", "write", outcome=error))
    derived = log(*(entry.data for entry in records), result("failed", step="research", outcome=error))

    state = fold(derived)

    assert state.status == "failed"
    assert state.steps["research"].status == "failed"
    assert state.steps["research"].error == error.error
    assert (state.steps["research"].attempts, state.steps["research"].ended_at) == (3, second(2))
    assert state.steps["write"].status == "dropped"


def test_join_that_closes_short_keeps_why_until_its_step_has_failed() -> None:
    short = Error(step="merge", type="JoinShort", message="1 of 2 branches ended well; min_done is 2")

    state = fold(log(first("split"), handoff("join", "merge", error=short)))

    assert (state.steps["merge"].status, state.steps["merge"].error) == ("queued", short)


def test_retries_show_while_the_step_goes_on_and_the_error_goes_when_it_is_done() -> None:
    error = failed("write").error
    retries = [note("write", "retry", attempt=number, error=error, delay_s=2.0) for number in (1, 2)]
    begun: list[Message] = [first("write"), *retries]

    open_step = fold(log(*begun)).steps["write"]
    ended = fold(log(*begun, result("done", step="write", outcome=done("text", attempt=3)))).steps["write"]

    assert (open_step.status, open_step.attempts, open_step.retries, open_step.error) == ("queued", 2, 2, error)
    assert (ended.status, ended.attempts, ended.retries, ended.error) == ("done", 3, 2, None)


def test_cancelled_run_drops_its_open_steps() -> None:
    state = fold(log(first("research"), result("cancelled", reason="no longer needed")))

    assert (state.status, state.steps["research"].status) == ("cancelled", "dropped")
    assert state.result is not None
    assert state.result.reason == "no longer needed"


def test_cost_and_tokens_are_summed_and_each_outcome_counts_once() -> None:
    usage = Usage(input_tokens=100, output_tokens=20, cache_read_tokens=5)
    priced = done("a", usage=usage, cost_usd=0.25)
    unpriced = done("c", usage=usage)

    state = fold(
        log(
            first("a"),
            outcome("a", priced),
            reply("a", "m", outcome=priced),
            handoff("b", "c", outcome=done("b", usage=usage, cost_usd=0.5, rehearsed=True)),
            handoff("c", "d", outcome=unpriced),
        )
    )

    assert state.cost_usd == 0.75
    assert state.usage == Usage(input_tokens=300, output_tokens=60, cache_read_tokens=15)
    assert (state.unpriced, state.rehearsed) == (1, True)


def test_reused_steps_are_marked_and_neither_their_price_nor_their_tokens_are_counted() -> None:
    usage = Usage(input_tokens=100, output_tokens=20)
    priced = done("x", usage=usage, cost_usd=0.25)

    state = fold(
        log(
            first("split", forked_from="r0"),
            reply("facts", "merge", outcome=done("f", usage=usage, rehearsed=True), copied=True),
            handoff("split", "digest-0", count=2, copied=True),
            outcome("split", priced, copied=True),
            reply("digest-0", "merge", count=2, outcome=priced),
        )
    )

    assert state.forked_from == "r0"
    assert {name for name, step in state.steps.items() if step.reused} == {"facts", "split"}
    assert (state.steps["split"].status, state.steps["split"].output) == ("done", Raw(b'"x"'))
    assert (state.cost_usd, state.usage, state.unpriced) == (0.25, usage, 0)
    assert state.rehearsed, "what the run puts out rests on it"


def test_output_in_the_object_store_is_a_blob() -> None:
    blob = Blob(sha256="0" * 64, size_bytes=300_000)
    start = first("a")
    big = handoff("start", "a", state=State(blobs={"pages": blob}), flow_body=start.flow_body, start_seq=0)

    state = fold(log(big, result("done", step="a", outcome=Done(blob=blob, work=Work()))))

    assert state.input_blobs == {"pages": blob}
    assert (state.steps["a"].output, state.steps["a"].blob) == (None, blob)


def test_bytes_that_are_no_message_are_counted_and_the_fold_goes_on() -> None:
    stored = [b"\xff", *(entry.data for entry in PIPELINE)]

    state = fold(log(*stored))

    assert (state.status, state.messages, state.unreadable) == ("done", 4, 1)


@given(logs, st.data())
def test_any_prefix_of_any_log_in_any_order_has_a_state(entries: list[Entry], data: st.DataObject) -> None:
    order = data.draw(st.permutations(entries))
    end = data.draw(st.integers(0, len(order)))

    state = fold(order[:end])

    assert state.messages == end


@given(logs)
def test_entries_that_come_twice_change_nothing(entries: list[Entry]) -> None:
    once = fold(entries)

    assert fold(entry for entry in entries for _ in range(2)) == once
    assert fold([*entries, *entries]) == once


@given(logs)
def test_state_read_on_the_way_does_not_change_the_state_at_the_end(entries: list[Entry]) -> None:
    live = RunFold()
    states = []
    for entry in entries:
        live.apply(entry)
        states.append(live.state)

    assert live.state == fold(entries)
    assert states == [fold(entries[: end + 1]) for end in range(len(entries))]
