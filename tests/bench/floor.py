"""The raw floor: the same work as Baton does, written by hand on the cheapest client there is, with nothing around it.

That client is our own: requests with one inbox and a header that is a constant, pull requests kept outstanding,
listeners that are called from where messages are read. Three hops (or a fan-out and a join), each one create-only
publish and an ack, all in one process, or with a process for each actor; a client hears of results as any must, from
what the stream republishes. No decoding, no state, no retries: whatever is built on the broker costs more.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Protocol

import msgspec
from nats.js.api import ConsumerConfig, RePublish, StorageType, StreamConfig
from nats.js.errors import NoStreamResponseError

from baton_bus import Settings
from baton_bus.jetstream import connection
from baton_bus.jetstream.consumer import Delivery, Puller
from baton_bus.jetstream.nats_client import NatsClient
from baton_bus.jetstream.publisher import Publisher
from baton_bus.jetstream.requests import Requests

_ROUTES_S = 0.02
_ROOT = Path(__file__).parents[2]

Work = Callable[[str, Delivery], Coroutine[None, None, None]]
"""Is given the run and its delivery."""


class Shape(Protocol):
    """What is done by hand: see `shapes`."""

    @property
    def actors(self) -> tuple[str, ...]:
        """By process: the tokens of the consumers that it serves, of one letter each."""

    @property
    def in_hand_max(self) -> int:
        """Deliveries that each consumer hands out at once."""

    def works(self, floor: Floor) -> dict[str, Work]:
        """Return what is done with what each consumer hands out."""


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
    async def doing(self, shape: Shape, consumers: str) -> AsyncIterator[None]:
        """Do the work of these consumers of a shape while the context is open."""
        works = shape.works(self)
        async with contextlib.AsyncExitStack() as stack:
            for name in consumers:
                await stack.enter_async_context(self.consuming(name, works[name], shape.in_hand_max))
            yield


@contextlib.asynccontextmanager
async def connected(url: str, stream: str) -> AsyncIterator[Floor]:
    """Connect."""
    settings = Settings(url=url, request_timeout_s=30)
    async with connection.opened(settings, name="floor", on_lost=_nothing, on_back=_nothing) as nc:
        requests = Requests(nc, settings.request_timeout_s)
        async with requests.opened():
            yield Floor(nc, Publisher(nc, requests, stream), stream)


@contextlib.asynccontextmanager
async def opened(url: str, stream: str, replicas: int = 1) -> AsyncIterator[Floor]:
    """Connect, and have a stream while the context is open."""
    async with connected(url, stream) as floor:
        nc, js = floor.nc, floor.nc.jetstream(timeout=30)
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
        hearing = await nc.listen(f"{stream}-stored.end.>", floor.ended)
        try:
            await _until_routed(nc, stream)
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
async def in_one_process(url: str, stream: str, shape: Shape, replicas: int = 1) -> AsyncIterator[Floor]:
    """Have all of a shape's work done in this process while the context is open."""
    async with opened(url, stream, replicas) as floor, floor.doing(shape, "".join(shape.actors)):
        yield floor


@contextlib.asynccontextmanager
async def as_processes(url: str, stream: str, shape: Shape) -> AsyncIterator[Floor]:
    """The same with a process for each actor, as Baton has: what processes cost as such is no doing of Baton's."""
    async with opened(url, stream) as floor, contextlib.AsyncExitStack() as stack:
        for actor in shape.actors:
            told = msgspec.json.encode(shape).decode()
            command = (sys.executable, "-m", "tests.bench.actor", url, stream, told, actor)
            process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220
            stack.enter_context(process)
            assert process.stdin is not None
            stack.callback(process.stdin.close)
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"ready\n"
        yield floor
