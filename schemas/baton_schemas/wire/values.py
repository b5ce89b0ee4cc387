"""Values where they come in: valid Unicode, finite numbers, bounded nesting and size, or an error that says where."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from baton_schemas.errors import BadContent

NESTING_MAX = 64
"""Lists and objects within each other. What people mean is rarely over 10.

Readers give up sooner or later: ours at about 1,000 less what the caller's stack holds, those of other languages often
at 100 or 128; and the message around a value adds a few.
"""
VALUE_MAX_BYTES = 64 * 1024 * 1024
"""Of one value as JSON. Each step that reads it holds it in memory, and each branch a copy of its own."""
_TEXT_MARKS = re.compile("[\x00\ud800-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_IDENTIFIER = re.compile(r"[A-Za-z_][\w-]*\Z")
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_MARK = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_MISSING = object()


def check_json(raw: bytes | msgspec.Raw, what: str, *, max_bytes: int = VALUE_MAX_BYTES) -> None:
    """Check bytes from outside that are to be a JSON value: whatever passes can be read by everybody.

    `what` begins the place that an error names (`input.topic`). Raises `BadContent`.
    """
    data = bytes(raw)
    _check_size(data, what, max_bytes)
    try:
        msgspec.json.decode(data)
    except RecursionError as error:
        raise _too_deep(what) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _what_is_wrong_with(data, what, error) from error
    if _is_too_deep(data):
        raise _too_deep(what)


def encode_value(value: Any, what: str, *, max_bytes: int = VALUE_MAX_BYTES) -> bytes:
    """Return a Python value as JSON that passes `check_json`.

    Besides what msgspec knows it takes subclasses of str, int and float, and objects that turn themselves into plain
    data (see `to_json`). `what` begins the place that an error names. Raises `BadContent`.
    """
    if type(value) is msgspec.Raw:
        check_json(value, what, max_bytes=max_bytes)
        return bytes(value)
    try:
        data = _encoder.encode(value)
    except UnicodeEncodeError as error:
        raise _bad_part(value, what) or BadContent(what, f"text that is not valid Unicode ({error.reason})") from error
    except RecursionError as error:
        raise BadContent(what, f"nested deeper than {NESTING_MAX}, or in itself") from error
    except Exception as error:  # what a `model_dump` or a property of the value raises included
        place, part = _unencodable(value, what)
        for key in _bad_keys(part):
            raise BadContent(place, f"a key is a {_kind(key)}; keys are text or numbers") from error
        raise BadContent(place, f"{_kind(part)} cannot be JSON: {_said(error)}") from error
    _check_size(data, what, max_bytes)
    if type(value) is str:  # a text is neither nested nor a number
        return data
    if _is_too_deep(data):
        raise _too_deep(what)
    if b"null" in data:  # what msgspec makes of NaN and infinity
        bad = _bad_part(value, what)
        if bad is not None:
            raise bad
    return data


def clean_text(text: str, limit: int) -> str:
    """Return a text that can be recorded: at most `limit` characters, the last an ellipsis when it was longer.

    Two halves of one character (an emoji split over two chunks) are put together; a half alone, and a NUL, becomes
    U+FFFD, the replacement character.
    """
    if len(text) > limit:
        text = text[: max(limit - 1, 0)] + "…"[:limit]
    if _TEXT_MARKS.search(text) is None:
        return text
    return valid_text(text.replace("\0", "\ufffd"))


def valid_text(text: str) -> str:
    """Return the text as valid Unicode: surrogates that form a pair joined, and each lone one as U+FFFD."""
    if not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def to_json(value: Any) -> Any:
    """Turn what msgspec does not know into plain data: the hook of encoders. Raises `TypeError`.

    A subclass of str, int or float is its base; pydantic models, and numpy's scalars and arrays, are asked for their
    plain data, without importing either library.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__pos__(value)
    if isinstance(value, float):
        return float.__pos__(value)
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError("its type is unsupported")


_encoder = msgspec.json.Encoder(enc_hook=to_json)


# ---- sizes and nesting ---------------------------------------------------------------------------


