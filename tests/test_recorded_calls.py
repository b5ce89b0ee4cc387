"""Model calls are paid once: a recorded answer is used by whoever does the step next, and by nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from msgspec import Raw
from msgspec.structs import replace
from nats.aio.msg import Msg
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.models import ModelAnswer, ModelRequest, Models, request_digest
from baton_actors.processes.hosting import hosting
from baton_actors.steps.memory import Memory
from baton_bus import Settings
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import LogFull
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.run.state import Entry
from baton_schemas.wire.facts import Begun, Fact, GivenBack, ModelCall
from baton_schemas.wire.messages import Note, Result
from baton_schemas.wire.outcomes import Blob, Done

from .clients import result_of, start_run
from .model_servers import end, settings_for, sse, start, text
from .servers import WAIT_S, NatsServer, subscribed, until
from .timed import until_so

FLOW = """
name = "f"
input = { topic = "str" }
agents.writer = { model = "worker", prompt = "Write about {topic}.", concurrency = 1 }
steps.write = { agent = "writer" }
"""

DYING = """
import os, signal, sys
from baton_actors.processes.logs import LogSettings
from baton_actors.steps.memory import Memory
from baton_actors.processes.main import WorkerSpec, worker_main
from baton_bus import Settings

async def record_and_die(self, digest, answer, record=Memory.record):
    await record(self, digest, answer)
    os.kill(os.getpid(), signal.SIGKILL)

Memory.record = record_and_die
_, flow, url, namespace = sys.argv
settings = Settings(url=url, namespace=namespace, lease_s=1.0)
worker_main(WorkerSpec(flow=flow, agent="writer", settings=settings, logs=LogSettings()))
"""


class Writer:
    """A model that counts its calls, and numbers its answers."""

    def __init__(self, server: HTTPServer) -> None:
        self.prompts: list[str] = []
        self.size = 0
        """Characters that an answer has at least."""
        self.models = settings_for(server.url_for(""))
        server.expect_request("/v1/messages").respond_with_handler(self._answer)

    def _answer(self, request: Request) -> Response:
        body: Any = request.get_json()
        self.prompts.append(str(body["messages"][0]["content"]))
        said = f"answer {len(self.prompts)}".ljust(self.size, ".")
        events = [start(input_tokens=9), *text(said), *end("end_turn")]
        return Response(sse(*events), content_type="text/event-stream")


@pytest.fixture
def writer(httpserver: HTTPServer) -> Writer:
    return Writer(httpserver)


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
async def working(bus: Bus, found: FoundFlow, writer: Writer) -> AsyncIterator[None]:
    """A worker process of the writer, which gives back what it has not done when the context closes."""
    async with (
        open_bus(bus.settings) as own,
        Models(writer.models) as models,
        hosting(Engine(own), found, ["writer"], models=models, grace_s=0.05),
    ):
        yield


async def until_recorded(bus: Bus, run: str) -> None:
    async def is_there() -> bool:
        return any(isinstance(fact, ModelCall) for fact in await facts_of(bus, run))

    await until_so(is_there)


async def facts_of(bus: Bus, run: str) -> list[Fact]:
    return [entry.message.fact for entry in await bus.log.run(run) if isinstance(entry.message, Note)]


async def call_of(bus: Bus, run: str) -> ModelCall:
    """The only recorded call of a run."""
    (call,) = [fact for fact in await facts_of(bus, run) if isinstance(fact, ModelCall)]
    return call


async def output_of(bus: Bus, run: str) -> Any:
    result = await result_of(bus, run, timeout_s=WAIT_S)
    assert isinstance(result.outcome, Done), result
    blob = result.outcome.blob
    return msgspec.json.decode(await bus.blobs.get(blob) if blob else result.outcome.output)


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Workers get stuck right after they have recorded an answer, until the returned function is called."""
    record = Memory.record

    async def record_and_stick(self: Memory, digest: str, answer: ModelAnswer) -> None:
        await record(self, digest, answer)
        await asyncio.Event().wait()

    monkeypatch.setattr(Memory, "record", record_and_stick)
    return lambda: monkeypatch.setattr(Memory, "record", record)


async def test_worker_killed_with_the_answer_recorded_costs_no_second_call(
    bus: Bus, found: FoundFlow, writer: Writer
) -> None:
    run = await start_run(bus, found.plan, {"topic": "tea"})
    environ = os.environ | {"ANTHROPIC_BASE_URL": writer.models.base_url, "ANTHROPIC_API_KEY": "test-key"}
    command = [sys.executable, "-c", DYING, found.source, bus.settings.url, bus.settings.namespace]
    process = await asyncio.create_subprocess_exec(*command, env=environ)
    assert await process.wait() == -signal.SIGKILL
    await call_of(bus, run)
    async with working(bus, found, writer):
        assert await output_of(bus, run) == "answer 1"

    assert writer.prompts == ["Write about tea."]
    entries = await bus.log.run(run)
    assert [entry.subject.split(".")[1] for entry in entries] == ["handoff", "note", "note", "result"]
    assert [type(fact) for fact in await facts_of(bus, run)] == [ModelCall, Begun]
    assert_same_price(entries)


def assert_same_price(entries: list[Entry]) -> None:
    """What the outcome says that the step took is what the recorded call took."""
    notes = [entry.message.fact for entry in entries if isinstance(entry.message, Note)]
    (call,) = [fact for fact in notes if isinstance(fact, ModelCall)]
    (result,) = [entry.message for entry in entries if isinstance(entry.message, Result)]
    assert isinstance(result.outcome, Done)
    work = result.outcome.work
    assert (work.usage, work.cost_usd, work.model) == (call.usage, call.cost_usd, call.model)
    assert call.cost_usd


