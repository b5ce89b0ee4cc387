"""Kills this process before or after its n-th bus operation: how the crash matrix reaches every point of a run.

Operations are publishes to the log, settled deliveries (ack, nak, term), reads of the log, and blobs put and got.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from baton_bus.jetstream.consumer import Puller
from baton_bus.jetstream.publisher import Publisher
from baton_bus.store.blobs import Blobs
from baton_bus.store.log import Log

from .history import History

_LEAVE_S = 0.01
"""What was published before, acks above all, leaves the process first: an ack that dies with it endangers nothing."""

OPERATIONS: tuple[tuple[type, str], ...] = (
    (Publisher, "publish"),
    (Puller, "settle"),
    (Log, "last"),
    (Log, "at"),
    (Log, "matching"),
    (Log, "run"),
    (Blobs, "put"),
    (Blobs, "get"),
)


def arm(point: str, history: History) -> None:
    """Arm `before 7` or `after 7`: the process dies of SIGKILL there, its last words being which operation it was."""
    if not point:
        return
    when, _, number = point.partition(" ")
    numbers = itertools.count(1)
    for owner, name in OPERATIONS:
        setattr(
            owner, name, _deadly(getattr(owner, name), f"{owner.__name__}.{name}", when, int(number), numbers, history)
        )


def _deadly(
    operation: Callable[..., Awaitable[Any]],
    name: str,
    when: str,
    deadly: int,
    numbers: itertools.count[int],
    history: History,
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(operation)
    async def counted(*args: Any, **kwargs: Any) -> Any:
        number = next(numbers)
        if number == deadly and when == "before":
            await _die(history, f"before {name}")
        result = await operation(*args, **kwargs)
        if number == deadly and when == "after":
            await _die(history, f"after {name}")
        return result

    return counted


async def _die(history: History, where: str) -> None:
    await asyncio.sleep(_LEAVE_S)
    history.say("worker.crashes", where=where)
    os.kill(os.getpid(), signal.SIGKILL)
