"""The doctor: quiet about what is well, and each of its warnings brought about on purpose."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from nats.js.api import DiscardPolicy

from baton_actors.cli.doctor import examine_server
from baton_actors.cli.exits import FAILED, OK
from baton_actors.cli.place import Place
from baton_bus import Bus, Settings, connect
from baton_bus.doctor.doctor import examine, judge
from baton_bus.doctor.findings import Finding, Level, size, span
from baton_bus.doctor.vitals import Vitals, read_vitals
from baton_bus.jetstream.streams import ensure_consumer
from baton_schemas.flow.flow import Step

from .clusters import cluster
from .servers import WAIT_S, NatsServer, nats_server
from .team import flow_of, team


@asynccontextmanager
async def connected(server: NatsServer, namespace: str, **settings: Any) -> AsyncIterator[Bus]:
    async with connect(Settings(url=server.url, namespace=namespace, **settings)) as bus:
        yield bus
        for stream in (namespace, bus.timers.stream):
            await bus.nc.request(f"$JS.API.STREAM.DELETE.{stream}")


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with connected(server, namespace, lease_s=0.5) as ours:
        yield ours


async def until_found(bus: Bus, level: Level, what: str, says: str) -> Finding:
    """Examine until a finding is there; it takes the server a moment to see that somebody is gone."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = [each for each in await examine(bus) if each.what == what and says in each.says]
            if found:
                assert found[0].level == level
                assert found[0].advice
                return found[0]
            await asyncio.sleep(0.05)


def monitor_url(server: NatsServer) -> str:
    """The address that a server with `http` on a port of its choice says it has."""
    ports = json.loads(next(server.store.glob("*.ports")).read_text())
    return str(ports["monitoring"][0])


def levels(findings: list[Finding], level: Level) -> set[str]:
    return {finding.what for finding in findings if finding.level == level}


async def test_well_kept_server_with_a_team_at_work_has_nothing_to_warn_of(tmp_path: Path) -> None:
    async def a() -> str:
        return "done"

    always = {"http": "127.0.0.1:-1", "jetstream": {"sync_interval": "always"}}
    async with (
        nats_server(tmp_path, **always) as server,
        team(server.url, "well", flow_of({"a": Step(agent="a")}), {"a": a}) as ours,
    ):
        await ours.run()
        await ours.until_settled("handoff", "a")
        findings = await examine(ours.bus, monitor_url(server))
    assert levels(findings, "warning") | levels(findings, "error") == set()
    assert levels(findings, "note") == {"replicas of the log"}
    assert {"server", "flushing", "storage of the server", "limits", "payload", "clock", "consumers"} <= levels(
        findings, "ok"
    )


async def test_lazy_flushing_is_told_with_its_interval_and_without_monitoring_with_the_default(tmp_path: Path) -> None:
    lazy = {"http": "127.0.0.1:-1", "jetstream": {"sync_interval": "10s"}}
    async with nats_server(tmp_path, **lazy) as server, connected(server, "lazy") as bus:
        seen = {finding.what: finding for finding in await examine(bus, monitor_url(server))}["flushing"]
        unseen = {finding.what: finding for finding in await examine(bus)}["flushing"]
    assert (seen.level, unseen.level) == ("warning", "warning")
    assert "the server flushes what it has acknowledged every 10 s" in seen.says
    assert "cannot be seen over NATS; by default what is acknowledged is flushed every 2 minutes" in unseen.says
    assert "A power cut or a crash of the machine loses up to as much" in unseen.says
    assert "--monitor" in unseen.advice


async def test_monitoring_port_that_does_not_answer_is_told(bus: Bus) -> None:
    for url, reason in (("http://127.0.0.1:1", "refused"), ("ftp://somewhere", "begins with http")):
        findings = {finding.what: finding for finding in await examine(bus, url)}
        assert reason in findings["monitoring"].says
        assert "by default" in findings["flushing"].says


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ({"max_age": 3600.0}, "max_age = 60 minutes drops messages"),
        ({"max_msgs_per_subject": 1}, "max_msgs_per_subject = 1"),
        ({"discard": DiscardPolicy.OLD}, "a full log would drop accepted work"),
        ({"discard": DiscardPolicy.OLD, "max_msgs": 5000}, "drops the oldest of 5,000 messages (now 0)"),
        ({"discard": DiscardPolicy.OLD, "max_bytes": 1 << 20}, "drops the oldest of 1 MiB"),
        ({"max_msg_size": 1000}, "max_msg_size = 1000 bytes refuses"),
    ],
)
async def test_limit_set_behind_our_back_is_an_error(bus: Bus, limit: dict[str, Any], says: str) -> None:
    config = (await bus.js.stream_info(bus.settings.namespace)).config
    await bus.js.update_stream(config.evolve(**limit))
    found = await until_found(bus, "error", "limits of the log", says)
    assert "nats stream edit" in found.advice


