"""Workers that the server does not let take work: they say so, and are not started again where a run waits for them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.processes.errors import WorkerCannotStart
from baton_actors.processes.logs import LogSettings
from baton_actors.processes.supervisor import Supervisor
from baton_bus import Settings
from baton_bus.errors import NotAllowed
from baton_bus.jetstream.nats_client import client_of
from baton_bus.jetstream.streams import ensure_consumer
from baton_bus.store.bus import open_bus

from .servers import nats_server

QUIET = LogSettings(format="json", level="error")
PULLS = r"may not publish to \$js\.api\.consumer\.msg\.next\.baton"


def account(permissions: dict[str, Any] | None = None, **jetstream: int) -> dict[str, Any]:
    """Return the options of a server with one account, in which one user is whoever comes."""
    user = {"user": "u", "password": "p", "permissions": permissions or {}}
    return {"accounts": {"A": {"jetstream": jetstream or "enabled", "users": [user]}}, "no_auth_user": "u"}


def flow_in(folder: Path) -> FoundFlow:
    (folder / "mine.py").write_text("def mine() -> None: ...\n")
    (folder / "flow.toml").write_text('name = "t"\n[agents.mine]\nhandler = "./mine.py:mine"\n[steps.mine]\n')
    return find_flow(str(folder / "flow.toml"))


@pytest.mark.parametrize("stream", ["baton", "baton-timers"])
async def test_worker_that_may_not_pull_cannot_start_and_says_why_within_seconds(tmp_path: Path, stream: str) -> None:
    options = account({"publish": {"deny": [f"$JS.API.CONSUMER.MSG.NEXT.{stream}.>"]}})
    async with nats_server(tmp_path / "server", **options) as server:
        started = time.monotonic()
        with pytest.raises(WorkerCannotStart, match=PULLS):
            async with Supervisor([flow_in(tmp_path)], Settings(url=server.url), restart=True, logs=QUIET):
                await asyncio.Event().wait()
        assert time.monotonic() - started < 10.0


async def test_consumer_that_may_not_be_pulled_from_is_an_error_of_whoever_takes_its_work(tmp_path: Path) -> None:
    options = account({"publish": {"deny": ["$JS.API.CONSUMER.MSG.NEXT.>"]}})
    async with nats_server(tmp_path, **options) as server, open_bus(Settings(url=server.url)) as bus:
        with pytest.raises(NotAllowed, match=PULLS):
            async with bus.pulling("any", bus.subjects.tasks(), 1, lambda _: None, max_ack_pending=1):
                pass
        assert len(client_of(bus.nc).on_denied) == 1, "nobody listens any more but the requests"


async def test_worker_that_is_refused_later_is_not_started_again_and_again_while_a_run_waits(tmp_path: Path) -> None:
    found = flow_in(tmp_path)
    async with nats_server(tmp_path / "server", **account(max_consumers=1)) as server:
        settings = Settings(url=server.url)
        async with open_bus(settings) as bus:
            with pytest.raises(WorkerCannotStart, match=r"no room .* limit of consumers"):
                async with Supervisor([found], settings, restart=False, logs=QUIET) as supervisor:
                    await supervisor.ready()
                    (pid,) = supervisor.pids
                    os.kill(pid, signal.SIGSTOP)  # or it would make its consumer again
                    for consumer in await bus.js.consumers_info("baton"):
                        await bus.js.delete_consumer("baton", consumer.name)
                    await ensure_consumer(bus.js, settings, "baton", "another", bus.subjects.tasks(), 1)
                    os.kill(pid, signal.SIGKILL)
                    async with asyncio.timeout(20):
                        await asyncio.Event().wait()
