"""The doctor: quiet about what is well, and each of its warnings brought about on purpose."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nats
import pytest
from msgspec.structs import replace
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import DiscardPolicy, RePublish, StreamConfig
from nats.js.errors import NotFoundError
from rich.console import Console

from baton_actors.cli.commands.doctor import doctor, findings_table
from baton_actors.cli.exits import FAILED, OK
from baton_actors.cli.place import Place
from baton_bus import Settings
from baton_bus.doctor.doctor import examine, examine_server, judge
from baton_bus.doctor.facts import Vitals, Waiting
from baton_bus.doctor.findings import Finding, Level, size, span
from baton_bus.doctor.vitals import read_vitals
from baton_bus.doctor.waiting import judge_waits
from baton_bus.jetstream.consumer import Delivery
from baton_bus.jetstream.streams import ensure_consumer, stream_config
from baton_bus.server.embedded import find_server
from baton_bus.store.bus import Bus, open_bus
from baton_bus.subjects import Subjects
from baton_schemas.flow.flow import Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import VERSION, Handoff, Started

from .clients import cancel_run
from .clusters import cluster
from .servers import WAIT_S, NatsServer, nats_server, until
from .team import Team, flow_of, team
from .timed import timed

SOON_S = 5.0
"""An answer within this was not waited for: it comes within a tenth of a second."""


@asynccontextmanager
async def connected(server: NatsServer, namespace: str, **settings: Any) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace, **settings)) as bus:
        yield bus
        for stream in (namespace, bus.timers.stream):
            await bus.nc.request(f"$JS.API.STREAM.DELETE.{stream}")


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with connected(server, namespace, lease_s=0.5) as ours:
        yield ours


async def until_found(bus: Bus, level: Level, what: str, says: str) -> Finding:
    """Examine until a finding is there; it takes the server a moment to see that somebody is gone."""
    (found,) = await until_all_found(bus, (level, what, says))
    return found


async def until_all_found(bus: Bus, *wanted: tuple[Level, str, str]) -> list[Finding]:
    """Examine until all of these are found at once: each a level, what it is about, and what it says."""
    async with asyncio.timeout(WAIT_S):
        while True:
            findings = await examine(bus)
            found = [each for _, what, says in wanted for each in findings if each.what == what and says in each.says]
            if len(found) >= len(wanted):
                assert [each.level for each in found] == [level for level, _, _ in wanted]
                assert all(each.advice for each in found)
                return found
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


@pytest.mark.parametrize("url", ["http://user:hunter2@127.0.0.1:1", "user:hunter2@host", "http://u:hunter2/x@host:y"])
async def test_password_for_the_monitoring_port_is_never_shown(bus: Bus, url: str) -> None:
    findings = await examine(bus, url)
    assert "***@" in {finding.what: finding for finding in findings}["monitoring"].says
    assert "hunter2" not in repr(findings)


async def test_login_for_the_monitoring_port_is_sent(bus: Bus) -> None:
    heard: list[bytes] = []

    async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"server_name":"behind a proxy"}')
        writer.close()

    async with await asyncio.start_server(on_client, "127.0.0.1", 0) as proxy:
        url = f"http://user:hunter%2F2@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        seen = {finding.what: finding for finding in await examine(bus, url)}
    assert "monitoring" not in seen
    assert "behind a proxy" in seen["flushing"].says
    assert b"Authorization: Basic " + base64.b64encode(b"user:hunter/2") in heard[0]


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
            ours.bus, "warning", "consumer handoff-flow--a", "3 messages wait and no process takes them"
        )
        assert "baton up" in found.advice
        async with ours.process():
            await ours.until_settled("handoff", "a")


async def test_leases_that_nobody_renews_are_told(bus: Bus) -> None:
    await abandoned(bus, messages=1)
    await until_found(bus, "warning", "consumer handoff-gone", "1 message is held, and for")


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
    async with cluster(tmp_path) as three, open_bus(Settings(url=three.url, namespace="log", replicas=3)) as bus:
        await three.until_current("log")
        whole = {finding.what: finding for finding in await examine(bus)}
        async with open_bus(Settings(url=three.url, namespace="log")) as careless:
            await careless.timers.ensure()
        await until_found(bus, "warning", "replicas of the timers", "1, and the log has 3: runs outlive every deadline")
        # As often as not the leader of the log too: then its successor has never heard of it.
        await three.kill(await three.leader("log-timers"))
        await until_all_found(
            bus,
            ("warning", "replicas of the log", "2 of 3 are up: with fewer than 2 nothing can be written"),
            ("error", "the timers", "do not answer: every server that has a copy is down"),
        )
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
    log = vitals.log
    assert log is not None
    unwritten = replace(log, config=replace(log.config, persist_mode="async"))
    assert "error persist_mode = async: a crash of the server alone loses" in said(log=unwritten)
    without = replace(log, cluster=replace(log.cluster, leader=""))
    assert "error no leader: nothing can be written" in said(log=without)
    sealed = replace(log, config=replace(log.config, sealed=True))
    assert "error sealed: nothing can be written" in said(log=sealed)


async def test_command_prints_what_is_found_and_its_exit_code_says_whether_there_are_errors(
    bus: Bus, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(url=bus.settings.url, namespace=bus.settings.namespace)
    assert await doctor(place) == OK
    assert "→ Set `sync_interval: always`." in capsys.readouterr().out
    config = (await bus.js.stream_info(bus.settings.namespace)).config
    await bus.js.update_stream(config.evolve(max_age=3600.0))
    assert await doctor(place, json=True) == FAILED
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


# ---- looking, and finding what is not there ----------------------------------------------------------


async def test_doctor_makes_nothing_and_names_the_logs_there_are_when_the_namespace_is_mistyped(
    bus: Bus, namespace: str
) -> None:
    mistyped = Settings(url=bus.settings.url, namespace=f"{namespace}x")
    found = {finding.what: finding for finding in await examine_server(mistyped)}["the log"]
    assert (found.level, namespace in found.says, "--namespace" in found.advice) == ("error", True, True)
    with pytest.raises(NotFoundError):
        await bus.js.stream_info(mistyped.namespace)


async def test_server_on_which_nothing_ever_ran_has_no_log_and_that_is_no_error(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        findings = await examine_server(Settings(url=server.url))
    assert levels(findings, "error") == set()
    assert "`baton up`, `baton run` or `baton submit` makes it" in findings[-1].advice


async def test_discard_that_was_changed_is_told_and_stays_as_it_is(bus: Bus) -> None:
    config = (await bus.js.stream_info(bus.settings.namespace)).config
    await bus.js.update_stream(config.evolve(discard=DiscardPolicy.OLD))
    says = "\n".join(finding.says for finding in await examine_server(bus.settings) if finding.level == "error")
    assert "discard = old: a full log would drop accepted work and not refuse new" in says
    assert (await bus.js.stream_info(bus.settings.namespace)).config.discard == DiscardPolicy.OLD


async def test_log_that_takes_too_few_subjects_or_cannot_be_read_is_an_error(bus: Bus) -> None:
    config = (await bus.js.stream_info(bus.settings.namespace)).config
    await bus.js.update_stream(config.evolve(subjects=bus.subjects.stored()[:-1], allow_direct=False))
    await until_all_found(
        bus,
        ("error", "subjects of the log", f"takes no {bus.subjects.stored()[-1]}"),
        ("error", "reading", "allow_direct is off"),
    )


async def test_rollups_that_somebody_allowed_are_a_warning(bus: Bus) -> None:
    config = (await bus.js.stream_info(bus.settings.namespace)).config
    await bus.js.update_stream(config.evolve(allow_rollup_hdrs=True))
    await until_found(bus, "warning", "rollups of the log", "whoever may publish there can purge all of it")


async def test_what_a_log_of_an_earlier_release_lacks_is_told_as_a_worker_would_mend_it(
    server: NatsServer, namespace: str
) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    nc = await nats.connect(server.url)
    subjects = Subjects(namespace).stored()
    await nc.jetstream().add_stream(name=namespace, subjects=subjects[:-1], discard=DiscardPolicy.NEW)
    await nc.close()
    async with asyncio.timeout(SOON_S):  # it cannot be read, and nobody waits for that
        found = {each.what: each for each in await examine_server(settings)}
    assert "results and answers are heard only when somebody looks" in found["republish of the log"].says
    assert subjects[-1] in found["subjects of the log"].says
    assert found["allow_msg_ttl of the log"].says == "is False; this release makes it True"
    assert {found[f"{field} of the log"].level for field in ("republish", "allow_msg_ttl")} == {"warning"}
    async with open_bus(settings) as bus:
        assert {each.what for each in await examine(bus)} & {*found} & {
            "republish of the log",
            "subjects of the log",
            "allow_msg_ttl of the log",
        } == set()


async def test_stream_of_our_name_that_says_its_words_elsewhere_is_an_error(server: NatsServer, namespace: str) -> None:
    nc = await nats.connect(server.url)
    subjects, elsewhere = Subjects(namespace).stored(), RePublish(src=">", dest=f"{namespace}.heard.>")
    await nc.jetstream().add_stream(name=namespace, subjects=subjects, republish=elsewhere)
    await nc.close()
    findings = await examine_server(Settings(url=server.url, namespace=namespace))
    assert any(each.level == "error" and "has republish = " in each.says for each in findings)


# ---- what waits -----------------------------------------------------------------------------------------


async def test_paused_consumer_is_an_error_with_the_time_that_is_left(bus: Bus) -> None:
    stream = bus.settings.namespace
    await ensure_consumer(bus.js, bus.settings, stream, "handoff-a", bus.subjects.for_actor("handoff", "a"), 10)
    until = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
    pause = json.dumps({"pause_until": until}).encode()
    await bus.nc.request(f"$JS.API.CONSUMER.PAUSE.{stream}.handoff-a", pause)
    found = await until_found(bus, "error", "consumer handoff-a", "paused for 3 hours more")
    assert found.advice == f"`nats consumer resume {stream} handoff-a`, if nobody means it."


async def test_paused_taking_of_deadlines_is_an_error(bus: Bus) -> None:
    async with bus.pulling("due", bus.subjects.due("*", "*", "*"), 1, lambda _: None, max_ack_pending=1, due=True):
        until = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
        pause = json.dumps({"pause_until": until}).encode()
        await bus.nc.request(f"$JS.API.CONSUMER.PAUSE.{bus.timers.stream}.due", pause)
        await until_found(bus, "error", "timers", "none of deadlines and scheduled tasks")


async def test_timer_that_is_late_is_an_error_even_when_the_stream_looks_well(bus: Bus) -> None:
    await bus.timers.at("merge", "r1", "join", time.time() + 3600, b"{}")
    vitals = await read_vitals(bus)
    assert vitals.overdue_s is None
    ours_s = time.monotonic()
    bus.clock.measured(time.time() + 7200, ours_s, ours_s)  # by the clock that counts it is an hour late
    await until_found(bus, "error", "timers", "one should have fired 60 minutes ago and has not")


async def test_sealed_timers_cannot_fire_and_are_an_error(bus: Bus) -> None:
    await bus.timers.at("merge", "r1", "join", time.time() + 3600, b"{}")
    config = (await bus.js.stream_info(bus.timers.stream)).config
    await bus.js.update_stream(config.evolve(sealed=True, deny_delete=True, deny_purge=True, allow_rollup_hdrs=False))
    await until_found(bus, "error", "limits of the timers", "sealed: nothing can be written")


@pytest.mark.parametrize(
    ("otherwise", "says"),
    [
        ({"allow_msg_schedules": False}, "allow_msg_schedules is off"),
        ({"subjects": ["{namespace}.timer.>"]}, "what is due there goes nowhere"),
    ],
)
async def test_stream_of_timers_that_cannot_fire_is_an_error(bus: Bus, otherwise: dict[str, Any], says: str) -> None:
    subjects = [each.format(namespace=bus.settings.namespace) for each in otherwise.get("subjects", [])]
    config = StreamConfig(name=bus.timers.stream, subjects=subjects or bus.subjects.timers(), allow_msg_schedules=True)
    await bus.js.add_stream(config.evolve(**{**otherwise, "subjects": config.subjects}))
    await until_found(bus, "error", "timers", says)


async def test_limit_of_consumers_that_is_close_is_a_warning(server: NatsServer, namespace: str) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with connected(server, namespace) as bus:
        await bus.js.delete_stream(namespace)
        await bus.js.add_stream(stream_config(settings, bus.subjects).evolve(max_consumers=5))
        for name in "abcd":
            await ensure_consumer(
                bus.js, settings, namespace, f"handoff-{name}", bus.subjects.for_actor("handoff", name), 10
            )
        await until_found(bus, "warning", "consumers", "4 of at most 5 on the log")


async def test_actors_that_had_nothing_to_do_for_a_week_are_named(bus: Bus) -> None:
    for name in "abcd":
        await ensure_consumer(
            bus.js,
            bus.settings,
            bus.settings.namespace,
            f"handoff-{name}",
            bus.subjects.for_actor("handoff", name),
            10,
        )
    vitals = await read_vitals(bus)
    assert "neither work nor a process" not in str(judge(vitals, bus.settings))
    later = [replace(each, ts=(each.ts or datetime.now(UTC)) + timedelta(days=8)) for each in vitals.consumers]
    says = [each.says for each in judge(replace(vitals, consumers=later), bus.settings) if each.level == "note"]
    assert "4 had neither work nor a process for 7 days: handoff-a, handoff-b, handoff-c, …" in says


def test_work_that_waits_for_what_its_actor_lacks_is_told_once_for_each_thing() -> None:
    def waits(run: str, kind: str, what: str) -> Waiting:
        return Waiting(actor="news--writer", flow="news", run=run, step="write", kind=kind, what=what)

    lacked = "a worker that has './news.py:write'"
    told = [waits("r2", "handler", lacked), waits("r1", "handler", lacked), waits("r2", "handler", lacked)]
    asked = [waits("r3", "provider", f"the model's provider, which asks for {after_s} s") for after_s in (7, 9)]
    lacks, slow = judge_waits([*told, *asked])
    assert (lacks.level, lacks.what) == ("warning", "actor news--writer")
    assert lacks.says == f"2 runs wait for {lacked}: r1, r2"
    assert "`baton up news`" in lacks.advice
    assert (slow.level, slow.says) == ("note", "1 run waits for the model's provider, which asks for 7 s: r3")


async def test_run_that_waits_for_a_handler_is_told_until_it_ends(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, flow_of({"a": Step(agent="a")}), {}) as ours:
        run = await ours.submit()
        told = f"1 run waits for a worker that has 'team:a': {run}"
        found = await until_found(ours.bus, "warning", "actor flow--a", told)
        assert "`baton up flow`" in found.advice
        await cancel_run(ours.client, run)
        assert "waits for" not in str(await examine(ours.bus))


async def test_run_that_has_found_its_handler_waits_no_more(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("baton_actors.steps.failing.HANDLER_MISSING_MAX_S", 0.1)

    async def a() -> str:
        return "done"

    async with timed(server, namespace, flow_of({"a": Step(agent="a")}), {}) as ours:
        run = await ours.submit()
        await until_found(ours.bus, "warning", "actor flow--a", "1 run waits for a worker that has 'team:a'")
        async with Team(ours.client, ours.plan, {"a": a}).process():
            assert (await ours.result(run)).status == "done"
        assert "waits for" not in str(await examine(ours.bus))


async def test_message_of_a_later_version_that_is_handed_out_again_is_told(bus: Bus) -> None:
    await abandoned(bus, messages=0)
    subject = f"{bus.settings.namespace}.handoff.gone.r.s.start"
    await bus.publisher.create(subject, encode(Handoff(v=VERSION + 1, run="r", flow="f", step="s", cause=Started())))

    def give_back(delivery: Delivery) -> None:
        tasks.add(asyncio.create_task(delivery.nak(0.01)))

    tasks: set[asyncio.Task[None]] = set()
    filter_subject = bus.subjects.for_actor("handoff", "gone")
    async with bus.pulling("handoff-gone", filter_subject, 10, give_back, max_ack_pending=10):
        says = f"has version {VERSION + 1}: who reads up to {VERSION} gives it back"
        await until_found(bus, "warning", "consumer handoff-gone", says)
    await asyncio.gather(*tasks)


# ---- servers that are not well -----------------------------------------------------------------------------


def listening_at(folder: Path) -> str:
    """The address that a server writes into a file once it listens; empty before."""
    texts = [path.read_text() for path in folder.glob("*.ports")]
    return str(json.loads(texts[0])["nats"][0]) if texts and texts[0] else ""


async def test_server_on_which_jetstream_is_off_is_a_finding_with_what_to_do(tmp_path: Path) -> None:
    options = ["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(tmp_path), "-l", str(tmp_path / "log")]
    process = await asyncio.create_subprocess_exec(str(find_server()), *options)
    try:
        await until(lambda: listening_at(tmp_path))
        (found,) = await examine_server(Settings(url=listening_at(tmp_path)))
    finally:
        process.terminate()
        await process.wait()
    assert (found.level, found.what) == ("error", "JetStream")
    assert "free space, then restart the server" in found.advice


async def test_account_without_jetstream_is_a_finding_with_what_to_do(tmp_path: Path) -> None:
    async with nats_server(tmp_path, accounts={"A": {"users": [{"user": "a", "password": "b"}]}}) as server:
        url = f"nats://a:b@127.0.0.1:{server.port}"
        findings = await examine_server(Settings(url=url))
    found = {finding.what: finding for finding in findings}["JetStream"]
    assert (found.level, "off for this account" in found.says) == ("error", True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("only root can have a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)  # whoever looks at it now may go on


async def test_full_disk_is_an_error_and_without_the_monitoring_port_it_is_said_how_to_see_it(small_disk: Path) -> None:
    options = {"http": "127.0.0.1:-1", "jetstream": {"max_file_store": 1 << 30}}
    async with nats_server(small_disk / "store", **options) as server:
        async with open_bus(Settings(url=server.url, namespace="full")) as bus:
            with pytest.raises(NatsTimeout):
                while True:
                    await bus.nc.request(bus.subjects.task("flow"), b"x" * 500_000, timeout=1)
        settings = Settings(url=server.url, namespace="full")
        seen = {each.what: each for each in await examine_server(settings, monitor_url(server))}
        unseen = {each.what: each for each in await examine_server(settings)}
    assert "no space left on device" in seen["health of the server"].says
    assert "restart the server" in seen["health of the server"].advice
    assert "--monitor URL shows it, and whether the disk is full" in unseen["space"].advice


async def test_cluster_without_a_leader_is_told_within_a_bounded_time(tmp_path: Path) -> None:
    async with cluster(tmp_path) as three:
        async with open_bus(Settings(url=three.url, namespace="log", replicas=3)):
            await three.until_current("log")
        leader = await three.leader("log")
        for index in (leader, (leader + 1) % 3):
            await three.kill(index)
        async with asyncio.timeout(3 * WAIT_S):
            while True:  # the one that is left may have led, and takes a while to see that it cannot any more
                seen = await examine_server(Settings(url=three.url, namespace="log"))
                if "JetStream" in levels(seen, "error"):
                    break
                await asyncio.sleep(0.1)
    # It answers for the log or not, as it likes.
    assert {"the log", "replicas of the log"} & levels(seen, "error")
    assert "they elect a leader" in next(each.says for each in seen if each.what == "JetStream")


def test_findings_fit_80_columns_and_tell_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding("warning", f"consumer handoff-{'a' * 64}", "it\x1b[2J says " * 20, "do it")
    Console(width=80).print(findings_table([finding]))
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert len(lines) < 20
    assert "\x1b" not in "".join(lines)
