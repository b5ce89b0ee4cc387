"""A stand-in for the Messages API that keeps what it was sent: for tests of documents and pictures."""

from __future__ import annotations

import base64
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from baton_actors.agents.loading import FoundFlow
from baton_actors.models import Models
from baton_actors.processes.hosting import hosting
from baton_bus import Client, Settings, connect
from baton_bus.engine.engine import Engine

from .model_servers import end, settings_for, sse, start, text


class Documents:
    """Answers each request with its number; `contents` are what the prompts were."""

    def __init__(self, server: HTTPServer) -> None:
        self.contents: list[Any] = []
        self.settings = settings_for(server.url_for(""))
        self._lock = threading.Lock()
        server.expect_request("/v1/messages").respond_with_handler(self._answer)

    def data_of(self, kind: str) -> list[bytes]:
        """The bytes of all documents, or pictures, that it was sent."""
        return [base64.b64decode(block["source"]["data"]) for block in self.blocks(kind)]

    def blocks(self, kind: str) -> list[dict[str, Any]]:
        """All blocks of a kind, of those requests that came as blocks."""
        lists = [content for content in self.contents if isinstance(content, list)]
        return [block for content in lists for block in content if block["type"] == kind]

    def _answer(self, request: Request) -> Response:
        body: Any = request.get_json()
        with self._lock:
            self.contents.append(body["messages"][0]["content"])
            said = f"answer {len(self.contents)}"
        return Response(sse(start(input_tokens=9), *text(said), *end("end_turn")), content_type="text/event-stream")


@contextlib.asynccontextmanager
async def playing(settings: Settings, found: FoundFlow, documents: Documents) -> AsyncIterator[Client]:
    """Play all agents of a flow; give a client of another connection."""
    async with (
        connect(settings) as own,
        connect(settings) as client,
        Models(documents.settings) as models,
        hosting(Engine(own.bus), found, list(found.flow.agents), models=models, grace_s=0.05),
    ):
        yield client
        await client.bus.js.delete_stream(settings.namespace)
