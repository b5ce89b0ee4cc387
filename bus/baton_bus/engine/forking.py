"""Going on from a run: what the first handoff of one that does is made from, and what it copies of the other."""

from __future__ import annotations

import asyncio
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
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import key_of
from baton_schemas.wire.messages import Handoff, Note, Origin, OutcomeRecord, Reply, Started
from baton_schemas.wire.money import Budget
from baton_schemas.wire.outcomes import Blob, Failed, Value

from .values import Values
from .writing import AT_ONCE, Writing


class Copies(NamedTuple):
    """What a run takes over from another."""

    creates: list[Create]
    recalled: list[Recalled]
    """Written before those: what asks for it is to find it."""


class Forking:
    """Reads what a run that goes on from another takes over, and copies it."""

    def __init__(self, bus: Bus, values: Values, writing: Writing) -> None:
        self._bus, self._values, self._writing = bus, values, writing

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

    async def copy(self, plan: Plan, first: Handoff, origin: Origin, start_seq: int) -> list[Reply]:
        """Copy the finished steps of the other run into the one that `first` begins, what goes to the last steps first.

        Return the replies of branches that failed, of which more may follow. Raises `NewerMessage`, and the errors of
        `Publisher.create`.
        """
        creates, remembered = await self._copies(plan, first, origin, start_seq)
        for start in range(0, len(remembered), AT_ONCE):
            await asyncio.gather(*map(self._recall, remembered[start : start + AT_ONCE]))
        records = [create for create in creates if isinstance(create.message, OutcomeRecord)]
        await self._writing.create_all(records)  # first, and all of them: see `in_order`
        await self._writing.create_all(creates[len(records) :])
        replies = [create.message for create in creates if isinstance(create.message, Reply)]
        return [reply for reply in replies if isinstance(reply.outcome, Failed)]

    async def _recall(self, remembered: Recalled) -> None:
        actor, message = remembered
        if isinstance(message, Note):
            subject = self._bus.subjects.note(actor, message.run, message.step, key_of(message.fact))
        else:
            subject = self._bus.subjects.of(actor, message)
        await self._bus.create(subject, encode(message))

    async def _copies(self, plan: Plan, first: Handoff, origin: Origin, start_seq: int) -> Copies:
        """Return what is copied, in the order in which to write it."""
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


def given_to(first: Handoff) -> Budget | None:
    """Return what whoever started the run that begins with this handoff allowed it to spend."""
    begins = first.cause.begins if isinstance(first.cause, Started) else None
    return begins.budget if begins is not None else None
