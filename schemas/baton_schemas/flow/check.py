"""Whether a flow can run: the first mistake, as an error that says where it is and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.budgets import check_budget
from baton_schemas.flow.check_agents import check_agents
from baton_schemas.flow.check_batches import check_batches
from baton_schemas.flow.check_conditions import check_values
from baton_schemas.flow.check_defaults import check_default, check_defaults
from baton_schemas.flow.check_graph import check_graph
from baton_schemas.flow.check_models import check_models
from baton_schemas.flow.check_paths import check_paths
from baton_schemas.flow.check_tools import check_tools
from baton_schemas.flow.flow import FORMAT, Field, Flow
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.limits import check_deadline, check_parts
from baton_schemas.flow.nested import check_nested
from baton_schemas.flow.types import KINDS, BadType, type_of
from baton_schemas.run.refs import is_plain
from baton_schemas.wire.names import RESERVED, TOKEN, actor_name

_TOKEN_RULE = "1 to 64 characters from A-Z, a-z, 0-9, '_' and '-'"


def check_flow(flow: Flow, *, stored: bool = False) -> Plan:
    """Return the plan of a flow that can run. Raises `FlowError` for the first mistake in it.

    One that is `stored` in the log began to run once: its prompts may name what its values turn out not to have.
    """
    if flow.v != FORMAT:
        raise FlowError("v", str(flow.v), f"{FORMAT}, the version that this release reads")
    if flow.deadline_s is not None:
        check_deadline("deadline_s", flow.deadline_s)
    if flow.budget is not None:
        check_budget("budget", flow.budget)
    for place, parts in (("steps", flow.steps), ("agents", flow.agents)):
        check_parts(place, len(parts))
    _check_names(flow)
    check_nested(flow)
    for inner in flow.flows.values() if stored else ():  # else they were checked where they were found
        check_flow(inner, stored=True)
    _check_inputs("input", flow.input)
    for name, agent in flow.agents.items():
        _check_inputs(f"agents.{name}.input", agent.input)
    _check_tiers(flow)
    readable = check_graph(flow)
    check_models(flow)
    check_agents(flow, readable)
    check_tools(flow)
    check_batches(flow)
    plan = Plan(flow)
    if not stored:
        check_paths(plan)
        for name, step in flow.steps.items():
            check_values(plan, name, f"steps.{name}.when", step.when)
            check_values(plan, name, f"steps.{name}.again.when", step.again.when if step.again else None)
    return plan


def _check_names(flow: Flow) -> None:
    _check_own_token("name", flow.name)
    actors: dict[str, str] = {}
    for name, agent in flow.agents.items():
        _check_own_token(f"agents.{name}", name)
        if agent.actor:
            _check_token(f"agents.{name}.actor", agent.actor)
            if agent.actor.startswith("-"):
                found, expected = repr(agent.actor), "a name that begins with a letter or a digit"
                raise FlowError(f"agents.{name}.actor", found, expected)
        actor = agent.actor or actor_name(flow.name, name)
        if len(actor) > 64:
            raise FlowError(
                f"agents.{name}",
                f"the actor name {actor!r} of {len(actor)} characters",
                "64 at most",
                hint="Shorten the name of the flow or the agent, or set `actor`.",
            )
        if actor in actors:
            raise FlowError(
                f"agents.{name}.actor",
                f"{actor!r}, which agent {actors[actor]!r} has too",
                "another actor for each agent of a flow",
            )
        actors[actor] = name
    for name in flow.steps:
        _check_name(f"steps.{name}", name)
        if not is_plain(name):
            raise FlowError(
                f"steps.{name}",
                repr(name),
                "a name without a double hyphen that ends neither in a hyphen nor in a hyphen and digits: branches do",
                hint=f"Try {name.replace('-', '_')!r}.",
            )
    for name in flow.input:
        if name in flow.steps:
            raise FlowError(f"input.{name}", f"a step that is called {name!r} too", "another name for one of the two")


def _check_token(place: str, name: str) -> None:
    if not TOKEN.match(name):
        raise FlowError(place, repr(name), _TOKEN_RULE)


def _check_own_token(place: str, name: str) -> None:
    """Flows and agents: `{flow}--{agent}` is the name of an actor, and must be that of one only."""
    _check_token(place, name)
    if "--" in name or name.startswith("-") or name.endswith("-"):
        expected = "a name with no double hyphen, and none at an end: actors are called `{flow}--{agent}`"
        raise FlowError(place, repr(name), expected, hint=f"Try {re.sub('-+', '-', name.strip('-')) or 'agent'!r}.")


def _check_name(place: str, name: str) -> None:
    _check_token(place, name)
    if name in RESERVED:
        raise FlowError(place, f"the reserved name {name!r}", f"another name than {_listed(RESERVED)}")


def _check_inputs(place: str, fields: Mapping[str, Field]) -> None:
    """Check the input of a flow, or of an agent that is asked."""
    check_parts(place, len(fields))
    for name, field in fields.items():
        here = f"{place}.{name}"
        _check_name(here, name)
        _check_fields(here, field)
        try:
            kind = type_of(field)
        except BadType as error:
            raise FlowError(f"{here}.{error.key}", error.found, error.expected, hint=_hint(error)) from error
        if bytes(field.default):
            check_default(here, field, kind)


def _check_fields(place: str, field: Field) -> None:
    check_parts(f"{place}.fields", len(field.fields))
    for name, inner in field.fields.items():
        here = f"{place}.fields.{name}"
        if not name:
            raise FlowError(here, "a field without a name", "the name of a key")
        _check_fields(here, inner)
    check_defaults(f"{place}.fields", field.fields)


def _hint(error: BadType) -> str:
    close = nearest(error.found.strip("'"), KINDS)
    return close if close.startswith("Did") else ""


def _check_tiers(flow: Flow) -> None:
    for name, tier in flow.tiers.items():
        if not tier.model:
            raise FlowError(f"tiers.{name}.model", "an empty string", "the id of a model")
        if tier.max_tokens < 0:
            raise FlowError(f"tiers.{name}.max_tokens", str(tier.max_tokens), "a whole number of at least 1")


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))
