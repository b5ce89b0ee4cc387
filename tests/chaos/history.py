"""The history of a chaos run: what clients, workers, the model and the driver saw, as JSON lines in one file.

Every process appends to it by itself, a line in one write, so a process that is killed loses nothing it has said.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

real_time = time.time
"""Of our own: a worker's clock may be set to another time."""
Event = dict[str, Any]
"""`what` happened, `at` (seconds of Unix time), by which `pid`, and what else there is to say."""


class History:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def say(self, what: str, **facts: Any) -> None:
        event = {"what": what, "at": real_time(), "pid": os.getpid(), **facts}
        os.write(self._file, json.dumps(event).encode() + b"\n")

    def events(self) -> list[Event]:
        """All so far, of all processes, in the order of their time."""
        lines = self.path.read_text("utf-8").splitlines()
        return sorted((json.loads(line) for line in lines), key=lambda event: event["at"])


_LOOK_S = 0.05


async def say_lags(history: History) -> None:
    """Say when this process waited for its turn for so long that words and leases may have been late."""
    loop = asyncio.get_running_loop()
    while True:
        slept_at = loop.time()
        await asyncio.sleep(_LOOK_S)
        if (lag_s := loop.time() - slept_at - _LOOK_S) > _LOOK_S:
            history.say("process.starved", lag_s=round(lag_s, 3))
