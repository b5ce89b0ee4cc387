"""Conditions: paths into inputs and earlier outputs, each with the value, or the values, that it is to have. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from baton_schemas.flow.flow import Conditions, Scalar
from baton_schemas.flow.prompts import look_up
from baton_schemas.flow.types import json_type

_SHOWN_MAX = 60
"""Characters of a value in a reason: it stands in messages, and in a line of a terminal."""


def roots_of(conditions: Conditions | None) -> frozenset[str]:
    """Return the names that conditions look into: inputs and steps."""
    return frozenset(path.split(".")[0] for path in conditions or ())


def unmet(conditions: Conditions | None, values: Mapping[str, Raw]) -> str:
    """Return why conditions do not hold, as `classify.kind is 'praise'`; empty when all of them do.

    `values` are by root; one that is not there, or null, equals nothing.
    """
    decoded = {name: msgspec.json.decode(values[name]) for name in roots_of(conditions) if name in values}
    for path, wanted in (conditions or {}).items():
        root, *keys = path.split(".")
        found = look_up(decoded.get(root), keys)
        if not any(_equal(found, value) for value in values_in(wanted)):
            return f"{path} is {shown(found)}"
    return ""


def values_in(wanted: Scalar | list[Scalar]) -> list[Scalar]:
    """Return the values of which a path is to have one."""
    return list(wanted) if isinstance(wanted, list) else [wanted]


def written(conditions: Conditions | None) -> list[str]:
    """Return conditions as people read them, one a line: `classify.kind is 'refund' or 'complaint'`."""
    return [
        f"{path} is {' or '.join(shown(value) for value in values_in(wanted))}"
        for path, wanted in (conditions or {}).items()
    ]


def shown(value: Any) -> str:
    """Return a value as a reason says it: short, and texts in quotes."""
    match value:
        case None:
            return "missing"
        case str():
            text = value if len(value) <= _SHOWN_MAX else value[: _SHOWN_MAX - 1] + "…"
            return f"'{text}'"
        case dict() | list():
            return json_type(value)
        case _:
            return json.dumps(value)[:_SHOWN_MAX]


def _equal(found: Any, wanted: Scalar) -> bool:
    """Say whether two values are the same in JSON, which has one kind of numbers, and no number that is true.

    White space around a text that was found does not count: models end their answers with it now and then.
    """
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, str) or isinstance(wanted, str):
        return isinstance(found, str) and isinstance(wanted, str) and wanted in (found, found.strip())
    return isinstance(found, int | float) and found == wanted
