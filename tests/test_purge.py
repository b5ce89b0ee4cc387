"""Purging runs: nothing of them is left, nothing of others goes, and nothing late goes on with them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from baton_actors import Baton, Flow, Team
from baton_bus import Settings
from baton_bus.client.dead import dead_steps
from baton_bus.client.purge import Choice, Purged, plan_purge, purge
from baton_bus.client.runs import AmbiguousRun, find_run
from baton_bus.client.size import log_size
from baton_bus.client.survey import Counted, Survey, survey
from baton_bus.errors import RunNeeded, RunPurged, RunUnended, UnknownRun
from baton_bus.store.blobs import Blobs, Kept
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Handoff, Result, Task

from .servers import WAIT_S, NatsServer, nats_server

NOW = datetime(2026, 11, 25, tzinfo=UTC)
HOUR = timedelta(hours=1)
LATER = datetime.now(UTC) + timedelta(hours=10)
"""By then nobody is about to name what is put now."""
LARGE = 300_000
"""Bytes that do not fit in a message."""


class Steps:
    """A flow of two steps. The second counts its calls, and waits while the gate is shut."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.entered, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.flow = Flow("steps", input={"text": str, "fails": {"type": "bool", "default": False}})
        self.flow.step(self.first)
        self.flow.step(self.second, after="first", max_attempts=1)

    async def first(self, text: str) -> str:
        return text.upper()

    async def second(self, first: str, fails: bool) -> str:
        self.calls.append(first[:20])
        self.entered.set()
        await self.gate.wait()
        if fails:
            raise ValueError("told to")
        return first


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
async def team(server: NatsServer, namespace: str, steps: Steps) -> AsyncIterator[Team]:
    async with Baton.local(steps.flow, url=server.url, namespace=namespace) as team:
        yield team
        for stream in (namespace, f"{namespace}-blobs", f"{namespace}-timers"):
            with contextlib.suppress(Exception):
                await team.client.bus.js.delete_stream(stream)


async def purged(bus: Bus, *runs: str, now: datetime | None = None, **choice: Any) -> Purged:
    plan = plan_purge(await survey(bus), Choice(runs=runs, **choice), now or datetime.now(UTC))
    return await purge(bus, plan)


async def is_settled(bus: Bus, consumer: str) -> bool:
    """Say whether nothing of a consumer waits, or is in a worker's hands."""
    info = await bus.js.consumer_info(bus.settings.namespace, consumer)
    return not info.num_pending and not info.num_ack_pending


async def everything(bus: Bus) -> list[tuple[str, bytes]]:
    """Subject and body of all that is in the streams of a namespace."""
    found = []
    async with aclosing(bus.log.raw()) as log:
        found += [(each.subject, each.data) async for each in log]
    found += [(each.subject, each.data) for some in (await bus.timers.of_runs()).values() for each in some]
    return found + [(sha256, b"") for sha256 in await bus.blobs.kept()]


async def test_nothing_of_a_purged_run_is_left_but_the_word_that_it_was(team: Team) -> None:
    bus = team.client.bus
    await team.run(text="kept", run_id="kept")
    await team.run(text="secret", run_id="gone", deadline_s=3000.0)
    large = await team.run(text="secret" + "x" * LARGE, run_id="large")
    assert large.startswith("SECRET")
    done = await purged(bus, "gone", "large", now=LATER)
    left = await everything(bus)
    assert done.runs == 2
    assert done.blobs == 2, "the input and the output of a step"
    assert [data for _, data in left if b"secret" in data.lower()] == []
    assert sorted(subject.split(".", 1)[1] for subject, _ in left if "gone" in subject or "large" in subject) == [
        "result.steps.gone.end",
        "result.steps.large.end",
    ]
    assert await bus.blobs.kept() == {}
    assert await team.get("kept").result(WAIT_S) == "KEPT"
    with pytest.raises(RunPurged, match=r"no run 'gone' in the log\. It was purged"):
        await find_run(bus, "gone")
    assert [head.run for head in await team.runs()] == ["kept"]


async def test_task_that_asked_for_a_run_goes_with_it_and_others_stay(team: Team) -> None:
    bus = team.client.bus
    async with Baton.connect(settings=bus.settings) as other:
        assert await other.run("steps", text="secret", run_id="asked") == "SECRET"
        waits = await other.start("nobody", text="other")
    await bus.publisher.append(bus.subjects.task("steps"), b'{"input":{"text":"secret"}}')

    async def both_ended() -> bool:
        return len(await team.runs(status="done")) == 2

    await until_that(both_ended)
    await purged(bus, keep_last=0)
    assert [data for _, data in await everything(bus) if b"secret" in data.lower()] == []
    tasks = [data for subject, data in await everything(bus) if ".task." in subject]
    assert len(tasks) == 1
    assert waits.id.encode() in tasks[0]


