"""What form of answer an instruction asks for, as far as a few words of English tell. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_COUNT = rf"\d{{1,3}}|{'|'.join(_NUMBERS)}|a\ssingle|single"
_ASKED = re.compile(
    rf"\b(?:(?P<count>{_COUNT})(?:\s?(?:-|\u2013|to|or)\s?(?:{_COUNT}))?[\s-]+(?:[\w-]+\s+){{0,2}}?)?"
    r"(?P<unit>bullet(?:ed)?|key point|talking point|takeaway|paragraph|sentence)s?\b",
    re.IGNORECASE,
)
_JSON_LIST = re.compile(r"\bJSON\b[^.\n]{0,40}?\b(?:array|list)\b", re.IGNORECASE)
_EACH_A_LINE = re.compile(
    r"\b(?:one|a|each on (?:a|its own))\s(?:[\w-]+\s){0,2}?line\s(?:each|for each|per \w+)"
    r"|\b(?:one|each)\b[^.\n]{0,30}?\b(?:per|on (?:a|its own)) line\b|\bline by line\b",
    re.IGNORECASE,
)
_FAULTS = re.compile(r"\b(?:complain|problem|issue|bug|fault|defect|criticis|error|risk|weakness)", re.IGNORECASE)
_SHORT = re.compile(r"\b(?:summar|brief|short|concise|tl;?dr|abstract|headline)", re.IGNORECASE)

_COUNT_MAX = 50
"""An answer has no more bullets, paragraphs or sentences than this, whatever was asked for."""
_COUNT_DEFAULT = 5
_PER_PARAGRAPH = 4


@dataclass(frozen=True)
class Shape:
    """How many sentences, and how they are laid out; `groups` is the number of paragraphs."""

    kind: Literal["bullets", "lines", "paragraphs", "json"]
    sentences: int
    groups: int = 1
    faults: bool = False
    """Whether it is faults that are asked for, as many as there are."""


def shape_of(instruction: str, system: str = "") -> Shape:
    """Return the form that the instruction asks for, or else the system prompt, or else a plain text."""
    for text in (instruction, system):
        shape = _asked_for(text)
        if shape is not None:
            return shape
    if _SHORT.search(instruction) or _SHORT.search(system):
        return Shape("paragraphs", _PER_PARAGRAPH)
    return Shape("paragraphs", 3 * _PER_PARAGRAPH, groups=3)


def _asked_for(text: str) -> Shape | None:
    json_list = _JSON_LIST.search(text)
    if json_list:
        return Shape("json", _number(text[json_list.end() :]) or _COUNT_DEFAULT)
    if _EACH_A_LINE.search(text):
        return Shape("lines", _number(_EACH_A_LINE.sub("", text)) or _COUNT_DEFAULT, faults=bool(_FAULTS.search(text)))
    asks = [match for match in _ASKED.finditer(text) if match["count"] or match["unit"].lower().startswith("bullet")]
    if not asks:
        return None
    # "Three bullets of one sentence each": the first is the form, the rest are about its parts.
    first = asks[0]
    count = _number(first["count"] or "")
    match first["unit"].lower():
        case "paragraph":
            groups = count or 1
            return Shape("paragraphs", groups * _PER_PARAGRAPH, groups)
        case "sentence":
            return Shape("paragraphs", count or 1)
        case _:
            return Shape("bullets", count or _COUNT_DEFAULT)


def _number(text: str) -> int:
    """Return the first number in the text, in digits or as a word, or 0."""
    found = re.search(rf"\b(?:{_COUNT})\b", text, re.IGNORECASE)
    if found is None:
        return 0
    word = found[0].lower()
    number = int(word) if word.isdigit() else _NUMBERS.index(word) + 1 if word in _NUMBERS else 1
    return min(max(number, 1), _COUNT_MAX)
