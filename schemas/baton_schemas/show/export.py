"""Entries of the log as JSON lines, and back: what `baton export` writes and `baton import` reads.

A line is `{"seq":…,"at":"…Z","subject":"…","message":{…}}`. The message stands there byte for byte as it was
stored; where that cannot be (no JSON, or a line break in it), `"bytes"` holds the same in base64.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from baton_schemas.errors import BadMessage
from baton_schemas.run.state import Entry, read_entry


class _Line(Struct, frozen=True, kw_only=True):
    seq: int
    at: Annotated[datetime, Meta(tz=True)]
    subject: str
    message: Raw | UnsetType = UNSET
    data: bytes | UnsetType = field(name="bytes", default=UNSET)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


def dump(entry: Entry) -> bytes:
    """Return the entry as one line, line break included. `load` gives back an equal entry."""
    at = entry.at.astimezone(UTC)
    line = _encoder.encode(_Line(seq=entry.seq, at=at, subject=entry.subject, message=Raw(entry.data)))
    if not _reads_back(line, entry.data):
        line = _encoder.encode(_Line(seq=entry.seq, at=at, subject=entry.subject, data=entry.data))
    return line + b"\n"


def load(line: bytes, number: int) -> Entry:
    """Return the entry in a line; `number` is its place in the file, from 1, for the error.

    Raises `BadMessage` when the line is no entry. A message that cannot be read is no error: its entry keeps
    the bytes, as the log does.
    """
    try:
        found = _decoder.decode(line)
        at = found.at.astimezone(UTC)
    except (ValueError, RecursionError, OverflowError) as error:  # msgspec's errors are ValueErrors
        raise _bad_line(number, str(error)) from error
    if isinstance(found.message, Raw):
        data = bytes(found.message)
    elif isinstance(found.data, bytes):
        data = found.data
    else:
        raise _bad_line(number, "it has neither `message` nor `bytes`")
    return read_entry(found.seq, at, found.subject, data)


def load_all(lines: Iterable[bytes], name: str) -> list[Entry]:
    """Return the entries of an exported run; `name` is that of its file. Raises `BadMessage`, naming the line."""
    entries = [load(line, number) for number, line in enumerate(lines, start=1) if line.strip()]
    if not entries:
        raise BadMessage(f"{name} has no messages in it. Export the run again with `baton export`")
    return entries


def _bad_line(number: int, reason: str) -> BadMessage:
    return BadMessage(f"line {number} is no entry of a log: {reason}. Export the run again with `baton export`")


def _reads_back(line: bytes, data: bytes) -> bool:
    """Say whether this is one line of UTF-8 from which the stored bytes come back as they are."""
    if b"\n" in line or b"\r" in line:
        return False
    try:
        line.decode()
        return _decoder.decode(line).message == Raw(data)
    except (ValueError, RecursionError):
        return False
