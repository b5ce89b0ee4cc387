"""Rows of what steps asked for: below who asked, numbered, shortened, folded where they are many, and paid for once."""

from __future__ import annotations

import io
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from rich.console import Console, RenderableType

from baton_actors.cli.output import print_json
from baton_actors.cli.show.lost import with_lost
from baton_actors.cli.show.run_page import run_page
from baton_actors.cli.show.step_lines import errors_of
from baton_actors.cli.show.step_page import step_page
from baton_actors.cli.show.steps_table import in_brief
from baton_actors.cli.show.why import look_at, why
from baton_actors.models.run_facts import run_facts
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.brought import brought_by
from baton_schemas.show.children import Children, short_name
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import Row, rows_of
from baton_schemas.show.seeing import see, wanted
from baton_schemas.show.step_facts import step_facts
from baton_schemas.show.unfolding import CHILDREN_MAX
from baton_schemas.wire.facts import Recorded, Unasked
from baton_schemas.wire.messages import Message, Question
from baton_schemas.wire.outcomes import Usage

from .logs import answer, asked, child, done, failed, first, log, logs, note, outcome, parked, result, second

USAGE = Usage(input_tokens=10, output_tokens=2)


def text_of(shown: RenderableType, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False, highlight=False).print(shown)
    return file.getvalue()


def run_of(*messages: Message) -> RunState:
    """A run whose first step, `split`, does all this."""
    return fold(log(first("split"), *messages))


def rows(state: RunState, **more: object) -> list[Row]:
    return rows_of(state, plan_of(state), **more)  # type: ignore[arg-type]


def below(state: RunState, **more: object) -> list[Row]:
    """The rows of children."""
    return [row for row in rows(state, **more) if row.depth]


def page(state: RunState, width: int = 80) -> str:
    return text_of(run_page(state, rows(state)), width)


def many(count: int, answered: int) -> RunState:
    asks = [asked("split", "researcher", number, topic=f"tea {number}") for number in range(1, count + 1)]
    return run_of(*asks, *(answer("split", "researcher", done("x"), number) for number in range(1, answered + 1)))


def test_child_stands_below_its_asker_with_what_it_was_asked() -> None:
    state = run_of(asked("split", "researcher", topic="the price of tea", depth=3))
    split, researcher, *others = rows(state)
    assert [row.step for row in others] == ["facts", "digest", "merge"]
    assert (split.status, split.awaits, split.parked) == ("running", "researcher #1", False)
    assert (researcher.step, researcher.depth, researcher.asker) == ("researcher#1", 1, "split")
    assert (researcher.asked, researcher.token) == ("topic=the price of tea, depth=3", child("split", "researcher"))
    lines = page(state).splitlines()
    assert lines[3].split()[:4] == ["●", "split", "asks", "researcher"]
    assert lines[4].startswith("  · researcher #1  topic=")
    assert "0 of 4 steps · 1 asked" in lines


def test_long_arguments_are_shortened_and_those_of_strangers_cannot_break_a_line() -> None:
    row = below(run_of(asked("split", "researcher", topic="\x1b[31m\n" + "tea " * 50_000)))[0]
    assert len(row.asked) == 40
    shown = page(run_of(asked("split", "researcher", topic="\x1b[31m\n" + "tea " * 50_000)))
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("count", [6, 30, 10_000])
def test_many_that_are_alike_share_a_row(count: int) -> None:
    state = many(count, answered=count - 2)
    (row,) = below(state)
    assert (row.step, row.ended, row.count, row.status) == ("researcher", count - 2, count, "running")
    shown = page(state)
    assert f"● researcher ×{count:,}  " in shown  # noqa: RUF001
    assert f"{count - 2:,} done, 2 running" in shown
    assert f"{count:,} asked" in shown
    assert len(shown.splitlines()) <= 12
    facts = msgspec.json.encode(run_facts(state, rows(state)))
    assert len(facts) < 4_000


def test_children_of_children_stand_below_them_eight_deep() -> None:
    asker, messages = "split", list[Message]()
    for depth in range(8):
        messages.append(asked(asker, "split", depth=depth))
        asker = child(asker, "split")
    state = run_of(*messages)
    assert [(row.step, row.depth) for row in below(state)] == [(f"split#{n}", n) for n in range(1, 9)]
    # That a child is called as a step of the flow makes it none of its branches.
    assert rows(state)[0].count == 0
    lines = page(state).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[11].strip().startswith("· split #8")


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from("ab")), max_size=60), st.integers(1, 40))
def test_any_tree_has_few_rows_and_none_of_it_is_left_out(tree: list[tuple[int, str]], children_max: int) -> None:
    names, messages = ["split"], list[Message]()
    for place, (asker, name) in enumerate(tree):
        by = names[min(asker, len(names) - 1)]
        messages.append(asked(by, name, place))
        names.append(child(by, name, place))
    found = below(run_of(*messages), children_max=children_max)
    hidden = rows(run_of(*messages), children_max=children_max)[0].hidden
    assert sum((row.count or 1) + row.hidden for row in found) + hidden == len(tree)
    assert len(found) <= children_max + 5  # all kinds of one asker have a row, whatever the room


