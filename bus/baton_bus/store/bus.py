"""The bus: one connection, and what is kept over it (the log, blobs, timers, counters) as verbs. Use `open_bus`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from collections.abc import AsyncIterator, Callable, Sequence

import structlog
from nats.aio.client import Client as NatsClient
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from baton_bus.errors import BusUnavailable, JetStreamStopped, LogFull
from baton_bus.jetstream import connection, streams
from baton_bus.jetstream.client import denials_of
from baton_bus.jetstream.consumer import Delivery, Puller
from baton_bus.jetstream.nats_client import client_of, frame_of, text_of
from baton_bus.jetstream.publisher import Publisher
from baton_bus.jetstream.requests import Requests
from baton_bus.settings import Settings
from baton_bus.subjects import Subjects

from .blobs import Blobs
from .clock import Clock
from .counters import Counters
from .log import Log
from .rates import Rates
from .slots import Slots
from .timers import Timers

CLOCK_OFF_S = 0.1
"""How far off our idea of the broker's clock may be, in seconds: it was told over a network."""
_FULL_RETRY_S = 2.0
"""While the log is full, what waits to be written is tried this often."""
_LISTENS_S = 10
"""How long the server may take to hear that we listen; a lost connection is waited for within it."""
_WORDS_BEHIND_BYTES = 256 * 1024
"""Of what waits to be sent: with more, the network is slow, and work goes first."""
_PAYLOAD_PART = 4
"""A message carries up to twice the inline limit in values, and the rest: so a value is at most this part of one."""

logger = structlog.get_logger("baton.bus")


