"""Publishes: what the log refuses has a name and an advice, a create has one winner, patience lasts as said."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from baton_bus.errors import (
    BadSubject,
    BusUnavailable,
    JetStreamStopped,
    LogFull,
    PayloadTooLarge,
)
from baton_bus.jetstream import connection
from baton_bus.jetstream import publisher as publisher_module
from baton_bus.jetstream import silence as silence_module

from .clusters import cluster
from .servers import NatsServer, nats_server, until
from .wired import Wired, wired

ROOM_BYTES = 5000
IN_ACCOUNT = {
    "accounts": {"A": {"users": [{"user": "a", "password": "a"}], "jetstream": {"max_file": ROOM_BYTES, "max_mem": 0}}},
    "no_auth_user": "a",
}


@contextlib.contextmanager
def stopped(server: NatsServer) -> Iterator[None]:
    """The server's process stands still, as on a machine that is out of memory: its connections stay open."""
    os.kill(server.pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{server.pid}/task")
    while not all(" T " in (task / "stat").read_text() for task in tasks.iterdir()):
        time.sleep(0.001)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def until_refused(t: Wired) -> None:
    for number in range(20):
        await t.publisher.create(f"s.{number}", b"x" * 1000)


# ---- what is full, or off ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "server_options", "stream_options", "advice"),
    [
        ("stream", {}, {"max_bytes": ROOM_BYTES}, "Raise the stream's limit"),
        ("stream", {}, {"max_msgs": 3}, "Raise the stream's limit"),
        ("account", IN_ACCOUNT, {}, "Raise the account's `max_file`"),
        ("server", {"jetstream": {"max_file_store": ROOM_BYTES}}, {}, "Raise the server's `max_file_store`"),
    ],
    ids=["bytes of the stream", "messages of the stream", "account", "server"],
)
async def test_full_log_says_whose_limit_was_reached_and_what_to_raise(
    tmp_path: Path, which: str, server_options: dict[str, Any], stream_options: dict[str, Any], advice: str
) -> None:
    async with nats_server(tmp_path, **server_options) as server, wired(server.url, **stream_options) as t:
        with pytest.raises(LogFull, match=advice) as refused:
            await until_refused(t)
        assert refused.value.which == which
        assert refused.value.limit in str(refused.value)


async def test_jetstream_that_the_server_switched_off_is_said_to_be_off(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        await t.publisher.create("s.1", b"x")
        config = tmp_path / "nats.conf"
        options = json.loads(config.read_text())
        del options["jetstream"]
        config.write_text(json.dumps(options | {"listen": f"127.0.0.1:{server.port}"}))
        os.kill(server.pid, signal.SIGHUP)
        with pytest.raises(JetStreamStopped, match="disk is probably full"):
            for number in range(2, 1000):
                await t.publisher.create(f"s.{number}", b"x")


async def test_server_whose_disk_is_full_is_said_to_store_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence_module, "_STUCK_S", (1.0, 1.0))
    monkeypatch.setattr(publisher_module, "UNANSWERED_S", 1.0)
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        # To the server a file that may not grow is what a full disk is: a write fails.
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        with pytest.raises(JetStreamStopped, match="stores nothing"):
            for number in range(1000):
                await t.publisher.create(f"s.{number}", b"x" * 10_000)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await server.restart()
        assert await t.publisher.create("s.again", b"x") is not None


# ---- patience ------------------------------------------------------------------------------------


async def took_s(t: Wired, patience_s: float | None) -> float:
    began = time.monotonic()
    with pytest.raises(BusUnavailable):
        await t.publisher.create("s.1", b"x", patience_s=patience_s)
    return time.monotonic() - began


