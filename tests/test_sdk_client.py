"""The official client inside handlers: what it is answered is recorded, answered again from there, and priced."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import pydantic
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_async_tool, beta_tool
from msgspec.structs import replace

from baton_actors import Context
from baton_actors.agents.handlers import Handler
from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.models.prices import cost_usd
from baton_actors.steps import parking as parking_module
from baton_actors.steps.exchanges import Recording
from baton_actors.steps.parking import Parking
from baton_bus import Settings
from baton_bus.errors import BusUnavailable
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.show.seeing import see, wanted
from baton_schemas.wire.facts import Exchange, Retry
from baton_schemas.wire.messages import Parked
from baton_schemas.wire.outcomes import Blob, Done, Failed, Usage

from .model_servers import settings_for
from .sdk_clients import (
    ASK,
    HAIKU,
    Crew,
    Provider,
    error_answer,
    flow_of,
    json_answer,
    message,
    providing,
    streamed,
    wants_tool,
    work_of,
)
from .servers import NatsServer, until
from .test_asking import Helper, asking
from .timed import until_so

ONE_CALL = Usage(input_tokens=100, output_tokens=10)


class Verdict(pydantic.BaseModel):
    kind: str
    score: int


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace, lease_s=1.0)) as bus:
        yield bus
        await bus.js.delete_stream(namespace)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with providing() as provider:
        yield provider


def crew_of(bus: Bus, provider: Provider, handler: Any, **options: Any) -> Crew:
    return Crew(bus, flow_of(handler, **options), provider.settings)


# ---- each kind of call -----------------------------------------------------------------------------


async def created(client: AsyncAnthropic) -> str:
    answer = await client.messages.create(**ASK)
    return str(answer.content[0].text)


async def created_raw(client: AsyncAnthropic) -> str:
    raw = await client.messages.with_raw_response.create(**ASK)
    return f"{raw.headers['request-id']} {(await raw.parse()).id}"


async def created_as_events(client: AsyncAnthropic) -> str:
    events = await client.messages.create(**ASK, stream=True)
    return " ".join([event.type async for event in events if event.type != "content_block_delta"])


async def streamed_text(client: AsyncAnthropic) -> str:
    async with client.messages.stream(**ASK) as stream:
        said = "".join([text async for text in stream.text_stream])
        return f"{said} {(await stream.get_final_message()).usage.output_tokens}"


async def of_beta(client: AsyncAnthropic) -> str:
    async with client.beta.messages.stream(**ASK) as stream:
        return str((await stream.get_final_message()).content[0].text)  # type: ignore[union-attr]


async def with_options(client: AsyncAnthropic) -> str:
    own = client.with_options(timeout=5.0, max_retries=0, default_headers={"x-own": "yes"})
    return str((await own.messages.create(**ASK)).id)


def created_plainly(client: Anthropic) -> str:
    return str(client.messages.create(**ASK).content[0].text)


def streamed_plainly(client: Anthropic) -> str:
    with client.messages.stream(**ASK) as stream:
        return "".join(stream.text_stream)


def as_events_plainly(client: Anthropic) -> str:
    events = client.messages.create(**ASK, stream=True)
    return "".join(event.delta.text for event in events if event.type == "content_block_delta")


KINDS = [
    created,
    created_raw,
    created_as_events,
    streamed_text,
    of_beta,
    with_options,
    created_plainly,
    streamed_plainly,
    as_events_plainly,
]


def failing_once(call: Callable[[Any], Any], seen: list[Any]) -> Any:
    """A handler that makes the call, keeps what it gave, and fails at its first attempt."""

    async def write(client: AsyncAnthropic, context: Context) -> str:
        seen.append(await call(client))
        if context.attempt == 1:
            raise RuntimeError("once")
        return "done"

    def write_plainly(client: Anthropic, context: Context) -> str:
        seen.append(call(client))
        if context.attempt == 1:
            raise RuntimeError("once")
        return "done"

    return write if asyncio.iscoroutinefunction(call) else write_plainly


@pytest.mark.parametrize("call", KINDS, ids=lambda call: call.__name__)
async def test_second_attempt_is_answered_from_the_record(bus: Bus, provider: Provider, call: Any) -> None:
    seen: list[Any] = []
    crew = crew_of(bus, provider, failing_once(call, seen))
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert len(provider.asked) == 1
    assert len(seen) == 2
    assert seen[0] == seen[1]

    (exchange,) = await crew.exchanges(run)
    assert (exchange.usage, exchange.attempt, exchange.number, exchange.status) == (ONE_CALL, 1, 0, 200)
    assert (exchange.request_id, exchange.rehearsed) == ("req_42", False)
    assert exchange.cost_usd == pytest.approx(cost_usd(HAIKU, ONE_CALL))
    work = work_of(result)
    assert (work.attempt, work.usage, work.cost_usd) == (2, ONE_CALL, exchange.cost_usd)
    assert (work.model, work.request_id) == (exchange.model, "req_42")
    state = await crew.state(run)
    assert (state.cost_usd, state.wasted_usd, state.usage) == (exchange.cost_usd, 0.0, ONE_CALL)


async def test_tool_runner_of_the_sdk_goes_on_from_its_record(bus: Bus, provider: Provider) -> None:
    looked: list[str] = []

    @beta_async_tool
    async def look_up(place: str) -> str:
        """Return the tide at a place."""
        looked.append(place)
        return "high"

    async def write(client: AsyncAnthropic, context: Context) -> str:
        runner = client.beta.messages.tool_runner(**ASK, tools=[look_up], thread=False)
        said = str((await runner.until_done()).content[0].text)
        if context.attempt == 1:
            raise RuntimeError("once")
        return said

    provider.script = [lambda _: json_answer(wants_tool("look_up", {"place": "Cuxhaven"}))]
    crew = crew_of(bus, provider, write)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert bytes(result.outcome.output) == b'"answer 2"'
    assert (len(provider.asked), looked) == (2, ["Cuxhaven"] * 2)
    (result_block,) = provider.asked[1].body["messages"][-1]["content"]
    assert (result_block["tool_use_id"], result_block["content"]) == ("toolu_1", "high")
    assert len(await crew.exchanges(run)) == 2
    assert work_of(result).usage == Usage(input_tokens=200, output_tokens=20)


async def test_plain_tool_runner_that_keeps_threads_at_the_provider_is_recorded(bus: Bus, provider: Provider) -> None:
    @beta_tool
    def look_up(place: str) -> str:
        """Return the tide at a place."""
        return f"high at {place}"

    def write(client: Anthropic, context: Context) -> str:
        runner = client.beta.messages.tool_runner(**ASK, tools=[look_up])
        said = str(runner.until_done().content[0].text)
        if context.attempt == 1:
            raise RuntimeError("once")
        return said

    provider.script = [lambda _: json_answer(wants_tool("look_up", {"place": "Cuxhaven"}))]
    crew = crew_of(bus, provider, write)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert len(provider.asked) == len(await crew.exchanges(run)) == 2


async def test_structured_output_is_parsed_again_from_the_record(bus: Bus, provider: Provider) -> None:
    async def write(client: AsyncAnthropic, context: Context) -> Verdict | None:
        answer = await client.messages.parse(**ASK, output_format=Verdict)
        if context.attempt == 1:
            raise RuntimeError("once")
        return answer.parsed_output

    provider.script = [lambda _: json_answer(message('{"kind": "bug", "score": 3}'))]
    _, result = await crew_of(bus, provider, write).play()
    assert isinstance(result.outcome, Done), result.outcome
    assert msgspec.json.decode(result.outcome.output) == {"kind": "bug", "score": 3}
    assert len(provider.asked) == 1


async def test_identical_calls_in_one_attempt_are_calls_of_their_own(bus: Bus, provider: Provider) -> None:
    seen: list[list[str]] = []

    async def write(client: AsyncAnthropic, context: Context) -> str:
        seen.append([*sorted(await asyncio.gather(created(client), created(client))), await created(client)])
        if context.attempt == 1:
            raise RuntimeError("once")
        return "done"

    crew = crew_of(bus, provider, write)
    run, _ = await crew.play()
    assert seen == [["answer 1", "answer 2", "answer 3"]] * 2
    assert len(provider.asked) == 3
    assert [exchange.number for exchange in await crew.exchanges(run)] == [0, 1, 2]
    assert len({exchange.request_sha256 for exchange in await crew.exchanges(run)}) == 1


async def test_all_else_passes_unrecorded(bus: Bus, provider: Provider) -> None:
    counts: list[int] = []

    async def write(client: AsyncAnthropic, context: Context) -> str:
        counts.append((await client.messages.count_tokens(model=HAIKU, messages=ASK["messages"])).input_tokens)
        if context.attempt == 1:
            raise RuntimeError("once")
        return "done"

    def write_plainly(client: Anthropic) -> int:
        return client.messages.count_tokens(model=HAIKU, messages=ASK["messages"]).input_tokens

    for handler, asked in ((write, 2), (write_plainly, 1)):
        provider.asked.clear()
        crew = crew_of(bus, provider, handler)
        run, result = await crew.play()
        assert isinstance(result.outcome, Done), result.outcome
        assert len(provider.asked) == asked
        assert await crew.exchanges(run) == []
        assert work_of(result).usage is None
    assert counts == [42, 42]


async def test_calls_of_steps_share_the_connections_of_their_process(bus: Bus, provider: Provider) -> None:
    crew = crew_of(bus, provider, created)
    other = Crew(bus, flow_of(streamed_plainly), provider.settings)
    runs = [await crew.start() for _ in range(3)]
    async with crew.working():
        for run in runs:
            await crew.result(run)
            assert provider.connections <= 3
    assert len(provider.asked) == 3
    provider.connections = 0
    runs = [await other.start() for _ in range(3)]
    async with other.working():
        for run in runs:
            await other.result(run)
    assert provider.connections <= 3


# ---- crashes ---------------------------------------------------------------------------------------


TWO_CALLS = """
import os, pathlib, signal
from anthropic import AsyncAnthropic as A
from baton_actors import actor