class Bus:
    """What clients, workers and services need of NATS. Safe for one event loop."""

    def __init__(self, nc: NatsClient, js: JetStreamContext, requests: Requests, settings: Settings) -> None:
        self.nc, self.js, self.settings, self.requests = nc, js, settings, requests
        self.subjects = Subjects(settings.namespace)
        self.publisher = Publisher(nc, requests, settings.namespace)
        self.log = Log(js, requests, settings, self.subjects)
        self.blobs = Blobs(js, requests, settings)
        self.timers = Timers(js, requests, settings, self.subjects)
        self.counters = Counters(js, requests, settings, self.subjects)
        self.clock = Clock()
        taken = Counters(js, requests, settings, self.subjects, kind="limits", totals_only=True)
        self.rates = Rates(taken, self.clock.now_s)
        self.slots = Slots(js, requests, settings, self.subjects)
        self.epoch = 0
        """Counts connections: what was heard in an earlier one may have gaps before this one."""
        self.fresh_since_s = math.inf
        """What was stored before this (Unix time by the broker's clock) may be done already, or of a run that ended
        unheard: we were not connected then, or the consumer is a new one that begins with the log."""
        self._pullers: set[Puller] = set()
        self._on_back: list[Callable[[], None]] = []

    @property
    def inline_limit_bytes(self) -> int:
        """The largest value that stands in a message: the setting, or less where the server takes small messages."""
        return min(self.settings.inline_limit_bytes, self.nc.max_payload // _PAYLOAD_PART)

    # ---- writing -----------------------------------------------------------------------------------

    async def create(self, subject: str, body: bytes) -> int | None:
        """Write as `Publisher.create`, and wait while the log is full: what is done, or paid for, must not be lost.

        Raises the errors of `Publisher.create` but for `LogFull` and `JetStreamStopped`.
        """
        while True:
            try:
                return await self.publisher.create(subject, body)
            except (LogFull, JetStreamStopped) as error:
                logger.error("log.full", error=str(error), subject=subject)
                await asyncio.sleep(_FULL_RETRY_S)

    async def create_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Write messages, by subject and body, at the same time. Waits and raises as `create`."""
        left = await self.publisher.create_all(messages)
        await asyncio.gather(*(self.create(subject, body) for subject, body in left))

    async def replace_last(self, subject: str, body: bytes, last_seq: int) -> int | None:
        """Write behind the last message on a subject, if it still is that one, else None. Waits and raises as `create`.

        None may also mean that our own earlier try was stored.
        """
        while True:
            try:
                return await self.publisher.update(subject, body, last_seq)
            except (LogFull, JetStreamStopped) as error:
                logger.error("log.full", error=str(error), subject=subject)
                await asyncio.sleep(_FULL_RETRY_S)

    async def say(self, subject: str, body: bytes) -> None:
        """Publish a word on core NATS that is not stored: advice to whoever listens. Never fails."""
        with contextlib.suppress(Exception):
            await self.nc.publish(subject, body)

    def say_soon(self, subject: str, body: bytes) -> None:
        """Publish such a word without waiting: it is lost while the connection is away, or behind. Never fails."""
        nc = client_of(self.nc)
        if self.is_connected and nc.pending_data_size <= _WORDS_BEHIND_BYTES and len(body) <= nc.max_payload:
            with contextlib.suppress(Exception):
                nc.send_soon(frame_of(subject, b"", body))

    def was_refused(self, end: str) -> bool:
        """Say whether the server refused this user to publish on a subject that ends so."""
        return any(each.kind == "publish" and each.subject.endswith(end.lower()) for each in denials_of(self.nc))

    # ---- hearing -----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def hearing(
        self, subject: str, heard: Callable[[str, bytes], None], *, sure: bool = True
    ) -> AsyncIterator[None]:
        """Call `heard` with subject and body of each message on a core subject, while the context is open.

        Raises `BusUnavailable` when the server does not say that it has heard of it; unless it need not be `sure`.
        """

        def on_message(subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
            heard(text_of(subject), data)

        async with contextlib.AsyncExitStack() as stack:
            try:
                subscription = await client_of(self.nc).listen(subject, on_message)
                stack.push_async_callback(_unsubscribe, subscription)
                if sure:
                    await self.nc.flush(timeout=_LISTENS_S)
            except (NatsError, OSError, TimeoutError) as error:
                raise BusUnavailable(f"listen on {subject}", _LISTENS_S) from error
            yield

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
                await streams.ensure_stream(self.js, self.settings, self.subjects)
            await streams.ensure_consumer(self.js, self.settings, stream, consumer, filter_subject, max_ack_pending)

        async def make_again() -> None:
            self.fresh_from_now()
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

    # ---- time and connection -----------------------------------------------------------------------

    def now_s(self) -> float:
        """Return the time by the broker's clock, in seconds of Unix time."""
        return self.clock.now_s()

    def is_fresh(self, delivery: Delivery) -> bool:
        """Say whether nobody can have worked on this, and we would have heard it if its run had ended."""
        stored_at_s = delivery.stored_at_s
        self.clock.heard(stored_at_s)
        waited_s = self.now_s() - stored_at_s
        if self.clock.in_doubt:
            return False
        return delivery.delivered == 1 and waited_s <= self.settings.lease_s and stored_at_s >= self.fresh_since_s

    def fresh_from_now(self) -> None:
        """From now on we hear all there is to hear; what was stored before may have been missed."""
        self.fresh_since_s = self.now_s() + CLOCK_OFF_S

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, the one that `epoch` counts."""
        return self.requests.connected.is_set()

    async def connected(self) -> None:
        """Wait while the connection is away."""
        await self.requests.connected.wait()

    def when_back(self, call: Callable[[], None]) -> None:
        """Call this whenever the connection was lost and is mended."""
        self._on_back.append(call)

    def on_lost(self) -> None:
        """The connection is gone: nothing that was asked will be answered."""
        self.requests.lost()

    def on_back(self) -> None:
        """The connection is mended: ask for work again."""
        self.epoch += 1
        self.fresh_from_now()
        self.requests.back()
        for puller in self._pullers:
            puller.reconnected()
        self.log.reconnected()
        for call in self._on_back:
            call()


async def _unsubscribe(subscription: Subscription) -> None:
    with contextlib.suppress(Exception):
        await subscription.unsubscribe()


@contextlib.asynccontextmanager
async def open_bus(settings: Settings | None = None, *, name: str = "", reads: bool = False) -> AsyncIterator[Bus]:
    """Open the bus: connect, check the server, make the stream if it is missing.

    Without settings they come from the environment. One who only `reads` makes and changes nothing, and gets
    `NoStream` where there is no log. Raises `NoServer`, `ServerTooOld`, `JetStreamOff`, `StreamMismatch`, and as
    `ensure_stream`.
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
            js = nc.jetstream(prefix=settings.api_prefix, timeout=settings.request_timeout_s)
            bus = Bus(nc, js, requests, settings)
            await streams.ensure_stream(bus.js, settings, bus.subjects, mend=not reads)
            async with bus.clock.kept(requests, settings.namespace):
                yield bus
