"""Logs to be indexed: recorded and simulated runs, mixed as several workers would; and what a list must say of them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import msgspec
from msgspec.structs import replace

from baton_actors.cli.output import state_of
from baton_bus.client.runs import read_run, recent_runs
from baton_bus.index import file as files
from baton_bus.index.finding import Wanted, find
from baton_bus.index.keeping import opened
from baton_bus.index.row import IndexRow
from baton_bus.store.bus import Bus
from baton_bus.store.looking import look
from baton_bus.subjects import Subjects
from baton_schemas.flow.flow import Flow
from baton_schemas.show.export import load
from baton_schemas.show.spending import calls_of
from baton_schemas.show.summary import Summary, searchable, summary_of
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import key_of
from baton_schemas.wire.messages import Decisive, Join, Message, Note

from .servers import WAIT_S
from .simulated import simulated

GOLDEN = sorted((Path(__file__).parent / "golden").glob("v*/*.jsonl"))
EVERY = Wanted(limit=1_000)

Sent = list[tuple[str, bytes]]
"""The messages of a run in their order: subject and body."""


def recorded(namespace: str) -> list[Sent]:
    """The runs whose logs are kept of released versions, each once."""
    found: dict[str, Sent] = {}
    for path in GOLDEN:
        entries = [load(line, number) for number, line in enumerate(path.read_bytes().splitlines(), start=1)]
        sent = [(f"{namespace}.{entry.subject.partition('.')[2]}", entry.data) for entry in entries]
        found[f"{path.parent.name} {path.stem}"] = sent
    return list({sent[0][0]: sent for sent in found.values()}.values())


def simulated_runs(namespace: str, flow: Flow, choose: Random, count: int) -> list[Sent]:
    """So many runs of a flow: some are cancelled, some fail, all are over."""
    subjects = Subjects(namespace)
    return [
        [_sent(subjects, stored.actor, stored.message, f"sim-{number}") for stored in run.log]
        for number in range(count)
        for run in [simulated(flow, choose, stops=number % 3 == 0)]
    ]


def _sent(subjects: Subjects, actor: str, message: Message, run: str) -> tuple[str, bytes]:
    assert isinstance(message, Decisive | Join | Note)
    message = replace(message, run=run)
    match message:
        case Note(step=step, fact=fact):
            subject = subjects.note(actor, run, step, key_of(fact))
        case Join(step=step, number=number):
            subject = subjects.join(actor, run, step, number)
        case _:
            subject = subjects.of(actor, message)
    return subject, encode(message)


def mixed(runs: Iterable[Sent], choose: Random) -> Sent:
    """The messages of several runs as they may come: those of each in their order."""
    left = [list(reversed(run)) for run in runs]
    sent: Sent = []
    while left := [run for run in left if run]:
        sent.append(choose.choice(left).pop())
    return sent


async def publish(bus: Bus, sent: Sequence[tuple[str, bytes]]) -> None:
    """Have messages stored; that the server has them does not say yet that they are."""
    before = (await look(bus)).last_seq
    for subject, body in sent:
        await bus.nc.publish(subject, body)
    await bus.nc.flush()
    async with asyncio.timeout(WAIT_S):
        while True:
            if (await look(bus)).last_seq >= before + len(sent):
                return
            await asyncio.sleep(0.01)


async def listed(bus: Bus) -> dict[str, tuple[Summary, str]]:
    """What is to be said of each run, as each log says it, and its words; the newest first."""
    found = {}
    for head in await recent_runs(bus, 1_000, children=True):
        entries = await read_run(bus, head)
        state = state_of(head, entries)
        found[head.run] = (summary_of(state, calls_of(entries)), searchable(state))
    return found


async def indexed(bus: Bus, path: Path, *, anew: bool = False, words: bool = True) -> dict[str, Summary]:
    """Bring an index up to date, and return what it says of each run."""
    async with opened(bus, path, anew=anew, words=words) as kept:
        await kept.indexer.catch_up()
        await kept.indexer.remove_gone()
    return said_by(path)


def said_by(path: Path) -> dict[str, Summary]:
    """What an index says of each run, the newest first."""
    database = files.connected(path)
    rows = database.execute("SELECT row FROM runs ORDER BY start_seq DESC").fetchall()
    database.close()
    return {row.summary.run: row.summary for row in map(_decoded, rows)}


def found_in(path: Path, wanted: Wanted) -> list[str]:
    database = files.connected(path)
    rows = find(database, wanted, datetime.now(UTC))
    database.close()
    return [row.summary.run for row in rows]


def fitting(said: dict[str, tuple[Summary, str]], wanted: Wanted, now: datetime) -> list[str]:
    """The runs that are wanted, picked one by one."""
    fits = [(one, place) for place, (one, words) in enumerate(said.values()) if _fits(one, words, wanted)]
    match wanted.order:
        case "cost":
            fits.sort(key=lambda each: (-(each[0].cost_usd or 0.0), each[1]))
        case "time":
            fits.sort(key=lambda each: (-_took_s(each[0], now), each[1]))
        case "tokens":
            fits.sort(key=lambda each: (-each[0].usage.tokens, each[1]))
        case _:
            pass
    return [one.run for one, _ in fits[: wanted.limit]]


def _fits(one: Summary, words: str, wanted: Wanted) -> bool:
    assert one.started_at is not None
    said = re.findall(r"[^\W_]+", words.lower())
    return (
        (not wanted.flow or one.flow == wanted.flow)
        and (not wanted.statuses or one.status in wanted.statuses)
        and (wanted.since is None or one.started_at >= wanted.since)
        and (wanted.until is None or one.started_at < wanted.until)
        and one.parent == wanted.parent
        and all(any(word.startswith(part) for word in said) for part in wanted.text.lower().split())
    )


def _took_s(one: Summary, now: datetime) -> float:
    assert one.started_at is not None
    return ((one.ended_at or now) - one.started_at).total_seconds()


def _decoded(row: tuple[bytes]) -> IndexRow:
    return msgspec.json.decode(row[0], type=IndexRow)
