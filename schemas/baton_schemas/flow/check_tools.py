"""Whether the tools of agents can be used: known names, each once, options that fit, and MCP servers that can be."""

from __future__ import annotations

import re
from collections.abc import Iterable

from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.flow import Agent, Flow, Mcp, UsedTool
from baton_schemas.flow.limits import TOOL_OUTPUT_BYTES_MAX, check_at_least, check_parts, check_timeout
from baton_schemas.flow.questions import BadQuestion, check_word_name
from baton_schemas.flow.used_tools import (
    PROVIDED,
    TOOL_NAME,
    VARIABLE,
    WITH_DOMAINS,
    Function,
    OfServer,
    Provided,
    used,
)
from baton_schemas.wire.names import TOKEN

_KEYS = ("tools", "max_calls", "tool_timeout_s", "tool_output_bytes", "in_doubt")
_EXPECTED = (
    "a function ('./tools.py:name' or 'module:name'), an MCP server ('mcp:NAME' or 'mcp:NAME/tool'), or "
    f"{', '.join(PROVIDED)}"
)
_URL = re.compile(r"(https?://|\$\{)\S+\Z")
_EMPTY = Agent()


def check_tools(flow: Flow) -> None:
    """Raise `FlowError` for the first tool that can be none, and the first MCP server that cannot be reached."""
    check_parts("mcp", len(flow.mcp))
    for name, server in flow.mcp.items():
        _check_mcp(name, server)
    check_parts("agents", sum(len(agent.tools) for agent in flow.agents.values()))
    for name, agent in flow.agents.items():
        place = f"agents.{name}"
        if not agent.asks_models:
            _check_none(place, agent)
            continue
        _check_limits(place, agent)
        _check_uses(flow, name)


def _check_none(place: str, agent: Agent) -> None:
    for key in _KEYS:
        if getattr(agent, key) != getattr(_EMPTY, key):
            found = f"`{key}` on an agent that is no LLM agent"
            raise FlowError(f"{place}.{key}", found, "it only with `model` and `prompt`: a model calls tools")


def _check_limits(place: str, agent: Agent) -> None:
    check_at_least(f"{place}.max_calls", agent.max_calls, 1)
    check_timeout(f"{place}.tool_timeout_s", agent.tool_timeout_s)
    if not 1 <= agent.tool_output_bytes <= TOOL_OUTPUT_BYTES_MAX:
        expected = f"bytes: from 1 to {TOOL_OUTPUT_BYTES_MAX}, some 25,000 tokens"
        raise FlowError(f"{place}.tool_output_bytes", str(agent.tool_output_bytes), expected)
    if agent.in_doubt != "fail":
        try:
            check_word_name("in_doubt", agent.in_doubt)
        except BadQuestion as error:
            expected = f"'fail', or the name of a role that is asked: {error.expected}"
            raise FlowError(f"{place}.in_doubt", error.found, expected) from error


def _check_uses(flow: Flow, name: str) -> None:
    agent = flow.agents[name]
    named: dict[str, str] = {}
    for index, tool in enumerate(agent.tools):
        place = f"agents.{name}.tools[{index}]"
        found = used(tool)
        match found:
            case None:
                hint = _hint(tool.use, [*PROVIDED, *(f"mcp:{server}" for server in flow.mcp)])
                raise FlowError(place, repr(tool.use), _EXPECTED, hint=hint, near=tool.use)
            case OfServer(server=server) if server not in flow.mcp:
                hint = nearest(server, flow.mcp) if flow.mcp else f"Add [mcp.{server}] with `command` or `url`."
                raise FlowError(place, f"the MCP server {server!r}", "one of [mcp]", hint=hint, near=tool.use)
            case _:
                _check_options(place, tool, found)
        if found.name and not TOOL_NAME.match(found.name):
            expected = "1 to 64 letters of ASCII, digits, '_' and '-': a model calls it by its name"
            raise FlowError(place, f"a tool named {found.name!r}", expected, near=tool.use)
        called = found.name or tool.use
        if called in agent.workers:
            hint = "Rename the function, or the agent."
            raise FlowError(place, f"a tool named like the worker {called!r}", "another name", hint=hint, near=tool.use)
        if called in named:
            found_two = f"{tool.use!r}, of the same name as {named[called]!r}" if named[called] != tool.use else ""
            found_two = found_two or f"{tool.use!r} once more"
            raise FlowError(place, found_two, "each tool once, and each by a name of its own", near=tool.use)
        if isinstance(found, OfServer) and found.tool and f"mcp:{found.server}" in named:
            raise FlowError(place, f"{tool.use!r} besides all tools of {found.server!r}", "one of the two")
        named[called] = tool.use


