"""What goes over the wire, in the order in which the server hands it on: who wrote, when it was stored, who acked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from nats.aio.msg import Msg

from baton_bus.store.bus import Bus
from baton_bus.subjects import matcher

from .servers import until


class Overheard:
    """All messages of one namespace, its acks, and what the server answered to each publish."""

    def __init__(self) -> None:
        self._said: list[Msg] = []

    def take(self, msg: Msg) -> None:
        self._said.append(msg)

    def sent(self, pattern: str) -> int:
        """The place of the first message on a subject that matches; fails the test when there was none."""
        found = self._sent(pattern)
        assert found is not None, f"nothing was sent on {pattern}"
        return found

    def stored(self, pattern: str) -> int:
        """The place at which the server said that this message is stored."""
        place = self.sent(pattern)
        answer = next(
            (at for at, msg in enumerate(self._said) if at > place and msg.subject == self._said[place].reply), None
        )
        assert answer is not None, f"no answer to what was sent on {pattern}"
        return answer

    def settled(self, consumer: str, *, last: bool = False) -> int:
        """The place of the first (or last) word on a delivery of a consumer."""
        places = self._settled(consumer)
        assert places, f"nothing of {consumer} was settled"
        return places[-1 if last else 0]

    def words(self, consumer: str) -> list[bytes]:
        """How deliveries of a consumer were settled: an ack is empty."""
        return [self._said[place].data for place in self._settled(consumer)]

    async def until_settled(self, consumer: str, count: int = 1) -> None:
        await until(lambda: len(self._settled(consumer)) >= count)

    async def until_delivered(self, consumer: str) -> str:
        """Wait for the first delivery of a consumer, and return where the broker waits for its ack."""
        replies: list[str] = []

        def is_there() -> bool:
            replies.extend(msg.reply for msg in self._said if _consumer(msg.reply) == consumer)
            return bool(replies)

        await until(is_there)
        return replies[0]

    def _sent(self, pattern: str) -> int | None:
        matches = matcher([pattern])
        return next((at for at, msg in enumerate(self._said) if matches(msg.subject)), None)

    def _settled(self, consumer: str) -> list[int]:
        return [
            place
            for place, msg in enumerate(self._said)
            if _consumer(msg.subject) == consumer and msg.data != b"+WPI"  # which only keeps the lease
        ]


@contextlib.asynccontextmanager
async def overhearing(bus: Bus) -> AsyncIterator[Overheard]:
    """Hear all that goes over the server while the context is open: tests of other namespaces have other subjects."""
    heard = Overheard()

    async def on_msg(msg: Msg) -> None:
        heard.take(msg)

    subscription = await bus.nc.subscribe(">", cb=on_msg)
    await bus.nc.flush()
    try:
        yield heard
    finally:
        await subscription.unsubscribe()


def _consumer(ack_subject: str) -> str:
    """Return of which consumer a delivery is, by where its ack goes; empty when it is no such subject."""
    tokens = ack_subject.split(".")
    return tokens[3] if tokens[:2] == ["$JS", "ACK"] else ""
