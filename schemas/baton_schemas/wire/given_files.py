"""Files as they are given from outside, before their bytes are beside the log: inline, as a text, or put there already.

`{"file": {"name": "a.pdf", "base64": "…"}}`, `{"file": {"name": "a.txt", "text": "…"}}`, a text alone, or
`{"file": {"name": "a.pdf", "sha256": "…", "size_bytes": 7}}` of one that is stored.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from .files import FILE_MAX_BYTES, FileRef, ref_in
from .media import ending_of

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_EXPECTED = (
    'a file: {"file": {"name": …, "base64": …}}, with "text" in place of "base64", or with "sha256" and "size_bytes" '
    "of one that is stored; or a text"
)
_PATH_MAX = 300
_ENDINGS = frozenset(
    {"pdf", "png", "jpg", "jpeg", "gif", "webp", "txt", "md", "csv", "tsv", "json", "jsonl", "html", "htm", "xml"}
    | {"yaml", "yml", "docx", "xlsx", "pptx", "odt"}
)
"""A single line that ends as a file's name does is a path that somebody forgot to open."""


class GivenFile(Struct, frozen=True, kw_only=True):
    """What is said of a file that is given."""

    name: str = ""
    base64: bytes | None = None
    text: str | None = None
    sha256: str = ""
    size_bytes: int = -1
    media_type: str = ""
    pages: int = 0

    @property
    def data(self) -> bytes | None:
        """Its bytes, where they came with it."""
        return self.base64 if self.base64 is not None else self.text.encode() if self.text is not None else None


def given_in(value: Any) -> GivenFile | FileRef:
    """Return the file that a decoded value gives. Raises `ValueError`, which says what was found and expected."""
    if isinstance(value, str):
        return _of_text(value)
    if (ref := ref_in(value)) is not None:
        return ref
    if not isinstance(value, dict) or not isinstance(inner := value.get("file"), dict) or len(value) > 1:
        raise ValueError(f"expected {_EXPECTED}")
    try:
        given = msgspec.convert(inner, GivenFile)
    except msgspec.ValidationError as error:
        raise ValueError(f"{str(error).replace('`$.', '`file.')}; expected {_EXPECTED}") from error
    ways = [given.base64 is not None, given.text is not None, bool(given.sha256)]
    if sum(ways) != 1:
        raise ValueError(f"it has {'more than one' if sum(ways) else 'none'} of base64, text, sha256; one is expected")
    if not given.name:
        raise ValueError("it has no `name`, such as paper.pdf")
    if given.sha256 and not _SHA256.match(given.sha256):
        raise ValueError(f"its sha256 is {given.sha256[:80]!r}; expected 64 characters of 0-9a-f")
    if given.sha256 and not 0 <= given.size_bytes <= FILE_MAX_BYTES:
        raise ValueError(f"its size_bytes is {given.size_bytes}; expected 0 to {FILE_MAX_BYTES}")
    return given


def _of_text(text: str) -> GivenFile:
    if "\n" not in text and len(text) <= _PATH_MAX and ending_of(text.strip()) in _ENDINGS:
        name = text.strip()
        raise ValueError(
            f"found {name!r}, which looks like a path, and a text would be taken as the content. Give the file itself: "
            f"@{name} in a command, Path({name!r}) in Python"
        )
    return GivenFile(name="text.txt", text=text)
