"""The crash driver where money is limited, on a small scale, and its checker, which must find what is planted."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .chaos.driver import Options, run_chaos
from .chaos.history import Event
from .chaos.raw import Record, Seen
from .spoilt import Story, assert_found, left_by

QUIET = Options(seed=40, runs=7, kills=0, flows=("spend", "park"), full_disk=False, forgers=False)
"""Of these runs one is over its budget, and one waited for more."""
HELD = 2**64


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, list[Event]]:
    """What a run left behind in which nothing broke."""
    return left_by(QUIET, tmp_path_factory.mktemp("quiet"))


@pytest.fixture
def story(quiet: tuple[Seen, list[Event]]) -> Story:
    return Story(*quiet)


def counter(story: Story, name: str) -> Record:
    """The last number that was added to a counter whose name has this."""
    found: Record = next(each for each in reversed(story.spent) if name in each.subject)
    return found


def stand_at(story: Story, name: str, *, more: int) -> None:
    last = counter(story, name)
    assert last.body is not None
    body = {"val": str(int(last.body["val"]) + more)}
    story.spent[story.spent.index(last)] = last._replace(body=body, data=json.dumps(body).encode())


def paid(story: Story, flow: str) -> Record:
    """A call that was paid, in the log."""
    return story.find(f"note.{flow}--researcher…model-")


def pay_more(story: Story, tokens: int) -> None:
    story.change(paid(story, "park"), fact__usage__output_tokens=tokens)


def over_budget(story: Story) -> Record:
    """The result of a run that had too little."""
    return next(
        each
        for each in story.records
        if each.kind == "result"
        and each.body
        and each.body["status"] == "failed"
        and (each.body.get("outcome") or {}).get("error", {}).get("type") == "over_budget"
    )


def waited(story: Story) -> Record:
    """The note of a step that waited for its budget."""
    return story.find("note.park--…waits-budget-", lambda body: body["fact"]["what"] == "budget")


def allow_all(story: Story, run: str) -> None:
    """As if what a run was to spend had never come near to what it may."""
    story.spent = [each for each in story.spent if f".{run}." not in each.subject and ".flow." not in each.subject]


def fail_with_enough(story: Story) -> None:
    allow_all(story, over_budget(story).run)


def wait_with_enough(story: Story) -> None:
    allow_all(story, waited(story).run)


def wait_where_it_is_to_end(story: Story) -> None:
    note = paid(story, "spend")
    body = copy.deepcopy(note.body)
    assert body is not None
    body["fact"] = {"type": "waits", "what": "budget", "reason": "more", "of_run": note.run}
    key = "waits-budget-0"
    story.add_record(
        note._replace(body=body, subject=note.subject.replace(note.rest[1], key), rest=(note.rest[0], key))
    )


def end_where_it_is_to_wait(story: Story) -> None:
    reply = story.find("reply.park--closer…close.facts-")
    error = {"step": reply.rest[1], "type": "over_budget", "message": "no more"}
    story.change(reply, outcome={"status": "failed", "error": error})


def wait_for_ever(story: Story) -> None:
    note = waited(story)
    step = note.rest[0]
    story.records = [
        each
        for each in story.records
        if each.run != note.run or not (each.kind == "reply" and each.rest[1:] == (step,))
    ]


def never_come_back(story: Story) -> None:
    """As if a step that waited had not been brought back, and its run had not ended."""
    run = waited(story).run
    story.records = [
        each
        for each in story.records
        if each.run != run
        or not (each.kind == "result" or (each.kind == "handoff" and each.rest[-1].startswith("wake-")))
    ]


def day(story: Story) -> str:
    return str(next(each.subject for each in reversed(story.spent) if ".flow.spend." in each.subject))


PLANTED: dict[str, tuple[str, Callable[[Story], Any]]] = {
    "a counter that says less than the log": ("I21…tokens, the log", lambda s: pay_more(s, 8)),
    "a counter that says more than the log": (
        "I21…usd, the log",
        lambda s: stand_at(s, f".run.{paid(s, 'spend').run}.usd", more=1),
    ),
    "a run that pays for more than it may": ("I21…has paid for", lambda s: pay_more(s, 10**6)),
    "a counter that comes to more than it may": (
        "I21…came to more than",
        lambda s: stand_at(s, f".run.{paid(s, 'spend').run}.usd", more=10**9),
    ),
    "a counter that holds something in the end": (
        "I21…in the end",
        lambda s: stand_at(s, f".run.{paid(s, 'park').run}.tokens", more=HELD),
    ),
    "a day that says less than the log": ("I21…by its days", lambda s: stand_at(s, day(s), more=-1)),
    "a day that comes to more than it may": ("I21…usd of a day", lambda s: stand_at(s, day(s), more=10**9)),
    "a day that holds something in the end": ("I21…in the end", lambda s: stand_at(s, day(s), more=HELD)),
    "a run that failed, and had enough": ("I21…failed for its budget, and there was enough", fail_with_enough),
    "a step that waited, and had enough": ("I21…waited for its budget, and there was enough", wait_with_enough),
    "a step that waits where the run is to end": ("I21…was to end the run", wait_where_it_is_to_end),
    "a run that ends where a step is to wait": ("I21…was to wait for more", end_where_it_is_to_wait),
    "a step that waits for ever": ("I21…for ever", wait_for_ever),
    "a run that waits for ever": ("I2…has no result", never_come_back),
    "a word that allows more, and is refused": (
        "I17…its run was under way",
        lambda s: s.change(s.find("say.-budget.", lambda b: "eur" in b["answer"]), answer={"tokens": 10**6}),
    ),
}


def test_checker_finds_nothing_where_money_is_limited_and_nothing_breaks(story: Story) -> None:
    assert story.violations() == []
    assert over_budget(story).run != waited(story).run


@pytest.mark.parametrize("what", PLANTED)
def test_checker_finds_what_is_planted(what: str, story: Story) -> None:
    expected, plant = PLANTED[what]
    plant(story)
    assert_found(story, expected)


async def test_counters_say_what_the_log_says_while_workers_and_connections_break(tmp_path: Path) -> None:
    report = await run_chaos(
        Options(seed=3, runs=8, kills=3, gap_s=0.4, flows=("spend", "park"), full_disk=False), tmp_path
    )
    assert report.violations == []
    assert report.kills >= 3
    assert (report.lost, report.doubled, report.wrong) == (0, 0, 0)
