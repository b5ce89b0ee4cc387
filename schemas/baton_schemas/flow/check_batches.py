"""Whether model calls can be gathered into batches as a flow says: of LLM agents only, within what the API takes."""

from __future__ import annotations

import math

from baton_schemas.errors import FlowError
from baton_schemas.flow.flow import Agent, BatchPolicy, Flow, Step
from baton_schemas.flow.limits import BATCH_COUNT_MAX, BATCH_SECONDS_MAX


def check_batches(flow: Flow) -> None:
    """Raise `FlowError` for the first `delivery` that is of no model call, or `batch` that could gather nothing."""
    for name, step in flow.steps.items():
        _check(f"steps.{name}", step, flow.agents[step.agent])
        if step.warm and (step.delivery or flow.agents[step.agent].delivery) == "batch":
            found = "`warm` on a step whose calls go in batches"
            raise FlowError(
                f"steps.{name}.warm", found, "it only where calls are live: those of a batch begin at any time"
            )
        if step.batch is not None and (step.delivery or flow.agents[step.agent].delivery) != "batch":
            raise _unused(f"steps.{name}.batch", "step")
    for name, agent in flow.agents.items():
        _check(f"agents.{name}", agent, agent)
        deliveries = {step.delivery for step in flow.steps.values() if step.agent == name}
        if agent.batch is not None and "batch" not in (agent.delivery, *deliveries):
            raise _unused(f"agents.{name}.batch", "agent")


def _check(place: str, told: Agent | Step, agent: Agent) -> None:
    if not agent.asks_models:
        what = "delivery" if told.delivery not in ("live", None) else "batch" if told.batch is not None else ""
        if what:
            found = f"`{what}` where no LLM agent is"
            raise FlowError(f"{place}.{what}", found, "it only with `model` and `prompt`: model calls go in batches")
    if told.batch is not None:
        _check_policy(f"{place}.batch", told.batch)


def _check_policy(place: str, policy: BatchPolicy) -> None:
    if not 1 <= policy.count <= BATCH_COUNT_MAX:
        raise FlowError(f"{place}.count", str(policy.count), f"calls: from 1 to {BATCH_COUNT_MAX:,}, as the API takes")
    if not (math.isfinite(policy.seconds) and 0 < policy.seconds <= BATCH_SECONDS_MAX):
        expected = f"seconds: more than 0, at most {BATCH_SECONDS_MAX:.0f} (a day)"
        raise FlowError(f"{place}.seconds", f"{policy.seconds:g}", expected)


def _unused(place: str, what: str) -> FlowError:
    return FlowError(place, f"`batch` on {what} whose calls are live", 'it only with `delivery = "batch"`')
