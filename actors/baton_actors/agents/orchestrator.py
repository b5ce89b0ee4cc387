"""The orchestrator: does a step by letting a model decide which workers to ask, as often as it takes to answer.

Each answer of the model is recorded before what it calls for is asked, and what is asked is found again by what it is.
So a step that is done again comes to where it was without asking anybody twice.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from baton_actors.agents.asks import AskFailed, AskRefused, Asks
from baton_actors.agents.conversation import Call, Came, Conversation
from baton_actors.agents.kinds import WAITING, Journal, Performed, StepTask
from baton_actors.agents.prompt import answer_to, request_of
from baton_actors.errors import TooManyAsks, TooManyRounds
from baton_actors.models import ModelAnswer, Models
from baton_schemas.flow.graph import Plan
from baton_schemas.run.branches import fan_outs
from baton_schemas.wire.outcomes import total
from baton_schemas.wire.values import encode_value

_PAUSED = "pause_turn"
"""Why an answer stopped that the model goes on with, once it has it back."""


class OrchestratorAgent:
    """Any LLM agent that has `workers`: they are the tools of its model."""

    def __init__(self, models: Models) -> None:
        self._models = models

    @property
    def concurrency(self) -> int:
        """It waits for its model and its workers."""
        return WAITING

    @property
    def may_ask(self) -> bool:
        """Its workers."""
        return True

    def asks(self, plan: Plan, step: str) -> frozenset[str]:
        """All that its prompt names, as for a prompt agent."""
        return fan_outs(plan, step) & plan.reads[step]

    async def perform(self, task: StepTask, journal: Journal) -> Performed:
        """Ask the model and make its calls, all those of an answer at once, until it answers without one.

        `timeout_s` bounds each call of the model; waiting for workers has no bound but theirs. Raises `MissingValue`,
        before anything is asked, `TooManyRounds`, `TooManyAsks`, `ModelError`, and what the journal and `task.asks`
        raise other than `AskFailed` and `AskRefused`, which the model is told.
        """
        agent, request = task.plan.agent(task.step), request_of(task)
        conversation = Conversation([tool.name for tool in request.tools])
        answers: list[ModelAnswer] = []
        asked = 0
        while True:
            going_on = msgspec.structs.replace(request, turns=tuple(conversation.turns))
            writes = functools.partial(task.context.writes, f"round-{len(answers) + 1}")
            answers.append(await answer_to(going_on, self._models, journal, writes))
            calls = conversation.take(answers[-1])
            paused = answers[-1].stop_reason == _PAUSED
            if not calls and not paused:
                return _performed(answers)
            rounds = len(answers)
            if rounds >= agent.max_rounds:
                raise TooManyRounds(rounds, conversation.so_far(calls))
            asked += sum(not call.wrong for call in calls)
            if asked > agent.max_asks:
                raise TooManyAsks(asked, agent.max_asks, conversation.so_far(calls))
            if calls:
                came = await _all(calls, task.asks)
                conversation.add(calls, came, is_last=rounds == agent.max_rounds - 1)


async def _all(calls: Sequence[Call], asks: Asks) -> list[Came]:
    """Make all calls at once; return what came of each, in their order. When one cannot be waited for, none is."""
    making = [asyncio.ensure_future(_made(call, asks)) for call in calls]
    try:
        return await asyncio.gather(*making)
    finally:
        for each in making:
            each.cancel()
        await asyncio.gather(*making, return_exceptions=True)


async def _made(call: Call, asks: Asks) -> Came:
    if call.wrong:
        return Came(text=call.wrong, is_error=True)
    try:
        return Came(text=_as_text(await asks.ask(call.name, call.arguments)))
    except (AskFailed, AskRefused) as error:
        return Came(text=str(error), is_error=True)


def _as_text(output: Raw) -> str:
    """Return what a worker put out as a model reads it: text as it is, anything else as JSON."""
    data = bytes(output)
    return msgspec.json.decode(data, type=str) if data.lstrip()[:1] == b'"' else data.decode()


def _performed(answers: Sequence[ModelAnswer]) -> Performed:
    """Return the last answer, with what all of them took."""
    last, usages = answers[-1], [answer.usage for answer in answers]
    prices = [answer.cost_usd for answer in answers if answer.cost_usd is not None]
    return Performed(
        output=encode_value(last.text, "output"),
        truncated=last.truncated,
        model=last.model,
        rehearsed=any(answer.rehearsed for answer in answers),
        request_id=last.request_id,
        usage=total(usages),
        cost_usd=math.fsum(prices) if prices else None,
    )
