"""What a step reads: the state that its handoff carries or its branches bring, and the values that its agent gets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_bus.engine.engine import Engine
from baton_bus.errors import BranchesMissing
from baton_schemas.run.carry import ERRORS, find, state_at, state_of_join
from baton_schemas.run.refs import base_of, joined, named, replied
from baton_schemas.run.rounds import in_round, round_of
from baton_schemas.run.state import known
from baton_schemas.wire.messages import Reply
from baton_schemas.wire.outcomes import Blob, State

from .claim import Claim

_NO_ERRORS = Raw(b"[]")
_READS = 20
"""Reads of a join's branches, over two seconds in all, before they are held to be gone: each has the leader's word."""
_EXACT_MAX = 64
"""Up to so many missing branches are read by name; more are read with one pattern, which is then cheaper."""

InHand = Mapping[tuple[str, str], Mapping[str, Reply]]
"""By run and join: replies that this process has anyway, by branch."""


class Seen(NamedTuple):
    """What a step can see."""

    state: State
    replies: Sequence[Reply] = ()
    """Of a step that joins: how its branches ended, in the order of the flow, outputs and errors inline."""


class Reading:
    """Reads for the steps of one actor."""

    def __init__(self, engine: Engine, actor: str, in_hand: InHand) -> None:
        self._engine, self._actor, self._in_hand = engine, actor, in_hand

    def has_all(self, claim: Claim, state: State) -> bool:
        """Say whether a handoff brings all that its step can see: there is nothing to read then."""
        return joined(claim.handoff) is None and ERRORS not in state.blobs

    async def seen(self, claim: Claim) -> Seen:
        """Return what a step can see, errors inline. Raises `BlobMissing`, `BranchesMissing`, `BusUnavailable`."""
        handoff = claim.handoff
        replies: list[Reply] = []
        if joined(handoff) is not None:
            replies = [await self._engine.values.whole(each) for each in await self._branches(claim)]
            state = state_of_join(claim.plan, handoff, replies)
        else:
            state = state_at(handoff)
        if ERRORS not in state.blobs:
            return Seen(state, replies)
        blobs = {name: blob for name, blob in state.blobs.items() if name != ERRORS}
        return Seen(replace(state, blobs=blobs, errors=await self._engine.values.errors(state)), replies)

    async def items(self, claim: Claim, fan_out: str) -> list[Raw]:
        """Return the list that a step right before this one fanned out over: the log has it once. Raises as `seen`."""
        plan, handoff = claim.plan, claim.handoff
        number = round_of(handoff.step) if fan_out in plan.loop_of else 1
        return await self._engine.spread.items(plan, handoff.run, claim.start_seq, in_round(fan_out, number))

    async def came(self, claim: Claim, state: State) -> Raw | None:
        """Return which branches came to the join that a step implies, where it does. Raises as `seen`."""
        opening = claim.plan.opening(base_of(claim.handoff))
        value = find(state, opening) if opening else None
        return await self._engine.values.load(value) if value is not None else None

    async def values(self, claim: Claim, state: State) -> dict[str, Raw]:
        """Return the values that the step reads, from beside the log where they are there. Raises as `seen`."""
        load = self._engine.values.load
        values: dict[str, Raw] = {}
        plan, step = claim.plan, claim.handoff.step
        for name in plan.inputs_of(step):
            value = find(state, plan.key(step, name))
            if value is not None:
                values[name] = await load(value) if isinstance(value, Blob) else value
        values["errors"] = Raw(msgspec.json.encode(state.errors)) if state.errors else _NO_ERRORS
        if (branch := claim.handoff.branch) is not None:
            values["item"] = await load(branch.blob or branch.item)
            values["index"] = Raw(str(branch.index).encode())
        return values

    async def _branches(self, claim: Claim) -> list[Reply]:
        """Return the replies that a closing handoff names, in their order. Raises `BranchesMissing`."""
        handoff, subjects = claim.handoff, self._engine.bus.subjects
        closing = joined(handoff)
        assert closing is not None
        names = named(closing)
        found = dict(self._in_hand.get((handoff.run, handoff.step), {}))
        missing: list[str] = []
        for tried in range(_READS):
            missing = [name for name in names if name not in found]
            if not missing:
                return [found[name] for name in names]
            await asyncio.sleep(0.01 * tried)
            wanted = missing if len(missing) <= _EXACT_MAX else ["*"]
            patterns = [subjects.reply(self._actor, handoff.run, handoff.step, name) for name in wanted]
            for entry in await self._engine.bus.log.matching_sure(patterns, claim.start_seq):
                message = known(entry)
                if isinstance(message, Reply):
                    found[replied(message)] = message
        raise BranchesMissing(handoff.step, missing)
