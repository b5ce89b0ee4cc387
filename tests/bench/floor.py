"""The raw floor: the same work as Baton does, written by hand on the cheapest client there is, with nothing around it.

That client is our own: requests with one inbox and a header that is a constant, pull requests kept outstanding,
listeners that are called from where messages are read. Three hops (or a fan-out and a join), each one create-only
publish and an ack, all in one process; a client hears of results as any must, from what the stream republishes.
No decoding, no state, no retries: whatever is built on the broker costs more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine

from nats.js.api import ConsumerConfig, RePublish, StorageType, StreamConfig
from nats.js.errors import NoStreamResponseError

from baton_bus import Settings
from baton_bus.jetstream import connection
from baton_bus.jetstream.consumer import Delivery, Puller
from baton_bus.jetstream.nats_client import NatsClient
from baton_bus.jetstream.publisher import Publisher
from baton_bus.jetstream.requests import Requests

_ROUTES_S = 0.02
Work = Callable[[str, Delivery], Coroutine[None, None, None]]
"""Is given the run and its delivery."""


class Floor:
    """A stream with consumers on it, and futures for the runs under way."""

    def __init__(self, nc: NatsClient, publisher: Publisher, stream: str) -> None:
        self.nc, self.publisher, self.stream = nc, publisher, stream
        self.done: dict[bytes, asyncio.Future[None]] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def create(self, *tokens: str, body: bytes) -> None:
        await self.publisher.create(".".join((self.stream, *tokens)), body)

    async def run(self, run: str, body: bytes) -> None:
        done = self.done[run.encode()] = asyncio.get_running_loop().create_future()
        await self.create("a", run, body=body)
        await done

    def ended(self, subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
        """Hear that a result is stored."""
        self.done.pop(subject.rpartition(b".")[2]).set_result(None)

    @contextlib.asynccontextmanager
    async def consuming(self, name: str, work: Work, in_hand_max: int) -> AsyncIterator[None]:
        """Pull from `{stream}.{name}.>`; each message gets a task."""
        consumer = ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=f"{self.stream}.{name}.>",
            max_ack_pending=10_000,
            ack_wait=15,
        )
        await self.nc.jetstream(timeout=30).add_consumer(self.stream, consumer)

        def on_delivery(delivery: Delivery) -> None:
            task = asyncio.create_task(work(delivery.subject.split(".")[2], delivery))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

        async with Puller(self.nc, self.stream, name, in_hand_max, on_delivery).pulling():
            yield


@contextlib.asynccontextmanager
async def opened(url: str, stream: str, replicas: int = 1) -> AsyncIterator[Floor]:
    """Connect, and have a stream while the context is open."""
    settings = Settings(url=url, request_timeout_s=30)
    async with connection.opened(settings, name="floor", on_lost=_nothing, on_back=_nothing) as nc:
        requests, js = Requests(nc, settings.request_timeout_s), nc.jetstream(timeout=30)
        await js.add_stream(
            StreamConfig(
                name=stream,
                subjects=[f"{stream}.>"],
                storage=StorageType.FILE,
                allow_direct=True,
                num_replicas=replicas,
                republish=RePublish(src=f"{stream}.end.>", dest=f"{stream}-stored.end.>"),
            )
        )
        floor = Floor(nc, Publisher(nc, requests, stream), stream)
        hearing = await nc.listen(f"{stream}-stored.end.>", floor.ended)
        try:
            await _until_routed(nc, stream)
            async with requests.opened():
                yield floor
        finally:
            await hearing.unsubscribe()
            await js.delete_stream(stream)


async def _until_routed(nc: NatsClient, stream: str) -> None:
    """Wait until publishes reach the stream: in a cluster its leader answers before others know the way to it."""
    while True:
        with contextlib.suppress(NoStreamResponseError):
            await nc.jetstream(timeout=30).publish(f"{stream}.begun", b"")
            return
        await asyncio.sleep(_ROUTES_S)


def _nothing() -> None:
    """The server of a bench stays."""


@contextlib.asynccontextmanager
async def pipeline(url: str, stream: str, wait_s: float = 0.0, replicas: int = 1) -> AsyncIterator[Floor]:
    """Three hops: a, b, c, and the result."""
    async with opened(url, stream, replicas) as floor, contextlib.AsyncExitStack() as stack:

        def hop(following: str) -> Work:
            async def work(run: str, delivery: Delivery) -> None:
                if wait_s:
                    await asyncio.sleep(wait_s)
                await floor.create(following, run, body=delivery.data)
                await delivery.ack()

            return work

        for name, following in (("a", "b"), ("b", "c"), ("c", "end")):
            await stack.enter_async_context(floor.consuming(name, hop(following), 256))
        yield floor


@contextlib.asynccontextmanager
async def fan_out(url: str, stream: str, branches: int) -> AsyncIterator[Floor]:
    """One step that hands out `branches`, a join with records of who has arrived, and the result."""
    async with opened(url, stream) as floor, contextlib.AsyncExitStack() as stack:
        arrived: dict[str, list[Delivery]] = {}
        counts: dict[str, int] = {}
        links: dict[str, int] = {}
        updating: set[str] = set()

        async def split(run: str, delivery: Delivery) -> None:
            await floor.create("outcome", run, body=delivery.data)
            for start in range(0, branches, 500):
                some = range(start, min(branches, start + 500))
                await asyncio.gather(*(floor.create("b", run, str(index), body=delivery.data) for index in some))
            await delivery.ack()

        async def branch(run: str, delivery: Delivery) -> None:
            await floor.create("r", run, delivery.subject.rpartition(".")[2], body=delivery.data)
            await delivery.ack()

        async def reply(run: str, delivery: Delivery) -> None:
            arrived.setdefault(run, []).append(delivery)
            if run in updating:
                return
            updating.add(run)
            while arrived[run]:
                some, arrived[run] = arrived[run], []
                counts[run] = counts.get(run, 0) + len(some)
                links[run] = links.get(run, 0) + 1
                await floor.create("join", run, str(links[run]), body=b"x" * 20)
                if counts[run] == branches:
                    await floor.create("m", run, body=b"x" * 20)
                for one in some:
                    await one.ack()
            updating.discard(run)

        async def merge(run: str, delivery: Delivery) -> None:
            await floor.create("end", run, body=delivery.data)
            await delivery.ack()

        for name, work in (("a", split), ("b", branch), ("r", reply), ("m", merge)):
            await stack.enter_async_context(floor.consuming(name, work, 1024))
        yield floor
