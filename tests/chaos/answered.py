"""What must hold of steps that ask: one answer a child, one history whoever tells it, and nothing parked for ever."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .asked import KINDS, Child, with_defaults, words_of
from .called import answer_to
from .demands import Demands
from .following import must_have_answers
from .history import Event
from .raw import Record
from .run_log import parking_of

Slot = tuple[str, str]
"""A run, and the subject of an answer in it."""


def answers_once(
    runs: Mapping[str, Demands], records: list[Record], slack_s: Callable[[float], float]
) -> Iterator[str]:
    """I12: where an answer belongs there is one, behind words that its step was parked, the last of which it wakes.

    `slack_s` says by how much an answer that is stored at a time may seem to come before it is due.
    """
    slots: dict[Slot, list[Record]] = defaultdict(list)
    for record in records:
        if record.kind == "answer" and record.run in runs and record.body is not None:
            slots[record.run, record.subject].append(record)
    for (run, subject), found in slots.items():
        kinds = [(each.body or {})["kind"] for each in found]
        if set(kinds[:-1]) - {"parked"} or kinds[-1] not in ("parked", "answer"):
            yield f"I12 {subject} has {', '.join(kinds)} at {[each.seq for each in found]}"
        for record in found:
            yield from _is_in_its_place(runs[run], record)
        yield from _wakes(runs[run], found)
    for demands in runs.values():
        for child in demands.asking.children.by_token.values():
            yield from _is_asked_rightly(demands, child, slack_s)
        for alike in (each for of in demands.asking.children.of.values() for each in of.values() if len(each) > 1):
            tokens = [child.token for child in alike]
            yield f"I12 step {alike[0].asker} of run {demands.run} asked {alike[0].words[:80]} as {tokens}"
        yield from _is_brought_back_for_a_reason(demands)


def _is_in_its_place(demands: Demands, record: Record) -> Iterator[str]:
    body, (step, key) = record.body or {}, record.rest
    child = demands.asking.children.by_token.get(body["child"])
    if child is None or child.asker != step or body["step"] != step or not child.token.endswith(f"--k{key}"):
        yield f"I12 {record.subject} at {record.seq} is of {body['child']}, which step {step} has not asked for"
    elif record.who != demands.flow.actor(step):
        yield f"I12 {record.subject} at {record.seq} is not on the subject of the actor of {step}"
    elif child.handoff.seq > record.seq:
        yield f"I12 {record.subject} at {record.seq} came before it was asked for"


def _wakes(demands: Demands, found: list[Record]) -> Iterator[str]:
    parked = next((each for each in reversed(found) if (each.body or {})["kind"] == "parked"), None)
    for answer in (each for each in found if (each.body or {})["kind"] == "answer"):
        wakes = (answer.body or {}).get("wakes")
        due = {"parked": parking_of(parked), "seq": (parked.body or {})["seq"]} if parked is not None else None
        said = {"parked": wakes["parked"], "seq": wakes["seq"]} if wakes else None
        if due != said:
            yield f"I12 {answer.subject} at {answer.seq} wakes {said}, and what is parked there is {due}"
        elif parked is not None and demands.log.result is None and demands.log.woken(parked) is None:
            yield f"I12 {answer.subject} at {answer.seq} wakes a step, and no handoff brings it back"
    is_open = (found[-1].body or {})["kind"] == "parked"
    if parked is not None and is_open and demands.is_done and must_have_answers(demands, parked.rest[0]):
        yield f"I12 {parked.subject} at {parked.seq} is parked for ever: its run is done"


def _is_asked_rightly(demands: Demands, child: Child, slack_s: Callable[[float], float]) -> Iterator[str]:
    what = f"I12 step {child.token} of run {demands.run}"
    kind = KINDS.get(child.kind)
    if kind is None:
        yield f"{what} asks for {child.kind}, and the flow has no such thing"
        return
    due = kind.who or demands.flow.actor(child.token)
    if child.handoff.who != due + (demands.flow.actor(child.asker) if kind.is_of_asker else ""):
        yield f"{what} was handed to {child.handoff.who}"
    answer = demands.log.answers.get(child.token)
    is_early = answer is not None and child.due_s and answer.at_s < child.due_s - slack_s(answer.at_s)
    if is_early and (child.kind == "sleep" or demands.asking.is_late(child.token)):
        yield f"{what} was answered by itself before it was due"


def _is_brought_back_for_a_reason(demands: Demands) -> Iterator[str]:
    marks: dict[int, list[Record]] = defaultdict(list)
    for of in demands.log.parked.values():
        for record in of:
            marks[parking_of(record)].append(record)
    for (step, source), woken in demands.log.handoffs.items():
        if not source.startswith("wake-s"):
            continue
        parking = int(source.removeprefix("wake-s"))
        first = next((each for each in marks[parking] if each.seq == parking), None)
        if first is None or first.rest[0] != step or not has_a_reason(demands, step, marks[parking], woken):
            yield f"I12 {woken.subject} at {woken.seq} wakes a step that no answer has woken"
        elif (woken.body or {})["cause"]["seq"] != (first.body or {})["seq"]:
            yield f"I12 {woken.subject} at {woken.seq} wakes another handoff than the one that was parked"


def has_a_reason(demands: Demands, step: str, marks: list[Record], woken: Record) -> bool:
    """Say whether an answer woke a step, or something came while it was being parked: then its worker does.

    That is a child that was asked, or a mark of another worker, after the mark before, or an answer with no mark before
    it since the step was last handed off. Where it could put none, another's may be older than its first: it had read
    all places before that, though not before what it put that one in the place of.
    """
    answers = [demands.log.answers.get((mark.body or {})["child"]) for mark in marks]
    if any(answer is not None and answer.seq < woken.seq for answer in answers):
        return True
    asked = demands.asking.children.of[step].values()
    if any(marks[0].seq < child.handoff.seq < woken.seq for alike in asked for child in alike):
        return True
    others = [each for each in demands.log.parked[step] if parking_of(each) != parking_of(marks[0])]
    if any(marks[0].seq < each.seq < woken.seq for each in others):
        return True
    before = [r.seq for (name, _), r in demands.log.handoffs.items() if name == step and r.seq < marks[0].seq]
    read_after = max(
        (r.seq for r in demands.log.parked[step] if _replaces(marks[0], r)), default=max(before, default=0)
    )
    places = {mark.rest for mark in marks}
    if any(read_after < each.seq < marks[0].seq and each.rest not in places for each in others):
        return True
    came = [answer for answer in demands.log.answers.values() if answer.rest[0] == step]
    return any(max(before, default=0) < answer.seq < woken.seq for answer in came)


def _replaces(mark: Record, other: Record) -> bool:
    return other.rest == mark.rest and other.seq < mark.seq


# ---- what handlers saw ---------------------------------------------------------------------------


def sees_one_history(runs: Mapping[str, Demands], history: list[Event]) -> Iterator[str]:
    """I13: whoever does a step, and however often, it is given the same for the same, and that is in the log."""
    seen: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for event in history:
        if event["what"] != "step.saw":
            continue
        demands, step = runs[event["run"]], event["step"]
        kind, name, asked, number = json.loads(event["words"])
        if kind == "agent":
            asked = with_defaults(demands.flow, name, asked)
        words, what = words_of(kind, name, asked, number), f"I13 step {step} of run {demands.run}"
        before = seen[event["run"], step].setdefault(words, event["value"])
        if before != event["value"]:
            yield f"{what} saw {_short(before)} and then {_short(event['value'])} for {words[:80]}"
        if kind == "sleep":
            continue
        stored = list(_stored(demands, step, kind, name, words, number))
        if event["value"] not in stored:
            yield f"{what} saw {_short(event['value'])} for {words[:80]}, the log has {_short(stored)}"
        asks = demands.asking.asks(step)
        if asks.is_complete and words not in asks.words:
            yield f"{what} asked {words[:80]}, which is not what it has to ask"


def _stored(demands: Demands, step: str, kind: str, name: str, words: str, number: int) -> Iterator[Any]:
    """Yield what the log has of this: once, when all is well."""
    if kind == "call":
        asked = json.loads(words)[2]
        yield from filter(None, [answer_to(demands.log.notes[step], demands.value, asked, number)])
        return
    if kind == "record":
        for note in demands.log.notes[step]:
            fact = note["fact"]
            if fact["type"] == "recorded" and (fact["name"], fact.get("number", 1)) == (name, number):
                yield demands.value({"output": fact.get("value"), "blob": fact.get("blob")})
        return
    for child in demands.asking.children.of[step].get(words, []):
        if (answer := demands.log.answers.get(child.token)) is not None:
            outcome = (answer.body or {})["outcome"]
            failed = outcome["status"] == "failed"
            yield {"failed": outcome["error"]["type"]} if failed else demands.value(outcome)


def _short(value: Any) -> str:
    return json.dumps(value)[:120]


# ---- places --------------------------------------------------------------------------------------


def runs_no_more_than_it_may(runs: Mapping[str, Demands], history: list[Event]) -> Iterator[str]:
    """I15: of one agent no more handlers run in a process than its `concurrency`; those that wait do not count."""
    running: dict[tuple[int, str, str], set[str]] = defaultdict(set)
    ended: set[str] = set()
    told: Counter[tuple[int, str, str]] = Counter()
    for event in history:
        what = event["what"]
        if what not in ("step.began", "step.waits", "step.goes_on", "step.ended") or event["run"] not in runs:
            continue
        flow, attempt = runs[event["run"]].flow, event["attempt"]
        agent = flow.agent(event["step"])
        limit = flow.agents[agent].get("concurrency")
        place = (event["pid"], flow.name, agent)
        if limit is None or attempt in ended:
            continue
        if what in ("step.began", "step.goes_on"):
            running[place].add(attempt)
        else:
            running[place].discard(attempt)
        if what == "step.ended":
            ended.add(attempt)
        if len(running[place]) > limit:
            told[place] += 1
            if told[place] == 1:
                yield f"I15 {len(running[place])} handlers of {agent} run at once in process {place[0]}, of {limit}"
