"""Where two runs part: what is the same is not told, and of what differs the first comes first, as the flow has it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from baton_actors.cli.show.diff_page import diff_page
from baton_schemas.flow.flow import Flow
from baton_schemas.run.state import Entry
from baton_schemas.show.compared import Run, same
from baton_schemas.show.differ import Difference, StepDiffers, differ
from baton_schemas.show.differ_words import prompts_of
from baton_schemas.show.running_order import running_order, together
from baton_schemas.show.text_diff import WORDS_MAX, pieces
from baton_schemas.wire.facts import ModelCall
from baton_schemas.wire.messages import Begins, Message, Started
from baton_schemas.wire.outcomes import Blob, Done, Skipped, State, Usage

from .logs import (
    FLOW,
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
    reply,
    result,
)
from .simulated import entries_of, simulated
from .strategies import flows
from .test_cli_views import text_of
from .test_summary import GOLDEN, read

USAGE = Usage(input_tokens=10, output_tokens=5)


def between(before: list[Message], after: list[Message]) -> Difference:
    return differ(Run(log(*before)), Run(log(*after)))


def page(found: Difference, width: int = 100) -> str:
    return text_of(diff_page(found, [], width), width)


def begun(**more: Any) -> Message:
    return first("split", **more)


def call(step: str, sha256: str, text: str = "x", **more: Any) -> Message:
    return note(step, ModelCall(request_sha256=sha256, text=Raw(f'"{text}"'.encode()), usage=USAGE, **more))


@given(flows(), st.randoms(use_true_random=False), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_each_step_of_two_runs_is_told_or_alike_and_one_run_does_not_differ_from_itself(
    flow: Flow, choose: Random, other: Random
) -> None:
    before, after = (Run(entries_of(simulated(flow, each))) for each in (choose, other))
    found, back, itself = differ(before, after), differ(after, before), differ(before, before)

    names = before.state.steps.keys() | after.state.steps.keys()
    told = {each.step for each in found.steps}
    assert told <= names
    assert len(found.steps) == len(told)
    assert found.alike + len(told) == len(names)
    assert {each.step for each in back.steps} == told
    for name in names - told:
        old, new = before.state.steps[name], after.state.steps[name]
        assert (old.status, old.output and bytes(old.output)) == (new.status, new.output and bytes(new.output))
    assert (itself.steps, itself.input, itself.first, itself.alike) == ([], [], None, len(before.state.steps))
    assert page(found)


@given(logs, logs)
@settings(max_examples=100)
def test_any_two_logs_can_be_compared(before: list[Entry], after: list[Entry]) -> None:
    old, new = Run(before), Run(after)
    found = differ(old, new)
    assert found.alike + len(found.steps) == len(old.state.steps.keys() | new.state.steps.keys())
    assert text_of(diff_page(found, prompts_of(old, new, found.first), 60), 60)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_log_does_not_differ_from_itself_and_can_be_compared_with_any(path: Path) -> None:
    entries = read(path)
    assert differ(Run(entries), Run(entries)).steps == []
    assert page(differ(Run(entries), Run(read(GOLDEN[0]))))


def test_input_that_differs_is_told_by_name() -> None:
    other = State(input={"topic": Raw(b'"coffee"'), "more": Raw(b"1")})
    found = between([begun()], [begun(state=other)])

    assert [(pair.name, pair.before, pair.after) for pair in found.input] == [
        ("topic", Raw(b'"tea"'), Raw(b'"coffee"')),
        ("more", None, Raw(b"1")),
    ]
    text = page(found)
    assert "- tea" in text
    assert "+ coffee" in text


def test_values_are_the_same_when_they_are_the_same_json_wherever_they_are_kept() -> None:
    value = Raw(b'{"a":1,"b":[2]}')
    blob = Blob(sha256=hashlib.sha256(bytes(value)).hexdigest(), size_bytes=15)
    assert same(value, Raw(b'{ "b": [2], "a": 1 }'))
    assert same(value, blob)
    assert same(blob, blob)
    assert same(None, None)
    assert not same(value, None)
    assert not same(value, Raw(b'{"a":1,"b":[3]}'))
    assert not same(Raw(b"{"), Raw(b"["))


def test_runs_part_at_the_first_step_of_the_flow_that_differs_though_another_ended_before() -> None:
    def run(facts: str, digest: str) -> list[Message]:
        return [
            *(begun(), handoff("start", "facts"), reply("facts", "merge", done(facts))),
            *(outcome("split", done("x")), handoff("split", "digest-0", of=2), handoff("split", "digest-1", of=2)),
            *(reply("digest-1", "merge", done(digest), of=2), reply("digest-0", "merge", done("d"), of=2)),
            closing("merge", {"digest": "0-1", "facts": "*"}),
        ]

    found = between(run("a", "c"), run("b", "d"))
    assert [each.step for each in found.steps] == ["facts", "digest-1", "merge"]
    assert found.first is not None
    assert (found.first.step, found.first.came_to, found.first.reads) == ("facts", True, [])
    assert {pair.name for pair in found.steps[2].reads} == {"digest", "facts"}
    assert found.alike == 2
    assert "they part at facts, which put out something else" in page(found)
    assert "2 steps are alike" in page(found)


def test_step_that_only_one_run_came_to_is_told() -> None:
    found = between([begun()], [begun(), outcome("split", done("x")), handoff("split", "digest-0", of=1)])
    assert [(each.step, each.is_alone) for each in found.steps] == [("split", False), ("digest-0", True)]
    assert "only the later run has" in page(found)
    assert "was queued before, and is done" in page(found)


def test_prompt_that_differs_is_told_by_its_hash() -> None:
    found = between(
        [begun(), call("split", "a"), outcome("split", done("x"))],
        [begun(), call("split", "b"), outcome("split", done("x"))],
    )
    (step,) = found.steps
    assert (step.asked, step.answered, step.came_to) == (1, 0, False)
    assert "which asked its model something else" in page(found)


def test_model_that_answers_the_same_request_otherwise_is_told() -> None:
    found = between([begun(), call("split", "a"), call("split", "b")], [begun(), call("split", "a", "y")])
    (step,) = found.steps
    assert (step.asked, step.answered) == (0, 1)
    later = between(
        [begun(), call("split", "a"), call("split", "b")], [begun(), call("split", "a"), call("split", "c")]
    )
    assert (later.steps[0].asked, later.steps[0].answered) == (2, 0)
    assert "asked something else in its request 2" in page(later)


def test_hashes_of_what_was_rehearsed_are_not_compared_with_those_that_were_sent() -> None:
    found = between([begun(), call("split", "a")], [begun(), call("split", "b", rehearsed=True)])
    assert found.steps == []


def test_what_was_reused_is_the_same_though_nothing_was_asked_for_it() -> None:
    found = between(
        [begun(), call("split", "a"), outcome("split", done("x"))],
        [begun(forked_from="r0"), outcome("split", done("x"), copied=True)],
    )
    assert (found.steps, found.alike) == ([], 1)


def test_failures_and_reasons_are_compared_by_what_they_say() -> None:
    def run(message: str, reason: str) -> list[Message]:
        failure = failed("split", message)
        return [begun(), outcome("split", failure), reply("digest", "merge", Skipped(reason=reason), of=0)]

    assert between(run("no", "empty"), run("no", "empty")).steps == []
    found = between(run("no", "empty"), run("never", "left out"))
    assert [each.step for each in found.steps] == ["split", "digest"]
    assert "failed otherwise" in page(found)
    assert "Overloaded: never" in page(found)


def test_children_are_compared_by_what_was_asked() -> None:
    def run(said: str, *more: str) -> list[Message]:
        asks = [asked("split", name) for name in ("a", *more)]
        return [begun(), *asks, answer("split", "a", done(said))]

    found = between(run("yes"), run("no", "b"))
    assert [(each.step, each.is_alone) for each in found.steps] == [
        (child("split", "a"), False),
        (child("split", "b"), True),
    ]


def test_flow_that_has_changed_is_told_by_agent_and_step() -> None:
    changed = Raw(bytes(FLOW).replace(b'"each":"split"}', b'"each":"split","concurrency":2}').replace(b"m:f", b"m:g"))
    after = begun(cause=Started(begins=Begins(flow_body=changed)))
    found = between([begun()], [after])
    assert [change.key for change in found.flow.agents["a"]] == ["handler"]
    assert [change.key for change in found.flow.steps["digest"]] == ["concurrency"]
    assert (found.flow.gone, found.flow.is_other) == ([], False)
    assert "agent a (handler m:f → m:g), step digest (concurrency as by default → 2)" in page(found, 200)


def test_cost_of_both_is_that_of_all_their_calls() -> None:
    found = between([begun(), call("split", "a", cost_usd=0.25)], [begun(), call("split", "a", cost_usd=0.5)])
    assert (found.before.cost_usd, found.after.cost_usd, found.steps) == (0.25, 0.5, [])
    assert "no step differs: 1 alike" in page(found)
    assert "$0.2500" in page(found)


def test_value_beside_the_log_is_told_apart_by_its_hash_and_shown_once_it_is_fetched() -> None:
    values = [Raw(b'"one two three"'), Raw(b'"one 2 three"')]
    blobs = [Blob(sha256=hashlib.sha256(bytes(value)).hexdigest(), size_bytes=300_000) for value in values]
    entries = [log(begun(), outcome("split", Done(blob=blob))) for blob in blobs]
    assert "beside the log" in page(differ(Run(entries[0]), Run(entries[1])))
    fetched = {blob.sha256: bytes(value) for blob, value in zip(blobs, values, strict=True)}
    text = page(differ(Run(entries[0], fetched=fetched), Run(entries[1], fetched=fetched)))
    assert "- one two three" in text
    assert "+ one 2 three" in text


def test_text_from_logs_cannot_control_the_terminal_and_is_bounded() -> None:
    value = Done(output=Raw(b'"\\u001b[2J' + b"word " * 5_000 + b'"'))
    text = page(between([begun(), outcome("split", done("x"))], [begun(), outcome("split", value)]))
    assert "\x1b" not in text
    assert "more characters" in text
    assert len(text) < 6_000


@given(st.text("ab \n", max_size=60), st.text("ab \n", max_size=60))
def test_pieces_are_both_texts(before: str, after: str) -> None:
    found = pieces(before, after)
    assert "".join(piece.text for piece in found if piece.kind != "added") == before
    assert "".join(piece.text for piece in found if piece.kind != "removed") == after
    if before == after:
        assert {piece.kind for piece in found} <= {"same"}


def test_pieces_are_words_and_of_long_texts_lines() -> None:
    assert [(piece.kind, piece.text) for piece in pieces("to be or not", "to see or not")] == [
        *(("same", "to "), ("removed", "be"), ("added", "see"), ("same", " or not")),
    ]
    long = [f"{number} " * 9 + "\n" for number in range(WORDS_MAX // 2)]
    found = pieces("".join(long), "".join(["0 new\n", *long[2:-1], "the end\n"]))
    assert "".join(piece.text for piece in found if piece.kind == "same").count("500") == 9
    assert 3 < len(found) < 8
    apart = pieces("a\n" * 3_000, "b\n" * 3_000)
    assert [piece.kind for piece in apart] == ["removed", "added", "same"]


def test_orders_of_two_runs_become_one() -> None:
    assert together(["a", "c"], ["a", "b", "c", "d"]) == ["a", "b", "c", "d"]
    assert together(["a"], ["x", "a"]) == ["x", "a"]
    assert together([], ["x"]) == ["x"]
    run = Run(log(begun(), asked("split", "a"), handoff("split", "digest-1", of=2), handoff("split", "digest-0", of=2)))
    order = ["split", child("split", "a"), "digest-0", "digest-1"]
    assert running_order(run.plan, run.state) == order
    assert running_order(None, run.state)[0] == "split"


def test_thousands_of_branches_are_compared_at_once() -> None:
    def run(last: str) -> list[Entry]:
        count = 3_000
        branches = [handoff("split", f"digest-{index}", of=count) for index in range(count)]
        replies = [reply(f"digest-{index}", "merge", done("x"), of=count) for index in range(count - 1)]
        return log(begun(), *branches, *replies, reply(f"digest-{count - 1}", "merge", done(last), of=count))

    found = differ(Run(run("x")), Run(run("y")))
    assert [each.step for each in found.steps] == ["digest-2999"]
    assert isinstance(found.first, StepDiffers)


def test_run_that_ended_otherwise_is_told_in_the_head() -> None:
    found = between([begun(), result("cancelled")], [begun(), result("failed", step="split", outcome=failed("split"))])
    assert "cancelled" in page(found)
    assert "failed" in page(found)
