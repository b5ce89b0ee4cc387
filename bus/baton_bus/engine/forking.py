"""Going on from a run: the first handoff of one that does, and what of the other is copied into it."""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from baton_bus.errors import BlobMissing
from baton_bus.store.bus import Bus
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import check_input
from baton_schemas.run.fork import copied_into, told_by
from baton_schemas.run.keeping import keeping, texts_needed
from baton_schemas.run.lifecycle import Create
from baton_schemas.run.past import Logged, past_of
from baton_schemas.run.recalled import Recalled, recalled
from baton_schemas.run.state import known
from baton_schemas.wire.messages import Handoff, Origin, Started
from baton_schemas.wire.outcomes import Blob, Value

from .values import Values


class Copies(NamedTuple):
    """What a run takes over from another."""

    creates: list[Create]
    recalled: list[Recalled]
    """Written before those: what asks for it is to find it."""


class Forking:
    """Reads what a run that goes on from another takes over."""

    def __init__(self, bus: Bus, values: Values) -> None:
        self._bus, self._values = bus, values

    async def input(self, plan: Plan, first: Handoff) -> dict[str, Raw]:
        """Return the input of the run that `first` began, as a flow takes it that may have changed.

        What that does not take any more is left out, and what it takes besides has its default. Raises `InputError`,
        `BlobMissing`, `BusUnavailable`.
        """
        kept: dict[str, Value] = {**first.state.input, **first.state.blobs}
        given = {name: await self._values.load(kept[name]) for name in plan.flow.input if name in kept}
        return check_input(plan.flow, given)

    def deadline_s(self, plan: Plan, old: Plan | None, first: Handoff) -> float:
        """Return the deadline of a run that goes on: the flow's own, or else what the other was started with."""
        assert isinstance(first.cause, Started)
        given_s = first.cause.begins.deadline_s if first.cause.begins else 0.0
        was_own = old is not None and given_s == (old.flow.deadline_s or 0.0)
        return plan.flow.deadline_s or 0.0 if was_own else given_s

    async def copies(self, plan: Plan, first: Handoff, origin: Origin, start_seq: int) -> Copies:
        """Return what is copied into the run that `first` begins, in the order in which to write it.

        Raises `NewerMessage`, `BusUnavailable`.
        """
        logged = await self.log_of(origin.run)
        past = past_of(logged, origin.until_seq)
        texts: dict[Blob, Raw] = {}
        if past is not None and (past.plan.digest != plan.digest or origin.failed):
            kept = keeping(past, plan, first.state, failed=origin.failed)
            for blob in texts_needed(past, plan, kept):
                try:
                    texts[blob] = await self._values.load(blob)
                except BlobMissing:
                    continue  # the join that rests on it is done again
        creates = copied_into(plan, logged, first, origin, start_seq, texts)
        if past is None:
            return Copies(creates, [])
        done = told_by(creates)
        return Copies(creates, recalled(past, plan, logged, first.run, start_seq, origin.until_seq, done))

    async def log_of(self, run: str) -> list[Logged]:
        """Return the messages of a run, by the leader's word. Raises `NewerMessage`, `BusUnavailable`."""
        return [
            Logged(entry.seq, self._bus.subjects.split(entry.subject).who, entry.message)  # type: ignore[arg-type]
            for entry in await self._bus.log.run_sure(run)
            if known(entry) is not None
        ]


def without_source(first: Handoff) -> Handoff:
    """Return the first handoff of a run without the hint where its flow's file was: the same run may have another."""
    return _with_source(first, "")


def with_source_of(old: Handoff, first: Handoff) -> Handoff:
    """Return the first handoff of a run; when it has no hint where its flow's file is, with that of another run of it.

    A flow that is taken from a log has none.
    """
    if _source(first) or first.flow != old.flow:
        return first
    return _with_source(first, _source(old))


def _source(first: Handoff) -> str:
    cause = first.cause
    return cause.begins.source if isinstance(cause, Started) and cause.begins is not None else ""


def _with_source(first: Handoff, source: str) -> Handoff:
    cause = first.cause
    if not isinstance(cause, Started) or cause.begins is None:
        return first
    return replace(first, cause=replace(cause, begins=replace(cause.begins, source=source)))
