"""Runs that go on from another: finished steps are not done again, and what had failed is."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from baton_actors.errors import Fail
from baton_bus.errors import RunExists, UnknownRun
from baton_schemas.flow.flow import Step
from baton_schemas.run.fork import copies, reused, seq_after
from baton_schemas.run.past import Logged
from baton_schemas.wire.codec import encode

from .calls import TEXT, Calls, fan_out, fork_of
from .clients import cancel_run, fork_run
from .servers import NatsServer
from .team import flow_of, kind_of, team, value_of
from .timed import SOON_S, Gate, over_texts, timed, until_timers

PIPELINE = {
    "a": Step(agent="a"),
    "b": Step(agent="b", after=["a"]),
    "c": Step(agent="c", after=["b"]),
}


async def test_failed_pipeline_goes_on_from_the_step_that_failed(server: NatsServer, namespace: str) -> None:
    calls = Calls("c")
    async with team(server.url, namespace, flow_of(PIPELINE, TEXT), calls.all) as t:
        run = await t.submit(text="x")
        assert (await t.result(run)).status == "failed"
        assert calls.take() == {"a": 1, "b": 1, "c": 1}
        calls.broken.clear()
        forked = await fork_run(t.client, run)
        result = await t.result(forked)

        assert value_of(result.outcome) == "xabc"
        assert calls.take() == {"c": 1}
        state = await t.state(forked)
        assert (state.status, state.messages, state.input) == ("done", 4, (await t.state(run)).input)
        assert {name: step.status for name, step in state.steps.items()} == dict.fromkeys("abc", "done")
        assert (await t.result(run)).status == "failed"


async def test_step_in_the_middle_that_failed_is_done_again(server: NatsServer, namespace: str) -> None:
    calls = Calls("b")
    async with team(server.url, namespace, flow_of(PIPELINE, TEXT), calls.all) as t:
        run = await t.submit(text="x")
        assert (await t.result(run)).step == "b"
        calls.take()
        calls.broken.clear()
        assert value_of((await fork_of(t, run)).outcome) == "xabc"
        assert calls.take() == {"b": 1, "c": 1}


async def test_fork_that_fails_can_be_forked(server: NatsServer, namespace: str) -> None:
    calls = Calls("c")
    async with team(server.url, namespace, flow_of(PIPELINE, TEXT), calls.all) as t:
        run = await t.submit(text="x")
        await t.result(run)
        second = await fork_run(t.client, run)
        await t.result(second)
        calls.take()
        calls.broken.clear()
        assert value_of((await fork_of(t, second)).outcome) == "xabc"
        assert calls.take() == {"c": 1}


async def test_done_run_is_redone_from_a_place_in_its_log(server: NatsServer, namespace: str) -> None:
    calls = Calls()
    async with team(server.url, namespace, flow_of(PIPELINE, TEXT), calls.all) as t:
        run = await t.submit(text="x")
        await t.result(run)
        first, to_b, to_c, _ = await t.log(run)
        calls.take()
        for until_seq, again in ((first.seq, "abc"), (to_b.seq, "bc"), (to_c.seq, "c"), (0, "c")):
            assert value_of((await fork_of(t, run, until_seq=until_seq)).outcome) == "xabc"
            assert calls.take() == dict.fromkeys(again, 1)


async def test_cancelled_run_is_taken_up_where_it_was(server: NatsServer, namespace: str) -> None:
    calls, started, cancelled = Calls(), asyncio.Event(), asyncio.Event()

    async def waits(b: str) -> str:
        if started.is_set():
            return await calls.c(b)
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    async with team(server.url, namespace, flow_of(PIPELINE, TEXT), calls.all | {"c": waits}) as t:
        run = await t.submit(text="x")
        await started.wait()
        await cancel_run(t.client, run)
        await cancelled.wait()
        assert value_of((await fork_of(t, run)).outcome) == "xabc"
        assert calls.take() == {"a": 1, "b": 1, "c": 1}


async def test_same_fork_twice_is_one_run(server: NatsServer, namespace: str) -> None:
    calls = Calls("c")
    async with team(server.url, namespace, flow_of(PIPELINE, TEXT), calls.all) as t:
        run = await t.submit(text="x")
        await t.result(run)
        calls.take()
        calls.broken.clear()
        assert {await fork_run(t.client, run, new_run="again") for _ in range(2)} == {"again"}
        assert value_of((await t.result("again")).outcome) == "xabc"
        assert calls.take() == {"c": 1}
        with pytest.raises(RunExists):
            await fork_run(t.client, run, new_run=run)
        with pytest.raises(RunExists):
            await fork_run(t.client, run, new_run="again", until_seq=1)


async def test_run_that_is_not_in_the_log_cannot_be_forked(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, flow_of(PIPELINE, TEXT), {}, start=False) as t:
        with pytest.raises(UnknownRun, match="no run 'never'"):
            await fork_run(t.client, "never")
        assert (await t.bus.js.stream_info(namespace)).state.messages == 0


@pytest.mark.parametrize("copied", [0, 1, 3, 5, 8, 100])
async def test_fork_whose_copying_was_interrupted_ends_right(copied: int, server: NatsServer, namespace: str) -> None:
    calls = Calls("last")
    async with team(server.url, namespace, fan_out(), calls.all, start=False) as t:
        async with t.process():
            run = await t.submit(text="x y z")
            await t.result(run)
        calls.take()
        calls.broken.clear()
        forked = await fork_run(t.client, run)
        (first,) = await t.log(forked)
        subjects = t.bus.subjects
        logged = [
            Logged(entry.seq, subjects.split(entry.subject).who, entry.message)
            for entry in await t.log(run)
            if entry.message is not None
        ]
        for actor, message in copies(t.plan, logged, forked, first.seq)[:copied]:
            assert await t.bus.publisher.create(subjects.of(actor, message), encode(message)) is not None
        async with t.process():
            assert value_of((await t.result(forked)).outcome) == ["X", "Y", "Z"]
            await t.until_settled("handoff", "each")
        assert calls.take() == {"last": 1}
        subjects_of = [entry.subject for entry in await t.log(forked) if kind_of(entry) != "join"]
        assert len(subjects_of) == len(set(subjects_of))


# ---- what is reused ------------------------------------------------------------------------------


async def test_it_is_known_before_a_fork_which_steps_it_reuses(server: NatsServer, namespace: str) -> None:
    calls = Calls("last")
    async with team(server.url, namespace, fan_out(), calls.all) as t:
        run = await t.submit(text="x y")
        await t.result(run)
        logged = [Logged(entry.seq, "", entry.message) for entry in await t.log(run) if entry.message is not None]
        assert reused(t.plan, logged) == {"split", "each-0", "each-1", "merge"}
        after = {step: seq_after(t.plan, logged, step) for step in ("split", "each", "merge", "none")}
        assert reused(t.plan, logged, after["split"]) == {"split"}
        assert reused(t.plan, logged, after["each"]) == {"split", "each-0", "each-1"}
        assert reused(t.plan, logged, after["merge"]) == {"split", "each-0", "each-1", "merge"}
        assert after["none"] == 0
        forked = await fork_run(t.client, run, until_seq=after["each"])
        await t.result(forked)
        steps = (await t.state(forked)).steps
        assert {name for name, step in steps.items() if step.reused} == {"split", "each-0", "each-1"}


# ---- deadlines -----------------------------------------------------------------------------------


async def test_fork_has_a_deadline_of_its_own(server: NatsServer, namespace: str) -> None:
    calls, stuck = Calls("c"), asyncio.Event()

    async def waits(b: str) -> str:
        if not calls.broken:
            stuck.set()
            await asyncio.Event().wait()
        return await calls.c(b)

    flow = replace(flow_of(PIPELINE, TEXT), deadline_s=SOON_S)
    async with timed(server, namespace, flow, calls.all | {"c": waits}) as t:
        run = await t.submit(text="x")
        assert (await t.result(run)).status == "failed"
        calls.broken.clear()
        forked = await fork_run(t.client, run)
        await stuck.wait()
        assert (await t.result(forked)).status == "expired"


async def test_fork_of_a_run_whose_join_closed_at_its_deadline_waits_for_all_again(
    server: NatsServer, namespace: str
) -> None:
    gate = Gate()
    broken = True

    async def merge(each: list[str], title: str) -> list[str]:
        if broken:
            raise Fail("broken")
        return [title, *each]

    async with timed(server, namespace, over_texts(SOON_S), {"branch": gate.branch, "merge": merge}) as t:
        run = await t.submit(texts=["a", "slow"], title="t")
        assert (await t.result(run)).step == "merge"
        broken = False
        gate.open.set()
        forked = await fork_run(t.client, run)
        assert value_of((await t.result(forked)).outcome) == ["t", "A", "SLOW"]
        assert gate.started.count("a") == 1
        await until_timers(t, "timer", 0)
