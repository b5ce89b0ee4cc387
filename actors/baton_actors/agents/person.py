"""The person as an agent: does a step by asking whoever has a role, with the prompt that the flow has.

Its worker makes the question of the prompt, and the output of the answer. In between nobody holds the step.
"""

from __future__ import annotations

from baton_actors.agents.kinds import WAITING, Journal, Performed, StepTask
from baton_actors.errors import MissingValue
from baton_schemas.flow import prompts
from baton_schemas.flow.check_people import question_of
from baton_schemas.flow.graph import Plan
from baton_schemas.run.branches import fan_outs
from baton_schemas.show.asked import asked_by
from baton_schemas.wire.messages import NO_DEFAULT


class PersonAgent:
    """Any person of any flow: what they are asked comes with the run's own flow."""

    @property
    def concurrency(self) -> int:
        """It waits, and holds nothing meanwhile."""
        return WAITING

    @property
    def may_ask(self) -> bool:
        """A person."""
        return True

    def asks(self, plan: Plan, step: str) -> frozenset[str]:
        """All that its prompt names, as of a prompt that a model is asked."""
        return fan_outs(plan, step) & plan.reads[step]

    async def perform(self, task: StepTask, journal: Journal) -> Performed:
        """Ask the person. Raises `MissingValue` before anybody is asked, `AskFailed`, `AskRefused`."""
        agent = task.plan.agent(task.step)
        try:
            asked = asked_by(task.plan, task.step, task.values, task.branches)
        except prompts.MissingValue as error:
            raise MissingValue(str(error)) from error
        default = agent.default if bytes(agent.default) else NO_DEFAULT
        question = question_of(agent, asked.prompt)
        answer = await task.asks.person(agent.person, question, deadline_s=agent.deadline_s, default=default)
        return Performed(output=bytes(answer))
