"""Values in messages: fetched from beside the log where they are there, and put there when they are large."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_bus.errors import BlobWrong, TooManyBranches
from baton_bus.store.bus import Bus
from baton_schemas.flow.inputs import items_of
from baton_schemas.run.carry import ERRORS, find
from baton_schemas.run.lifecycle import Lists
from baton_schemas.wire.messages import Reply
from baton_schemas.wire.outcomes import Blob, Done, Error, State, Value

_SHARED_MIN_BYTES = 512
"""A smaller value costs less in each message than a blob's reference and the read of it."""
_decode_errors = msgspec.json.Decoder(list[Error]).decode


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
        return await self._bus.blobs.put(data)

    async def lists(self, spreads: dict[str, str], state: State) -> Lists:
        """Return the lists that steps fan out over; large items go beside the log.

        Raises `NotAList`, `TooManyBranches`, `BlobMissing`, `BusUnavailable`.
        """
        lists: dict[str, Sequence[Value]] = {}
        for step, each in spreads.items():
            value = find(state, each.split(".")[0])
            if value is None:
                continue
            items = items_of(each, await self.load(value))
            if len(items) > self._bus.settings.branches_max:
                raise TooManyBranches(each, len(items), self._bus.settings.branches_max)
            lists[step] = [await self.stored(bytes(item)) for item in items]
        return lists

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
            blobs[name] = await self._bus.blobs.put(bytes(values[name]))
            total -= size
        return State(
            input={name: value for name, value in state.input.items() if name not in blobs},
            outputs={name: value for name, value in state.outputs.items() if name not in blobs},
            blobs=blobs,
            errors=state.errors if errors else [],
        )
