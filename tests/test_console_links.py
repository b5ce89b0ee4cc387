"""Pages of a log with all that runs may be: no link leads to nothing, each is JSON, and names a command that is one."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import typer
from typer.main import get_command

from baton_actors.cli.app import app, load
from baton_bus import Settings
from baton_bus.store.bus import open_bus

from .consoles import Served, served, text_of_page
from .indexed import mixed, publish, recorded
from .servers import NatsServer
from .test_permissions import Guarded, client_of, guarded, working  # noqa: F401 (fixtures)
from .timed import until_so

EACH = 3
"""Pages of one kind that are looked at: of the same path but for its names. With a filter, one of it."""
NO_PAGES = ("/chosen",)
"""Where forms lead, with what was chosen."""


def kind_of(path: str) -> str:
    """Return what pages have in common that differ only in what they are about."""
    parts = urlsplit(path)
    name = re.sub(r"/(runs|compare|log|flows|queues|steps|messages|blobs|schedules)/[^/]+", r"/\1/X", parts.path)
    given = re.findall(r"(?:^|&)(\w+)=", parts.query)
    return f"{name}?{','.join(given)}"


def is_enough(path: str, seen: int) -> bool:
    """Say whether so many of this kind were looked at; what has several filters is looked at by others' tests."""
    return seen >= EACH if "?" not in path else seen >= 1 or "&" in path


def as_json(path: str) -> str:
    parts = urlsplit(path)
    return f"{parts.path if parts.path != '/' else '/runs'}.json" + (f"?{parts.query}" if parts.query else "")


def assert_is_command(command: str) -> None:
    """Assert that the commands of `baton` can read it."""
    name, *arguments = shlex.split(command.split(" | ")[0])[1:]
    typer_command: Any = load(name)
    group: Any = get_command(app)
    typer_command.make_context(name, arguments, parent=group.context_class(group))


async def all_pages(console: Served) -> dict[str, int]:
    """Look at pages from the list of runs on, as many of each kind as are told apart; return what each was answered."""
    found: dict[str, int] = {}
    seen: dict[str, int] = {}
    todo = ["/"]
    while todo:
        path = todo.pop(0)
        if path in found or is_enough(path, seen.get(kind_of(path), 0)) or path.startswith(NO_PAGES):
            continue
        seen[kind_of(path)] = seen.get(kind_of(path), 0) + 1
        page = await console.get(path)
        found[path] = page.status_code
        if page.status_code != 200 or "html" not in page.headers["content-type"]:
            continue
        text_of_page(page.text)
        assert (await console.get(as_json(path))).json() is not None, path
        for command in re.findall(r'<code id="command">([^<]*)</code>', page.text):
            try:
                assert_is_command(html.unescape(command))
            except typer.TyperException as error:
                pytest.fail(f"{path} names {command!r}: {error}")
        links = re.findall(r'(?:href|data-href)="(/[^"#]*)', page.text)
        todo += [urljoin(path, html.unescape(link)) for link in links]
    return found


async def test_no_link_leads_to_nothing_and_each_page_names_a_command_that_there_is(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with open_bus(settings) as bus:
        await publish(bus, mixed(recorded(namespace), Random(7)))
        async with served(settings, tmp_path / "index.sqlite") as console:

            async def is_indexed() -> bool:
                reach = console.console.index.reach()
                return reach is not None and reach.is_whole

            await until_so(is_indexed)
            found = await all_pages(console)
            # What cannot be done says so: 409.
            assert {path: status for path, status in found.items() if status not in (200, 303, 409)} == {}
            assert len({kind_of(path) for path in found}) > 40
        await bus.js.delete_stream(namespace)


async def test_who_may_only_read_is_told_what_is_not_allowed(working: Guarded, tmp_path: Path) -> None:  # noqa: F811
    async with client_of(working, "submitter") as submitter, client_of(working, "observer") as observer:
        run = await submitter.start("words", text="one")
        await run.ended(20)
        async with served(observer.bus.settings, tmp_path / "index.sqlite") as console:
            assert (await console.get(f"/runs/{run.id}")).status_code == 200
            refused = await console.post(f"/runs/{run.id}/cancel", {"note": "no"})
            assert (refused.status_code, "Not allowed" in refused.text) == (403, True)
            assert "may not publish" in text_of_page(refused.text)
            assert "may not look at the consumers" in (await console.get("/queues")).text
            assert (await console.get("/queues/words--adder")).status_code == 403
