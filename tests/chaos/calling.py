"""What handlers with the official client tell the history: what they were answered. They call through `Calls`.

Which attempt calls, and how often it has called alike before, is in headers, which are no part of what is asked: the
model says by them whom it answers.
"""

from __future__ import annotations

from typing import Any

from anthropic import Anthropic, AsyncAnthropic, BadRequestError

from baton_actors.agents.handlers import Context

from .telling import Telling, attempt

REFUSED = {"refused": "BadRequestError"}
"""What a handler puts out of a call that the model refused for good: as in `calls_twins.py`."""


class _Calling:
    """One call, as the SDK is to make it, and what is said of it."""

    def __init__(self, telling: Telling, what: str, max_tokens: int = 100) -> None:
        self._telling, self.words = telling, telling.words("call", "", what)
        number = self.words.rpartition(", ")[2].rstrip("]")
        context = telling.context
        prompt = f"<call>{context.run}/{context.step}/{what}</call> What is it?"
        self.request: dict[str, Any] = {
            "model": "claude-haiku-4-5",
            "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": prompt}],
            "extra_headers": {"x-attempt": attempt.get(), "x-number": number},
        }

    def saw(self, message: Any) -> str:
        text: str = message.content[0].text
        self._telling.say("step.saw", words=self.words, value=text)
        return text


class Calls:
    """The calls of an async handler."""

    def __init__(self, context: Context, client: AsyncAnthropic, *, max_tokens: int = 100) -> None:
        self._telling, self._client, self._max_tokens = Telling(context), client, max_tokens

    async def create(self, what: str) -> Any:
        """Return the text; what says that it was refused, when it was."""
        call = _Calling(self._telling, what, self._max_tokens)
        try:
            return call.saw(await self._client.messages.create(**call.request))
        except BadRequestError:
            return REFUSED

    async def stream(self, what: str) -> Any:
        call = _Calling(self._telling, what, self._max_tokens)
        try:
            async with self._client.messages.stream(**call.request) as stream:
                return call.saw(await stream.get_final_message())
        except BadRequestError:
            return REFUSED


class PlainCalls:
    """The calls of a plain handler, in its thread."""

    def __init__(self, context: Context, client: Anthropic) -> None:
        self._telling, self._client = Telling(context), client

    def create(self, what: str) -> Any:
        call = _Calling(self._telling, what)
        try:
            return call.saw(self._client.messages.create(**call.request))
        except BadRequestError:
            return REFUSED

    def stream(self, what: str) -> Any:
        call = _Calling(self._telling, what)
        try:
            with self._client.messages.stream(**call.request) as stream:
                return call.saw(stream.get_final_message())
        except BadRequestError:
            return REFUSED