async def test_patience_lasts_as_long_as_said_however_long_a_request_may_wait(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, wired(server.url, request_timeout_s=0.7) as t:
        with stopped(server):
            assert 1.0 <= await took_s(t, 1.0) < 1.7


async def test_patience_lasts_as_long_as_said_while_there_is_no_server(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        await server.stop()
        await until(lambda: not t.nc.is_connected)
        assert 1.0 <= await took_s(t, 1.0) < 1.7


async def test_publish_that_waits_ends_with_an_error_of_ours_when_the_connection_is_closed(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        with stopped(server):
            waiting = [
                asyncio.create_task(t.publisher.create("s.1", b"x")),
                asyncio.create_task(t.publisher.append("s.2", b"x")),
            ]
            await asyncio.sleep(0)
            await t.nc.close()
            for each in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(each, BusUnavailable)
        assert await took_s(t, None) < 1


async def test_publish_that_waits_for_a_server_is_stored_once_when_it_is_back(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        await server.stop()
        await until(lambda: not t.nc.is_connected)
        waiting = [asyncio.create_task(t.publisher.append(f"s.{number}", b"x")) for number in range(20)]
        await server.restart()
        assert sorted(await asyncio.gather(*waiting)) == list(range(1, 21))
        assert (await t.js.stream_info("s")).state.messages == 20


# ---- what cannot be published --------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["", "s.a b", "s.a\r\nPUB s.b 0\r\n", "s.\x0b", "s.\ud83d"])
async def test_subject_that_is_none_is_refused(server: NatsServer, namespace: str, subject: str) -> None:
    async with wired(server.url, namespace) as t:
        with pytest.raises(BadSubject):
            await t.publisher.create(subject, b"x")


async def test_message_that_is_too_large_says_so(server: NatsServer, namespace: str) -> None:
    async with wired(server.url, namespace) as t:
        limit = t.nc.max_payload
        for size, send in ((limit + 1, t.publisher.append), (limit - 10, t.publisher.create)):
            with pytest.raises(PayloadTooLarge) as refused:
                await send(f"{namespace}.1", b"x" * size)
            assert refused.value.limit_bytes == limit
        assert await t.publisher.append(f"{namespace}.1", b"x" * limit) == 1


# ---- creating once -------------------------------------------------------------------------------


async def race(t: Wired, run: int) -> list[int]:
    """Three writers, each with a first step of its own, start one run. Return the sequences that were stored."""
    stored = await asyncio.gather(
        *(
            t.publisher.create(
                f"s.handoff.actor{number}.r{run}.step{number}.start", b"x", once_in=f"s.handoff.*.r{run}.*.start"
            )
            for number in range(3)
        )
    )
    return [seq for seq in stored if seq is not None]


async def test_start_has_one_winner_whatever_the_first_steps_are(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        winners = await asyncio.gather(*(race(t, run) for run in range(200)))
        assert [len(each) for each in winners] == [1] * 200
        assert (await t.js.stream_info("s")).state.messages == 200


async def test_start_has_one_winner_on_three_replicas(tmp_path: Path) -> None:
    async with cluster(tmp_path) as peers, wired(peers.url, num_replicas=3) as t:
        winners = await asyncio.gather(*(race(t, run) for run in range(200)))
        assert [len(each) for each in winners] == [1] * 200
        assert (await t.js.stream_info("s")).state.messages == 200


async def test_start_is_taken_when_another_subject_of_the_pattern_has_a_message(
    server: NatsServer, namespace: str
) -> None:
    async with wired(server.url, namespace) as t:
        assert await t.publisher.create(f"{namespace}.a.r1", b"x", once_in=f"{namespace}.*.r1") == 1
        assert await t.publisher.create(f"{namespace}.b.r1", b"x", once_in=f"{namespace}.*.r1") is None
        assert await t.publisher.create(f"{namespace}.b.r2", b"x", once_in=f"{namespace}.*.r2") == 2


# ---- many at the same time -----------------------------------------------------------------------


def many(namespace: str, count: int, size: int = 1) -> list[tuple[str, bytes]]:
    return [(f"{namespace}.{number}", b"x" * size) for number in range(count)]


async def test_of_messages_written_together_those_that_are_there_already_change_nothing(
    server: NatsServer, namespace: str
) -> None:
    async with wired(server.url, namespace) as t:
        assert await t.publisher.create(f"{namespace}.7", b"who was first") == 1
        assert await t.publisher.create_all(many(namespace, 500)) == []
        assert (await t.js.stream_info(namespace)).state.messages == 500
        assert (await t.js.get_last_msg(namespace, f"{namespace}.7")).data == b"who was first"


async def test_messages_that_the_connection_does_not_hold_at_once_are_left_to_be_written_one_by_one(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_PENDING_BYTES", 2_000_000)
    async with wired(server.url, namespace) as t:
        messages = many(namespace, 50, size=200_000)
        left = await t.publisher.create_all(messages)
        assert 0 < len(left) < 50
        assert (await t.js.stream_info(namespace)).state.messages == 50 - len(left)
        for subject, body in left:
            assert await t.publisher.create(subject, body) is not None


async def test_messages_written_together_without_a_connection_are_all_left(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        await server.stop()
        await until(lambda: not t.nc.is_connected)
        messages = many("s", 20)
        assert await t.publisher.create_all(messages) == messages


async def test_messages_written_together_whose_answers_are_lost_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "UNANSWERED_S", 0.3)
    async with nats_server(tmp_path) as server, wired(server.url) as t:
        messages = many("s", 20)
        with stopped(server):
            assert await t.publisher.create_all(messages) == messages
        await asyncio.gather(*(t.publisher.create(*each) for each in messages))
        assert (await t.js.stream_info("s")).state.messages == 20


@pytest.mark.parametrize(
    ("odd", "error"),
    [(("s.odd", b"x" * 2_000_000), PayloadTooLarge), (("s.a b", b"x"), BadSubject)],
    ids=["too large", "no subject"],
)
async def test_one_message_that_cannot_be_written_is_said_of_those_written_together(
    server: NatsServer, namespace: str, odd: tuple[str, bytes], error: type[Exception]
) -> None:
    async with wired(server.url, namespace) as t:
        with pytest.raises(error):
            await t.publisher.create_all([*many(namespace, 10), odd])
        assert await t.publisher.create_all(many(namespace, 20)) == []
        assert (await t.js.stream_info(namespace)).state.messages == 20
