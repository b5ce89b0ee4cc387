"""`key=@file` for inputs that are files: looked at before anything is started, and read when the run is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from baton_actors.cli.exits import BadArgument
from baton_bus.client.files import check_file
from baton_schemas.errors import BadFile, InputError
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.types import FILE, Type
from baton_schemas.wire.files import FILE_MAX_BYTES, File
from baton_schemas.wire.given_files import given_in


def is_of_files(kind: Type) -> bool:
    """Say whether an input of this type is a file, or a list of files."""
    return kind.kind == FILE or (kind.items is not None and kind.items.kind == FILE)


def given_file(flow: Flow, key: str, text: str) -> Any:
    """Return what an argument gives for a file: a `Path` for `@file`, what comes in for `-`, or a text.

    Raises `InputError`.
    """
    try:
        if text in ("-", "@-"):
            return _of_stdin(key)
        if text.startswith("@") and not text.startswith("@@"):
            path = Path(text[1:]).expanduser()
            check_file(path)
            return path
        return _checked(text.removeprefix("@") if text.startswith("@@") else text)
    except BadFile as error:
        raise InputError(flow.name, key, str(error)) from error
    except ValueError as error:
        raise InputError(flow.name, key, _short(str(error))) from error


def all_files(kind: Type, key: str, given: list[Any]) -> Any:
    """Return what these arguments give together. Raises `BadArgument` for several where there can be one."""
    if kind.kind != FILE:
        return [each for one in given for each in (one if isinstance(one, list) else [one])]
    if len(given) > 1:
        raise BadArgument(f"input {key!r} is given {len(given)} times; it is one {kind}")
    return given[0]


def as_if_stored(value: Any) -> Any:
    """Return a value with something that fits in place of each file that is still to be read: to check the rest."""
    if isinstance(value, Path):
        return {"file": {"name": "file", "text": ""}}
    if isinstance(value, Mapping):
        return {key: as_if_stored(inner) for key, inner in value.items()}
    return [as_if_stored(inner) for inner in value] if isinstance(value, list) else value


def _checked(text: str) -> Any:
    """Return a text that is the content of a file; or, as JSON, what stands for a file that is stored, or several."""
    value: Any = text
    if text.lstrip().startswith(('{"file"', '[{"file"')):
        try:
            value = msgspec.json.decode(text)
        except msgspec.DecodeError:
            value = text
    for each in value if isinstance(value, list) else [value]:
        given_in(each)
    return value


def _of_stdin(key: str) -> File:
    if sys.stdin.isatty():
        print(f"{key}: type it here, Ctrl-D ends it", file=sys.stderr, flush=True)
    data = sys.stdin.buffer.read(FILE_MAX_BYTES + 1)
    return File.of(data, name="stdin")


def _short(reason: str) -> str:
    return reason if len(reason) <= 500 else f"{reason[:499]}…"
