"""A stand-in for the Messages API with a prompt cache, which says and sums up what each request took."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from baton_actors.models import ModelSettings

from .model_servers import end, settings_for, sse, start, text
from .prompt_cache import PromptCache, Took, TooManyMarks

_OUTPUT_TOKENS = 7


class CachingServer:
    """Answers `Yes.`, some time after a request has come. Use `caching_server` to start one."""

    def __init__(self, begins_after_s: float) -> None:
        """`begins_after_s` is how long its model reads before an answer begins."""
        self.begins_after_s = begins_after_s
        self.cache = PromptCache()
        self.took: list[Took] = []
        self.bodies: list[dict[str, Any]] = []
        """The last few requests."""
        self.fail_next = 0
        """So many requests are answered with 500."""
        self.port = 0

    @property
    def settings(self) -> ModelSettings:
        """How it is reached."""
        return settings_for(f"http://127.0.0.1:{self.port}")

    @property
    def cost_usd(self) -> float:
        """What all requests cost, by its own prices."""
        return sum(took.cost_usd(_OUTPUT_TOKENS) for took in self.took)

    @property
    def writes(self) -> int:
        """How many requests wrote something into the cache."""
        return sum(1 for took in self.took if took.written)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:")
                await self._answer(json.loads(await reader.readexactly(length)), writer)
        writer.close()

    async def _answer(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        self.bodies = [*self.bodies[-9:], body]
        try:
            took, written = self.cache.take(body, loop.time())
        except TooManyMarks as error:
            return _send(writer, 400, _error("invalid_request_error", str(error)))
        await asyncio.sleep(self.begins_after_s)
        if self.fail_next:
            self.fail_next -= 1
            return _send(writer, 500, _error("api_error", "Sorry"))
        self.took.append(took)
        self.cache.begun(written, loop.time())
        begun = start()
        begun["message"]["usage"] = {"output_tokens": 1, **took.usage}
        events = sse(begun, *text("Yes."), *end("end_turn", _OUTPUT_TOKENS))
        return _send(writer, 200, events, "text/event-stream")


def _error(type: str, message: str) -> str:
    return json.dumps({"type": "error", "error": {"type": type, "message": message}})


def _send(writer: asyncio.StreamWriter, status: int, body: str, kind: str = "application/json") -> None:
    head = f"HTTP/1.1 {status} Any\r\ncontent-type: {kind}\r\ncontent-length: {len(body.encode())}\r\n\r\n"
    writer.write((head + body).encode())


@contextlib.asynccontextmanager
async def caching_server(begins_after_s: float = 0.1) -> AsyncIterator[CachingServer]:
    """Start one in this loop."""
    ours = CachingServer(begins_after_s)
    server = await asyncio.start_server(ours.serve, "127.0.0.1", 0, limit=1 << 20)
    ours.port = server.sockets[0].getsockname()[1]
    try:
        yield ours
    finally:
        server.close()
