"""The calls of a handler's own client: each is answered from the record, or made, recorded, and then let out.

What is recorded are whole answers to `POST …/v1/messages`: a message, or a stream that came to its `message_stop`. Of a
stream the events are passed on as they come, but that last one is held back until the record is stored. All else goes
through as it is: errors are for the SDK, which tries again as its client was told to. Only where the provider asks to
wait (429, 529, overloaded) it is waited for here, in turn with the actor's other calls, before the SDK hears of it; the
attempt's clock stands still meanwhile.

When another worker has recorded another answer first, that one is used. A stream of which parts are passed on by then
cannot be taken back: the handler is stopped (`Stopped`), and begun again over what is recorded (`Overtaken`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Self, TypeVar

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_actors.models.arriving import Arriving
from baton_actors.models.errors import RETRY_AFTER_MAX_S, ModelError, is_overloaded, is_retryable, retry_after_s
from baton_actors.models.events import Splitter
from baton_actors.models.heard import Heard, error_type, played
from baton_actors.models.providers import Where
from baton_actors.models.sent import (
    Clock,
    ExchangeLog,
    NoClock,
    Overtaken,
    Sent,
    Stopped,
    Upstream,
    digest_of,
    model_of,
    object_of,
)
from baton_actors.models.types import Bound
from baton_schemas.wire.facts import Exchange
from baton_schemas.wire.outcomes import NULL

if TYPE_CHECKING:
    from baton_actors.models.client import Models
    from baton_actors.models.sdk import Pool

T = TypeVar("T")

BODY_MAX_BYTES = 64 * 1024 * 1024
"""Of one answer. It is held in memory until it is recorded; the longest that models give are a hundredth of it."""
_LARGE_BYTES = 256 * 1024
"""A request from here on is hashed in a thread, as leases must be kept meanwhile."""
_RECORD_S = 5.0
"""How long a handler that has ended waits for records that are being written: they are paid for."""
_DRAIN_S = 1.0
"""For the rest of a stream after its last event, so that its connection can be used again."""
_KEPT = ("content-type", "request-id")
_OF_HOW_IT_CAME = frozenset({"content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive"})
_OPENINGS = frozenset({"", "ping", "message_start"})
"""Events that have nothing of the answer in them: an overload that comes after them can be waited for."""


class TooLarge(Exception):
    """An answer is larger than can be recorded."""


class _Call:
    """One call that is not recorded."""

    def __init__(self, sent: Sent, where: Where, digest: str, number: int, bound: Bound, *, streams: bool) -> None:
        self.sent, self.where, self.digest, self.number, self.bound = sent, where, digest, number, bound
        self.streams, self.rehearses = streams, where.settings.rehearses
        self.refusal: tuple[int, dict[str, str], bytes] = (529, {}, b"")
        """The last answer that said to wait."""
        self.is_recorded = False


class _Numbers:
    """Gives out the lowest numbers that nobody has."""

    def __init__(self) -> None:
        self._next, self._free = 0, list[int]()

    def take(self) -> int:
        if self._free:
            return heappop(self._free)
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        heappush(self._free, number)


class Exchanges:
    """The exchanges of one attempt of one handler, in one event loop. Use it with `async with`."""

    def __init__(
        self,
        models: Models,
        log: ExchangeLog,
        attempt: int,
        busy: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        flow: str = "",
    ) -> None:
        """`busy` gives what is open while a call is made; `flow` is that whose providers may be named."""
        self._models, self._log, self._attempt, self._busy, self._flow = models, log, attempt, busy, flow
        self.clock: Clock = NoClock()
        """That of the attempt, once it has begun."""
        self._open: set[Arriving] = set()
        self._recordings: set[asyncio.Task[Exchange]] = set()
        self._numbers: dict[str, _Numbers] = {}
        self._stopped_by: BaseException | None = None
        self.used: list[Exchange] = []
        """What was answered, from the record or anew, without the bodies."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End what is open. What was being recorded is, unless that takes long."""
        self._stopped_by = self._stopped_by or Stopped()
        await asyncio.gather(*(arriving.close(at_once=True) for arriving in self._open))
        if self._recordings:
            for task in (await asyncio.wait(self._recordings, timeout=_RECORD_S))[1]:
                task.cancel()

    def check(self) -> None:
        """Raise what the handler was stopped for, whatever it made of that: an error of the log's, or `Overtaken`."""
        if self._stopped_by is not None:
            raise self._stopped_by

    async def send(self, sent: Sent) -> Arriving:
        """Return the answer to a call, recorded or made, once it begins to come. Raises what making it raised, and
        `Stopped`.
        """
        if self._stopped_by is not None:
            raise Stopped
        if len(sent.body) > _LARGE_BYTES:
            where, digest, streams, bound = await asyncio.to_thread(self._read, sent)
        else:
            where, digest, streams, bound = self._read(sent)
        number = self._take(digest)
        call = _Call(sent, where, digest, number, bound, streams=streams)
        try:
            with self.clock.stopped():
                known = await self._log.recalled(digest, number)
        except BaseException as error:
            self._numbers[digest].give_back(number)
            if isinstance(error, Exception):
                raise self._stop(error) from error
            raise
        arriving = Arriving()
        if known is not None:
            self.used.append(replace(known, body=NULL))
            sent.on_recalled()
            arriving.begin(known.status, known.headers)
            arriving.put(played(bytes(known.body), streamed=known.streamed))
            arriving.end()
            return arriving
        self._open.add(arriving)
        arriving.task = asyncio.create_task(self._make(call, arriving), name="model call")
        try:
            await arriving.begun()
        except BaseException:
            await arriving.close()
            raise
        return arriving

    def where_of(self, body: bytes) -> Where:
        """Return where a request with this body goes: by the model that it names."""
        return self._models.where(self._flow, model_of(body))

    async def pool(self) -> Pool:
        """Return the connections that calls are made over."""
        return await self._models.pool()

    def _read(self, sent: Sent) -> tuple[Where, str, bool, Bound]:
        where = self.where_of(sent.body)
        return where, *digest_of(sent, where.settings.rehearses)

    def _take(self, digest: str) -> int:
        """Return how often the same is asked already; what failed does not count."""
        return self._numbers.setdefault(digest, _Numbers()).take()

    def _stop(self, error: BaseException) -> Stopped:
        """Have the handler end; `check` says why."""
        self._stopped_by = self._stopped_by or error
        return Stopped()

    # ---- a call that is made -----------------------------------------------------------------------

    async def _make(self, call: _Call, arriving: Arriving) -> None:
        try:
            with self.clock.stopped(), self._busy():
                await self._log.in_turn(lambda: self._once(call, arriving), call.bound)
            arriving.end()
        except ModelError as error:  # the provider asks to wait, and the patience has run out
            if error.usage is not None:
                self._log.spent(error)
            status, headers, body = call.refusal
            # The SDK's own waits would come on top of ours.
            arriving.begin(status, {**headers, "x-should-retry": "false"})
            arriving.put(body)
            arriving.end()
        except Exception as error:  # of the log, or `Overtaken`
            arriving.fail(self._stop(error))
        except BaseException:
            arriving.fail(Stopped())
            raise
        finally:
            self._open.discard(arriving)
            if not call.is_recorded:
                self._numbers[call.digest].give_back(call.number)

    async def _once(self, call: _Call, arriving: Arriving) -> None:
        """Make a call once. Raises `ModelError` when the provider asks to wait and nothing was passed on yet."""
        with self.clock.going():
            try:
                upstream = await self._upstream(call)
            except Exception as error:
                arriving.fail(error)
                return
            heard = Heard()
            try:
                if upstream.status >= 400:
                    await self._refused(call, upstream, arriving)
                elif call.streams:
                    await self._stream(call, upstream, arriving, heard)
                else:
                    await self._message(call, upstream, arriving, heard)
            except asyncio.CancelledError:
                heard.why = "its handler did not wait for the end of it"
                raise
            finally:
                if heard.reading.begun and not call.is_recorded and not heard.error_type:
                    self._log.spent(self._in_vain(call, upstream, heard))
                await upstream.close()

    async def _upstream(self, call: _Call) -> Upstream:
        if not call.rehearses:
            try:
                call.where.settings.check_credentials()
            except ModelError as error:
                status, headers, body = unanswered(error)
                return Upstream(status, headers, _at_once(body), _nothing)
            upstream = await call.sent.send(call.where)
            self._models.heard(call.where.named(call.where.model), upstream.headers)
            return upstream
        from baton_actors.models.rehearsal.requests import rehearsed

        status, headers, body = await asyncio.to_thread(rehearsed, call.sent.body)
        return Upstream(status, headers, _at_once(body), _nothing)

    async def _refused(self, call: _Call, upstream: Upstream, arriving: Arriving) -> None:
        body = await _whole(upstream, arriving)
        if body is None:
            return
        type = error_type(object_of(body))
        if is_overloaded(upstream.status, type, upstream.headers):
            call.refusal = (upstream.status, _passed_on(upstream), body)
            raise self._overloaded(call, upstream, type)
        arriving.begin(upstream.status, _passed_on(upstream))
        arriving.put(body)

    async def _message(self, call: _Call, upstream: Upstream, arriving: Arriving, heard: Heard) -> None:
        body = await _whole(upstream, arriving)
        if body is None:
            return
        if "json" in upstream.headers.get("content-type", ""):
            heard.message(body)
        if heard.body is not None:
            stored = await self._record(call, upstream, heard)
            body = bytes(stored.body)
        arriving.begin(upstream.status, _passed_on(upstream))
        arriving.put(body)

    async def _stream(self, call: _Call, upstream: Upstream, arriving: Arriving, heard: Heard) -> None:
        splitter, held = Splitter(), bytearray()
        size = 0

        def let_out() -> None:
            arriving.begin(upstream.status, _passed_on(upstream))
            arriving.put(bytes(held))
            held.clear()

        async for chunk in _unless_broken(upstream.chunks, arriving, let_out):
            size += len(chunk)
            if size > BODY_MAX_BYTES:
                let_out()
                arriving.fail(_too_large(size))
                return
            for raw in splitter.add(chunk):
                kind, passed = heard.event(raw)
                if kind == "error":
                    self._heard_error(call, upstream, arriving, heard, raw)
                if heard.body is not None:
                    ours = heard.body
                    stored = await self._record(call, upstream, heard)
                    if bytes(stored.body) != ours:
                        raise Overtaken("another worker recorded another answer first")
                held += passed
                if arriving.has_begun or kind not in _OPENINGS:
                    let_out()
                if call.is_recorded:
                    arriving.end()
                    await _drain(upstream.chunks)
                    return
        held += splitter.rest
        let_out()

    def _heard_error(self, call: _Call, upstream: Upstream, arriving: Arriving, heard: Heard, raw: bytes) -> None:
        """Take an error inside a stream. Raises `ModelError` when it says to wait and nothing was passed on yet."""
        type = heard.error_type
        if not arriving.has_begun and is_overloaded(upstream.status, type, upstream.headers):
            body = raw[raw.find(b"{") :].strip()
            call.refusal = (529, {"content-type": "application/json"}, body)
            error = self._overloaded(call, upstream, type)
            if heard.reading.begun:
                self._charge(call, error, heard)
            raise error
        if heard.reading.begun:
            self._log.spent(self._in_vain(call, upstream, heard))

    # ---- the record ----------------------------------------------------------------------------------

    async def _record(self, call: _Call, upstream: Upstream, heard: Heard) -> Exchange:
        """Record a whole answer; return what is stored, which another worker may have recorded first."""
        assert heard.body is not None
        usage = heard.reading.usage
        model = call.where.named(heard.reading.model)
        headers = {name: upstream.headers[name] for name in _KEPT if name in upstream.headers}
        exchange = Exchange(
            request_sha256=call.digest,
            number=call.number,
            attempt=self._attempt,
            status=upstream.status,
            headers=headers,
            streamed=call.streams,
            body=Raw(heard.body),
            model=model,
            rehearsed=call.rehearses,
            request_id=headers.get("request-id", ""),
            usage=usage,
            cost_usd=self._models.cost_usd(call.where, heard.reading.model, usage),
        )
        task = asyncio.create_task(self._log.recorded(exchange), name="record")
        self._recordings.add(task)
        task.add_done_callback(self._is_recorded)
        call.is_recorded = True  # it will be, even if the handler is cut now
        with self.clock.stopped():
            stored = await asyncio.shield(task)
        if bytes(stored.body) != heard.body:
            heard.why = "another worker recorded another answer first"
            self._log.spent(self._in_vain(call, upstream, heard))
        self.used.append(replace(stored, body=NULL))
        return stored

    def _is_recorded(self, task: asyncio.Task[Exchange]) -> None:
        self._recordings.discard(task)
        if not task.cancelled():
            task.exception()  # where nobody waits for it any more, nobody need hear of it

    def _in_vain(self, call: _Call, upstream: Upstream, heard: Heard) -> ModelError:
        """Return what was paid for an answer that nobody uses."""
        error = ModelError(
            type="broken_answer",
            message=f"an answer of the model API at {call.where.settings.host}: {heard.why}",
            retryable=True,
            request_id=upstream.headers.get("request-id", ""),
        )
        return self._charge(call, error, heard)

    def _charge(self, call: _Call, error: ModelError, heard: Heard) -> ModelError:
        reading = heard.reading
        model = call.where.named(reading.model)
        cost_usd = self._models.cost_usd(call.where, reading.model, reading.usage)
        error.took(reading.usage, cost_usd=cost_usd, model=model, estimated=reading.estimated)
        return error

    def _overloaded(self, call: _Call, upstream: Upstream, type: str) -> ModelError:
        return ModelError(
            type=type,
            message=f"the model API at {call.where.settings.host} answered {upstream.status} {type}",
            retryable=is_retryable(upstream.status, type, upstream.headers),
            overloaded=True,
            retry_after_s=retry_after_s(upstream.headers, RETRY_AFTER_MAX_S, time.time()),
            request_id=upstream.headers.get("request-id", ""),
        )


