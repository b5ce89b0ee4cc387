"""What waits for people, and what they say: a client's side. Words are published; a clerk makes answers of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from baton_bus.engine.awaited import Open, answered
from baton_bus.engine.engine import Engine
from baton_bus.errors import AnswerRefused
from baton_schemas.flow.budgets import budget_of
from baton_schemas.flow.questions import BadAnswer, expects, fitted, is_word_name
from baton_schemas.run.refs import parse
from baton_schemas.run.state import known
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import Rejected
from baton_schemas.wire.messages import NO_DEFAULT, Note, Question, Say
from baton_schemas.wire.money import Budget
from baton_schemas.wire.names import EVENT, MORE, PERSON, WHOLE_RUN
from baton_schemas.wire.values import encode_value

WAIT_S = 2.0
"""A clerk that is up has taken a word in some milliseconds; one that is busy, within this."""
_LOOK_S = 0.02
_NAMED_MAX = 5


class Waiting(Struct, frozen=True, kw_only=True):
    """A question that waits for a person."""

    role: str
    run: str
    flow: str
    step: str
    """Who asked: a step of the flow, a branch, or a child."""
    name: str
    """The question's own name, which may stand in place of the step: a step may have asked several."""
    question: Question
    since: datetime
    until: datetime | None = None
    """When it is answered by itself; None for never."""
    default: Raw = NO_DEFAULT
    """The answer then; empty for none."""


def waiting_facts(each: Waiting) -> dict[str, Any]:
    """Return a question as the object that `--json` prints."""
    return {
        "role": each.role,
        "run": each.run,
        "flow": each.flow,
        "step": each.step,
        "name": each.name,
        "question": each.question.text,
        "answers": each.question.answers,
        "expects": expects(each.question),
        "since": each.since,
        "until": each.until,
        "default": each.default if bytes(each.default) else None,
    }


async def inbox(engine: Engine, role: str = "") -> list[Waiting]:
    """Return what waits for people, of a role or any, the one that waits longest first.

    It reads every question that is in the log, answered or not: those of 10,000 runs take about a second. Raises
    `BusUnavailable`, `NoStream`, `NewerMessage`.
    """
    return [_waiting(each) for each in await engine.awaited.open_questions(role)]


async def answer(
    engine: Engine, run: str, step: str, value: Any, *, who: str, note: str, role: str, wait_s: float
) -> bool:
    """Answer the question that is meant; see `Run.answer`."""
    found = await question_of(engine, run, step, role)
    data = Raw(encode_value(value, "answer"))
    try:
        fitted(found.cause.question or Question(text=""), data)
    except BadAnswer as error:
        raise AnswerRefused(run, step, str(error)) from error
    subject = engine.bus.subjects.say(found.name, run, found.child.step)
    seq = await _publish(engine, subject, Say(answer=data, who=who, note=note))
    for _ in _looks(wait_s):
        (now,) = await engine.awaited.with_answers([found])
        if now.answer is not None and now.answer.say == seq:
            return True
        if now.answer is not None:
            raise AnswerRefused(run, step, answered(now))
        if why := await _why_rejected(engine, PERSON, run, seq):
            raise AnswerRefused(run, step, why)
        await asyncio.sleep(_LOOK_S)
    return False


async def question_of(engine: Engine, run: str, step: str, role: str = "") -> Open:
    """Return the open question of a run that is meant by a step, by the question's own name, or by a role.

    Raises `AnswerRefused`, which says which there are.
    """
    asked = [each for each in await engine.awaited.questions(run) if not role or each.name == role]
    meant = [each for each in asked if step in (each.child.step, each.cause.step, _in_any_round(each), each.name)]
    still = [each for each in meant if each.answer is None]
    if len(still) == 1:
        flow = still[0].child.flow
        ended = await engine.ended(flow, run)
        if ended is not None:
            raise AnswerRefused(run, step, f"the run has ended: {ended.status}")
        return still[0]
    if still:
        names = ", ".join(each.child.step for each in still[:_NAMED_MAX])
        raise AnswerRefused(run, step, f"it has {len(still)} open questions; name the one that is meant: {names}")
    if meant:
        raise AnswerRefused(run, step, answered(meant[-1]))
    others = dict.fromkeys(f"{each.cause.step} asks {each.name}" for each in asked if each.answer is None)
    there = f"; open there: {', '.join(list(others)[:_NAMED_MAX])}" if others else ", and no question is open there"
    raise AnswerRefused(run, step, f"it has asked {role or 'nobody'}{' nothing' if role else ''}{there}")


