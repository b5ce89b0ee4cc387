"""Getting messages by subject or sequence, in two families: reads that may lag, and the leader's word.

*Reads that may lag* are direct gets (`last`, `at`, `batch`, `matching`): any replica answers, and one that lags gives
the log as it was a moment ago. What they find is true; what they do not find may be there.

*The leader's word* (`last_sure`, `at_sure`, `next_sure`, `matching_sure`) is for what is concluded from absence: that a
run does not exist, that a first handoff is wrong, that a blob is gone. On a server outside a cluster nobody else
answers, so both are one there, and the cheap way is taken.

In a cluster there may be two leaders for a moment: one that was paused, and wakes, answers from what it had until it
hears of its successor (seen: a blob called missing that had been stored seconds ago). So nothing is concluded from one
answer of a leader. What it does not have, it is asked for a second time, `CONFIRM_S` later. What it does have is true.

The server has no reads that wait for a sequence: nats-server 2.15.1 ignores `min_last_seq` in a direct get and refuses
it as an unknown field in `STREAM.MSG.GET` (tried). So a read that must include a message is compared with what the
leader says, and asked again.

Source: ADR-31, https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-31.md
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from msgspec import Struct
from nats.aio.client import Client

from baton_bus.errors import BusUnavailable, NoStream
from baton_bus.jetstream.nats_client import Answer, headers_of, text_of
from baton_bus.jetstream.requests import NoAnswer, Requests

CONFIRM_S = 0.25
"""From what a leader does not have to the second question: one that wakes sends heartbeats at once, and steps down at
the first answer to them."""
PATTERNS_AT_ONCE = 1_000
"""Patterns in one request: the server answers 413 when more than 1,024 subjects match."""
BATCH_BYTES = 4 * 1024 * 1024
"""Asked for in one request: it must come whole before the request times out, in 5 s over 7 Mbit/s."""
_LEAST_BYTES = 64 * 1024
"""Asked for when more did not come in time: a slow network still gets on, message by message."""
_TOO_MANY, _NO_RESPONDER = "413", "503"
_NOT_FOUND, _STREAM_NOT_FOUND = 10037, 10059
_STREAM = b"\r\nNats-Stream:"
_SAID = re.compile(
    rb"\r\nNats-Stream: \S+\r\nNats-Subject: (\S+)\r\nNats-Sequence: ([0-9]+)\r\nNats-Time-Stamp: (\S+)\r\n"
)
"""What a server adds to the headers of a message, as all do; what a publisher wrote comes before it."""
_SEQ_MAX = 2**63 - 1
"""Beyond, a server does not read the question."""
_AGAIN_S = 0.1
"""How soon a question is asked again that the cluster could not answer: mostly it elects a leader."""
_LAGS_S = 0.005
"""How soon a replica that lags is asked again: about what a commit in a cluster takes. Doubled each time."""
_LAGS_MAX_S = 0.5
_SUBJECTS_EACH = 8
"""Up to so many patterns, the leader is asked for the end of each; beyond, for that of the log."""


class Stored(NamedTuple):
    """One message of a stream, as the server stored it."""

    seq: int
    at: datetime
    """When it was stored, in UTC by the server's clock."""
    subject: str
    data: bytes
    header: bytes
    """As it came over the wire, or as it is stored: most who read a message need none of it."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, read anew at each call."""
        return headers_of(self.header) if self.header else {}


class TooManySubjects(Exception):
    """The pattern matches more than 1,024 subjects: read all that matches, and keep the last of each."""


class _Message(Struct):
    subject: str
    seq: int
    time: str
    data: bytes = b""  # msgspec decodes base64
    hdrs: bytes = b""


class _ApiError(Struct):
    err_code: int = 0
    description: str = ""


class _Config(Struct):
    num_replicas: int = 1


class _Answer(Struct):
    message: _Message | None = None
    config: _Config | None = None
    error: _ApiError | None = None


_decode = msgspec.json.Decoder(_Answer).decode


