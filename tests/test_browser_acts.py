"""What is pressed in a browser: twice, in two tabs, and again after a page was loaded anew, is done once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from playwright.async_api import Browser

from baton_schemas.wire.messages import Answer
from baton_schemas.wire.names import retry_run

from .browsers import browsing, in_browser, tab
from .consoles import served
from .servers import NatsServer
from .team import team, value_of
from .test_console_acts import FAILING, Two, both
from .test_people import BOSS, Counted, asked, until_parked
from .timed import timed

pytestmark = in_browser
DOUBLE_CLICK = "button => { button.click(); button.click(); }"


async def test_double_click_on_fork_makes_one_run_and_loading_what_came_of_it_again_none(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    two = Two()
    two.mended = True
    async with both(server, namespace, tmp_path, two) as (t, console), browsing(chromium) as browser:
        run = await t.submit(value=4)
        assert (await t.result(run)).status == "done"
        async with tab(browser, console, f"/runs/{run}/fork?after=one") as page:
            await page.page.locator("button.confirms").dblclick()
            await page.page.wait_for_url(lambda url: "/fork" not in url)
            fork = page.path.rpartition("/")[2]
            assert (await t.result(fork)).status == "done"
            assert {each.run for each in await t.client.runs()} == {run, fork}
            await page.page.reload()  # the answer to the form led to a page: loading it again sends nothing
            await page.page.locator(".state.done").first.wait_for()
            assert len(await t.client.runs()) == 2
            page.check()


async def test_retry_that_two_tabs_ask_for_is_one_run(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    two = Two()
    async with both(server, namespace, tmp_path, two) as (t, console), browsing(chromium) as browser:
        run = await t.submit(value=4)
        assert (await t.result(run)).status == "failed"
        two.mended = True
        async with (
            tab(browser, console, f"/runs/{run}/retry") as one,
            tab(browser, console, f"/runs/{run}/retry") as other,
        ):
            await one.leads(f"/runs/{retry_run(run)}", "Enter")  # its button has the focus
            await other.page.locator("button.confirms").evaluate(DOUBLE_CLICK)
            await other.page.wait_for_url(f"**/runs/{retry_run(run)}")
            assert (await t.result(retry_run(run))).status == "done"
            assert len(await t.client.runs()) == 2
            assert two.ones == 1
            one.check()
            other.check()


async def test_cancel_asks_first_and_pressed_twice_ends_the_run_once(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with team(server.url, namespace, FAILING, {}, start=False) as idle, browsing(chromium) as browser:
        run = await idle.submit(value=4)
        async with (
            served(idle.bus.settings, tmp_path / "idle.sqlite") as waiting,
            tab(browser, waiting, f"/runs/{run}") as page,
            tab(browser, waiting, f"/runs/{run}/cancel") as other,
        ):
            await page.leads(f"/runs/{run}/cancel", "X")
            assert (await idle.state(run)).status == "running"
            await page.leads(f"/runs/{run}", "Escape")
            await page.leads(f"/runs/{run}/cancel", "X")
            await page.page.get_by_label("why").fill("it is late")
            await page.page.locator("button.confirms").evaluate(DOUBLE_CLICK)
            await page.page.wait_for_url(f"**/runs/{run}")
            await page.sees("cancelled", "#head h1")
            await other.page.locator("button.confirms").click()
            await other.page.wait_for_url(f"**/runs/{run}")
            results = [each for each in await idle.kinds(run) if each == "result"]
            assert len(results) == 1
            assert "it is late" in (await idle.state(run)).result.reason  # type: ignore[union-attr]
            page.check()
            other.check()


async def test_question_that_two_tabs_answer_has_the_first_answer(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    counted = Counted()
    async with (
        timed(server, namespace, BOSS, {"boss": counted.boss}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
        tab(browser, console, "/attention") as page,
        tab(browser, console, "/attention") as other,
    ):
        run = await t.submit(text="it")
        await until_parked(t, run)
        words = {"yes": page, "no": other}
        for word, each in words.items():  # the question comes by itself
            await each.page.get_by_role("button", name=word, exact=True).wait_for()
        await asyncio.gather(
            *(
                each.page.get_by_role("button", name=word, exact=True).evaluate(DOUBLE_CLICK)
                for word, each in words.items()
            )
        )
        assert value_of((await t.result(run)).outcome) in words
        assert len([entry for entry in await t.log(run) if isinstance(entry.message, Answer)]) == 1
        assert counted.calls == 2
        (question,) = await asked(t, run)
        assert question.answered_by == console.console.who
        for each in words.values():
            await each.until("document.querySelectorAll('#questions tr').length === 0")
            each.check()
