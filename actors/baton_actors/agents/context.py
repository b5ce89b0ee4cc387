"""The `Context`: what a handler may know about the step that it does, and ask for and say while it does it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError as Unfinished
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct

from baton_actors.agents.asks import NO_ASKS, AskFailed, AskRefused, Asks, all_needed
from baton_actors.agents.conversion import decoder_of
from baton_actors.agents.live import TOLD, Live, Told
from baton_actors.agents.questions import default_of, event_name, question_for

Asked = Awaitable[Any] | tuple[str, Mapping[str, Any]]
"""What `gather` takes: what `ask` gives in an async handler, or an agent and its arguments in any."""


class LetGo(BaseException):
    """Raised in the thread of a plain handler that waits, when it need not go on: it is done again, or never."""


class Context(Struct, frozen=True, kw_only=True):
    """Who a handler is doing a step for, and what it may ask for. Fields may be added, each with a default.

    In an async handler what is asked for is awaited; in a plain one the same calls block its thread. When the handler
    runs again, after a crash or because it was parked, it comes to what it asked for before at once: nothing is asked
    or paid twice. What may differ the next time (the time, a random number, a request to a server) goes through
    `record`.
    """

    run: str
    step: str
    attempt: int
    asks: Asks = NO_ASKS
    loop: asyncio.AbstractEventLoop | None = None
    """Of a plain handler: the loop that does its asking."""
    _live: Live | None = None
    """Speaks for it; None where nobody listens, as in a handler's own tests."""

    def ask(self, agent: str, /, *, returns: Any = Any, deadline_s: float | None = None, **arguments: Any) -> Any:
        """Ask an agent, one of the `workers` of this one, and return its output, decoded as `returns`.

        Raises `AskFailed` when it failed, or did not answer within `deadline_s` seconds from when it was asked first;
        `AskRefused` when it cannot be asked, or `returns` does not fit.
        """
        return self._do(self._ask(agent, arguments, returns, deadline_s))

    def run_flow(self, flow: str, /, *, returns: Any = Any, deadline_s: float | None = None, **input: Any) -> Any:
        """Have a flow run to its end, and return its output, decoded as `returns`.

        `flow` is one of the `workers` of this agent that is a flow, or the name of that flow; the fields of its input
        are in `input`. It is a run of its own, which ends with this one; after `deadline_s` seconds it is expired.
        Raises as `ask`.
        """
        return self._do(self._run(flow, input, returns, deadline_s))

    def gather(self, *asked: Asked, failed: Literal["raise", "return"] = "raise", returns: Any = Any) -> Any:
        """Ask for all of these at once, and return what came back, in their order.

        Each is what `ask` gives, in an async handler, or an agent with its arguments: `("researcher", {"topic": …})`.
        With `failed="raise"` the first that fails is raised; with `"return"` an `AskFailed` stands in its place. As all
        are needed, a step that waits long is parked upon one agent of them, and not upon each as with `asyncio.gather`.
        """
        return self._do(self._gather(asked, failed, returns))

    def sleep(self, seconds: float) -> Any:
        """Return so many seconds later, however often the handler runs again meanwhile; a long sleep holds nothing."""
        return self._do(self._sleep(seconds))

    def ask_person(
        self,
        role: str,
        question: str,
        /,
        *,
        answers: Sequence[str] | None = None,
        returns: Any = Any,
        deadline_s: float | None = None,
        default: Any = UNSET,
    ) -> Any:
        """Ask whoever has a role, such as `editors`, and return the answer. Nothing is held meanwhile, for days.

        `answers` are what may be answered; without them it may be anything that is `returns`: of a record (a Struct, a
        dataclass, a TypedDict) its fields are asked for, and whatever does not fit is sent back to who said it. After
        `deadline_s` seconds from when it was asked first the answer is `default`. Raises `AskFailed` without a default;
        `AskRefused` when it cannot be asked.
        """
        return self._do(self._ask_person(role, question, answers, returns, deadline_s, default))

    def wait_for(
        self, event: str, /, *, returns: Any = Any, deadline_s: float | None = None, default: Any = UNSET
    ) -> Any:
        """Wait for an event from outside, and return what it brought: the first of this name that nobody had before.

        One that comes before it is waited for is kept. `deadline_s`, `default` and what is raised are as with
        `ask_person`; what does not fit `returns` is an `AskRefused`.
        """
        return self._do(self._wait_for(event, returns, deadline_s, default))

    def record(self, name: str, function: Callable[..., Any], /, *args: Any, returns: Any = Any, **kwargs: Any) -> Any:
        """Return what `function(*args, **kwargs)` returns, and the same whenever the handler runs again.

        For whatever has an effect, or may differ next time. It is called again only if it raised, or if nothing had
        been recorded when the worker died. What it returns has to be JSON; `returns` decodes it.
        """

        async def make() -> Any:
            if self.loop is not None and not inspect.iscoroutinefunction(function):
                return await asyncio.to_thread(function, *args, **kwargs)
            value = function(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value

        async def recorded() -> Any:
            return _decoded(await self.asks.record(name, make), returns, name)

        return self._do(recorded())

    def say(self, what: object) -> Told:
        """Tell whoever watches the run how far it is: `await context.say("3 of 12 pages read")`, one line of text.

        In a plain handler it is the same without `await`. It is shown and not stored, never fails and never waits;
        of many within a moment only the last is heard.
        """
        if self._live is not None:
            self._live.say(what)
        return TOLD

    def writes(self, of: str = "") -> Callable[[str], None] | None:
        """Begin a text that a model writes, and return what takes its chunks; None where nobody listens.

        Each call of a model begins one. `of` names it; without, it is the text that becomes the step's output.
        """
        return self._live.writes(of) if self._live is not None else None

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self.loop is None:
            return work
        if asyncio._get_running_loop() is self.loop:
            work.close()
            raise AskRefused("a plain handler cannot ask in the thread of the loop, as under --debug: make it async")
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop).result()
        except Unfinished:
            raise LetGo from None

    async def _ask(self, agent: str, arguments: Mapping[str, Any], returns: Any, deadline_s: float | None) -> Any:
        return _decoded(await self.asks.ask(agent, arguments, deadline_s=deadline_s), returns, agent)

    async def _sleep(self, seconds: float) -> None:
        await self.asks.sleep(seconds)

    async def _ask_person(
        self,
        role: str,
        text: str,
        answers: Sequence[str] | None,
        returns: Any,
        deadline_s: float | None,
        default: Any,
    ) -> Any:
        question = question_for(role, text, answers, returns)
        fallback = default_of(question, default, deadline_s)
        return _decoded(await self.asks.person(role, question, deadline_s=deadline_s, default=fallback), returns, role)

    async def _wait_for(self, event: str, returns: Any, deadline_s: float | None, default: Any) -> Any:
        name, fallback = event_name(event), default_of(None, default, deadline_s)
        return _decoded(await self.asks.event(name, deadline_s=deadline_s, default=fallback), returns, name)

    async def _run(self, flow: str, given: Mapping[str, Any], returns: Any, deadline_s: float | None) -> Any:
        if not flow:
            raise AskRefused("run_flow: the name of the flow is empty; expected one of the `workers` that is a flow")
        return _decoded(await self.asks.run(flow, given, deadline_s=deadline_s), returns, flow)

    async def _gather(self, asked: tuple[Asked, ...], failed: str, returns: Any) -> list[Any]:
        awaited = [self._ask(each[0], each[1], returns, None) if isinstance(each, tuple) else each for each in asked]
        with all_needed():
            asks = {id(each): asyncio.ensure_future(each) for each in awaited if _is_one_answer(each)}
        tasks = [asks[id(each)] if id(each) in asks else asyncio.ensure_future(each) for each in awaited]
        try:
            if failed == "raise":
                return list(await asyncio.gather(*tasks))
            found = await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for task in tasks:
                task.cancel()
        for each in found:
            if isinstance(each, BaseException) and not isinstance(each, AskFailed):
                raise each
        return list(found)


_ONE_ANSWER = frozenset(
    each.__code__ for each in (Context._ask, Context._run, Context._sleep, Context._ask_person, Context._wait_for)
)


def _is_one_answer(awaited: Awaitable[Any]) -> bool:
    """Say whether all that is awaited is an answer: what else a handler gathers may need only the first of some."""
    return inspect.iscoroutine(awaited) and awaited.cr_code in _ONE_ANSWER


def _decoded(value: Raw, returns: Any, of: str) -> Any:
    """Return a value as the type that is asked for. Raises `AskRefused`."""
    if returns is Any:
        return msgspec.json.decode(value)
    try:
        return _decoder(returns).decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AskRefused(f"what {of} gave does not fit `returns`: {error}") from error


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = decoder_of(kind)
    return decoder
