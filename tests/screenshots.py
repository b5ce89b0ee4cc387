"""Pictures of the console, of real runs: `make screenshots`, to be looked at; one is in its documentation.

A picture is no reference that is compared: fonts differ from machine to machine.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any, Literal

from playwright.async_api import Browser

from baton_actors.models import Models, ModelSettings
from baton_bus import Settings
from baton_schemas.flow.flow import Agent, Field, Flow, JoinPolicy, Step

from .browsers import browsing, launched, tab
from .consoles import Served, served
from .servers import nats_server
from .team import Team, team

HERE = Path(__file__).parent.parent
INTO = HERE / "screenshots"
SHOWN = HERE / "actors/docs/console.png"
"""What the README shows."""
REPORT = Flow(
    name="report",
    input={"document": Field(), "chunks": Field(type="int")},
    agents={
        "splitter": Agent(handler="team:splitter"),
        "reader": Agent(handler="team:reader", max_attempts=3, retry_base_s=0.3, retry_max_s=0.6, concurrency=24),
        "merger": Agent(handler="team:merger"),
        "editor": Agent(
            model="claude-sonnet-5", system="You edit reports.", prompt="Edit this: {merge}", max_tokens=400
        ),
        "checker": Agent(handler="team:checker", max_attempts=1),
    },
    steps={
        "split": Step(agent="splitter"),
        "digest": Step(agent="reader", each="split", after=["split"]),
        "merge": Step(agent="merger", after=["digest"], join=JoinPolicy(failed="skip")),
        "edit": Step(agent="editor", after=["merge"]),
        "check": Step(agent="checker", after=["edit", "merge"]),
    },
)


class Readers:
    """Who reads a document, at different paces; some chunks cannot be read, and some not at once."""

    def __init__(self) -> None:
        self.dice, self.tried = random.Random(4), set[str]()

    async def splitter(self, document: str, chunks: int) -> list[str]:
        await asyncio.sleep(0.1)
        return [f"{document}, part {number}" for number in range(1, chunks + 1)]

    async def reader(self, item: str, index: int) -> str:
        await asyncio.sleep(self.dice.lognormvariate(-1.6, 0.8))
        if index % 61 == 17:
            raise ValueError(f"page {index} is blank: nothing to read in it")
        if index % 7 == 3 and item not in self.tried:
            self.tried.add(item)
            raise ConnectionError("the archive did not answer within 2 s")
        return f"What matters in {item}: the tide comes twice a day, and has to be paid for once."

    async def merger(self, digest: list[str]) -> str:
        await asyncio.sleep(0.3)
        return "\n".join(digest[:20])

    async def checker(self, document: str, edit: str) -> str:
        await asyncio.sleep(0.2)
        if "salt" in document:
            raise ValueError("the report names no source for 3 of its 12 figures")
        return edit

    @property
    def handlers(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("splitter", "reader", "merger", "checker")}


_AT_THE_END = ".status { position: static }"
"""On a picture of a whole page the bar at the bottom is there."""
_DONE = "[...document.querySelector('.field')?.dataset.cells ?? ''].filter(each => each === 'd').length > 300"


async def main() -> None:
    """Make runs, and pictures of them."""
    INTO.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            nats_server(Path(folder) / "nats") as server,
            Models(ModelSettings()) as models,
            launched() as chromium,
        ):
            nothing = Settings(url=server.url, namespace="nothing")
            async with served(nothing, Path(folder) / "nothing.sqlite") as console:
                await _pictures(chromium, console, {"empty-runs": "/", "empty-attention": "/attention"})
            async with (
                team(server.url, "baton", REPORT, Readers().handlers, models=models) as t,
                served(t.bus.settings, Path(folder) / "index.sqlite") as console,
            ):
                one = await _run(t, "a letter", 1)
                ten = await _run(t, "tidal power", 10)
                broken = await _run(t, "salt works", 12)
                many = await _run(t, "the archive", 1_000)
                fork = (await t.client.fork(broken)).id
                await t.client.run(fork).ended(60)
                live = await t.submit(document="the second archive", chunks=1_000)
                async with browsing(chromium) as browser, tab(browser, console, f"/runs/{live}") as page:
                    await page.until(_DONE)
                    await page.page.screenshot(path=INTO / "run-1000-live.png", full_page=True, style=_AT_THE_END)
                await t.result(live)
                paths = {
                    "runs": "/",
                    "run-1": f"/runs/{one}",
                    "run-10": f"/runs/{ten}",
                    "run-1000": f"/runs/{many}",
                    "run-broken": f"/runs/{broken}",
                    "run-then": f"/runs/{ten}?at=20",
                    "branches": f"/runs/{many}/steps/digest",
                    "step": f"/runs/{ten}/steps/edit",
                    "step-broken": f"/runs/{broken}/steps/check",
                    "message": f"/runs/{ten}/messages/12",
                    "fork": f"/runs/{broken}/fork?after=edit",
                    "compare": f"/compare/{broken}/{fork}",
                    "attention": "/attention",
                    "flows": "/flows",
                    "flow": "/flows/report",
                    "queues": "/queues",
                    "spend": "/spend",
                    "schedules": "/schedules",
                    "log": "/log",
                    "files": "/files",
                    "server": "/server",
                    "nothing": "/?text=nosuchword",
                    "unknown": "/runs/nosuch",
                }
                await _pictures(chromium, console, paths)
                async with (
                    browsing(chromium, viewport={"width": 1180, "height": 1130}, color_scheme="dark") as browser,
                    tab(browser, console, f"/runs/{many}") as page,
                ):
                    await page.live()
                    await page.page.screenshot(path=SHOWN, style=_AT_THE_END)


async def _run(t: Team, document: str, chunks: int) -> str:
    run = await t.submit(document=document, chunks=chunks)
    await t.client.run(run).ended(120)
    return run


async def _pictures(chromium: Browser, console: Served, paths: dict[str, str]) -> None:
    """Take a picture of each page, whole, in both themes, on a wide and on a narrow window."""
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for theme in themes:
        for width in (1600, 400):
            viewport = {"width": width, "height": 900}
            async with (
                browsing(chromium, viewport=viewport, color_scheme=theme) as browser,
                tab(browser, console) as page,
            ):
                for name, path in paths.items():
                    await page.go(path)
                    await page.page.screenshot(
                        path=INTO / f"{name}-{width}-{theme}.png", full_page=True, style=_AT_THE_END
                    )


if __name__ == "__main__":
    asyncio.run(main())
