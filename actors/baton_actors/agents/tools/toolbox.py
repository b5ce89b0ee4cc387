"""The tools of one agent, as one worker has them: what its model is offered, and what a call of it leads to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from baton_actors.agents.threads import Threads
from baton_actors.agents.tools.function import FunctionTool
from baton_actors.agents.tools.servers import McpServer, ServerTarget
from baton_actors.agents.tools.targets import FunctionTarget, Target
from baton_actors.errors import TooManyTools
from baton_schemas.flow.flow import Agent
from baton_schemas.flow.tools import OfferedTool
from baton_schemas.flow.used_tools import Function, OfServer, functions_of, name_of, needs_offer, used

TOOLS_MAX = 128
"""Of an agent. The API sets no bound, but each is told in each request: 50 take some 10,000 to 20,000 tokens, and among
more than 30 to 50 models choose worse (https://code.claude.com/docs/en/agent-sdk/tool-search)."""
_BYTES_PER_TOKEN = 4


class Toolbox:
    """Of an agent; `functions` are its own by name, `servers` the MCP servers of its flow by theirs."""

    def __init__(
        self,
        agent: Agent,
        functions: Mapping[str, FunctionTool],
        servers: Mapping[str, McpServer],
        threads: Threads,
    ) -> None:
        self._agent, self._functions, self._servers, self._threads = agent, functions, servers, threads
        self.needs_offer = needs_offer(agent)
        """Whether there is anything that is to be recorded before its model is asked."""

    async def offer(self) -> list[OfferedTool]:
        """Return the functions, and what servers list, in the order of the flow.

        Raises `ServerUnreachable`, `ServerLacksTool`, `TooManyTools`.
        """
        offered: list[OfferedTool] = []
        uses = functions_of(self._agent)
        counts: dict[str, int] = {}
        for found in map(used, self._agent.tools):
            match found:
                case Function(name=name):
                    tool = self._functions[name].offer(name)
                    offered.append(_offered(tool.name, tool.description, tool.input_schema, uses[name]))
                case OfServer(server=server, tool=picked):
                    listed = [each for each in await self._servers[server].tools() if picked in ("", each.name)]
                    if picked and not listed:
                        raise self._servers[server].lacks(picked)
                    counts[server] = counts.get(server, 0) + len(listed)
                    names = _free_names(server, (each.name for each in listed), {each.name for each in offered})
                    offered += [
                        _offered(name, each.description, each.input_schema, f"mcp:{server}/{each.name}", each.keys)
                        for name, each in zip(names, listed, strict=True)
                    ]
                case _:
                    pass
        if len(offered) > TOOLS_MAX:
            tokens = len(msgspec.json.encode(offered)) // _BYTES_PER_TOKEN
            raise TooManyTools(len(offered), TOOLS_MAX, tokens, max(counts, key=counts.__getitem__, default=""))
        return offered

    def targets(self, offered: Iterable[OfferedTool]) -> dict[str, Target]:
        """Return what a call leads to, by the names that the model was told; without those that are gone."""
        found: dict[str, Target] = {}
        by_use = {use: name for name, use in functions_of(self._agent).items()}
        for each in offered:
            if each.use in by_use:
                tool = self._functions[by_use[each.use]]
                found[each.name] = FunctionTarget(tool, each.name, self._threads)
            elif each.use.startswith("mcp:"):
                server, _, tool_name = each.use.removeprefix("mcp:").partition("/")
                if server in self._servers:
                    found[each.name] = ServerTarget(self._servers[server], tool_name, each.name, each.keys)
        return found


def _offered(
    name: str, description: str, schema: Mapping[str, object], use: str, keys: Mapping[str, str] | None = None
) -> OfferedTool:
    return OfferedTool(name=name, description=description, input_schema=dict(schema), use=use, keys=dict(keys or {}))


def _free_names(server: str, tools: Iterable[str], taken: set[str]) -> list[str]:
    """Return what a model calls the tools of a server by: each by a name of its own, however alike they are."""
    names: list[str] = []
    for tool in tools:
        name, number = name_of(server, tool), 2
        while name in taken:
            end = f"_{number}"
            name, number = name_of(server, tool)[: 64 - len(end)] + end, number + 1
        taken.add(name)
        names.append(name)
    return names
