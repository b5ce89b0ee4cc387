"""What the model says to agents that have tools: by its plan it calls them, pauses, or ends; and what it was told.

It says in each answer which turn it is, and which of all answers, so that no two are alike: whoever has one in hand, a
tool say, knows which one it is. In the last turn it says what it was told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from .plans import order_of, plan

Told = tuple[str, int, str, bool]
"""What the model was told of a call: its order, of which answer it is, the text, and whether that is an error."""


class Said(NamedTuple):
    """One answer of the model."""

    blocks: list[dict[str, Any]]
    stop_reason: str
    facts: dict[str, Any]
    """What is said of it in the history."""


def text_of(message: dict[str, Any]) -> str:
    """Return the text of a message, whose content is a text or blocks."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(block["text"] for block in content if block["type"] == "text")


def said_to(messages: list[dict[str, Any]], run: str, step: str, number: int) -> Said:
    """Return what the model says; `number` is of this answer among all."""
    turns = plan(run, step)
    turn = sum(message["role"] == "assistant" for message in messages)
    told, wrong = _told(messages)
    facts: dict[str, Any] = {"turn": turn, "number": number, "told": told, "wrong": wrong}
    if turn >= len(turns):
        return Said([_text(run, step, turn, number, f" {digest(told)}")], "end_turn", facts)
    blocks = [_text(run, step, turn, number)]
    for place, name in enumerate(turns[turn].calls):
        given = {"order": order_of(run, step, turn, place), "number": number}
        blocks.append({"type": "tool_use", "id": f"toolu_{number}_{place}", "name": name, "input": given})
    return Said(blocks, "pause_turn" if turns[turn].pauses else "tool_use", facts)


def digest(told: Iterable[Told]) -> str:
    """Return what says all that the model was told."""
    return hashlib.sha256(json.dumps([list(each) for each in told]).encode()).hexdigest()[:16]


def _text(run: str, step: str, turn: int, number: int, more: str = "") -> dict[str, Any]:
    return {"type": "text", "text": f"turn {turn} of {run}/{step}, number {number}.{more}"}


def _told(messages: list[dict[str, Any]]) -> tuple[list[Told], str]:
    """Return what the model was told of all calls, and what the API would refuse of how; empty when that is nothing."""
    told: list[Told] = []
    open_calls: dict[str, dict[str, Any]] = {}
    wrong = ""
    for message in messages[1:]:
        blocks = message["content"] if isinstance(message["content"], list) else []
        if message["role"] == "assistant":
            wrong = wrong or ("calls without results" if open_calls else "")
            open_calls = {block["id"]: block for block in blocks if block["type"] == "tool_use"}
            continue
        for block in (each for each in blocks if each["type"] == "tool_result"):
            call = open_calls.pop(block["tool_use_id"], None)
            if call is None:
                wrong = wrong or f"a result of {block['tool_use_id']}, which was not called"
                continue
            text = block["content"] if isinstance(block["content"], str) else text_of(block)
            told.append((call["input"]["order"], call["input"]["number"], text, block.get("is_error", False)))
    return told, wrong or ("calls without results" if open_calls else "")
