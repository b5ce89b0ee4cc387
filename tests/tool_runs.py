"""Runs of a step whose model calls tools: its flow, workers that play it, one that is killed in a call, its facts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from baton_actors.agents.loading import FoundFlow
from baton_actors.models import Models
from baton_actors.processes.hosting import hosting
from baton_bus import Settings
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.wire.messages import Asked, Handoff, Note, Result

from .clients import result_of
from .model_servers import ScriptedModel
from .servers import WAIT_S, NatsServer

FLOW = """
name = "f"
input = { topic = "str" }
steps.desk = {}

[agents.desk]
model = "synthesis"
prompt = "About {topic}."
tools = ["./tools.py:search", "./tools.py:refund"]
tool_timeout_s = 0.5
retry_base_s = 0.01
"""
TOOLS = '''
import asyncio
from pathlib import Path
from baton_actors import tool

HERE = Path(__file__).parent

def note(what):
    with open(HERE / "calls", "a") as file:
        file.write(what + "\\n")

@tool(idempotent=True)
def search(query: str) -> list[str]:
    """Search."""
    note(f"search {query}")
    return [query]

@tool
async def refund(order: str) -> str:
    """Pay back."""
    note(f"refund {order}")
    if (HERE / "slow").exists():
        await asyncio.sleep(60)
    return f"refunded {order}"
'''
DYING = """
import os, signal, sys
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.main import WorkerSpec, worker_main
from baton_actors.steps.tool_records import ToolRecords
from baton_bus import Settings

_, place, flow, url, namespace = sys.argv

def die():
    os.kill(os.getpid(), signal.SIGKILL)

async def begin_and_die(self, begun, begin=ToolRecords.begin):
    stored = await begin(self, begun)
    die()

async def record_and_die(self, call, record=ToolRecords.record):
    if call.name == "refund" and place == "called":
        die()
    stored = await record(self, call)
    if call.name == "refund" and place == "recorded":
        die()
    return stored

if place == "begun":
    ToolRecords.begin = begin_and_die
ToolRecords.record = record_and_die
settings = Settings(url=url, namespace=namespace, lease_s=1.0)
worker_main(WorkerSpec(flow=flow, agent="desk", settings=settings, logs=LogSettings()))
"""


@pytest.fixture(name="bus")
async def opened_bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace, lease_s=1.0)) as bus:
        yield bus
        await bus.js.delete_stream(namespace)


@contextlib.asynccontextmanager
async def working(bus: Bus, found: FoundFlow, model: ScriptedModel, grace_s: float = 0.05) -> AsyncIterator[None]:
    async with (
        open_bus(bus.settings) as own,
        Models(model.settings) as models,
        hosting(Engine(own), found, ["desk"], models=models, grace_s=grace_s),
    ):
        yield


def called(found: FoundFlow) -> list[str]:
    path = found.folder / "calls"
    return sorted(path.read_text().split("\n")[:-1]) if path.exists() else []


async def facts(bus: Bus, run: str, kind: type[Any] = object) -> list[Any]:
    notes = [entry.message for entry in await bus.log.run(run) if isinstance(entry.message, Note)]
    return [note.fact for note in notes if isinstance(note.fact, kind)]


async def questions(bus: Bus, run: str) -> list[Handoff]:
    asked = [entry.message for entry in await bus.log.run(run) if isinstance(entry.message, Handoff)]
    return [each for each in asked if isinstance(each.cause, Asked) and each.cause.kind == "person"]


async def ended(bus: Bus, run: str) -> Result:
    return await result_of(bus, run, timeout_s=WAIT_S)


async def killed(bus: Bus, found: FoundFlow, model: ScriptedModel, place: str) -> None:
    """Have a worker that is killed at a place in the middle of a call."""
    environ = os.environ | {"ANTHROPIC_BASE_URL": model.settings.base_url, "ANTHROPIC_API_KEY": "test-key"}
    command = [sys.executable, "-c", DYING, place, found.source, bus.settings.url, bus.settings.namespace]
    process = await asyncio.create_subprocess_exec(*command, env=environ)
    assert await process.wait() == -signal.SIGKILL


async def notes(bus: Bus, run: str) -> list[Note]:
    return [entry.message for entry in await bus.log.run(run) if isinstance(entry.message, Note)]
