"""The console over days: runs that are removed, a log that is made anew, a server that was away, streams that end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from baton_bus import Settings
from baton_bus.client.purge import Choice, plan_purge, purge
from baton_bus.client.survey import survey
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import Retry
from baton_schemas.wire.messages import Note
from baton_schemas.wire.outcomes import Error

from .consoles import served
from .servers import NatsServer, nats_server, until
from .team import flow_of, team
from .test_console_run import following

FLOW = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})


async def double(value: int) -> int:
    return value * 2


TRIES_S = 0.1
"""So often, at least, what follows a page looks for a server that is away."""


async def test_page_of_a_run_that_has_ended_is_what_the_log_still_has_of_it(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with (
        team(server.url, namespace, FLOW, {"do": double}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = (await t.client.start(t.plan, {"value": 4})).id
        await t.result(run)
        path = f"/runs/{run}"
        count = (await console.get(f"{path}.json")).json()["messages"]
        # What comes late is seen by whoever looks then.
        error = Error(step="do", type="Late", message="too late")
        late = Note(run=run, step="do", worker="w", fact=Retry(attempt=1, error=error, delay_s=0.0))
        await t.bus.publisher.append(t.bus.subjects.note("flow--do", run, "do", "retry-1"), encode(late))
        assert (await console.get(f"{path}.json")).json()["messages"] == count + 1 == len(await t.log(run))
        # And what is removed is not shown from memory; who has it open is told, and keeps what is there.
        async with following(console, path) as live:
            await purge(t.bus, plan_purge(await survey(t.bus), Choice(runs=(run,)), datetime.now(UTC)))
            await until(lambda: live.said.get("gone"))
            assert "in the log no more" in live.said["gone"]
            assert 'class="state done"' in live.parts["head"]
        gone = await console.get(path)
        assert (gone.status_code, "was removed" in gone.text) == (410, True)


async def test_log_that_is_deleted_and_made_anew_is_the_one_that_open_pages_show(tmp_path: Path) -> None:
    may = asyncio.Event()

    async def waits(value: int) -> int:
        await may.wait()
        return value

    async with (
        nats_server(tmp_path / "store") as server,
        served(Settings(url=server.url, namespace="twice"), tmp_path / "index.sqlite") as console,
        AsyncExitStack() as pages,
    ):
        async with team(server.url, "twice", FLOW, {"do": double}) as t:
            old = [await t.submit(value=value) for value in range(3)]
            for run in old:
                await t.result(run)
            of_old, log, runs = [
                await pages.enter_async_context(following(console, path)) for path in (f"/runs/{old[0]}", "/log", "/")
            ]
            await until(lambda: old[2] in log.parts["lines"] and old[2] in str(runs.parts))
            # It is deleted when the team is closed.
        async with team(server.url, "twice", FLOW, {"do": waits}) as t:
            new = await t.submit(value=1)
            await until(lambda: "gone" in of_old.said and new in log.parts["lines"] and new in str(runs.parts))
            assert old[2] not in log.parts["lines"] + str(runs.parts)
            assert (await console.get(f"/runs/{old[0]}")).status_code == 404
            async with following(console, f"/runs/{new}") as live:
                may.set()
                await until(lambda: 'class="state done"' in live.parts.get("head", ""))
                assert (await t.result(new)).status == "done"


async def test_page_that_was_opened_while_the_server_was_away_is_live_when_it_is_back(tmp_path: Path) -> None:
    may, settings = asyncio.Event(), {"patience_s": 0.3}

    async def waits(value: int) -> int:
        await may.wait()
        return value

    async with (
        nats_server(tmp_path / "store") as server,
        team(server.url, "away", FLOW, {"do": waits}) as t,
        served(replace(t.bus.settings, **settings), tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(value=1)
        await server.stop()
        await until(lambda: not console.console.is_connected)
        assert (await console.get(f"/runs/{run}")).status_code == 503
        async with following(console, f"/runs/{run}", at_once=True) as live:
            await asyncio.sleep(5 * TRIES_S)  # it has tried in vain
            assert not live.parts
            await server.restart()
            await until(lambda: "head" in live.parts)
            may.set()
            await until(lambda: 'class="state done"' in live.parts["head"])
        await t.result(run)
