"""Words from outside: what people answer, and events. Anybody may publish one; here it is made the answer that it is.

A word is `{ns}.say.{role}.{run}.{step}`, to the step that asked (or to its very question, by the child's token), or
`{ns}.say.{event}.{run}.-`, of an event that any step of the run may wait for, or `{ns}.say.-budget.{run}.-`, which
allows the run to spend more. Whoever takes a word that was taken
before finishes what is not finished, and changes nothing else.
"""

from __future__ import annotations

from msgspec import Raw
from msgspec.structs import replace

from baton_bus.store.bus import Bus
from baton_schemas.errors import BadContent, BadMessage
from baton_schemas.flow.questions import BadAnswer, fitted
from baton_schemas.run.asking import WITHDRAWN, answer_to
from baton_schemas.run.refs import asked_name
from baton_schemas.run.state import known
from baton_schemas.wire.codec import decode_say
from baton_schemas.wire.messages import Answer, Handoff, Question, Result, Say
from baton_schemas.wire.names import MORE, TOKEN, WHOLE_RUN, may_stand_in_subject
from baton_schemas.wire.outcomes import NULL, Blob, Done, Error, Failed
from baton_schemas.wire.values import check_json, clean_text

from .asking import Asking
from .awaited import AwaitedWords, Open, answered
from .budgets import Budgets
from .values import Values

WHO_MAX, NOTE_MAX = 200, 4_000
"""Characters of who answered, and of their note, that are kept."""
_NAMED_MAX = 5


class WordRefused(Exception):
    """A word that is no answer to anything, as a sentence that says why."""


class Saying:
    """Takes words on one bus. Who waits for them is in `awaited.py`."""

    def __init__(self, bus: Bus, values: Values, asking: Asking, awaited: AwaitedWords, budgets: Budgets) -> None:
        self._bus, self._values, self._asking, self._awaited = bus, values, asking, awaited
        self._budgets = budgets

    async def take(self, seq: int, subject: str, data: bytes) -> None:
        """Make a word that is stored the answer that it is; an event that nobody waits for stays where it is.

        Raises `WordRefused`, `NewerMessage`, and the errors of the bus.
        """
        _, who, run, rest = self._bus.subjects.split(subject)
        step = rest[0] if rest else ""
        if len(rest) != 1 or not TOKEN.match(run) or not all(map(may_stand_in_subject, (who, step))):
            raise WordRefused("its subject has no valid names of a role, a run and a step")
        try:
            check_json(data, "word")
            say = decode_say(data, subject)
        except BadMessage as error:
            raise WordRefused(error.reason) from error
        except BadContent as error:
            raise WordRefused(str(error)) from error
        if who == MORE:
            await self._take_more(run, step, data)
        elif step == WHOLE_RUN:
            await self._take_event(seq, who, run, say)
        else:
            await self._take_answer(seq, who, run, step, say)

    async def _take_more(self, run: str, step: str, data: bytes) -> None:
        """Bring back what waits for more to spend. Raises as `take`."""
        first = known(await self._bus.log.last_sure(self._bus.subjects.start(run)))
        if step != WHOLE_RUN or not isinstance(first, Handoff):
            raise WordRefused(f"there is no run {run}, or it had not begun")
        await self._refuse_if_ended(first.flow, run)
        try:
            await self._budgets.allow(run, data)
        except BadContent as error:
            raise WordRefused(str(error)) from error

    async def _take_answer(self, seq: int, role: str, run: str, step: str, say: Say) -> None:
        """Answer the open question that a word is about. Raises as `take`."""
        asked = await self._awaited.questions(run, step)
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
            (now,) = await self._awaited.with_answers([found])
            raise WordRefused(answered(now))

    async def _take_event(self, seq: int, name: str, run: str, say: Say) -> None:
        """Give an event to whoever waits for it; it is kept for whoever will. Raises as `take`."""
        began = await self._bus.log.last_sure(self._bus.subjects.start(run))
        first = known(began)
        # A word that is there before its run is nobody's, also when the run is there by now: nobody who waits reads it.
        if not isinstance(first, Handoff) or began is None or seq < (first.start_seq or began.seq):
            raise WordRefused(f"there is no run {run}, or it had not begun")
        waiting = await self._awaited.waiting(name, run)
        if not any(each.answer is not None and each.answer.say == seq for each in waiting):  # else only to finish it
            await self._refuse_if_ended(first.flow, run)
        while True:
            waiting = await self._awaited.waiting(name, run)
            if all(each.answer is not None and each.answer.say != seq for each in waiting):
                return
            found = await self._awaited.who_gets(seq, name, run)
            if found is None or (await self._answer(found, seq, say, say.answer)).say == seq:
                return
            # It was answered otherwise in between, as its time was up: then the word is for the next.

    async def hear(self, child: Handoff) -> Answer | None:
        """Answer a child that waits for an event, if its word is there already. Raises as `take`."""
        name, run = asked_name(child.step), child.run
        if await self._bus.log.last_sure(self._bus.subjects.say(name, run, WHOLE_RUN)) is None:
            return None
        its = await self._awaited.word_for(child)
        if its is None:
            return None
        found, seq, say = its
        return await self._answer(found, seq, say, say.answer)

    async def withdraw(self, run: str, step: str) -> None:
        """Take back what a step that has ended has asked from outside and is open: an event is for the next then.

        A word that comes first is kept, and read by nobody. Raises `NewerMessage`, and the errors of the bus.
        """
        for each in await self._awaited.open_of(run, step):
            error = Error(step=each.child.step, type=WITHDRAWN, message="its step has ended without it")
            answer = answer_to(each.child, Failed(error=error), each.start_seq)
            await self._asking.answer(each.cause.actor, answer)

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
