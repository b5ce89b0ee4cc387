"""The JSON Schema of flow files, made of the very structs and limits that they are checked by, for editors.

It says what a file may be before Baton looks at it: with the shorthand that `file.py` writes out. What depends on more
than one key (that names lead somewhere, that steps form a graph) is left to `check_flow`.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import combinations
from typing import Any

import msgspec
from msgspec import Struct

from baton_schemas.flow.budgets import TOKENS_MAX, USD_MAX
from baton_schemas.flow.check_models import LIMIT_MAX, SLOTS_MAX
from baton_schemas.flow.file import NOT_WRITTEN
from baton_schemas.flow.flow import (
    DEFAULT_TIERS,
    FORMAT,
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
from baton_schemas.flow.limits import (
    BATCH_COUNT_MAX,
    BATCH_SECONDS_MAX,
    CONCURRENCY_MAX,
    DEADLINE_MAX_S,
    PARTS_MAX,
    ROUNDS_MAX,
    TIMEOUT_MAX_S,
    TOOL_OUTPUT_BYTES_MAX,
)
from baton_schemas.flow.types import PATTERN, VALUES_MAX
from baton_schemas.wire.money import Budget
from baton_schemas.wire.names import RESERVED, TOKEN

Schema = dict[str, Any]

_DRAFT = "http://json-schema.org/draft-07/schema#"
"""The latest that the TOML plug-ins of editors read."""
_NAME = {"pattern": f"^{TOKEN.pattern.removesuffix(chr(92) + 'Z')}$"}
_FREE_NAME = {**_NAME, "not": {"enum": sorted(RESERVED)}}
_TIMEOUT = {"exclusiveMinimum": 0, "maximum": TIMEOUT_MAX_S}
_DEADLINE = {"exclusiveMinimum": 0, "maximum": DEADLINE_MAX_S}
_USD = {"exclusiveMinimum": 0, "maximum": USD_MAX}
_TOKENS = {"minimum": 1, "maximum": TOKENS_MAX}
_BOUNDS: dict[type[Struct], dict[str, Schema]] = {
    Agent: {
        "max_tokens": {"minimum": 0},
        "handler": {"pattern": "^$|^[^:]+:[^:]+$"},
        "actor": {"pattern": f"^$|{_NAME['pattern']}"},
        "concurrency": {"minimum": 1},
        "max_in_flight": {"minimum": 1},
        "max_attempts": {"minimum": 1},
        "timeout_s": _TIMEOUT,
        "retry_base_s": {"exclusiveMinimum": 0},
        "retry_max_s": {"exclusiveMinimum": 0},
        "fallback": {"uniqueItems": True},
        "overload_max_s": _TIMEOUT,
        "workers": {"uniqueItems": True},
        "max_rounds": {"minimum": 1},
        "max_asks": {"minimum": 1},
        "max_depth": {"minimum": 1},
        "max_calls": {"minimum": 1},
        "tool_timeout_s": _TIMEOUT,
        "tool_output_bytes": {"minimum": 1, "maximum": TOOL_OUTPUT_BYTES_MAX},
        "in_doubt": {"pattern": _NAME["pattern"]},
        "park_after_s": _TIMEOUT,
        "person": {"pattern": f"^$|{_NAME['pattern']}"},
        "deadline_s": _DEADLINE,
    },
    Tier: {"model": {"minLength": 1}, "max_tokens": {"minimum": 0}},
    Provider: {"base_url": {"pattern": "^https?://"}, "key_env": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$|^$"}},
    Limit: {
        "requests_per_minute": {"minimum": 1, "maximum": LIMIT_MAX},
        "tokens_per_minute": {"minimum": 1, "maximum": LIMIT_MAX},
        "concurrency": {"minimum": 1, "maximum": SLOTS_MAX},
    },
    UsedTool: {"use": {"minLength": 1}, "max_uses": {"minimum": 1}},
    Mcp: {"command": {"items": {"type": "string", "minLength": 1}}, "url": {"pattern": r"^$|^https?://|^\$\{"}},
    Field: {"type": {"pattern": PATTERN}},
    JoinPolicy: {"wait": {"minimum": 1}, "min_done": {"minimum": 0}, "deadline_s": _DEADLINE},
    Step: {"timeout_s": _TIMEOUT, "concurrency": {"minimum": 1, "maximum": CONCURRENCY_MAX}},
    BatchPolicy: {
        "count": {"minimum": 1, "maximum": BATCH_COUNT_MAX},
        "seconds": {"exclusiveMinimum": 0, "maximum": BATCH_SECONDS_MAX},
    },
    Again: {"max_rounds": {"minimum": 2, "maximum": ROUNDS_MAX}},
    Budget: {
        "usd": _USD,
        "tokens": _TOKENS,
        "usd_per_day": _USD,
        "tokens_per_day": _TOKENS,
    },
    Flow: {"name": _NAME, "v": {"enum": [FORMAT]}, "deadline_s": _DEADLINE},
}
"""What the checks say of a key besides its type."""


def flow_schema() -> Schema:
    """Return the JSON Schema (draft 7) of flow files."""
    join = {"anyOf": [{"enum": ["all"]}, {"type": "integer", **_BOUNDS[JoinPolicy]["wait"]}, _ref("join")]}
    after = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}
    field = {"anyOf": [_ref("type"), _ref("values"), _ref("input")]}
    output = {"anyOf": [_tables(field), {"type": "string", "pattern": r"\.json$"}]}
    tool = {"anyOf": [{"type": "string", "minLength": 1}, _ref("tool")]}
    tools = {"type": "array", "items": tool}
    policy = _ref("batch")
    agent = _table(Agent, tools=tools, input=_tables(field, _FREE_NAME), output=output, default={}, batch=policy)
    kinds = (["handler"], ["prompt", "model"], ["person", "prompt"], ["flow"])
    agent["anyOf"] = [{"required": kind} for kind in kinds]
    agent["not"] = {"anyOf": [{"required": list(pair)} for pair in combinations(("handler", "prompt", "flow"), 2)]}
    # Of a tier that is there anyway a file need say only what is to be otherwise.
    known = {name: {"anyOf": [_ref("known-tier"), _ref("model")]} for name in DEFAULT_TIERS}
    flow = _table(
        Flow,
        input=_tables(field, _FREE_NAME),
        tiers={**_tables({"anyOf": [_ref("tier"), _ref("model")]}), "properties": known},
        providers=_tables(_ref("provider"), _NAME),
        limits=_tables(_ref("limit")),
        agents=_tables(_ref("agent"), _NAME),
        steps=_tables(_ref("step"), _FREE_NAME),
        budget=_ref("budget"),
        mcp=_tables(_ref("mcp"), _NAME),
    )
    return {
        "$schema": _DRAFT,
        "title": "A flow of Baton",
        **flow,
        "definitions": {
            "type": {"type": "string", **_BOUNDS[Field]["type"]},
            "values": _type(list[str | int]) | {"minItems": 1, "maxItems": VALUES_MAX},
            "input": _table(Field, default={}, fields=_tables(field)),
            "model": {"type": "string", **_BOUNDS[Tier]["model"]},
            "tier": _table(Tier),
            "known-tier": _table(Tier, optional={"model"}),
            "provider": _table(Provider),
            "limit": _table(Limit),
            "agent": agent,
            "tool": _table(UsedTool),
            "mcp": _table(Mcp),
            "step": _table(
                Step,
                optional={"agent"},
                after=after,
                join=join,
                when=_ref("conditions"),
                again=_ref("again"),
                batch=_ref("batch"),
            ),
            "conditions": _conditions(),
            "again": _table(Again, when=_ref("conditions")),
            "batch": _table(BatchPolicy),
            "join": _table(JoinPolicy),
            "budget": {**_table(Budget), "minProperties": 1},
        },
    }


def _conditions() -> Schema:
    """Return the schema of a condition: values by path, whose parts may be tables within each other."""
    scalar = {"type": ["string", "number", "boolean"]}
    values = {"type": "array", "items": scalar, "minItems": 1}
    return {
        "type": "object",
        "minProperties": 1,
        "maxProperties": PARTS_MAX,
        "additionalProperties": {"anyOf": [scalar, values, _ref("conditions")]},
    }


def _table(kind: type[Struct], optional: set[str] | frozenset[str] = frozenset(), **own: Schema) -> Schema:
    """Return the schema of a table of a flow file: each key with its type, bounds, default and what is said of it.

    `own` are the schemas of keys that a file may write in more ways than the struct has.
    """
    hidden = NOT_WRITTEN.get(kind, frozenset())
    fields = [field for field in msgspec.structs.fields(kind) if field.name not in hidden]
    said, bounds = _said(kind), _BOUNDS.get(kind, {})
    properties: Schema = {}
    for field in fields:
        name = field.encode_name
        schema = own[name] if name in own else _bounded(_type(field.type), bounds.get(name, {}))
        told = {"description": said[field.name]} if field.name in said else {}
        default = {"default": field.default} if isinstance(field.default, int | float) and field.default else {}
        properties[name] = {**told, **schema, **default}
    required = [field.encode_name for field in fields if field.required and field.encode_name not in optional]
    return {
        "type": "object",
        "description": f"{(inspect.getdoc(kind) or '').partition('.')[0]}.",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _type(kind: Any) -> Schema:
    """Return the schema of a field's type as TOML can say it: there is no null. One that has none may be anything."""
    try:
        schema = msgspec.json.schema(kind)
    except TypeError:  # `Raw` in it
        return {}
    options = [option for option in schema.get("anyOf", [schema]) if option != {"type": "null"}]
    return options[0] if len(options) == 1 else {"anyOf": options}


def _bounded(schema: Schema, bounds: Schema) -> Schema:
    if "anyOf" in schema:
        return {"anyOf": [option if "enum" in option else option | bounds for option in schema["anyOf"]]}
    return schema | bounds


def _tables(each: Schema, names: Schema | None = None) -> Schema:
    """Return the schema of a table of tables, by name."""
    named = {"propertyNames": names, "maxProperties": PARTS_MAX} if names else {}
    return {"type": "object", **named, "additionalProperties": each}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


@cache
def _said(kind: type[Struct]) -> dict[str, str]:
    """Return what is said of each field of a struct: the string below it, on one line. Nothing without the source."""
    try:
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    except OSError:
        return {}
    assert isinstance(body, ast.ClassDef)
    said: dict[str, str] = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                said[name] = " ".join(text.split())
            case _:
                pass
    return said