def _passed_on(upstream: Upstream) -> dict[str, str]:
    return {name: value for name, value in upstream.headers.items() if name.lower() not in _OF_HOW_IT_CAME}


def _too_large(size: int) -> TooLarge:
    return TooLarge(f"an answer of more than {size} bytes cannot be recorded; at most {BODY_MAX_BYTES} can")


async def _whole(upstream: Upstream, arriving: Arriving) -> bytes | None:
    """Return the body; None when it broke, which is passed on."""
    body = bytearray()
    async for chunk in _unless_broken(upstream.chunks, arriving):
        body += chunk
        if len(body) > BODY_MAX_BYTES:
            arriving.fail(_too_large(len(body)))
            break
    return None if arriving.has_begun else bytes(body)


async def _unless_broken(
    chunks: AsyncIterator[bytes], arriving: Arriving, before: Callable[[], None] = lambda: None
) -> AsyncIterator[bytes]:
    """Yield chunks; what breaks them goes on as it is, after `before` was called."""
    try:
        async for chunk in chunks:
            yield chunk
    except Exception as error:
        before()
        arriving.fail(error)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in chunks:
                pass


def unanswered(error: ModelError) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body that tell the SDK of a call which nobody is to be asked, and what to do."""
    said = {"type": "error", "error": {"type": "authentication_error", "message": str(error)}}
    return 401, {"content-type": "application/json", "x-should-retry": "false"}, msgspec.json.encode(said)


async def _at_once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _nothing() -> None:
    pass
