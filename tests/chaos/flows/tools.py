"""Tools and handlers of the chaos flow whose models call tools. Each tool tells that it is called before it acts.

`tools_twins.py` says the same of the handlers once more, for the checker; what tools do is in `plans.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from typing import Any

from tests.chaos import telling
from tests.chaos.dice import throw
from tests.chaos.plans import Behaviour, behaviour

from baton_actors import tool
from baton_actors.agents.handlers import Context

_HANGS_S = 1.8
"""More than the `tool_timeout_s` of the flow."""


@tool(idempotent=True)
async def look(order: str, number: int, context: Context) -> dict[str, Any] | str:
    """Look an order up."""
    how = _begin(context, "look", order, number)
    await asyncio.sleep(_HANGS_S if how.hangs else throw(order, "look", "takes", 40) / 1_000)
    return _end(how, order, number)


@tool(idempotent=True)
def scan(order: str, number: int, context: Context) -> dict[str, Any] | str:
    """Scan an order."""
    how = _begin(context, "scan", order, number)
    time.sleep(_HANGS_S if how.hangs else throw(order, "scan", "takes", 40) / 1_000)
    return _end(how, order, number)


@tool
async def pay(order: str, number: int, context: Context) -> dict[str, Any] | str:
    """Pay for an order."""
    how = _begin(context, "pay", order, number)
    await asyncio.sleep(_HANGS_S if how.hangs else throw(order, "pay", "takes", 80) / 1_000)
    return _end(how, order, number)


@tool
def send(order: str, number: int, context: Context) -> dict[str, Any] | str:
    """Send an order."""
    how = _begin(context, "send", order, number)
    time.sleep(_HANGS_S if how.hangs else throw(order, "send", "takes", 80) / 1_000)
    return _end(how, order, number)


def _begin(context: Context, name: str, order: str, number: int) -> Behaviour:
    telling.told_by_tool(context, name, order, number)
    how = behaviour(name, order)
    if how.kills and _is_first(order):
        os.kill(os.getpid(), signal.SIGKILL)
    return how


def _end(how: Behaviour, order: str, number: int) -> dict[str, Any] | str:
    if how.raises:
        raise ValueError(f"no good: {order}")
    return how.text or {"order": order, "number": number}


def _is_first(order: str) -> bool:
    """Say whether nobody was killed for this order before."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(f"{telling.told_to()}.{order.replace('/', '-')}", os.O_CREAT | os.O_EXCL))
        return True
    return False


def split(context: Context, key: str) -> list[str]:
    return [f"{key}/desk-{index}" for index in range(throw(context.run, "plan", "desks", 5))]


def close(desk: list[str], errors: list[Any], clerk: str = "") -> dict[str, Any]:
    return {"clerk": clerk, "desk": desk, "errors": [[error["step"], error["type"]] for error in errors]}
