"""Consoles for tests: a real one on a free port, over a real server, asked over HTTP as a browser asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
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

    async def open(self, name: str, data: bytes) -> httpx2.Response:
        """Open a file as the form of the page of files does."""
        return await self.post("/files", files={"file": (name, data)})

    async def post(self, path: str, fields: dict[str, str] | None = None, **given: Any) -> httpx2.Response:
        """Send a form as our own pages do."""
        form = {"csrf": Secrets(token=self.address.token).csrf, **(fields or {})}
        headers = {"origin": self.address.url.rstrip("/"), "sec-fetch-site": "same-origin"}
        return await self.http.post(path, data=form, headers=headers, **given)


@asynccontextmanager
async def served_alone(**options: Any) -> AsyncIterator[Served]:
    """Serve a console without a server, for files alone, while the context is open."""
    async with (
        Console(None, Options(**options)).opened() as console,
        serving(make_app(console)) as address,
        httpx2.AsyncClient(base_url=address.url) as http,
    ):
        entered = await http.get("/files", params={"token": address.token})
        assert entered.status_code == 303
        yield Served(console=console, address=address, http=http)


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


HOSTILE = (
    '</pre></main></script><script>alert(1)</script><img src=x onerror="alert(2)">'
    '<b hx-get="/x" hx-trigger="load">x</b>'
    '<a href="javascript:alert(3)">y</a><svg/onload=alert(4)>\x1b[31mred\u202eevil\x00nul"\'{{ 7*7 }}\r\n\ndata: forged'
)
"""A text that is made to break out of wherever it stands."""


class _Looked(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.bad: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("img", "iframe", "object", "embed", "style", "base"):
            self.bad.append(f"<{tag}>")
        if tag == "script" and not (given.get("src") or "").startswith("/static/"):
            self.bad.append("a script of another")
        for name, value in attrs:
            if name.startswith("on") or name == "style" or (name.startswith("hx-") and not _is_our_hx(tag, name)):
                self.bad.append(f"<{tag} {name}>")
            if name in ("href", "src", "action", "data-href") and not _leads_well(given, value or ""):
                self.bad.append(f"<{tag} {name}={value!r}>")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _is_our_hx(tag: str, name: str) -> bool:
    return tag == "body" or name == "hx-morph-skip"


def _leads_well(attrs: dict[str, str | None], url: str) -> bool:
    if url.startswith(("/", "#")) and not url.startswith("//"):
        return True
    return url.startswith(("http://", "https://")) and attrs.get("rel") == "noreferrer noopener"


def text_of_page(html: str) -> str:
    """Return the text of a page. Asserts that nothing in it runs, loads or leads anywhere that is not ours."""
    looked = _Looked()
    looked.feed(html)
    assert not looked.bad, looked.bad[:5]
    hidden = [char for char in html if (ord(char) < 0x20 and char not in "\n\t\r") or "\u202a" <= char <= "\u202e"]
    assert not hidden, hidden[:5]
    return " ".join(looked.text)
