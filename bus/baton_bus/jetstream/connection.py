"""Opening and closing the connection to NATS, with errors that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import structlog
from nats.errors import AuthorizationError, NoServersError, UnexpectedEOF
from nats.errors import Error as NatsError

from baton_bus.errors import JetStreamOff, LoginRefused, NoServer, ServerTooOld, TlsFailed
from baton_bus.jetstream.api import DEFAULT_PREFIX, Api
from baton_bus.jetstream.client import PlainServer
from baton_bus.jetstream.leases import LeaseKeeper
from baton_bus.jetstream.login import login_options
from baton_bus.jetstream.nats_client import NatsClient, end
from baton_bus.settings import Settings

NEEDED = (2, 12)
"""Message schedules, which deadlines use, came with nats-server 2.12 (ADR-51)."""
_PENDING_BYTES = 64 * 1024 * 1024
"""What may wait for a connection that is being mended: the decisive records of every step in hand."""
_GONE = (OSError, NoServersError, TimeoutError, UnexpectedEOF)
"""What nats-py tells again and again while there is no server: `bus.lost` has said it."""

logger = structlog.get_logger("baton.bus")


@contextlib.asynccontextmanager
async def opened(
    settings: Settings,
    *,
    name: str,
    on_lost: Callable[[], None],
    on_back: Callable[[], None],
) -> AsyncIterator[NatsClient]:
    """Connect, check the server, and drain at the end.

    Raises `NoServer` (`LoginRefused`, `TlsFailed`), `ServerTooOld`, `JetStreamOff`, `BadSetting`. A
    connection that is lost later is mended for as long as it takes; `on_lost` and `on_back` say when.
    """
    login = login_options(settings)
    nc = NatsClient(shown_url=settings.shown_url, needs_tls=settings.needs_tls, api=Api(settings.api_prefix))
    failures: list[BaseException] = []
    failed = asyncio.Event()
    said: set[str] = set()
    phase: Literal["opening", "open", "closing"] = "opening"

    async def on_error(error: Exception) -> None:
        if phase == "opening":
            failures.append(error)
            if len(failures) >= len(settings.servers):
                failed.set()
            return
        text = str(error).removeprefix("nats: ") or type(error).__name__
        denied = nc.heard(error) is not None
        if text in said:  # what is tried again and again is told once
            return
        if denied:
            logger.error("bus.not_allowed", error=text)
        elif isinstance(error, ssl.SSLError) or not isinstance(error, _GONE) or nc.is_connected:
            logger.warning("bus.error", error=text)
        else:
            return
        said.add(text)

    async def on_disconnected() -> None:
        if phase == "open":
            logger.warning("bus.lost", url=settings.shown_url)
            on_lost()

    async def on_reconnected() -> None:
        said.clear()
        logger.warning("bus.back", url=settings.shown_url)
        on_back()

    async def on_closed() -> None:
        if phase == "open":  # the server ended it for good: it no longer knows our login
            logger.error("bus.closed", url=settings.shown_url, error=str(nc.last_error or ""))

    options: dict[str, Any] = {
        "servers": settings.servers,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.2,
        "connect_timeout": 2,
        "ping_interval": 20,
        "pending_size": _PENDING_BYTES,
        **login,
    }

    async def connect_beside() -> NatsClient:
        beside = NatsClient(shown_url=settings.shown_url, needs_tls=settings.needs_tls)
        try:
            await beside.connect(**options, name=f"{name}, leases", error_cb=_say_nothing)
        except BaseException:  # cut off while it connects, its socket would stay open
            with contextlib.suppress(Exception):
                await beside.close()
            raise
        return beside

    connecting = asyncio.create_task(
        nc.connect(
            **options,
            name=name,
            error_cb=on_error,
            disconnected_cb=on_disconnected,
            reconnected_cb=on_reconnected,
            closed_cb=on_closed,
        )
    )
    failing = asyncio.create_task(failed.wait())
    try:
        done, _ = await asyncio.wait(
            {connecting, failing}, timeout=settings.connect_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
    except asyncio.CancelledError:
        await _give_up(nc, connecting)
        raise
    finally:
        failing.cancel()
    if connecting not in done or connecting.exception() is not None:
        await _give_up(nc, connecting)
        raise _refused(settings.shown_url, connecting, failures)
    phase = "open"
    nc.leases = LeaseKeeper(connect_beside)
    try:
        _check(nc, settings)
        yield nc
    finally:
        phase = "closing"
        # The first error is the one to tell: none of these hides it.
        with contextlib.suppress(Exception):
            await nc.leases.close()
        with contextlib.suppress(Exception):
            if nc.is_connected:
                await nc.flush(timeout=2)
        with contextlib.suppress(Exception):
            await nc.close()


async def _give_up(nc: NatsClient, connecting: asyncio.Task[None]) -> None:
    """End a connection that is being made."""
    await end(connecting)
    with contextlib.suppress(Exception):
        await nc.close()


async def _say_nothing(_: Exception) -> None:
    """The connection beside is lost when the other is, and that one says it."""


def _check(nc: NatsClient, settings: Settings) -> None:
    version = nc.connected_server_version
    if (version.major, version.minor) < NEEDED:
        raise ServerTooOld(f"{version.major}.{version.minor}.{version.patch}")
    info = nc._server_info
    if not info.get("jetstream") and settings.api_prefix == DEFAULT_PREFIX:  # else another server has it
        raise JetStreamOff(settings.shown_url)


def _refused(url: str, connecting: asyncio.Task[None], failures: list[BaseException]) -> NoServer:
    """Return the error that says best why there is no connection: a server that spoke to us knows more than silence."""
    # A server that refuses us says why, and then resets the connection.
    told = [failure for failure in failures if not isinstance(failure, ConnectionResetError)]
    if connecting.done() and not connecting.cancelled() and (error := connecting.exception()) is not None:
        told.append(error)
    last = (told or failures)[-1] if failures or told else None
    for error in told:
        if _is_login(error):
            return LoginRefused(url, _reason(error))
    for error in told:
        if isinstance(error, ssl.SSLError | PlainServer):
            return TlsFailed(url, _reason(error))
    return NoServer(url, _reason(last))


def _is_login(error: BaseException) -> bool:
    # nats-py has a class for a login that is refused later, and gives the server's words for one refused at once.
    return isinstance(error, AuthorizationError) or (
        isinstance(error, NatsError) and "authorization violation" in str(error).lower()
    )


def _reason(error: BaseException | None) -> str:
    match error:
        case None:
            return "it does not answer"
        case ConnectionRefusedError():
            return "the connection was refused"
        case ssl.SSLError():
            return f"TLS failed ({error})"
        case _:
            return str(error).removeprefix("nats: ").strip("'\"") or type(error).__name__
