"""Types of inputs as flow files write them: `str`, `int?`, `list[file]`, and records, whose fields have types too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from baton_schemas.flow.flow import Field, Scalar
from baton_schemas.wire.files import File
from baton_schemas.wire.given_files import given_in

SCALARS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
FILE = "file"
KINDS = (*SCALARS, "dict", "list", FILE, "any")
"""What a type is called in a flow file; `list[…]` says of what, and a `?` behind it that the value may be missing."""
PATTERN = r"^ *(list\[)*(str|int|float|bool|dict|list|file|any)\??(\]\??)* *$"
"""A pattern that every type as it is written has, for tools that know no more than patterns."""
NESTING_MAX = 16
"""Of `list[…]` and of `fields` within each other, all in all: what people mean is rarely over 4."""
_VALUED = ("str", "int")
"""What a type is whose values may be named."""
VALUES_MAX = 100
"""Values of a type that names them: more than anybody chooses from."""
_SHOWN_MAX = 40
_PLAIN_MAX = 10**15
"""Numbers up to this are shown in errors: Python refuses to write the longest, and nobody reads them."""


class Type(Struct, frozen=True):
    """The type of an input, or of a part of one."""

    kind: str
    """One of `KINDS`."""
    optional: bool = False
    """It may be missing, or null."""
    items: Type | None = None
    """Of a list: the type of each item; None for any."""
    fields: Mapping[str, Type] | None = None
    """Of a record: its fields by name. Other keys are let through. None for a dict of which nothing is known."""
    default: Raw = Raw()
    """Stands in where it is missing in a record; empty for none."""
    values: tuple[Scalar, ...] = ()
    """The values of which it is one; empty for any of its kind."""

    def __str__(self) -> str:
        inner = f"[{self.items}]" if self.items is not None else ""
        return f"{self.kind}{inner}{'?' if self.optional else ''}"


ANY = Type("any")
TEXT = Type("str")
NUMBER = Type("int")


class BadType(ValueError):
    """A type that is none, or has fields or values and cannot have them. `key` is where: `type`, `fields`, `values`."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        self.key, self.found, self.expected = key, found, expected
        super().__init__(f"{key}: found {found}; expected {expected}")


class Unfit(ValueError):
    """A value that does not fit its type. `place` is where: `emails[3].prio`."""

    def __init__(self, place: str, reason: str) -> None:
        """`reason` says what was found and what was expected."""
        self.place, self.reason = place, reason
        super().__init__(f"{place}: {reason}")


# ---- what is written ---------------------------------------------------------------------------------


def type_of(field: Field, depth: int = 0) -> Type:
    """Return the type of a field of the input, its own fields included. Raises `BadType`."""
    found = _parsed(field.type.strip(), depth)
    if field.values:
        found = _of_values(found, field)
    if not field.fields:
        return found
    if depth >= NESTING_MAX:
        raise BadType("fields", "records nested too deep", f"at most {NESTING_MAX} within each other")
    fields: dict[str, Type] = {}
    for name, inner in field.fields.items():
        try:
            own = type_of(inner, depth + 1)
        except BadType as error:
            raise BadType(f"fields.{name}.{error.key}", error.found, error.expected) from error
        fields[name] = msgspec.structs.replace(own, default=inner.default)
    return _of_records(found, fields, field.type)


def _parsed(text: str, depth: int) -> Type:
    if depth > NESTING_MAX:
        raise BadType("type", "lists nested too deep", f"at most {NESTING_MAX} within each other")
    name = text.removesuffix("?")
    if name.startswith("list[") and name.endswith("]"):
        return Type("list", optional=name != text, items=_parsed(name[5:-1].strip(), depth + 1))
    if name not in KINDS:
        raise BadType("type", repr(text), f"one of {', '.join(KINDS)} or list[…], with a ? where it may be missing")
    return Type(name, optional=name != text)


def _of_records(found: Type, fields: Mapping[str, Type], text: str) -> Type:
    """Return the type whose dicts have these fields: itself, or the items of its lists."""
    if found.kind == "dict":
        return msgspec.structs.replace(found, fields=fields)
    if found.kind == "list":
        return msgspec.structs.replace(found, items=_of_records(found.items or Type("dict"), fields, text))
    raise BadType("fields", f"`fields` on the type {text!r}", "them on a dict, or on a list of dicts")


def _of_values(found: Type, field: Field) -> Type:
    """Return the type whose values are named: itself, or the items of its lists."""
    if found.kind == "list":
        return msgspec.structs.replace(found, items=_of_values(found.items or TEXT, field))
    if found.kind not in _VALUED or field.fields:
        raise BadType("values", f"`values` on the type {field.type!r}", "them on a str or an int, or on a list of such")
    seen: set[Scalar] = set()
    for value in field.values:
        if type(value) is not SCALARS[found.kind]:
            raise BadType("values", shown(value), f"values of type {found.kind}")
        if value == "" or value in seen:
            raise BadType(
                "values", "an empty text" if value == "" else f"{shown(value)} twice", "each value once, and none empty"
            )
        seen.add(value)
    if len(field.values) > VALUES_MAX:
        raise BadType("values", f"{len(field.values)} of them", f"at most {VALUES_MAX}")
    return msgspec.structs.replace(found, values=tuple(field.values))


