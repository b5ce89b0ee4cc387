"""The attempts at steps that a history tells of: which began after an end, and which were kept from what they do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from .away import Away
from .demands import Demands
from .history import Event
from .raw import Record

CLOCK_S = 0.05
"""What we stamp and what the server stamps may differ by, on one machine: a process waits for its turn."""
WORD_S = 0.1
"""How long the word that a run has ended may take from the server to a worker's handler: mostly a millisecond or two;
more where a process waits for its turn."""
BACKLOG = 0.2
"""Of the time for which somebody stood still, how long it may take until what came meanwhile is read."""

Step = tuple[str, str]
"""A run, and one of its steps or branches."""


class Attempts:
    """When handlers began and ended, by the history, and what they can have known then."""

    def __init__(self, runs: Mapping[str, Demands], history: list[Event], away: Away) -> None:
        self._runs, self._away = runs, away
        self._forged = {event["run"] for event in history if event["what"] == "word.forged"}
        """Runs of which a stranger said that they had ended: that may cancel a handler, and costs it an attempt."""
        self.began: dict[Step, list[Event]] = defaultdict(list)
        for event in history:
            if event["what"] == "step.began":
                self.began[event["run"], event["step"]].append(event)
        self.ended = {event["attempt"]: event for event in history if event["what"] == "step.ended"}

    def knew_nothing(self, step: Step, attempt: Event, at_s: float) -> bool:
        """Say whether an attempt may not have known what was in the log by then.

        One that was handed out first, and so looked for nothing, was kept from beginning until others had it too.
        """
        handed_on = self._handed_on(step, at_s)
        return not attempt["looked"] and self._away.was_hit(attempt["pid"], handed_on, attempt["knew_at"])

    def was_kept_from(self, step: Step, ask: Event, until_s: float) -> bool:
        """Say whether the attempt that asked was cut off on the way, or failed of the call itself."""
        ended = self.ended.get(ask["attempt"])
        if ended is not None and ended["how"] not in ("done", "cancelled"):
            return True
        # A lease that lapsed once is what two attempts at a time come from, however long they wait for their turn.
        handed_on = self._handed_on(step, ask["at"])
        return step[0] in self._forged or self._away.was_hit(ask["pid"], handed_on, until_s)

    def _handed_on(self, step: Step, default_s: float | None) -> float:
        """Return when a step was handed on first."""
        found = (each.at_s for (token, _), each in self._runs[step[0]].log.handoffs.items() if token == step[1])
        return min(found, default=default_s or 0.0)

    def late_starts(self, results: Mapping[str, list[Record]]) -> list[tuple[Event, float]]:
        """Return the handlers that started after the result of their run, and how long after."""
        return [
            (event, event["at"] - results[run][0].at_s)
            for (run, _), events in self.began.items()
            for event in events
            if results.get(run) and event["at"] > results[run][0].at_s
        ]

    def nothing_starts_after_the_end(self, results: Mapping[str, list[Record]]) -> Iterator[str]:
        """I6: no handler of a run starts once its result is in the log, and word of that has come.

        A word that is not stored may be lost: by a process that is out of reach. From when it is back, and for so long
        as a word takes, every handoff is looked up. Who stood still has a backlog: a server of a cluster reads what
        came over each of its connections meanwhile, in no order between them.
        """
        for event, late_s in self.late_starts(results):
            if late_s > WORD_S and not self._was_out_of_reach(event, event["at"] - late_s):
                yield f"I6 step {event['step']} of run {event['run']} started {late_s:.2f} s after the run's result"

    def _was_out_of_reach(self, start: Event, ended_at: float) -> bool:
        spans = self._away.spans(start["pid"], ended_at - WORD_S, start["at"])
        return any(start["at"] <= end + 2 * WORD_S + (end - begin) * BACKLOG for begin, end in spans)
