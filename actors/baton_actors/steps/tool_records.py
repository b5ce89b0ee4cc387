"""What is recorded of the tools of a step in its journal: what is offered, what was begun, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
import structlog
from msgspec import Raw
from msgspec.structs import replace

from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import BlobMissing, BusError
from baton_schemas.errors import NewerMessage
from baton_schemas.flow.tools import OfferedTool, offered_tools
from baton_schemas.wire.facts import Offered, ToolBegun, ToolCall
from baton_schemas.wire.messages import Note
from baton_schemas.wire.outcomes import NULL, Blob

from .not_recorded import NotRecorded

T = TypeVar("T")
_AGAIN_S = 2.0

logger = structlog.get_logger("baton.worker")


class ToolRecords:
    """Those of one attempt. `notes` are what earlier attempts left. All of it raises `NotRecorded`.

    What is to be recorded is waited for: while the bus does not take it, it is tried again.
    """

    def __init__(self, engine: Engine, journal: Journal, notes: Sequence[Note]) -> None:
        self._engine, self._journal = engine, journal
        self._offered: Offered | None = None
        self._begun: dict[tuple[str, int], ToolBegun] = {}
        self._calls: dict[tuple[str, int], ToolCall] = {}
        self._take(notes)

    def now_s(self) -> float:
        """Return the time by the broker's clock, in seconds of Unix time."""
        return self._engine.bus.now_s()

    async def offered(self) -> list[OfferedTool] | None:
        """Return what the step's model was offered when it was first asked; None when it was not, or it is gone."""
        if self._offered is None:
            return None
        return await self._tools_of(self._offered)

    async def offer(self, tools: Sequence[OfferedTool]) -> list[OfferedTool]:
        """Record what its model is offered; return what is recorded, ours or another worker's."""
        data = msgspec.json.encode(tools)

        async def write() -> Offered:
            value = await self._engine.values.stored(data)
            ours = Offered(blob=value) if isinstance(value, Blob) else Offered(tools=value)
            stored = await self._journal.write(ours)
            return stored if isinstance(stored, Offered) else ours

        self._offered = stored = await _sure(write)
        found = await self._tools_of(stored)
        return found if found is not None else list(tools)

    async def called(self, digest: str, place: int, *, look: bool = False) -> ToolCall | None:
        """Return what a call gave, with its result inline; None when that is not recorded, or gone."""
        if look:
            self._take(await _sure(self._journal.read))
        call = self._calls.get((digest, place))
        return await self._whole(call) if call is not None else None

    def begun(self, digest: str, place: int) -> ToolBegun | None:
        """Return the last beginning of a call, as far as is known here."""
        return self._begun.get((digest, place))

    async def begin(self, begun: ToolBegun) -> ToolBegun:
        """Record that a call begins; return what is recorded: ours, or that of who was first."""
        stored = await _sure(lambda: self._journal.write(begun))
        stored = stored if isinstance(stored, ToolBegun) else begun
        self._begun[begun.request_sha256, begun.place] = stored
        return stored

    async def record(self, call: ToolCall) -> ToolCall:
        """Record what a call gave, with its result inline; return what is recorded, ours or another's."""

        async def write() -> ToolCall:
            value = await self._engine.values.stored(bytes(call.result))
            is_large = isinstance(value, Blob)
            ours = replace(call, result=NULL if is_large else value, blob=value if is_large else None)
            stored = await self._journal.write(ours)
            return call if stored is ours or not isinstance(stored, ToolCall) else stored

        stored = await _sure(write)
        self._calls[call.request_sha256, call.place] = stored
        return await self._whole(stored) or call

    def _take(self, notes: Sequence[Note]) -> None:
        for note in notes:
            match note.fact:
                case Offered() as fact:
                    self._offered = fact
                case ToolBegun() as fact:
                    known = self._begun.get((fact.request_sha256, fact.place))
                    if known is None or known.number < fact.number:
                        self._begun[fact.request_sha256, fact.place] = fact
                case ToolCall() as fact:
                    self._calls.setdefault((fact.request_sha256, fact.place), fact)
                case _:
                    pass

    async def _tools_of(self, offered: Offered) -> list[OfferedTool] | None:
        data = await self._loaded(offered.blob, offered.tools)
        return offered_tools(data) if data is not None else None

    async def _whole(self, call: ToolCall) -> ToolCall | None:
        data = await self._loaded(call.blob, call.result)
        return replace(call, result=data, blob=None) if data is not None else None

    async def _loaded(self, blob: Blob | None, value: Raw) -> Raw | None:
        if blob is None:
            return value
        try:
            return Raw(bytes(await _sure(lambda: self._engine.values.load(blob))))
        except BlobMissing:
            return None


async def _sure(do: Callable[[], Awaitable[T]]) -> T:
    """Do something on the bus until it lets us. Raises `NotRecorded`, `BlobMissing`."""
    while True:
        try:
            return await do()
        except BlobMissing:
            raise
        except NewerMessage as error:
            raise NotRecorded(error) from error
        except BusError as error:
            logger.error("tool.not_recorded", error=str(error), again_in_s=_AGAIN_S)
            await asyncio.sleep(_AGAIN_S)
