"""The fold of a log into the state of its run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from baton_schemas.run.fold import RunFold, fold
from baton_schemas.run.state import Entry
from baton_schemas.wire.facts import Begun, Fact, GivenBack, ModelCall, Rejected, Retry, Spent, Waits
from baton_schemas.wire.messages import Joined, Message, Started
from baton_schemas.wire.outcomes import Blob, Done, Error, Skipped, State, Usage, Work

from .logs import closing, done, failed, first, handoff, join, log, logs, note, outcome, reply, result, second, woken

PIPELINE = log(
    first("research"),
    handoff("research", "write", done("facts", attempt=1, elapsed_s=0.5)),
    result("done", step="write", outcome=done("text", attempt=2)),
)

FAN_OUT = log(
    first("split"),
    handoff("start", "facts"),
    outcome("split", Done(output=Raw(b"[1,2]"))),
    handoff("split", "digest-0", of=2),
    handoff("split", "digest-1", of=2),
    reply("digest-1", "merge", done("two"), of=2),
    reply("digest-0", "merge", done("one"), of=2),
    join("merge", came={"digest": "0-1"}, counts={"digest": 2}),
    reply("facts", "merge", done("fact")),
    join("merge", 2, came={"facts": "*"}, counts={"facts": 1}),
    closing("merge", {"digest": "0-1", "facts": "*"}),
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
    closed = closing("merge", {"facts": "*"})
    late = reply("digest-0", "merge", done("one"), of=2)

    state = fold(log(first("split"), reply("facts", "merge", done("fact")), closed, late))

    assert state.late == ["digest-0"]
    assert (state.steps["digest-0"].status, state.steps["merge"].status) == ("done", "queued")


def test_deadline_is_no_branch() -> None:
    fired = reply("deadline", "merge", Skipped(reason="deadline"), count=0)

    state = fold(log(first("split"), fired, closing("merge", deadline=True)))

    assert list(state.steps) == ["split", "merge"]
    assert (state.steps["merge"].arrived, state.late) == (0, [])


def test_fan_out_over_an_empty_list_is_one_skipped_step() -> None:
    skipped = reply("digest", "merge", Skipped(reason="'split' is empty"), of=0)

    state = fold(log(first("split"), skipped))

    assert (state.steps["digest"].status, state.steps["digest"].reason) == ("skipped", "'split' is empty")
    assert (state.steps["merge"].arrived, state.steps["merge"].expected) == (1, 2)


def test_failed_step_ends_the_run_and_what_was_queued_is_dropped() -> None:
    error = failed("research", "no answer", attempt=3)
    records = log(first("research"), handoff("research", "write", error))
    derived = log(*(entry.data for entry in records), result("failed", step="research", outcome=error))

    state = fold(derived)

    assert state.status == "failed"
    assert state.steps["research"].status == "failed"
    assert state.steps["research"].error == error.error
    assert (state.steps["research"].attempts, state.steps["research"].ended_at) == (3, second(2))
    assert state.steps["write"].status == "dropped"


def test_join_that_closes_short_keeps_why_until_its_step_has_failed() -> None:
    short = Error(step="merge", type="JoinShort", message="1 of 2 branches ended well; min_done is 2")

    state = fold(log(first("split"), closing("merge", error=short)))

    assert (state.steps["merge"].status, state.steps["merge"].error) == ("queued", short)


def test_retries_show_while_the_step_goes_on_and_the_error_goes_when_it_is_done() -> None:
    error = failed("write").error
    retries = [note("write", Retry(attempt=number, error=error, delay_s=2.0)) for number in (1, 2)]
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
            reply("a", "m", priced),
            handoff("b", "c", done("b", usage=usage, cost_usd=0.5, rehearsed=True)),
            handoff("c", "d", unpriced),
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
            reply("facts", "merge", done("f", usage=usage, rehearsed=True), copied=True),
            handoff("split", "digest-0", of=2, copied=True),
            outcome("split", priced, copied=True),
            reply("digest-0", "merge", priced, of=2),
        )
    )

    assert state.forked_from == "r0"
    assert {name for name, step in state.steps.items() if step.reused} == {"facts", "split"}
    assert (state.steps["split"].status, state.steps["split"].output) == ("done", Raw(b'"x"'))
    assert (state.cost_usd, state.usage, state.unpriced) == (0.25, usage, 0)
    assert state.rehearsed, "what the run puts out rests on it"


def test_output_in_the_object_store_is_a_blob() -> None:
    blob = Blob(sha256="0" * 64, size_bytes=300_000)
    big = first("a", state=State(blobs={"pages": blob}))

    state = fold(log(big, result("done", step="a", outcome=Done(blob=blob, work=Work()))))

    assert state.input_blobs == {"pages": blob}
    assert (state.steps["a"].output, state.steps["a"].blob) == (None, blob)


def test_bytes_that_are_no_message_are_counted_and_the_fold_goes_on() -> None:
    stored = [b"\xff", *(entry.data for entry in PIPELINE)]

    state = fold(log(*stored))

    assert (state.status, state.messages, state.unreadable) == ("done", 4, 1)


# ---- joins ---------------------------------------------------------------------------------------


def test_join_that_a_run_starts_with_is_queued_and_what_comes_is_not_late() -> None:
    nothing = Started(joined=Joined(counts={"digest": 0}))
    state = fold(log(first("split"), handoff("start", "merge", cause=nothing)))

    assert (state.steps["merge"].status, state.steps["merge"].source, state.late) == ("queued", "start", [])


def test_join_that_its_deadline_closed_has_what_came_and_the_rest_is_late() -> None:
    entries = log(
        first("split"),
        reply("digest-1", "merge", done("two"), of=3),
        reply("deadline", "merge", Skipped(reason="the deadline of 1 s"), count=0),
        join("merge", came={"digest": "1"}, counts={"digest": 3}, deadline=True),
        closing("merge", {"digest": "1"}, counts={"digest": 3}, deadline=True),
        reply("digest-0", "merge", done("one"), of=3),
    )
    state = fold(entries)

    assert (state.steps["merge"].branches, state.late) == (["digest-1"], ["digest-0"])
    assert (state.steps["merge"].arrived, state.steps["merge"].expected) == (2, 4)


def test_fan_out_of_one_item_is_one_branch() -> None:
    state = fold(log(first("split"), handoff("split", "digest-0", of=1), reply("digest-0", "merge", done("x"), of=1)))

    assert list(state.steps) == ["split", "digest-0", "merge"]
    assert (state.steps["merge"].arrived, state.steps["merge"].expected) == (1, 2)


def test_ranges_that_are_none_name_no_branch() -> None:
    state = fold(log(first("split"), closing("merge", {"digest": "9-x", "facts": "*"})))

    assert state.steps["merge"].branches == ["facts"]


# ---- what notes say ------------------------------------------------------------------------------


def test_attempts_that_were_paid_in_vain_are_part_of_the_cost_and_told_apart() -> None:
    usage = Usage(input_tokens=10, output_tokens=5)
    error = failed("write").error
    vain = Retry(attempt=1, error=error, work=Work(usage=usage, cost_usd=0.25))
    unpriced = Retry(attempt=2, error=error, work=Work(attempt=2, usage=usage))
    begun: list[Message] = [first("write"), note("write", vain), note("write", unpriced)]
    paid = done("text", attempt=3, usage=usage, cost_usd=0.5)

    open_run, state = fold(log(*begun)), fold(log(*begun, result("done", step="write", outcome=paid)))

    assert (open_run.cost_usd, open_run.wasted_usd, open_run.usage) == (
        0.25,
        0.25,
        Usage(input_tokens=20, output_tokens=10),
    )
    assert (state.cost_usd, state.wasted_usd, state.unpriced) == (0.75, 0.25, 1)
    assert state.usage == Usage(input_tokens=30, output_tokens=15)


def test_recorded_model_call_is_paid_at_once_and_counts_once() -> None:
    usage = Usage(input_tokens=10, output_tokens=5)
    call = note("write", ModelCall(request_sha256="0" * 64, usage=usage, cost_usd=0.5))
    paid = done("text", usage=usage, cost_usd=0.5)
    spent = note("write", Spent(id="1", reason="Overloaded", work=Work(usage=usage, cost_usd=0.25)))
    ends: list[tuple[list[Message], float]] = [
        ([], 0.0),
        ([result("done", step="write", outcome=paid)], 0.0),
        ([result("failed", step="write", outcome=failed("write"))], 0.5),
        ([result("cancelled")], 0.5),
    ]

    for end, wasted_usd in ends:
        state = fold(log(first("write"), call, *end))
        assert (state.cost_usd, state.usage, state.wasted_usd) == (0.5, usage, wasted_usd)
        state = fold(log(first("write"), spent, call, *end))
        assert (state.cost_usd, state.wasted_usd) == (0.75, wasted_usd + 0.25)


def test_calls_of_a_conversation_count_beside_the_one_that_failed_after_them() -> None:
    usage = Usage(input_tokens=10, output_tokens=5)
    calls = [note("write", ModelCall(request_sha256=f"{n}" * 64, usage=usage, cost_usd=0.5)) for n in range(2)]
    came_to_nothing = failed("write", usage=usage, cost_usd=0.25)
    state = fold(log(first("write"), *calls, result("failed", step="write", outcome=came_to_nothing)))
    assert (state.cost_usd, state.wasted_usd) == (1.25, 1.0)
    summed = done("text", usage=Usage(input_tokens=20, output_tokens=10), cost_usd=1.0)
    state = fold(log(first("write"), *calls, result("done", step="write", outcome=summed)))
    assert (state.cost_usd, state.wasted_usd) == (1.0, 0.0)


def test_step_waits_until_it_is_begun_or_ended() -> None:
    waits = note("write", Waits(what="handler", reason="a worker that has 'm:f'"))
    begun: list[Message] = [first("write"), waits]
    ends: list[Message] = [
        note("write", Begun(attempt=1, number=1)),
        result("done", step="write", outcome=done("x")),
        result("failed", step="write", outcome=failed("write")),
        result("cancelled"),
    ]

    assert fold(log(*begun)).steps["write"].waits == "a worker that has 'm:f'"
    for end in ends:
        assert fold(log(*begun, end)).steps["write"].waits == ""
    assert fold(log(first("write"), result("cancelled"), waits)).steps["write"].waits == ""


def test_step_that_is_woken_waits_for_its_retry_no_more_and_for_a_handler_still() -> None:
    """That it waits for a handler is said once; it is woken now and then to see whether there is one."""
    retry = note("write", Retry(attempt=1, error=Error(step="write", type="X", message="x")))
    waits = note("write", Waits(what="handler", reason="a worker that has 'm:f'"))
    for fact, why, left in ((retry, "its retry", ""), (waits, "a worker that can do it", "a worker that has 'm:f'")):
        assert fold(log(first("write"), fact, woken("write", 1, why=why))).steps["write"].waits == left


def test_step_that_was_let_go_keeps_its_attempt_and_is_queued() -> None:
    facts: list[Fact] = [Begun(attempt=2, number=1), GivenBack(attempt=2, begun=1, reason="worker stops")]
    step = fold(log(first("write"), *(note("write", fact) for fact in facts))).steps["write"]

    assert (step.status, step.attempts, step.retries) == ("queued", 2, 0)


def test_waking_changes_neither_who_handed_the_step_on_nor_when() -> None:
    step = fold(log(first("a"), handoff("a", "b", done("x")), woken("b", 2), woken("b", 2, 2))).steps["b"]

    assert (step.source, step.queued_at, step.status) == ("a", second(2), "queued")


def test_rejected_message_makes_no_step() -> None:
    rejected = Rejected(seq=7, subject="b.handoff.x", reason="no JSON")

    assert list(fold(log(first("write"), note("rejected", rejected))).steps) == ["write"]


# ---- results -------------------------------------------------------------------------------------


def test_result_of_another_flow_changes_nothing_and_is_counted() -> None:
    foreign = result("cancelled", flow="other")
    state = fold(log(first("write"), foreign, result("done", step="write", outcome=done("x")), foreign))

    assert (state.status, state.flow, state.foreign, state.ended_at) == ("done", "report", 2, second(3))


def test_run_that_expired_says_so_and_drops_what_was_open() -> None:
    state = fold(log(first("write"), result("expired", reason="the deadline of 5 s")))

    assert (state.status, state.steps["write"].status, state.ended_at) == ("expired", "dropped", second(2))


# ---- any log -------------------------------------------------------------------------------------


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
