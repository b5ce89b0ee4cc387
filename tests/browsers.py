"""A real browser for tests: Debian's Chromium, driven by Playwright, that asks nobody but the console.

Where there is no Chromium the tests are skipped, and say so; `BATON_CHROMIUM` names one elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from msgspec import Struct
from playwright.async_api import BrowserContext, ConsoleMessage, Page, Request, async_playwright

from .consoles import Served

CHROMIUM = os.environ.get("BATON_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
in_browser = pytest.mark.skipif(
    not CHROMIUM,
    reason="NO BROWSER: the pages are not tested in one. `apt-get install chromium`, or BATON_CHROMIUM=PATH",
)
_QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
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

    async def go(self, path: str) -> None:
        """Open a page, and wait until it is there."""
        await self.page.goto(self.base + path, wait_until="load")

    async def live(self) -> None:
        """Wait until its stream is open."""
        await when(self.page, "document.body._htmx?.sse?.status === 200")

    @property
    def strangers(self) -> list[str]:
        """Hosts other than the console that it asked."""
        return [url for url in self.asked if not url.startswith((self.base, "data:", "blob:", "about:"))]


async def when(page: Page, expression: str, timeout_s: float = 30.0) -> None:
    """Wait until something is so in a page: Playwright's own way evaluates text there, which our policy forbids."""
    async with asyncio.timeout(timeout_s):
        while not await page.evaluate(f"Boolean({expression})"):  # noqa: ASYNC110 (what happens in a browser)
            await asyncio.sleep(0.005)


@asynccontextmanager
async def browsing(**options: Any) -> AsyncIterator[BrowserContext]:
    """Have a browser with nothing in it while the context is open; `options` are those of a Playwright context."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        try:
            given: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"} | options
            yield await browser.new_context(**given)
        finally:
            await browser.close()


@asynccontextmanager
async def tab(context: BrowserContext, served: Served, path: str = "/") -> AsyncIterator[Tab]:
    """Open a page of a console in a tab while the context is open; the browser is let in by its token."""
    page = await context.new_page()
    base = served.address.url.rstrip("/")
    opened = Tab(page=page, base=base, asked=[], said=[])

    def on_request(request: Request) -> None:
        opened.asked.append(request.url)

    def on_said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            opened.said.append(message.text)

    page.on("request", on_request)
    page.on("console", on_said)
    page.on("pageerror", lambda error: opened.said.append(str(error)))
    try:
        joint = "&" if urlsplit(path).query else "?"
        await page.goto(f"{base}{path}{joint}token={served.address.token}", wait_until="load")
        yield opened
    finally:
        await page.close()
