"""Words that are awaited from outside: what people are asked, and events that steps wait for. Who waits, and what came.

A question is for one person, and an event may be awaited by several: its words go to them in turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from baton_bus.store.bus import Bus
from baton_schemas.errors import BadContent
from baton_schemas.run.asking import TIME_IS_UP
from baton_schemas.run.refs import asked_name, key_of_child
from baton_schemas.run.state import Entry, known
from baton_schemas.run.words import words_of
from baton_schemas.wire.messages import Answer, Asked, Handoff, Say
from baton_schemas.wire.names import EVENT, PERSON, TOKEN, WHOLE_RUN, may_stand_in_subject
from baton_schemas.wire.outcomes import Failed
from baton_schemas.wire.values import check_json

_READ_AT_ONCE = 400
"""Subjects of answers that are read with one request: a server gives 1,024 at most."""


class Open(Struct, frozen=True, kw_only=True):
    """A child that waits for a word, or did."""

    seq: int
    at: datetime
    """When it was asked."""
    child: Handoff
    cause: Asked
    answer: Answer | None = None
    answer_seq: int = 0
    answered_at: datetime | None = None

    @property
    def name(self) -> str:
        """The role that is asked, or the event that is waited for."""
        return asked_name(self.child.step)

    @property
    def start_seq(self) -> int:
        """Where the run's first handoff is."""
        return self.child.start_seq


class AwaitedWords:
    """Finds on one bus who waits for a word. It only reads."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    # ---- what people are asked ---------------------------------------------------------------------

    async def questions(self, run: str, step: str = "") -> list[Open]:
        """Return the questions to people in a run, in their order: of a step that asked, or the very one it names.

        Raises `NewerMessage`, `BusUnavailable`.
        """
        asked = self._bus.subjects.asked
        patterns = [asked(PERSON, run, step), asked(PERSON, run, asker=step)] if step else [asked(PERSON, run)]
        return await self.with_answers(_asked(await self._bus.log.matching_sure(patterns)))

    async def open_questions(self, role: str = "") -> list[Open]:
        """Return all questions that wait for a person, of this role or any, the one that waits longest first.

        Those of runs that have ended wait no more. Reads the questions of all runs in the log, then how their runs
        ended, then the answers to those of runs that have not. Raises as `questions`.
        """
        entries = await self._bus.log.matching_sure([self._bus.subjects.asked(PERSON)])
        entries = [entry for entry in entries if entry.message is not None]  # of a later release: others show them
        asked = [each for each in _asked(entries) if not role or each.name == role]
        results = {self._bus.subjects.result(each.child.flow, each.child.run) for each in asked if _is_sound(each)}
        ended = {each.subject for each in await self._some(results)}
        going_on = [
            each
            for each in asked
            if _is_sound(each) and self._bus.subjects.result(each.child.flow, each.child.run) not in ended
        ]
        return [each for each in await self.with_answers(going_on) if each.answer is None]

    async def open_of(self, run: str, step: str) -> list[Open]:
        """Return what a step asked from outside, of people or as an event, and is open. Raises as `questions`."""
        asked = self._bus.subjects.asked
        patterns = [asked(who, run, asker=step) for who in (PERSON, EVENT)]
        found = await self.with_answers(_asked(await self._bus.log.matching_sure(patterns)))
        return [each for each in found if each.answer is None]

    # ---- events ------------------------------------------------------------------------------------

    async def waiting(self, name: str, run: str) -> list[Open]:
        """Return who waits for an event of this name, or did, in their order."""
        entries = await self._bus.log.matching_sure([self._bus.subjects.asked(EVENT, run)])
        return await self.with_answers([each for each in _asked(entries) if each.name == name])

    async def who_gets(self, seq: int, name: str, run: str) -> Open | None:
        """Return the one who waits for just this word; None when nobody does."""
        waiting, _, got = await self._queues(name, run)
        return next((each for each in waiting if got.get(each.child.step) == seq), None)

    async def word_for(self, child: Handoff) -> tuple[Open, int, Say] | None:
        """Return the word that a child which waits for an event gets, with its sequence; None while it is not there."""
        waiting, words, got = await self._queues(asked_name(child.step), child.run)
        found = next((each for each in waiting if each.child.step == child.step), None)
        seq = got.get(child.step, 0)
        return (found, seq, words[seq]) if found is not None and seq in words else None

    async def _queues(self, name: str, run: str) -> tuple[list[Open], dict[int, Say], dict[str, int]]:
        """Return who waits for an event, its words by sequence, and who gets which, all as the log is at one moment."""
        end_seq = await self._bus.log.end()
        waiting = [each for each in await self.waiting(name, run) if each.seq <= end_seq]
        words: dict[int, Say] = {}
        if waiting:
            pattern, start_seq = self._bus.subjects.say(name, run, WHOLE_RUN), min(each.start_seq for each in waiting)
            async for entry in self._bus.log.read([pattern], start_seq, end_seq):
                word = known(entry)  # of a later release: nothing can be said of who gets which
                if isinstance(word, Say) and _is_readable(entry.data):
                    words[entry.seq] = word
        got = words_of(
            ((each.seq, each.child.step) for each in waiting),
            list(words),
            {
                each.child.step: (each.answer_seq, each.answer.say)
                for each in waiting
                if each.answer is not None and each.answer_seq <= end_seq
            },
        )
        return waiting, words, got

    # ---- their answers -----------------------------------------------------------------------------

    async def with_answers(self, asked: list[Open]) -> list[Open]:
        """Return the same with the answers that are there, by the leader's word."""
        sound = [each for each in asked if _is_sound(each)]
        subjects = [self._answer_subject(each) for each in sound]
        answers = {entry.subject: entry for entry in await self._some(subjects)}
        return [_with_answer(each, answers.get(subject)) for each, subject in zip(sound, subjects, strict=True)]

    def _answer_subject(self, each: Open) -> str:
        child = each.child
        return self._bus.subjects.answer(each.cause.actor, child.run, each.cause.step, key_of_child(child.step))

    async def _some(self, subjects: Iterable[str]) -> list[Entry]:
        """Return what stands on these exact subjects, of which there may be thousands."""
        wanted = list(subjects)
        parts = [wanted[start : start + _READ_AT_ONCE] for start in range(0, len(wanted), _READ_AT_ONCE)]
        found: list[Entry] = []
        for part in parts:
            found += await self._bus.log.matching_sure(part)
        return found


