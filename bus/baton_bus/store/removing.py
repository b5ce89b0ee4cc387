"""Removing messages from a stream: all that match a pattern, or one by its sequence. Doing it twice changes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec import Struct

from baton_bus.errors import BusUnavailable, NoStream
from baton_bus.jetstream.requests import NoAnswer, Requests

_STREAM_NOT_FOUND = 10059
_NO_MESSAGE = frozenset({10043, 10057})
"""`sequence not found`, and `stream store EOF`, which it says of one that is gone."""
_AGAIN_S = 0.2
"""How soon it is asked again when nobody could do it: mostly the cluster elects a leader."""


class Removed(Struct, frozen=True):
    """What was removed. `lost` says that an answer was lost on the way: then more may have been."""

    messages: int = 0
    lost: bool = False


class _ApiError(Struct, frozen=True):
    err_code: int = 0


class _Answer(Struct):
    success: bool = False
    purged: int = 0
    error: _ApiError = _ApiError()


async def purge(requests: Requests, stream: str, pattern: str, patience_s: float, *, below_seq: int = 0) -> Removed:
    """Remove every message on the subjects that match; with `below_seq` only those before that sequence.

    Raises `NotAllowed`, `NotImported`, `NoStream`, `BusUnavailable`.
    """
    query: dict[str, Any] = {"filter": pattern}
    if below_seq:
        query["seq"] = below_seq
    answer, lost = await _asked(requests, stream, requests.api.purge(stream), query, patience_s)
    return Removed(answer.purged, lost)


async def delete(requests: Requests, stream: str, seq: int, patience_s: float) -> Removed:
    """Remove the message with a sequence. Raises as `purge`."""
    query = {"seq": seq, "no_erase": True}
    answer, lost = await _asked(requests, stream, requests.api.delete(stream), query, patience_s)
    return Removed(int(answer.success), lost)


async def _asked(
    requests: Requests, stream: str, subject: str, query: dict[str, Any], patience_s: float
) -> tuple[_Answer, bool]:
    """Ask until it is answered; and say whether an answer was lost."""
    body, lost = msgspec.json.encode(query), False
    try:
        async with asyncio.timeout(patience_s):
            while True:
                try:
                    msg = await requests.ask(subject, body)
                    if not msg.data:
                        await requests.check_imported(subject, stream)
                    answer = msgspec.json.decode(msg.data, type=_Answer)
                except (NoAnswer, msgspec.DecodeError):
                    lost = True
                else:
                    if answer.success or answer.error.err_code in _NO_MESSAGE:
                        return answer, lost
                    if answer.error.err_code == _STREAM_NOT_FOUND:
                        raise NoStream(stream)
                await asyncio.sleep(_AGAIN_S)
    except TimeoutError as error:
        raise BusUnavailable(f"remove messages of {stream}", patience_s) from error
