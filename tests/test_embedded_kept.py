"""The embedded server as its users have it: kept running, found by who may, and closed to all others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client as NatsClient
from structlog.testing import capture_logs

from baton_bus import Settings
from baton_bus.errors import ServerFailed
from baton_bus.server import keeper
from baton_bus.server.embedded import embedded, find_server
from baton_bus.server.health import health
from baton_bus.server.lock import Record, close_to_others, read_record
from baton_bus.server.process import KEEPER
from baton_bus.store.bus import open_bus

from .commands import WAIT_S, WORDS, baton, here, start
from .maps import ROOT
from .servers import NatsServer, is_gone, nats_server, until

SLOW = """
name = "slow"
[input]
text = "str"
[agents.wait]
handler = "./slow.py:wait"
[steps.wait]
agent = "wait"
"""
WAITS = """
import asyncio, pathlib
from baton_actors import actor

@actor
async def wait(text: str) -> str:
    folder = pathlib.Path(text)
    (folder / "begun").touch()
    while not (folder / "go").exists():
        await asyncio.sleep(0.02)
    return "done"
"""


def record_of(data_dir: Path) -> Record:
    record = read_record(data_dir)
    assert record is not None
    return record


def modes(folder: Path) -> dict[str, int]:
    """Return what others may do with each file of a data directory: nothing, if all is well."""
    others = {path: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (folder, *folder.iterdir())}
    return {str(path): mode for path, mode in others.items() if mode}


# ---- kept ----------------------------------------------------------------------------------------


def test_run_whose_server_is_killed_ends_done(tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text(SLOW)
    (tmp_path / "slow.py").write_text(WAITS)
    command = start("run", "slow.toml", f"text={tmp_path}", cwd=tmp_path)
    asyncio.run(until((tmp_path / "begun").exists))
    os.kill(record_of(tmp_path / ".baton").pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    out, err = command.communicate(timeout=WAIT_S)
    assert (command.returncode, out.strip()) == (0, "done"), err
    assert "server.ended" in err, "it is said, not only mended"
    assert record_of(tmp_path / ".baton").password not in out + err


def test_up_whose_server_is_killed_does_the_next_task(tmp_path: Path) -> None:
    command = start("up", WORDS, "--json", cwd=tmp_path)
    assert command.stdout is not None
    try:
        ready = command.stdout.readline()
        before = record_of(tmp_path / ".baton")
        assert before.password not in ready
        os.kill(before.pid, signal.SIGKILL)
        ended = baton("submit", WORDS, "text=a b", "--wait", cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
        after = record_of(tmp_path / ".baton")
        assert (after.port, after.password) == (before.port, before.password)
    finally:
        command.send_signal(signal.SIGTERM)
        _, err = command.communicate(timeout=WAIT_S)
    assert before.password not in err
    asyncio.run(until(lambda: is_gone(after.pid)))


async def test_server_that_cannot_be_started_again_is_tried_again_more_slowly_until_it_can(tmp_path: Path) -> None:
    real, broken = find_server(), tmp_path / "broken"
    ours = tmp_path / "nats-server"
    ours.write_text(f'#!/bin/sh\ntest ! -e {broken} || exit 9\nexec {real} "$@"\n')
    ours.chmod(0o755)
    with capture_logs() as events:
        async with embedded(tmp_path / "data", server=str(ours)) as server:
            client = await nats.connect(server.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1)
            broken.touch()
            os.kill(server.pid, signal.SIGKILL)

            def failures() -> list[float]:
                return [event["again_in_s"] for event in events if event["event"] == "server.not_started"]

            await until(lambda: len(failures()) >= 3)
            assert failures() == sorted(failures())
            assert failures()[2] >= 2 * failures()[0]
            broken.unlink()
            await until(lambda: client.stats["reconnects"])
            await client.close()


def test_full_disk_is_said_and_the_server_goes_on_once_there_is_room(tmp_path: Path) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk in a namespace of its own")
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f"mount -t tmpfs -o size=4m small {disk} && exec {sys.executable} -m tests.full_disk {disk}"
    ended = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S
    )
    assert ended.returncode == 0, ended.stderr
    facts = json.loads(ended.stdout)
    assert facts["said"].count("disk.full") == 1
    assert facts["said"].index("disk.full") < facts["said"].index("server.restarts")
    assert facts["kept"] >= facts["stored"] > 0, "nothing that was accepted is lost"
    assert facts["again"] == facts["kept"] + 1


async def test_server_that_is_not_well_for_a_moment_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it says while a stream is made or deleted: one look in twenty found it so."""
    looks: list[str] = []

    async def looked_at(*_: object) -> str:
        looks.append("stuck" if len(looks) < 4 else "well")
        return looks[-1]

    monkeypatch.setattr(keeper, "health", looked_at)
    monkeypatch.setattr(keeper, "HEALTH_S", 0.1)
    with capture_logs() as said:
        async with embedded(tmp_path):
            await until(lambda: looks.count("well") >= 2)
    assert looks.count("stuck") == 4
    assert [event["event"] for event in said] == []


async def test_server_that_is_well_says_so_to_its_keeper_alone(tmp_path: Path, server: NatsServer) -> None:
    async with embedded(tmp_path):
        record = record_of(tmp_path)
        assert await health(record.port, KEEPER, record.password, record.server_id) == "well"
        assert await health(record.port, KEEPER, "wrong", record.server_id) == "silent"
        assert await health(server.port, KEEPER, record.password, record.server_id) == "silent"


