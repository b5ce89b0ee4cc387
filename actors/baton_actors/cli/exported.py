"""Runs that were exported to files: whether a file is meant, and the messages in it."""

from __future__ import annotations

from pathlib import Path

from baton_schemas.run.state import Entry
from baton_schemas.show.export import load_all
from baton_schemas.wire.names import TOKEN


def names_file(name: str) -> bool:
    """Say whether what stands in place of a run is a file, and no run's id or part of one."""
    return bool(name) and (Path(name).is_file() or TOKEN.match(name) is None)


def read_exported(path: Path) -> list[Entry]:
    """Return the entries of an exported run. Raises `BadMessage`, naming the line."""
    with path.open("rb") as lines:
        return load_all(lines, str(path))
