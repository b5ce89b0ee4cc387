"""The console in a terminal: driven by its keys, over a real server, and read as it is drawn."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw, Struct
from textual.pilot import Pilot
from textual.widgets import Input

from baton_actors import Context, Fail
from baton_actors.cli.commands.top import top as top_command
from baton_actors.cli.place import Place
from baton_actors.console.core import Console, Options
from baton_actors.top.app import Top
from baton_actors.top.asking import AskScreen
from baton_actors.top.drawn import fitted, wrapped
from baton_actors.top.palette import LIGHT
from baton_actors.top.queues_view import QueuesView
from baton_actors.top.rows import Rows
from baton_actors.top.run_view import RunView
from baton_actors.top.runs_view import RunsView, given_in
from baton_actors.top.step_view import StepView
from baton_bus import Settings, connect
from baton_schemas.flow.flow import Field, Step

from .servers import NatsServer, until
from .team import Team, flow_of, team

HOSTILE = "[bold]big[/bold] \x1b[31mred\x1b[0m \u202egnp.exe \x00 " + "long" * 2_000
FLOW = flow_of(
    {
        "first": Step(agent="first"),
        "each": Step(agent="part", each="first"),
        "last": Step(agent="last", after=["each"]),
    },
    {"count": Field(type="int"), "word": Field(type="str", default=Raw(b'""'))},
)


class Driven(Struct, frozen=True):
    """A console in a terminal of a test, and its keys."""

    app: Top
    pilot: Pilot[None]
    console: Console

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    def screen(self) -> str:
        """What stands on the terminal."""
        lines = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in lines)

    async def shows(self, *wanted: str) -> str:
        """Wait until all of it stands there; return the whole screen."""
        try:
            await until(lambda: all(each in self.screen() for each in wanted))
        except TimeoutError:
            missing = [each for each in wanted if each not in self.screen()]
            raise AssertionError(f"{missing} not on\n{self.screen()}") from None
        return self.screen()

    async def is_in(self, view: type) -> None:
        await until(lambda: isinstance(self.app.screen, view))


@contextlib.asynccontextmanager
async def driven(
    settings: Settings, index: Path, size: tuple[int, int] = (120, 40), **options: Any
) -> AsyncIterator[Driven]:
    async with (
        connect(settings, name="top of a test") as client,
        Console(client, Options(index=index, **options)).opened() as console,
    ):
        app = Top(console)
        async with app.run_test(size=size, notifications=True) as pilot:
            yield Driven(app, pilot, console)
        if app.error is not None:
            raise app.error


class Handlers:
    """Steps that wait until the test lets them go on, and fail where it says so."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.fails = False
        self.calls = 0

    @property
    def functions(self) -> dict[str, Callable[..., object]]:
        async def first(count: int) -> list[int]:
            return list(range(count))

        async def part(item: int, context: Context) -> int:
            context.say(f"reads page {item} of {HOSTILE[:40]}")
            await self.goes_on.wait()
            self.calls += 1
            if self.fails and item == 1:
                raise Fail(f"no figure for {HOSTILE}")
            return item

        async def last(each: list[int], word: str) -> str:
            return f"{sum(each)} {word}"

        return {"first": first, "part": part, "last": last}


@contextlib.asynccontextmanager
async def playing(server: NatsServer, namespace: str) -> AsyncIterator[tuple[Team, Handlers]]:
    handlers = Handlers()
    async with team(server.url, namespace, FLOW, handlers.functions) as t:
        yield t, handlers
        handlers.goes_on.set()


