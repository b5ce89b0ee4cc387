"""What a step that asks has in the log: its children's answers, and itself in their place while nobody holds it.

The subject of an answer decides the race between parking and answering. Whoever parks writes there only where nothing
is; whoever answers and finds a step parked there writes behind it, and brings it back.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Raw
from msgspec.structs import replace

from baton_bus.store.bus import Bus
from baton_schemas.errors import BadMessage
from baton_schemas.run.asking import answers_parked, woken_by
from baton_schemas.run.state import known
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Answer, Asked, Handoff, Parked
from baton_schemas.wire.outcomes import Done

from .values import Values


class Asking:
    """Reads and writes these on one bus."""

    def __init__(self, bus: Bus, values: Values) -> None:
        self._bus, self._values = bus, values

    # ---- for whoever asks --------------------------------------------------------------------------

    async def ask(self, who: str, child: Handoff) -> Asked | None:
        """Write the handoff of a child, with what is large beside the log; return what is there if it was asked before.

        Raises the errors of `Publisher.create`, `BadMessage`, `NewerMessage`.
        """
        body = encode(child)
        if len(body) > self._bus.inline_limit_bytes:
            body = encode(replace(child, state=await self._values.fitted(child.state)))
        subject = self._bus.subjects.of(who, child)
        if await self._bus.create(subject, body) is not None:
            return None
        # Only what was fixed when it was asked first is read again: when its time is up.
        if not child.cause.due_s:  # type: ignore[union-attr]
            return child.cause  # type: ignore[return-value]
        stored = known(await self._bus.log.taken(subject))
        if not isinstance(stored, Handoff) or not isinstance(stored.cause, Asked):
            raise BadMessage("what is stored there is no child's handoff", subject)
        return stored.cause

    async def of_step(self, actor: str, run: str, step: str, start_seq: int = 0) -> dict[str, Answer]:
        """Return the answers to a step, by the tokens of its children, by the leader's word.

        Raises `BusUnavailable`, `NewerMessage`.
        """
        pattern = self._bus.subjects.answer(actor, run, step, "*")
        found = map(known, await self._bus.log.matching_sure([pattern], start_seq))
        return {message.child: message for message in found if isinstance(message, Answer)}

    async def some(self, actor: str, run: str, step: str, keys: Iterable[str]) -> list[Answer]:
        """Return those of a step's answers that are there, by the leader's word. Raises as `of_step`."""
        patterns = [self._bus.subjects.answer(actor, run, step, key) for key in keys]
        found = map(known, await self._bus.log.matching_sure(patterns))
        return [message for message in found if isinstance(message, Answer)]

    async def value(self, answer: Answer) -> Raw:
        """Return the output in an answer that is `Done`, inline. Raises `BlobMissing`, `BusUnavailable`."""
        assert isinstance(answer.outcome, Done)
        return await self._values.load(answer.outcome.blob or answer.outcome.output)

    async def park(self, actor: str, key: str, parked: Parked) -> Answer | None:
        """Let a step wait with nobody holding it; return the answer instead, when it is there.

        Raises the errors of `Publisher.create`, `BadMessage`, `NewerMessage`.
        """
        subject = self._bus.subjects.answer(actor, parked.run, parked.step, key)
        if await self._bus.create(subject, encode(parked)) is not None:
            return None
        stored = known(await self._bus.log.taken(subject))
        if isinstance(stored, Answer):
            return stored
        if not isinstance(stored, Parked):
            raise BadMessage("what is stored there is no answer", subject)
        return None

    # ---- for whoever answers -----------------------------------------------------------------------

    async def record(self, subject: str, answer: Answer) -> Answer:
        """Write an answer; return the one that is stored, ours or that of whoever was first.

        One that finds its step parked says so in `wakes`. Raises as `ask`.
        """
        body = encode(answer)
        if await self._bus.create(subject, body) is not None:
            return answer
        while True:
            entry = await self._bus.log.taken(subject)
            match known(entry):
                case Answer() as stored:
                    return stored
                case Parked() as parked:
                    woken = answers_parked(answer, parked, entry.seq)
                    if await self._bus.replace_last(subject, encode(woken), entry.seq) is not None:
                        return woken
                case _:
                    raise BadMessage("what is stored there is no answer", subject)

    async def answer(self, actor: str, answer: Answer) -> Answer:
        """Write an answer to a step of this actor, and what follows from it; return what is stored. Raises as `ask`."""
        stored = await self.record(self._bus.subjects.of(actor, answer), answer)
        woken = woken_by(stored)
        if woken is not None:
            await self._bus.create(self._bus.subjects.of(actor, woken), encode(woken))
        return stored
