"""The roll call: whoever comes in the middle of a run hears at once who works on what, and who is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from baton_bus import Settings
from baton_bus.client.hub import Hub
from baton_bus.client.roll import Crew, ask_roll, held_of, roll_call
from baton_bus.jetstream.nats_client import NatsClient
from baton_bus.store.bus import open_bus
from baton_schemas.flow.flow import Step
from baton_schemas.wire.words import Here, Running, Word, encode_word, read_here

from .consoles import served
from .servers import WAIT_S, NatsServer, until
from .team import Team, flow_of, team

ONE_STEP = {"a": Step(agent="a")}
SOON_S = 1.0
"""Workers say unasked every two seconds what they do: within this it is an answer."""


class Held:
    """A handler that holds its steps until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = 0, asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        await self.go.wait()
        return 1


async def quiet(t: Team, run: str) -> None:
    """Wait until a worker has just said by itself what it does: it says no more for two seconds."""
    said = asyncio.Event()
    async with t.bus.hearing(t.bus.subjects.live(run, "running", "a"), lambda *_: said.set()):
        async with asyncio.timeout(WAIT_S):
            await said.wait()


async def test_who_hears_of_a_run_in_its_middle_is_told_at_once_what_is_in_hand_and_since_when(
    server: NatsServer, namespace: str
) -> None:
    held = Held()
    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": held}) as t:
        began_s = t.bus.now_s()
        run, other = await t.submit(), await t.submit()
        await until(lambda: held.begun == 2)
        await quiet(t, run)
        heard: list[tuple[str, Running | Word]] = []
        async with (
            Hub(t.bus).opened() as hub,
            hub.hearing(run, lambda _: None, lambda of, word: heard.append((of, word))),
        ):
            async with asyncio.timeout(SOON_S):
                await until(lambda: heard)
        of, word = heard[0]
        assert isinstance(word, Running)
        assert (of, word.step, word.attempt) == (run, "a", 1)
        assert began_s - 1 < word.since_us / 1e6 < t.bus.now_s()
        assert other not in {of for of, _ in heard}
        held.go.set()
        assert (await t.result(run)).status == "done"


async def test_page_opened_in_the_middle_shows_what_is_running(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    held = Held()
    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": held}) as t:
        run = await t.submit()
        await until(lambda: held.begun)
        await quiet(t, run)
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:
            (row,) = (await console.get(f"/runs/{run}.json")).json()["steps"]
            assert (row["step"], row["status"]) == ("a", "running")
            feed = await console.console.feeds.read(run)
            assert list(feed.since()) == ["a"]
        held.go.set()
        assert (await t.result(run)).status == "done"


async def test_namespace_is_told_who_is_there_and_what_they_have_in_hand(server: NatsServer, namespace: str) -> None:
    held = Held()
    flow = flow_of({"a": Step(agent="a"), "b": Step(agent="b", after=["a"])})
    async with team(server.url, namespace, flow, {"a": held, "b": lambda: 2}) as t:
        (idle,) = await roll_call(t.bus)
        assert (idle.host, idle.pid, idle.in_hand) == (socket.gethostname(), os.getpid(), 0)
        assert idle.actors == ("flow--a", "flow--b")
        assert idle.version
        assert 0 < idle.since_us / 1e6 <= t.bus.now_s()
        run = await t.submit()
        await until(lambda: held.begun)
        (busy,) = await roll_call(t.bus)
        assert busy.in_hand == 1
        held.go.set()
        await t.result(run)
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        assert await roll_call(bus, 0.1) == []


async def test_many_who_ask_at_once_are_answered_together(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": lambda: 1}) as t:
        answers: list[bytes] = []
        async with t.bus.hearing(t.bus.subjects.here(), lambda _, body: answers.append(body)):
            for _ in range(500):
                await t.bus.say(t.bus.subjects.roll(), b"")
            await t.bus.nc.flush()
            await until(lambda: len(answers) >= 2)
            crew = await roll_call(t.bus)
        assert len(crew) == 1
        assert len(answers) <= 20


HOSTILE = [
    b"",
    b"null",
    b'{"host":7,"pid":1}',
    b'{"host":"h","pid":-1}',
    b'{"host":"' + b"h" * 256 + b'","pid":1}',
    b'{"host":"h","pid":1,"actors":[' + b",".join([b'"a"'] * 1_001) + b"]}",
    b"[" * 100_000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_who_is_no_worker_is_not_there(body: bytes) -> None:
    assert read_here(body) is None


def test_names_that_are_none_are_left_out() -> None:
    said = read_here(b'{"host":"a\\u0000\\nb","pid":1,"actors":["ok","<b>","a.b"],"version":"\\u202e1"}')
    assert said == Here(host="a b", pid=1, actors=("ok",), version="1")


async def test_strangers_who_ask_and_answer_change_nothing(server: NatsServer, namespace: str) -> None:
    held = Held()
    async with team(server.url, namespace, flow_of(ONE_STEP), {"a": held}) as t, Crew(t.bus).hearing() as crew:
        run = await t.submit()
        await until(lambda: held.begun)
        for body in HOSTILE:
            await t.bus.say(t.bus.subjects.here(), body)
            await t.bus.say(t.bus.subjects.roll(run), body)
            await t.bus.say(t.bus.subjects.live(run, "running", "a"), body)
            await t.bus.say(t.bus.subjects.live(run, "roll", "a"), body)
        for number in range(3_000):
            await t.bus.say(t.bus.subjects.here(), encode_word(Here(host="forged", pid=number)))
            await t.bus.say(t.bus.subjects.roll(f"none{number}"), b"")
        await t.bus.nc.flush()
        await until(lambda: len(crew.here()) >= 2_000)
        assert len(crew.here()) == 2_000
        found = await held_of(t.bus, run, {"a"}, 1, SOON_S)
        assert [word.step for word in found.values()] == ["a"]
        held.go.set()
        assert (await t.result(run)).status == "done"


async def test_nobody_is_asked_where_nobody_would_hear_it(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        asked: list[str] = []
        async with bus.hearing(bus.subjects.roll("*"), lambda subject, _: asked.append(subject)):
            assert ask_roll(bus, "r")
            await until(lambda: asked)
            with contextlib.ExitStack() as stack:
                walled = Settings(url=server.url, namespace=namespace, api_prefix="baton-api")
                bus.settings, old = walled, bus.settings
                stack.callback(setattr, bus, "settings", old)
                assert not ask_roll(bus, "r")
                assert await held_of(bus, "r", {"a"}, 1, 0.0) == {}
            await bus.nc.flush()
        assert asked == [f"{namespace}.live.r.roll.-"]


async def test_who_was_refused_to_ask_asks_no_more(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        assert ask_roll(bus)
        assert isinstance(bus.nc, NatsClient)
        bus.nc.heard(Exception(f'nats: permissions violation for publish to "{bus.subjects.roll("other")}"'))
        assert not ask_roll(bus)
        assert not ask_roll(bus, "r")
