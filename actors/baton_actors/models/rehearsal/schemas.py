"""JSON Schemas of tools, read as far as a rehearsal needs: types, alternatives, references, required keys. Pure.

Whatever is no schema says nothing. Those that lead into themselves, or that are too many, end after a while.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_WORK_MAX = 5_000
"""Schemas that are looked at for one call; what people write has some dozens."""
_STEPS_MAX = 12
"""Of references and alternatives that lead from one to the next."""


class Schemas:
    """The schemas within one, which references lead into."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._left = _WORK_MAX

    @property
    def is_spent(self) -> bool:
        """Whether so much was looked at that the rest is to be left out."""
        return self._left <= 0

    def plain(self, schema: Any) -> Schema:
        """Return a schema without what stands for others: its first alternative, `allOf` and references put in."""
        found: dict[str, Any] = dict(schema) if isinstance(schema, Mapping) else {}
        for _ in range(_STEPS_MAX):
            self._left -= 1
            several = found.get("anyOf") or found.get("oneOf")
            if self.is_spent:
                break
            if "$ref" in found:
                found = self._led(found)
            elif isinstance(found.get("allOf"), list):
                rest = {key: value for key, value in found.items() if key != "allOf"}
                # What a part stands for besides a reference is put in by the next steps.
                for part in found["allOf"]:
                    rest = _both(rest, self._led(part)) if isinstance(part, Mapping) else rest
                found = rest
            elif isinstance(several, list) and several:
                rest = {key: value for key, value in found.items() if key not in ("anyOf", "oneOf")}
                real = [each for each in several if isinstance(each, Mapping) and each.get("type") != "null"]
                found = _both(rest, real[0] if real else {"type": "null"})
            else:
                break
        return found

    def takes_text(self, schema: Any, *, lists: bool = True) -> bool:
        """Say whether any text fits, or a list of such."""
        schema = self.plain(schema)
        if kind_of(schema) == "array":
            return lists and self.takes_text(schema.get("items"), lists=False)
        return kind_of(schema) == "string" and "enum" not in schema and "const" not in schema

    def _led(self, schema: Schema) -> dict[str, Any]:
        """Return a schema with what its reference leads to, if it has one."""
        rest = {key: value for key, value in schema.items() if key != "$ref"}
        reference = schema.get("$ref")
        return {**self._at(reference), **rest} if isinstance(reference, str) else rest

    def _at(self, reference: str) -> Schema:
        """Return what a reference within the same schema leads to; nothing for any other."""
        found: Any = self._root if reference.startswith("#") else {}
        for key in reference.lstrip("#").strip("/").split("/"):
            if key:
                found = found.get(key.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, Mapping) else {}
        return found if isinstance(found, Mapping) else {}


def kind_of(schema: Schema) -> str:
    """Return the type that JSON has for what fits; a text where nothing is said."""
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((str(each) for each in kind if each != "null"), "null")
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


def properties_of(schema: Schema) -> dict[str, Any]:
    """Return the schemas of an object's keys."""
    found = schema.get("properties")
    return dict(found) if isinstance(found, Mapping) else {}


def required_of(schema: Schema) -> list[str]:
    """Return the keys that an object has to have."""
    found = schema.get("required")
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _both(one: Schema, other: Schema) -> dict[str, Any]:
    merged = {**other, **one}
    if "properties" in one and "properties" in other:
        merged["properties"] = {**properties_of(other), **properties_of(one)}
    if "required" in one and "required" in other:
        merged["required"] = list(dict.fromkeys([*required_of(other), *required_of(one)]))
    return merged
