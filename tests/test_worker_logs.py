"""What workers log: each line belongs to one step or to none, and no line has a secret in it."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from baton_actors.agents.loading import find_flow
from baton_actors.processes.logs import without_secrets
from baton_bus import Settings
from baton_bus.store.bus import open_bus

from .clients import result_of, start_run
from .servers import WAIT_S, NatsServer
from .test_processes import WORKER

HANDLER = """
import asyncio, structlog
logger = structlog.get_logger("mine")
all_here = asyncio.Barrier(3)

async def mine(mark: str) -> None:
    await all_here.wait()
    logger.info("mine", mark=mark)
    await all_here.wait()
    logger.info("mine", mark=mark)

async def after(mark: str) -> None:
    logger.info("connected to nats://me:hush@elsewhere:4222")
    raise RuntimeError("no answer from nats://me:hush@elsewhere:4222")
"""
FLOW = """
name = "t"
[input]
mark = "str"
[agents.{agent}]
handler = "./mine.py:{agent}"
max_attempts = 1
[steps.{agent}]
"""


async def log_of(
    folder: Path, agent: str, marks: list[str], server: NatsServer, namespace: str
) -> list[dict[str, str]]:
    """Return what a worker of its own logs while it does a run for each mark."""
    (folder / "mine.py").write_text(HANDLER)
    (folder / "flow.toml").write_text(FLOW.format(agent=agent))
    found = find_flow(str(folder / "flow.toml"))
    arguments = (found.source, agent, server.url, namespace, "1")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", WORKER, *arguments, stderr=PIPE)
    try:
        async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
            for mark in marks:
                await start_run(bus, found.plan, {"mark": mark}, run=mark)
            for mark in marks:
                await result_of(bus, mark, flow="t", timeout_s=WAIT_S)
    finally:
        process.terminate()
        _, stderr = await process.communicate()
    return [json.loads(line) for line in stderr.decode().splitlines()]


async def test_lines_of_steps_that_run_at_once_name_each_its_own_run_and_those_of_the_worker_none(
    tmp_path: Path, server: NatsServer, namespace: str
) -> None:
    lines = await log_of(tmp_path, "mine", ["r1", "r2", "r3"], server, namespace)
    mine = [line for line in lines if line["event"] == "mine"]
    assert [line["run"] for line in mine] == [line["mark"] for line in mine]
    assert sorted(line["run"] for line in mine) == ["r1", "r1", "r2", "r2", "r3", "r3"]
    assert {(line["step"], line["actor"]) for line in mine} == {("mine", "t--mine")}
    others = [line for line in lines if line["event"] in ("worker.ready", "worker.stops")]
    assert len(others) == 2
    assert not any("run" in line for line in others)


async def test_logs_have_no_password_in_them(tmp_path: Path, server: NatsServer, namespace: str) -> None:
    lines = await log_of(tmp_path, "after", ["r1"], server, namespace)
    said = json.dumps(lines)
    assert said.count("nats://***@elsewhere:4222") >= 2
    assert "hush" not in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at nats://me:hush@host:4222: refused", "at nats://***@host:4222: refused"),
        ("nats://hush@a,tls://me:hush@b", "nats://***@a,tls://***@b"),
        ("nats://me:hu@s/h@host", "nats://***@host"),
        ("nats://host:4222, mail me@example.org", "nats://host:4222, mail me@example.org"),
        ("https://example.org/a@b", "https://example.org/a@b"),
    ],
)
def test_login_of_a_url_is_not_shown(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
