"""The crash driver on a small scale, and its checker, which must find what is planted in a log."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .chaos.checker import Checker
from .chaos.driver import Options, run_chaos
from .chaos.history import Event
from .chaos.raw import Record, record

Log = list[Record]
LEASE_S = 1.0
DONE_A = {"status": "done", "output": {"branch": "a"}}
DONE_B = {"status": "done", "output": {"branch": "b"}}
MERGED = {"status": "done", "output": {"branches": ["a", "b"]}}


def message(seq: int, subject: str, body: dict[str, Any] | str) -> Record:
    data = body if isinstance(body, str) else json.dumps(body)
    return record(seq, f"ns.{subject}", data.encode(), f"2026-11-24T12:00:{seq:02}.000000001Z")


def handoff(seq: int, actor: str, step: str, source: str, **more: Any) -> Record:
    return message(seq, f"handoff.{actor}.r1.{step}.{source}", {"step": step, "source": source, **more})


def reply(seq: int, branch: str, outcome: dict[str, Any]) -> Record:
    return message(seq, f"reply.f-m.r1.m.{branch}", {"step": "m", "branch": branch, "outcome": outcome})


def result(seq: int, flow: str = "f", **more: Any) -> Record:
    return message(seq, f"result.{flow}.r1.end", {"status": "done", "step": "m", "outcome": MERGED, **more})


def good_log() -> Log:
    """Steps a and b, of which a asks a model, and m that joins them."""
    flow = {"steps": {"a": {}, "b": {}, "m": {"after": ["a", "b"]}}}
    return [
        handoff(1, "f-a", "a", "start", flow_body=flow),
        handoff(2, "f-b", "b", "start"),
        message(3, "note.f-a.r1.a.n1", {"type": "model", "step": "a"}),
        reply(4, "a", DONE_A),
        reply(5, "b", DONE_B),
        message(6, "join.f-m.r1.m", {"step": "m", "arrived": {"a": 4, "b": 5}}),
        handoff(7, "f-m", "m", "join", branches=[["a", 4], ["b", 5]]),
        result(8),
        message(9, "handoff.f-a.garbage-1.x.y", "no json"),
        message(10, "note.f-a.garbage-1.x.n2", {"type": "rejected", "step": "x", "seq": 9}),
    ]


def at(seq: int, what: str, /, **facts: Any) -> Event:
    """An event at the time when the message with this sequence was stored."""
    return {"what": what, "at": good_log()[seq - 1].at_s, "pid": 1, **facts}


def good_history() -> list[Event]:
    return [
        at(1, "submit.sent", run="r1"),
        at(1, "submit.acknowledged", run="r1"),
        at(2, "step.began", attempt="1-1", run="r1", step="a", knew_at=at(2, "")["at"]),
        at(2, "step.asks", attempt="1-1"),
        at(2, "model.answered", run="r1", step="a"),
        at(3, "step.ended", attempt="1-1", run="r1", step="a"),
        at(8, "client.got", run="r1", status="done"),
        at(9, "garbage.sent", seq=9, data="no json"),
    ]


def asked_again() -> list[Event]:
    knew_at = at(4, "")["at"]
    return [at(4, "step.began", attempt="2-1", run="r1", step="a", knew_at=knew_at), at(5, "step.asks", attempt="2-1")]


def started_late() -> Event:
    return at(10, "step.began", attempt="2-1", run="r1", step="b", knew_at=at(10, "")["at"])


PLANTED: dict[str, tuple[str, Callable[[Log, list[Event]], Any]]] = {
    "two outcomes": (
        "I1",
        lambda log, _: log.append(message(11, "outcome.f-a.r1.a", {"step": "a", "outcome": DONE_B})),
    ),
    "a record written twice": ("I1", lambda log, _: log.append(reply(11, "b", DONE_B))),
    "no result": ("I2", lambda log, _: log.pop(7)),
    "two results": ("I2", lambda log, _: log.append(result(11, flow="g"))),
    "another result for the client": ("I2", lambda _, history: history[6].update(status="failed")),
    "an answer bought again": ("I3", lambda _, history: history.extend(asked_again())),
    "an answer bought twice": ("I3", lambda _, history: history.insert(5, history[4])),
    "an answer that was not recorded": ("I3", lambda log, _: log.pop(2)),
    "a join that closed twice": ("I5", lambda log, _: log.append(handoff(11, "f-x", "m", "join", branches=[]))),
    "a branch that is not in the log": ("I5", lambda log, _: log.pop(3)),
    "a branch left out by the merger": (
        "I5",
        lambda log, _: log.__setitem__(7, result(8, outcome={"status": "done", "output": {"branches": ["a"]}})),
    ),
    "a start after the end": ("I6", lambda _, history: history.append(started_late())),
    "garbage that is gone": ("I7", lambda log, _: log.pop(8)),
    "garbage that nobody noted": ("I7", lambda log, _: log.pop(9)),
}


def test_checker_finds_nothing_in_a_good_log() -> None:
    assert Checker(good_log(), good_history(), LEASE_S).violations == []


@pytest.mark.parametrize("what", PLANTED)
def test_checker_finds_what_is_planted(what: str) -> None:
    invariant, plant = PLANTED[what]
    log, history = good_log(), good_history()
    plant(log, history)
    violations = Checker(log, history, LEASE_S).violations
    assert violations
    assert {violation[:2] for violation in violations} == {invariant}


async def test_nothing_is_lost_or_doubled_while_workers_server_and_connections_break(tmp_path: Path) -> None:
    report = await run_chaos(Options(seed=1, runs=20, kills=4, flows=("pipeline", "panel")), tmp_path)
    assert report.violations == []
    assert report.kills >= 4
    assert (report.lost, report.doubled) == (0, 0)
