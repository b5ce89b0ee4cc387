"""Exported runs that are looked at here: those that are open, and the form that opens one."""

from __future__ import annotations

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.files import FILE_MAX_BYTES, OPEN_MAX
from baton_actors.console.page import Page
from baton_schemas.show.excerpt import size


async def files_page(console: Console, request: Request) -> Page:
    """Return the files that are open, the last one opened first."""
    files = [(file, file.summary) for file in reversed(list(console.files))]
    return Page(
        template="files.html",
        title="Files",
        here="files",
        facts={"files": files, "max": size(FILE_MAX_BYTES), "open_max": OPEN_MAX},
        json=[{"name": file.name, "file": file.shown, "run": file.feed.run} for file, _ in files],
        command="baton console " + (" ".join(file.shown for file, _ in reversed(files)) or "FILE"),
    )
