"""Handlers of the chaos flows with budgets: one calls a model through its own client.

`spend_twins.py` says the same once more, for the checker: who changes one changes the other.
"""

from __future__ import annotations

from typing import Any

from anthropic import AsyncAnthropic
from tests.chaos.calling import Calls
from tests.chaos.dice import throw

from baton_actors.agents.handlers import Context


def split(context: Context, key: str) -> list[str]:
    return [f"{key}/{index}" for index in range(throw(context.run, "plan", "topics", 9))]


async def talk(context: Context, client: AsyncAnthropic) -> list[Any]:
    calls = Calls(context, client, max_tokens=20)
    return [await calls.create(f"word-{number}") for number in range(1 + throw(context.run, "talk", "words", 3))]


def close(facts: list[str], errors: list[Any], talk: list[Any] | None = None) -> dict[str, Any]:
    return {"talk": talk, "facts": facts, "errors": [[error["step"], error["type"]] for error in errors]}
