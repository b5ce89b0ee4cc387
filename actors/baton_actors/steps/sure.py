"""What is done on the bus until it lets us, while the step's lease is held: no handler sees the bus's errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from baton_actors.agents.asks import AskRefused
from baton_bus.errors import BlobMissing, BusError, PayloadTooLarge
from baton_schemas.errors import NewerMessage

from .not_recorded import NotRecorded

T = TypeVar("T")

_AGAIN_S = 2.0

logger = structlog.get_logger("baton.worker")


async def sure(do: Callable[[], Awaitable[T]]) -> T:
    """Do something on the bus, again until it lets us; return what that returns.

    Raises `AskRefused` for what no other try makes good, and `NotRecorded` for what a later release wrote.
    """
    while True:
        try:
            return await do()
        except (PayloadTooLarge, BlobMissing) as error:
            raise AskRefused(str(error)) from error
        except NewerMessage as error:
            raise NotRecorded(error) from error
        except BusError as error:
            logger.error("bus.refuses", error=str(error))
            await asyncio.sleep(_AGAIN_S)
