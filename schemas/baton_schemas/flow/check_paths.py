"""Whether the placeholders of prompts name what there is, as far as types tell before anything runs."""

from __future__ import annotations

from msgspec.structs import replace

from baton_schemas.errors import FlowError
from baton_schemas.flow.check_asking import asked_agents
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.nested import flow_of, taken
from baton_schemas.flow.outputs import type_of_output
from baton_schemas.flow.prompts import Placeholder, parse
from baton_schemas.flow.types import ANY, NUMBER, TEXT, Type, listed, type_of

_TEXTS = Type("list", items=TEXT)
_LIST = Type("list")
_ABOUT_FILES = Type("dict", fields={"name": TEXT, "media_type": TEXT, "size_bytes": NUMBER, "sha256": TEXT})
"""What is known of a file, for prompts and conditions: `{document.file.name}`."""


def check_paths(plan: Plan) -> None:
    """Raise `FlowError` for the first placeholder, or `each`, that can never have a value.

    Flows that are in the log already are not asked: whatever their prompts lack, their steps say.
    """
    flow = plan.flow
    for name, step in flow.steps.items():
        agent = flow.agents[step.agent]
        if step.each:
            _check_each(plan, name)
        _check_given(plan, name)
        for key, template in (("system", agent.system), ("prompt", agent.prompt)):
            for found in parse(template):
                kind = kind_of(plan, name, found.name)
                _check(plan, f"agents.{step.agent}.{key}", found, kind, name)
                if key == "system":
                    _refuse_file(f"agents.{step.agent}.{key}", found, kind)
    asked = asked_agents(flow)
    for name, agent in flow.agents.items():
        if name not in asked:
            continue
        for key, template in (("system", agent.system), ("prompt", agent.prompt)):
            for found in parse(template):
                kind = type_of(agent.input[found.name])
                _check(plan, f"agents.{name}.{key}", found, kind)
                if key == "system":
                    _refuse_file(f"agents.{name}.{key}", found, kind)


def _refuse_file(place: str, found: Placeholder, kind: Type) -> None:
    """Raise the error for a file in a system prompt, which is text alone."""
    for key in found.path:
        kind = part_of(kind, key) or ANY
    while kind.kind == "list" and kind.items is not None:
        kind = kind.items
    if kind.kind == "file":
        what = f"the file {found.text} at character {found.position}"
        hint = f"Put {found.text} into `prompt`."
        raise FlowError(place, what, "text: a system prompt holds no files", hint=hint, near=found.text)


def _check(plan: Plan, place: str, found: Placeholder, kind: Type, step: str = "") -> None:
    """Check the path of a placeholder whose name stands for a value of this type, in the prompt of a step if any."""
    if step and not found.optional and (why := plan.why_lacking(step, found.name)):
        raise FlowError(
            place,
            f"the placeholder {found.text} at character {found.position}",
            f"{found.as_optional}, as {why}",
            near=found.text,
        )
    for number, key in enumerate(("", *found.path)):
        inner = part_of(kind, key) if number else kind
        if inner is None:
            _refuse(plan, place, found, number, kind)
            return
        if inner.optional and found.optional <= number:
            optional = replace(found, optional=number + 1).text
            part = found.up_to(number + 1)
            raise FlowError(
                place,
                f"the placeholder {found.text} at character {found.position}",
                f"{optional}, as {part} is of type {inner} and may be missing",
                near=found.text,
            )
        kind = inner


def _refuse(plan: Plan, place: str, found: Placeholder, number: int, kind: Type) -> None:
    """Raise the error for a placeholder whose part of that number is nothing that its part before has."""
    path = found.up_to(number)
    hint = ""
    if kind.fields is not None:
        expected = f"a field that {path} has: {listed(list(kind.fields))}"
        hint = found.instead(number, kind.fields)
    elif kind.kind == "file":
        expected = f"{{{path}}} for its content, or {{{path}.file.name}}: {path} is a file"
    elif kind.kind == "list":
        expected = f"the number of an item, as {{{path}.0}}: {path} is a list"
    else:
        expected = f"{{{path}}} alone: it is of type {kind}, which has no keys"
        hint = hint_of_text(plan, found.name)
    what = f"the placeholder {found.text} at character {found.position}"
    raise FlowError(place, what, expected, hint=hint, near=found.text)


