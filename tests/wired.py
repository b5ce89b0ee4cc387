"""A connection with requests, a publisher and one stream: what `connect` puts together, without the rest of a bus."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, StreamConfig

from baton_bus.jetstream import connection
from baton_bus.jetstream.consumer import Puller
from baton_bus.jetstream.delivery import Delivery
from baton_bus.jetstream.nats_client import NatsClient
from baton_bus.jetstream.publisher import Publisher
from baton_bus.jetstream.requests import Requests
from baton_bus.settings import Settings


@dataclass
class Wired:
    nc: NatsClient
    js: JetStreamContext
    requests: Requests
    publisher: Publisher
    stream: str
    pullers: set[Puller]

    @contextlib.asynccontextmanager
    async def pulling(
        self,
        in_hand_max: int,
        on_delivery: Callable[[Delivery], None],
        *,
        lease_s: float = 15.0,
        name: str = "c",
        **o: Any,
    ) -> AsyncIterator[Puller]:
        """Pull from a consumer of the whole stream, made if it is missing."""
        config = ConsumerConfig(
            durable_name=name, ack_policy=AckPolicy.EXPLICIT, ack_wait=lease_s, max_ack_pending=10_000
        )
        await self.js.add_consumer(self.stream, config)
        puller = Puller(self.nc, self.stream, name, in_hand_max, on_delivery, lease_s=lease_s, **o)
        self.pullers.add(puller)
        async with puller.pulling():
            yield puller
        self.pullers.discard(puller)

    async def fill(self, count: int) -> None:
        """Write so many messages, of which the first is on `{stream}.0`."""
        await asyncio.gather(*(self.publisher.append(f"{self.stream}.{number}", b"x") for number in range(count)))

    async def unacked(self, name: str = "c") -> int:
        """How many messages the consumer has handed out or has yet to, and nobody has acked."""
        info = await self.js.consumer_info(self.stream, name)
        return (info.num_ack_pending or 0) + (info.num_pending or 0)


@contextlib.asynccontextmanager
async def wired(url: str, stream: str = "s", *, request_timeout_s: float = 5.0, **options: Any) -> AsyncIterator[Wired]:
    """Connect, and make the stream with its subjects `{stream}.>`; `options` are those of the stream."""
    settings = Settings(url=url)
    ours: Wired | None = None

    def on_lost() -> None:
        if ours is not None:
            ours.requests.lost()

    def on_back() -> None:
        if ours is not None:
            ours.requests.back()
            for puller in ours.pullers:
                puller.reconnected()

    async with connection.opened(settings, name="test", on_lost=on_lost, on_back=on_back) as nc:
        requests = Requests(nc, request_timeout_s)
        async with requests.opened():
            js = nc.jetstream()
            config = StreamConfig(name=stream, subjects=[f"{stream}.>"], discard=DiscardPolicy.NEW, **options)
            await js.add_stream(config)
            ours = Wired(nc, js, requests, Publisher(nc, requests, stream), stream, set())
            yield ours
