"""Flow files: TOML to a checked `Flow`. Shorthand is written out; a mistake names its line and key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Raw, Struct

from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import (
    DEFAULT_TIERS,
    IN_PROCESS,
    Again,
    Agent,
    BatchPolicy,
    Field,
    Flow,
    JoinPolicy,
    Limit,
    Mcp,
    Provider,
    Step,
    Tier,
    UsedTool,
)
from baton_schemas.flow.nested import FindFlow, with_flows
from baton_schemas.flow.schema_files import ReadSchema, read_none, read_schema, with_schemas
from baton_schemas.flow.toml_lines import line_of
from baton_schemas.wire.money import Budget

Table = dict[str, Any]
S = TypeVar("S", bound=Struct)

NOT_WRITTEN: dict[type[Struct], frozenset[str]] = {Flow: frozenset({"flows"}), Agent: frozenset({"output_schema"})}
"""What is in a flow, and not written in its file."""
_PHRASES: dict[Any, str] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list[str]: "a list of strings",
    list[UsedTool]: "a list of tools, as ['./tools.py:search', 'web_search']",
    dict[str, str]: "a table of strings",
    dict[str, Field]: "a table of types, as { kind = 'str' }",
    list[str | int]: "a list of texts or of whole numbers",
}


def find_none(name: str) -> Flow:
    """Find no flow: for texts whose agents are none."""
    raise FlowError("flow", repr(name), "no flow as an agent, where no flows can be looked for")


def read_flow(path: Path, find: FindFlow = find_none) -> Flow:
    """Return the flow in a file, checked; `find` finds those within it.

    Raises `FlowError`, also when the file can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FlowError(
            str(path), "no such file", "a flow file in TOML", hint="Check the path, or run from its folder."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise FlowError(str(path), f"a file that can't be read ({error})", "a flow file in UTF-8") from error
    return load_flow(text, str(path), find, lambda name: read_schema(name, path.parent))


def load_flow(text: str, file: str = "", find: FindFlow = find_none, read: ReadSchema = read_none) -> Flow:
    """Return the flow in a TOML text, checked. Raises `FlowError` with `file`, the line and the key path.

    Paths in `handler` and `flow` stay as they are written, relative to the flow file, so that a flow has the same
    digest on every machine.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(text, str(error)).in_file(file) from error
    try:
        flow = _flow(data)
        _refuse_functions(flow)
        flow = with_schemas(with_flows(flow, find), read)
        check_flow(flow)
    except FlowError as error:
        if error.file:  # that of a flow within it
            raise
        line = line_of(text, error.place, error.near)
        place = f"line {line}, {error.place}" if line else error.place
        raise FlowError(place, error.found, error.expected, file=file, hint=error.hint) from error.__cause__
    return flow


def build_flow(data: Table, find: FindFlow = find_none, read: ReadSchema = read_none) -> Flow:
    """Return the flow in tables such as a flow file has, checked. Raises `FlowError`, which names the flow and the key.

    Handlers may be functions of the program that builds it (`in-process:name`), which no file can name.
    """
    try:
        flow = with_schemas(with_flows(_flow(data), find), read)
        check_flow(flow)
    except FlowError as error:
        if error.file:
            raise
        raise error.in_file(f"flow {data.get('name')!r}") from error.__cause__
    return flow


def _refuse_functions(flow: Flow) -> None:
    for name, agent in flow.agents.items():
        for index, tool in enumerate(agent.tools):
            if tool.use.startswith(IN_PROCESS):
                raise FlowError(
                    f"agents.{name}.tools[{index}]",
                    repr(tool.use),
                    "'module:name' or './file.py:name'",
                    hint="Functions of a program are only in flows that it builds in Python.",
                )
        if agent.handler.startswith(IN_PROCESS):
            raise FlowError(
                f"agents.{name}.handler",
                repr(agent.handler),
                "'module:name' or './file.py:name'",
                hint="Functions of a program are only in flows that it builds in Python.",
            )


def _syntax_error(text: str, reason: str) -> FlowError:
    # The position is an attribute of the error only from Python 3.14 on.
    what, _, where = reason.rpartition(" (at ")
    match = re.match(r"line (\d+), column (\d+)", where)
    lines = text.splitlines() or [""]
    line, column = (match[1], match[2]) if match else (len(lines), len(lines[-1]) + 1)
    return FlowError(f"line {line}, column {column}", f"text that is not TOML ({what or reason})", "TOML 1.0")


def _flow(data: Table) -> Flow:
    _check_keys("", data, Flow)
    tables: dict[str, Any] = {
        "input": {name: _field(f"input.{name}", value) for name, value in _tables(data, "input").items()},
        "tiers": {
            **DEFAULT_TIERS,
            **{name: _tier(name, value) for name, value in _tables(data, "tiers").items()},
        },
        "providers": {
            name: _struct(f"providers.{name}", value, Provider) for name, value in _tables(data, "providers").items()
        },
        "limits": {name: _limit(name, value) for name, value in _tables(data, "limits").items()},
        "agents": {name: _agent(name, value) for name, value in _tables(data, "agents").items()},
        "mcp": {name: _struct(f"mcp.{name}", value, Mcp) for name, value in _tables(data, "mcp").items()},
        "steps": {name: _step(name, value) for name, value in _tables(data, "steps").items()},
    }
    if "budget" in data:
        tables["budget"] = _struct("budget", data["budget"], Budget)
    return _struct("", {**data, **tables}, Flow)


def _tables(data: Table, key: str, within: str = "") -> Table:
    value = data.get(key, {})
    if not isinstance(value, dict):
        place = _join(within, key)
        raise FlowError(place, _found(value), f"a table, as [{place}]")
    return value


def _agent(name: str, value: Any) -> Agent:
    place, table = f"agents.{name}", value
    if isinstance(table, dict):
        for key in ("input", "output"):
            if isinstance(table.get(key), dict):
                fields = {field: _field(f"{place}.{key}.{field}", told) for field, told in table[key].items()}
                table = {**table, key: fields}
        if table.get("answers") == []:
            raise FlowError(f"{place}.answers", "an empty list", "what may be answered, or no `answers` for anything")
        if "default" in table:
            table = {**table, "default": Raw(msgspec.json.encode(table["default"]))}
        if "batch" in table:
            table = {**table, "batch": _struct(f"{place}.batch", table["batch"], BatchPolicy)}
        if isinstance(table.get("tools"), list):
            table = {**table, "tools": [_tool(f"{place}.tools[{n}]", told) for n, told in enumerate(table["tools"])]}
    return _struct(place, table, Agent)


def _tool(place: str, value: Any) -> UsedTool:
    if isinstance(value, dict) and value.get("max_uses") == 0:
        hint = "Leave the tool out for none, and `max_uses` for as often as the provider allows."
        raise FlowError(f"{place}.max_uses", "0", "a whole number of at least 1", hint=hint)
    return _struct(place, {"use": value} if isinstance(value, str) else value, UsedTool, "the name of a tool, or ")


def _field(place: str, value: Any) -> Field:
    table = {"type": value} if isinstance(value, str) else value
    if isinstance(table, list):
        table = {"values": table}
    if isinstance(table, dict) and isinstance(table.get("values"), list):
        table = {"type": _type_of_values(f"{place}.values", table["values"]), **table}
    if isinstance(table, dict) and "default" in table:
        table = {**table, "default": Raw(msgspec.json.encode(table["default"]))}
    if isinstance(table, dict) and "fields" in table:
        inner = table["fields"]
        if not isinstance(inner, dict):
            raise FlowError(f"{place}.fields", _found(inner), 'a table of types, as { id = "int", note = "str?" }')
        fields = {name: _field(f"{place}.fields.{name}", field) for name, field in inner.items()}
        table = {"type": "dict", **table, "fields": fields}
    return _struct(place, table, Field, "a type such as 'str', or ")


def _type_of_values(place: str, values: list[Any]) -> str:
    if not values:
        raise FlowError(place, "an empty list", "the values that there are, as ['refund', 'complaint']")
    if not all(type(value) is type(values[0]) for value in values) or type(values[0]) not in (str, int):
        raise FlowError(place, _found(values), "texts, or whole numbers, as ['refund', 'complaint']")
    return "str" if isinstance(values[0], str) else "int"


def _tier(name: str, value: Any) -> Tier:
    table = {"model": value} if isinstance(value, str) else value
    if isinstance(table, dict) and name in DEFAULT_TIERS:
        table = {**msgspec.structs.asdict(DEFAULT_TIERS[name]), **table}
    return _struct(f"tiers.{name}", table, Tier, "a model id, or ")


def _limit(name: str, value: Any) -> Limit:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, dict) and inner.keys() & {field.name for field in msgspec.structs.fields(Limit)}:
                expected = "the name of the model in quotation marks, as a dot in it begins another table"
                raise FlowError(f"limits.{name}.{key}", "a table", expected, hint=f'Write [limits."{name}.{key}"].')
    return _struct(f"limits.{name}", value, Limit)


def _step(name: str, value: Any) -> Step:
    if not isinstance(value, dict):
        return _struct(f"steps.{name}", value, Step)
    table = {"agent": name, **value}
    if isinstance(table.get("after"), str):
        table["after"] = [table["after"]]
    if "join" in table:
        join = table["join"]
        short = {"wait": join} if isinstance(join, str | int) else join
        table["join"] = _struct(f"steps.{name}.join", short, JoinPolicy, "'all', a number, or ")
    if "when" in table:
        table["when"] = _conditions(f"steps.{name}.when", table["when"])
    if "batch" in table:
        table["batch"] = _struct(f"steps.{name}.batch", table["batch"], BatchPolicy)
    if "again" in table:
        table["again"] = _again(f"steps.{name}.again", table["again"])
    return _struct(f"steps.{name}", table, Step)


def _again(place: str, value: Any) -> Again:
    if isinstance(value, dict) and "when" in value:
        value = {**value, "when": _conditions(f"{place}.when", value["when"])}
    return _struct(place, value, Again)


def _conditions(place: str, value: Any) -> Table:
    """Return conditions by path: `classify.kind = "refund"` without quotes is a table within one in TOML."""
    if not isinstance(value, dict):
        raise FlowError(place, _found(value), 'a table, as { "classify.kind" = "refund" }')
    found: Table = {}
    for path, wanted in value.items():
        here = f"{place}.{path}"
        if isinstance(wanted, dict) and wanted:
            found |= {f"{path}.{rest}": inner for rest, inner in _conditions(here, wanted).items()}
            continue
        for each in wanted if isinstance(wanted, list) else [wanted]:
            if not isinstance(each, str | int | float):
                raise FlowError(here, _found(each), "a text, a number, true or false, or a list of them")
        found[path] = wanted
    return found


def _struct(place: str, table: Any, kind: type[S], shorthand: str = "") -> S:
    """Convert key by key, so that an error can name the key."""
    if not isinstance(table, dict):
        raise FlowError(place, _found(table), f"{shorthand}a table, as [{place}]")
    types = _check_keys(place, table, kind)
    for key, value in table.items():
        try:
            msgspec.convert(value, types[key])
        except msgspec.ValidationError as error:
            raise FlowError(_join(place, key), _found(value), _phrase(types[key])) from error
    return msgspec.convert(table, kind)


def _check_keys(place: str, table: Table, kind: type[Struct]) -> Table:
    """Return the types of the keys of a table, all of which are known and none of which is missing."""
    fields = [field for field in msgspec.structs.fields(kind) if field.name not in NOT_WRITTEN.get(kind, ())]
    types = {field.encode_name: field.type for field in fields}
    for key in table:
        if key not in types:
            close = nearest(key, types)
            raise FlowError(
                _join(place, key),
                f"the unknown key {key!r}",
                f"one of {', '.join(types)}",
                hint=close if close.startswith("Did") else "",
            )
    for field in fields:
        name = field.encode_name
        if field.required and name not in table:
            raise FlowError(place or name, f"no {name!r}", f"{name} = {_phrase(field.type)}")
    return types


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _phrase(kind: Any) -> str:
    """Say what a type is, in the words of someone who writes TOML."""
    if get_origin(kind) is Literal:
        return " or ".join(repr(value) for value in get_args(kind))
    args = [arg for arg in get_args(kind) if arg is not type(None)]
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_phrase(arg) for arg in args)
    return _PHRASES.get(kind, "a table")


def _found(value: Any) -> str:
    match value:
        case dict():
            return "a table"
        case list():
            return f"the list {value!r}"
        case bool():
            return str(value).lower()
        case str():
            return f"the string {value!r}"
        case _:
            return str(value)
