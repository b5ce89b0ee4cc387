"""Publishes that the log acknowledges: create-only, the fence of the whole design, and update-only for joins.

Source: ADR-1 and the `Nats-Expected-Last-Subject-Sequence` header,
https://docs.nats.io/nats-concepts/jetstream/headers
"""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import Struct
from nats.aio.client import Client

from baton_bus.errors import BusUnavailable, LogFull, NoStream, PayloadTooLarge, PublishRefused
from baton_bus.jetstream.requests import NoAnswer, Requests

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_CREATE = {EXPECTED: "0"}

TAKEN = 10071
"""`wrong last sequence`: another message is on the subject."""
IN_FLIGHT = 10164
"""Another publish to the subject is in flight in the cluster: ask again, and it is one or the other."""
_FULL = frozenset({10047, 10077})
"""`insufficient resources` and `maximum messages/bytes exceeded`."""
_TOO_LARGE = 10054
_STREAM_NOT_FOUND = 10059
_RETRY_S = 0.005
"""Wait before a publish is tried again after `IN_FLIGHT`: about what a commit in a cluster takes."""
_ELECTS = frozenset({10008, 10009})
"""`JetStream system temporarily unavailable`, and `JetStream cluster can not handle request`: it leads no more."""
_ELECTS_S = 0.1
_SILENCE_S = 0.5
"""Wait before a publish is tried again while there is no leader: when that is told, and when all are silent."""


class _ApiError(Struct):
    err_code: int = 0
    description: str = ""


class _Ack(Struct):
    seq: int = 0
    error: _ApiError | None = None


_NOBODY = _Ack(error=_ApiError())
"""What an answer without a body means: nobody listens to the subject."""
_decode_ack = msgspec.json.Decoder(_Ack).decode


class Publisher:
    """Writes messages to the log and says what the log answered."""

    def __init__(self, nc: Client, requests: Requests, stream: str) -> None:
        self._nc, self._requests, self._stream = nc, requests, stream

    async def create(self, subject: str, body: bytes, *, patience_s: float | None = None) -> int | None:
        """Write the first message on a subject; return its sequence, or None when the subject is taken.

        It is sent again until the server says one or the other, for `patience_s` seconds at most (None:
        for as long as it takes). None may also mean that our own earlier try was
        stored: what is in the log is the truth, whoever wrote it.

        Raises `BusUnavailable`, `NoStream`, `LogFull`, `PayloadTooLarge`, `PublishRefused`.
        """
        return await self.publish(subject, body, _CREATE, patience_s)

    async def update(self, subject: str, body: bytes, last_seq: int) -> int | None:
        """Write to a subject whose last message has this sequence; None when it is another. Raises as `create`."""
        return await self.publish(subject, body, {EXPECTED: str(last_seq)})

    async def append(self, subject: str, body: bytes, *, patience_s: float | None = None) -> int:
        """Write to a subject, whatever is there. A message may be stored twice if an answer was lost.

        Raises as `create`.
        """
        seq = await self.publish(subject, body, None, patience_s)
        assert seq is not None
        return seq

    async def publish(
        self, subject: str, body: bytes, headers: dict[str, str] | None, patience_s: float | None = None
    ) -> int | None:
        """Write with these headers; None when an expectation in them does not hold. Raises as `create`."""
        if len(body) + 100 > self._nc.max_payload:
            raise PayloadTooLarge(len(body), self._nc.max_payload)
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            try:
                answer = await self._requests.ask(subject, body, headers, again=headers is not None)
            except NoAnswer:
                await self._wait_for_connection()
            else:
                ack = _decode_ack(answer.data) if answer.data else _NOBODY
                if ack.error is None:
                    return ack.seq
                if ack.error.err_code == TAKEN:
                    return None
                await self._wait_or_raise(subject, body, ack.error)
            waited_s = loop.time() - started
            if self._nc.is_closed or (patience_s is not None and waited_s > patience_s):
                raise BusUnavailable(f"a publish on {subject}", waited_s)

    async def _wait_or_raise(self, subject: str, body: bytes, error: _ApiError) -> None:
        """Wait for what passes: another's publish, an election. Raises what does not pass."""
        match error.err_code:
            case 0:
                await self._no_responder(subject)
            case code if code == IN_FLIGHT:
                await asyncio.sleep(_RETRY_S)
            case code if code in _ELECTS:
                await asyncio.sleep(_ELECTS_S)
            case code if code in _FULL:
                raise LogFull(self._stream, error.description)
            case code if code == _TOO_LARGE:
                raise PayloadTooLarge(len(body), self._nc.max_payload)
            case code:
                raise PublishRefused(subject, code, error.description)

    async def _no_responder(self, subject: str) -> None:
        """Tell a stream that is gone from one whose leader is being elected: only the latter is waited for."""
        try:
            async with asyncio.timeout(_SILENCE_S):
                answer = await self._requests.ask(f"$JS.API.STREAM.INFO.{self._stream}")
        except (NoAnswer, TimeoutError):
            return
        ack = _decode_ack(answer.data) if answer.data else _Ack()
        if ack.error is not None and ack.error.err_code == _STREAM_NOT_FOUND:
            raise NoStream(self._stream)
        if not answer.data:
            raise PublishRefused(subject, 503, "JetStream is not enabled on this server or for this account")
        await asyncio.sleep(_ELECTS_S)

    async def _wait_for_connection(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._requests.connected.wait()
        except TimeoutError:
            return
