"""An answer on its way to a handler's client: first that it begins, then its body piece by piece, then its end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping


class Arriving:
    """One side begins, puts and ends; the other waits for that. Both are in the loop that it was made in."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        """Makes the call; it is ended by `close`."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pieces: asyncio.Queue[bytes | BaseException] = asyncio.Queue()
        self._over = False

    @property
    def has_begun(self) -> bool:
        """Whether anything of it was passed on."""
        return self._begun.done()

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        """Pass on how it begins, unless it has."""
        if not self._begun.done():
            self.status, self.headers = status, dict(headers)
            self._begun.set_result(None)

    def put(self, piece: bytes) -> None:
        """Pass on a piece of its body."""
        if piece:
            self._pieces.put_nowait(piece)

    def end(self) -> None:
        """Say that this was all."""
        self._pieces.put_nowait(b"")

    def fail(self, error: BaseException) -> None:
        """Have whoever waits for it get this error."""
        if self._begun.done():
            self._pieces.put_nowait(error)
        else:
            self._begun.set_exception(error)
            self._begun.exception()  # nobody need wait for it any more

    async def begun(self) -> None:
        """Wait until it begins. Raises what it failed with."""
        await asyncio.shield(self._begun)

    async def next(self) -> bytes:
        """Return the next piece of the body; empty when there is none. Raises what it failed with."""
        if self._over:
            return b""
        piece = await self._pieces.get()
        if isinstance(piece, BaseException):
            self._over = True
            raise piece
        self._over = not piece
        return piece

    async def close(self, *, at_once: bool = False) -> None:
        """Want no more of it: a call that is under way is ended, and has ended when this returns.

        One that has put its end is left to finish, unless it is to be `at_once`.
        """
        task = self.task
        if task is None or (self._over and not at_once):
            return
        task.cancel()
        await asyncio.wait([task])
