"""The console in a real browser, on a real server with real workers: how soon pages are there, how far they are behind
what is stored, and what they cost. Chromium is the one of `tests/browsers.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit

from msgspec import Struct
from playwright.async_api import BrowserContext, Page

from baton_bus import Settings
from baton_bus.index import file as files
from baton_bus.index.finding import reach_of
from baton_bus.server.embedded import Embedded, embedded
from baton_bus.store.bus import open_bus

from ..browsers import CHROMIUM, browsing, launched
from ..indexed import recorded
from . import mixed, team
from .processes import BATON, cpu_s, is_browser, rss_mb, tree
from .rows import Row, row

RUNS = 10_000
MESSAGES = 4_300
"""Branches of a run of about ten thousand messages."""
CELLS = 10_000
LIVE = 1_000
"""Branches of a run that is watched as it goes; they end over some seconds, as calls of models do."""
LAGS = 200
OPENED = 5
"""Times that a page is opened."""
STEPS = 12
PAGES = 20
_IDLE_S = 3.0
_PAGES_S = 6.0
_WAIT_S = 60.0
_LOOK_S = 0.02


class _Console(Struct, frozen=True, kw_only=True):
    """A console as its users start it."""

    url: str
    way_in: str
    pid: int
    began: float
    """When its process was started (of `time.perf_counter`)."""


async def rows() -> list[Row]:
    """Return the rows of the table; a minute and a half."""
    if not CHROMIUM:
        sys.exit("there is no Chromium: `apt-get install chromium`, or BATON_CHROMIUM=PATH")
    with tempfile.TemporaryDirectory() as folder:
        async with embedded(Path(folder) / "log") as server:
            await mixed.fill_runs(server.url, RUNS)
            long, wide = await _runs(server.url, MESSAGES, CELLS)
            async with launched() as chromium, browsing(chromium) as browser:
                async with _console(server) as console:
                    started = await _started(browser, console)
                    await _indexed(server)
                async with _console(server) as console:
                    again = await _started(browser, console)
                    found = [
                        row("`baton console` to a usable page, no index yet", "s", started, most=1.5),
                        row("the same with its index", "s", again, most=1.5),
                        *await _opening(browser, console, long, wide),
                        *await _idle(browser, console, long),
                        *await _live(browser, console, server),
                    ]
    return found


# ---- what there is


async def _runs(url: str, *branches: int) -> list[str]:
    """Have runs of so many branches done; return their ids."""
    async with team.in_one_process(url, mixed.NAMESPACE, "fan-out", keep=True) as baton:
        return [await baton.run({"text": "x" * 64, "branches": count}) for count in branches]


@asynccontextmanager
async def _console(server: Embedded) -> AsyncIterator[_Console]:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *BATON,
        *("console", "--no-open", "--data-dir", str(server.data_dir), "--namespace", mixed.NAMESPACE),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        if "token=" not in line:
            sys.exit("`baton console` did not come up")
        way_in = line.split()[-1]
        url = "http://" + urlsplit(way_in).netloc
        yield _Console(url=url, way_in=way_in, pid=process.pid, began=began)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _indexed(server: Embedded) -> None:
    """Wait until all runs are in the index."""
    path = server.data_dir / f"index-{mixed.NAMESPACE}.sqlite"
    async with open_bus(Settings(url=server.url, namespace=mixed.NAMESPACE)) as bus:
        last_seq = await bus.log.end()
    deadline = time.monotonic() + _WAIT_S
    database = files.connected(path)
    try:
        while (reach := reach_of(database)).high_seq < last_seq or reach.low_seq > 1:
            assert time.monotonic() < deadline, "the index is not made"
            await asyncio.sleep(_LOOK_S)
    finally:
        database.close()


# ---- how soon it is there


async def _started(browser: BrowserContext, console: _Console) -> float:
    page = await browser.new_page()
    await page.goto(console.way_in, wait_until="load")
    await page.wait_for_selector("#runs [data-href]")
    await _until_live(page)
    taken_s = time.perf_counter() - console.began
    await page.close()
    return taken_s


class _Opened(NamedTuple):
    painted_ms: float
    """First contentful paint."""
    answered_ms: float
    """The first byte of its answer."""
    size_kb: float


async def _opening(browser: BrowserContext, console: _Console, long: str, wide: str) -> list[Row]:
    listed = await _opened(browser, console, "/")
    light_mb = rss_mb(console.pid)
    first = await _opened(browser, console, f"/runs/{long}", 1)
    run = await _opened(browser, console, f"/runs/{long}")
    loaded = [await _loaded_kb(browser, console, path) for path in ("/", f"/runs/{long}", f"/runs/{long}/steps/each")]
    name, of_run = f"list, {RUNS:,} runs in the log", f"run of {MESSAGES * 7 // 3:,} messages"
    return [
        row(f"{name}: first contentful paint", "ms", listed.painted_ms, most=300),
        row(f"{name}: first byte", "ms", listed.answered_ms),
        row(f"{name}: HTML", "kB", listed.size_kb),
        row(f"{of_run}, opened first: first contentful paint", "ms", first.painted_ms, most=1_000),
        row(f"{of_run}, opened first: first byte", "ms", first.answered_ms),
        row(f"{of_run}, opened again: first contentful paint", "ms", run.painted_ms, most=1_000),
        row(f"{of_run}, opened again: first byte", "ms", run.answered_ms),
        row(f"{of_run}: HTML", "kB", run.size_kb),
        row(f"{of_run}: one message on, or back", "ms", await _step_ms(browser, console, long), most=50),
        row(f"{CELLS:,} cells: a frame", "ms", await _frame_ms(browser, console, wide), most=16),
        row("memory of the console, lists opened", "MB", light_mb, most=80),
        row("memory of the console, this run and one of twice as many messages opened", "MB", rss_mb(console.pid)),
        row("scripts and styles of a page, gzipped", "kB", max(loaded), most=30),
    ]


async def _opened(browser: BrowserContext, console: _Console, path: str, times: int = OPENED) -> _Opened:
    """Open a page so many times; return the medians."""
    found = []
    for _ in range(times):
        page = await browser.new_page()
        await page.goto(console.url + path, wait_until="load")
        await _when(page, "performance.getEntriesByName('first-contentful-paint').length")
        told = await page.evaluate(
            """() => {
              const [way] = performance.getEntriesByType("navigation");
              const [painted] = performance.getEntriesByName("first-contentful-paint");
              return [painted.startTime, way.responseStart - way.requestStart, way.decodedBodySize / 1000];
            }"""
        )
        found.append(_Opened(*told))
        await page.close()
    return _Opened(*(statistics.median(column) for column in zip(*found, strict=True)))


async def _loaded_kb(browser: BrowserContext, console: _Console, path: str) -> float:
    """Return how large the scripts and styles of a page are, compressed."""
    page = await browser.new_page()
    await page.goto(console.url + path, wait_until="load")
    names = await page.evaluate("performance.getEntriesByType('resource').map((each) => each.name)")
    size = 0
    for name in {name for name in names if name.endswith((".js", ".css"))}:
        size += len(gzip.compress(await (await page.request.get(name)).body()))
    await page.close()
    return size / 1_000


async def _step_ms(browser: BrowserContext, console: _Console, run: str) -> float:
    """Return what a step through the messages of a run takes, from the key until all parts are as they were then."""
    page = await browser.new_page()
    await page.goto(f"{console.url}/runs/{run}?at={MESSAGES}", wait_until="load")
    for number in range(STEPS):
        await page.keyboard.press("ArrowLeft" if number % 3 == 2 else "ArrowRight")
        await _when(page, f"(window.batonSteps ?? []).length === {number + 1}")
    steps: list[float] = await page.evaluate("window.batonSteps")
    await page.close()
    return statistics.median(steps)


async def _frame_ms(browser: BrowserContext, console: _Console, run: str) -> float:
    """Return what it takes to draw all cells of a run, until they are pixels."""
    page = await browser.new_page()
    await page.goto(f"{console.url}/runs/{run}", wait_until="load")
    frames: list[float] = await page.evaluate(
        """async () => {
          const { fields } = await import("/static/drawn.js"), [field] = fields.values(), frames = [];
          const canvas = field.place.querySelector("canvas");
          for (let number = 0; number < 15; number++) {
            const began = performance.now();
            field.paint();
            const bitmap = await createImageBitmap(canvas);
            frames.push(performance.now() - began);
            bitmap.close();
            await new Promise(requestAnimationFrame);
          }
          return [field.signs.length, ...frames];
        }"""
    )
    await page.close()
    assert frames[0] == CELLS
    return statistics.median(frames[1:])


# ---- what it costs when nothing comes


async def _idle(browser: BrowserContext, console: _Console, run: str) -> list[Row]:
    asked: list[str] = []
    pages = []
    for path in ("/", f"/runs/{run}"):
        page = await browser.new_page()
        await page.goto(console.url + path, wait_until="load")
        await _until_live(page)
        pages.append(page)
        page.on("request", lambda request: asked.append(request.url))
    await asyncio.sleep(1)
    asked.clear()
    ours, theirs = tree(console.pid), [pid for pid in tree(os.getpid()) if is_browser(pid)]
    before, before_theirs, began = cpu_s(ours), cpu_s(theirs), time.perf_counter()
    await asyncio.sleep(_IDLE_S)
    taken_s = time.perf_counter() - began
    name = "idle, a list and a run open"
    found = [
        row(f"{name}: requests", "", len(asked), most=0),
        row(f"{name}: the console and its index", "% of a core", 100 * (cpu_s(ours) - before) / taken_s, most=2),
        row(f"{name}: the browser", "% of a core", 100 * (cpu_s(theirs) - before_theirs) / taken_s, most=2),
    ]
    for page in pages:
        await page.close()
    return found


# ---- how far it is behind


async def _live(browser: BrowserContext, console: _Console, server: Embedded) -> list[Row]:
    async with (
        team.as_processes(server.url, mixed.NAMESPACE, "pipeline", keep=True) as pipeline,
        team.as_processes(server.url, mixed.NAMESPACE, "trickle", keep=True) as trickle,
    ):
        quiet = await _list_lags(browser, console, pipeline, per_s=10)
        of_run = await _run_lags(browser, console, trickle)
        async with _going_on(server, per_s=1_000):
            busy = await _list_lags(browser, console, pipeline, per_s=10)
            of_run_busy = await _run_lags(browser, console, trickle)
        cost = await _cost_of_pages(browser, console, pipeline)
    found = []
    for name, lags, most in (
        ("list at 10 runs/s", quiet, 100),
        (f"a run of {LIVE:,} branches", of_run, 100),
        ("list, 1,000 messages/s going on", busy, 200),
        (f"a run of {LIVE:,} branches, 1,000 messages/s going on", of_run_busy, 200),
    ):
        found += [
            row(f"stored to painted, {name}, p50 of {len(lags)}", "ms", statistics.median(lags)),
            row(f"stored to painted, {name}, p95", "ms", statistics.quantiles(lags, n=20)[-1], most=most),
        ]
    return found + cost


async def _list_lags(browser: BrowserContext, console: _Console, baton: team.Team, *, per_s: float) -> list[float]:
    """Return how far the list was behind, as it says itself, while so many runs a second begin and end."""
    async with _page(browser, console, "/") as page, _starting(baton, per_s):
        await _when(page, f"batonLags.length >= {LAGS}", _WAIT_S)
        lags: list[float] = await page.evaluate("batonLags")
    return lags


async def _run_lags(browser: BrowserContext, console: _Console, baton: team.Team) -> list[float]:
    run = await baton.client.start(baton.plan, {"text": "x" * 200, "branches": LIVE})
    async with _page(browser, console, f"/runs/{run.id}") as page:
        await run.result(_WAIT_S)
        await page.wait_for_selector("#head .state.done")
        lags: list[float] = await page.evaluate("batonLags")
    return lags


async def _cost_of_pages(browser: BrowserContext, console: _Console, baton: team.Team) -> list[Row]:
    """Return what a list costs the console that so many have open; readers of its stream are in place of tabs."""
    own = f"baton-{urlsplit(console.url).port}"
    (cookie,) = [each["value"] for each in await browser.cookies(console.url) if each["name"] == own]
    given = [f"{own}={cookie}; {own}-browser={number}" for number in range(PAGES)]
    readers = [asyncio.create_task(_read_stream(console, each)) for each in given]
    try:
        async with _starting(baton, 15):
            await asyncio.sleep(1)
            pids = [console.pid]
            before, began = cpu_s(pids), time.perf_counter()
            await asyncio.sleep(_PAGES_S)
            share = 100 * (cpu_s(pids) - before) / (time.perf_counter() - began)
        assert not any(reader.done() for reader in readers), "a stream has ended"
    finally:
        for reader in readers:
            reader.cancel()
        sizes = await asyncio.gather(*readers, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in sizes), sizes
    return [row(f"{PAGES} lists open at 15 runs/s: the console", "% of a core", share, most=25)]


async def _read_stream(console: _Console, cookie: str) -> None:
    host = urlsplit(console.url).netloc
    reader, writer = await asyncio.open_connection(*host.split(":"))
    try:
        writer.write(f"GET /live?of=/ HTTP/1.1\r\nhost: {host}\r\ncookie: {cookie}\r\n\r\n".encode())
        assert b" 200 " in await reader.readline()
        while await reader.read(1 << 16):
            pass
    finally:
        writer.close()


@asynccontextmanager
async def _page(browser: BrowserContext, console: _Console, path: str) -> AsyncIterator[Page]:
    page = await browser.new_page()
    try:
        await page.goto(console.url + path, wait_until="load")
        await _until_live(page)
        yield page
    finally:
        await page.close()


async def _when(page: Page, expression: str, timeout_s: float = 30.0) -> None:
    """Wait until something is so in a page: Playwright's own way evaluates text there, which our policy forbids."""
    async with asyncio.timeout(timeout_s):
        while not await page.evaluate(f"Boolean({expression})"):  # noqa: ASYNC110 (what happens in a browser)
            await asyncio.sleep(0.005)


