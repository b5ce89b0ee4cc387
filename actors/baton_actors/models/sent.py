"""A call that a handler's client makes: whether and under what hash it is recorded, by whom, and what may answer it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from baton_actors.models.body import bound_of
from baton_actors.models.errors import ModelError
from baton_actors.models.providers import Where
from baton_actors.models.types import Bound
from baton_schemas.wire.facts import Exchange

T = TypeVar("T")

RECORDED = "/v1/messages"
"""The end of the path of what is recorded, with POST."""


class Stopped(BaseException):
    """Ends a handler at its next word with the client: nothing that it does from here on counts."""


class Overtaken(Exception):
    """Another worker has recorded another answer, and parts of ours were passed on: the handler is to begin again."""


class Upstream(Struct, frozen=True):
    """What a server answers, as it comes."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]


class Sent(Struct, frozen=True, kw_only=True):
    """A call that a client makes."""

    path: str
    """From `/v1/` on, with the query."""
    body: bytes
    send: Callable[[Where], Awaitable[Upstream]]
    """Makes it, where its model is; called again when the provider asks to wait."""
    on_recalled: Callable[[], None] = lambda: None
    """Called when it is answered without being made."""


class Clock(Protocol):
    """The time of an attempt."""

    def stopped(self) -> AbstractContextManager[None]:
        """Let no time pass while the context is open."""

    def going(self) -> AbstractContextManager[None]:
        """Let it pass while the context is open, within one that stops it."""


class NoClock:
    """That of an attempt without a bound."""

    def stopped(self) -> AbstractContextManager[None]:
        """Change nothing."""
        return nullcontext()

    going = stopped


class ExchangeLog(Protocol):
    """Where exchanges are recorded. What these raise is no failure of the handler's."""

    async def recalled(self, digest: str, number: int) -> Exchange | None:
        """Return what is recorded, with its body inline."""

    async def recorded(self, exchange: Exchange) -> Exchange:
        """Record an exchange; return the one that is stored, ours or another worker's, with its body inline."""

    async def in_turn(self, call: Callable[[], Awaitable[T]], bound: Bound) -> T:
        """Make a call that takes so much at the most when its model may be asked; again when it raises an overloaded
        `ModelError`. What it returns says what it took: a `Usage`, or a `ModelAnswer`.
        """

    def spent(self, error: ModelError) -> None:
        """Take what a call that gave no answer was paid all the same."""


def is_recorded(method: str, path: str) -> bool:
    """Say whether answers to such requests are recorded."""
    return method == "POST" and path.endswith(RECORDED)


class Question(Struct, frozen=True):
    """What a call asks."""

    digest: str
    """By which a recorded exchange is found again: the SHA-256, in hex, of what is asked and of whom.

    In it: path, query and body, whatever the order of its keys, and whether it is rehearsed. Not in it: headers, the
    credentials, and the base URL: a run that moves to another gateway must not pay twice.
    """
    streams: bool
    """Whether a stream is asked for."""
    where: Where
    bound: Bound

    @property
    def rehearses(self) -> bool:
        """Whether it is answered by the rehearsal model."""
        return self.where.settings.rehearses


def question_of(sent: Sent, where_is: Callable[[str], Where]) -> Question:
    """Return what a call asks; takes as long as its body is large. `where_is` finds the model that it names."""
    asked = object_of(sent.body)
    where = where_is(model_named(asked))
    rehearses = where.settings.rehearses
    body = json.dumps(asked, sort_keys=True, separators=(",", ":")).encode() if asked else sent.body
    whole = b"\n".join((b"POST", sent.path.encode(), b"rehearsed" if rehearses else b"", body))
    bound = replace(bound_of(asked, len(sent.body)), holds=True)
    return Question(hashlib.sha256(whole).hexdigest(), asked.get("stream") is True, where, bound)


def model_named(asked: Mapping[str, Any]) -> str:
    """Return the model that the body of a request names; empty when it names none."""
    model = asked.get("model")
    return model if isinstance(model, str) else ""


def with_model(body: bytes, model: str) -> bytes:
    """Return the body of a request with another model in its place."""
    return json.dumps({**object_of(body), "model": model}, ensure_ascii=False, separators=(",", ":")).encode()


def object_of(body: bytes) -> dict[str, Any]:
    """Return a JSON object; empty for what is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
