"""Orchestrators in a run: killed, parked or failed in the middle of a conversation, nothing is asked or paid twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.models import Models
from baton_actors.processes.hosting import hosting
from baton_bus import Settings
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.run.fold import fold
from baton_schemas.wire.facts import ModelCall
from baton_schemas.wire.messages import Answer, Asked, Handoff, Note, Parked
from baton_schemas.wire.outcomes import Done, Failed

from .clients import result_of, start_run
from .model_servers import calls, says, settings_for
from .servers import WAIT_S, NatsServer
from .timed import until_so

FLOW = """
name = "f"
input = { topic = "str" }
steps.chief = {}

[agents.chief]
model = "synthesis"
prompt = "About {topic}."
workers = ["finder"]
max_rounds = 4
retry_base_s = 0.01

[agents.finder]
model = "worker"
prompt = "Find {question}."
description = "Finds."
input = { question = "str" }
"""

DYING = """
import os, signal, sys
from baton_actors.agents.conversation import Conversation
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.main import WorkerSpec, worker_main
from baton_actors.steps.memory import Memory
from baton_bus import Settings

def die():
    os.kill(os.getpid(), signal.SIGKILL)

async def record_and_die(self, digest, answer, record=Memory.record, seen=[]):
    stored = await record(self, digest, answer)
    seen.append(digest)
    if place == f"recorded {len(seen)}":
        die()
    return stored

def add_and_die(self, *args, add=Conversation.add, **more):
    die()

_, place, flow, url, namespace = sys.argv
Memory.record = record_and_die
if place == "answered":
    Conversation.add = add_and_die
settings = Settings(url=url, namespace=namespace, lease_s=1.0)
worker_main(WorkerSpec(flow=flow, agent="chief", settings=settings, logs=LogSettings()))
"""
DEATHS = ["recorded 1", "answered", "recorded 2"]


class Newsroom:
    """A model that calls the finder twice, then once, then answers; and the finder's model. Counts what it is asked."""

    def __init__(self, server: HTTPServer) -> None:
        self.chief: list[int] = []
        """How many messages each request of the chief had."""
        self.finder: list[str] = []
        self.never_ends = False
        self.size = 0
        self.settings = settings_for(server.url_for(""))
        server.expect_request("/v1/messages").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        body: Any = request.get_json()
        messages = body["messages"]
        if "tools" not in body:
            self.finder.append(messages[0]["content"])
            return Response(says(f"Found: {messages[0]['content']}"), content_type="text/event-stream")
        self.chief.append(len(messages))
        thinking = {"type": "thinking", "thinking": "Hm. " + "x" * self.size, "signature": "c2ln"}
        match 10 if self.never_ends else len(messages):
            case 1:
                said = says(thinking, *(calls("finder", f"t{n}", {"question": f"{n}"}) for n in range(2)))
            case 3:
                assert messages[1]["content"][0] == thinking
                assert [block["content"] for block in messages[2]["content"]] == ["Found: Find 0.", "Found: Find 1."]
                said = says(calls("finder", "t0", {"question": "2"}))
            case 5:
                assert messages[4]["content"][0]["content"] == "Found: Find 2."
                said = says("It is so.")
            case _:
                said = says(calls("finder", f"t{len(messages)}", {"question": "why"}))
        return Response(said, content_type="text/event-stream")


@pytest.fixture
def newsroom(httpserver: HTTPServer) -> Newsroom:
    return Newsroom(httpserver)


@pytest.fixture
def found(tmp_path: Path) -> FoundFlow:
    (tmp_path / "flow.toml").write_text(FLOW)
    return find_flow(str(tmp_path / "flow.toml"))


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace, lease_s=1.0)) as bus:
        yield bus
        await bus.js.delete_stream(namespace)


@contextlib.asynccontextmanager
async def working(bus: Bus, found: FoundFlow, newsroom: Newsroom, *agents: str) -> AsyncIterator[None]:
    async with (
        open_bus(bus.settings) as own,
        Models(newsroom.settings) as models,
        hosting(Engine(own), found, list(agents), models=models, grace_s=0.05),
    ):
        yield


async def messages_of(bus: Bus, run: str, kind: type[Any]) -> list[Any]:
    return [entry.message for entry in await bus.log.run(run) if isinstance(entry.message, kind)]