def _in_any_round(asked: Open) -> str:
    """Return the step (or branch) that asked, as people call it that is done again and again."""
    return replace(parse(asked.cause.step), round=0).token


async def say(engine: Engine, run: str, event: str, value: Any, *, who: str, note: str, wait_s: float) -> bool:
    """Tell a run of an event; see `Run.say`."""
    if not is_word_name(event):
        raise AnswerRefused(
            run, event, "it is no name of an event: expected 1 to 64 characters from A-Z, a-z, 0-9, _, -"
        )
    _, first = await engine.runs.first(run)
    ended = await engine.ended(first.flow, run)
    if ended is not None:
        raise AnswerRefused(run, event, f"the run has ended: {ended.status}")
    subject = engine.bus.subjects.say(event, run, WHOLE_RUN)
    word = Say(answer=Raw(encode_value(value, "answer")), who=who, note=note)
    seq = await _publish(engine, subject, word)
    for _ in _looks(wait_s):
        waiting = await engine.awaited.waiting(event, run)
        if any(each.answer is not None and each.answer.say == seq for each in waiting):
            return True
        if why := await _why_rejected(engine, EVENT, run, seq):
            raise AnswerRefused(run, event, why)
        if all(each.answer is not None for each in waiting):
            return False
        await asyncio.sleep(_LOOK_S)
    return False


async def allow(engine: Engine, run: str, budget: Budget | float, *, wait_s: float) -> bool:
    """Allow a run to spend more; see `Run.allow`."""
    _, first = await engine.runs.first(run)
    ended = await engine.ended(first.flow, run)
    if ended is not None:
        raise AnswerRefused(run, MORE, f"the run has ended: {ended.status}")
    word = Say(answer=Raw(msgspec.json.encode(budget_of(budget))))
    seq = await _publish(engine, engine.bus.subjects.more(run), word)
    for _ in _looks(wait_s):
        if not await engine.budgets.waiting(run):
            return True
        if why := await _why_rejected(engine, EVENT, run, seq):
            raise AnswerRefused(run, MORE, why)
        await asyncio.sleep(_LOOK_S)
    return False


async def _publish(engine: Engine, subject: str, word: Say) -> int:
    return await engine.bus.publisher.append(subject, encode(word), patience_s=engine.bus.settings.patience_s)


async def _why_rejected(engine: Engine, who: str, run: str, seq: int) -> str:
    """Return why a word was rejected; empty when it was not, so far."""
    note = known(await engine.bus.log.last_sure(engine.bus.subjects.rejected(who, run, str(seq))))
    return note.fact.reason if isinstance(note, Note) and isinstance(note.fact, Rejected) else ""


def _looks(wait_s: float) -> Iterator[None]:
    """Yield as often as there is time to look once more."""
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        yield


def _waiting(each: Open) -> Waiting:
    cause = each.cause
    return Waiting(
        role=each.name,
        run=each.child.run,
        flow=each.child.flow,
        step=cause.step,
        name=each.child.step,
        question=cause.question or Question(text=""),
        since=each.at,
        until=_time(cause.due_s),
        default=cause.default,
    )


def _time(due_s: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(due_s, UTC) if due_s else None
    except (OverflowError, ValueError, OSError):  # a stranger's
        return None
