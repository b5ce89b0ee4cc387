"""The console in a browser, live: what is stored elsewhere is painted here, and nothing that a reader holds is lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from playwright.async_api import Browser

from baton_schemas.flow.flow import Field, Step

from .browsers import browsing, in_browser, tab
from .consoles import served
from .servers import NatsServer, nats_server
from .team import flow_of, team
from .timed import until_so

pytestmark = in_browser
FLOW = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})
NEAR_MS = 1_000.0
"""How far two measures of the same may be apart on a machine that does much else."""


async def double(value: int) -> int:
    return value * 2


async def test_run_that_is_started_elsewhere_appears_without_a_request_and_nothing_that_a_reader_holds_is_lost(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium, viewport={"width": 1000, "height": 500}) as browser,
        tab(browser, console) as page,
    ):
        runs = [await t.submit(value=number) for number in range(30)]
        await page.until("document.querySelectorAll('#runs .state.done').length === 30")
        await page.live()
        await page.keys(*"j" * 21, "x", "j", "x")
        held = runs[::-1][20]
        await page.page.locator(f"#run-{held} a").first.focus()
        where = "row => document.getElementById(row).getBoundingClientRect().top"
        before = (await page.asks(where, f"run-{held}"), await page.asks("scrollY"))
        assert before[1] > 0
        asked = len(page.asked)
        run = await t.submit(value=99)
        await page.page.locator(f"#run-{run} .state.done").wait_for()
        assert page.asked[asked:] == []
        assert abs(await page.asks(where, f"run-{held}") - before[0]) < 2  # the reader's row stands where it stood
        assert await page.asks("document.activeElement.closest('tr').id") == f"run-{held}"
        marked = await page.asks("[...document.querySelectorAll('#runs input:checked')].map(each => each.value)")
        assert marked == [held, runs[::-1][21]]
        assert await page.asks("document.querySelector('.at[data-href]').id") == f"run-{runs[::-1][21]}"
        page.check()


async def test_details_that_are_open_stay_open_when_more_comes(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
    ):
        subject = f"{namespace}.handoff.flow--do.r%d.do.start"
        await t.bus.js.publish(subject % 1, b"nonsense 1")
        async with tab(browser, console, "/attention") as page:
            await page.live()
            await page.page.locator("#rejected summary").click()
            await t.bus.js.publish(subject % 2, b"nonsense 2")
            await page.until("document.querySelectorAll('#rejected details').length === 2")
            opened = await page.asks("[...document.querySelectorAll('#rejected details')].map(each => each.open)")
            assert opened == [False, True]
            assert await page.page.locator("#rejected details[open] pre").inner_text() == "nonsense 1"
            page.check()


async def test_lag_that_a_page_says_of_itself_is_that_which_others_measure(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
        tab(browser, console) as page,
    ):
        await page.live()
        # When each run was painted for the first time, by the clock of this machine.
        await page.asks("""() => {
            window.painted = {};
            new MutationObserver(() => requestAnimationFrame(() => setTimeout(() => {
                for (const row of document.querySelectorAll('#runs tr[id]')) painted[row.id] ??= Date.now();
            }))).observe(document.body, {childList: true, subtree: true, attributes: true});
        }""")
        runs: list[str] = []
        while len(runs) < 50:  # four messages each
            runs.append(await t.submit(value=len(runs)))
            await page.page.locator(f"#run-{runs[-1]}").wait_for()
        await t.result(runs[-1])
        await page.page.locator(f"#run-{runs[-1]} .state.done").wait_for()
        says = sorted(await page.asks("batonLags"))
        painted = await page.asks("painted")
        stored = {f"run-{run}": (await t.log(run))[0].at.timestamp() * 1_000 for run in runs}
        measured = sorted(painted[row] - at for row, at in stored.items())
        assert len(says) >= 25  # what came at once is painted at once
        middle = says[len(says) // 2], measured[len(measured) // 2]
        assert 0 < middle[0] < NEAR_MS
        assert abs(middle[0] - middle[1]) < NEAR_MS
        assert (await page.page.locator("#lag").inner_text()).startswith("live · ")
        page.check()


async def test_server_that_was_killed_is_told_of_and_what_came_meanwhile_is_neither_missed_nor_doubled(
    namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        nats_server(tmp_path / "nats", jetstream={"sync_interval": "always"}) as server,
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
        tab(browser, console) as page,
    ):
        runs = [await t.submit(value=number) for number in range(5)]
        await page.until("document.querySelectorAll('#runs .state.done').length === 5")
        await page.live()
        await server.kill()
        killed = time.monotonic()
        await page.page.locator("#status.away [role=alert]").wait_for()
        assert time.monotonic() - killed < 5
        assert await page.page.locator("#runs tr[id]").count() == 5  # as it was
        await asyncio.to_thread(server.start_now)
        await page.page.locator("#status:not(.away)").wait_for()
        asked = len(page.asked)
        runs += [await t.submit(value=number) for number in range(5)]
        await page.until("document.querySelectorAll('#runs .state.done').length === 10")
        shown = await page.asks("[...document.querySelectorAll('#runs tr[id]')].map(each => each.id)")
        assert shown == [f"run-{run}" for run in reversed(runs)]
        assert page.asked[asked:] == []
        page.check()


async def test_eight_tabs_all_load_and_those_that_sleep_say_so_and_wake(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
        tab(browser, console) as one,
        tab(browser, console) as two,
        tab(browser, console) as three,
        tab(browser, console) as four,
        tab(browser, console) as five,
        tab(browser, console) as six,
        tab(browser, console) as seven,
        tab(browser, console) as eight,
    ):
        tabs = [one, two, three, four, five, six, seven, eight]
        await eight.live()
        run = await t.submit(value=1)
        await eight.page.locator(f"#run-{run} .state.done").wait_for()
        await one.sees("asleep", "#lag")

        def opened() -> int:
            return console.console.streams.count

        assert opened() <= 4
        # One that sleeps has what it had, and asks for nothing until it is woken.
        asked = len(one.asked)
        await one.page.bring_to_front()
        await one.page.reload()
        await one.live()
        await one.page.locator(f"#run-{run} .state.done").wait_for()
        assert len(one.asked) > asked
        # Tabs that nobody sees have no stream: their browser says of them that they are hidden.
        for each in tabs[1:]:
            await each.asks("""() => {
                Object.defineProperty(document, 'hidden', {value: true, configurable: true});
                Object.defineProperty(document, 'visibilityState', {value: 'hidden', configurable: true});
                document.dispatchEvent(new Event('visibilitychange'));
            }""")

        async def only_one() -> bool:
            return opened() == 1

        await until_so(only_one)
        more = await t.submit(value=2)
        await one.page.locator(f"#run-{more} .state.done").wait_for()
        for each in tabs:
            each.check()
