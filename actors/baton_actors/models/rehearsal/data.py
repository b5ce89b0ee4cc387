"""JSON among the texts of a prompt, as lines of text that sentences are picked from. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_DEPTH_MAX = 8


def as_lines(text: str) -> str:
    """Return a text that is JSON as lines that begin with a hyphen, one for each thing in it; others as they are."""
    if text[:1] not in ("{", "["):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return "\n".join(f"- {' '.join(line.split())}" for line in _lines(value, 0)) or text


def _lines(value: Any, depth: int) -> Iterator[str]:
    if depth > _DEPTH_MAX:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict | list):
                yield from _lines(inner, depth + 1)
            elif isinstance(inner, str):
                yield inner if len(inner.split()) > 2 else f"{key}: {inner}"
            elif inner is not None:
                # A count, a score: what it is of is what was said.
                yield f"{key[:1].upper()}{key[1:].rstrip('.')} ({json.dumps(inner)})."
    elif isinstance(value, list):
        for inner in value:
            yield from _lines(inner, depth + 1)
    elif value is not None:
        yield value if isinstance(value, str) else json.dumps(value)
