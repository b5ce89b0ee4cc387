"""The crash driver where handlers ask, on a small scale, and its checker, which must find what is planted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .chaos.driver import Options, run_chaos
from .chaos.history import Event
from .chaos.raw import Record, Seen
from .spoilt import Story, left_by

QUIET = Options(seed=5, runs=5, kills=0, flows=("ask",), full_disk=False, apart=False)
ANOTHER = "zzzzzzzzzzzzzzzzzzzz"
"""The key of a child that nobody asked for."""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, list[Event]]:
    """What a run left behind in which nothing broke but what handlers break themselves."""
    return left_by(QUIET, tmp_path_factory.mktemp("quiet"))


@pytest.fixture
def story(quiet: tuple[Seen, list[Event]]) -> Story:
    return Story(*quiet)


def an_answer(story: Story, *, wakes: bool = False, child: str = "helper--k") -> Record:
    """An answer of a child of a step of the flow; one that was done well."""

    def fits(body: dict[str, Any]) -> bool:
        is_answer = body["kind"] == "answer" and body["child"].startswith(child)
        return (
            is_answer
            and "output" in body["outcome"]
            and body["step"] in ("lead", "drive")
            and ("wakes" in body) is wakes
        )

    return story.find("answer.ask--", fits)


def a_parked(story: Story) -> Record:
    return story.find("answer.ask--", lambda body: body["kind"] == "parked")


def behind(story: Story, parked: Record) -> Record:
    """The answer to what a step was parked upon."""
    return next(each for each in story.records if each.subject == parked.subject and each.seq > parked.seq)


def brought_back(story: Story, parked: Record) -> Record:
    return next(each for each in story.records if each.rest[-1:] == (f"wake-s{parked.seq}",))


def asked(story: Story, answer: Record) -> Record:
    """The handoff of the child that this answers."""
    assert answer.body is not None
    return story.find(f"handoff…{answer.run}.{answer.body['child']}.")


def lose_a_waking(story: Story) -> None:
    answer = an_answer(story, wakes=True)
    assert answer.body is not None
    story.remove(story.find(f"handoff…{answer.run}…wake-s{answer.body['wakes']['parked']}"))


def lose_a_waking_and_the_run(story: Story) -> None:
    answer = an_answer(story, wakes=True)
    lose_a_waking(story)
    story.remove(story.find(f"result.ask.{answer.run}."))


def leave_it_parked(story: Story) -> None:
    parked = a_parked(story)
    story.remove(brought_back(story, parked))
    story.remove(behind(story, parked))


def park_behind_an_answer(story: Story) -> None:
    answer = an_answer(story)
    parked = a_parked(story)
    assert answer.body is not None
    body = dict(parked.body or {}) | {name: answer.body[name] for name in ("run", "step", "child")}
    story.records.append(answer._replace(seq=story.records[-1].seq + 1, body=body, data=json.dumps(body).encode()))


def ack_before_parked(story: Story) -> None:
    parked = a_parked(story)
    assert parked.body is not None
    handoffs = [each for each in story.records if each.kind == "handoff" and each.run == parked.run]
    first = next(each for each in handoffs if each.seq == parked.body["seq"])
    story.event("delivery.acked", seq=first.seq, kind="handoff")["at"] = parked.at_s - 0.001


def ask_what_is_not_to_be_asked(story: Story) -> None:
    handoff = asked(story, an_answer(story))
    story.records.append(_as_another(handoff, story, topic="what nobody asks"))


def ask_the_same_under_another_name(story: Story) -> None:
    story.records.append(_as_another(asked(story, an_answer(story)), story))


def _as_another(handoff: Record, story: Story, **arguments: str) -> Record:
    body: dict[str, Any] = json.loads(handoff.data)
    body["state"]["input"] |= arguments
    token, asker = handoff.rest
    another = token.partition("--k")[0] + "--k" + ANOTHER
    body["step"] = another
    return handoff._replace(
        seq=story.records[-1].seq + 1,
        subject=handoff.subject.replace(token, another),
        rest=(another, asker),
        body=body,
        data=json.dumps(body).encode(),
    )


def wake_without_a_word(story: Story) -> None:
    handoff = brought_back(story, a_parked(story))
    source = f"wake-s{handoff.seq}"
    subject = handoff.subject.rpartition(".")[0] + f".{source}"
    rest = (handoff.rest[0], source)
    story.records.append(handoff._replace(seq=story.records[-1].seq + 1, subject=subject, rest=rest))


def sleep_too_short(story: Story) -> None:
    story.excuse_nothing()  # how far a clock may be off follows from how long anybody stood still
    answer = next(e for e in story.records if e.kind == "answer" and e.body and e.body["child"].startswith("sleep--k"))
    assert answer.body is not None
    due_s = asked_by_token(story, answer).body["cause"]["due_s"]  # type: ignore[index]
    story.records[story.records.index(answer)] = answer._replace(at_s=due_s - 0.2)


def asked_by_token(story: Story, answer: Record) -> Record:
    assert answer.body is not None
    return next(e for e in story.records if e.kind == "handoff" and e.rest[0] == answer.body["child"])


def tell_another_story(story: Story) -> None:
    """As if a step that was done again had been given something else the second time."""
    seen = story.event("step.saw", run=an_answer(story).run, step="lead")
    story.again(seen, 0.1, value="something else")


def tell_what_is_not_in_the_log(story: Story) -> None:
    seen = [e for e in story.history if e["what"] == "step.saw" and json.loads(e["words"])[0] == "record"]
    for event in (e for e in seen if (e["run"], e["step"]) == (seen[0]["run"], seen[0]["step"])):
        event["value"] = 1


def record_again(story: Story) -> None:
    made = story.event("step.makes", run=an_answer(story).run, step="lead")
    note = story.find(f"note.ask--boss.{made['run']}.lead.rec-", lambda body: body["fact"]["name"] == made["name"])
    began = story.event("step.began", attempt=made["attempt"])
    story.again(began, 0.0, attempt="again", knew_at=note.at_s + 1.0, looked=True)
    story.again(made, 1.0, attempt="again")


def make_twice(story: Story) -> None:
    story.excuse_nothing()
    well = ("done", "cancelled")  # as it was parked
    ended = {event["attempt"] for event in story.history if event["what"] == "step.ended" and event["how"] in well}
    made = next(e for e in story.history if e["what"] == "step.makes" and e["attempt"] in ended)
    story.again(made, 0.0001)


def run_too_many(story: Story) -> None:
    began = story.event("step.began", step="lead")
    for number in range(2):
        story.again(began, 0.0, attempt=f"more-{number}")


def buy_twice(story: Story) -> None:
    answered = next(e for e in story.history if e["what"] == "model.answered" and e["run"] in _done(story))
    story.again(answered, 0.0001)
    story.excuse_nothing()


def _done(story: Story) -> set[str]:
    return {an_answer(story, child="oracle--k").run}


PLANTED: dict[str, tuple[str, Callable[[Story], object]]] = {
    "two answers": ("I12", lambda s: s.add(an_answer(s))),
    "a step parked behind an answer": ("I12", park_behind_an_answer),
    "an answer that lets its step sleep": ("I12", lambda s: s.change(behind(s, a_parked(s)), wakes=None)),
    "an answer that wakes another": ("I12", lambda s: s.change(an_answer(s, wakes=True), wakes__parked=1)),
    "a waking that is lost": ("I9", lose_a_waking),
    "a waking that is lost with its run": ("I12", lose_a_waking_and_the_run),
    "a mark of another parking": ("I12", lambda s: s.change(a_parked(s), first=1)),
    "a step that is parked for ever": ("I12", leave_it_parked),
    "a step that is woken without a word": ("I12", wake_without_a_word),
    "an answer that is not in the log": ("I8", lambda s: s.remove(an_answer(s))),
    "an answer that is wrong": ("I8", lambda s: s.change(an_answer(s), outcome__output="wrong")),
    "an answer in another's place": ("I12", lambda s: s.change(an_answer(s), child=f"helper--k{ANOTHER}")),
    "an ack before it is parked": ("I9", ack_before_parked),
    "a question that is not to be asked": ("I12", ask_what_is_not_to_be_asked),
    "a question under two names": ("I12", ask_the_same_under_another_name),
    "a sleep that is too short": ("I12", sleep_too_short),
    "two histories": ("I13", tell_another_story),
    "a value that is not the recorded one": ("I13", tell_what_is_not_in_the_log),
    "a value recorded again": ("I14", record_again),
    "a value made twice": ("I14", make_twice),
    "a value that was not recorded": ("I13", lambda s: s.remove(s.find("note.ask--boss…lead.rec-"))),
    "more handlers at once than may run": ("I15", run_too_many),
    "an answer of a model bought twice": ("I3", buy_twice),
    "an answer of a model that was not recorded": ("I3", lambda s: s.remove(s.find("note.ask--oracle…model"))),
}


def test_checker_finds_nothing_where_handlers_ask_and_nothing_breaks(story: Story) -> None:
    assert story.violations() == []
    assert {"answer", "parked"} <= {each.body["kind"] for each in story.records if each.kind == "answer" and each.body}


@pytest.mark.parametrize("what", PLANTED)
def test_checker_finds_what_is_planted(what: str, story: Story) -> None:
    invariant, plant = PLANTED[what]
    plant(story)
    assert invariant in {violation.split()[0] for violation in story.violations()}


async def test_handlers_that_ask_come_to_their_end_while_workers_and_connections_break(tmp_path: Path) -> None:
    report = await run_chaos(Options(seed=2, runs=6, kills=2, gap_s=0.4, flows=("ask",)), tmp_path)
    assert report.violations == []
    assert report.kills >= 2
    assert (report.lost, report.doubled, report.wrong) == (0, 0, 0)
