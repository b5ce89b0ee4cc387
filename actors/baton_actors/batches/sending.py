"""Sending a batch, once: and finding it again when it may have been sent before its worker died."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from baton_actors.models import ModelError, ModelRequest
from baton_actors.models.batches import BatchApi, NotSent, Out
from baton_actors.models.body import body_of
from baton_bus.engine.journal import Journal
from baton_bus.store.bus import Bus
from baton_schemas.wire.facts import BatchSending, BatchSent
from baton_schemas.wire.messages import Note
from baton_schemas.wire.names import BATCH, sortable_id

SEND_MAX_S = 600.0
"""How long sending may take, whatever the steps' own time is."""
LOOK_S = (1.0, 60.0)
"""How soon it is looked again how a batch stands: first, and at last. Most end within the hour."""
_SPLITS = frozenset({400, 413, 422})
"""Statuses that say that there is something wrong with a batch, and not with who sends it: one of its calls, mostly."""
_CLOCKS_S = 60.0
"""How far the provider's clock may be from the broker's."""
_RETRY_S = 2.0
_RETRY_MAX_S = 60.0

logger = structlog.get_logger("baton.batches")


class Sent(NamedTuple):
    """A batch that the provider has."""

    id: str
    size: int
    """Calls in it: fewer than we have of it by now, where another worker left some out."""


class Halved(Exception):
    """A batch was refused as a whole: its halves are sent, and it is not."""


class InDoubt(Exception):
    """A batch may be there, and nobody can say."""

    def __init__(self, error: ModelError) -> None:
        """`error` is that of its calls."""
        self.error = error
        super().__init__(str(error))


class Sending:
    """That of one batch, by one worker."""

    def __init__(self, bus: Bus, provider: BatchApi, batch: str, seq: int, journal: Journal, timeout_s: float) -> None:
        """`seq` is where the batch is in the log, `journal` its own; `timeout_s` bounds each sending."""
        self._bus, self._provider, self._batch, self._seq, self._journal = bus, provider, batch, seq, journal
        self._send_s = min(timeout_s, SEND_MAX_S)
        self._own = ""

    async def send(self, requests: Mapping[str, ModelRequest], sendings: list[BatchSending]) -> Sent:
        """Send these, by their custom ids, unless they are there; return what the provider has.

        `sendings` were begun before. Raises `NotSent` when it is refused for good, `Halved`, `InDoubt`, the errors of
        the bus.
        """
        tries = 0
        while True:
            if sendings and sendings[-1].halved:
                raise Halved
            if sendings:
                found = await self._found(requests, sendings)
                if found is not None:
                    return found
            sending = await self._begin(len(sendings) + 1, len(requests))
            sendings = [*sendings, sending]
            if not self._is_ours(sending):
                continue  # another worker's: it may be there
            try:
                async with asyncio.timeout(self._send_s):
                    bodies = [(name, body_of(request)) for name, request in requests.items()]
                    return Sent((await self._provider.send(bodies)).id, len(bodies))
            except TimeoutError:
                logger.warning("batch.in_doubt", batch=self._batch, error="it was not sent in its time")
            except NotSent as failed:
                error = failed.error
                if failed.may_be_there:
                    logger.warning("batch.in_doubt", batch=self._batch, error=str(error))
                    continue
                sendings[-1] = replace(sending, count=0)  # it is sure that it is not there
                if not error.retryable:
                    if failed.status not in _SPLITS or len(requests) == 1:
                        raise
                    # In the place of the next sending: either that is begun, by whoever has the batch too, or this.
                    logger.warning("batch.split", batch=self._batch, error=str(error))
                    sendings.append(await self._begin(len(sendings) + 1, 0, halved=True))
                    continue
                # It is sent again, after a wait that is nobody's attempt.
                wait_s = max(error.retry_after_s or 0.0, min(_RETRY_S * 2.0**tries, _RETRY_MAX_S))
                tries += 1
                logger.warning("batch.waits", batch=self._batch, error=str(error), again_in_s=wait_s)
                await asyncio.sleep(wait_s * random.uniform(1.0, 1.2))

    async def _begin(self, number: int, count: int, *, halved: bool = False) -> BatchSending:
        self._own = sortable_id()
        now_s = self._bus.now_s()
        sending = BatchSending(
            number=number,
            count=count,
            id=self._own,
            at_s=now_s,
            until_s=now_s + self._send_s + self._bus.settings.lease_s,
            halved=halved,
        )
        stored = await self._journal.write(sending)
        assert isinstance(stored, BatchSending)
        return stored

    def _is_ours(self, sending: BatchSending) -> bool:
        """Say whether a beginning is ours, and it is not too late to send: others may be looking for it soon."""
        in_time = self._bus.now_s() < sending.at_s + self._bus.settings.lease_s
        return sending.id == self._own and in_time

    async def _found(self, requests: Iterable[str], sendings: list[BatchSending]) -> Sent | None:
        """Return the batch as the provider has it, if one of these sendings has arrived. Raises `InDoubt`."""
        doubtful = [sending for sending in sendings if sending.count]
        if not doubtful:
            return None
        await asyncio.sleep(max(doubtful[-1].until_s - self._bus.now_s(), 0.0))
        since_s = min(sending.at_s for sending in doubtful) - _CLOCKS_S
        counts = {sending.count for sending in doubtful}
        tried: set[str] = set()
        wait_s = LOOK_S[0]
        while True:
            try:
                outs = [out async for out in self._provider.since(since_s) if out.count in counts]
                recorded = await self._recorded()
                if (ours := next((sent for batch, sent in recorded if batch == self._batch), None)) is not None:
                    return ours  # another worker has sent it, or found it, meanwhile
                others = {sent.id for _, sent in recorded}
                waits = False
                for out in outs:
                    if out.id in others or out.id in tried:
                        continue
                    if not out.ended:
                        waits = True
                    elif await self._is_in(requests, out):
                        return Sent(out.id, out.count)
                    else:
                        tried.add(out.id)
                if not waits:
                    return None
            except ModelError as error:
                if is_gone(error) or not error.retryable:
                    raise InDoubt(_in_doubt(error)) from error
                logger.warning("batch.in_doubt", batch=self._batch, error=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, LOOK_S[1])

    async def _is_in(self, requests: Iterable[str], out: Out) -> bool:
        """Say whether a batch that has ended is ours, by what its calls are called.

        Any of them: what others ask may be gone since they were sent, and then they are not among ours.
        """
        if not out.has_results:
            return False
        async for name, _ in self._provider.results(out.id):
            if name in requests:
                return True
        return False

    async def _recorded(self) -> list[tuple[str, Sent]]:
        """Return the batches of which it is recorded that they were sent: ours, and what the provider has of it."""
        pattern = self._bus.subjects.note("*", "*", BATCH, "sent")
        entries = await self._bus.log.matching_sure([pattern], self._seq)
        notes = [entry.message for entry in entries if isinstance(entry.message, Note)]
        return [(note.run, Sent(note.fact.id, note.fact.count)) for note in notes if isinstance(note.fact, BatchSent)]


def is_gone(error: ModelError) -> bool:
    """Say whether the provider has no such thing, or not any more."""
    return error.type in ("not_found_error", "http_404")


def _in_doubt(error: ModelError) -> ModelError:
    return ModelError(
        type="batch_in_doubt",
        message="the batch of this call may have been sent before its worker died, and the provider does not say which "
        f"batches it has ({error}); it is not sent twice: `baton retry` asks again, once you have looked",
        retryable=False,
    )
