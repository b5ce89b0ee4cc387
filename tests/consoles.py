"""Consoles for tests: a real one on a free port, over a real server, asked over HTTP as a browser asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from msgspec import Struct

from baton_actors.console.app import make_app
from baton_actors.console.core import Console, Options
from baton_actors.console.guard import Secrets
from baton_actors.console.serving import Address, serving
from baton_bus import Settings, connect


class Served(Struct, frozen=True, kw_only=True):
    """A console that is served."""

    console: Console
    address: Address
    http: httpx2.AsyncClient
    """Has its cookie."""

    async def get(self, path: str, **given: Any) -> httpx2.Response:
        return await self.http.get(path, **given)

    async def post(self, path: str, fields: dict[str, str] | None = None, **given: Any) -> httpx2.Response:
        """Send a form as our own pages do."""
        form = {"csrf": Secrets(token=self.address.token).csrf, **(fields or {})}
        headers = {"origin": self.address.url.rstrip("/"), "sec-fetch-site": "same-origin"}
        return await self.http.post(path, data=form, headers=headers, **given)


@asynccontextmanager
async def served(settings: Settings, index: Path, **options: Any) -> AsyncIterator[Served]:
    """Serve a console of this bus while the context is open; `options` are those of `Options`."""
    async with (
        connect(settings, name="console of a test") as client,
        Console(client, Options(index=index, **options)).opened() as console,
        serving(make_app(console)) as address,
        httpx2.AsyncClient(base_url=address.url) as http,
    ):
        entered = await http.get("/", params={"token": address.token})
        assert entered.status_code == 303
        yield Served(console=console, address=address, http=http)
