"""Arguments for a tool, made to fit its JSON Schema out of what a rehearsal has at hand. Pure and deterministic.

Texts are the subject, questions about it, or the material that came back from earlier calls, by what a property is
called. What a schema demands beyond types, bounds, enums and required keys (patterns, formats) is not seen to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from baton_actors.models.rehearsal.choice import chosen, lot
from baton_actors.models.rehearsal.schemas import Schema, Schemas, kind_of, properties_of, required_of

_NOTES = (
    "answers? context data details? facts? findings? background evidence inputs? knowledge material notes? "
    "outlines? points? records? references? research results? sources?"
)
_DRAFTS = (
    "article body code content copy document draft essay email letter manuscript message page paper report story "
    "summar(?:y|ies) text translation version"
)
_MANY = "items lines list names parts queries questions subjects topics"


def _words(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?:\A|[_.-])(?:{'|'.join(words.split())})(?:\Z|[_.-])", re.IGNORECASE)


_NOTES_LIKE, _DRAFT_LIKE, _MANY_LIKE = _words(_NOTES), _words(_DRAFTS), _words(_MANY)
_QUESTION_LIKE = _words("ask query queries questions? search task")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_QUESTIONS = (
    "What is {}, and why does it matter?",
    "How does {} work, and what does it take?",
    "Where does {} stand today, and what is disputed?",
)
_DEPTH_MAX = 12
_ITEMS_MAX = 100
_NUMBER = 3


class AtHand(Struct, frozen=True, kw_only=True):
    """What a rehearsal fills arguments with."""

    subject: str
    """What it is all about, in some words."""
    material: Sequence[str] = ()
    """What came back from the calls before, or the texts of the prompt."""
    text_max: int = 4_000
    """Characters of the texts in an argument."""


def wants(tool: Schema) -> int:
    """Return how far along a tool comes: 0 asks about something, 1 takes findings, 2 takes a draft."""
    return max((_rank(name) for name in _texts_of(tool)), default=0)


def asks_questions(tool: Schema) -> bool:
    """Say whether a tool takes one question, or one task, so that it can be called with several at once."""
    texts = _texts_of(tool, lists=False)
    return len(texts) == 1 and bool(_QUESTION_LIKE.search(_spaced(texts[0])))


def _texts_of(tool: Schema, *, lists: bool = True) -> list[str]:
    """Return what a tool takes as text: what it requires, or whatever it has when that is nothing."""
    schemas, properties = Schemas(tool), properties_of(tool)
    names = required_of(tool) or list(properties)
    return [name for name in names if schemas.takes_text(properties.get(name, {}), lists=lists)]


def questions(subject: str) -> list[str]:
    """Return what may be asked about a subject."""
    about = subject.rstrip(" .?!…") or "this"
    return [question.format(about) for question in _QUESTIONS]


def arguments_for(tool: Schema, at_hand: AtHand) -> dict[str, Any]:
    """Return arguments that fit the `input_schema` of a tool: what it requires, and material where it takes some."""
    made = _Maker(tool, at_hand).value("", tool, 0)
    return made if isinstance(made, dict) else {}


class _Maker:
    def __init__(self, root: Schema, at_hand: AtHand) -> None:
        self._schemas, self._at_hand = Schemas(root), at_hand

    def value(self, name: str, schema: Any, depth: int) -> Any:
        schema = self._schemas.plain(schema)
        if "const" in schema:
            return schema["const"]
        options = schema.get("enum")
        if isinstance(options, list) and options:
            texts = [option for option in options if isinstance(option, str)]
            return chosen(texts, self._text(name)) if texts else options[0]
        kind = kind_of(schema)
        if kind in ("integer", "number") and "default" in schema:
            return schema["default"]
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(name, schema, depth)
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return bool(lot(self._at_hand.subject + name) % 2)
            case "null":
                return None
            case _:
                return _fitted(self._text(name), schema)

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        if depth > _DEPTH_MAX or self._schemas.is_spent:
            return {}
        properties, required = properties_of(schema), required_of(schema)
        more = [
            name
            for name, inner in properties.items()
            if depth == 0 and self._at_hand.material and _rank(name) and self._schemas.takes_text(inner)
        ]
        return {
            name: self.value(name, properties.get(name, {}), depth + 1) for name in dict.fromkeys([*required, *more])
        }

    def _array(self, name: str, schema: Schema, depth: int) -> list[Any]:
        least, most = _count(schema.get("minItems"), 0), _count(schema.get("maxItems"), _ITEMS_MAX)
        items = self._schemas.plain(schema.get("items"))
        if kind_of(items) == "string" and "enum" not in items and "const" not in items:
            texts = self._texts(name)
            while len(texts) < least:
                texts = [*texts, f"{texts[len(texts) % len(self._texts(name))]} ({len(texts) + 1})"]
            return [_fitted(text, items) for text in texts[:most]]
        if depth > _DEPTH_MAX or self._schemas.is_spent:
            return []
        count, options = min(max(least, 1), most), items.get("enum")
        if isinstance(options, list) and options:  # each once before one comes again, as items may have to differ
            return [options[place % len(options)] for place in range(count)]
        return [self.value(name, items, depth + 1) for _ in range(count)]

    def _texts(self, name: str) -> list[str]:
        if _rank(name) and self._at_hand.material:
            texts = self._at_hand.material[:_ITEMS_MAX]
            return [_clipped(text, self._at_hand.text_max // len(texts)) for text in texts]
        return questions(self._at_hand.subject)

    def _text(self, name: str) -> str:
        if _rank(name) and self._at_hand.material:
            return _clipped("\n\n".join(self._at_hand.material), self._at_hand.text_max)
        return self._at_hand.subject


def _clipped(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return (text[:limit].rpartition(" ")[0] or text[:limit]) + " …"


def _rank(name: str) -> int:
    spaced = _spaced(name)
    return 2 if _DRAFT_LIKE.search(spaced) else 1 if _NOTES_LIKE.search(spaced) else 0


def _spaced(name: str) -> str:
    return _CAMEL.sub("_", name)


def _number(schema: Schema, *, whole: bool) -> float:
    """Return a number within the bounds: small, and a multiple where one is asked for."""
    step = _bound(schema.get("multipleOf")) or (1.0 if whole else 0.0)
    low, high = _bound(schema.get("minimum")), _bound(schema.get("maximum"))
    over, under = _bound(schema.get("exclusiveMinimum")), _bound(schema.get("exclusiveMaximum"))
    found = float(_NUMBER)
    if high is not None:
        found = min(found, high)
    if under is not None and found >= under:
        found = under - (step or 1.0)
    if low is not None:
        found = max(found, low)
    if over is not None and found <= over:
        found = over + (step or (1.0 if under is None else (under - over) / 2))
    if step:
        up = math.ceil(found / step) * step
        down = math.floor(found / step) * step
        found = down if high is not None and up > high else up
    return int(found) if whole else found


def _bound(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and abs(value) < 1e15 else None


def _count(value: Any, default: int) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return min(value, _ITEMS_MAX) if is_count else default


def _fitted(text: str, schema: Schema) -> str:
    """Return a text of a length that the schema takes."""
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(most, int) and len(text) > most >= 0:
        return text[:most]
    if isinstance(least, int) and len(text) < least <= 10_000:
        return text.ljust(least, ".")
    return text
