"""`baton console`: a local page on which people see runs as they happen, find causes, and act."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from baton_actors.cli.command import command
from baton_actors.cli.exits import OK, BadArgument
from baton_actors.cli.place import Place

if TYPE_CHECKING:
    from baton_actors.console.files import OpenFile

_TOKEN_CHARS = 32
_NAME = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


@command(until_stopped=True)
async def console(
    place: Place,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Exported runs, to look at with no server.", show_default=False),
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Where it listens; 0 for a free one.", min=0, max=65535)] = 0,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="The address it listens at; others need --token-file.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="Where the token stands, instead of a new one.", show_default=False
        ),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="HOST[:PORT]",
            help="A further name under which it is asked, such as that of a proxy with TLS before it. Repeat it.",
            show_default=False,
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser.")] = True,
    read_only: Annotated[bool, typer.Option("--read-only", help="Nothing can be changed there.")] = False,
    no_text: Annotated[bool, typer.Option("--no-text", help="Keep no words of inputs, outputs and errors.")] = False,
    tied: Annotated[bool, typer.Option("--tied", hidden=True)] = False,
) -> int:
    """Open the console: runs as they happen, in a browser.

    It listens on this machine only, and lets in whoever has the address that it prints. It starts the embedded server
    if none is named and none runs. With files that `baton export` made it shows these, and uses no server.
    """
    from baton_actors.console.app import make_app
    from baton_actors.console.core import Console, Options
    from baton_actors.console.serving import serving

    for name in names or ():
        _check_name(name)
    # `baton up` says the token in the first line of our input, and ends us with it.
    token = sys.stdin.readline().strip() if tied else _token(host, token_file)
    async with contextlib.AsyncExitStack() as stack:
        shown, at = Console(None, Options(read_only=True)), "files"
        if files:
            names = [shown.files.add(_opened(file)).name for file in files]
            at = f"files/{names[0]}" if len(files) == 1 else at
        else:
            client = await stack.enter_async_context(place.client())
            options = Options(
                index=place.index_file(client.bus.settings),
                words=not no_text,
                read_only=read_only,
                where=f"--nats {client.bus.settings.shown_url}" if place.named else "",
                data_dir=None if place.named else place.data_dir,
            )
            shown, at = Console(client, options), ""
        here = await stack.enter_async_context(shown.opened())
        try:
            async with serving(make_app(here), host=host, port=port, token=token, names=names or ()) as address:
                way_in = address.way_in(at)
                print(f"Baton's console is at {way_in}", flush=True)
                if tied:
                    await _until_input_ends()
                    return OK
                print("Ctrl-C ends it.", file=sys.stderr, flush=True)
                if open_:
                    await asyncio.to_thread(webbrowser.open, way_in)
                await asyncio.Event().wait()
        except OSError as error:
            raise BadArgument(f"cannot listen at {host} port {port}: {error.strerror}. Use another --port") from error
    return OK


async def _until_input_ends() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def _check_name(name: str) -> None:
    """Raises `BadArgument` for what cannot stand in an address."""
    if not _NAME.fullmatch(name):
        raise BadArgument(f"--name {name!r}: expected HOST or HOST:PORT, such as console.example.org")


def _opened(file: Path) -> OpenFile:
    """Return an exported run. Raises `BadArgument`, and `BadMessage` for what is none."""
    from baton_actors.console.files import opened

    try:
        return opened(file.name, file.read_bytes())
    except OSError as error:
        raise BadArgument(f"{file} cannot be read: {error.strerror}") from error


def _token(host: str, file: Path | None) -> str:
    """Return the token that is given. Raises `BadArgument`."""
    if file is not None:
        try:
            token = file.read_text().strip()
        except (OSError, ValueError) as error:
            raise BadArgument(f"--token-file {file} cannot be read: {error}") from error
        if len(token) < _TOKEN_CHARS or not token.isascii() or not token.isprintable():
            raise BadArgument(
                f"--token-file {file}: expected {_TOKEN_CHARS} or more characters. `openssl rand -hex 24` makes one"
            )
        return token
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise BadArgument(
            f"--host {host} is open to others: give the token by --token-file, so that you can pass it on"
        )
    return ""
