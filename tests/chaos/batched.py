"""I22: what must hold of model calls that go in batches: none is sent twice, and each is settled once.

It follows `schemas/docs/models.md` (batches) and decision 0018. What was sent, the provider says, who took it whether
or not it said so; and what came of each call.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .attempts import Step
from .away import Away
from .demands import Demands
from .following import kept_of
from .history import Event
from .raw import Record

_DONE = "succeeded"
_CANCELED = "canceled"
_TYPES = {"expired": "batch_expired", _CANCELED: "batch_canceled"}
"""The types of the errors of calls that were not done; those of the others the provider says."""
_USD = (10 * 1.0 + 7 * 5.0) / 1e6 / 2
"""What an answer costs: half of the list price of its tokens."""
_LATE_S = 1.0


class Call(NamedTuple):
    """A call that the provider took in a batch, or refused alone."""

    batch: str
    """The provider's id; empty for one that was refused."""
    name: str
    fate: str
    message: str
    at_s: float


class Provider(NamedTuple):
    """What the stand-in says."""

    calls: Mapping[Step, list[Call]]
    """By run and step, in the order in which they came."""
    sizes: Mapping[str, int]
    """Of the batches, by id."""


def batches_go_once(
    runs: Mapping[str, Demands], records: list[Record], history: list[Event], away: Away, lease_s: float
) -> Iterator[str]:
    """Yield what does not hold once all that was handed on has been settled."""
    said = _said(history)
    yield from _sent_once(runs, said, away, lease_s)
    yield from _known(records, said)
    yield from _cancelled_for_nobody(runs, history, said)
    recorded = _recorded(records)
    for (run, step), calls in said.calls.items():
        if run not in runs:
            yield f"I22 step {step} of run {run} is in a batch, and there is no such run"
            continue
        for call in calls:
            if call.fate == _DONE and (times := recorded[run, step, call.message]) != 1:
                yield f"I22 what came of {call.name} of step {step} of run {run} is {times} times in the log"
    for demands in runs.values():
        yield from _given(demands, said)
    known = {(run, step, call.message) for (run, step), calls in said.calls.items() for call in calls}
    for run, step, message in sorted(recorded.keys() - known):
        if run in runs and runs[run].flow.goes_in_batches(step):
            yield f"I22 step {step} of run {run} has the answer {message}, which the provider did not give it"


def _said(history: list[Event]) -> Provider:
    calls: dict[Step, list[Call]] = defaultdict(list)
    sizes: dict[str, int] = {}
    canceled = {(e["id"], name) for e in history if e["what"] == "batch.canceled" for name in e["members"]}
    for event in history:
        if event["what"] == "batch.taken":
            id = event["id"]
            sizes[id] = len(event["members"])
            for name, run, step, fate, message in event["members"]:
                came = _CANCELED if (id, name) in canceled else fate
                calls[run, step].append(Call(id, name, came, message, event["at"]))
        elif event["what"] == "batch.refused" and len(event["members"]) == 1:
            ((name, run, step),) = event["members"]
            calls[run, step].append(Call("", name, "invalid_request_error", "", event["at"]))
    return Provider(calls, sizes)


def _sent_once(runs: Mapping[str, Demands], said: Provider, away: Away, lease_s: float) -> Iterator[str]:
    """No call is in two batches, under no name; one more is of the next attempt, and the one before it failed."""
    for (run, step), calls in said.calls.items():
        what = f"I22 step {step} of run {run}"
        first: dict[str, Call] = {}
        is_done = ""
        for call in (each for each in calls if each.batch):
            if (before := first.setdefault(call.name, call)) is not call:
                # Who stands still for so long between the last look at its clock and the first byte may send again.
                at_least_s = lease_s + (runs[run].flow.timeout_s(step) if run in runs else 0.0)
                if not any(away.stood_still(each.at_s, _LATE_S, at_least_s) for each in (before, call)):
                    yield f"{what} was sent twice as {call.name}: in {before.batch} and in {call.batch}"
            elif is_done:
                yield f"{what} was sent in {is_done} and, though that is done, in {call.batch}"
            if call.fate == _DONE:
                is_done = call.batch
            if run in runs and runs[run].flow.goes_in_batches(step):
                size, most = said.sizes[call.batch], runs[run].flow.batch_count(step)
                if size > most:
                    yield f"{what} is in {call.batch}, of {size} calls: no more than {most} go together"


