"""Errors of the actors: what a handler may raise to say how it failed, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import CodeType
from typing import TYPE_CHECKING

from baton_schemas.errors import Coded

if TYPE_CHECKING:
    from baton_bus.engine.budgets import Account

_SHOWN_CHARS = 500
"""Of an answer, at each of its ends: what is wrong is in one of them, mostly."""


class ActorError(Coded, Exception):
    """Base of every error that `baton_actors` raises."""


class Retry(ActorError):
    """A handler raises it to be tried again: after `after_s` seconds, or as its agent's `retry_base_s` has it."""

    def __init__(self, message: str, *, after_s: float | None = None) -> None:
        """`message` goes into the log's note of the attempt. `after_s` is kept: no sooner, and hardly later."""
        self.after_s = None if after_s is None else float(after_s)
        super().__init__(message)


class Fail(ActorError):
    """A handler raises it when trying again would not help: the step fails at once."""


class AnswerUnfit(Fail):
    """A model's answer does not fit the `output` of its agent, and it was asked once more where that could help."""

    def __init__(self, reason: str, answer: str) -> None:
        """`answer` is what came, of which an error shows the beginning and the end."""
        self.reason, self.answer = reason, answer
        shown = answer if len(answer) <= 2 * _SHOWN_CHARS else f"{answer[:_SHOWN_CHARS]} […] {answer[-_SHOWN_CHARS:]}"
        super().__init__(f"the model's answer does not fit `output` of its agent: {reason}. It answered:\n{shown}")


class TooManyRounds(Fail):
    """An agent with `workers` asked its model `max_rounds` times, and there is no answer."""

    def __init__(self, rounds: int, so_far: str) -> None:
        """`so_far` shows the conversation."""
        self.rounds, self.so_far = rounds, so_far
        super().__init__(
            f"no answer after {rounds} rounds (max_rounds): the model still calls for its workers. "
            f"Let its prompt say when it is done, or raise max_rounds. The conversation so far:\n{so_far}"
        )


class TooManyAsks(Fail):
    """The model of an agent with `workers` asks for more than `max_asks`."""

    def __init__(self, asks: int, asks_max: int, so_far: str) -> None:
        """`asks` is what was asked for, with what is asked for now; `so_far` shows the conversation."""
        self.asks, self.asks_max, self.so_far = asks, asks_max, so_far
        super().__init__(
            f"the model calls for its workers {asks} times, and may {asks_max} times (max_asks). "
            f"Let its prompt ask for less, or raise max_asks. The conversation so far:\n{so_far}"
        )


class OverBudget(ActorError):
    """A call is not made, as it could take more than is left to spend. The run ends with it, or is parked."""

    def __init__(self, message: str, *, account: Account, parks: bool = False, again_in_s: float = 0.0) -> None:
        """`account` says which budget it is; for that of a day, the next one begins `again_in_s` from now.

        With `parks`, the step waits until there is more.
        """
        self.account, self.parks, self.again_in_s = account, parks, again_in_s
        super().__init__(message)


class HeldByOthers(ActorError):
    """There may be enough for a call once others are settled that are under way: the step comes again."""

    def __init__(self, whose: str) -> None:
        """`whose` says which budget it is."""
        self.whose = whose
        super().__init__(f"what is left of {whose}, is held for calls under way")


class UnpricedModel(ActorError):
    """A budget in USD cannot be kept with a call that has no price, or no end of it: it is not made."""

    def __init__(self, model: str, whose: str, unlimited: Sequence[str] = ()) -> None:
        """`whose` says which budget it is; `unlimited` are the provider's tools that a call may use without end."""
        self.model = model
        kept = f"so {whose}, cannot be kept, and it was not called. "
        if unlimited:
            what = f"model {model!r} may use {' and '.join(unlimited)} as often as it likes, at a price for each use"
            super().__init__(f"{what}, {kept}Give the tool `max_uses`, or set the budget in tokens.")
            return
        super().__init__(
            f"model {model!r} has no price here, {kept}"
            "Add its price to a file that BATON_PRICES names (see prices.toml), or set the budget in tokens."
        )