@actor
async def write(client: A, folder: str) -> list[str]:
    first = await ask(client, "first")
    marker = pathlib.Path(folder, "died")
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [first, await ask(client, "second")]

async def ask(client, what):
    answer = await client.messages.create(
        model="claude-haiku-4-5", max_tokens=9, messages=[{"role": "user", "content": what}]
    )
    return answer.content[0].text
"""
TWO_CALLS_FLOW = """
name = "f"
input = { folder = "str" }
agents.writer = { handler = "./calls.py:write" }
steps.write = { agent = "writer" }
"""
ONE_WORKER = """
import sys
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.main import WorkerSpec, worker_main
from baton_bus import Settings
_, flow, url, namespace = sys.argv
settings = Settings(url=url, namespace=namespace, lease_s=1.0)
worker_main(WorkerSpec(flow=flow, agent="writer", settings=settings, logs=LogSettings()))
"""


async def test_worker_killed_between_two_calls_does_not_pay_the_first_again(
    bus: Bus, provider: Provider, tmp_path: Path
) -> None:
    (tmp_path / "calls.py").write_text(TWO_CALLS)
    (tmp_path / "flow.toml").write_text(TWO_CALLS_FLOW)
    crew = Crew(bus, find_flow(str(tmp_path / "flow.toml")), provider.settings)
    assert crew.found.flow.agents["writer"].reads == ["folder"]
    run = await crew.start(folder=str(tmp_path))
    environ = os.environ | {"ANTHROPIC_BASE_URL": provider.url, "ANTHROPIC_API_KEY": "test-key"}
    command = [sys.executable, "-c", ONE_WORKER, crew.found.source, bus.settings.url, bus.settings.namespace]
    process = await asyncio.create_subprocess_exec(*command, env=environ)
    assert await process.wait() == -signal.SIGKILL
    async with crew.working():
        result = await crew.result(run)
    assert isinstance(result.outcome, Done), result.outcome
    assert msgspec.json.decode(result.outcome.output) == ["answer 1", "answer 2"]
    assert [asked.body["messages"][0]["content"] for asked in provider.asked] == ["first", "second"]
    assert work_of(result).usage == Usage(input_tokens=200, output_tokens=20)


async def test_worker_that_records_second_uses_what_the_first_recorded(
    bus: Bus, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it streamed or not: a stream that was passed on ends its handler, which begins again."""
    record = Recording.recorded

    async def overtaken(self: Recording, exchange: Exchange) -> Exchange:
        """Another worker is faster."""
        monkeypatch.setattr(Recording, "recorded", record)
        theirs = replace(exchange, body=msgspec.Raw(bytes(exchange.body).replace(b"answer", b"their")), attempt=1)
        await record(self, theirs)
        stored = await record(self, exchange)
        self._known[exchange.request_sha256, exchange.number] = stored  # as its notes would say
        return stored

    for handler in (created, streamed_text, created_plainly, streamed_plainly):
        provider.asked.clear()
        monkeypatch.setattr(Recording, "recorded", overtaken)
        crew = crew_of(bus, provider, handler)
        run, result = await crew.play()
        assert isinstance(result.outcome, Done), result.outcome
        assert b"their 1" in bytes(result.outcome.output)
        assert work_of(result).attempt == 1
        assert len(provider.asked) == 1
        (exchange,) = await crew.exchanges(run)
        (spent,) = await crew.spent(run)
        assert spent.work.usage == ONE_CALL
        state = await crew.state(run)
        assert (state.cost_usd, state.wasted_usd) == (2 * (exchange.cost_usd or 0), exchange.cost_usd)