def _known(records: list[Record], said: Provider) -> Iterator[str]:
    """What the provider took is in the log, once, and nothing else is."""
    facts = [record.body["fact"] for record in records if record.kind == "note" and record.body]
    sent = Counter(fact["id"] for fact in facts if fact["type"] == "batch_sent")
    for id in said.sizes:
        if sent[id] != 1:
            yield f"I22 the provider has {id}, and the log says {sent[id]} times that it was sent"
    for fact in facts:
        if fact["type"] == "batch_sent" and fact["count"] != said.sizes.get(fact["id"]):
            yield f"I22 the log has {fact['id']} with {fact['count']} calls, of {said.sizes.get(fact['id'])}"


def _cancelled_for_nobody(runs: Mapping[str, Demands], history: list[Event], said: Provider) -> Iterator[str]:
    """A batch is cancelled only when all runs have ended that wait for it, as far as anybody has heard."""
    forged = {event["run"]: event["at"] for event in history if event["what"] == "word.forged"}
    of = {(call.batch, call.name): run for (run, _), calls in said.calls.items() for call in calls}
    for event in (each for each in history if each["what"] == "batch.canceled"):
        for run in {run for (batch, _), run in of.items() if batch == event["id"]} & runs.keys():
            result = runs[run].log.result
            if (result is None or result.at_s > event["at"] + _LATE_S) and forged.get(run, event["at"]) >= event["at"]:
                yield f"I22 {event['id']} was cancelled, and run {run} waits for it"


def _recorded(records: list[Record]) -> Counter[tuple[str, str, str]]:
    """Return how often an answer is in the log, be it that of a step or spent on nothing, by run, step and its id."""
    found: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        if record.kind == "note" and record.body:
            fact: dict[str, Any] = record.body["fact"]
            id = fact.get("work", {}).get("request_id", "") if fact["type"] == "spent" else fact.get("request_id", "")
            if id and fact["type"] in ("model", "spent"):
                found[record.run, record.rest[0], id] += 1
    return found


def _given(demands: Demands, said: Provider) -> Iterator[str]:
    """What each step was told of its calls, one after the other, is what came of them."""
    children: dict[str, list[str]] = defaultdict(list)
    for child in sorted(demands.asking.children.by_token.values(), key=lambda each: each.handoff.seq):
        if child.kind == "batch":
            children[child.asker].append(child.token)
    for step, tokens in children.items():
        what = f"I22 step {step} of run {demands.run}"
        if not demands.flow.goes_in_batches(step):
            yield f"{what} asked for a batch, and its calls are live"
            continue
        calls = _each_once(said.calls.get((demands.run, step), []))
        answers = [
            (demands.log.answers[token].body or {})["outcome"] for token in tokens if token in demands.log.answers
        ]
        if len(answers) > len(calls):
            yield f"{what} was answered {len(answers)} times, and the provider had {len(calls)} calls of it"
        for outcome, call in zip(answers, calls, strict=False):
            told = _DONE if outcome["status"] == "done" else outcome["error"]["type"]
            if told != (due := _TYPES.get(call.fate, call.fate)):
                yield f"{what} was told that {call.name} came to {told}, and it came to {due}"
    for step in [each for each in demands.log.notes if demands.flow.goes_in_batches(each)]:
        what = f"I22 step {step} of run {demands.run}"
        facts = [note["fact"] for note in demands.log.notes[step] if note["fact"]["type"] == "model"]
        for fact in facts:
            if abs(fact["cost_usd"] - _USD) > 1e-9:
                yield f"{what} paid {fact['cost_usd']} USD, and not half of the list price"
        kept = kept_of(demands, step)
        if kept is not None and kept.outcome["status"] == "done" and len(facts) != 1:
            yield f"{what} is done, and has {len(facts)} answers of its model"


def _each_once(calls: list[Call]) -> list[Call]:
    """Of one that was sent twice, which is said elsewhere, what came of it first."""
    return list({call.name: call for call in reversed(calls)}.values())[::-1]
