"""Files of this machine on their way into a run: opened with care, read in one go, stored one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from baton_bus.engine.files import Files
from baton_schemas.errors import BadFile, InputError
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.types import has_files
from baton_schemas.wire.files import File, check_head, check_size, clean_name
from baton_schemas.wire.media import HEAD_BYTES, PDF

_SMALL_AT_ONCE, _LARGE_AT_ONCE, _LARGE_BYTES = 64, 4, 1_000_000
"""Files read and stored at the same time: each is in memory meanwhile, and storing one takes some round trips."""
_KINDS = (
    (stat.S_ISDIR, "is a folder; name the files in it"),
    (stat.S_ISFIFO, "is a pipe; give what comes out of it on standard input, with -"),
    (stat.S_ISSOCK, "is a socket; expected a file"),
    (stat.S_ISCHR, "is a device; expected a file"),
    (stat.S_ISBLK, "is a device; expected a file"),
)

_Known = dict[Path | File, asyncio.Task[File]]


def check_file(path: Path) -> None:
    """Look at a file without reading it whole: whether it is there, may be read, and is what its name says.

    Raises `BadFile`.
    """
    with _opened(path) as file:
        check_size(clean_name(path.name), os.fstat(file).st_size)
        check_head(clean_name(path.name), os.read(file, HEAD_BYTES))


def read_file(path: Path) -> bytes:
    """Return the bytes of a file, as it was at one moment. Raises `BadFile` for one that changes meanwhile."""
    name = clean_name(path.name)
    with _opened(path) as file:
        before = os.fstat(file)
        check_size(name, before.st_size)
        try:
            pieces = []
            left = before.st_size + 1  # one that grows is not followed to its end
            while left and (piece := os.read(file, min(left, 1 << 20))):
                pieces.append(piece)
                left -= len(piece)
        except OSError as error:
            raise _unreadable(path, error) from error
        data, after = b"".join(pieces), os.fstat(file)
    check_size(name, len(data))
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns) or len(data) != before.st_size:
        raise BadFile(str(path), "changed while it was read; give it again once nobody writes to it")
    return data


async def uploaded(files: Files, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with each `Path` in them as the file that it names, whose bytes are stored by then.

    So are PDFs at hand whose pages nobody has counted, which are counted. Raises `BadFile`, and as `Blobs.put`.
    """
    if not any(map(_has_new, given.values())):
        return dict(given)
    small, large = asyncio.Semaphore(_SMALL_AT_ONCE), asyncio.Semaphore(_LARGE_AT_ONCE)
    known: _Known = {}

    async def one(path: Path | File) -> File:
        if isinstance(path, File):
            async with large:
                return File(await files.upload(path.name, path.data or b"", path.media_type))
        async with large if _is_large(path) else small:
            data = await asyncio.to_thread(read_file, path)
            return File(await files.upload(path.name, data))

    def begin(value: Any) -> None:
        if _is_new(value) and value not in known:
            known[value] = group.create_task(one(value))
        for inner in _parts(value):
            begin(inner)

    try:
        async with asyncio.TaskGroup() as group:
            for value in given.values():
                begin(value)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return {name: _with(value, known) for name, value in given.items()}


def refuse_bytes(flow: Flow, given: Mapping[str, Any]) -> None:
    """Raise `InputError` for bytes where a flow takes a file: as JSON they would be a text in base64, and that the
    file's content."""
    for name, field in flow.input.items():
        if name in given and has_files(field) and _has_bytes(given[name]):
            reason = "found bytes; expected a file: File.of(data, name=…), or a Path"
            raise InputError(flow.name, name, reason)


def _has_bytes(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview) or any(map(_has_bytes, _parts(value)))


def _is_large(path: Path) -> bool:
    try:
        return path.expanduser().stat().st_size > _LARGE_BYTES
    except (OSError, ValueError):  # reading it says what is wrong with it
        return False


def _with(value: Any, known: _Known) -> Any:
    if _is_new(value):
        return known[value].result()
    if not _has_new(value):
        return value
    if isinstance(value, Mapping):
        return {key: _with(inner, known) for key, inner in value.items()}
    return [_with(inner, known) for inner in value]


def _is_new(value: Any) -> bool:
    if isinstance(value, File):
        return value.data is not None and value.media_type == PDF and not value.pages
    return isinstance(value, Path)


def _has_new(value: Any) -> bool:
    return _is_new(value) or any(map(_has_new, _parts(value)))


def _parts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a regular file, without waiting for the other end of a pipe. Raises `BadFile`."""
    try:
        # 1. Open it so that a pipe without a writer holds up nobody. 2. See what was opened, not what was there.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        file = os.open(path.expanduser(), flags)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        mode = os.fstat(file).st_mode
        for is_kind, reason in _KINDS:
            if is_kind(mode):
                raise BadFile(str(path), reason)
        yield file
    finally:
        os.close(file)


def _unreadable(path: Path, error: OSError | ValueError) -> BadFile:
    if isinstance(error, ValueError):
        return BadFile(str(path), f"cannot be opened: {error}")
    if error.errno == errno.ELOOP:
        return BadFile(str(path), "cannot be opened: its links lead around in a circle")
    return BadFile(str(path), f"cannot be opened: {error.strerror or error}")