def _check_each(plan: Plan, name: str) -> None:
    root, *path = plan.flow.steps[name].each.split(".")
    kind, place = kind_of(plan, name, root), f"steps.{name}.each"
    for number, key in enumerate(path, 1):
        inner = part_of(kind, key)
        if inner is None:
            found = Placeholder(root, tuple(path), 0)
            has = f"a field that {found.up_to(number)} has: {listed(list(kind.fields))}" if kind.fields else "a list"
            hint = found.instead(number, kind.fields) if kind.fields else hint_of_text(plan, root)
            raise FlowError(place, repr(plan.flow.steps[name].each), has, hint=hint)
        kind = inner
    if kind.optional:
        what = f"{plan.flow.steps[name].each!r}, of type {kind}, which may be missing"
        raise FlowError(place, what, "a list that is always there", hint="Give it `default = []`, without the `?`.")
    if kind.kind not in ("list", "any"):
        what = f"{plan.flow.steps[name].each!r}, of type {kind}"
        raise FlowError(place, what, "a list, to run once per item", hint=hint_of_text(plan, root))


def hint_of_text(plan: Plan, name: str) -> str:
    """Return what to do where a key is looked for in what a model answers; empty when it is something else."""
    if name not in plan.flow.steps or not plan.agent(name).asks_models or plan.agent(name).output:
        return ""
    agent = plan.flow.steps[name].agent
    return f"What a model answers is text: let a handler take it apart, or set `output` of agents.{agent}."


def kind_of(plan: Plan, step: str, name: str) -> Type:
    """Return what is known of the type of a name that a step's prompt may have."""
    flow = plan.flow
    if name in flow.input:
        return type_of(flow.input[name])
    if name in flow.steps:
        return _output_of(plan, name)
    match name:
        case "item":
            return _item_of(plan, step)
        case "index":
            return NUMBER
        case "errors":
            return _TEXTS
        case _:
            return ANY


def _output_of(plan: Plan, name: str) -> Type:
    flow = plan.flow
    if any(step.join is not None and step.join.failed == "pass" for step in flow.steps.values()):
        return _LIST if flow.steps[name].each else ANY  # an error may stand in its place
    kind = _puts_out(plan, flow.steps[name].agent)
    return Type("list", items=None if kind is ANY else kind) if flow.steps[name].each else kind


def _puts_out(plan: Plan, agent: str) -> Type:
    """Return the type of what an agent puts out: a model text, a flow what its last step does, a person an answer."""
    nested, told = plan.nested_of(agent), plan.flow.agents[agent]
    if nested is not None:
        return _output_of(nested, nested.final)
    if told.answers:
        return replace(TEXT, values=tuple(told.answers))
    return type_of_output(told) or (TEXT if told.asks_models else ANY)


def _check_given(plan: Plan, step: str) -> None:
    """Check what each run that a step is gets, against the input of its flow."""
    flow, name = plan.flow, plan.flow.steps[step].agent
    own = flow_of(flow, name)
    if own is None:
        return
    for key, found in taken(flow, step).items():
        wanted, kind = type_of(own.input[key]), kind_of(plan, step, found.name)
        place = f"agents.{name}.given.{key}" if key in flow.agents[name].given else f"agents.{name}.flow"
        text = found.text[1:-1]
        for number, part in enumerate(found.path, 1):
            inner = part_of(kind, part)
            if inner is None:
                raise FlowError(place, repr(text), f"a path: {found.up_to(number)} is of type {kind}")
            kind = inner
        if not _may_be(kind, wanted):
            what = f"{text!r} of type {kind} for the input {key!r} of the flow {own.name!r}"
            raise FlowError(place, what, f"a value of type {wanted}")


def _may_be(kind: Type, wanted: Type) -> bool:
    """Say whether a value of a type may be one of another, as far as types tell."""
    if "any" in (kind.kind, wanted.kind) or (kind.kind, wanted.kind) == ("int", "float"):
        return True
    if kind.kind != wanted.kind:
        return False
    return kind.items is None or wanted.items is None or _may_be(kind.items, wanted.items)


def _item_of(plan: Plan, step: str) -> Type:
    root, *path = plan.flow.steps[step].each.split(".")
    kind = kind_of(plan, step, root)
    for key in path:
        kind = part_of(kind, key) or ANY
    return kind.items or ANY


def part_of(kind: Type, key: str) -> Type | None:
    """Return the type of what a key gives; None when it can give nothing."""
    match kind.kind:
        case "any":
            return ANY
        case "dict" if kind.fields is None:
            return ANY
        case "dict":
            return kind.fields.get(key) if kind.fields else ANY
        case "list":
            return (kind.items or ANY) if key.isdecimal() else None
        case "file":
            return _ABOUT_FILES if key == "file" else None
        case _:
            return None
