"""Requests over one inbox: a future for each, one subscription for all, and one clock for their time-outs.

nats-py's own `request` makes an id of 26 random characters, a timer and a task per call; on the path of
every handoff that costs a third of the throughput.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, Error, OutboundBufferLimitError

from baton_bus.errors import BusError

AGAIN_AFTER_S = (1.0, 3.0)
"""When a request that may be sent twice is sent again, in seconds: what a leader held when it died is lost, and a slow
server must not get everything many times."""


class NoAnswer(BusError):
    """A request got no answer: time ran out, or the connection was lost. The caller asks again or gives up."""


class _Sent(NamedTuple):
    subject: str
    payload: bytes
    headers: dict[str, str] | None


class _Waiting(NamedTuple):
    queue: asyncio.Future[Msg] | asyncio.Queue[Msg | None]
    sent_at: float
    again: _Sent | None


class Requests:
    """Sends requests and hands each answer to whoever asked."""

    def __init__(self, nc: Client, timeout_s: float) -> None:
        """`timeout_s` is the longest wait for an answer."""
        self._nc, self._timeout_s = nc, timeout_s
        self._prefix = nc.new_inbox() + "."
        self._skip = len(self._prefix)
        self._waiting: dict[str, _Waiting] = {}
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self.connected = asyncio.Event()
        self.connected.set()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Listen for answers while the context is open."""
        subscription = await self._nc.subscribe(self._prefix + "*", cb=self._on_answer)
        clock = asyncio.create_task(self._expire(), name="request time-outs")
        try:
            yield
        finally:
            clock.cancel()
            with contextlib.suppress(Error):
                await subscription.unsubscribe()
            self.lost()

    async def ask(
        self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None, *, again: bool = False
    ) -> Msg:
        """Send a request and return its answer. Raises `NoAnswer`.

        With `again` it may be sent more than once, and any of the answers counts.
        """
        future: asyncio.Future[Msg] = self._loop.create_future()
        token = await self._send(future, _Sent(subject, payload, headers), again)
        try:
            return await future
        finally:
            self._waiting.pop(token, None)

    async def collect(self, subject: str, payload: bytes) -> list[Msg]:
        """Send a request that is answered by several messages; return them up to the first status.

        The last message is the one with the status. Raises `NoAnswer`.
        """
        queue: asyncio.Queue[Msg | None] = asyncio.Queue()
        token = await self._send(queue, _Sent(subject, payload, None), again=False)
        answers: list[Msg] = []
        try:
            while True:
                answer = await queue.get()
                if answer is None:
                    raise NoAnswer(f"no answer on {subject}")
                answers.append(answer)
                if answer.headers and "Status" in answer.headers:
                    return answers
        finally:
            self._waiting.pop(token, None)

    def lost(self) -> None:
        """Tell all who wait that their answers will not come: the connection is gone."""
        for token in list(self._waiting):
            self._fail(token, "the connection was lost")

    async def _send(self, queue: asyncio.Future[Msg] | asyncio.Queue[Msg | None], request: _Sent, again: bool) -> str:
        self._count += 1
        token = str(self._count)
        self._waiting[token] = _Waiting(queue, self._loop.time(), request if again else None)
        try:
            await self._publish(token, request)
        except (ConnectionClosedError, OutboundBufferLimitError) as error:
            del self._waiting[token]
            raise NoAnswer(str(error)) from error
        except BaseException:
            del self._waiting[token]
            raise
        return token

    async def _publish(self, token: str, request: _Sent) -> None:
        await self._nc.publish(request.subject, request.payload, reply=self._prefix + token, headers=request.headers)

    async def _on_answer(self, msg: Msg) -> None:
        waiting = self._waiting.get(msg.subject[self._skip :])
        if waiting is None:
            return
        queue = waiting.queue
        if isinstance(queue, asyncio.Queue):
            queue.put_nowait(msg)
        elif not queue.done():
            queue.set_result(msg)

    async def _expire(self) -> None:
        last = self._loop.time()
        while True:
            await asyncio.sleep(min(0.25, self._timeout_s / 4))
            now = self._loop.time()
            for token, (_, sent_at, again) in list(self._waiting.items()):
                if now - sent_at >= self._timeout_s:
                    self._fail(token, f"no answer in {self._timeout_s} s")
                elif again is not None and any(last < sent_at + after_s <= now for after_s in AGAIN_AFTER_S):
                    with contextlib.suppress(Error):
                        await self._publish(token, again)
            last = now

    def _fail(self, token: str, reason: str) -> None:
        waiting = self._waiting.pop(token, None)
        if waiting is None:
            return
        queue = waiting.queue
        if isinstance(queue, asyncio.Queue):
            queue.put_nowait(None)
        elif not queue.done():
            queue.set_exception(NoAnswer(reason))
