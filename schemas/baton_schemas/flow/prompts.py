"""Placeholders in prompts: `{name}`, `{name.key}`, or `{name.key?}` for what may be missing; `{{` and `}}` for braces.

A value that is missing, or null, is an error (`MissingValue`), unless a `?` says that it may be: then nothing stands
there. A `?` is for all that is before it, so `{mail.sender?.name}` is empty without a sender, and an error with one
that has no name. An empty string is a value. A list of texts is numbered from 1, by the places of the list.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from baton_schemas.flow.types import json_type, listed
from baton_schemas.wire.files import FileRef, may_name_files, ref_in, refs_in, with_labels

_PATTERN = re.compile(r"\{\{|\}\}|\{([^{}\n]*)\}|[{}]")
_NAME = re.compile(r"[A-Za-z0-9_-]+\??(\.[A-Za-z0-9_-]+\??)*\Z")


class Placeholder(Struct, frozen=True):
    """One placeholder: the value it names, the keys into it, and where it stands in the template."""

    name: str
    path: tuple[str, ...]
    position: int
    optional: int = 0
    """How many of its parts, from the first (the name) on, may be missing."""

    @property
    def text(self) -> str:
        """The placeholder as it is written, but for a `?` that another `?` behind it makes superfluous."""
        parts = [self.name, *self.path]
        if self.optional:
            parts[self.optional - 1] += "?"
        return f"{{{'.'.join(parts)}}}"

    @property
    def as_optional(self) -> str:
        """The same with a `?` behind all of it."""
        return msgspec.structs.replace(self, optional=1 + len(self.path)).text

    def up_to(self, parts: int) -> str:
        """Return its first parts as a path: `item.body`."""
        return ".".join([self.name, *self.path][:parts])

    def instead(self, part: int, known: Iterable[str]) -> str:
        """Return `Did you mean {item.body}?` for the key that is most like its part of that number (from 0), or ""."""
        close = difflib.get_close_matches(self.path[part - 1], list(known), n=1, cutoff=0.6) if part else []
        if not close or not _NAME.match(close[0]):
            return ""
        tail = "".join(f".{key}" for key in self.path[part:])
        return f"Did you mean {{{self.up_to(part)}.{close[0]}{tail}}}?"


class BadPlaceholder(ValueError):
    """A brace that neither opens a placeholder nor is doubled."""

    def __init__(self, text: str, position: int) -> None:
        """`text` is what was found at `position`, in characters from the start."""
        self.text, self.position = text, position
        super().__init__(f"{text!r} at character {position}; write {{{{ and }}}} for braces")


class MissingValue(ValueError):
    """A placeholder whose value is missing, and which is not written as optional."""

    def __init__(self, placeholder: Placeholder, reason: str, hint: str = "") -> None:
        """`reason` says what was looked for, and what is there; `hint` what to write instead, if that is known."""
        self.placeholder, self.reason = placeholder, reason
        tail = hint or f"Write {placeholder.as_optional} where it may be missing"
        super().__init__(f"{placeholder.text}: {reason}. {tail}")


class FileMisplaced(ValueError):
    """A file where only text can be: in a system prompt."""

    def __init__(self, ref: FileRef) -> None:
        """`ref` is the file."""
        self.ref = ref
        super().__init__(f"{ref.label} stands in the system prompt, which holds text only; put it into `prompt`")


class Absent(Struct, frozen=True):
    """Stands for a value that is not there, for a reason: a step that failed."""

    reason: str
    """As the end of a sentence about it: `failed (TimeoutError: …)`."""
    shown: str = ""
    """What a prompt shows in its place; empty for nothing, and then it is missing."""
    parts: Any = None
    """What keys lead into, if anything."""


class Filled(Struct, frozen=True):
    """A part of a text that was made of a template."""

    text: str
    placeholder: str = ""
    """In whose place it stands, as it is written; empty for what stands in the template itself."""


class Places(Struct, frozen=True):
    """The results of a fan-out by their places in its list, of which some may be missing."""

    by_index: dict[int, Any]
    """Those that are known, in their order; one that failed is an `Absent`."""
    count: int
    """How many places there are."""


def parse(template: str) -> list[Placeholder]:
    """Return the placeholders of a template in their order. Raises `BadPlaceholder`."""
    return [found for match in _PATTERN.finditer(template) if (found := _placeholder(match)) is not None]


def split_at(template: str, names: Container[str]) -> tuple[str, str]:
    """Return a template up to the first placeholder of one of these names, and the rest. Raises `BadPlaceholder`."""
    at = next((found.position for found in parse(template) if found.name in names), len(template))
    return template[:at], template[at:]


def render(template: str, value_of: Callable[[str], Any]) -> str:
    """Fill in the template; `value_of` gives the (decoded) value of a name, None when there is none.

    A file stands there as people see it. Raises `MissingValue`.
    """
    found = pieces(template, value_of)
    return "".join(piece.label if isinstance(piece, FileRef) else piece for piece in found)


def pieces(template: str, value_of: Callable[[str], Any]) -> list[str | FileRef]:
    """Fill in the template as `render` does, but for files, which stand in their places as themselves.

    Texts and files take turns as they come; no text is empty. Files within an object come right after it. Raises
    `MissingValue`.
    """
    found: list[str | FileRef] = []
    for piece, _ in _filled(template, value_of):
        _add(found, piece)
    return found


def filled(template: str, value_of: Callable[[str], Any]) -> list[Filled]:
    """Fill in the template as `render` does, and say what of the text came from which placeholder.

    Raises `MissingValue`.
    """
    found: list[Filled] = []
    for piece, placeholder in _filled(template, value_of):
        text = piece.label if isinstance(piece, FileRef) else piece
        if found and found[-1].placeholder == placeholder:
            text = found.pop().text + text
        if text:
            found.append(Filled(text, placeholder))
    return found


def _filled(template: str, value_of: Callable[[str], Any]) -> Iterator[tuple[str | FileRef, str]]:
    """Yield the parts of a template that is filled in, each with the placeholder in whose place it stands."""
    start = 0
    for match in _PATTERN.finditer(template):
        placeholder = _placeholder(match)
        yield template[start : match.start()], ""
        start = match.end()
        if placeholder is None:
            yield match[0][0], ""
            continue
        for piece in _pieces_of(value_at(placeholder, value_of(placeholder.name))):
            yield piece, placeholder.text
    yield template[start:], ""


def _add(pieces: list[str | FileRef], piece: str | FileRef) -> None:
    if isinstance(piece, FileRef):
        pieces.append(piece)
    elif piece and pieces and isinstance(pieces[-1], str):
        pieces[-1] += piece
    elif piece:
        pieces.append(piece)


def _pieces_of(value: Any) -> Iterator[str | FileRef]:
    """Yield what a prompt shows for a value, the files in it as themselves."""
    if (ref := ref_in(value)) is not None:
        yield ref
        return
    items = dict(enumerate(value)) if isinstance(value, list) else value.by_index if isinstance(value, Places) else {}
    if any(ref_in(item) is not None for item in items.values()):
        for number, (index, item) in enumerate(items.items()):
            if ref_in(item) is not None or as_text(item):
                yield f"{chr(10) * 2 if number else ''}[{index + 1}] "
                yield from _pieces_of(item)
        return
    text = as_text(value)
    if isinstance(value, str) or not may_name_files(text.encode()):
        yield text
        return
    plain = {index: with_labels(item) for index, item in items.items()} if isinstance(value, Places) else value
    yield as_text(Places(plain, value.count) if isinstance(value, Places) else with_labels(value))
    yield from refs_in(list(items.values()) if isinstance(value, Places) else value)


def look_up(value: Any, path: Iterable[str]) -> Any:
    """Follow keys and list positions into a value; None where there is nothing."""
    for key in path:
        value = _part(value, key)
    return value


def as_text(value: Any) -> str:
    """Return a value as a prompt shows it: text as it is, a list of texts numbered, anything else as JSON.

    A list of which places are missing is numbered whatever is in it, so that each number is that of its item.
    """
    match value:
        case None:
            return ""
        case str():
            return value
        case Absent():
            return value.shown
        case Places():
            return _numbered({index: item for index, item in value.by_index.items() if as_text(item)}) or "[]"
        case list() if value and all(isinstance(item, str) for item in value):
            return _numbered(dict(enumerate(value)))
        case _:
            return msgspec.json.encode(value).decode()


def _numbered(by_index: dict[int, Any]) -> str:
    return "\n\n".join(f"[{index + 1}] {as_text(item)}" for index, item in by_index.items())


def _placeholder(match: re.Match[str]) -> Placeholder | None:
    """Return the placeholder that was matched, None for a doubled brace. Raises `BadPlaceholder`."""
    if match[0] in ("{{", "}}"):
        return None
    inner = match[1]
    if inner is None or not _NAME.match(inner):
        raise BadPlaceholder(match[0], match.start())
    parts = inner.split(".")
    optional = max((number for number, part in enumerate(parts, 1) if part.endswith("?")), default=0)
    name, *path = (part.removesuffix("?") for part in parts)
    return Placeholder(name, tuple(path), match.start(), optional)


def value_at(placeholder: Placeholder, value: Any) -> Any:
    """Return what a placeholder stands for, within the value of its name. Raises `MissingValue`."""
    holder: Any = None
    for number, key in enumerate((placeholder.name, *placeholder.path)):
        if number:
            holder, value = value, _part(value, key)
        absent = isinstance(value, Absent)
        if placeholder.optional > number and (value is None or absent):
            return None
        if absent and not value.shown:
            raise MissingValue(placeholder, f"{placeholder.up_to(number + 1)} {value.reason}")
        if value is None:
            reason = _why(placeholder.up_to(number), holder, key) if number else f"{key} is null"
            hint = placeholder.instead(number, holder) if isinstance(holder, dict) and key not in holder else ""
            raise MissingValue(placeholder, reason, hint)
    return value


def _part(value: Any, key: str) -> Any:
    match value:
        case dict():
            return value.get(key)
        case list() if key.isdecimal() and len(key) < 10 and int(key) < len(value):
            return value[int(key)]
        case Places() if key.isdecimal() and len(key) < 10:
            return value.by_index.get(int(key))
        case Absent():
            return _part(value.parts, key)
        case _:
            return None


def _why(path: str, holder: Any, key: str) -> str:
    """Return why there is nothing under a key, and what is there."""
    match holder:
        case dict() if key in holder:
            return f"{path} has {key!r}, and it is null"
        case dict():
            return f"{path} has no {key!r}; " + (f"it has: {listed(holder)}" if holder else "it is empty")
        case list() | Places() if not key.isdecimal():
            return f"{path} is a list and has no {key!r}; its items go by number, as {{{path}.0}}"
        case list():
            return f"{path} has no item {key}; " + _range(len(holder))
        case Places():
            return f"{path} has no item {key}; " + _range(holder.count)
        case Absent():
            return f"{path} {holder.reason}, so it has no {key!r}"
        case _:
            return f"{path} is {json_type(holder)} and has no {key!r}"


def _range(count: int) -> str:
    return f"its {count} go from 0 to {count - 1}" if count else "it is empty"
