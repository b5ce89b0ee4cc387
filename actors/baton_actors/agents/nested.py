"""The agent that is a flow: each of its steps is a run of that flow, and what the run puts out is the step's output."""

from __future__ import annotations

from baton_actors.agents.asks import AskFailed, NestedFailed
from baton_actors.agents.kinds import WAITING, Journal, Performed, StepTask
from baton_actors.errors import MissingValue
from baton_schemas.flow import prompts
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.nested import arguments_of


class NestedAgent:
    """Any agent of any flow that is a flow: that comes with the run's own."""

    @property
    def concurrency(self) -> int:
        """It waits, and holds no place while it does."""
        return WAITING

    @property
    def may_ask(self) -> bool:
        """For its run."""
        return True

    def asks(self, plan: Plan, step: str) -> frozenset[str]:
        """None: a run is given plain lists."""
        return frozenset()

    async def perform(self, task: StepTask, journal: Journal) -> Performed:
        """Ask for the run, which was perhaps asked for before, and wait for what it puts out.

        Raises `MissingValue`, `NestedFailed` when it does not end well, and `AskRefused`.
        """
        try:
            arguments = arguments_of(task.plan.flow, task.step, task.values)
        except prompts.MissingValue as error:
            raise MissingValue(str(error)) from error
        try:
            return Performed(output=bytes(await task.asks.run("", arguments)))
        except AskFailed as error:
            raise NestedFailed(error.who, error.error) from error
