"""A model over real HTTP that is slow, overloaded or cut off now and then, and counts what it is asked and answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from .history import History
from .plans import is_refused
from .talking import said_to, text_of

_TOPIC = re.compile(r"<topic>(.*)</topic>", re.DOTALL)
_QUESTION = re.compile(r"<question>(.*)</question>", re.DOTALL)
_CALL = re.compile(r"<call>(.*)/(.*)/(.*)</call>")
"""Of a handler that has a client: run, step, and what it asks."""
_PLAN = re.compile(r"<plan>(.*)/(.*)</plan>")
"""Of an agent with tools: run and step."""
_FACTS = re.compile(r"<facts>(.*?)x*</facts>", re.DOTALL)
_ERRORS = {429: "rate_limit_error", 500: "api_error", 529: "overloaded_error", 400: "invalid_request_error"}


USUAL = {"": 70, "slow": 10, "cut": 5, "429": 5, "500": 5, "529": 5}
"""How often each fault comes, in a hundred answers. One that is a number is the status of a refusal."""


class RateLimit(NamedTuple):
    """More requests than `requests` in any `window_s` seconds are refused with 429."""

    requests: int
    window_s: float
    says_when: bool
    """Whether the refusal has a `retry-after`, in whole seconds, as those of providers do."""


class _Asked(NamedTuple):
    """What a request is about."""

    run: str
    step: str
    text: str
    """The answer."""
    kind: str = "model"
    """Of what is said of it in the history: an agent of the flow, or a handler (`call`), asks the model."""
    facts: Mapping[str, Any] = {}
    """What is said besides."""
    blocks: Sequence[Mapping[str, Any]] = ()
    """What it answers with, where that is more than a text."""
    stop_reason: str = "end_turn"


class Model:
    """Answers `/v1/messages`, as a stream where that is asked for. The prompts of the chaos flows say for which run and
    step they are.
    """

    def __init__(
        self,
        history: History,
        dice: random.Random,
        *,
        faults: bool,
        weights: Mapping[str, float] = USUAL,
        limit: RateLimit | None = None,
        slow_s: tuple[float, float] = (0.5, 2.0),
    ) -> None:
        """`slow_s` is the least and the most that a slow answer takes, in seconds."""
        self._history, self._dice, self._faults = history, dice, faults
        self._weights, self._limit, self._slow_s = dict(weights), limit, slow_s
        self._let_in: deque[float] = deque()
        self._numbers = itertools.count()
        self.url = ""
        self.counts: Counter[str] = Counter()
        """Answers by their fault: `` for good ones, `limited` for what the rate limit refused."""

    async def limit_for(self, limit: RateLimit, lasts_s: float) -> None:
        """Refuse what is over this limit, for a while."""
        self._limit = limit
        await asyncio.sleep(lasts_s)
        self._limit = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().splitlines()
            head = {name: value for name, _, value in (line.partition(": ") for line in lines)}
            body = json.loads(await reader.readexactly(int(head["content-length"])))
            about = self._about(body["messages"], head)
            await self._answer(about, writer, body["model"], streamed=body.get("stream", False))
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    def _about(self, messages: list[dict[str, Any]], head: Mapping[str, str]) -> _Asked:
        prompt = text_of(messages[0])
        if (planned := _PLAN.search(prompt)) is not None:
            run, step = planned.groups()
            said = said_to(messages, run, step, next(self._numbers))
            return _Asked(run, step, "", "talk", said.facts, said.blocks, said.stop_reason)
        if (call := _CALL.search(prompt)) is None:
            return _Asked(*_about(prompt))
        run, step, what = call.groups()
        text = f"{run}/{step}/{what}: {next(self._numbers)}" + ("x" * 6_000 if what == "large" else "")
        facts = {"asker": step, "asked": what, "number": int(head["x-number"]), "attempt": head["x-attempt"]}
        return _Asked(run, f"{step}/{what}", text, "call", facts)

    async def _answer(self, about: _Asked, writer: asyncio.StreamWriter, model: str, *, streamed: bool) -> None:
        run, step, facts = about.run, about.step, about.facts
        wait_s = self._wait_s()
        fault = "limited" if wait_s else self._throw()
        if fault != "limited" and step != "write" and is_refused(run, step):
            fault = "400"
        self.counts[fault] += 1
        self._history.say(f"{about.kind}.asked", run=run, step=step, fault=fault, **facts)
        if fault == "limited":
            says_when = self._limit is not None and self._limit.says_when
            await _refuse(writer, 429, f"retry-after: {math.ceil(wait_s)}\r\n" if says_when else "")
            return
        if fault == "slow":
            await asyncio.sleep(self._dice.uniform(*self._slow_s))
        await asyncio.sleep(self._dice.uniform(0.01, 0.1))
        if fault.isdigit():
            await _refuse(writer, int(fault), "retry-after-ms: 50\r\n")
            return
        blocks = list(about.blocks) or [{"type": "text", "text": about.text}]
        before, after = (_events if streamed else _message)(blocks, about.stop_reason, model)
        writer.write(before)
        await writer.drain()
        if fault == "cut":
            writer.transport.abort()
            return
        await asyncio.sleep(0.005)
        self._history.say(f"{about.kind}.answered", run=run, step=step, **facts)
        writer.write(after)
        await writer.drain()

    def _throw(self) -> str:
        if not self._faults:
            return ""
        return self._dice.choices(list(self._weights), list(self._weights.values()))[0]

    def _wait_s(self) -> float:
        """Return how long a request that comes now has to wait, in seconds; 0 lets it in."""
        if self._limit is None:
            self._let_in.clear()
            return 0.0
        now = time.monotonic()
        while self._let_in and self._let_in[0] <= now - self._limit.window_s:
            self._let_in.popleft()
        if len(self._let_in) >= self._limit.requests:
            return self._let_in[0] + self._limit.window_s - now
        self._let_in.append(now)
        return 0.0


def _about(prompt: str) -> tuple[str, str, str]:
    """Return the run and the step that a prompt is for, and the answer."""
    if question := _QUESTION.search(prompt):  # of an agent that was asked: its step is known by what it was asked
        return question[1].partition("/")[0].rstrip("+"), question[1], f"nothing of {question[1]}"
    if topic := _TOPIC.search(prompt):
        run, index = re.findall(r"^(.*)/(\d+)x*$", topic[1])[0]
        return run, f"facts-{index}", topic[1]
    facts = _FACTS.search(prompt)
    assert facts is not None, prompt
    return facts[1], "write", f"on {facts[1]}"


async def _refuse(writer: asyncio.StreamWriter, status: int, when: str) -> None:
    """`when` is a line of the head that says when to come again, or nothing."""
    body = json.dumps({"type": "error", "error": {"type": _ERRORS[status], "message": "as the dice fell"}}).encode()
    head = f"HTTP/1.1 {status} No\r\ncontent-type: application/json\r\n{when}connection: close\r\n"
    writer.write(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


_MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "stop_sequence": None,
}


def _message(blocks: list[Mapping[str, Any]], stop_reason: str, model: str) -> tuple[bytes, bytes]:
    """Return an answer that is no stream, in two pieces as well."""
    message: dict[str, Any] = _MESSAGE | {"model": model, "content": blocks, "stop_reason": stop_reason}
    body = json.dumps(message | {"usage": {"input_tokens": 10, "output_tokens": 7}}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body[:40], body[40:]


def _events(blocks: list[Mapping[str, Any]], stop_reason: str, model: str) -> tuple[bytes, bytes]:
    """Return the events of an answer in two pieces, the first with its head: without the second it is no answer."""
    message: dict[str, Any] = _MESSAGE | {
        "model": model,
        "content": [],
        "stop_reason": None,
        "usage": {"input_tokens": 10, "output_tokens": 1},
    }
    of_blocks = [event for index, block in enumerate(blocks) for event in _events_of(index, block)]
    before = [{"type": "message_start", "message": message}, *of_blocks[:-1]]
    after: list[dict[str, Any]] = [
        of_blocks[-1],
        {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
    ]
    first, second = [
        "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in part) for part in (before, after)
    ]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    return head + first.encode(), second.encode()


def _events_of(index: int, block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the events of one block: a text, or a call of a tool."""
    is_text = block["type"] == "text"
    empty: dict[str, Any] = {"text": ""} if is_text else {"input": {}}
    delta = {"type": "text_delta", "text": block["text"]} if is_text else _arguments(block["input"])
    yield {"type": "content_block_start", "index": index, "content_block": {**block, **empty}}
    yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "input_json_delta", "partial_json": json.dumps(given)}
