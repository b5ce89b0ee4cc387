"""The content blocks of an answer, put together from the events of its stream. Pure; the SDK is not imported.

They are kept as they came, as the API wants them back when the conversation goes on (thinking and its signature to the
letter). What a tool is called with is JSON that comes in pieces; when it is none, the block has an empty `input` and
says why in `broken`, a key of ours.
"""

from __future__ import annotations

from typing import Any

import msgspec

from baton_schemas.errors import BadContent
from baton_schemas.wire.values import check_json, clean_text, valid_text

Block = dict[str, Any]
"""A content block as the Messages API has it in JSON."""

ANSWER_NOW = "This was the last round of calls. Answer now with what you have, and call no tool."
"""What a model is told whose calls would not be made any more; a rehearsal heeds it too."""
GO_ON = "You said nothing. Go on, and answer."
"""What a model is told that ends its turn without a word after the results of its calls, as if all were said: in a
turn of its own (https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons)."""

_QUOTED_CHARS_MAX = 300
"""Of arguments that are no JSON: enough to find the mistake at an end."""


class Content:
    """Takes the events of content blocks. Kinds of blocks that it does not know are kept as they began."""

    def __init__(self) -> None:
        self._opened: list[_Opened] = []
        self._by_index: dict[int, _Opened] = {}

    def begin(self, index: int, block: Any) -> None:
        """Take the beginning of a block."""
        self._by_index[index] = opened = _Opened(as_json(block))
        self._opened.append(opened)

    def add(self, index: int, delta: Any) -> None:
        """Take a piece of a block. Raises `KeyError` for one that has not begun."""
        self._by_index[index].add(delta)

    def blocks(self) -> list[Block]:
        """Return the blocks in their order."""
        return [opened.block() for opened in self._opened]


class _Opened:
    """One block, and the pieces of it that have come."""

    def __init__(self, begun: Block) -> None:
        self._begun = begun
        self._pieces: dict[str, list[str]] = {}
        self._more: Block = {}

    def add(self, delta: Any) -> None:
        match delta.type:
            case "text_delta":
                self._piece("text", delta.text)
            case "thinking_delta":
                self._piece("thinking", delta.thinking)
            case "signature_delta":
                self._more["signature"] = valid_text(delta.signature)
            case "input_json_delta":
                self._piece("input", delta.partial_json)
            case "citations_delta":
                cited = self._more.get("citations") or list(self._begun.get("citations") or [])
                self._more["citations"] = [*cited, as_json(delta.citation)]
            case _:
                pass

    def block(self) -> Block:
        block = self._begun | self._more
        for key, pieces in self._pieces.items():
            if key == "input":
                block |= _arguments("".join(pieces), block)
            else:
                block[key] = valid_text(f"{block.get(key) or ''}{''.join(pieces)}")
        return block

    def _piece(self, key: str, piece: str) -> None:
        self._pieces.setdefault(key, []).append(piece)


def _arguments(text: str, block: Block) -> Block:
    """Return what a tool is called with, as keys of its block."""
    if not text.strip():
        return {}
    text = valid_text(text)
    try:
        check_json(text.encode(), "arguments")
    except BadContent as error:
        return {"input": {}, "broken": f"{error}: {clean_text(text, _QUOTED_CHARS_MAX)}"}
    return {"input": msgspec.json.decode(text)}


def as_json(value: Any) -> Any:
    """Return an object of the SDK, or of a rehearsal, as JSON has it, its texts valid."""
    match value:
        case str():
            return valid_text(value)
        case None | bool() | int() | float():
            return value
        case list() | tuple():
            return [as_json(inner) for inner in value]
        case dict():
            return {valid_text(str(key)): as_json(inner) for key, inner in value.items()}
        case _:
            dump = getattr(value, "model_dump", None)
            return as_json(dump(mode="json", exclude_unset=True) if callable(dump) else vars(value))
