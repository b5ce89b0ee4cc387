"""Opening and closing the connection to NATS, with errors that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Literal

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoServersError, UnexpectedEOF

from baton_bus.errors import JetStreamOff, NoServer, ServerTooOld
from baton_bus.settings import Settings

NEEDED = (2, 12)
"""Message schedules, which deadlines use, came with nats-server 2.12 (ADR-51)."""
_PENDING_BYTES = 64 * 1024 * 1024
"""What may wait for a connection that is being mended: the decisive records of every step in hand."""

logger = structlog.get_logger("baton.bus")


@contextlib.asynccontextmanager
async def opened(
    settings: Settings,
    *,
    name: str,
    on_lost: Callable[[], None],
    on_back: Callable[[], None],
) -> AsyncIterator[Client]:
    """Connect, check the server, and drain at the end.

    Raises `NoServer`, `ServerTooOld`, `JetStreamOff`. A connection that is lost later is mended for as
    long as it takes; `on_lost` and `on_back` say when.
    """
    nc = Client()
    failures: list[BaseException] = []
    failed = asyncio.Event()
    phase: Literal["opening", "open", "closing"] = "opening"

    async def on_error(error: Exception) -> None:
        if phase == "opening":
            failures.append(error)
            if len(failures) >= len(settings.servers):
                failed.set()
        elif not isinstance(error, OSError | NoServersError | TimeoutError | UnexpectedEOF) or nc.is_connected:
            logger.warning("bus.error", error=str(error) or type(error).__name__)

    async def on_disconnected() -> None:
        if phase == "open":
            logger.warning("bus.lost", url=settings.url)
            on_lost()

    async def on_reconnected() -> None:
        logger.warning("bus.back", url=settings.url)
        on_back()

    connecting = asyncio.create_task(
        nc.connect(
            servers=settings.servers,
            name=name,
            error_cb=on_error,
            disconnected_cb=on_disconnected,
            reconnected_cb=on_reconnected,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,  # type: ignore[arg-type] # only slept on
            connect_timeout=2,
            ping_interval=20,
            pending_size=_PENDING_BYTES,
            user_credentials=settings.creds or None,
        )
    )
    failing = asyncio.create_task(failed.wait())
    done, _ = await asyncio.wait(
        {connecting, failing}, timeout=settings.connect_timeout_s, return_when=asyncio.FIRST_COMPLETED
    )
    failing.cancel()
    if connecting not in done or connecting.exception() is not None:
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        with contextlib.suppress(Exception):
            await nc.close()
        raise NoServer(settings.url, _reason(connecting, failures))
    phase = "open"
    try:
        _check(nc, settings)
        yield nc
    finally:
        phase = "closing"
        with contextlib.suppress(NatsError, OSError):
            if nc.is_connected:
                await nc.flush(timeout=2)
        await nc.close()


def _check(nc: Client, settings: Settings) -> None:
    version = nc.connected_server_version
    if (version.major, version.minor) < NEEDED:
        raise ServerTooOld(f"{version.major}.{version.minor}.{version.patch}")
    info = nc._server_info
    if not info.get("jetstream"):
        raise JetStreamOff(settings.url)


def _reason(connecting: asyncio.Task[None], failures: list[BaseException]) -> str:
    # A server that refuses us says why, and then resets the connection.
    told = [failure for failure in failures if not isinstance(failure, ConnectionResetError)]
    error: BaseException | None = (told or failures)[-1] if failures else None
    if error is None and connecting.done() and not connecting.cancelled():
        error = connecting.exception()
    match error:
        case None:
            return "it does not answer"
        case ConnectionRefusedError():
            return "the connection was refused"
        case ssl.SSLError():
            return f"TLS failed ({error})"
        case _:
            return str(error).removeprefix("nats: ").strip("'\"") or type(error).__name__
