"""JSON Schemas of the tools of MCP servers, made such that the Messages API takes them. Pure.

The API refuses `anyOf`, `oneOf` and `allOf` at the top of a tool's schema, and with it the whole request: one such tool
among a server's many would make all of them useless. What they say is folded into one object with all properties, and
which of them belong together is told in words; the server checks what it is called with by its own schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_COMBINED = ("allOf", "anyOf", "oneOf")
_DEPTH_MAX = 8
"""Of alternatives within alternatives, and of references: what lies deeper is left to the server."""
_ALTERNATIVES_MAX = 20
"""Of those that are told in words."""

Schema = Mapping[str, Any]


def sendable(schema: Schema) -> tuple[dict[str, Any], str]:
    """Return the schema of a tool as the API takes it, and what of it is to be said in words; empty for nothing."""
    properties, required, alternatives = _folded(schema, schema, _DEPTH_MAX)
    top = {key: value for key, value in schema.items() if key not in (*_COMBINED, "$ref", "type")}
    if top.keys() | {"type"} == schema.keys() | {"type"}:  # there is nothing to fold
        return {"type": "object", **top}, ""
    whole: dict[str, Any] = {"type": "object", **top, "properties": properties}
    if required:
        whole["required"] = required
    several = [names for names in alternatives if names][:_ALTERNATIVES_MAX]
    said = "; or ".join(", ".join(names) for names in several)
    return whole, f"Its arguments are those of one of these: {said}." if len(several) > 1 else ""


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
