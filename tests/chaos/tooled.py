"""I19 and I20: what must hold of agents whose models call tools.

It follows `schemas/docs/models.md` (tools, tools in doubt), `actors/docs/handlers.md` and decision 0015. How often
a tool ran, the tool says itself, before it does anything; what its model was told, the model says.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from .asked import asked_text
from .attempts import CLOCK_S, Attempts, Step
from .demands import Demands
from .following import kept_of
from .history import Event
from .plans import ONCE, behaviour
from .raw import Record
from .talking import digest
from .talks import Place, Result, Talk
from .tools_twins import IN_DOUBT


class _Times:
    """When facts were in the log first: by run, step, and the end of their subject."""

    def __init__(self, records: list[Record]) -> None:
        self._at: dict[tuple[str, str, str], float] = {}
        for record in records:
            if record.kind == "note" and len(record.rest) == 2:
                self._at.setdefault((record.run, *record.rest), record.at_s)

    def of_answer(self, step: Step, sha256: str) -> float | None:
        return self._at.get((*step, f"model-{sha256[:32]}"))

    def of_result(self, step: Step, place: Place) -> float | None:
        return self._at.get((*step, f"tool-{place[0][:32]}-{place[1]}"))

    def of_beginning(self, step: Step, place: Place, number: int) -> float | None:
        return self._at.get((*step, f"tool-begun-{place[0][:32]}-{place[1]}-{number}"))


def tools_run_once(
    runs: Mapping[str, Demands], records: list[Record], history: list[Event], attempts: Attempts
) -> Iterator[str]:
    """Yield what does not hold."""
    times, began = _Times(records), {e["attempt"]: e for e in history if e["what"] == "step.began"}
    ran: dict[Step, list[Event]] = defaultdict(list)
    told: dict[Step, list[Event]] = defaultdict(list)
    asks: dict[Step, list[Event]] = defaultdict(list)
    for event in history:
        if event["what"] == "tool.began":
            ran[event["run"], event["step"]].append(event)
        elif event["what"] in ("talk.asked", "talk.answered"):
            told[event["run"], event["step"]].append(event)
        elif event["what"] == "step.asks":
            attempt = began[event["attempt"]]
            if attempt["run"] in runs and runs[attempt["run"]].flow.has_tools(attempt["step"]):
                asks[attempt["run"], attempt["step"]].append(event)
    for run, demands in runs.items():
        for token in [step for step in demands.log.notes if step != "rejected" and demands.flow.has_tools(step)]:
            step = (run, token)
            here = _Here(demands, step, times, attempts, began)
            yield from here.runs(ran[step])
            yield from here.results()
            yield from here.told(told[step])
            yield from here.asks(asks[step], told[step])
            yield from here.ends()
        for step in ran:
            if step[0] == run and step[1] not in demands.log.notes:
                yield f"I19 step {step[1]} of run {run} called a tool, and has no answer of its model in the log"


class _Here:
    """The rules for one step."""

    def __init__(
        self, demands: Demands, step: Step, times: _Times, attempts: Attempts, began: Mapping[str, Event]
    ) -> None:
        self._run, self._step, self._times, self._attempts, self._began = demands, step, times, attempts, began
        self._talk = Talk(demands.log.notes[step[1]], demands.value)
        self._agent = demands.flow.agents[demands.flow.agent(step[1])]
        self._what = f"step {step[1]} of run {step[0]}"

    # ---- how often tools ran -----------------------------------------------------------------------

    def runs(self, events: list[Event]) -> Iterator[str]:
        """I19: a tool runs for an answer that is in the log; once, unless it may be called again or did not run."""
        by_call: dict[tuple[str, int], list[Event]] = defaultdict(list)
        for event in events:
            by_call[event["order"], event["number"]].append(event)
        for (order, number), calls in by_call.items():
            name, place = calls[0]["name"], self._talk.place_of(order, number)
            what = f"I19 {self._what} called {name} for {order}"
            if place is None:
                yield f"{what}, of answer {number}, which is not in the log"
                continue
            answered_s = self._times.of_answer(self._step, place[0])
            if answered_s is None or calls[0]["at"] < answered_s - CLOCK_S:
                yield f"{what} before the answer that does so was in the log"
            yield from self._once(what, calls, place) if name in ONCE else self._again(what, calls, place)
        for place, notes in self._talk.begun.items():
            call = self._talk.call(place)
            order = call.order if call is not None else str(place)
            if len(notes) > 1 + (may := self._said_not_to_have_run(order)):
                yield f"I19 {self._what} began {order} {len(notes)} times, and {may} said that it had not run"

    def _once(self, what: str, calls: list[Event], place: Place) -> Iterator[str]:
        order = calls[0]["order"]
        may = 1 + self._said_not_to_have_run(order)
        if len(calls) > may:
            yield f"{what} {len(calls)} times, and may {may}"
        for number, event in enumerate(calls, 1):
            begun_s = self._times.of_beginning(self._step, place, number)
            if begun_s is None or event["at"] < begun_s - CLOCK_S:
                yield f"{what} before that was written down"
            result_s = self._times.of_result(self._step, place)
            if result_s is not None and event["at"] > result_s + CLOCK_S:
                yield f"{what} {event['at'] - result_s:.2f} s after its result was recorded"

    def _again(self, what: str, calls: list[Event], place: Place) -> Iterator[str]:
        result_s = self._times.of_result(self._step, place)
        for event in calls:
            attempt = self._began.get(event["attempt"])
            if attempt is None or result_s is None or result_s > attempt["knew_at"] - CLOCK_S:
                continue
            if not self._attempts.knew_nothing(self._step, attempt, result_s):
                yield f"{what} again, {attempt['knew_at'] - result_s:.2f} s after its result was recorded"
        for before, after in pairwise(calls):
            if not self._attempts.was_kept_from(self._step, before, after["at"]):
                yield f"{what} twice, and nothing had gone wrong"

    def _said_not_to_have_run(self, order: str) -> int:
        return sum(answer == {"ran": False} or answer.get("ran") is False for answer in self._verdicts(order))

    def _verdicts(self, order: str) -> list[dict[str, Any]]:
        """Return what people said of a call."""
        found = []
        for alike in self._run.asking.children.of[self._step[1]].values():
            for child in alike:
                answer = self._run.log.answers.get(child.token)
                if child.kind == "person" and order in asked_text(child) and answer is not None:
                    said = self._run.value((answer.body or {})["outcome"])
                    found += [said] if isinstance(said, dict) else []
        return found

    # ---- what came of it ---------------------------------------------------------------------------

    def results(self) -> Iterator[str]:
        """I19: what is recorded of a call is what its tool gives, or what a person said; and is recorded once."""
        for twice in self._talk.doubled:
            yield f"I19 {self._what} has a second {twice}"
        for place, result in self._talk.results.items():
            call = self._talk.call(place)
            what = f"I19 {self._what} has a result of {result.name} at {place[1]}"
            if call is None or call.name != result.name:
                yield f"{what} that no answer in the log calls"
            elif result.settled_by:
                words = [said.get("result") for said in self._verdicts(call.order) if said.get("ran")]
                if result.settled_by != self._agent.get("in_doubt") or not words:
                    yield f"{what} by the word of {result.settled_by}, who said nothing"
                elif words[0] is not None and result.text != words[0]:
                    yield f"{what} for {call.order}, {result.text[:80]!r}, and said was {words[0]!r}"
            elif wrong := self._is_wrong(call.name, call.order, call.number, result):
                yield f"{what} for {call.order} that is {wrong}: {result.text[:80]!r}"
            elif call.name in ONCE and place not in self._talk.begun:
                yield f"{what} for {call.order}, and nobody wrote down that it begins"

    def _is_wrong(self, name: str, order: str, number: int, result: Result) -> str:
        how, limit = behaviour(name, order), self._agent["tool_output_bytes"]
        late = result.is_error and result.elapsed_s >= self._agent["tool_timeout_s"]
        if how.hangs or late:
            return "" if late else "no time-out"
        if how.raises:
            expected = f"{name} failed with ValueError: no good: {order}"
            return "" if result.is_error and result.text.startswith(expected) else "not what it raised"
        if result.is_error:
            return "an error"
        if how.text:
            whole = how.text if len(how.text) <= limit else how.text[:limit]
            is_cut = result.text.startswith(whole) and result.text != whole and result.cut_bytes == len(how.text)
            return "" if (result.text == how.text if whole == how.text else is_cut) else "not the text that it gives"
        return "" if _json(result.text) == {"order": order, "number": number} else "not what it gives"

    def told(self, events: list[Event]) -> Iterator[str]:
        """I20: the model is told what is recorded, once that is so, and as the API wants it."""
        for event in (each for each in events if each["what"] == "talk.asked"):
            if event["wrong"]:
                yield f"I20 {self._what} sent its model {event['wrong']}"
            for order, number, text, is_error in event["told"]:
                place = self._talk.place_of(order, number)
                result = self._talk.results.get(place) if place is not None else None
                recorded_s = self._times.of_result(self._step, place) if place is not None else None
                if result is None or recorded_s is None or recorded_s > event["at"] + CLOCK_S:
                    yield f"I20 {self._what} told its model of {order} what was not recorded"
                elif (result.text, result.is_error) != (text, is_error):
                    yield f"I20 {self._what} told its model of {order} {text[:80]!r}, and recorded {result.text[:80]!r}"

    # ---- what is asked and paid --------------------------------------------------------------------

    def asks(self, asks: list[Event], told: list[Event]) -> Iterator[str]:
        """I3, turn by turn: what is in the log is not asked again, and two answers are paid only where one was lost."""
        answered_s = {
            answer.turn: self._times.of_answer(self._step, sha256) for sha256, answer in self._talk.answers.items()
        }
        for event in asks:
            attempt, at_s = self._began[event["attempt"]], answered_s.get(event["turn"])
            if at_s is not None and at_s < attempt["knew_at"] - CLOCK_S:
                yield f"I3 {self._what} asked turn {event['turn']} again, which was in the log"
        paid: dict[int, list[Event]] = defaultdict(list)
        for event in told:
            if event["what"] == "talk.answered":
                paid[event["turn"]].append(event)
        for turn, events in paid.items():
            for _, after in pairwise(events):
                askers = [each for each in asks if each["turn"] == turn and each["at"] <= after["at"]]
                if not any(self._attempts.was_kept_from(self._step, each, after["at"]) for each in askers):
                    yield f"I3 {self._what} paid for turn {turn} twice, and nothing had gone wrong"

    # ---- how it ends -------------------------------------------------------------------------------

    def ends(self) -> Iterator[str]:
        """I19: nobody fails, or is asked, for a doubt that there is not; and what it puts out is of what was told."""
        kept = kept_of(self._run, self._step[1])
        if kept is None:
            return
        outcome, at_s = kept.outcome, kept.record.at_s
        if outcome.get("error", {}).get("type") == IN_DOUBT:
            open_ones = [place for place in self._talk.begun if place not in self._talk.results]
            if self._agent.get("in_doubt", "fail") != "fail":
                yield f"I19 {self._what} failed with a tool in doubt, and somebody was to be asked"
            elif not any(self._may_be_in_doubt(place, at_s) for place in open_ones):
                yield f"I19 {self._what} failed with a tool in doubt, and nothing had gone wrong"
        elif outcome["status"] == "done":
            told = [
                [call.order, call.number, result.text, result.is_error]
                for answer in sorted(self._talk.answers.items(), key=lambda each: each[1].turn)
                for place, call in enumerate(answer[1].calls)
                if (result := self._talk.results.get((answer[0], place))) is not None
            ]
            if not str(self._run.value(outcome)).endswith(digest(told)):  # type: ignore[arg-type]
                yield f"I20 {self._what} puts out what follows from something else than is recorded of its calls"
        for alike in self._run.asking.children.of[self._step[1]].values():
            for child in (each for each in alike if each.kind == "person"):
                about = [p for p in self._talk.begun if (c := self._talk.call(p)) and c.order in asked_text(child)]
                if not any(self._may_be_in_doubt(place, child.handoff.at_s) for place in about):
                    yield f"I19 {self._what} asked {child.name} about a tool, and nothing had gone wrong"

    def _may_be_in_doubt(self, place: Place, by_s: float) -> bool:
        """Say whether who began a call may have been kept from recording what came of it."""
        for note in self._talk.begun[place]:
            begun_s = self._times.of_beginning(self._step, place, note["fact"].get("number", 1))
            pid = int(note.get("worker", "").rpartition(":")[2] or 0)
            attempts = [e for e in self._began.values() if (e["run"], e["step"], e["pid"]) == (*self._step, pid)]
            for attempt in attempts:
                if begun_s is not None and self._attempts.was_kept_from(self._step, attempt, by_s):
                    return True
        return False


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
