"""MCP servers for the tests: the package's own, over stdio and HTTP, and a short one that misbehaves when told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.types import ASGIApp, Receive, Scope, Send

from baton_actors.agents.tools.servers import McpServer
from baton_schemas.flow.flow import Mcp

from .servers import until

SHOP = '''
import os
from pathlib import Path
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

shop = MCPServer("shop")

@shop.tool()
def find(query: str, limit: int = 1) -> str:
    """Find what there is."""
    return ", ".join([query] * limit)

@shop.tool()
def refund(order: str) -> str:
    """Pay back."""
    raise ToolError(f"no order {order}")

@shop.tool()
def where() -> str:
    """Say where it runs."""
    return f"{Path.cwd().name} {os.environ.get('SHOP_KEY')} {os.environ.get('OTHER_KEY')} {os.getpgid(0)}"

shop.run()
'''
"""A real server, which takes a second to start."""

ODD = r"""
import json, os, signal, sys, time
from pathlib import Path

HERE, mode = Path(__file__).parent, sys.argv[1] if len(sys.argv) > 1 else ""

def note(what):
    with open(HERE / "noted", "a") as file:
        file.write(what + "\n")

note(f"start {os.getpid()}")
if mode == "dies":
    sys.exit("I am not well")
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("hello, I print before I speak")

def tool(name):
    return {"name": name, "description": f"Does {name}.", "inputSchema": {"type": "object"}}

def answered(method, params):
    if method == "initialize":
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "odd", "version": "1"}}
    if method == "tools/list":
        if mode == "silent":
            time.sleep(60)
        if mode == "garbage":
            return {"tools": "none"}
        if mode == "many":
            start = int((params or {}).get("cursor") or 0)
            more = {"nextCursor": str(start + 100)} if start < 400 else {}
            return {"tools": [tool(f"t{n}") for n in range(start, start + 100)]} | more
        names = (HERE / "tools").read_text().split() if (HERE / "tools").exists() else ["act", "die", "hang", "large"]
        return {"tools": [tool(name) for name in names]}
    if method == "tools/call":
        name = params["name"]
        note(f"call {name}")
        if name == "die" and not (HERE / "well").exists():
            (HERE / "well").touch()
            os._exit(1)
        if name == "hang":
            time.sleep(60)
        text = "x" * 3_000_000 if name == "large" else f"{name} done by {os.getpid()}"
        return {"content": [{"type": "text", "text": text}]}

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    try:
        result = answered(message["method"], message.get("params"))
    except Exception as error:
        result = None
    answer = {"result": result} if result is not None else {"error": {"code": -32601, "message": "no such method"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"]} | answer), flush=True)
if mode == "stubborn":
    time.sleep(60)
"""
"""A server as others write them; it starts at once. It notes its starts and calls in `noted`."""


def odd_settings(folder: Path, mode: str = "", **more: Any) -> Mcp:
    """Return the settings of an odd server, whose code is written into `folder`."""
    (folder / "odd.py").write_text(ODD)
    return Mcp(command=[sys.executable, "-S", "odd.py", mode], **more)


def odd(folder: Path, mode: str = "", *, open_s: float = 20.0, **more: Any) -> McpServer:
    """Return an odd server, not started yet."""
    return McpServer("odd", odd_settings(folder, mode, **more), folder, open_s=open_s)


def noted(folder: Path, what: str) -> list[str]:
    """Return what an odd server has noted: of each `start` its process id, of each `call` the tool."""
    path = folder / "noted"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.partition(" ")[2] for line in lines if line.startswith(what)]


class Web:
    """The package's own server over streamable HTTP, in this process; it can be stopped and started again."""

    def __init__(self, *, key: str = "") -> None:
        """With a `key`, requests without it are refused."""
        self._key = key
        self.called: list[str] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @contextlib.asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        """Answer while the context is open."""
        shop = MCPServer("shop")

        @shop.tool()
        def refund(order: str) -> str:
            """Pay back."""
            self.called.append(order)
            return f"refunded {order}"

        app = shop.streamable_http_app()
        guarded = self._guarded(app)
        config = uvicorn.Config(guarded, port=self.port, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        await until(lambda: server.started)
        try:
            yield
        finally:
            server.should_exit = True
            await serving

    def _guarded(self, app: ASGIApp) -> ASGIApp:
        async def guard(scope: Scope, receive: Receive, send: Send) -> None:
            headers = dict(scope.get("headers") or [])
            if (
                scope["type"] == "http"
                and self._key
                and headers.get(b"authorization") != f"Bearer {self._key}".encode()
            ):
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": f"wrong: {headers}".encode()})
                return
            await app(scope, receive, send)

        return guard
