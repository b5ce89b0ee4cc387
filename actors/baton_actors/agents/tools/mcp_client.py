"""The package `mcp`: the only module that imports it, and `servers` imports this when a server is needed.

The package's own transport for commands starts them in a session of their own, which outlives a worker that is killed.
Ours are born into the worker's group, and end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

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

from baton_actors.agents.tools.servers import Listed
from baton_actors.agents.tools.targets import Given
from baton_actors.errors import ServerLost
from baton_schemas.errors import BadContent
from baton_schemas.wire.values import encode_value, valid_text

Transport = AbstractAsyncContextManager[Any]
"""Gives a stream of messages from a server, and one to it."""
_PAGES_MAX = 1_000
"""Of a list of tools: a server that never comes to its end is not waited for."""
_END_S, _TERM_S = 2.0, 1.0
"""From the end of its input to SIGTERM, and from there to SIGKILL."""
_HTTP_S = 30.0
"""To connect, and to be heard at all: how long a call takes is bounded by `tool_timeout_s`."""
_LOST = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, httpx2.TransportError, OSError)


class Connection:
    """An open connection."""

    def __init__(self, name: str, client: Client) -> None:
        self._name, self._client = name, client

    async def tools(self) -> list[Listed]:
        """Return all that the server lists, page by page. Raises `ServerLost`, `MCPError`."""
        found: list[Listed] = []
        cursor: str | None = None
        for _ in range(_PAGES_MAX):
            try:
                page = await self._client.list_tools(cursor=cursor)
            except _LOST as error:
                raise ServerLost(self._name, "the list of its tools") from error
            found += [
                Listed(name=tool.name, description=valid_text(tool.description or ""), input_schema=tool.input_schema)
                for tool in page.tools
            ]
            cursor = page.next_cursor
            if not cursor:
                break
        return found

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout_s: float) -> Given:
        """Call a tool. Raises `ServerLost`, and `TimeoutError` when it takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                result = await self._client.call_tool(tool, dict(arguments))
        except MCPError as error:
            if error.code == mcp_types.CONNECTION_CLOSED:
                raise ServerLost(self._name, tool) from error
            if error.code == mcp_types.REQUEST_TIMEOUT:
                raise TimeoutError from error
            return Given(text=f"{tool}: its server answered error {error.code}: {error.message}", is_error=True)
        except _LOST as error:
            if isinstance(error, TimeoutError):
                raise
            raise ServerLost(self._name, tool) from error
        except (ValidationError, RuntimeError) as error:
            said = str(error).partition("\n")[0]
            return Given(text=f"{tool}: its server answered what is no result: {said}", is_error=True)
        return Given(text=_text_of(result), is_error=result.is_error)


@asynccontextmanager
async def connected(name: str, transport: Transport) -> AsyncIterator[Connection]:
    """Have a connection to a server while the context is open."""
    async with Client(transport, cache=None) as client:
        yield Connection(name, client)


@asynccontextmanager
async def http(url: str, headers: Mapping[str, str]) -> AsyncIterator[Any]:
    """Have the streams of a server over streamable HTTP while the context is open."""
    timeout = httpx2.Timeout(None, connect=_HTTP_S)
    async with (
        httpx2.AsyncClient(headers=dict(headers), timeout=timeout) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams


@asynccontextmanager
async def started(command: Sequence[str], environ: Mapping[str, str], folder: Path) -> AsyncIterator[Any]:
    """Have the streams of a server that is started, and ended, with the context.

    It has the few variables that the package gives any server, and these. What it writes to stderr is the worker's.
    """
    process = await anyio.open_process(
        list(command),
        env=get_default_environment() | dict(environ),
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr if _has_fileno() else None,
    )
    to_us, ours = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    theirs, from_us = anyio.create_memory_object_stream[SessionMessage](0)
    try:
        async with anyio.create_task_group() as group, to_us, ours, theirs, from_us:
            group.start_soon(_read, process, to_us)
            group.start_soon(_write, process, from_us, to_us)
            yield ours, theirs
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(process)


async def _read(process: Process, to_us: Any) -> None:
    """Hand on what the server says, a line each, until it has ended."""
    assert process.stdout is not None
    rest = b""
    with contextlib.suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
        async with to_us:
            async for chunk in process.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in filter(bytes.strip, lines):
                    try:
                        message = mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
                    except ValueError:  # a server that prints: what is no message is nobody's
                        continue
                    await to_us.send(SessionMessage(message))


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
