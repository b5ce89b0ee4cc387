"""`key=value` arguments to the input of a flow, typed as the flow says; and what an option says of a budget."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baton_actors.cli.exits import BadArgument, BadInputFile
from baton_actors.cli.input_files import all_files, as_if_stored, given_file, is_of_files
from baton_schemas.errors import FlowError, InputError, nearest
from baton_schemas.flow.budgets import read_budget
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.inputs import check_input, encode_input
from baton_schemas.flow.typed import Typed, read_value
from baton_schemas.flow.types import type_of
from baton_schemas.wire.money import Budget
from baton_schemas.wire.names import check_token

_STDIN = "standard input"


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
    given: dict[str, list[Typed]] = {}
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


def _given(key: str, text: str) -> Typed:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # how Python gives us arguments that are no UTF-8
        raise BadArgument(f"input {key!r} is not UTF-8 (character {error.start})") from error
    if text in ("-", "@-"):
        if sys.stdin.isatty():
            print(f"{key}: type it here, Ctrl-D ends it", file=sys.stderr, flush=True)
        return Typed(_read(key, _STDIN), _STDIN)
    if text.startswith("@@") or not text.startswith("@"):
        return Typed(text.removeprefix("@") if text.startswith("@@") else text)
    return Typed(_read(key, text[1:]), text[1:])


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


def _value(flow: Flow, key: str, given: list[Typed]) -> Any:
    kind = type_of(flow.input[key])
    if len(given) > 1 and kind.kind != "list":
        raise BadArgument(f"input {key!r} is given {len(given)} times; it is one {kind}")
    return read_value(flow, key, kind, given)


def budget_from(text: str) -> Budget | None:
    """Return the budget that an option says; None for none. Raises `BadArgument`."""
    if not text:
        return None
    try:
        return read_budget(text)
    except FlowError as error:
        raise BadArgument(f"--budget {text}: expected {error.expected}") from error
