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

from baton_bus import Settings
from baton_bus.client.runs import find_run
from baton_bus.server.embedded import embedded
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.file import read_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.run.carry import state_at
from baton_schemas.run.fold import RunFold
from baton_schemas.run.lifecycle import Create, Ended, Submitted, View, decide
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Handoff
from baton_schemas.wire.names import sortable_id
from baton_schemas.wire.outcomes import Done, State, Work

from . import team
from .core import of_team
from .processes import rss_mb
from .rows import Row, row, warm_rate

MESSAGES = 1_000_000
ROUNDS = 5
RUNS = 3_000
BRANCHES = 10_000
READ = 100_000
IN_FLIGHT = 64
LOG = "million"
_AT_ONCE = 500
"""Runs sent before it is looked whether they are stored: the server drops what it cannot queue."""


async def rows(messages: int = MESSAGES) -> list[Row]:
    """Return the rows of the table; about a minute."""
    with tempfile.TemporaryDirectory() as store:
        old, empty = Path(store) / "old", Path(store) / "empty"
        async with embedded(old) as server, embedded(empty) as beside:
            before_mb = rss_mb(server.pid)
            runs = await fill(server.url, messages)
            after_mb = rss_mb(server.pid)
            rate = await _rate(server.url, beside.url)
            reads = await _reads(server.url, runs)
            found = await _starts(server.url)
            replayed = await _replay(server.url)
            worked_mb = rss_mb(server.pid)
        started = time.perf_counter()
        async with embedded(old) as server, open_bus(Settings(url=server.url, namespace=LOG)) as bus:
            assert (await bus.js.stream_info(LOG)).state.messages >= messages
            restart_s = time.perf_counter() - started
    in_millions = messages / 1e6
    return [
        rate,
        *reads,
        found,
        replayed,
        row("memory of nats-server per million messages", "MB", (after_mb - before_mb) / in_millions),
        row("the same after the work above", "MB", (worked_mb - before_mb) / in_millions),
        row("restart per million messages", "s", restart_s / in_millions),
    ]


async def fill(url: str, messages: int) -> list[str]:
    """Write runs of the three-step flow, as a team would have, until there are so many messages; return their ids."""
    one_run, runs = _one_run("RUN-ID"), [sortable_id() for _ in range(messages // 4)]
    async with open_bus(Settings(url=url, namespace=LOG)) as bus:
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


def _old() -> Plan:
    """Return the plan of a flow whose actors do not work here any more."""
    return check_flow(replace(read_flow(team.FLOWS / "pipeline.toml"), name="old"))


def _one_run(run: str) -> list[Create]:
    """Return the four messages of a run of the three-step flow, by actors that do not work here any more."""
    view = View(_old())
    value = Raw(json.dumps("x" * 256).encode())
    (first,) = decide(view, Submitted(run, State(input={"text": value})))
    created = [first]
    while isinstance(last := created[-1], Create) and isinstance(handoff := last.message, Handoff):
        done = Done(output=value, work=Work(attempt=1, worker="bench:1", elapsed_s=0.001))
        created += decide(view, Ended(handoff, state_at(handoff), done, 1))
    return [action for action in created if isinstance(action, Create)]


async def _rate(full_url: str, empty_url: str) -> Row:
    """Compare runs per second over the full log with those over an empty one; they take turns."""
    full: list[float] = []
    empty: list[float] = []
    for _ in range(ROUNDS):
        for url, rates in ((empty_url, empty), (full_url, full)):
            async with team.in_one_process(url, LOG, "pipeline", keep=url == full_url) as baton:
                rates.append(await warm_rate(of_team(baton), RUNS, IN_FLIGHT))
    ours, beside = statistics.median(full), statistics.median(empty)
    return row("64 in flight, all in one process, over an empty log", "runs/s", ours, floor=beside, ratio_min=0.9)


async def _reads(url: str, runs: list[str]) -> list[Row]:
    """Read runs from all over the log. The server keeps what it read in its memory for some seconds."""
    async with open_bus(Settings(url=url, namespace=LOG)) as bus:
        actors = (*_old().actors(), "old")
        first, again = [], []
        for run in random.Random(1).sample(runs, 300):
            first.append(await _read_ms(bus, run, actors))
            again.append(await _read_ms(bus, run, actors))
        alone = [await _read_ms(bus, run, ()) for run in random.Random(2).sample(runs, 100)]
    first_ms, again_ms, alone_ms = map(statistics.median, (first, again, alone))
    return [
        row("run read back, its flow known, from the disk", "ms", first_ms),
        row("the same again, from the server's memory", "ms", again_ms, most=2),
        row("run read back by its id alone, from the disk", "ms", alone_ms, most=30),
    ]


async def _read_ms(bus: Bus, run: str, actors: Sequence[str]) -> float:
    started = time.perf_counter()
    entries = await bus.log.run(run, actors)
    taken_ms = (time.perf_counter() - started) * 1e3
    assert len(entries) == 4
    return taken_ms


async def _replay(url: str) -> Row:
    """Read, decode and fold every message of one long run: a fan-out of ten thousand and its join."""
    async with team.in_one_process(url, LOG, "fan-out", keep=True) as baton:
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
    return row("replay of a long run", "messages/s", rate, least=25_000)


async def _starts(url: str) -> Row:
    """Read what began and ended runs: picked here from all messages, as the server filters slowly."""
    async with open_bus(Settings(url=url, namespace=LOG)) as bus:
        rates = []
        for _ in range(ROUNDS):
            _, last = await bus.log.bounds()
            found, started = 0, time.perf_counter()
            async with aclosing(bus.log.read(bus.subjects.starts(), last - READ)) as entries:
                async for _ in entries:
                    found += 1
            assert found >= READ // 3
            rates.append(READ / (time.perf_counter() - started))
    return row("what began and ended all runs, read", "messages/s", statistics.median(rates), least=25_000)
