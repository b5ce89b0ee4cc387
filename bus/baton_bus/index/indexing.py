"""Keeping an index: reads the log unfiltered, from its end backwards and on as it goes, and writes what comes of it.

What was read and the rows that come of it are written together, so that whoever is killed goes on where the last such
writing was. Whatever is in doubt of a run is settled by reading its log.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from datetime import datetime

from baton_bus.client.runs import exact_run, is_beginning
from baton_bus.jetstream.gets import Stored
from baton_bus.store.bus import Bus
from baton_bus.store.looking import Look, look, runs_there
from baton_schemas.wire.names import TOKEN

from .changing import Committed, Position
from .errors import LogReplaced
from .file import MADE
from .hearing import Hearing
from .projecting import Projector
from .row import Folding
from .spans import Span, last_of, missing, windows
from .table import REMOVED, Table

WINDOW, WINDOW_MAX = 4_000, 32_000
"""Messages of the first window back, about a thousand short runs, and of later ones: the runs of one are in memory."""
_AT_ONCE = 2_000
"""Messages of a window between two looks at what came meanwhile."""
_REST_MIN_S, _REST_MAX_S = 0.002, 0.02
"""Between two writings of what comes, as long as the last one took: soon enough for eyes, and many messages in each
when many come."""
CHECK_S = 2.0
"""How often it is looked whether the stream is the same, and whether something is gone from it."""
_GARBAGE_EVERY = 200_000
"""Objects made between two looks for garbage: with Python's 700, looking takes a third of the time."""


