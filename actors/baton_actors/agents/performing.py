"""Doing a step: calling the handler or the model that the flow names, with the values that the step reads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import msgspec
from msgspec import Raw, Struct

from baton_actors.agents.handlers import Context, Handler
from baton_actors.errors import HandlerMissing
from baton_actors.models import ModelRequest, Models
from baton_actors.steps.memory import Memory
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.prompts import render
from baton_schemas.wire.messages import Usage


class Performed(Struct, frozen=True, kw_only=True):
    """What doing a step gave: its output as JSON, and what the model call took, if there was one."""

    output: bytes
    truncated: bool = False
    model: str = ""
    rehearsed: bool = False
    request_id: str = ""
    usage: Usage | None = None
    cost_usd: float | None = None


class Performer:
    """Does steps. `handlers` are those that the worker was started with, by the string that names them."""

    def __init__(self, handlers: Mapping[str, Handler], models: Models | None, executor: Executor | None) -> None:
        self._handlers, self._models, self._executor = dict(handlers), models, executor

    async def perform(
        self, plan: Plan, step: str, values: Mapping[str, Raw], context: Context, memory: Memory
    ) -> Performed:
        """Do a step with these values. Raises what the handler raises, `HandlerMissing`, `ModelError`."""
        agent = plan.agent(step)
        if not agent.handler:
            return await self._ask_model(plan, step, values, memory)
        handler = self._handlers.get(agent.handler)
        if handler is None:
            raise HandlerMissing(plan.step(step).agent, agent.handler)
        timeout_s = plan.timeout_s(step)
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                return Performed(output=await handler.run(values, context, self._executor))
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise TimeoutError(f"the handler did not finish within {timeout_s:g} s (timeout_s)") from error

    async def _ask_model(self, plan: Plan, step: str, values: Mapping[str, Raw], memory: Memory) -> Performed:
        assert self._models is not None, "a worker of an LLM agent has models"
        agent = plan.agent(step)
        tier = plan.tier(agent)
        decoded: dict[str, Any] = {}

        def value_of(name: str) -> Any:
            if name not in decoded:
                decoded[name] = _for_prompt(name, values, decoded)
            return decoded[name]

        request = ModelRequest(
            model=tier.model,
            system=render(agent.system, value_of),
            prompt=render(agent.prompt, value_of),
            max_tokens=tier.max_tokens,
            timeout_s=plan.timeout_s(step),
        )
        answer = await memory.recall(request)
        if answer is None:
            answer = await self._models.complete(request)
            await memory.record(request, answer)
        return Performed(
            output=msgspec.json.encode(answer.text),
            truncated=answer.truncated,
            model=answer.model,
            rehearsed=answer.rehearsed,
            request_id=answer.request_id,
            usage=answer.usage,
            cost_usd=answer.cost_usd,
        )


def _for_prompt(name: str, values: Mapping[str, Raw], decoded: dict[str, Any]) -> Any:
    """Return a value as a prompt shows it; the errors as sentences, and a failed step as its error."""
    if name == "errors":
        return [_sentence(error) for error in msgspec.json.decode(values["errors"])]
    if name in values:
        return msgspec.json.decode(values[name])
    errors = msgspec.json.decode(values["errors"])
    return next((f"({_sentence(error)})" for error in errors if error["step"] == name), None)


def _sentence(error: dict[str, Any]) -> str:
    return f"step {error['step']} failed: {error['message']}"
