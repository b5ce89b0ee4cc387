"""The journal of a step: every recorded fact about how it is done, written once and read by whoever does it next."""

from __future__ import annotations

from baton_bus.store.bus import Bus
from baton_schemas.errors import BadMessage
from baton_schemas.run.state import known
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import ASKED_LATER, Fact, key_of
from baton_schemas.wire.messages import ASKING, FIRST, Note


class Journal:
    """The facts of one step of one run."""

    def __init__(self, bus: Bus, actor: str, run: str, step: str, worker: str) -> None:
        """`worker` is how the log calls who writes."""
        self._bus, self._actor, self._run, self._step, self._worker = bus, actor, run, step, worker

    async def read(self) -> list[Note]:
        """Return the notes on the step in their order, by the leader's word.

        Raises `BusUnavailable`, `NewerMessage`.
        """
        entries = await self._bus.log.matching_sure([self._bus.subjects.note(self._actor, self._run, self._step, "*")])
        return [note for note in map(known, entries) if isinstance(note, Note)]

    async def write(self, fact: Fact) -> Fact:
        """Write a fact under its key; return the one that is stored there, ours or an earlier one.

        Waits while the log is full. Raises the errors of `Publisher.create`, and `BadMessage` when what is stored
        under the key is no note; `NewerMessage`.
        """
        subject = self._bus.subjects.note(self._actor, self._run, self._step, key_of(fact))
        version = ASKING if isinstance(fact, ASKED_LATER) else FIRST
        note = Note(v=version, run=self._run, step=self._step, worker=self._worker, fact=fact)
        if await self._bus.create(subject, encode(note)) is not None:
            return fact
        stored = known(await self._bus.log.taken(subject))
        if not isinstance(stored, Note):
            raise BadMessage("what is stored there is no note", subject)
        return stored.fact
