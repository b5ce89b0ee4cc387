"""A puller: takes the messages of one consumer, so that a worker never idles while work waits, nor has too much.

nats-py's pull subscription fetches in rounds; between rounds a worker stands still. Here pull requests are
kept outstanding (ADR-13), and what is asked for plus what is in hand never exceeds `in_hand_max`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from nats.aio.client import Client
from nats.errors import Error

from baton_bus.errors import NotAllowed
from baton_bus.jetstream.client import Denied
from baton_bus.jetstream.delivery import ACK_PREFIX, nak_body
from baton_bus.jetstream.delivery import Delivery as Delivery
from baton_bus.jetstream.nats_client import client_of, frame_of, headers_of, text_of
from baton_bus.jetstream.requests import NoAnswer

HEARTBEAT_S = 3.0
"""The server says this often that a pull request still waits. After two missed it is asked anew: those that a
consumer's leader held when it died are lost, and a new one is elected in about that time."""
_EXPIRES_S = 60.0
"""How long a pull request waits at the server."""
_ASK_AGAIN_S = 0.5
"""While nobody serves a consumer: either its leader is being elected, or it is being made again."""

_REQUEST = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}'

logger = structlog.get_logger("baton.bus")


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

        `on_delivery` must not wait, and never has more than `in_hand_max` unsettled: what the server sends beyond that
        (it may serve a pull request that we had given up) waits here, its lease kept. `on_gone` makes the consumer
        again when the server says that it does not exist.
        """
        self._nc, self._in_hand_max, self._on_delivery = client_of(nc), in_hand_max, on_delivery
        self.consumer = f"{stream}.{consumer}"
        self._next = self._nc.api.pull(stream, consumer)
        self._lease_s, self._on_gone = lease_s, on_gone
        self._inbox = nc.new_inbox().encode()
        self._held: dict[int, Delivery] = {}
        """All whose leases are ours, by their sequence: those that were given to `on_delivery`, and those that wait."""
        self._spare: deque[Delivery] = deque()
        self._lent = 0
        """Deliveries in hand that hold no place: whoever works on them waits."""
        self._returning: deque[tuple[Delivery, asyncio.Future[None]]] = deque()
        """Those that want their places back, the first first: they come before what nobody has seen yet."""
        self._pulls: dict[bytes, int] = {}
        self._outstanding = 0
        self._connection = nc.stats["reconnects"]
        """The connection over which the pull requests went: the server forgets them with it."""
        self.pulls = 0
        """How many pull requests were sent."""
        self._heard_at = time.monotonic()
        self._stopped = False
        self._wake = asyncio.Event()
        self._mending: asyncio.Task[None] | None = None
        self._refused = ""
        self.denied: Denied | None = None
        """That this user may not pull, as the server said it last."""

    @property
    def in_hand(self) -> int:
        """How many deliveries `on_delivery` was given that hold a place and are not settled."""
        return len(self._held) - len(self._spare) - self._lent

    @contextlib.asynccontextmanager
    async def pulling(self) -> AsyncIterator[Puller]:
        """Pull while the context is open. What is in hand at its end is left to the lease.

        Raises `NoAnswer`, and `NotAllowed` when this user may not pull: the server would say no more of it.
        """
        try:
            self._subscription = await self._nc.listen(f"{text_of(self._inbox)}.*", self._heard)
        except Error as error:
            raise NoAnswer(str(error)) from error
        leases = self._nc.leases if self._lease_s else None
        if leases is not None:
            leases.watch(self._held, self._lease_s)
        keeper = asyncio.create_task(self._keep(), name=f"pulls of {self.consumer}")
        self._nc.on_denied.append(self._on_denied)
        try:
            self._refill()
            await self._until_read()
            if self.denied is not None:
                raise NotAllowed(self.denied.action, self.denied.subject, self.denied.url)
            yield self
        finally:
            self._stopped = True
            self._nc.on_denied.remove(self._on_denied)
            keeper.cancel()
            if self._mending is not None:
                self._mending.cancel()
            if leases is not None:
                leases.forget(self._held)
            with contextlib.suppress(Exception):  # the first error is the one to tell
                await self._subscription.unsubscribe()

    async def stop(self) -> None:
        """Take no more: the server drops our pull requests, and what is on its way has come when this returns.

        What was given to `on_delivery` is to be worked on: given back it would come again at once, and be taken for
        another attempt. What nobody has seen yet is given back.
        """
        self._stopped = True
        with contextlib.suppress(Error, OSError):
            await self._subscription.drain()  # type: ignore[no-untyped-call]
        while self._spare:
            delivery = self._spare.popleft()
            delivery.settled = True
            del self._held[delivery.seq]
            self.say(delivery, nak_body(0.0))

    async def _until_read(self) -> None:
        """Wait until the server has read our first pull request: it tells then if it refuses it."""
        with contextlib.suppress(TimeoutError, Error, OSError):
            async with asyncio.timeout(HEARTBEAT_S):
                await self._nc.until_heard()

    def _on_denied(self, denied: Denied) -> None:
        if denied.kind == "publish" and denied.subject == self._next.lower():
            self.denied = denied

    def reconnected(self) -> None:
        """The server forgot our pull requests with the old connection: ask anew."""
        self._wake.set()

    async def settle(self, delivery: Delivery, body: bytes) -> None:
        """Send the last word on a delivery, and ask for more when there is room."""
        if delivery.settled:
            return
        self.say(delivery, body)
        self._let_go(delivery)

    async def release(self, delivery: Delivery) -> None:
        """Make room without a word to the broker."""
        if not delivery.settled:
            self._let_go(delivery)

    def lend(self, delivery: Delivery) -> None:
        """Give the place of a delivery to others for a while; its lease is kept."""
        if not delivery.settled and not delivery.lent:
            delivery.lent = True
            self._lent += 1
            self._fill()

    def take_back(self, delivery: Delivery) -> asyncio.Future[None] | None:
        """Have its place again: at once (None), or once there is one, which the future says."""
        if delivery.settled or not delivery.lent:
            return None
        if self._returning or self.in_hand >= self._in_hand_max:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._returning.append((delivery, turn))  # one that is cancelled is passed over
            return turn
        self._hold_again(delivery)
        return None

    def _hold_again(self, delivery: Delivery) -> None:
        if delivery.lent:
            delivery.lent = False
            self._lent -= 1

    def _fill(self) -> None:
        """Give free places away, and ask for more."""
        room = self._in_hand_max - self.in_hand
        while room > 0 and self._returning:
            delivery, turn = self._returning.popleft()
            if not turn.done() and not delivery.settled:
                self._hold_again(delivery)
                turn.set_result(None)
                room -= 1
        while room > 0 and self._spare:
            self._give(self._spare.popleft())
            room -= 1
        self._refill()

    def drop(self, delivery: Delivery) -> None:
        """Make room at once, as `release`."""
        if not delivery.settled:
            self._let_go(delivery)

    def say(self, delivery: Delivery, body: bytes) -> None:
        """Send a word about a delivery; a lost connection loses it, and the lease decides."""
        with contextlib.suppress(Error):
            self._nc.send_soon(b"PUB %b  %d\r\n%b\r\n" % (delivery.ack_subject, len(body), body))

    def _let_go(self, delivery: Delivery) -> None:
        delivery.settled = True
        self._hold_again(delivery)
        self._held.pop(delivery.seq, None)
        self._fill()

    def _give(self, delivery: Delivery) -> None:
        try:
            self._on_delivery(delivery)
        except Exception:  # its lease lapses, and it comes again: not at once
            logger.exception("delivery.broken", subject=delivery.subject, seq=delivery.seq)
            delivery.settled = True
            self._held.pop(delivery.seq, None)

    def _heard(self, subject: bytes, reply: bytes, data: bytes, header: bytes) -> None:
        self._heard_at = time.monotonic()
        if not reply.startswith(ACK_PREFIX):
            self._on_status(subject, header)
            return
        try:
            delivery = Delivery(subject, reply, data, header, self, self._heard_at)
        except ValueError as error:  # not from the broker
            logger.warning("delivery.strange", consumer=self.consumer, error=str(error))
            return
        self._one_came()
        same = self._held.get(delivery.seq)
        if same is not None:
            same.renew(delivery)
        else:
            is_spare = self.in_hand >= self._in_hand_max
            self._held[delivery.seq] = delivery
            if is_spare:
                self._spare.append(delivery)
            else:
                self._give(delivery)
        if not self._outstanding:
            self._refill()

    def _on_status(self, subject: bytes, header: bytes) -> None:
        headers = headers_of(header)
        status, description = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            return
        self._outstanding -= self._pulls.pop(subject.rpartition(b".")[2], 0)
        if status == "503" or (status == "409" and "Deleted" in description):
            self._on_nobody()
        elif status in ("408", "404"):  # it has expired
            self._refill()
        else:
            if description != self._refused:
                self._refused = description
                logger.warning("pull.refused", consumer=self.consumer, status=status, reason=description)
            self._wake.set()

    def _on_nobody(self) -> None:
        """Nobody serves the consumer: it was deleted, or its leader is being elected."""
        if self._on_gone is not None and not self._stopped:
            self._forget_pulls()
            if self._mending is None or self._mending.done():
                self._mending = asyncio.create_task(self._mend(self._on_gone), name=f"mend {self.consumer}")
        asyncio.get_running_loop().call_later(_ASK_AGAIN_S, self._wake.set)

    async def _mend(self, on_gone: Callable[[], Awaitable[None]]) -> None:
        """Make the consumer again. Beside the messages that come: in an election it takes as long as that."""
        try:
            await on_gone()
        except Exception as error:
            if str(error) != self._refused:
                self._refused = str(error)
                logger.warning("consumer.gone", consumer=self.consumer, error=str(error))
        else:
            self._refused = ""
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

    def _refill(self) -> None:
        """Ask for what there is room for, once that is half of all, or nothing is outstanding.

        One request then brings several. As long as one is outstanding that the server has read, no work waits; when
        work comes, it is used up, and we are here again. So a place stays empty for one round trip at most.
        """
        if self._stopped or not self._nc.is_connected:
            return
        if self._connection != (connection := self._nc.stats["reconnects"]):
            self._connection = connection
            self._forget_pulls()
        room = self._in_hand_max - len(self._held) + self._lent - self._outstanding
        if room <= 0 or (room < self._in_hand_max // 2 and self._outstanding > 0):
            return
        self.pulls += 1
        pull = b"%d" % self.pulls
        self._pulls[pull] = room
        self._outstanding += room
        request = _REQUEST % (room, int(_EXPIRES_S * 1e9), int(HEARTBEAT_S * 1e9))
        try:
            self._nc.send_soon(frame_of(self._next, b"%b.%b" % (self._inbox, pull), request))
        except Error:
            self._outstanding -= self._pulls.pop(pull, 0)

    async def _keep(self) -> None:
        """Notice pull requests that the server has forgotten, and keep leases alive when the thread cannot."""
        tick_s = min(self._lease_s / 3, HEARTBEAT_S) if self._lease_s else HEARTBEAT_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tick_s):
                    await self._wake.wait()
                    self._wake.clear()
                    await asyncio.sleep(0.05)
            try:
                self._keep_leases()
                if time.monotonic() - self._heard_at > 2.5 * HEARTBEAT_S:
                    await self._ask_anew()
                self._refill()
            except Exception:
                logger.exception("pulls.broken", consumer=self.consumer)

    def _keep_leases(self) -> None:
        """Keep those that the thread has not kept: it may have no connection, as a user's connections are counted."""
        now = time.monotonic()
        if not self._lease_s or not self._nc.is_connected:
            return
        for delivery in list(self._held.values()):
            if now - delivery.kept_at > self._lease_s * (0.45 if self._nc.leases else 0.3):
                delivery.kept_at = now
                self.say(delivery, b"+WPI")

    async def _ask_anew(self) -> None:
        """Give up pull requests from which nothing is heard, if the server is there: it serves them once it goes on."""
        if not self._nc.is_connected:
            return
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await self._nc.until_heard()
        except (TimeoutError, Error, OSError):
            return
        if time.monotonic() - self._heard_at > 2.5 * HEARTBEAT_S:
            self._heard_at = time.monotonic()
            self._forget_pulls()
