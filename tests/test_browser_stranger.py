"""A stranger at the console, with the keyboard alone: finds what broke, sees why, mends it by a fork, and compares."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser

from baton_actors.models import Models, ModelSettings
from baton_schemas.flow.flow import Agent, Field, Flow, Step

from .browsers import browsing, in_browser, tab
from .consoles import Served, served
from .servers import NatsServer
from .team import Team, team

pytestmark = in_browser
ANY_RUN = "?" * 26
STORY = Flow(
    name="story",
    input={"topic": Field()},
    agents={
        "finder": Agent(handler="team:finder"),
        "writer": Agent(model="some-model", system="You write.", prompt="Write of {topic} with {find}.", max_tokens=50),
        "checker": Agent(handler="team:checker", max_attempts=1),
    },
    steps={
        "find": Step(agent="finder"),
        "write": Step(agent="writer", after=["find"]),
        "check": Step(agent="checker", after=["write"]),
    },
)


class Library:
    """Where texts are checked; closed at first."""

    closed = True

    async def finder(self, topic: str) -> str:
        return f"facts about {topic}"

    async def checker(self, topic: str, write: str) -> str:
        if self.closed and topic == "volcanoes":
            raise ConnectionError("the library is closed today")
        return f"checked: {len(write)} characters"


@asynccontextmanager
async def library(
    server: NatsServer, namespace: str, tmp_path: Path, **options: object
) -> AsyncIterator[tuple[Library, Team, Served]]:
    """A team that writes stories, whose models are rehearsed, and a console."""
    place = Library()
    async with (
        Models(ModelSettings()) as models,
        team(
            server.url,
            namespace,
            STORY,
            {"finder": place.finder, "checker": place.checker},
            models=models,
        ) as t,
        served(t.bus.settings, tmp_path / "index.sqlite", **options) as console,
    ):
        yield place, t, console


async def test_stranger_finds_a_failed_run_sees_why_forks_it_and_compares_by_keyboard_alone(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        library(server, namespace, tmp_path) as (place, t, console),
        browsing(chromium) as browser,
        tab(browser, console) as page,
    ):
        topics = ("rivers", "volcanoes", "lakes", "deserts")
        runs = {topic: await t.submit(topic=topic) for topic in topics}
        for run in runs.values():
            await t.result(run)
        broken = runs["volcanoes"]
        began = time.monotonic()
        # Finds it by a word of its input.
        await page.keys("/", *"volcanoes")
        await page.leads("/?*text=volcanoes*", "Enter")
        await page.page.locator(f"#run-{broken}").wait_for()
        assert await page.page.locator("#runs tr[id]").count() == 1
        await page.keys("j")
        await page.leads(f"/runs/{broken}", "l")
        # Sees the cause, and goes to the step that broke.
        await page.sees("the library is closed today", "#head")
        await page.keys("3", "n")
        assert await page.asks("document.querySelector('.at').id") == "step-check"
        await page.leads(f"/runs/{broken}/steps/check", "Enter")
        await page.sees("ConnectionError", "#head")
        # The prompt and the answer of the step before, which it read.
        await page.leads(f"/runs/{broken}#steps", "h")
        await page.keys("j", "j")
        await page.leads(f"/runs/{broken}/steps/write", "l")
        await page.sees("Write of volcanoes with facts about volcanoes.", "#asked")
        await page.sees("proved: its sha-256 matches the log", "#asked")
        answer = await page.page.locator("#answered pre").inner_text()
        assert answer.strip()
        # The library opens. Forks it from the step before.
        place.closed = False
        await page.leads(f"/runs/{broken}#steps", "h")
        await page.keys("n")
        await page.leads(f"/runs/{broken}/steps/check", "Enter")
        await page.leads(f"/runs/{broken}/fork?after=write*", "F")
        await page.sees("Takes over find, write", "main")
        await page.leads(f"/runs/{ANY_RUN}", "Enter")
        fork = page.path.removeprefix("/runs/")
        assert fork != broken
        # Watches it end.
        await page.sees("done", "#head h1")
        await page.sees("checked: ", "#output")
        # Compares the two.
        await page.leads(f"/compare/{broken}/{fork}", "D")
        await page.sees("They part at check", "#heads")
        await page.sees("the library is closed today", "main")
        assert time.monotonic() - began < 60
        assert {each.run for each in await t.client.runs()} == {*runs.values(), fork}
        assert page.refused == []
        page.check()


async def test_each_key_of_the_help_does_what_the_help_says(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        library(server, namespace, tmp_path) as (place, t, console),
        browsing(chromium, permissions=["clipboard-read", "clipboard-write"], accept_downloads=True) as browser,
        tab(browser, console) as page,
    ):
        runs = [await t.submit(topic=topic) for topic in ("rivers", "volcanoes", "lakes")]
        for run in runs:
            await t.result(run)
        lakes, volcanoes, rivers = runs[::-1]
        await page.until("document.querySelectorAll('#runs .state.done').length === 2")
        await page.keys("?")
        named = await page.asks("[...document.querySelectorAll('#help dt')].map(each => each.textContent)")
        await page.keys("Escape")
        assert await page.asks("document.querySelector('#help').open") is False
        # Everywhere.
        for key, path in zip("faqslr", ("/flows", "/attention", "/queues", "/spend", "/log", "/"), strict=True):
            await page.leads(path, "g", key)
        await page.keys("t")
        assert await page.asks("document.documentElement.dataset.theme") == "dark"
        await page.keys("t", ".")
        assert await page.asks("[document.documentElement.dataset.theme, document.documentElement.dataset.dense]") == [
            "light",
            "yes",
        ]
        await page.keys(".", "c")
        await page.sees("copied the command", "#said")
        assert (await page.asks("navigator.clipboard.readText()")).startswith("baton runs")
        await page.keys("y")
        await page.sees("copied the link", "#said")
        await page.keys("/")
        assert await page.asks("document.activeElement.name") == "text"
        await page.keys(*"?gf", "Escape")  # none fires in a field
        assert page.path == "/"
        await page.keys("Control+k", *"stor")
        await page.sees("story", "#palette")
        await page.keys("Escape")
        # In lists.
        at = "document.querySelector('.at')?.id"
        await page.keys("j", "j", "k")
        assert await page.asks(at) == f"run-{lakes}"
        await page.keys("n")
        assert await page.asks(at) == f"run-{volcanoes}"
        await page.keys("x", "j", "x", "N")
        await page.sees("2 marked", "#marked")
        await page.leads(f"/compare/{rivers}/{volcanoes}", "d")
        await page.leads("/", "h")
        await page.keys("j")
        await page.leads(f"/runs/{lakes}", "Enter")
        await page.leads(f"/runs/{volcanoes}", "]")
        await page.leads(f"/runs/{lakes}", "[")
        await page.leads(f"/runs/{volcanoes}", "]")
        # Of a run.
        for key, part in zip("12345", ("graph", "timeline", "steps", "log", "output"), strict=True):
            await page.leads(f"/runs/{volcanoes}#{part}", key)
        messages = len(await t.log(volcanoes))
        here = f"/runs/{volcanoes}?at=%d"
        await page.leads(here % messages, "End")
        await page.leads(here % (messages - 1), "ArrowLeft")
        await page.leads(here % messages, "ArrowRight")
        await page.leads(here % 1, "Home")
        if messages > 11:
            await page.leads(here % 11, "Shift+ArrowRight")
            await page.leads(here % 1, "Shift+ArrowLeft")
        await page.keys("p")
        await page.sees("Playing 1", "#scrubber")
        await page.keys("p", "p")
        await page.leads(here % messages)
        await page.leads(f"/runs/{volcanoes}", "f")
        await page.live()
        await page.keys("Space")
        await page.sees("frozen", "#lag")
        await page.keys("Space")
        await page.live()
        async with page.page.expect_download() as downloaded:
            await page.keys("e")
        assert (await downloaded.value).suggested_filename.endswith(".jsonl")
        for key, act in (("r", "retry"), ("F", "fork")):
            await page.leads(f"/runs/{volcanoes}/{act}", key)
            await page.leads(f"/runs/{volcanoes}", "Escape")
        place.closed = False
        await page.leads(f"/runs/{volcanoes}/retry", "r")
        await page.leads(f"/runs/{ANY_RUN}", "Enter")
        await page.leads(f"/compare/{volcanoes}/*", "D")
        await page.leads(f"/runs/{ANY_RUN}", "Escape")
        pressed = {
            *("/", "Ctrl-K", "j k", "Enter l", "Esc h", "g r, g f, g q, g a, g s, g l", "n N", "← →", "Home End", "p"),
            *("1 … 5", "[ ]", "f", "space", "x", "d", "D", "r F X", "e", "c", "y", "t", ".", "?"),
        }
        assert set(named) - {"0"} == pressed  # that one is for graphs of many steps
        page.check()
