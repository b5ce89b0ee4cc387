"""What `tools` of an agent says: functions, tools of MCP servers, and the provider's own, by what `use` has. Pure.

The names that a model calls them by follow from the flow alone, but for those that an MCP server lists.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from msgspec import Struct

from baton_schemas.flow.flow import IN_PROCESS, Agent, Mcp, UsedTool

PROVIDED = {
    "web_search": "web_search_20260318",
    "web_fetch": "web_fetch_20260318",
    "code_execution": "code_execution_20260521",
}
"""The provider's tools that flows may name, and their types in the Messages API: the one place for both."""
WITH_DOMAINS = frozenset({"web_search", "web_fetch"})
"""Those that look at domains, and count their uses."""
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
"""What the Messages API takes as the name of a tool, with any model."""

VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")
"""Stands for a variable of the worker's environment, in the URL and the headers of an MCP server."""

_WHERE = rf"{IN_PROCESS.rstrip(':')}|\.{{0,2}}/[^:]+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*"
_FUNCTION = re.compile(rf"(?P<where>{_WHERE}):(?P<name>[^\W\d]\w*)\Z")
_MCP = re.compile(r"mcp:(?P<server>[^/]+)(/(?P<tool>.+))?\Z", re.DOTALL)


class Function(NamedTuple):
    """A function of the user's."""

    use: str
    name: str
    """What the model calls it by."""


class OfServer(NamedTuple):
    """All tools of an MCP server, or one."""

    server: str
    tool: str
    """Empty for all of them."""

    @property
    def name(self) -> str:
        """What the model calls it by; empty for all of them."""
        return name_of(self.server, self.tool) if self.tool else ""


class Provided(NamedTuple):
    """One of the provider's."""

    name: str


class ProvidedTool(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the provider's tools as a request has it."""

    type: str
    name: str
    max_uses: int = 0
    allowed_domains: list[str] = []
    blocked_domains: list[str] = []


def used(tool: UsedTool) -> Function | OfServer | Provided | None:
    """Return what a tool of an agent is; None for what is none of these."""
    if tool.use in PROVIDED:
        return Provided(tool.use)
    if found := _MCP.match(tool.use):
        return OfServer(found["server"], found["tool"] or "")
    if (found := _FUNCTION.match(tool.use)) and not (found["where"].endswith(".py") and "/" not in found["where"]):
        return Function(tool.use, found["name"])
    return None


def name_of(server: str, tool: str) -> str:
    """Return what a model calls a tool of a server by: `files__read`, of characters that the API takes."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", f"{server}__{tool}")[:64]


def functions_of(agent: Agent) -> dict[str, str]:
    """Return the functions among the tools of an agent: by name, what `use` says of each."""
    return {found.name: found.use for found in map(used, agent.tools) if isinstance(found, Function)}


def servers_of(agent: Agent) -> dict[str, frozenset[str]]:
    """Return the MCP servers among the tools of an agent, and which of their tools; none for all of them."""
    picked: dict[str, set[str]] = {}
    whole: set[str] = set()
    for found in map(used, agent.tools):
        if isinstance(found, OfServer):
            picked.setdefault(found.server, set()).update({found.tool} if found.tool else set())
            whole |= set() if found.tool else {found.server}
    return {name: frozenset() if name in whole else frozenset(tools) for name, tools in picked.items()}


def variables_of(server: Mcp) -> list[str]:
    """Return the variables of the worker's environment that an MCP server is given, each once."""
    texts = (server.url, *server.headers.values(), *(f"${{{name}}}" for name in server.env))
    return [*dict.fromkeys(found["name"] for text in texts for found in VARIABLE.finditer(text))]


def needs_offer(agent: Agent) -> bool:
    """Say whether what its model is offered does not follow from the flow alone: it is recorded with the step."""
    return any(isinstance(found, Function | OfServer) for found in map(used, agent.tools))


def provided_of(agent: Agent) -> tuple[ProvidedTool, ...]:
    """Return the provider's tools of an agent, in their order."""
    return tuple(
        ProvidedTool(
            type=PROVIDED[tool.use],
            name=tool.use,
            max_uses=tool.max_uses,
            allowed_domains=tool.allowed_domains,
            blocked_domains=tool.blocked_domains,
        )
        for tool in agent.tools
        if tool.use in PROVIDED
    )


def as_body(tool: ProvidedTool) -> dict[str, Any]:
    """Return one of the provider's tools as the body of a request has it."""
    body: dict[str, Any] = {"type": tool.type, "name": tool.name}
    for key in ("max_uses", "allowed_domains", "blocked_domains"):
        if value := getattr(tool, key):
            body[key] = value
    return body
