"""Flows that a console knows: those that come with Baton, those in files where it was started, and those of runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from baton_actors.agents.loading import SHIPPED, UnknownFlow, find_flow, shipped_flows
from baton_actors.errors import ActorError
from baton_bus.errors import BusError
from baton_bus.index import file as files
from baton_bus.index.counting import FlowFigures, flow_figures
from baton_bus.index.finding import Wanted, find
from baton_bus.index.using import find_runs
from baton_schemas.errors import SchemaError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.messages import Handoff, Started

if TYPE_CHECKING:
    from .core import Console

_FILE_MAX_BYTES = 1_000_000
_FILES_MAX = 200
_VERSIONS_OF = 20
"""Runs, the latest, whose versions of a flow are told apart."""


class KnownFlow(Struct, frozen=True, kw_only=True):
    """A flow that can be sent."""

    name: str
    plan: Plan
    source: str
    """As `baton run` takes it: a shipped name, or a path; empty for one that is in the log only."""
    found: Literal["shipped", "file", "log"]


class BrokenFlow(Struct, frozen=True, kw_only=True):
    """A file that is likely to be a flow, and is none."""

    file: str
    why: str


class FlowVersion(Struct, frozen=True, kw_only=True):
    """A version of a flow, as runs have it."""

    digest: str
    runs: int
    """Of the latest."""
    last_at: datetime
    last_run: str


class Flows:
    """Finds them. A file that did not change is not read again."""

    def __init__(self, console: Console) -> None:
        """`console` has the log, and its index."""
        self._console = console
        self._read: dict[str, tuple[float, KnownFlow | BrokenFlow]] = {}

    def here(self) -> tuple[list[KnownFlow], list[BrokenFlow]]:
        """Return the flows that come with Baton and those in files here, by their names; and files that are broken."""
        known: dict[str, KnownFlow] = {}
        broken = []
        for source in [*shipped_flows(), *_files(Path())]:
            each = self._of(source)
            if isinstance(each, BrokenFlow):
                broken.append(each)
            else:
                known[each.name] = each  # a file here stands before a shipped one of its name
        return sorted(known.values(), key=lambda each: each.name), broken

    async def known(self, name: str) -> KnownFlow:
        """Return the flow that is called so. Raises `UnknownFlow`, `BusUnavailable`, `NoStream`."""
        here, _ = await asyncio.to_thread(self.here)
        for each in here:
            if each.name == name:
                return each
        for first, _, _ in await self._firsts(name, 1):
            begins = first.cause.begins if isinstance(first.cause, Started) else None
            if begins is not None:
                try:
                    plan = check_flow(decode_flow(bytes(begins.flow_body)), stored=True)
                except (msgspec.DecodeError, SchemaError, ValueError, RecursionError):
                    continue
                return KnownFlow(name=name, plan=plan, source="", found="log")
        raise UnknownFlow(name, [each.name for each in here])

    def figures(self) -> list[FlowFigures]:
        """Return how the runs of each flow do, as the index has them; nothing while there is none."""
        database = self._console.index.database
        if database is None:
            return []
        with files.told(self._console.index.path):
            return flow_figures(database)

    async def versions(self, name: str) -> list[FlowVersion]:
        """Return the versions that the latest runs of a flow have, the newest first."""
        found: dict[str, FlowVersion] = {}
        for first, at, run in await self._firsts(name, _VERSIONS_OF):
            before = found.get(first.digest)
            found[first.digest] = FlowVersion(
                digest=first.digest,
                runs=(before.runs if before else 0) + 1,
                last_at=before.last_at if before else at,
                last_run=before.last_run if before else run,
            )
        return list(found.values())

    async def _firsts(self, name: str, limit: int) -> list[tuple[Handoff, datetime, str]]:
        """Return what began the latest runs of a flow, the newest first."""
        wanted, now = Wanted(limit=limit, flow=name), datetime.now(UTC)
        database = self._console.index.database
        if database is not None:
            with files.told(self._console.index.path):
                rows = find(database, wanted, now)
        else:
            rows = (await find_runs(self._console.bus, wanted, None, now)).rows
        entries = await asyncio.gather(
            *(self._console.bus.log.at(row.start_seq) for row in rows), return_exceptions=True
        )
        found = []
        for row, entry in zip(rows, entries, strict=True):
            if isinstance(entry, BusError) or entry is None:
                continue
            if isinstance(entry, BaseException):
                raise entry
            if isinstance(entry.message, Handoff):
                found.append((entry.message, entry.at, row.summary.run))
        return found

    def _of(self, source: str) -> KnownFlow | BrokenFlow:
        shipped = source in shipped_flows()
        path = SHIPPED / f"{source}.toml" if shipped else Path(source)
        try:
            changed = path.stat().st_mtime
            kept = self._read.get(source)
            if kept is not None and kept[0] == changed:
                return kept[1]
            each: KnownFlow | BrokenFlow
            found = find_flow(source)
            each = KnownFlow(name=found.name, plan=found.plan, source=source, found="shipped" if shipped else "file")
        except (SchemaError, ActorError, OSError, ValueError, SyntaxError) as error:
            each, changed = BrokenFlow(file=source, why=str(error)), -1.0
        self._read[source] = (changed, each)
        return each


def _files(folder: Path) -> Iterator[str]:
    """Yield the files that are likely to be flows, here and in the folders here."""
    found = sorted([*folder.glob("*.toml"), *folder.glob("*/*.toml")])
    for path in found[:_FILES_MAX]:
        try:
            if path.is_file() and path.stat().st_size <= _FILE_MAX_BYTES and b"[steps." in path.read_bytes():
                yield str(path) if "/" in str(path) else f"./{path}"
        except OSError:
            continue
