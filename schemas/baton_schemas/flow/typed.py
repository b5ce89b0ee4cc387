"""Texts that somebody typed, as the values that a flow takes: by the type of each input. Pure.

A string is taken as it is, all else is JSON; a list may be given whole, or item by item.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from baton_schemas.errors import InputError
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.types import ANY, SCALARS, Type, Unfit, fit

BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_LINES = (".jsonl", ".ndjson")
_SPACE = " \t\r\n"
_FOUND_MAX = 60


class Typed(Struct, frozen=True):
    """What stands for a value, or for an item of it."""

    text: str
    source: str = ""
    """Where it is from: a file, or `standard input`; empty for what was typed itself."""

    @property
    def is_lines(self) -> bool:
        """Whether it is values one after another, by the name of its file."""
        return self.source.endswith(_LINES)


def read_value(flow: Flow, key: str, kind: Type, given: Sequence[Typed]) -> Any:
    """Return the value that one or more texts give for an input of this type; several for a list. Raises `InputError`.

    What is missing in it is left to `check_input`.
    """
    if kind.kind == "list":
        return _list(flow, key, kind, given)
    return _one(flow, key, kind, given[0])


def _list(flow: Flow, key: str, kind: Type, given: Sequence[Typed]) -> Any:
    """Return a list that is given whole, or item by item."""
    first = given[0]
    if len(given) == 1 and not first.is_lines and first.text.lstrip(_SPACE).startswith("["):
        return _one(flow, key, kind, first)
    item, items = kind.items or ANY, []
    for part in given:
        if item.kind in SCALARS and not part.is_lines:
            items.append(_one(flow, key, item, part))
        else:
            items += _one_by_one(flow, key, kind, part)
    return _fitted(flow, key, kind, items, given[0])


def _one(flow: Flow, key: str, kind: Type, given: Typed) -> Any:
    text = given.text
    match kind.kind:
        case "str":
            return text
        case "bool" if text.strip().lower() in BOOLS:
            return BOOLS[text.strip().lower()]
    try:
        # msgspec knows no NaN, which Python's own parser would take.
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        _refuse(flow, key, kind, given, error)
    return _fitted(flow, key, kind, value, given)


def _one_by_one(flow: Flow, key: str, kind: Type, given: Typed) -> Iterator[Any]:
    """Yield the JSON values that stand in a text one after another, such as one a line."""
    text, at = given.text, 0
    if not text.strip() and not given.is_lines:
        raise InputError(flow.name, key, f"{given.source or 'the argument'} is empty; expected {_phrase(kind)}")
    while at < len(text):
        if text[at] in _SPACE:
            at += 1
            continue
        try:
            value, at = _reader.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            _refuse(flow, key, kind, given, error)
        yield value


def _fitted(flow: Flow, key: str, kind: Type, value: Any, given: Typed) -> Any:
    try:
        return fit(value, kind, key)
    except Unfit as error:
        if given.source:
            raise InputError(flow.name, error.place, f"{error.reason} (in {given.source})") from error
        if error.place == key:
            raise InputError(flow.name, key, f"found {_short(given.text)}; expected {_phrase(kind)}") from error
        raise InputError(flow.name, error.place, error.reason) from error


# ---- what is wrong with them -------------------------------------------------------------------------


def _refuse(flow: Flow, key: str, kind: Type, given: Typed, error: Exception) -> NoReturn:
    """Say what is wrong with a text that is no JSON, and where."""
    where = _where(given.text, error)
    if given.source:
        line = f", {where[0]}" if where[0] else ""
        reason = f"{given.source}{line}: no JSON ({where[1]}); expected {_phrase(kind)}"
    else:
        why = "" if kind.kind in ("int", "float", "bool") else f" ({', '.join(filter(None, where))})"
        reason = f"found {_short(given.text)}; expected {_phrase(kind)}{why}"
    raise InputError(flow.name, key, reason) from error


def _where(text: str, error: Exception) -> tuple[str, str]:
    """Return the line and the column of what is wrong, where that is known, and what it is."""
    found: Exception = error
    if not isinstance(error, json.JSONDecodeError):
        try:
            _reader.decode(text)
        except (ValueError, RecursionError) as told:
            found = told
    if isinstance(found, json.JSONDecodeError):
        return f"line {found.lineno}, column {found.colno}", found.msg[:1].lower() + found.msg[1:]
    if isinstance(found, RecursionError):
        return "", "nested too deep"
    return "", str(found)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")


_reader = json.JSONDecoder(parse_constant=_no_number)


def _phrase(kind: Type) -> str:
    match kind.kind:
        case "int":
            return "a whole number"
        case "float":
            return "a number"
        case "bool":
            return "true or false"
        case "dict":
            return "an object in JSON"
        case "any":
            return "JSON (a text in quotes: '\"…\"')"
        case _:
            return f"{kind} in JSON"


def _short(text: str) -> str:
    return json.dumps(text if len(text) <= _FOUND_MAX else text[: _FOUND_MAX - 1] + "…", ensure_ascii=False)
