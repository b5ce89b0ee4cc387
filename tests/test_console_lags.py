"""What a page says of its own lag is so: it is compared with the times of the log and of what is painted."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path
from typing import Any

from playwright.async_api import Browser

from baton_schemas.flow.flow import Field, Step

from .browsers import Tab, browsing, in_browser, tab
from .consoles import served
from .servers import NatsServer
from .team import Team, flow_of, team

pytestmark = in_browser

FLOW = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})
RUNS = 12
APART_S = 0.25
"""Between two runs: each is a sending of its own."""
USUAL_MS, MOST_MS = 15.0, 60.0
"""How far apart the two may be: both are taken after the same frame, by callbacks of which one is first."""

_WATCH = """() => {
  window.painted = {};
  new MutationObserver(() => {
    for (const row of document.querySelectorAll("tr[id^=run-]")) {
      if (window.painted[row.id]) continue;
      const said = window.painted[row.id] = { next: batonLags.length };
      requestAnimationFrame(() => setTimeout(() => { said.at = performance.timeOrigin + performance.now(); }));
    }
  }).observe(document.getElementById("main"), { childList: true, subtree: true });
}"""
_BUSY = """() => new Promise((done) => setTimeout(() => {
  const until = performance.now() + 500;
  while (performance.now() < until);
  done();
}, 5))"""


async def double(value: int) -> int:
    return value * 2


async def told(page: Tab, t: Team, run: str) -> tuple[float, float]:
    """The lag of a run's first message as the page says it, and as the log and the clock do: in milliseconds."""
    await page.until(f"painted['run-{run}']?.at && batonLags.length > painted['run-{run}'].next")
    said: list[Any] = await page.page.evaluate(f"[batonLags[painted['run-{run}'].next], painted['run-{run}'].at]")
    (first, *_) = await t.log(run)
    return said[0], said[1] - first.at.timestamp() * 1_000


async def test_lag_that_a_page_shows_is_the_time_from_stored_to_painted_also_when_the_page_is_busy(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
        tab(browser, console) as page,
    ):
        await t.run(value=0)
        await page.live()
        await page.page.wait_for_selector("tr[id^=run-] .state.done")
        await page.page.evaluate(_WATCH)
        apart = []
        for value in range(RUNS):
            await asyncio.sleep(APART_S)
            said_ms, was_ms = await told(page, t, await t.submit(value=value))
            apart.append(abs(said_ms - was_ms))
        assert statistics.median(apart) < USUAL_MS, apart
        await asyncio.sleep(APART_S)
        busy = asyncio.create_task(page.page.evaluate(_BUSY))
        await asyncio.sleep(APART_S / 4)  # the page is busy by now, and for longer
        run = await t.submit(value=1)
        await busy
        said_ms, was_ms = await told(page, t, run)
        assert was_ms > 300
        assert abs(said_ms - was_ms) < MOST_MS
        assert page.said == []
