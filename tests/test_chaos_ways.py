"""The crash driver where flows go round, leave out or go by lanes, and where handlers have the official client.

On a small scale; and its checker, which must find what is planted in the log of a quiet run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from .chaos.driver import Options, run_chaos
from .chaos.history import Event
from .chaos.raw import Record, Seen
from .spoilt import Story, left_by

QUIET = Options(
    seed=7229, runs=9, kills=0, flows=("loop", "ways", "lanes", "calls"), full_disk=False, apart=False, forgers=False
)
"""Its first loop is gone through three times, and leaves a step out; another run is out of rounds. Of its two runs with
ways one leaves out a list. Its handlers with a client are tried again."""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, list[Event]]:
    """What a run left behind in which nothing broke but what handlers break themselves."""
    return left_by(QUIET, tmp_path_factory.mktemp("quiet"))


@pytest.fixture
def story(quiet: tuple[Seen, list[Event]]) -> Story:
    return Story(*quiet)


# ---- loops ---------------------------------------------------------------------------------------


def a_review(story: Story, *, number: int) -> Record:
    step = "review" if number == 1 else f"review--r{number}"
    return story.find("outcome.loop", lambda body: body["step"] == step)


def go_round_too_often(story: Story) -> None:
    """Another round is handed on, and what was said did not ask for one."""
    last = story.find("outcome.loop…review--r3")
    again = story.find(f"handoff.loop--drafter.{last.run}.draft--r3.")
    subject = again.subject.replace("--r3", "--r4").replace("--r2", "--r3")
    rest = ("draft--r4", "review--r3")
    story.records.append(again._replace(seq=story.records[-1].seq + 1, subject=subject, rest=rest))


def begin_a_round_with_the_wrong_draft(story: Story) -> None:
    """As if it had read another round than the one right before it."""
    story.change(story.find("outcome.loop…draft--r3"), outcome__output__said="review")


def fail_before_the_last_round(story: Story) -> None:
    failed = out_of_rounds(story)
    story.change(failed, step="polish--r2")


def out_of_rounds(story: Story) -> Record:
    return next(r for r in story.records if r.kind == "result" and r.who == "loop" and _says(r, "status", "failed"))


def _says(record: Record, name: str, value: object) -> bool:
    return record.run.startswith(f"r{QUIET.seed}-") and (record.body or {}).get(name) == value


# ---- conditions ----------------------------------------------------------------------------------


def a_skip(story: Story, where: str = "reply.ways…meet.refund") -> Record:
    return story.find(where, lambda body: body["outcome"].get("left_out"))


def do_what_is_left_out(story: Story) -> None:
    skip = a_skip(story)
    story.change(skip, outcome={"status": "done", "output": {"step": "refund", "kind": "other", "pad": ""}})


def leave_out_what_is_to_be_done(story: Story) -> None:
    done = story.find("reply.ways…pages--join.rules")
    story.change(done, outcome={"status": "skipped", "left_out": True, "reason": "sort.kind is 'other'"})


def close_without_a_word_of_it(story: Story) -> None:
    closing = story.find("handoff.ways…meet.join", lambda body: "refund" in body["cause"].get("left_out", {}))
    assert closing.body is not None
    left_out = {name: why for name, why in closing.body["cause"]["left_out"].items() if name != "refund"}
    story.change(closing, cause__left_out=left_out)


def leave_out_a_list_for_another_reason(story: Story) -> None:
    story.change(a_skip(story, "reply.ways…meet.notes"), outcome__reason="sort.kind is 'refund'")


# ---- lists and lanes -----------------------------------------------------------------------------


def begin_before_its_turn(story: Story) -> None:
    """The third branch of a lane of two, before either of those before it has ended."""
    third = story.find("handoff.loop--reader…read-2.")
    story.records[story.records.index(third)] = third._replace(seq=0)


def begin_behind_what_has_not_ended(story: Story) -> None:
    going = story.find("handoff.lanes…go-2.")
    story.remove(story.find(f"reply.lanes--counter.{going.run}.count.go-0"))


def lose_a_place_in_the_lane(story: Story) -> None:
    story.remove(story.find("handoff.loop--reader…read-2."))


def put_out_another_order(story: Story) -> None:
    result = story.find("result.ways", lambda body: len(body["outcome"]["output"]) > 1)
    assert result.body is not None
    story.change(result, outcome__output=result.body["outcome"]["output"][::-1])


def put_out_a_branch_too_few(story: Story) -> None:
    result = story.find("result.calls", lambda body: len(body["outcome"]["output"]) > 1)
    assert result.body is not None
    story.change(result, outcome__output=result.body["outcome"]["output"][1:])


# ---- handlers' own clients -----------------------------------------------------------------------


def an_exchange(story: Story) -> Record:
    return story.find("note.calls--talker…sdk-")


def an_answered(story: Story) -> Event:
    """What a model has answered in an attempt that came to a good end."""
    run = an_exchange(story).run
    well = {event["attempt"] for event in story.history if event["what"] == "step.ended" and event["how"] == "done"}
    return next(e for e in story.history if e["what"] == "call.answered" and e["run"] == run and e["attempt"] in well)


def call_again(story: Story) -> None:
    """In an attempt that began when the answer was in the log."""
    asked = story.event("call.asked", run=an_exchange(story).run, asker="talk")
    began = story.event("step.began", attempt=asked["attempt"])
    story.again(began, 0.0, attempt="again", knew_at=story.records[-1].at_s, looked=True)
    story.again(asked, 1.0, attempt="again")


def call_twice(story: Story) -> None:
    story.excuse_nothing()
    story.again(an_answered(story), 0.0001)


def record_twice(story: Story) -> None:
    note = an_exchange(story)
    subject = note.subject.replace("sdk-", "sdk-f")
    story.records.append(note._replace(seq=story.records[-1].seq + 1, subject=subject))


def be_answered_otherwise(story: Story) -> None:
    seen = next(e for e in story.history if e["what"] == "step.saw" and e["run"] == an_exchange(story).run)
    story.again(seen, 0.1, value="something else")


def call_what_is_not_to_be_asked(story: Story) -> None:
    seen = next(e for e in story.history if e["what"] == "step.saw" and e["run"] == an_exchange(story).run)
    story.again(seen, 0.1, words=json.dumps(["call", "", "what nobody asks", 1]))


PLANTED: dict[str, tuple[str, Callable[[Story], object]]] = {
    "a round too many": ("I8", go_round_too_often),
    "a round that is not gone through": (
        "I8",
        lambda s: s.remove(s.find("handoff.loop--drafter", lambda body: body["cause"].get("step") == "review--r2")),
    ),
    "a round that ends otherwise than it did": (
        "I8",
        lambda s: s.change(a_review(s, number=1), outcome__output__verdict="good"),
    ),
    "a round that begins with another draft": ("I8", begin_a_round_with_the_wrong_draft),
    "a branch of the round before": (
        "I8",
        lambda s: s.change(s.find("reply.loop…review--r2.read-0"), outcome__output__branch="read-0"),
    ),
    "a loop that fails too early": ("I8", fail_before_the_last_round),
    "a loop that fails for no reason": ("I8", lambda s: s.change(out_of_rounds(s), reason="no more")),
    "a loop that goes on": ("I8", lambda s: s.change(out_of_rounds(s), status="done")),
    "a step done that is left out": ("I8", do_what_is_left_out),
    "a step left out that is to be done": ("I8", leave_out_what_is_to_be_done),
    "a step left out for another reason": (
        "I8",
        lambda s: s.change(a_skip(s), outcome__reason="sort.kind is 'refund'"),
    ),
    "a step left out in a round that does it": (
        "I8",
        lambda s: s.change(
            s.find("reply.loop…review.look", lambda body: body["outcome"]["status"] == "done"),
            outcome={"status": "skipped", "left_out": True, "reason": "draft.kind is 'large'"},
        ),
    ),
    "a list left out for another reason": ("I8", leave_out_a_list_for_another_reason),
    "a step that was empty, and not left out": ("I8", lambda s: s.change(a_skip(s), outcome__left_out=False)),
    "a join that says nothing of what is left out": ("I5", close_without_a_word_of_it),
    "a branch before its turn": ("I16", begin_before_its_turn),
    "a branch behind one that has not ended": ("I16", begin_behind_what_has_not_ended),
    "a place in a lane that nobody takes": ("I8", lose_a_place_in_the_lane),
    "a list in another order": ("I8", put_out_another_order),
    "a list without a branch": ("I8", put_out_a_branch_too_few),
    "a call made again": ("I14", call_again),
    "a call made twice": ("I14", call_twice),
    "a call with two answers": ("I14", record_twice),
    "a call that is answered otherwise": ("I13", be_answered_otherwise),
    "a call that is not to be made": ("I13", call_what_is_not_to_be_asked),
    "an answer that was not recorded": ("I13", lambda s: s.remove(an_exchange(s))),
}


def test_checker_finds_nothing_where_flows_go_their_ways_and_nothing_breaks(story: Story) -> None:
    assert story.violations() == []


@pytest.mark.parametrize("what", PLANTED)
def test_checker_finds_what_is_planted(what: str, story: Story) -> None:
    invariant, plant = PLANTED[what]
    plant(story)
    assert invariant in {violation.split()[0] for violation in story.violations()}


async def test_flows_go_their_ways_while_workers_and_connections_break(tmp_path: Path) -> None:
    report = await run_chaos(Options(seed=3, runs=8, kills=2, gap_s=0.4, flows=("loop", "calls")), tmp_path)
    assert report.violations == []
    assert report.kills >= 2
    assert (report.lost, report.doubled, report.wrong) == (0, 0, 0)
