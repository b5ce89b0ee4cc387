"""Fetching what a step needs: values from the object store, lists to fan out over, the branches of a join."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_actors.errors import ActorError
from baton_bus import Bus
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import NotAList, items_of
from baton_schemas.run.carry import state_at, state_of_join
from baton_schemas.run.lifecycle import Lists, Value, base_of
from baton_schemas.wire.messages import Blob, Done, Handoff, Reply, State
from baton_schemas.wire.names import JOIN

_NO_ERRORS = Raw(b"[]")
_READS = 20
"""Reads of a join's branches before the step is given back: a lagging replica catches up in milliseconds."""
_EXACT_MAX = 64
"""Up to so many missing branches are read by name; more are read with one pattern, which is then cheaper."""


class BranchesMissing(ActorError):
    """Some branches that a closing handoff names cannot be read yet."""

    def __init__(self, missing: Sequence[str]) -> None:
        """`missing` are their names."""
        self.missing = tuple(missing)
        super().__init__(f"{len(missing)} branches are not readable yet, such as {missing[0]!r}; they are read again")


class TooManyBranches(ActorError):
    """A list to fan out over is longer than the setting allows."""

    def __init__(self, each: str, found: int, limit: int) -> None:
        """`each` as in the flow."""
        self.each, self.found, self.limit = each, found, limit
        super().__init__(f"{each!r} has {found} items; at most {limit} are allowed (BATON_BRANCHES_MAX)")


class Values:
    """Fetches values for the steps of one worker. `in_hand` gives replies that it has anyway."""

    def __init__(self, bus: Bus, in_hand: dict[tuple[str, str], dict[str, Reply]]) -> None:
        self._bus, self._in_hand = bus, in_hand

    async def state(self, plan: Plan, handoff: Handoff, actor: str) -> State:
        """Return what the step of a handoff can see. Raises `BranchesMissing`, `BlobMissing`, `BusUnavailable`."""
        if handoff.source != JOIN:
            return state_at(handoff)
        replies = await self._branches(handoff, actor)
        return state_of_join(plan, handoff, [await self._inline(reply) for reply in replies])

    async def read(self, plan: Plan, handoff: Handoff, state: State) -> dict[str, Raw]:
        """Return the values that the step reads, out of the object store where they are there."""
        values: dict[str, Raw] = {}
        for name in plan.reads[base_of(handoff)]:
            value = self._find(state, name)
            if value is not None:
                values[name] = await self._load(value)
        values["errors"] = Raw(msgspec.json.encode(state.errors)) if state.errors else _NO_ERRORS
        if handoff.count:
            values["item"] = await self._load(state.blobs.get("item", handoff.item))
            values["index"] = Raw(str(handoff.index).encode())
        return values

    async def lists(self, spreads: dict[str, str], state: State) -> Lists:
        """Return the lists that steps fan out over; large items go to the object store.

        Raises `NotAList`, `TooManyBranches`, `BlobMissing`.
        """
        lists: dict[str, Sequence[Value]] = {}
        for step, each in spreads.items():
            value = self._find(state, each.split(".")[0])
            if value is None:
                continue
            items = items_of(each, await self._load(value))
            if len(items) > self._bus.settings.branches_max:
                raise TooManyBranches(each, len(items), self._bus.settings.branches_max)
            lists[step] = [await self.stored(bytes(item)) for item in items]
        return lists

    async def stored(self, data: bytes) -> Value:
        """Return JSON as a value for a message: inline, or as a blob when it is large."""
        if len(data) <= self._bus.settings.inline_limit_bytes:
            return Raw(data)
        return await self._bus.blobs.put(data)

    async def _branches(self, handoff: Handoff, actor: str) -> list[Reply]:
        found = dict(self._in_hand.get((handoff.run, handoff.step), {}))
        for attempt in range(_READS):
            missing = [branch.name for branch in handoff.branches if branch.name not in found]
            if not missing:
                return [found[branch.name] for branch in handoff.branches]
            await asyncio.sleep(0.01 * attempt)
            for reply in await self._bus.replies(actor, handoff, missing if len(missing) <= _EXACT_MAX else []):
                found[reply.branch] = reply
        raise BranchesMissing(missing)

    async def _inline(self, reply: Reply) -> Reply:
        match reply.outcome:
            case Done(blob=Blob() as blob):
                data = await self._bus.blobs.get(blob)
                return replace(reply, outcome=replace(reply.outcome, output=Raw(data), blob=None))
            case _:
                return reply

    async def _load(self, value: Value) -> Raw:
        return Raw(await self._bus.blobs.get(value)) if isinstance(value, Blob) else value

    @staticmethod
    def _find(state: State, name: str) -> Value | None:
        for values in (state.outputs, state.input):
            if name in values:
                return values[name]
        return state.blobs.get(name)


__all__ = ["BranchesMissing", "NotAList", "TooManyBranches", "Values"]
