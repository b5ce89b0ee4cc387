"""Counters of the broker: numbers that any process adds to, without a conflict, each told the total that it made.

They have a stream of their own, `{ns}-spend` for what is spent, in which every subject is a counter. All that was added
stays in it, each with its id and with what it was for, so that the stream is a ledger as well: who finds a doubt reads
what was added for a call, and mends the total. Whole numbers only, of any size; negative ones take back.

What has an id that was added already, to this counter or to another, is not added again: the server knows the ids of
`REMEMBERED_S`. So an answer that was lost on the way costs nothing, and what is tried after that time is read up first.

Such a stream takes neither bodies, message TTLs, expected sequences nor `discard = new` (2.15.1, tried). It has no
limit of its own, then: a limit would drop what was added first. What is in it goes with its run (`baton purge`).

Source: ADR-49, https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-49.md
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import NamedTuple

import msgspec
from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from baton_bus.errors import NoStream, PublishRefused, StreamMismatch
from baton_bus.jetstream.gets import Gets, Stored
from baton_bus.jetstream.publisher import Publisher
from baton_bus.jetstream.reader import Reader
from baton_bus.jetstream.requests import Requests
from baton_bus.jetstream.streams import ensure_made, ensure_replicas, placement
from baton_bus.settings import Settings
from baton_bus.subjects import Subjects

from .removing import purge

REMEMBERED_S = 600.0
"""For how long the server knows ids again: about 100 bytes of its memory each, so 60 MB at 1,000 a second."""
PATIENCE_S = REMEMBERED_S / 2
"""How long one number is tried to be added, at the most: well within the time in which its id is known."""
_INCR, _ID = "Nats-Incr", "Nats-Msg-Id"
_SERVERS = "Nats-"
"""How headers begin that are the server's."""
_NO_COUNTERS = 10168
"""`message counters is disabled`: the stream was made without them, which cannot be changed."""
_NONE: Mapping[str, str] = {}


class Added(NamedTuple):
    """What became of a number that was added."""

    total: int
    """Of the counter, right after this was added."""
    seq: int
    """Where it is in the stream."""
    again: bool
    """It had been added before; `total` is that of then."""


class Entry(Struct, frozen=True, kw_only=True):
    """One number that was added."""

    seq: int
    at: datetime
    name: tuple[str, ...]
    by: int
    total: int
    id: str
    about: Mapping[str, str]
    """What it was for: headers of the message."""


class Counters:
    """Adds to the counters of one namespace, and reads them. A counter that nothing was added to stands at 0."""

    def __init__(
        self,
        js: JetStreamContext,
        requests: Requests,
        settings: Settings,
        subjects: Subjects,
        *,
        kind: str = "spend",
        kept_s: float = 0.0,
        totals_only: bool = False,
    ) -> None:
        """`kind` names their stream, `{ns}-{kind}`; `kept_s` is how long what was added stays there, 0 for ever.

        With `totals_only` nothing stays but the total of each: what was added again tells that of now.
        """
        self._js, self._requests, self._settings, self._subjects = js, requests, settings, subjects
        self.kind, self._kept_s, self._totals_only = kind, kept_s, totals_only
        self.stream = f"{settings.namespace}-{kind}"
        self._publisher = Publisher(js._nc, requests, self.stream)
        self._gets = Gets(js._nc, requests, self.stream, settings.patience_s)
        self._reader = Reader(js._nc, requests, self._gets, settings.patience_s)

    async def ensure(self) -> None:
        """Make the stream of counters if it is missing. Doing it twice changes nothing. Raises as `ensure_made`."""
        wanted = StreamConfig(
            name=self.stream,
            description=f"Baton's counters: {self.kind}",
            subjects=self._subjects.counters(self.kind),
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            num_replicas=self._settings.replicas,
            placement=placement(self._settings),
            allow_direct=True,
            allow_msg_counter=True,
            max_age=self._kept_s,
            max_msgs_per_subject=1 if self._totals_only else -1,
            duplicate_window=REMEMBERED_S,
        )
        await ensure_replicas(self._js, self._settings, await ensure_made(self._js, self._settings, wanted))

    async def add(
        self,
        name: tuple[str, ...],
        by: int,
        id: str,
        about: Mapping[str, str] = _NONE,
        *,
        patience_s: float = PATIENCE_S,
    ) -> Added:
        """Add to a counter, once for each `id` (of all counters), and return the total; `about` are headers that stay.

        Raises `StreamMismatch` when the stream is there and has no counters, `NotAllowed`, and the errors of
        `Publisher.create`: then it may have been added, or not.
        """
        subject, headers = self._subjects.counter(self.kind, name), {_INCR: str(by), _ID: id, **about}
        try:
            try:
                ack = await self._publisher.publish(subject, b"", headers, patience_s)
            except NoStream:  # the first, or it was deleted behind our back
                await self.ensure()
                ack = await self._publisher.publish(subject, b"", headers, patience_s)
        except PublishRefused as error:
            if error.err_code == _NO_COUNTERS:
                raise StreamMismatch(self.stream, "allow_msg_counter", False, True) from error
            raise
        assert ack is not None  # it expects nothing
        if not ack.duplicate:
            return Added(int(ack.val or "0"), ack.seq, False)
        first = await self._gets.at_sure(ack.seq)
        return Added(_total(first.data) if first is not None else await self.read(name), ack.seq, True)

    async def read(self, name: tuple[str, ...]) -> int:
        """Return the total of a counter, by the leader's word. Raises `BusUnavailable`, `NotAllowed`."""
        try:
            last = await self._gets.last_sure(self._subjects.counter(self.kind, name))
        except NoStream:
            return 0
        return _total(last.data) if last is not None else 0

    async def entries(self, name: tuple[str, ...], start_seq: int = 0) -> AsyncGenerator[Entry, None]:
        """Yield what was added to a counter, or (`*` in its name) to several, in its order, from a sequence on.

        Raises as `read`.
        """
        try:
            async with aclosing(self._reader.read(self._subjects.counter(self.kind, name), start_seq)) as found:
                async for each in found:
                    yield self._entry(each)
        except NoStream:
            return

    async def remove(self, name: tuple[str, ...]) -> int:
        """Remove a counter, or several, with all that was added; return how many numbers. Only `client/purge.py` may.

        Raises `NotAllowed`, `BusUnavailable`.
        """
        try:
            removed = await purge(
                self._requests, self.stream, self._subjects.counter(self.kind, name), self._settings.patience_s
            )
        except NoStream:
            return 0
        return removed.messages

    def _entry(self, found: Stored) -> Entry:
        headers = found.headers
        return Entry(
            seq=found.seq,
            at=found.at,
            name=self._subjects.counter_of(found.subject),
            by=int(headers.get(_INCR, "0")),
            total=_total(found.data),
            id=headers.get(_ID, ""),
            about={key: value for key, value in headers.items() if not key.startswith(_SERVERS)},
        )


class _Body(Struct, frozen=True):
    val: str = "0"


def _total(body: bytes) -> int:
    """Return the total that the server wrote into a message."""
    return int(msgspec.json.decode(body, type=_Body).val)
