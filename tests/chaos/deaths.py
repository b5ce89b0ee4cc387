"""I10: which workers died with a step in hand, by whose hand, and which steps may be lost for that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .attempts import Attempts, Step
from .away import Away
from .demands import Demands
from .run_log import Outcome
from .twins import POISONED


class Deaths:
    """Of all processes of a chaos run, as the steps see them."""

    def __init__(
        self, runs: Mapping[str, Demands], outcomes: Mapping[Step, list[Outcome]], attempts: Attempts, away: Away
    ) -> None:
        self._runs, self._outcomes, self._attempts, self._away = runs, outcomes, attempts, away

    def nobody_pays_for_a_death_beside_it(self) -> Iterator[str]:
        """I10: a step that did not kill its worker is not failed for a death by the hand of one beside it."""
        for (run, step), outcomes in self._outcomes.items():
            error = outcomes[0].how.get("error", {})
            if run not in self._runs or (error.get("step"), error.get("type")) != (step, "WorkerLost"):
                continue
            if not self._may_be_lost(run, step):
                yield f"I10 step {step} of run {run} is lost, and these died with it in hand: {self.charged(run, step)}"

    def charged(self, run: str, step: str) -> list[int]:
        """Return the processes that died with this step in hand, after it had noted that it begins."""
        demands = self._runs[run]
        facts = [(note["fact"], note.get("worker", "")) for note in demands.log.notes[step]]
        let_go = {fact.get("begun") for fact, _ in facts if fact["type"] in ("retry", "given_back")}
        begun = [int(worker.rpartition(":")[2] or 0) for fact, worker in facts if fact["type"] == "begun"]
        numbers = [fact["number"] for fact, _ in facts if fact["type"] == "begun"]
        return [
            pid
            for number, pid in zip(numbers, begun, strict=True)
            if number not in let_go and pid in self._away.died_at
        ]

    def beside(self) -> int:
        """Return how many attempts were charged to steps for a death by the hand of one beside them.

        Bounded, and no violation by itself: one that begins for the first time says nothing, and may kill.
        """
        return sum(
            self._was_poisoned(pid) and self._was_cut_off(run, step, pid) and not self._kills(run, step)
            for run, demands in self._runs.items()
            for step in demands.log.notes
            if step != "rejected"
            for pid in self.charged(run, step)
        )

    def by_bad_luck(self, run: str, step: str) -> bool:
        """Say whether a step that kills nobody is lost because its workers died, as often as it may, by the driver."""
        outcomes = self._outcomes.get((run, step))
        if not outcomes or outcomes[0].how.get("error", {}).get("type") != "WorkerLost" or self._kills(run, step):
            return False
        return self._may_be_lost(run, step)

    def _may_be_lost(self, run: str, step: str) -> bool:
        """Say whether its workers died of a step, as far as anybody can tell, as often as it may.

        A death by the driver's hand looks like one of the step's own. One by a step beside it does not count alone.
        """
        deaths, demands = self.charged(run, step), self._runs[run]
        failed = sum(note["fact"]["type"] == "retry" for note in demands.log.notes[step])
        by_itself = self._kills(run, step) or not all(self._was_poisoned(pid) for pid in deaths)
        return by_itself and len(deaths) + failed >= demands.flow.max_attempts(step)

    def _was_cut_off(self, run: str, step: str, pid: int) -> bool:
        """Say whether a process died while the handler of this step ran in it."""
        return any(
            each["pid"] == pid and each["attempt"] not in self._attempts.ended
            for each in self._attempts.began[run, step]
        )

    def _was_poisoned(self, pid: int) -> bool:
        return self._away.died_with.get(pid) == POISONED

    def _kills(self, run: str, step: str) -> bool:
        """Say whether a step kills its worker by itself, by what its handler did when it began."""
        return self._runs[run].kills(step)