def test_different_names_share_a_row_by_kind_when_they_are_many() -> None:
    events = [asked("split", f"page-{number}", kind="event") for number in range(300)]
    (row,) = below(run_of(*events))
    assert (row.step, row.count, row.kind, row.waiting) == ("events", 300, "event", 300)


def test_chain_of_thousands_is_drawn_as_far_as_there_is_room() -> None:
    asker, messages = "split", list[Message]()
    for _ in range(3_000):
        messages.append(asked(asker, "a"))
        asker = child(asker, "a")
    found = below(run_of(*messages))
    assert len(found) == CHILDREN_MAX
    assert found[-1].hidden == 3_000 - CHILDREN_MAX
    assert "asks 2,976 more" in page(run_of(*messages), 120)


def test_failed_children_are_told_by_name_and_did_not_break_the_run() -> None:
    name = child("split", "checker", 2)
    ended = [answer("split", "checker", failed(name), 2), answer("split", "checker", done("x"), 1)]
    state = run_of(asked("split", "checker", 1), asked("split", "checker", 2), *ended)
    assert [row.status for row in below(state)] == ["done", "failed"]
    assert [str(line) for line in errors_of(rows(state))] == ["✗ checker #2  Overloaded: no answer"]
    assert look_at(state, rows(state)) == "baton show r1 'checker#2'"
    # Whoever asked went on; what ended the run is another step's failure.
    broken: list[Message] = [
        outcome("split", done("[1]")),
        outcome("facts", failed("facts", "no facts")),
        result("failed"),
    ]
    state = run_of(asked("split", "checker", 2), ended[0], *broken)
    assert why(state) == "step 'facts' failed: Overloaded: no facts"


def test_failed_children_that_share_a_row_are_counted() -> None:
    asks = [asked("split", "checker", number) for number in range(1, 9)]
    ends = [answer("split", "checker", failed(child("split", "checker", n)), n) for n in range(1, 9)]
    part = run_of(*asks, *ends[:3])
    assert "5 running, 3 failed" in page(part)
    assert "✗ checker #1  Overloaded: no answer  and 2 more" in page(part)
    assert below(run_of(*asks, *ends))[0].status == "failed"
    assert "✗ checker ×8 8 failed" in " ".join(page(run_of(*asks, *ends)).split())  # noqa: RUF001


def test_parked_step_says_what_it_waits_for() -> None:
    state = run_of(asked("split", "researcher"), parked("split", "researcher"))
    split = rows(state)[0]
    assert (split.status, split.awaits, split.parked, split.waits) == ("queued", "researcher #1", True, "")
    assert "· split" in page(state)
    assert "asks researcher #1" in page(state)


def test_people_events_and_sleeps_say_what_is_waited_for() -> None:
    due_s = second(60).timestamp()
    state = run_of(
        asked("split", "editors", kind="person", question=Question(text="Print it?")),
        asked("split", "mail", kind="event"),
        asked("split", "sleep", kind="sleep", due_s=due_s),
    )
    person, event, sleep = below(state, now=second(30))
    assert (person.waits, person.asked) == ("a person", "Print it?")
    assert (event.waits, event.waits_s) == ("a word from outside", None)
    assert (sleep.waits, sleep.waits_s, sleep.asked) == ("its time", 30.0, "56.0 s")
    assert "· editors #1  waits for a person: Print it?" in page(state)
    assert below(state, now=second(61))[2].waits == ""


def test_what_is_not_asked_any_more_is_said_and_what_was_recorded_is_no_row() -> None:
    unasked = note("split", Unasked(children=[child("split", "researcher")], count=3))
    state = run_of(asked("split", "researcher"), note("split", Recorded(name="now")), unasked)
    assert rows(state)[0].unasked == 3
    assert len(below(state)) == 1
    assert "! split  asked before, and not now: 3" in page(state)


