"""`key=value` arguments to the input of a flow, typed as the flow says; and what an option says of a budget."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from baton_actors.cli.exits import BadArgument, BadInputFile
from baton_actors.cli.input_files import all_files, as_if_stored, given_file, is_of_files
from baton_schemas.errors import FlowError, InputError, nearest
from baton_schemas.flow.budgets import read_budget
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.inputs import check_input, encode_input
from baton_schemas.flow.types import ANY, SCALARS, Type, Unfit, fit, type_of
from baton_schemas.wire.money import Budget
from baton_schemas.wire.names import check_token

BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_STDIN = "standard input"
_LINES = (".jsonl", ".ndjson")
_SPACE = " \t\r\n"
_FOUND_MAX = 60


class _Given(Struct, frozen=True):
    """What stands for the value of a key, or for an item of it."""

    text: str
    source: str = ""
    """The file that it is from, or `standard input`; empty for the argument itself."""

    @property
    def is_lines(self) -> bool:
        return self.source.endswith(_LINES)


def read_input(flow: Flow, pairs: Sequence[str], run_id: str) -> dict[str, Any]:
    """Return the input that these arguments give, which the flow takes; so is a run id, if one is given.

    A file is a `Path`, which was looked at, and is read when the run is started.

    Raises `BadArgument`, `BadInputFile`, `InputError`, `BadToken`: before anything is started.
    """
    if run_id:
        check_token("run id", run_id)
    given = read_pairs(flow, pairs)
    check_input(flow, encode_input({key: as_if_stored(value) for key, value in given.items()}))
    return given


def read_pairs(flow: Flow, pairs: Sequence[str]) -> dict[str, Any]:
    """Return the input that these arguments give.

    `key=@file` stands for the text of a file, or for the file itself where the input is one; `key=-` (or `@-`) for
    stdin, `key=@@…` for a text that begins with `@`. A string is taken as it is, all else is JSON. A list may be given
    whole, or item by item: by repeating its key, or as JSON lines (`@file.jsonl`; any JSON values one after another,
    unless they are to be texts). What is missing is left to `check_input`.

    Raises `BadArgument`, `BadInputFile`, `InputError`.
    """
    given: dict[str, list[_Given]] = {}
    files: dict[str, list[Any]] = {}
    stdin_is_for = ""
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise BadArgument(_no_pair(flow, pair))
        if key not in flow.input:
            raise InputError(flow.name, key, "the flow has no such input.", hint=nearest(key, flow.input))
        if text in ("-", "@-"):
            if stdin_is_for:
                raise BadArgument(f"{key!r} is to be read from standard input, as {stdin_is_for!r} was: it has one end")
            stdin_is_for = key
        if is_of_files(type_of(flow.input[key])):
            files.setdefault(key, []).append(given_file(flow, key, text))
        else:
            given.setdefault(key, []).append(_given(key, text))
    values = {key: _value(flow, key, found) for key, found in given.items()}
    return values | {key: all_files(type_of(flow.input[key]), key, found) for key, found in files.items()}


def _no_pair(flow: Flow, found: str) -> str:
    known = " ".join(f"{name}=…" for name in flow.input) or "no input"
    return f"expected key=value, found {found!r}. Flow {flow.name!r} takes {known}"


def _given(key: str, text: str) -> _Given:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # how Python gives us arguments that are no UTF-8
        raise BadArgument(f"input {key!r} is not UTF-8 (character {error.start})") from error
    if text in ("-", "@-"):
        if sys.stdin.isatty():
            print(f"{key}: type it here, Ctrl-D ends it", file=sys.stderr, flush=True)
        return _Given(_read(key, _STDIN), _STDIN)
    if text.startswith("@@") or not text.startswith("@"):
        return _Given(text.removeprefix("@") if text.startswith("@@") else text)
    return _Given(_read(key, text[1:]), text[1:])


def _read(key: str, source: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == _STDIN else Path(source).expanduser().read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputFile(key, source, f"is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise BadInputFile(key, source, f"cannot be read: {error.strerror or error}") from error


def read_text(key: str, text: str) -> str:
    """Return the text that an argument stands for: itself, that of `@file`, or what comes in (`-`).

    Raises `BadArgument`, `BadInputFile`.
    """
    return _given(key, text).text


# ---- values --------------------------------------------------------------------------------------


def _value(flow: Flow, key: str, given: list[_Given]) -> Any:
    kind = type_of(flow.input[key])
    if kind.kind == "list":
        return _list(flow, key, kind, given)
    if len(given) > 1:
        raise BadArgument(f"input {key!r} is given {len(given)} times; it is one {kind}")
    return _one(flow, key, kind, given[0])


def _list(flow: Flow, key: str, kind: Type, given: list[_Given]) -> Any:
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


def _one(flow: Flow, key: str, kind: Type, given: _Given) -> Any:
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


def _one_by_one(flow: Flow, key: str, kind: Type, given: _Given) -> Iterator[Any]:
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


def _fitted(flow: Flow, key: str, kind: Type, value: Any, given: _Given) -> Any:
    try:
        return fit(value, kind, key)
    except Unfit as error:
        if given.source:
            raise InputError(flow.name, error.place, f"{error.reason} (in {given.source})") from error
        if error.place == key:
            raise InputError(flow.name, key, f"found {_short(given.text)}; expected {_phrase(kind)}") from error
        raise InputError(flow.name, error.place, error.reason) from error


# ---- what is wrong with them -----------------------------------------------------------------------


def _refuse(flow: Flow, key: str, kind: Type, given: _Given, error: Exception) -> NoReturn:
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


def budget_from(text: str) -> Budget | None:
    """Return the budget that an option says; None for none. Raises `BadArgument`."""
    if not text:
        return None
    try:
        return read_budget(text)
    except FlowError as error:
        raise BadArgument(f"--budget {text}: expected {error.expected}") from error
