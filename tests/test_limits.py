"""Limits of models hold over all workers: nobody is refused who need not be, and waiting is no attempt."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from anthropic import AsyncAnthropic

from baton_actors import Flow
from baton_actors.agents.loading import FoundFlow
from baton_actors.models import Models, ModelSettings
from baton_actors.models.told import told_by
from baton_actors.processes.hosting import hosting
from baton_bus import Settings
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.errors import FlowError
from baton_schemas.flow.file import load_flow
from baton_schemas.wire.facts import ModelCall, Retry, Waits
from baton_schemas.wire.messages import Note, Result
from baton_schemas.wire.outcomes import Done, Failed

from .clients import cancel_run, result_of, start_run
from .limits_server import Rated, rated
from .model_servers import settings_for
from .sdk_clients import HAIKU
from .servers import WAIT_S, NatsServer, until

SONNET = "claude-sonnet-4-6"


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace, lease_s=0.5)) as bus:
        yield bus
        for stream in (namespace, f"{namespace}-limits", f"{namespace}-slots", f"{namespace}-timers"):
            await bus.nc.request(f"$JS.API.STREAM.DELETE.{stream}", b"")


def fan_out(max_tokens: int = 20, **limit: int) -> Flow:
    """A flow that asks once for each item."""
    flow = Flow("wide", input={"items": "list[str]"}, limits={HAIKU: limit} if limit else {})
    flow.ask("write", "Say something about {item}.", each="items", max_tokens=max_tokens, max_attempts=1)
    return flow


@asynccontextmanager
async def playing(bus: Bus, found: FoundFlow, settings: ModelSettings, processes: int = 1) -> AsyncIterator[list[Bus]]:
    """So many worker processes, each with connections of its own."""
    async with AsyncExitStack() as stack:
        buses = []
        for _ in range(processes):
            own = await stack.enter_async_context(open_bus(bus.settings))
            models = await stack.enter_async_context(Models(settings))
            await models.open()  # as a worker process does
            agents = list(found.flow.agents)
            await stack.enter_async_context(hosting(Engine(own), found, agents, models=models, grace_s=0.05))
            buses.append(own)
        yield buses


async def play(
    bus: Bus, flow: Flow, provider: Rated, items: int, processes: int = 1, **settings: Any
) -> tuple[str, Result, float]:
    """Play one run of a flow; return it, how it ended, and how long that took."""
    found = flow.found()
    async with playing(bus, found, settings_for(provider.url, **settings), processes):
        begun = time.monotonic()
        run = await start_run(bus, found.plan, {"items": [f"thing {i}" for i in range(items)]})
        result = await result_of(bus, run, timeout_s=WAIT_S)
        return run, result, time.monotonic() - begun


async def facts(bus: Bus, run: str, kind: type) -> list[Any]:
    notes = [entry.message for entry in await bus.log.run(run) if isinstance(entry.message, Note)]
    return [note.fact for note in notes if isinstance(note.fact, kind)]


async def streams(bus: Bus) -> set[str]:
    names = [str(info.config.name) for info in await bus.js.streams_info()]
    return {name for name in names if name.startswith(bus.settings.namespace)}


async def comes_true(asked: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await asked():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)


# ---- rates -------------------------------------------------------------------------------------------


async def test_fan_out_over_a_limit_is_never_refused_and_as_fast_as_the_limit_lets_it(bus: Bus) -> None:
    # A minute's worth at once, as far as a test can wait: so a machine that is late by seconds refuses nobody.
    async with rated(25, headers=False, burst_s=3.0) as provider:
        run, result, took_s = await play(bus, fan_out(requests_per_minute=25 * 60), provider, 100, processes=2)
    assert isinstance(result.outcome, Done), result
    assert (len(provider.answered_at), provider.refused_at) == (100, [])
    # A second's worth at once, and the others evenly: 3 s, and what starting up takes.
    assert 2.7 < took_s < 9.0
    assert await facts(bus, run, Retry) == []


async def test_without_limits_nothing_is_written_of_them(bus: Bus) -> None:
    async with rated(headers=False) as provider:
        _, result, _ = await play(bus, fan_out(), provider, 20)
    assert isinstance(result.outcome, Done)
    assert not await streams(bus) & {f"{bus.settings.namespace}-limits", f"{bus.settings.namespace}-slots"}


async def test_rehearsal_keeps_to_no_limit(bus: Bus) -> None:
    async with rated() as provider:
        _, result, _ = await play(bus, fan_out(requests_per_minute=1, concurrency=1), provider, 5, rehearse=True)
    assert isinstance(result.outcome, Done)
    assert provider.asked == []


async def test_call_counts_with_what_it_may_take_and_then_with_what_it_took(bus: Bus) -> None:
    # Each may take some 210 tokens, and takes 110: of these, 20 calls are a second's worth.
    flow = fan_out(max_tokens=120, tokens_per_minute=6600 * 20)
    async with rated(headers=False) as provider:
        _, result, took_s = await play(bus, flow, provider, 60)
    assert isinstance(result.outcome, Done), result
    assert 1.5 < took_s < 8.0
    total = await bus.rates.total((HAIKU, "tokens"))
    assert (total.taken - total.given_back) / 1e9 == pytest.approx(60 / (6600 * 20) * 60 * 110, rel=0.1)
    assert total.given_back > 0


async def test_step_that_waits_for_longer_than_a_lease_is_parked_and_outlives_its_worker(bus: Bus) -> None:
    found = fan_out(requests_per_minute=30).found()
    async with rated(headers=False) as provider:
        settings = settings_for(provider.url)
        async with playing(bus, found, settings):
            run = await start_run(bus, found.plan, {"items": ["a", "b", "c"]})

            consumer = f"handoff-{found.plan.actor('write')}"

            async def two_wait() -> bool:
                info = await bus.js.consumer_info(bus.settings.namespace, consumer)
                return len(await facts(bus, run, Waits)) == 2 and not info.num_ack_pending

            await comes_true(two_wait)
        async with playing(bus, found, settings):
            result = await result_of(bus, run, timeout_s=WAIT_S)
    assert isinstance(result.outcome, Done), result
    gaps = [later - earlier for earlier, later in itertools.pairwise(provider.answered_at)]
    assert gaps == pytest.approx([1.0, 2.0], abs=0.6)
    waits = await facts(bus, run, Waits)
    assert {(fact.what, fact.reason) for fact in waits} == {("limits", f"its turn at {HAIKU}")}
    assert await facts(bus, run, Retry) == []
    assert all(call.attempt == 1 for call in await facts(bus, run, ModelCall))


async def of_handler(items: list[str], client: AsyncAnthropic) -> list[str]:
    async def ask(item: str) -> str:
        said = [{"role": "user", "content": item}]
        answer = await client.messages.create(model=HAIKU, max_tokens=20, messages=said)  # type: ignore[arg-type]
        return str(answer.content[0].text)  # type: ignore[union-attr]

    return await asyncio.gather(*map(ask, items))


async def test_client_of_a_handler_waits_where_it_is_and_no_time_of_its_attempt_passes(bus: Bus) -> None:
    flow = Flow("wide", input={"items": "list[str]"}, limits={HAIKU: {"requests_per_minute": 120}})
    flow.step(of_handler, name="write", timeout_s=0.9, max_attempts=1)
    async with rated(headers=False) as provider:
        run, result, _ = await play(bus, flow, provider, 5)
    assert isinstance(result.outcome, Done), result
    assert provider.answered_at[-1] - provider.answered_at[0] >= 0.9
    assert await facts(bus, run, Waits) == []


# ---- so many at once ----------------------------------------------------------------------------------


async def test_no_more_are_under_way_at_once_than_may_be(bus: Bus) -> None:
    async with rated(headers=False, keeps_s=0.05) as provider:
        _, result, took_s = await play(bus, fan_out(concurrency=4), provider, 24, processes=2)
    assert isinstance(result.outcome, Done), result
    assert provider.at_once_max == 4
    assert took_s < 10.0  # 0.3 s if nobody ever waited for a word


async def test_step_that_waits_for_a_place_for_long_is_parked_and_comes_again(bus: Bus) -> None:
    async with rated(headers=False, keeps_s=1.2) as provider:
        run, result, _ = await play(bus, fan_out(concurrency=1), provider, 2)
    assert isinstance(result.outcome, Done), result
    assert provider.at_once_max == 1
    assert {fact.reason for fact in await facts(bus, run, Waits)} == {f"a call of {HAIKU} to end"}


# ---- what providers say -------------------------------------------------------------------------------


async def test_headers_slow_down_all_before_anybody_is_refused(bus: Bus) -> None:
    flow = Flow("wide", input={"items": "list[str]"})
    flow.ask("write", "{item}", each="items", max_tokens=20, max_attempts=1, concurrency=6)
    async with rated(15) as provider:
        provider.says_left = 0.0
        _, result, _ = await play(bus, flow, provider, 36, processes=2)
    assert isinstance(result.outcome, Done), result
    assert provider.refused_at == []
    assert f"{bus.settings.namespace}-limits" in await streams(bus)
    # Six at a time, each in 20 ms, but for the limit: what came before the first word, and then two seconds' worth.
    assert provider.answered_at[-1] - provider.answered_at[0] > 1.2


async def both(first: list[str], second: list[str]) -> int:
    return len(first) + len(second)


async def test_who_is_told_to_wait_has_all_wait_who_ask_the_model(bus: Bus) -> None:
    flow = Flow("two", input={"items": "list[str]"})
    flow.ask("first", "{item}", each="items", max_tokens=20, max_attempts=1)
    flow.ask("second", "{item}!", each="items", max_tokens=20, max_attempts=1)
    flow.step(both, name="last", after=["first", "second"])
    found = flow.found()
    async with rated(headers=False) as provider, AsyncExitStack() as stack:
        for agent in found.flow.agents:  # three actors, each in a process of its own
            own = await stack.enter_async_context(open_bus(bus.settings))
            models = await stack.enter_async_context(Models(settings_for(provider.url)))
            await stack.enter_async_context(hosting(Engine(own), found, [agent], models=models, grace_s=0.05))
        provider.pauses_s = 0.9
        run = await start_run(bus, found.plan, {"items": ["a", "b"]})
        await until(lambda: bool(provider.refused_at))
        result = await result_of(bus, run, timeout_s=WAIT_S)
    assert isinstance(result.outcome, Done), result
    assert len(provider.refused_at) <= 4
    assert min(provider.answered_at) >= provider.paused_until


async def test_turns_of_a_run_that_is_cancelled_are_given_back(bus: Bus) -> None:
    found = fan_out(requests_per_minute=60).found()
    async with rated(headers=False) as provider, playing(bus, found, settings_for(provider.url)):
        run = await start_run(bus, found.plan, {"items": [f"{i}" for i in range(60)]})

        async def most_wait() -> bool:
            return len(await facts(bus, run, Waits)) > 50

        await comes_true(most_wait)
        await cancel_run(bus, run)
        other = await start_run(bus, found.plan, {"items": ["a"]})
        assert isinstance((await result_of(bus, other, timeout_s=WAIT_S)).outcome, Done)


NOW_S = 1_800_000_000.0
LOW = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "3",
    "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:30Z",
}


def test_headers_that_say_that_little_is_left_are_kept_to_until_it_is_there_again() -> None:
    told = told_by(LOW, NOW_S)
    assert told is not None
    assert (told.limit.requests_per_minute, told.limit.tokens_per_minute) == (50, None)
    assert told.for_s == pytest.approx(30.0)
    tokens = {name.replace("requests", "tokens"): value for name, value in LOW.items()}
    both = told_by(LOW | tokens, NOW_S)
    assert both is not None
    assert both.limit.tokens_per_minute == 50


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"remaining": "40"},
        {"remaining": "-1"},
        {"remaining": ""},
        {"remaining": "three"},
        {"remaining": "٣"},
        {"limit": "0"},
        {"limit": "9" * 40},
        {"limit": "1e9"},
        {"reset": "soon"},
        {"reset": "9999-12-31T23:59:59Z"},
        {"reset": "0001-01-01T00:00:00+23:59"},
        {"reset": "2020-01-01T00:00:00Z"},
        {"reset": ""},
    ],
)
def test_headers_that_say_nothing_or_nonsense_change_nothing(headers: dict[str, str]) -> None:
    changed = {f"anthropic-ratelimit-requests-{name}": value for name, value in headers.items()}
    assert told_by(LOW | changed if headers else {}, NOW_S) is None


# ---- other models in its place --------------------------------------------------------------------------


def flow_with_others(*fallback: str) -> Flow:
    flow = Flow("wide", input={"items": "list[str]"})
    flow.ask("write", "{items}", model=HAIKU, fallback=fallback, max_tokens=20, max_attempts=1)
    return flow


async def test_another_model_answers_in_place_of_one_that_is_overloaded_and_is_said_to_have(bus: Bus) -> None:
    async with rated() as provider:
        run, result, _ = await play(bus, flow_with_others(SONNET), provider, 1)
        (usual,) = await facts(bus, run, ModelCall)
        provider.down = {HAIKU}
        run, result, took_s = await play(bus, flow_with_others(SONNET), provider, 1)
    assert isinstance(result.outcome, Done), result
    assert took_s < 10.0  # and not the minute that the first one asks for
    assert [asked.body["model"] for asked in provider.asked] == [HAIKU, HAIKU, SONNET]
    (call,) = await facts(bus, run, ModelCall)
    assert (usual.model, call.model) == (HAIKU, SONNET)
    assert call.request_sha256 == usual.request_sha256  # what asks again finds it
    assert result.outcome.work is not None
    assert result.outcome.work.model == SONNET
    assert await facts(bus, run, Retry) == []


async def test_model_that_is_down_is_not_asked_by_each_step_in_turn(bus: Bus) -> None:
    flow = Flow("wide", input={"items": "list[str]"})
    flow.ask("write", "{item}", each="items", model=HAIKU, fallback=SONNET, max_tokens=20, concurrency=2)
    async with rated() as provider:
        provider.down = {HAIKU}
        _, result, _ = await play(bus, flow, provider, 30)
    assert isinstance(result.outcome, Done), result
    assert [asked.body["model"] for asked in provider.asked].count(HAIKU) <= 2


async def test_other_errors_than_overload_are_those_of_the_first_model(bus: Bus) -> None:
    async with rated() as provider:
        flow = flow_with_others("nobody/has-this")
        provider.down = set()
        _, result, _ = await play(bus, flow, provider, 1)
        assert isinstance(result.outcome, Done)
        provider.script = []
        provider.refuses = "400 Bad Request"
        _, result, _ = await play(bus, flow, provider, 1)
    assert isinstance(result.outcome, Failed)
    assert len(provider.asked) == 2


# ---- flow files -----------------------------------------------------------------------------------------

GOOD = """
name = "two"
[limits."claude-haiku-4-5"]
requests_per_minute = 50
tokens_per_minute = 50000
concurrency = 10
[agents.a]
model = "worker"
prompt = "hi"
max_tokens = 9
[steps.a]
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("requests_per", "request_per", r"request_per_minute: .*Did you mean 'requests_per_minute'\?"),
        ("= 50\n", "= 0\n", r"requests_per_minute: found 0; expected a whole number from 1"),
        ("= 10\n", "= 5000\n", r"concurrency: found 5000; expected a whole number from 1 to 1,000"),
        ("= 10\n", "= 1.5\n", r"concurrency"),
        ("claude-haiku-4-5", "claude-haiku-4.5", r"found the model 'claude-haiku-4\.5', which none asks.*Did you mean"),
        ('"claude-haiku-4-5"', "wroker", r"found the model 'wroker'.*Did you mean 'worker'\?"),
        ('"claude-haiku-4-5"', 'own."m-1"', r"quotation marks"),
    ],
)
def test_mistake_in_a_limit_is_told_with_its_place(old: str, new: str, said: str) -> None:
    with pytest.raises(FlowError, match=said):
        load_flow(GOOD.replace(old, new), "two.toml")


def test_limit_of_a_tier_is_that_of_its_model() -> None:
    from baton_schemas.flow.graph import Plan

    by_name = Plan(load_flow(GOOD)).limits
    assert Plan(load_flow(GOOD.replace('"claude-haiku-4-5"', "worker"))).limits == by_name
    assert by_name[HAIKU].concurrency == 10
