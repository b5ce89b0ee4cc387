"""The index of a console is deleted, damaged, another's, or kept by another console: pages say so and go on."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from playwright.async_api import Browser

from baton_actors.console.keeping import COMMAND, KeepThis
from baton_bus.index import file as files
from baton_bus.index.keeping import identity_of
from baton_bus.store.looking import look
from baton_schemas.flow.flow import Field, Step

from .browsers import Tab, browsing, in_browser, tab
from .consoles import Served, served
from .servers import NatsServer
from .team import flow_of, team
from .timed import until_so

pytestmark = in_browser
FLOW = flow_of({"do": Step(agent="do")}, {"text": Field()})


async def double(text: str) -> str:
    return text * 2


async def shows(page: Tab, runs: list[str]) -> None:
    """Wait until the page has these runs, all done and nothing else, without being loaded again."""
    await page.until(
        """runs => {
            const rows = [...document.querySelectorAll('#runs tr[id]')];
            return rows.map(each => each.id).join() === runs.map(each => `run-${each}`).join()
                && rows.every(each => each.querySelector('.state.done'));
        }""",
        runs[::-1],
    )


def deleted(path: Path) -> None:
    for each in path.parent.glob(path.name + "*"):
        if each.suffix != ".lock":
            each.unlink()


def truncated(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(100)


@pytest.mark.parametrize("damage", [deleted, truncated])
async def test_index_that_was_damaged_under_a_page_is_made_anew_and_the_page_goes_on(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "index.sqlite"
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, path) as console,
        browsing(chromium) as browser,
        tab(browser, console) as page,
    ):
        runs = [await t.submit(text=f"number {number}") for number in range(5)]

        async def is_whole() -> bool:
            return console.console.status().index == "index complete"

        await page.live()
        await shows(page, runs)
        await until_so(is_whole)
        damage(path)
        runs.append(await t.submit(text="acme"))
        await shows(page, runs)
        await page.go("/?text=acme")
        await shows(page, runs[-1:])
        await until_so(is_whole)
        page.check()


async def test_index_of_another_stream_is_made_anew(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    path = tmp_path / "index.sqlite"
    async with team(server.url, f"{namespace}x", FLOW, {"do": double}) as t, served(t.bus.settings, path) as console:
        old = [await t.submit(text="1")]
        await has(console, old)
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, path) as console,
        browsing(chromium) as browser,
        tab(browser, console) as page,
    ):
        await page.live()
        runs = [await t.submit(text=f"number {number}") for number in range(3)]
        await shows(page, runs)  # and none of the other
        page.check()


async def test_file_that_is_no_index_is_left_alone_and_runs_are_listed_from_the_log(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    path = tmp_path / "index.sqlite"
    path.write_text("This is somebody's letter, and no index at all. " * 10)
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, path) as console,
        browsing(chromium) as browser,
    ):
        runs = [await t.submit(text="1")]
        await t.result(runs[0])
        async with tab(browser, console) as page:
            await shows(page, runs)
            await page.sees("is no database. Expected an index that `baton index` has made", "#status")
            assert path.read_text().startswith("This is somebody's letter")
            page.check()


async def test_index_that_another_console_keeps_is_shared_and_kept_when_that_is_gone(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    path = tmp_path / "index.sqlite"
    async with team(server.url, namespace, FLOW, {"do": double}) as t:
        order = msgspec.json.encode(KeepThis(settings=t.bus.settings, path=str(path)))
        other = await asyncio.create_subprocess_exec(*COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(order + b"\n")
        assert (await other.stdout.readline()).startswith(b"keeps the index")
        async with (
            served(t.bus.settings, path) as console,
            browsing(chromium) as browser,
            tab(browser, console) as page,
        ):
            await page.live()
            runs = [await t.submit(text="1")]
            await shows(page, runs)
            await page.sees("index complete", "#status")

            async def is_busy() -> bool:
                return console.console.index.says == "another process keeps the index"

            await until_so(is_busy)
            other.kill()
            await other.communicate()
            runs.append(await t.submit(text="2"))
            await shows(page, runs)
            page.check()


async def test_index_in_which_nothing_is_yet_hides_no_run(
    server: NatsServer, namespace: str, tmp_path: Path, chromium: Browser
) -> None:
    path = tmp_path / "index.sqlite"
    async with team(server.url, namespace, FLOW, {"do": double}) as t:
        runs = [await t.submit(text="1")]
        await t.result(runs[0])
        files.make(path, identity_of(t.bus, await look(t.bus), words=True))
        held = files.lock(path)  # as by whoever has just made it
        async with (
            served(t.bus.settings, path) as console,
            browsing(chromium) as browser,
            tab(browser, console) as page,
        ):
            await page.live()
            await shows(page, runs)
            os.close(held)
            runs.append(await t.submit(text="2"))
            await shows(page, runs)
            await page.sees("index complete", "#status")
            page.check()


async def has(console: Served, runs: list[str]) -> None:
    """Wait until its index has these runs."""

    async def are_there() -> bool:
        facts = (await console.get("/runs.json")).json()
        return {each["run"] for each in facts} == set(runs)

    await until_so(are_there)
