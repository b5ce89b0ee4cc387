"""Addresses: each opened cold shows what it showed when it was copied, and back and forward lead where one was."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Browser

from .browsers import browsing, in_browser, tab
from .servers import NatsServer
from .test_browser_looks import kept, words

pytestmark = in_browser


async def test_addresses_opened_cold_show_what_they_showed_and_back_and_forward_lead_there(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        kept(server, namespace, tmp_path) as (_, console, paths),
        browsing(chromium) as browser,
        browsing(chromium) as stranger,
        tab(browser, console) as page,
        tab(stranger, console) as cold,
    ):
        failed = paths[2]
        # As one goes: a search, a run, back through its messages, a step, an attempt, a comparison.
        await page.go("/")
        shown: list[tuple[str, str]] = []

        async def keep() -> None:
            shown.append((page.path, await words(page)))

        await keep()
        await page.keys("/", *"library")
        await page.leads("/?*text=library*", "Enter")
        await page.page.locator("#runs tr[id]").first.wait_for()
        await keep()
        await page.keys("j")
        await page.leads(failed, "l")
        await keep()
        await page.leads(f"{failed}?at=*", "End")
        await keep()
        await page.page.locator("#steps a", has_text="write").first.click()
        await page.page.wait_for_url(f"**{failed}/steps/write")
        await keep()
        await page.page.get_by_role("link", name="json", exact=True).click()
        await page.page.wait_for_url("**as=json*")
        await keep()
        await page.go(next(path for path in paths if path.startswith("/compare/")))
        await page.page.locator("#differs-check a").first.click()
        await page.page.wait_for_url("**step=check*")
        await keep()
        for path, said in shown:
            await cold.go(path)
            assert await words(cold) == said, path
        for path, said in shown[-3::-1]:
            while page.path != path:
                await page.page.go_back()
            assert await words(page) == said, path
        for path, said in shown[1:5]:
            await page.page.go_forward()
            assert (page.path, await words(page)) == (path, said)
        # A run by an end of its id, and what is not there, say so.
        run = failed.removeprefix("/runs/")
        await cold.go(f"/runs/{run[-8:]}")
        assert cold.path == failed
        await cold.go("/runs/nosuch")
        assert "404" in cold.refused[-1]
        page.check()
        cold.check()
