"""The crash driver with people, events and runs within runs, and its checker, which must find what is planted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .chaos.driver import Options, run_chaos
from .chaos.history import Event
from .chaos.raw import Record, Seen
from .chaos.said import HELD_S
from .chaos.within import GOES_ON_S
from .spoilt import Story, assert_found, left_by

QUIET = Options(seed=268, runs=6, kills=0, flows=("people", "nest"), full_disk=False, apart=False)
"""Of these runs none is cancelled, two have two who wait for one event, and no run within another fails for good."""
ANOTHER = "zzzzzzzzzzzzzzzzzzzz"
"""The key of a child that nobody asked for."""

Where = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Seen, list[Event]]:
    """What a run left behind in which nothing broke but what handlers break themselves."""
    return left_by(QUIET, tmp_path_factory.mktemp("quiet"))


@pytest.fixture
def story(quiet: tuple[Seen, list[Event]]) -> Story:
    return Story(*quiet)


def swap(story: Story, one: Record, other: Record) -> None:
    """Have each come when the other did."""
    at, behind = story.records.index(one), story.records.index(other)
    story.records[at] = other._replace(seq=one.seq, at_s=one.at_s)
    story.records[behind] = one._replace(seq=other.seq, at_s=other.at_s)


def put(story: Story, record: Record, another: Record) -> None:
    story.records[story.records.index(record)] = another


def with_body(record: Record, body: dict[str, Any]) -> Record:
    return record._replace(body=body, data=json.dumps(body).encode())


# ---- people and events ---------------------------------------------------------------------------


def answered(story: Story, actor: str = "people--desk", where: Where = lambda _: True) -> Record:
    """An answer that somebody gave."""
    return story.find(f"answer.{actor}.", lambda body: body.get("say") and where(body))


def of_an_event(story: Story) -> Record:
    return answered(story, where=lambda body: body["child"].startswith("paid--k"))


def of_a_choice(story: Story) -> Record:
    """An answer to somebody who may answer yes or no."""
    return answered(story, where=lambda body: body["outcome"].get("output") in ("yes", "no"))


def by_itself(story: Story) -> Record:
    """An answer that nobody gave in time, to a question of a step that is a person."""
    return story.find("answer.leaf--approve.", lambda body: body["kind"] == "answer" and not body.get("say"))


def withdrawn(story: Story) -> Record:
    return story.find("answer.people--desk.", lambda body: body.get("outcome", {}).get("status") == "failed")


def word_of(story: Story, answer: Record) -> Record:
    assert answer.body is not None
    return next(each for each in story.records if each.seq == answer.body["say"])


def asked(story: Story, answer: Record) -> Record:
    """The handoff of what this answers."""
    assert answer.body is not None
    return story.find(f".{answer.run}.{answer.body['child']}.")


def refuse(story: Story, word: Record, *, instead_of: Record) -> None:
    """Note that a word was refused, where another record is."""
    note = next(r for r in story.records if r.who == "-person" and r.body and r.body["kind"] == "note")
    assert note.body is not None
    fact = note.body["fact"] | {"seq": word.seq}
    refused = note._replace(seq=instead_of.seq, at_s=instead_of.at_s, run=instead_of.run)
    put(story, instead_of, with_body(refused, note.body | {"fact": fact}))


def take_twice(story: Story) -> None:
    first = of_a_choice(story)
    assert first.body is not None
    say = first.body["say"]
    second = answered(story, f"people--desk.{first.run}", lambda body: body["say"] != say)
    story.change(second, say=say)


def take_and_refuse(story: Story) -> None:
    last = next(r for r in story.records if r.kind == "note" and r.who == "-person")
    refuse(story, word_of(story, of_a_choice(story)), instead_of=last)


def refuse_what_is_right(story: Story) -> None:
    answer = answered(story, "people--approve")
    refuse(story, word_of(story, answer), instead_of=answer)


def refuse_an_event(story: Story) -> None:
    answer = of_an_event(story)
    refuse(story, word_of(story, answer), instead_of=answer)


def say_before_it_was_asked(story: Story) -> None:
    """As if an answer had been there before its word was."""
    answer = of_a_choice(story)
    word = word_of(story, answer)
    story.records.remove(word)
    story.add_record(word)
    story.change(answer, say=story.records[-1].seq)


def take_what_is_no_answer(story: Story) -> None:
    answer = of_a_choice(story)
    story.change(word_of(story, answer), answer="perhaps")
    story.change(answer, outcome__output="perhaps")


def give_the_second_word_first(story: Story) -> None:
    """Two wait for one event in one run."""
    answers = [
        r for r in story.records if r.kind == "answer" and r.body and r.body.get("child", "").startswith("paid--k")
    ]
    said = [each for each in answers if each.body and each.body.get("say")]
    first, second = next(
        (a, b) for a in said for b in said if a.run == b.run == story.find(f"result.people.{a.run}.").run and a != b
    )
    assert first.body is not None
    assert second.body is not None
    one, other = first.body, second.body
    story.change(first, say=other["say"], outcome=other["outcome"], who=other.get("who", ""))
    story.change(second, say=one["say"], outcome=one["outcome"], who=one.get("who", ""))


def say_nothing_of_what_is_wrong(story: Story) -> None:
    wrong = story.event("word.wrong")
    story.records = [
        r for r in story.records if not (r.kind == "note" and r.body and r.body["fact"].get("seq") == wrong["seq"])
    ]


def hold(story: Story) -> None:
    """As if who waits for a person had stayed in its worker until the answer came."""
    answer, result = by_itself(story), result_of(story, by_itself(story).run)
    began = story.event("step.began", run=answer.run, step=answer.rest[0], number=1)
    story.excuse_nothing()
    late_s = asked(story, answer).at_s + HELD_S + 1.0
    story.event("step.ended", attempt=began["attempt"])["at"] = late_s
    put(story, answer, answer._replace(at_s=late_s))
    put(story, result, result._replace(at_s=late_s))


# ---- runs within runs ----------------------------------------------------------------------------


def begun(story: Story) -> Record:
    """The first handoff of the run that the step `whole` of a run asked for; both are done."""
    above = story.find("result.nest.").run

    def fits(body: dict[str, Any]) -> bool:
        said = body["cause"].get("begins", {}).get("parent", {})
        return (said.get("run"), said.get("step")) == (above, "whole")

    return story.find(f"handoff.inner--opener.{above}--k…start", fits)


def parent(start: Record) -> dict[str, Any]:
    assert start.body is not None
    found: dict[str, Any] = start.body["cause"]["begins"]["parent"]
    return found


def asked_for(story: Story, start: Record) -> Record:
    """What asked for this run."""
    said = parent(start)
    return story.find(f"handoff.-flow.{said['run']}.{said['child']}.")


def answer_of(story: Story, start: Record) -> Record:
    said = parent(start)
    return story.find(
        f"answer…{said['run']}.{said['step']}.", lambda b: b["kind"] == "answer" and b["child"] == said["child"]
    )


def result_of(story: Story, run: str) -> Record:
    return next(r for r in story.records if r.kind == "result" and r.run == run)


def begin_twice(story: Story) -> None:
    start = begun(story)
    run = start.run.rpartition("--k")[0] + f"--k{ANOTHER}"
    story.add_record(start._replace(run=run, subject=start.subject.replace(start.run, run)))
    story.change(story.records[-1], run=run)


def end_what_never_began(story: Story) -> None:
    result = result_of(story, begun(story).run)
    run = f"{result.run}--k{ANOTHER}"
    story.add_record(result._replace(run=run, subject=result.subject.replace(result.run, run)))


def never_begin(story: Story) -> None:
    run = begun(story).run
    story.records = [r for r in story.records if not r.run.startswith(run)]
    story.history = [e for e in story.history if not e.get("run", "").startswith(run)]


def go_on_after_the_end(story: Story) -> None:
    start = begun(story)
    ended = result_of(story, parent(start)["run"])
    story.excuse_nothing()
    began = story.event("step.began", run=start.run, step="close")
    story.again(began, ended.at_s - began["at"] + GOES_ON_S + 1.0, attempt="late")


PLANTED: dict[str, tuple[str, Callable[[Story], object]]] = {
    # what holds of words and events, and in which words the checker says so
    "a word that is two answers": ("I17…is the answer of", take_twice),
    "an answer that nobody gave": ("I17…which nobody said", lambda s: s.change(of_a_choice(s), say=10**9)),
    "a word taken and refused": ("I17…was taken and refused", take_and_refuse),
    "a right word refused": ("I17…was open", refuse_what_is_right),
    "an event refused": ("I17…its run was under way", refuse_an_event),
    "a word come to nothing": ("I17…has come to nothing", lambda s: s.add_record(word_of(s, of_a_choice(s)))),
    "a wrong word that nobody noted": ("I17…is wrong, and nobody was told", say_nothing_of_what_is_wrong),
    "a question taken back too early": ("I17…takes back", lambda s: swap(s, withdrawn(s), asked(s, withdrawn(s)))),
    "a default where there is no deadline": ("I17…has no deadline", lambda s: s.change(of_a_choice(s), say=None)),
    "a default before its time": (
        "I17…before its time",
        lambda s: put(s, by_itself(s), by_itself(s)._replace(at_s=asked(s, by_itself(s)).at_s)),
    ),
    "a question that failed by itself": (
        "I17…came by itself, as Odd",
        lambda s: s.change(by_itself(s), outcome={"status": "failed", "error": {"step": "rate", "type": "Odd"}}),
    ),
    "an answer before its word": ("I17…before the word", say_before_it_was_asked),
    "an answer to another": (
        "I17…a word to another",
        lambda s: put(s, word_of(s, of_a_choice(s)), word_of(s, of_a_choice(s))._replace(who="another")),
    ),
    "an event for a person": (
        "I17…a word of another kind",
        lambda s: put(s, word_of(s, of_a_choice(s)), word_of(s, of_a_choice(s))._replace(rest=("-",))),
    ),
    "an answer that is none": ("I17…is no answer to", take_what_is_no_answer),
    "an answer that is not what was said": (
        "I17…is not what was said",
        lambda s: s.change(of_a_choice(s), outcome__output="perhaps"),
    ),
    "a name that nobody gave": ("I17…has who", lambda s: s.change(of_a_choice(s), who="somebody")),
    "the second word first": ("I17…got the words", give_the_second_word_first),
    "a worker that is held": ("I17…was held", hold),
    "two answers of people": ("I12", lambda s: s.add(of_a_choice(s))),
    # what holds of runs within runs
    "a run that nobody asked for": (
        "I18…by no step of",
        lambda s: s.change(begun(s), cause__begins__parent__child=f"whole--k{ANOTHER}"),
    ),
    "a run that another asked for": (
        "I18…says that run asked for it",
        lambda s: s.change(begun(s), cause__begins__parent__step="run"),
    ),
    "a run begun before it was asked for": ("I18…began before", lambda s: swap(s, begun(s), asked_for(s, begun(s)))),
    "a run of another flow": ("I18…is one of leaf", lambda s: s.change(begun(s), flow="leaf")),
    "a run with another input": ("I18…another key", lambda s: s.change(begun(s), state__input__key="another")),
    "a run answered before its end": (
        "I18…answered before it had ended",
        lambda s: swap(s, answer_of(s, begun(s)), result_of(s, begun(s).run)),
    ),
    "a run that outlives what waits for it": (
        "I18…which waits for it, was done",
        lambda s: swap(s, result_of(s, begun(s).run), result_of(s, parent(begun(s))["run"])),
    ),
    "a run begun twice": ("I18…was begun as", begin_twice),
    "a run ended that never began": ("I18…has ended, and never begun", end_what_never_began),
    "a run that goes on for nobody": ("I18…after the end of the run that asked for it", go_on_after_the_end),
    "a run answered that never began": ("I8", never_begin),
    "a run that comes to something else": ("I8", lambda s: s.change(answer_of(s, begun(s)), outcome__output="else")),
    "a run that is not ended": ("I2", lambda s: s.remove(result_of(s, begun(s).run))),
    "a run cancelled by itself": ("I2", lambda s: s.change(result_of(s, begun(s).run), status="cancelled")),
}


def test_checker_finds_nothing_where_people_and_runs_are_asked_and_nothing_breaks(story: Story) -> None:
    assert story.violations() == []


@pytest.mark.parametrize("what", PLANTED)
def test_checker_finds_what_is_planted(what: str, story: Story) -> None:
    expected, plant = PLANTED[what]
    plant(story)
    assert_found(story, expected)


async def test_people_are_heard_and_runs_within_runs_end_while_workers_and_connections_break(tmp_path: Path) -> None:
    report = await run_chaos(Options(seed=2, runs=8, kills=2, gap_s=0.4, flows=("people", "nest")), tmp_path)
    assert report.violations == []
    assert report.kills >= 2
    assert (report.lost, report.doubled, report.wrong) == (0, 0, 0)
