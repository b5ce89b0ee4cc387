"""Flows: which there are, how their runs do, whether somebody plays them, and one of them in full."""

from __future__ import annotations

import asyncio

from msgspec import Struct
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.known_flows import KnownFlow
from baton_actors.console.page import LISTS, Page
from baton_actors.orders.present import starts
from baton_bus.index.counting import FlowFigures
from baton_bus.store.players import Player, players
from baton_schemas.flow.graph import Plan
from baton_schemas.show.boxes import drawing_of
from baton_schemas.show.layout import layout_of
from baton_schemas.wire.names import sortable_id

_FIRST, _QUESTION = "ask", "What is a baton?"
"""What somebody may begin with who has no runs yet."""
_EVERY_S = 5.0
"""Who plays an actor is asked of the server so often, while somebody looks."""


class FlowLine(Struct, frozen=True, kw_only=True):
    """A flow as a line of the list."""

    name: str
    known: KnownFlow | None
    """None for one that only the log has."""
    figures: FlowFigures | None
    takes: list[str]
    """The inputs that it takes, those that are needed marked with a star."""


async def flows_page(console: Console, request: Request) -> Page:
    """Return all flows that can be sent, and those of which there are runs."""
    here, broken = await asyncio.to_thread(console.flows.here)
    figures = {each.flow: each for each in console.flows.figures()}
    known = {each.name: each for each in here}
    names = [*dict.fromkeys([*figures, *known])]
    lines = [
        FlowLine(
            name=name,
            known=known.get(name),
            figures=figures.get(name),
            takes=_takes(known[name].plan) if name in known else [],
        )
        for name in names
    ]
    return Page(
        template="flows.html",
        title="Flows",
        here="flows",
        facts={
            "lines": lines,
            "broken": broken,
            "tries": None if figures else await _try(console),
            "run": sortable_id(),
            "question": _QUESTION,
        },
        json=[
            {
                "flow": each.name,
                "source": each.known.source if each.known else "",
                "found": each.known.found if each.known else "log",
                "figures": each.figures,
                "takes": each.takes,
            }
            for each in lines
        ],
        command="baton runs",
        sources=(LISTS,),
        every_s=_EVERY_S,
    )


async def _try(console: Console) -> bool | None:
    """Say whether a first question would be answered; None when nobody knows."""
    ask = await console.flows.known(_FIRST)
    played = [each.played for each in await players(console.bus, ask.plan.actors())]
    return None if "unknown" in played else all(each == "somebody" for each in played)


async def flow_page(console: Console, request: Request) -> Page:
    """Return one flow: its steps, its versions, how its runs do, and who plays it."""
    known = await console.flows.known(request.path_params["flow"])
    plan = known.plan
    playing, versions, times = await asyncio.gather(
        players(console.bus, plan.actors()), console.flows.versions(known.name), console.step_times.of(known.name)
    )
    layout = layout_of(plan)
    figures = next((each for each in console.flows.figures() if each.flow == known.name), None)
    where = f" {console.options.where}" if console.options.where else ""
    return Page(
        template="flow.html",
        title=known.name,
        here="flows",
        facts={
            "known": known,
            "flow": plan.flow,
            "digest": plan.digest,
            "nodes": list(layout.nodes.values()),
            "drawing": drawing_of(layout, (), None),
            "times": times,
            "now": times.now if times else {},
            "after": {name: plan.sources.get(name, ()) for name in plan.order},
            "playing": playing,
            "down": [each for each in playing if each.played in ("nobody", "silent")],
            "agents": plan.actors(),
            "versions": versions,
            "figures": figures,
            "starts": starts(plan, known.source, where),
            "takes": _takes(plan),
        },
        json={
            "flow": known.name,
            "source": known.source,
            "digest": plan.digest,
            "actors": [_player(each) for each in playing],
            "versions": versions,
            "figures": figures,
            "steps": times,
        },
        command=f"baton graph {known.source}" if known.source else f"baton runs --flow {known.name}",
        sources=(LISTS,),
        every_s=_EVERY_S,
    )


def _takes(plan: Plan) -> list[str]:
    return [f"{name}{'*' if field.required else ''}" for name, field in plan.flow.input.items()]


def _player(each: Player) -> dict[str, object]:
    return {"actor": each.actor, "played": each.played, "waiting": each.waiting}
