"""A stand-in for the Message Batches API over real HTTP: it delays, forgets, expires, refuses, and counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from baton_actors.models import ModelSettings

from .model_servers import settings_for
from .sdk_clients import error_answer, json_answer, message
from .servers import peer

PATH = "/v1/messages/batches"
Result = dict[str, Any]


class SentBatch:
    """A batch as the API has it."""

    def __init__(self, id: str, requests: list[dict[str, Any]]) -> None:
        self.id, self.requests = id, requests
        self.created_at = datetime.now(UTC)
        self.is_canceled = False
        self.looks = 0
        self.ended = False
        self.has_results = True

    @property
    def names(self) -> list[str]:
        return [request["custom_id"] for request in self.requests]


class BatchApi:
    """Ends batches at once, or when `ends` is set; a prompt with a word in capitals gets what `results` says of it."""

    def __init__(self) -> None:
        self.batches: dict[str, SentBatch] = {}
        self.asked: Counter[str] = Counter()
        """How often each call was taken, by its custom id."""
        self.refused: list[int] = []
        """How many calls each batch had that was refused."""
        self.calls: list[tuple[str, str]] = []
        """All requests: method and path."""
        self.ends = asyncio.Event()
        self.ends.set()
        self.script: list[Callable[[list[dict[str, Any]]], list[bytes] | None]] = []
        """What the next batches are answered that are sent; None: nothing, and the connection is cut."""
        self.keeps_first = False
        """Whether what the script answers otherwise is taken all the same."""
        self.forgotten: set[str] = set()
        self.results: dict[str, list[Result]] = {}
        """By a word in the prompt: its results, one after the other."""
        self.refuses = ""
        """A word: batches with a prompt that has it are refused as a whole."""
        self.lists = True
        self.cuts: Callable[[str, str], bool] = lambda method, path: False
        """Says of a request whether its connection is cut once it is taken, without an answer."""
        self.on_sent: Callable[[], None] = lambda: None
        self.url = ""

    @property
    def settings(self) -> ModelSettings:
        return settings_for(self.url)

    @property
    def sizes(self) -> list[int]:
        return [len(batch.requests) for batch in self.batches.values()]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = head.split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path = lines[0].split()[:2]
                path = path.partition("?")[0]
                self.calls.append((method, path))
                answer = self._answer(method, path, json.loads(body) if body else None)
                if answer is None or self.cuts(method, path):
                    break
                for piece in answer:
                    writer.write(piece)
                await writer.drain()

    def _answer(self, method: str, path: str, body: Any) -> list[bytes] | None:
        if (method, path) == ("POST", PATH):
            return self._create(body["requests"])
        if (method, path) == ("GET", PATH):
            if not self.lists:
                return error_answer("404 Not Found", "not_found_error")
            found = sorted(self.batches.values(), key=lambda batch: batch.created_at, reverse=True)
            return json_answer({"data": [self._shown(each) for each in found], "has_more": False})
        id, _, what = path.removeprefix(f"{PATH}/").partition("/")
        batch = self.batches.get(id)
        if batch is None or id in self.forgotten:
            return error_answer("404 Not Found", "not_found_error")
        if what == "cancel":
            batch.is_canceled = True
            return json_answer(self._shown(batch))
        if what == "results":
            if not batch.has_results:
                return error_answer("404 Not Found", "not_found_error")
            found_results = [self._result(batch, request) for request in batch.requests]
            random.shuffle(found_results)
            data = "".join(json.dumps(each) + "\n" for each in found_results).encode()
            return json_answer(data, content_type="application/x-jsonl")
        batch.looks += 1
        return json_answer(self._shown(batch))

    def _create(self, requests: list[dict[str, Any]]) -> list[bytes] | None:
        if self.refuses and any(self.refuses in prompt_of(request) for request in requests):
            self.refused.append(len(requests))
            return error_answer("400 Bad Request", "invalid_request_error")
        answer = self.script.pop(0)(requests) if self.script else []
        if answer != [] and not self.keeps_first:
            return answer
        batch = SentBatch(f"msgbatch_{len(self.batches) + 1}", requests)
        self.batches[batch.id] = batch
        self.asked.update(batch.names)
        self.on_sent()
        return json_answer(self._shown(batch)) if answer == [] else answer

    def _shown(self, batch: SentBatch) -> dict[str, Any]:
        batch.ended = batch.ended or self.ends.is_set() or batch.is_canceled
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts["succeeded" if batch.ended else "processing"] = len(batch.requests)
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if batch.ended else "in_progress",
            "request_counts": counts,
            "created_at": batch.created_at.isoformat(),
            "expires_at": (batch.created_at + timedelta(days=1)).isoformat(),
            "ended_at": datetime.now(UTC).isoformat() if batch.ended else None,
            "results_url": f"{self.url}{PATH}/{batch.id}/results" if batch.ended and batch.has_results else None,
            "archived_at": None,
            "cancel_initiated_at": None,
        }

    def _result(self, batch: SentBatch, request: dict[str, Any]) -> dict[str, Any]:
        said = prompt_of(request)
        result: Result = {"type": "succeeded", "message": message(f"{said}: yes", id=f"msg_{request['custom_id']}")}
        if batch.is_canceled and not self.ends.is_set():
            result = {"type": "canceled"}
        for word, results in self.results.items():
            if word in said and results:
                result = results.pop(0)
        return {"custom_id": request["custom_id"], "result": result}


def prompt_of(request: dict[str, Any]) -> str:
    content = request["params"]["messages"][0]["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


def errored(type: str = "api_error") -> Result:
    return {"type": "errored", "error": {"type": "error", "error": {"type": type, "message": "no"}, "request_id": "r"}}


@contextlib.asynccontextmanager
async def batching() -> AsyncIterator[BatchApi]:
    api = BatchApi()
    async with peer(api.serve) as address:
        api.url = f"http://{address}"
        yield api
