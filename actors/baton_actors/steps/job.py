"""One handoff in a worker's hands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Literal

from baton_actors.agents.kinds import Performed
from baton_actors.agents.live import Live
from baton_bus.jetstream.consumer import Delivery

Cancelled = Literal["run ended", "worker stops", "parked"]


class Job:
    """A delivery being worked on, and what is known of it so far."""

    flow = ""
    run = ""
    step = ""
    attempt = 1
    begun = 0
    """The number of its `begun` note; 0 without one."""
    again = False
    """Whether this worker tried before, and the bus did not let it finish."""
    came_to: Performed | BaseException | None = None
    """What doing the step came to, once it is done: the bus may refuse what follows, and it is not done again."""
    in_handler = False
    waits_for_turn = False
    """Whether it may be done only once others have begun."""
    waits = False
    """Whether its handler waits for what it asked, and holds no place."""
    let_go: Callable[[], None] | None = None
    """Lets go of a handler that waits in a thread: nobody can cancel that."""
    live: Live | None = None
    """Speaks for the attempt that is being made."""
    asks_outside = False
    """Whether it has asked people, or waited for events: what is open when it has ended is to be taken back."""
    announced_at: float | None = None
    """When watchers were last told that it is running, by the monotonic clock."""
    cancelled: Cancelled | None = None
    task: asyncio.Task[None] | None = None

    def __init__(self, delivery: Delivery, epoch: int) -> None:
        """`epoch` is that of the connection on which it came."""
        self.delivery, self.epoch = delivery, epoch
        self.started = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """How long it has been in hand, in seconds."""
        return round(time.monotonic() - self.started, 4)

    def cancel(self, why: Cancelled) -> None:
        """Stop the handler, or let it not begin. What is past it is left to finish: that only writes what must be."""
        if self.task is None or self.cancelled is not None or self.came_to is not None:
            return
        self.cancelled = why
        if self.waits and self.let_go is not None:
            self.let_go()
        elif self.in_handler or self.waits_for_turn:
            self.task.cancel()
