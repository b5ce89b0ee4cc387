"""A log of runs of many kinds, mixed as several workers write them: real runs, copied under other ids."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from baton_bus import Settings
from baton_bus.client.runs import find_run, read_run
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.wire.names import sortable_id

from ..indexed import recorded
from . import team

NAMESPACE = "mixed"
_PIPELINES, _FAN_OUTS, _BRANCHES = 40, 2, 50
"""Of each hundred runs or so, beside those that are kept of each release (which retry, fail, ask, call models)."""
_IN_FLIGHT = 64
_SHORT = 20
"""Messages of a short run."""
_AT_ONCE = 2_000
"""Messages sent before it is looked whether they are stored: the server drops what it cannot queue."""

Sent = list[tuple[str, bytes]]


async def templates(url: str) -> list[tuple[str, Sent]]:
    """Return runs as they are in the log: the id of each, and its messages as subject and body."""
    found = [(subject.split(".")[3], sent) for sent in recorded(NAMESPACE) for subject, _ in sent[:1]]
    pipeline: dict[str, object] = {"text": "x" * 256}
    fan_out: dict[str, object] = {"text": "x" * 64, "branches": _BRANCHES}
    for flow, given, count in (("pipeline", pipeline, _PIPELINES), ("fan-out", fan_out, _FAN_OUTS)):
        async with team.in_one_process(url, NAMESPACE, flow) as baton:
            run = await baton.run(given)
            log = await read_run(baton.bus, await find_run(baton.bus, run))
        found += [(run, [(entry.subject, entry.data) for entry in log])] * count
    return found


async def fill(url: str, messages: int) -> int:
    """Write so many messages, or a few more; return of how many runs."""
    return await _filled(url, await templates(url), messages)


async def fill_runs(url: str, runs: int) -> None:
    """Write so many runs, or a few more or less, of the kinds that are short."""
    kinds = [(run, sent) for run, sent in await templates(url) if len(sent) <= _SHORT and not acts(sent)]
    mean = sum(len(sent) for _, sent in kinds) / len(kinds)
    await _filled(url, kinds, round(runs * mean))


async def _filled(url: str, kinds: Sequence[tuple[str, Sent]], messages: int) -> int:
    choose, runs = random.Random(1), 0
    async with open_bus(Settings(url=url, namespace=NAMESPACE)) as bus:
        going: list[Sent] = []
        sent = 0
        some: Sent = []
        while sent < messages or going:
            while len(going) < _IN_FLIGHT and sent + sum(map(len, going)) < messages:
                going.append(renamed(*choose.choice(kinds)))
                runs += 1
            one = choose.choice(going)
            some.append(one.pop())
            if not one:
                going.remove(one)
            sent += 1
            if len(some) >= _AT_ONCE or not going:
                await _publish(bus, some, sent)
                some = []
    return runs


def acts(sent: Sent) -> bool:
    """Say whether services of a team would do something for a run: what people say is looked at, tasks become runs."""
    return any(subject.split(".")[1] in ("say", "task") for subject, _ in sent)


def renamed(run: str, sent: Sequence[tuple[str, bytes]]) -> Sent:
    """Return the messages of a run under another id, the last of them first."""
    other = sortable_id()
    was, now = run.encode(), other.encode()
    return [(subject.replace(run, other), body.replace(was, now)) for subject, body in reversed(sent)]


async def _publish(bus: Bus, some: Sent, stored: int) -> None:
    for subject, body in some:
        await bus.nc.publish(subject, body)
    deadline = time.monotonic() + 30
    while (await bus.js.stream_info(NAMESPACE)).state.messages < stored:
        assert time.monotonic() < deadline, "the server dropped messages that were sent without waiting: lower _AT_ONCE"
