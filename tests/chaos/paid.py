"""I3: no model is paid twice for one answer, unless whoever had it was kept from recording it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise

from .attempts import CLOCK_S, Attempts, Step
from .demands import Demands
from .history import Event
from .raw import Record


class Calls:
    """What models were asked for agents that are models, and answered to the end."""

    def __init__(self, runs: Mapping[str, Demands], history: list[Event], attempts: Attempts) -> None:
        self._runs, self._history, self._attempts = runs, history, attempts

    def no_call_is_paid_twice(
        self, records: list[Record], outcomes: Collection[Step], results: Collection[str]
    ) -> Iterator[str]:
        """I3: an attempt that began after the answer was in the log does not ask again.

        Before that, one that has answers asks again only when whoever asked before could not record them: it died,
        or was out of reach.
        """
        answered: dict[Step, float] = {}
        for record in records:
            if record.kind == "note" and record.body and record.body["fact"]["type"] == "model":
                answered.setdefault((record.run, record.body["step"]), record.at_s)
        began = {event["attempt"]: event for events in self._attempts.began.values() for event in events}
        asks: dict[Step, list[Event]] = defaultdict(list)
        for event in self._history:
            if event["what"] != "step.asks":
                continue
            attempt = began[event["attempt"]]
            step = (attempt["run"], attempt["step"])
            if self._runs[step[0]].flow.has_tools(step[1]):
                continue  # its turns are looked at one by one, in `tooled.py`
            asks[step].append(event)
            at_s = answered.get(step)
            if at_s is not None and at_s < attempt["knew_at"] - CLOCK_S:
                late_s = attempt["knew_at"] - at_s
                yield f"I3 step {step[1]} of run {step[0]} asked again, {late_s:.2f} s after the answer was in the log"
        for step, calls in self.paid().items():
            if step not in answered and step in outcomes and step[0] in results:
                yield f"I3 the answer for step {step[1]} of run {step[0]} was used and is not in the log"
            for _, after in pairwise(calls):
                askers = [event for event in asks[step] if event["at"] <= after]
                if not any(self._attempts.was_kept_from(step, event, after) for event in askers):
                    yield f"I3 step {step[1]} of run {step[0]} asked the model twice, and nothing had gone wrong"

    def paid(self) -> dict[Step, list[float]]:
        """Return when the model gave its answers, by step: those that it gave to the end."""
        calls: dict[Step, list[float]] = defaultdict(list)
        for event in self._history:
            if event["what"] == "model.answered":
                calls[event["run"], self._token(event["run"], event["step"])].append(event["at"])
        return calls

    def _token(self, run: str, asked: str) -> str:
        """Return the step that the model is asked for: the prompts of those that were asked say only what it was."""
        return self._runs[run].asking.children.asked_of_a_model().get(asked, asked) if "/" in asked else asked
