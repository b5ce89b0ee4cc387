"""A delivery: one message that is ours until its lease ends."""

from __future__ import annotations

import asyncio
from typing import Protocol

from baton_bus.jetstream.nats_client import headers_of, text_of

ACK_PREFIX = b"$JS.ACK."


class Settles(Protocol):
    """Whoever handed a delivery out, and is told what becomes of it."""

    async def settle(self, delivery: Delivery, body: bytes) -> None:
        """Send the last word on a delivery."""

    async def release(self, delivery: Delivery) -> None:
        """Let go of a delivery without a word to the broker."""

    def say(self, delivery: Delivery, body: bytes) -> None:
        """Send a word about a delivery that stays in hand."""

    def lend(self, delivery: Delivery) -> None:
        """Give the place of a delivery to others for a while."""

    def take_back(self, delivery: Delivery) -> asyncio.Future[None] | None:
        """Have its place again."""


class Delivery:
    """One unacked message and its lease. Settle it once, with `ack`, `nak` or `term`.

    If the broker hands the message out again while it is in hand, the same object has the new lease, which `delivered`
    and `consumer_seq` tell of: whoever works on it goes on, and does not notice.
    """

    __slots__ = (
        "_header",
        "_puller",
        "ack_subject",
        "consumer_seq",
        "data",
        "delivered",
        "held_since",
        "kept_at",
        "lent",
        "seq",
        "settled",
        "stored_at_ns",
        "subject",
    )

    def __init__(self, subject: bytes, reply: bytes, data: bytes, header: bytes, puller: Settles, now: float) -> None:
        """Read what the broker says of the message in `reply` (ADR-15). Raises `ValueError` if it is no such thing."""
        tokens = reply.split(b".")
        # $JS.ACK.{domain}.{account}. before these, and a random token after, where the server has a domain.
        offset = 4 if len(tokens) == 9 else 6
        if len(tokens) < offset + 4:
            raise ValueError(f"no reply of a delivery: {text_of(reply)}")
        self.subject, self.data, self._header = text_of(subject), data, header
        """A subject that is not UTF-8 has `\\\\xe9` for what cannot be read: no valid token has a backslash."""
        self.delivered = int(tokens[offset])
        """How often the broker has handed this message out, this time included."""
        self.seq = int(tokens[offset + 1])
        self.consumer_seq = int(tokens[offset + 2])
        """Counts what the consumer has handed out, from 1."""
        self.stored_at_ns = int(tokens[offset + 3])
        """When the broker stored it, in nanoseconds of Unix time by the broker's clock."""
        self.held_since = now
        self.kept_at = now
        """When the lease began, both by the monotonic clock."""
        self.settled = False
        self.lent = False
        """Whether it holds no place: see `lend`."""
        self.ack_subject, self._puller = reply, puller

    def renew(self, other: Delivery) -> None:
        """Take over the lease of a later delivery of the same message."""
        self.ack_subject, self.kept_at = other.ack_subject, other.kept_at
        self.delivered, self.consumer_seq = other.delivered, other.consumer_seq

    async def ack(self) -> None:
        """Done with it: the broker forgets this delivery."""
        await self._puller.settle(self, b"")

    async def nak(self, delay_s: float = 0.0) -> None:
        """Give it back; it is handed out again after `delay_s` seconds."""
        await self._puller.settle(self, nak_body(delay_s))

    async def term(self) -> None:
        """Never hand it out again."""
        await self._puller.settle(self, b"+TERM")

    async def release(self) -> None:
        """Let go of it without a word to the broker: there are no acks, or the lease is to lapse."""
        await self._puller.release(self)

    def lend(self) -> None:
        """Give its place to others while whoever works on it waits; its lease is kept."""
        self._puller.lend(self)

    def take_back(self) -> asyncio.Future[None] | None:
        """Have a place again: at once (None), or once there is one, which the future says."""
        return self._puller.take_back(self)

    async def keep(self) -> None:
        """Begin the lease anew. It is done without this for as long as the delivery is in hand."""
        self._puller.say(self, b"+WPI")

    @property
    def headers(self) -> dict[str, str]:
        """The message's headers, read anew at each call."""
        return headers_of(self._header) if self._header else {}

    @property
    def stored_at_s(self) -> float:
        """When the broker stored it, in seconds of Unix time by the broker's clock."""
        return self.stored_at_ns / 1e9

    @property
    def reply(self) -> str:
        """Where the broker waits for the ack."""
        return text_of(self.ack_subject)


def nak_body(delay_s: float) -> bytes:
    """Return the word that gives a delivery back for `delay_s` seconds."""
    return b'-NAK {"delay":%d}' % int(delay_s * 1e9) if delay_s > 0 else b"-NAK"
