"""Serves a console: a socket, its address with the token, and the web server, until it is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import uvicorn
from msgspec import Struct
from starlette.types import ASGIApp

from .guard import TOKEN, Guard, Secrets

LOCAL = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine for itself."""
_ANY = ("0.0.0.0", "::")
"""Addresses that stand for all of this machine's: nobody asks under such a name but who is up to something."""
_LOOK_S = 0.005


class Address(Struct, frozen=True, kw_only=True):
    """Where a console is."""

    url: str
    token: str

    @property
    def with_token(self) -> str:
        """The address that lets a browser in."""
        return self.way_in("")

    def way_in(self, path: str) -> str:
        """Return the address of a page that lets a browser in; `path` has no slash before it."""
        return f"{self.url}{path}?{TOKEN}={self.token}"


class _Server(uvicorn.Server):
    """Leaves signals to the command, which stops it."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def] # as uvicorn has it
        yield


@asynccontextmanager
async def serving(
    app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0, token: str = "", names: Sequence[str] = ()
) -> AsyncIterator[Address]:
    """Serve an application behind the guard while the context is open.

    `names` are further ones under which it is asked: `host:port`, or `host` for our port and for the usual one, where
    something that speaks TLS stands before it. Raises `OSError` when the port is taken.
    """
    listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    with listening:
        port = listening.getsockname()[1]
        shown = socket.gethostname() if host in _ANY else f"[{host}]" if ":" in host else host
        known = [*LOCAL, shown, *(name for name in names if ":" not in name)]
        secrets = Secrets.new(token)
        guarded = Guard(app, secrets, [f"{name}:{port}" for name in known], names)
        config = uvicorn.Config(
            guarded,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=1,
            # Strict with what is no HTTP, and bounded, whatever else is installed here.
            http="h11",
            ws="none",
            proxy_headers=False,  # nobody stands between, whoever says so
            h11_max_incomplete_event_size=64 * 1024,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listening]), name="serve the console")
        try:
            while not server.started and not task.done():  # noqa: ASYNC110 (uvicorn sets no event)
                await asyncio.sleep(_LOOK_S)
            if task.done():
                task.result()
            yield Address(url=f"http://{shown}:{port}/", token=secrets.token)
        finally:
            server.should_exit = True
            await asyncio.gather(task, return_exceptions=True)
