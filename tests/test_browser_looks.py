"""How pages look in a browser: to everybody, in both themes, on small windows, without colour, and without scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT  # type: ignore[import-untyped]
from playwright.async_api import Browser

from .browsers import Tab, browsing, in_browser, tab
from .consoles import Served
from .servers import NatsServer
from .team import Team
from .test_browser_stranger import library
from .timed import until_so

pytestmark = in_browser
AXE = """rules => axe.run(document, {
    runOnly: rules.length ? {type: 'rule', values: rules} : {type: 'tag', values: ['wcag2a', 'wcag2aa', 'wcag21aa']},
    resultTypes: ['violations'],
}).then(found => found.violations.flatMap(rule => rule.nodes.map(node =>
    `${rule.impact} ${rule.id} ${node.target} ${node.failureSummary}`)))"""
SERIOUS = ("serious", "critical")
GREYS = """async signs => {
    const { draw, fields } = await import('/static/drawn.js');
    const place = document.querySelector('.field');
    Object.assign(place.dataset, {cells: signs, took: signs.replace(/./g, ',').slice(1), errors: '[]'});
    draw();
    const field = fields.get(place.id), canvas = place.querySelector('canvas'), size = field.pitch - 2;
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', {willReadFrequently: true});
    copy.fillStyle = getComputedStyle(document.body).backgroundColor;
    copy.fillRect(0, 0, canvas.width, canvas.height);
    copy.drawImage(canvas, 0, 0);
    return [...signs].map((_, number) => {
        const {data} = copy.getImageData(number % field.per * field.pitch, 0, size, size);
        const grey = [];
        for (let at = 0; at < data.length; at += 4) {
            grey.push(0.2126 * data[at] + 0.7152 * data[at + 1] + 0.0722 * data[at + 2]);
        }
        return grey;
    });
}"""
APART = 8.0
"""Of 255: how far two states are apart in grey, on the average over the pixels of a cell."""


@asynccontextmanager
async def kept(server: NatsServer, namespace: str, tmp_path: Path) -> AsyncIterator[tuple[Team, Served, list[str]]]:
    """A console with some runs, and the paths of its pages."""
    async with library(server, namespace, tmp_path) as (place, t, console):
        runs = [await t.submit(topic=topic) for topic in ("rivers", "volcanoes")]
        for run in runs:
            await t.result(run)
        place.closed = False
        fork = (await t.client.fork(runs[1])).id
        await t.client.run(fork).ended(20)
        done, failed = runs

        async def has_all() -> bool:
            return (reach := console.console.index.reach()) is not None and reach.runs == 3

        await until_so(has_all)
        yield (
            t,
            console,
            [
                "/",
                "/?status=cancelled",
                f"/runs/{failed}",
                f"/runs/{failed}?at=3",
                f"/runs/{failed}/messages/2",
                f"/runs/{done}/steps/write",
                f"/runs/{failed}/steps/check",
                f"/runs/{failed}/fork",
                f"/runs/{failed}/fork?after=write",
                f"/runs/{failed}/retry",
                f"/compare/{failed}/{fork}",
                "/flows",
                "/flows/story",
                "/queues",
                "/attention",
                "/spend",
                "/schedules",
                "/log",
                "/files",
                "/server",
                "/runs/nosuch",
            ],
        )


async def test_nothing_serious_stands_in_the_way_of_anybody_on_any_page_in_either_theme(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        kept(server, namespace, tmp_path) as (_, console, paths),
        browsing(chromium) as browser,
        tab(browser, console) as page,
    ):
        found: list[str] = []
        for path in paths:
            await page.go(path)
            await page.asks(AXE_SCRIPT)
            bad = await page.asks(AXE, [])
            await page.keys("t")
            bad += await page.asks(AXE, ["color-contrast"])
            await page.keys("t")
            found += [f"{path}: {each}" for each in bad if each.startswith(SERIOUS)]
        assert not found, "\n".join(found)


async def test_windows_of_400_pixels_and_pages_at_200_percent_need_no_scrolling_to_the_side(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        kept(server, namespace, tmp_path) as (_, console, paths),
        browsing(chromium, viewport={"width": 400, "height": 800}) as narrow,
        browsing(chromium, viewport={"width": 640, "height": 400}, device_scale_factor=2) as zoomed,
        tab(narrow, console) as one,
        tab(zoomed, console) as other,
    ):
        wide: list[tuple[str, int, Any]] = []
        for page, width in ((one, 400), (other, 640)):
            for path in paths:
                await page.go(path)
                if (of := await page.asks("document.scrollingElement.scrollWidth")) > width:
                    wide.append((path, width, [of, await page.asks(WIDEST)]))
        assert wide == []


WIDEST = """[...document.querySelectorAll('main *')].filter(each => each.getBoundingClientRect().right > innerWidth + 1
    && !each.closest('.wide')).slice(0, 3).map(each => each.outerHTML.slice(0, 80))"""


async def test_every_state_is_told_from_every_other_without_colour_in_both_themes(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        kept(server, namespace, tmp_path) as (_, console, paths),
        browsing(chromium) as browser,
        tab(browser, console) as page,
    ):
        marks = await page.asks(
            "[...document.querySelectorAll('#chips .state')].map(each => [each.className, each.firstChild.textContent])"
        )
        assert len({mark for _, mark in marks}) == len({name for name, _ in marks}) > 2
        await page.go(paths[3])  # which nothing that comes changes
        await page.asks("""() => {
            const place = document.createElement('div'), drawn = document.createElement('div');
            Object.assign(place, {className: 'field', id: 'field-of-all'});
            Object.assign(place.dataset, {cells: 'd', took: '', errors: '[]', steps: '', name: 'each-#'});
            drawn.className = 'drawn';
            place.append(drawn);
            document.getElementById('cells').append(place);
        }""")
        signs = "fyrqsd."
        for _ in ("light", "dark"):
            greys = await page.asks(GREYS, signs)
            for (one, first), (other, second) in combinations(zip(signs, greys, strict=True), 2):
                apart = sum(abs(a - b) for a, b in zip(first, second, strict=True)) / len(first)
                assert apart > APART, (one, other, apart)
            await page.keys("t")


async def words(page: Tab) -> str:
    """What a page says, without what is drawn, goes on by itself, or is only there to be pressed."""
    return " ".join(
        (
            await page.asks("""() => {
                const main = document.querySelector('main').cloneNode(true);
                const drawn = '.drawn, [data-since], button, datalist, progress, #marked';
                for (const each of main.querySelectorAll(drawn)) each.remove();
                return main.textContent;
            }""")
        ).split()
    )


async def test_without_scripts_pages_say_all_that_they_say_with_them_and_forms_work(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        kept(server, namespace, tmp_path) as (t, console, paths),
        browsing(chromium) as browser,
        browsing(chromium, java_script_enabled=False) as plain,
        tab(browser, console) as page,
        tab(plain, console) as still,
    ):
        for path in paths:
            if path in ("/queues", "/server", "/attention", "/log"):
                continue  # which say how it stands at that moment
            await page.go(path)
            await still.go(path)
            assert await words(page) == await words(still), path
        await still.go("/")
        await still.page.get_by_label("Words of a run").fill("volcanoes")
        await still.page.get_by_role("button", name="Search").click()
        await still.page.locator("#runs .state.failed").wait_for()
        await still.page.locator("#runs tr", has=still.page.locator(".failed")).locator("a").first.click()
        await still.sees("the library is closed today", "#head")
        await still.page.get_by_role("link", name="Fork").first.click()
        await still.page.get_by_role("link", name="write", exact=True).click()
        await still.page.locator("button.confirms").click()
        await still.page.wait_for_url(lambda url: "/fork" not in url)
        run = still.path.removeprefix("/runs/")
        assert (await t.result(run)).status == "done"
        await still.page.reload()
        await still.sees("checked: ", "#output")
        assert still.said == []
