"""Files as values: a small record in the log, `{"file": {"name": …, "sha256": …}}`, and the bytes beside it.

The bytes are a blob under their SHA-256. Whoever holds a `File` reads it through a reader that it was given with.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct

from baton_schemas.errors import BadFile

from .media import PDF, PICTURES, ending_of, is_text, media_type_of, picture_size, why_misnamed

FILE_MAX_BYTES = 100_000_000
"""Of one file. It is held in memory where it is read, and no model takes a third of it at once: a PDF that is larger
than what a model takes is split."""
NAME_MAX = 200
"""Characters of a name that are kept: file systems have 255 bytes."""
MARKS = (b'"file":{"', b'"sha256":"')
"""What JSON has that names a file, as we write it: what has not both names none."""
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_KEY = "file"
_A = TypeVar("_A")


class FileRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a file, as the log has it."""

    name: str
    media_type: str
    sha256: str
    size_bytes: int
    pages: int = 0
    """Of a PDF; 0 when they were not counted."""
    width: int = 0
    """Of a picture, in pixels; 0 when its bytes do not tell."""
    height: int = 0

    @property
    def kind(self) -> str:
        """What people call such a file: `PDF`, `PNG`, `text`."""
        if self.media_type == PDF:
            return "PDF"
        return PICTURES.get(self.media_type) or ("text" if is_text(self.media_type) else self.media_type)

    @property
    def label(self) -> str:
        """The file as people see it in place of its content: `[paper.pdf, PDF, 12 pages, 1.2 MB]`."""
        parts = [self.name, self.kind]
        if self.pages:
            parts.append(f"{self.pages:,} page{'' if self.pages == 1 else 's'}")
        if self.width:
            parts.append(f"{self.width:,} x {self.height:,}")
        return f"[{', '.join([*parts, _size(self.size_bytes)])}]"


def described(name: str, data: bytes, *, pages: int = 0, media_type: str = "") -> FileRef:
    """Return what is known of a file by its bytes. `media_type` stands in where these say nothing.

    Raises `BadFile` for one that is too large, or is not what its name says.
    """
    name = clean_name(name)
    check_size(name, len(data))
    check_head(name, data[: 4 * 1024])
    found = media_type_of(data, name)
    if media_type and found == "application/octet-stream":
        found = media_type
    width, height = picture_size(data)
    return FileRef(
        name=name,
        media_type=found,
        sha256=hashlib.sha256(data).hexdigest(),
        size_bytes=len(data),
        pages=pages,
        width=width,
        height=height,
    )


def check_size(name: str, size_bytes: int) -> None:
    """Raise `BadFile` for a file that is too large."""
    if size_bytes > FILE_MAX_BYTES:
        raise BadFile(name, f"has {_size(size_bytes)}; at most {_size(FILE_MAX_BYTES)} are taken")


def check_head(name: str, head: bytes) -> None:
    """Raise `BadFile` for a file that begins so, and is not what its name says."""
    if not head and ending_of(name) in ("pdf", "png", "jpg", "jpeg", "gif", "webp"):
        raise BadFile(name, "is empty")
    if why := why_misnamed(name, media_type_of(head, name)) if head else "":
        raise BadFile(name, why)


