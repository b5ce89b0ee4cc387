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
from pathlib import Path
from typing import Any

from .answered import answers_once, runs_no_more_than_it_may, sees_one_history
from .attempts import CLOCK_S, Attempts, Step
from .away import Away
from .batched import batches_go_once
from .budgets import spends_what_it_may
from .deaths import Deaths
from .demands import Demands
from .flow_file import FlowFile, in_round
from .history import Event
from .made_once import made_once
from .met import violations
from .paid import Calls
from .raw import Record, Seen
from .run_log import DEADLINE, Outcome, RunLog
from .said import nobody_holds_who_waits_for_people, words_are_taken
from .settled import acks_too_early
from .tooled import tools_run_once
from .within import may_be_cancelled, runs_asked_for, runs_within_runs, set_in_one_another

FLOWS = Path(__file__).with_name("flows")


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
        self.outcomes: dict[Step, list[Outcome]] = defaultdict(list)
        self.results: dict[str, list[Record]] = defaultdict(list)
        by_run: dict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_run[record.run].append(record)
            if record.body is not None and (record.run in self.runs or record.kind == "result"):
                self._sort(record, record.body)
        self.demands: dict[str, Demands] = {}
        self.attempts = Attempts(self.demands, history, self.away)
        self.deaths = Deaths(self.demands, self.outcomes, self.attempts, self.away)
        self.calls = Calls(self.demands, history, self.attempts)
        for run, event in self.submits.items():
            log, by_bad_luck = RunLog(by_run[run]), self.deaths.by_bad_luck
            self.demands[run] = Demands(_flow(event["flow"]), run, event["key"], log, blobs, by_bad_luck)
        set_in_one_another(self.demands)
        self.lost = self.doubled = 0
        demanded = [violation for demands in self.demands.values() for violation in violations(demands)]
        self.violations = [
            *self.one_outcome_a_step(),
            *self.one_result_a_run(),
            *self.calls.no_call_is_paid_twice(records, self.outcomes, self.results),
            *demanded,
            *self.attempts.nothing_starts_after_the_end(self.results),
            *self.garbage_is_kept_and_noted(),
            *self.deaths.nobody_pays_for_a_death_beside_it(),
            *acks_too_early(history, self.by_seq, self.demands),
            *self.no_timer_is_left_over(),
            *answers_once(self.demands, records, self._slack_s),
            *sees_one_history(self.demands, history),
            *made_once(self.demands, records, history, self.attempts.was_kept_from, self.attempts.knew_nothing),
            *runs_no_more_than_it_may(self.demands, history),
            *words_are_taken(self.demands, records, history, self._slack_s),
            *nobody_holds_who_waits_for_people(self.demands, history, self.away),
            *runs_within_runs(self.demands, self.results, history, self.away),
            *tools_run_once(self.demands, records, history, self.attempts),
            *batches_go_once(self.demands, records, history, self.away, lease_s),
            *spends_what_it_may(self.demands, records, spent),
        ]
        self.wrong = len(self.violations) - self.lost - self.doubled

    def _slack_s(self, at_s: float) -> float:
        """Return by how much the clocks of two processes may differ then, as each has it from the server."""
        return CLOCK_S + self.away.clock_off_s(at_s)

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
        elif result.at_s < start.at_s + deadline_s - self._slack_s(result.at_s):
            yield f"I2 run {run} expired {result.at_s - start.at_s:.2f} s after its start, of {deadline_s:.2f} s"

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

    def _was_closed_in_haste(self, demands: Demands, join: str) -> bool:
        closing = demands.log.closing(join)
        if closing is None:
            return False
        begin_s, end_s = closing.at_s - self.lease_s, closing.at_s + self.lease_s
        pids = {*self.away.died_at, *(event["pid"] for event in self.history if event["what"] == "worker.ready")}
        return any(self.away.was_hit(pid, begin_s, end_s) for pid in pids)


@cache
def _flow(name: str) -> FlowFile:
    return FlowFile(FLOWS / f"{name}.toml")


def excerpt(records: list[Record], run: str) -> str:
    """Return the messages of a run, one a line, for whoever looks into a violation."""
    rows = [f"{r.seq:6} {r.at_s:.3f} {r.subject} {json.dumps(r.body)[:160]}" for r in records if r.run == run]
    return "\n".join(rows)