def _check_size(data: bytes, what: str, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise BadContent(what, f"{len(data)} bytes as JSON; at most {max_bytes} are taken")


def _is_too_deep(data: bytes) -> bool:
    """Say whether valid JSON is nested deeper than `NESTING_MAX`, without a loop over its characters."""
    if data.count(b"[") + data.count(b"{") <= NESTING_MAX:
        return False
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Only brackets and quotes are left; what stands between an odd quote and the next is within a string.
    marks = b"".join(data.translate(_BRACKETS, _NO_MARK).split(b'"')[::2])
    for _ in range(NESTING_MAX):
        if not marks:
            return False
        marks = marks.replace(b"[]", b"")  # takes the innermost away, all at once
    return bool(marks)


def _too_deep(what: str) -> BadContent:
    return BadContent(what, f"nested deeper than {NESTING_MAX}")


# ---- where it is wrong: slow, as it runs for errors only --------------------------------------------


def _what_is_wrong_with(data: bytes, what: str, error: Exception) -> BadContent:
    try:
        read = json.loads(data.decode("utf-8", "surrogateescape"), parse_int=_a_number)
    except (ValueError, RecursionError):
        return BadContent(what, f"no JSON: {error}")
    return _bad_part(read, what) or BadContent(what, f"no JSON: {error}")


def _a_number(digits: str) -> Any:
    return int(digits) if len(digits) <= 4_000 else math.inf  # Python itself refuses to read more than 4,300


def _bad_part(value: Any, what: str) -> BadContent | None:
    """Return what is wrong with the first text or number that cannot be stored, or None."""
    try:
        plain = msgspec.to_builtins(value, enc_hook=to_json)
    except Exception:
        plain = value
    pending = [(what, plain)]
    while pending:
        place, part = pending.pop()
        if isinstance(part, str):
            bad = _bad_text(part, place)
            if bad is not None:
                return bad
        elif isinstance(part, float) and not math.isfinite(part):
            return BadContent(place, f"{float(part)} is no number that JSON has")
        elif isinstance(part, Mapping):
            for key in part:
                bad = _bad_part(key, f"a key of {place}") if isinstance(key, str | float) else None
                if bad is not None:
                    return bad
        pending += reversed(list(_parts(part, place)))
    return None


def _bad_text(text: str, place: str) -> BadContent | None:
    found = _SURROGATE.search(text)
    if found is None:
        return None
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python stands for a byte that it could not decode (PEP 383)
        return BadContent(place, f"the byte 0x{code - 0xDC00:02x} at character {found.start()} is not UTF-8")
    return BadContent(place, f"a lone surrogate (U+{code:04X}) at character {found.start()}")


def _unencodable(value: Any, what: str) -> tuple[str, Any]:
    """Return the innermost part that cannot be encoded, and its place."""
    place, part = what, value
    for _ in range(NESTING_MAX):
        for inner_place, inner in _parts(part, place):
            if not _encodes(inner):
                place, part = inner_place, inner
                break
        else:
            break
    return place, part


def _bad_keys(part: Any) -> list[Any]:
    """Return the keys of a dict that JSON cannot have; none of anything else."""
    return [key for key in part if not _encodes({key: 0})] if isinstance(part, dict) else []


def _encodes(value: Any) -> bool:
    try:
        _encoder.encode(value)
    except Exception:
        return False
    return True


def _parts(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield what is right within a value, and where."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield _under(place, key), inner
    elif isinstance(value, list | tuple | set | frozenset):
        for index, inner in enumerate(value):
            yield f"{place}[{index}]", inner
    else:
        kind = type(value)
        for name in getattr(kind, "__struct_fields__", getattr(kind, "__dataclass_fields__", ())):
            inner = getattr(value, name, _MISSING)
            if inner is not _MISSING:
                yield _under(place, name), inner


def _under(place: str, key: Any) -> str:
    if isinstance(key, str) and _IDENTIFIER.match(key):
        return f"{place}.{key}"
    return f"{place}[{clean_text(key, 40) if isinstance(key, str) else key!r}]"


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _said(error: Exception) -> str:
    try:
        return clean_text(str(error), 300) or type(error).__name__
    except Exception:
        return type(error).__name__
