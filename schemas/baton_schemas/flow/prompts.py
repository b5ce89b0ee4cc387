"""Placeholders in prompts: `{name}` or `{name.key}`; `{{` and `}}` stand for braces."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

_PATTERN = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}|[{}]")
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")


class Placeholder(Struct, frozen=True):
    """One placeholder: the value it names, the keys into it, and where it stands in the template."""

    name: str
    path: tuple[str, ...]
    position: int


class BadPlaceholder(ValueError):
    """A brace that neither opens a placeholder nor is doubled."""

    def __init__(self, text: str, position: int) -> None:
        """`text` is what was found at `position`, in characters from the start."""
        self.text, self.position = text, position
        super().__init__(f"{text!r} at character {position}; write {{{{ and }}}} for braces")


def parse(template: str) -> list[Placeholder]:
    """Return the placeholders of a template in their order. Raises `BadPlaceholder`."""
    found: list[Placeholder] = []
    for match in _PATTERN.finditer(template):
        if match[0] in ("{{", "}}"):
            continue
        inner = match[1]
        if inner is None or not _NAME.match(inner):
            raise BadPlaceholder(match[0], match.start())
        name, *path = inner.split(".")
        found.append(Placeholder(name, tuple(path), match.start()))
    return found


def render(template: str, value_of: Callable[[str], Any]) -> str:
    """Fill in the template; `value_of` gives the (decoded) value of a name."""

    def fill(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        name, *path = match[1].split(".")
        return as_text(look_up(value_of(name), path))

    return _PATTERN.sub(fill, template)


def look_up(value: Any, path: list[str] | tuple[str, ...]) -> Any:
    """Follow keys and list positions into a value; None where there is nothing."""
    for key in path:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def as_text(value: Any) -> str:
    """Return a value as a prompt shows it: text as it is, a list of texts numbered, anything else as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "\n\n".join(f"[{number}] {item}" for number, item in enumerate(value, 1))
    return msgspec.json.encode(value).decode()