class TooManyCalls(Fail):
    """The model of an agent calls its `tools` more often than `max_calls`."""

    def __init__(self, calls: int, calls_max: int, so_far: str) -> None:
        """`calls` is what was called, with what is called now; `so_far` shows the conversation."""
        self.calls, self.calls_max, self.so_far = calls, calls_max, so_far
        super().__init__(
            f"the model calls tools {calls} times, and may {calls_max} times (max_calls). "
            f"Let its prompt ask for less, or raise max_calls. The conversation so far:\n{so_far}"
        )


class TooManyTools(Fail):
    """An agent offers its model more tools than are of use."""

    def __init__(self, count: int, count_max: int, tokens: int, largest: str) -> None:
        """`tokens` is an estimate of what they take in each request; `largest` is the server that lists most."""
        self.count, self.count_max, self.tokens, self.largest = count, count_max, tokens, largest
        hint = f"`mcp:{largest}/tool` in place of `mcp:{largest}`" if largest else "fewer in `tools`"
        super().__init__(
            f"its model would be offered {count} tools, some {tokens:,} tokens of each request; expected at most "
            f"{count_max}, as a model that chooses among more than 50 chooses badly. Pick those that it needs: {hint}"
        )


class ToolInDoubt(Fail):
    """A tool that is not idempotent may have run, and nobody knows what came of it: it is not called again."""

    def __init__(self, tool: str, called: str, why: str = "") -> None:
        """`called` is the call as people read it; `why` says why nobody was asked."""
        self.tool, self.called = tool, called
        because = f" ({why})" if why else ""
        super().__init__(
            f"{tool} may have run: a worker began it, and died or was stopped before it recorded what came of it. It "
            f"is not idempotent, so it is not called again: {called}. Look whether it ran{because}. To be asked the "
            f'next time, and by `baton retry` of this run, set `in_doubt = "a-role"` on the agent; if it may run twice '
            f"without harm, say `@tool(idempotent=True)`, or name it in `idempotent` of its MCP server"
        )


class ServerUnreachable(ActorError):
    """An MCP server cannot be started or reached, or does not say what it has. It may be there at the next attempt."""

    def __init__(self, server: str, reason: str) -> None:
        """`server` is the name of `[mcp.NAME]`; `reason` says what was tried, without secrets."""
        self.server, self.reason = server, reason
        super().__init__(f"the MCP server {server!r} cannot be used: {reason}")


class ServerLost(ActorError):
    """The connection to an MCP server ended in the middle of something: whether that was done, nobody knows."""

    def __init__(self, server: str, doing: str, *, may_be_done: bool = True) -> None:
        """`doing` is what was asked of it; not `may_be_done`: it is certain that the server did not take it."""
        self.server, self.doing, self.may_be_done = server, doing, may_be_done
        end = "the connection ended in the middle of it" if may_be_done else "it did not take it"
        super().__init__(f"the MCP server {server!r} was lost: {doing}: {end}")


class ServerLacksTool(Fail):
    """A flow picks a tool of an MCP server that it does not list."""

    def __init__(self, server: str, tool: str, hint: str = "") -> None:
        """`hint` names the nearest one that it has."""
        self.server, self.tool, self.hint = server, tool, hint
        super().__init__(f"the MCP server {server!r} lists no tool {tool!r}. {hint}".rstrip())


class BadTool(ActorError):
    """A function that cannot be a tool."""

    def __init__(self, tool: str, reason: str, hint: str = "") -> None:
        """`tool` is its place, or what the flow names it by; `reason` says what was found and what was expected."""
        self.tool, self.reason, self.hint = tool, reason, hint
        super().__init__(f"tool {tool!r}: {reason}" + (f" {hint}" if hint else ""))


class BadToolCall(ActorError):
    """A model calls a tool with what it does not take: the model is told."""


