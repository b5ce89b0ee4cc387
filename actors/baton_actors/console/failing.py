"""Pages that say why there is none, and what to do next."""

from __future__ import annotations

from starlette.exceptions import HTTPException

from baton_actors.agents.loading import UnknownFlow
from baton_actors.errors import ActorError
from baton_actors.orders.origins import CannotGoOn
from baton_bus.client.runs import AmbiguousRun
from baton_bus.errors import (
    AnswerRefused,
    BlobMissing,
    BusError,
    BusUnavailable,
    NoStream,
    NotAllowed,
    RunExists,
    RunPurged,
    UnknownRun,
)
from baton_bus.index.errors import IndexUnusable
from baton_schemas.errors import BadMessage, SchemaError, UnknownStep

from .core import NoServerUsed
from .page import Page

_NOT_FOUND = 404
_FORBIDDEN = 403
_AWAY = 503
_BAD = 400
_CONFLICT = 409
_BROKEN = 500


def page_of_error(error: Exception) -> Page:
    """Return the page that tells of an error."""
    title, status, links = _told(error)
    said = str(error.detail) if isinstance(error, HTTPException) else str(error)
    if status == _BROKEN:
        said = f"{type(error).__name__}: {said}. What led to it stands where the console was started; please report it."
    return Page(
        template="error.html",
        title=title,
        facts={"said": said, "links": links},
        json={"error": said},
        status=status,
    )


def _told(error: Exception) -> tuple[str, int, list[tuple[str, str]]]:
    """Return a title, a status, and where one may go on: texts with paths."""
    match error:
        case AmbiguousRun(runs=runs):
            return "Several runs", 300, [(run, f"/runs/{run}") for run in runs[:20]]
        case RunPurged():
            return "This run was removed", 410, [("All runs", "/")]
        case UnknownRun():
            return "No such run", _NOT_FOUND, [("All runs", "/")]
        case UnknownStep():
            return "No such step", _NOT_FOUND, [("All runs", "/")]
        case BusUnavailable():
            return "The server is away", _AWAY, [("Try again", ""), ("What doctor says", "/server")]
        case NotAllowed():
            return "Not allowed", _FORBIDDEN, [("All runs", "/"), ("What doctor says", "/server")]
        case NoServerUsed():
            return "No server is used", _AWAY, [("The files that are open", "/files")]
        case BlobMissing():
            return "It is not there", _NOT_FOUND, [("All runs", "/")]
        case BadMessage():
            return "This file cannot be opened", _BAD, [("Files", "/files")]
        case NoStream():
            return "No log yet", _NOT_FOUND, [("Send a task", "/flows")]
        case CannotGoOn(run=run):
            return "Nothing to go on from", _CONFLICT, [("The run", f"/runs/{run}")]
        case AnswerRefused(run=run):
            return "Not taken", _CONFLICT, [("The run", f"/runs/{run}"), ("What waits for people", "/attention")]
        case RunExists(run=run):
            return "That was sent before", _CONFLICT, [("The run that has this id", f"/runs/{run}")]
        case UnknownFlow():
            return "No such flow", _NOT_FOUND, [("All flows", "/flows")]
        case HTTPException(status_code=code):
            return "No such page" if code == _NOT_FOUND else "Refused", code, [("All runs", "/")]
        case BusError() | SchemaError() | ActorError() | IndexUnusable() | ValueError():
            return "This cannot be shown", _BAD, [("All runs", "/")]
        case _:
            return "This page broke: a mistake in Baton", _BROKEN, [("Try again", ""), ("All runs", "/")]
