"""The client of nats-py, with what it leaves out: TLS that is asked for is had, and refused permissions are kept."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from nats.aio.client import Client, Srv
from nats.errors import Error as NatsError

_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"')
"""How the server tells it: asynchronously, and without saying which request it is about."""
_KEPT = 100


class PlainServer(NatsError):
    """The server has no TLS, and the URL or the settings ask for it."""

    def __str__(self) -> str:
        return "it has no TLS, which was asked for, so nothing was sent to it"


class Denied(NamedTuple):
    """A permission that this user lacks. The subject is in lower case: nats-py tells it so."""

    kind: str
    subject: str
    at: float
    """By `time.monotonic`."""
    url: str
    """Of the server, as it may be shown."""

    @property
    def action(self) -> str:
        """What may not be done, before the subject."""
        return "publish to" if self.kind == "publish" else "subscribe to"


class BatonClient(Client):
    """A connection that never sends a login in the clear when TLS was asked for."""

    def __init__(self, *, shown_url: str, needs_tls: bool) -> None:
        """`shown_url` is for errors; with `needs_tls` also servers at `nats://` URLs must have TLS."""
        super().__init__()
        self.shown_url = shown_url
        self._needs_tls = needs_tls
        self.denials: deque[Denied] = deque(maxlen=_KEPT)
        """What the server did not let us do, the latest last."""
        self.on_denied: list[Callable[[Denied], None]] = []
        """Called at once with each: a request on such a subject will get no answer."""

    def heard(self, error: Exception) -> Denied | None:
        """Keep an error that is a refused permission, and tell who listens; None for any other."""
        found = _DENIED.search(str(error).lower())
        if found is None:
            return None
        denied = Denied(found[1], found[2], time.monotonic(), self.shown_url)
        self.denials.append(denied)
        for tell in list(self.on_denied):
            tell(denied)
        return denied

    async def _process_info(self, info: dict[str, object], initial_connection: bool = False) -> None:
        # nats-py encrypts only when the server insists; one that offers TLS is taken at its word when we ask for it.
        if initial_connection and self._asks_for_tls() and info.get("tls_available"):
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _connect_to_server(self, s: Srv) -> None:
        if self._transport:  # nats-py leaves the connection open on which a login was refused
            self._transport.close()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    def _connect_command(self) -> bytes:
        # The last moment before the login is sent; nats-py has by now encrypted the connection, or not.
        if self._asks_for_tls() and not self._is_encrypted():
            raise PlainServer
        return super()._connect_command()

    def _asks_for_tls(self) -> bool:
        return self._needs_tls or (self._current_server is not None and self._current_server.uri.scheme == "tls")

    def _is_encrypted(self) -> bool:
        writer = getattr(self._transport, "_io_writer", None)
        return writer is not None and writer.get_extra_info("ssl_object") is not None


def denials_of(nc: Client) -> list[Denied]:
    """Return what the server did not let this connection do."""
    return list(nc.denials) if isinstance(nc, BatonClient) else []
