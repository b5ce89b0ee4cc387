"""A real browser for tests: Debian's Chromium, driven by Playwright, that asks nobody but the console.

A file of tests has one (`chromium`, in conftest.py), and each test a session of its own in it (`browsing`). Where there
is no Chromium the tests are skipped, and say so; `BATON_CHROMIUM` names one elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec import Struct
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response, async_playwright
from playwright.async_api import Error as PlaywrightError

from .consoles import Served
from .servers import WAIT_S

CHROMIUM = os.environ.get("BATON_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
in_browser = [
    pytest.mark.skipif(
        not CHROMIUM,
        reason="NO BROWSER: the pages are not tested in one. `apt-get install chromium`, or BATON_CHROMIUM=PATH",
    ),
    pytest.mark.asyncio(loop_scope="module"),  # as its browser has
]
"""Marks of a file whose tests are in a browser: `pytestmark = in_browser`."""
_QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    "--host-resolver-rules=MAP stranger.test 127.0.0.1",
    *("--disable-component-update", "--disable-sync", "--force-color-profile=srgb", "--font-render-hinting=none"),
]


class Tab(Struct, frozen=True, kw_only=True):
    """A page of the console in a browser, and what it did besides what it shows."""

    page: Page
    base: str
    asked: list[str]
    """Addresses that it asked for."""
    said: list[str]
    """Errors and warnings in its own console: violations of the policy are such."""
    refused: list[str]
    """Answers that are no success, each as `404 http://…`."""

    async def go(self, path: str) -> None:
        """Open a page, and wait until it is there."""
        await self.page.goto(self.base + path, wait_until="load")

    async def live(self) -> None:
        """Wait until its stream is open."""
        await self.until("document.body._htmx?.sse?.status === 200")

    async def sees(self, text: str, within: str = "body") -> None:
        """Wait until this is written there."""
        await self.page.locator(within).get_by_text(text).first.wait_for()

    async def until(self, expression: str, given: Any = None) -> None:
        """Wait until this JavaScript is true."""
        async with asyncio.timeout(WAIT_S):
            # Looked at from here: the page itself may not evaluate what it is given.
            while not await self._now(expression, given):  # noqa: ASYNC110 (it sets no event of ours)
                await asyncio.sleep(0.01)

    async def _now(self, expression: str, given: Any) -> Any:
        try:
            return await self.page.evaluate(expression, given)
        except PlaywrightError:  # the page goes to another, or what is to be true cannot be said yet
            return False

    async def asks(self, expression: str, given: Any = None) -> Any:
        """Return what this JavaScript comes to."""
        return await self.page.evaluate(expression, given)

    async def keys(self, *names: str) -> None:
        """Press keys, one after the other: a letter, or a name as in `Shift+ArrowLeft`."""
        for name in names:
            await self.page.keyboard.press(name)

    async def leads(self, path: str, *keys: str) -> None:
        """Press keys, and wait until they have led to a page; `*` in its path is anything."""
        await self.keys(*keys)
        await self.page.wait_for_url(lambda url: fnmatchcase(url.removeprefix(self.base), path), wait_until="load")

    @property
    def path(self) -> str:
        """Where it is."""
        return self.page.url.removeprefix(self.base)

    @property
    def strangers(self) -> list[str]:
        """Hosts other than the console that it asked."""
        return [url for url in self.asked if not url.startswith((self.base + "/", "data:", "blob:", "about:"))]

    def check(self) -> None:
        """Assert that it asked only us, and that nothing was amiss in it."""
        assert self.strangers == []
        assert self.said == []


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """Have a browser while the context is open."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def browsing(chromium: Browser, **options: Any) -> AsyncIterator[BrowserContext]:
    """Have a session with nothing in it while the context is open; `options` are those of a Playwright context."""
    given: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"} | options
    context = await chromium.new_context(**given)
    context.set_default_timeout(WAIT_S * 1_000)
    try:
        yield context
    finally:
        await context.close()


@asynccontextmanager
async def tab(context: BrowserContext, served: Served, path: str = "/") -> AsyncIterator[Tab]:
    """Open a page of a console in a tab while the context is open; the browser is let in by its token."""
    page = await context.new_page()
    base = served.address.url.rstrip("/")
    opened = Tab(page=page, base=base, asked=[], said=[], refused=[])

    def on_request(request: Request) -> None:
        opened.asked.append(request.url)

    def on_said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            opened.said.append(message.text)

    def on_response(response: Response) -> None:
        if response.status >= 400:
            opened.refused.append(f"{response.status} {response.url}")

    page.on("request", on_request)
    page.on("response", on_response)
    page.on("console", on_said)
    page.on("pageerror", lambda error: opened.said.append(str(error)))
    try:
        joint = "&" if urlsplit(path).query else "?"
        await page.goto(f"{base}{path}{joint}token={served.address.token}", wait_until="load")
        yield opened
    finally:
        await page.close()
