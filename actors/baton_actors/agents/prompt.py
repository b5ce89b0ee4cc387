"""The prompt agent: does a step by asking a model once, with the prompt that the flow has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from baton_actors.agents.kinds import WAITING, Journal, Performed, StepTask
from baton_actors.errors import FileRefused, MissingValue
from baton_actors.models import ModelAnswer, ModelError, ModelRequest, Models, request_digest
from baton_actors.models.body import bound_of_asked
from baton_actors.models.caching import prefix_of
from baton_actors.models.files import check_contents, check_files
from baton_actors.models.pace import LOST_PATIENCE
from baton_schemas.flow import prompts
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.tools import OfferedTool
from baton_schemas.run.branches import fan_outs
from baton_schemas.run.refs import key_of_child
from baton_schemas.show.asked import asked_by
from baton_schemas.wire.values import clean_text, encode_value

FALLBACK_AFTER_S = 5.0
"""How long a model that has others in its place is waited for in the first round: a moment's overload is over then."""
FALLBACK_ROUNDS = 3
"""Half a minute of patience with each: who is overloaded for longer is waited for with nothing held."""

logger = structlog.get_logger("baton.worker")


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

    `writes` is called at each call of the model, and gives what takes the chunks of its text. Raises `ModelError`,
    `FileRefused`, before anything is sent, and what the journal raises.
    """
    digest = request_digest(request, models.where(request.flow, request.model).settings)
    answer = await journal.recall(digest)
    if answer is not None:
        return answer
    check_files(request)
    try:
        answer = await answer_of_any(request, models, journal, writes)
    except ModelError as error:
        error.request_sha256 = digest
        raise
    # Models stream halves of characters now and then; what is recorded is what is put out.
    answer = msgspec.structs.replace(answer, text=clean_text(answer.text, len(answer.text)))
    return await journal.record(digest, answer)


async def answer_of_any(
    request: ModelRequest, models: Models, journal: Journal, writes: Callable[[], Callable[[str], None] | None]
) -> ModelAnswer:
    """Return what the model answers, or one of those that are asked in its place while it is overloaded.

    They are asked in turn, each with more patience than in the round before, so that none is waited for while another
    is there. When all of them are overloaded for that long, the first one is waited for; a step that was let go of
    meanwhile begins with the first round. Raises as `answer_to`.
    """
    patience = [FALLBACK_AFTER_S * 2.0**round for round in range(FALLBACK_ROUNDS)] if request.fallback else []
    for patience_s in patience:
        for model in (request.model, *request.fallback):
            asked = msgspec.structs.replace(request, model=model)
            try:
                return await _answer_in_turn(asked, models, journal, writes, patience_s)
            except ModelError as error:
                if error.type != LOST_PATIENCE:
                    raise
                journal.spent(error)
                logger.warning("model.overloaded", model=model, error=error.message)
    return await _answer_in_turn(request, models, journal, writes, None)


async def _answer_in_turn(
    request: ModelRequest,
    models: Models,
    journal: Journal,
    writes: Callable[[], Callable[[str], None] | None],
    patience_s: float | None,
) -> ModelAnswer:
    async def call() -> ModelAnswer:
        whole = await _with_files(request, journal) if request.refs else request
        if prefix is None:
            return await models.complete(whole, on_chunk=writes(), on_cut=journal.spent)
        async with journal.warmed(prefix) as on_begun:
            return await models.complete(whole, on_chunk=writes(), on_cut=journal.spent, on_begun=on_begun)

    rehearses = models.where(request.flow, request.model).settings.rehearses
    prefix = prefix_of(request) if request.warm and not rehearses else None
    bound = msgspec.structs.replace(
        bound_of_asked(request),
        rehearses=rehearses,
        holds=patience_s is not None,
        patience_s=patience_s,
    )
    return await journal.in_turn(call, bound)


async def _with_files(request: ModelRequest, journal: Journal) -> ModelRequest:
    """Return the request with the bytes of its files. Raises `FileRefused`, and what the journal raises."""
    files = {}
    for ref in request.refs:
        if ref.sha256 not in files:
            files[ref.sha256] = await journal.load(ref)
    await asyncio.to_thread(check_contents, request, files)
    return msgspec.structs.replace(request, files=files)


def request_of(task: StepTask, offered: Sequence[OfferedTool] = ()) -> ModelRequest:
    """Return what a step asks its model: the prompts of its agent, with the values in their places.

    `offered` are the functions and tools of servers that it is offered. Raises `MissingValue`, `FileRefused`.
    """
    plan = task.plan
    try:
        asked = asked_by(plan, task.step, task.values, task.branches, offered)
    except prompts.MissingValue as error:
        raise MissingValue(str(error)) from error
    except prompts.FileMisplaced as error:
        raise FileRefused(error.ref.label, "a system prompt holds text only; put it into `prompt`") from error
    agent = plan.agent(task.step)
    return ModelRequest(
        **msgspec.structs.asdict(asked),
        timeout_s=plan.timeout_s(task.step),
        flow=plan.flow.name,
        fallback=tuple(plan.model(name) for name in agent.fallback),
        warm=not key_of_child(task.step) and plan.step(task.step).warm,
    )
