"""Finding flows by name or path, and loading the handlers that they name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from baton_actors.agents.agents import Agents
from baton_actors.agents.handlers import Handler
from baton_actors.agents.importing import load_handler, load_tool
from baton_actors.agents.signatures import with_reads
from baton_actors.agents.threads import Threads
from baton_actors.agents.tools.function import FunctionTool
from baton_actors.errors import ActorError
from baton_actors.models import Models
from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.check_asking import asked_agents
from baton_schemas.flow.file import read_flow
from baton_schemas.flow.flow import Flow, decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.limits import NESTED_MAX
from baton_schemas.flow.nested import FILE
from baton_schemas.flow.used_tools import functions_of

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
    tools: Mapping[str, FunctionTool] = field(default_factory=dict)
    """Tools that are functions of this process, by `use` of each."""

    nested: Mapping[str, FoundFlow] = field(default_factory=dict)
    """The flows that its agents are and that were built in Python, by what `flow` says of each; others are found."""
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


class SameName(ActorError):
    """Two flows that are to be played together have the same name."""

    def __init__(self, name: str) -> None:
        """`name` is that of both."""
        self.name = name
        super().__init__(f"two flows are called {name!r}: give one of them another name, or make two teams")


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

    The flows that its agents are are found too, and are part of it. What handlers read is filled in from their source
    (`with_reads`), so that it is part of the flow and its digest.
    Raises `UnknownFlow`, `FlowError`.
    """
    return _find_flow(name, ())


def flow_within(key: str, folder: Path) -> Flow:
    """Return the flow that an agent of a flow in this folder is, by what `flow` says of it. Raises `FlowError`."""
    return _find_flow(_place_of(key, folder), ()).flow


def _find_flow(name: str, above: tuple[str, ...]) -> FoundFlow:
    """Return it; `above` are the sources of those that it is within, the outermost first."""
    shipped = shipped_flows()
    if name in shipped:
        path, source = SHIPPED / f"{name}.toml", name
    elif os.sep in name or name.endswith(".toml") or Path(name).is_file():
        path = Path(name)
        source = str(path.absolute())
    else:
        raise UnknownFlow(name, shipped)
    folder = path.absolute().parent

    def find(key: str) -> Flow:
        where = _place_of(key, folder)
        chain = (*above, source)
        shown = " → ".join(Path(each).stem for each in (*chain, where))
        if where in chain:
            raise FlowError("flow", f"a flow that nests itself: {shown}", "flows that end somewhere")
        if len(chain) > NESTED_MAX:
            raise FlowError("flow", f"flows nested {len(chain)} deep: {shown}", f"at most {NESTED_MAX} within another")
        return _find_flow(where, chain).flow

    plan = with_reads(Plan(read_flow(path, find), source), folder)
    return FoundFlow(name=plan.flow.name, flow=plan.flow, plan=plan, folder=folder, source=source)


def _place_of(key: str, folder: Path) -> str:
    """Return where a flow is that an agent of a flow in this folder is. Raises `FlowError` when it is nowhere."""
    if FILE.match(key):
        path = Path(os.path.normpath(folder / key))
        if not path.is_file():
            raise FlowError("flow", f"{key!r}, and there is no file {path}", "a flow file, relative to this one")
        return str(path)
    shipped = shipped_flows()
    if key not in shipped:
        hint = nearest(key, shipped)
        if (folder / key).is_file() or (folder / f"{key}.toml").is_file():
            hint = f"For a file beside this one, write './{key.removesuffix('.toml')}.toml'."
        raise FlowError("flow", repr(key), "the name of a shipped flow, or a file such as './other.toml'", hint=hint)
    return key


def with_nested(flows: Sequence[FoundFlow]) -> list[FoundFlow]:
    """Return these flows and all that are within them, each version once: whose agents are to be played.

    Raises `SameName` when two of them have one name and are not the same.
    """
    found: dict[str, FoundFlow] = {}
    for each in flows:
        for one in _all_of(each):
            there = found.setdefault(one.name, one)
            if there.plan.digest != one.plan.digest:
                raise SameName(one.name)
    return list(found.values())


def _all_of(found: FoundFlow) -> Iterable[FoundFlow]:
    yield found
    for key in found.plan.nested:
        yield from _all_of(within(found, key))


def within(found: FoundFlow, key: str) -> FoundFlow:
    """Return a flow within another, by what `flow` says of it, in the version that is in that one."""
    if key in found.nested:
        return found.nested[key]
    plan = found.plan.nested[key]
    if FILE.match(key):
        path = Path(os.path.normpath(found.folder / key))
        folder, source = path.parent, str(path)
    else:
        folder, source = SHIPPED, key
    return FoundFlow(
        name=plan.flow.name,
        flow=plan.flow,
        plan=Plan(plan.flow, source),
        folder=folder,
        source=source,
        recorded=found.recorded,
    )


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


def load_tools(found: FoundFlow, agents: Iterable[str] | None = None) -> dict[str, FunctionTool]:
    """Import the functions among the tools of these agents (None: of all); return them by `use` of each.

    Raises `UnknownAgent`, `HandlerNotFound`, `BadTool`.
    """
    loaded: dict[str, FunctionTool] = {}
    for name in found.flow.agents if agents is None else agents:
        agent = found.flow.agents[find_agent(found, name)]
        for use in functions_of(agent).values():
            loaded[use] = found.tools.get(use) or load_tool(name, use, found.folder)
    return loaded


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
    loaded.add(found.plan, load_handlers(found, agents), load_tools(found, agents), found.folder)
    return loaded
