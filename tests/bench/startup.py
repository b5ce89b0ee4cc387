"""What a worker costs at rest, and how long a user waits for the first handler."""

from __future__ import annotations


def measure() -> list[dict[str, object]]:
    return []
