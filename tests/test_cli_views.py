"""What the command draws and reads, without a process: rows, lines, drawings, arguments and keys."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import Raw
from rich.console import Console, RenderableType

from baton_actors.cli.app import COMMANDS, load
from baton_actors.cli.commands.schedules import schedules_table
from baton_actors.cli.exits import BadArgument
from baton_actors.cli.inputs import read_pairs
from baton_actors.cli.keys import read_key
from baton_actors.cli.show.costs import cost_of, dollars
from baton_actors.cli.show.drawing import draw
from baton_actors.cli.show.log_lines import log_line
from baton_actors.cli.show.mermaid import mermaid_of
from baton_actors.cli.show.run_page import run_page
from baton_actors.cli.show.runs_table import runs_table
from baton_actors.cli.show.steps_table import steps_table
from baton_actors.cli.show.why import why
from baton_actors.models.run_facts import run_facts
from baton_bus.store.timers import Scheduled
from baton_schemas.errors import InputError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import Row, rows_of
from baton_schemas.show.summary import summarise
from baton_schemas.show.times import BadTime, read_time, short_time
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import Retry, Waits
from baton_schemas.wire.messages import Task
from baton_schemas.wire.outcomes import Error, Usage, Work

from .logs import done, failed, first, handoff, log, note, outcome, reply, result, second

USAGE = Usage(input_tokens=10, output_tokens=2)
NOW = datetime(2026, 11, 24, 18, 30, tzinfo=UTC)


def text_of(shown: RenderableType, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False, highlight=False).print(shown)
    return file.getvalue()


def fan_out(*more: object) -> list[Entry]:
    """A log in which `digest` has two branches beside `facts`, and `merge` joins all."""
    return log(
        first("split"),
        outcome("split", done("[1, 2]")),
        handoff("split", "digest-0", of=2),
        handoff("split", "digest-1", of=2),
        *more,  # type: ignore[arg-type]
    )


def rows(entries: list[Entry], **more: object) -> dict[str, Row]:
    state = fold(entries)
    return {row.step: row for row in rows_of(state, plan_of(state), **more)}  # type: ignore[arg-type]


def test_branches_are_one_row_with_a_counter() -> None:
    found = rows(fan_out(reply("digest-0", "merge", done("1"), of=2)))
    assert list(found) == ["split", "facts", "digest", "merge"]
    digest = found["digest"]
    assert (digest.status, digest.ended, digest.count, digest.failed) == ("running", 1, 2, 0)
    assert (found["merge"].status, found["merge"].arrived) == ("joining", 1)


def test_step_runs_when_a_worker_says_so_and_waits_when_nothing_is_known() -> None:
    found = rows(log(first("split")), running={"split": 2})
    assert (found["split"].status, found["split"].attempts) == ("running", 2)
    assert found["merge"].status == "waiting"


def test_time_of_an_open_step_goes_up_to_now() -> None:
    found = rows(fan_out(), now=second(10))
    assert found["digest"].elapsed_s == 7.0
    assert found["split"].elapsed_s == 1.0
    assert found["merge"].elapsed_s is None


def test_fan_out_whose_branch_failed_the_run_is_failed_and_what_it_left_is_dropped() -> None:
    entries = fan_out(reply("digest-1", "merge", failed("digest-1", "no"), of=2), result("failed"))
    found = rows(entries)
    assert (found["digest"].status, found["digest"].ended, found["digest"].failed) == ("failed", 1, 1)
    assert found["merge"].status == "dropped"
    assert why(fold(entries)) == "step 'digest-1' failed: Overloaded: no"


def test_tokens_and_costs_of_branches_add_up() -> None:
    work = {"usage": Usage(input_tokens=10, cache_read_tokens=5, output_tokens=2), "cost_usd": 0.5, "model": "m"}
    replies = [reply(f"digest-{n}", "merge", done("1", **work), of=2) for n in (0, 1)]
    digest = rows(fan_out(*replies))["digest"]
    assert (digest.status, digest.input_tokens, digest.output_tokens, digest.cost_usd) == ("done", 30, 4, 1.0)


def test_what_was_reused_says_so_and_is_no_part_of_the_numbers() -> None:
    work = {"usage": Usage(input_tokens=10, output_tokens=2), "cost_usd": 0.5, "attempt": 3}
    entries = log(
        first("split", forked_from="r0"),
        reply("facts", "merge", done("f", **work), copied=True),
        outcome("split", done("[1, 2]"), copied=True),
        reply("digest-0", "merge", done("1", **work), of=2, copied=True),
        reply("digest-1", "merge", done("1", **work), of=2),
    )
    found = rows(entries)
    assert (found["facts"].reused, found["facts"].attempts, found["facts"].cost_usd) == (1, 0, None)
    digest = found["digest"]
    assert (digest.reused, digest.ended, digest.input_tokens, digest.cost_usd) == (1, 2, 10, 0.5)
    state = fold(entries)
    page = text_of(run_page(state, list(found.values()))).splitlines()
    assert page[1].rstrip() == "  forked from r0"
    cells = {line.split()[1]: line.split("   ") for line in page if line.startswith("✓")}
    assert cells["facts"][-1].strip() == ""
    assert "done, reused" in " ".join(cells["facts"])
    assert "done, 1 reused" in " ".join(cells["digest"])
    assert all(len(line) <= 80 for line in page)


def test_log_without_a_readable_flow_still_has_rows() -> None:
    found = rows(log(handoff("split", "digest-0", of=2), outcome("late", done("1"))))
    assert {name: row.status for name, row in found.items()} == {"split": "queued", "digest": "queued", "late": "done"}


def test_page_fits_80_columns_with_everything_in_it() -> None:
    row = Row(
        step="a-step-with-a-very-long-name-indeed",
        status="running",
        ended=998,
        count=1000,
        failed=12,
        retries=17,
        attempts=3,
        input_tokens=12_345_678,
        output_tokens=1_234_567,
        cost_usd=1234.5,
        elapsed_s=4000,
    )
    lines = text_of(steps_table([row])).splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)
    for cell in ("● a-step", "running", "12,345,678", "1,234,567", "$1,234.50", "66 min 40 s"):
        assert cell in lines[1]


def test_rehearsed_steps_and_runs_say_so_in_place_of_a_price() -> None:
    entries = log(
        first("split"),
        outcome("split", done("1", rehearsed=True, usage=Usage(input_tokens=1), cost_usd=0.0)),
    )
    state = fold(entries)
    page = text_of(run_page(state, rows_of(state, plan_of(state))))
    assert cost_of(state) == "rehearsed"
    assert "rehearsed: no model was called, set ANTHROPIC_API_KEY" in page
    assert "rehearsed" in next(line for line in page.splitlines() if "split" in line)


def test_cost_is_a_lower_bound_when_a_price_is_not_known() -> None:
    entries = fan_out(
        reply("digest-0", "merge", done("1", usage=Usage(input_tokens=1)), of=2),
        reply("digest-1", "merge", done("1", usage=Usage(input_tokens=1), cost_usd=0.25), of=2),
    )
    assert cost_of(fold(entries)) == "at least $0.2500"
    assert (dollars(0.00421), dollars(1234.5)) == ("$0.0042", "$1,234.50")


def test_step_that_waits_says_for_what_in_its_row_and_below_where_there_is_room() -> None:
    lacks = Waits(what="handler", reason="a worker that has './reviews.py:count'")
    entries = log(first("split"), note("split", lacks))
    state, found = fold(entries), rows(entries)
    assert found["split"].waits == "a worker that has './reviews.py:count'"
    wide, narrow = (text_of(run_page(state, list(found.values())), width).splitlines() for width in (120, 80))
    assert "waits for a worker that has './reviews.py:count'" in next(line for line in wide if "· split" in line)
    assert "· split  waits for a worker that has './reviews.py:count'" in narrow
    assert all(len(line) <= 80 for line in narrow)
    ended = [*entries, *log(*[b""] * 2, outcome("split", done("x")))[2:]]
    assert rows(ended)["split"].waits == ""


def test_branches_that_wait_are_counted() -> None:
    asks = Waits(what="provider", reason="the model's provider, which asks for 7 s")
    entries = fan_out(note("digest-0", asks), note("digest-1", asks))
    digest = rows(entries)["digest"]
    assert (digest.waiting, digest.waits) == (2, asks.reason)
    assert f"2 wait for {asks.reason}" in text_of(run_page(fold(entries), [digest]), 120)
    assert rows(entries, running={"digest-0": 1})["digest"].waiting == 1


def test_step_waits_for_its_retry_until_it_is_due() -> None:
    error = Error(step="split", type="E", message="no")
    entries = log(first("split"), note("split", Retry(attempt=1, error=error, delay_s=12.0)))
    waits = rows(entries, now=second(4))["split"]
    assert (waits.waits, waits.waits_s) == ("its retry", 10.0)
    assert "waits for its retry in 10.0 s" in text_of(steps_table([waits]))
    assert rows(entries, now=second(15))["split"].waits == ""


def test_cost_says_what_was_paid_for_attempts_that_failed() -> None:
    error = Error(step="split", type="E", message="no")
    paid = Work(usage=USAGE, cost_usd=0.004)
    entries = log(
        first("split"),
        note("split", Retry(attempt=1, error=error, work=paid)),
        outcome("split", done("1", usage=USAGE, cost_usd=0.0083)),
    )
    state = fold(entries)
    page = text_of(run_page(state, rows_of(state, plan_of(state))), 120)
    assert "$0.0123, of which $0.0040 for attempts that failed" in page
    assert (cost_of(state), run_facts(state, [])["wasted_usd"]) == ("$0.0123", 0.004)


def test_result_beside_the_runs_own_is_told() -> None:
    entries = log(first("split"), result("done", flow="other"), result("failed"))
    state = fold(entries)
    page = text_of(run_page(state, rows_of(state, plan_of(state))), 120)
    assert "a result beside its own: written by somebody else, changes nothing" in page
    assert run_facts(state, [])["foreign"] == 1


def test_text_from_the_log_cannot_control_the_terminal() -> None:
    error = Error(step="split", type="E", message="\x1b[2J gone\r\n[red]x[/red]")
    entries = log(
        first("split"),
        result("failed", step="split", outcome=failed("split", error.message), reason="\x1b]0;title\x07"),
    )
    state = fold(entries)
    page = text_of(run_page(state, rows_of(state, plan_of(state)))) + text_of(log_line(entries[1], second(1)))
    assert "\x1b" not in page
    assert "[red]x[/red]" in page


def test_runs_table_fits_80_columns() -> None:
    summary = summarise(log(first("split", run="0" * 26), result("cancelled")))
    lines = text_of(runs_table([summary], second(9))).splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert "0" * 26 in lines[1]


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("+90s", NOW + timedelta(seconds=90)),
        ("+1d2h3m4s", NOW + timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("2026-11-25T06:00Z", datetime(2026, 11, 25, 6, tzinfo=UTC)),
        ("2026-11-25T06:00+02:00", datetime(2026, 11, 25, 4, tzinfo=UTC)),
        ("2026-11-25 06:00:30", datetime(2026, 11, 25, 6, 0, 30).astimezone()),
        ("2026-11-25", datetime(2026, 11, 25).astimezone()),
    ],
)
def test_time_is_read_as_people_write_it(text: str, at: datetime) -> None:
    assert read_time(text, NOW) == at


@pytest.mark.parametrize("text", ["", "+", "+1", "+m", "10m", "noon", "06:00", "+9999999999d", "0001-01-01", "+0s"])
def test_time_that_is_none_to_come_is_refused(text: str) -> None:
    with pytest.raises(BadTime, match=r"cannot be read|is past"):
        read_time(text, NOW)


def test_time_is_shown_with_its_day_or_year_only_where_they_differ() -> None:
    now = datetime(2026, 11, 24, 12).astimezone()
    shown = [short_time(now + timedelta(days=days), now) for days in (0, 1, 365)]
    assert shown == ["12:00:00", "25 Nov 12:00", "24 Nov 2027 12:00"]


def test_schedules_table_fits_80_columns_and_keeps_names_and_times() -> None:
    later = datetime(2027, 11, 24, 12, tzinfo=UTC)
    body = encode(Task(input={"topic": Raw(b'"a"'), "notes": Raw(b'"b"')}))
    flow, cron = "a-flow-with-a-long-name", "0 0 6 * * MON-FRI"
    daily = Scheduled(flow=flow, name="daily-name", cron=cron, body=body, next_at=later, last_at=NOW)
    lines = text_of(schedules_table([daily], NOW)).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith("daily-name  a-flow")
    assert short_time(later, NOW) in lines[1]
    assert short_time(NOW, NOW) in lines[1]


def test_schedules_with_long_names_still_say_when_they_come_in_80_columns() -> None:
    body = encode(Task(input={"topic": Raw(b'"a"')}))
    short, long = (
        Scheduled(flow="f", name=name, cron="0 0 6 * * *", body=body, next_at=NOW, last_at=None)
        for name in ("n" * 24, "l" * 64)
    )
    lines = text_of(schedules_table([short, long], NOW)).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].startswith(short.name)
    assert all(short_time(NOW, NOW) in line for line in lines[1:])


def test_runs_with_long_ids_still_say_how_they_stand_in_80_columns() -> None:
    summary = summarise(log(first("split", run="r" * 64), result("cancelled")))
    lines = text_of(runs_table([summary], second(9))).splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert "cancelled" in lines[1]


# ---- imports -------------------------------------------------------------------------------------


def test_help_imports_no_bus_and_no_command_imports_the_model_sdk() -> None:
    script = """
