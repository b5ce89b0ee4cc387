"""Publishes that the log acknowledges: create-only, the fence of the whole design, and update-only for joins.

Source: ADR-1 and the `Nats-Expected-Last-Subject-Sequence` header,
https://docs.nats.io/nats-concepts/jetstream/headers
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct
from nats.aio.client import Client

from baton_bus.errors import (
    BusUnavailable,
    FullLimit,
    JetStreamStopped,
    LogFull,
    PayloadTooLarge,
    PublishRefused,
)
from baton_bus.jetstream.nats_client import Answer, header_of
from baton_bus.jetstream.requests import NoAnswer, Requests
from baton_bus.jetstream.silence import ELECTS_S, STOPPED, UNANSWERED_S, ApiError, Silence

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_IN = "Nats-Expected-Last-Subject-Sequence-Subject"
"""Counts for `EXPECTED` the last message on any subject that matches this pattern."""
_CREATE = header_of({EXPECTED: "0"})

TAKEN = 10071
"""`wrong last sequence`: another message is on the subject."""
IN_FLIGHT = 10164
"""Another publish to the subject is in flight in the cluster: ask again, and it is one or the other."""
_FULL: Mapping[int, FullLimit] = {10047: "stream", 10077: "stream", 10002: "account", 10023: "server"}
"""`insufficient storage resources`, `maximum messages/bytes exceeded`, `resource limits exceeded for account` and
`insufficient resources`."""
_TOO_LARGE = 10054
_RETRY_S = 0.005
"""Wait before a publish is tried again after `IN_FLIGHT`: about what a commit in a cluster takes."""
_ELECTS = frozenset({10008, 10009})
"""`JetStream system temporarily unavailable`, and `JetStream cluster can not handle request`: it leads no more."""


class Ack(Struct):
    """What a stream answers to a publish."""

    seq: int = 0
    """Of the message; of the one that was there first, when it is a duplicate."""
    duplicate: bool = False
    """There is a message with this `Nats-Msg-Id` already: it was not stored a second time."""
    val: str = ""
    """In a stream of counters: the total."""
    error: ApiError | None = None


_NOBODY = Ack(error=ApiError())
"""What an answer without a body means: nobody listens to the subject."""
_decode_ack = msgspec.json.Decoder(Ack).decode


class Publisher:
    """Writes messages to the log and says what the log answered."""

    def __init__(self, nc: Client, requests: Requests, stream: str) -> None:
        self._nc, self._requests, self._stream = nc, requests, stream

    async def create(
        self, subject: str, body: bytes, *, patience_s: float | None = None, once_in: str | None = None
    ) -> int | None:
        """Write the first message on a subject; return its sequence, or None when the subject is taken.

        With `once_in`, a pattern that matches the subject (the server does not check that it does), it is the first
        message on any subject that the pattern matches.

        It is sent again until the server says one or the other, for `patience_s` seconds at most (None:
        for as long as it takes). None may also mean that our own earlier try was
        stored: what is in the log is the truth, whoever wrote it.

        Raises `BusUnavailable`, `JetStreamStopped`, `NoStream`, `LogFull`, `PayloadTooLarge`, `BadSubject`,
        `PublishRefused`.
        """
        header = _CREATE if once_in is None else header_of({EXPECTED: "0", EXPECTED_IN: once_in})
        ack = await self.publish(subject, body, header, patience_s)
        return None if ack is None else ack.seq

    async def create_all(self, messages: Sequence[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """Write messages, by subject and body, as `create` does, at the same time, and try each of them once.

        Return those of which it is not certain that something is on their subjects: `create` sees to that, one by one.
        Raises `PayloadTooLarge`, `BadSubject`, `NotAllowed`.
        """
        answers = await self._requests.ask_all(messages, _CREATE, within_s=UNANSWERED_S)
        return [each for each, answer in zip(messages, answers, strict=True) if answer is None or not _is_there(answer)]

    async def update(self, subject: str, body: bytes, last_seq: int, *, patience_s: float | None = None) -> int | None:
        """Write to a subject whose last message has this sequence; None when it is another. Raises as `create`."""
        ack = await self.publish(subject, body, {EXPECTED: str(last_seq)}, patience_s)
        return None if ack is None else ack.seq

    async def append(self, subject: str, body: bytes, *, patience_s: float | None = None) -> int:
        """Write to a subject, whatever is there. A message may be stored twice if an answer was lost.

        Raises as `create`.
        """
        ack = await self.publish(subject, body, None, patience_s)
        assert ack is not None
        return ack.seq

    async def publish(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str] | bytes | None,
        patience_s: float | None = None,
    ) -> Ack | None:
        """Write with these headers; return what the stream answers, or None when an expectation in them does not hold.

        `patience_s` is for all of it: every try, every answer that is waited for, every wait in between. Raises as
        `create`.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        left_s = math.inf if patience_s is None else patience_s
        # What has no expectation is stored twice when it is sent twice: only after a silence of a request's whole time.
        again = headers is not None
        bound_s = UNANSWERED_S if again else self._requests.timeout_s
        silence: Silence | None = None
        while True:
            tried_at = loop.time()
            try:
                answer = await self._requests.ask(subject, body, headers, again=again, within_s=min(left_s, bound_s))
            except NoAnswer:
                silence = silence or Silence(self._nc, self._requests, self._stream)
                bound_s = await silence.unanswered(tried_at, left_s)
            else:
                ack = _decode_ack(answer.data) if answer.data else _NOBODY
                if ack.error is None:
                    return ack
                if ack.error.err_code == TAKEN:
                    return None
                silence = silence or Silence(self._nc, self._requests, self._stream)
                if ack.error.err_code == 0:
                    await silence.nobody_listens(left_s)
                else:
                    silence.broken()
                    await self._wait_or_raise(subject, body, ack.error, left_s)
            waited_s = loop.time() - started
            if patience_s is not None:
                left_s = patience_s - waited_s
            if self._nc.is_closed or left_s <= 0:
                raise BusUnavailable(f"a publish on {subject}", waited_s)

    async def _wait_or_raise(self, subject: str, body: bytes, error: ApiError, left_s: float) -> None:
        """Wait for what passes: another's publish, an election. Raises what does not pass."""
        match error.err_code:
            case code if code == IN_FLIGHT:
                await asyncio.sleep(min(_RETRY_S, left_s))
            case code if code in _ELECTS:
                await asyncio.sleep(min(ELECTS_S, left_s))
            case code if code in _FULL:
                raise LogFull(self._stream, error.description, _FULL[code])
            case code if code in STOPPED:
                raise JetStreamStopped(error.description)
            case code if code == _TOO_LARGE:
                raise PayloadTooLarge(len(body), self._nc.max_payload)
            case code:
                raise PublishRefused(subject, code, error.description)


def _is_there(answer: Answer) -> bool:
    """Say whether what was to be created is there, whoever wrote it."""
    error = (_decode_ack(answer.data) if answer.data else _NOBODY).error
    return error is None or error.err_code == TAKEN
