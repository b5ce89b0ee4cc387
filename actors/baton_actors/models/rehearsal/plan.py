"""What the rehearsal model does with tools: a fixed plan, which ends whatever comes back. Pure and deterministic.

First it calls all tools that only ask about something, at the same time, and one that takes a question with several,
unless it is a question already;
then, one a round, those that take findings, and those that take a draft, each with what came back last; then it answers
with that. Each tool has its turn once, so there are at most as many rounds as tools, and the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from baton_actors.models.content import ANSWER_NOW, Block
from baton_actors.models.rehearsal.arguments import AtHand, arguments_for, asks_questions, questions, wants
from baton_actors.models.rehearsal.extract import answer_from
from baton_actors.models.rehearsal.sentences import split_prompt

_QUOTED = re.compile(r"[\"\u201c](?P<text>[^\"\u201c\u201d\n]{3,200})[\"\u201d]")
_LABELLED = re.compile(r"^[ \t]*(?:topic|subject|question|task|about)[ \t]*:[ \t]*(?P<text>\S.{1,200})", re.I | re.M)
_TAGGED = re.compile(r"<(topic|subject|question|task)>\s*(?P<text>\S[^<>]{1,200}?)\s*</\1>", re.I)
_ASKED = re.compile(r":\s+(?P<text>[^:\n]{3,200}\?)\s*\Z")
_FIRST = re.compile(r".*?(?:[.?!](?=\s|\Z)|\Z)")
_SUBJECT_CHARS_MAX = 160
_CHARS_PER_TOKEN = 4


class _Round(Struct, frozen=True):
    """Calls that were made at the same time, by id, and what came of them."""

    names: dict[str, str]
    good: list[str]
    errors: list[str]


def blocks_of(
    system: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], max_tokens: int
) -> list[Block]:
    """Return the content blocks of the next answer: text, and calls of tools if any are due.

    `messages` and `tools` are as the Messages API has them.
    """
    prompt = _text(messages[0].get("content")) if messages else ""
    rounds = list(_rounds(messages))
    called = {name for each in rounds for name in each.names.values()}
    due = [tool for tool in tools if str(tool.get("name")) not in called and isinstance(tool.get("name"), str)]
    good = [each.good for each in rounds if each.good]
    if not due or (rounds and not good) or _is_last(messages):
        return [{"type": "text", "text": _answer(system, prompt, rounds)}]
    blocks, _ = split_prompt(prompt)
    material = good[-1] if good else [block.strip() for block in blocks]
    text_max = max(200, max_tokens * _CHARS_PER_TOKEN // 2)
    at_hand = AtHand(subject=_subject(prompt), material=material, text_max=text_max)
    calls = list(_calls(_next(due, first=not rounds), at_hand))
    names = list(dict.fromkeys(str(call["name"]) for call in calls))
    said = f"A rehearsed plan, round {len(rounds) + 1}: {', '.join(names)}."
    return [
        {"type": "text", "text": said},
        *({**call, "id": f"toolu_rehearsal_{len(rounds) + 1}_{number}"} for number, call in enumerate(calls, 1)),
    ]


def _next(due: Sequence[Mapping[str, Any]], *, first: bool) -> list[Mapping[str, Any]]:
    """Return the tools that are called now: those that need nothing but the prompt, or the one that comes first."""
    ranked = sorted(due, key=lambda tool: wants(_schema(tool)))
    least = wants(_schema(ranked[0]))
    if first and least == 0:
        return [tool for tool in due if wants(_schema(tool)) == 0]
    return ranked[:1]


def _calls(tools: Sequence[Mapping[str, Any]], at_hand: AtHand) -> Iterator[Block]:
    for tool in tools:
        schema = _schema(tool)
        # What is a question already is asked as it is; so agents that ask themselves do not ask ever more.
        makes_several = asks_questions(schema) and not at_hand.subject.endswith("?")
        several = questions(at_hand.subject) if makes_several else [at_hand.subject]
        for subject in several:
            about = AtHand(subject=subject, material=at_hand.material, text_max=at_hand.text_max)
            yield {"type": "tool_use", "name": tool["name"], "input": arguments_for(schema, about)}


def _answer(system: str, prompt: str, rounds: Sequence[_Round]) -> str:
    """Return the last that came back, or what is to be said when nothing did."""
    errors = [error for each in rounds for error in each.errors]
    good = [each.good for each in rounds if each.good]
    if not rounds:
        return answer_from(system, prompt)
    if not good:
        return f"Nothing came back (rehearsed): {' '.join(errors) or 'there were no results.'}"
    if len(good[-1]) == 1:
        return good[-1][0]
    _, instruction = split_prompt(prompt)
    texts = "\n\n".join(f"<result>\n{text}\n</result>" for text in good[-1])
    return answer_from(system, f"{texts}\n\n{instruction}")


def _rounds(messages: Sequence[Mapping[str, Any]]) -> Iterator[_Round]:
    """Yield what was called at the same time, and what came of it."""
    names: dict[str, str] = {}
    for message in messages:
        content = message.get("content")
        blocks = [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []
        if message.get("role") == "assistant":
            names = {str(b.get("id")): str(b.get("name")) for b in blocks if b.get("type") == "tool_use"}
            continue
        results = [block for block in blocks if block.get("type") == "tool_result"]
        if names and results:
            good = [_text(each.get("content")) for each in results if not each.get("is_error")]
            errors = [_text(each.get("content")) for each in results if each.get("is_error")]
            yield _Round(names, [text for text in good if text.strip()], errors)
            names = {}


def _is_last(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether the model was told to answer now."""
    return bool(messages) and ANSWER_NOW in _text(messages[-1].get("content"))


def _text(content: Any) -> str:
    """Return the text of a message's or a result's content."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = [str(b.get("text") or "") for b in content if isinstance(b, Mapping) and b.get("type") == "text"]
        return "\n\n".join(texts)
    return "" if content is None else json.dumps(content, ensure_ascii=False, default=str)


def _subject(prompt: str) -> str:
    """Return what a prompt is about: what it marks out or quotes, else the first sentence of what it says to do."""
    for pattern in (_TAGGED, _LABELLED, _QUOTED, _ASKED):
        found = pattern.search(prompt)
        if found is not None:
            return " ".join(found["text"].split())[:_SUBJECT_CHARS_MAX]
    _, instruction = split_prompt(prompt)
    words = " ".join((instruction.strip() or prompt).split()) or "what was asked"
    first = _FIRST.match(words)
    return (first[0] if first else words)[:_SUBJECT_CHARS_MAX]


def _schema(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    found = tool.get("input_schema")
    return found if isinstance(found, Mapping) else {}
