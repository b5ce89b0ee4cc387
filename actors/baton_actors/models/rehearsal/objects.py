"""JSON objects that an instruction asks for, as far as a pattern of one, or the names of its keys, tell. Pure."""

from __future__ import annotations

import re
from typing import Any

from baton_actors.models.rehearsal.choice import chosen, lot, split_options

_PATTERN = re.compile(r"\{(?P<inner>[^{}]{0,1000})\}")
_KEY = re.compile(r'"(?P<key>[\w -]{1,60})"\s*:\s*(?P<hint>"[^"\n]{0,200}"|\[[^\]\n]{0,200}\]|[^,}\n]{1,200})?')
_NAMED = re.compile(
    r"\bJSON\b(?: object)?[^.\n{]{0,40}?\b(?:keys?|fields?|properties)\b:?\s+(?P<names>[^.\n]{1,300})", re.IGNORECASE
)
_NAME = re.compile(r"[\"'`]?(?P<key>[A-Za-z_][\w-]*)[\"'`]?\s*(?:\((?P<hint>[^)]{0,200})\))?")
_JSON = re.compile(r"\bJSON\b", re.IGNORECASE)
_SPAN = re.compile(r"(\d{1,3})\s?(?:-|\u2013|to)\s?(\d{1,3})\Z")
_NO_KEYS = frozenset({"and", "or", "the", "with", "of", "a", "an", "keys", "fields"})
_NUMBERS = re.compile(r"(?:int(?:eger)?|float|number|whole number|-?\d+(?:\.\d+)?)\Z", re.IGNORECASE)
_BOOLS = re.compile(r"(?:bool(?:ean)?|true|false|true\s?(?:\||/|or)\s?false)\Z", re.IGNORECASE)


def object_of(instruction: str, text: str, sentences: list[str]) -> dict[str, Any] | None:
    """Return an object of the form that the instruction shows or names, filled from the text; None if it asks for none.

    `{"kind": "bug|praise", "prio": 1}` and "JSON with the keys kind (bug, praise) and prio" are such forms.
    """
    if not _JSON.search(instruction):
        return None  # an object in it is data, and no pattern
    for pattern in _PATTERN.finditer(instruction):
        keys = [(found["key"], found["hint"] or "") for found in _KEY.finditer(pattern["inner"])]
        if keys:
            return _filled(keys, text, sentences)
    named = _NAMED.search(instruction)
    if named is None:
        return None
    found = [(match["key"], match["hint"] or "") for match in _NAME.finditer(named["names"])]
    keys = [(key, hint) for key, hint in found if key.lower() not in _NO_KEYS]
    return _filled(keys, text, sentences) if keys else None


def _filled(keys: list[tuple[str, str]], text: str, sentences: list[str]) -> dict[str, Any]:
    return {key: _value(key, hint.strip(), text, sentences) for key, hint in keys}


def _value(key: str, hint: str, text: str, sentences: list[str]) -> Any:
    plain = hint.strip("\"' ")
    if hint.startswith("["):
        return sentences[:3] or [f"a rehearsed {key}"]
    if _BOOLS.match(plain):
        return bool(lot(text + key) % 2)
    span = _SPAN.match(plain)
    if span is not None and int(span[1]) <= int(span[2]):
        return int(span[1]) + lot(text + key) % (int(span[2]) - int(span[1]) + 1)
    options = split_options(plain)
    if options:
        value = chosen(options, text)
        return int(value) if all(option.isdecimal() for option in options) else value
    if _NUMBERS.match(plain):
        return 1
    return sentences[lot(key) % len(sentences)] if sentences else f"a rehearsed {key}"
