"""Values in messages: fetched from beside the log where they are there, and put there when they are large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_bus.errors import BlobWrong, TooManyBranches
from baton_bus.store.bus import Bus
from baton_schemas.flow.conditions import roots_of, unmet
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import items_of
from baton_schemas.run.carry import ERRORS, find
from baton_schemas.run.lifecycle import Lists
from baton_schemas.wire.files import may_name_files
from baton_schemas.wire.messages import Reply
from baton_schemas.wire.outcomes import Blob, Done, Error, State, Value

_SHARED_MIN_BYTES = 512
"""A smaller value costs less in each message than a blob's reference and the read of it."""
_decode_errors = msgspec.json.Decoder(list[Error]).decode


class Spread(NamedTuple):
    """What fan-outs are handed."""

    lists: Lists
    left_out: Mapping[str, str]
    """Those whose `when` does not hold, and why."""
    again: bool = False
    """Whether they are handed on for another round of a loop, or would be if it had not had its last."""


class Values:
    """Fetches and puts values on one bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def load(self, value: Value) -> Raw:
        """Return a value inline. Raises `BlobMissing`, `BusUnavailable`."""
        return Raw(await self._bus.blobs.get(value)) if isinstance(value, Blob) else value

    async def stored(self, data: bytes) -> Value:
        """Return JSON as a value for a message: inline, or as a blob when it is large."""
        if len(data) <= self._bus.inline_limit_bytes:
            return Raw(data)
        return await self._beside(data)

    async def _beside(self, data: bytes) -> Blob:
        """Put a value beside the log."""
        blob = await self._bus.blobs.put(data)
        return replace(blob, files=True) if may_name_files(data) else blob

    async def spread(self, plan: Plan, spreads: Mapping[str, str], state: State) -> Spread:
        """Return the lists that these steps fan out over, and which are left out; large items go beside the log.

        Raises `NotAList`, `TooManyBranches`, `BlobMissing`, `BusUnavailable`.
        """
        lists: dict[str, Sequence[Value]] = {}
        left_out: dict[str, str] = {}
        for step, each in spreads.items():
            if why := await self.unmet(plan, step, state):
                left_out[step] = why
                continue
            value = find(state, each.split(".")[0])
            if value is None:
                continue
            items = items_of(each, await self.load(value))
            if len(items) > self._bus.settings.branches_max:
                raise TooManyBranches(each, len(items), self._bus.settings.branches_max)
            lists[step] = [await self.stored(bytes(item)) for item in items]
        return Spread(lists, left_out)

    async def unmet(self, plan: Plan, step: str, state: State) -> str:
        """Return why the `when` of a step does not hold in a state, empty when it does or there is none.

        Raises `BlobMissing`, `BusUnavailable`.
        """
        when = plan.step(step).when
        if when is None:
            return ""
        name = plan.name_of(step)
        return unmet(when, await self._looked_at({root: plan.key(name, root) for root in roots_of(when)}, state))

    async def holds_again(self, plan: Plan, step: str, state: State) -> bool:
        """Say whether the condition of a step's `again` holds after it; not where it has none. Raises as `unmet`."""
        again = plan.step(step).again
        if again is None:
            return False
        return not unmet(again.when, await self._looked_at({root: root for root in roots_of(again.when)}, state))

    async def _looked_at(self, keys: Mapping[str, str], state: State) -> dict[str, Raw]:
        """Return what a state has under these keys, by name."""
        values: dict[str, Raw] = {}
        for name, key in keys.items():
            value = find(state, key)
            if value is not None:
                values[name] = await self.load(value)
        return values

    async def errors(self, state: State) -> list[Error]:
        """Return the errors so far, those that are beside the log first. Raises `BlobMissing`, `BusUnavailable`."""
        blob = state.blobs.get(ERRORS)
        if blob is None:
            return state.errors
        try:
            return [*_decode_errors(await self._bus.blobs.get(blob)), *state.errors]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BlobWrong(blob.sha256, f"no list of errors is under its name ({error})") from error

    async def whole(self, reply: Reply) -> Reply:
        """Return a reply with its output and its errors inline, for whoever merges it."""
        if ERRORS in reply.state.blobs:
            blobs = {name: blob for name, blob in reply.state.blobs.items() if name != ERRORS}
            state = replace(reply.state, blobs=blobs, errors=await self.errors(reply.state))
            reply = replace(reply, state=state)
        match reply.outcome:
            case Done(blob=Blob() as blob):
                output = await self.load(blob)
                return replace(reply, outcome=replace(reply.outcome, output=output, blob=None))
            case _:
                return reply

    async def fitted(self, state: State, copies: int = 1) -> State:
        """Return a state that fits a message: what is large, or shared by so many messages, goes beside the log."""
        limit = self._bus.inline_limit_bytes
        values = {**state.input, **state.outputs}
        sizes = {name: len(bytes(value)) for name, value in values.items()}
        errors = msgspec.json.encode(state.errors) if state.errors else b""
        total = sum(sizes.values()) + len(errors)
        if total * copies <= limit:
            return state
        largest = limit if copies == 1 else _SHARED_MIN_BYTES
        blobs = dict(state.blobs)
        if len(errors) > largest or (
            copies == 1 and total > 2 * limit and len(errors) > max(sizes.values(), default=0)
        ):
            blobs[ERRORS] = await self._bus.blobs.put(msgspec.json.encode(await self.errors(state)))
            total -= len(errors)
            errors = b""
        for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
            if size <= largest and total * copies <= 2 * limit:
                break
            if size < _SHARED_MIN_BYTES:
                break
            blobs[name] = await self._beside(bytes(values[name]))
            total -= size
        return State(
            input={name: value for name, value in state.input.items() if name not in blobs},
            outputs={name: value for name, value in state.outputs.items() if name not in blobs},
            blobs=blobs,
            errors=state.errors if errors else [],
        )