async def test_messages_near_their_expiry_are_told_with_the_time_that_is_left(bus: Bus) -> None:
    await bus.publisher.append(bus.subjects.task("flow"), b"{}")
    config = (await bus.js.stream_info(bus.settings.namespace)).config
    await bus.js.update_stream(config.evolve(max_age=1000.0))
    found = await until_found(
        bus, "error", "limits of the log", "max_age = 16.7 minutes drops messages, the next in 16"
    )
    assert "runs that are not done by then never end" in found.says


async def test_timers_that_would_be_dropped_are_told_apart_from_the_log(bus: Bus) -> None:
    await bus.timers.ensure()
    config = (await bus.js.stream_info(bus.timers.stream)).config
    await bus.js.update_stream(config.evolve(max_age=3600.0))
    await until_found(bus, "error", "limits of the timers", "deadlines and schedules that are later never come")


async def test_log_that_fills_is_a_warning_and_a_full_one_an_error(server: NatsServer, namespace: str) -> None:
    async with connected(server, namespace, max_bytes=100_000) as bus:
        for number, level in ((8, None), (1, "warning"), (1, "error")):
            for _ in range(number):
                await bus.publisher.append(bus.subjects.task("flow"), b"x" * 9_500)
            found = {finding.what: finding for finding in await examine(bus)}["size of the log"]
            assert found.level == (level or "ok")
    assert "new work is refused with LogFull, and accepted work is kept" in found.says


async def test_actor_that_is_down_is_told_with_how_much_waits_for_it(server: NatsServer, namespace: str) -> None:
    async def a() -> str:
        return "done"

    async with team(server.url, namespace, flow_of({"a": Step(agent="a")}), {"a": a}, start=False) as ours:
        async with ours.process():
            await ours.run()
        for _ in range(3):
            await ours.submit()
        found = await until_found(
            ours.bus, "warning", "consumer handoff-flow-a", "3 messages wait and no process takes them"
        )
        assert "baton up" in found.advice
        async with ours.process():
            await ours.until_settled("handoff", "a")


async def test_leases_that_nobody_renews_are_told(bus: Bus) -> None:
    await abandoned(bus, messages=1)
    await until_found(bus, "warning", "consumer handoff-gone", "1 messages are held, and for")


async def test_messages_that_keep_coming_again_are_a_warning(bus: Bus) -> None:
    await abandoned(bus, messages=12)
    inbox = bus.nc.new_inbox()
    async with asyncio.timeout(WAIT_S):
        redelivered = await bus.nc.subscribe(inbox)
        query = json.dumps({"batch": 12, "expires": int(WAIT_S * 1e9)}).encode()
        await bus.nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{bus.settings.namespace}.handoff-gone", query, reply=inbox)
        for _ in range(12):
            await redelivered.next_msg(WAIT_S)
    await until_found(bus, "warning", "consumer handoff-gone", "12 of 12 in hand were handed out before")


async def test_consumer_that_gives_up_is_an_error_and_another_lease_a_note(bus: Bus) -> None:
    await ensure_consumer(
        bus.js, bus.settings, bus.settings.namespace, "handoff-a", bus.subjects.for_actor("handoff", "a"), 10
    )
    config = (await bus.js.consumer_info(bus.settings.namespace, "handoff-a")).config
    await bus.js.add_consumer(bus.settings.namespace, config.evolve(max_deliver=5, ack_wait=7.0))
    await until_found(bus, "error", "consumer handoff-a", "max_deliver = 5")
    await until_found(bus, "note", "consumer handoff-a", "leases of 7 s, and 0.5 s in the settings")


async def test_deadline_that_is_due_and_not_taken_is_a_warning(bus: Bus) -> None:
    await bus.timers.at("merge", "r1", "join", time.time() + 0.2, b"{}")
    await until_found(
        bus, "warning", "timers", "1 deadlines or tasks are due and no process takes them; they are kept 7 days"
    )


async def test_server_that_takes_only_small_messages_is_an_error(tmp_path: Path) -> None:
    async with nats_server(tmp_path, max_payload=512 * 1024) as server, connected(server, "small") as bus:
        found = await until_found(bus, "error", "payload", "such a step fails with PayloadTooLarge")
    assert "BATON_INLINE_LIMIT_BYTES" in found.advice


