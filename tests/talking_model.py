"""A model whose answers a test writes piece by piece, over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from .model_servers import end, sse, start, text
from .servers import WAIT_S

_END, _BREAK = object(), object()


class TalkingModel:
    """Each call is answered by what the test says from then on, until it ends the answer or breaks it off."""

    def __init__(self, server: HTTPServer) -> None:
        self.url = server.url_for("")
        self.calls = 0
        self._script: SimpleQueue[object] = SimpleQueue()
        self._turn = threading.Lock()
        server.expect_request("/v1/messages").respond_with_handler(self._answer)

    @property
    def environ(self) -> dict[str, str]:
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": "test-key"}

    def say(self, *pieces: str) -> None:
        for piece in pieces:
            self._script.put(piece)

    def end(self) -> None:
        self._script.put(_END)

    def break_off(self) -> None:
        self._script.put(_BREAK)

    def _answer(self, _: Request) -> Response:
        self.calls += 1
        return Response(self._events(), content_type="text/event-stream")

    def _events(self) -> Iterator[str]:
        with self._turn:
            block, *_ = text()
            yield sse(start(), block)
            while isinstance(said := self._script.get(timeout=WAIT_S), str):
                yield sse(text(said)[1])
            if said is _END:
                yield sse(*end("end_turn"))


@contextmanager
def talking_model() -> Iterator[TalkingModel]:
    """Start a model, and stop it in the end."""
    server = HTTPServer(threaded=True)
    server.start()
    model = TalkingModel(server)
    try:
        yield model
    finally:
        model.break_off()
        server.clear()
        server.stop()
