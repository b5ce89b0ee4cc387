"""What runs: workers, joins, models, the command `baton`. Handlers import `actor`, `Branch`, `Context`, `Fail`, …

Programs import `Baton` and `Flow`. Each name is imported when it is asked for: a handler's module needs few of them.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; importing `typing` takes milliseconds in which Ctrl-C has a traceback
if TYPE_CHECKING:
    from typing import Any

    from baton_actors.agents.asks import AskFailed, AskRefused
    from baton_actors.agents.branch import Branch
    from baton_actors.agents.context import Context
    from baton_actors.agents.handlers import actor
    from baton_actors.agents.tools.function import tool
    from baton_actors.errors import Fail, Retry
    from baton_actors.team.baton import Baton
    from baton_actors.team.flow import Flow
    from baton_actors.team.sync import SyncRun, SyncTeam
    from baton_actors.team.team import Team
    from baton_bus import BusError, File, Run, RunCancelled, RunExpired, RunFailed, Running, Said, Wrote

_WHERE = {
    "AskFailed": "baton_actors.agents.asks",
    "AskRefused": "baton_actors.agents.asks",
    "Branch": "baton_actors.agents.branch",
    "Context": "baton_actors.agents.context",
    "actor": "baton_actors.agents.handlers",
    "tool": "baton_actors.agents.tools.function",
    "Fail": "baton_actors.errors",
    "Retry": "baton_actors.errors",
    "Baton": "baton_actors.team.baton",
    "Flow": "baton_actors.team.flow",
    "SyncRun": "baton_actors.team.sync",
    "SyncTeam": "baton_actors.team.sync",
    "Team": "baton_actors.team.team",
    "BusError": "baton_bus",
    "File": "baton_schemas.wire.files",
    "Run": "baton_bus",
    "RunCancelled": "baton_bus",
    "RunExpired": "baton_bus",
    "RunFailed": "baton_bus",
    "Running": "baton_bus",
    "Said": "baton_bus",
    "Wrote": "baton_bus",
}

__all__ = [
    "AskFailed",
    "AskRefused",
    "Baton",
    "Branch",
    "BusError",
    "Context",
    "Fail",
    "File",
    "Flow",
    "Retry",
    "Run",
    "RunCancelled",
    "RunExpired",
    "RunFailed",
    "Running",
    "Said",
    "SyncRun",
    "SyncTeam",
    "Team",
    "Wrote",
    "actor",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
