"""Reading the log: one subject, one run, the branches of a join, or everything as it comes.

A read may come from a replica that lags: absence proves nothing, except that the work may be done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from datetime import UTC, datetime, timedelta

import msgspec
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError

from baton_bus.errors import BusUnavailable, NoStream
from baton_bus.jetstream.consumer import Delivery, Puller
from baton_bus.jetstream.requests import NoAnswer, Requests
from baton_bus.settings import Settings
from baton_bus.subjects import Subjects
from baton_schemas.run.state import Entry, read_entry

_TOO_MANY = "413"
"""A pattern matches more than 1,024 subjects: read through a consumer. An answer of more than 64 MiB is cut short
instead, and says how many are still pending."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_IN_HAND = 1000
"""Messages asked for at once when reading through a consumer: enough to hide the round trip."""


class Log:
    """Reads the log of one namespace."""

    def __init__(self, js: JetStreamContext, requests: Requests, settings: Settings, subjects: Subjects) -> None:
        self._js, self._requests = js, requests
        self._stream, self._subjects = settings.namespace, subjects
        self._patience_s = settings.patience_s
        self._direct = f"$JS.API.DIRECT.GET.{self._stream}"
        self._readers: set[asyncio.Queue[Delivery | None]] = set()

    def reconnected(self) -> None:
        """The connection is mended: what was on its way to a reader is lost, so each begins a new consumer."""
        for arrived in self._readers:
            arrived.put_nowait(None)

    async def last(self, subject: str) -> Entry | None:
        """Return the last message on one exact subject, or None. Raises `BusUnavailable`, `NoStream`."""
        return self._entry(await self._ask(f"{self._direct}.{subject}", b""))

    async def taken(self, subject: str) -> Entry:
        """Return the message on a subject that the server said is taken, once a lagging replica has it too."""
        while True:
            entry = await self.last(subject)
            if entry is not None:
                return entry
            await asyncio.sleep(0.01)

    async def at(self, seq: int) -> Entry | None:
        """Return the message with a stream sequence, or None. Raises as `last`."""
        return self._entry(await self._ask(self._direct, msgspec.json.encode({"seq": seq})))

    async def run(self, run: str, actors: Iterable[str] = (), start_seq: int = 0) -> list[Entry]:
        """Return the messages of a run in their order; of a join record, the last version.

        With the `actors` of its flow the server finds them faster; `start_seq` helps with runs of more
        than 1,024 messages. Raises as `last`.
        """
        patterns = [self._subjects.run(run, actor) for actor in actors] or [self._subjects.run(run)]
        found = await self._multi_last(patterns)
        return await self._last_of_each([self._subjects.run(run)], start_seq) if found is None else found

    async def matching(self, patterns: list[str], start_seq: int = 0) -> list[Entry]:
        """Return the last message on each subject that matches a pattern, in their order. Raises as `last`."""
        found = await self._multi_last(patterns)
        return await self._last_of_each(patterns, start_seq) if found is None else found

    async def read(self, patterns: list[str], start_seq: int = 0) -> AsyncGenerator[Entry, None]:
        """Yield every message that matches, from a sequence on, to the one that is now the last."""
        async for entry in self._consume(patterns, start_seq, follow=False):
            yield entry

    async def follow(self, patterns: list[str], start_seq: int = 0) -> AsyncGenerator[Entry, None]:
        """Yield every message that matches, from a sequence on, and then as they come, until closed."""
        async for entry in self._consume(patterns, start_seq, follow=True):
            yield entry

    async def _consume(self, patterns: list[str], start_seq: int, *, follow: bool) -> AsyncGenerator[Entry, None]:
        """Read through an ephemeral consumer without acks; a new one goes on where a lost one stopped."""
        next_seq = max(start_seq, 1)
        while True:
            consumer, pending = await self._consumer(patterns, next_seq)
            arrived: asyncio.Queue[Delivery | None] = asyncio.Queue()

            async def gone(arrived: asyncio.Queue[Delivery | None] = arrived) -> None:
                arrived.put_nowait(None)

            puller = Puller(self._js._nc, self._stream, consumer, _IN_HAND, arrived.put_nowait, on_gone=gone)
            self._readers.add(arrived)
            handed_out = 0
            try:
                async with puller.pulling():
                    while follow or pending > 0:
                        delivery = await arrived.get()
                        # A gap: what was on its way was lost with the connection, and the consumer went on.
                        if delivery is None or delivery.consumer_seq != handed_out + 1:
                            break
                        handed_out += 1
                        pending -= 1
                        next_seq = delivery.seq + 1
                        at = _EPOCH + timedelta(microseconds=delivery.stored_at_ns // 1000)
                        yield read_entry(delivery.seq, at, delivery.subject, delivery.data)
                        await puller.release(delivery)
                    else:
                        return
            finally:
                self._readers.discard(arrived)

    async def _consumer(self, patterns: list[str], start_seq: int) -> tuple[str, int]:
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=start_seq,
            filter_subjects=patterns,
            inactive_threshold=30.0,
            mem_storage=True,
            num_replicas=1,
        )
        for tried in range(self._tries()):
            try:
                async with asyncio.timeout(1 + tried):  # a cluster that elects is silent
                    info = await self._js.add_consumer(self._stream, config)
                return info.name, info.num_pending or 0
            except NotFoundError as error:
                raise NoStream(self._stream) from error
            except (APIError, NatsError, TimeoutError):
                await asyncio.sleep(0.2)
        raise BusUnavailable("a read of the log", self._patience_s)

    async def _multi_last(self, patterns: list[str]) -> list[Entry] | None:
        """Return the last message on each subject; None when there are too many for one request."""
        query = msgspec.json.encode({"multi_last": patterns})
        for _ in range(self._tries()):
            try:
                *answers, end = await self._requests.collect(self._direct, query)
            except NoAnswer:
                continue
            status = (end.headers or {}).get("Status", "")
            if status == _TOO_MANY or (end.headers or {}).get("Nats-Num-Pending", "0") != "0":
                return None
            if status == "503":
                await self._raise_if_gone()
                continue
            found = [entry for entry in map(self._entry, answers) if entry is not None]
            return sorted(found, key=lambda entry: entry.seq)
        raise BusUnavailable("a read of the log", self._patience_s)

    async def _last_of_each(self, patterns: list[str], start_seq: int) -> list[Entry]:
        last = {entry.subject: entry async for entry in self.read(patterns, start_seq)}
        return sorted(last.values(), key=lambda entry: entry.seq)

    async def _ask(self, subject: str, payload: bytes) -> Msg:
        for _ in range(self._tries()):
            try:
                answer = await self._requests.ask(subject, payload, again=True)
            except NoAnswer:
                continue
            if (answer.headers or {}).get("Status") != "503":
                return answer
            await self._raise_if_gone()
        raise BusUnavailable("a read of the log", self._patience_s)

    async def _raise_if_gone(self) -> None:
        try:
            await self._js.stream_info(self._stream)
        except NotFoundError as error:
            raise NoStream(self._stream) from error
        except (APIError, NatsError):
            pass
        await asyncio.sleep(0.1)

    def _tries(self) -> int:
        return max(2, round(self._patience_s))

    @staticmethod
    def _entry(msg: Msg) -> Entry | None:
        headers = msg.headers or {}
        if "Nats-Sequence" not in headers:
            return None
        at = datetime.fromisoformat(headers["Nats-Time-Stamp"]).astimezone(UTC)
        return read_entry(int(headers["Nats-Sequence"]), at, headers["Nats-Subject"], msg.data)
