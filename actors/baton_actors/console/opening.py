"""Files that are posted to be looked at: kept in memory alone, so that it is open to who may read only, too."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncGenerator

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from baton_schemas.errors import BadMessage
from baton_schemas.show.excerpt import size

from .core import Console
from .files import FILE_MAX_BYTES, opened
from .guard import CSRF

_BESIDE_BYTES = 64 * 1024
"""Of a form, besides its file."""


class _InMemory(MultiPartParser):
    spool_max_size = FILE_MAX_BYTES + _BESIDE_BYTES
    """Nothing of a file goes to a disk, which others could read."""


async def open_posted(console: Console, request: Request) -> Response:
    """Open the file of a form, and lead to its run. Raises `BadMessage`, `HTTPException`."""
    try:
        parser = _InMemory(request.headers, _bounded(request), max_files=1, max_fields=4)
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise HTTPException(400, f"this is no form with a file: {error}") from error
    try:
        if not hmac.compare_digest(str(form.get(CSRF, "")).encode(), request.state.csrf.encode()):
            raise HTTPException(403, "this form is of an earlier console, or of none: load its page again")
        file = form.get("file")
        if not isinstance(file, UploadFile) or not file.filename:
            raise BadMessage("no file was chosen. Choose one that `baton export` wrote")
        data = await file.read()
        found = console.files.add(await asyncio.to_thread(opened, file.filename, data))
    finally:
        await form.close()
    return RedirectResponse(f"/files/{found.name}", 303)


async def _bounded(request: Request) -> AsyncGenerator[bytes, None]:
    """Yield what is posted, up to what a file may have. Raises `HTTPException`."""
    most = FILE_MAX_BYTES + _BESIDE_BYTES
    too_large = HTTPException(413, f"this file is too large: at most {size(FILE_MAX_BYTES)} are opened here")
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        raise too_large
    left = most
    async for chunk in request.stream():
        left -= len(chunk)
        if left < 0:
            raise too_large
        yield chunk
