"""Finding flows by name or path, and loading the handlers that they name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from baton_actors.agents.handlers import Handler, load_handler
from baton_actors.errors import ActorError
from baton_schemas.errors import nearest
from baton_schemas.flow.file import read_flow
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.graph import Plan

SHIPPED = Path(__file__).parent.parent / "flows"
"""The flows that come with Baton."""


@dataclass(frozen=True)
class FoundFlow:
    """A flow that can run, and where it was found."""

    name: str
    flow: Flow
    plan: Plan
    folder: Path
    """What a handler `./file.py:name` is relative to."""
    source: str
    """`find_flow(source)` finds the same flow in any process: a shipped name, or an absolute path."""


class UnknownFlow(ActorError):
    """No flow of this name is shipped, and no file is called so."""

    def __init__(self, name: str, shipped: Iterable[str]) -> None:
        """`name` is what was asked for."""
        self.name = name
        hint = nearest(name, shipped)
        super().__init__(f"no flow {name!r} is shipped. {hint}{' ' if hint else ''}Or give the path of a flow file.")


class UnknownAgent(ActorError):
    """A flow has no such agent."""

    def __init__(self, flow: str, name: str, known: Iterable[str]) -> None:
        """`name` is neither an agent nor an actor of the flow."""
        self.flow, self.name = flow, name
        super().__init__(f"flow {flow!r} has no agent or actor {name!r}. {nearest(name, known)}".rstrip())


def shipped_flows() -> list[str]:
    """Return the names of the flows that come with Baton, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.toml"))


def find_flow(name: str) -> FoundFlow:
    """Return a shipped flow, or the flow in a file: a name with a `/`, one in `.toml`, or one of a file there is.

    Raises `UnknownFlow`, `FlowError`.
    """
    shipped = shipped_flows()
    if name in shipped:
        path, source = SHIPPED / f"{name}.toml", name
    elif os.sep in name or name.endswith(".toml") or Path(name).is_file():
        path = Path(name)
        source = str(path.absolute())
    else:
        raise UnknownFlow(name, shipped)
    flow = read_flow(path)
    return FoundFlow(name=flow.name, flow=flow, plan=Plan(flow), folder=path.absolute().parent, source=source)


def find_agent(found: FoundFlow, name: str) -> str:
    """Return the agent that is called so, or whose actor is. Raises `UnknownAgent`."""
    actors = found.plan.actors()
    if name in found.flow.agents:
        return name
    if name in actors:
        return actors[name]
    raise UnknownAgent(found.name, name, [*found.flow.agents, *actors])


def load_handlers(found: FoundFlow, agents: Iterable[str] | None = None) -> dict[str, Handler]:
    """Import the handlers of these agents (None: of all); return them by the string that names each in the flow.

    Each is checked against every step that its agent does. Raises `UnknownAgent`, `HandlerNotFound`, `BadHandler`.
    """
    handlers: dict[str, Handler] = {}
    for name in found.flow.agents if agents is None else agents:
        agent = found.flow.agents[find_agent(found, name)]
        if not agent.handler:
            continue
        handler = handlers[agent.handler] = load_handler(name, agent, found.folder)
        for step_name, step in found.flow.steps.items():
            if step.agent == name:
                handler.check(found.plan, step_name)
    return handlers
