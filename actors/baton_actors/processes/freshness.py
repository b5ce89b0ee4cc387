"""Whether the code of workers is that of their files: these are looked at now and then, and changes are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from msgspec import Struct

from baton_actors.agents.files import code_files, flow_file
from baton_actors.agents.loading import FoundFlow

LOOKS_S = 0.5
"""Between two looks at the files of flows, a dozen each, that are taken up: at once for people."""
SELDOM_S = 2.0
"""Between two looks where a change is only said: an idle `baton up` costs less than a hundredth of a core."""
_Stamp = tuple[int, int, int]


class FilesChanged(Struct, frozen=True):
    """Some of the files of a flow are others than they were."""

    found: FoundFlow
    """The flow as its workers have it."""
    files: list[Path]
    """Those that changed, the flow's own first."""
    agents: frozenset[str]
    """Whose code they are; all agents when the flow's own file is among them."""

    @property
    def names(self) -> str:
        """The files in words."""
        return ", ".join(file.name for file in self.files)


class Freshness:
    """Watches the files of one flow, as they were when its workers began."""

    def __init__(self, found: FoundFlow) -> None:
        self.found = found
        self._code = code_files(found)
        self._seen = self._stamps()
        self._moving = self._seen
        self._untaken: set[Path] = set()
        """What has changed since the workers began, told or not."""

    def look(self) -> FilesChanged | None:
        """Return what has changed since it was last told; a file that is being written is waited for until it rests."""
        now = self._stamps()
        rests, self._moving = now == self._moving, now
        changed = [file for file, stamp in now.items() if self._seen.get(file) != stamp]
        if not changed or not rests:
            return None
        self._seen = now
        self._untaken.update(changed)
        own = flow_file(self.found)
        agents = set(self.found.flow.agents) if own in self._untaken else set[str]()
        agents.update(*(self._code.get(file, ()) for file in self._untaken))
        files = sorted(self._untaken, key=lambda file: (file != own, file))
        self._code = code_files(self.found)  # it may import others now
        self._seen = {**self._stamps(), **now}
        return FilesChanged(self.found, files, frozenset(agents))

    def took_up(self, found: FoundFlow) -> None:
        """From now on the workers have what was told, and this version of the flow."""
        self.found = found
        self._untaken.clear()
        self._code = code_files(found)
        self._seen = {**self._stamps(), **self._seen}  # what changed meanwhile is told next

    def _stamps(self) -> dict[Path, _Stamp | None]:
        return {file: _stamp(file) for file in (flow_file(self.found), *self._code)}


async def watch(
    flows: Sequence[Freshness],
    on_change: Callable[[Freshness, FilesChanged], Awaitable[None]],
    looks_s: float | None = None,
) -> None:
    """Call `on_change` for each change of the files of these flows, one after another, for ever.

    They are looked at every `looks_s` seconds (None: `LOOKS_S`).
    """
    while True:
        await asyncio.sleep(LOOKS_S if looks_s is None else looks_s)
        found = await asyncio.to_thread(lambda: [(flow, flow.look()) for flow in flows])
        for fresh, changed in found:
            if changed is not None:
                await on_change(fresh, changed)


def _stamp(file: Path) -> _Stamp | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