import contextlib, os, sys
from baton_actors.cli.app import COMMANDS, load, main
sys.argv = ["baton", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(open(os.devnull, "w")):
    main()
assert not {"rich", "nats", "baton_bus"} & set(sys.modules), sys.modules
for name in COMMANDS:
    load(name)
assert not {"anthropic", "httpx2"} & set(sys.modules), sys.modules
print("kept")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (ended.stdout, ended.stderr) == ("kept\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_listed_with_the_first_line_of_its_help(name: str) -> None:
    assert (load(name).help or "").splitlines()[0] == COMMANDS[name][1]


def test_commands_with_a_place_have_its_options_last_and_in_one_order() -> None:
    options = {name: [option for each in load(name).params for option in each.opts] for name in COMMANDS}
    places = {name: found[-3:] for name, found in options.items() if "--nats" in found}
    assert set(COMMANDS) - set(places) == {"check", "graph", "new", "schema"}
    assert set(map(tuple, places.values())) == {("--nats", "--namespace", "--data-dir")}


# ---- drawings --------------------------------------------------------------------------------------


def flow(**steps: Step) -> Flow:
    return Flow(name="f", input={"t": Field()}, agents={"a": Agent(handler="m:f")}, steps=steps)


def test_lines_lead_from_each_step_to_those_that_wait_for_it() -> None:
    plan = check_flow(
        flow(
            plan=Step(agent="a"),
            left=Step(agent="a", after=["plan"]),
            right=Step(agent="a", after=["plan"]),
            finish=Step(agent="a", after=["left", "right", "plan"]),
        )
    )
    assert draw(plan, 80) == [
        "          ┌───────┐",
        "          │  plan │",
        "          └───┬───┘",
        "      ┌───────┴───┬───────┐",
        "  ┌───▼───┐   ┌───▼───┐   │",
        "  │  left │   │ right │   │",
        "  └───┬───┘   └───┬───┘   │",
        "      └───────┬───┴───────┘",
        "        ┌─────▼─────┐",
        "        │   finish  │",
        "        │ joins all │",
        "        └───────────┘",
    ]


def test_drawing_that_is_too_wide_becomes_a_list() -> None:
    plan = check_flow(flow(one=Step(agent="a"), two=Step(agent="a", after=["one"])))
    assert draw(plan, 8) == ["  one  first", "  two  after one"]


def test_mermaid_has_a_hexagon_for_a_join_and_says_what_is_fanned_out_over() -> None:
    plan = check_flow(
        flow(split=Step(agent="a"), part=Step(agent="a", each="split.parts"), last=Step(agent="a", after=["part"]))
    )
    assert mermaid_of(plan).splitlines() == [
        "flowchart TD",
        "  in([input])",
        '  s0["split"]',
        '  s1["part"]',
        '  s2{{"last"}}',
        "  in --> s0",
        '  s0 -->|"\N{MULTIPLICATION SIGN} each split.parts"| s1',
        "  s1 --> s2",
        "  out([output])",
        "  s2 --> out",
    ]


# ---- arguments -------------------------------------------------------------------------------------


def typed(**types: str) -> Flow:
    fields = {name: Field(type=type, default=Raw(b"null")) for name, type in types.items()}
    return Flow(name="f", input=fields, agents={"a": Agent(handler="m:f")}, steps={"s": Step(agent="a")})


def test_values_are_typed_by_the_flow(tmp_path: Path) -> None:
    (tmp_path / "part.md").write_text("\ufefftext é", encoding="utf-8")
    given = typed(s="str", i="int", f="float", b="bool", d="dict", n="list", texts="list[str]", numbers="list[int]")
    pairs = ["s=12=3", "i=12", "f=1", "b=yes", 'd={"a":1}', "n=[1,null]", "texts=a", f"texts=@{tmp_path}/part.md",
             "numbers=[1,2]"]  # fmt: skip
    assert read_pairs(given, pairs) == {
        "s": "12=3",
        "i": 12,
        "f": 1.0,
        "b": True,
        "d": {"a": 1},
        "n": [1, None],
        "texts": ["a", "text é"],
        "numbers": [1, 2],
    }


@pytest.mark.parametrize(
    ("pair", "value"),
    [("s=@@home", "@home"), ("s=", ""), ('texts=["a","b"]', ["a", "b"]), ("texts=a", ["a"]), ("numbers=1", [1])],
)
def test_shorthand_of_a_value(pair: str, value: object) -> None:
    given = read_pairs(typed(s="str", texts="list[str]", numbers="list[int]"), [pair])
    assert list(given.values()) == [value]


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        (["i=1.5"], InputError, "flow 'f', input 'i': found \"1.5\"; expected a whole number"),
        (["b=maybe"], InputError, "flow 'f', input 'b': found \"maybe\"; expected true or false"),
        (["d=[1]"], InputError, "flow 'f', input 'd': found \"[1]\"; expected an object in JSON"),
        (["numbers=1", "numbers=x"], InputError, "flow 'f', input 'numbers': found \"x\"; expected a whole number"),
        (["texts=[1"], InputError, "flow 'f', input 'texts': found \"[1\"; expected list[str] in JSON"),
        (["i=1", "i=2"], BadArgument, "input 'i' is given 2 times; it is one int"),
        (["x=1"], InputError, "flow 'f', input 'x': the flow has no such input."),
    ],
)
def test_value_of_another_type_is_refused(pairs: list[str], error: type[Exception], message: str) -> None:
    given = typed(i="int", b="bool", d="dict", texts="list[str]", numbers="list[int]")
    with pytest.raises(error) as raised:
        read_pairs(given, pairs)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("pressed", "key"), [(b"n", "n"), (b"\x1b[C", "right"), (b"\x1bOD", "left"), (b"\x1b", "\x1b"), (b"\x1b[99", "?")]
)
def test_keys_are_read_one_by_one(pressed: bytes, key: str) -> None:
    ours, theirs = os.pipe()
    os.write(theirs, pressed)
    assert read_key(ours) == key
    os.close(theirs)
    assert read_key(ours) == ""
    os.close(ours)
