"""The independent checker: what DESIGN §6 promises, looked for in the raw log and in what others saw.

It shares no code with Baton. What a run must be follows from its flow file and its input (`demands.py`, `twins.py`);
that each ack came after what follows from its message, from the server's own times (`settled.py`). I4, which compares
two folds of Baton's own, is in `live.py`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from .answered import answers_once, runs_no_more_than_it_may, sees_one_history
from .away import Away
from .budgets import spends_what_it_may
from .demands import Demands
from .flow_file import FlowFile, in_round
from .history import Event
from .made_once import made_once
from .met import violations
from .raw import Record, Seen
from .run_log import DEADLINE, RunLog
from .said import nobody_holds_who_waits_for_people, words_are_taken
from .settled import acks_too_early
from .tooled import Excuses, talks, tools_run_once
from .twins import POISONED
from .within import may_be_cancelled, runs_asked_for, runs_within_runs, set_in_one_another

FLOWS = Path(__file__).with_name("flows")
CLOCK_S = 0.05
"""What we stamp and what the server stamps may differ by, on one machine: a process waits for its turn."""
WORD_S = 0.1
"""How long the word that a run has ended may take from the server to a worker's handler: mostly a millisecond or two;
more where a process waits for its turn."""

Step = tuple[str, str]
"""A run, and one of its steps or branches."""


class Outcome(NamedTuple):
    seq: int
    at_s: float
    how: dict[str, Any]


class Checker:
    """Checks one log, with the history of who did what. `violations` are sentences that begin with the invariant."""

    def __init__(
        self,
        seen: Seen,
        history: list[Event],
        lease_s: float,
    ) -> None:
        """`seen` is what the server has in the end; `lease_s` is of the run."""
        records, self.timers, blobs, spent = seen
        self.records, self.history, self.lease_s = records, history, lease_s
        self.by_seq = {record.seq: record for record in records}
        self.away = Away(history)
        self.garbage = {event["seq"]: event for event in history if event["what"] == "garbage.sent"}
        self.submits = {event["run"]: event for event in history if event["what"] == "submit.sent"}
        self.submits |= runs_asked_for(records, blobs, self.submits, _flow)
        self.runs = set(self.submits)
        self.forged = {event["run"] for event in history if event["what"] == "word.forged"}
        """Runs of which a stranger said that they had ended: that may cancel a handler, and costs it an attempt."""
        self.began: dict[Step, list[Event]] = defaultdict(list)
        for event in history:
            if event["what"] == "step.began":
                self.began[event["run"], event["step"]].append(event)
        self.ended = {event["attempt"]: event for event in history if event["what"] == "step.ended"}
        self.outcomes: dict[Step, list[Outcome]] = defaultdict(list)
        self.results: dict[str, list[Record]] = defaultdict(list)
        by_run: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_run[record.run].append(record)
            if record.body is not None and (record.run in self.runs or record.kind == "result"):
                self._sort(record, record.body)
        self.demands = {
            run: Demands(_flow(event["flow"]), run, event["key"], RunLog(by_run[run]), blobs, self._by_bad_luck)
            for run, event in self.submits.items()
        }
        set_in_one_another(self.demands)
        self.lost = self.doubled = 0
        demanded = [violation for demands in self.demands.values() for violation in violations(demands)]
        self.violations = [
            *self.one_outcome_a_step(),
            *self.one_result_a_run(),
            *self.no_call_is_paid_twice(),
            *demanded,
            *self.nothing_starts_after_the_end(),
            *self.garbage_is_kept_and_noted(),
            *self.nobody_pays_for_a_death_beside_it(),
            *acks_too_early(history, self.by_seq, self.demands),
            *self.no_timer_is_left_over(),
            *answers_once(self.demands, records, CLOCK_S),
            *sees_one_history(self.demands, history),
            *made_once(self.demands, records, history, self._was_kept_from, self._knew_nothing),
            *runs_no_more_than_it_may(self.demands, history),
            *words_are_taken(self.demands, records, history, CLOCK_S),
            *nobody_holds_who_waits_for_people(self.demands, history, self.away),
            *runs_within_runs(self.demands, self.results, history, self.away),
            *spends_what_it_may(self.demands, records, spent, settled=True),
            *tools_run_once(
                self.demands, records, history, CLOCK_S, Excuses(self._was_kept_from, self._knew_nothing)
            ),
        ]
        self.wrong = len(self.violations) - self.lost - self.doubled

    def _sort(self, record: Record, body: dict[str, Any]) -> None:
        step, outcome = "", body.get("outcome")
        match record.kind:
            case "handoff" if body["cause"]["by"] == "after":
                step, outcome = body["cause"]["step"], body["cause"].get("outcome")
            case "reply" if body["source"] != DEADLINE:
                step = in_round(record.rest[-1], body.get("round", 1))
            case "outcome":
                step = body["step"]
            case "answer" if body["kind"] == "answer":
                step = body["child"]
            case "result":
                self.results[record.run].append(record)
                step = body.get("step", "")
        if step and outcome:
            self.outcomes[record.run, step].append(Outcome(record.seq, record.at_s, outcome))

    # ---- the invariants --------------------------------------------------------------------------

    def one_outcome_a_step(self) -> Iterator[str]:
        """I1: decisive subjects are written once, and all that says how a step ended says the same."""
        decisive = ("handoff", "reply", "outcome", "result", "join")
        written = Counter(r.subject for r in self.records if r.kind in decisive and not r.run.startswith("garbage"))
        for subject, times in written.items():
            if times > 1:
                self.doubled += 1
                yield f"I1 {subject} was written {times} times"
        for run, demands in self.demands.items():
            starts = [source for _, source in demands.log.handoffs if source == "start"]
            if demands.log.start is None and starts:
                yield f"I1 run {run} has no first handoff"
        for (run, step), outcomes in self.outcomes.items():
            if any(outcome.how != outcomes[0].how for outcome in outcomes):
                self.doubled += 1
                yield f"I1 step {step} of run {run} has two outcomes: sequences {[each.seq for each in outcomes]}"

    def one_result_a_run(self) -> Iterator[str]:
        """I2: what was acknowledged to a client ends, once; and nothing is cancelled or expired by itself."""
        acknowledged = {event["run"] for event in self.history if event["what"] == "submit.acknowledged"}
        acknowledged |= {run for run, demands in self.demands.items() if demands.parent is not None}
        cancelled = {event["run"] for event in self.history if event["what"] == "cancel.sent"}
        for run in sorted(acknowledged | set(self.results)):
            found = self.results[run]
            if not found:
                self.lost += 1
                yield f"I2 run {run} was accepted, and has no result"
                continue
            if len(found) > 1:
                self.doubled += 1
                yield f"I2 run {run} has {len(found)} results: sequences {[record.seq for record in found]}"
            if run in self.submits and found[0].who != self.submits[run]["flow"]:
                yield f"I2 run {run} of flow {self.submits[run]['flow']} has the result of a run of {found[0].who}"
            status = (found[0].body or {}).get("status")
            if status == "cancelled" and run not in cancelled and not may_be_cancelled(self.demands, found[0]):
                yield f"I2 run {run} is cancelled, and nobody asked for that"
            if status == "expired":
                yield from self._expired(run, found[0])
        for event in self.history:
            # What the server says again is believed by clients: `deploy/` lets nobody else say it.
            if event["what"] == "client.got" and event["run"] not in self.forged:
                body = self.results[event["run"]][0].body if self.results[event["run"]] else None
                if body is None or body["status"] != event["status"]:
                    yield f"I2 a client was told that run {event['run']} is {event['status']}, the log has {body}"

    def _expired(self, run: str, result: Record) -> Iterator[str]:
        deadline_s = self.submits[run].get("deadline_s") if run in self.submits else None
        start = self.demands[run].log.start if run in self.demands else None
        if not deadline_s or start is None:
            yield f"I2 run {run} is expired, and had no deadline"
        elif result.at_s < start.at_s + deadline_s - CLOCK_S:
            yield f"I2 run {run} expired {result.at_s - start.at_s:.2f} s after its start, of {deadline_s:.2f} s"

    def no_call_is_paid_twice(self) -> Iterator[str]:
        """I3: an attempt that began after the answer was in the log does not ask again.

        Before that, one that has answers asks again only when whoever asked before could not record them: it died,
        or was out of reach.
        """
        answered: dict[Step, float] = {}
        for record in self.records:
            if record.kind == "note" and record.body and record.body["fact"]["type"] == "model":
                answered.setdefault((record.run, record.body["step"]), record.at_s)
        began = {event["attempt"]: event for events in self.began.values() for event in events}
        asks: dict[Step, list[Event]] = defaultdict(list)
        for event in self.history:
            if event["what"] != "step.asks":
                continue
            attempt = began[event["attempt"]]
            step = (attempt["run"], attempt["step"])
            if talks(self.demands[step[0]], step[1]):
                continue  # its turns are looked at one by one, in `tooled.py`
            asks[step].append(event)
            at_s = answered.get(step)
            if at_s is not None and at_s < attempt["knew_at"] - CLOCK_S:
                late_s = attempt["knew_at"] - at_s
                yield f"I3 step {step[1]} of run {step[0]} asked again, {late_s:.2f} s after the answer was in the log"
        for step, calls in self.paid_calls().items():
            if step not in answered and step in self.outcomes and step[0] in self.results:
                yield f"I3 the answer for step {step[1]} of run {step[0]} was used and is not in the log"
            for _, after in pairwise(calls):
                askers = [event for event in asks[step] if event["at"] <= after]
                if not any(self._was_kept_from(step, event, after) for event in askers):
                    yield f"I3 step {step[1]} of run {step[0]} asked the model twice, and nothing had gone wrong"

    def _knew_nothing(self, step: Step, attempt: Event, at_s: float) -> bool:
        """Say whether an attempt may not have known what was in the log by then.

        One that was handed out first, and so looked for nothing, was kept from beginning until others had it too.
        """
        handed_on = self._handed_on(step, at_s)
        return not attempt["looked"] and self.away.was_hit(attempt["pid"], handed_on, attempt["knew_at"])

    def _was_kept_from(self, step: Step, ask: Event, until_s: float) -> bool:
        """Say whether the attempt that asked was cut off on the way, or failed of the call itself."""
        ended = self.ended.get(ask["attempt"])
        if ended is not None and ended["how"] not in ("done", "cancelled"):
            return True
        # A lease that lapsed once is what two attempts at a time come from, however long they wait for their turn.
        handed_on = self._handed_on(step, ask["at"])
        return step[0] in self.forged or self.away.was_hit(ask["pid"], handed_on, until_s)

    def _handed_on(self, step: Step, default_s: float | None) -> float:
        """Return when a step was handed on first."""
        found = (each.at_s for (token, _), each in self.demands[step[0]].log.handoffs.items() if token == step[1])
        return min(found, default=default_s or 0.0)

    def nothing_starts_after_the_end(self) -> Iterator[str]:
        """I6: no handler of a run starts once its result is in the log, and word of that has come.

        A word that is not stored may be lost: by a process that is out of reach. From when it is back, and for so long
        as a word takes, every handoff is looked up.
        """
        for event, late_s in self.late_starts():
            if late_s > WORD_S and not self._was_out_of_reach(event, event["at"] - late_s):
                yield f"I6 step {event['step']} of run {event['run']} started {late_s:.2f} s after the run's result"

    def _was_out_of_reach(self, start: Event, ended_at: float) -> bool:
        spans = self.away.spans(start["pid"], ended_at - WORD_S, start["at"])
        return any(start["at"] <= end + 2 * WORD_S for _, end in spans)

    def garbage_is_kept_and_noted(self) -> Iterator[str]:
        """I7: bytes that mean nothing stay in the log, a note or a result says so, and the rest goes on."""
        facts = [record.body["fact"] for record in self.records if record.kind == "note" and record.body]
        noted = {fact["seq"] for fact in facts if fact["type"] == "rejected"}
        for seq, event in self.garbage.items():
            record = self.by_seq.get(seq)
            if record is None or record.data.decode("latin-1") != event["data"]:
                yield f"I7 garbage at {seq} is not in the log as it was sent"
            elif record.kind == "task":
                answers = self.results[f"task-{seq:012d}"]
                if not answers or (answers[0].body or {}).get("status") != "failed":
                    yield f"I7 the bad task at {seq} has no answer"
            elif record.kind != "answer" and seq not in noted:  # answers are heard, and nobody takes them
                yield f"I7 garbage at {seq} on {record.subject} has no note"
        for record in self.records:
            if record.kind == "note" and record.body and record.body["fact"]["type"] == "rejected":
                seq = record.body["fact"]["seq"]
                if record.who in ("-person", "-event"):
                    continue  # words are looked at in `said.py`
                if seq not in self.garbage and self.by_seq.get(seq) is not None and self.by_seq[seq].run in self.runs:
                    yield f"I7 {self.by_seq[seq].subject} at {seq} was rejected: {record.body['fact']['reason']}"

    def nobody_pays_for_a_death_beside_it(self) -> Iterator[str]:
        """I10: a step that did not kill its worker is not failed for a death by the hand of one beside it."""
        for (run, step), outcomes in self.outcomes.items():
            error = outcomes[0].how.get("error", {})
            if run not in self.runs or (error.get("step"), error.get("type")) != (step, "WorkerLost"):
                continue
            if not self._may_be_lost(run, step):
                yield f"I10 step {step} of run {run} is lost, and these died with it in hand: {self.charged(run, step)}"

    def no_timer_is_left_over(self) -> Iterator[str]:
        """I11: the timer of a join is gone when its run is done.

        But where whoever closed it was hit before the timer was gone: a run that has ended gets no more care, and the
        timer fires in the end and changes nothing.
        """
        for timer in self.timers:
            demands = self.demands.get(timer.run)
            if timer.kind != "timer" or demands is None or demands.log.result is None:
                continue
            status, step = (demands.log.result.body or {}).get("status"), timer.rest[0]
            if status == "done" and step in demands.flow.steps and not self._was_closed_in_haste(demands, step):
                yield f"I11 the run {timer.run} is done, and the timer of its join {step} is still set"

    # ---- what they are made of -------------------------------------------------------------------

    def charged(self, run: str, step: str) -> list[int]:
        """Return the processes that died with this step in hand, after it had noted that it begins."""
        demands = self.demands[run]
        facts = [(note["fact"], note.get("worker", "")) for note in demands.log.notes[step]]
        let_go = {fact.get("begun") for fact, _ in facts if fact["type"] in ("retry", "given_back")}
        begun = [int(worker.rpartition(":")[2] or 0) for fact, worker in facts if fact["type"] == "begun"]
        numbers = [fact["number"] for fact, _ in facts if fact["type"] == "begun"]
        return [
            pid for number, pid in zip(numbers, begun, strict=True) if number not in let_go and pid in self.away.died_at
        ]

    def _may_be_lost(self, run: str, step: str) -> bool:
        """Say whether its workers died of a step, as far as anybody can tell, as often as it may.

        A death by the driver's hand looks like one of the step's own. One by a step beside it does not count alone.
        """
        deaths, demands = self.charged(run, step), self.demands[run]
        failed = sum(note["fact"]["type"] == "retry" for note in demands.log.notes[step])
        by_itself = self._kills(run, step) or not all(self._was_poisoned(pid) for pid in deaths)
        return by_itself and len(deaths) + failed >= demands.flow.max_attempts(step)

    def _was_closed_in_haste(self, demands: Demands, join: str) -> bool:
        closing = demands.log.closing(join)
        if closing is None:
            return False
        begin_s, end_s = closing.at_s - self.lease_s, closing.at_s + self.lease_s
        pids = {*self.away.died_at, *(event["pid"] for event in self.history if event["what"] == "worker.ready")}
        return any(self.away.was_hit(pid, begin_s, end_s) for pid in pids)

    def charged_beside(self) -> int:
        """Return how many attempts were charged to steps for a death by the hand of one beside them.

        Bounded, and no violation by itself: one that begins for the first time says nothing, and may kill.
        """
        return sum(
            self._was_poisoned(pid) and self._was_cut_off(run, step, pid) and not self._kills(run, step)
            for run, demands in self.demands.items()
            for step in demands.log.notes
            if step != "rejected"
            for pid in self.charged(run, step)
        )

    def _was_cut_off(self, run: str, step: str, pid: int) -> bool:
        """Say whether a process died while the handler of this step ran in it."""
        return any(each["pid"] == pid and each["attempt"] not in self.ended for each in self.began[run, step])

    def _by_bad_luck(self, run: str, step: str) -> bool:
        """Say whether a step that kills nobody is lost because its workers died, as often as it may, by the driver."""
        outcomes = self.outcomes.get((run, step))
        if not outcomes or outcomes[0].how.get("error", {}).get("type") != "WorkerLost" or self._kills(run, step):
            return False
        return self._may_be_lost(run, step)

    def _was_poisoned(self, pid: int) -> bool:
        return self.away.died_with.get(pid) == POISONED

    def _kills(self, run: str, step: str) -> bool:
        """Say whether a step kills its worker by itself, by what its handler did when it began."""
        return self.demands[run].kills(step)

    def paid_calls(self) -> dict[Step, list[float]]:
        """Return when the model gave its answers, by step: those that it gave to the end."""
        calls: dict[Step, list[float]] = defaultdict(list)
        for event in self.history:
            if event["what"] == "model.answered":
                calls[event["run"], self._token(event["run"], event["step"])].append(event["at"])
        return calls

    def _token(self, run: str, asked: str) -> str:
        """Return the step that the model is asked for: the prompts of those that were asked say only what it was."""
        return self.demands[run].asking.children.asked_of_a_model().get(asked, asked) if "/" in asked else asked

    def late_starts(self) -> list[tuple[Event, float]]:
        """Return the handlers that started after the result of their run, and how long after."""
        return [
            (event, event["at"] - self.results[run][0].at_s)
            for (run, _), events in self.began.items()
            for event in events
            if self.results.get(run) and event["at"] > self.results[run][0].at_s
        ]


@cache
def _flow(name: str) -> FlowFile:
    return FlowFile(FLOWS / f"{name}.toml")


def excerpt(records: list[Record], run: str) -> str:
    """Return the messages of a run, one a line, for whoever looks into a violation."""
    rows = [f"{r.seq:6} {r.at_s:.3f} {r.subject} {json.dumps(r.body)[:160]}" for r in records if r.run == run]
    return "\n".join(rows)
