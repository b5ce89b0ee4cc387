"""What a server does not let us do is told as what it is, soon, and with what to do about it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import RePublish, StreamConfig

from baton_bus import Settings
from baton_bus.errors import (
    AccountFull,
    JetStreamOff,
    NoLeader,
    NoStream,
    NotAllowed,
    StreamMismatch,
)
from baton_bus.jetstream.streams import ensure_consumer, ensure_stream
from baton_bus.store.bus import open_bus
from baton_bus.subjects import Subjects

from .servers import NatsServer, nats_server, subscribed

SOON_S = 10.0
"""An answer that comes within this is bounded: no loop, and no patience of half a minute."""


def account(**jetstream: Any) -> dict[str, Any]:
    """Return the options of a server with one account that has these limits."""
    users = [{"user": "u", "password": "p"}]
    return {"accounts": {"TEAM": {"users": users, "jetstream": jetstream}}, "no_auth_user": "u"}


def user(**permissions: Any) -> dict[str, Any]:
    """Return the options of a server whose user has these permissions."""
    users = [{"user": "u", "password": "p", "permissions": permissions}]
    return {"authorization": {"users": users}, "no_auth_user": "u"}


async def refused(server: NatsServer, **settings: Any) -> None:
    """Connect; it is not to take long."""
    started = time.monotonic()
    try:
        async with open_bus(Settings(url=server.url, **settings)) as bus:
            await bus.timers.ensure()
    finally:
        assert time.monotonic() - started < SOON_S


@pytest.mark.parametrize("streams", [1, 2])
async def test_account_that_may_have_too_few_streams_is_told_by_the_limit(tmp_path: Path, streams: int) -> None:
    async with nats_server(tmp_path, **account(max_streams=streams)) as server:
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="theirs", subjects=["theirs"])
        await client.close()
        with pytest.raises(AccountFull, match=r"limit of streams is reached.*max_streams"):
            await refused(server)


async def test_account_without_room_for_the_log_is_told_by_the_limit(tmp_path: Path) -> None:
    async with nats_server(tmp_path, **account(max_file=100_000)) as server:
        with pytest.raises(AccountFull, match="max_file"):
            await refused(server, max_bytes=1_000_000)


async def test_account_that_may_have_too_few_consumers_is_told_by_the_limit(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path, **account(max_consumers=1)) as server,
        open_bus(Settings(url=server.url)) as bus,
    ):
        filters = {name: bus.subjects.for_actor("handoff", name) for name in "ab"}
        await ensure_consumer(bus.js, bus.settings, "baton", "a", filters["a"], 10)
        with pytest.raises(AccountFull, match=r"limit of consumers.*max_consumers"):
            await ensure_consumer(bus.js, bus.settings, "baton", "b", filters["b"], 10)


async def test_account_without_jetstream_is_told_apart_from_a_server_without_it(tmp_path: Path) -> None:
    accounts = {"PLAIN": {"users": [{"user": "u", "password": "p"}]}}
    async with nats_server(tmp_path, accounts=accounts, no_auth_user="u") as server:
        with pytest.raises(JetStreamOff, match="for this account") as caught:
            await refused(server)
        assert caught.value.account_only


@pytest.mark.parametrize(
    ("permissions", "says"),
    [
        ({"publish": {"deny": ["$JS.API.>"]}}, r"may not publish to \$js\.api\.stream\.info\.baton"),
        ({"publish": {"deny": ["$JS.API.STREAM.CREATE.*"]}}, r"may not publish to \$js\.api\.stream\.create\.baton"),
        ({"subscribe": {"deny": ["_INBOX.>"]}}, r"may not subscribe to _inbox\."),
    ],
)
async def test_permission_that_is_missing_is_told_by_its_subject(
    tmp_path: Path, permissions: dict[str, Any], says: str
) -> None:
    async with nats_server(tmp_path, **user(**permissions)) as server:
        with pytest.raises(NotAllowed, match=says):
            await refused(server)


async def test_user_who_may_not_write_to_the_log_is_told_so_at_once(tmp_path: Path) -> None:
    async with (
        nats_server(tmp_path, **user(publish={"deny": ["baton.task.>"]})) as server,
        open_bus(Settings(url=server.url)) as bus,
    ):
        started = time.monotonic()
        with pytest.raises(NotAllowed, match=r"publish to baton\.task\.any"):
            await bus.publisher.append(bus.subjects.task("any"), b"{}")
        assert time.monotonic() - started < 1.0
        assert await bus.publisher.append(bus.subjects.result("any", "run"), b"{}"), "another subject is not concerned"


async def test_lone_server_with_a_cluster_in_its_configuration_is_told_to_have_no_leader(tmp_path: Path) -> None:
    cluster = {"name": "c", "listen": "127.0.0.1:-1", "routes": ["nats://127.0.0.1:1"]}
    async with nats_server(tmp_path, cluster=cluster, server_name="one") as server:
        with pytest.raises(NoLeader, match="a server that is to be alone must have no `cluster`"):
            await refused(server, patience_s=2.0)


async def test_stream_whose_subjects_are_taken_is_told_as_such(server: NatsServer, namespace: str) -> None:
    client = await nats.connect(server.url)
    await client.jetstream().add_stream(name=f"{namespace}-theirs", subjects=[f"{namespace}.>"])
    with pytest.raises(StreamMismatch, match="subjects"):
        await refused(server, namespace=namespace)
    await client.jetstream().delete_stream(f"{namespace}-theirs")
    await client.close()


# ---- looking without making ----------------------------------------------------------------------


async def test_who_only_reads_makes_no_stream_and_hears_which_there_are(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        with pytest.raises(NoStream, match=namespace) as caught:
            async with open_bus(Settings(url=server.url, namespace=f"{namespace}x"), reads=True):
                pass
        assert namespace in caught.value.others
        assert f"{namespace}x" not in [info.config.name for info in await bus.js.streams_info()]
        await bus.js.delete_stream(namespace)


async def test_who_only_reads_reports_what_a_stream_lacks_and_mends_nothing(server: NatsServer, namespace: str) -> None:
    settings, subjects = Settings(url=server.url, namespace=namespace), Subjects(namespace)
    client = await nats.connect(server.url)
    js = client.jetstream()
    theirs = StreamConfig(name=namespace, subjects=subjects.stored()[1:], allow_direct=True, allow_rollup_hdrs=True)
    await js.add_stream(theirs)
    before = (await js.stream_info(namespace)).config
    needed = {"subjects", "discard", "allow_msg_ttl", "allow_rollup_hdrs", "republish"}
    assert {lack.field for lack in await ensure_stream(js, settings, subjects, mend=False)} == needed
    async with open_bus(settings, reads=True):
        assert (await js.stream_info(namespace)).config == before

    assert {lack.field for lack in await ensure_stream(js, settings, subjects)} == needed
    assert await ensure_stream(js, settings, subjects) == ()
    after = (await js.stream_info(namespace)).config
    assert (after.allow_rollup_hdrs, after.discard) == (False, "new")
    assert after.republish is not None
    await js.delete_stream(namespace)
    await client.close()


# ---- what the stream says again ------------------------------------------------------------------


async def test_result_is_heard_again_once_it_is_stored_with_its_place_in_the_log(
    server: NatsServer, namespace: str
) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        heard = await subscribed(bus.nc, bus.subjects.stored_result("*", "*"))
        await bus.publisher.append(bus.subjects.task("any"), b"{}")
        seq = await bus.publisher.create(bus.subjects.result("any", "run"), b'{"a":1}')
        msg = await heard.next_msg(timeout=5)
        assert (msg.subject, msg.data) == (bus.subjects.stored_result("any", "run"), b'{"a":1}')
        assert msg.headers is not None
        assert (msg.headers["Nats-Sequence"], msg.headers["Nats-Last-Sequence"]) == (str(seq), "0")
        await bus.js.delete_stream(namespace)


async def test_stream_that_says_other_things_again_is_left_alone(server: NatsServer, namespace: str) -> None:
    client = await nats.connect(server.url)
    js = client.jetstream()
    republish = RePublish(src=f"{namespace}.task.*", dest=f"{namespace}-theirs.{{{{wildcard(1)}}}}")
    await js.add_stream(name=namespace, subjects=Subjects(namespace).stored(), republish=republish)
    with pytest.raises(StreamMismatch, match="republish"):
        await refused(server, namespace=namespace)
    await js.delete_stream(namespace)
    await client.close()


async def test_message_that_would_purge_others_is_refused(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        subject = bus.subjects.task("any")
        await bus.publisher.append(subject, b"{}")
        with pytest.raises(nats.js.errors.APIError, match="rollup not permitted"):
            await bus.js.publish(subject, b"{}", headers={"Nats-Rollup": "all"})
        assert (await bus.js.stream_info(namespace)).state.messages == 1
        await bus.js.delete_stream(namespace)
