"""Asking the JetStream API about a stream: until there is an answer, and each refusal told as what it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.errors import ConnectionClosedError
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from baton_bus.errors import (
    AccountFull,
    BusError,
    BusUnavailable,
    JetStreamOff,
    NoLeader,
    NoStream,
    NotAllowed,
    NotImported,
    StreamMismatch,
    StreamRefused,
    TooFewServers,
)
from baton_bus.jetstream.client import Denied, denials_of
from baton_bus.jetstream.nats_client import api_of
from baton_bus.settings import Settings

_NO_PEERS = frozenset({10005, 10074})
"""`no suitable peers for placement`, and `replicas > 1 not supported in non-clustered mode`."""
_OFFLINE, _OFFLINE_S = "peer offline", 10.0
"""What it says besides when a server that belongs to the cluster is away, and how long it may be: one that restarts."""
_ELECTS = 10008
"""`JetStream system temporarily unavailable`: there is no leader now, and there may be one soon."""
BEING_REMOVED = 10012
"""`could not create consumer`: one of the same name is being removed from the disk at this moment."""
_MADE_BY_ANOTHER = 10058
"""`stream name already in use with a different configuration`: another client was first; soon it can be looked at."""
_PASSING = frozenset({_ELECTS, BEING_REMOVED, _MADE_BY_ANOTHER})
_FULL = {
    10002: "the account's limits are reached",
    10023: "the server's resources are used up",
    10026: "the limit of consumers is reached",
    10027: "the account's limit of streams is reached",
    10028: "there is not enough memory",
    10047: "there is not enough storage",
    10113: "the account takes only streams with a limit (set BATON_MAX_BYTES)",
    10120: "the account has no limits for so many copies",
    10122: "the account's limit for one stream is lower than BATON_MAX_BYTES",
}
"""Of what there is no more: the limits of accounts and servers."""
_ACCOUNT_WITHOUT, _SERVER_WITHOUT = 10039, 10076
"""`JetStream not enabled for account`, and `JetStream not enabled`."""
_NOT_FOUND = 10059
"""`stream not found`."""
_OVERLAP = 10065
"""`subjects overlap with an existing stream`."""
_NOBODY_S = 2.0
"""How long nobody may listen to the JetStream API before that means that it is off: a server that has just started, or
the other servers of a cluster after a partition, take a moment."""
SILENCE_S = 1.0
_ASK_AGAIN_S = 0.2
"""How long a question waits for its answer, and from then to the next time: all of them may be asked twice."""

_Answer = TypeVar("_Answer")


async def answered(
    js: JetStreamContext, settings: Settings, stream: str, ask: Callable[[], Awaitable[_Answer]], subject: str = ""
) -> _Answer:
    """Ask about a stream until the server answers: while a cluster elects a leader it is silent, or says so.

    `subject` is where is asked, of what an account may lack. Raises `NoStream`, `TooFewServers`, `AccountFull`,
    `NotAllowed`, `NotImported`, `JetStreamOff`, `StreamMismatch`, `StreamRefused`, `NoLeader` when there is none for
    `patience_s`, and `BusUnavailable` when the connection is closed.
    """
    started, unheard = time.monotonic(), False
    while True:
        waited_s = time.monotonic() - started
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(SILENCE_S):
                return await ask()
        except TimeoutError as error:
            if denied := _denied(js, stream, asked_at):
                raise NotAllowed(denied.action, denied.subject, denied.url) from error
            silence: Exception = error
        except APIError as error:
            if subject and _is_nobody(error) and await _answers_others(js, settings):
                if unheard:
                    raise NotImported(subject, settings.shown_url) from error
                unheard = True  # it may have been about to listen
            if (refused := _refusal(error, settings, stream, waited_s)) is not None:
                raise refused from error
            silence = error
        except ConnectionClosedError as error:
            raise BusUnavailable(f"ask about the stream {stream!r}", waited_s) from error
        except NatsError as error:  # the connection is being mended
            silence = error
        if waited_s > settings.patience_s:
            raise NoLeader(settings.shown_url, stream, waited_s) from silence
        await asyncio.sleep(_ASK_AGAIN_S)


def _is_nobody(error: APIError) -> bool:
    return error.err_code is None and isinstance(error, ServiceUnavailableError)


async def _answers_others(js: JetStreamContext, settings: Settings) -> bool:
    """Say whether the JetStream API answers at least a look at the log."""
    try:
        async with asyncio.timeout(SILENCE_S):
            await js.stream_info(settings.namespace)
    except NotFoundError:
        return True
    except (NatsError, TimeoutError):
        return False
    return True


def _refusal(error: APIError, settings: Settings, stream: str, waited_s: float) -> BusError | None:
    """Return what an answer of the JetStream API means; None when it may be another one soon."""
    code, description = error.err_code, str(error.description)
    if _is_nobody(error):
        return JetStreamOff(settings.shown_url) if waited_s > min(_NOBODY_S, settings.patience_s) else None
    if code in _PASSING:
        return None
    if code in _NO_PEERS:
        if _OFFLINE in description and waited_s < min(_OFFLINE_S, settings.patience_s):
            return None
        return TooFewServers(stream, settings.replicas, _wanted(settings), description)
    if code in _FULL:
        return AccountFull(stream, _FULL[code], description)
    if code in (_ACCOUNT_WITHOUT, _SERVER_WITHOUT):
        return JetStreamOff(settings.shown_url, account_only=code == _ACCOUNT_WITHOUT)
    if code == _NOT_FOUND:
        return NoStream(stream)
    if code == _OVERLAP:
        return StreamMismatch(stream, "subjects", "those of another stream", "subjects of its own")
    return StreamRefused(stream, code, description)


def _denied(js: JetStreamContext, stream: str, asked_at: float) -> Denied | None:
    """Return the refused permission for whose sake a question got no answer, if there is one.

    The server says it beside the request. An inbox is refused once, whenever it was first subscribed to.
    """
    denials, api = denials_of(js._nc), api_of(js).prefix.lower() + "."
    inbox = [denied for denied in denials if denied.kind == "subscription" and denied.subject.startswith("_inbox.")]
    asked = [denied for denied in denials if denied.at >= asked_at and denied.subject.startswith(api)]
    about_us = [denied for denied in asked if stream.lower() in denied.subject.split(".")]
    return next(iter([*about_us, *inbox]), None)


def _wanted(settings: Settings) -> str:
    cluster = f"cluster {settings.placement_cluster}" if settings.placement_cluster else ""
    tags = f"tags {', '.join(settings.tags)}" if settings.tags else ""
    return " and ".join(filter(None, (cluster, tags)))
