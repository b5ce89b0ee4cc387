"""The prompt agent: does a step by asking a model once, with the prompt that the flow has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from baton_actors.agents.kinds import WAITING, Journal, Performed, StepTask
from baton_actors.errors import MissingValue
from baton_actors.models import ModelAnswer, ModelError, ModelRequest, Models, request_digest
from baton_actors.models.body import body_of, bound_of
from baton_schemas.flow import prompts
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.tools import OfferedTool
from baton_schemas.run.branches import fan_outs
from baton_schemas.show.asked import asked_by
from baton_schemas.wire.values import clean_text, encode_value


class PromptAgent:
    """Any LLM agent of any flow: the prompts come with the run's own flow."""

    def __init__(self, models: Models) -> None:
        self._models = models

    @property
    def concurrency(self) -> int:
        """It waits for its model."""
        return WAITING

    @property
    def may_ask(self) -> bool:
        """It asks its model, and nobody else."""
        return False

    def asks(self, plan: Plan, step: str) -> frozenset[str]:
        """All that its prompt names: a list is numbered by the places of its items, whichever of them failed."""
        return fan_outs(plan, step) & plan.reads[step]

    async def perform(self, task: StepTask, journal: Journal) -> Performed:
        """Ask the model, unless the journal has the answer.

        Raises `MissingValue`, before anything is asked, `ModelError`, and what the journal raises.
        """
        answer = await answer_to(request_of(task), self._models, journal, task.context.writes)
        return Performed(
            output=encode_value(answer.text, "output"),
            truncated=answer.truncated,
            model=answer.model,
            rehearsed=answer.rehearsed,
            request_id=answer.request_id,
            usage=answer.usage,
            cost_usd=answer.cost_usd,
        )


async def answer_to(
    request: ModelRequest, models: Models, journal: Journal, writes: Callable[[], Callable[[str], None] | None]
) -> ModelAnswer:
    """Return the answer that the journal has to a request, or else ask the model and record what it says.

    `writes` is called at each call of the model, and gives what takes the chunks of its text. Raises `ModelError`, and
    what the journal raises.
    """
    digest = request_digest(request, models.settings)
    answer = await journal.recall(digest)
    if answer is not None:
        return answer
    try:
        answer = await journal.in_turn(
            lambda: models.complete(request, on_chunk=writes(), on_cut=journal.spent), bound_of(body_of(request))
        )
    except ModelError as error:
        error.request_sha256 = digest
        raise
    # Models stream halves of characters now and then; what is recorded is what is put out.
    answer = msgspec.structs.replace(answer, text=clean_text(answer.text, len(answer.text)))
    return await journal.record(digest, answer)


def request_of(task: StepTask, offered: Sequence[OfferedTool] = ()) -> ModelRequest:
    """Return what a step asks its model: the prompts of its agent, with the values in their places.

    `offered` are the functions and tools of servers that it is offered. Raises `MissingValue`.
    """
    plan = task.plan
    try:
        asked = asked_by(plan, task.step, task.values, task.branches, offered)
    except prompts.MissingValue as error:
        raise MissingValue(str(error)) from error
    return ModelRequest(**msgspec.structs.asdict(asked), timeout_s=plan.timeout_s(task.step))
