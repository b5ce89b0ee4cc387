"""What the workers of one process share: the engine, the agents they play, and what they know of flows and runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from baton_actors.agents.agents import Agents
from baton_actors.models import Models
from baton_bus.engine.engine import Engine
from baton_schemas.flow.graph import Plan

from .ends import Ends
from .held import Held
from .limiting import Limiting
from .plans import Plans
from .roll import Roll, answering
from .suspects import Suspects
from .warming import Warming


class Shared(NamedTuple):
    """Use `sharing` to make one."""

    engine: Engine
    agents: Agents
    plans: Plans
    ends: Ends
    worker: str
    """How the log calls this process."""
    suspects: Suspects
    """They begin one at a time, whichever actor's they are: what kills the process kills all that is in it."""
    held: Held
    limiting: Limiting
    warming: Warming
    roll: Roll


@contextlib.asynccontextmanager
async def sharing(
    engine: Engine,
    agents: Agents,
    plan: Plan,
    worker: str,
    how_it_died: Callable[[str], str] = lambda _: "",
    held: Held | None = None,
    models: Models | None = None,
) -> AsyncIterator[Shared]:
    """Share these while the context is open, and hear the ends of this flow's runs: no worker may miss one.

    `how_it_died` says how a worker died, by its name in the log; empty when nobody here knows. `held` is where others
    see what is being done. `models` are those that its agents ask.
    """
    ends, limiting = Ends(engine.bus), Limiting(engine.bus, models)
    warming = Warming(engine.bus.slots)
    ends.tell(lambda _, run: limiting.run_ended(run))
    async with ends.listening(), limiting.working(), answering(engine.bus) as roll:
        await ends.hear(plan)
        try:
            suspects = Suspects(how_it_died)
            plans, held = Plans(engine.bus, plan), held or Held()
            yield Shared(engine, agents, plans, ends, worker, suspects, held, limiting, warming, roll)
        finally:
            agents.threads.close()
            await warming.close()
            await agents.aclose()
