"""Words from outside: what people answer, and events. Anybody may publish one; here it is made the answer that it is.

A word is `{ns}.say.{role}.{run}.{step}`, to the step that asked (or to its very question, by the child's token), or
`{ns}.say.{event}.{run}.-`, of an event that any step of the run may wait for. Whoever takes a word that was taken
before finishes what is not finished, and changes nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from msgspec import Raw, Struct
from msgspec.structs import replace

from baton_bus.store.bus import Bus
from baton_schemas.errors import BadContent, BadMessage
from baton_schemas.flow.questions import BadAnswer, fitted
from baton_schemas.run.asking import TIME_IS_UP, WITHDRAWN, answer_to
from baton_schemas.run.refs import asked_name, key_of_child
from baton_schemas.run.state import Entry, known
from baton_schemas.run.words import words_of
from baton_schemas.wire.codec import decode_say
from baton_schemas.wire.messages import Answer, Asked, Handoff, Parked, Question, Result, Say
from baton_schemas.wire.names import EVENT, PERSON, TOKEN, WHOLE_RUN
from baton_schemas.wire.outcomes import NULL, Blob, Done, Error, Failed
from baton_schemas.wire.values import check_json, clean_text

from .asking import Asking
from .values import Values

WHO_MAX, NOTE_MAX = 200, 4_000
"""Characters of who answered, and of their note, that are kept."""
_READ_AT_ONCE = 400
"""Subjects of answers that are read with one request: a server gives 1,024 at most."""
_NAMED_MAX = 5


class WordRefused(Exception):
    """A word that is no answer to anything, as a sentence that says why."""


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


class Saying:
    """Takes words on one bus, and finds who waits for one."""

    def __init__(self, bus: Bus, values: Values, asking: Asking) -> None:
        self._bus, self._values, self._asking = bus, values, asking

    # ---- what is said ------------------------------------------------------------------------------

    async def take(self, seq: int, subject: str, data: bytes) -> None:
        """Make a word that is stored the answer that it is; an event that nobody waits for stays where it is.

        Raises `WordRefused`, `NewerMessage`, and the errors of the bus.
        """
        _, who, run, rest = self._bus.subjects.split(subject)
        step = rest[0] if rest else ""
        if len(rest) != 1 or not TOKEN.match(run) or not all(map(is_token, (who, step))):
            raise WordRefused("its subject has no valid names of a role, a run and a step")
        try:
            check_json(data, "word")
            say = decode_say(data, subject)
        except BadMessage as error:
            raise WordRefused(error.reason) from error
        except BadContent as error:
            raise WordRefused(str(error)) from error
        if step == WHOLE_RUN:
            await self._take_event(seq, who, run, say)
        else:
            await self._take_answer(seq, who, run, step, say)

    async def _take_answer(self, seq: int, role: str, run: str, step: str, say: Say) -> None:
        """Answer the open question that a word is about. Raises as `take`."""
        asked = await self.questions(run, step)
        to_role = [each for each in asked if each.name == role]
        ours = [each for each in to_role if each.answer is not None and each.answer.say == seq]
        if ours:  # all that may be missing is what follows from it
            assert ours[0].answer is not None
            await self._asking.answer(ours[0].cause.actor, ours[0].answer)
            return
        still = [each for each in to_role if each.answer is None]
        if len(still) != 1:
            raise WordRefused(await self._why_none(role, run, step, asked, to_role, still))
        (found,) = still
        try:
            value = fitted(found.cause.question or Question(text=""), say.answer)
        except BadAnswer as error:
            raise WordRefused(f"it is no answer to what {role} are asked: {error}") from error
        await self._refuse_if_ended(found.child.flow, run)
        stored = await self._answer(found, seq, say, value)
        if stored.say != seq:
            (now,) = await self.with_answers([found])
            raise WordRefused(answered(now))

    async def _take_event(self, seq: int, name: str, run: str, say: Say) -> None:
        """Give an event to whoever waits for it; it is kept for whoever will. Raises as `take`."""
        began = await self._bus.log.last_sure(self._bus.subjects.start(run))
        first = known(began)
        if not isinstance(first, Handoff) or began is None:
            raise WordRefused(f"there is no run {run}, or it had not begun")
        waiting = await self.waiting(name, run)
        if not any(each.answer is not None and each.answer.say == seq for each in waiting):  # else only to finish it
            await self._refuse_if_ended(first.flow, run)
        while True:
            waiting = await self.waiting(name, run)
            if all(each.answer is not None and each.answer.say != seq for each in waiting):
                return
            found = await self._who_gets(seq, name, run)
            if found is None or (await self._answer(found, seq, say, say.answer)).say == seq:
                return
            # It was answered otherwise in between, as its time was up: then the word is for the next.

    async def hear(self, child: Handoff) -> Answer | None:
        """Answer a child that waits for an event, if its word is there already. Raises as `take`."""
        name, run = asked_name(child.step), child.run
        if await self._bus.log.last_sure(self._bus.subjects.say(name, run, WHOLE_RUN)) is None:
            return None
        waiting, words, got = await self._queues(name, run)
        found = next((each for each in waiting if each.child.step == child.step), None)
        word = words.get(got.get(child.step, 0))
        if found is None or word is None:
            return None
        return await self._answer(found, word[0], word[1], word[1].answer)

    async def withdraw(self, run: str, step: str) -> None:
        """Take back what a step that has ended has asked from outside and is open: an event is for the next then.

        A word that comes first is kept, and read by nobody. Raises `NewerMessage`, and the errors of the bus.
        """
        asked = self._bus.subjects.asked
        patterns = [asked(who, run, asker=step) for who in (PERSON, EVENT)]
        for each in await self.with_answers(_asked(await self._bus.log.matching_sure(patterns))):
            if each.answer is None:
                error = Error(step=each.child.step, type=WITHDRAWN, message="its step has ended without it")
                answer = answer_to(each.child, Failed(error=error), each.start_seq)
                await self._asking.answer(each.cause.actor, answer)

    # ---- who is asked ------------------------------------------------------------------------------

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

    # ---- their parts -------------------------------------------------------------------------------

    async def _answer(self, found: Open, seq: int, say: Say, value: Raw) -> Answer:
        stored = await self._values.stored(bytes(value))
        done = Done(
            output=NULL if isinstance(stored, Blob) else stored,
            blob=stored if isinstance(stored, Blob) else None,
        )
        answer = replace(
            answer_to(found.child, done, found.start_seq),
            who=clean_text(say.who, WHO_MAX),
            note=clean_text(say.note, NOTE_MAX),
            say=seq,
        )
        return await self._asking.answer(found.cause.actor, answer)

    async def _refuse_if_ended(self, flow: str, run: str) -> None:
        if not TOKEN.match(flow):
            return
        result = known(await self._bus.log.last_sure(self._bus.subjects.result(flow, run)))
        if isinstance(result, Result):
            raise WordRefused(f"the run has ended: {result.status}")

    async def _why_none(
        self, role: str, run: str, step: str, asked: list[Open], to_role: list[Open], still: list[Open]
    ) -> str:
        """Return why a word is no answer to one question that is open."""
        if len(still) > 1:
            some = ", ".join(each.child.step for each in still[:_NAMED_MAX])
            return f"step {step!r} has {len(still)} open questions to {role}; name one of them in its place: {some}"
        if to_role:
            return answered(to_role[-1])
        if asked:
            return f"{step!r} asks {', '.join(sorted({each.name for each in asked}))}, and not {role}"
        if await self._bus.log.last_sure(self._bus.subjects.start(run)) is None:
            return f"there is no run {run}"
        return f"nothing that {step!r} has asked {role} is there: nobody has asked, or not yet"

    async def waiting(self, name: str, run: str) -> list[Open]:
        """Return who waits for an event of this name, or did, in their order."""
        entries = await self._bus.log.matching_sure([self._bus.subjects.asked(EVENT, run)])
        return await self.with_answers([each for each in _asked(entries) if each.name == name])

    async def _who_gets(self, seq: int, name: str, run: str) -> Open | None:
        """Return the one who waits for just this word; None when nobody does."""
        waiting, _, got = await self._queues(name, run)
        return next((each for each in waiting if got.get(each.child.step) == seq), None)

    async def _queues(self, name: str, run: str) -> tuple[list[Open], dict[int, tuple[int, Say]], dict[str, int]]:
        """Return who waits for an event, its words, and who gets which, all as the log is at one moment."""
        end_seq = await self._bus.log.end()
        waiting = [each for each in await self.waiting(name, run) if each.seq <= end_seq]
        words: dict[int, tuple[int, Say]] = {}
        if waiting:
            pattern, start_seq = self._bus.subjects.say(name, run, WHOLE_RUN), min(each.start_seq for each in waiting)
            async for entry in self._bus.log.read([pattern], start_seq, end_seq):
                word = known(entry)  # of a later release: nothing can be said of who gets which
                if isinstance(word, Say) and _is_readable(entry.data):
                    words[entry.seq] = (entry.seq, word)
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


def is_token(token: str) -> bool:
    """Say whether this may stand in a subject of ours: that of a child is longer than a name may be."""
    return bool(token) and all(TOKEN.match(token[at : at + 64]) for at in range(0, len(token), 64))


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
    return all(map(is_token, tokens)) and bool(TOKEN.match(child.flow) and TOKEN.match(child.run))


def _with_answer(each: Open, entry: Entry | None) -> Open:
    found = known(entry)
    if entry is None or isinstance(found, Parked) or not isinstance(found, Answer):
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