class HandlerNotFound(ActorError):
    """The `handler` of an agent, or one of its `tools`, cannot be imported."""

    def __init__(self, agent: str, handler: str, reason: str, key: str = "handler") -> None:
        """`agent` and `handler` as they are in the flow; `reason` says what was tried; `key` is that of the agent."""
        self.agent, self.handler, self.reason = agent, handler, reason
        super().__init__(
            f"agents.{agent}.{key}: cannot load {handler!r}: {reason}{'' if reason.endswith('?') else '.'} "
            "Expected 'module:name' of an importable module, or './file.py:name' relative to the flow file."
        )


class BadHandler(ActorError):
    """A handler's signature does not fit the step that it is to do."""

    def __init__(self, handler: str, reason: str, hint: str = "") -> None:
        """`reason` says what was found and what was expected."""
        self.handler, self.reason, self.hint = handler, reason, hint
        super().__init__(f"handler {handler!r}: {reason}" + (f" {hint}" if hint else ""))


class BadOutput(ActorError):
    """A handler returned what does not fit its own annotation, or what JSON cannot hold."""

    def __init__(self, message: str, function: CodeType | None = None) -> None:
        """`function` is the code of the handler, whose definition is the place to look at."""
        self.function = function
        super().__init__(message)


class BadValue(ActorError):
    """A value that a handler reads does not fit the type that it asks for."""

    def __init__(self, message: str, function: CodeType | None = None) -> None:
        """`function` is the code of the handler, whose definition is the place to look at."""
        self.function = function
        super().__init__(message)


class HandlerHung(TimeoutError):
    """A handler did not finish in its time."""

    def __init__(self, timeout_s: float, lines: Sequence[tuple[str, int, str]] = ()) -> None:
        """`lines` are the file, line and function of what it was doing when its time was up, the innermost last."""
        self.timeout_s, self.lines = timeout_s, tuple(lines)
        super().__init__(f"the handler did not finish within {timeout_s:g} s (timeout_s)")


class MissingValue(ActorError):
    """A prompt names a value that is not there, and does not say that it may be missing."""

    def __init__(self, reason: str) -> None:
        """`reason` says which, what there is, and what to write instead."""
        self.reason = reason
        super().__init__(reason)


class FileRefused(ActorError):
    """A file in a prompt that no model would take, or that is not there any more."""

    def __init__(self, label: str, reason: str) -> None:
        """`label` is the file as people see it; `reason` says what was found, what is taken, and what to do."""
        self.label, self.reason = label, reason
        super().__init__(f"{label}: {reason}")


class HandlerRaised(ActorError):
    """A handler raised what is no `Exception` (`SystemExit`, a cancellation of something else), or must not pass on."""

    def __init__(self, original: BaseException) -> None:
        """`original` is what was raised; `describe` says it as it is recorded."""
        self.original = original
        super().__init__(f"the handler raised {type(original).__name__}")


class HandlerMissing(ActorError):
    """This worker cannot play an agent as the flow of a run has it. Another worker may: give the handoff back."""

    def __init__(
        self,
        *,
        flow: str,
        digest: str,
        agent: str,
        handler: str,
        tool: str = "",
        known: Iterable[str] = (),
        reason: str = "",
        provider: str = "",
    ) -> None:
        """Of the run's flow; `handler` is empty for an LLM agent, and `tool` is the one of its that is lacking.

        `known` are the handlers that this worker has; `provider` is one that it lacks.
        """
        self.flow, self.digest, self.agent, self.handler, self.tool = flow, digest, agent, handler, tool
        self.known, self.reason = tuple(sorted(known)), reason
        has = ", ".join(self.known) or "no handlers"
        lacks = f"the tool {tool!r}" if tool else f"the handler {handler!r}" if handler else "models"
        named = tool or handler
        self.waits_for = f"a worker that has {named!r}" if named else "a worker that asks models"
        if provider:
            lacks, self.waits_for = f"the provider {provider!r}", f"a worker whose flow has [providers.{provider}]"
        """What the step waits for, as the end of a sentence."""
        super().__init__(
            f"this worker lacks {lacks} for agent {agent!r} of flow {flow!r} (version {digest[:8]}): "
            f"{reason or f'it has {has} of that flow'}. "
            "Start a worker with that version of the flow: the run waits for it, free of charge."
        )
