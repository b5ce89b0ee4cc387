"""Hostile texts in a browser: whatever models, people and strangers write is text on every page, and does nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Dialog, Route

from baton_actors import Context
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.names import sortable_id

from .browsers import browsing, in_browser, tab
from .consoles import HOSTILE, served
from .servers import NatsServer
from .team import Team, flow_of
from .test_people import until_parked
from .timed import timed, until_so

pytestmark = in_browser
LINE = "x" * 10_000_000
"""A line of 10 MB."""
FLOW = flow_of(
    {
        "say": Step(agent="say"),
        "ask": Step(agent="ask", after=["say"]),
        "each": Step(agent="each", each="say", after=["ask"]),
    },
    {"text": Field()},
    {"each": {"max_attempts": 1}},
)
WAITS = "waits"


async def say(text: str) -> list[str]:
    return [HOSTILE, text]


async def ask(say: list[str], context: Context) -> Any:
    if say[1] == WAITS:
        return await context.ask_person("editors", f"Publish {HOSTILE}?", answers=[HOSTILE[:60], "no"])
    return LINE


async def fails(item: str) -> str:
    raise ValueError(item)


async def runs_of(t: Team) -> tuple[str, str]:
    """A run that failed with all of it in its log, and one that waits for people."""
    failed, waits = sortable_id(), sortable_id()
    await t.submit(failed, text=HOSTILE)
    assert (await t.result(failed)).status == "failed"
    await t.submit(waits, text=WAITS)
    await until_parked(t, waits)
    # Bad messages: no JSON, invalid UTF-8, lines that would forge an event of a stream, a step with a name of theirs.
    subject = f"{t.bus.settings.namespace}.handoff.{t.plan.flow.name}--say.{failed}.say.start"
    for number, data in enumerate((b'{"</pre><script>alert(1)', b"\xff\xfe\r\n\ndata: forged\n\n", HOSTILE.encode())):
        await t.bus.js.publish(f"{subject}{number}", data)
    return failed, waits


async def test_hostile_texts_are_text_on_every_page_and_nothing_of_them_runs_or_asks_anybody(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    asked: list[str] = []
    opened: list[str] = []

    async def on_route(route: Route) -> None:
        asked.append(route.request.url)
        await route.continue_()

    async def on_dialog(dialog: Dialog) -> None:
        opened.append(dialog.message)
        await dialog.dismiss()

    async with (
        timed(server, namespace, FLOW, {"say": say, "ask": ask, "each": fails}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
        tab(browser, console) as page,
    ):
        await browser.route("**/*", on_route)
        page.page.on("dialog", on_dialog)
        await page.asks("document.addEventListener('securitypolicyviolation', each => console.error(each.blockedURI))")
        await page.live()
        failed, waits = await runs_of(t)  # live, on the list, first
        await page.page.locator(f"#run-{failed} .state.failed").wait_for()

        async def are_rejected() -> bool:
            return len((await console.get("/attention.json")).json()["rejected"]) == 3

        await until_so(are_rejected)
        entries = await t.log(failed)
        run = f"/runs/{failed}"
        paths = [
            "/",
            "/?text=alert",
            f"/?text={HOSTILE[:100].replace('#', '')}",
            run,
            f"{run}?at=2",
            *(f"{run}/messages/{number}" for number in range(1, len(entries) + 1)),
            *(f"{run}/steps/{step}" for step in ("say", "ask", "each", "each-0", "each-1")),
            f"{run}/steps/each-0?as=rendered",
            f"{run}/fork",
            f"{run}/fork?after=say",
            f"{run}/retry",
            f"/runs/{waits}",
            f"/runs/{waits}/cancel",
            f"/runs/{waits}/answer?step=editors",
            f"/compare/{failed}/{waits}",
            f"/compare/{failed}/{failed}?step=each-0&with=each-1",
            "/attention",
            "/flows",
            f"/flows/{t.plan.flow.name}",
            "/queues",
            "/spend",
            "/schedules",
            "/log",
            "/server",
            f"/runs/{HOSTILE[:60].replace('/', '').replace('#', '')}",
            "/no/such/<script>alert(1)</script>",
        ]
        shown = 0
        for path in paths:
            await page.page.goto(page.base + path, wait_until="load")
            html = await page.asks("document.body.outerHTML")
            assert (
                await page.asks("document.querySelectorAll('img, iframe, object, main script, main b[hx-get]').length")
                == 0
            )
            assert (
                await page.asks("[...document.links].filter(each => !each.href.startsWith(location.origin)).length")
                == 0
            )
            assert not [each for each in html if "\u202a" <= each <= "\u202e"]
            assert await page.asks("document.querySelectorAll('#help, #palette').length") == 2, path  # whole to its end
            shown += "<script>alert(1)" in await page.page.inner_text("body")
        assert shown > 10
        # Live, on the page of a run, and by hand.
        await page.go(f"/runs/{waits}")
        await page.live()
        await page.go("/attention")
        await page.page.locator("#questions button").first.click()
        await t.result(waits)
        assert opened == []
        assert [url for url in asked if not url.startswith((page.base + "/", "data:"))] == []
        page.check()