async def test_lost_server_of_a_cluster_and_single_copies_in_one_are_told(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three, connect(Settings(url=three.url, namespace="log", replicas=3)) as bus:
        await three.until_current("log")
        whole = {finding.what: finding for finding in await examine(bus)}
        async with connect(Settings(url=three.url, namespace="log")) as careless:
            await careless.timers.ensure()
        await until_found(bus, "warning", "replicas of the timers", "1, and the log has 3: runs outlive every deadline")
        # As often as not the leader of the log too: then its successor has never heard of it.
        await three.kill(await three.leader("log-timers"))
        await until_found(
            bus, "warning", "replicas of the log", "2 of 3 are up: with fewer than 2 nothing can be written"
        )
        await until_found(bus, "error", "the timers", "do not answer: every server that has a copy is down")
    assert (whole["replicas of the log"].level, whole["flushing"].level) == ("ok", "note")
    assert "jepsen.io/analyses/nats-2.12.1" in whole["flushing"].says


async def test_facts_that_no_test_can_bring_about_are_judged(bus: Bus) -> None:
    vitals = await read_vitals(bus)
    consumer = (await abandoned(bus, messages=1)).consumers[0]

    def said(**facts: Any) -> str:
        return "\n".join(f"{each.level} {each.says}" for each in judge(replace(vitals, **facts), bus.settings))

    assert "warning the server's clock is 5.0 s ahead of ours" in said(clock_ahead_s=5.0)
    assert "warning the server's clock is 5.0 s behind ours" in said(clock_ahead_s=-5.0)
    assert "note nats-server 2.12.3; Baton is tested with" in said(version=(2, 12, 3))
    assert "warning 900 of at most 1,000 on the log" in said(consumers=[consumer] * 900)
    unwritten = replace(vitals.log, config=replace(vitals.log.config, persist_mode="async"))
    assert "error persist_mode = async: a crash of the server alone loses" in said(log=unwritten)
    without = replace(vitals.log, cluster=replace(vitals.log.cluster, leader=""))
    assert "error no leader: nothing can be written" in said(log=without)
    sealed = replace(vitals.log, config=replace(vitals.log.config, sealed=True))
    assert "error sealed: nothing can be written" in said(log=sealed)


async def test_command_prints_what_is_found_and_its_exit_code_says_whether_there_are_errors(
    bus: Bus, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(url=bus.settings.url, namespace=bus.settings.namespace)
    assert await examine_server(place, "", as_json=False) == OK
    assert "→ Set `sync_interval: always`." in capsys.readouterr().out
    config = (await bus.js.stream_info(bus.settings.namespace)).config
    await bus.js.update_stream(config.evolve(max_age=3600.0))
    assert await examine_server(place, "", as_json=True) == FAILED
    findings = json.loads(capsys.readouterr().out)
    assert {"level", "what", "says", "advice"} == findings[0].keys()
    assert [finding["what"] for finding in findings if finding["level"] == "error"] == ["limits of the log"]


def test_spans_and_sizes_are_told_in_units_that_people_use() -> None:
    assert [span(seconds) for seconds in (0.5, 90, 120, 7200, 604800)] == [
        "0.5 s",
        "90 s",
        "2 minutes",
        "2 hours",
        "7 days",
    ]
    assert [size(number) for number in (12, 2048, 1 << 20, 5 << 30)] == ["12 bytes", "2 KiB", "1 MiB", "5 GiB"]


async def abandoned(bus: Bus, messages: int) -> Vitals:
    """Take messages with a consumer of an actor's kind, and neither ack them nor keep their leases."""
    stream = bus.settings.namespace
    await ensure_consumer(bus.js, bus.settings, stream, "handoff-gone", bus.subjects.for_actor("handoff", "gone"), 100)
    for number in range(messages):
        await bus.publisher.append(f"{stream}.handoff.gone.r{number}.s.start", b"{}")
    inbox = bus.nc.new_inbox()
    taken = await bus.nc.subscribe(inbox)
    query = json.dumps({"batch": messages}).encode()
    await bus.nc.publish(f"$JS.API.CONSUMER.MSG.NEXT.{stream}.handoff-gone", query, reply=inbox)
    for _ in range(messages):
        await taken.next_msg(WAIT_S)
    await taken.unsubscribe()
    return await read_vitals(bus)
