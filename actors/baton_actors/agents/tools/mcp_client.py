"""The package `mcp`: the only module that imports it, and `servers` imports this when a server is needed.

The package's own transport for commands starts them in a session of their own, which outlives a worker that is killed.
Ours are born into the worker's group, and end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

import anyio
import httpx2
import mcp_types
import msgspec
from anyio.abc import Process
from mcp import Client, MCPError
from mcp.client.stdio import get_default_environment
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

from baton_actors.agents.tools.mcp_schemas import sendable
from baton_actors.agents.tools.servers import Listed
from baton_actors.agents.tools.targets import Given
from baton_actors.errors import ServerLost
from baton_schemas.errors import BadContent
from baton_schemas.wire.values import clean_text, encode_value, valid_text

_PAGES_MAX = 1_000
"""Of a list of tools: a server that never comes to its end is not waited for."""
_DESCRIPTION_MAX = 10_000
"""Characters, as of a function: some 2,500 tokens of each request."""
_LINE_BYTES_MAX = 64 * 1024 * 1024
"""Of a message: what the model is told of it is a thousandth at most."""
_END_S, _TERM_S = 2.0, 1.0
"""From the end of its input to SIGTERM, and from there to SIGKILL."""
_HTTP_S = 30.0
"""To connect, and to be heard at all: how long a call takes is bounded by `tool_timeout_s`."""
_LOST = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, httpx2.TransportError, OSError)


class Connection:
    """An open connection."""

    def __init__(self, name: str, client: Client, transport: Transport) -> None:
        self._name, self._client, self._transport = name, client, transport

    @property
    def is_open(self) -> bool:
        """Whether the server is there, as far as is known: one that was started may have died since."""
        return not self._transport.ended

    async def tools(self) -> list[Listed]:
        """Return all that the server lists, page by page. Raises `ServerLost`, `MCPError`."""
        found: list[Listed] = []
        cursor: str | None = None
        for _ in range(_PAGES_MAX):
            try:
                page = await self._client.list_tools(cursor=cursor)
            except _LOST as error:
                raise ServerLost(self._name, "the list of its tools") from error
            found += [_listed(tool) for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                break
        return found

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout_s: float) -> Given:
        """Call a tool. Raises `ServerLost`, and `TimeoutError` when it takes longer."""
        if not self.is_open:
            raise ServerLost(self._name, tool, may_be_done=False)
        sending = _Sending()
        _SENDING.set(sending)
        try:
            async with asyncio.timeout(timeout_s):
                result = await self._client.call_tool(tool, dict(arguments))
        except MCPError as error:
            if error.code == mcp_types.CONNECTION_CLOSED or sending.refused:
                raise ServerLost(self._name, tool, may_be_done=not sending.refused) from error
            if error.code == mcp_types.REQUEST_TIMEOUT:
                raise TimeoutError from error
            return Given(text=f"{tool}: its server answered error {error.code}: {error.message}", is_error=True)
        except _LOST as error:
            if isinstance(error, TimeoutError):
                raise
            raise ServerLost(self._name, tool, may_be_done=not sending.refused) from error
        except (ValidationError, RuntimeError) as error:
            said = str(error).partition("\n")[0]
            return Given(text=f"{tool}: its server answered what is no result: {said}", is_error=True)
        return Given(text=_text_of(result), is_error=result.is_error)


@asynccontextmanager
async def connected(name: str, transport: Transport) -> AsyncIterator[Connection]:
    """Have a connection to a server while the context is open."""
    async with Client(transport.streams(), cache=None) as client:
        yield Connection(name, client, transport)


class Transport(Protocol):
    """A way to a server."""

    ended: bool
    """It is certain that nothing comes of it any more."""
    why: str
    """Why nothing comes of it, as far as can be told here; empty otherwise."""

    def streams(self) -> AbstractAsyncContextManager[Any]:
        """Return what opens a stream of messages from the server, and one to it."""


class Http:
    """To a server over streamable HTTP."""

    ended = False
    why = ""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """`headers` are sent with each request."""
        self._url, self._headers = url, dict(headers)

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[Any]:
        """Have the streams while the context is open."""
        timeout = httpx2.Timeout(None, connect=_HTTP_S)
        async with (
            _HttpClient(self, headers=self._headers, timeout=timeout) as client,
            streamable_http_client(self._url, http_client=client) as streams,
        ):
            yield streams


class _Sending:
    """What became of sending a call."""

    refused = False
    """The server has not taken it: it was not there, or does not know our session."""


_SENDING: ContextVar[_Sending | None] = ContextVar("sending", default=None)
"""Of the call at hand: the package sends each message in the context of its caller."""


class _HttpClient(httpx2.AsyncClient):
    """Says of a call whether the server has certainly not taken it, and with which status it refuses."""

    def __init__(self, way: Http, **settings: Any) -> None:
        super().__init__(**settings)
        self._way = way

    async def send(self, request: httpx2.Request, **how: Any) -> httpx2.Response:
        sending = _SENDING.get() if request.method == "POST" else None
        try:
            response = await super().send(request, **how)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            if sending is not None:
                sending.refused = True
            raise
        if request.method == "POST":
            status = response.status_code
            self._way.why = f"it answers with HTTP status {status}" if status >= HTTPStatus.BAD_REQUEST else ""
        if sending is not None and response.status_code == HTTPStatus.NOT_FOUND:
            sending.refused = True
        return response


class Stdio:
    """To a server that is started, and ended, with the context.

    It has the few variables that the package gives any server, and these. What it writes to stderr is the worker's.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self._command, self._environ, self._folder = list(command), dict(environ), folder
        self.ended, self.why, self._ended_itself = False, "", False

    @asynccontextmanager
    async def streams(self) -> AsyncIterator[Any]:
        """Have the streams while the context is open."""
        process = await anyio.open_process(
            self._command,
            env=get_default_environment() | self._environ,
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr if _has_fileno() else None,
        )
        to_us, ours = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        theirs, from_us = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with anyio.create_task_group() as group, to_us, ours, theirs, from_us:
                group.start_soon(self._read, process, to_us)
                group.start_soon(_write, process, from_us, to_us)
                yield ours, theirs
                group.cancel_scope.cancel()
        finally:
            self.ended = True
            with anyio.CancelScope(shield=True):
                await _end(process)
            if self._ended_itself:
                how = f"exit code {process.returncode}" if (process.returncode or 0) >= 0 else "a signal"
                self.why = f"its command ended, with {how}: what it wrote is in the output of the worker"

    async def _read(self, process: Process, to_us: Any) -> None:
        """Hand on what the server says, a line each, until it has ended."""
        assert process.stdout is not None
        lines = _Lines()
        with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            async with to_us:
                try:
                    async for chunk in process.stdout:
                        for line in lines.add(chunk):
                            try:
                                message = mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                            except ValueError:  # a server that prints: what is no message is nobody's
                                continue
                            await to_us.send(SessionMessage(message))
                    self._ended_itself = True
                finally:
                    self.ended = True


