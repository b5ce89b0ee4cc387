"""JSON Schemas as people write them, brought into one form: references put in, one way to say each thing. Pure.

In the normal form each schema is one of: `enum` of plain values; `anyOf`; or a `type`, which may be a list of one and
`null`. Objects have `properties` and arrays `items`. What is not taken in it is what no structured output can have.
https://json-schema.org/understanding-json-schema/reference
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from baton_schemas.errors import nearest
from baton_schemas.flow.types import NESTING_MAX, json_type

Schema = dict[str, Any]

NODES_MAX = 1_000
"""Schemas within one, with what references lead to: the API takes some dozens."""
_ENUM_MAX = 500
_BOUNDS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_COUNTS = {"minLength", "maxLength", "minItems", "maxItems"}
_KNOWN = (
    {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "properties", "required", "additionalProperties"}
    | {"items", "uniqueItems", "pattern", "format", "default", "description", "title", "examples"}
    | _BOUNDS
    | _COUNTS
)
_SAYS_NOTHING = frozenset(
    {"$schema", "$id", "id", "$comment", "$defs", "definitions", "$anchor", "deprecated", "readOnly", "writeOnly"}
)
"""Keys that an answer does not depend on, once references are put in."""
_REFUSED = {
    **dict.fromkeys(("not", "if", "then", "else"), "what the answer is, in `anyOf`"),
    **dict.fromkeys(("patternProperties", "propertyNames", "minProperties", "maxProperties"), "keys by their names"),
    **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), "`additionalProperties`"),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies"), "`anyOf` of objects"),
    **dict.fromkeys(("prefixItems", "contains", "minContains", "maxContains"), "`items`, one schema for all of them"),
    **dict.fromkeys(("$dynamicRef", "$recursiveRef"), "`$ref` into this file"),
}
"""Keys that no structured output can keep to, and what to write instead."""
_TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": _BOUNDS,
    "number": _BOUNDS,
}
_SAID = ("title", "description", "default", "examples")


class BadSchema(ValueError):
    """A schema that no answer can be asked to fit. `place` is a JSON pointer without its `#`."""

    def __init__(self, place: str, found: str, expected: str, hint: str = "") -> None:
        """`found` and `expected` as in errors of flows."""
        self.place, self.found, self.expected, self.hint = place, found, expected, hint
        super().__init__(f"{place or 'the top'}: found {found}; expected {expected}")


def normal(schema: Schema) -> Schema:
    """Return the normal form of a schema of an object. Raises `BadSchema`."""
    found = _Reader(schema).read(schema, "", ())
    if found.get("type") != "object":
        what = _written(found)
        raise BadSchema("", what, "an object, with its keys in `properties`", "Put what it is under a key.")
    return found


class _Reader:
    def __init__(self, root: Schema) -> None:
        self._root, self._nodes = root, 0

    def read(self, schema: Any, place: str, refs: tuple[str, ...]) -> Schema:
        """Return the normal form of a part; `refs` are the references that it is within."""
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise BadSchema(place, f"more than {NODES_MAX} schemas within each other", "a smaller one")
        if not isinstance(schema, dict):
            found = "a schema that takes anything" if schema is True else json_type(schema)
            raise BadSchema(place, found, "a schema with a `type`")
        if place.count("/properties/") + place.count("/items") > NESTING_MAX:
            raise BadSchema(place, "a schema nested too deep", f"at most {NESTING_MAX} within each other")
        _check_keys(schema, place)
        if "$ref" in schema:
            return self._led(schema, place, refs)
        if "allOf" in schema:
            return self._all(schema, place, refs)
        said = {key: schema[key] for key in _SAID if key in schema}
        if "const" in schema:
            return {**said, "enum": _values(place + "/const", [schema["const"]])}
        if "enum" in schema:
            return {**said, "enum": _values(place + "/enum", schema["enum"])}
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return {**said, **self._any(schema[key], f"{place}/{key}", refs)}
        return {**said, **self._typed(schema, place, refs)}

    def _led(self, schema: Schema, place: str, refs: tuple[str, ...]) -> Schema:
        ref = schema["$ref"]
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise BadSchema(place, f"the reference {ref!r}"[:100], "one into this file, as '#/$defs/Item'")
        if ref in refs:
            raise BadSchema(place, f"{ref!r} within itself", "a schema that ends: the API has no recursive ones")
        found: Any = self._root
        for part in ref.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                known = self._root.get("$defs") or self._root.get("definitions") or {}
                hint = nearest(key, known) if isinstance(known, dict) else ""
                raise BadSchema(place, f"the reference {ref!r}, which leads to nothing", "one to a schema", hint)
            found = found[key]
        inner = self.read(found, place, (*refs, ref))
        return {**inner, **{key: schema[key] for key in _SAID if key in schema}}

    def _all(self, schema: Schema, place: str, refs: tuple[str, ...]) -> Schema:
        parts = schema["allOf"]
        if not isinstance(parts, list) or len(parts) != 1:
            raise BadSchema(f"{place}/allOf", "several schemas at once", "one schema with all that holds")
        rest = {key: value for key, value in schema.items() if key != "allOf"}
        inner = self.read(parts[0], f"{place}/allOf/0", refs)
        others = sorted(rest.keys() - set(_SAID) - _SAYS_NOTHING)
        if others:
            raise BadSchema(place, f"`allOf` beside {', '.join(others)}", "one schema with all that holds")
        return {**inner, **{key: rest[key] for key in _SAID if key in rest}}

    def _any(self, options: Any, place: str, refs: tuple[str, ...]) -> Schema:
        if not isinstance(options, list) or not options:
            raise BadSchema(place, json_type(options), "a list of schemas")
        read = [self.read(option, f"{place}/{number}", refs) for number, option in enumerate(options)]
        others = [option for option in read if option.get("type") != "null"]
        if len(read) == 1:
            return read[0]
        if len(others) == 1 and len(read) == 2 and isinstance(others[0].get("type"), str):
            return {**others[0], "type": [others[0]["type"], "null"]}
        return {"anyOf": read}

    def _typed(self, schema: Schema, place: str, refs: tuple[str, ...]) -> Schema:
        kind = schema.get("type")
        if kind is None:
            kind = "object" if "properties" in schema else "array" if "items" in schema else None
        kinds: list[Any] = kind if isinstance(kind, list) else [kind]
        for each in kinds:
            if each not in _TYPES:
                found = "a schema without a `type`" if each is None else f"the type {each!r}"[:100]
                raise BadSchema(place, found, f"one of {', '.join(_TYPES)}, or `enum`", nearest(str(each), _TYPES))
        others = [each for each in kinds if each != "null"]
        if len(others) > 1:
            rest = {key: value for key, value in schema.items() if key not in ("type", *_SAID)}
            of_each = {each: {key: rest[key] for key in rest if key in _OF_TYPE.get(each, ())} for each in kinds}
            return {"anyOf": [self.read({"type": each, **of_each[each]}, place, refs) for each in kinds]}
        one: str = others[0] if others else "null"
        typed: Schema = {"type": [one, "null"] if others and len(kinds) > 1 else one}
        given = {key: schema[key] for key in schema if key in _OF_TYPE.get(one, ())}
        if one == "object":
            return {**typed, **self._object(given, place, refs)}
        if one == "array":
            items = self.read(given.pop("items", None) or {}, f"{place}/items", refs)
            return {**typed, "items": items, **given}
        return {**typed, **given}

    def _object(self, given: Schema, place: str, refs: tuple[str, ...]) -> Schema:
        properties, required = given.get("properties"), given.get("required", [])
        more = given.get("additionalProperties", True)
        if not isinstance(properties, dict) or not properties or isinstance(more, dict):
            raise BadSchema(
                place,
                "an object whose keys are not known",
                "its keys in `properties`: the API has no other objects",
                "Where keys may be any, make it a list of records of a key and a value.",
            )
        if not isinstance(required, list) or not all(name in properties for name in required):
            unknown = [name for name in required if name not in properties] if isinstance(required, list) else required
            raise BadSchema(f"{place}/required", repr(unknown)[:100], "names of `properties`")
        read = {name: self.read(each, f"{place}/properties/{name}", refs) for name, each in properties.items()}
        strict = {"additionalProperties": False} if more is False else {}
        return {"properties": read, **({"required": list(required)} if required else {}), **strict}


def _check_keys(schema: Schema, place: str) -> None:
    for key, value in schema.items():
        if key in _REFUSED:
            raise BadSchema(place, f"`{key}`", f"{_REFUSED[key]}: the API has no `{key}`")
        if key not in _KNOWN and key not in _SAYS_NOTHING and not key.startswith("x-"):
            raise BadSchema(place, f"the unknown key `{key}`"[:100], "a key of JSON Schema", nearest(key, _KNOWN))
        if key in _COUNTS and not (type(value) is int and value >= 0):
            raise BadSchema(f"{place}/{key}", f"{value!r}"[:100], "a whole number from 0 on")
        if key in _BOUNDS and type(value) not in (int, float):
            raise BadSchema(f"{place}/{key}", f"{value!r}"[:100], "a number")
        if key in ("description", "title", "format", "pattern") and not isinstance(value, str):
            raise BadSchema(f"{place}/{key}", json_type(value), "a text")
    if "pattern" in schema:
        try:
            re.compile(schema["pattern"])
        except (re.error, RecursionError, OverflowError) as error:
            raise BadSchema(f"{place}/pattern", f"{schema['pattern']!r}"[:100], f"a pattern ({error})") from error


def _values(place: str, values: Any) -> list[Any]:
    if not isinstance(values, list) or not values or len(values) > _ENUM_MAX:
        found = f"{len(values)} values" if isinstance(values, list) else json_type(values)
        raise BadSchema(place, found, f"a list of 1 to {_ENUM_MAX} values")
    for value in values:
        if isinstance(value, dict | list):
            raise BadSchema(place, json_type(value), "texts, numbers, true, false or null")
    return values


def _written(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    return f"the type {kind!r}" if kind else "`enum`" if "enum" in schema else "`anyOf`"
