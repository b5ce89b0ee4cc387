"""What the calls of one attempt leave in the log: their answers, each recorded once, and what was paid for in vain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from baton_actors.models.errors import ModelError
from baton_actors.models.heard import Heard
from baton_actors.models.providers import Where
from baton_actors.models.sent import ExchangeLog, Upstream
from baton_schemas.wire.facts import Exchange
from baton_schemas.wire.outcomes import NULL

if TYPE_CHECKING:
    from baton_actors.models.client import Models

_RECORD_S = 5.0
"""How long a handler that has ended waits for records that are being written: they are paid for."""


class Records:
    """Those of one attempt of one handler."""

    def __init__(self, models: Models, log: ExchangeLog, attempt: int) -> None:
        """`models` knows the prices."""
        self._models, self._log = models, log
        self.attempt = attempt
        self.used: list[Exchange] = []
        """What was answered, from the record or anew, without the bodies."""
        self._recordings: set[asyncio.Task[Exchange]] = set()

    def begin(self, exchange: Exchange) -> asyncio.Task[Exchange]:
        """Begin to record an answer, whatever becomes of who waits; the task returns what is stored."""
        recording = asyncio.create_task(self._log.recorded(exchange), name="record")
        self._recordings.add(recording)
        recording.add_done_callback(self._is_recorded)
        return recording

    def _is_recorded(self, recording: asyncio.Task[Exchange]) -> None:
        self._recordings.discard(recording)
        if not recording.cancelled():
            recording.exception()  # where nobody waits for it any more, nobody need hear of it

    def use(self, exchange: Exchange) -> None:
        """Take it that a recorded answer goes to the handler."""
        self.used.append(replace(exchange, body=NULL))

    def in_vain(self, where: Where, upstream: Upstream, heard: Heard) -> None:
        """Take what was paid for an answer that nobody uses; `heard` says why."""
        error = ModelError(
            type="broken_answer",
            message=f"an answer of the model API at {where.settings.host}: {heard.why}",
            retryable=True,
            request_id=upstream.headers.get("request-id", ""),
        )
        self.charge(where, error, heard)
        self._log.spent(error)

    def charge(self, where: Where, error: ModelError, heard: Heard) -> None:
        """Have an error say what was paid for the answer that it ended."""
        reading = heard.reading
        cost_usd = self._models.cost_usd(where, reading.model, reading.usage)
        error.took(reading.usage, cost_usd=cost_usd, model=where.named(reading.model), estimated=reading.estimated)

    async def finish(self) -> None:
        """Wait for what is being recorded, unless that takes long."""
        if self._recordings:
            for recording in (await asyncio.wait(self._recordings, timeout=_RECORD_S))[1]:
                recording.cancel()