async def calls_of(bus: Bus, run: str, step: str = "chief") -> list[ModelCall]:
    notes = [note for note in await messages_of(bus, run, Note) if note.step == step]
    return [note.fact for note in notes if isinstance(note.fact, ModelCall)]


async def done(bus: Bus, run: str) -> Done:
    result = await result_of(bus, run, timeout_s=WAIT_S)
    assert isinstance(result.outcome, Done), result
    return result.outcome


@pytest.mark.parametrize("place", DEATHS)
async def test_killed_orchestrator_goes_on_in_the_middle_of_its_conversation(
    place: str, bus: Bus, found: FoundFlow, newsroom: Newsroom
) -> None:
    run = await start_run(bus, found.plan, {"topic": "tea"})
    environ = os.environ | {"ANTHROPIC_BASE_URL": newsroom.settings.base_url, "ANTHROPIC_API_KEY": "test-key"}
    command = [sys.executable, "-c", DYING, place, found.source, bus.settings.url, bus.settings.namespace]
    async with working(bus, found, newsroom, "finder"):
        process = await asyncio.create_subprocess_exec(*command, env=environ)
        assert await process.wait() == -signal.SIGKILL
        async with working(bus, found, newsroom, "chief"):
            outcome = await done(bus, run)
    assert msgspec.json.decode(outcome.output) == "It is so."
    assert newsroom.chief == [1, 3, 5]
    assert sorted(newsroom.finder) == ["Find 0.", "Find 1.", "Find 2."]
    assert len(await calls_of(bus, run)) == 3
    asked = [each for each in await messages_of(bus, run, Handoff) if isinstance(each.cause, Asked)]
    assert len(asked) == len(await messages_of(bus, run, Answer)) == 3
    assert outcome.work.usage is not None
    assert outcome.work.usage.input_tokens == 30
    state = fold(await bus.log.run(run))
    assert (state.usage.input_tokens, state.wasted_usd) == (60, 0)


async def test_orchestrator_that_waits_long_is_parked_and_goes_on_without_asking_its_model_again(
    bus: Bus, newsroom: Newsroom, tmp_path: Path
) -> None:
    (tmp_path / "f.toml").write_text(FLOW.replace("max_rounds = 4", "park_after_s = 0.05"))
    found = find_flow(str(tmp_path / "f.toml"))
    run = await start_run(bus, found.plan, {"topic": "tea"})

    async def is_parked() -> bool:
        return bool(await messages_of(bus, run, Parked))

    async with working(bus, found, newsroom, "chief"):
        await until_so(is_parked)
    async with working(bus, found, newsroom, "chief", "finder"):
        await done(bus, run)
    assert newsroom.chief == [1, 3, 5]
    assert len(newsroom.finder) == 3


async def test_large_conversation_is_recorded_beside_the_log(bus: Bus, found: FoundFlow, newsroom: Newsroom) -> None:
    newsroom.size = bus.inline_limit_bytes
    run = await start_run(bus, found.plan, {"topic": "tea"})

    async def is_recorded() -> bool:
        return bool(await calls_of(bus, run))

    async with working(bus, found, newsroom, "chief"):
        await until_so(is_recorded)
    async with working(bus, found, newsroom, "chief", "finder"):
        await done(bus, run)
    first, *_ = await calls_of(bus, run)
    assert first.content_blob is not None
    assert (bytes(first.content), first.blob, first.stop_reason) == (b"null", None, "tool_use")
    assert newsroom.chief == [1, 3, 5]


async def test_orchestrator_that_never_ends_fails_the_run_and_shows_what_was_said(
    bus: Bus, found: FoundFlow, newsroom: Newsroom
) -> None:
    newsroom.never_ends = True
    run = await start_run(bus, found.plan, {"topic": "tea"})
    async with working(bus, found, newsroom, "chief", "finder"):
        result = await result_of(bus, run, timeout_s=WAIT_S)
    assert isinstance(result.outcome, Failed)
    error = result.outcome.error
    assert (error.type, error.attempts) == ("TooManyRounds", 1)
    assert 'round 1, finder(question="why"): Found: Find why.' in error.message
    assert newsroom.chief == [1, 3, 5, 7]
    state = fold(await bus.log.run(run))
    assert state.usage.input_tokens == 10 * (4 + 3)