async def test_run_that_goes_on_is_seen_live_from_the_list_down_to_a_branch_by_keys_alone(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with playing(server, namespace) as (t, handlers), driven(t.bus.settings, tmp_path / "i") as top:
        await top.shows("No runs yet", "baton run ask")
        run = await t.submit(count=3)
        await top.shows(run[-8:], "running", "live")
        await top.press("enter")
        await top.is_in(RunView)
        await top.shows(f"Run flow  {run}", "reads page 2", "[bold]big")  # what steps say just now
        handlers.goes_on.set()
        await top.shows("✓ done in", "3 of 3 steps", "result   done", "✓ last")
        await top.press("j", "enter")
        await top.is_in(StepView)
        await top.shows("Step each", "each-2")
        await top.press("j", "enter")
        await top.shows("Step each-1", "branch 2 of 3 of each", "Put out")
        await top.press("escape", "h", "h")
        await top.is_in(RunsView)
        assert "1 done" in await top.shows("1 done")


async def test_search_filters_by_words_and_by_what_a_run_is_and_says_what_excludes_all(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with playing(server, namespace) as (t, handlers), driven(t.bus.settings, tmp_path / "i") as top:
        handlers.goes_on.set()
        acme, other = await t.submit(count=1, word="acme"), await t.submit(count=1, word="other")
        await t.result(acme)
        await t.result(other)
        await top.shows("2 done", acme[-8:], other[-8:], "index complete")
        await top.press("slash", *"acme", "enter")
        await until(lambda: acme[-8:] in top.screen() and other[-8:] not in top.screen())
        assert "baton runs --text acme" in await top.shows("--text acme")
        await top.press("slash")
        top.app.screen.query_one("#search", Input).value = "acme status=failed"
        await top.press("enter")
        await top.shows("Nothing fits", "without status=failed: 1")
        await top.press("escape")
        await top.shows(acme[-8:], other[-8:])
        assert given_in("acme status=failed corp") == {"status": "failed", "text": "acme corp"}


async def test_failure_is_found_by_a_key_and_retried_once_after_asking(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with playing(server, namespace) as (t, handlers), driven(t.bus.settings, tmp_path / "i") as top:
        handlers.goes_on.set()
        handlers.fails = True
        failed = await t.submit(count=2)
        await t.result(failed)
        handlers.fails = False
        good = await t.submit(count=2)
        await t.result(good)
        await top.shows("1 failed", "1 done")
        table = top.app.screen.query_one(Rows)
        await until(lambda: len(table.rows) == 2)
        await top.press("n")
        assert table.chosen == failed
        await top.press("r")
        await top.is_in(AskScreen)
        await top.shows(f"Retry flow {failed}?", f"baton retry {failed}", "reused", "no figure for")
        await top.press("r", "escape")  # the key that asks is no yes
        await top.is_in(RunsView)
        assert len(await t.client.runs()) == 2
        await top.press("r")
        await top.shows(f"baton retry {failed}")
        ask = top.app.screen
        assert isinstance(ask, AskScreen)
        ask.action_confirm()
        ask.action_confirm()  # pressed twice
        await top.is_in(RunView)
        await top.shows("forked from", "✓ done in")
        assert len(await t.client.runs()) == 3
        # Once more from the list, by somebody who has not seen the retry: there is one.
        await top.press("escape")
        await until(lambda: len(table.rows) == 3)
        table.choose(next(at for at, row in enumerate(table.rows) if row.key == failed))
        await top.press("r")
        await top.shows(f"baton retry {failed}")
        await top.press("enter")
        await top.is_in(RunView)
        assert len(await t.client.runs()) == 3


async def test_fork_is_asked_for_a_step_with_what_it_reuses_and_cancel_says_who(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with playing(server, namespace) as (t, handlers), driven(t.bus.settings, tmp_path / "i") as top:
        handlers.goes_on.set()
        run = await t.submit(count=2)
        await t.result(run)
        handlers.goes_on.clear()
        await top.shows("1 done")
        await top.press("F")
        await top.shows("go on after which step?", "✓ first  reused")
        await top.press("k", "k")
        await top.shows(f"baton fork {run} --after first", "· each  done again")
        await top.press("enter")
        await top.is_in(RunView)
        await top.shows(f"forked from {run}", "running")
        await top.press("X")
        await top.shows("Cancel flow", "ends it")
        await top.press("enter")
        await top.shows("cancelled by")
        latest = (await t.client.runs())[0]
        assert latest.status == "cancelled"


async def test_read_only_does_nothing_and_its_help_names_no_act(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with playing(server, namespace) as (t, handlers):
        run = await t.submit(count=1)
        async with driven(t.bus.settings, tmp_path / "i", read_only=True) as top:
            await top.shows(run[-8:], "read-only")
            await top.press("X")
            await top.shows("nothing can be changed here")
            assert isinstance(top.app.screen, RunsView)
            await top.press("question_mark")
            assert "cancel" not in await top.shows("next, previous row")
        handlers.goes_on.set()
        assert (await t.result(run)).status == "done"


async def test_hostile_texts_are_texts_in_every_view(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async with playing(server, namespace) as (t, handlers), driven(t.bus.settings, tmp_path / "i", (80, 24)) as top:
        handlers.goes_on.set()
        handlers.fails = True
        run = await t.submit(count=2, word=HOSTILE)
        await t.result(run)
        ways = {(): "step 'each-1'", ("enter",): "no figure", ("j", "enter"): "[bold]big", ("g", "a"): "failed"}
        for keys, wanted in ways.items():
            await top.press(*keys)
            screen = await top.shows(wanted)
            assert not {"\x1b", "\x00", "\u202e"} & set(screen)
            assert max(map(len, screen.split("\n"))) <= 80


async def test_80_columns_200_columns_and_what_is_between_fit_and_the_colours_turn(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with playing(server, namespace) as (t, handlers), driven(t.bus.settings, tmp_path / "i", (80, 24)) as top:
        handlers.goes_on.set()
        run = await t.submit(count=1, word="acme")
        await t.result(run)
        screen = await top.shows("1 done", run[-8:])
        assert run not in screen  # there is no room for all of it
        await top.pilot.resize_terminal(200, 50)
        assert "✓✓✓" in await top.shows(f"✓ {run}", "baton runs   ? keys")
        await top.pilot.resize_terminal(80, 24)
        await top.press("enter")
        await top.shows("✓ done in", "? keys")
        await top.press("t")
        assert top.app.palette == LIGHT
        assert top.app.theme == "baton-light"
        await top.press("5")
        await top.shows("0 acme")


async def test_only_what_changed_is_drawn_and_the_chosen_run_stays_chosen_while_others_come(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with playing(server, namespace) as (t, handlers), driven(t.bus.settings, tmp_path / "i") as top:
        handlers.goes_on.set()
        runs = [await t.submit(count=1) for _ in range(5)]
        for run in runs:
            await t.result(run)
        await top.shows("5 done")
        table = top.app.screen.query_one(Rows)
        await top.press("j", "j")
        chosen = table.chosen
        assert chosen in runs
        await top.press("space")
        looks = top.app.screen.looks  # type: ignore[attr-defined]
        await t.result(await t.submit(count=1))
        await top.shows("frozen")
        assert top.app.screen.looks == looks  # type: ignore[attr-defined]
        await top.press("space")
        await top.shows("6 done")
        await until(lambda: len(table.rows) == 6)
        assert table.chosen == chosen
        await top.press("f")
        await t.result(newest := await t.submit(count=1))
        await top.shows("7 done")
        assert table.chosen == newest
        await top.pilot.pause()
        drawn = table.drawn
        table.show(list(table.rows))
        await top.pilot.pause()
        assert table.drawn == drawn


async def test_queues_say_what_stands_still_and_how_to_start_it(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with playing(server, namespace) as (t, handlers), driven(t.bus.settings, tmp_path / "i") as top:
        run = await t.submit(count=2)
        await top.shows("running")
        await top.press("g", "q")
        await top.is_in(QueuesView)
        await top.shows("flow--first", "flow--part", "2 of ")
        handlers.goes_on.set()
        await t.result(run)
        await top.press("g", "r")
        await top.is_in(RunsView)


async def test_run_that_there_is_not_and_a_server_that_is_away_say_what_to_do(namespace: str, tmp_path: Path) -> None:
    own = NatsServer(tmp_path / "nats")
    own.start_now()
    try:
        async with driven(Settings(url=own.url, namespace=namespace), tmp_path / "i") as top:
            await top.shows("No runs yet")
            top.app.push_screen(RunView(top.console, top.app.palette, "nosuchrun"))
            await top.shows("No such run", "nosuchrun", "Esc goes back")
            await top.press("escape")
            await top.is_in(RunsView)
            await own.stop()
            await top.shows("connection lost", "Nothing here is live")
            own.start_now()
            await until(lambda: "connection lost" not in top.screen())
            await top.shows("live")
    finally:
        await own.stop()


async def test_without_a_terminal_the_runs_are_printed_once_and_without_textual_how_to_install_it(
    server: NatsServer,
    namespace: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = Place(url=server.url, namespace=namespace)
    async with playing(server, namespace) as (t, handlers):
        handlers.goes_on.set()
        run = await t.submit(count=1)
        await t.result(run)
        assert await top_command(place) == 0
        there = capsys.readouterr()
        assert run in there.out
        assert "pip install" not in there.err
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        assert await top_command(place) == 0
        lacking = capsys.readouterr()
        assert run in lacking.out
        assert "pip install 'baton-bus[top]'" in lacking.err


def test_lines_are_cut_filled_and_wrapped_to_just_their_width() -> None:
    assert fitted((("ab", ""), ("cd", "dim")), 6, right=True) == [("  ", ""), ("ab", ""), ("cd", "dim")]
    assert fitted((("abcdef", ""),), 4) == [("abc…", "")]
    assert fitted((("日本語", ""),), 4) == [("日 …", "")]
    for width in range(1, 40):
        for text in ("one two three", "x" * 90, "日本語" * 9, ""):
            pieces = list(wrapped((("  ", ""), (text, "")), width, 2))
            joined = "".join(part for piece in pieces for part, _ in piece)
            assert joined.replace(" ", "") == text.replace(" ", "")