async def test_worker_stopped_with_the_answer_recorded_costs_no_second_call(
    bus: Bus, found: FoundFlow, writer: Writer, stuck: Callable[[], None]
) -> None:
    run = await start_run(bus, found.plan, {"topic": "tea"})
    async with working(bus, found, writer):
        await until_recorded(bus, run)
    stuck()
    async with working(bus, found, writer):
        assert await output_of(bus, run) == "answer 1"
    assert writer.prompts == ["Write about tea."]
    assert [type(fact) for fact in await facts_of(bus, run)] == [ModelCall, GivenBack]


async def test_large_answer_is_recorded_as_a_blob(
    bus: Bus, found: FoundFlow, writer: Writer, stuck: Callable[[], None]
) -> None:
    writer.size = bus.settings.inline_limit_bytes + 1
    run = await start_run(bus, found.plan, {"topic": "tea"})
    async with working(bus, found, writer):
        await until_recorded(bus, run)
    assert isinstance((await call_of(bus, run)).blob, Blob)
    stuck()
    async with working(bus, found, writer):
        assert await output_of(bus, run) == "answer 1".ljust(writer.size, ".")
    assert len(writer.prompts) == 1


async def test_record_of_another_question_is_not_used(bus: Bus, found: FoundFlow, writer: Writer) -> None:
    run = await start_run(bus, found.plan, {"topic": "tea"})
    call = ModelCall(request_sha256="0" * 64, text=Raw(b'"about coffee"'))
    await Journal(bus, found.plan.actor("write"), run, "write", "").write(call)
    async with working(bus, found, writer):
        assert await output_of(bus, run) == "answer 1"
    assert writer.prompts == ["Write about tea."]


async def test_record_of_another_run_is_not_used(bus: Bus, found: FoundFlow, writer: Writer) -> None:
    runs = [await start_run(bus, found.plan, {"topic": "tea"}) for _ in range(2)]
    async with working(bus, found, writer):
        outputs = [await output_of(bus, run) for run in runs]
    assert sorted(outputs) == ["answer 1", "answer 2"]


async def test_answer_that_the_log_has_no_room_for_waits_and_is_not_lost(
    bus: Bus, found: FoundFlow, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_bus.store.bus._FULL_RETRY_S", 0.02)
    # A logger that an earlier test used may be bound to that test's processors, past which nothing is captured.
    monkeypatch.setattr("baton_bus.store.bus.logger", structlog.get_logger("baton.bus"))
    run = await start_run(bus, found.plan, {"topic": "tea"})
    config = (await bus.js.stream_info(bus.settings.namespace)).config
    await bus.js.update_stream(config.evolve(max_bytes=4096))
    with pytest.raises(LogFull):
        while True:
            await bus.publisher.append(bus.subjects.task("filler"), b"x" * 64)
    with structlog.testing.capture_logs() as logs:
        async with working(bus, found, writer):
            await until(lambda: [entry for entry in logs if entry["event"] == "log.full"])
            await bus.js.update_stream(config.evolve(max_bytes=-1))
            assert await output_of(bus, run) == "answer 1"
    assert writer.prompts == ["Write about tea."]
    await call_of(bus, run)


# ---- what is the same question -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "asked"),
    [
        ({}, 0),
        ({"timeout_s": 1.0}, 0),
        ({"model": "claude-other"}, 1),
        ({"max_tokens": 7}, 1),
        ({"system": "Be brief."}, 1),
        ({"prompt": "Write about coffee."}, 1),
    ],
)
async def test_recorded_answer_is_used_for_the_same_question_of_the_same_model_only(
    changed: dict[str, Any], asked: int, bus: Bus, found: FoundFlow, writer: Writer
) -> None:
    tier = found.plan.tier(found.plan.agent("write"))
    same = ModelRequest(model=tier.model, system="", prompt="Write about tea.", max_tokens=tier.max_tokens, timeout_s=9)
    digest = request_digest(replace(same, **changed), writer.models)
    run = await start_run(bus, found.plan, {"topic": "tea"})
    recorded = ModelCall(request_sha256=digest, text=Raw(b'"recorded"'), model=tier.model)
    await Journal(bus, found.plan.actor("write"), run, "write", "").write(recorded)
    async with working(bus, found, writer):
        assert await output_of(bus, run) == ("answer 1" if asked else "recorded")
    assert len(writer.prompts) == asked


async def test_two_workers_that_ask_at_the_same_time_use_the_answer_that_is_recorded(
    bus: Bus, found: FoundFlow, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, recorded = Memory.record, asyncio.Event()

    async def second_is_first_and_sticks(self: Memory, digest: str, answer: ModelAnswer) -> ModelAnswer:
        if answer.text == "answer 1":
            await recorded.wait()
        used = await record(self, digest, answer)
        if answer.text == "answer 2":
            recorded.set()
            await asyncio.Event().wait()
        return used

    monkeypatch.setattr(Memory, "record", second_is_first_and_sticks)
    leases: list[str] = []

    async def on_lease(msg: Msg) -> None:
        if msg.data == b"+WPI":
            leases.append(msg.subject)

    await subscribed(bus.nc, f"$JS.ACK.{bus.settings.namespace}.>", cb=on_lease)
    run = await start_run(bus, found.plan, {"topic": "tea"})
    async with working(bus, found, writer):
        await until(lambda: writer.prompts and leases)
        async with working(bus, found, writer):  # the first has no place left, so the second gets it too
            await bus.nc.publish(leases[0], b"-NAK")
            assert await output_of(bus, run) == "answer 2"
    assert len(writer.prompts) == 2
    assert bytes((await call_of(bus, run)).text) == b'"answer 2"'
