"""The files of a step: read for its handler and its model, and stored when it makes some."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from baton_actors.errors import FileRefused
from baton_bus.engine.engine import Engine
from baton_bus.errors import BusError, FileGone
from baton_schemas.wire.files import File, FileRef

_AGAIN_S = 2.0

logger = structlog.get_logger("baton.worker")


class StepFiles:
    """Reads and stores files for one step. While the bus does not let it, it tries again, and the lease is held."""

    def __init__(self, engine: Engine) -> None:
        self._files = engine.files

    async def load(self, ref: FileRef) -> bytes:
        """Return the bytes of a file. Raises `FileRefused` when they are not there any more."""
        while True:
            try:
                return await self._files.read(ref)
            except FileGone as error:
                raise FileRefused(ref.label, "its bytes are not stored any more; give it again") from error
            except BusError as error:
                logger.error("bus.refuses", error=str(error))
                await asyncio.sleep(_AGAIN_S)

    async def keep(self, made: Sequence[File]) -> None:
        """Store the bytes of files, before anything names them."""
        while made:
            try:
                return await self._files.keep(made)
            except BusError as error:
                logger.error("bus.refuses", error=str(error))
                await asyncio.sleep(_AGAIN_S)
        return None
