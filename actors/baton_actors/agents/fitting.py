"""Whether what steps put out can be what the next ones take, as far as annotations tell. Pure; nothing is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from types import GenericAlias
from typing import Any, get_args, get_origin

import msgspec

from baton_actors.agents.fitting_conditions import unlikely
from baton_actors.agents.handlers import BUILT_IN, Handler, source_of
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.outputs import type_of_output
from baton_schemas.flow.types import json_type, python_type, type_of
from baton_schemas.wire.files import File

_LIST = frozenset({"array"})
_SHOWN = {"array": "a list", "object": "an object", "string": "a text", "boolean": "true or false"} | {
    "null": "nothing",
    "file": "a file",
}

_FILE = {"type": ["file", "object"]}
"""What stands for a file is an object: a handler that takes a dict gets that."""

Kinds = frozenset[str] | None
"""The types that JSON has for a value: `array`, `object`, `string`, `number`, `boolean`, `null`. None: any."""


def misfits(plan: Plan, handlers: Mapping[str, Handler]) -> Iterator[tuple[str, str]]:
    """Yield what cannot work, as its place in the flow and a sentence; `handlers` as `load_handlers` returns them.

    A step that fans out over what is no list; a handler's parameter of a type that its value never has. What no
    annotation tells is passed over.
    """
    for name in [each for each in plan.order if each not in plan.implied]:
        step = plan.flow.steps[name]
        root, *path = step.each.split(".")
        if step.each and root in plan.flow.steps:
            over = kinds_of(_whole(plan, root, handlers))
            expected = frozenset({"object"}) if path else _LIST
            if over is not None and not over & expected:
                yield (
                    f"steps.{name}.each",
                    f"step {root!r} puts out {_words(over)}, and no {'keys' if path else 'items'}: expected a list",
                )
        for looked_at, said in unlikely(step.when, partial(_whole_output, plan, handlers)):
            yield f"steps.{name}.when", f"{looked_at} {said}"
        again = step.again.when if step.again else None
        for looked_at, said in unlikely(again, partial(_whole_output, plan, handlers)):
            yield f"steps.{name}.again.when", f"{looked_at} {said}"
        handler = handlers.get(plan.agent(name).handler)
        if handler is not None:
            yield from _misfits_of(plan, name, handler, handlers)


def _misfits_of(plan: Plan, step: str, handler: Handler, handlers: Mapping[str, Handler]) -> Iterator[tuple[str, str]]:
    known = plan.reads[step] | BUILT_IN
    for parameter in handler.parameters:
        decoder, source = parameter.decoder, source_of(parameter.name, known)
        if decoder is None or source is None or parameter.branches:
            continue
        why = plan.why_lacking(step, source) if parameter.default is msgspec.NODEFAULT else ""
        if why and (kinds := kinds_of(decoder.type)) is not None and "null" not in kinds:
            yield (
                f"steps.{step}",
                f"parameter {parameter.name!r} of {plan.agent(step).handler} takes {_words(kinds)}; {why}: take "
                f"None too, or give it a default",
            )
        wanted, given = kinds_of(decoder.type), kinds_of(_value(plan, step, source, handlers))
        if wanted is not None and given is not None and not wanted & given:
            yield (
                f"steps.{step}",
                f"parameter {parameter.name!r} of {plan.agent(step).handler} takes {_words(wanted)}; "
                f"{_named(plan, source)} is {_words(given)}",
            )


def kinds_of(annotation: Any) -> Kinds:
    """Return the types in JSON of what an annotation means; None when it may be any, or is not known."""
    try:
        schema = msgspec.json.schema(annotation, schema_hook=lambda kind: _FILE if kind is File else {})
    except (TypeError, NameError, RecursionError):
        return None
    return _kinds(schema, schema.get("$defs", {}))


def _kinds(schema: dict[str, Any], named: dict[str, Any]) -> Kinds:
    if "$ref" in schema:
        return _kinds(named[schema["$ref"].rpartition("/")[2]], named)
    if "anyOf" in schema:
        found = [_kinds(option, named) for option in schema["anyOf"]]
        return None if None in found else frozenset().union(*(kinds for kinds in found if kinds))
    if "enum" in schema:
        return frozenset(_of_value(value) for value in schema["enum"])
    if "const" in schema:
        return frozenset({_of_value(schema["const"])})
    kinds = schema.get("type")
    if kinds is None:
        return None
    if schema.get("format") == "decimal":  # decoders take either
        return frozenset({"string", "number"})
    return frozenset("number" if kind == "integer" else kind for kind in ([kinds] if isinstance(kinds, str) else kinds))


def _of_value(value: Any) -> str:
    words = {"an object": "object", "a list": "array", "a string": "string", "true or false": "boolean", "null": "null"}
    return words.get(json_type(value), "number")


def _value(plan: Plan, step: str, source: str, handlers: Mapping[str, Handler]) -> Any:
    """Return the type of what a step reads under a name."""
    match source:
        case "index":
            return int
        case "errors":
            return list
        case "item":
            return _item(plan, step, handlers)
        case _ if source in plan.flow.input:
            return python_type(type_of(plan.flow.input[source]))
        case _:
            return list if plan.flow.steps[source].each else _output(plan, source, handlers)


def _item(plan: Plan, step: str, handlers: Mapping[str, Handler]) -> Any:
    root, *path = plan.flow.steps[step].each.split(".")
    if path or not root:
        return Any
    inputs = plan.flow.input
    whole = python_type(type_of(inputs[root])) if root in inputs else _whole(plan, root, handlers)
    return get_args(whole)[0] if get_origin(whole) is list and get_args(whole) else Any


def _whole(plan: Plan, step: str, handlers: Mapping[str, Handler]) -> Any:
    """Return the type of what a step puts out, all branches of it together."""
    output = _output(plan, step, handlers)
    return GenericAlias(list, (output,)) if plan.flow.steps[step].each else output


def _output(plan: Plan, step: str, handlers: Mapping[str, Handler]) -> Any:
    """Return the type of what a step, or one of its branches, puts out."""
    agent = plan.agent(step)
    told = type_of_output(agent)
    if told is not None:
        return python_type(told)
    if agent.asks_models or agent.answers:
        return str
    if agent.person:
        return Any
    handler = handlers.get(plan.agent(step).handler)
    return handler.returns if handler is not None else Any


def _whole_output(plan: Plan, handlers: Mapping[str, Handler], step: str) -> Any:
    """Return the type of what stands under the name of a step; Any for an input, whose type the flow checks."""
    return _whole(plan, step, handlers) if step in plan.flow.steps else Any


def _named(plan: Plan, source: str) -> str:
    if source in BUILT_IN:
        return f"{source!r}"
    return f"input {source!r}" if source in plan.flow.input else f"what step {source!r} puts out"


def _words(kinds: frozenset[str]) -> str:
    shown = kinds - {"object"} if "file" in kinds else kinds
    return " or ".join(sorted(_SHOWN.get(kind, "a number") for kind in shown))
