"""The turn of a model call of one attempt: it waits until it may be made, here or, where that takes long, parked.

Waiting for capacity is no attempt, and a step that waits for longer than a lease is let go of (`Later`): it comes again
when its turn has come, and holds nothing until then. Calls of a handler's own client wait where they are, as their
handler cannot be begun again for each of them; the time of their attempt stands still meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from baton_actors.errors import HeldByOthers, OverBudget, UnpricedModel
from baton_actors.models import ModelAnswer, ModelError
from baton_actors.models.types import Bound
from baton_bus.store.rates import Turn
from baton_schemas.flow.flow import Limit
from baton_schemas.wire.facts import Place, Waits
from baton_schemas.wire.messages import Note
from baton_schemas.wire.outcomes import Usage

from .claim import Claim
from .limiting import Limiting

T = TypeVar("T")
OnWait = Callable[[float, ModelError | None], Awaitable[None]]

LIMITS = "limits"
"""What a step waits for, in its notes."""
_LOOK_S = 1.0
"""How often one that waits sees at the most whether it is earlier by now: others took less, or gave up."""
_SLOT_MAX_S = 300.0
"""A step that is parked until a slot may be free looks again after this many seconds at the latest."""


class Later(Exception):
    """The step is to come again at `at_s`, in seconds of Unix time by the broker's clock: it could not begin till then.

    `noted` says that it stands in the log already what it waits for.
    """

    def __init__(
        self, at_s: float, reason: str, *, since_s: float, places: Sequence[Place] = (), noted: bool = False
    ) -> None:
        """`reason` is what it waits for, `since_s` from when on, and `places` what it has taken."""
        self.at_s, self.reason, self.since_s, self.places, self.noted = at_s, reason, since_s, list(places), noted
        super().__init__(f"it waits for {reason}")


class Turns:
    """Those of one attempt of one step."""

    def __init__(self, limiting: Limiting, work: Claim, attempt: int, notes: Sequence[Note]) -> None:
        """`notes` are those that earlier attempts left."""
        self._limiting, self._bus = limiting, limiting.bus
        self._limits = work.plan.limits
        self._overload_max_s = work.plan.agent(work.handoff.step).overload_max_s
        self._run = work.handoff.run
        waits = [note.fact for note in notes if isinstance(note.fact, Waits) and note.fact.what == LIMITS]
        ours = [fact for fact in waits if fact.attempt == attempt]
        self._since_s = min((fact.since_s for fact in ours), default=0.0)
        before = [fact for fact in ours if fact.number == work.woken - 1] if work.is_woken else []
        self._before = before[0] if before else None
        """What it was parked for, and came again: its turn was taken then."""

    async def in_turn(
        self,
        call: Callable[[], Awaitable[T]],
        bound: Bound,
        *,
        waited_s: float,
        on_wait: OnWait,
    ) -> T:
        """Make a call when it may be made; again when it raises an overloaded `ModelError`.

        `waited_s` is how long ago the step was first told to wait by a provider, and `on_wait` as of `Pace.run`.
        Raises `ModelError`, `Later`, what `call` and `on_wait` raise, and the errors of the bus.
        """
        limiting, model, patience_s = self._limiting, bound.model, bound.patience_s
        own = self._limits.get(model)
        limit = limiting.limit(model, own)
        taken: list[Turn] | None = await self._taken(limit, bound)

        async def once() -> T:
            nonlocal taken, limit
            turns, taken = taken, None
            if turns is None:  # told to wait, and to be made again
                limit = limiting.limit(model, own)
                turns = await self._taken(limit, bound)
            return await self._made(call, bound, limit, turns)

        async def told_to_wait(wait_s: float, error: ModelError | None) -> None:
            await on_wait(wait_s, error)
            if not bound.holds and wait_s > self._bus.settings.lease_s:
                now_s = self._bus.now_s()
                raise Later(now_s + wait_s, f"the provider of {model}", since_s=now_s, noted=True)

        try:
            return await limiting.pace(model).run(
                once,
                waited_s=waited_s if patience_s is None else 0.0,
                on_wait=told_to_wait,
                overload_max_s=self._overload_max_s if patience_s is None else patience_s,
                others_left=patience_s is not None,
            )
        finally:
            if taken:
                limiting.took(taken, None)

    async def _taken(self, limit: Limit | None, bound: Bound) -> list[Turn]:
        """Take a call of its rates, and return when it may begin."""
        model = bound.model
        before, self._before = self._before, None
        if limit is None:
            return []
        reason = f"its turn at {model}"
        if before is not None and before.reason == reason:
            turns = await self._limiting.again(self._run, before.places)
        else:
            turns = await self._limiting.take(model, limit, bound.input_tokens + bound.output_tokens)
        try:
            for turn in turns:
                while (left_s := turn.at_s - self._bus.now_s()) > 0:
                    if not bound.holds and left_s > self._bus.settings.lease_s:
                        self._limiting.parked(self._run, turns)
                        raise self._parked(turns, reason)
                    looks_in_s = max(left_s / 2, _LOOK_S)
                    await asyncio.sleep(min(left_s, looks_in_s))
                    if looks_in_s < left_s:
                        await turn.look()
        except asyncio.CancelledError:
            self._limiting.took(turns, None)
            raise
        return turns

    async def _made(self, call: Callable[[], Awaitable[T]], bound: Bound, limit: Limit | None, turns: list[Turn]) -> T:
        if limit is None:
            return await call()
        most = bound.input_tokens + bound.output_tokens
        async with contextlib.AsyncExitStack() as stack:
            try:
                patience_s = None if bound.holds else self._bus.settings.lease_s
                await stack.enter_async_context(self._limiting.slot(bound.model, limit, patience_s))
            except TimeoutError:
                self._limiting.took(turns, None)
                raise self._for_a_slot(bound.model) from None
            except BaseException:
                self._limiting.took(turns, None)
                raise
            try:
                came = await call()
            except ModelError as error:
                self._limiting.took(turns, _counted(error.usage or Usage()) / most)
                raise
            except (OverBudget, HeldByOthers, UnpricedModel):  # it was not made
                self._limiting.took(turns, None)
                raise
            usage = came.usage if isinstance(came, ModelAnswer) else came
            if isinstance(usage, Usage):
                self._limiting.took(turns, _counted(usage) / most)
            return came

    def _parked(self, turns: list[Turn], reason: str) -> Later:
        """Come again when half of the wait is over: by then it may be shorter, as others took less or have ended."""
        now_s = self._bus.now_s()
        left_s = max(each.at_s for each in turns) - now_s
        wait_s = max(left_s / 2, min(left_s, 2 * self._bus.settings.lease_s))
        places = [turn.place for turn in turns]
        return Later(now_s + wait_s, reason, since_s=self._since_s or now_s, places=places)

    def _for_a_slot(self, model: str) -> Later:
        """Come again later, the more so the longer it has waited: nobody knows when one is free."""
        now_s = self._bus.now_s()
        since_s = self._since_s or now_s - self._bus.settings.lease_s
        wait_s = min(max((now_s - since_s) / 2, self._bus.settings.lease_s), _SLOT_MAX_S)
        return Later(now_s + wait_s, f"a call of {model} to end", since_s=since_s)


def _counted(usage: Usage) -> int:
    """Return the tokens of a call that providers count: what is read from a cache costs them next to nothing."""
    return usage.input_tokens + usage.cache_write_tokens + usage.output_tokens