def python_type(kind: Type) -> Any:
    """Return the Python type whose values fit, as an annotation has it: `list[dict[str, Any]]`, `str | None`."""
    if kind.kind == "any":
        return Any
    if kind.values:
        found: Any = Literal[kind.values]
    elif kind.kind == "list":
        found = list[python_type(kind.items)] if kind.items is not None else list  # type: ignore[misc]
    else:
        found = File if kind.kind == FILE else SCALARS.get(kind.kind, dict)
    return found | None if kind.optional else found


# ---- what is given -----------------------------------------------------------------------------------


def fit(value: Any, kind: Type, place: str) -> Any:
    """Return a decoded JSON value that fits its type: itself, or a copy with the defaults of records filled in.

    `place` begins what an error names. Raises `Unfit` for the first mistake.
    """
    if value is None:
        if kind.optional or kind.kind == "any":
            return None
        raise Unfit(place, f"found null; expected {wanted(kind)}")
    if kind.kind == FILE:
        try:
            given_in(value)
        except ValueError as error:
            what = "" if isinstance(value, str | dict) else f"found {shown(value)}; "
            raise Unfit(place, f"{what}{error}") from None
        return value
    if not _is(value, kind.kind) or (kind.values and value not in kind.values):
        raise Unfit(place, f"found {shown(value)}; expected {wanted(kind)}")
    if isinstance(value, list) and kind.items is not None and not _is_any(kind.items):
        items = [fit(item, kind.items, f"{place}[{index}]") for index, item in enumerate(value)]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if isinstance(value, dict) and kind.fields is not None:
        return _fit_record(value, kind.fields, place)
    return value


def has_files(field: Field) -> bool:
    """Say whether a field of the input is a file, or may have one in it."""
    return FILE in field.type or any(map(has_files, field.fields.values()))


def files_in(value: Any, kind: Type, place: str) -> Iterator[tuple[str, Any]]:
    """Yield what is given for files within a value that fits its type, each with its place, in their order."""
    if value is None:
        return
    if kind.kind == FILE:
        yield place, value
    elif isinstance(value, list) and kind.items is not None:
        for index, item in enumerate(value):
            yield from files_in(item, kind.items, f"{place}[{index}]")
    elif isinstance(value, dict) and kind.fields is not None:
        for name, inner in kind.fields.items():
            if name in value:
                yield from files_in(value[name], inner, f"{place}.{name}")


def with_files(value: Any, kind: Type, files: Iterator[Any]) -> Any:
    """Return the value with these files in place of those that `files_in` yields, in the same order."""
    if value is None:
        return None
    if kind.kind == FILE:
        return next(files)
    if isinstance(value, list) and kind.items is not None:
        return [with_files(item, kind.items, files) for item in value]
    if isinstance(value, dict) and kind.fields is not None:
        changed = {name: with_files(value[name], inner, files) for name, inner in kind.fields.items() if name in value}
        return {**value, **changed}
    return value


def _fit_record(value: dict[str, Any], fields: Mapping[str, Type], place: str) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name, kind in fields.items():
        if name in value:
            new = fit(value[name], kind, f"{place}.{name}")
            if new is not value[name]:
                changed[name] = new
        elif bytes(kind.default):
            changed[name] = msgspec.json.decode(kind.default)
        elif not kind.optional:
            raise Unfit(f"{place}.{name}", f"missing; expected {wanted(kind)}{_has(value)}")
    return {**value, **changed} if changed else value


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "any":
            return True
        case "float":
            return type(value) in (int, float)
        case "list":
            return isinstance(value, list)
        case "dict":
            return isinstance(value, dict)
        case _:
            return type(value) is SCALARS[kind]


def _is_any(kind: Type) -> bool:
    return kind.kind == "any"


def _has(value: Mapping[str, Any]) -> str:
    return f"; it has: {listed(value)}" if value else ""


def shown(value: Any) -> str:
    """Return what was found, as an error says it: its JSON type, and itself when it is short."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return f"the string {text}" if len(text) <= _SHOWN_MAX else "a string"
        case int() | float():
            return f"the number {value}" if abs(value) < _PLAIN_MAX else "a number"
        case _:
            return json_type(value)


def wanted(kind: Type) -> str:
    """Return what is expected, as an error says it: a type, or the values that there are."""
    return listed_values(kind.values) if kind.values else str(kind)


def listed_values(values: Iterable[Scalar], most: int = 12) -> str:
    """Return the values of which one is expected, as an error says it: `"refund" or "complaint"`."""
    words = [json.dumps(value, ensure_ascii=False) for value in values]
    if len(words) > most:
        return f"one of {', '.join(words[:most])} and {len(words) - most} more"
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def listed(names: Mapping[str, Any] | list[str], most: int = 12) -> str:
    """Return names as an error lists them: sorted, no more than so many, none too long."""
    shown_names = [name if len(name) <= _SHOWN_MAX else f"{name[: _SHOWN_MAX - 1]}…" for name in sorted(names)]
    more = f" and {len(shown_names) - most} more" if len(shown_names) > most else ""
    return ", ".join(shown_names[:most]) + more


def json_type(value: Any) -> str:
    """Return how JSON calls the type of a decoded value."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
