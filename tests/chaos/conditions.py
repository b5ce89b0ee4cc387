"""What is to hold for a step to be done, or for another round: values by path, as the docs of flow files have it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


def unmet(when: Mapping[str, Any], read: Callable[[str], Any]) -> tuple[str, ...]:
    """Return what does not hold, each in the words of a reason; `read` gives what is known by a name, None for nothing.

    A value is equal to its like alone: numbers by their value, texts but for the white space around them.
    """
    reasons = []
    for path, wanted in when.items():
        found = _at(path.split("."), read)
        if not any(_same(found, each) for each in (wanted if isinstance(wanted, list) else [wanted])):
            reasons.append(f"{path} is {_said(found)}")
    return tuple(reasons)


def _at(path: list[str], read: Callable[[str], Any]) -> Any:
    value = read(path[0])
    for part in path[1:]:
        if isinstance(value, list):
            value = value[int(part)] if part.isdigit() and int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(found, str) and isinstance(wanted, str):
        return found.strip() == wanted.strip()
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    return bool(found == wanted) and found is not None


def _said(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)
