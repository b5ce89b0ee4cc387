"""What handlers that ask tell the history: that they ask, wait, go on, and what they were given.

A handler asks through `Told` (a plain one through `ToldPlain`), which say the same of a `Context` of Baton's.
"""

from __future__ import annotations

import contextvars
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from baton_actors.agents.asks import AskFailed
from baton_actors.agents.handlers import Context

from .asked import event_asked, question
from .history import History

attempt: contextvars.ContextVar[str] = contextvars.ContextVar("the attempt that this task makes")
_history: list[History] = []


def tell_to(history: History) -> None:
    """Have the handlers of this process tell their story here."""
    _history[:] = [history]


def told_to() -> Path:
    """The file of the history."""
    return _history[0].path


def told_by_tool(context: Context, name: str, order: str, number: int) -> None:
    """A tool tells that it was called, before it does anything."""
    facts = {"attempt": attempt.get(""), "run": context.run, "step": context.step}
    _history[0].say("tool.began", name=name, order=order, number=number, **facts)


class Telling:
    """Says what one attempt at a step asks and sees. A handler may ask from several tasks at once."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._facts = {"attempt": attempt.get(), "run": context.run, "step": context.step}
        self._alike: Counter[str] = Counter()
        self._open = 0
        self._lock = threading.Lock()

    def say(self, what: str, **facts: Any) -> None:
        _history[0].say(what, **self._facts, **facts)

    def words(self, kind: str, name: str, asked: Any) -> str:
        """What is asked, in words of our own; the last number counts what was asked alike."""
        alike = json.dumps([kind, name, asked], sort_keys=True)
        self._alike[alike] += 1
        return json.dumps([kind, name, asked, self._alike[alike]], sort_keys=True)

    def waits(self) -> None:
        with self._lock:
            self._open += 1
            if self._open == 1:
                self.say("step.waits")

    def saw(self, words: str, value: Any) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0:
                self.say("step.goes_on")
        self.say("step.saw", words=words, value=value)

    def making(self, name: str, make: Callable[[], Any]) -> Callable[[], Any]:
        def made() -> Any:
            self.say("step.makes", name=name)
            return make()

        return made


class Told:
    """The asking of an async handler."""

    def __init__(self, context: Context) -> None:
        self._context, self._telling = context, Telling(context)

    async def ask(self, agent: str, *, deadline_s: float | None = None, **arguments: Any) -> Any:
        """Return the output; what it failed with, in a dict, when it failed."""
        words = self._telling.words("agent", agent, arguments)
        return await self._waiting(words, self._context.ask(agent, deadline_s=deadline_s, **arguments))

    async def gather(self, *asked: tuple[str, dict[str, Any]]) -> list[Any]:
        words = [self._telling.words("agent", agent, arguments) for agent, arguments in asked]
        for _ in asked:
            self._telling.waits()
        found = _all_said(await self._context.gather(*asked, failed="return"))
        for each, value in zip(words, found, strict=True):
            self._telling.saw(each, value)
        return found

    async def sleep(self, seconds: float) -> None:
        await self._waiting(self._telling.words("sleep", "sleep", seconds), self._context.sleep(seconds))

    async def run_flow(self, flow: str, *, deadline_s: float | None = None, **given: Any) -> Any:
        words = self._telling.words("flow", flow, given)
        return await self._waiting(words, self._context.run_flow(flow, deadline_s=deadline_s, **given))

    async def ask_person(self, role: str, text: str, **how: Any) -> Any:
        """Ask with `answers`, `deadline_s` and `default` as in `Context`."""
        words = self._telling.words("person", role, question(text, **how))
        return await self._waiting(words, self._context.ask_person(role, text, **how))

    async def wait_for(self, event: str, **how: Any) -> Any:
        words = self._telling.words("event", event, event_asked(**how))
        return await self._waiting(words, self._context.wait_for(event, **how))

    async def record(self, name: str, make: Callable[[], Any]) -> Any:
        value = await self._context.record(name, self._telling.making(name, make))
        self._telling.say("step.saw", words=self._telling.words("record", name, None), value=value)
        return value

    async def _waiting(self, words: str, asked: Awaitable[Any]) -> Any:
        self._telling.waits()
        try:
            value = await asked
        except AskFailed as error:
            value = said(error)
        self._telling.saw(words, value)
        return value


class ToldPlain:
    """The asking of a plain handler, in its thread."""

    def __init__(self, context: Context) -> None:
        self._context, self._telling = context, Telling(context)

    def ask(self, agent: str, **arguments: Any) -> Any:
        words = self._telling.words("agent", agent, arguments)
        return self._waiting(words, lambda: self._context.ask(agent, **arguments))

    def gather(self, *asked: tuple[str, dict[str, Any]]) -> list[Any]:
        words = [self._telling.words("agent", agent, arguments) for agent, arguments in asked]
        for _ in asked:
            self._telling.waits()
        found = _all_said(self._context.gather(*asked, failed="return"))
        for each, value in zip(words, found, strict=True):
            self._telling.saw(each, value)
        return found

    def sleep(self, seconds: float) -> None:
        self._waiting(self._telling.words("sleep", "sleep", seconds), lambda: self._context.sleep(seconds))

    def ask_person(self, role: str, text: str, **how: Any) -> Any:
        words = self._telling.words("person", role, question(text, **how))
        return self._waiting(words, lambda: self._context.ask_person(role, text, **how))

    def wait_for(self, event: str, **how: Any) -> Any:
        words = self._telling.words("event", event, event_asked(**how))
        return self._waiting(words, lambda: self._context.wait_for(event, **how))

    def record(self, name: str, make: Callable[[], Any]) -> Any:
        value = self._context.record(name, self._telling.making(name, make))
        self._telling.say("step.saw", words=self._telling.words("record", name, None), value=value)
        return value

    def _waiting(self, words: str, ask: Callable[[], Any]) -> Any:
        self._telling.waits()
        try:
            value = ask()
        except AskFailed as error:
            value = said(error)
        self._telling.saw(words, value)
        return value


def said(error: AskFailed) -> dict[str, str]:
    """What a handler puts out of one that failed: as in `twins.py`."""
    return {"failed": error.error.type}


def _all_said(found: Iterable[Any]) -> list[Any]:
    return [said(each) if isinstance(each, AskFailed) else each for each in found]
