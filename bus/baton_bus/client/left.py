"""The actors that a run or a flow waits for and nobody plays."""

from __future__ import annotations

import asyncio

from baton_bus.store.bus import Bus
from baton_bus.store.players import Player, players
from baton_schemas.flow.graph import Plan
from baton_schemas.run.refs import name_of
from baton_schemas.run.state import RunState, StepState
from baton_schemas.show.children import is_child

SURE_S = 0.3
"""A worker asks for more work within this: what nobody asks for now and then, nobody plays."""
_LEFT = frozenset({"nobody", "silent"})


async def left_alone(bus: Bus, plan: Plan, state: RunState) -> list[Player]:
    """Return the actors that a run waits for and nobody plays, in the order of the flow. Never fails.

    Of a run that it asked for, and that goes on, they are all those of its flow.
    """
    waiting = {
        plan.actor(step.name)
        for step in state.steps.values()
        if step.status in ("queued", "joining") and not step.waits and _is_for_a_worker(plan, step)
    }
    asked = {name_of(step.name) for step in state.steps.values() if step.asked == "flow" and step.status == "queued"}
    within = [nested for agent in sorted(asked & plan.flow.agents.keys()) if (nested := plan.nested_of(agent))]
    if state.result is not None or not (waiting or within):
        return []
    actors = [actor for actor in plan.actors() if actor in waiting]
    actors += [actor for nested in within for actor in nested.actors()]
    left = [each.actor for each in await players(bus, actors) if each.played in _LEFT]
    if not left:
        return []
    await asyncio.sleep(SURE_S)
    return [each for each in await players(bus, left) if each.played in _LEFT]


def _is_for_a_worker(plan: Plan, step: StepState) -> bool:
    """Say whether a worker of this flow does a step, or a child that an agent is asked for."""
    if is_child(step.name):
        return step.asked in (None, "agent") and plan.agent_of(step.name) in plan.flow.agents
    return plan.name_of(step.name) in plan.steps


async def left_to_play(bus: Bus, plan: Plan) -> list[Player]:
    """Return the actors of a flow that nobody plays, in its order. Never fails."""
    return [each for each in await players(bus, plan.actors()) if each.played in _LEFT]
