"""Hosting actors: the workers of some agents of a flow, on one bus, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from baton_actors.agents.handlers import Handler
from baton_actors.agents.loading import FoundFlow, load_handlers
from baton_actors.agents.performing import Performer
from baton_actors.models import Models
from baton_actors.processes.worker import Worker
from baton_actors.services.clerk import Clerk
from baton_actors.steps.ends import Ends
from baton_actors.steps.plans import Plans
from baton_bus import Bus

GRACE_S = 10.0
"""How long steps in hand may go on after a stop: a supervisor or an orchestrator mostly gives 30 s in all."""


@contextlib.asynccontextmanager
async def hosting(
    bus: Bus, found: FoundFlow, agents: Sequence[str], *, models: Models | None = None, grace_s: float = GRACE_S
) -> AsyncIterator[None]:
    """Play these agents of the flow while the context is open: each takes the handoffs of its actor.

    What is due (deadlines, scheduled tasks) is written into the log besides, whosever it is.

    An LLM agent needs `models`. At the end each actor finishes what it holds, or gives it back after
    `grace_s` seconds, one actor after another. Raises `HandlerNotFound`, `BadHandler`, and the errors of the
    bus when a consumer cannot be made.
    """
    handlers = load_handlers(found, agents)
    actors = {agent: actor for actor, agent in found.plan.actors().items()}
    mergers = {found.plan.actor(step) for step in found.plan.joins}
    ends = Ends(bus)
    plans = Plans(bus, found.plan)
    async with contextlib.AsyncExitStack() as stack:
        executor = _executor(found, agents, handlers)
        if executor is not None:
            # Not waited for: a thread cannot be stopped, and its handoff has been given back by then.
            stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        performer = Performer(handlers, models, executor)
        workers = [Worker(bus, actors[name], found.flow.agents[name], performer, plans, ends) for name in agents]
        # A worker must not miss the end of a run whose handoffs it takes.
        await stack.enter_async_context(ends.listening())
        await stack.enter_async_context(Clerk(bus).working())
        for name, worker in zip(agents, workers, strict=True):
            await stack.enter_async_context(worker.working(joins=actors[name] in mergers, grace_s=grace_s))
        yield


def _executor(found: FoundFlow, agents: Sequence[str], handlers: Mapping[str, Handler]) -> ThreadPoolExecutor | None:
    """Return threads for plain handlers, one for each step that may be in hand; None if all are async."""
    hosted = [found.flow.agents[name] for name in agents]
    threads = sum(agent.concurrency for agent in hosted if agent.handler and not handlers[agent.handler].is_async)
    return ThreadPoolExecutor(threads, thread_name_prefix="handler") if threads else None
