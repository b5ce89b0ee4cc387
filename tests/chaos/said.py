"""I17: what must hold of what people say and of events: a word is an answer, or refused; and nobody waits in a worker.

It follows `schemas/docs/flow-files.md`, `actors/docs/handlers.md` and `deploy/docs/any-language.md`.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .asked import TIME_IS_UP, WITHDRAWN, Child
from .away import Away
from .demands import Demands
from .following import kept_of
from .history import Event
from .raw import Record

_ANY_STEP = "-"
"""In the place of a step, in the subject of an event."""
MORE = "-budget"
"""To whom one says that a run may spend more."""
HELD_S = 2.0
"""How long a worker may take to let go of a step that waits for people, and for nothing else. It has the server write
that down: where another process waits as long for its turn, the server may, too."""


class Words:
    """All that was said to one run, and what came of it."""

    def __init__(self, demands: Demands, words: list[Record], refused: Mapping[int, Record]) -> None:
        """`refused` has the notes that words were refused, by the sequence of the word."""
        self._run, self._words, self._refused = demands, words, refused
        self._answers: dict[int, list[Record]] = defaultdict(list)
        for answer in demands.log.answers.values():
            if (seq := (answer.body or {}).get("say")) is not None:
                self._answers[seq].append(answer)
        self._waiting = [c for c in demands.asking.children.by_token.values() if c.kind in ("person", "event")]

    def violations(self, slack_s: Callable[[float], float]) -> Iterator[str]:
        by_seq = {word.seq: word for word in self._words}
        for seq, answers in self._answers.items():
            if len(answers) > 1:
                yield f"I17 the word at {seq} is the answer of {[each.subject for each in answers]}"
            if seq not in by_seq:
                yield f"I17 {answers[0].subject} at {answers[0].seq} is made of the word at {seq}, which nobody said"
        for word in self._words:
            yield from self._word(word)
        for child in self._waiting:
            yield from self._answer(child, by_seq, slack_s)
        for name in {child.name for child in self._waiting if child.kind == "event"}:
            yield from self._queue(name)

    def _word(self, word: Record) -> Iterator[str]:
        """A word to a person's question is an answer or refused; an event is kept, too."""
        answers, refused = self._answers.get(word.seq, []), self._refused.get(word.seq)
        what = f"I17 the word on {word.subject} at {word.seq}"
        if answers and refused is not None:
            yield f"{what} was taken and refused"
        elif refused is not None and (why := self._is_good(word, refused)):
            yield f"{what} was refused, and {why}"
        elif not answers and refused is None and word.rest[-1:] != (_ANY_STEP,):
            yield f"{what} has come to nothing, and nobody was told"

    def _is_good(self, word: Record, refused: Record) -> str:
        """Return why a word that was refused should have been taken; empty when that was right."""
        result = self._run.log.result
        if word.body is None or (result is not None and result.seq < refused.seq):
            return ""
        if word.who == MORE and not _allows(word.body.get("answer")):
            return ""
        if word.rest == (_ANY_STEP,):
            begun = self._run.log.start is not None and self._run.log.start.seq < word.seq
            return "its run was under way" if begun else ""
        named = [each for each in self._meant(word) if each.handoff.seq < refused.seq]
        still = [each for each in named if not self._is_answered(each, refused.seq)]
        sure = [each for each in named if each.handoff.seq < word.seq]
        if len(still) == len(named) == len(sure) == 1 and _fits(still[0], word.body.get("answer")):
            return f"{still[0].token} was open"
        return ""

    def _meant(self, word: Record) -> list[Child]:
        """Return the questions that a word may be about."""
        (step,) = word.rest
        return [each for each in self._waiting if each.name == word.who and step in (each.token, each.asker)]

    def _is_answered(self, child: Child, by_seq: float) -> bool:
        answer = self._run.log.answers.get(child.token)
        return answer is not None and answer.seq < by_seq

    def _answer(self, child: Child, words: Mapping[int, Record], slack_s: Callable[[float], float]) -> Iterator[str]:
        """An answer is what somebody said; or what holds when nobody did in time; or there is nobody left to tell."""
        answer = self._run.log.answers.get(child.token)
        if answer is None:
            return
        body, what = answer.body or {}, f"I17 {answer.subject} at {answer.seq}"
        if body.get("say") is not None:
            if (word := words.get(body["say"])) is not None:
                yield from self._is_of(what, child, answer, word)
            return
        error = body["outcome"].get("error", {}).get("type")
        if error == WITHDRAWN:
            kept = kept_of(self._run, child.asker)
            if kept is None or kept.record.seq > answer.seq:
                yield f"{what} takes back {child.token}, and {child.asker} had not ended"
        elif not child.due_s:
            yield f"{what} is of nobody, and {child.token} has no deadline"
        elif answer.at_s < child.due_s - slack_s(answer.at_s):
            yield f"{what} came by itself, {child.due_s - answer.at_s:.2f} s before its time"
        elif error not in (None, TIME_IS_UP):
            yield f"{what} came by itself, as {error}"

    def _is_of(self, what: str, child: Child, answer: Record, word: Record) -> Iterator[str]:
        body, said = answer.body or {}, word.body or {}
        if word.seq > answer.seq:
            yield f"{what} came before the word that it is made of"
        if word.who != child.name or word.rest not in ((child.token,), (child.asker,), (_ANY_STEP,)):
            yield f"{what} is made of a word to another: {word.subject}"
        if (word.rest == (_ANY_STEP,)) != (child.kind == "event"):
            yield f"{what} is made of a word of another kind: {word.subject}"
        if child.kind == "person" and not _fits(child, said.get("answer")):
            yield f"{what} is made of a word that is no answer to {child.token}"
        if body["outcome"]["status"] != "done" or self._run.value(body["outcome"]) != said.get("answer"):
            yield f"{what} is not what was said at {word.seq}"
        for field in ("who", "note"):
            if body.get(field, "") != said.get(field, ""):
                yield f"{what} has {field} {body.get(field)!r}, and said was {said.get(field)!r}"

    def _queue(self, name: str) -> Iterator[str]:
        """The first word goes to the first who waits. Where somebody's time is up the order may be another."""
        waiting = [each for each in self._waiting if (each.kind, each.name) == ("event", name)]
        answers = [self._run.log.answers.get(each.token) for each in sorted(waiting, key=lambda each: each.handoff.seq)]
        if any(each is not None and (each.body or {}).get("say") is None for each in answers):
            return
        got = [(each.body or {})["say"] for each in answers if each is not None]
        words = [word.seq for word in self._words if (word.who, word.rest) == (name, (_ANY_STEP,))]
        words = [seq for seq in words if seq not in self._refused]
        if self._run.is_done and got != words[: len(got)]:
            yield f"I17 who waited for {name} in run {self._run.run} got the words {got}, of {words}"


