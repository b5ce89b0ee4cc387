"""`key=value` arguments to the input of a flow, typed as the flow says."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from baton_actors.cli.exits import BadArgument, BadInputFile
from baton_schemas.errors import InputError, nearest
from baton_schemas.flow.flow import INPUT_TYPES, Flow
from baton_schemas.flow.inputs import check_input, encode_input
from baton_schemas.wire.names import check_token

_BOOLS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def read_input(flow: Flow, pairs: Sequence[str], run_id: str) -> dict[str, Any]:
    """Return the input that these arguments give, which the flow takes; so is a run id, if one is given.

    Raises `BadArgument`, `BadInputFile`, `InputError`, `BadToken`: before anything is started.
    """
    if run_id:
        check_token("run id", run_id)
    given = read_pairs(flow, pairs)
    check_input(flow, encode_input(given))
    return given


def read_pairs(flow: Flow, pairs: Sequence[str]) -> dict[str, Any]:
    """Return the input that these arguments give.

    `key=@file` stands for the text of a file, `key=@-` for stdin, `key=@@…` for a text that begins with `@`.
    A string is taken as it is, other types are parsed, lists and dicts as JSON; a list of strings or numbers
    may also be given item by item, by repeating its key. What is missing is left to `check_input`.

    Raises `BadArgument`, `BadInputFile`, `InputError`.
    """
    texts: dict[str, list[str]] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise BadArgument(_no_pair(flow, pair))
        if key not in flow.input:
            raise InputError(flow.name, key, "the flow has no such input.", hint=nearest(key, flow.input))
        texts.setdefault(key, []).append(_text(key, text))
    return {key: _value(flow, key, found) for key, found in texts.items()}


def _no_pair(flow: Flow, found: str) -> str:
    known = " ".join(f"{name}=…" for name in flow.input) or "no input"
    return f"expected key=value, found {found!r}. Flow {flow.name!r} takes {known}"


def _text(key: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # how Python gives us arguments that are no UTF-8
        raise BadArgument(f"input {key!r} is not UTF-8 (character {error.start})") from error
    if text.startswith("@@") or not text.startswith("@"):
        return text.removeprefix("@") if text.startswith("@@") else text
    path = text[1:]
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).expanduser().read_bytes()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputFile(key, path, f"is not UTF-8 (byte {error.start})") from error
    except OSError as error:
        raise BadInputFile(key, path, f"cannot be read: {error.strerror or error}") from error


def _value(flow: Flow, key: str, texts: list[str]) -> Any:
    kind = flow.input[key].type
    item = {"list[str]": "str", "list[int]": "int", "list[float]": "float"}.get(kind)
    if item and (len(texts) > 1 or not texts[0].lstrip().startswith("[")):
        return [_scalar(flow, key, item, text) for text in texts]
    if len(texts) > 1:
        raise BadArgument(f"input {key!r} is given {len(texts)} times; it is one {kind}")
    return _scalar(flow, key, kind, texts[0])


def _scalar(flow: Flow, key: str, kind: str, text: str) -> Any:
    match kind:
        case "str":
            return text
        case "bool" if text.strip().lower() in _BOOLS:
            return _BOOLS[text.strip().lower()]
        case "bool":
            raise InputError(flow.name, key, f"found {_short(text)}; expected true or false")
    try:
        # msgspec knows no NaN, which Python's own parser would take.
        return msgspec.json.decode(text, type=INPUT_TYPES[kind])
    except (msgspec.DecodeError, RecursionError) as error:
        why = "" if kind in ("int", "float") else f" ({error})"
        raise InputError(flow.name, key, f"found {_short(text)}; expected {_phrase(kind)}{why}") from error


def _phrase(kind: str) -> str:
    match kind:
        case "int":
            return "a whole number"
        case "float":
            return "a number"
        case "dict":
            return "an object in JSON"
        case _:
            return f"{kind} in JSON"


def _short(text: str) -> str:
    return json.dumps(text if len(text) <= 60 else text[:59] + "…", ensure_ascii=False)
