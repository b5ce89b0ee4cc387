"""The orchestrator: does a step by letting a model decide whom to ask and what to call, as often as it takes to answer.

Each answer of the model is recorded before what it calls for is asked, what is asked is found again by what it is, and
what a tool gave is recorded before the model is told. So a step that is done again comes to where it was without asking
anybody, or calling anything, twice.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Collection, Sequence

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from baton_actors.agents.asks import AskFailed, AskRefused, Asks, all_needed
from baton_actors.agents.conversation import Call, Came, Conversation, last_word
from baton_actors.agents.kinds import WAITING, Journal, Performed, StepTask
from baton_actors.agents.outputs import asked_again, output_of
from baton_actors.agents.prompt import answer_to, performed, request_of
from baton_actors.agents.tools.calling import Calling
from baton_actors.agents.tools.toolbox import Toolbox
from baton_actors.errors import TooManyAsks, TooManyCalls, TooManyRounds
from baton_actors.models import ModelAnswer, Models, request_digest
from baton_actors.models.content import GO_ON
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.outputs import schema_of
from baton_schemas.flow.tools import OfferedTool
from baton_schemas.flow.types import Unfit
from baton_schemas.run.branches import fan_outs

_PAUSED = "pause_turn"
"""Why an answer stopped that the model goes on with, once it has it back."""


class OrchestratorAgent:
    """An LLM agent that has `workers`, `tools` or both: its model calls them."""

    def __init__(self, models: Models, toolbox: Toolbox | None = None) -> None:
        """`toolbox` has the tools of the agent; None for one that has workers alone."""
        self._models, self._toolbox = models, toolbox

    @property
    def concurrency(self) -> int:
        """It waits for its model, its workers and its tools."""
        return WAITING

    @property
    def may_ask(self) -> bool:
        """Its workers, and a person when a tool is in doubt."""
        return True

    def asks(self, plan: Plan, step: str) -> frozenset[str]:
        """All that its prompt names, as for a prompt agent."""
        return fan_outs(plan, step) & plan.reads[step]

    async def perform(self, task: StepTask, journal: Journal) -> Performed:
        """Ask the model and make its calls, all those of an answer at once, until it answers without one.

        An answer that does not fit its `output`, or says nothing after the results of calls, is asked for once more,
        beyond `max_rounds` if need be.
        `timeout_s` bounds each call of the model, `tool_timeout_s` each of a tool; waiting for workers has no bound but
        theirs. Raises `MissingValue`, before anything is asked, `TooManyRounds`, `TooManyAsks`, `TooManyCalls`,
        `ToolInDoubt`, `AnswerUnfit`, `ModelError`, what `Toolbox.offer` raises, and what the journal and `task.asks`
        raise other than `AskFailed` and `AskRefused`, which the model is told.
        """
        agent, offered = task.plan.agent(task.step), await self._offered(task, journal)
        request = request_of(task, offered)
        conversation = Conversation([tool.name for tool in request.tools])
        calling = self._calling(task, journal, offered)
        answers: list[ModelAnswer] = []
        asked = called = 0
        schema, again = schema_of(agent), False
        while True:
            container = answers[-1].container if answers else ""
            going_on = replace(request, turns=tuple(conversation.turns), container=container)
            writes = functools.partial(task.context.writes, f"round-{len(answers) + 1}")
            answers.append(await answer_to(going_on, self._models, journal, writes))
            calls = conversation.take(answers[-1])
            paused = answers[-1].stop_reason == _PAUSED
            if not calls and not paused:
                if not answers[-1].text.strip():
                    conversation.tell(GO_ON)
                    continue
                try:
                    said = replace(answers[-1], text=last_word(answers[-1]))
                    output = output_of(said, schema, request.max_tokens, again=again)
                except Unfit as error:
                    conversation.tell(asked_again(error, schema))
                    again = True
                    continue
                return performed(answers, output)
            rounds = len(answers)
            if rounds >= agent.max_rounds:
                raise TooManyRounds(rounds, conversation.so_far(calls))
            asked += sum(not call.wrong and call.name in agent.workers for call in calls)
            if asked > agent.max_asks:
                raise TooManyAsks(asked, agent.max_asks, conversation.so_far(calls))
            called += sum(not call.wrong and call.name not in agent.workers for call in calls)
            if called > agent.max_calls:
                raise TooManyCalls(called, agent.max_calls, conversation.so_far(calls))
            if calls:
                digest = request_digest(going_on, self._models.settings)
                came = await _all(calls, task.asks, agent.workers, calling, digest)
                conversation.add(calls, came, is_last=rounds == agent.max_rounds - 1)

    async def _offered(self, task: StepTask, journal: Journal) -> list[OfferedTool]:
        """Return what the model is offered besides workers: as it was when it was first asked, or else as it is now."""
        if self._toolbox is None or not self._toolbox.needs_offer:
            return []
        offered = await journal.tools.offered()
        return offered if offered is not None else await journal.tools.offer(await self._toolbox.offer())

    def _calling(self, task: StepTask, journal: Journal, offered: Sequence[OfferedTool]) -> Calling | None:
        if self._toolbox is None or not self._toolbox.needs_offer:
            return None
        return Calling(
            task.plan.agent(task.step),
            self._toolbox.targets(offered),
            journal.tools,
            task.asks,
            task.context,
            rehearses=self._models.settings.rehearses,
        )


async def _all(
    calls: Sequence[Call], asks: Asks, workers: Collection[str], calling: Calling | None, digest: str
) -> list[Came]:
    """Make all calls at once; return what came of each, in their order.

    When one cannot be waited for, no worker is; a tool that was called is let finish, so that it is not in doubt.
    """
    if calling is not None:
        await calling.settle(calls, digest)
    with all_needed():
        asking = {n: asyncio.ensure_future(_asked(call, asks)) for n, call in enumerate(calls) if call.name in workers}
    making = [asking.get(n) or asyncio.ensure_future(_called(call, calling, digest, n)) for n, call in enumerate(calls)]
    cut_off: Collection[asyncio.Future[Came]] = asking.values()
    try:
        return await asyncio.gather(*making)
    except asyncio.CancelledError:
        cut_off = making
        raise
    finally:
        for each in cut_off:
            each.cancel()
        await asyncio.gather(*making, return_exceptions=True)


async def _asked(call: Call, asks: Asks) -> Came:
    if call.wrong:
        return Came(text=call.wrong, is_error=True)
    try:
        return Came(text=_as_text(await asks.ask(call.name, call.arguments)))
    except (AskFailed, AskRefused) as error:
        return Came(text=str(error), is_error=True)


async def _called(call: Call, calling: Calling | None, digest: str, place: int) -> Came:
    if call.wrong:
        return Came(text=call.wrong, is_error=True)
    assert calling is not None, "only what is offered is called"
    return await calling.make(call, digest, place)


def _as_text(output: Raw) -> str:
    """Return what a worker put out as a model reads it: text as it is, anything else as JSON."""
    data = bytes(output)
    return msgspec.json.decode(data, type=str) if data.lstrip()[:1] == b'"' else data.decode()
