"""Runs that go on under a changed flow, or with their failures done again: what is called anew, and with what."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_bus.errors import RunExists
from baton_schemas.errors import InputError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, Flow, JoinPolicy, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fork import copied_into, origin_of
from baton_schemas.run.past import Logged, past_of
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Reply

from .calls import TEXT, Calls, fan_out
from .servers import WAIT_S, NatsServer
from .team import Team, flow_of, team, value_of
from .test_forks import PIPELINE


def with_agent(flow: Flow, name: str, **changes: Any) -> Flow:
    return replace(flow, agents={**flow.agents, name: replace(flow.agents[name], **changes)})


async def go_on(t: Team, run: str, flow: Flow | None = None, **given: Any) -> Any:
    """The output of a run that goes on from another, all of whose handlers are mended."""
    forked = await t.client.run(run).fork(plan=check_flow(flow) if flow else None, **given)
    return value_of((await t.result(forked.id)).outcome)


async def test_step_that_a_change_touches_is_done_again_with_all_after_it(server: NatsServer, namespace: str) -> None:
    calls, flow = Calls("c"), flow_of(PIPELINE, TEXT)

    async def other(a: str) -> str:
        calls.note("other")
        return f"{a}B"

    async with team(server.url, namespace, flow, calls.all | {"other": other}) as t:
        run = await t.submit(text="x")
        assert (await t.result(run)).status == "failed"
        calls.take()
        calls.broken.clear()
        assert await go_on(t, run, with_agent(flow, "b", handler="team:other")) == "xaBc"
        assert calls.take() == {"other": 1, "c": 1}
        assert await go_on(t, run, with_agent(flow, "b", max_attempts=9, timeout_s=7.0)) == "xabc"
        assert calls.take() == {"c": 1}, "how often and how long it is tried is no other step"


async def test_step_that_now_reads_what_was_not_carried_to_it_gets_it(server: NatsServer, namespace: str) -> None:
    calls, flow = Calls("c"), flow_of(PIPELINE, TEXT, agents={"c": {"reads": ["b"]}})

    async def all_of(text: str, a: str, b: str) -> list[str]:
        return [text, a, b]

    async with team(server.url, namespace, flow, calls.all | {"all_of": all_of}) as t:
        run = await t.submit(text="x")
        await t.result(run)
        calls.take()
        later = with_agent(flow, "c", handler="team:all_of", reads=["text", "a", "b"])
        assert await go_on(t, run, later) == ["x", "xa", "xab"]
        assert calls.take() == {}


async def test_step_that_is_put_between_two_others_is_done_and_those_before_it_are_not(
    server: NatsServer, namespace: str
) -> None:
    calls, flow = Calls("c"), flow_of(PIPELINE, TEXT)
    later = flow_of({**PIPELINE, "more": Step(agent="more", after=["b"]), "c": Step(agent="c", after=["more"])}, TEXT)
    later = with_agent(later, "c", handler="team:final")

    async def more(b: str) -> str:
        return f"{b}+"

    async def final(more: str) -> str:
        return f"{more}c"

    async with team(server.url, namespace, later, calls.all | {"more": more, "final": final}) as t:
        t.plan = Plan(flow)
        run = await t.submit(text="x")
        assert (await t.result(run)).step == "c"
        calls.take()
        assert await go_on(t, run, later) == "xab+c"
        assert calls.take() == {}


@pytest.mark.parametrize("wait", ["all", 2])
async def test_branches_are_kept_and_their_list_is_given_to_whoever_reads_it_now(
    wait: Any, server: NatsServer, namespace: str
) -> None:
    calls, flow = Calls("last"), fan_out(JoinPolicy(wait=wait))

    async def both(each: list[str], merge: list[str]) -> list[Any]:
        return [sorted(map(len, each)), len(merge)]

    # Each output is kept beside the log: the list that a later step reads is made of them again.
    async with team(server.url, namespace, flow, calls.all | {"both": both}, inline_limit_bytes=1_000) as t:
        run = await t.submit(text=" ".join(letter * 1_500 for letter in "xy"))
        assert (await t.result(run)).step == "last"
        calls.take()
        later = with_agent(flow, "last", handler="team:both", reads=["each", "merge"])
        assert await go_on(t, run, later) == [[1_500, 1_500], 2]
        assert calls.take() == {}


async def test_failed_branches_of_a_run_that_is_done_are_done_again_and_no_other(
    server: NatsServer, namespace: str
) -> None:
    calls = Calls("y")
    async with team(server.url, namespace, fan_out(on_error="continue"), calls.all) as t:
        run = await t.submit(text="x y z")
        assert value_of((await t.result(run)).outcome) == ["X", "Z", "y is broken"]
        calls.take()
        calls.broken.clear()
        assert await go_on(t, run, failed=True) == ["X", "Y", "Z"]
        assert calls.take() == {"y": 1, "merge": 1, "last": 1}
        assert await go_on(t, run) == ["X", "Z", "y is broken"]
        assert calls.take() == {"last": 1}


async def test_input_fits_the_changed_flow_or_it_is_said_what_does_not(server: NatsServer, namespace: str) -> None:
    calls, flow = (
        Calls("c"),
        flow_of(
            PIPELINE, {"text": Field(), "unused": Field()}, agents={"a": {"reads": ["text"]}, "b": {"reads": ["a"]}}
        ),
    )

    async def loud(b: str, sign: str) -> str:
        return b + sign

    async with team(server.url, namespace, flow, calls.all | {"loud": loud}) as t:
        run = await t.submit(text="x", unused="u")
        await t.result(run)
        later = with_agent(
            replace(flow, input={"text": Field(), "sign": Field()}), "c", handler="team:loud", reads=None
        )
        with pytest.raises(InputError, match=r"sign.*missing"):
            await t.client.run(run).fork(plan=check_flow(later), run_id="later")
        with_default = replace(later, input={"text": Field(), "sign": Field(default=Raw(b'"!"'))})
        calls.take()
        assert await go_on(t, run, with_default, run_id="later") == "xab!"
        assert calls.take() == {}


async def test_same_id_goes_on_once_with_one_version_of_the_flow(server: NatsServer, namespace: str) -> None:
    calls, flow = Calls("c"), flow_of(PIPELINE, TEXT)
    async with team(server.url, namespace, flow, calls.all) as t:
        run = await t.submit(text="x")
        await t.result(run)
        calls.broken.clear()
        later = check_flow(with_agent(flow, "b", max_attempts=9))
        for _ in range(2):
            assert (await t.client.run(run).fork(plan=later, run_id="again")).id == "again"
        with pytest.raises(RunExists):
            await t.client.run(run).fork(run_id="again")
        with pytest.raises(RunExists):
            await t.client.run(run).fork(plan=later, failed=True, run_id="again")


async def test_where_the_file_of_a_flow_is_stays_known_over_runs_that_go_on(server: NatsServer, namespace: str) -> None:
    calls, flow = Calls(), flow_of(PIPELINE, TEXT)
    async with team(server.url, namespace, flow, calls.all) as t:
        run = await t.client.start(Plan(flow, "/here/flow.toml"), text="x")
        for plan in (None, Plan(with_agent(flow, "c", max_attempts=7)), Plan(flow)):
            await run.result(WAIT_S)
            run = await run.fork(plan=plan)
            assert (await run.state()).source == "/here/flow.toml"
        moved = await run.fork(plan=Plan(with_agent(flow, "c", max_attempts=8), "/there/flow.toml"))
        assert (await moved.state()).source == "/there/flow.toml"
        await moved.result(WAIT_S)


async def test_branches_that_there_cannot_be_are_not_counted(server: NatsServer, namespace: str) -> None:
    calls = Calls("last")
    async with team(server.url, namespace, fan_out(), calls.all) as t:
        run = await t.submit(text="x y")
        await t.result(run)
        logged = [Logged(each.seq, "", each.message) for each in await t.log(run) if each.message is not None]
        reply = next(each.message for each in logged if isinstance(each.message, Reply))
        strange = [replace(reply, index=10**9, count=10**9 + 1), replace(reply, index=-1), replace(reply, each=False)]
        past = past_of([logged[0], *(Logged(2, "", each) for each in strange), *logged[1:]])
        assert past is not None
        assert past.counts == {"each": 2}
        assert past.tokens("each") == ["each-0", "each-1"]


async def test_same_run_may_be_asked_for_from_two_places(server: NatsServer, namespace: str) -> None:
    calls, flow = Calls(), flow_of(PIPELINE, TEXT)
    async with team(server.url, namespace, flow, calls.all) as t:
        for source in ("/here/flow.toml", "/there/flow.toml", ""):
            assert (await t.client.start(Plan(flow, source), text="x", run_id="one")).id == "one"
        assert value_of((await t.result("one")).outcome) == "xabc"
        assert (await t.state("one")).source == "/here/flow.toml"
        assert calls.take() == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("written", [0, 2, 4, 100])
async def test_mended_run_whose_copying_was_interrupted_ends_right(
    written: int, server: NatsServer, namespace: str
) -> None:
    calls, flow = Calls("last"), fan_out()
    later = check_flow(with_agent(flow, "last", max_attempts=7))
    async with team(server.url, namespace, flow, calls.all, start=False) as t:
        async with t.process():
            run = await t.submit(text="x y z")
            await t.result(run)
        calls.take()
        calls.broken.clear()
        forked = (await t.client.run(run).fork(plan=later)).id
        entry, first = await t.client.engine.runs.first(forked)
        subjects = t.bus.subjects
        logged = [Logged(each.seq, "", each.message) for each in await t.log(run) if each.message is not None]
        origin = origin_of(first)
        assert origin is not None
        for actor, message in copied_into(later, logged, first, origin, entry.seq)[:written]:
            assert await t.bus.publisher.create(subjects.of(actor, message), encode(message)) is not None
        async with t.process():
            assert value_of((await t.result(forked)).outcome) == ["X", "Y", "Z"]
        assert calls.take() == {"last": 1}
