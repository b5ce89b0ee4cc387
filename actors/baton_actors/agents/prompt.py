"""The prompt agent: does a step by asking a model once, with the prompt that the flow has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from baton_actors.agents.kinds import WAITING, Journal, Performed, StepTask
from baton_actors.models import ModelRequest, Models, request_digest
from baton_schemas.flow.prompts import render
from baton_schemas.wire.values import clean_text, encode_value


class PromptAgent:
    """Any LLM agent of any flow: the prompts come with the run's own flow."""

    def __init__(self, models: Models) -> None:
        self._models = models

    @property
    def concurrency(self) -> int:
        """It waits for its model."""
        return WAITING

    async def perform(self, task: StepTask, journal: Journal) -> Performed:
        """Ask the model, unless the journal has the answer. Raises `ModelError`, and what the journal raises."""
        request = request_of(task)
        digest = request_digest(request, self._models.settings)
        answer = await journal.recall(digest)
        if answer is None:
            answer = await journal.in_turn(lambda: self._models.complete(request, on_cut=journal.spent))
            # Models stream halves of characters now and then; what is recorded is what is put out.
            answer = msgspec.structs.replace(answer, text=clean_text(answer.text, len(answer.text)))
            answer = await journal.record(digest, answer)
        return Performed(
            output=encode_value(answer.text, "output"),
            truncated=answer.truncated,
            model=answer.model,
            rehearsed=answer.rehearsed,
            request_id=answer.request_id,
            usage=answer.usage,
            cost_usd=answer.cost_usd,
        )


def request_of(task: StepTask) -> ModelRequest:
    """Return what a step asks its model: the prompts of its agent, with the values in their places."""
    plan, values = task.plan, task.values
    agent = plan.agent(task.step)
    tier = plan.tier(agent)
    decoded: dict[str, Any] = {}

    def value_of(name: str) -> Any:
        if name not in decoded:
            decoded[name] = _for_prompt(name, values)
        return decoded[name]

    return ModelRequest(
        model=tier.model,
        system=render(agent.system, value_of),
        prompt=render(agent.prompt, value_of),
        max_tokens=tier.max_tokens,
        timeout_s=plan.timeout_s(task.step),
    )


def _for_prompt(name: str, values: Mapping[str, Raw]) -> Any:
    """Return a value as a prompt shows it; the errors as sentences, and a failed step as its error."""
    if name == "errors":
        return [_sentence(error) for error in msgspec.json.decode(values["errors"])]
    if name in values:
        return msgspec.json.decode(values[name])
    errors = msgspec.json.decode(values["errors"])
    return next((f"({_sentence(error)})" for error in errors if error["step"] == name), None)


def _sentence(error: dict[str, Any]) -> str:
    return f"step {error['step']} failed: {error['message']}"