async def _until_live(page: Page) -> None:
    await _when(page, "document.body._htmx?.sse?.status === 200")


@asynccontextmanager
async def _starting(baton: team.Team, per_s: float) -> AsyncIterator[None]:
    """Have so many runs a second begin while the context is open."""

    async def start() -> None:
        at = time.perf_counter()
        while True:
            await baton.client.start(baton.plan, {"text": "x" * 256})
            at += 1 / per_s
            await asyncio.sleep(max(at - time.perf_counter(), 0))

    starting = asyncio.create_task(start())
    try:
        yield
    finally:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)


@asynccontextmanager
async def _going_on(server: Embedded, per_s: int) -> AsyncIterator[None]:
    """Have so many messages a second of other runs stored while the context is open."""

    async def send() -> None:
        choose, kinds = Random(1), [sent for sent in recorded(mixed.NAMESPACE) if not mixed.acts(sent)]
        async with open_bus(Settings(url=server.url, namespace=mixed.NAMESPACE)) as bus:
            at, sent = time.perf_counter(), 0
            while True:
                run = choose.choice(kinds)
                for subject, body in reversed(mixed.renamed(run[0][0].split(".")[3], run)):
                    await bus.nc.publish(subject, body)
                sent += len(run)
                await asyncio.sleep(max(at + sent / per_s - time.perf_counter(), 0))

    sending = asyncio.create_task(send())
    try:
        yield
        assert not sending.done(), "it did not go on"
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
