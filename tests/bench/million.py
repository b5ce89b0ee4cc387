"""A log of a million messages: is it slower than an empty one, what does it cost, and how fast is it read back."""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from msgspec import Raw
from msgspec.structs import replace

from baton_bus import Bus, Settings, connect
from baton_bus.client.runs import find_run
from baton_bus.server.embedded import Embedded, embedded
from baton_schemas.flow.check import check_flow
from baton_schemas.run.carry import state_at
from baton_schemas.run.fold import RunFold
from baton_schemas.run.lifecycle import Routed, decide, start
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Done, Handoff, State, Work
from baton_schemas.wire.names import sortable_id

from . import team
from .durable import team_runs, warm_rate
from .rows import Row, row

MESSAGES = 1_000_000
ROUNDS = 5
RUNS = 3_000
BRANCHES = 10_000
LOG = "million"
_AT_ONCE = 500
"""Runs sent before it is looked whether they are stored: the server drops what it cannot queue."""


async def rows(messages: int = MESSAGES) -> list[Row]:
    """Return the rows of the table; about a minute."""
    with tempfile.TemporaryDirectory() as store:
        old, empty = Path(store) / "old", Path(store) / "empty"
        async with embedded(old) as server, embedded(empty) as beside:
            before_mb = _memory_mb(server)
            runs = await fill(server.url, messages)
            after_mb = _memory_mb(server)
            rate = await _rate(server.url, beside.url)
            reads = await _reads(server.url, runs)
            replayed = await _replay(server.url)
            worked_mb = _memory_mb(server)
        started = time.perf_counter()
        async with embedded(old) as server, connect(Settings(url=server.url, namespace=LOG)) as bus:
            assert (await bus.js.stream_info(LOG)).state.messages >= messages
            restart_s = time.perf_counter() - started
    in_millions = messages / 1e6
    return [
        rate,
        *reads,
        replayed,
        row("memory of nats-server per million messages", "MB", None, (after_mb - before_mb) / in_millions, None, True),
        row("the same after the work above", "MB", None, (worked_mb - before_mb) / in_millions, None, True),
        row("restart per million messages", "s", None, restart_s / in_millions, None, True),
    ]


async def fill(url: str, messages: int) -> list[str]:
    """Write runs of the three-step flow, as a team would have, until there are so many messages; return their ids."""
    one_run, runs = _one_run("RUN-ID"), [sortable_id() for _ in range(messages // 4)]
    async with connect(Settings(url=url, namespace=LOG)) as bus:
        subjects = [bus.subjects.of(actor, message) for actor, message in one_run]
        bodies = [encode(message) for _, message in one_run]
        for begun in range(0, len(runs), _AT_ONCE):
            for run in runs[begun : begun + _AT_ONCE]:
                for subject, body in zip(subjects, bodies, strict=True):
                    await bus.nc.publish(subject.replace("RUN-ID", run), body.replace(b"RUN-ID", run.encode()))
            await _until_stored(bus, 4 * min(begun + _AT_ONCE, len(runs)))
    return runs


async def _until_stored(bus: Bus, messages: int) -> None:
    deadline = time.monotonic() + 30
    while (await bus.js.stream_info(LOG)).state.messages < messages:
        assert time.monotonic() < deadline, "the server dropped messages that were sent without waiting: lower _AT_ONCE"


def _one_run(run: str) -> list[Routed]:
    """Return the four messages of a run of the three-step flow, by actors that do not work here any more."""
    plan = check_flow(replace(team.pipeline_flow(), name="old"))
    value = Raw(json.dumps("x" * 256).encode())
    routed = start(plan, run, State(input={"text": value}), {})
    while isinstance(handoff := routed[-1].message, Handoff):
        done = Done(output=value, work=Work(attempt=1, worker="bench:1", elapsed_s=0.001))
        routed.append(decide(plan, handoff, state_at(handoff), done, 1))
    return routed


async def _rate(full_url: str, empty_url: str) -> Row:
    """Compare runs per second over the full log with those over an empty one; they take turns."""
    full: list[float] = []
    empty: list[float] = []
    for _ in range(ROUNDS):
        for url, rates in ((empty_url, empty), (full_url, full)):
            async with team.working(url, LOG, team.pipeline_flow(), keep=url == full_url) as baton:
                rates.append(await warm_rate(team_runs(baton), RUNS))
    ours, beside = statistics.median(full), statistics.median(empty)
    hold = "ratio ≥ 0.90 of an empty log"
    return row("3-step runs, 64 in flight, old log", "runs/s", beside, ours, hold, ours / beside >= 0.90)


async def _reads(url: str, runs: list[str]) -> list[Row]:
    """Read runs from all over the log. The server keeps what it read in its memory for some seconds."""
    async with connect(Settings(url=url, namespace=LOG)) as bus:
        actors = (*check_flow(replace(team.pipeline_flow(), name="old")).actors(), "old")
        first, again = [], []
        for run in random.Random(1).sample(runs, 300):
            first.append(await _read_ms(bus, run, actors))
            again.append(await _read_ms(bus, run, actors))
        alone = [await _read_ms(bus, run, ()) for run in random.Random(2).sample(runs, 100)]
    first_ms, again_ms, alone_ms = map(statistics.median, (first, again, alone))
    return [
        row("run read back, its flow known, from the disk", "ms", None, first_ms, None, True),
        row("the same again, from the server's memory", "ms", None, again_ms, 2, again_ms <= 2),
        row("run read back by its id alone, from the disk", "ms", None, alone_ms, 30, alone_ms <= 30),
    ]


async def _read_ms(bus: Bus, run: str, actors: Sequence[str]) -> float:
    started = time.perf_counter()
    entries = await bus.log.run(run, actors)
    taken_ms = (time.perf_counter() - started) * 1e3
    assert len(entries) == 4
    return taken_ms


async def _replay(url: str) -> Row:
    """Read, decode and fold every message of one long run: a fan-out of ten thousand and its join."""
    async with team.working(url, LOG, team.fan_out_flow(), keep=True) as baton:
        await baton.run({"text": "x", "branches": BRANCHES})
        head = await find_run(baton.bus)
        rates = []
        for _ in range(ROUNDS):
            fold, started = RunFold(), time.perf_counter()
            async with aclosing(baton.bus.log.read([baton.bus.subjects.run(head.run)], head.start_seq)) as entries:
                async for entry in entries:
                    fold.apply(entry)
            assert fold.state.status == "done"
            assert fold.state.messages > 2 * BRANCHES
            rates.append(fold.state.messages / (time.perf_counter() - started))
    rate = statistics.median(rates)
    return row("replay of a long run", "messages/s", None, rate, 25_000, rate >= 25_000)


def _memory_mb(server: Embedded) -> float:
    """Return the resident memory of a server, in MB (Linux)."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
