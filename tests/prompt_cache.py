"""The prompt cache of the Messages API, as its documentation has it: what a request reads, writes and costs.

A prefix is kept from a mark back to the beginning, where it is long enough; it can be read once the first answer to who
wrote it has begun, and from its last use on for five minutes, or an hour. From each mark the API looks back twenty
blocks for what it has. https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

MARKS_MAX = 4
LOOKS_BACK = 20
_SECONDS = {"5m": 300.0, "1h": 3600.0}
_BYTES_PER_TOKEN = 4
INPUT, OUTPUT, READ, WRITTEN, WRITTEN_1H = 1.0, 5.0, 0.1, 1.25, 2.0
"""USD per million tokens, of Haiku 4.5."""


class TooManyMarks(ValueError):
    """The API answers it with 400."""


class Took(NamedTuple):
    """What a request took, in tokens."""

    input: int
    read: int
    written: int
    written_1h: int

    @property
    def usage(self) -> dict[str, Any]:
        """The same as the API says it."""
        hour = {"ephemeral_5m_input_tokens": self.written - self.written_1h}
        return {
            "input_tokens": self.input,
            "cache_read_input_tokens": self.read,
            "cache_creation_input_tokens": self.written,
            "cache_creation": hour | {"ephemeral_1h_input_tokens": self.written_1h},
        }

    def cost_usd(self, output_tokens: int) -> float:
        """What it costs, with an answer of so many tokens."""
        short = self.written - self.written_1h
        usd = self.input * INPUT + self.read * READ + short * WRITTEN + self.written_1h * WRITTEN_1H
        return (usd + output_tokens * OUTPUT) / 1e6


class _Entry:
    def __init__(self, kept_s: float) -> None:
        self.kept_s = kept_s
        self.until_s = 0.0
        """Until it can be read it has ended."""


class PromptCache:
    """That of one organization. Times are in seconds, by any clock that does not go back."""

    def __init__(self, least_tokens: int = 4096) -> None:
        """`least_tokens` is that of the model; of Haiku 4.5 unless given."""
        self._least = least_tokens
        self._entries: dict[str, _Entry] = {}
        self.marks = 0
        """Of the last request."""

    def take(self, body: dict[str, Any], now_s: float) -> tuple[Took, list[str]]:
        """Return what a request takes, and the names of what it writes, for `begun`. Raises `TooManyMarks`."""
        names, ends, marks = _prefixes(body)
        self.marks = len(marks)
        if len(marks) > MARKS_MAX:
            raise TooManyMarks(
                f"A maximum of {MARKS_MAX} blocks with cache_control may be provided. Found {len(marks)}."
            )
        hit = -1
        for at in marks:
            for index in range(at, max(at - LOOKS_BACK, -1), -1):
                entry = self._entries.get(names[index])
                if entry is not None and entry.until_s > now_s:
                    entry.until_s = now_s + entry.kept_s
                    hit = max(hit, index)
                    break
        read = ends[hit] if hit >= 0 else 0
        wanted = [at for at in marks if at > hit and ends[at] >= self._least]
        last = wanted[-1] if wanted else hit
        upto = ends[last] if last >= 0 else 0
        ttl = str(marks[wanted[-1]].get("ttl", "5m")) if wanted else "5m"
        for at in wanted:
            self._entries.setdefault(names[at], _Entry(_SECONDS[str(marks[at].get("ttl", "5m"))]))
        took = Took(ends[-1] - upto, read, upto - read, upto - read if ttl == "1h" else 0)
        return took, [names[at] for at in wanted]

    def begun(self, written: list[str], now_s: float) -> None:
        """The answer to a request has begun that wrote these."""
        for name in written:
            entry = self._entries[name]
            entry.until_s = now_s + entry.kept_s


def _prefixes(body: dict[str, Any]) -> tuple[list[str], list[int], dict[int, dict[str, Any]]]:
    """Return, block by block, the name and the tokens of all up to it; and the marks by their places."""
    blocks: list[tuple[str, dict[str, Any]]] = [("tool", tool) for tool in body.get("tools", [])]
    blocks += [("system", block) for block in _blocks(body.get("system", []))]
    for number, message in enumerate(body["messages"]):
        blocks += [(f"{number}{message['role']}", block) for block in _blocks(message["content"])]
    names, ends, marks = list[str](), list[int](), dict[int, dict[str, Any]]()
    hashed, tokens = hashlib.sha256(str(body["model"]).encode()), 0
    for index, (place, block) in enumerate(blocks):
        plain = {key: value for key, value in block.items() if key != "cache_control"}
        if "cache_control" in block:
            marks[index] = block["cache_control"]
        hashed.update(json.dumps([place, plain], sort_keys=True).encode())
        tokens += _tokens(plain)
        names.append(hashed.hexdigest())
        ends.append(tokens)
    return names, ends, marks


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _tokens(block: dict[str, Any]) -> int:
    text = block["text"] if block.get("type") == "text" else json.dumps(block)
    return max(len(text.encode()) // _BYTES_PER_TOKEN, 1)
