"""What a step may ask for: its workers, with arguments that fit them, so many in all, and so deep. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from baton_actors.agents.asks import AskRefused
from baton_schemas.errors import BadContent, InputError, nearest
from baton_schemas.flow.inputs import check_fields
from baton_schemas.flow.limits import DEADLINE_MAX_S
from baton_schemas.flow.nested import input_of
from baton_schemas.wire.values import encode_value

from .claim import Claim


def check_worker(work: Claim, agent: str) -> None:
    """Check that the step may ask an agent. Raises `AskRefused`."""
    own, workers = _own(work), _workers(work)
    if agent in workers:
        return
    if not isinstance(agent, str) or agent not in work.plan.flow.agents:
        raise AskRefused(
            f"agent {own!r} asks {agent!r}, and the flow has no such agent. {nearest(str(agent), workers)}".rstrip()
        )
    raise AskRefused(
        f"agent {own!r} asks {agent!r}, which is none of its workers: add it to `workers` of [agents.{own}]"
    )


def flow_agent(work: Claim, name: str) -> str:
    """Return the agent that is meant with a flow: one of the workers, by its own name or that of its flow.

    The agent that does the step for `""`. Raises `AskRefused`.
    """
    plan, own = work.plan, _own(work)
    if not name:
        return own
    flows = {worker: nested for worker in _workers(work) if (nested := plan.nested_of(worker)) is not None}
    if name in flows:
        return name
    for worker, nested in flows.items():
        if nested.flow.name == name:
            return worker
    names = [*flows, *(nested.flow.name for nested in flows.values())]
    raise AskRefused(
        f"agent {own!r} runs {name!r}, which is no flow among its workers: name an agent with "
        f"`flow = …` in `workers` of [agents.{own}]. {nearest(str(name), names)}".rstrip()
    )


def check_count(work: Claim, name: str, count: int) -> None:
    """Check that the step may ask for `name`, as the `count`-th of its children. Raises `AskRefused`."""
    agent = work.plan.agent(work.handoff.step)
    if count > agent.max_asks:
        own = _own(work)
        raise AskRefused(
            f"agent {own!r} asks {name} after {agent.max_asks} others: max_asks of [agents.{own}] is {agent.max_asks}"
        )
    if work.depth >= agent.max_depth:
        own = _own(work)
        raise AskRefused(
            f"agent {own!r} asks {name} at a depth of {work.depth + 1}: max_depth of [agents.{own}] is "
            f"{agent.max_depth}"
        )


def fitting(work: Claim, agent: str, arguments: Mapping[str, Any]) -> dict[str, Raw]:
    """Return arguments as JSON, as the agent's input has them, defaults included. Raises `AskRefused`."""
    fields = input_of(work.plan.flow, agent)
    given: dict[str, Raw] = {}
    try:
        for name, value in arguments.items():
            given[name] = _in_order(encode_value(value, name))
        return check_fields(agent, "agent", fields, given)
    except BadContent as error:
        raise AskRefused(f"agent {agent!r} cannot be asked with this: {error}") from error
    except InputError as error:
        raise AskRefused(f"agent {agent!r}, input {error.place!r}: {error.reason} {error.hint}".rstrip()) from error


def seconds_of(what: str, given: float, *, least: float) -> float:
    """Return a time in seconds, checked. Raises `AskRefused`, which calls it `what`."""
    if not isinstance(given, int | float) or not math.isfinite(given) or not least <= given <= DEADLINE_MAX_S:
        raise AskRefused(f"{what}: {given!r}; expected seconds, at most {DEADLINE_MAX_S:.0f} (a year)")
    return float(given)


def _own(work: Claim) -> str:
    return work.plan.agent_of(work.handoff.step)


def _workers(work: Claim) -> list[str]:
    return work.plan.agent(work.handoff.step).workers


def _in_order(data: bytes) -> Raw:
    """Return JSON with the keys of its objects in one order: the same arguments are the same however they are made."""
    return Raw(msgspec.json.encode(msgspec.json.decode(data), order="sorted") if b"{" in data else data)