# ---- closed to others ----------------------------------------------------------------------------


async def test_nobody_without_the_password_may_connect(tmp_path: Path) -> None:
    async with embedded(tmp_path) as server:
        record = record_of(tmp_path)
        logins: list[dict[str, Any]] = [{}, {"user": "baton", "password": "guess"}, {"token": record.password}]
        for login in logins:
            refusals: list[str] = []

            async def on_error(error: Exception, refusals: list[str] = refusals) -> None:
                refusals.append(str(error))

            stranger = NatsClient()
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await stranger.connect(
                    f"nats://127.0.0.1:{record.port}", allow_reconnect=False, error_cb=on_error, **login
                )
            await stranger.close()
            assert [refusal for refusal in refusals if "Authorization" in refusal], login
        client = await nats.connect(server.url)
        await client.close()
    assert record.password not in repr(server) + str(server)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
async def test_nothing_in_the_directory_is_open_to_others(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        async with embedded(tmp_path / "data") as server:
            os.kill(server.pid, signal.SIGKILL)
            await until(lambda: record_of(tmp_path / "data").pid != server.pid)
            assert modes(tmp_path / "data") == {}
    finally:
        os.umask(before)
    assert modes(tmp_path / "data") == {}


async def test_directory_from_before_goes_on_and_is_closed(tmp_path: Path, namespace: str) -> None:
    data = tmp_path / "data"
    old = NatsServer(data)
    await asyncio.to_thread(old.start_now)
    client = await nats.connect(old.url)
    await client.jetstream().add_stream(name=namespace, subjects=[namespace])
    await client.jetstream().publish(namespace, b"kept")
    await client.close()
    await old.stop()
    for path in (data, data / "jetstream"):
        path.chmod(0o755)
    for path in (data / "nats.log", data / "nats.conf"):
        path.chmod(0o644)
    async with embedded(data) as server:
        client = await nats.connect(server.url)
        assert (await client.jetstream().get_msg(namespace, 1)).data == b"kept"
        await client.close()
        assert modes(data) == {}


def test_directory_in_which_others_keep_things_stays_open_but_for_what_is_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "notes.txt").touch(0o644)
    close_to_others(tmp_path)
    assert set(modes(tmp_path)) == {str(tmp_path), str(tmp_path / "notes.txt")}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


async def test_port_that_is_another_servers_by_now_is_left_to_it(tmp_path: Path) -> None:
    async with embedded(tmp_path) as server:
        port = record_of(tmp_path).port
    taken = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    async with taken, embedded(tmp_path) as other:
        assert other.url != server.url


async def test_password_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "nats.password").mkdir()
    started = time.monotonic()
    with pytest.raises(ServerFailed, match=r"nats\.password"):
        async with embedded(tmp_path):
            pass
    assert time.monotonic() - started < 5.0


# ---- what is shown -------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_password_of_a_url_is_in_no_error(tmp_path: Path, more: list[str]) -> None:
    url = "nats://me:hunter2@127.0.0.1:1, tls://hunter2@127.0.0.1:1"

    def told(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        json_too = [] if arguments[0] == "actor" else more
        return baton(*arguments, *json_too, cwd=tmp_path, BATON_URL=url, BATON_CONNECT_TIMEOUT_S="0.5")

    commands = (["runs"], ["up", WORDS], ["run", WORDS, "text=a"], ["actor", WORDS, "adder"])
    with ThreadPoolExecutor() as pool:
        for ended in pool.map(told, commands):
            assert ended.returncode != 0
            assert "***@127.0.0.1:1" in ended.stdout + ended.stderr
            assert "hunter2" not in ended.stdout + ended.stderr


async def test_password_of_a_url_is_in_no_banner(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "server", authorization={"user": "me", "password": "hunter2"}) as server:
        url = server.url.replace("//", "//me:hunter2@")
        for more in ([], ["--json"]):
            command = start("up", WORDS, "--nats", url, *more, cwd=tmp_path)
            stream = command.stdout if more else command.stderr
            assert stream is not None
            first = await asyncio.to_thread(stream.readline)
            while "***@" not in first:
                first = await asyncio.to_thread(stream.readline)
            await server.restart()
            command.send_signal(signal.SIGTERM)
            out, err = await asyncio.to_thread(command.communicate, timeout=WAIT_S)
            assert "hunter2" not in first + out + err


def test_address_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    for url in (",", " ", "nats://a:99999"):
        ended = here("runs", cwd=tmp_path, BATON_URL=url)
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"baton: BATON_URL is {url!r}: expected nats://")
    assert here("runs", "--nats", ",", cwd=tmp_path).returncode == 2


async def test_mistyped_namespace_makes_nothing_and_is_told_with_those_there_are(
    tmp_path: Path, server: NatsServer, namespace: str
) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        codes = {"runs": 3, "doctor": 1, "dead": 3}
        commands = [
            asyncio.to_thread(baton, command, "--namespace", f"{namespace}x", cwd=tmp_path, BATON_URL=server.url)
            for command in codes
        ]
        for exit_code, ended in zip(codes.values(), await asyncio.gather(*commands), strict=True):
            told = " ".join((ended.stdout + ended.stderr).split())
            assert (ended.returncode, f"{namespace}x" in told) == (exit_code, True)
            assert namespace in told.replace(f"{namespace}x", "")
        assert f"{namespace}x" not in [info.config.name for info in await bus.js.streams_info()]
        await bus.js.delete_stream(namespace)
