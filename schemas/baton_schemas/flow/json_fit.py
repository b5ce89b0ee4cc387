"""Whether a value fits a JSON Schema in its normal form, and what is known of the values that do. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from baton_schemas.flow.json_schema import Schema
from baton_schemas.flow.types import ANY, Type, Unfit, listed, listed_values, shown

_KINDS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}
_WORDS = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def fitted(schema: Schema, value: Any, place: str) -> Any:
    """Return a decoded JSON value that fits: itself, or a copy with defaults filled in, and texts of an `enum` spelled
    as they are there, which models get wrong in their capitals.

    `place` begins what an error names. Raises `Unfit` for the first mistake.
    """
    if "anyOf" in schema:
        return _of_any(schema["anyOf"], value, place)
    if "enum" in schema:
        return _of_values(schema["enum"], value, place)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if value is None and "null" in kinds:
        return None
    if not _is(value, kinds[0]):
        raise Unfit(place, f"found {shown(value)}; expected {_words(kinds)}")
    match kinds[0]:
        case "object":
            return _object(schema, value, place)
        case "array":
            return _array(schema, value, place)
        case "string":
            _check_text(schema, value, place)
        case "integer":
            value = int(value)
            _check_number(schema, value, place)
        case "number":
            _check_number(schema, value, place)
    return value


def type_of_schema(schema: Schema, *, required: bool = True) -> Type:
    """Return the type of the values that fit a schema, as far as types say it."""
    optional = not required and "default" not in schema
    if "enum" in schema:
        return _type_of_values(schema["enum"], optional)
    if "anyOf" in schema:
        null = any(_is_null(option) for option in schema["anyOf"])
        found = [type_of_schema(option) for option in schema["anyOf"] if not _is_null(option)]
        kinds = {each.kind for each in found}
        one = found[0] if len(found) == 1 else Type(kinds.pop()) if len(kinds) == 1 else ANY
        return msgspec.structs.replace(one, optional=one.optional or null or optional)
    kinds_of = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    optional = optional or "null" in kinds_of
    match kinds_of[0]:
        case "object":
            needed = schema.get("required", [])
            fields = {
                name: _with_default(type_of_schema(each, required=name in needed), each)
                for name, each in schema["properties"].items()
            }
            return Type("dict", optional=optional, fields=fields)
        case "array":
            return Type("list", optional=optional, items=type_of_schema(schema["items"]))
        case "null":
            return Type("any", optional=True)
        case kind:
            return Type(_KINDS[kind], optional=optional)


def _with_default(found: Type, schema: Schema) -> Type:
    if "default" not in schema:
        return found
    return msgspec.structs.replace(found, default=Raw(msgspec.json.encode(schema["default"])))


def _type_of_values(values: Sequence[Any], optional: bool) -> Type:
    others = [value for value in values if value is not None]
    optional = optional or len(others) < len(values)
    for kind, name in ((str, "str"), (int, "int")):
        if others and all(type(value) is kind for value in others):
            return Type(name, optional=optional, values=tuple(others))
    return Type("any", optional=optional)


def _is_null(schema: Schema) -> bool:
    return schema.get("type") == "null" or schema.get("enum") == [None]


def _of_any(options: Sequence[Schema], value: Any, place: str) -> Any:
    reasons: list[Unfit] = []
    for option in options:
        try:
            return fitted(option, value, place)
        except Unfit as error:
            reasons.append(error)
    # What fits by its type and not in a part of it says most of what is wrong.
    raise max(reasons, key=lambda error: len(error.place))


def _of_values(values: Sequence[Any], value: Any, place: str) -> Any:
    for each in values:
        if type(each) is type(value) and each == value:
            return each
    if isinstance(value, str):
        same = [each for each in values if isinstance(each, str) and each.casefold() == value.strip().casefold()]
        if len(same) == 1:
            return same[0]
    raise Unfit(place, f"found {shown(value)}; expected {listed_values(values)}")


def _object(schema: Schema, value: dict[str, Any], place: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    properties = schema["properties"]
    for name, each in properties.items():
        if name in value:
            found[name] = fitted(each, value[name], f"{place}.{name}" if place else name)
        elif "default" in each:
            found[name] = each["default"]
        elif name in schema.get("required", []):
            has = f"; it has: {listed(value)}" if value else ""
            raise Unfit(f"{place}.{name}" if place else name, f"missing; expected {_said(each)}{has}")
    others = {name: each for name, each in value.items() if name not in properties}
    if others and schema.get("additionalProperties") is False:
        raise Unfit(place, f"found {listed(others)}; expected only {listed(properties)}")
    return found | others


def _array(schema: Schema, value: list[Any], place: str) -> list[Any]:
    least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not least <= len(value) <= most:
        raise Unfit(place, f"found {len(value)} items; expected {_between(least, most)}")
    found = [fitted(schema["items"], item, f"{place}[{index}]") for index, item in enumerate(value)]
    if schema.get("uniqueItems") and len({msgspec.json.encode(item, order="sorted") for item in found}) < len(found):
        raise Unfit(place, "found an item twice; expected each once")
    return found


def _check_text(schema: Schema, value: str, place: str) -> None:
    least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    if not least <= len(value) <= most:
        raise Unfit(place, f"found {len(value)} characters; expected {_between(least, most)}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        raise Unfit(place, f"found {shown(value)}; expected one that matches {schema['pattern']}")


def _check_number(schema: Schema, value: float, place: str) -> None:
    for key, holds, words in (
        ("minimum", lambda bound: value >= bound, "at least"),
        ("maximum", lambda bound: value <= bound, "at most"),
        ("exclusiveMinimum", lambda bound: value > bound, "more than"),
        ("exclusiveMaximum", lambda bound: value < bound, "less than"),
        ("multipleOf", lambda bound: not bound or math.isclose(value / bound, round(value / bound)), "a multiple of"),
    ):
        if key in schema and not holds(schema[key]):
            raise Unfit(place, f"found {shown(value)}; expected {words} {schema[key]}")


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "integer":
            # JSON has no whole numbers of its own: 3.0 is one, as JSON Schema has it.
            return type(value) is int or (type(value) is float and value.is_integer())
        case "number":
            return type(value) in (int, float)
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case _:
            return value is None


def _said(schema: Schema) -> str:
    if "enum" in schema:
        return listed_values(schema["enum"])
    kind = schema.get("type")
    return _words(kind if isinstance(kind, list) else [kind]) if kind else "a value"


def _words(kinds: Sequence[str]) -> str:
    return " or ".join(_WORDS[kind] for kind in kinds)


def _between(least: float, most: float) -> str:
    if most == math.inf:
        return f"at least {least}"
    return f"{least} to {most}" if least else f"at most {most}"
