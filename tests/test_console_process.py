"""The process of a console: how it begins and ends, what it leaves behind, and what it says when its server is away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import msgspec
import pytest
from msgspec import Struct

from baton_schemas.flow.flow import Field, Step

from .commands import all_gone, baton, close_pipes, descendants, environ, start
from .servers import WAIT_S, NatsServer, nats_server, until
from .team import flow_of, team

FLOW = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})
ENDS_S = 2.0
BUSY_S = 4.0
"""What a machine may take besides that others use too."""


async def double(value: int) -> int:
    return value * 2


class Running(Struct, frozen=True, kw_only=True):
    process: subprocess.Popen[str]
    http: httpx2.AsyncClient
    """Is let in."""

    async def lists(self, run: str) -> bool:
        return run in (await self.http.get("/runs.json")).text


@asynccontextmanager
async def running(cwd: Path, *arguments: str, **env: str) -> AsyncIterator[Running]:
    """A console as its users start it."""
    process = start(
        "console",
        "--no-open",
        *arguments,
        cwd=cwd,
        env=environ(XDG_CACHE_HOME=str(cwd), BATON_LOG_LEVEL="error", **env),
    )
    try:
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        assert "token=" in line, process.stderr.read() if process.stderr is not None else ""
        async with let_in(line.split()[-1]) as http:
            yield Running(process=process, http=http)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        close_pipes()


@asynccontextmanager
async def let_in(way_in: str) -> AsyncIterator[httpx2.AsyncClient]:
    url = urlsplit(way_in)
    async with httpx2.AsyncClient(base_url=f"http://{url.netloc}") as http:
        entered = await http.get("/", params={"token": parse_qs(url.query)["token"][0]})
        assert entered.status_code == 303
        yield http


async def gone(pids: set[int]) -> None:
    await until(lambda: all_gone(pids))


async def comes(condition: Any) -> None:
    """Wait until a question to a console is answered with yes."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.05)