def words_are_taken(
    runs: Mapping[str, Demands], records: list[Record], history: list[Event], slack_s: Callable[[float], float]
) -> Iterator[str]:
    """I17: each word is the answer to one question, or refused and noted; and each answer is a word, or due.

    `slack_s` says by how much an answer that is stored at a time may seem to come before it is due.
    """
    words: dict[str, list[Record]] = defaultdict(list)
    refused: dict[int, Record] = {}
    for record in records:
        if record.kind == "say":
            words[record.run].append(record)
        elif record.kind == "note" and record.who in ("-person", "-event") and record.body:
            fact = record.body["fact"]
            if fact["type"] == "rejected":
                refused.setdefault(fact["seq"], record)
    for run, demands in runs.items():
        yield from Words(demands, words[run], refused).violations(slack_s)
    for event in history:
        if event["what"] == "word.wrong" and event["seq"] not in refused:
            yield f"I17 what was said at {event['seq']} to run {event['run']} is wrong, and nobody was told"


def _allows(answer: Any) -> bool:
    """Say whether this allows a run to spend more."""
    return isinstance(answer, dict) and any(answer.get(unit, 0) > 0 for unit in ("usd", "tokens"))


def _fits(child: Child, answer: Any) -> bool:
    """Say whether this answers a question: in the chaos flows a choice, a score, whether a tool ran, or anything."""
    asked = json.loads(child.words)[2]
    if asked["answers"]:
        return answer in asked["answers"]
    if "ran" in asked["fields"]:
        return isinstance(answer, dict) and type(answer.get("ran")) is bool
    if asked["fields"]:
        return isinstance(answer, dict) and type(answer.get("score")) is int
    return answer is not None


# ---- who holds what ------------------------------------------------------------------------------


def nobody_holds_who_waits_for_people(runs: Mapping[str, Demands], history: list[Event], away: Away) -> Iterator[str]:
    """I17: a step that waits for people, and for nothing else, runs in no worker."""
    ends = {event["attempt"]: event["at"] for event in history if event["what"] == "step.ended"}
    for event in history:
        if event["what"] != "step.began" or event["run"] not in runs:
            continue
        demands, step, pid = runs[event["run"]], event["step"], event["pid"]
        end_s = ends.get(event["attempt"], away.died_at.get(pid, math.inf))
        of = [each for alike in demands.asking.children.of[step].values() for each in alike]
        others = [_open_from_to(demands, each) for each in of if each.kind != "person"]
        for child in (each for each in of if each.kind == "person"):
            asked_s, answered_s = _open_from_to(demands, child)
            from_s, to_s = max(asked_s, event["at"]), min(answered_s, end_s)
            from_s = max([from_s, *(end for begin, end in others if begin <= to_s and end < to_s)])
            is_busy = any(begin <= to_s and end >= to_s for begin, end in others)
            is_excused = away.was_hit(pid, from_s - HELD_S, to_s) or away.was_busy(from_s - HELD_S, to_s, HELD_S)
            if to_s - from_s > HELD_S and not is_busy and not is_excused:
                held = f"was held {to_s - from_s:.2f} s while it waited for {child.token}"
                yield f"I17 step {step} of run {demands.run} {held}"


def _open_from_to(demands: Demands, child: Child) -> tuple[float, float]:
    ends = (demands.log.answers.get(child.token), demands.log.result)
    return child.handoff.at_s, min((each.at_s for each in ends if each is not None), default=math.inf)
