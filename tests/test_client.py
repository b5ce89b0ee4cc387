"""What a client can rely on: durable submits, results, watching, and errors that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest

from baton_bus.errors import LogFull, NoStream, PayloadTooLarge, RunExists
from baton_schemas.errors import BadToken, InputError
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.messages import Handoff, Started

from .clients import cancel_run, result_of, start_run
from .servers import NatsServer, subscribed
from .team import flow_of, kind_of, team, value_of

TEXT = {"text": Field(), "times": Field(type="int", default=msgspec.Raw(b"1"))}
ONE = flow_of({"a": Step(agent="a")}, TEXT)
KB = 1024


async def repeat(text: str, times: int) -> str:
    return text * times


async def test_submitted_run_is_in_the_log_with_its_flow_and_input(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": repeat}, start=False) as t:
        run = await t.submit(text="x")

        (entry,) = await t.bus.log.run(run)
        assert isinstance(entry.message, Handoff)
        assert isinstance(entry.message.cause, Started)
        assert entry.message.cause.begins is not None
        assert bytes(entry.message.cause.begins.flow_body) == t.plan.body
        assert {name: bytes(value) for name, value in entry.message.state.input.items()} == {
            "text": b'"x"',
            "times": b"1",
        }


async def test_submitting_twice_under_one_id_starts_one_run(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": repeat}) as t:
        runs = await asyncio.gather(*(t.submit("mine", text="x", times=2) for _ in range(5)))

        assert set(runs) == {"mine"}
        assert value_of((await t.result("mine")).outcome) == "xx"
        assert await t.submit("mine", text="x", times=2) == "mine"
        assert await t.kinds("mine") == ["handoff", "result"]


async def test_id_of_a_run_with_another_input_is_refused(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": repeat}) as t:
        await t.submit("mine", text="x")
        with pytest.raises(RunExists, match="take another id"):
            await t.submit("mine", text="y")


@pytest.mark.parametrize(
    ("given", "place", "reason"),
    [
        ({}, "text", "missing; expected str"),
        ({"text": 3}, "text", "expected str"),
        ({"text": "x", "times": "many"}, "times", "expected int"),
        ({"text": "x", "tmies": 2}, "tmies", "Did you mean 'times'?"),
    ],
)
async def test_input_that_does_not_fit_is_refused_before_anything_is_written(
    given: dict[str, Any], place: str, reason: str, server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, ONE, {"a": repeat}, start=False) as t:
        with pytest.raises(InputError) as caught:
            await t.submit("mine", **given)

        assert caught.value.place == place
        assert reason in str(caught.value)
        assert await t.bus.log.run("mine") == []


async def test_list_with_too_many_items_is_refused(server: NatsServer, namespace: str) -> None:
    flow = flow_of(
        {"each": Step(agent="a", each="texts"), "end_of_it": Step(agent="b", after=["each"])},
        {"texts": Field(type="list[str]")},
    )
    async with team(server.url, namespace, flow, {}, start=False, branches_max=3) as t:
        with pytest.raises(InputError, match="4 items; at most 3 \\(BATON_BRANCHES_MAX\\)"):
            await t.submit(texts=["x"] * 4)


@pytest.mark.parametrize("run", ["a.b", "a b", "*", ">", "x" * 65, "ü"])
async def test_run_id_that_no_subject_can_hold_is_refused(run: str, server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {}, start=False) as t:
        with pytest.raises(BadToken, match="1 to 64 characters"):
            await start_run(t.client, t.plan, {"text": "x"}, run=run)
        with pytest.raises(BadToken):
            await result_of(t.client, run)
        with pytest.raises(BadToken):
            await cancel_run(t.client, run)


async def test_result_is_there_for_whoever_asks_before_or_after_the_end(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": repeat}) as t:
        before = asyncio.create_task(result_of(t.client, "mine", timeout_s=10))
        named = asyncio.create_task(result_of(t.client, "mine", flow="flow", timeout_s=10))
        await t.submit("mine", text="x")

        result = await before
        assert value_of(result.outcome) == "x"
        assert await named == result
        assert await result_of(t.client, "mine", timeout_s=1) == result
        assert await result_of(t.client, "mine", flow="flow", timeout_s=1) == result


async def test_waiting_for_a_result_times_out(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {}, start=False) as t:
        run = await t.submit(text="x")
        with pytest.raises(TimeoutError):
            await result_of(t.client, run, timeout_s=0.05)


async def test_watching_gives_every_message_in_order_up_to_the_result(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": repeat}) as t:

        async def watch() -> list[tuple[int, str]]:
            async with contextlib.aclosing(t.client.run("mine").events()) as entries:
                return [(entry.seq, kind_of(entry)) async for entry in entries]

        live = asyncio.create_task(watch())
        await t.submit("mine", text="x")
        first, *_, last = seen = await live

        assert (first[1], last[1]) == ("handoff", "result")
        assert seen == sorted(seen) == await watch()


async def test_full_log_refuses_new_work_and_keeps_what_was_done(server: NatsServer, namespace: str) -> None:
    started, go_on = asyncio.Event(), asyncio.Event()
    calls: list[str] = []

    async def slow(text: str, times: int) -> str:
        calls.append(text)
        started.set()
        await go_on.wait()
        return text

    async with team(server.url, namespace, ONE, {"a": slow}, max_bytes=64 * KB) as t:
        run = await t.submit(text="x")
        waiting = asyncio.create_task(t.result(run))
        await started.wait()
        for size_bytes in (8 * KB, 16):
            with pytest.raises(LogFull, match="Raise the stream's limit"):
                while True:
                    await t.bus.publisher.append(t.bus.subjects.task("filler"), b"x" * size_bytes)
        with pytest.raises(LogFull):
            await t.submit(text="y")
        result_heard = asyncio.Event()

        async def on_result(_: object) -> None:
            result_heard.set()

        await subscribed(t.bus.nc, t.bus.subjects.result("flow", run), cb=on_result)
        go_on.set()
        await result_heard.wait()
        assert await t.bus.log.last(t.bus.subjects.result("flow", run)) is None
        assert not waiting.done()
        config = (await t.bus.js.stream_info(namespace)).config
        await t.bus.js.update_stream(config.evolve(max_bytes=-1))

        assert value_of((await waiting).outcome) == "x"
        assert calls == ["x"]


async def test_message_that_is_too_large_is_refused_with_sizes(server: NatsServer, namespace: str) -> None:
    flow = flow_of(ONE.steps, {"text": Field(description="x" * 1_100 * KB)})
    async with team(server.url, namespace, flow, {}, start=False) as t:
        with pytest.raises(PayloadTooLarge) as caught:
            await start_run(t.client, t.plan, {"text": "x"})
        assert caught.value.size_bytes > caught.value.limit_bytes == 1024 * KB


async def test_submitting_to_a_stream_that_is_gone_says_so(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, ONE, {"a": repeat}, start=False) as t:
        await t.bus.js.delete_stream(namespace)
        with pytest.raises(NoStream, match=namespace):
            await start_run(t.client, t.plan, {"text": "x"})
        with pytest.raises(NoStream):
            await t.bus.log.run("mine")
        async with t.process():  # any worker makes it again
            assert value_of((await t.run(text="x")).outcome) == "x"
