"""The raw floor: the same work as Baton does, written by hand on nats-py, with nothing around it.

Three hops (or a fan-out and a join), each one create-only publish, an ack, and pull requests kept outstanding.
No decoding, no state, no retries: whatever is built on the broker costs more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StorageType, StreamConfig
from nats.js.errors import NoStreamResponseError

CREATE = {"Nats-Expected-Last-Subject-Sequence": "0"}
_ROUTES_S = 0.02
Work = Callable[[Msg], Coroutine[None, None, None]]


class Floor:
    """A stream with consumers on it, and futures for the runs under way."""

    def __init__(self, nc: Client, js: JetStreamContext, stream: str) -> None:
        self.nc, self.js, self.stream = nc, js, stream
        self.done: dict[str, asyncio.Future[None]] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def publish(self, subject: str, body: bytes) -> None:
        await self.js.publish(subject, body, headers=CREATE)

    def end(self, run: str) -> None:
        self.done.pop(run).set_result(None)

    async def run(self, run: str, body: bytes) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done[run] = done
        await self.publish(f"{self.stream}.a.{run}", body)
        await done

    @contextlib.asynccontextmanager
    async def consuming(self, name: str, work: Work, in_hand_max: int) -> AsyncIterator[None]:
        """Pull from `{stream}.{name}.>` with requests kept outstanding; each message gets a task."""
        consumer = ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=f"{self.stream}.{name}.>",
            max_ack_pending=10_000,
            ack_wait=15,
        )
        await self.js.add_consumer(self.stream, consumer)
        inbox = self.nc.new_inbox()
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{name}"
        outstanding = 0

        async def pull() -> None:
            nonlocal outstanding
            if outstanding <= in_hand_max // 2:
                batch = in_hand_max - outstanding
                outstanding += batch
                await self.nc.publish(subject, json.dumps({"batch": batch}).encode(), reply=inbox)

        async def on_msg(msg: Msg) -> None:
            nonlocal outstanding
            if not msg.reply:  # in a cluster the route to a new consumer's leader may not be known yet
                outstanding = 0
                await asyncio.sleep(_ROUTES_S)
                await pull()
                return
            outstanding -= 1
            task: asyncio.Task[None] = asyncio.create_task(work(msg))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            await pull()

        subscription = await self.nc.subscribe(inbox, cb=on_msg)
        await pull()
        try:
            yield
        finally:
            await subscription.unsubscribe()


async def _until_routed(js: JetStreamContext, stream: str) -> None:
    """Wait until publishes reach the stream: in a cluster its leader answers before others know the way to it."""
    while True:
        with contextlib.suppress(NoStreamResponseError):
            await js.publish(f"{stream}.begun", b"")
            return
        await asyncio.sleep(_ROUTES_S)


@contextlib.asynccontextmanager
async def opened(nc: Client, stream: str, replicas: int = 1) -> AsyncIterator[Floor]:
    js = nc.jetstream(timeout=30)
    await js.add_stream(
        StreamConfig(
            name=stream, subjects=[f"{stream}.>"], storage=StorageType.FILE, allow_direct=True, num_replicas=replicas
        )
    )
    try:
        await _until_routed(js, stream)
        yield Floor(nc, js, stream)
    finally:
        await js.delete_stream(stream)


@contextlib.asynccontextmanager
async def pipeline(nc: Client, stream: str, wait_s: float = 0.0, replicas: int = 1) -> AsyncIterator[Floor]:
    """Three hops: a, b, c, and the result."""
    async with opened(nc, stream, replicas) as floor, contextlib.AsyncExitStack() as stack:

        def hop(following: str) -> Work:
            async def work(msg: Msg) -> None:
                run = msg.subject.rpartition(".")[2]
                if wait_s:
                    await asyncio.sleep(wait_s)
                await floor.publish(f"{stream}.{following}.{run}", msg.data)
                await msg.ack()
                if following == "end":
                    floor.end(run)

            return work

        for name, following in (("a", "b"), ("b", "c"), ("c", "end")):
            await stack.enter_async_context(floor.consuming(name, hop(following), 256))
        yield floor


@contextlib.asynccontextmanager
async def fan_out(nc: Client, stream: str, branches: int) -> AsyncIterator[Floor]:
    """One step that hands out `branches`, a join with a record of who has arrived, and the result."""
    async with opened(nc, stream) as floor, contextlib.AsyncExitStack() as stack:
        arrived: dict[str, list[Msg]] = {}
        counts: dict[str, int] = {}
        updating: set[str] = set()

        async def split(msg: Msg) -> None:
            run = msg.subject.rpartition(".")[2]
            await floor.publish(f"{stream}.outcome.{run}", msg.data)
            for start in range(0, branches, 500):
                some = range(start, min(branches, start + 500))
                await asyncio.gather(*(floor.publish(f"{stream}.b.{run}.{i}", msg.data) for i in some))
            await msg.ack()

        async def branch(msg: Msg) -> None:
            *_, run, index = msg.subject.split(".")
            await floor.publish(f"{stream}.r.{run}.{index}", msg.data)
            await msg.ack()

        async def reply(msg: Msg) -> None:
            run = msg.subject.split(".")[2]
            arrived.setdefault(run, []).append(msg)
            if run in updating:
                return
            updating.add(run)
            while arrived[run]:
                some, arrived[run] = arrived[run], []
                counts[run] = counts.get(run, 0) + len(some)
                await floor.js.publish(f"{stream}.join.{run}", b"x" * 20 * counts[run])
                if counts[run] == branches:
                    await floor.publish(f"{stream}.m.{run}", b"x" * 20 * branches)
                for one in some:
                    await one.ack()
            updating.discard(run)

        async def merge(msg: Msg) -> None:
            run = msg.subject.rpartition(".")[2]
            await floor.publish(f"{stream}.end.{run}", msg.data)
            await msg.ack()
            floor.end(run)

        for name, work in (("a", split), ("b", branch), ("r", reply), ("m", merge)):
            await stack.enter_async_context(floor.consuming(name, work, 1024))
        yield floor