@pytest.mark.parametrize("handler", [created, streamed_text, created_plainly])
async def test_answer_that_the_bus_does_not_take_waits_for_it_and_is_not_lost(
    bus: Bus, provider: Provider, monkeypatch: pytest.MonkeyPatch, handler: Any
) -> None:
    """However short the time of the handler is."""
    monkeypatch.setattr("baton_actors.steps.memory._AGAIN_S", 0.1)
    record, refusals = Recording.recorded, list(range(8))

    async def refused(self: Recording, exchange: Exchange) -> Exchange:
        if refusals:
            refusals.pop()
            raise BusUnavailable("write", 1.0)
        return await record(self, exchange)

    monkeypatch.setattr(Recording, "recorded", refused)
    crew = crew_of(bus, provider, handler, timeout_s=0.5)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert (work_of(result).attempt, refusals, len(provider.asked)) == (1, [], 1)
    assert [type(fact) for fact in await crew.facts(run)] == [Exchange]


@pytest.mark.parametrize("plain", [False, True])
async def test_handler_whose_record_cannot_be_read_is_stopped_whatever_it_makes_of_that(
    bus: Bus, provider: Provider, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    """It is no attempt, and what a handler makes of it is no outcome."""
    recall, refusals = Recording.recalled, [1]
    swallowed: list[str] = []

    async def refused(self: Recording, digest: str, number: int) -> Exchange | None:
        if refusals:
            refusals.pop()
            raise BusUnavailable("read", 1.0)
        return await recall(self, digest, number)

    async def write(client: AsyncAnthropic) -> str:
        try:
            return await created(client)
        except BaseException as error:
            swallowed.append(type(error).__name__)
            return "swallowed"

    def write_plainly(client: Anthropic) -> str:
        try:
            return created_plainly(client)
        except BaseException as error:
            swallowed.append(type(error).__name__)
            return "swallowed"

    monkeypatch.setattr(Recording, "recalled", refused)
    crew = crew_of(bus, provider, write_plainly if plain else write)
    _, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert bytes(result.outcome.output) == b'"answer 1"'
    assert (work_of(result).attempt, swallowed) == (1, ["Stopped"])


@pytest.mark.parametrize("plain", [False, True])
async def test_calls_that_a_handler_leaves_behind_end_with_it(bus: Bus, provider: Provider, plain: bool) -> None:
    left: list[str] = []
    ended = threading.Event()

    async def leave(client: AsyncAnthropic) -> None:
        try:
            await client.messages.create(**ASK)
        except BaseException as error:
            left.append(type(error).__name__)
            ended.set()
            raise

    async def write(client: AsyncAnthropic) -> str:
        task = asyncio.create_task(leave(client))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.to_thread(asked.wait)
        return "done"

    def write_plainly(client: Anthropic) -> str:
        def leave() -> None:
            try:
                client.messages.create(**ASK)
            except BaseException as error:
                left.append(type(error).__name__)
                ended.set()

        threading.Thread(target=leave, daemon=True).start()
        asked.wait()
        return "done"

    asked = threading.Event()

    def never(_: Any) -> list[bytes]:
        asked.set()
        return [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"]

    provider.script = [never]
    crew = crew_of(bus, provider, write_plainly if plain else write)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    await until(ended.is_set)
    assert left == ["Stopped"]
    assert await crew.exchanges(run) == []


async def test_many_calls_are_found_again_at_once_and_in_any_order(bus: Bus, provider: Provider) -> None:
    async def write(client: AsyncAnthropic, context: Context) -> str:
        async def ask(number: int) -> str:
            messages: Any = [{"role": "user", "content": f"{number}"}]
            answer = await client.messages.create(model=HAIKU, max_tokens=9, messages=messages)
            return str(answer.usage.input_tokens)

        numbers = range(100) if context.attempt == 1 else reversed(range(100))
        await asyncio.gather(*map(ask, numbers), *map(ask, range(5)))
        if context.attempt == 1:
            raise RuntimeError("once")
        return "done"

    crew = crew_of(bus, provider, write)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert len(provider.asked) == len(await crew.exchanges(run)) == 105
    assert work_of(result).usage == Usage(input_tokens=10_500, output_tokens=1_050)


async def test_step_is_not_parked_while_its_client_is_answered(
    bus: Bus, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for what it asked for longer than it is held; but its call would be paid twice."""
    tries: list[float | None] = []
    park_soon = Parking.soon

    def counted(self: Parking, after_s: float | None = None) -> None:
        tries.append(after_s)
        park_soon(self, after_s)

    monkeypatch.setattr(parking_module, "_AGAIN_S", 0.05)
    monkeypatch.setattr(Parking, "soon", counted)

    async def boss(text: str, client: AsyncAnthropic, context: Context) -> list[str]:
        return list(await asyncio.gather(created(client), context.ask("helper", topic=f"slow {text}")))

    helper = Helper()
    plan = check_flow(asking(park_after_s=0.1))
    functions = {"team:boss": Handler(boss), "team:helper": Handler(helper.helper)}
    found = FoundFlow(plan.flow.name, plan.flow, plan, Path(), "", functions)
    crew = Crew(bus, found, provider.settings)
    provider.answers.clear()
    run = await crew.start(text="tides")
    async with crew.working():
        await until(lambda: provider.asked and tries.count(0.05) > 2)
        provider.answers.set()
        await until_so(lambda: has_parked(bus, run))
        helper.open.set()
        result = await crew.result(run)
    assert isinstance(result.outcome, Done), result.outcome
    assert msgspec.json.decode(result.outcome.output) == ["answer 1", "SLOW TIDES"]
    assert len(provider.asked) == 1
    assert await crew.spent(run) == []


async def has_parked(bus: Bus, run: str) -> bool:
    return any(isinstance(entry.message, Parked) for entry in await bus.log.run(run))


# ---- errors ----------------------------------------------------------------------------------------


async def test_errors_reach_the_sdk_which_tries_again_as_it_was_told(bus: Bus, provider: Provider) -> None:
    provider.script = [lambda _: error_answer("500 Oops", retry_after_ms="1")] * 2
    crew = crew_of(bus, provider, created)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert work_of(result).attempt == 1
    assert len(provider.asked) == 3
    assert [exchange.number for exchange in await crew.exchanges(run)] == [0]


async def test_no_retries_of_the_sdk_where_it_was_told_so(bus: Bus, provider: Provider) -> None:
    provider.script = [lambda _: error_answer("500 Oops")]
    crew = crew_of(bus, provider, with_options, max_attempts=1)
    run, result = await crew.play()
    assert isinstance(result.outcome, Failed)
    assert result.outcome.error.type == "InternalServerError"
    assert len(provider.asked) == 1
    assert provider.asked[0].headers["x-own"] == "yes"
    assert await crew.exchanges(run) == []


@pytest.mark.parametrize("handler", [created, created_plainly])
async def test_refusal_for_good_is_an_error_of_the_sdk(bus: Bus, provider: Provider, handler: Any) -> None:
    provider.script = [lambda _: error_answer("400 Bad", "invalid_request_error")]
    _, result = await crew_of(bus, provider, handler, max_attempts=1).play()
    assert isinstance(result.outcome, Failed)
    assert (result.outcome.error.type, len(provider.asked)) == ("BadRequestError", 1)


async def test_server_that_is_away_is_an_error_of_the_sdk(bus: Bus) -> None:
    async def write(client: AsyncAnthropic) -> str:
        with pytest.raises(anthropic.APIConnectionError):
            await client.with_options(max_retries=0).messages.create(**ASK)
        return "seen"

    crew = Crew(bus, flow_of(write), settings_for("http://127.0.0.1:9"))
    _, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome


@pytest.mark.parametrize("handler", [created, streamed_text, created_plainly])
async def test_waiting_for_the_provider_is_no_attempt_and_takes_no_time_of_it(
    bus: Bus, provider: Provider, handler: Any
) -> None:
    provider.script = [lambda _: error_answer("429 Slow", "rate_limit_error", retry_after_ms="700")]
    crew = crew_of(bus, provider, handler, timeout_s=0.5)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert work_of(result).attempt == 1
    assert len(provider.asked) == 2
    assert [type(fact).__name__ for fact in await crew.facts(run)] == ["Waits", "Exchange"]


async def test_overload_inside_a_stream_is_waited_for_before_anything_of_it_is_passed_on(
    bus: Bus, provider: Provider
) -> None:
    opening = message("")
    start = {"type": "message_start", "message": opening | {"content": []}}
    overload = {"type": "error", "error": {"type": "overloaded_error", "message": "Sorry."}}
    provider.script = [lambda _: streamed(start, overload, retry_after_ms="20")]
    crew = crew_of(bus, provider, streamed_text)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert (work_of(result).attempt, len(provider.asked)) == (1, 2)
    (spent,) = await crew.spent(run)
    assert spent.work.usage == ONE_CALL


async def test_patience_that_has_run_out_is_an_error_of_the_sdk(bus: Bus, provider: Provider) -> None:
    provider.script = [lambda _: error_answer("429 Slow", "rate_limit_error", retry_after="900")]
    _, result = await crew_of(bus, provider, created, overload_max_s=1.0, max_attempts=1).play()
    assert isinstance(result.outcome, Failed)
    assert (result.outcome.error.type, len(provider.asked)) == ("RateLimitError", 1)


@pytest.mark.parametrize("handler", [created, created_plainly, streamed_plainly])
async def test_time_of_a_handler_cuts_its_call(bus: Bus, provider: Provider, handler: Any) -> None:
    asked = asyncio.Event()

    def never(_: Any) -> list[bytes]:
        asked.set()
        return [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"]

    provider.script = [never]
    crew = crew_of(bus, provider, handler, timeout_s=0.2, max_attempts=1)
    run, result = await crew.play()
    assert isinstance(result.outcome, Failed)
    assert asked.is_set()
    assert "did not finish within 0.2 s" in result.outcome.error.message
    assert await crew.exchanges(run) == []


async def test_calls_of_attempts_that_failed_for_good_were_paid_in_vain(bus: Bus, provider: Provider) -> None:
    async def write(client: AsyncAnthropic) -> str:
        raise RuntimeError(await created(client))

    crew = crew_of(bus, provider, write, max_attempts=2)
    run, result = await crew.play()
    assert isinstance(result.outcome, Failed)
    assert [type(fact) for fact in await crew.facts(run)] == [Exchange, Retry]
    state = await crew.state(run)
    assert state.cost_usd == state.wasted_usd == pytest.approx(cost_usd(HAIKU, ONE_CALL))
    assert state.usage == ONE_CALL
    entries = await bus.log.run(run)
    seen = see(crew.found.plan, state, entries, "write")
    assert [(each.model, each.usage) for each in seen.exchanges] == [("claude-haiku-4-5-20251001", ONE_CALL)]


# ---- hostile bodies --------------------------------------------------------------------------------


async def test_large_answer_is_recorded_as_a_blob(bus: Bus, provider: Provider) -> None:
    seen: list[int] = []

    async def size(client: AsyncAnthropic) -> int:
        seen.append(len(await created(client)))
        return seen[-1]

    provider.script = [lambda _: json_answer(message("x" * 10_000_000))]
    crew = crew_of(bus, provider, failing_once(size, []))
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert (seen, len(provider.asked)) == ([10_000_000] * 2, 1)
    (exchange,) = await crew.exchanges(run)
    assert isinstance(exchange.blob, Blob)
    entries = await bus.log.run(run)
    assert wanted(crew.found.plan, await crew.state(run), entries, "write") == [exchange.blob]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"content": "\xff"}', {}),
        (b"<html>busy</html>", {"content_type": "text/html"}),
        (json.dumps(message("no type")).encode(), {"content_type": ""}),
        (b'{"ok": true}', {}),
        (b"[]", {}),
        (b"", {}),
        (b'{"a":' * 90 + b"1" + b"}" * 90, {}),
        (json.dumps(message("nan", usage={"input_tokens": float("nan"), "output_tokens": 1})).encode(), {}),
    ],
    ids=["utf-8", "html", "no type", "no message", "list", "empty", "deep", "nan"],
)
async def test_what_is_no_answer_goes_through_as_it_is_and_is_not_recorded(
    bus: Bus, provider: Provider, body: bytes, headers: dict[str, str]
) -> None:
    got: list[bytes] = []

    async def write(client: AsyncAnthropic) -> str:
        response = await client.messages.with_raw_response.create(**ASK)
        got.append(await response.http_response.aread())
        return "done"

    provider.script = [lambda _: json_answer(body, **headers)]
    crew = crew_of(bus, provider, write)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert got == [body]
    assert await crew.exchanges(run) == []


def test_request_is_the_same_whatever_the_order_of_its_keys_the_key_and_the_gateway() -> None:
    from baton_actors.models import ModelSettings
    from baton_actors.models.providers import Providers, Where
    from baton_actors.models.sent import Sent, Upstream, is_recorded, question_of

    async def never(_: Where) -> Upstream:
        raise AssertionError

    def digest(body: bytes, path: str = "/v1/messages", rehearses: bool = False) -> str:
        settings = ModelSettings(api_key="any", rehearse=rehearses)
        return question_of(
            Sent(path=path, body=body, send=never), lambda model: Providers(settings).where("", model)
        ).digest

    same = digest(b'{"a": 1, "b": {"c": 2, "d": "x"}}')
    assert digest(b'{"b":{"d":"x","c":2},"a":1}') == same
    others = [
        digest(b'{"a": 2, "b": {"c": 2, "d": "x"}}'),
        digest(b'{"a": 1, "b": {"c": 2, "d": "x"}}', path="/v1/messages?beta=true"),
        digest(b'{"a": 1, "b": {"c": 2, "d": "x"}}', rehearses=True),
        digest(b'{"a": 1, "b": "\\ud83d"}'),
        digest(b"not json"),
    ]
    assert len({same, *others}) == 6
    assert is_recorded("POST", "/gateway/v1/messages")
    assert not is_recorded("POST", "/v1/messages/count_tokens")
    assert not is_recorded("GET", "/v1/messages")


def test_plan_of_a_flow_does_not_carry_the_client() -> None:
    assert isinstance(flow_of(created).plan, Plan)
    assert flow_of(created).plan.flow.agents["write"].reads == []


async def test_large_request_is_found_again(bus: Bus, provider: Provider) -> None:
    long = {**ASK, "messages": [{"role": "user", "content": "x" * 10_000_000}]}

    async def write(client: AsyncAnthropic) -> str:
        return str((await client.messages.create(**long)).id)

    crew = crew_of(bus, provider, failing_once(write, []))
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert len(provider.asked) == len(await crew.exchanges(run)) == 1
