"""One handoff in a worker's hands."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from baton_bus.jetstream.consumer import Delivery

Cancelled = Literal["run ended", "worker stops"]


class Job:
    """A delivery being worked on, and what is known of it so far."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.started = time.monotonic()
        self.run = ""
        self.step = ""
        self.attempt = 1
        self.again = False
        """Whether this worker tried before, and the bus did not let it finish."""
        self.in_handler = False
        self.announced_at: float | None = None
        """When watchers were last told that it is running, by the monotonic clock."""
        self.cancelled: Cancelled | None = None
        self.task: asyncio.Task[None] | None = None

    def cancel(self, why: Cancelled) -> None:
        """Stop the handler. What is past the handler is left to finish: it only writes what must be written."""
        if self.task is not None and self.in_handler and self.cancelled is None:
            self.cancelled = why
            self.task.cancel()

    async def renew(self, delivery: Delivery) -> None:
        """The broker handed the same message out again while we work on it: go on, with the new lease."""
        old, self.delivery = self.delivery, delivery
        await old.release()