async def until_that(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 (the server sets no event of ours)
            await asyncio.sleep(0.01)


async def test_large_value_stays_that_another_run_names(team: Team) -> None:
    bus, text = team.client.bus, "shared" + "x" * LARGE
    await team.run(text=text, run_id="one")
    await team.run(text=text, run_id="other")
    fork = await team.get("one").fork(run_id="fork")
    await fork.result(WAIT_S)
    assert (await purged(bus, "one")).blobs == 0
    assert await team.get("other").result(WAIT_S) == text.upper()
    assert await fork.result(WAIT_S) == text.upper()
    assert (await purged(bus, "other", "fork", now=LATER)).blobs == 2
    assert await bus.blobs.kept() == {}


async def test_large_value_stays_that_was_named_after_it_was_looked_at(team: Team) -> None:
    bus, text = team.client.bus, "raced" + "x" * LARGE
    await team.run(text=text, run_id="one")
    plan = plan_purge(await survey(bus), Choice(runs=("one",)), LATER)
    assert len(plan.blobs) == 2
    await team.run(text=text, run_id="two")  # while somebody reads the question
    assert (await purge(bus, plan)).blobs == 0
    bus.blobs._cache.clear()
    assert await team.get("two").result(WAIT_S) == text.upper()


async def test_value_that_is_put_while_it_is_removed_is_written_anew(team: Team) -> None:
    bus, data = team.client.bus, b"y" * LARGE
    sha256 = hashlib.sha256(data).hexdigest()
    blob = await bus.blobs.put(data)
    mark = await bus.blobs.doom(sha256, 0)
    await bus.blobs.put(data)
    await bus.blobs.remove(sha256, mark)
    bus.blobs._cache.clear()
    assert await bus.blobs.get(blob) == data
    touched_seq = (await bus.blobs.kept())[sha256].touched_seq
    await Blobs(bus.js, bus.requests, bus.settings).put(data)  # by another process
    assert await bus.blobs.doom(sha256, touched_seq) == 0, "it was put since"
    await bus.blobs.put(data)
    bus.blobs._cache.clear()
    assert await bus.blobs.get(blob) == data


async def test_runs_that_put_the_same_value_lose_nothing_while_others_are_purged(team: Team) -> None:
    bus, text = team.client.bus, "again" + "x" * LARGE

    async def keep_running() -> list[str]:
        return [await team.run(text=text) for _ in range(20)]

    running = asyncio.create_task(keep_running())
    runs = 0
    while not running.done():
        plan = plan_purge(await survey(bus), Choice(keep_last=0), datetime.now(UTC))
        # Even if nothing is spared for having been put lately.
        named = {sha256 for run in plan.survey.runs.values() if run not in plan.runs for sha256 in run.blobs}
        rest = {sha256: kept.touched_seq for sha256, kept in plan.survey.blobs.items() if sha256 not in named}
        runs += (await purge(bus, replace(plan, blobs=rest if not plan.unended else {}))).runs
        bus.blobs._cache.clear()
    assert await running == [text.upper()] * 20
    assert runs > 0


async def test_run_that_has_not_ended_is_refused_or_cancelled_first(team: Team, steps: Steps) -> None:
    bus = team.client.bus
    steps.gate.clear()
    run = await team.start(text="secret", run_id="going")
    await steps.entered.wait()
    with pytest.raises(RunUnended, match=r"`baton cancel going` ends it, or give --force"):
        await purged(bus, "going")
    plan = plan_purge(await survey(bus), Choice(keep_last=0), NOW)
    assert (plan.runs, plan.unended) == ([], 1)
    waiting = asyncio.create_task(run.ended(WAIT_S))
    assert (await purged(bus, "going", unended=True)).runs == 1
    assert (await waiting).status == "cancelled"
    assert [data for _, data in await everything(bus) if b"secret" in data.lower()] == []


async def test_run_stays_that_another_still_copies_from(team: Team, steps: Steps) -> None:
    bus = team.client.bus
    await team.run(text="one", run_id="parent")
    steps.gate.clear()
    steps.entered.clear()
    first = next(entry.seq for entry in [e async for e in team.get("parent").events()] if ".handoff." in entry.subject)
    fork = await team.get("parent").fork(run_id="fork", until_seq=first + 1)
    await steps.entered.wait()
    with pytest.raises(RunNeeded, match="fork, which goes on from parent, has not ended"):
        await purged(bus, "parent")
    plan = plan_purge(await survey(bus), Choice(keep_last=0), NOW)
    assert (plan.runs, plan.needed, plan.unended) == ([], 1, 1)
    steps.gate.set()
    await fork.result(WAIT_S)
    await purged(bus, "parent")
    assert await fork.result(WAIT_S) == "ONE", "a fork that has ended has all of its own"
    assert (await fork.state()).status == "done"


async def test_run_stays_that_another_began_to_go_on_from_while_somebody_read_the_question(team: Team) -> None:
    bus, text = team.client.bus, "parent" + "x" * LARGE
    await team.run(text=text, run_id="parent")
    await team.run(text="other", run_id="other")
    plan = plan_purge(await survey(bus), Choice(keep_last=0), LATER)
    fork = await team.get("parent").fork()
    done = await purge(bus, plan)
    assert (done.runs, done.blobs) == (1, 0)
    assert await team.get("parent").result(WAIT_S) == await fork.result(WAIT_S) == text.upper()


async def test_late_handoff_of_a_purged_run_is_dropped_and_swept_by_the_next_purge(team: Team, steps: Steps) -> None:
    bus = team.client.bus
    await team.run(text="secret", run_id="gone")
    entries = [entry async for entry in team.get("gone").events()]
    (handed_on,) = [e for e in entries if isinstance(e.message, Handoff) and e.message.step == "second"]
    await purged(bus, "gone")
    calls = len(steps.calls)
    assert await bus.publisher.create(handed_on.subject, handed_on.data) is not None  # by a worker that was stopped
    await team.run(text="after")
    await until_that(partial(is_settled, bus, f"handoff-{bus.subjects.split(handed_on.subject).who}"))
    assert steps.calls[calls:] == ["AFTER"]
    plan = plan_purge(await survey(bus), Choice(ended_before=datetime.min.replace(tzinfo=UTC)), NOW)
    assert [run.run for run in plan.runs] == ["gone"], "whatever is asked for"
    await purge(bus, plan)
    assert [data for _, data in await everything(bus) if b"secret" in data.lower()] == []


async def test_id_of_a_purged_run_starts_no_other_run(team: Team, steps: Steps) -> None:
    bus = team.client.bus
    await team.run(text="one", run_id="once")
    await purged(bus, "once")
    with pytest.raises(RunPurged, match="its id is not free yet"):
        await team.start(text="two", run_id="once")
    await bus.publisher.append(bus.subjects.task("steps"), encode(Task(run="once")))  # a task that comes again
    await until_that(partial(is_settled, bus, "steward-steps"))
    await team.run(text="three")
    assert steps.calls == ["ONE", "THREE"]
    assert await dead_steps(bus, 10) == []


async def test_purge_that_is_broken_off_is_finished_by_the_next(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    bus = team.client.bus
    runs = await asyncio.gather(*(team.start(text="secret") for _ in range(40)))
    await asyncio.gather(*(run.result(WAIT_S) for run in runs))
    count, real = 0, bus.log.purge

    async def breaks(pattern: str, **given: Any) -> int:
        nonlocal count
        count += 1
        if count > 12:
            raise ConnectionError("pulled out")
        return await real(pattern, **given)

    monkeypatch.setattr(bus.log, "purge", breaks)
    with pytest.raises(ConnectionError):
        await purged(bus, keep_last=0)
    monkeypatch.undo()
    assert [data for _, data in await everything(bus) if b"secret" in data.lower()] != []
    await purged(bus, keep_last=0)
    assert [data for _, data in await everything(bus) if b"secret" in data.lower()] == []
    assert (await purged(bus, keep_last=0)).runs == 0


async def test_log_that_is_full_is_purged_and_takes_work_again(tmp_path: Path) -> None:
    steps = Steps()
    async with nats_server(tmp_path) as server:
        settings = Settings(url=server.url, max_bytes=60_000)
        async with open_bus(settings) as bus, Baton.local(steps.flow, url=server.url) as team:
            with pytest.raises(TimeoutError):  # its worker waits for room
                for number in range(100):
                    await team.run(text="x" * 2_000, run_id=f"run-{number}", timeout_s=1)
            assert (await purged(bus, keep_last=3)).runs > 3
            assert await team.get(f"run-{number}").result(WAIT_S), "what had waited goes on"
            assert await team.run(text="after") == "AFTER"


async def test_thousand_runs_are_purged_in_a_moment(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        for start in range(0, 1_000, 250):
            results = [
                Result(flow="f", run=f"run-{number}", status="failed", reason="x" * 100)
                for number in range(start, start + 250)
            ]
            await asyncio.gather(*(bus.create(bus.subjects.of("", each), encode(each)) for each in results))
        counts: list[int] = []
        plan = plan_purge(await survey(bus), Choice(keep_last=10), datetime.now(UTC))
        loop = asyncio.get_running_loop()
        began = loop.time()
        done = await purge(bus, plan, counts.append)
        assert loop.time() - began < WAIT_S
        assert (done.runs, done.messages, counts[-1]) == (990, 990, 990)
        assert (await log_size(bus)).messages == 1_000
        left = await survey(bus)
        assert len([run for run in left.runs.values() if not run.purged]) == 10
        await bus.js.delete_stream(namespace)


async def test_run_of_a_later_release_is_none_that_a_purge_has_left(server: NatsServer, namespace: str) -> None:
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        await bus.create(f"{namespace}.handoff.actor.newer.step.start", b'{"v":99,"kind":"handoff"}')
        await bus.create(f"{namespace}.handoff.actor.junk.step.start", b"junk")
        plan = plan_purge(await survey(bus), Choice(ended_before=LATER), LATER)
        assert ([run.run for run in plan.runs], plan.unended) == (["junk"], 1)
        await bus.js.delete_stream(namespace)


# ---- which ---------------------------------------------------------------------------------------


def counted(run: str, days: float, **given: Any) -> Counted:
    at = NOW - timedelta(days=days)
    usual: dict[str, Any] = {"flow": "f", "start_seq": 1, "status": "done", "ended_at": at, "messages": 3}
    return Counted(run=run, started_at=at - timedelta(hours=1), last_at=at, **usual | given)


def surveyed(*runs: Counted, **blobs: Kept) -> Survey:
    return Survey(runs={run.run: run for run in runs}, end_seq=9, blobs=blobs, named_by_others=set())


def chosen(found: Survey, *runs: str, **choice: Any) -> list[str]:
    return [run.run for run in plan_purge(found, Choice(runs=runs, **choice), NOW).runs]


def test_runs_are_chosen_by_age_number_and_flow() -> None:
    found = surveyed(counted("a", 40), counted("b", 20, flow="g"), counted("c", 10), counted("d", 1))
    month, week = NOW - timedelta(days=30), NOW - timedelta(days=7)
    assert chosen(found, ended_before=month) == ["a"]
    assert chosen(found, ended_before=week) == ["a", "b", "c"]
    assert chosen(found, ended_before=week, flow="f") == ["a", "c"]
    assert chosen(found, keep_last=1) == ["a", "b", "c"]
    assert chosen(found, keep_last=9) == []
    assert chosen(found, keep_last=3, ended_before=week) == ["a"], "both have to fit"
    assert chosen(found) == []


def test_runs_are_named_as_commands_name_them() -> None:
    found = surveyed(counted("run-aa", 1), counted("run-ab", 1))
    assert chosen(found, "run-aa", "ab") == ["run-aa", "run-ab"]
    with pytest.raises(AmbiguousRun, match="2 runs"):
        chosen(found, "run")
    for name in ("zz", ""):
        with pytest.raises(UnknownRun):
            chosen(found, name)


def test_large_values_go_that_nobody_names_and_that_nobody_may_be_about_to_name() -> None:
    old, now = NOW - timedelta(days=1), NOW - timedelta(seconds=5)
    going = counted("c", 0.5, status="running", ended_at=None)
    found = surveyed(
        counted("a", 40, blobs={"own", "shared", "again"}),
        counted("b", 1, blobs={"shared"}),
        going,
        own=Kept(size_bytes=1, written_at=now),
        shared=Kept(size_bytes=2, written_at=old),
        again=Kept(size_bytes=4, written_at=old, touched_at=now, touched_seq=7),
        orphan=Kept(size_bytes=8, written_at=old),
        coming=Kept(size_bytes=16, written_at=now),
        others=Kept(size_bytes=32, written_at=old),
    )
    found.named_by_others = {"others"}
    plan = plan_purge(found, Choice(runs=("a",)), NOW)
    assert plan.blobs == {"own": 0, "orphan": 0}
    assert (plan.spared, plan.blob_bytes) == (2, 9)
    assert plan_purge(found, Choice(runs=("a",)), NOW + HOUR).spared == 2, "a run goes on"
    going.status = "done"
    assert plan_purge(found, Choice(runs=("a",)), NOW + HOUR).blobs == {"own": 0, "orphan": 0, "again": 7, "coming": 0}


def test_chain_of_forks_stays_as_long_as_its_last_goes_on() -> None:
    going = counted("c", 0, status="running", ended_at=None, origin="b")
    found = surveyed(counted("a", 9), counted("b", 8, origin="a"), going)
    assert chosen(found, keep_last=0) == ["a"], "what b had of a is its own"
    assert chosen(found, keep_last=0, unended=True) == ["a", "b", "c"]
    assert chosen(found, "b", "c", unended=True) == ["b", "c"]


def test_what_a_purge_has_left_is_taken_by_the_next_and_no_word_of_it_twice() -> None:
    word = counted("a", 9, purged=True, status="cancelled", ends={"f": 5}, messages=1)
    rest = replace(word, run="b", messages=4)
    assert chosen(surveyed(word, rest), keep_last=5) == ["b"]
    with pytest.raises(RunPurged):
        chosen(surveyed(word), "a")
