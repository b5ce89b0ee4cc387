"""Values that fit a JSON Schema, filled from a text: rehearsed answers where structured output is asked for. Pure."""

from __future__ import annotations

import ast
import re
from typing import Any

from baton_actors.models.rehearsal.choice import chosen, lot
from baton_actors.models.rehearsal.sentences import lines_of, sentences_of, split_prompt

_DEPTH_MAX = 20
"""Schemas that refer to themselves end here, at the latest."""
_ITEMS = 3
_ASIDE = re.compile(r"\{([^{}]{1,2000})\}\Z")
_PAIR = re.compile(r"(\w+): ('[^']*'|\[[^\]]*\]|-?[\d.]+|True|False)(?:, |\Z)")
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "somebody@example.com",
    "hostname": "example.com",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def filled(schema: dict[str, Any], prompt: str) -> Any:
    """Return a value that fits a schema of the kind that the Messages API takes; texts in it are from the prompt."""
    blocks, _ = split_prompt(prompt)
    if not blocks:  # a short prompt: what follows its first paragraph, in which one says what to do
        first, _, rest = prompt.strip().partition("\n\n")
        blocks = [rest.strip() or first]
    sentences = [sentence.text for sentence in sentences_of(blocks) or lines_of(blocks)]
    return _Filler(schema, "\n".join(blocks) or prompt, sentences).value(schema, "", 0)


class _Filler:
    def __init__(self, root: dict[str, Any], text: str, sentences: list[str]) -> None:
        self._root, self._text, self._sentences = root, text, sentences
        self._next = 0

    def value(self, schema: Any, key: str, depth: int) -> Any:
        if not isinstance(schema, dict) or depth > _DEPTH_MAX:
            return None
        schema = _with_asides(schema)
        if "$ref" in schema:
            return self.value(self._at(str(schema["$ref"])), key, depth + 1)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._one_of(schema["enum"])
        for several in ("anyOf", "oneOf"):
            if schema.get(several):
                return self.value(self._simplest(schema[several], depth), key, depth + 1)
        if schema.get("allOf"):
            parts = [self._at(str(part["$ref"])) if "$ref" in part else part for part in schema["allOf"]]
            return self.value(_merged(parts), key, depth + 1)
        return self._plain(schema, key, depth)

    def _plain(self, schema: dict[str, Any], key: str, depth: int) -> Any:
        kind = schema.get("type")
        kind = next((each for each in kind if each != "null"), "null") if isinstance(kind, list) else kind
        match kind:
            case "object":
                # All of them: what need not be there shows how it would look, unless it goes on for ever.
                properties = schema.get("properties") or {}
                wanted = properties if depth < _DEPTH_MAX // 2 else schema.get("required") or []
                return {name: self.value(properties.get(name), name, depth + 1) for name in wanted}
            case "array":
                return self._list(schema, key, depth)
            case "integer" | "number":
                return _number(schema, kind)
            case "boolean":
                return bool(lot(self._text + key) % 2)
            case "null":
                return None
            case _:
                return self._string(schema, key)

    def _list(self, schema: dict[str, Any], key: str, depth: int) -> list[Any]:
        count = min(_ITEMS, max(1, len(self._sentences))) if depth < _DEPTH_MAX // 2 else 0
        count = max(count, int(schema.get("minItems", 0)))
        count = min(count, int(schema.get("maxItems", count)))
        if isinstance(schema.get("prefixItems"), list):
            return [self.value(each, key, depth + 1) for each in schema["prefixItems"]]
        return [self.value(schema.get("items") or {}, key, depth + 1) for _ in range(count)]

    def _string(self, schema: dict[str, Any], key: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        if self._sentences:
            said = self._sentences[self._next % len(self._sentences)]
            self._next += 1
        else:
            said = f"a rehearsed {key or 'text'}"
        said = said.ljust(int(schema.get("minLength", 0)), ".")
        return said[: int(schema.get("maxLength", len(said)))]

    def _one_of(self, options: list[Any]) -> Any:
        if all(isinstance(option, str) for option in options):
            return chosen(options, self._text)
        return options[lot(self._text) % len(options)]

    def _simplest(self, options: list[Any], depth: int) -> Any:
        """Return the first that is not null; deep inside, one that ends it."""
        null = [option for option in options if isinstance(option, dict) and option.get("type") == "null"]
        others = [option for option in options if option not in null]
        return (null or others)[0] if depth > _DEPTH_MAX // 2 else (others or null)[0]

    def _at(self, ref: str) -> Any:
        found: Any = self._root
        for part in ref.removeprefix("#").split("/")[1:]:
            found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found


def _with_asides(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with what the SDK has put into its description, as the API takes it there only:
    `{minimum: 2, maximum: 9}`.
    """
    found = _ASIDE.search(str(schema.get("description", "")))
    if found is None:
        return schema
    asides = {}
    for key, said in _PAIR.findall(found[1]):
        try:
            asides[key] = ast.literal_eval(said)
        except (ValueError, SyntaxError):
            continue
    return {**{key: value for key, value in schema.items() if key != "description"}, **asides}


def _number(schema: dict[str, Any], kind: str) -> int | float:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    value = 1
    if low is not None and value <= low:
        value = low + (1 if "exclusiveMinimum" in schema else 0)
    if high is not None and value > high:
        value = high if "exclusiveMaximum" not in schema else (low if low is not None else high - 1)
    return int(value) if kind == "integer" else value


def _merged(parts: list[Any]) -> dict[str, Any]:
    """Return a schema that says what several say together."""
    found: dict[str, Any] = {}
    for part in parts:
        if isinstance(part, dict):
            properties = {**found.get("properties", {}), **part.get("properties", {})}
            required = [*found.get("required", []), *part.get("required", [])]
            found = {**found, **part} | ({"properties": properties, "required": required} if properties else {})
    return found
