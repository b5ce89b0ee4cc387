"""What is recorded of the tools of a step, as those see it who call them. Knows no bus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from baton_schemas.flow.tools import OfferedTool
from baton_schemas.wire.facts import ToolBegun, ToolCall


class ToolLog(Protocol):
    """The facts of one step."""

    def now_s(self) -> float:
        """Return the time by the broker's clock, in seconds of Unix time."""

    async def offered(self) -> list[OfferedTool] | None:
        """Return what the step's model was offered when it was first asked; None when it was not."""

    async def offer(self, tools: Sequence[OfferedTool]) -> list[OfferedTool]:
        """Record what its model is offered; return what is recorded, which may be another worker's."""

    async def called(self, digest: str, place: int, *, look: bool = False) -> ToolCall | None:
        """Return what a call gave, with its result inline; None when that is not recorded.

        `look` reads the log again, as another worker may have recorded it meanwhile.
        """

    def begun(self, digest: str, place: int) -> ToolBegun | None:
        """Return the last beginning of a call, as far as is known here."""

    async def begin(self, begun: ToolBegun) -> ToolBegun:
        """Record that a call begins; return what is recorded: ours, or that of who was first."""

    async def record(self, call: ToolCall) -> ToolCall:
        """Record what a call gave, with its result inline; return what is recorded, which may be another's."""
