"""The prompt agent: does a step by asking a model with the prompt that the flow has, once unless it answers badly."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Sequence

import msgspec
import structlog

from baton_actors.agents.kinds import WAITING, Journal, Performed, StepTask
from baton_actors.agents.outputs import asked_again, output_of
from baton_actors.errors import FileRefused, MissingValue
from baton_actors.models import ModelAnswer, ModelError, ModelRequest, Models, request_digest
from baton_actors.models.body import bound_of_asked
from baton_actors.models.caching import prefix_of
from baton_actors.models.files import check_contents, check_files
from baton_actors.models.pace import LOST_PATIENCE
from baton_schemas.flow import prompts
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.outputs import schema_of
from baton_schemas.flow.tools import OfferedTool
from baton_schemas.flow.types import Unfit
from baton_schemas.run.branches import fan_outs
from baton_schemas.run.refs import key_of_child
from baton_schemas.show.asked import Turn, asked_by
from baton_schemas.wire.outcomes import total
from baton_schemas.wire.values import clean_text

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

        An answer that does not fit its `output` is asked for once more. Raises `MissingValue`, before anything is
        asked, `AnswerUnfit`, `ModelError`, and what the journal raises.
        """
        agent, request = task.plan.agent(task.step), request_of(task)
        schema, limit = schema_of(agent), request.max_tokens
        answers = [await answer_to(request, self._models, journal, task.context.writes)]
        try:
            output = output_of(answers[0], schema, limit, again=False)
        except Unfit as error:
            said = Turn(role="assistant", content=[{"type": "text", "text": answers[0].text}])
            told = Turn(role="user", content=[{"type": "text", "text": asked_again(error, schema)}])
            again = msgspec.structs.replace(request, turns=(said, told))
            answers.append(await answer_to(again, self._models, journal, task.context.writes))
            output = output_of(answers[1], schema, limit, again=True)
        return performed(answers, output)


def performed(answers: Sequence[ModelAnswer], output: bytes) -> Performed:
    """Return what a step puts out whose last answer this is the last of, with what all of them took."""
    last = answers[-1]
    prices = [answer.cost_usd for answer in answers if answer.cost_usd is not None]
    return Performed(
        output=output,
        truncated=last.truncated,
        model=last.model,
        rehearsed=any(answer.rehearsed for answer in answers),
        request_id=last.request_id,
        usage=total(answer.usage for answer in answers),
        cost_usd=math.fsum(prices) if prices else None,
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
        if journal.by_batch:  # which waits for its model where that is overloaded
            where = models.where(request.flow, request.model)
            bound = await models.priced(bound_of_asked(request), where, batch=True)
            return await journal.batched(request, digest, bound)
        return await answer_of_any(request, models, journal, writes, digest)
    except ModelError as error:
        error.request_sha256 = digest
        raise


async def answer_of_any(
    request: ModelRequest,
    models: Models,
    journal: Journal,
    writes: Callable[[], Callable[[str], None] | None],
    digest: str,
) -> ModelAnswer:
    """Return what the model answers, or one of those that are asked in its place while it is overloaded.

    They are asked in turn, each with more patience than in the round before, so that none is waited for while another
    is there. When all of them are overloaded for that long, the first one is waited for; a step that was let go of
    meanwhile begins with the first round. What is answered is recorded under `digest`. Raises as `answer_to`.
    """
    patience = [FALLBACK_AFTER_S * 2.0**round for round in range(FALLBACK_ROUNDS)] if request.fallback else []
    for patience_s in patience:
        for model in (request.model, *request.fallback):
            asked = msgspec.structs.replace(request, model=model)
            try:
                return await _answer_in_turn(asked, models, journal, writes, digest, patience_s)
            except ModelError as error:
                if error.type != LOST_PATIENCE:
                    raise
                journal.spent(error)
                logger.warning("model.overloaded", model=model, error=error.message)
    return await _answer_in_turn(request, models, journal, writes, digest, None)


async def _answer_in_turn(
    request: ModelRequest,
    models: Models,
    journal: Journal,
    writes: Callable[[], Callable[[str], None] | None],
    digest: str,
    patience_s: float | None,
) -> ModelAnswer:
    async def call(on_begun: Callable[[], None] = lambda: None) -> ModelAnswer:
        whole = await _with_files(request, journal) if request.refs else request
        answer = await models.complete(whole, on_chunk=writes(), on_cut=journal.spent, on_begun=on_begun)
        # Models stream halves of characters now and then; what is recorded is what is put out.
        answer = msgspec.structs.replace(answer, text=clean_text(answer.text, len(answer.text)))
        return await journal.record(digest, answer)

    bound = await models.priced(bound_of_asked(request), models.where(request.flow, request.model))
    bound = msgspec.structs.replace(bound, holds=patience_s is not None, patience_s=patience_s)
    prefix = prefix_of(request) if request.warm and not bound.rehearsed else None
    if prefix is None:
        return await journal.in_turn(call, bound)
    async with journal.warmed(prefix) as on_begun:
        return await journal.in_turn(functools.partial(call, on_begun), bound)


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
    if not asked.prompt.strip():
        raise MissingValue("the prompt has no text: all that it names is empty. Give it a value, or a word of its own")
    agent = plan.agent(task.step)
    return ModelRequest(
        **msgspec.structs.asdict(asked),
        timeout_s=plan.timeout_s(task.step),
        flow=plan.flow.name,
        fallback=tuple(plan.model(name) for name in agent.fallback),
        warm=not key_of_child(task.step) and plan.step(task.step).warm,
    )
