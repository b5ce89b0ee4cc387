"""A call that nobody has recorded: it is made, its answer passed on as it comes, and recorded before the end goes out.

Of a stream the events are passed on as they come, but the last one is held back until the record is stored. When
another worker has recorded another answer first, that one is used. A stream of which parts are passed on by then cannot
be taken back: the handler is stopped (`Stopped`), and begun again over what is recorded (`Overtaken`).

A stream that ends as if it were whole, and has no `message_stop`, is an error too, as one that breaks is: the SDK would
hand it out as an answer, and that is in no record.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from msgspec import Raw

from baton_actors.models.answer_bodies import (
    BODY_MAX_BYTES,
    CutOff,
    at_once,
    drain,
    nothing,
    too_large,
    unanswered,
    unless_broken,
    whole,
)
from baton_actors.models.arriving import Arriving
from baton_actors.models.errors import RETRY_AFTER_MAX_S, ModelError, is_overloaded, is_retryable, retry_after_s
from baton_actors.models.events import Splitter
from baton_actors.models.heard import CUT, Heard, error_type
from baton_actors.models.records import Records
from baton_actors.models.sent import Clock, Overtaken, Question, Sent, Upstream, object_of
from baton_schemas.wire.facts import Exchange
from baton_schemas.wire.outcomes import Usage

if TYPE_CHECKING:
    from baton_actors.models.client import Models

_KEPT = ("content-type", "request-id")
"""Headers that are recorded."""
_OF_HOW_IT_CAME = frozenset({"content-length", "content-encoding", "transfer-encoding", "connection", "keep-alive"})
"""Headers that are not passed on: they say nothing of what is."""
_OPENINGS = frozenset({"", "ping", "message_start"})
"""Events that have nothing of the answer in them: an overload that comes after them can be waited for."""
_ANOTHER = "another worker recorded another answer first"


class Call:
    """One call, until its answer has ended. It is made more than once where the provider asks to wait."""

    def __init__(
        self, sent: Sent, asked: Question, number: int, models: Models, records: Records, clock: Clock
    ) -> None:
        """`number` says how often the same was asked before: its record is found by it, and by the question."""
        self._sent, self._models, self._records, self._clock = sent, models, records, clock
        self.asked, self.number = asked, number
        self.arriving = Arriving()
        """The answer, as the client gets it."""
        self.is_recorded = False
        self._refusal: tuple[int, dict[str, str], bytes] = (529, {}, b"")
        """The last answer that said to wait."""

    async def once(self) -> Usage:
        """Make it once; return what it took.

        Raises `ModelError` when the provider asks to wait and nothing was passed on yet, what the log raises, and
        `Overtaken`.
        """
        with self._clock.going():
            try:
                upstream = await self._upstream()
            except Exception as error:
                self.arriving.fail(error)
                return Usage()
            heard = Heard()
            try:
                if upstream.status >= 400:
                    await self._refused(upstream)
                elif self.asked.streams:
                    await self._stream(upstream, heard)
                else:
                    await self._message(upstream, heard)
            except asyncio.CancelledError:
                heard.why = "its handler did not wait for the end of it"
                raise
            finally:
                if heard.reading.begun and not self.is_recorded and not heard.error_type:
                    self._records.in_vain(self.asked.where, upstream, heard)
                await upstream.close()
            return heard.reading.usage

    def pass_refusal_on(self) -> None:
        """Let the client have the last answer that said to wait."""
        status, headers, body = self._refusal
        # The SDK's own waits would come on top of ours.
        self.arriving.begin(status, {**headers, "x-should-retry": "false"})
        self.arriving.put(body)
        self.arriving.end()

    async def _upstream(self) -> Upstream:
        if not self.asked.rehearses:
            where = self.asked.where
            try:
                where.settings.check_credentials()
            except ModelError as error:
                status, headers, body = unanswered(error)
                return Upstream(status, headers, at_once(body), nothing)
            upstream = await self._sent.send(where)
            self._models.heard(where.named(where.model), upstream.headers)
            return upstream
        from baton_actors.models.rehearsal.requests import rehearsed

        status, headers, body = await asyncio.to_thread(rehearsed, self._sent.body)
        return Upstream(status, headers, at_once(body), nothing)

    async def _refused(self, upstream: Upstream) -> None:
        body = await whole(upstream, self.arriving)
        if body is None:
            return
        type = error_type(object_of(body))
        if is_overloaded(upstream.status, type, upstream.headers):
            self._refusal = (upstream.status, _passed_on(upstream), body)
            raise self._overloaded(upstream, type)
        self.arriving.begin(upstream.status, _passed_on(upstream))
        self.arriving.put(body)

    async def _message(self, upstream: Upstream, heard: Heard) -> None:
        body = await whole(upstream, self.arriving)
        if body is None:
            return
        if "json" in upstream.headers.get("content-type", ""):
            heard.message(body)
        if heard.body is not None:
            stored = await self._record(upstream, heard.body, heard)
            body = bytes(stored.body)
        self.arriving.begin(upstream.status, _passed_on(upstream))
        self.arriving.put(body)

    async def _stream(self, upstream: Upstream, heard: Heard) -> None:
        arriving, splitter, held = self.arriving, Splitter(), bytearray()
        size = 0

        def let_out() -> None:
            arriving.begin(upstream.status, _passed_on(upstream))
            arriving.put(bytes(held))
            held.clear()

        async for chunk in unless_broken(upstream.chunks, arriving, let_out):
            size += len(chunk)
            if size > BODY_MAX_BYTES:
                let_out()
                arriving.fail(too_large(size))
                return
            for raw in splitter.add(chunk):
                kind, passed = heard.event(raw)
                if kind == "error":
                    self._heard_error(upstream, heard, raw)
                if heard.body is not None:
                    stored = await self._record(upstream, heard.body, heard)
                    if bytes(stored.body) != heard.body:
                        raise Overtaken(_ANOTHER)
                held += passed
                if arriving.has_begun or kind not in _OPENINGS:
                    let_out()
                if self.is_recorded:
                    arriving.end()
                    await drain(upstream.chunks)
                    return
        held += splitter.rest
        let_out()
        if heard.why == CUT:
            host = self._models.settings.host
            advice = "check the network and ANTHROPIC_BASE_URL if this goes on"
            arriving.fail(CutOff(f"an answer of the model API at {host}: {CUT}; {advice}"))

    def _heard_error(self, upstream: Upstream, heard: Heard, raw: bytes) -> None:
        """Take an error inside a stream. Raises `ModelError` when it says to wait and nothing was passed on yet."""
        type = heard.error_type
        if not self.arriving.has_begun and is_overloaded(upstream.status, type, upstream.headers):
            body = raw[raw.find(b"{") :].strip()
            self._refusal = (529, {"content-type": "application/json"}, body)
            error = self._overloaded(upstream, type)
            if heard.reading.begun:
                self._records.charge(self.asked.where, error, heard)
            raise error
        if heard.reading.begun:
            self._records.in_vain(self.asked.where, upstream, heard)

    def _overloaded(self, upstream: Upstream, type: str) -> ModelError:
        return ModelError(
            type=type,
            message=f"the model API at {self.asked.where.settings.host} answered {upstream.status} {type}",
            retryable=is_retryable(upstream.status, type, upstream.headers),
            overloaded=True,
            retry_after_s=retry_after_s(upstream.headers, RETRY_AFTER_MAX_S, time.time()),
            request_id=upstream.headers.get("request-id", ""),
        )

    async def _record(self, upstream: Upstream, body: bytes, heard: Heard) -> Exchange:
        """Record a whole answer; return what is stored, which another worker may have recorded first."""
        reading, where = heard.reading, self.asked.where
        headers = {name: upstream.headers[name] for name in _KEPT if name in upstream.headers}
        exchange = Exchange(
            request_sha256=self.asked.digest,
            number=self.number,
            attempt=self._records.attempt,
            status=upstream.status,
            headers=headers,
            streamed=self.asked.streams,
            body=Raw(body),
            model=where.named(reading.model),
            rehearsed=self.asked.rehearses,
            request_id=headers.get("request-id", ""),
            usage=reading.usage,
            cost_usd=self._models.cost_usd(where, reading.model, reading.usage),
        )
        recording = self._records.begin(exchange)
        self.is_recorded = True  # it will be, even if the handler is cut now
        with self._clock.stopped():
            stored = await asyncio.shield(recording)
        if bytes(stored.body) != body:
            heard.why = _ANOTHER
            self._records.in_vain(self.asked.where, upstream, heard)
        self._records.use(stored)
        return stored


def _passed_on(upstream: Upstream) -> dict[str, str]:
    return {name: value for name, value in upstream.headers.items() if name.lower() not in _OF_HOW_IT_CAME}
