"""Finding the server that another command runs over a data directory. Nothing is started, made or changed."""

from __future__ import annotations

from pathlib import Path

from baton_bus.server.health import greeting
from baton_bus.server.lock import Record, read_record


async def running(data_dir: Path) -> Record | None:
    """Return what the server of a data directory says of itself; None when none answers there."""
    record = read_record(data_dir)
    return record if record is not None and await greeting(record.port) == record.server_id else None