class _Lines:
    """Makes lines of chunks. One that is longer than any answer is of use is left out."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the lines that have come to their end, without those of white space."""
        *ended, rest = chunk.split(b"\n")
        for piece in ended:
            self._keep(piece)
            if self._size <= _LINE_BYTES_MAX and (line := b"".join(self._pieces)).strip():
                yield line
            self._pieces, self._size = [], 0
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        self._pieces.append(piece)
        if self._size > _LINE_BYTES_MAX:
            self._pieces = []


async def _write(process: Process, from_us: Any, to_us: Any) -> None:
    """Hand the server what is said to it; when it does not listen any more, the connection is lost."""
    assert process.stdin is not None
    try:
        async for said in from_us:
            data = said.message.model_dump_json(by_alias=True, exclude_unset=True)
            await process.stdin.send(f"{data}\n".encode())
    except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        await to_us.aclose()


async def _end(process: Process) -> None:
    """End a server: it is told by the end of its input, then by SIGTERM, and is killed."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.aclose()
    for wait_s, then in ((_END_S, process.terminate), (_TERM_S, process.kill), (_TERM_S, None)):
        with anyio.move_on_after(wait_s):
            await process.wait()
        if process.returncode is not None or then is None:
            break
        with contextlib.suppress(ProcessLookupError):
            then()
    with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdout.aclose()
    await process.aclose()


def _listed(tool: mcp_types.Tool) -> Listed:
    schema, in_words, keys = sendable(tool.input_schema)
    said = clean_text(tool.description or "", _DESCRIPTION_MAX)
    description = "\n\n".join(part for part in (said, in_words) if part)
    return Listed(name=tool.name, description=description, input_schema=schema, keys=keys)


def _text_of(result: mcp_types.CallToolResult) -> str:
    """Return a result as a model reads it: its texts, and what else there is in words."""
    parts: list[str] = []
    for block in result.content:
        match block:
            case mcp_types.TextContent():
                parts.append(block.text)
            case mcp_types.EmbeddedResource(resource=mcp_types.TextResourceContents() as resource):
                parts.append(resource.text)
            case mcp_types.ImageContent() | mcp_types.AudioContent():
                parts.append(f"[{block.type}, {block.mime_type}: not shown]")
            case mcp_types.ResourceLink():
                parts.append(f"[{block.name}: {block.uri}]")
            case _:
                parts.append(f"[{block.type}: not shown]")
    if not parts and result.structured_content is not None:
        with contextlib.suppress(BadContent, msgspec.EncodeError):
            parts.append(encode_value(result.structured_content, "result").decode())
    return valid_text("\n".join(parts))


def _has_fileno() -> bool:
    """Say whether stderr is a file that a process can have: in notebooks and in tests it is none."""
    try:
        sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    return True
