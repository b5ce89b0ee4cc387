"""Requests over one inbox: a future for each, one subscription for all, and one clock for their deadlines.

nats-py's own `request` makes an id of 26 random characters, a timer and a task per call; on the path of
every handoff that costs a third of the throughput.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import structlog
from nats.aio.client import Client
from nats.errors import Error, OutboundBufferLimitError

from baton_bus.errors import BusError, NotAllowed, NotImported, PayloadTooLarge
from baton_bus.jetstream.client import Denied
from baton_bus.jetstream.nats_client import Answer, client_of, frame_of, header_of

AGAIN_AFTER_S = (1.0, 3.0)
"""When a request that may be sent twice is sent again, in seconds, and then after each `timeout_s`: what a leader held
when it died is lost, and a slow server must not get everything many times."""
_TICK_S = 0.25
"""How exactly deadlines are kept: a timer for each request would cost as much as the request."""

logger = structlog.get_logger("baton.bus")


class NoAnswer(BusError):
    """A request got no answer: time ran out, or the connection was lost. The caller asks again or gives up."""


class _Several:
    """The answers to one request, up to the first status; `whole` is done once that is there, or none will be."""

    __slots__ = ("answers", "whole")

    def __init__(self, whole: asyncio.Future[None]) -> None:
        self.answers: list[Answer] = []
        self.whole = whole


_Answers = asyncio.Future[Answer] | _Several
"""Where an answer goes, or each of several, or why there will be none."""


class _Waiting:
    """A request that waits for its answer, or for its answers."""

    __slots__ = ("again", "again_at", "connection", "deadline", "frame", "queue", "sent_at", "token", "tries")

    def __init__(
        self, queue: _Answers, token: bytes, frame: bytes, again: bool, now: float, within_s: float, connection: int
    ) -> None:
        self.queue, self.token, self.frame, self.again = queue, token, frame, again
        self.deadline = now + within_s
        self.connection, self.tries = connection, 0
        """On which connection it was sent last, and how often because no answer came."""
        self.sent_at, self.again_at = now, now + AGAIN_AFTER_S[0]


class Requests:
    """Sends requests and hands each answer to whoever asked. All that escapes is a `BusError`."""

    def __init__(self, nc: Client, timeout_s: float) -> None:
        """`timeout_s` is the longest wait for an answer, unless a call says otherwise."""
        self._nc, self.timeout_s = client_of(nc), timeout_s
        self.api = self._nc.api
        """Where JetStream is asked."""
        self._prefix = nc.new_inbox().encode() + b"."
        self._skip = len(self._prefix)
        self._waiting: dict[bytes, _Waiting] = {}
        self._asked = asyncio.Event()
        """Set while anything waits: the clock stands still before that."""
        self._unheard: set[str] = set()
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._probing: asyncio.Task[None] | None = None
        self._closed = False
        self.changed_at = self._loop.time()
        """When the connection was lost or mended last, by the loop's clock."""
        self.connected = asyncio.Event()
        """Whether there is a connection: `lost` clears it, `back` sets it."""
        self.connected.set()

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Listen for answers while the context is open. Raises `NoAnswer` when the connection is closed already."""
        try:
            subscription = await self._nc.listen(self._prefix.decode() + "*", self._on_answer)
        except Error as error:
            raise NoAnswer(str(error)) from error
        self._nc.on_denied.append(self._denied)
        clock = asyncio.create_task(self._clock(), name="request deadlines")
        try:
            yield
        finally:
            self._closed = True
            self._nc.on_denied.remove(self._denied)
            clock.cancel()
            if self._probing is not None:
                self._probing.cancel()
            self._fail_all("the connection was closed")
            with contextlib.suppress(Exception):  # the first error is the one to tell
                await subscription.unsubscribe()

    async def ask(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Mapping[str, str] | bytes | None = None,
        *,
        again: bool = False,
        within_s: float | None = None,
    ) -> Answer:
        """Send a request and return its answer. Raises `NoAnswer`, `NotAllowed`, `BadSubject`, `PayloadTooLarge`.

        It takes `within_s` seconds at most (None: `timeout_s`), waiting for a lost connection included: nothing is sent
        without one. With `again` it may be sent more than once, and any of the answers counts: once per connection,
        and after `AGAIN_AFTER_S` if the server has shown meanwhile that it reads what we send. Without, it fails with
        the connection. `headers` may come encoded, from `header_of`.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        waiting = self._made(future, subject, payload, headers, again, within_s)
        if not self._sent(waiting):
            await self._send(waiting)
        try:
            return await future
        finally:
            self._waiting.pop(waiting.token, None)

    async def ask_all(
        self, asked: Sequence[tuple[str, bytes]], headers: bytes, *, within_s: float
    ) -> list[Answer | None]:
        """Send requests, each a subject and what goes there, at the same time; return the answers, in their order.

        They may be sent more than once. None is for what cannot be sent at once, or got no answer: who asked asks
        again, one by one. Raises as `ask`, but for `NoAnswer`. A task for each would cost more than the request.
        """
        sent: list[tuple[_Waiting, asyncio.Future[Answer]] | None] = []
        answers: list[Answer | None] = []
        try:
            for subject, payload in asked:
                future: asyncio.Future[Answer] = self._loop.create_future()
                waiting = self._made(future, subject, payload, headers, True, within_s)
                sent.append((waiting, future) if self._sent(waiting) else None)
            for each in sent:
                try:
                    answers.append(None if each is None else await each[1])
                except NoAnswer:
                    answers.append(None)
            return answers
        finally:
            for waiting, future in filter(None, sent):
                self._waiting.pop(waiting.token, None)
                if not future.cancel() and not future.cancelled():
                    future.exception()  # of the others nobody is told

    async def collect(self, subject: str, payload: bytes, *, within_s: float | None = None) -> list[Answer]:
        """Send a request that is answered by several messages; return them up to the first status.

        The last message is the one with the status. Raises as `ask`.
        """
        several = _Several(self._loop.create_future())
        waiting = self._made(several, subject, payload, None, False, within_s)
        if not self._sent(waiting):
            await self._send(waiting)
        try:
            await several.whole
            return several.answers
        finally:
            self._waiting.pop(waiting.token, None)

    async def check_imported(self, subject: str, stream: str) -> None:
        """Nobody listened on a subject of the JetStream API: note it, or say that it is not for this account.

        Raises `NotImported` the second time that others about this stream are answered, as the first time the server
        may have been about to listen; and as `ask`.
        """
        if not (await self.ask(self.api.info(stream))).data:
            return
        if subject in self._unheard:
            self._unheard.discard(subject)
            raise NotImported(subject, self._nc.shown_url)
        self._unheard.add(subject)

    def lost(self) -> None:
        """The connection is gone: what may not be sent twice fails, the rest waits for the next one."""
        self.connected.clear()
        self.changed_at = self._loop.time()
        if self._nc.is_closed:
            self._fail_all("the connection was closed")
        for token, waiting in list(self._waiting.items()):
            if not waiting.again:
                self._fail(token, NoAnswer("the connection was lost"))

    def back(self) -> None:
        """The connection is mended: send what waits, once."""
        self.connected.set()
        self.changed_at = self._loop.time()

    def _made(
        self,
        queue: _Answers,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | bytes | None,
        again: bool,
        within_s: float | None,
    ) -> _Waiting:
        """Return a request that is to be sent. Raises `BadSubject`, `PayloadTooLarge`."""
        self._count += 1
        token = b"%d" % self._count
        header = headers if isinstance(headers, bytes) else header_of(headers)
        limit = self._nc.max_payload
        if len(header) + len(payload) > limit:  # told of the body alone, if that is too large already
            raise PayloadTooLarge(len(payload) + (len(header) if len(payload) <= limit else 0), limit)
        frame = frame_of(subject, self._prefix + token, payload, header)
        within_s = self.timeout_s if within_s is None else within_s
        return _Waiting(queue, token, frame, again, self._loop.time(), within_s, self._nc.stats["reconnects"])

    def _sent(self, waiting: _Waiting) -> bool:
        """Send a request if that can be done at once."""
        if self._closed or not self._nc.takes(waiting.frame):
            return False
        self._waiting[waiting.token] = waiting
        self._asked.set()
        self._nc.send_soon(waiting.frame)
        return True

    async def _send(self, waiting: _Waiting) -> None:
        """Send a request once it can be. Raises `NoAnswer`."""
        if self._closed or not self._nc.is_connected:
            await self._until_connected(waiting.deadline)
            waiting.connection = self._nc.stats["reconnects"]
            waiting.sent_at = self._loop.time()
            waiting.again_at = waiting.sent_at + AGAIN_AFTER_S[0]
        self._waiting[waiting.token] = waiting
        self._asked.set()
        try:
            await self._nc.send(waiting.frame)
        except BaseException as error:
            self._waiting.pop(waiting.token, None)
            if isinstance(error, Error | OSError):
                raise NoAnswer(str(error)) from error
            raise

    async def _until_connected(self, deadline: float) -> None:
        while self._closed or not self._nc.is_connected:
            left_s = deadline - self._loop.time()
            if self._closed or self._nc.is_closed:
                raise NoAnswer("the connection is closed")
            if left_s <= 0:
                raise NoAnswer("the connection was not mended in time")
            if self.connected.is_set():  # it broke, and that is not told yet
                await asyncio.sleep(min(left_s, 0.01))
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _TICK_S)):
                    await self.connected.wait()

    def _on_answer(self, subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
        waiting = self._waiting.get(subject[self._skip :])
        if waiting is None:
            return
        queue, answer = waiting.queue, Answer(data, header)
        if isinstance(queue, _Several):
            if not queue.whole.done():
                queue.answers.append(answer)
                if answer.has_status:
                    queue.whole.set_result(None)
        elif not queue.done():
            queue.set_result(answer)

    async def _clock(self) -> None:
        """Keep deadlines, and send again what is to be sent again."""
        tick_s = min(_TICK_S, self.timeout_s / 4)
        while True:
            if not self._waiting:
                self._asked.clear()
                await self._asked.wait()
            if self.connected.is_set():
                await asyncio.sleep(tick_s)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(tick_s):
                        await self.connected.wait()
            try:
                await self._look()
            except Exception:  # a request that cannot be sent again must not take the deadlines of all others with it
                logger.exception("requests.broken")

    async def _look(self) -> None:
        if self._nc.is_closed:
            self._fail_all("the connection was closed")
        now, connection = self._loop.time(), self._nc.stats["reconnects"]
        due: list[bytes] = []
        for token, waiting in list(self._waiting.items()):
            if now >= waiting.deadline:
                self._fail(token, NoAnswer(f"no answer in {now - waiting.sent_at:.1f} s"))
            elif not waiting.again or not self._nc.is_connected:
                continue
            elif waiting.connection != connection:
                await self._resend(token)
            elif now >= waiting.again_at:
                due.append(token)
        if due and (self._probing is None or self._probing.done()):
            self._probing = asyncio.create_task(self._probe(due), name="send requests again")

    async def _probe(self, tokens: list[bytes]) -> None:
        """Send again once the server has read what was sent before: one that stands still would get it all at once."""
        asked_at = self._loop.time()
        with contextlib.suppress(Error, OSError, TimeoutError):
            async with asyncio.timeout(self.timeout_s):
                await self._nc.until_heard()
            if self._loop.time() - asked_at > AGAIN_AFTER_S[0]:  # it stood still, and answers from now on
                await asyncio.sleep(AGAIN_AFTER_S[0])
            for token in tokens:
                await self._resend(token)

    async def _resend(self, token: bytes) -> None:
        waiting = self._waiting.get(token)
        if waiting is None or not self._nc.is_connected:
            return
        now, connection = self._loop.time(), self._nc.stats["reconnects"]
        if waiting.connection != connection:
            waiting.connection, waiting.sent_at, waiting.tries = connection, now, 0
        else:
            waiting.tries += 1
        is_early = waiting.tries < len(AGAIN_AFTER_S)
        waiting.again_at = waiting.sent_at + AGAIN_AFTER_S[waiting.tries] if is_early else now + self.timeout_s
        with contextlib.suppress(OutboundBufferLimitError):
            await self._nc.send(waiting.frame)

    def _denied(self, denied: Denied) -> None:
        """Tell who waits on a subject to which we may not send: its answer will not come."""
        for token, waiting in list(self._waiting.items()):
            subject = waiting.frame.split(b" ", 2)[1].decode(errors="replace").lower()
            if denied.kind == "publish" and subject == denied.subject:
                self._fail(token, NotAllowed(denied.action, denied.subject, denied.url))

    def _fail_all(self, reason: str) -> None:
        for token in list(self._waiting):
            self._fail(token, NoAnswer(reason))

    def _fail(self, token: bytes, error: BusError) -> None:
        waiting = self._waiting.pop(token, None)
        if waiting is None:
            return
        waits = waiting.queue.whole if isinstance(waiting.queue, _Several) else waiting.queue
        if not waits.done():
            waits.set_exception(error)