def _asked(entries: Iterable[Entry]) -> list[Open]:
    """Return the children that these are the handoffs of; what a stranger put there is none."""
    found: list[Open] = []
    for entry in entries:
        child = known(entry)
        if isinstance(child, Handoff) and isinstance(child.cause, Asked):
            found.append(Open(seq=entry.seq, at=entry.at, child=child, cause=child.cause))
    return found


def _is_sound(each: Open) -> bool:
    """Say whether what names the subject of its answer may stand in one."""
    child = each.child
    tokens = (each.cause.actor, child.run, each.cause.step, key_of_child(child.step), child.flow)
    return all(map(may_stand_in_subject, tokens)) and bool(TOKEN.match(child.flow) and TOKEN.match(child.run))


def _with_answer(each: Open, entry: Entry | None) -> Open:
    found = known(entry)
    if entry is None or not isinstance(found, Answer):  # it may be parked there
        return each
    return replace(each, answer=found, answer_seq=entry.seq, answered_at=entry.at)


def answered(each: Open) -> str:
    """Return that a question was answered before, by whom and when."""
    answer = each.answer
    assert answer is not None
    at = f"{each.answered_at:%Y-%m-%d %H:%M:%S} UTC" if each.answered_at is not None else "before"
    if answer.say:
        return f"answered already by {answer.who or 'somebody'} at {at}"
    if isinstance(answer.outcome, Failed) and answer.outcome.error.type != TIME_IS_UP:
        return f"not to be answered any more since {at}: {answer.outcome.error.message}"
    return f"its time was up at {at}, before this came"


def _is_readable(data: bytes) -> bool:
    try:
        check_json(data, "word")
    except BadContent:
        return False
    return True
