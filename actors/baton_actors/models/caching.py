"""What of a request its provider is asked to keep: what it has in common with others, where that is long enough. Pure.

The order of a request is that of the cache: tools, system prompt, prompt, turns. A mark asks to keep all up to it. What
is too short is kept by nobody, mark or not; a request has four marks at the most, and `body.py` puts them.

https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from baton_actors.models.files import least_tokens_of
from baton_actors.models.prices import plain_name
from baton_schemas.show.asked import Asked, Part
from baton_schemas.wire.values import valid_text

_BYTES_PER_TOKEN = 4
"""Of English, as a rule. Other texts have more tokens for as many bytes: then more is kept than is thought here."""
_LEAST_TOKENS = {
    "claude-haiku-3": 2048,
    "claude-haiku-3-5": 2048,
    "claude-haiku-4-5": 4096,
    "claude-sonnet-4-5": 1024,
    "claude-sonnet-4-6": 1024,
    "claude-sonnet-5": 1024,
    "claude-opus-4-1": 1024,
    "claude-opus-4-5": 4096,
    "claude-opus-4-6": 4096,
    "claude-opus-4-7": 2048,
    "claude-opus-4-8": 1024,
    "claude-opus-5": 512,
    "claude-fable-5": 512,
}
"""What is shorter is not kept: tokens by model, as published, and read in November 2026 from stored copies."""
_LEAST_ELSE = 1024
"""Of models that are not known: it costs nothing to mark what is too short."""
_SECONDS = {"5m": 300, "1h": 3600}


class Marks(NamedTuple):
    """Where a request is marked."""

    head: bool
    """At the end of its tools and system prompt."""
    shared: bool
    """At the end of what its prompt has in common with those of other branches."""
    rounds: bool
    """At the end of what is said so far, as the next round asks with all of it again."""


class Prefix(NamedTuple):
    """What a request has in common with others."""

    name: str
    """Of all that are the same for the provider: a hash, in hex."""
    kept_s: int
    """For how long it is kept from its last use on, in seconds."""


def mark_of(asked: Asked) -> dict[str, Any]:
    """Return the mark of a block, as the API has it."""
    return {"cache_control": {"type": "ephemeral"} | ({"ttl": "1h"} if asked.cache == "1h" else {})}


def marks_of(asked: Asked) -> Marks:
    """Return where a request is marked: where something is to be kept, and is likely long enough."""
    if asked.cache == "off":
        return Marks(False, False, False)
    least, converses = least_tokens(asked.model), asked.converses
    head = _head_tokens(asked)
    common = head + sum(_part_tokens(part) for part in asked.parts if part.shared)
    shares = not asked.lone_system and any(part.shared for part in asked.parts)
    return Marks(
        head=head >= least and (converses or not asked.lone_system),
        shared=shares and common >= least,
        rounds=converses and head + _prompt_tokens(asked) + _size(asked.turns) >= least,
    )


def prefix_of(asked: Asked) -> Prefix | None:
    """Return what a branch has in common with the others of its step; None where that is not kept."""
    if not marks_of(asked).shared:
        return None
    common = [(valid_text(part.text), part.file.sha256 if part.file else "") for part in asked.parts if part.shared]
    head = (valid_text(asked.model), asked.cache, asked.tools, asked.provided, asked.output, valid_text(asked.system))
    name = hashlib.sha256(msgspec.json.encode((head, common))).hexdigest()[:32]
    return Prefix(name, _SECONDS[asked.cache])


def least_tokens(model: str) -> int:
    """Return how many tokens a model's provider keeps at the least."""
    name = plain_name(model.rpartition("/")[2])
    return _LEAST_TOKENS.get(name, _LEAST_ELSE)


def _head_tokens(asked: Asked) -> int:
    tools = _size((asked.tools, asked.provided)) if asked.converses else 0
    return tools + len(asked.system.encode(errors="replace")) // _BYTES_PER_TOKEN


def _prompt_tokens(asked: Asked) -> int:
    return sum(map(_part_tokens, asked.parts or (Part(text=asked.prompt),)))


def _part_tokens(part: Part) -> int:
    if part.file is not None:
        return least_tokens_of(part.file)
    return len(part.text.encode(errors="replace")) // _BYTES_PER_TOKEN


def _size(what: Any) -> int:
    return len(msgspec.json.encode(what)) // _BYTES_PER_TOKEN
