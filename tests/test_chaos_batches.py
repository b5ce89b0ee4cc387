"""The crash driver where calls go in batches, on a small scale, and its checker, which must find what is planted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .chaos.driver import Options, run_chaos
from .chaos.history import Event
from .chaos.raw import Record, Seen
from .spoilt import Story, assert_found, left_by

QUIET = Options(seed=7, runs=5, kills=0, flows=("batches",), full_disk=False, apart=False, forgers=False)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, list[Event]]:
    """What a run left behind in which nothing broke but the provider."""
    return left_by(QUIET, tmp_path_factory.mktemp("quiet"))


@pytest.fixture
def story(quiet: tuple[Seen, list[Event]]) -> Story:
    return Story(*quiet)


def taken(story: Story, *, fate: str = "succeeded") -> tuple[Event, list[Any]]:
    """A batch that the provider took, and a call in it to which this came; its run is done."""
    done = {r.run for r in story.records if r.kind == "result" and r.body and r.body["status"] == "done"}
    return next(
        (event, member)
        for event in story.history
        if event["what"] == "batch.taken"
        for member in event["members"]
        if member[3] == fate and member[1] in done
    )


def answered(story: Story) -> Record:
    """What the model answered, as the log has it."""
    return story.find("note.batches--researcher…model-")


def told(story: Story, status: str) -> Record:
    """What a step was told of a call in a batch."""
    return story.find(
        "answer.batches--researcher", lambda b: b["kind"] == "answer" and b["outcome"]["status"] == status
    )


def sent(story: Story) -> Record:
    """The record of a batch that was sent."""
    return next(r for r in story.records if r.kind == "note" and r.body and r.body["fact"]["type"] == "batch_sent")


def send_twice(story: Story, *, name: str = "") -> None:
    """As if a batch had come to the provider once more: with the same calls, or with new ones for the same steps."""
    story.excuse_nothing()
    event, _ = taken(story)
    members = [[name + member[0], *member[1:4], f"again {member[0]}"] for member in event["members"]]
    story.again(event, 0.5, id="msgbatch_again", members=members)


def send_together(story: Story) -> None:
    """As if more calls had gone in a batch than it may have."""
    event, member = taken(story)
    event["members"] += [[f"{member[0]}{n}", *member[1:3], "api_error", f"more {n}"] for n in range(4)]


def answer_unasked(story: Story) -> None:
    """As if the provider had taken no batch with a call that has its answer."""
    event, member = taken(story)
    event["members"].remove(member)


def cancel_too_soon(story: Story) -> None:
    event, member = taken(story)
    story.history.append({**event, "what": "batch.canceled", "at": event["at"] - 60.0, "members": [member[0]]})


def have_another_fate(story: Story) -> None:
    _, member = taken(story)
    member[3] = "expired"


def ask_for_ever(story: Story) -> None:
    """As if a step had never been told of its call, in a run that is done."""
    story.remove(told(story, "done"))


def ask_live(story: Story) -> None:
    """As if a call had never been in any batch, in all that the history has of it."""
    _, (_, run, step, *_) = taken(story)
    for event in story.history:
        if event["what"] in ("batch.taken", "batch.refused"):
            event["members"] = [member for member in event["members"] if member[1:3] != [run, step]]


PLANTED: dict[str, tuple[str, Callable[[Story], Any]]] = {
    "a batch that is sent twice": ("I22…was sent twice as", send_twice),
    "a call that is sent again, though it is done": ("I22…though that is done", lambda s: send_twice(s, name="new")),
    "a batch that is larger than it may be": ("I22…go together", send_together),
    "a batch of which the log knows nothing": ("I22…0 times that it was sent", lambda s: s.remove(sent(s))),
    "a batch that is recorded twice": ("I22…2 times that it was sent", lambda s: s.add_record(sent(s))),
    "a batch that the provider never had": (
        "I22…with 1 calls, of None",
        lambda s: s.change(sent(s), fact__id="msgbatch_0", fact__count=1),
    ),
    "a batch that is cancelled, and waited for": ("I22…waits for it", cancel_too_soon),
    "an answer that is recorded twice": ("I22…2 times in the log", lambda s: s.add_record(answered(s))),
    "an answer that is lost": ("I22…0 times in the log", lambda s: s.remove(answered(s))),
    "an answer that is spent besides": (
        "I22…2 times in the log",
        lambda s: s.add(
            answered(s), fact={"type": "spent", "work": {"request_id": (answered(s).body or {})["fact"]["request_id"]}}
        ),
    ),
    "an answer of another call": (
        "I22…the provider did not give it",
        lambda s: s.change(answered(s), fact__request_id="of another"),
    ),
    "an answer at the price of a live one": (
        "I22…half of the list price",
        lambda s: s.change(answered(s), fact__cost_usd=45e-6),
    ),
    "an answer of no batch": ("I22…the provider had 0 calls", ask_live),
    "an answer to what is not in its batch": ("I22…the provider did not give it", answer_unasked),
    "a step that is told of success, where there is none": ("I22…was told that", have_another_fate),
    "a step that is told of a doubt": (
        "I22…came to batch_in_doubt",
        lambda s: s.change(told(s, "failed"), outcome__error__type="batch_in_doubt"),
    ),
    "a step that is never told": ("I12…for ever", ask_for_ever),
    "a call that is gathered elsewhere": (
        "I12…was handed to",
        lambda s: s.records.__setitem__(
            s.records.index(s.find("handoff.-batch-")), s.find("handoff.-batch-")._replace(who="-batch-else")
        ),
    ),
}


def test_checker_finds_nothing_where_calls_go_in_batches_and_only_the_provider_breaks(story: Story) -> None:
    assert story.violations() == []
    fates = {member[3] for event in story.history if event["what"] == "batch.taken" for member in event["members"]}
    assert fates >= {"succeeded", "expired", "api_error"}
    assert {event["fault"] for event in story.history if event["what"] == "batch.taken"} >= {"", "cut"}
    assert any(len(event["members"]) > 1 for event in story.history if event["what"] == "batch.refused")


@pytest.mark.parametrize("what", PLANTED)
def test_checker_finds_what_is_planted(what: str, story: Story) -> None:
    expected, plant = PLANTED[what]
    plant(story)
    assert_found(story, expected)


async def test_batches_are_sent_once_while_workers_and_connections_break(tmp_path: Path) -> None:
    report = await run_chaos(Options(seed=3, runs=4, kills=3, gap_s=0.4, flows=("batches",), full_disk=False), tmp_path)
    assert report.violations == []
    assert report.kills >= 3
    assert (report.lost, report.doubled, report.wrong) == (0, 0, 0)
