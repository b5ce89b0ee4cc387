"""A stand-in for the Messages API that keeps connections, and workers whose handlers call it by the official client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from baton_actors import Flow
from baton_actors.agents.loading import FoundFlow
from baton_actors.models import Models, ModelSettings
from baton_actors.processes.hosting import hosting
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.run.fold import fold
from baton_schemas.run.state import RunState
from baton_schemas.wire.facts import Exchange, Fact, Spent
from baton_schemas.wire.messages import Note, Result
from baton_schemas.wire.outcomes import Work

from .clients import result_of, start_run
from .model_servers import end, settings_for, start, text
from .servers import WAIT_S, peer

HAIKU = "claude-haiku-4-5"
ASK: dict[str, Any] = {
    "model": HAIKU,
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "How are the tides?"}],
}
Answer = Callable[["Asked"], Sequence[bytes]]
"""The pieces of an answer, as they go over the wire; after one that does not say its length the connection closes."""


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]
    body: Any

    @classmethod
    async def read(cls, reader: asyncio.StreamReader) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return cls(lines[0].split()[1], headers, json.loads(body) if body else None)


class Provider:
    """Answers by its script, and else with `answer N`, as a stream where that is asked for."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.script: list[Answer] = []
        self.connections = 0
        self.answers = asyncio.Event()
        """It answers while this is set."""
        self.answers.set()
        self.url = ""

    @property
    def settings(self) -> ModelSettings:
        return settings_for(self.url)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                asked = await Asked.read(reader)
                self.asked.append(asked)
                await self.answers.wait()
                answer = self.script.pop(0) if self.script else self._answer
                pieces = answer(asked)
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                if not re.search(rb"content-length|transfer-encoding: chunked", b"".join(pieces[:1]).lower()):
                    break
                if b"transfer-encoding" in pieces[0] and not pieces[-1].endswith(b"0\r\n\r\n"):
                    break

    def _answer(self, asked: Asked) -> Sequence[bytes]:
        if "/v1/messages/count_tokens" in asked.path:
            return json_answer({"input_tokens": 42})
        said = f"answer {len(self.asked)}"
        return streamed(*said_by(said)) if asked.body.get("stream") else json_answer(message(said))


def message(said: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [{"type": "text", "text": said}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 10},
    } | more


def wants_tool(name: str, given: dict[str, Any]) -> dict[str, Any]:
    use = {"type": "tool_use", "id": "toolu_1", "name": name, "input": given}
    return message("", content=[use], stop_reason="tool_use")


def said_by(said: str) -> list[dict[str, Any]]:
    """The events of an answer, one for each word."""
    pieces = [f"{word} " for word in said.split()[:-1]] + said.split()[-1:]
    return [start(input_tokens=100), *text(*pieces), *end("end_turn", 10)]


def json_answer(body: Any, status: str = "200 OK", **headers: str) -> list[bytes]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"content_type": "application/json", "request_id": "req_42"} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    return [f"HTTP/1.1 {status}\r\n{lines}content-length: {len(data)}\r\n\r\n".encode() + data]


def error_answer(status: str, type: str = "api_error", **headers: str) -> list[bytes]:
    return json_answer({"type": "error", "error": {"type": type, "message": "no"}}, status, **headers)


def streamed(*events: dict[str, Any], whole: bool = True, **headers: str) -> list[bytes]:
    """Events in chunks of their own; not `whole`, the connection closes before it says that it is done."""
    fields = {"content_type": "text/event-stream", "request_id": "req_42"} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    head = f"HTTP/1.1 200 OK\r\n{lines}transfer-encoding: chunked\r\n\r\n".encode()
    chunks = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]
    return [head, *map(chunked, chunks), *([chunked(b"")] if whole else [])]


def chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@contextlib.asynccontextmanager
async def providing() -> AsyncIterator[Provider]:
    provider = Provider()
    async with peer(provider.serve) as address:
        provider.url = f"http://{address}"
        yield provider


class Crew:
    """A flow of handlers, and the workers that play it."""

    def __init__(self, bus: Bus, found: FoundFlow, settings: ModelSettings) -> None:
        self.bus, self.found, self.settings = bus, found, settings

    @contextlib.asynccontextmanager
    async def working(self, grace_s: float = 0.05) -> AsyncIterator[None]:
        """A worker process, which gives back what it has not done when the context closes."""
        async with (
            open_bus(self.bus.settings) as own,
            Models(self.settings) as models,
            hosting(Engine(own), self.found, list(self.found.flow.agents), models=models, grace_s=grace_s),
        ):
            yield

    async def start(self, **given: Any) -> str:
        return await start_run(self.bus, self.found.plan, given)

    async def result(self, run: str) -> Result:
        return await result_of(self.bus, run, timeout_s=WAIT_S)

    async def play(self, **given: Any) -> tuple[str, Result]:
        """Start a run, work, and return how it ended."""
        run = await self.start(**given)
        async with self.working():
            return run, await self.result(run)

    async def facts(self, run: str) -> list[Fact]:
        return [entry.message.fact for entry in await self.bus.log.run(run) if isinstance(entry.message, Note)]

    async def exchanges(self, run: str) -> list[Exchange]:
        return [fact for fact in await self.facts(run) if isinstance(fact, Exchange)]

    async def spent(self, run: str) -> list[Spent]:
        return [fact for fact in await self.facts(run) if isinstance(fact, Spent)]

    async def state(self, run: str) -> RunState:
        return fold(await self.bus.log.run(run))


def flow_of(handler: Any, **options: Any) -> FoundFlow:
    """A flow of one step, which a handler does; attempts follow each other at once."""
    flow = Flow("sdk")
    flow.step(handler, name="write", **({"retry_base_s": 0.01, "retry_max_s": 0.02} | options))
    return flow.found()


def work_of(result: Result) -> Work:
    assert result.outcome is not None
    work = getattr(result.outcome, "work", None)
    assert isinstance(work, Work)
    return work
