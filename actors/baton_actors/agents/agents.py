"""The agents that a worker can play: which one does a step of a run, by the run's own version of its flow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from baton_actors.agents.handlers import Handler
from baton_actors.agents.kinds import COMPUTING, AgentKind
from baton_actors.agents.merging import MergingAgent
from baton_actors.agents.nested import NestedAgent
from baton_actors.agents.orchestrator import OrchestratorAgent
from baton_actors.agents.person import PersonAgent
from baton_actors.agents.prompt import PromptAgent
from baton_actors.agents.python import PythonAgent
from baton_actors.agents.threads import Threads
from baton_actors.agents.tools.function import FunctionTool
from baton_actors.agents.tools.servers import McpServer, McpServers
from baton_actors.agents.tools.toolbox import Toolbox
from baton_actors.errors import BadHandler, HandlerMissing
from baton_actors.models import Models
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.used_tools import functions_of, servers_of
from baton_schemas.run.branches import fan_outs
from baton_schemas.run.refs import key_of_child

_NO_TOOLS: Mapping[str, FunctionTool] = {}
_HERE = Path()


class Agents:
    """Handlers belong to their flow: two flows may name their files alike, and never run each other's code."""

    def __init__(self, models: Models | None = None, threads: Threads | None = None) -> None:
        """Without `models` no agent is played that asks them."""
        self.threads = threads or Threads()
        self._models = models
        self._prompt = PromptAgent(models) if models is not None else None
        self._nested = NestedAgent()
        self._servers = McpServers()
        self._tools: dict[tuple[str, str], FunctionTool] = {}
        self._mcp: dict[tuple[str, str], McpServer] = {}
        self._orchestrators: dict[tuple[str, str], OrchestratorAgent] = {}
        self._merging = MergingAgent()
        self._person = PersonAgent()
        self._by_version: dict[tuple[str, str], PythonAgent] = {}
        self._by_flow: dict[tuple[str, str], PythonAgent] = {}
        self._fits: set[tuple[str, str, str]] = set()

    def add(
        self,
        plan: Plan,
        handlers: Mapping[str, Handler],
        tools: Mapping[str, FunctionTool] = _NO_TOOLS,
        folder: Path = _HERE,
    ) -> None:
        """Take in the handlers of a flow, by the strings that name them in it (see `load_handlers`), and its tools.

        They do the steps of this version, and of other versions of the flow that name them alike and that they fit.
        MCP servers are started in `folder`, and only those of flows that are taken in: a flow in a message may be
        anybody's, and names commands.
        """
        if self._models is not None:
            self._models.providers.know(plan.flow.name, plan.flow.providers)
        for name, settings in plan.flow.mcp.items():
            server = self._servers.of(name, settings, folder)
            self._mcp[plan.digest, name] = self._mcp[plan.flow.name, name] = server
        for use, tool in tools.items():
            self._tools[plan.digest, use] = self._tools[plan.flow.name, use] = tool
        for name, handler in handlers.items():
            agent = PythonAgent(handler, self.threads, self._models)
            self._by_version[plan.digest, name] = self._by_flow[plan.flow.name, name] = agent

    def of(self, plan: Plan, step: str) -> AgentKind:
        """Return who does a step of a run of this flow, a branch of one, or a child. Raises `HandlerMissing`."""
        if plan.name_of(step) in plan.implied:
            return self._merging
        return self.playing(plan, plan.agent_of(step), step)

    def playing(self, plan: Plan, agent: str, step: str = "") -> AgentKind:
        """Return who plays an agent of this flow, when it does a step. Raises `HandlerMissing`."""
        handler = plan.flow.agents[agent].handler
        if plan.flow.agents[agent].person:
            return self._person
        if plan.flow.agents[agent].flow:
            return self._nested
        if not handler:
            if self._prompt is None or self._models is None:
                raise self._missing(plan, agent, "it was started without models, or for handlers only")
            if lacks := self._lacks_provider(plan, agent):
                reason = f"the flow as it plays it has no [providers.{lacks}]"
                raise self._missing(plan, agent, reason, provider=lacks)
            calls = plan.flow.agents[agent].workers or plan.flow.agents[agent].tools
            return self._orchestrating(plan, agent, self._models) if calls else self._prompt
        found = self._by_version.get((plan.digest, handler))
        if found is None:
            found = self._by_flow.get((plan.flow.name, handler))
            if found is None:
                raise self._missing(plan, agent)
            if step:
                self._check(found.handler, plan, agent, step)
        if found.handler.asks_models and self._models is None:
            raise self._missing(plan, agent, "its handler asks for a client, and it was started without models")
        return found

    def asks_models(self, plan: Plan, agent: str) -> bool:
        """Say whether doing an agent's steps asks a model: by its prompt, or by a client that its handler has."""
        handler = plan.flow.agents[agent].handler
        found = self._by_version.get((plan.digest, handler)) or self._by_flow.get((plan.flow.name, handler))
        return found.handler.asks_models if found is not None else plan.flow.agents[agent].asks_models

    def found(self, plan: Plan, step: str) -> AgentKind | HandlerMissing:
        """Return who does a step, or why nobody here can."""
        try:
            return self.of(plan, step)
        except HandlerMissing as error:  # the step is given back
            return error

    def concurrency(self, plan: Plan, agent: str) -> int:
        """Return how many steps of an agent this process does at once: what its flow says, or what suits its kind."""
        told = plan.flow.agents[agent].concurrency
        if told is not None:
            return told
        try:
            return self.playing(plan, agent).concurrency
        except HandlerMissing:  # its steps are given back
            return COMPUTING

    def asks(self, plan: Plan, step: str) -> frozenset[str]:
        """Return the fan-outs right before a step whose branches it asks for; none where nobody here can do it."""
        if not fan_outs(plan, step):
            return frozenset()
        try:
            return self.of(plan, step).asks(plan, step)
        except HandlerMissing:  # the step is given back
            return frozenset()

    async def aclose(self) -> None:
        """End the MCP servers that were started."""
        await self._servers.aclose()

    def _lacks_provider(self, plan: Plan, agent: str) -> str:
        """Return a provider that an agent's models name, and that no flow which is played here has."""
        if not plan.flow.providers or self._models is None:
            return ""
        own = plan.flow.agents[agent]
        names = (plan.model(name) for name in (own.model, *own.fallback))
        found = (self._models.providers.lacks(plan.flow.name, plan.flow.providers, name) for name in names)
        return next(filter(None, found), "")

    def _orchestrating(self, plan: Plan, name: str, models: Models) -> OrchestratorAgent:
        """Return who plays an LLM agent that calls. Raises `HandlerMissing` when a function is not here."""
        known = self._orchestrators.get((plan.digest, name))
        if known is not None:
            return known
        agent = plan.flow.agents[name]
        functions: dict[str, FunctionTool] = {}
        for called, use in functions_of(agent).items():
            found = self._tools.get((plan.digest, use)) or self._tools.get((plan.flow.name, use))
            if found is None:
                raise self._missing(plan, name, "it has no such tool of that flow", use)
            functions[called] = found
        servers: dict[str, McpServer] = {}
        for each in servers_of(agent):
            server = self._mcp.get((plan.digest, each)) or self._mcp.get((plan.flow.name, each))
            if server is None:
                raise self._missing(plan, name, f"its version of that flow has no [mcp.{each}]", f"mcp:{each}")
            servers[each] = server
        toolbox = Toolbox(agent, functions, servers, self.threads)
        self._orchestrators[plan.digest, name] = made = OrchestratorAgent(models, toolbox)
        return made

    def _check(self, handler: Handler, plan: Plan, agent: str, step: str) -> None:
        """Raise `HandlerMissing` unless the handler, of another version of the flow, takes what this step reads."""
        name = "" if key_of_child(step) else plan.name_of(step)
        if (plan.digest, agent, name) in self._fits:
            return
        try:
            if name:
                handler.check(plan, name)
            else:
                handler.check_asked(plan, agent)
        except BadHandler as error:
            raise self._missing(plan, agent, f"the one of its own version does not fit ({error.reason})") from error
        self._fits.add((plan.digest, agent, name))

    def _missing(
        self, plan: Plan, agent: str, reason: str = "", tool: str = "", *, provider: str = ""
    ) -> HandlerMissing:
        return HandlerMissing(
            flow=plan.flow.name,
            digest=plan.digest,
            agent=agent,
            handler=plan.flow.agents[agent].handler,
            tool=tool,
            known=[handler for flow, handler in self._by_flow if flow == plan.flow.name],
            reason=reason,
            provider=provider,
        )
