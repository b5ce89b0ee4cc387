"""Two releases at once: what the first one can do is written as it knows it, and all else is given back by it."""

from __future__ import annotations

from typing import Any

import pytest

from baton_actors import Context, Retry
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Flow, JoinPolicy, Step
from baton_schemas.flow.versions import version_needed
from baton_schemas.wire.messages import (
    ASKING,
    FIRST,
    After,
    Answer,
    Asked,
    Handoff,
    Joined,
    Note,
    Parked,
    Reply,
    Started,
    Woken,
)

from .nested_teams import handled, nested_team, one
from .servers import NatsServer
from .team import flow_of, team, value_of
from .test_asking import Helper, asking
from .timed import TEXT, timed

OLD: dict[str, Flow] = {
    "a step": flow_of({"a": Step(agent="a")}, TEXT),
    "a fan-out": flow_of(
        {"a": Step(agent="a"), "b": Step(agent="b", each="a"), "c": Step(agent="c", after=["b"])}, TEXT
    ),
    "bounds": flow_of({"a": Step(agent="a", timeout_s=3.0)}, TEXT, {"a": {"concurrency": 3, "max_attempts": 5}}),
}
NEW: dict[str, dict[str, Any]] = {
    "workers": {"workers": ["a"], "input": {}},
    "a description": {"description": "good for nothing"},
    "parking": {"park_after_s": 1.0},
}


@pytest.mark.parametrize("what", OLD)
def test_flow_of_the_first_release_is_written_as_ever(what: str) -> None:
    assert version_needed(check_flow(OLD[what]).flow) == FIRST


@pytest.mark.parametrize("what", NEW)
def test_flow_that_the_first_release_could_not_read_is_given_back_by_it(what: str) -> None:
    assert version_needed(flow_of({"a": Step(agent="a")}, TEXT, {"a": NEW[what]})) == ASKING


async def test_run_of_an_old_flow_has_no_message_of_a_later_version(server: NatsServer, namespace: str) -> None:
    async def a(text: str) -> str:
        return text

    async with team(server.url, namespace, OLD["a step"], {"a": a}) as t:
        run = await t.submit(text="x")
        assert value_of((await t.result(run)).outcome) == "x"
        assert {entry.message.v for entry in await t.log(run) if entry.message} == {FIRST}


async def test_what_came_with_asking_says_so(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        await context.record("number", lambda: 1)
        return str(await context.ask("helper", topic="slow"))

    helper = Helper()
    async with timed(server, namespace, asking(park_after_s=0.1), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="x")
        await t.until_settled("handoff", "boss")
        helper.open.set()
        assert value_of((await t.result(run)).outcome) == "SLOW"
        for entry in await t.log(run):
            message = entry.message
            assert message is not None
            is_new = isinstance(message, Answer | Parked | Note) or (
                isinstance(message, Handoff)
                and (isinstance(message.cause, Asked | Woken) or entry.seq == 1)  # the first one has the flow
            )
            assert message.v == (ASKING if is_new else FIRST), entry


async def test_nothing_is_taken_in_a_run_that_a_step_asked_for_by_who_could_not_tell_it_of_the_end(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first release may know the flow from runs of their own: then it would play such a run to its end."""
    monkeypatch.setattr("baton_actors.steps.failing.PARK_FROM_S", 0.05)
    steps = {
        "first": Step(agent="first"),
        "each": Step(agent="each", each="first"),
        "merge": Step(agent="merge", after=["each"], join=JoinPolicy(deadline_s=600.0)),
        "last": Step(agent="last", after=["merge"]),
    }
    flow = Flow(name="inner", input=TEXT, agents=handled("first", "each", "merge", "last"), steps=steps)
    assert version_needed(flow) == FIRST
    calls: list[str] = []

    async def first(text: str) -> list[str]:
        calls.append(text)
        if len(calls) == 1:
            raise Retry("it is parked meanwhile", after_s=0.1)
        return [text, text]

    async def each(item: str) -> str:
        return item

    async def merge(each: list[str]) -> str:
        return "".join(each)

    async def last(merge: str) -> str:
        return merge

    handlers = {"first": first, "each": each, "merge": merge, "last": last}
    async with nested_team(server, namespace, one(flow), handlers) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "aa"
        (child,) = await t.child_runs(run)
        taken = [entry.message for entry in await t.log(child) if isinstance(entry.message, Handoff | Reply)]
        causes = {type(message.cause) for message in taken if isinstance(message, Handoff)}
        assert causes == {Started, After, Woken, Joined}
        assert [message.v for message in taken] == [ASKING] * len(taken)
        assert [message.v for message in taken if isinstance(message, Reply)] == [ASKING, ASKING]
