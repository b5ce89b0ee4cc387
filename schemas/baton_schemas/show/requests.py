"""What a step asked models, as its log has it: the hash of each request, and what was answered. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from baton_schemas.run.state import Entry
from baton_schemas.wire.facts import Exchange, ModelCall
from baton_schemas.wire.messages import Note
from baton_schemas.wire.outcomes import NULL, Value


class Request(Struct, frozen=True):
    """One request, and its answer."""

    sha256: str
    answer: Value


class Requests(Struct, frozen=True):
    """Those of one step, in the order in which their answers were recorded."""

    calls: tuple[Request, ...] = ()
    rehearsed: bool = False
    """The rehearsal model answered one of them."""


def requests_of(entries: Iterable[Entry]) -> Requests:
    """Return what the entries on a step tell of its requests."""
    facts = [entry.message.fact for entry in entries if isinstance(entry.message, Note)]
    calls = [fact for fact in facts if isinstance(fact, ModelCall | Exchange)]
    return Requests(
        calls=tuple(Request(call.request_sha256, _answer(call)) for call in calls),
        rehearsed=any(call.rehearsed for call in calls),
    )


def _answer(call: ModelCall | Exchange) -> Value:
    """Return what was answered; of a handler's own client nothing, as its answers have ids of their own in them."""
    if isinstance(call, Exchange):
        return NULL
    return call.blob or call.text
