"""The bus: one connection, and all that a client or a worker does over it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import AsyncIterator, Callable

import structlog
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from baton_bus.client.client import Client
from baton_bus.errors import LogFull
from baton_bus.jetstream import connection
from baton_bus.jetstream import streams as topology
from baton_bus.jetstream.consumer import Delivery, Puller
from baton_bus.jetstream.requests import Requests
from baton_bus.settings import Settings
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Handoff, Note, Reply
from baton_schemas.wire.names import sortable_id

_CLOCK_OFF_S = 0.1
"""How far off our idea of the broker's clock may be, in seconds: it was told over a network."""
_FULL_RETRY_S = 2.0
"""While the log is full, what waits to be written is tried this often."""

logger = structlog.get_logger("baton.bus")


class Bus(Client):
    """The client's calls, and what workers need besides. Use `connect` to open one. Safe for one event loop."""

    def __init__(self, nc: NatsClient, js: JetStreamContext, requests: Requests, settings: Settings) -> None:
        super().__init__(nc, js, requests, settings)
        self.clock_ahead_s = 0.0
        """How far the broker's clock is ahead of ours, in seconds."""
        self.fresh_since_s = math.inf
        """What was stored before this (Unix time by the broker's clock) may be done already, or of a run that ended
        unheard: we were not connected then, or the consumer is a new one that begins with the log."""
        self._pullers: set[Puller] = set()

    @contextlib.asynccontextmanager
    async def hearing_ends(self, heard: Callable[[str], None]) -> AsyncIterator[None]:
        """Call `heard` with the id of each run whose end is announced, while the context is open."""

        async def on_end(msg: Msg) -> None:
            heard(self.subjects.run_of_live(msg.subject))

        subscription = await self.nc.subscribe(self.subjects.live("*", "end"), cb=on_end)
        self._fresh_from_now()
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def replies(self, merger: str, handoff: Handoff, branches: list[str]) -> list[Reply]:
        """Return the replies to a join: those of these branches, or all that there are."""
        subjects = [self.subjects.reply(merger, handoff.run, handoff.step, name) for name in branches or ["*"]]
        entries = await self.log.matching(subjects, handoff.start_seq)
        return [entry.message for entry in entries if isinstance(entry.message, Reply)]

    async def create_with_room(self, subject: str, body: bytes) -> int | None:
        """Write as `Publisher.create`, and wait while the log is full: what is done, or paid for, must not be lost.

        Raises the errors of `Publisher.create` but for `LogFull`.
        """
        while True:
            try:
                return await self.publisher.create(subject, body)
            except LogFull as error:
                logger.error("log.full", error=str(error), subject=subject)
                await asyncio.sleep(_FULL_RETRY_S)

    async def note(self, actor: str, note: Note, *, waits: bool = False) -> None:
        """Write a note on a step, once, as attempts are counted by notes; if it `waits`, as `create_with_room`.

        Raises the errors of `Publisher.create`.
        """
        subject = self.subjects.note(actor, note.run, note.step, sortable_id())
        write = self.create_with_room if waits else self.publisher.create
        await write(subject, encode(note))

    async def notes(self, actor: str, run: str, step: str) -> list[Note]:
        """Return the notes on a step, in their order."""
        entries = await self.log.matching([self.subjects.note(actor, run, step, "*")])
        return [entry.message for entry in entries if isinstance(entry.message, Note)]

    async def say_running(self, run: str, step: str, attempt: int) -> None:
        """Tell whoever watches that a step is being done. Not stored."""
        await self.nc.publish(self.subjects.live(run, "running", step), b'{"attempt":%d}' % attempt)

    @contextlib.asynccontextmanager
    async def pulling(
        self,
        consumer: str,
        filter_subject: str,
        in_hand_max: int,
        on_delivery: Callable[[Delivery], None],
        *,
        max_ack_pending: int,
        due: bool = False,
    ) -> AsyncIterator[Puller]:
        """Take deliveries of a durable consumer, made if it is missing, while the context is open.

        It is one on the log, or (`due`) on the stream of timers.
        """
        stream = self.timers.stream if due else self.settings.namespace

        async def make() -> None:
            if due:
                await self.timers.ensure()
            else:
                await topology.ensure_stream(self.js, self.settings, self.subjects)
            await topology.ensure_consumer(self.js, self.settings, stream, consumer, filter_subject, max_ack_pending)

        async def make_again() -> None:
            self._fresh_from_now()
            await make()

        await make()
        puller = Puller(
            self.nc,
            stream,
            consumer,
            in_hand_max,
            on_delivery,
            lease_s=self.settings.lease_s,
            on_gone=make_again,
        )
        self._pullers.add(puller)
        try:
            async with puller.pulling():
                yield puller
        finally:
            self._pullers.discard(puller)

    def now_s(self) -> float:
        """Return the time by the broker's clock, in seconds of Unix time."""
        return time.time() + self.clock_ahead_s

    def is_fresh(self, delivery: Delivery) -> bool:
        """Say whether nobody can have worked on this, and we would have heard it if its run had ended."""
        stored_at_s = delivery.stored_at_s
        waited_s = self.now_s() - stored_at_s
        return delivery.delivered == 1 and waited_s <= self.settings.lease_s and stored_at_s >= self.fresh_since_s

    def on_lost(self) -> None:
        """The connection is gone: nothing that was asked will be answered."""
        self._requests.connected.clear()
        self._requests.lost()

    def on_back(self) -> None:
        """The connection is mended: ask for work again."""
        self._fresh_from_now()
        self._requests.connected.set()
        for puller in self._pullers:
            puller.reconnected()
        self.log.reconnected()

    def _fresh_from_now(self) -> None:
        self.fresh_since_s = self.now_s() + _CLOCK_OFF_S


@contextlib.asynccontextmanager
async def connect(settings: Settings | None = None, *, name: str = "") -> AsyncIterator[Bus]:
    """Open the bus: connect, check the server, make the stream if it is missing.

    Without settings they come from the environment. Raises `NoServer`, `ServerTooOld`, `JetStreamOff`,
    `StreamMismatch`.
    """
    settings = settings or Settings.from_environ()
    bus: Bus | None = None

    def on_lost() -> None:
        if bus is not None:
            bus.on_lost()

    def on_back() -> None:
        if bus is not None:
            bus.on_back()

    name = name or f"baton client {os.getpid()}"
    async with connection.opened(settings, name=name, on_lost=on_lost, on_back=on_back) as nc:
        requests = Requests(nc, settings.request_timeout_s)
        async with requests.opened():
            bus = Bus(nc, nc.jetstream(timeout=settings.request_timeout_s), requests, settings)
            await topology.ensure_stream(bus.js, settings, bus.subjects)
            bus.clock_ahead_s = await topology.clock_ahead_s(requests, settings)
            yield bus
