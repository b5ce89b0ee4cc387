"""Deliveries: messages that are ours until a lease ends, pulled so that a worker never idles while work waits.

nats-py's pull subscription fetches in rounds; between rounds a worker stands still. Here pull requests are
kept outstanding (ADR-13), and what is asked for plus what is held never exceeds `in_hand_max`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

HEARTBEAT_S = 3.0
"""The server says this often that a pull request still waits. After two missed it is asked anew: those that a
consumer's leader held when it died are lost, and a new one is elected in about that time."""
_EXPIRES_S = 60.0
"""How long a pull request waits at the server."""
_ASK_AGAIN_S = 0.5
"""While nobody serves a consumer: either its leader is being elected, or it is being made again."""
_ACK = "$JS.ACK."


class Delivery:
    """One unacked message and its lease. Settle it once, with `ack`, `nak` or `term`."""

    __slots__ = (
        "_puller",
        "_reply",
        "consumer_seq",
        "data",
        "delivered",
        "held_since",
        "seq",
        "settled",
        "stored_at_ns",
        "subject",
    )

    def __init__(self, msg: Msg, puller: Puller, now: float) -> None:
        tokens = msg.reply.split(".")
        offset = 4 if len(tokens) == 9 else 6
        self.subject, self.data = msg.subject, msg.data
        self.delivered = int(tokens[offset])
        """How often the broker has handed this message out, this time included."""
        self.seq = int(tokens[offset + 1])
        self.consumer_seq = int(tokens[offset + 2])
        """Counts what the consumer has handed out, from 1."""
        self.stored_at_ns = int(tokens[offset + 3])
        """When the broker stored it, in nanoseconds of Unix time by the broker's clock."""
        self.held_since = now
        self.settled = False
        self._reply, self._puller = msg.reply, puller

    async def ack(self) -> None:
        """Done with it: the broker forgets this delivery."""
        await self._puller.settle(self, b"")

    async def nak(self, delay_s: float = 0.0) -> None:
        """Give it back; it is handed out again after `delay_s` seconds."""
        body = b'-NAK {"delay":%d}' % int(delay_s * 1e9) if delay_s > 0 else b"-NAK"
        await self._puller.settle(self, body)

    async def term(self) -> None:
        """Never hand it out again."""
        await self._puller.settle(self, b"+TERM")

    async def release(self) -> None:
        """Let go of it without a word: the same message is in hand with a newer lease."""
        await self._puller.release(self)

    async def keep(self) -> None:
        """Begin the lease anew."""
        await self._puller.say(self._reply, b"+WPI")

    @property
    def stored_at_s(self) -> float:
        """The same in seconds."""
        return self.stored_at_ns / 1e9

    @property
    def reply(self) -> str:
        """Where the broker waits for the ack."""
        return self._reply


