"""What a model was asked: the prompts of a step with its values in their places, and the hash that proves them.

Workers make their requests here, and whoever reads a log makes them again: the recorded hash says whether they are
what was sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.flow.prompts import render

_SURROGATE = re.compile(r"[\ud800-\udfff]")


class Asked(Struct, frozen=True, kw_only=True):
    """All of a request that the answer depends on."""

    model: str
    system: str
    prompt: str
    max_tokens: int

    def digest(self, *, rehearses: bool) -> str:
        """Return the hash that is recorded with an answer: SHA-256, in hex, of what is asked and of whom.

        A rehearsed call has another one, so that a rehearsed answer is not reused once there is a key.
        """
        texts = (_valid(self.model), _valid(self.system), _valid(self.prompt))
        return hashlib.sha256(msgspec.json.encode((*texts, self.max_tokens, rehearses))).hexdigest()


def asked_by(plan: Plan, step: str, values: Mapping[str, Raw]) -> Asked:
    """Return what a step (or a branch of it) asks its model; `values` are those that it reads, and its `errors`.

    Raises `msgspec.DecodeError` for a value that is no JSON.
    """
    agent = plan.agent(step)
    tier = plan.tier(agent)
    decoded: dict[str, Any] = {}

    def value_of(name: str) -> Any:
        if name not in decoded:
            decoded[name] = _for_prompt(name, values)
        return decoded[name]

    return Asked(
        model=tier.model,
        system=render(agent.system, value_of),
        prompt=render(agent.prompt, value_of),
        max_tokens=tier.max_tokens,
    )


def proof_of(asked: Asked, recorded: Iterable[str]) -> str:
    """Return the recorded hash that says that this is what was sent; empty when none does."""
    hashes = {asked.digest(rehearses=rehearses) for rehearses in (False, True)}
    return next((found for found in recorded if found in hashes), "")


def _for_prompt(name: str, values: Mapping[str, Raw]) -> Any:
    """Return a value as a prompt shows it; the errors as sentences, and a failed step as its error."""
    if name == "errors":
        return [_sentence(error) for error in msgspec.json.decode(values["errors"])]
    if name in values:
        return msgspec.json.decode(values[name])
    errors = msgspec.json.decode(values["errors"])
    return next((f"({_sentence(error)})" for error in errors if error["step"] == name), None)


def _sentence(error: dict[str, Any]) -> str:
    return f"step {error['step']} failed: {error['message']}"


def _valid(text: str) -> str:
    """Return the text as valid Unicode: surrogates that form a pair joined, and each lone one as U+FFFD."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