def _check_options(place: str, tool: UsedTool, found: Function | OfServer | Provided) -> None:
    has_domains = bool(tool.allowed_domains or tool.blocked_domains)
    if (tool.max_uses or has_domains) and found.name not in WITH_DOMAINS:
        key = "max_uses" if tool.max_uses else "allowed_domains" if tool.allowed_domains else "blocked_domains"
        expected = f"it only with {' and '.join(sorted(WITH_DOMAINS))}"
        raise FlowError(f"{place}.{key}", f"`{key}` with {tool.use!r}", expected)
    if tool.max_uses < 0:
        raise FlowError(f"{place}.max_uses", str(tool.max_uses), "a whole number of at least 1")
    if tool.allowed_domains and tool.blocked_domains:
        found_both = "both `allowed_domains` and `blocked_domains`"
        raise FlowError(f"{place}.blocked_domains", found_both, "one of them: the API takes no more")
    for key in ("allowed_domains", "blocked_domains"):
        for domain in getattr(tool, key):
            if not domain.strip() or "://" in domain:
                raise FlowError(f"{place}.{key}", repr(domain), "a domain without a scheme, such as 'example.com'")


def _check_mcp(name: str, server: Mcp) -> None:
    place = f"mcp.{name}"
    if not TOKEN.match(name):
        raise FlowError(place, repr(name), "1 to 64 characters from A-Z, a-z, 0-9, '_' and '-'")
    if bool(server.command) == bool(server.url):
        found = "both `command` and `url`" if server.url else "neither `command` nor `url`"
        expected = '`command = ["program", "argument"]` for one that is started, or `url` for one that is called'
        raise FlowError(place, found, expected)
    if server.command and not server.command[0].strip():
        raise FlowError(f"{place}.command", repr(server.command), "a program and its arguments")
    if server.env and not server.command:
        raise FlowError(f"{place}.env", "`env` with `url`", "it only with `command`")
    for variable in server.env:
        if not VARIABLE.match(f"${{{variable}}}"):
            hint = "The value is taken from the worker's environment, and is not written here."
            raise FlowError(f"{place}.env", repr(variable), "the name of a variable, such as 'API_TOKEN'", hint=hint)
    if server.headers and not server.url:
        raise FlowError(f"{place}.headers", "`headers` with `command`", "them only with `url`")
    _check_url(f"{place}.url", server.url)
    for header, value in server.headers.items():
        if not VARIABLE.search(value):
            hint = "What a flow says is in the log of each run: what is secret stays in the environment."
            expected = "a value with a variable in it, such as 'Bearer ${API_TOKEN}'"
            raise FlowError(f"{place}.headers.{header}", "a value without a variable", expected, hint=hint)
    for tool in server.idempotent:
        if not tool.strip():
            raise FlowError(f"{place}.idempotent", repr(tool), "the name of a tool")


def _check_url(place: str, url: str) -> None:
    if not url:
        return
    authority = url.partition("://")[2].partition("/")[0]
    if "@" in authority:
        hint = "Use `headers` with a variable of the environment."
        raise FlowError(place, "a user or a password in the URL", "none: what a flow says is in the log", hint=hint)
    if not _URL.match(url):
        raise FlowError(place, repr(url), "http(s)://host[:port][/path]")


def _hint(use: str, known: Iterable[str]) -> str:
    where, _, name = use.partition(":")
    if "." in name and where.endswith(".py"):
        return f"A tool is a function of its module itself: {name!r} is within something."
    if where.endswith(".py"):
        return f"For a file beside the flow file, write './{use}'."
    found = nearest(use, known)
    return found if found.startswith("Did") else ""