class Puller:
    """Keeps pull requests to one consumer outstanding and gives each message to `on_delivery`."""

    def __init__(
        self,
        nc: Client,
        stream: str,
        consumer: str,
        in_hand_max: int,
        on_delivery: Callable[[Delivery], None],
        *,
        lease_s: float = 0.0,
        on_gone: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`lease_s` is the consumer's `ack_wait`; leases are kept alive at a third of it (0: none to keep).

        `on_gone` makes the consumer again when the server says that it does not exist.
        """
        self._nc, self._in_hand_max, self._on_delivery = nc, in_hand_max, on_delivery
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._lease_s, self._on_gone = lease_s, on_gone
        self._inbox = nc.new_inbox()
        self._pulls: dict[str, int] = {}
        self._outstanding = 0
        self._count = 0
        self._heard_at = time.monotonic()
        self._stopped = False
        self._wake = asyncio.Event()
        self._mending: asyncio.Task[None] | None = None
        self.held: set[Delivery] = set()

    @contextlib.asynccontextmanager
    async def pulling(self) -> AsyncIterator[Puller]:
        """Pull while the context is open. What is still held at its end is left to the lease."""
        self._subscription = await self._nc.subscribe(
            self._inbox + ".*", cb=self._on_msg, pending_msgs_limit=0, pending_bytes_limit=0
        )
        keeper = asyncio.create_task(self._keep(), name=f"leases and pulls of {self._next}")
        await self._refill()
        try:
            yield self
        finally:
            self._stopped = True
            keeper.cancel()
            if self._mending is not None:
                self._mending.cancel()
            with contextlib.suppress(Error):
                await self._subscription.unsubscribe()

    async def stop(self) -> None:
        """Take no more: the server drops our pull requests, and what is on its way has come when this returns.

        It is to be worked on as the rest: given back unseen it would come again at once, and count as an attempt.
        """
        self._stopped = True
        with contextlib.suppress(Error):
            await self._subscription.drain()  # type: ignore[no-untyped-call]

    def reconnected(self) -> None:
        """The server forgot our pull requests with the old connection: ask anew."""
        self._forget_pulls()
        self._wake.set()

    async def settle(self, delivery: Delivery, body: bytes) -> None:
        """Send the last word on a delivery, and ask for more when there is room."""
        if delivery.settled:
            return
        delivery.settled = True
        self.held.discard(delivery)
        await self.say(delivery.reply, body)
        await self._refill()

    async def release(self, delivery: Delivery) -> None:
        """Make room without a word to the broker: for consumers without acks, and for a message that came twice."""
        delivery.settled = True
        self.held.discard(delivery)
        await self._refill()

    async def say(self, reply: str, body: bytes) -> None:
        """Send a word about a delivery; a lost connection loses it, and the lease decides."""
        with contextlib.suppress(Error):
            await self._nc.publish(reply, body)

    async def _on_msg(self, msg: Msg) -> None:
        self._heard_at = time.monotonic()
        if not msg.reply.startswith(_ACK):
            await self._on_status(msg)
            return
        self._one_came()
        delivery = Delivery(msg, self, self._heard_at)
        self.held.add(delivery)
        self._on_delivery(delivery)

    async def _on_status(self, msg: Msg) -> None:
        headers = msg.headers or {}
        status = headers.get("Status", "")
        if status == "100":
            return
        pull = msg.subject.rpartition(".")[2]
        self._outstanding -= self._pulls.pop(pull, 0)
        gone = status == "503" or (status == "409" and "Deleted" in headers.get("Description", ""))
        if gone and self._on_gone is not None and not self._stopped:
            self._forget_pulls()
            if self._mending is None or self._mending.done():
                self._mending = asyncio.create_task(self._mend(self._on_gone), name=f"mend {self._next}")
            asyncio.get_running_loop().call_later(_ASK_AGAIN_S, self._wake.set)
            return
        if status == "409":
            self._wake.set()
            return
        await self._refill()

    async def _mend(self, on_gone: Callable[[], Awaitable[None]]) -> None:
        """Make the consumer again. Beside the messages that come: in an election it takes as long as that."""
        with contextlib.suppress(Exception):
            await on_gone()
            self._wake.set()

    def _one_came(self) -> None:
        """Count a message against the oldest pull request: the server serves them in their order."""
        for pull, left in self._pulls.items():
            self._outstanding -= 1
            if left <= 1:
                del self._pulls[pull]
            else:
                self._pulls[pull] = left - 1
            return

    def _forget_pulls(self) -> None:
        self._pulls.clear()
        self._outstanding = 0

    async def _refill(self) -> None:
        """Ask for what there is room for, once that is half of all: one request then brings several."""
        room = self._in_hand_max - len(self.held) - self._outstanding
        if self._stopped or room <= 0 or (room < self._in_hand_max // 2 and self._outstanding > 0):
            return
        self._count += 1
        pull = str(self._count)
        self._pulls[pull] = room
        self._outstanding += room
        request = {"batch": room, "expires": int(_EXPIRES_S * 1e9), "idle_heartbeat": int(HEARTBEAT_S * 1e9)}
        try:
            await self._nc.publish(self._next, msgspec.json.encode(request), reply=f"{self._inbox}.{pull}")
        except Error:
            self._outstanding -= self._pulls.pop(pull, 0)

    async def _keep(self) -> None:
        """Keep leases alive, and notice pull requests that the server has forgotten."""
        tick_s = min(self._lease_s / 3, HEARTBEAT_S) if self._lease_s else HEARTBEAT_S
        kept_at = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tick_s):
                    await self._wake.wait()
                    self._wake.clear()
                    await asyncio.sleep(0.05)
            now = time.monotonic()
            if self._lease_s and now - kept_at > self._lease_s / 3 - tick_s / 2:
                kept_at = now
                for delivery in [held for held in self.held if now - held.held_since > self._lease_s / 6]:
                    await delivery.keep()
            if now - self._heard_at > 2.5 * HEARTBEAT_S:
                self._heard_at = now
                self._forget_pulls()
            await self._refill()
