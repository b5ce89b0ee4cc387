"""MCP servers of one worker: started or called when they are first needed, started again when they have died.

The package `mcp` is imported by `mcp_client`, and that when the first server is needed: it takes a second.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog
from msgspec import Struct

from baton_actors.agents.context import Context
from baton_actors.agents.tools.targets import Given, Start
from baton_actors.errors import ServerLacksTool, ServerLost, ServerUnreachable
from baton_actors.models.texts import without_secrets
from baton_schemas.errors import nearest
from baton_schemas.flow.flow import Mcp
from baton_schemas.flow.used_tools import VARIABLE, variables_of
from baton_schemas.wire.values import clean_text

if TYPE_CHECKING:
    from baton_actors.agents.tools.mcp_client import Connection

OPEN_S = 30.0
"""From the start of a server to its list of tools: one that is run by `npx` or `uvx` may have to be fetched."""
STARTS_MAX, STARTS_WITHIN_S = 5, 60.0
"""A server that dies more often than this is not started again for a while: the steps that need it fail, and retry."""
LISTED_S = 60.0
"""A server that was changed is asked again after so long: each step asks what there is, and branches are many."""
_CLOSE_S = 8.0
"""A server has 2 s to end by itself, 1 s after SIGTERM, and is killed then."""
_SAID_MAX = 500
MISSING = "pip install 'baton-bus[mcp]'"
"""What to do where the package is not installed."""
T = TypeVar("T")

logger = structlog.get_logger("baton.worker")


class Listed(Struct, frozen=True, kw_only=True):
    """A tool as its server lists it."""

    name: str
    description: str
    input_schema: dict[str, Any]
    keys: dict[str, str] = {}
    """Its own names of arguments that the API would refuse, by those that a model is told."""


class McpServers:
    """Those of one process, each once, whatever flows and agents use it. Close them in the loop that used them."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, bytes, Path], McpServer] = {}

    def of(self, name: str, settings: Mcp, folder: Path) -> McpServer:
        """Return a server; its command is started in `folder`."""
        key = (name, msgspec.json.encode(settings), folder)
        server = self._servers.get(key)
        if server is None:
            self._servers[key] = server = McpServer(name, settings, folder)
        return server

    async def aclose(self) -> None:
        """End all that were started. Calls under way fail."""
        await asyncio.gather(*(server.aclose() for server in self._servers.values()))


