"""Hosting actors: the workers of some agents of a flow, on one bus, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence

from baton_actors.agents.agents import Agents
from baton_actors.agents.loading import FoundFlow, load_handlers, load_tools
from baton_actors.batches.batches import Batches
from baton_actors.batches.gathering import Gatherer
from baton_actors.models import Models
from baton_actors.services.clerk import Clerk
from baton_actors.steps.held import Held
from baton_actors.steps.shared import sharing
from baton_bus.engine.engine import Engine
from baton_schemas.flow.flow import BatchPolicy

from .deaths import worker_name
from .worker import Retires, Worker

GRACE_S = 10.0
"""How long steps in hand may go on after a stop: a supervisor or an orchestrator mostly gives 30 s in all."""


@contextlib.asynccontextmanager
async def hosting(
    engine: Engine,
    found: FoundFlow,
    agents: Sequence[str],
    *,
    models: Models | None = None,
    grace_s: float = GRACE_S,
    how_it_died: Callable[[str], str] = lambda _: "",
    retires: Retires | None = None,
    held: Held | None = None,
    make_agents: Callable[[Models | None], Agents] = Agents,
) -> AsyncIterator[asyncio.Event]:
    """Play these agents of the flow while the context is open: each takes the handoffs of its actor.

    What is due (deadlines, parked steps, scheduled tasks) is written into the log besides, whosever it is. The event
    that it gives is set when so many handlers hang that this process should end and another begin.

    An agent that asks models (see `needs_models`) needs `models`, which `make_agents` is given. At the end each actor
    finishes what it holds, or gives it back after `grace_s` seconds, one actor after another. Raises
    `HandlerNotFound`, `BadHandler`, `BadTool`, and the errors of the bus when a consumer cannot be made.
    """
    playing = make_agents(models)
    playing.add(found.plan, load_handlers(found, agents), load_tools(found, agents), found.folder)
    actors = {agent: actor for actor, agent in found.plan.actors().items()}
    mergers = {found.plan.actor(step) for step in found.plan.joins}
    async with contextlib.AsyncExitStack() as stack:
        shared = await stack.enter_async_context(
            sharing(engine, playing, found.plan, worker_name(os.getpid()), how_it_died, held, models)
        )
        await stack.enter_async_context(Clerk(engine).working())
        for name in agents:
            worker = Worker(
                shared,
                actors[name],
                found.flow.agents[name],
                playing.concurrency(found.plan, name),
            )
            working = worker.working(joins=actors[name] in mergers, grace_s=grace_s, retires=retires)
            await stack.enter_async_context(working)
            policy = found.plan.gathers(name)
            may_batch = models is not None and found.flow.agents[name].asks_models
            if models is not None and may_batch and (policy is not None or await _has_gathered(engine, actors[name])):
                count = (policy or BatchPolicy()).count
                gatherer = Gatherer(engine, actors[name], count, models, shared.plans, shared.worker)
                await stack.enter_async_context(gatherer.working())
                batches = Batches(engine, shared.plans, models, actors[name], shared.worker)
                await stack.enter_async_context(batches.working())
        yield playing.threads.too_many


async def _has_gathered(engine: Engine, actor: str) -> bool:
    """Say whether calls of an actor go in batches by other versions of its flow. Raises the errors of the bus."""
    return await engine.bus.log.last_sure(engine.bus.subjects.gathered(actor)) is not None
