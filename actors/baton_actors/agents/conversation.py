"""A conversation with a model that calls tools: what it said, what came of its calls, and how both are sent back. Pure.

What is sent back is what came, but for what the API would refuse: blocks without text, ids that are taken or none,
arguments that are no object. Each of these is the model's mistake, or a gateway's, and only the call that has it fails.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from msgspec import Struct

from baton_actors.models import ModelAnswer
from baton_actors.models.content import ANSWER_NOW, Block
from baton_schemas.flow.types import json_type
from baton_schemas.show.asked import Turn
from baton_schemas.show.conversation import called
from baton_schemas.wire.values import clean_text

RESULT_CHARS_MAX = 100_000
"""Of one result: some 25,000 tokens, an eighth of what a model holds in mind."""
ROUND_CHARS_MAX = 400_000
"""Of all results of a round together, each its part: a fan-out of hundreds must leave room for an answer."""
_PART_CHARS_MIN = 1_000
_ERROR_CHARS_MAX = 2_000
"""Of an error that a model is told, as much as is recorded of one."""
_LINE_CHARS_MAX = 150
_LINES_FIRST, _LINES_LAST = 2, 6
"""Of a conversation as an error shows it: how it began, and how it went on in the end."""
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_NOT_SAID = frozenset({"thinking", "redacted_thinking"})
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


class Call(Struct, frozen=True, kw_only=True):
    """What a model asks for: a tool by name, with arguments."""

    id: str
    """Of this call alone, in the whole conversation."""
    name: str
    arguments: dict[str, Any]
    wrong: str = ""
    """Why it cannot be made, to be told to the model."""


class Came(Struct, frozen=True, kw_only=True):
    """What came of a call."""

    text: str
    is_error: bool = False


class Conversation:
    """What was said after the prompt. `tools` are the names of what may be called."""

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self._ids: set[str] = set()
        self._lines: list[str] = []
        self.turns: list[Turn] = []
        self.rounds = 0

    def take(self, answer: ModelAnswer) -> list[Call]:
        """Take an answer; return what it calls for, in its order."""
        self.rounds += 1
        blocks: list[Block] = []
        calls: list[Call] = []
        for number, block in enumerate(answer.content, 1):
            if block.get("type") == "tool_use":
                call = self._call(block, cut=answer.truncated and number == len(answer.content))
                calls.append(call)
                blocks.append({**_sendable(block), "id": call.id, "name": call.name, "input": call.arguments})
            elif block.get("type") != "text" or str(block.get("text") or "").strip():
                blocks.append(_sendable(block))
        if any(block.get("type") not in _NOT_SAID for block in blocks):  # the API refuses turns of nothing
            self.turns.append(Turn(role="assistant", content=blocks))
        said = " ".join(answer.text.split())
        if said or not calls:
            self._line(f"the model: {said or answer.stop_reason}")
        return calls

    def add(self, calls: Sequence[Call], came: Sequence[Came], *, is_last: bool) -> None:
        """Add what came of the calls of an answer. `is_last`: the model is told to answer now."""
        limit = max(min(RESULT_CHARS_MAX, ROUND_CHARS_MAX // max(len(calls), 1)), _PART_CHARS_MIN)
        blocks: list[Block] = []
        for call, what in zip(calls, came, strict=True):
            shown = f"{'error: ' if what.is_error else ''}{' '.join(what.text[:1000].split())}"
            self._line(f"{called(call.name, call.arguments)}: {shown}")
            text = _bounded(what.text, _ERROR_CHARS_MAX if what.is_error else limit)
            block = {"type": "tool_result", "tool_use_id": call.id, "content": text}
            blocks.append({**block, "is_error": True} if what.is_error else block)
        if is_last:
            blocks.append({"type": "text", "text": ANSWER_NOW})
        self.turns.append(Turn(role="user", content=blocks))

    def tell(self, what: str) -> None:
        """Add something that the model is told after an answer that calls nothing."""
        self.turns.append(Turn(role="user", content=[{"type": "text", "text": what}]))
        self._line(f"the model is told: {what}")

    def so_far(self, calls: Sequence[Call] = ()) -> str:
        """Return the conversation as an error shows it, a line for each thing said; `calls` are those not made."""
        waiting = [f"round {self.rounds}, {called(call.name, call.arguments)}: not asked" for call in calls]
        lines = [*self._lines, *waiting]
        left = len(lines) - _LINES_FIRST - _LINES_LAST
        if left > 0:
            lines[_LINES_FIRST:-_LINES_LAST] = [f"… {left} more …"]
        return "\n".join(lines)

    def _line(self, what: str) -> None:
        self._lines.append(clean_text(f"round {self.rounds}, {what}", _LINE_CHARS_MAX))

    def _call(self, block: Block, *, cut: bool) -> Call:
        name, given = str(block.get("name") or ""), block.get("input")
        wrong = self._wrong(name, given, str(block.get("broken") or ""), cut=cut)
        arguments = given if isinstance(given, dict) else {}
        return Call(id=self._id(block), name=_name(name), arguments=arguments, wrong=wrong)

    def _wrong(self, name: str, given: Any, broken: str, *, cut: bool) -> str:
        if name not in self._tools:
            return f"There is no tool {clean_text(name, 100)!r}. There are: {', '.join(self._tools)}."
        if cut and (broken or not given):
            return "This call was cut off at max_tokens, and not made. Call again with less text."
        if broken:
            return f"The arguments are no JSON object, so nothing was called. {broken}"
        if not isinstance(given, dict):
            return f"The arguments are {json_type(given)}: expected an object, so nothing was called."
        return ""

    def _id(self, block: Block) -> str:
        """Return the id of a call: its own, unless that is no id or another call has it."""
        own = str(block.get("id") or "")
        number = len(self._ids) + 1
        found = own if _ID.match(own) and own not in self._ids else f"call_{number}"
        while found in self._ids:
            number += 1
            found = f"call_{number}"
        self._ids.add(found)
        return found


def last_word(answer: ModelAnswer) -> str:
    """Return what a model says in the end: after the last use of the provider's tools, if it used some."""
    last = max((n for n, block in enumerate(answer.content) if _is_provided(block)), default=None)
    if last is None:
        return answer.text
    after = "".join(str(block.get("text") or "") for block in answer.content[last:] if block.get("type") == "text")
    return after.strip() or answer.text


def _is_provided(block: Block) -> bool:
    kind = str(block.get("type"))
    return kind == "server_tool_use" or kind.endswith("_tool_result")


def _sendable(block: Block) -> Block:
    return {key: value for key, value in block.items() if key != "broken"}


def _name(name: str) -> str:
    """Return a name that the API takes back; one that is none is that of no tool anyway."""
    return _NOT_IN_NAMES.sub("_", name)[:64] or "none"


def _bounded(text: str, limit: int) -> str:
    """Return a result as a model is told it: never empty, and cut with a note where it is too long."""
    if not text.strip():
        return "(nothing)"
    if len(text) <= limit:
        return text
    return f"{clean_text(text[:limit], limit)}\n\n[cut here: the first {limit:,} of {len(text):,} characters]"
