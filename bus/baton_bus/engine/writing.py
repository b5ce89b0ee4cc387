"""Writing what the lifecycle decided: create-only, what is large beside the log. Who is second changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from baton_bus.store.bus import Bus
from baton_schemas.errors import BadMessage
from baton_schemas.run.lifecycle import Create, SetTimer
from baton_schemas.run.state import known
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Answer, Decisive, Handoff, Reply, Result
from baton_schemas.wire.outcomes import State

from .values import Values

AT_ONCE = 500
"""Messages written at the same time after a fan-out: enough to hide round trips, bounded for the client's buffer."""


class Writing:
    """Does this on one bus. All of it raises the errors of `Publisher.create`, and waits while the log is full."""

    def __init__(self, bus: Bus, values: Values) -> None:
        self._bus, self._values = bus, values

    async def record(self, create: Create, patience_s: float | None = None) -> Decisive:
        """Write a decisive record; return the one that is stored, ours or that of whoever was first.

        With `patience_s` seconds it is for a client, which does not wait for ever. Raises `BadMessage` and
        `NewerMessage` when what is stored cannot be read.
        """
        subject, body = await self._fitted(create)
        if patience_s is None:
            stored = await self._bus.create(subject, body)
        else:
            stored = await self._bus.publisher.create(subject, body, patience_s=patience_s)
        if stored is not None:
            return create.message
        message = known(await self._bus.log.taken(subject))
        if not isinstance(message, Decisive):
            raise BadMessage("a decisive record cannot be read", subject)
        return message

    async def create_all(self, creates: Sequence[Create]) -> None:
        """Write messages, many at the same time."""
        if len(creates) == 1:
            await self._create(creates[0])
            return
        for start in range(0, len(creates), AT_ONCE):
            small: list[tuple[str, bytes]] = []
            large: list[Create] = []
            for create in creates[start : start + AT_ONCE]:
                subject, body, is_large = self._encoded(create)
                if not is_large:
                    small.append((subject, body))
                else:
                    large.append(create)
            await asyncio.gather(self._bus.create_all(small), *map(self._create, large))

    async def _create(self, create: Create) -> None:
        await self._bus.create(*await self._fitted(create))

    async def set_timer(self, timer: SetTimer) -> None:
        """Have the broker write a message when it is due."""
        message = timer.message
        if isinstance(message, Reply):
            message = replace(message, state=await self._values.fitted(message.state))
        await self._bus.timers.at(timer.who, timer.run, timer.step, timer.due_s, encode(message))

    async def sharing(self, creates: list[Create]) -> list[Create]:
        """Put what the branches of a fan-out share beside the log, once, when it is much in all."""
        shared: dict[int, int] = {}
        for create in creates:
            if isinstance(message := create.message, Handoff) and (len(creates) > 1 or message.branch is not None):
                # The branches whose turn comes later get theirs from those before them.
                count = message.branch.count if message.branch is not None else 0
                shared[id(message.state)] = max(shared.get(id(message.state), 0) + 1, count)
        if not shared:
            return creates
        fitted: dict[int, State] = {}
        result: list[Create] = []
        for create in creates:
            message = create.message
            if not isinstance(message, Handoff) or shared[id(message.state)] < 2:
                result.append(create)
                continue
            key = id(message.state)
            if key not in fitted:
                fitted[key] = await self._values.fitted(message.state, shared[key])
            state = fitted[key]
            result.append(create if state is message.state else Create(create.actor, replace(message, state=state)))
        return result

    async def _fitted(self, create: Create) -> tuple[str, bytes]:
        """Return the subject of a message, and its bytes, with what is large beside the log by then."""
        subject, body, is_large = self._encoded(create)
        if is_large:
            message = create.message
            assert not isinstance(message, Result | Answer)
            body = encode(replace(message, state=await self._values.fitted(message.state)))
        return subject, body

    def _encoded(self, create: Create) -> tuple[str, bytes, bool]:
        """Return the subject of a message, its bytes, and whether some of these are to be beside the log."""
        message = create.message
        body = encode(message)
        is_large = len(body) > self._bus.inline_limit_bytes and not isinstance(message, Result | Answer)
        return self._bus.subjects.of(*create), body, is_large
