"""Flows within flows: an agent that is a flow, what each of its runs is given, and whether all of it can run. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.flow import Agent, Field, Flow, encode_flow, flow_digest
from baton_schemas.flow.limits import NESTED_BYTES_MAX, NESTED_MAX
from baton_schemas.flow.prompts import BadPlaceholder, Placeholder, parse, value_at
from baton_schemas.run.refs import key_of_child
from baton_schemas.run.refs import name_of as step_of

FindFlow = Callable[[str], Flow]
"""Finds the flow that an agent is, by what its `flow` says. Raises `FlowError`: with a file for a mistake in that one,
else for what is said."""
FILE = re.compile(r"\.{0,2}/.*\.toml\Z", re.DOTALL)
"""What `flow` says of a file; anything else is a name."""


def with_flows(flow: Flow, find: FindFlow) -> Flow:
    """Return a flow with those within it that its agents are. Raises `FlowError`."""
    flows: dict[str, Flow] = {}
    for name, agent in flow.agents.items():
        if not agent.flow or agent.flow in flows:
            continue
        place = f"agents.{name}.flow"
        try:
            flows[agent.flow] = find(agent.flow)
        except FlowError as error:
            if not error.file:
                raise FlowError(place, error.found, error.expected, hint=error.hint) from error
            hint = f"{error.hint} It is the flow of {place} in {flow.name!r}.".strip()
            raise FlowError(error.place, error.found, error.expected, file=error.file, hint=hint) from error
    return replace(flow, flows=flows) if flows else flow


def flow_of(flow: Flow, agent: str) -> Flow | None:
    """Return the flow that an agent of this one is; None for an agent of another kind."""
    own = flow.agents[agent].flow
    return flow.flows[own] if own else None


def input_of(flow: Flow, agent: str) -> Mapping[str, Field]:
    """Return what an agent is given when it is asked, by name: of one that is a flow, the input of that."""
    own = flow_of(flow, agent)
    return flow.agents[agent].input if own is None else own.input


def description_of(flow: Flow, agent: str) -> str:
    """Return what an agent is good for, as it says, or the flow that it is; empty when nobody says it."""
    own = flow_of(flow, agent)
    return flow.agents[agent].description or (own.description if own is not None else "")


def before(flow: Flow, step: str) -> frozenset[str]:
    """Return the steps that come before a step, near and far."""
    found: set[str] = set()
    pending = [step]
    while pending:
        of = flow.steps[pending.pop()]
        root = of.each.split(".")[0]
        for source in [*of.after, *([root] if root in flow.steps else [])]:
            if source not in found:
                found.add(source)
                pending.append(source)
    return frozenset(found)


# ---- what a run is given ---------------------------------------------------------------------------


def taken(flow: Flow, step: str) -> dict[str, Placeholder]:
    """Return where each input of the run comes from that a step is: the path that `given` says, or the same name.

    Raises `BadPlaceholder`.
    """
    agent, earlier = flow.agents[flow.steps[step].agent], before(flow, step)
    found: dict[str, Placeholder] = {}
    for name in flow.flows[agent.flow].input:
        if name in agent.given:
            found[name] = path_of(agent.given[name])
        elif name in flow.input or name in earlier:
            found[name] = Placeholder(name, (), 0)
    return found


def path_of(text: str) -> Placeholder:
    """Return a path as `given` has it. Raises `BadPlaceholder`."""
    placeholders = parse(f"{{{text}}}")
    if len(placeholders) != 1 or placeholders[0].text.count("{") != 1:
        raise BadPlaceholder(text, 0)
    return placeholders[0]


def arguments_of(flow: Flow, step: str, values: Mapping[str, Raw]) -> dict[str, Raw]:
    """Return what a run is given that a step (a branch of it, a child) is, of the values that the step reads.

    What is not there is left out. Raises `prompts.MissingValue` for a path that leads nowhere.
    """
    if key_of_child(step):  # asked with just this
        return {name: values[name] for name in input_of(flow, step_of(step)) if name in values}
    name = step if step in flow.steps else step_of(step)
    found: dict[str, Raw] = {}
    for field, placeholder in taken(flow, name).items():
        value = values.get(placeholder.name)
        if value is None:
            continue
        if placeholder.path or placeholder.optional:
            inner = value_at(placeholder, msgspec.json.decode(value))
            if inner is None:  # it may be missing
                continue
            value = Raw(msgspec.json.encode(inner))
        found[field] = value
    return found


# ---- checks ------------------------------------------------------------------------------------------


def check_kind(flow: Flow, name: str) -> None:
    """Raise `FlowError` unless an agent that is a flow says nothing that belongs to other kinds."""
    agent, place = flow.agents[name], f"agents.{name}"
    for key in ("handler", "prompt", "system", "model", "max_tokens", "reads", "input", "workers", "output"):
        if getattr(agent, key) != getattr(_EMPTY, key):
            hint = "Its input is that of the flow." if key == "input" else "Remove one, or make two agents."
            raise FlowError(f"{place}.{key}", f"both `flow` and `{key}`", "one of them", hint=hint)
    if agent.flow not in flow.flows:
        raise FlowError(f"{place}.flow", repr(agent.flow), "a flow that is within this one")
    users = [step for step, of in flow.steps.items() if of.agent == name]
    timed = [f"steps.{step}.timeout_s" for step in users if flow.steps[step].timeout_s is not None]
    if agent.timeout_s != _EMPTY.timeout_s or timed:
        hint = f"Give the flow {flow.flows[agent.flow].name!r} a `deadline_s`: then its runs expire."
        found = timed[0] if timed else f"{place}.timeout_s"
        raise FlowError(found, "`timeout_s` for a run of a flow", "it for agents of other kinds", hint=hint)
    if agent.given and not users:
        raise FlowError(
            f"{place}.given", "`given` on an agent that no step uses", "it only for steps: who asks says all of it"
        )
    own = flow.flows[agent.flow]
    for key in agent.given:
        if key not in own.input:
            expected = f"an input of the flow {own.name!r}"
            raise FlowError(f"{place}.given.{key}", repr(key), expected, hint=nearest(key, own.input))


def check_taken(flow: Flow, step: str, known: set[str]) -> None:
    """Raise `FlowError` unless each run that a step is gets what it needs, of the names that the step can read."""
    name = flow.steps[step].agent
    agent, own = flow.agents[name], flow.flows[flow.agents[name].flow]
    for key, text in agent.given.items():
        place = f"agents.{name}.given.{key}"
        try:
            found = path_of(text)
        except BadPlaceholder as error:
            raise FlowError(place, repr(text), "a path such as 'item' or 'plan.topics', without braces") from error
        if found.name not in known:
            hint = nearest(found.name, known)
            if found.name in ("item", "index"):
                hint = f"'{found.name}' is there only in a step with `each`."
            raise FlowError(place, repr(text), f"an input, or a step that comes before {step!r}", hint=hint)
    come = taken(flow, step)
    for key, field in own.input.items():
        if key in come or not field.required:
            continue
        source = "item" if flow.steps[step].each else "…"
        raise FlowError(
            f"agents.{name}.flow",
            f"the flow {own.name!r}, which needs {key!r}",
            f"an input of this name, a step that comes before {step!r}, or `given`",
            hint=f"Add `given = {{ {key} = {source!r} }}`.".replace("'", '"'),
        )


def check_nested(flow: Flow) -> None:
    """Raise `FlowError` when flows nest one another in a circle or too deep, share a name, or are too much in all."""
    if not flow.flows:
        return
    size = len(encode_flow(flow))
    if size > NESTED_BYTES_MAX:
        expected = f"at most {NESTED_BYTES_MAX} bytes: it stands in the first message of each run"
        raise FlowError(_place_of(flow), f"{size} bytes of flows within one another", expected)
    versions: dict[str, str] = {}
    for chain in _chains(flow, [flow.name]):
        *above, name = chain[0]
        place, shown = _place_of(flow), " → ".join(chain[0])
        if name in above:
            raise FlowError(place, f"a flow that nests itself: {shown}", "flows that end somewhere")
        if len(above) > NESTED_MAX:
            raise FlowError(place, f"flows nested {len(above)} deep: {shown}", f"at most {NESTED_MAX} within another")
        digest = flow_digest(encode_flow(chain[1]))
        if versions.setdefault(name, digest) != digest:
            raise FlowError(place, f"two flows that are called {name!r}", "another name for one of the two")


def all_within(flow: Flow) -> Iterator[Flow]:
    """Yield the flows within this one, near and far; the same may come again."""
    for inner in flow.flows.values():
        yield inner
        yield from all_within(inner)


def _chains(flow: Flow, above: list[str]) -> Iterator[tuple[list[str], Flow]]:
    for inner in flow.flows.values():
        chain = [*above, inner.name]
        yield chain, inner
        if inner.name not in above and len(above) <= NESTED_MAX:
            yield from _chains(inner, chain)


def _place_of(flow: Flow) -> str:
    name = next((name for name, agent in flow.agents.items() if agent.flow), "")
    return f"agents.{name}.flow"


_EMPTY = Agent()
