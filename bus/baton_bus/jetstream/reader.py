"""Reading a stream from a sequence to its end, or on and on, through purges, restarts and replicas that lag.

To the end: the leader says where the end is (0.4 ms), then direct gets of many messages at once bring what is before
it. Nothing is made at the server, so nothing is left there, and a read that is broken off is just asked again. 10,000
messages of a run take 0.13 s so, and 0.07 s through a consumer, in a log of 200,000 or of a million.

Whatever follows waits for what is not there yet, and for that there is a consumer without acks, for as long as somebody
reads; or, for who may have none, the same reads again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError

from baton_bus.errors import BusUnavailable, NoStream, NotAllowed
from baton_bus.jetstream.consumer import Delivery, Puller
from baton_bus.jetstream.gets import Gets, Stored
from baton_bus.jetstream.requests import NoAnswer, Requests
from baton_bus.subjects import matcher

EVERYTHING = ">"
_BATCH = 2_000
"""Messages asked for at once: enough to hide the round trip, few enough to be held twice (one batch is read ahead)."""
_IN_HAND = 1_000
"""The same through a consumer."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_IDLE_S = 60.0
"""After this the server removes a consumer that nobody pulls from, in seconds: one whose reader was killed."""
POLL_S = 0.5
"""How often whoever may have no consumer looks for more, in seconds: a question of 0.4 ms to the leader."""
_AGAIN_S = 0.2
_SILENCE_S = 1.0
"""How soon the making of a consumer is asked for again, after a refusal and after silence: a cluster may elect."""
_CONSUMER_EXISTS = frozenset({10013, 10105, 10148})
_STREAM_NOT_FOUND = 10059


