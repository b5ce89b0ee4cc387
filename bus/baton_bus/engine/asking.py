"""What a step that asks has in the log: its children's answers, and itself in their place while nobody holds it.

The subject of an answer decides the race between parking and answering. Whoever parks puts a mark there, where no
answer is; whoever answers and finds a mark writes behind it, and brings the step back. All marks of one parking wake
with one name, so that one worker is given the step, however many answers come (`deploy/decisions/0020`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import structlog
from msgspec import Raw, Struct
from msgspec.structs import replace

from baton_bus.errors import BusError
from baton_bus.store.bus import Bus
from baton_schemas.errors import BadMessage
from baton_schemas.run.asking import answers_parked, woken_at_once, woken_by
from baton_schemas.run.refs import key_of_child
from baton_schemas.run.state import known
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Answer, Asked, Handoff, Parked
from baton_schemas.wire.outcomes import Done

from .values import Values

logger = structlog.get_logger("baton.bus")


class Put(Struct, frozen=True, kw_only=True):
    """What parking a step came to."""

    seq: int = 0
    """Where the first of its marks is, the name of its waking; 0 when it is not parked."""
    is_whole: bool = True
    """Whether all of its marks stand."""
    answers: list[Answer] = []
    """Those that were there before."""


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

    async def park(self, actor: str, marks: Sequence[Parked]) -> Put:
        """Let a step wait with nobody holding it: put a mark in the place of each of the answers that are to wake it.

        Nothing is written when one of them is there, or when somebody else parks the step just now. From the first mark
        on it is parked, whatever comes: that mark's sequence is the name of its one waking. When the other marks cannot
        be put, `is_whole` is false, and whoever parks has to wake it (`wake`) before it lets go of it.

        Raises the errors of `Publisher.create`, `BadMessage`, `NewerMessage`: then no mark is known to stand.
        """
        places = [self._bus.subjects.answer(actor, each.run, each.step, key_of_child(each.child)) for each in marks]
        # 1. See what stands there, before there is a name. Of one answer, its mark sees to that.
        seen: Mapping[str, int] = {}
        if len(marks) > 1:
            answers, seen = await self._standing(places)
            if answers:
                return Put(answers=answers)
        # 2. The first mark.
        first = await self._mark(places[0], marks[0], seen)
        if first is None and len(marks) == 1:
            answers, seen = await self._standing(places)
            first = await self._mark(places[0], marks[0], seen) if not answers else None
            if first is None:
                return Put(answers=answers)
        if first is None:
            return Put()
        # 3. The others, each only in the place of what was seen.
        try:
            for place, mark in zip(places[1:], marks[1:], strict=True):
                if await self._mark(place, replace(mark, first=first), seen) is None:
                    return Put(seq=first, is_whole=False)
        except BusError as error:
            logger.error("bus.refuses", error=str(error), step=marks[0].step)
            return Put(seq=first, is_whole=False)
        return Put(seq=first)

    async def _standing(self, places: Sequence[str]) -> tuple[list[Answer], dict[str, int]]:
        """Return the answers that are there, and where the marks are that are, by subject; by the leader's word."""
        answers: list[Answer] = []
        seen: dict[str, int] = {}
        for entry in await self._bus.log.matching_sure(places):
            match known(entry):
                case Answer() as answer:
                    answers.append(answer)
                case Parked():
                    seen[entry.subject] = entry.seq
                case _:
                    raise BadMessage("what is stored there is no answer", entry.subject)
        return answers, seen

    async def _mark(self, place: str, mark: Parked, seen: Mapping[str, int]) -> int | None:
        """Put a mark in a place, also over an earlier one, where nothing else has come since; return its sequence."""
        if place in seen:
            return await self._bus.replace_last(place, encode(mark), seen[place])
        return await self._bus.create(place, encode(mark))

    async def wake(self, actor: str, parked: Parked, first: int) -> None:
        """Bring back a step that something came for while it was being parked; `first` is `seq` of what `park` put.

        Raises the errors of `Publisher.create`.
        """
        woken = woken_at_once(parked, first)
        await self._bus.create(self._bus.subjects.of(actor, woken), encode(woken))

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
