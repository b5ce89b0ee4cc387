"""What the server says of the stream of a log: which it is, where it begins, and what is gone from it."""

from __future__ import annotations

import asyncio

import msgspec
from msgspec import Struct

from baton_bus.errors import BusUnavailable, NoStream
from baton_bus.jetstream.requests import NoAnswer
from baton_bus.store.bus import Bus

_STREAM_NOT_FOUND = 10059
_AGAIN_S = 0.2


class _State(Struct, frozen=True):
    messages: int = 0
    first_seq: int = 1
    last_seq: int = 0
    num_deleted: int = 0
    subjects: dict[str, int] = {}


class _ApiError(Struct, frozen=True):
    err_code: int = 0


class _Answer(Struct, frozen=True):
    created: str = ""
    total: int = 0
    state: _State = _State()
    error: _ApiError | None = None


class Look(Struct, frozen=True, kw_only=True):
    """A stream, as it is now."""

    created: str
    first_seq: int
    last_seq: int
    deleted: int
    """How many messages between the first and the last are gone."""


async def look(bus: Bus) -> Look:
    """Ask how the log's stream is. Raises `BusUnavailable`, `NoStream`, `NotAllowed`."""
    answer = await _ask(bus, {"deleted_details": False})
    state = answer.state
    return Look(created=answer.created, first_seq=state.first_seq, last_seq=state.last_seq, deleted=state.num_deleted)


async def runs_there(bus: Bus) -> set[str]:
    """Return all runs of which a beginning or an end is in the log. The server knows its subjects, and reads nothing.

    Raises as `look`.
    """
    found: set[str] = set()
    for pattern in bus.subjects.starts():
        offset = 0
        while True:
            answer = await _ask(bus, {"subjects_filter": pattern, "offset": offset})
            subjects = answer.state.subjects
            found.update(bus.subjects.split(subject).run for subject in subjects)
            offset += len(subjects)
            if not subjects or offset >= answer.total:
                break
    return found


async def _ask(bus: Bus, question: dict[str, object]) -> _Answer:
    stream, patience_s = bus.settings.namespace, bus.settings.patience_s
    subject, body = bus.requests.api.info(stream), msgspec.json.encode(question)
    try:
        async with asyncio.timeout(patience_s):
            while True:
                try:
                    answer = msgspec.json.decode((await bus.requests.ask(subject, body, again=True)).data, type=_Answer)
                except (NoAnswer, msgspec.DecodeError):
                    await asyncio.sleep(_AGAIN_S)
                    continue
                if answer.error is None:
                    return answer
                if answer.error.err_code == _STREAM_NOT_FOUND:
                    raise NoStream(stream)
                await asyncio.sleep(_AGAIN_S)
    except TimeoutError as error:
        raise BusUnavailable(f"look at the stream {stream}", patience_s) from error
