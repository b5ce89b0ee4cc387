"""Finding flows by name or path, and loading the handlers that they name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from baton_actors.agents.agents import Agents
from baton_actors.agents.handlers import Handler
from baton_actors.agents.importing import load_handler
from baton_actors.agents.signatures import with_reads
from baton_actors.agents.threads import Threads
from baton_actors.errors import ActorError
from baton_actors.models import Models
from baton_schemas.errors import nearest
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.check_asking import asked_agents
from baton_schemas.flow.file import read_flow
from baton_schemas.flow.flow import Flow, decode_flow
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
    """`find_flow(source)` finds the same flow in any process: a shipped name, or an absolute path. Empty for one that
    was built in Python: it is in this process only."""
    functions: Mapping[str, Handler] = field(default_factory=dict)
    """Handlers that are functions of this process, by the string that names each in the flow."""

    recorded: bool = False
    """It is the flow that a run has in the log, and not what is in its file now."""

    @property
    def file(self) -> Path:
        """The flow file."""
        return self.folder / f"{self.source}.toml" if self.source in shipped_flows() else Path(self.source)


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

    What handlers read is filled in from their source (`with_reads`), so that it is part of the flow and its digest.
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
    folder = path.absolute().parent
    plan = with_reads(Plan(read_flow(path), source), folder)
    return FoundFlow(name=plan.flow.name, flow=plan.flow, plan=plan, folder=folder, source=source)


def recorded_flow(body: bytes, folder: Path, source: str = "") -> FoundFlow:
    """Return the flow of a run as its log has it; its handlers are those that `folder` has now.

    Raises `FlowError`, `msgspec.DecodeError`.
    """
    plan = check_flow(decode_flow(body), stored=True)
    return FoundFlow(
        name=plan.flow.name, flow=plan.flow, plan=plan, folder=folder, source=source or plan.flow.name, recorded=True
    )


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

    Each is checked against every step that its agent does, and what it is given when it is asked. Raises
    `UnknownAgent`, `HandlerNotFound`, `BadHandler`.
    """
    handlers: dict[str, Handler] = {}
    asked = asked_agents(found.flow)
    for name in found.flow.agents if agents is None else agents:
        agent = found.flow.agents[find_agent(found, name)]
        if not agent.handler:
            continue
        handler = found.functions.get(agent.handler) or load_handler(name, agent, found.folder)
        handlers[agent.handler] = handler
        steps = [step_name for step_name, step in found.flow.steps.items() if step.agent == name]
        for step_name in steps:
            handler.check(found.plan, step_name)
        if name in asked:
            handler.check_asked(found.plan, name)
    return handlers


def needs_models(found: FoundFlow, agents: Iterable[str] | None = None) -> bool:
    """Say whether any of these agents asks models (None: of all): an LLM agent, or a handler that has a client.

    Raises as `load_handlers` does.
    """
    names = [*found.flow.agents] if agents is None else [find_agent(found, name) for name in agents]
    if any(found.flow.agents[name].asks_models for name in names):
        return True
    return any(handler.asks_models for handler in load_handlers(found, names).values())


def load_agents(
    found: FoundFlow,
    agents: Iterable[str] | None = None,
    *,
    models: Models | None = None,
    threads: Threads | None = None,
) -> Agents:
    """Make the agents of a flow ready to be played (None: all of them). Raises as `load_handlers` does."""
    loaded = Agents(models, threads)
    loaded.add(found.plan, load_handlers(found, agents))
    return loaded
