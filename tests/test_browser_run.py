"""The page of a run in a browser: what is drawn and written is what the log says, live, later, after each message."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from playwright.async_api import Browser

from baton_schemas.flow.flow import Field, JoinPolicy, Step
from baton_schemas.run.fold import fold
from baton_schemas.wire.names import sortable_id

from .browsers import Tab, browsing, in_browser, tab
from .consoles import served
from .servers import NatsServer
from .team import Team, flow_of, team

pytestmark = in_browser
MANY = 1_000
WIDE = flow_of(
    {
        "each": Step(agent="branch", each="items"),
        "merge": Step(agent="merge", after=["each"], join=JoinPolicy(failed="skip")),
    },
    {"items": Field(type="list[int]")},
    {"branch": {"max_attempts": 1}},
)
SIGNS = {"done": "d", "failed": "f"}
CELLS = """async () => {
    const { fields } = await import('/static/drawn.js');
    const place = document.querySelector('.field'), canvas = place.querySelector('canvas');
    const field = fields.get(place.id);
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
    copy.drawImage(canvas, 0, 0);
    const {data} = copy.getImageData(0, 0, canvas.width, canvas.height);
    const half = Math.floor((field.pitch - 2) / 2);
    // At the upper edge only what is whole has colour; failures have another than the rest.
    const edges = [...field.signs].map((_, number) => {
        const [x, y] = [number % field.per * field.pitch, Math.floor(number / field.per) * field.pitch];
        const at = ((y + 1) * canvas.width + x + half) * 4;
        return data.slice(at, at + 4).join();
    });
    return {signs: place.dataset.cells, edges};
}"""
CELL = "(document.querySelector('.field')?.dataset.cells ?? '')"
PARTS = ("head", "kin", "scrubber", "graph", "cells", "steps", "log", "output")
PARTS_OF = """names => names.map(name => {
    const part = document.getElementById(name)?.cloneNode(true);
    for (const each of part?.querySelectorAll('.drawn, [data-since]') ?? []) each.replaceChildren();
    return part?.outerHTML.replace(/\\s+/g, ' ');
})"""


class Held:
    """Branches, of which those from some number on wait until they are let go."""

    def __init__(self, first: int) -> None:
        self.first, self.go = first, asyncio.Event()

    async def branch(self, item: int) -> int:
        if item >= self.first:
            await self.go.wait()
        if item % 97 == 13:
            raise ValueError(f"cannot do {item}")
        return item

    async def merge(self, each: list[int]) -> int:
        return len(each)

    @property
    def handlers(self) -> dict[str, Any]:
        return {"branch": self.branch, "merge": self.merge}


async def signs_of(t: Team, run: str) -> str:
    """What each branch is by the log: done, failed, or neither yet."""
    steps = (await t.state(run)).steps
    found = (steps.get(f"each-{number}") for number in range(MANY))
    return "".join(SIGNS.get(step.status, "?") if step is not None else "?" for step in found)


async def cells_are(page: Tab, t: Team, run: str) -> str:
    """Wait until the cells are what the log says, and assert that they are drawn so; return their signs."""
    async with asyncio.timeout(20):
        while True:
            cells = await page.asks(CELLS)
            drawn = "".join(sign if sign in "df" else "?" for sign in cells["signs"])
            if drawn == await signs_of(t, run):
                break
            await asyncio.sleep(0.05)
    colours = {sign: {edge for edge, each in zip(cells["edges"], drawn, strict=True) if each == sign} for sign in "df"}
    assert all(len(each) <= 1 for each in colours.values())
    assert not colours["d"] & colours["f"]
    empty = {edge for edge, each in zip(cells["edges"], cells["signs"], strict=True) if each in "q."}
    assert empty <= {"0,0,0,0"}
    return str(cells["signs"])


async def test_run_of_a_thousand_branches_shows_each_as_the_log_has_it_while_it_runs_and_after_a_reload(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    held, run = Held(first=600), sortable_id()
    async with (
        team(server.url, namespace, WIDE, held.handlers) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
    ):
        await t.submit(run, items=list(range(MANY)))
        async with tab(browser, console, f"/runs/{run}") as page:
            await page.live()
            await page.until(
                "[...document.querySelector('.field').dataset.cells].filter(each => each === 'd').length > 500"
            )
            signs = await cells_are(page, t, run)
            assert set("dfr") <= set(signs)  # those that are held run, as their workers say
            await page.page.reload()
            await page.live()
            signs = await cells_are(page, t, run)
            assert set("dfr") <= set(signs)
            held.go.set()
            assert (await t.result(run)).status == "done"
            await page.sees("done", "#head h1")
            signs = await cells_are(page, t, run)
            failed = [number for number in range(MANY) if number % 97 == 13]
            assert [number for number, sign in enumerate(signs) if sign == "f"] == failed
            assert signs.count("d") == MANY - len(failed)
            # The same by keys in the picture, and in the table.
            await page.page.locator(".field canvas").focus()
            await page.keys("n", "n")
            await page.sees(f"each-{failed[1]} · failed", ".field .said-of")
            await page.sees(f"cannot do {failed[1]}", ".field .said-of")
            await page.go(f"/runs/{run}/steps/each?status=failed")
            rows = await page.asks("[...document.querySelectorAll('#list tr[data-href]')].map(each => each.id)")
            assert sorted(rows) == sorted(f"branch-{number}" for number in failed)
            page.check()


async def test_page_that_is_opened_in_the_middle_of_a_run_shows_what_runs(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    held = Held(first=0)
    async with (
        team(server.url, namespace, WIDE, held.handlers) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
    ):
        run = await t.submit(items=[1, 2])
        async with tab(browser, console, f"/runs/{run}") as page:
            await page.until(f"{CELL} === 'rr'")
        # Whoever comes now has heard nothing of it: workers are asked.
        async with (
            served(t.bus.settings, tmp_path / "other.sqlite") as late,
            browsing(chromium) as other,
            tab(other, late, f"/runs/{run}") as page,
        ):
            await page.until(f"{CELL} === 'rr'")
            await page.page.locator("#steps .state.running").first.wait_for()
            held.go.set()
            await page.sees("done", "#head h1")
            page.check()


FAULTY = flow_of(
    {"one": Step(agent="one"), "two": Step(agent="two", after=["one"]), "three": Step(agent="one", after=["two"])},
    {"value": Field(type="int")},
    {"two": {"max_attempts": 2}},
)


class Faulty:
    """Two fails always, until it is mended."""

    mended = False

    async def one(self, value: int) -> int:
        return value

    async def two(self, one: int) -> int:
        if not self.mended:
            raise ValueError(f"cannot do {one}")
        return one * 2


async def test_live_page_loaded_page_and_each_step_back_are_the_same_html(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    faulty, run, fork = Faulty(), sortable_id(), sortable_id()
    async with (
        team(server.url, namespace, FAULTY, {"one": faulty.one, "two": faulty.two}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
        tab(browser, console) as page,
        tab(browser, console) as cold,
    ):
        # Live from its first message on.
        await t.submit(run, value=4)
        await page.go(f"/runs/{run}")
        assert (await t.result(run)).status == "failed"
        await page.sees("failed", "#head h1")
        await cold.go(f"/runs/{run}")
        assert await page.asks(PARTS_OF, PARTS) == await cold.asks(PARTS_OF, PARTS)
        faulty.mended = True
        await t.client.fork(run, run_id=fork)
        await page.go(f"/runs/{fork}")
        await page.sees("done", "#head h1")
        await cold.go(f"/runs/{fork}")
        assert await page.asks(PARTS_OF, PARTS) == await cold.asks(PARTS_OF, PARTS)
        for each in (run, fork):
            await page.go(f"/runs/{each}")
            entries = await t.log(each)
            # Back from the end by keys, message by message: as if the address had been opened.
            for number in range(len(entries), 0, -1):
                await page.leads(f"/runs/{each}?at={number}", "ArrowLeft" if number < len(entries) else "End")
                await page.until("number => document.getElementById('scrubber').dataset.at === `${number}`", number)
                await cold.go(f"/runs/{each}?at={number}")
                now, opened = await page.asks(PARTS_OF, PARTS), await cold.asks(PARTS_OF, PARTS)
                assert now == opened, f"after message {number}"
                state = fold(entries[:number])
                assert await page.page.locator("#head .state").first.inner_text() != ""
                shown = await page.asks(
                    "[...document.querySelectorAll('#steps tr[id]')].map(each => [each.id.slice(5), "
                    "each.querySelector('.state').className.split(' ')[1]])"
                )
                for step, status in shown:
                    if step in state.steps and state.steps[step].status in SIGNS:
                        assert status == state.steps[step].status, (number, step)
        page.check()
        cold.check()
