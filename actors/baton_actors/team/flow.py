"""`Flow`: a flow built in Python, without a file. Checked as a flow file is, by the same code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack, get_args, get_origin, overload

import msgspec

from baton_actors.agents.handlers import Handler
from baton_actors.agents.loading import FoundFlow, flow_within
from baton_actors.agents.signatures import reading, with_reads
from baton_actors.agents.tools.function import FunctionTool, made
from baton_actors.errors import BadHandler
from baton_schemas.errors import FlowError
from baton_schemas.flow.check_asking import asked_agents
from baton_schemas.flow.file import build_flow
from baton_schemas.flow.flow import IN_PROCESS, Caching, Delivery, OnBudget, OnError
from baton_schemas.flow.flow import Flow as FlowOfWire
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.schema_files import read_schema

_Function = TypeVar("_Function", bound=Callable[..., Any])


UsedTool = str | Mapping[str, Any] | Callable[..., Any]
"""A tool as a flow file names it, by a string or a table, or a function."""


Output = Mapping[str, Any] | str | type
"""What a model answers with: fields by type, a file with a JSON Schema, or a record."""


class AgentOptions(TypedDict, total=False):
    """What `agent` takes besides, as in a flow file: see the tables of keys in the README."""

    description: str
    input: Mapping[str, Any]
    workers: str | Sequence[str]
    max_asks: int
    max_depth: int
    max_rounds: int
    tools: UsedTool | Sequence[UsedTool]
    max_calls: int
    tool_timeout_s: float
    tool_output_bytes: int
    in_doubt: str
    park_after_s: float
    delivery: Delivery
    batch: Mapping[str, float]
    timeout_s: float
    concurrency: int
    max_in_flight: int
    max_attempts: int
    retry_base_s: float
    retry_max_s: float
    overload_max_s: float
    fallback: str | Sequence[str]
    cache: Caching
    actor: str


class StepOptions(AgentOptions, total=False):
    """What `step` and `ask` take besides, as in a flow file: see the tables of keys in the README.

    `concurrency` is that of the agent; that of a step with `each` is `each_concurrency`.
    """

    after: str | Sequence[str]
    each: str
    each_concurrency: int
    warm: bool
    join: str | int | Mapping[str, Any]
    when: Mapping[str, Any]
    again: Mapping[str, Any]
    on_error: OnError


_OF_STEP = {
    "after": "after",
    "each": "each",
    "each_concurrency": "concurrency",
    "warm": "warm",
    "join": "join",
    "when": "when",
    "again": "again",
    "on_error": "on_error",
    "timeout_s": "timeout_s",
}
"""The options of a step, and what a flow file calls them; the others are those of its agent."""


class Flow:
    """A flow, step by step. Steps are checked together when the flow is given to a team, or by `check`.

    A handler may be any function, of `__main__` or within another: then the flow can be played in this process only, by
    `Baton.local`. One that is named (`"package.module:name"`) can be played anywhere.
    """

    def __init__(
        self,
        name: str,
        *,
        input: Mapping[str, Any] | None = None,
        tiers: Mapping[str, Any] | None = None,
        providers: Mapping[str, Mapping[str, Any]] | None = None,
        limits: Mapping[str, Mapping[str, Any]] | None = None,
        on_error: OnError = "fail",
        deadline_s: float | None = None,
        budget: Mapping[str, float] | None = None,
        on_budget: OnBudget = "fail",
        description: str = "",
        mcp: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """`input` has a type for each field: `str`, `list[str]`, or a table as in a file.

        `tiers`, `providers`, `limits`, `mcp`, `budget` (`{"usd": 2.0}`) and `on_budget` are as in a file;
        `deadline_s` in seconds.
        """
        self.name = name
        self._data: dict[str, Any] = {"name": name, "on_error": on_error, "description": description}
        if deadline_s is not None:
            self._data["deadline_s"] = deadline_s
        if budget is not None:
            self._data["budget"] = dict(budget)
        if on_budget != "fail":
            self._data["on_budget"] = on_budget
        for key, tables in (("providers", providers), ("limits", limits), ("mcp", mcp)):
            if tables:
                self._data[key] = {each: _plain(given) for each, given in tables.items()}
        self._input = {field: _type(given) for field, given in (input or {}).items()}
        self._tiers = {tier: _plain(given) for tier, given in (tiers or {}).items()}
        self._agents: dict[str, dict[str, Any]] = {}
        self._steps: dict[str, dict[str, Any]] = {}
        self._functions: dict[str, Handler] = {}
        self._tools: dict[str, FunctionTool] = {}
        self._nested: dict[str, Flow] = {}
        self._schemas: dict[str, Any] = {}

    @overload
    def step(self, handler: _Function, /, *, name: str = "", **options: Unpack[StepOptions]) -> _Function: ...

    @overload
    def step(self, handler: str, /, *, name: str = "", **options: Unpack[StepOptions]) -> None: ...

    @overload
    def step(self, /, *, name: str = "", **options: Unpack[StepOptions]) -> Callable[[_Function], _Function]: ...

    def step(self, handler: Any = None, /, *, name: str = "", **options: Unpack[StepOptions]) -> Any:
        """Add a step that a Python handler does: `@flow.step(after="read")`, or `flow.step(function)`.

        Without `name` it is called as the function. A function is returned as it is. Raises `FlowError` for a name that
        another step has, `BadHandler` for a function that cannot be a handler.
        """
        if handler is None:
            return functools.partial(self.step, name=name, **options)
        return self._add_handler(handler, name, options)

    def ask(
        self,
        name: str,
        prompt: str,
        *,
        model: str = "worker",
        system: str = "",
        max_tokens: int = 0,
        output: Output | None = None,
        **options: Unpack[StepOptions],
    ) -> None:
        """Add a step that asks a model. Placeholders in `prompt` and `system` are as in a file: `{topic}`, `{read}`.

        `model` is a tier or the id of a model; `max_tokens` the tier's unless given. `output` is what it answers with,
        in place of text: fields by type, a file with a JSON Schema, or a record (a Struct, dataclass or TypedDict).
        Raises `FlowError` for a name that another step has.
        """
        agent: dict[str, Any] = {"model": model, "prompt": prompt, "system": system, "max_tokens": max_tokens}
        agent |= self._output(name, output)
        self._add(name, agent, options)

    def nest(
        self, name: str, flow: Flow | str, *, given: Mapping[str, str] | None = None, **options: Unpack[StepOptions]
    ) -> None:
        """Add a step that is a run of another flow: one built in Python, a shipped one by its name, or a file.

        `given` says where the inputs of that flow come from that are not called as they are here: `{"topic": "item"}`.
        With `each` it is a whole run per item. Raises `FlowError` for a name that another step has.
        """
        key = flow.name if isinstance(flow, Flow) else flow
        if isinstance(flow, Flow) and self._nested.setdefault(key, flow) is not flow:
            place, found = f"steps.{name}", f"another flow that is called {key!r}"
            raise FlowError(place, found, "another name for one of the two", file=f"flow {self.name!r}")
        self._add(name, {"flow": key, "given": dict(given or {})}, options)

    @overload
    def agent(self, handler: _Function, /, *, name: str = "", **options: Unpack[AgentOptions]) -> _Function: ...

    @overload
    def agent(self, handler: str, /, *, name: str = "", **options: Unpack[AgentOptions]) -> None: ...

    @overload
    def agent(self, /, *, name: str = "", **options: Unpack[AgentOptions]) -> Callable[[_Function], _Function]: ...

    @overload
    def agent(
        self,
        /,
        *,
        name: str,
        prompt: str,
        model: str = "worker",
        system: str = "",
        max_tokens: int = 0,
        output: Output | None = None,
        **options: Unpack[AgentOptions],
    ) -> None: ...

    def agent(
        self,
        handler: Any = None,
        /,
        *,
        name: str = "",
        prompt: str = "",
        model: str = "worker",
        system: str = "",
        max_tokens: int = 0,
        output: Output | None = None,
        **options: Unpack[AgentOptions],
    ) -> Any:
        """Add an agent that is only asked, by those that have it among their `workers`: a handler, or with a `prompt`.

        It is given its `input`, which has a type for each name as the flow's has; `output` as of `ask`. Raises as
        `step` and `ask` do.
        """
        if prompt:
            asks: dict[str, Any] = {"model": model, "prompt": prompt, "system": system, "max_tokens": max_tokens}
            self._add(name, asks | self._output(name, output), options, is_step=False)
            return None
        if handler is None:
            return functools.partial(self.agent, name=name, **options)
        return self._add_handler(handler, name, options, is_step=False)

    def ask_person(
        self,
        name: str,
        person: str,
        prompt: str,
        *,
        answers: Sequence[str] | None = None,
        output: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
        default: Any = None,
        **options: Unpack[StepOptions],
    ) -> None:
        """Add a step that a person does: whoever has the role `person` is asked the `prompt`.

        `answers` are what may be answered, or `output` the fields of the answer, by type as in a flow's input. After
        `deadline_s` seconds the answer is `default`, or the step fails. Raises `FlowError` for a name that another step
        has.
        """
        agent: dict[str, Any] = {"person": person, "prompt": prompt}
        if output is not None:
            agent["output"] = {field: _type(given) for field, given in output.items()}
        more = {"answers": answers, "deadline_s": deadline_s, "default": default}
        agent |= {key: _plain(value) for key, value in more.items() if value is not None}
        self._add(name, agent, options)

    def check(self) -> Plan:
        """Return the plan of the flow. Raises `FlowError`, `BadHandler`: what a flow file would be told, with names."""
        return self.found().plan

    def found(self) -> FoundFlow:
        """Return the flow as the rest of Baton knows it. Raises as `check`."""
        return self._found((self,))

    def _found(self, chain: tuple[Flow, ...]) -> FoundFlow:
        """Return it; `chain` are the flows that it is within, and itself."""
        folder, nested = Path.cwd(), dict[str, FoundFlow]()

        def find(key: str) -> FlowOfWire:
            built = self._nested.get(key)
            if built is None:
                return flow_within(key, folder)
            if built in chain:
                shown = " → ".join(flow.name for flow in (*chain, built))
                raise FlowError("flow", f"a flow that nests itself: {shown}", "flows that end somewhere")
            nested[key] = built._found((*chain, built))
            return nested[key].flow

        # An agent per step, of the same name, and those that are only asked.
        flow = build_flow(
            self._data | {"input": self._input, "tiers": self._tiers, "agents": self._agents, "steps": self._steps},
            find,
            lambda name: self._schemas[name] if name in self._schemas else read_schema(name, folder),
        )
        plan = with_reads(Plan(flow), folder)
        agents = dict(plan.flow.agents)
        for named, handler in self._functions.items():
            step = named.removeprefix(IN_PROCESS)
            agents[step] = reading(plan, step, [each.name for each in handler.parameters if each.decoder is not None])
        plan = Plan(msgspec.structs.replace(plan.flow, agents=agents))
        asked = asked_agents(plan.flow)
        for named, handler in self._functions.items():
            name = named.removeprefix(IN_PROCESS)
            if name in plan.flow.steps:
                handler.check(plan, name)
            if name in asked:
                handler.check_asked(plan, name)
        return FoundFlow(
            name=flow.name,
            flow=plan.flow,
            plan=plan,
            folder=folder,
            source="",
            functions=dict(self._functions),
            tools=dict(self._tools),
            nested=nested,
        )

    def _add_handler(self, handler: Any, name: str, options: Mapping[str, Any], *, is_step: bool = True) -> Any:
        """Add a handler: one that is named, or a function, which is returned as it is."""
        if isinstance(handler, str):
            self._add(name or handler.rpartition(":")[2], {"handler": handler}, options, is_step=is_step)
            return None
        made = handler if isinstance(handler, Handler) else Handler(handler)
        called = name or getattr(made.function, "__name__", "")
        if not called or called == "<lambda>":
            raise BadHandler(made.name, "it has no name.", "Give it one: name=…")
        self._add(called, {"handler": IN_PROCESS + called}, options, is_step=is_step)
        self._functions[IN_PROCESS + called] = made
        return handler

    def _add(self, name: str, agent: dict[str, Any], options: Mapping[str, Any], *, is_step: bool = True) -> None:
        """Add an agent, and a step of the same name that it does."""
        if name in self._agents:
            what = "step" if name in self._steps else "agent"
            found = f"a second {what} of this name"
            raise FlowError(f"{what}s.{name}", found, "another name", file=f"flow {self.name!r}")
        given = {key: _plain(value) for key, value in options.items() if value is not None}
        if isinstance(given.get("input"), dict):
            given["input"] = {field: _type(value) for field, value in given["input"].items()}
        for key in ("workers", "fallback"):
            if isinstance(given.get(key), str):
                given[key] = [given[key]]
        if "tools" in options:
            given["tools"] = self._used(options["tools"])
        of_step = _OF_STEP if is_step else {}
        if is_step:
            self._steps[name] = {of_step[key]: value for key, value in given.items() if key in of_step}
        self._agents[name] = agent | {key: value for key, value in given.items() if key not in of_step}

    def _output(self, name: str, output: Output | None) -> dict[str, Any]:
        """Return what an LLM agent answers with as a file has it; the schema of a record is kept.

        Raises `FlowError`.
        """
        if output is None:
            return {}
        if isinstance(output, Mapping):
            return {"output": {field: _type(given) for field, given in output.items()}}
        if isinstance(output, str):
            return {"output": output}
        use = f"{IN_PROCESS}{name}"
        try:
            self._schemas[use] = msgspec.json.schema(output)
        except (TypeError, NameError, RecursionError) as error:
            found = f"{getattr(output, '__name__', output)}, of which no JSON Schema can be made ({error})"
            expected = "fields by type, a file with a JSON Schema, or a record"
            raise FlowError(f"agents.{name}.output", found, expected, file=f"flow {self.name!r}") from error
        return {"output": use}

    def _used(self, tools: UsedTool | Sequence[UsedTool]) -> list[Any]:
        """Return the tools of an agent as a file names them; functions are kept. Raises `BadTool`, `FlowError`."""
        each_of = [tools] if isinstance(tools, str | Mapping) or callable(tools) else tools
        used: list[Any] = []
        for each in each_of:
            if not callable(each):
                used.append(_plain(each))
                continue
            tool = made(each, str(each))
            use = IN_PROCESS + tool.name
            if self._tools.setdefault(use, tool).function is not tool.function:
                found = f"another function that is called {tool.name!r}"
                raise FlowError("tools", found, "another name for one of the two", file=f"flow {self.name!r}")
            used.append(use)
        return used


def _plain(value: Any) -> Any:
    """Return an option as a file would have it."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else value


def _type(given: Any) -> Any:
    """Return the type of an input field as a file would have it: of `list[str]` as of `"list[str]"`."""
    if isinstance(given, Mapping):
        table = dict(given)
        return table | {"type": _type(table["type"])} if "type" in table else table
    if isinstance(given, list):
        return given
    if get_origin(given) is Literal:
        return list(get_args(given))
    if isinstance(given, type) and not get_args(given):
        return given.__name__
    return given if isinstance(given, str) else str(given)