def test_children_of_a_cancelled_run_are_dropped() -> None:
    state = fold(
        log(
            first("split"),
            *(asked("split", "researcher", number) for number in range(1, 10)),
            asked(child("split", "researcher", 1), "checker"),
            answer("split", "researcher", done("x"), 2),
            parked("split", "researcher"),
            result("cancelled"),
        )
    )
    assert {row.status for row in below(state)} == {"dropped"}
    assert (rows(state)[0].awaits, rows(state)[0].parked) == ("", False)
    assert "1 done, 8 dropped" in page(state)


def test_brief_line_counts_what_was_asked() -> None:
    state = run_of(asked("split", "a", 1), asked("split", "a", 2), answer("split", "a", done("x"), 2))
    assert in_brief(rows(state)) == "split running (asked 1/2)"


def test_lost_child_waits_for_a_new_worker() -> None:
    state = run_of(asked("split", "a"))
    _, lost, *_ = with_lost(rows(state), {child("split", "a"): 4.0})
    assert (lost.waits, lost.waits_s) == ("a new worker", 4.0)


def test_names_of_children_count_in_the_order_of_the_log() -> None:
    state = run_of(asked("split", "b"), asked("split", "a", 7), asked(child("split", "b"), "a", 3))
    children = Children(state)
    assert children.label(child("split", "a", 7)) == "a #1"
    assert children.find("a#2") == children.find("a #2") == child(child("split", "b"), "a", 3)
    assert children.find("b") == child("split", "b")
    assert children.find(short_name(child("split", "a", 7))) == child("split", "a", 7)
    assert (short_name("digest-3"), short_name(""), children.find("a~"), children.find("a~zzzz")) == (
        "digest-3",
        "",
        "",
        "",
    )
    assert [children.find(text) for text in ("a", "a#3", "a#0", "a#", "c", "#1", "a#" + "9" * 5000)] == [""] * 7


costs = st.none() | st.integers(0, 9)


@given(st.lists(st.tuples(st.integers(0, 9), costs, st.booleans(), st.booleans()), max_size=12), costs)
def test_what_children_cost_is_in_the_cost_of_the_run_exactly_once(
    tree: list[tuple[int, int | None, bool, bool]], own: int | None
) -> None:
    names, messages, paid = ["split"], list[Message](), [own]
    for place, (asker, cost, ends_well, is_told_again) in enumerate(tree):
        by = names[min(asker, len(names) - 1)]
        names.append(child(by, "a", place))
        ended = done if ends_well else failed
        told = answer(by, "a", ended(names[-1], cost_usd=cost, usage=USAGE, attempt=1), place)
        messages += [asked(by, "a", place), told, *([told] if is_told_again else [])]
        paid.append(cost)
    state = run_of(*messages, outcome("split", done("[1]", cost_usd=own, usage=USAGE, attempt=1)))
    known = [cost for cost in paid if cost is not None]
    assert state.cost_usd == (sum(known) if known else None)
    assert state.usage.input_tokens == 10 * len(paid)
    assert sum(row.cost_usd or 0 for row in rows(state, children_max=10_000)) == sum(known)


def test_what_a_child_run_cost_is_told_by_that_run() -> None:
    asks = asked("split", "article", kind="flow")
    state = run_of(asks, answer("split", "article", done("x", cost_usd=3.0, usage=USAGE)))
    assert (state.cost_usd, below(state)[0].cost_usd) == (None, None)


@given(logs)
def test_any_log_is_drawn(entries: list[Entry]) -> None:
    state = fold(entries)
    plan = plan_of(state)
    found = rows_of(state, plan, now=second(100))
    for width in (1, 30, 80):
        text_of(run_page(state, found, second(100)), width)
    print_json(run_facts(state, found))
    assert look_at(state, found).startswith("baton show")
    assert in_brief(found)
    for number in range(1, len(entries) + 1):
        brought_by(plan, entries, number, {})
    children = Children(state)
    assert sum(1 for _ in children.by_token) == sum("--k" in name for name in state.steps)
    for token in children.by_token if plan is not None else ():
        assert plan is not None
        wanted(plan, state, entries, token)
        seen = see(plan, state, entries, token, now=second(100))
        assert seen.label == children.label(token)
        text_of(step_page(seen), 60)
        print_json(step_facts(seen))


def test_time_of_a_child_is_from_when_it_was_asked() -> None:
    state = run_of(asked("split", "a"), answer("split", "a", done("x")))
    step = state.steps[child("split", "a")]
    assert below(state)[0].elapsed_s == 1.0
    later = replace(state, steps=state.steps | {step.name: replace(step, ended_at=None, status="queued")})
    assert below(later, now=second(2) + timedelta(seconds=9))[0].elapsed_s == 9.0
