"""The independent checker: what DESIGN §6 promises (I1 to I7), looked for in the raw log and in what others saw.

It shares no code with Baton. I4, which compares two folds of Baton's own, is in `live.py`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from .history import Event
from .raw import Record

CLOCK_S = 0.05
"""What we stamp and what the server stamps may differ by, on one machine: a process waits for its turn."""

Step = tuple[str, str]
"""A run, and one of its steps or branches."""


class Outcome(NamedTuple):
    seq: int
    at_s: float
    how: dict[str, Any]


class Checker:
    """Checks one log, with the history of who did what. `violations` are sentences that begin with the invariant."""

    def __init__(self, records: list[Record], history: list[Event], lease_s: float) -> None:
        self.records, self.history, self.lease_s = records, history, lease_s
        self.by_seq = {record.seq: record for record in records}
        self.garbage = {event["seq"]: event for event in history if event["what"] == "garbage.sent"}
        self.runs = {event["run"] for event in history if event["what"] == "submit.sent"}
        self.outcomes: dict[Step, list[Outcome]] = defaultdict(list)
        self.results: dict[str, list[Record]] = defaultdict(list)
        self.closings: dict[Step, list[Record]] = defaultdict(list)
        self.flows: dict[str, dict[str, Any]] = {}
        for record in records:
            if record.body is not None and (record.run in self.runs or record.kind == "result"):
                self._sort(record, record.body)
        self.lost = self.doubled = 0
        self.violations = [
            *self.one_outcome_a_step(),
            *self.one_result_a_run(),
            *self.no_call_is_paid_twice(),
            *self.joins_close_once(),
            *self.nothing_starts_after_the_end(),
            *self.garbage_is_kept_and_noted(),
        ]

    def _sort(self, record: Record, body: dict[str, Any]) -> None:
        step = ""
        match record.kind:
            case "handoff":
                if "flow_body" in body:
                    self.flows[record.run] = body["flow_body"]
                if body["source"] == "join":
                    self.closings[record.run, body["step"]].append(record)
                elif body["source"] != "start":
                    step = body["source"]
            case "reply" if body["branch"] != "deadline":
                step = body["branch"]
            case "outcome":
                step = body["step"]
            case "result":
                self.results[record.run].append(record)
                step = body.get("step", "")
        if step and body.get("outcome"):
            self.outcomes[record.run, step].append(Outcome(record.seq, record.at_s, body["outcome"]))

    # ---- the invariants --------------------------------------------------------------------------

    def one_outcome_a_step(self) -> Iterator[str]:
        """I1: decisive subjects are written once, and all that says how a step ended says the same."""
        decisive = ("handoff", "reply", "outcome", "result")
        written = Counter(r.subject for r in self.records if r.kind in decisive and not r.run.startswith("garbage"))
        for subject, times in written.items():
            if times > 1:
                self.doubled += 1
                yield f"I1 {subject} was written {times} times"
        for (run, step), outcomes in self.outcomes.items():
            if any(outcome.how != outcomes[0].how for outcome in outcomes):
                self.doubled += 1
                yield f"I1 step {step} of run {run} has two outcomes: sequences {[each.seq for each in outcomes]}"

    def one_result_a_run(self) -> Iterator[str]:
        """I2: what was acknowledged to a client ends, once."""
        acknowledged = {event["run"] for event in self.history if event["what"] == "submit.acknowledged"}
        for run in sorted(acknowledged | set(self.results)):
            found = self.results[run]
            if not found:
                self.lost += 1
                yield f"I2 run {run} was accepted, and has no result"
            elif len(found) > 1:
                self.doubled += 1
                yield f"I2 run {run} has {len(found)} results: sequences {[record.seq for record in found]}"
        for event in self.history:
            if event["what"] == "client.got":
                body = self.results[event["run"]][0].body if self.results[event["run"]] else None
                if body is None or body["status"] != event["status"]:
                    yield f"I2 a client was told that run {event['run']} is {event['status']}, the log has {body}"

    def no_call_is_paid_twice(self) -> Iterator[str]:
        """I3: an attempt that began after the answer was in the log does not ask again."""
        answered: dict[Step, float] = {}
        for record in self.records:
            if record.kind == "note" and record.body and record.body.get("type") == "model":
                answered.setdefault((record.run, record.body["step"]), record.at_s)
        began = {event["attempt"]: event for event in self.history if event["what"] == "step.began"}
        for event in self.history:
            if event["what"] != "step.asks":
                continue
            attempt = began[event["attempt"]]
            at_s = answered.get((attempt["run"], attempt["step"]))
            if at_s is not None and at_s < attempt["knew_at"] - CLOCK_S:
                late_s = attempt["knew_at"] - at_s
                yield (
                    f"I3 step {attempt['step']} of run {attempt['run']} asked the model again, "
                    f"{late_s:.2f} s after the answer was in the log"
                )
        for step, calls in self.paid_calls().items():
            if step not in answered and step in self.outcomes:
                yield f"I3 the answer for step {step[1]} of run {step[0]} was used and is not in the log"
            for before, after in pairwise(calls):
                if not self._fault_between(before - self.lease_s, after):
                    yield f"I3 step {step[1]} of run {step[0]} asked the model twice, and nothing had gone wrong"

    def joins_close_once(self) -> Iterator[str]:
        """I5: one closing handoff, and the merger put out exactly the branches that it names."""
        for (run, step), closings in self.closings.items():
            if len(closings) > 1:
                self.doubled += 1
                yield f"I5 the join at {step} of run {run} closed {len(closings)} times"
            body = closings[0].body or {}
            named = []
            for name, seq in body.get("branches", []):
                reply = self.by_seq.get(seq)
                if reply is None or (reply.run, reply.rest) != (run, (step, name)) or seq > closings[0].seq:
                    yield f"I5 the join at {step} of run {run} names branch {name} at {seq}, which is {reply}"
                elif self._is_seen(run, step, name, reply.body or {}):
                    named.append(name)
            for outcome in self.outcomes[run, step][:1]:
                seen = outcome.how["output"]["branches"] if outcome.how["status"] == "done" else named
                if seen != named:
                    yield f"I5 the merger {step} of run {run} saw {seen}, its handoff names {named}"

    def nothing_starts_after_the_end(self) -> Iterator[str]:
        """I6: no handler of a run starts once its result is in the log.

        The word that a run has ended is not stored. Where a fault kept a worker from hearing it, a handler may
        start within a lease: from then on every handoff is looked up.
        """
        for event in self.late_starts():
            late_s = event["at"] - self.results[event["run"]][0].at_s
            heard = self._fault_between(event["at"] - 2 * self.lease_s, event["at"])
            if late_s > (self.lease_s if heard else 0.0) + CLOCK_S:
                yield f"I6 step {event['step']} of run {event['run']} started {late_s:.2f} s after the run's result"

    def garbage_is_kept_and_noted(self) -> Iterator[str]:
        """I7: bytes that mean nothing stay in the log, a note or a result says so, and the rest goes on."""
        noted = {record.body.get("seq") for record in self.records if record.kind == "note" and record.body}
        for seq, event in self.garbage.items():
            record = self.by_seq.get(seq)
            if record is None or record.data.decode() != event["data"]:
                yield f"I7 garbage at {seq} is not in the log as it was sent"
            elif record.kind == "task":
                answers = self.results[f"task-{seq:012d}"]
                if not answers or (answers[0].body or {}).get("status") != "failed":
                    yield f"I7 the bad task at {seq} has no answer"
            elif seq not in noted:
                yield f"I7 garbage at {seq} on {record.subject} has no note"

    # ---- what they are made of -------------------------------------------------------------------

    def paid_calls(self) -> dict[Step, list[float]]:
        """Return when the model gave its answers, by step: those that it gave to the end."""
        calls: dict[Step, list[float]] = defaultdict(list)
        for event in self.history:
            if event["what"] == "model.answered":
                calls[event["run"], event["step"]].append(event["at"])
        return calls

    def late_starts(self) -> list[Event]:
        """Return the handlers that started after the result of their run."""
        return [
            event
            for event in self.history
            if event["what"] == "step.began"
            and self.results[event["run"]]
            and event["at"] > self.results[event["run"]][0].at_s
        ]

    def _is_seen(self, run: str, join: str, branch: str, reply: dict[str, Any]) -> bool:
        """Say whether a merger sees this branch: it ended well, or its error stands in its place."""
        policy = (self.flows[run]["steps"][join].get("join") or {}).get("failed")
        status = reply["outcome"]["status"]
        return branch != "deadline" and (status == "done" or (status == "failed" and policy == "pass"))

    def _fault_between(self, begin_s: float, end_s: float) -> bool:
        return any(begin_s <= event["at"] <= end_s for event in self.history if event["what"] in FAULTS)


FAULTS = frozenset(
    {
        "worker.killed",
        "worker.died",
        "worker.stopped",
        "worker.continued",
        "server.killed",
        "server.back",
        "connections.cut",
        "traffic.held",
        "traffic.flows",
        "process.starved",
    }
)
"""Events after which work may be done twice, or word of an end may be missed."""


def excerpt(records: list[Record], run: str) -> str:
    """Return the messages of a run, one a line, for whoever looks into a violation."""
    rows = [f"{r.seq:6} {r.at_s:.3f} {r.subject} {json.dumps(r.body)[:160]}" for r in records if r.run == run]
    return "\n".join(rows)
