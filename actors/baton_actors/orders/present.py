"""The present version of a run's flow: found again where its file was, or where a file of its name is now."""

from __future__ import annotations

import shlex
from pathlib import Path

from msgspec import Struct

from baton_actors.agents.loading import SHIPPED, FoundFlow, find_flow, recorded_flow, shipped_flows
from baton_actors.errors import ActorError
from baton_schemas.errors import FlowError
from baton_schemas.flow.flow import IN_PROCESS
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.used_tools import functions_of


class FlowBroken(ActorError):
    """The flow of a run cannot be read as its file is now."""

    def __init__(self, reason: str) -> None:
        """`reason` says where, what was found and what was expected."""
        self.reason = reason
        super().__init__(f"{reason.rstrip('.')}. Mend it, or go on with the flow as the run has it: --same")


class Present(Struct, frozen=True):
    """What was found of a flow."""

    found: FoundFlow | None = None
    missing: str = ""
    """Where its file was and is no more; empty when it was found, or when nothing says where to look."""


def present_flow(name: str, source: str) -> Present:
    """Return the flow `name` as it is now; `source` is where its file was when the run was asked for, if that is known.

    A file that is not there any more (the folder was moved, or it is another machine's) is looked for in this
    directory, by the names of the file and of the flow. Another flow that took its place is none of ours. Raises
    `FlowBroken`.
    """
    if source in shipped_flows():
        found = _read(source, name)
        return Present(found) if found else Present()
    here = [Path(Path(source).name), Path(f"{name}.toml")]
    for path in [*([Path(source)] if source else []), *(path for path in here if path.name)]:
        if path.suffix == ".toml" and path.is_file() and (found := _read(str(path.absolute()), name)):
            return Present(found)
    return Present(missing=source)


def playable(plan: Plan, source: str) -> FoundFlow | None:
    """Return the flow of a run so that its actors can be started here, if its code is where it was."""
    if source in shipped_flows():
        return recorded_flow(plan.body, SHIPPED, source)
    folder = Path(source).parent if source else Path()
    named = [use for agent in plan.flow.agents.values() for use in (agent.handler, *functions_of(agent).values())]
    files = [where for use in named if (where := use.rpartition(":")[0])]
    if all((folder / where).is_file() for where in files if where.endswith(".py")):
        return recorded_flow(plan.body, folder.absolute(), source)
    return None


def shown_source(source: str) -> str:
    """Return where a flow is as one would type it here: `./triage.toml`, a path, or the name of a shipped flow."""
    path, here = Path(source), Path.cwd()
    if not path.is_absolute():
        return source
    return f"./{path.relative_to(here)}" if path.is_relative_to(here) else source


def starts(plan: Plan, source: str, options: str = "") -> str:
    """Return the command that plays a flow's actors; `source` is where its file is, `options` say which server.

    One whose handlers or tools are functions of a program is played by that program only.
    """
    named = [use for agent in plan.flow.agents.values() for use in (agent.handler, *functions_of(agent).values())]
    if any(use.startswith(IN_PROCESS) for use in named):
        return "Baton.local(…), in the program that built this flow,"
    what = shlex.quote(shown_source(source)) if source else f"{plan.flow.name}.toml"
    return f"baton up{options} {what}"


def _read(source: str, name: str) -> FoundFlow | None:
    """Return the flow that is there; None when it is one of another name."""
    try:
        found = find_flow(source)
    except FlowError as error:
        raise FlowBroken(str(error)) from error
    return found if found.name == name else None
