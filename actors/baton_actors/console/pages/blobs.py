"""What is kept beside the log, to be downloaded: as bytes, whatever they are, and only what the run itself names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from baton_actors.console.core import Console
from baton_actors.console.sources import Source, source_of
from baton_schemas.show.brought import blobs_named
from baton_schemas.wire.files import FileRef, may_name_files, refs_in
from baton_schemas.wire.outcomes import Blob

_LOOKED_INTO_MAX_BYTES = 4 * 1024 * 1024
"""A value beside the log that may name files is looked into up to so many bytes."""


async def blob_bytes(console: Console, request: Request) -> Response:
    """Answer with the bytes of a value, or of a file, that this run names. Raises `HTTPException`, `BlobMissing`."""
    source = await source_of(console, request)
    sha256 = request.path_params["sha256"]
    named = await _named(source, sha256)
    if named is None:
        raise HTTPException(404, f"this run names nothing that is kept beside the log under {sha256}")
    blob, name = named
    data = await source.blob(blob)
    headers = {
        "content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        "x-content-type-options": "nosniff",
    }
    return Response(data, media_type="application/octet-stream", headers=headers)


async def _named(source: Source, sha256: str) -> tuple[Blob, str] | None:
    """Return what a run names by this hash, and what it is called as a file."""
    entries = source.feed.entries
    blobs = {blob.sha256: blob for entry in entries for blob in blobs_named(entry.message)}
    if sha256 in blobs:
        return blobs[sha256], f"{sha256[:12]}.json"
    for ref in _files_in(entry.data for entry in entries if sha256.encode() in entry.data):
        if ref.sha256 == sha256:
            return Blob(sha256=sha256, size_bytes=ref.size_bytes), ref.name
    within = [blob for blob in blobs.values() if blob.files and blob.size_bytes <= _LOOKED_INTO_MAX_BYTES]
    fetched, _ = await source.fetch(within)
    for ref in _files_in(data for data in fetched.values() if sha256.encode() in data):
        if ref.sha256 == sha256:
            return Blob(sha256=sha256, size_bytes=ref.size_bytes), ref.name
    return None


def _files_in(texts: Iterable[bytes]) -> Iterator[FileRef]:
    """Yield the files that JSON names, at any depth."""
    for data in texts:
        if may_name_files(data):
            try:
                value: Any = msgspec.json.decode(data)
            except (ValueError, RecursionError):  # no JSON, as a stranger may have published it
                continue
            yield from refs_in(value)