class McpServer:
    """One server, and the connection to it."""

    def __init__(
        self, name: str, settings: Mcp, folder: Path, environ: Mapping[str, str] = os.environ, open_s: float = OPEN_S
    ) -> None:
        """`name` is that of `[mcp.NAME]`; `environ` has what `env`, `url` and `headers` refer to."""
        self.name, self._settings, self._folder, self._environ = name, settings, folder, environ
        self._open_s = open_s
        self._opening = asyncio.Lock()
        self._connection: Connection | None = None
        self._owner: asyncio.Task[None] | None = None
        self._done = asyncio.Event()
        self._starts: deque[float] = deque(maxlen=STARTS_MAX)
        self._listing = asyncio.Lock()
        self._tools: list[Listed] | None = None
        self._listed_at_s = 0.0

    def is_idempotent(self, tool: str) -> bool:
        """Say whether the flow says that a tool may be called twice; what the server says of it is only a hint."""
        return tool in self._settings.idempotent

    def lacks(self, tool: str) -> ServerLacksTool:
        """Return the error for a tool that a flow picks and the server does not list."""
        names = [each.name for each in self._tools or []]
        return ServerLacksTool(self.name, tool, nearest(tool, names))

    async def tools(self) -> list[Listed]:
        """Return what the server lists, as it was at most a minute ago. Raises `ServerUnreachable`."""
        async with self._listing:
            if self._tools is None or time.monotonic() - self._listed_at_s > LISTED_S:
                try:
                    self._tools = await self._with_connection(self._listed)
                except ServerUnreachable:
                    raise
                except ServerLost as error:
                    raise self._unreachable(str(error)) from error
                except Exception as error:  # of the package: an answer that is none, an error of the server's
                    raise self._unreachable(f"it does not say what it has: {self._said(error)}") from error
                self._listed_at_s = time.monotonic()
            return self._tools

    async def _listed(self, connection: Connection) -> list[Listed]:
        try:
            async with asyncio.timeout(self._open_s):
                return await connection.tools()
        except TimeoutError as error:  # it hangs: what is started again may not
            raise ServerLost(self.name, f"the list of its tools, in {self._open_s:g} s", may_be_done=False) from error

    async def call(self, tool: str, arguments: Mapping[str, Any], timeout_s: float) -> Given:
        """Call a tool; what the server refuses is told the model. Raises `ServerLost`, `ServerUnreachable`."""
        try:
            return await self._with_connection(
                lambda connection: connection.call(tool, arguments, timeout_s), once=not self.is_idempotent(tool)
            )
        except TimeoutError:
            said = f"{tool} of {self.name} did not finish within {timeout_s:g} s (tool_timeout_s)."
            maybe = "" if self.is_idempotent(tool) else " It may have done what it does: do not call it again lightly."
            return Given(text=said + maybe, is_error=True)

    async def aclose(self) -> None:
        """End the server, if it was started."""
        async with self._opening:
            await self._end()

    # ---- the connection ----------------------------------------------------------------------------

    async def _with_connection(self, do: Callable[[Connection], Awaitable[T]], *, once: bool = False) -> T:
        """Do something with the server, started first if need be, and again when it dies meanwhile.

        What is to be done `once` is done again only when the server has certainly not taken it.
        """
        for last in (False, True):
            connection = await self._connected()
            try:
                return await do(connection)
            except ServerLost as error:
                await self._lose(connection)
                if last or (once and error.may_be_done):
                    raise
        raise AssertionError

    async def _connected(self) -> Connection:
        async with self._opening:
            if self._connection is not None and self._connection.is_open and self._owner and not self._owner.done():
                return self._connection
            await self._end()
            self._count_start()
            opened: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
            self._done = asyncio.Event()
            # One task opens and closes it: the scopes of anyio within must be left by whoever entered them.
            # It outlives the step that needs the server first, and is in no context of that.
            own = self._own(opened, self._done)
            self._owner = asyncio.create_task(own, name=f"mcp {self.name}", context=contextvars.Context())
            try:
                async with asyncio.timeout(self._open_s):
                    self._connection = await asyncio.shield(opened)
            except TimeoutError as error:
                await self._end()
                raise self._unreachable(f"it did not answer within {self._open_s:g} s") from error
            except BaseException:
                await self._end()
                raise
            logger.info("mcp.open", server=self.name)
            return self._connection

    async def _own(self, opened: asyncio.Future[Connection], done: asyncio.Event) -> None:
        """Open the connection, and close it when it is done with."""
        transport = None
        try:
            client = await self._client()
            transport = self._transport(client)
            async with client.connected(self.name, transport) as connection:
                if not opened.done():
                    opened.set_result(connection)
                await done.wait()
        except asyncio.CancelledError:
            raise
        except (ServerUnreachable, ServerLacksTool) as error:
            _fail(opened, error)
        except BaseException as error:  # groups of the package, of whatever its transports raise
            _fail(opened, self._unreachable(transport.why if transport and transport.why else self._said(error)))

    async def _client(self) -> Any:
        """Return the module that has the package, imported in a thread: leases must be kept meanwhile."""
        try:
            return await asyncio.to_thread(import_module, f"{__package__}.mcp_client")
        except ImportError as error:
            raise ServerUnreachable(self.name, f"the package is missing ({error}): {MISSING}") from error

    def _transport(self, client: Any) -> Any:
        settings = self._settings
        if settings.url:
            headers = {name: self._filled(value) for name, value in settings.headers.items()}
            return client.Http(self._filled(settings.url), headers)
        own = {name: self._environ[name] for name in settings.env if name in self._environ}
        return client.Stdio(settings.command, own, self._folder)

    def _filled(self, text: str) -> str:
        """Return a text with variables of the environment in it. Raises `ServerUnreachable` for one that is not set."""

        def value(found: re.Match[str]) -> str:
            if found["name"] not in self._environ:
                reason = f"its {found[0]} is not in the environment of this worker: set {found['name']}"
                raise ServerUnreachable(self.name, reason)
            return self._environ[found["name"]]

        return VARIABLE.sub(value, text)

    def _count_start(self) -> None:
        now_s = time.monotonic()
        if len(self._starts) == STARTS_MAX and now_s - self._starts[0] < STARTS_WITHIN_S:
            reason = f"it was lost {STARTS_MAX} times within {STARTS_WITHIN_S:.0f} s, and is left alone for a while"
            raise self._unreachable(reason)
        self._starts.append(now_s)

    async def _lose(self, connection: Connection) -> None:
        async with self._opening:
            if self._connection is connection:
                logger.warning("mcp.lost", server=self.name)
                await self._end()

    async def _end(self) -> None:
        owner, self._owner, self._connection, self._tools = self._owner, None, None, None
        if owner is None:
            return
        self._done.set()
        await asyncio.wait([owner], timeout=_CLOSE_S)
        owner.cancel()
        await asyncio.wait([owner], timeout=_CLOSE_S)

    def _unreachable(self, reason: str) -> ServerUnreachable:
        return ServerUnreachable(self.name, reason)

    def _said(self, error: BaseException) -> str:
        """Return what an error says, without what of the environment was sent to the server."""
        while isinstance(error, BaseExceptionGroup) and error.exceptions:
            error = error.exceptions[0]
        secrets = [self._environ.get(name, "") for name in variables_of(self._settings)]
        said = f"{type(error).__name__}: {error}".removesuffix(": ")
        return clean_text(without_secrets(said, secrets), _SAID_MAX)


class ServerTarget:
    """A tool of a server."""

    def __init__(self, server: McpServer, tool: str, name: str, keys: Mapping[str, str] | None = None) -> None:
        """`tool` is what the server calls it, `name` what the model does; `keys` as in `Listed`."""
        self._server, self._tool, self._name, self._keys = server, tool, name, keys or {}

    @property
    def idempotent(self) -> bool:
        """As the flow says."""
        return self._server.is_idempotent(self._tool)

    def start(self, arguments: Mapping[str, Any], context: Context, timeout_s: float) -> Start:
        """Return what calls it. The server checks the arguments."""

        own = {self._keys.get(key, key): value for key, value in arguments.items()}

        async def start() -> Given:
            try:
                return await self._server.call(self._tool, own, timeout_s)
            except ServerLost as error:
                if error.may_be_done and not self.idempotent:
                    raise
                return Given(text=f"{self._name}: its server was lost twice, and gave nothing.", is_error=True)
            except ServerUnreachable as error:
                return Given(text=str(error), is_error=True)

        return start

    def made_up(self, arguments: Mapping[str, Any], context: Context, said: str) -> Given:
        """Return a sentence: what it would give, nobody knows here."""
        return Given(text=f"What {self._name} gives is not known.")


def has_package() -> bool:
    """Say whether the package `mcp` is installed."""
    return find_spec("mcp") is not None


def _fail(opened: asyncio.Future[Connection], error: Exception) -> None:
    if not opened.done():
        opened.set_exception(error)
        opened.exception()  # nobody may be waiting for it any more