class _ApiError(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class _Answer(msgspec.Struct):
    error: _ApiError | None = None


class Reader:
    """Reads the messages of one stream in their order."""

    def __init__(self, nc: Client, requests: Requests, gets: Gets, patience_s: float) -> None:
        self._nc, self._requests, self._gets, self._patience_s = nc, requests, gets, patience_s
        self._following: set[Callable[[], None]] = set()

    def reconnected(self) -> None:
        """The connection is mended: what was on its way to whoever follows is lost, so each begins a new consumer."""
        for lost in list(self._following):
            lost()

    async def read(self, pattern: str, start_seq: int = 0, end_seq: int = 0) -> AsyncGenerator[Stored, None]:
        """Yield every message that matches, from a sequence on, to the one that the leader says is now the last.

        With `end_seq` to that sequence instead, wherever the end is. A message that is purged meanwhile may be left
        out, and one that is there is never. Raises `BusUnavailable`, `NoStream`.
        """
        async with aclosing(self.batches(pattern, start_seq, end_seq)) as batches:
            async for batch in batches:
                for each in batch:
                    yield each

    async def batches(self, pattern: str, start_seq: int = 0, end_seq: int = 0) -> AsyncGenerator[list[Stored], None]:
        """Yield what `read` does, as many at a time as came together."""
        if not end_seq:
            last = await self._gets.last_sure(pattern)
            end_seq = last.seq if last is not None else 0
        next_seq = max(start_seq, 1)
        if next_seq > end_seq:
            return
        asked = self._ask(pattern, next_seq, end_seq)
        try:
            while True:
                batch = await asked or await self._leaders(pattern, next_seq)
                if not batch:
                    return
                next_seq = batch[-1].seq + 1
                if next_seq <= end_seq:
                    asked = self._ask(pattern, next_seq, end_seq)
                if next_seq > end_seq:
                    yield [each for each in batch if each.seq <= end_seq]
                    return
                yield batch
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    def _ask(self, pattern: str, next_seq: int, end_seq: int) -> asyncio.Task[list[Stored]]:
        """Ask for the messages that come next, while those that came are worked on."""
        getting = self._gets.batch(pattern, next_seq, min(_BATCH, end_seq - next_seq + 1))
        return asyncio.create_task(getting, name=f"read {pattern} from {next_seq} on")

    async def _leaders(self, pattern: str, next_seq: int) -> list[Stored]:
        """Return what the leader has where a replica has nothing: it lags, or what was there is purged."""
        if await self._gets.is_alone():
            return []
        found = await self._gets.next_sure(pattern, next_seq)
        return [found] if found is not None else []

    async def follow(self, patterns: Sequence[str], start_seq: int = 0) -> AsyncGenerator[Stored, None]:
        """Yield every message that matches, from a sequence on, and then as they come, until closed.

        Who may have no consumer reads again and again instead. Raises `BusUnavailable`, `NoStream`.
        """
        next_seq = max(start_seq, 1)
        try:
            async with aclosing(self._pushed(patterns, next_seq)) as pushed:
                async for each in pushed:
                    next_seq = each.seq + 1
                    yield each
        except NotAllowed:
            async with aclosing(self._polled(patterns, next_seq)) as polled:
                async for each in polled:
                    yield each

    async def hear(self, pattern: str, start_seq: int, heard: Callable[[Stored], None]) -> None:
        """Call `heard` with every message that matches, from a sequence on, and then as they come, until cancelled.

        As `follow`, with less on the way of each: it is called from where messages are read. Raises as that.
        """
        next_seq = start_seq
        while True:
            next_seq = await self._hear(pattern, next_seq, heard)

    async def _hear(self, pattern: str, next_seq: int, heard: Callable[[Stored], None]) -> int:
        """Do so through one consumer, until it breaks; return the sequence to go on from."""
        consumer, broken, handed_out = self._nc.new_inbox().rpartition(".")[2], asyncio.Event(), 0

        async def gone() -> None:
            broken.set()

        def on_delivery(one: Delivery) -> None:
            nonlocal next_seq, handed_out
            puller.drop(one)
            if broken.is_set() or one.consumer_seq != handed_out + 1:  # a gap
                broken.set()
                return
            handed_out, next_seq = handed_out + 1, one.seq + 1
            heard(_stored(one))

        puller = Puller(self._nc, self._gets.stream, consumer, _IN_HAND, on_delivery, on_gone=gone)
        self._following.add(broken.set)
        try:
            await self._make(consumer, [pattern], next_seq)
            async with puller.pulling():
                await broken.wait()
        except NotAllowed:
            async with aclosing(self._polled([pattern], next_seq)) as polled:
                async for each in polled:
                    heard(each)
        finally:
            self._following.discard(broken.set)
            await self._remove(consumer)
        return next_seq

    async def _polled(self, patterns: Sequence[str], next_seq: int) -> AsyncGenerator[Stored, None]:
        """Follow without a consumer."""
        pattern, wanted = (patterns[0] if len(patterns) == 1 else EVERYTHING), matcher(patterns)
        while True:
            async with aclosing(self.read(pattern, next_seq)) as read:
                async for each in read:
                    next_seq = each.seq + 1
                    if wanted(each.subject):
                        yield each
            await asyncio.sleep(POLL_S)

    async def _pushed(self, patterns: Sequence[str], next_seq: int) -> AsyncGenerator[Stored, None]:
        """Follow through a consumer. Raises `NotAllowed`, and as `follow`."""
        while True:
            consumer = self._nc.new_inbox().rpartition(".")[2]
            arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()

            async def gone(arrived: asyncio.Queue[Delivery | None] = arrived) -> None:
                arrived.put_nowait(None)

            def lost(arrived: asyncio.Queue[Delivery | None] = arrived) -> None:
                arrived.put_nowait(None)

            puller = Puller(self._nc, self._gets.stream, consumer, _IN_HAND, arrived.put_nowait, on_gone=gone)
            self._following.add(lost)
            handed_out = 0
            try:
                await self._make(consumer, patterns, next_seq)
                async with puller.pulling():
                    # A gap: what was on its way was lost with the connection, and the consumer went on.
                    while (one := await arrived.get()) is not None and one.consumer_seq == handed_out + 1:
                        handed_out += 1
                        next_seq = one.seq + 1
                        yield _stored(one)
                        puller.drop(one)
            finally:
                self._following.discard(lost)
                await self._remove(consumer)

    async def _make(self, consumer: str, patterns: Sequence[str], start_seq: int) -> None:
        """Make a consumer of this name; asked twice, there is one.

        Raises `BusUnavailable`, `NoStream`, `NotAllowed`.
        """
        config = {
            "name": consumer,
            "ack_policy": "none",
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": start_seq,
            "filter_subjects": patterns,
            "inactive_threshold": int(_IDLE_S * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
        }
        body = msgspec.json.encode({"stream_name": self._gets.stream, "config": config})
        subject = self._requests.api.make_consumer(self._gets.stream, consumer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience_s):
                while True:
                    with contextlib.suppress(NoAnswer, TimeoutError, msgspec.DecodeError):
                        async with asyncio.timeout(_SILENCE_S):
                            answer = await self._requests.ask(subject, body)
                            if not answer.data:
                                await self._requests.check_imported(subject, self._gets.stream)
                        error = msgspec.json.decode(answer.data, type=_Answer).error
                        if error is None or error.err_code in _CONSUMER_EXISTS:
                            return
                        if error.err_code == _STREAM_NOT_FOUND:
                            raise NoStream(self._gets.stream)
                    await asyncio.sleep(_AGAIN_S)
        raise BusUnavailable(f"follow {self._gets.stream}", self._patience_s)

    async def _remove(self, consumer: str) -> None:
        """Say that a consumer is needed no more, and wait for nothing: whoever closes may be in a hurry."""
        with contextlib.suppress(NatsError):
            await self._nc.publish(self._requests.api.remove_consumer(self._gets.stream, consumer), b"")


def _stored(one: Delivery) -> Stored:
    at = _EPOCH + timedelta(microseconds=one.stored_at_ns // 1000)
    return Stored(one.seq, at, one.subject, one.data, b"")
