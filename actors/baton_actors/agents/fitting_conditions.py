"""Whether conditions name values that what a handler says it returns can have, as far as its annotation tells. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from baton_schemas.flow.conditions import shown, values_in
from baton_schemas.flow.flow import Conditions, Scalar
from baton_schemas.flow.types import listed

_Schemas = list[dict[str, Any]] | None
"""The schemas of which a value has one; None when it may be anything."""
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int, float),
    "number": (int, float),
}


def unlikely(conditions: Conditions | None, type_of: Callable[[str], Any]) -> Iterator[tuple[str, str]]:
    """Yield the paths that lead to nothing, or never to a value that they are to have, and a sentence on each.

    `type_of` gives the annotation of what stands under a name; Any when it is not known.
    """
    for path, wanted in (conditions or {}).items():
        root, *keys = path.split(".")
        try:
            whole = msgspec.json.schema(type_of(root), schema_hook=lambda _: {})
        except (TypeError, NameError, RecursionError):
            continue
        named = whole.get("$defs", {})
        schemas: _Schemas = _options(whole, named)
        for number, key in enumerate(keys, 1):
            before, schemas = schemas, _under(schemas, key, named)
            if schemas == []:
                there = sorted({name for schema in before or [] for name in schema.get("properties", {})})
                has = f"it has {listed(there)}" if there else "nothing is in it"
                yield path, f"leads to nothing: {'.'.join([root, *keys][:number])} has no {key!r}; {has}"
        for value in values_in(wanted) if schemas else ():
            if not any(_may_be(value, schema) for schema in schemas or []):
                yield path, f"is never {shown(value)}: {_said(schemas or [])}"


def _options(schema: dict[str, Any], named: dict[str, Any]) -> _Schemas:
    """Return the schemas of which a value of this one has one, without references."""
    if "$ref" in schema:
        return _options(named[schema["$ref"].rpartition("/")[2]], named)
    if "anyOf" in schema:
        found: list[dict[str, Any]] = []
        for option in schema["anyOf"]:
            inner = _options(option, named)
            if inner is None:
                return None
            found += inner
        return found
    return [schema] if schema.keys() & {"type", "enum", "const"} else None


def _under(schemas: _Schemas, key: str, named: dict[str, Any]) -> _Schemas:
    """Return the schemas of what is under a key; an empty list when nothing can be."""
    found: list[dict[str, Any]] = []
    for schema in schemas or []:
        inner = _part(schema, key)
        if inner is False:
            continue
        options = _options(inner, named) if isinstance(inner, dict) else None
        if options is None:
            return None
        found += options
    return None if schemas is None else found


def _part(schema: dict[str, Any], key: str) -> Any:
    """Return the schema of what is under a key: True when it may be anything, False when there is nothing."""
    match schema.get("type"):
        case "object":
            return schema.get("properties", {}).get(
                key, schema.get("additionalProperties", not schema.get("properties"))
            )
        case "array" if key.isdecimal():
            return schema.get("items", True)
        case list():
            return True
        case _:
            return False


def _may_be(value: Scalar, schema: dict[str, Any]) -> bool:
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None:
        return any(type(value) is type(each) and value == each for each in values)
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        wanted = _TYPES.get(str(kind), ())
        if isinstance(value, wanted) and (bool in wanted or not isinstance(value, bool)):
            return True
    return schema.get("format") is not None and isinstance(value, str)


def _said(schemas: list[dict[str, Any]]) -> str:
    values = [
        value for schema in schemas for value in schema.get("enum", [schema["const"]] if "const" in schema else [])
    ]
    if values:
        return f"it is {' or '.join(shown(value) for value in values)}"
    kinds = {
        "object": "an object",
        "array": "a list",
        "string": "a text",
        "boolean": "true or false",
        "null": "nothing",
    }
    return f"it is {' or '.join(sorted({kinds.get(str(schema.get('type')), 'a number') for schema in schemas}))}"
