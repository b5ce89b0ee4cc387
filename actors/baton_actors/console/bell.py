"""A bell: whoever waits for news is woken when there is some, and may ask how much came since."""

from __future__ import annotations

import asyncio


class Bell:
    """Counts news. Many may wait; none of them is missed, however slow one is."""

    def __init__(self) -> None:
        self.count = 0
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake all who wait."""
        self.count += 1
        self._rung.set()
        self._rung = asyncio.Event()

    async def wait(self, since: int) -> int:
        """Wait until there is something that came after `since`; return how much has come in all."""
        while self.count == since:
            await self._rung.wait()
        return self.count
