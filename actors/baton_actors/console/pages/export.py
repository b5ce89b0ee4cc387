"""Runs as files to be kept: one as what `baton export` writes, several as a zip of such."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from baton_actors.console.core import Console
from baton_actors.console.page import Moved, Page, wants_json
from baton_actors.console.sources import source_of
from baton_actors.console.words import in_url
from baton_bus.client.runs import RunHead, exact_run
from baton_bus.errors import RunPurged, UnknownRun
from baton_schemas.run.state import Entry
from baton_schemas.show.export import dump
from baton_schemas.wire.names import TOKEN

ZIP_MAX_BYTES = 64 * 1024 * 1024
"""Of all files of a zip, as they are in it: it is made in memory."""
_TOO_LARGE = 413
_CHUNK_BYTES = 64 * 1024
"""Sent at once: a line at a time takes longer than to make it."""


class _TooLarge(Exception):
    """The runs are more than fit into a zip."""


async def export_page(console: Console, request: Request) -> Response:
    """Return a run as JSON lines, to be kept: what `baton export` writes."""
    feed = (await source_of(console, request)).feed
    return StreamingResponse(
        _lines(tuple(feed.entries)),
        media_type="application/x-ndjson",
        headers={"content-disposition": f'attachment; filename="{feed.run}.jsonl"'},
    )


async def _lines(entries: Sequence[Entry]) -> AsyncIterator[bytes]:
    """Yield entries as lines, many at a time; others are answered between."""
    lines, size = list[bytes](), 0
    for entry in entries:
        lines.append(dump(entry))
        size += len(lines[-1])
        if size >= _CHUNK_BYTES:
            yield b"".join(lines)
            lines, size = [], 0
            await asyncio.sleep(0)
    yield b"".join(lines)


async def exported(console: Console, request: Request, runs: Sequence[str]) -> Page | Response:
    """Return these runs to be kept; a page of the commands that do it where they are too much for a zip.

    Raises `Moved` for a single run, `UnknownRun`, `RunPurged`.
    """
    if len(runs) == 1 and not wants_json(request):
        raise Moved(f"/runs/{in_url(runs[0])}/export")
    said = f"These {len(runs):,} runs"
    if not wants_json(request):
        try:
            data = await _zipped(console, [await _head(console, run) for run in runs])
        except _TooLarge:
            said = f"These {len(runs):,} runs are more than {ZIP_MAX_BYTES // 2**20} MiB, which is the most at once"
        else:
            headers = {"content-disposition": 'attachment; filename="runs.zip"'}
            return Response(data, media_type="application/zip", headers=headers)
    return Page(
        template="export.html",
        title="Too much for one file",
        here="runs",
        facts={"runs": runs, "said": said},
        json=runs,
        command=f"baton export {runs[0]}",
        status=200 if wants_json(request) else _TOO_LARGE,
    )


async def _head(console: Console, run: str) -> RunHead:
    head = await exact_run(console.bus, run) if TOKEN.match(run) else None
    if head is None:
        raise UnknownRun(run)
    if head.purged:
        raise RunPurged(run)
    return head


async def _zipped(console: Console, heads: Sequence[RunHead]) -> bytes:
    """Return a zip of the files of these runs. Raises `_TooLarge`."""
    bus, made, left = console.bus, io.BytesIO(), ZIP_MAX_BYTES
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for head in heads:
            lines: list[bytes] = []
            async with aclosing(bus.log.read([bus.subjects.run(head.run)], head.start_seq)) as entries:
                async for entry in entries:
                    lines.append(dump(entry))
                    left -= len(lines[-1])
                    if left < 0:
                        raise _TooLarge
            await asyncio.to_thread(archive.writestr, f"{head.run}.jsonl", b"".join(lines))
    return made.getvalue()
