"""I18: what must hold of runs that steps of other runs ask for: one for each, with what it was asked, and to its end.

It follows `schemas/docs/flow-files.md`: such a run is a run like any other, which ends with the run that asked for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from .away import Away
from .demands import Demands, Parent, value_of
from .flow_file import FlowFile
from .following import must_have_answers
from .history import Event
from .raw import Record

GOES_ON_S = 3.0
"""How long after the end of the run that asked a run may begin steps, where nothing breaks: who ends it does so at
once, or its clerk does."""
LONG_S = 45.0
"""And where anything does."""


def runs_asked_for(
    records: list[Record],
    blobs: Mapping[str, bytes],
    known: Mapping[str, Mapping[str, Any]],
    flow_of: Callable[[str], FlowFile],
) -> dict[str, dict[str, Any]]:
    """Return the runs that steps of these runs, or of such runs, asked for, as if a client had submitted them.

    Each is of the flow that was asked for, whatever it says itself; `flow_of` gives a flow by its name.
    """
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        parent = _parent(record)
        if parent is None or record.run in found or not (parent["run"] in known or parent["run"] in found):
            continue
        body = record.body or {}
        key = _given(body, blobs).get("key")
        deadline_s = body["cause"]["begins"].get("deadline_s")
        above = flow_of((found.get(parent["run"]) or known[parent["run"]])["flow"])
        asked = above.agents.get(above.asked(parent["child"]), {}).get("flow", body["flow"])
        flow = PurePath(asked).stem
        found[record.run] = {"run": record.run, "flow": flow, "key": key, "deadline_s": deadline_s}
    return found


def set_in_one_another(runs: Mapping[str, Demands]) -> None:
    """Tell each run which runs its steps asked for, and each of those by whom it was."""
    for demands in runs.values():
        said = _parent(demands.log.start) if demands.log.start is not None else None
        if said is not None and said["run"] in runs:
            above = runs[said["run"]]
            demands.parent = Parent(above, said["child"])
            above.runs.setdefault(said["child"], demands)


def may_be_cancelled(runs: Mapping[str, Demands], result: Record) -> bool:
    """Say whether a run that nobody cancelled may be: with that which asked for it, also before it began."""
    demands = runs.get(result.run)
    if demands is not None:
        ended = demands.parent.demands.log.result if demands.parent is not None else None
        return ended is not None and ended.seq < result.seq
    return any(
        ended.seq < result.seq and child.kind == "flow" and token not in above.runs
        for run, above in runs.items()
        if result.run.startswith(f"{run[:40]}--k") and (ended := above.log.result) is not None
        for token, child in above.asking.children.by_token.items()
    )


def runs_within_runs(
    runs: Mapping[str, Demands], results: Mapping[str, list[Record]], history: list[Event], away: Away
) -> Iterator[str]:
    """I18: yield what is wrong with runs that were asked for."""
    asked: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run, demands in runs.items():
        if demands.parent is not None:
            asked[demands.parent.demands.run, demands.parent.child].append(run)
            yield from _is_as_asked(demands, demands.parent)
            if demands.parent.child in demands.parent.demands.asking.children.by_token:
                yield from _ends_with_it(demands, demands.parent, history, away)
    for (run, child), found in asked.items():
        if len(found) > 1:
            yield f"I18 {child} of run {run} was begun as {found}"
    for run, ended in results.items():
        if run not in runs and "--k" in run and (ended[0].body or {})["status"] != "cancelled":
            yield f"I18 run {run} has ended, and never begun"


def _is_as_asked(demands: Demands, parent: Parent) -> Iterator[str]:
    """It was asked for before it began, by who it says, with what it was given; and is answered after its end."""
    above, start = parent.demands, demands.log.start
    assert start is not None
    what, said = f"I18 run {demands.run}", _parent(start) or {}
    child = above.asking.children.by_token.get(parent.child)
    if child is None or child.kind != "flow":
        yield f"{what} was asked for by no step of run {above.run}"
        return
    if (said["step"], said["actor"]) != (child.asker, above.flow.actor(child.asker)):
        yield f"{what} says that {said['step']} asked for it, and not {child.asker}"
    if child.handoff.seq > start.seq:
        yield f"{what} began before it was asked for"
    if (flow := (start.body or {})["flow"]) != demands.flow.name:
        yield f"{what} is one of {flow}, and asked for was {demands.flow.name}"
    if demands.key != above.asking.children.given(child.token).get("key"):
        yield f"{what} was given another key than {child.asker} asked with"
    answer, result = above.log.answers.get(child.token), demands.log.result
    if answer is not None and not above.asking.is_late(child.token) and (result is None or result.seq > answer.seq):
        yield f"{what} was answered before it had ended"


def _ends_with_it(demands: Demands, parent: Parent, history: list[Event], away: Away) -> Iterator[str]:
    above, result = parent.demands.log.result, demands.log.result
    if above is None:
        return
    what = f"I18 run {demands.run}"
    is_waited_for = must_have_answers(parent.demands, parent.child)
    if is_waited_for and (result is None or result.seq > above.seq):
        yield f"{what} went on when {parent.demands.run}, which waits for it, was done"
    for event in history:
        if event["what"] != "step.began" or event["run"] != demands.run or event["at"] < above.at_s + GOES_ON_S:
            continue
        pids = {*away.died_at, *(each["pid"] for each in history if each["what"] == "worker.ready")}
        was_hit = any(away.was_hit(pid, above.at_s - GOES_ON_S, event["at"]) for pid in pids)
        if not was_hit or event["at"] > above.at_s + LONG_S:
            late_s = event["at"] - above.at_s
            yield f"{what} began {event['step']} {late_s:.2f} s after the end of the run that asked for it"


def _parent(record: Record) -> dict[str, Any] | None:
    """Return what a first handoff says of who asked for its run."""
    if record.kind != "handoff" or record.rest[-1:] != ("start",) or record.body is None:
        return None
    cause = record.body.get("cause")
    begins = cause.get("begins") if isinstance(cause, dict) else None
    found = begins.get("parent") if isinstance(begins, dict) else None
    return found if isinstance(found, dict) else None


def _given(body: dict[str, Any], blobs: Mapping[str, bytes]) -> dict[str, Any]:
    state = body.get("state", {})
    given = dict(state.get("input", {}))
    for name, blob in state.get("blobs", {}).items():
        given[name] = value_of({"blob": blob}, blobs)
    return given
