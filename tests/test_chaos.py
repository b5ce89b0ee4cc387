"""The crash driver on a small scale, and its checker, which must find what is planted in the log of a quiet run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .chaos.driver import Options, run_chaos
from .chaos.history import Event
from .chaos.raw import Seen
from .spoilt import Story, left_by

LATER_S = 5.0
QUIET = Options(seed=5, runs=24, kills=0, flows=("spread", "mix", "relay", "panel"), full_disk=False)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, list[Event]]:
    """What a run left behind in which nothing broke."""
    return left_by(QUIET, tmp_path_factory.mktemp("quiet"))


@pytest.fixture
def story(quiet: tuple[Seen, list[Event]]) -> Story:
    return Story(*quiet)


def close_at_half(story: Story) -> None:
    closing = story.find("handoff.spread…gather.join", lambda body: body["cause"]["counts"]["work"] >= 4)
    assert closing.body is not None
    half = closing.body["cause"]["counts"]["work"] // 2
    story.change(closing, cause__branches={"work": f"0-{half - 1}"})
    result = story.find(f"result.spread.{closing.run}.")
    assert result.body is not None
    names = result.body["outcome"]["output"]["branches"][:half]
    story.change(result, outcome__output__branches=names)


def drop_carried_errors(story: Story) -> None:
    blended = story.find("handoff.relay…close.blend", lambda body: body["cause"]["outcome"]["output"]["errors"])
    story.change(blended, cause__outcome__output__errors=[])
    result = story.find(f"result.relay.{blended.run}.")
    story.change(result, outcome__output__of__errors=[], outcome__output__errors=[])


def end_without_a_step(story: Story) -> None:
    closing = story.find("handoff.mix…merge.join", lambda body: body["cause"]["counts"]["facts"] >= 2)
    story.remove(story.find(f"reply.mix…{closing.run}.merge.facts-1"))


def ack_before_derive(story: Story) -> None:
    outcome = story.find("outcome.spread…split", lambda body: body["outcome"]["output"])
    handoff = story.find(f"handoff.spread…{outcome.run}.split.start")
    acked = story.event("delivery.acked", seq=handoff.seq, kind="handoff")
    acked["at"] = outcome.at_s


def start_late(story: Story) -> None:
    story.excuse_nothing()
    began = story.event("step.began", run=story.find("result.spread").run, step="gather")
    story.again(began, LATER_S, attempt="late", knew_at=began["at"] + LATER_S)


def ask_again(story: Story) -> None:
    note = story.find("note.mix…facts-0.model")
    began = story.event("step.began", run=note.run, step="facts-0")
    knew_at = note.at_s + 1.0
    story.again(began, 0.0, attempt="again", knew_at=knew_at)
    story.again(story.event("step.asks", attempt=began["attempt"]), 1.0, attempt="again")


def buy_twice(story: Story) -> None:
    answered = story.event("model.answered", run=story.find("note.mix…facts-0.model").run, step="facts-0")
    story.again(answered, 0.0001)
    story.excuse_nothing()


def leave_a_timer(story: Story) -> None:
    blended = story.find("handoff.relay…blend.join")
    subject = blended.subject.replace("handoff", "timer").removesuffix(".join")
    story.excuse_nothing()
    story.timers.append(blended._replace(subject=subject, kind="timer", rest=("blend",)))


def break_a_blob(story: Story) -> None:
    reply = story.find("reply.panel", lambda body: "blob" in body["outcome"])
    assert reply.body is not None
    story.blobs[reply.body["outcome"]["blob"]["sha256"]] = b'"half of it'


def close_before_the_time(story: Story) -> None:
    """With one branch, of two that are to be waited for."""
    closing = story.find("handoff.panel…choose.join", lambda body: "two" in body["cause"]["branches"])
    story.change(closing, cause__branches={"two": "*"})
    story.change(story.find(f"result.panel.{closing.run}."), outcome__output__branches=["two"])


def hand_on_too_much(story: Story) -> None:
    """To a branch beyond the list."""
    handoff = story.find("handoff.spread…work-0.split")
    subject = handoff.subject.replace("work-0", "work-99")
    story.records.append(handoff._replace(seq=story.records[-1].seq + 1, subject=subject, rest=("work-99", "split")))


PLANTED: dict[str, tuple[str, Callable[[Story], object]]] = {
    "two outcomes": ("I1", lambda s: s.add(s.find("outcome.mix…plan"), outcome__output=["another"])),
    "a record written twice": ("I1", lambda s: s.add(s.find("reply.spread…work-0"))),
    "no result": ("I2", lambda s: s.remove(s.find("result.spread"))),
    "two results": ("I2", lambda s: s.add(s.find("result.spread"), status="failed")),
    "a result that nobody asked for": ("I2", lambda s: s.change(s.find("result.spread"), status="cancelled")),
    "another result for the client": (
        "I2",
        lambda s: s.event("client.got", run=s.find("result.spread").run).update(status="failed"),
    ),
    "an answer bought again": ("I3", ask_again),
    "an answer bought twice": ("I3", buy_twice),
    "an answer that was not recorded": ("I3", lambda s: s.remove(s.find("note.mix…facts-0.model"))),
    "a join closed at half": ("I5", close_at_half),
    "a join closed before its number was there": ("I5", close_before_the_time),
    "a join that closed twice": ("I1", lambda s: s.add(s.find("handoff.spread…gather.join"), copied=True)),
    "a branch that is not in the log": ("I5", lambda s: s.remove(s.find("reply.spread…work-0"))),
    "a link that is not in the chain": ("I5", lambda s: s.remove(s.find("join.spread…gather.1"))),
    "a start after the end": ("I6", start_late),
    "garbage that is gone": ("I7", lambda s: s.remove(next(r for r in s.records if r.run.startswith("garbage")))),
    "garbage that nobody noted": (
        "I7",
        lambda s: s.remove(next(r for r in s.records if r.kind == "note" and r.run.startswith("garbage"))),
    ),
    "errors dropped that branches carry": ("I8", drop_carried_errors),
    "a branch not done": ("I8", end_without_a_step),
    "a wrong output": ("I8", lambda s: s.change(s.find("reply.spread…work-0"), outcome__output={"branch": "work-1"})),
    "a failure that is none": (
        "I8",
        lambda s: s.change(s.find("result.spread"), status="failed"),
    ),
    "a handoff that the flow has not": ("I8", hand_on_too_much),
    "a blob that is not whole": ("I8", break_a_blob),
    "an ack before what follows": ("I9", ack_before_derive),
    "a timer left over": ("I11", leave_a_timer),
}


def test_checker_finds_nothing_in_the_log_of_a_quiet_run(story: Story) -> None:
    assert story.violations() == []


@pytest.mark.parametrize("what", PLANTED)
def test_checker_finds_what_is_planted(what: str, story: Story) -> None:
    invariant, plant = PLANTED[what]
    plant(story)
    assert invariant in {violation.split()[0] for violation in story.violations()}


async def test_nothing_is_lost_or_doubled_while_workers_server_and_connections_break(tmp_path: Path) -> None:
    report = await run_chaos(Options(seed=1, runs=20, kills=4, flows=("pipeline", "panel")), tmp_path)
    assert report.violations == []
    assert report.kills >= 4
    assert (report.lost, report.doubled, report.wrong) == (0, 0, 0)
