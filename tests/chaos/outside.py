"""People and the world outside, of a chaos run: they see what is asked in the log, and answer on a bare socket.

What each says, when, and how often follows from the question: once or twice, the same or something else, something
wrong first, as soon as who asked is parked or before that, or never where there is a deadline. They know nothing of
Baton but the subjects and the JSON of its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from . import bare
from .history import History

_AGAIN_S = 0.2
_LOOK_S = 0.5
"""What was missed while the connection was broken is looked for as often."""
_PATIENCE_S = 2.0
"""Who is asked, and sees no answer in the log, says something again."""
_PARKED_S = 2.0
"""So long somebody waits for who asks to be parked."""
_LARGE = "x" * 6_000
"""More than the inline limit of the chaos runs, so it becomes a blob."""
_ROLES = ("editors", "readers", "board", "crowd", "tellers")
NEVER = "never"
"""The event that does not come."""

_BUDGET = 200
"""In tokens: that of `flows/park.toml`."""

Child = tuple[str, str]
"""A run, and the token of what a step of it asked for."""


class Question(NamedTuple):
    """What is asked of somebody, or waited for."""

    run: str
    child: str
    asker: str
    who: str
    """A role, or an event."""
    is_event: bool
    has_deadline: bool
    answers: list[str]
    """What may be answered; without them a score, where that is asked for, or anything."""
    is_scored: bool
    is_of_tool: bool = False
    """Whether a tool ran, that may have."""


class Outside:
    """Everybody who is no worker: in one namespace."""

    def __init__(self, namespace: str, port: Callable[[], int], history: History) -> None:
        """`port` is where a server is reached."""
        self._space, self._port, self._history = namespace, port, history
        self._seen: set[Child | str] = set()
        self._open: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        """By run, who asked and role: what has no answer."""
        self._parked: dict[Child, asyncio.Event] = defaultdict(asyncio.Event)
        self._answered: dict[Child, asyncio.Event] = defaultdict(asyncio.Event)
        self._ended: set[str] = set()
        self._allowed: Counter[str] = Counter()
        """What runs may spend more than their flow says, in tokens."""
        self._group: asyncio.TaskGroup

    @contextlib.asynccontextmanager
    async def playing(self) -> AsyncIterator[None]:
        """Answer while the context is open."""
        playing = asyncio.create_task(self._play())
        try:
            yield
        finally:
            playing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await playing

    async def _play(self) -> None:
        async with asyncio.TaskGroup() as self._group:
            self._group.create_task(self._listen())
            for pattern in self._patterns:
                self._group.create_task(self._look(pattern))

    @property
    def _patterns(self) -> list[str]:
        kinds = (
            "note.park--researcher",
            "note.park--talker",
            "handoff.-person",
            "handoff.-event",
            "handoff.*.*.*.start",
            "answer",
            "result",
        )
        return [f"{self._space}.{kind}{'' if kind.endswith('start') else '.>'}" for kind in kinds]

    # ---- what is seen ----------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Hear what is published, stored or not: who answers what is not there is told so."""
        while True:
            async for subject, data in bare.hear(self._port(), [pattern.encode() for pattern in self._patterns]):
                self._see(subject, data)
            await asyncio.sleep(_AGAIN_S)

    async def _look(self, pattern: str) -> None:
        """Read what is stored, for what was not heard."""
        seq, subject = 1, f"$JS.API.STREAM.MSG.GET.{self._space}".encode()
        while True:
            query = json.dumps({"seq": seq, "next_by_subj": pattern}).encode()
            found = await bare.publish(self._port(), subject, query)
            if found is None:
                await asyncio.sleep(_LOOK_S)
                continue
            message = found["message"]
            seq = message["seq"] + 1
            self._see(message["subject"], bare.decoded(message.get("data", "")))

    def _see(self, subject: str, data: bytes) -> None:
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return
        _, kind, who, run, *rest = subject.split(".")
        if kind == "result":
            self._ended.add(run)
        elif kind == "note":
            self._see_note(run, rest[-1], body)
        elif kind == "answer":
            self._see_answer(run, body)
        elif who in ("-person", "-event"):
            self._see_question(run, body)
        elif rest[-1:] == ["start"] and who.startswith("people--") and run not in self._seen:
            self._seen.add(run)
            self._group.create_task(self._say_early(run))

    def _see_answer(self, run: str, body: dict[str, Any]) -> None:
        if (body.get("kind"), "child" in body) == ("parked", True):
            self._parked[run, body["child"]].set()
        elif body.get("kind") == "answer" and "child" in body:
            self._answered[run, body["child"]].set()
            for still in self._open.values():
                still.discard(body["child"])

    def _see_note(self, run: str, key: str, body: dict[str, Any]) -> None:
        fact = body.get("fact", {})
        if (fact.get("type"), fact.get("what")) == ("waits", "budget") and (
            run,
            f"{body['step']} {key}",
        ) not in self._seen:
            self._seen.add((run, f"{body['step']} {key}"))
            self._group.create_task(self._allow(run, f"{body['step']} {key}"))

    def _see_question(self, run: str, body: dict[str, Any]) -> None:
        child, cause = body["step"], body["cause"]
        if (run, child) in self._seen:
            return
        self._seen.add((run, child))
        asked = cause.get("question", {})
        question = Question(
            run=run,
            child=child,
            asker=cause["step"],
            who=child.partition("--k")[0],
            is_event=cause["kind"] == "event",
            has_deadline=bool(cause.get("due_s")),
            answers=asked.get("answers", []),
            is_scored="output" in asked,
            is_of_tool="ran" in asked.get("output", {}),
        )
        self._open[run, question.asker, question.who].add(child)
        self._group.create_task(self._event(question) if question.is_event else self._person(question))

    # ---- what is said ----------------------------------------------------------------------------

    async def _say_early(self, run: str) -> None:
        """Tell a run of events for which nobody waits yet, or ever."""
        dice = random.Random(f"early/{run}")
        for number in range(dice.choice((0, 0, 1, 2))):
            await self._say("paid", run, "-", {"answer": {"early": number}})

    async def _allow(self, run: str, waiting: str) -> None:
        """Allow a run to spend more, once for each time that a step of it waits: at first not enough for all."""
        dice = random.Random(f"{run}/{waiting}")
        if not self._allowed[run]:
            await self._say_wrong("-budget", run, "-", {"answer": {"eur": 5}})
        await asyncio.sleep(dice.choice((0.0, 0.02, 0.3)))
        self._allowed[run] += dice.choice((40, 150, 1_000))
        await self._say("-budget", run, "-", {"answer": {"tokens": _BUDGET + self._allowed[run]}})

    async def _event(self, question: Question) -> None:
        dice = random.Random(f"{question.run}/{question.child}")
        if question.who == NEVER or (question.has_deadline and dice.random() < 0.4):
            return
        await self._take_a_while(question, dice)
        number = 0
        while not self._is_over(question):
            word = {"answer": {question.who: dice.randrange(1_000), "number": number}, "who": "the world"}
            await self._say(question.who, question.run, "-", word)
            number += 1
            await self._patiently(question)

    async def _person(self, question: Question) -> None:
        dice = random.Random(f"{question.run}/{question.child}")
        if dice.random() < 0.4:
            await self._say_something_wrong(question, dice)
        if question.has_deadline and dice.random() < 0.4:
            return
        await self._take_a_while(question, dice)
        by_name = len(self._open[question.run, question.asker, question.who]) > 1 or dice.random() < 0.5
        words = [self._word(question, dice)]
        match dice.randrange(4):
            case 0:
                words *= 2
            case 1:
                words.append(self._word(question, dice))
        if dice.random() < 0.5:
            await asyncio.gather(*(self._answer(question, word, by_name=by_name) for word in words))
        else:
            for word in words:
                await self._answer(question, word, by_name=by_name)
        await self._patiently(question)
        while not self._is_over(question):  # it was not understood, or is lost: what is lost the checker finds
            await self._answer(question, words[0], by_name=True)
            await self._patiently(question)

    async def _take_a_while(self, question: Question, dice: random.Random) -> None:
        match dice.randrange(4):
            case 0:  # at once: most likely before who asks is parked
                pass
            case 1:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._parked[question.run, question.child].wait(), _PARKED_S)
            case 2:
                await asyncio.sleep(dice.uniform(0, 0.05))
            case _:
                await asyncio.sleep(dice.uniform(0.2, 0.9))

    async def _patiently(self, question: Question) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered[question.run, question.child].wait(), _PATIENCE_S)

    def _is_over(self, question: Question) -> bool:
        return question.run in self._ended or self._answered[question.run, question.child].is_set()

    def _word(self, question: Question, dice: random.Random) -> dict[str, Any]:
        """Return something that answers the question."""
        answer: Any = {"said": dice.randrange(1_000), "more": _LARGE if dice.random() < 0.15 else ""}
        if question.answers:
            answer = dice.choice(question.answers[:2])
        elif question.is_of_tool:
            answer = {"ran": dice.random() < 0.6}
            if answer["ran"] and dice.random() < 0.7:
                answer["result"] = f"as said: {dice.randrange(1_000)}"
        elif question.is_scored:
            answer = {"score": dice.randrange(10)} | ({"why": "it is so"} if dice.random() < 0.3 else {})
        word: dict[str, Any] = {"answer": answer}
        if dice.random() < 0.5:
            word |= {"who": dice.choice(("ann", "bob")), "note": "as ever"}
        return word

    async def _say_something_wrong(self, question: Question, dice: random.Random) -> None:
        run, step, right = question.run, dice.choice((question.asker, question.child)), self._word(question, dice)
        match dice.randrange(4):
            case 0 if question.is_of_tool:
                await self._say_wrong(question.who, run, step, {"answer": {"ran": "perhaps"}})
            case 0:
                wrong: Any = {"answer": {"score": "much"} if question.is_scored else "perhaps"}
                if not (question.answers or question.is_scored):
                    wrong = {"answer": None}
                await self._say_wrong(question.who, run, step, wrong)
            case 1:
                other = next(role for role in _ROLES if role != question.who)
                await self._say_wrong(other, run, question.child, right)
            case 2:
                await self._say_wrong(question.who, run, "nowhere", right)
            case _:
                await self._say_wrong(question.who, run, step, b"no json")

    async def _answer(self, question: Question, word: dict[str, Any], *, by_name: bool) -> None:
        await self._say(question.who, question.run, question.child if by_name else question.asker, word)

    async def _say_wrong(self, who: str, run: str, step: str, word: Any) -> None:
        seq = await self._say(who, run, step, word)
        self._history.say("word.wrong", run=run, seq=seq)

    async def _say(self, who: str, run: str, step: str, word: Any) -> int:
        """Say it until it is stored; return where."""
        subject = f"{self._space}.say.{who}.{run}.{step}".encode()
        data = word if isinstance(word, bytes) else json.dumps(word).encode()
        while True:
            if (ack := await bare.publish(self._port(), subject, data)) is not None:
                return int(ack["seq"])
            await asyncio.sleep(_AGAIN_S)
