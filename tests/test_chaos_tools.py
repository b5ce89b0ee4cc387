"""The crash driver where models call tools, on a small scale, and its checker, which must find what is planted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .chaos.driver import Options, run_chaos
from .chaos.history import Event
from .chaos.plans import ONCE
from .chaos.raw import Record, Seen
from .spoilt import Story, assert_found, left_by

QUIET = Options(seed=1, runs=8, kills=0, flows=("tools",), full_disk=False, forgers=False)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, list[Event]]:
    """What a run left behind in which nothing broke but what tools break themselves."""
    return left_by(QUIET, tmp_path_factory.mktemp("quiet"))


@pytest.fixture
def story(quiet: tuple[Seen, list[Event]]) -> Story:
    return Story(*quiet)


def excuse_no_failure(story: Story) -> None:
    """Forget what broke, failures of the model as well."""
    story.excuse_nothing()
    for event in story.history:
        if event["what"] == "step.ended":
            event["how"] = "done"


def result_of_a_call(story: Story, names: tuple[str, ...] = ONCE) -> Record:
    """What is recorded of a call of one of these tools that went well."""

    def fits(body: dict[str, Any]) -> bool:
        fact = body["fact"]
        well = fact["type"] == "tool" and fact["name"] in names and not fact.get("is_error") and "result" in fact
        return well and fact["result"].startswith('{"order"')

    return story.find("note.tools--", fits)


def call_of(story: Story, result: Record) -> Event:
    """The call that this is of, as its tool told it."""
    given = fact_of(result)["result"]
    return story.event("tool.began", order=json.loads(given)["order"])


def fact_of(record: Record) -> dict[str, Any]:
    assert record.body is not None
    found: dict[str, Any] = record.body["fact"]
    return found


def beginning_of(story: Story, result: Record) -> Record:
    fact = fact_of(result)
    return story.find(
        f"note…{result.run}.{result.rest[0]}.tool-begun-{fact['request_sha256'][:32]}-{fact.get('place', 0)}-1"
    )


def answer_of(story: Story, result: Record) -> Record:
    return story.find(f"note…{result.run}.{result.rest[0]}.model-{fact_of(result)['request_sha256'][:32]}")


def call_again(story: Story, names: tuple[str, ...], later_s: float, **facts: Any) -> None:
    excuse_no_failure(story)
    story.again(call_of(story, result_of_a_call(story, names)), later_s, **facts)


def call_in_another_attempt(story: Story) -> None:
    """As if a tool that may be called twice had been called again by an attempt that knew what it gave."""
    result = result_of_a_call(story, ("look", "scan"))
    called = call_of(story, result)
    began = story.event("step.began", attempt=called["attempt"])
    story.again(began, 0.0, attempt="again", knew_at=result.at_s + 1.0, looked=True)
    story.again(called, result.at_s + 1.1 - called["at"], attempt="again")


def call_before_it_is_written_down(story: Story) -> None:
    result = result_of_a_call(story)
    call_of(story, result)["at"] = beginning_of(story, result).at_s - 0.2


def call_before_it_is_answered(story: Story) -> None:
    result = result_of_a_call(story, ("look", "scan"))
    call_of(story, result)["at"] = answer_of(story, result).at_s - 0.2


def call_for_another_answer(story: Story) -> None:
    call_of(story, result_of_a_call(story))["number"] = 10**6


def begin_twice(story: Story) -> None:
    begun = beginning_of(story, result_of_a_call(story))
    token = begun.rest[1].removesuffix("-1") + "-2"
    story.add_record(begun._replace(rest=(begun.rest[0], token), subject=begun.subject.replace(begun.rest[1], token)))
    story.change(story.records[-1], fact=fact_of(begun) | {"number": 2})


def doubt_for_nothing(story: Story) -> None:
    """As if a step had failed with a tool in doubt, and nobody had died."""
    result = story.find("note.tools--clerk", lambda b: b["fact"]["type"] == "tool" and b["fact"]["name"] in ONCE)
    excuse_no_failure(story)
    story.remove(result)
    reply = story.find(f"reply.tools--closer.{result.run}.close.clerk")
    error = {"step": "clerk", "type": "ToolInDoubt", "message": "who knows"}
    story.change(reply, outcome={"status": "failed", "error": error})


def fail_where_somebody_is_to_be_asked(story: Story) -> None:
    reply = story.find("reply.tools--closer…close.desk-")
    error = {"step": reply.rest[1], "type": "ToolInDoubt", "message": "who knows"}
    story.change(reply, outcome={"status": "failed", "error": error})


def told(story: Story) -> Event:
    done = {r.run for r in story.records if r.kind == "result" and r.body and r.body["status"] == "done"}
    return next(e for e in story.history if e["what"] == "talk.asked" and e.get("told") and e["run"] in done)


def tell_otherwise(story: Story) -> None:
    told(story)["told"][0][2] = "something else"


def tell_before_it_is_recorded(story: Story) -> None:
    event = told(story)
    event["at"] = min(r.at_s for r in story.records if r.run == event["run"] and r.rest[:1] == (event["step"],))


def pay_twice(story: Story) -> None:
    excuse_no_failure(story)
    answered = story.event("talk.answered", run=result_of_a_call(story).run)
    story.again(answered, 0.0001)


def ask_what_is_in_the_log(story: Story) -> None:
    answer = answer_of(story, result_of_a_call(story))
    began = story.event("step.began", run=answer.run, step=answer.rest[0])
    story.again(began, 0.0, attempt="again", knew_at=answer.at_s + 1.0, looked=True)
    asks = story.event("step.asks", attempt=began["attempt"])
    story.again(asks, 1.0, attempt="again")


PLANTED: dict[str, tuple[str, Callable[[Story], object]]] = {
    "a tool that is not idempotent runs twice": ("I19…2 times, and may 1", lambda s: call_again(s, ONCE, 0.001)),
    "one that runs after its result": ("I19…after its result was recorded", lambda s: call_again(s, ONCE, 3.0)),
    "one that runs before that is written down": ("I19…before that was written", call_before_it_is_written_down),
    "a call that nobody wrote down": ("I19…wrote down", lambda s: s.remove(beginning_of(s, result_of_a_call(s)))),
    "a call that is begun twice": ("I19…began", begin_twice),
    "a call before its answer is in the log": ("I19…before the answer", call_before_it_is_answered),
    "a call of an answer that is lost": ("I19…which is not in the log", call_for_another_answer),
    "an idempotent tool that is called for nothing": (
        "I19…twice, and nothing",
        lambda s: call_again(s, ("look", "scan"), 0.001),
    ),
    "an idempotent tool that is called though it is recorded": ("I19…again,", call_in_another_attempt),
    "a result that is not what the tool gave": (
        "I19…not what it gives",
        lambda s: s.change(result_of_a_call(s), fact__result='"another"'),
    ),
    "a result of another tool": (
        "I19…no answer in the log calls",
        lambda s: s.change(result_of_a_call(s), fact__name="x"),
    ),
    "a result by somebody who said nothing": (
        "I19…who said nothing",
        lambda s: s.change(result_of_a_call(s), fact__settled_by="tellers"),
    ),
    "two results": ("I19…second", lambda s: s.add(result_of_a_call(s))),
    "a result that is lost": ("I8", lambda s: s.remove(result_of_a_call(s, ("look", "scan")))),
    "a doubt for nothing": ("I19…nothing had gone wrong", doubt_for_nothing),
    "a doubt that nobody was asked about": ("I19…somebody was to be asked", fail_where_somebody_is_to_be_asked),
    "a model that is told something else": ("I20…and recorded", tell_otherwise),
    "a model that is told before it is recorded": ("I20…what was not recorded", tell_before_it_is_recorded),
    "a model that is sent what the API refuses": ("I20…sent its model", lambda s: told(s).update(wrong="nonsense")),
    "a turn that is paid twice": ("I3…paid for turn", pay_twice),
    "a turn that is asked though it is recorded": ("I3…which was in the log", ask_what_is_in_the_log),
}


def test_checker_finds_nothing_where_tools_are_called_and_nothing_breaks(story: Story) -> None:
    assert story.violations() == []
    types = {fact_of(each)["type"] for each in story.records if each.kind == "note" and each.body}
    assert {"tool_begun", "tool", "offered", "model"} <= types


@pytest.mark.parametrize("what", PLANTED)
def test_checker_finds_what_is_planted(what: str, story: Story) -> None:
    expected, plant = PLANTED[what]
    plant(story)
    assert_found(story, expected)


async def test_no_tool_that_is_not_idempotent_runs_twice_while_workers_and_connections_break(tmp_path: Path) -> None:
    report = await run_chaos(Options(seed=2, runs=8, kills=3, gap_s=0.4, flows=("tools",), full_disk=False), tmp_path)
    assert report.violations == []
    assert report.kills >= 3
    assert (report.lost, report.doubled, report.wrong) == (0, 0, 0)