class Gets:
    """Gets messages of one stream. Every call is sent again until it is answered, for `patience_s` at most."""

    def __init__(self, nc: Client, requests: Requests, stream: str, patience_s: float | None) -> None:
        """`patience_s` in seconds; None for as long as it takes."""
        self._nc, self._requests, self.stream, self._patience_s = nc, requests, stream, patience_s
        self._direct = requests.api.direct(stream)
        self._alone: tuple[object, bool] = (None, False)

    def waiting(self, patience_s: float | None) -> Gets:
        """Return the same with another patience."""
        return Gets(self._nc, self._requests, self.stream, patience_s)

    # Reads that may lag

    async def last(self, subject: str) -> Stored | None:
        """Return the last message on one exact subject, or None; may lag. Raises `BusUnavailable`, `NoStream`."""
        async with self._patient("read the last message on " + subject):
            return stored(await self._ask(f"{self._direct}.{subject}", b""))

    async def at(self, seq: int) -> Stored | None:
        """Return the message with a sequence, or None; may lag. Raises as `last`."""
        async with self._patient(f"read message {seq} of {self.stream}"):
            return (
                stored(await self._ask(self._direct, msgspec.json.encode({"seq": seq})))
                if 0 < seq <= _SEQ_MAX
                else None
            )

    async def batch(self, pattern: str, start_seq: int, count: int) -> list[Stored]:
        """Return at most so many messages that match, from a sequence on; may lag. Fewer is not the end.

        Raises as `last`.
        """
        query = {"batch": count, "seq": start_seq, "next_by_subj": pattern}
        async with self._patient(f"read {pattern} from {start_seq} on"):
            found, _ = await self._collect(query)
            return found

    async def matching(self, patterns: Sequence[str], start_seq: int = 0) -> tuple[list[Stored], int]:
        """Return the last message on each subject that matches, in their order; may lag.

        The number is the sequence up to which the replica had the log, as far as it said. Raises
        `TooManySubjects`, and as `last`.
        """
        found: dict[int, Stored] = {}
        known: list[int] = []
        async with self._patient(f"read {_some(patterns)}"):
            for start in range(0, len(patterns), PATTERNS_AT_ONCE):
                some, up_to = await self._matching(patterns[start : start + PATTERNS_AT_ONCE], start_seq)
                found.update((each.seq, each) for each in some)
                known.append(up_to)
        return [found[seq] for seq in sorted(found)], min(known, default=0)

    # The leader's word

    async def last_sure(self, pattern: str) -> Stored | None:
        """Return the last message that matches, by the leader's word; None only by its second.

        With more than one message on a subject it may be the last but one of a moment ago. Raises as `last`.
        """
        found = await self._confirmed({"last_by_subj": pattern}, f"read the last message on {pattern}")
        if found is None and pattern == ">":
            # The server looks at the last sequence only, and finds nothing when that message was removed.
            found = await self._leader({"last_by_subj": "*.>"}, f"read the last message on {pattern}")
        return found

    async def next_sure(self, pattern: str, start_seq: int) -> Stored | None:
        """Return the first message that matches from a sequence on; None by the leader's second word. As `last`."""
        query = {"next_by_subj": pattern, "seq": start_seq}
        return await self._confirmed(query, f"read {pattern} from {start_seq} on")

    async def at_sure(self, seq: int) -> Stored | None:
        """Return the message with a sequence; None only when it is provably not there. Raises as `last`.

        A server that has a later message and not this one proves that it is gone: replicas have what came first.
        """
        if not 0 < seq <= _SEQ_MAX:
            return None
        found = next(iter(await self.batch(">", seq, 1)), None)
        if found is None and not await self.is_alone():
            found = await self.next_sure(">", seq)
        return found if found is not None and found.seq == seq else None

    async def end_sure(self, patterns: Sequence[str]) -> int:
        """Return the sequence of the last message that matches any pattern, by the leader's word; 0 without one."""
        ends: list[int] = []
        for start in range(0, len(patterns), _SUBJECTS_EACH):
            some = patterns[start : start + _SUBJECTS_EACH]
            queries = ((each, {"last_by_subj": each}) for each in some)
            found = await asyncio.gather(*(self._leader(query, f"read the end of {each}") for each, query in queries))
            ends += [each.seq for each in found if each is not None]
        return max(ends, default=0)

    async def matching_sure(self, patterns: Sequence[str], start_seq: int = 0) -> list[Stored]:
        """Return what `matching` does once it includes all that the leader has now. Raises as `matching`."""
        if await self.is_alone():
            return (await self.matching(patterns, start_seq))[0]
        pause_s, confirmed = _LAGS_S, False
        ends = patterns if len(patterns) <= _SUBJECTS_EACH else [">"]
        async with self._patient(f"read {_some(patterns)}"):
            needed = await self.end_sure(ends)
            while True:
                found, up_to = await self.matching(patterns, start_seq)
                if not found and needed and (needed < start_seq or not await self.end_sure(patterns)):
                    up_to = needed  # the server does not say it when it finds nothing
                if up_to < needed:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LAGS_MAX_S)
                elif confirmed:
                    return found
                else:
                    await asyncio.sleep(CONFIRM_S)
                    confirmed, end = True, await self.end_sure(ends)
                    if end <= max(needed, up_to):
                        return found
                    needed = end

    async def is_alone(self) -> bool:
        """Say whether only one server has the stream, so that whoever answers is the leader.

        Known for certain outside a cluster only: within one, an operator may add copies at any time.
        """
        info = self._nc._server_info
        if info.get("cluster"):
            return False
        connection = (info.get("server_id"), info.get("client_id"))
        if self._alone[0] != connection:
            async with self._patient(f"look at the stream {self.stream}"):
                answer = await self._api(self._requests.api.info(self.stream), b"")
            self._alone = (connection, answer.config is not None and answer.config.num_replicas <= 1)
        return self._alone[1]

    async def _confirmed(self, query: Mapping[str, object], what: str) -> Stored | None:
        """Return what the leader has; what it has not, it says twice."""
        found = await self._leader(query, what)
        if found is None and not await self.is_alone():
            await asyncio.sleep(CONFIRM_S)
            found = await self._leader(query, what)
        return found

    async def _leader(self, query: Mapping[str, object], what: str) -> Stored | None:
        async with self._patient(what):
            answer = await self._api(self._requests.api.get(self.stream), msgspec.json.encode(query))
        message = answer.message
        if message is None:
            return None
        return Stored(message.seq, _time(message.time), message.subject, message.data, message.hdrs)

    async def _api(self, subject: str, query: bytes) -> _Answer:
        """Ask the leader until it says something: what it has, or that there is nothing."""
        while True:
            with contextlib.suppress(NoAnswer, msgspec.DecodeError):
                answer = _decode((await self._requests.ask(subject, query, again=True)).data)
                if answer.error is None or answer.error.err_code == _NOT_FOUND:
                    return answer
                if answer.error.err_code == _STREAM_NOT_FOUND:
                    raise NoStream(self.stream)
            await asyncio.sleep(_AGAIN_S)

    async def _matching(self, patterns: Sequence[str], start_seq: int) -> tuple[list[Stored], int]:
        """Return what one request's patterns match, page by page, all as the log was at the first page."""
        found: list[Stored] = []
        query: dict[str, object] = {"multi_last": patterns}
        if start_seq:
            query["seq"] = start_seq
        while True:
            page, end = await self._collect(query)
            found += page
            headers = end.headers or {}
            up_to = int(headers.get("Nats-UpTo-Sequence", "0"))
            if headers.get("Status") == _TOO_MANY:
                raise TooManySubjects
            if not page or headers.get("Nats-Num-Pending", "0") == "0":
                return found, up_to
            query |= {"seq": page[-1].seq + 1, "up_to_seq": up_to}

    async def _collect(self, query: Mapping[str, object]) -> tuple[list[Stored], Answer]:
        """Ask for several messages until they come whole; return them and the status at their end."""
        max_bytes = BATCH_BYTES
        while True:
            try:
                *answers, end = await self._requests.collect(
                    self._direct, msgspec.json.encode({**query, "max_bytes": max_bytes})
                )
            except NoAnswer:
                max_bytes = max(max_bytes // 4, _LEAST_BYTES)
                await asyncio.sleep(_AGAIN_S)
                continue
            if (end.headers or {}).get("Status") != _NO_RESPONDER:
                return [each for each in map(stored, answers) if each is not None], end
            await self._no_responder()

    async def _ask(self, subject: str, payload: bytes) -> Answer:
        while True:
            try:
                answer = await self._requests.ask(subject, payload, again=True)
            except NoAnswer:
                await asyncio.sleep(_AGAIN_S)
                continue
            if (answer.headers or {}).get("Status") != _NO_RESPONDER:
                return answer
            await self._no_responder()

    async def _no_responder(self) -> None:
        """Tell a stream that is gone from one that no server serves at this moment. Raises `NoStream`."""
        await self._api(self._requests.api.info(self.stream), b"")
        await asyncio.sleep(_AGAIN_S)

    @contextlib.asynccontextmanager
    async def _patient(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience_s) as patience:
                yield
        except TimeoutError as error:
            if not patience.expired():
                raise
            raise BusUnavailable(what, self._patience_s or 0.0) from error


def stored(msg: Answer) -> Stored | None:
    """Return what a direct get was answered with; None when it is no message but a status."""
    header = msg.header
    if (said := _SAID.match(header, header.rfind(_STREAM))) is not None:
        subject, number, at = said.groups()
        return Stored(int(number), _time(at.decode()), text_of(subject), msg.data, header)
    seq = _value(header, b"\r\nNats-Sequence:")
    if not seq:
        return None
    at = _time(_value(header, b"\r\nNats-Time-Stamp:").decode())
    return Stored(int(seq), at, text_of(_value(header, b"\r\nNats-Subject:")), msg.data, header)


def _value(header: bytes, name: bytes) -> bytes:
    """Return what a header block says last of something: what a publisher wrote comes before what the server adds."""
    begin = header.rfind(name) + len(name)
    return header[begin : header.find(b"\r\n", begin)].strip() if begin >= len(name) else b""


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _some(patterns: Sequence[str]) -> str:
    return ", ".join(patterns[:2]) + (f" and {len(patterns) - 2} more" if len(patterns) > 2 else "")
