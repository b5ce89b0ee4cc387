"""The gate that the calls of one model pass: when the provider asks to wait, all who ask it slow down."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar

from baton_actors.models.errors import ModelError
from baton_actors.models.speed import Speed

Answer = TypeVar("Answer")
OnWait = Callable[[float, ModelError | None], Awaitable[None]]

LOST_PATIENCE = "overloaded"
"""The type of the error that says that the provider was waited for long enough."""
_KNOWN = 0.9
"""The other processes are not told of a pause of which they know so much already: a burst is one word, not sixty."""


class Pace:
    """One for each model and process, in one event loop. Until the provider asks to wait, nothing waits here.

    `overload_max_s` bounds how long a step waits that does not say. `tell` is called with the seconds of a new pause,
    to pass on to the other processes, which call `heard` with them. That is advice: one lost costs a call that fails.
    """

    def __init__(
        self,
        model: str,
        overload_max_s: float = 3600.0,
        *,
        tell: Callable[[float], None] | None = None,
        speed: Speed | None = None,
    ) -> None:
        self._model, self._max_s, self._tell = model, overload_max_s, tell
        self._speed = speed or Speed(random.random)
        self._queue: list[tuple[float, int, asyncio.Future[None]]] = []
        """A heap: by when they were first told to wait, those that were not behind, each in its order."""
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._answered_at = -math.inf

    async def run(
        self,
        call: Callable[[], Awaitable[Answer]],
        *,
        waited_s: float = 0.0,
        on_wait: OnWait | None = None,
        overload_max_s: float | None = None,
        others_left: bool = False,
    ) -> Answer:
        """Return what `call` returns; call it again, when it is time, as often as it raises an `overloaded` error.

        `call` bounds its own time: none of the waiting here is part of it. `waited_s` is how long ago an earlier
        try of the same step was first told to wait. `on_wait` is awaited before each wait that is not only for
        others: with its seconds, and the error, which also says what the failed call took; and once, with None for
        the error, before the call waits because others were told to.

        With `others_left` the caller has somebody else to ask: it does not wait for others for longer than that.

        Raises `ModelError` (`overloaded`, final) once this call was told to wait `overload_max_s` ago, or is told
        to wait for longer than what is left of it; a call that was not told so waits for its turn as long as others
        are answered. Whatever else `call` or `on_wait` raises is raised as it is. Cancelling works at any time.
        """
        now_s = _now_s()
        told_at = now_s - waited_s if waited_s > 0 else None
        max_s = self._max_s if overload_max_s is None else overload_max_s
        turn = _Turn(began_at=now_s, told_at=told_at, max_s=max_s, others_left=others_left)
        while True:
            await self._enter(turn, on_wait)
            started_at = _now_s()
            try:
                answer = await call()
            except ModelError as error:
                if not error.overloaded:
                    self._answered_at = _now_s()
                    raise
                pause_s = self._slow_down(started_at, error)
                turn.error = error
            else:
                self._answered_at = _now_s()
                self._speed.succeeded(started_at)
                return answer
            finally:
                self._speed.end()
                self._wake()
            turn.told_at = _now_s() if turn.told_at is None else turn.told_at
            if _now_s() + pause_s > turn.told_at + turn.max_s:
                raise self._lost_patience(turn, pause_s) from turn.error
            if on_wait is not None:
                await on_wait(pause_s, turn.error)

    def heard(self, pause_s: float) -> None:
        """Take the word of another process of this actor. One that makes no sense is ignored, as it is only advice."""
        if math.isfinite(pause_s) and pause_s > 0:
            self._speed.told(_now_s(), min(pause_s, self._max_s))
            self._wake()

    def _slow_down(self, started_at: float, error: ModelError) -> float:
        """Pause the actor; return for how many seconds this call is to wait."""
        now_s, known_until = _now_s(), self._speed.paused_until
        asked_s = error.retry_after_s
        # No longer than a step may wait: then one call tries whether the provider's word still holds.
        bounded_s = None if asked_s is None else min(asked_s, self._max_s)
        pause_s = self._speed.overloaded(now_s, started_at, bounded_s)
        if self._tell is not None and known_until - now_s < _KNOWN * pause_s:
            self._tell(pause_s)
        return max(pause_s, asked_s or 0.0)

    async def _enter(self, turn: _Turn, on_wait: OnWait | None) -> None:
        """Return when a call may start, counted as started. Who was told to wait first goes first."""
        if not self._queue and self._speed.may_start(_now_s()):
            self._speed.start()
            return
        if turn.others_left and self._speed.paused_until > self._patience_ends_at(turn):
            raise self._lost_patience(turn, max(self._speed.paused_until - _now_s(), 0.0), took=False)
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        told_at = math.inf if turn.told_at is None else turn.told_at
        heappush(self._queue, (told_at, next(self._numbers), ticket))
        self._wake()
        try:
            if on_wait is not None and turn.error is None and not turn.queued:
                await on_wait(max(self._speed.paused_until - _now_s(), 0.0), None)
            turn.queued = True
            while not ticket.done():
                left_s = self._patience_ends_at(turn) - _now_s()
                if left_s <= 0:
                    raise self._lost_patience(turn, 0.0)
                await asyncio.wait([ticket], timeout=left_s)
        except BaseException:
            if ticket.done():
                self._speed.end()
            ticket.cancel()
            self._wake()
            raise

    def _wake(self) -> None:
        """Let those go whose turn it is, and come back when the pause ends if somebody waits for that."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and (self._queue[0][-1].done() or self._speed.may_start(_now_s())):
            *_, ticket = heappop(self._queue)
            if not ticket.done():
                self._speed.start()
                ticket.set_result(None)
        if self._queue and self._speed.paused_until > _now_s():
            self._timer = asyncio.get_running_loop().call_at(self._speed.paused_until, self._wake)

    def _patience_ends_at(self, turn: _Turn) -> float:
        since = turn.told_at
        if since is None:
            since = turn.began_at if turn.others_left else max(turn.began_at, self._answered_at)
        return since + turn.max_s

    def _lost_patience(self, turn: _Turn, pause_s: float, *, took: bool = True) -> ModelError:
        since = turn.told_at if turn.told_at is not None else turn.began_at
        more = f" and is to wait {pause_s:.0f} s more" if pause_s else ""
        last = f"; the last answer: {turn.error.message}" if turn.error is not None else ""
        lost = ModelError(
            type=LOST_PATIENCE,
            message=f"the provider of {self._model} asks to wait: the step has waited {_now_s() - since:.0f} s"
            f"{more}, and overload_max_s is {turn.max_s:g}; start fewer runs at once, get a higher limit from the "
            f"provider, or raise overload_max_s of the agent{last}",
            retryable=False,
            request_id=turn.error.request_id if turn.error is not None else "",
        )
        # What the last call took; `on_wait` has got that of each one before.
        if took and pause_s and turn.error is not None:
            lost.took_as(turn.error)
        return lost


class _Turn:
    """One call on its way through the gate. `told_at`: when it was first told to wait itself."""

    def __init__(self, began_at: float, told_at: float | None, max_s: float, others_left: bool) -> None:
        self.began_at, self.told_at, self.max_s, self.others_left = began_at, told_at, max_s, others_left
        self.queued = False
        self.error: ModelError | None = None


def _now_s() -> float:
    return asyncio.get_running_loop().time()
