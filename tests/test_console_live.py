"""The console in a browser, live: what is stored elsewhere is painted here, and nothing that a reader holds is lost."""

from __future__ import annotations

from pathlib import Path

from baton_schemas.flow.flow import Field, Step

from .browsers import browsing, in_browser, tab
from .consoles import served
from .servers import NatsServer
from .team import flow_of, team

FLOW = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})


async def double(value: int) -> int:
    return value * 2


@in_browser
async def test_run_that_is_started_elsewhere_appears_without_a_request_by_the_page(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing() as browser,
        tab(browser, console) as page,
    ):
        await page.live()
        before = len(page.asked)
        run = await t.submit(value=4)
        await page.page.wait_for_selector(f"#run-{run} .state.done")
        assert page.asked[before:] == []
        assert page.said == []
        assert page.strangers == []
