"""Slots that processes share: so many of something at once, wherever it is. What a dead process held is free again.

A slot is a subject, and who writes the first message on it has it. The message has a time to live, and whoever has the
slot writes it again before that ends, if it still is the last one; in the end it is removed. So nobody has to clean up
after anybody: a process that was killed holds its slots for `HELD_S` more at the most.
"""

from __future__ import annotations

import random

from msgspec import Struct
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from baton_bus.errors import NoStream
from baton_bus.jetstream.gets import Gets
from baton_bus.jetstream.publisher import EXPECTED, Publisher
from baton_bus.jetstream.requests import Requests
from baton_bus.jetstream.streams import ensure_made, ensure_replicas, placement
from baton_bus.settings import Settings
from baton_bus.subjects import Subjects

from .removing import delete

HELD_S = 30
"""How long a slot is held without a word: three times `RENEW_S`, so that one word may be lost and one be late."""
RENEW_S = 10.0
PATIENCE_S = 5.0
"""How long one word is tried: the next one comes soon."""
_TTL = "Nats-TTL"


class Slot(Struct):
    """One that is held."""

    subject: str
    seq: int


class Slots:
    """The slots of one namespace."""

    def __init__(self, js: JetStreamContext, requests: Requests, settings: Settings, subjects: Subjects) -> None:
        self._js, self._requests, self._settings, self._subjects = js, requests, settings, subjects
        self.stream = f"{settings.namespace}-slots"
        self._publisher = Publisher(js._nc, requests, self.stream)
        self._gets = Gets(js._nc, requests, self.stream, settings.patience_s)

    async def ensure(self) -> None:
        """Make the stream of slots if it is missing. Doing it twice changes nothing. Raises as `ensure_made`."""
        wanted = StreamConfig(
            name=self.stream,
            description="Baton's slots: what is done right now, of what may be done so many times at once",
            subjects=self._subjects.slots(),
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            num_replicas=self._settings.replicas,
            placement=placement(self._settings),
            allow_direct=True,
            allow_msg_ttl=True,
            max_msgs_per_subject=1,
        )
        await ensure_replicas(self._js, self._settings, await ensure_made(self._js, self._settings, wanted))

    async def take(self, of: str, count: int) -> Slot | None:
        """Take one of so many slots of something (a thousand at the most); None when all of them are taken.

        Raises `BusUnavailable`, and as `ensure`.
        """
        all_of_them = {self._subjects.slot(of, index) for index in range(count)}
        guess = random.choice(sorted(all_of_them))
        while True:
            try:
                seq = await self._write(guess, 0)
            except NoStream:  # the first, or it was deleted behind our back
                await self.ensure()
                continue
            if seq is not None:
                return Slot(guess, seq)
            # Not by the leader's word: one that is free but looks taken is found by the next look.
            found, _ = await self._gets.matching([self._subjects.slot(of, "*")])
            taken = {guess, *(each.subject for each in found)}
            free = sorted(all_of_them - taken)
            if not free:
                return None
            guess = random.choice(free)

    async def renew(self, slot: Slot) -> bool:
        """Go on holding a slot; False when it is lost, as nothing was heard of us for too long. Raises as `take`."""
        seq = await self._write(slot.subject, slot.seq)
        slot.seq = seq or slot.seq
        return seq is not None

    async def leave(self, slot: Slot, body: bytes, for_s: int) -> None:
        """Let go of a slot, but not free it for so many seconds: it says something meanwhile. Raises as `take`."""
        await self._write(slot.subject, slot.seq, body, for_s)

    async def said(self, of: str) -> bytes:
        """Return what was left in the first slot of something that is not free; may lag. Raises `BusUnavailable`."""
        found, _ = await self._gets.matching([self._subjects.slot(of, "*")])
        return found[0].data if found else b""

    async def free(self, slot: Slot) -> None:
        """Let go of a slot. Raises `BusUnavailable`, `NotAllowed`; then it is free when its time is up."""
        await delete(self._requests, self.stream, slot.seq, PATIENCE_S)

    async def _write(self, subject: str, last_seq: int, body: bytes = b"", for_s: int = 0) -> int | None:
        headers = {EXPECTED: str(last_seq), _TTL: f"{for_s or HELD_S}s"}
        ack = await self._publisher.publish(subject, body, headers, PATIENCE_S)
        return None if ack is None else ack.seq
