"""Writes the golden logs of this version: `python -m tests.golden`. Those of a released version are never rewritten.

The logs are made by the lifecycle and the codec of this release (`recorder.py`, `runs.py`). Beside each is the state
that it replays to, as this release works it out: read both before you commit them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from baton_schemas.show.export import dump
from baton_schemas.wire.messages import VERSION

from .expected import expected_of
from .runs import RUNS


def main() -> None:
    """Write the logs, unless there are some of this version: then say what to do."""
    folder = Path(__file__).parent / f"v{VERSION}"
    if folder.exists():
        sys.exit(f"{folder} is there already. If version {VERSION} is not released, delete it and start this again")
    folder.mkdir()
    for name, make in RUNS.items():
        entries = make().entries
        (folder / f"{name}.jsonl").write_bytes(b"".join(map(dump, entries)))
        expected = msgspec.json.format(msgspec.json.encode(expected_of(entries)), indent=2)
        (folder / f"{name}.expected.json").write_bytes(expected + b"\n")
        print(f"{name}: {len(entries)} messages")


if __name__ == "__main__":
    main()
