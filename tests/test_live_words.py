"""What steps say while they are done: heard by who listens, bounded, and nothing that a run depends on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from baton_actors import Baton, Context, Flow, Retry
from baton_actors.agents.live import EVERY_S, Live
from baton_actors.agents.loading import find_flow
from baton_actors.models import Models
from baton_actors.processes.hosting import hosting
from baton_bus import Run, Running, Said, Settings, Wrote, connect
from baton_bus.client.watching import watch_all
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.flow import Step
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry
from baton_schemas.show.heard import Hearing
from baton_schemas.wire.messages import Note, Result
from baton_schemas.wire.words import (
    SAID_CHARS_MAX,
    WROTE_CHARS_MAX,
    Word,
    encode_word,
    read_running,
    read_word,
    said_text,
)

from .clients import client_on, start_run
from .model_servers import settings_for
from .servers import WAIT_S, NatsServer, nats_server, until
from .talking_model import TalkingModel, talking_model
from .team import Team, flow_of, team

ONE_STEP = {"a": Step(agent="a")}
FLOW = """
name = "f"
agents.w = { model = "worker", prompt = "Write.", retry_base_s = 0.02, retry_max_s = 0.02 }
steps.write = { agent = "w" }
"""
Event = Entry | Running | Word


async def watched(run: Run) -> list[Event]:
    """All that a run is heard to say, up to its result."""
    async with asyncio.timeout(WAIT_S), aclosing(run.watch()) as events:
        return [event async for event in events]


async def run_of(t: Team, **given: Any) -> list[Event]:
    """Start a run and hear it to its end, its steps waiting until somebody listens (`listened`)."""
    run = await t.submit(**given)
    return await watched(t.client.run(run))


async def listened(context: Context, t: list[Team]) -> None:
    """Wait, in a handler, until the test hears it."""
    heard = asyncio.Event()

    async def listens() -> None:
        async with aclosing(watch_all(t[0].bus, context.run)) as events:
            async for event in events:
                if isinstance(event, Said):
                    heard.set()
                    return

    listening = asyncio.create_task(listens())
    while not heard.is_set():
        await context.say("")
        await asyncio.sleep(0.01)
    await listening


def said(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Said) and event.text]


# ---- what handlers say -----------------------------------------------------------------------------


async def test_what_a_handler_says_is_heard_between_the_messages_and_not_stored(
    server: NatsServer, namespace: str
) -> None:
    ours: list[Team] = []

    async def a(context: Context) -> int:
        await listened(context, ours)
        await context.say("1 of 2 pages read")
        await asyncio.sleep(2 * EVERY_S)
        await context.say("2 of 2 pages read")
        return 2

    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": a}) as t:
        ours.append(t)
        events = await watched(t.client.run(await t.submit("r1")))
        assert said(events) == ["1 of 2 pages read", "2 of 2 pages read"]
        entries = [event for event in events if isinstance(event, Entry)]
        assert [entry.subject.split(".")[1] for entry in entries] == ["handoff", "result"]
        assert entries == await t.log("r1")
        assert isinstance(events[-1], Entry), "the result comes last"


async def test_plain_handler_says_the_same_from_its_thread(server: NatsServer, namespace: str) -> None:
    go = asyncio.Event()
    loop = asyncio.get_running_loop()

    def a(context: Context) -> int:
        while not go.is_set():
            context.say("begins")
            time.sleep(0.01)
        context.say("goes on")
        return 1

    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": a}) as t:
        run = t.client.run(await t.submit())
        texts = []
        async with asyncio.timeout(WAIT_S), aclosing(run.watch()) as events:
            async for event in events:
                if isinstance(event, Said):
                    texts.append(event.text)
                    loop.call_soon(go.set)
        assert texts[0] == "begins"
        assert texts[-1] == "goes on", "the last one goes out when the handler has ended"


async def test_said_ten_thousand_times_it_is_heard_some_times_a_second_and_the_last_one_always(
    server: NatsServer, namespace: str
) -> None:
    ours: list[Team] = []
    took: list[float] = []

    async def a(context: Context) -> None:
        await listened(context, ours)
        began = time.monotonic()
        for number in range(1, 10_001):
            await context.say(f"{number} of 10000")
        took.append(time.monotonic() - began)

    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": a}) as t:
        ours.append(t)
        texts = said(await run_of(t))
        assert texts[-1] == "10000 of 10000"
        assert len(texts) <= 2 + took[0] / EVERY_S


async def test_whoever_comes_late_hears_what_was_said_last(server: NatsServer, namespace: str) -> None:
    go = asyncio.Event()

    async def a(context: Context) -> None:
        await context.say("loads the model")
        await go.wait()

    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": a}) as t:
        run = t.client.run(await t.submit())
        async with asyncio.timeout(WAIT_S), aclosing(run.watch()) as events:
            async for event in events:
                if isinstance(event, Running) and event.says:
                    assert event == Running(step="a", attempt=1, says="loads the model", since_us=event.since_us)
                    assert abs(event.since_us / 1e6 - t.bus.now_s()) < WAIT_S
                    go.set()
        assert (await t.result(run.id)).status == "done"


async def test_retry_says_its_number_in_each_word(server: NatsServer, namespace: str) -> None:
    ours: list[Team] = []

    async def a(context: Context) -> None:
        await listened(context, ours)
        await context.say("half done")
        if context.attempt == 1:
            raise Retry("again")

    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": a}) as t:
        ours.append(t)
        events = await run_of(t)
        words = [(event.attempt, event.text) for event in events if isinstance(event, Said) and event.text]
        assert words == [(1, "half done"), (2, "half done")]


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("what", "heard"),
    [
        ("a\nb\r\x1b[31mc\0d", "a b [31mc d"),
        ("half an emoji \ud83d", "half an emoji \ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("turned \u202eround", "turned  round"),
        (42, "42"),
        (None, "None"),
        (b"\xff", "b'\\xff'"),
        (Unspeakable(), "Unspeakable"),
        ("x" * 10_000_000, "x" * (SAID_CHARS_MAX - 1) + "…"),
    ],
    ids=["controls", "surrogate", "pair", "direction", "number", "none", "bytes", "unspeakable", "large"],
)
async def test_whatever_a_handler_says_is_heard_as_one_valid_line(what: object, heard: str) -> None:
    words: list[Word] = []
    live = Live(words.append, attempt=1)
    live.say(what)
    live.close()
    (word,) = words
    assert read_word("a", encode_word(word)) == Said(step="a", attempt=1, text=heard)


async def test_what_is_said_after_the_end_is_not_heard() -> None:
    """By a task or a thread that a handler has left behind."""
    words: list[Word] = []
    live = Live(words.append, attempt=1)
    live.say("last")
    write = live.writes()
    live.close()
    live.say("too late")
    write("too late")
    live.close()
    await asyncio.sleep(0.01)
    assert words == [Said(attempt=1, text="last")]


async def test_context_in_a_handlers_own_test_says_nothing_and_takes_it() -> None:
    context = Context(run="r", step="s", attempt=1)
    await context.say("hello")
    context.say("hello")
    assert context == Context(run="r", step="s", attempt=1)


# ---- what models write -----------------------------------------------------------------------------


@pytest.fixture
def model() -> Any:
    with talking_model() as model:
        yield model


class Writing:
    """A run of one model, watched by the test."""

    def __init__(self, run: Run) -> None:
        self.run, self.words, self.entries, self.hearing = run, [], [], Hearing()  # type: ignore[var-annotated]
        self.anew = 0
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        for_ever = aclosing(self.run.watch())
        async with for_ever as events:
            async for event in events:
                if isinstance(event, Wrote):
                    self.words.append(event)
                    self.anew += self.hearing.hear(event).anew
                elif isinstance(event, Entry):
                    self.entries.append(event)

    async def output(self) -> str:
        async with asyncio.timeout(WAIT_S):
            await self._watching
        return await self.run.result(returns=str)


@pytest.fixture
async def writing(server: NatsServer, namespace: str, model: TalkingModel, tmp_path: Path) -> AsyncIterator[Writing]:
    (tmp_path / "flow.toml").write_text(FLOW)
    found = find_flow(str(tmp_path / "flow.toml"))
    async with (
        open_bus(Settings(url=server.url, namespace=namespace)) as bus,
        client_on(bus) as client,
        Models(settings_for(model.url)) as models,
        hosting(Engine(bus), found, ["w"], models=models, grace_s=0.05),
    ):
        yield Writing(client.run(await start_run(client, found.plan, {})))
        await bus.js.delete_stream(namespace)


async def test_text_of_a_model_is_heard_as_it_is_written(writing: Writing, model: TalkingModel) -> None:
    model.say("Once ")
    await until(lambda: writing.hearing.shown == "Once ")
    model.say("upon a \U0001f30a", " time\n")
    await until(lambda: writing.hearing.shown == "Once upon a \U0001f30a time\n")
    assert not any(isinstance(entry.message, Result) for entry in writing.entries)
    model.say("the end")
    model.end()
    assert await writing.output() == writing.hearing.shown == "Once upon a \U0001f30a time\nthe end"
    assert {(word.attempt, word.of, word.step) for word in writing.words} == {(1, "", "write")}


async def test_answer_that_breaks_off_is_begun_anew_by_the_next_attempt(writing: Writing, model: TalkingModel) -> None:
    model.say("It was ", "a dark night")
    await until(lambda: writing.hearing.shown == "It was a dark night")
    model.break_off()
    model.say("It was a ", "bright day")
    model.end()
    assert await writing.output() == writing.hearing.shown == "It was a bright day"
    assert {word.attempt for word in writing.words} == {1, 2}
    assert writing.anew == 1
    assert sum(isinstance(entry.message, Note) for entry in writing.entries) >= 1


async def test_worker_that_stops_in_the_middle_of_a_text_is_followed_by_another(
    server: NatsServer, namespace: str, model: TalkingModel, tmp_path: Path
) -> None:
    (tmp_path / "flow.toml").write_text(FLOW)
    found = find_flow(str(tmp_path / "flow.toml"))

    def worker(bus: Bus) -> contextlib.AbstractAsyncContextManager[Any]:
        return hosting(Engine(bus), found, ["w"], models=models, grace_s=0.05)

    async with (
        connect(Settings(url=server.url, namespace=namespace, lease_s=1.0)) as client,
        Models(settings_for(model.url)) as models,
    ):
        async with open_bus(client.bus.settings) as bus, worker(bus):
            writing = Writing(client.run(await start_run(client, found.plan, {})))
            model.say("It was ", "a dark night")
            await until(lambda: writing.hearing.shown == "It was a dark night")
        model.break_off()
        async with open_bus(client.bus.settings) as bus, worker(bus):
            model.say("It was a bright day")
            model.end()
            assert await writing.output() == writing.hearing.shown == "It was a bright day"
        assert writing.anew == 1
        assert len({word.take for word in writing.words}) == 2
        await client.bus.js.delete_stream(namespace)


async def test_long_answer_is_heard_in_bounded_words(writing: Writing, model: TalkingModel) -> None:
    pieces = [f"{number} ".rjust(2_000, ".") for number in range(20)]
    model.say(*pieces)
    model.end()
    assert await writing.output() == "".join(pieces)
    assert writing.hearing.end("".join(pieces)).anew is False
    assert all(len(word.text) <= WROTE_CHARS_MAX for word in writing.words)
    assert len(writing.words) < len(pieces), "chunks go out together"


async def test_more_than_is_kept_is_a_gap_and_no_garbage() -> None:
    words: list[Word] = []
    live = Live(words.append, attempt=1)
    write = live.writes()
    text = "".join(f"{number:09d} " for number in range(30_000))
    for at in range(0, len(text), 1_000):
        write(text[at : at + 1_000])
    live.close()
    hearing = Hearing()
    for word in words:
        assert isinstance(word, Wrote)
        assert text[word.at : word.at + len(word.text)] == word.text
        hearing.hear(word)
    assert text.startswith(hearing.shown)
    assert sum(len(word.text) for word in words) < len(text)


# ---- strangers, and what goes wrong ------------------------------------------------------------------

HOSTILE = [
    b"",
    b"\xff\xfe",
    b"[]",
    b"null",
    b"{}",
    b'{"type":"said"}',
    b'{"type":"said","attempt":-1}',
    b'{"type":"said","attempt":1e99}',
    b'{"type":"said","attempt":1,"text":7}',
    b'{"type":"said","attempt":1,"text":"\\ud800"}',
    b'{"type":"said","attempt":1,"text":"' + b"x" * 100_000 + b'"}',
    b'{"type":"wrote","attempt":1,"at":-5,"text":"x"}',
    b'{"type":"wrote","attempt":1,"take":99999999999999999999,"text":"x"}',
    b'{"type":"sung","attempt":1,"text":"la"}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_word_is_none(body: bytes) -> None:
    word = read_word("a", body)
    assert word is None or word == Said(step="a", attempt=1, text=said_text("\ud800"))
    assert read_running("a", b"{}") is None
    assert read_word("a b", b'{"type":"said","attempt":1}') is None


async def test_words_of_strangers_change_nothing_and_bad_ones_are_not_heard(server: NatsServer, namespace: str) -> None:
    go = asyncio.Event()

    async def a() -> int:
        await go.wait()
        return 1

    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": a}) as t:
        run = t.client.run(await t.submit())
        forged: list[Event] = []
        entries = []
        async with asyncio.timeout(WAIT_S), aclosing(run.watch()) as events:
            async for event in events:
                if isinstance(event, Entry):
                    entries.append(event)
                    for body in HOSTILE:
                        for kind in ("words", "running", "end", "shouts"):
                            await t.bus.say(t.bus.subjects.live(run.id, kind, "a"), body)
                    await t.bus.say(t.bus.subjects.live(run.id, "words", "b"), b'{"type":"said","attempt":9}')
                elif isinstance(event, Said) and event.step == "b":
                    go.set()
                elif not isinstance(event, Running):
                    forged.append(event)
        assert [event for event in forged if not isinstance(event, Said)] == []
        assert fold(entries) == await t.state(run.id)


async def test_slow_listener_loses_words_and_no_message(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": lambda: 1}, start=False) as t:
        run = t.client.run(await t.submit())
        heard: list[Event] = []
        async with asyncio.timeout(WAIT_S), aclosing(run.watch()) as events:
            async for event in events:
                heard.append(event)
                if len(heard) == 1:
                    for number in range(3_000):
                        word = Said(attempt=1, text=str(number))
                        await t.bus.say(t.bus.subjects.live(run.id, "words", "a"), encode_word(word))
                    await t.bus.nc.flush()
                    await run.cancel()
        assert 0 < len(said(heard)) <= 1_000
        assert [type(event.message) for event in heard if isinstance(event, Entry)][-1] is Result


async def test_step_whose_bus_is_away_loses_words_and_not_work(tmp_path: Path, namespace: str) -> None:
    says, away, back = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def a(context: Context) -> int:
        says.set()
        await away.wait()
        for number in range(1_000):
            await context.say(f"nobody hears {number}")
        back.set()
        return 1

    async with (
        nats_server(tmp_path / "nats") as own,
        team(own.url, namespace, flow_of(ONE_STEP), {"a": a}) as t,
    ):
        run = await t.submit()
        await says.wait()
        await own.stop()
        await until(lambda: not t.bus.is_connected)
        away.set()
        await back.wait()
        await asyncio.to_thread(own.start_now)
        assert (await t.result(run)).status == "done"
        assert await t.kinds(run) == ["handoff", "result"]


async def test_words_are_dropped_while_the_connection_is_behind(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        heard: list[bytes] = []
        async with bus.hearing(f"{namespace}.live.r.words.a", lambda _, body: heard.append(body)):
            for _ in range(1_000):  # without a turn of the loop between, so that nothing is written
                bus.say_soon(f"{namespace}.live.r.words.a", b"x" * 10_000)
            bus.say_soon(f"{namespace}.live.r.words.a", b"x" * (bus.nc.max_payload + 1))
            bus.say_soon("no subject", b"")
            assert bus.nc.pending_data_size < 300_000
            await until(lambda: heard)
        assert bus.is_connected
        await bus.js.delete_stream(namespace)


# ---- teams in Python -------------------------------------------------------------------------------


def test_team_without_await_watches_too() -> None:
    flow = Flow("talks", input={"word": str})

    @flow.step
    def talk(word: str, context: Context) -> str:
        for _ in range(40):
            context.say(f"{word}!")
            time.sleep(0.01)
        return word

    with Baton.local(flow, data_dir=None) as team:
        events = list(team.start(word="ahoy").watch())
        assert {"ahoy!"} >= {event.text for event in events if isinstance(event, Said)} != set()
        assert isinstance(events[-1], Entry)
