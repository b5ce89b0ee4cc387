"""The merging agent: does the steps that `each` implies, in any worker of the actor, without code or model.

The list that a last fan-out puts out, and word of which branches came to the join before another.
"""

from __future__ import annotations

from baton_actors.agents.kinds import COMPUTING, Journal, Performed, StepTask
from baton_schemas.flow.graph import Plan
from baton_schemas.run.branches import came_of, fan_outs


class MergingAgent:
    """Plays the implied steps of any flow."""

    @property
    def concurrency(self) -> int:
        """Its steps are done in the places of the actor's own."""
        return COMPUTING

    @property
    def may_ask(self) -> bool:
        """It only puts together what came."""
        return False

    def asks(self, plan: Plan, step: str) -> frozenset[str]:
        """All that come to a join before a fan-out: the steps after it may ask how each of them ended."""
        return frozenset() if _closes(plan, step) else fan_outs(plan, step)

    async def perform(self, task: StepTask, journal: Journal) -> Performed:
        """Put out the list of a last fan-out, or which branches came to a join."""
        step = task.plan.name_of(task.step)
        if _closes(task.plan, step):
            (source,) = task.plan.sources[step]
            return Performed(output=bytes(task.values[source]))
        return Performed(output=came_of(task.branches))


def _closes(plan: Plan, step: str) -> bool:
    return plan.closing(plan.implied[step]) == step
