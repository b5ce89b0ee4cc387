"""JSON Schemas of the tools of MCP servers, made such that the Messages API takes them. Pure.

The API refuses `anyOf`, `oneOf` and `allOf` at the top of a tool's schema, and there names of properties like `$top`,
and with one the whole request: one such tool among a server's many would make all of them useless. What the first say
is folded into one object with all properties, and which of them belong together is told in words; the others are told
by names of their own. The server checks what it is called with by its own schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

_COMBINED = ("allOf", "anyOf", "oneOf")
_DEPTH_MAX = 8
"""Of alternatives within alternatives, and of references: what lies deeper is left to the server."""
_ALTERNATIVES_MAX = 20
"""Of those that are told in words."""

_KEY_CHARS_MAX = 64
_NOT_IN_KEYS = re.compile(r"[^a-zA-Z0-9_.-]")

Schema = Mapping[str, Any]


class Sendable(NamedTuple):
    """A schema as the API takes it."""

    schema: dict[str, Any]
    in_words: str
    """What of it is to be said in words; empty for nothing."""
    keys: dict[str, str]
    """The server's own names of the properties that are told by others, by these."""


def sendable(schema: Schema) -> Sendable:
    """Return the schema of a tool as the API takes it."""
    properties, required, alternatives = _folded(schema, schema, _DEPTH_MAX)
    top = {key: value for key, value in schema.items() if key not in (*_COMBINED, "$ref", "type")}
    folds = top.keys() | {"type"} != schema.keys() | {"type"}
    told = _told(properties)
    whole: dict[str, Any] = {"type": "object", **top}
    if folds or any(name != own for own, name in told.items()):
        whole["properties"] = {told[own]: value for own, value in properties.items()}
        if required:
            whole["required"] = [told.get(own, own) for own in required]
    several = [[told.get(own, own) for own in names] for names in alternatives if names][:_ALTERNATIVES_MAX]
    said = "; or ".join(", ".join(names) for names in several)
    in_words = f"Its arguments are those of one of these: {said}." if len(several) > 1 else ""
    return Sendable(whole, in_words, {name: own for own, name in told.items() if name != own})


def _told(properties: Iterable[str]) -> dict[str, str]:
    """Return what properties are told by: their own names where the API takes them, else others that none has."""
    own_names = list(properties)
    told = {own: own for own in own_names if own and len(own) <= _KEY_CHARS_MAX and not _NOT_IN_KEYS.search(own)}
    taken = set(told)
    for own in own_names:
        if own in told:
            continue
        name = base = _NOT_IN_KEYS.sub("_", own)[:_KEY_CHARS_MAX] or "_"
        number = 2
        while name in taken:
            name, number = f"{base[: _KEY_CHARS_MAX - 8]}_{number}", number + 1
        told[own] = name
        taken.add(name)
    return told


def _folded(schema: Schema, root: Schema, depth: int) -> tuple[dict[str, Any], list[str], list[list[str]]]:
    """Return all properties of a schema, which of them are always required, and its alternatives by what they require
    or, where they require nothing, what they have."""
    properties: dict[str, Any] = dict(_mapping(schema.get("properties")))
    required = _names(schema.get("required"))
    alternatives: list[list[str]] = []
    if depth == 0:
        return properties, required, alternatives
    for part in [*_referred(schema, root), *_schemas(schema.get("allOf"))]:
        more, needed, several = _folded(part, root, depth - 1)
        _merge(properties, more)
        required += [name for name in needed if name not in required]
        alternatives = alternatives or several
    for key in ("anyOf", "oneOf"):
        parts = [_folded(part, root, depth - 1) for part in _schemas(schema.get(key))]
        for more, _, _ in parts:
            _merge(properties, more)
        if parts:
            always = set.intersection(*(set(needed) for _, needed, _ in parts))
            required += [name for name in parts[0][1] if name in always and name not in required]
            alternatives = [names for more, needed, _ in parts if (names := needed or list(more)) not in alternatives]
    return properties, required, alternatives


def _merge(properties: dict[str, Any], more: Schema) -> None:
    """Add properties; one that is there already, as another, may be either."""
    for name, value in more.items():
        known = properties.setdefault(name, value)
        if known != value:
            either = known["anyOf"] if isinstance(known, dict) and list(known) == ["anyOf"] else [known]
            properties[name] = {"anyOf": either if value in either else [*either, value]}


def _referred(schema: Schema, root: Schema) -> Iterable[Schema]:
    """Yield what the `$ref` of a schema leads to, within the whole."""
    at: Any = root
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return
    for key in reference.removeprefix("#/").split("/"):
        at = _mapping(at).get(key.replace("~1", "/").replace("~0", "~"))
    if isinstance(at, Mapping):
        yield at


def _schemas(value: Any) -> list[Schema]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _names(value: Any) -> list[str]:
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _mapping(value: Any) -> Schema:
    return value if isinstance(value, Mapping) else {}