def test_port_that_another_program_has_is_named_and_what_to_do(server: NatsServer, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = baton("console", "--no-open", "--port", str(port), cwd=tmp_path, BATON_URL=server.url)
    assert ended.returncode == 2
    assert f"port {port}" in ended.stderr
    assert "--port" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_name_that_can_be_in_no_address_is_refused(server: NatsServer, tmp_path: Path) -> None:
    ended = baton("console", "--no-open", "--name", "http://a.example", cwd=tmp_path, BATON_URL=server.url)
    assert ended.returncode == 2
    assert "HOST:PORT" in ended.stderr


async def test_names_that_it_is_given_are_answered_with_forms_that_came_by_tls(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    given = {"BATON_URL": server.url, "BATON_NAMESPACE": namespace}
    async with running(tmp_path, "--name", "console.example.org", **given) as console:
        cookie = "; ".join(f"{name}={value}" for name, value in console.http.cookies.items())
        port = urlsplit(str(console.http.base_url)).port

        async def status(host: str, **headers: str) -> int:
            return (await console.http.get("/", headers={"host": host, "cookie": cookie, **headers})).status_code

        assert await status("console.example.org") == 200
        assert await status(f"console.example.org:{port}") == 200
        assert await status("console.example.org", origin="https://console.example.org") == 200
        assert await status("console.example.org", origin="https://other.example.org") == 403
        assert await status("other.example.org") == 400
        assert await status(f"127.0.0.1:{port}", origin=f"https://127.0.0.1:{port}") == 403
        assert await status(f"0.0.0.0:{port}") == 400


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda each: each.name)
async def test_signal_ends_it_with_streams_open_and_leaves_no_process(
    number: signal.Signals, server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with (
        running(tmp_path, BATON_URL=server.url, BATON_NAMESPACE=namespace) as console,
        console.http.stream("GET", "/live?of=/") as stream,
    ):
        await anext(stream.aiter_raw())
        await until(lambda: bool(descendants(console.process.pid)))
        pids, began = descendants(console.process.pid), time.monotonic()
        console.process.send_signal(number)
        assert await asyncio.to_thread(console.process.wait, WAIT_S) == 0
        assert time.monotonic() - began < ENDS_S + BUSY_S
        await gone(pids)


async def test_console_that_is_killed_leaves_no_process(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async with running(tmp_path, BATON_URL=server.url, BATON_NAMESPACE=namespace) as console:
        await until(lambda: bool(descendants(console.process.pid)))
        pids = descendants(console.process.pid)
        console.process.kill()
        await gone(pids)


async def test_two_consoles_share_an_index_and_one_goes_on_when_the_other_is_killed(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    given = {"BATON_URL": server.url, "BATON_NAMESPACE": namespace}
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        running(tmp_path, **given) as one,
        running(tmp_path, **given) as other,
    ):
        run = await t.submit(value=1)
        await comes(lambda: one.lists(run))
        await comes(lambda: other.lists(run))
        assert indexes_in(tmp_path) == 1
        one.process.kill()
        later = await t.submit(value=2)
        await comes(lambda: other.lists(later))


async def test_pages_go_on_while_the_server_is_away_and_say_so_and_it_is_found_again(
    namespace: str, tmp_path: Path
) -> None:
    async with nats_server(tmp_path / "store") as server:
        given = {"BATON_URL": server.url, "BATON_NAMESPACE": namespace}
        async with (
            team(server.url, namespace, FLOW, {"do": double}) as t,
            running(tmp_path, **given) as console,
        ):
            run = await t.submit(value=1)
            await t.result(run)

            async def indexed() -> bool:
                page = (await console.http.get("/")).text
                return run in page and "index complete" in page

            await comes(indexed)
            assert (await console.http.get(f"/runs/{run}")).status_code == 200
            await server.stop()

            async def says_so() -> bool:
                return "connection lost" in (await console.http.get("/")).text

            await comes(says_so)
            listed = await console.http.get("/")
            assert listed.status_code == 200
            assert run in listed.text
            shown = await console.http.get(f"/runs/{run}")
            assert shown.status_code == 200
            assert "connection lost" in shown.text
            unknown = await console.http.get("/runs/nosuchrun")
            assert unknown.status_code == 503
            await server.restart()

            async def is_back() -> bool:
                return not await says_so()

            await comes(is_back)
            later = await t.submit(value=2)
            await comes(lambda: console.lists(later))


async def test_server_that_is_named_and_not_there_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{free.getsockname()[1]}"
        ended = await asyncio.to_thread(lambda: baton("console", "--no-open", cwd=tmp_path, BATON_URL=url))
    assert ended.returncode == 3
    assert url in ended.stderr


async def test_console_beside_up_is_started_again_and_ends_with_it(tmp_path: Path) -> None:
    up = start("up", "ask", "--console", "--json", cwd=tmp_path, env=environ(BATON_REHEARSE="1"))
    try:
        assert up.stdout is not None
        facts = msgspec.json.decode(await asyncio.to_thread(up.stdout.readline))
        async with let_in(facts["console"]) as http:
            assert "ask" in (await http.get("/")).text
            others = descendants(up.pid)
            (console,) = {pid for pid in others if "--tied" in command_of(pid)}
            own = {console, *descendants(console)}
            os.kill(console, signal.SIGKILL)
            await gone(own)

            async def answers() -> bool:
                with contextlib.suppress(httpx2.HTTPError):
                    return (await http.get("/")).status_code == 200  # the same address, and the same token
                return False

            await comes(answers)
            assert all(not all_gone({pid}) for pid in others - own)  # nothing else has ended
        pids = descendants(up.pid)
        up.terminate()
        assert await asyncio.to_thread(up.wait, WAIT_S) == 0
        await gone(pids)
    finally:
        up.kill()
        await asyncio.to_thread(up.wait)
        close_pipes()


def test_console_beside_up_that_cannot_listen_is_told_before_work_begins(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = baton("up", "ask", "--console-port", str(port), cwd=tmp_path, BATON_REHEARSE="1")
    assert ended.returncode == 2
    assert f"port {port}" in ended.stderr


def indexes_in(folder: Path) -> int:
    return len(list(folder.rglob("index-*.sqlite")))


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""
