"""What a model was asked: the prompts of a step with its values in their places, and the hash that proves them.

Workers make their requests here, and whoever reads a log makes them again: the recorded hash says whether they are
what was sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from baton_schemas.flow.flow import Caching
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.outputs import asked_schema
from baton_schemas.flow.prompts import FileMisplaced, Filled, filled, parse, pieces, split_at
from baton_schemas.flow.tools import OfferedTool, Tool, tools_of
from baton_schemas.flow.used_tools import ProvidedTool, provided_of
from baton_schemas.run.branches import BranchEnds
from baton_schemas.run.prompt_values import PromptValues
from baton_schemas.run.refs import key_of_child
from baton_schemas.wire.files import FileRef
from baton_schemas.wire.media import PDF
from baton_schemas.wire.values import valid_text

_LATER: tuple[str, ...] = ("provided", "container", "output")
"""Fields of `Asked` that came later and on which the answer depends: those that are set are in its hash, by name."""


_OF_BRANCHES = frozenset({"item", "index"})


class Turn(Struct, frozen=True, kw_only=True):
    """What was said after the prompt, by the model or to it: content blocks as the Messages API has them."""

    role: Literal["user", "assistant"]
    content: list[dict[str, Any]]


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a prompt, which becomes a content block of its own."""

    text: str
    """Of a file: what people see in its place."""
    file: FileRef | None = None
    """The content of this file: a document, a picture, or its text."""
    shared: bool = False
    """The same is asked of all branches of the step, up to here: it depends on no item."""


class Asked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of a request that the answer depends on."""

    model: str
    system: str
    """The system prompt; it may be empty."""
    prompt: str
    """All of its text."""
    max_tokens: int
    parts: tuple[Part, ...] = ()
    """The prompt in parts, where it is sent as more than one; the same text in other parts is the same question."""
    tools: tuple[Tool, ...] = ()
    """What the model is offered: the workers of an agent, functions, and tools of MCP servers."""
    turns: tuple[Turn, ...] = ()
    """What was said after the prompt. A log shows the prompt alone, with which the conversation began."""
    cache: Caching = "5m"
    """How long what it has in common with others is kept by the provider. No answer depends on it."""
    lone_system: bool = False
    """The system prompt is that of one branch alone, so this has nothing in common with others."""
    provided: tuple[ProvidedTool, ...] = ()
    """The provider's own tools that it is offered."""
    container: str = ""
    """In which the provider has run code before in this conversation."""
    output: dict[str, Any] = {}
    """The JSON Schema that the answer is to fit, as the API takes it; empty for text."""

    @property
    def converses(self) -> bool:
        """Whether an answer may not be the last: it may call something."""
        return bool(self.tools or self.provided)

    def digest(self, *, rehearses: bool) -> str:
        """Return the hash that is recorded with an answer: SHA-256, in hex, of what is asked and of whom.

        A rehearsed call has another one, so that a rehearsed answer is not reused once there is a key.
        """
        files, prompt = self._files()
        texts = (valid_text(self.model), valid_text(self.system), valid_text(prompt))
        # What is not asked for leaves it as it was before one could: answers in old logs are found by it.
        more: tuple[Any, ...] = (self.tools, self.turns) if self.tools or self.turns else ()
        if later := {name: value for name in _LATER if (value := getattr(self, name))} | files:
            more = (*more, later)
        return hashlib.sha256(msgspec.json.encode((*texts, self.max_tokens, rehearses, *more))).hexdigest()

    @property
    def refs(self) -> list[FileRef]:
        """The files in the prompt, in their order."""
        return [part.file for part in self.parts if part.file is not None]

    def _files(self) -> tuple[dict[str, Any], str]:
        """Return what the hash has of files, and the text of the prompt without what people see in their places."""
        if not self.refs:
            return {}, self.prompt
        files: list[tuple[int, str, str, str]] = []
        text = ""
        for part in self.parts:
            if part.file is None:
                text += part.text
            else:
                title = part.file.name if part.file.media_type == PDF else ""  # of others no name is sent
                files.append((len(text), part.file.sha256, part.file.media_type, title))
        return {"files": files}, text


def asked_by(
    plan: Plan,
    step: str,
    values: Mapping[str, Raw],
    branches: Mapping[str, BranchEnds],
    offered: Iterable[OfferedTool] = (),
) -> Asked:
    """Return what a step (or a branch of it) asks its model.

    `values` are those that it reads, and its `errors`; `branches` those of the fan-outs that it joins and reads;
    `offered` the tools that are recorded with it.
    Raises `MissingValue`, `FileMisplaced`, and `msgspec.DecodeError` for a value that is no JSON.
    """
    agent = plan.agent(step)
    tier = plan.tier(agent)
    value_of = PromptValues(values, branches, partial(_why_missing, plan, plan.name_of(step))).of
    system = pieces(agent.system, value_of)
    if (misplaced := next((piece for piece in system if isinstance(piece, FileRef)), None)) is not None:
        raise FileMisplaced(misplaced)
    varying = _varying(plan, step)
    common, own = split_at(agent.prompt, varying) if varying else ("", agent.prompt)
    parts = tuple(_part(piece, shared=True) for piece in pieces(common, value_of))
    parts += tuple(_part(piece) for piece in pieces(own, value_of))
    return Asked(
        model=tier.model,
        system="".join(map(str, system)),
        prompt="".join(part.text for part in parts),
        max_tokens=tier.max_tokens,
        parts=parts if any(part.shared or part.file is not None for part in parts) else (),
        tools=(*tools_of(plan.flow, agent), *(each.tool for each in offered)),
        provided=provided_of(agent),
        output=asked_schema(agent) if agent.asks_models else {},
        cache=agent.cache,
        lone_system=any(found.name in varying for found in parse(agent.system)),
    )


def filled_by(
    plan: Plan, step: str, values: Mapping[str, Raw], branches: Mapping[str, BranchEnds]
) -> tuple[list[Filled], list[Filled]]:
    """Return the system prompt and the prompt of `asked_by`, with what of them came from which placeholder.

    Raises as that does.
    """
    agent = plan.agent(step)
    value_of = PromptValues(values, branches, partial(_why_missing, plan, plan.name_of(step))).of
    return filled(agent.system, value_of), filled(agent.prompt, value_of)


def _varying(plan: Plan, step: str) -> frozenset[str]:
    """Return the names that stand for something else in each of those that ask alike; empty where nobody does."""
    if key_of_child(step):
        return plan.inputs_of(step)
    return _OF_BRANCHES if plan.step(step).each else frozenset()


def _part(piece: str | FileRef, *, shared: bool = False) -> Part:
    if isinstance(piece, str):
        return Part(text=piece, shared=shared)
    return Part(text=piece.label, file=piece, shared=shared)


def _why_missing(plan: Plan, step: str, name: str) -> str:
    """Return why a step was given nothing under a name, as the end of a sentence about that."""
    if plan.key(step, name) != name:
        return "is that of the round before, which had none"
    late = "had not ended when the join closed"
    if not plan.why_lacking(step, name):
        return late
    return f"was skipped, or {late}" if plan.leaves_branches else "was skipped"


def proof_of(asked: Asked, recorded: Iterable[str]) -> str:
    """Return the recorded hash that says that this is what was sent; empty when none does."""
    hashes = {asked.digest(rehearses=rehearses) for rehearses in (False, True)}
    return next((found for found in recorded if found in hashes), "")
