"""What steps of a flow took in its latest runs: their logs are read one by one, while somebody looks, and once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from baton_bus.client.runs import read_last
from baton_bus.errors import BusError, BusUnavailable
from baton_bus.index import file as files
from baton_bus.index.counting import latest
from baton_bus.index.row import IndexRow
from baton_schemas.errors import SchemaError
from baton_schemas.run.fold import fold
from baton_schemas.show.plan import plan_of
from baton_schemas.show.step_figures import StepFigures, StepNow, StepTook, figures_of, now_in, took_in

if TYPE_CHECKING:
    from .core import Console

RUNS_MAX = 100
"""Runs of a flow, the latest that are done, whose logs are read."""
_MESSAGES_MAX = 50_000
"""Of these in all: some seconds. Of a flow with large runs it is fewer."""
OPEN_MAX = 500
"""Runs, the latest that go on, whose steps are counted."""
_KEPT_MAX = 2_000
_PATIENCE_S = 0.3
"""For what is not read yet: what was is shown meanwhile, and the rest when the page is made again."""


class StepTimes(Struct, frozen=True, kw_only=True):
    """How the steps of a flow do."""

    runs: int
    """So many of the latest runs that are done were looked at."""
    by_step: dict[str, StepFigures]
    now: dict[str, StepNow]
    is_bounded: bool
    """More runs go on than were counted."""


class TimesOfSteps:
    """Reads the logs, and keeps what they say."""

    def __init__(self, console: Console) -> None:
        """`console` has the log, and its index."""
        self._console = console
        self._kept: OrderedDict[tuple[str, int], tuple[StepTook, ...]] = OrderedDict()
        """By run, and its number of messages: one that has ended says the same from then on."""
        self._reading: dict[str, asyncio.Task[None]] = {}

    async def of(self, flow: str) -> StepTimes | None:
        """Return how the steps of a flow do, as far as it is known; None while there is no index."""
        database = self._console.index.database
        if database is None:
            return None
        with files.told(self._console.index.path):
            open_ = latest(database, flow, "running", OPEN_MAX + 1)
            done = _affordable(latest(database, flow, "done", RUNS_MAX))
        lacking = [row for row in done if _key(row) not in self._kept]
        if lacking:
            if flow not in self._reading:
                self._reading[flow] = asyncio.create_task(self._read(lacking), name=f"times of steps of {flow}")
                self._reading[flow].add_done_callback(lambda _: self._reading.pop(flow, None))
            await asyncio.wait([self._reading[flow]], timeout=_PATIENCE_S)
        found = [self._kept[_key(row)] for row in done if _key(row) in self._kept]
        return StepTimes(
            runs=len(found),
            by_step=figures_of(found),
            now=now_in(row.summary for row in open_[:OPEN_MAX]),
            is_bounded=len(open_) > OPEN_MAX,
        )

    async def _read(self, rows: Sequence[IndexRow]) -> None:
        for row in rows:
            took: tuple[StepTook, ...] = ()
            try:
                state = fold(await read_last(self._console.bus, row.head))
                took = took_in(state, plan_of(state))
            except BusUnavailable:
                return
            except (BusError, SchemaError):  # it was purged meanwhile, say
                pass
            self._kept[_key(row)] = took
            while len(self._kept) > _KEPT_MAX:
                self._kept.popitem(last=False)


def _key(row: IndexRow) -> tuple[str, int]:
    return row.summary.run, row.summary.messages


def _affordable(rows: Sequence[IndexRow]) -> list[IndexRow]:
    """Return the first of these, as many as are read soon; one at least."""
    found: list[IndexRow] = []
    messages = 0
    for row in rows:
        messages += row.summary.messages
        if found and messages > _MESSAGES_MAX:
            break
        found.append(row)
    return found
