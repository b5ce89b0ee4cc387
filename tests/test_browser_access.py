"""Who is let in, by a real browser: pages of others are open in it, links are shared, other consoles run beside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Response

from baton_actors.console.guard import cookie_name
from baton_bus import Settings
from baton_schemas.flow.flow import Field, Step

from .browsers import browsing, in_browser, tab
from .consoles import served
from .servers import NatsServer, peer
from .team import flow_of, team

pytestmark = in_browser
FLOW = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})

HOSTILE = """\
<!doctype html><title>hostile</title>
<form id="form" method="post" action="{url}runs/{run}/cancel" target="shown"><input name="csrf" value="guessed"></form>
<form id="get" action="{url}runs/{run}/cancel" target="other"></form>
<iframe name="shown"></iframe><iframe name="other"></iframe><iframe id="framed" src="{url}"></iframe>
<img id="img" src="{url}static/icon.svg"><img src="{url}runs/{run}/cancel">
<script src="{url}static/keys.js" type="module"></script><link rel="stylesheet" href="{url}static/console.css">
<script>
window.tried = (async () => {{
  const tried = [];
  const asks = async (what, ...given) => {{
    try {{ const answer = await fetch(...given); tried.push([what, answer.type, answer.status, await answer.text()]); }}
    catch (error) {{ tried.push([what, "error", 0, ""]); }}
  }};
  const body = new URLSearchParams({{csrf: "guessed", note: "mine"}});
  await asks("read", "{url}", {{credentials: "include"}});
  await asks("blind", "{url}", {{credentials: "include", mode: "no-cors"}});
  await asks("facts", "{url}runs.json", {{credentials: "include"}});
  await asks("post", "{url}runs/{run}/cancel", {{method: "POST", credentials: "include", mode: "no-cors", body}});
  await asks("stream", "{url}live?of=/", {{credentials: "include", mode: "no-cors"}});
  const heard = await new Promise((done) => {{
    const source = new EventSource("{url}live?of=/", {{withCredentials: true}});
    source.onmessage = () => done("heard");
    source.onerror = () => {{ source.close(); done("nothing"); }};
  }});
  tried.push(["events", heard, 0, ""]);
  const socket = await new Promise((done) => {{
    const opened = new WebSocket("{url}".replace("http", "ws") + "live");
    opened.onopen = () => done("open");
    opened.onerror = () => done("nothing");
  }});
  tried.push(["socket", socket, 0, ""]);
  return tried;
}})();
</script>
"""


async def double(value: int) -> int:
    return value * 2


@asynccontextmanager
async def stranger(html: str) -> AsyncIterator[str]:
    """Serve a page of somebody else's on this machine; yield its address, without a name."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = html.encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    async with peer(answer) as address:
        yield address.rpartition(":")[2]


async def test_hostile_page_in_the_same_browser_reads_nothing_does_nothing_and_frames_nothing(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    async with (
        team(server.url, namespace, FLOW, {"do": double}, start=False) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
        browsing(chromium) as browser,
        tab(browser, console) as ours,
    ):
        run = await t.submit(value=1)
        await ours.go(f"/runs/{run}")  # whoever looks at it is let in
        came: list[int] = []

        def on_response(response: Response) -> None:
            if response.url.startswith(console.address.url):
                came.append(response.status)

        async with stranger(HOSTILE.format(url=console.address.url, run=run)) as port:
            # By the same name, whose cookies come along, and by another.
            for name in ("127.0.0.1", "localhost", "stranger.test"):
                page = await browser.new_page()
                page.on("response", on_response)
                await page.goto(f"http://{name}:{port}/")
                tried = {what: rest for what, *rest in await page.evaluate("tried")}
                assert list(tried) == ["read", "blind", "facts", "post", "stream", "events", "socket"]
                assert [tried[what][0] for what in ("read", "facts")] == ["error", "error"]
                assert {text for _, _, text in tried.values()} == {""}
                assert (tried["events"][0], tried["socket"][0]) == ("nothing", "nothing")
                assert await page.evaluate("img.naturalWidth") == 0  # not even a picture of ours
                assert await page.evaluate("getComputedStyle(document.body).getPropertyValue('--ink')") == ""
                for form in ("form", "get"):
                    async with page.expect_response(lambda answer: "/cancel" in answer.url) as answered:
                        await page.evaluate(f"document.getElementById('{form}').submit()")
                    assert (await answered.value).status == 403
                for frame in page.frames[1:]:
                    await frame.wait_for_load_state()
                    assert run not in await frame.content()
                async with page.expect_popup() as popped:
                    await page.evaluate(f"void (window.mine = open('{console.address.url}runs/{run}'))")
                popup = await popped.value
                await popup.wait_for_load_state()
                assert "comes from another page" in await popup.inner_text("body")
                await popup.close()
                await page.close()
        assert len(came) >= 9  # what a page cannot even see is told to nobody
        assert set(came) == {403}
        assert (await t.state(run)).status == "running"
        ours.check()


async def test_pages_are_for_who_has_the_token_and_no_link_that_is_shared_has_it(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with (
        served(settings, tmp_path / "index.sqlite") as console,
        browsing(chromium, permissions=["clipboard-read", "clipboard-write"]) as ours,
        browsing(chromium) as theirs,
        tab(ours, console, "/?status=failed") as page,
    ):
        url, token = console.address.url, console.address.token
        assert page.path == "/?status=failed"
        await page.keys("y")
        await page.sees("copied the link", "#said")
        shared = await page.asks("navigator.clipboard.readText()")
        assert shared == f"{url}?status=failed"
        assert token not in await page.page.content()
        assert await page.asks("document.cookie") == ""  # no script has it, ours neither
        assert await page.asks("history.length") <= 2
        other = await theirs.new_page()
        for path in ("", f"runs/{'0' * 26}", "live?of=/", "runs.json", f"?token={token[:-1]}", f"?token={token}x"):
            answer = await other.goto(url + path)
            assert answer is not None
            assert answer.status == 401
            said = await other.inner_text("body")
            assert "needs its token" in said
            assert len(said) < 200
        # A cookie that was guessed, or is of another console, is none.
        port = url.rstrip("/").rpartition(":")[2]
        await theirs.add_cookies([{"name": cookie_name([f"127.0.0.1:{port}"]), "value": "0" * 64, "url": url}])
        answer = await other.goto(url)
        assert answer is not None
        assert answer.status == 401
        # Another name that leads here, as that of a page elsewhere may (DNS rebinding).
        answer = await other.goto(f"http://stranger.test:{port}/?token={token}")
        assert answer is not None
        assert (answer.status, await theirs.cookies(f"http://stranger.test:{port}")) == (400, [])
        page.check()


async def test_two_consoles_in_one_browser_do_not_lock_each_other_out(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with (
        served(settings, tmp_path / "index.sqlite") as console,
        served(settings, tmp_path / "other.sqlite", read_only=True) as other,
        browsing(chromium) as browser,
        tab(browser, console) as one,
        tab(browser, other) as two,
    ):
        for page in (one, two, one):
            await page.go("/flows")
            await page.live() if await page.asks("document.body.hasAttribute('hx-sse:connect')") else None
            assert await page.page.title() == "Flows · Baton"
        assert await two.page.get_by_text("read only").count() == 1
        for page in (one, two):
            assert page.refused == []
            page.check()
