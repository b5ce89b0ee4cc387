"""The pages on a narrow screen: bars of three lines in all, and nothing that makes the page scroll sideways."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Browser

from baton_schemas.flow.flow import Field, Step

from .browsers import browsing, in_browser, tab
from .consoles import served
from .servers import NatsServer
from .team import flow_of, team

pytestmark = in_browser
PAGES = ("/", "/flows", "/queues", "/attention", "/spend", "/schedules", "/log", "/files", "/server")
OVER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
BARS = "document.querySelector('.top').offsetHeight + document.querySelector('.status').offsetHeight"
IN_SIGHT = """() => {
  const found = [".top [aria-current]", ".top nav"].map((each) => document.querySelector(each));
  const [here, bar] = found.map((each) => each?.getBoundingClientRect());
  return !here || here.left >= bar.left - 1 && here.right <= bar.right + 1;
}"""


async def test_narrow_pages_have_small_bars_and_do_not_scroll_sideways(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    flow = flow_of({"one": Step(agent="one"), "two": Step(agent="two", after=["one"])}, {"value": Field(type="int")})
    async with (
        team(server.url, namespace, flow, {"one": lambda value: value, "two": lambda one: one}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium, viewport={"width": 400, "height": 800}) as browser,
        tab(browser, console) as shown,
    ):
        run = await t.submit(value=1)
        assert (await t.result(run)).status == "done"
        own = (f"/runs/{run}", f"/runs/{run}/steps/one", f"/runs/{run}/messages/2", f"/runs/{run}/fork", "/flows/flow")
        for path in (*PAGES, *own, f"/compare/{run}/{run}"):
            await shown.go(path)
            assert await shown.asks(OVER) <= 0, path
            assert await shown.asks(BARS) <= 3 * 38, path
            assert await shown.asks(IN_SIGHT), path
        shown.check()
