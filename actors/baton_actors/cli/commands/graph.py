"""`baton graph`: the steps of a flow, drawn in the terminal, as text for Mermaid, or as JSON."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.text import Text

from baton_actors.agents.loading import find_flow, with_nested
from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK
from baton_actors.cli.output import print_json
from baton_actors.cli.show.console import console
from baton_actors.cli.show.drawing import draw
from baton_actors.cli.show.mermaid import mermaid_of
from baton_actors.cli.text import plain
from baton_schemas.flow.check_asking import asked_agents
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.nested import input_of


@command()
def graph(
    flow: o.Flow,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As text for Mermaid.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="The flows within it too, one after another.")] = False,
    json: o.Json = False,
) -> int:
    """Draw the steps of a flow."""
    found = find_flow(flow)
    plans = [each.plan for each in with_nested([found])] if deep else [found.plan]
    if json:
        print_json(_facts(found.plan) | ({"flows": list(map(_facts, plans[1:]))} if deep else {}))
    elif mermaid:
        sys.stdout.write("\n".join(map(mermaid_of, plans)))
    else:
        for number, plan in enumerate(plans):
            if number:
                console().print()
            _print_drawing(plan)
    return OK


def _print_drawing(plan: Plan) -> None:
    out = console()
    out.print(Text(plan.flow.name, "bold"))
    if plan.flow.description:
        out.print(Text(plain(plan.flow.description)))
    for key, field in plan.flow.input.items():
        default = "" if field.required else f" = {bytes(field.default).decode()}"
        out.print(Text(plain(f"  {key}: {field.type}{default}   {field.description}".rstrip()), "dim"))
    out.print()
    for line in draw(plan, out.width):
        out.print(Text(line), soft_wrap=True)


def _facts(plan: Plan) -> dict[str, Any]:
    flow, asked = plan.flow, asked_agents(plan.flow)
    return {
        "flow": flow.name,
        "description": flow.description,
        "digest": plan.digest,
        "input": {key: {"type": field.type, "required": field.required} for key, field in flow.input.items()},
        "steps": [
            {
                "step": name,
                "agent": flow.steps[name].agent,
                "actor": plan.actor(name),
                "handler": plan.agent(name).handler,
                "person": plan.agent(name).person,
                "flow": nested.flow.name if (nested := plan.nested_of(flow.steps[name].agent)) is not None else "",
                "model": plan.tier(plan.agent(name)).model if plan.agent(name).asks_models else "",
                "after": plan.before(name),
                "each": flow.steps[name].each,
                "concurrency": flow.steps[name].concurrency,
                "joins": (plan.opening(name) or name) in plan.joins,
                "workers": plan.agent(name).workers,
                "when": flow.steps[name].when or {},
                "again": flow.steps[name].again,
            }
            for name in plan.order
            if name not in plan.implied
        ],
        "asked": [
            {
                "agent": name,
                "actor": plan.actor_of_agent(name),
                "description": flow.agents[name].description,
                "handler": flow.agents[name].handler,
                "model": plan.tier(flow.agents[name]).model if flow.agents[name].asks_models else "",
                "input": {
                    key: {"type": field.type, "required": field.required} for key, field in input_of(flow, name).items()
                },
                "workers": flow.agents[name].workers,
            }
            for name in flow.agents
            if name in asked
        ],
    }
