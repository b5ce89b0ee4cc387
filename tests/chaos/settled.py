"""Record, derive, ack: a delivery is let go of only when all that follows from it is in the log.

A worker says when it acks; the server's own times, by the same clock, say what was stored by then. So an ack that comes
too early is seen in any run, and not only when a process dies between the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .demands import Demands
from .flow_file import indices
from .following import followers, kept_of
from .history import Event
from .joins import chain_of
from .raw import Record
from .run_log import DEADLINE


def acks_too_early(history: list[Event], by_seq: Mapping[int, Record], demands: Mapping[str, Demands]) -> Iterator[str]:
    """I9: yield a sentence for each delivery that was acked before what follows from it was stored."""
    for event in history:
        if event["what"] != "delivery.acked" or (record := by_seq.get(event["seq"])) is None:
            continue
        run = demands.get(record.run)
        if record.body is None or run is None or _is_by(run.log.result, event["at"]):
            continue
        if event["kind"] == "handoff":
            missing = _of_handoff(run, record, event["at"])
        elif event["kind"] == "reply":
            missing = _of_reply(run, record, event["at"])
        else:
            continue
        if missing:
            yield f"I9 {record.subject} at {record.seq} was acked before {missing}"


def _of_handoff(run: Demands, record: Record, at_s: float) -> str:
    """Return what should have been in the log; empty when all is well."""
    token = record.rest[0]
    kept = kept_of(run, token)
    cause = (record.body or {})["cause"]
    failed = cause["by"] == "after" and (cause.get("outcome") or {}).get("status") == "failed"
    ends_run = failed and cause["step"] in run.log.over_budget
    if ends_run or (failed and run.flow.fails_run(run.flow.base(cause["step"]), run.flow.base(token))):
        return "the run's result, as the step before it failed"
    if kept is None or not _is_by(kept.record, at_s):
        if _is_parked(run, record, at_s):
            return ""
        if run.log.result is not None and (run.log.result.body or {})["status"] != "done":
            return ""  # its timer had not come
        return "its outcome"
    return next((name for name, follower in followers(run, token, kept) if not _is_by(follower, at_s)), "")


def _is_parked(run: Demands, record: Record, at_s: float) -> bool:
    """Say whether the step of this handoff was given up by then until something brings it back after it."""
    token, log = record.rest[0], run.log
    for (step, source), woken in log.handoffs.items():  # its time has come
        if step == token and source.removeprefix("wake-").isdigit() and woken.seq > record.seq:
            return True
    for parked in log.parked[token]:  # an answer does
        brought_back = log.woken(parked)
        if _is_by(parked, at_s) and (brought_back is None or brought_back.seq > record.seq):
            return True
    return False


def _of_reply(run: Demands, record: Record, at_s: float) -> str:
    join, branch = record.rest
    closing = run.log.closing(join)
    if _is_by(closing, at_s):
        return ""
    body = record.body or {}
    if (
        branch != DEADLINE
        and body["outcome"]["status"] == "failed"
        and (branch in run.log.over_budget or run.flow.fails_run(body["source"], run.flow.base(join)))
    ):
        return "the run's result, as a branch failed"
    enough_at = chain_of(run, join).enough_at
    by = next((link for link in run.log.links[join] if _names(link, body)), None)
    if by is None or not _is_by(by, at_s):
        return "" if _is_by(enough_at, at_s) else "a link of the join's chain that names it"
    return "the handoff that closes the join" if by is enough_at else ""


def _names(link: Record, reply: dict[str, object]) -> bool:
    body = link.body or {}
    if reply["source"] == DEADLINE:
        return bool(body.get("deadline"))
    came = indices(body.get("came", {}).get(reply["source"], ""))
    return reply.get("index", 0) in came or None in came


def _is_by(record: Record | None, at_s: float) -> bool:
    return record is not None and record.at_s <= at_s
