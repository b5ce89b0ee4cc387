"""Exported runs that are looked at without a server: kept in memory, some at a time, and written nowhere."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from baton_bus.client.runs import RunHead
from baton_schemas.errors import BadMessage
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry, is_newer
from baton_schemas.show.excerpt import size
from baton_schemas.show.export import load_all
from baton_schemas.show.summary import Summary, summarise

from .feeds import Feed

FILE_MAX_BYTES = 32 * 1024 * 1024
"""Of one file, as of everything that is posted: a run of a hundred thousand messages has about that."""
OPEN_MAX = 16
"""Files that are open at once; with one more the one that was opened first is closed."""
_NAME_MAX = 60
_NO_NAME = re.compile(r"[^A-Za-z0-9_-]+")
_RUN_AT = 3
"""The place of the run in a subject: see `baton_bus.subjects`."""


class OpenFile(Struct, frozen=True, kw_only=True):
    """A file that is open."""

    name: str
    """In addresses."""
    shown: str
    """As it was called where it came from."""
    feed: Feed
    size_bytes: int
    summary: Summary
    newer: int = 0
    """How many of its messages a later release wrote, so that this one cannot read them."""


class Files:
    """Those that are open, the last one opened at the end."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, OpenFile] = OrderedDict()

    def __iter__(self) -> Iterator[OpenFile]:
        return iter(tuple(self._open.values()))

    def get(self, name: str) -> OpenFile | None:
        """Return the file of this name in addresses; None when none is open."""
        return self._open.get(name)

    def add(self, file: OpenFile) -> OpenFile:
        """Have a file open; one of the same run and size is opened once. Return it as it is open."""
        for each in self._open.values():
            same = [entry.seq for entry in each.feed.entries] == [entry.seq for entry in file.feed.entries]
            if same and (each.feed.run, each.size_bytes) == (file.feed.run, file.size_bytes):
                return each
        name, number = file.name, 1
        while name in self._open:
            number += 1
            name = f"{file.name}-{number}"
        opened = replace(file, name=name)
        self._open[name] = opened
        while len(self._open) > OPEN_MAX:
            self._open.popitem(last=False)
        return opened

    def close(self, name: str) -> None:
        """Close a file."""
        self._open.pop(name, None)


def opened(shown: str, data: bytes) -> OpenFile:
    """Return an exported run as a file that is open. Raises `BadMessage` for what is none."""
    if len(data) > FILE_MAX_BYTES:
        raise BadMessage(f"{shown} has {size(len(data))}; at most {size(FILE_MAX_BYTES)} are opened here")
    entries = sorted(load_all(data.split(b"\n"), shown), key=lambda entry: entry.seq)
    head = _head(shown, entries)
    feed = Feed(head)
    for entry in entries:
        feed.apply(entry)
    feed.ended = True
    return OpenFile(
        name=_in_address(shown),
        shown=shown,
        feed=feed,
        size_bytes=len(data),
        summary=summarise(entries),
        newer=sum(map(is_newer, entries)),
    )


def _head(shown: str, entries: Sequence[Entry]) -> RunHead:
    runs = dict.fromkeys(_run_of(entry) for entry in entries)
    runs.pop("", None)
    if len(runs) > 1:
        some = ", ".join(list(runs)[:3]) + (", …" if len(runs) > 3 else "")
        raise BadMessage(f"{shown} has messages of {len(runs):,} runs: {some}. Export one run with `baton export RUN`")
    state = fold(entries)
    return RunHead(
        run=next(iter(runs), state.run) or "unknown",
        flow=state.flow,
        start_seq=entries[0].seq,
        started_at=entries[0].at,
        status=state.status,
        ended_at=state.ended_at,
    )


def _run_of(entry: Entry) -> str:
    tokens = entry.subject.split(".")
    return getattr(entry.message, "run", "") or (tokens[_RUN_AT] if len(tokens) > _RUN_AT else "")


def _in_address(shown: str) -> str:
    """Return a name that can stand in an address; one without a dot, as what follows a dot may say `json`."""
    stem = shown.replace("\\", "/").rpartition("/")[2].removesuffix(".jsonl").removesuffix(".baton")
    return _NO_NAME.sub("-", stem).strip("-")[:_NAME_MAX] or "run"