def clean_name(name: str) -> str:
    """Return the last part of a path as a name that can be shown: a character that has no shape is U+FFFD."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].strip() or "file"
    clean = "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char for char in last)
    if len(clean) <= NAME_MAX:
        return clean
    ending = ending_of(clean)[:20]
    return f"{clean[: NAME_MAX - len(ending) - 2]}…{'.' if ending else ''}{ending}"


def as_value(ref: FileRef) -> dict[str, Any]:
    """Return a file as the value that stands for it."""
    return {_KEY: msgspec.to_builtins(ref)}


def ref_in(value: Any) -> FileRef | None:
    """Return the file that a decoded value stands for; None for any other value."""
    if not isinstance(value, dict) or len(value) != 1 or not isinstance(inner := value.get(_KEY), dict):
        return None
    try:
        ref = msgspec.convert(inner, FileRef)
    except msgspec.ValidationError:
        return None
    return ref if _SHA256.match(ref.sha256) and ref.size_bytes >= 0 else None


def refs_in(value: Any) -> Iterator[FileRef]:
    """Yield the files within a decoded value, in their order."""
    if (ref := ref_in(value)) is not None:
        yield ref
    elif isinstance(value, dict):
        for inner in value.values():
            yield from refs_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from refs_in(inner)


def may_name_files(data: bytes) -> bool:
    """Say whether JSON that we wrote may name a file; what names one always may."""
    return MARKS[0] in data and MARKS[1] in data


def with_labels(value: Any) -> Any:
    """Return a decoded value with the files in it as people see them."""
    if (ref := ref_in(value)) is not None:
        return ref.label
    if isinstance(value, dict):
        return {key: with_labels(inner) for key, inner in value.items()}
    return [with_labels(inner) for inner in value] if isinstance(value, list) else value


def _size(size_bytes: int) -> str:
    """Return a size as file managers have it, in powers of ten."""
    for unit, length in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= length:
            return f"{size_bytes / length:.3g} {unit}"
    return f"{size_bytes} bytes"


# ---- files in hand -----------------------------------------------------------------------------------


class Reader(Protocol):
    """Reads files for whoever is given them."""

    def read(self, ref: FileRef) -> Any:
        """Return the bytes, or in async code what they are awaited from."""


_reader: ContextVar[Reader | None] = ContextVar("baton_files_reader", default=None)
_made: ContextVar[list[File] | None] = ContextVar("baton_files_made", default=None)


def read_by(reader: Reader) -> None:
    """Have files that this task, and what it begins, decodes from here on be read by this reader."""
    _reader.set(reader)


def with_made(encode: Callable[..., _A], *given: Any) -> tuple[_A, Sequence[File]]:
    """Return what encoding gives, and the files in it whose bytes are to be stored."""
    made: list[File] = []
    token = _made.set(made)
    try:
        return encode(*given), made
    finally:
        _made.reset(token)


class File:
    """A file: what a handler is given for an input of type `file`, and what it may put out.

    `await file.read()` gives its bytes, in a plain handler `file.read()`. One of its own is `File.of(data, name=…)`.
    """

    __slots__ = ("_by", "data", "ref")

    def __init__(self, ref: FileRef, data: bytes | None = None, by: Reader | None = None) -> None:
        """`data` are its bytes where they are at hand, `by` who reads them elsewhere."""
        self.ref, self.data, self._by = ref, data, by

    @classmethod
    def of(cls, data: bytes | str, *, name: str, media_type: str = "", pages: int = 0) -> File:
        """Make a file of bytes, or of a text. What it is, its bytes say; `media_type` where these do not.

        `pages` are those of a PDF, if they are known. Raises `BadFile` for one that is too large or misnamed.
        """
        given = data.encode() if isinstance(data, str) else bytes(data)
        return cls(described(name, given, pages=pages, media_type=media_type), given)

    @property
    def name(self) -> str:
        """Its name, without a folder."""
        return self.ref.name

    @property
    def media_type(self) -> str:
        """What it is by its content: `application/pdf`, `image/png`, `text/plain`."""
        return self.ref.media_type

    @property
    def size_bytes(self) -> int:
        """How large it is."""
        return self.ref.size_bytes

    @property
    def sha256(self) -> str:
        """The hash of its bytes, in hex, under which they are stored."""
        return self.ref.sha256

    @property
    def pages(self) -> int:
        """Of a PDF: how many pages; 0 when they were not counted."""
        return self.ref.pages

    def read(self) -> Any:
        """Return the bytes: in async code they are awaited, elsewhere they are there.

        Raises `FileGone` when they are not stored any more.
        """
        if self.data is None and self._by is not None:
            return self._by.read(self.ref)
        if self.data is None:
            raise RuntimeError(f"{self.name}: only what a handler was given reads itself; elsewhere: download(file)")
        return _given(self.data) if asyncio._get_running_loop() is not None else self.data

    @classmethod
    def model_validate(cls, value: Any) -> File:
        """Take the value that stands for a file: what decoders of handlers ask a class for. Raises `ValueError`."""
        if isinstance(value, File):
            return value
        ref = ref_in(value)
        if ref is None:
            raise ValueError("Expected a file")
        return cls(ref, by=_reader.get())

    def model_dump(self, mode: str = "json") -> Mapping[str, Any]:
        """Return the value that stands for it: what encoders ask an object for."""
        made = _made.get()
        if made is not None and self.data is not None:
            made.append(self)
        return as_value(self.ref)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, File) and self.ref == other.ref

    def __hash__(self) -> int:
        return hash(self.ref)

    def __repr__(self) -> str:
        return f"File({self.ref.label})"


async def _given(data: bytes) -> bytes:
    return data