class Indexer:
    """Keeps one index of one log."""

    def __init__(
        self, bus: Bus, table: Table, stream: Look, committed: Callable[[Committed], None] = lambda what: None
    ) -> None:
        """`stream` is what the index is of; `committed` is called after each writing, and must be quick."""
        self._bus, self._table, self._stream, self._committed = bus, table, stream, committed
        self._made = table.fact(MADE)
        self._projector = Projector(table.torn())
        self._hearing = Hearing(bus.log)
        self._base = 0
        self._torn = table.torn()
        """As they are written."""
        self.read = 0
        """Messages read."""

    async def catch_up(
        self,
        *,
        most: int = 0,
        enough: Callable[[int], bool] = lambda low_seq: False,
        newest: bool = False,
        end_seq: int = 0,
    ) -> bool:
        """Read what is there and was not read, the newest first; return whether that is all of it.

        It stops after `most` messages (0: no bound), or when a window's beginning is `enough`; with `newest` it reads
        only what came after what was read before; what comes after `end_seq` is not read here (0: the end as it is
        now). Raises `BusUnavailable`, `NoStream`, and as SQLite does.
        """
        table = self._table
        first_seq, last_seq = await self._bus.log.bounds()
        whole = Span(first_seq, end_seq or last_seq)
        with table.changing():
            table.drop_below(first_seq)
            if not table.fact(REMOVED):
                table.say(REMOVED, _removed(self._stream))
        with _rarely_collected():
            return await self._catch_up(whole, most, enough, newest)

    async def _catch_up(self, whole: Span, most: int, enough: Callable[[int], bool], newest: bool) -> bool:
        table = self._table
        known = last_of(table.spans())
        for gap in missing(table.spans(), whole):
            if newest and known is not None and gap.low <= known.high:
                return not missing(table.spans(), whole)
            for window in windows(gap, WINDOW, WINDOW_MAX):
                await self._read(window, ends_gap=window.low == gap.low)
                if enough(window.low) or (most and self.read >= most):
                    return not missing(table.spans(), whole)
        self._projector.settled()
        await self._write([])
        return True

    async def remove_gone(self) -> int:
        """Remove rows of runs that are gone from the log, if anything is; return how many. Raises as `look`."""
        now = _removed(self._stream)
        if self._table.fact(REMOVED) == now:
            return 0
        known = self._table.begins().keys()
        gone = known - await runs_there(self._bus)
        with self._table.changing():
            self._table.drop(gone)
            self._table.say(REMOVED, now)
        if gone:
            self._tell()
        return len(gone)

    async def follow(self, told: Callable[[str], None] = lambda what: None) -> None:
        """Read what is there and whatever comes, until cancelled; `told` hears what is under way.

        Raises `LogReplaced`, and as `catch_up`.
        """
        _, end_seq = await self._bus.log.bounds()
        self._base = end_seq
        async with self._hearing.from_seq(end_seq + 1):
            await self.catch_up(end_seq=end_seq)
            await self.remove_gone()
            told("up to date")
            await self._keep_up()

    # ---- windows -----------------------------------------------------------------------------------

    async def _read(self, window: Span, *, ends_gap: bool) -> None:
        projector = self._projector
        async with aclosing(self._bus.log.raw_batches(window.low, window.high)) as log:
            async for batch in log:
                projector.take(batch)
                self.read += len(batch)
                await self._write_heard()
        while projector.fold_some(_AT_ONCE):
            await asyncio.sleep(0)
            await self._write_heard()
        projector.end_window()
        if ends_gap:  # what is before this was read before: these runs have rows, unless they begin further back
            projector.unknown |= {run for run in projector.torn if self._table.has(run)}
        await self._write([window])

    # ---- what comes --------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        loop = asyncio.get_running_loop()
        check_at = loop.time() + CHECK_S
        while True:
            await self._hearing.wait_until(check_at)
            began = loop.time()
            await self._write_heard()
            rest_s = min(max(loop.time() - began, _REST_MIN_S), _REST_MAX_S)
            if loop.time() >= check_at:
                await self._check()
                check_at = loop.time() + CHECK_S
            await asyncio.sleep(rest_s)

    async def _check(self) -> None:
        found = await look(self._bus)
        if found.created != self._stream.created:
            raise LogReplaced(self._bus.settings.namespace)
        if (found.first_seq, found.deleted) != (self._stream.first_seq, self._stream.deleted):
            self._stream = found
            if found.last_seq >= found.first_seq:
                with self._table.changing():
                    self._table.drop_below(found.first_seq)
            await self.remove_gone()

    async def _write_heard(self) -> None:
        """Write what came."""
        last: Stored | None = None
        for each in self._hearing.take():
            self._projector.hear(each)
            last = each
            if len(self._projector.unknown) >= _AT_ONCE:
                break
        if last is not None:
            self._projector.changed()
            await self._write([Span(self._base + 1, last.seq)], last.at)

    # ---- both --------------------------------------------------------------------------------------

    async def _write(self, spans: Iterable[Span], stored_at: datetime | None = None) -> None:
        """Write what there is to write, and that these parts have been read, in one go; and tell of it."""
        projector, table = self._projector, self._table
        await self._look_into(projector.unknown.copy())
        with table.changing():
            odd = table.put(list(projector.ready.values()))
            table.drop(projector.gone)
            table.tear(projector.torn - self._torn)
            table.mend(self._torn - projector.torn)
            for span in spans:
                table.read(span)
        self._torn = projector.torn.copy()
        projector.ready.clear()
        projector.gone.clear()
        if odd:  # who else uses the id of a run: its log says where it begins
            await self._look_into(odd)
            with table.changing():
                table.drop([*odd, *projector.gone])
                table.put(list(projector.ready.values()))
            projector.ready.clear()
            projector.gone.clear()
        self._tell(stored_at)

    def _tell(self, stored_at: datetime | None = None) -> None:
        reach = last_of(self._table.spans())
        position = Position(made=self._made, version=self._table.version)
        high_seq = reach.high if reach is not None else 0
        self._committed(Committed(position=position, high_seq=high_seq, stored_at=stored_at))

    async def _look_into(self, runs: Iterable[str]) -> None:
        for run in runs:
            if TOKEN.match(run):
                self._projector.read_whole(run, await self._whole(run))
            else:  # a stranger's, whom nobody can ask for: what was seen of it has to do
                self._projector.unknown.discard(run)

    async def _whole(self, run: str) -> Folding | None:
        """Return a run, folded from its log; None when it does not begin there, or was purged."""
        head = await exact_run(self._bus, run)
        if head is None or head.purged:
            return None
        going: Folding | None = None
        async with aclosing(self._bus.log.read([self._bus.subjects.run(run)], head.start_seq)) as log:
            async for entry in log:
                if going is not None:
                    going.apply(entry)
                elif is_beginning(entry):
                    going = Folding(entry)
                else:
                    return None
        return going


@contextmanager
def _rarely_collected() -> Iterator[None]:
    """Look for garbage less often: rows come and go by the thousand, and none of them is in a cycle."""
    before = gc.get_threshold()
    gc.set_threshold(_GARBAGE_EVERY, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _removed(stream: Look) -> str:
    """Return what is gone from a stream, as a word that changes with it."""
    return f"{stream.first_seq} {stream.deleted}"
