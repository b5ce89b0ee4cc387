"""Streams of a handler's own client: recorded when they came to their end, and not before, and never in part."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic
from hypothesis import given
from hypothesis import strategies as st

from baton_actors.agents.clock import Clock
from baton_actors.models.events import Splitter, joined, message_of, read_event, write_events
from baton_actors.models.heard import Heard, played
from baton_actors.steps.exchanges import Recording
from baton_bus import Settings
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.wire.facts import Exchange, Retry
from baton_schemas.wire.outcomes import Done, Failed

from .model_servers import end, start
from .sdk_clients import ASK, Asked, Crew, Provider, chunked, flow_of, providing, said_by, streamed, work_of
from .servers import NatsServer, peer, until

EVENTS = said_by("high and low")


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace, lease_s=1.0)) as bus:
        yield bus
        await bus.js.delete_stream(namespace)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with providing() as provider:
        yield provider


async def write(client: AsyncAnthropic) -> str:
    async with client.messages.stream(**ASK) as stream:
        return await stream.get_final_text()


def write_plainly(client: Anthropic) -> str:
    with client.messages.stream(**ASK) as stream:
        return stream.get_final_text()


def cut_after(count: int, whole: bool) -> Any:
    return lambda _: streamed(*EVENTS[:count], whole=whole)


@pytest.mark.parametrize("handler", [write, write_plainly])
@pytest.mark.parametrize("whole", [True, False], ids=["ends", "breaks"])
async def test_stream_that_breaks_at_any_event_is_not_recorded(
    bus: Bus, provider: Provider, handler: Any, whole: bool
) -> None:
    """The connection breaks, or the answer ends as if it were whole."""
    read: list[str] = []

    async def checked(client: AsyncAnthropic) -> str:
        nonlocal read
        async with client.messages.stream(**ASK) as stream:
            async for event in stream:
                read += [event.type]
            if (await stream.get_final_message()).stop_reason is None or read[-1] != "message_stop":
                raise ConnectionError("cut")
            return await stream.get_final_text()

    def checked_plainly(client: Anthropic) -> str:
        with client.messages.stream(**ASK) as stream:
            read.extend(event.type for event in stream)
            if stream.get_final_message().stop_reason is None or read[-1] != "message_stop":
                raise ConnectionError("cut")
            return stream.get_final_text()

    provider.script = [cut_after(count, whole) for count in range(len(EVENTS))]
    tries = len(EVENTS) + 1
    crew = Crew(
        bus,
        flow_of(checked if handler is write else checked_plainly, max_attempts=tries),
        provider.settings,
    )
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert bytes(result.outcome.output) == f'"answer {tries}"'.encode()
    assert (len(provider.asked), work_of(result).attempt) == (tries, tries)
    assert len(await crew.exchanges(run)) == 1
    spent = await crew.spent(run)
    assert len(spent) == len(EVENTS) - 1  # before its first event nothing was paid that we know of
    assert all(each.work.usage is not None and each.work.usage.input_tokens == 100 for each in spent)
    state = await crew.state(run)
    assert state.wasted_usd > 0
    assert state.usage.input_tokens == 100 * len(EVENTS)


@pytest.mark.parametrize("handler", [write, write_plainly])
@pytest.mark.parametrize("count", [0, 1, 3, len(EVENTS) - 1])
async def test_stream_that_ends_before_its_answer_does_is_not_taken_for_one(
    bus: Bus, provider: Provider, handler: Any, count: int
) -> None:
    """The SDK hands out what there is as an answer, when a proxy ends it as if it were whole; that is in no record."""
    provider.script = [cut_after(count, True)]
    crew = Crew(bus, flow_of(handler, max_attempts=2), provider.settings)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert bytes(result.outcome.output) == b'"answer 2"'
    assert (work_of(result).attempt, len(await crew.exchanges(run))) == (2, 1)
    (retry,) = [fact for fact in await crew.facts(run) if isinstance(fact, Retry)]
    assert (retry.error.type, "it ended before the answer did" in retry.error.message) == ("CutOff", True)


async def test_end_of_a_stream_is_held_back_until_it_is_recorded(
    bus: Bus, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    go, recording = asyncio.Event(), asyncio.Event()
    record = Recording.recorded

    async def late(self: Recording, exchange: Exchange) -> Exchange:
        recording.set()
        await go.wait()
        return await record(self, exchange)

    async def listen(client: AsyncAnthropic) -> str:
        nonlocal seen
        async for event in await client.messages.create(**ASK, stream=True):
            seen += [event.type]
        return "done"

    monkeypatch.setattr(Recording, "recorded", late)
    crew = Crew(bus, flow_of(listen), provider.settings)
    run = await crew.start()
    async with crew.working():
        await recording.wait()
        await until(lambda: "message_delta" in seen)
        assert "message_stop" not in seen
        assert await crew.exchanges(run) == []
        go.set()
        await crew.result(run)
    assert seen[-1] == "message_stop"
    assert len(await crew.exchanges(run)) == 1


@pytest.mark.parametrize("plain", [False, True])
async def test_stream_that_its_handler_leaves_is_paid_and_not_recorded(
    bus: Bus, provider: Provider, plain: bool
) -> None:
    held = asyncio.Event()

    async def leave(client: AsyncAnthropic) -> str:
        async with client.messages.stream(**ASK) as stream:
            async for said in stream.text_stream:
                return said
        return ""

    def leave_plainly(client: Anthropic) -> str:
        with client.messages.stream(**ASK) as stream:
            return next(iter(stream.text_stream))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in streamed(*EVENTS[:3], whole=False):
            writer.write(piece)
        await writer.drain()
        await held.wait()

    async with peer(serve) as address:
        provider.url = f"http://{address}"
        crew = Crew(bus, flow_of(leave_plainly if plain else leave), provider.settings)
        run, result = await crew.play()
        held.set()
    assert isinstance(result.outcome, Done), result.outcome
    assert bytes(result.outcome.output) == b'"high "'
    assert await crew.exchanges(run) == []
    (spent,) = await crew.spent(run)
    assert "did not wait for the end" in spent.reason
    assert spent.work.usage is not None
    assert spent.work.usage.input_tokens == 100


async def test_error_in_the_middle_of_a_stream_is_an_error_of_the_sdk(bus: Bus, provider: Provider) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Sorry."}}
    provider.script = [lambda _: streamed(*EVENTS[:4], error)]
    crew = Crew(bus, flow_of(write), provider.settings)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert (work_of(result).attempt, len(provider.asked)) == (2, 2)
    (spent,) = await crew.spent(run)
    assert "overloaded_error" in spent.reason


@pytest.mark.parametrize(
    ("data", "fails"),
    [
        (b'event: content_block_delta\ndata: {"type": "content_block_delta", \xff}\n\n', True),
        (b"event: content_block_delta\ndata: no json\n\n", True),
        (b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, "delta": 7}\n\n', True),
        (b'event: new_kind\ndata: {"type": "new_kind", "more": [1]}\n\n', False),
        (b": a comment\n\n", False),
        (b"event: nothing\n\n", False),
        (b'data: {"type": "message_stop"}\n\n', False),
    ],
    ids=["utf-8", "no json", "no delta", "new kind", "comment", "no data", "no name"],
)
async def test_strange_events_go_through_as_they_are(bus: Bus, provider: Provider, data: bytes, fails: bool) -> None:
    def answer(_: Asked) -> list[bytes]:
        head, *events = streamed(*EVENTS)
        return [head, *events[:3], chunked(data), *events[3:]]

    provider.script = [answer]
    crew = Crew(bus, flow_of(write, max_attempts=1), provider.settings)
    run, result = await crew.play()
    assert isinstance(result.outcome, Failed if fails else Done), result.outcome
    assert len(await crew.exchanges(run)) == (0 if fails else 1)
    assert len(await crew.spent(run)) == (1 if fails else 0)


@pytest.mark.parametrize("headers", [{}, {"content_type": ""}], ids=["typed", "no content-type"])
async def test_stream_is_one_because_it_was_asked_for(bus: Bus, provider: Provider, headers: dict[str, Any]) -> None:
    provider.script = [lambda _: streamed(*EVENTS, **headers)]
    crew = Crew(bus, flow_of(write), provider.settings)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    (exchange,) = await crew.exchanges(run)
    assert exchange.streamed
    assert [event["type"] for event in json.loads(bytes(exchange.body))].count("content_block_delta") == 1


async def test_stream_of_ten_megabytes_is_recorded_and_played_again(bus: Bus, provider: Provider) -> None:
    seen: list[int] = []

    async def fail_once(client: AsyncAnthropic) -> int:
        seen.append(len(await write(client)))
        if len(seen) == 1:
            raise RuntimeError("once")
        return seen[-1]

    provider.script = [lambda _: streamed(*said_by(" ".join(["x" * 99_999] * 100)))]
    crew = Crew(bus, flow_of(fail_once), provider.settings)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert seen == [9_999_999] * 2
    assert len(provider.asked) == len(await crew.exchanges(run)) == 1


# ---- the parts -------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=8), max_size=6), st.lists(st.integers(1, 40), max_size=20), st.booleans())
def test_events_are_whole_however_their_bytes_are_cut(said: list[str], cuts: list[int], crlf: bool) -> None:
    events = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": each}} for each in said
    ]
    data = write_events(events)
    data = data.replace(b"\n", b"\r\n") if crlf else data
    splitter, found, place = Splitter(), [], 0
    for cut in [*cuts, len(data)]:
        found += splitter.add(data[place : place + cut])
        place += cut
    assert b"".join(found) == data
    assert [read_event(raw) for raw in found] == events
    assert splitter.rest == b""


@given(st.lists(st.tuples(st.integers(0, 1), st.text(max_size=6)), max_size=12))
def test_joined_events_say_the_same(pieces: list[tuple[int, str]]) -> None:
    blocks = [
        {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
        for index in (0, 1)
    ]
    deltas = [
        {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": said}}
        for index, said in pieces
    ]
    events = [start(input_tokens=3), *blocks, *deltas, *end("end_turn")]
    before = json.dumps(events)
    few = joined([event for each in events for event in (each, {"type": "ping"})])
    assert json.dumps(events) == before
    assert message_of(few) == message_of(events)
    assert [block["text"] for block in message_of(few)["content"]] == [
        "".join(said for index, said in pieces if index == number) for number in (0, 1)
    ]
    assert len(few) <= len(events)


def test_halves_of_a_character_that_came_apart_are_recorded_as_one() -> None:
    heard = Heard()
    passed = b""
    stop = {"type": "content_block_stop", "index": 0}
    for event in [start(), *said_by("a b")[1:2], *_halves(), *_halves()[:1], stop, *end("end_turn")]:
        passed += heard.event(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())[1]
    assert heard.body is not None
    live = [found for raw in Splitter().add(passed) if (found := read_event(raw)) is not None]
    assert message_of(live) == message_of(json.loads(heard.body))
    assert message_of(live)["content"][0]["text"] == "\N{GRINNING FACE}\ufffd"
    assert "\N{GRINNING FACE}" in heard.body.decode()
    assert played(heard.body, streamed=True).startswith(b"event: message_start")


def _halves() -> list[dict[str, Any]]:
    return [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": half}}
        for half in ("\ud83d", "\ude00")
    ]


def test_clock_stands_still_while_anything_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now, left = [0.0], [0.0]
    monkeypatch.setattr("baton_actors.agents.clock.time.monotonic", lambda: now[0])

    def alarm(left_s: float) -> Callable[[], None]:
        left[0] = left_s
        return lambda: left.append(left.pop() - 1000.0)

    clock = Clock(10.0, alarm)
    now[0] = 4.0
    with clock.stopped():
        assert left[0] < 0  # no alarm is set
        now[0] = 100.0
        with clock.stopped():
            clock.pause()
            now[0] = 200.0
            clock.go_on()
        assert left[0] < 0
        with clock.going():
            assert left[0] == 6.0
            now[0] = 201.0
        assert left[0] < 0
        now[0] = 300.0
    assert left[0] == 5.0
    clock.pause()
    with clock.stopped():
        pass
    assert left[0] < 0
    clock.go_on()
    assert left[0] == 5.0
    clock.end()
    clock.go_on()
    assert left[0] < 0
