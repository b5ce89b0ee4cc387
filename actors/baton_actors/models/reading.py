"""What the stream of one answer has said so far. Pure: it takes the SDK's events, and does not import the SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from baton_actors.models.content import Content
from baton_actors.models.texts import Joiner
from baton_schemas.wire.outcomes import Usage
from baton_schemas.wire.values import valid_text

_CHARS_PER_TOKEN = 4
"""The usual estimate for English, for the part of an answer that the API did not count any more."""
_COUNT_MAX = 2**53 - 1
"""The largest whole number that every JSON reader keeps."""
_WORD_CHARS_MAX = 200
"""Of a model's name or a stop reason, which go into the log."""
_USES = "_requests"
"""The end of the names under which the API counts uses of its own tools: `web_search_requests`."""
_TOOLS_MAX = 20
"""Of tools that are counted. The API has a handful; what else speaks like it may send anything."""


class Reading:
    """Takes the events of one answer. Kinds of events and blocks that it does not know add nothing."""

    def __init__(
        self,
        *,
        with_content: bool = False,
        on_headers: Callable[[Mapping[str, str]], None] = lambda _: None,
        on_begun: Callable[[], None] = lambda: None,
    ) -> None:
        """`with_content` keeps the content blocks, for a conversation that may go on.

        `on_headers` is called with the headers of the answer once they are there, also where it is an error; `on_begun`
        when the answer begins.
        """
        self.on_headers, self._on_begun = on_headers, on_begun
        self.content = Content() if with_content else None
        self.model = ""
        self.stop_reason = ""
        self.refusal = ""
        self.request_id = ""
        self.container = ""
        """In which the provider ran code for the answer."""
        self.begun = False
        """The answer has begun: from here on it is paid."""
        self.whole = False
        """`message_stop` has come: nothing is missing."""
        self.thought = False
        """There was thinking, which is no part of the answer but is paid."""
        self._usage = Usage()
        self._counted = False
        self._streamed_chars = 0
        self._joiner = Joiner()

    def take(self, event: Any) -> str:
        """Take one event; return the text that it adds, which may be empty.

        Raises whatever comes of an event that lacks what its type promises, or has something else in its place.
        """
        match event.type:
            case "message_start":
                self.begun = True
                self.model = _word(event.message.model)
                self._count(event.message.usage)
                self._keep_container(event.message)
                self._on_begun()
            case "content_block_start":
                block = event.content_block
                self.thought |= block.type in ("thinking", "redacted_thinking")
                if self.content is not None:
                    self.content.begin(event.index, block)
                return self._text(block.text) if block.type == "text" else ""
            case "content_block_delta":
                if self.content is not None:
                    self.content.add(event.index, event.delta)
                return self._delta(event.delta)
            case "message_delta":
                self.stop_reason = _word(event.delta.stop_reason) or self.stop_reason
                self._count(event.usage)
                self._counted |= getattr(event.usage, "output_tokens", None) is not None
                self._keep_container(event.delta)
                details = getattr(event.delta, "stop_details", None)
                if details is not None:
                    self.refusal = valid_text(str(details.explanation or details.category or ""))
            case "message_stop":
                self.whole = True
                return self._joiner.end()
        return ""

    @property
    def usage(self) -> Usage:
        """What the answer took until now; the output by what came of it where the API has not counted it."""
        if not self.estimated:
            return self._usage
        guess = max(self._usage.output_tokens, self._streamed_chars // _CHARS_PER_TOKEN)
        return replace(self._usage, output_tokens=guess)

    @property
    def estimated(self) -> bool:
        """Whether the count of output tokens is a guess: the API counts them at the end, which has not come."""
        return self.begun and not self._counted

    def _delta(self, delta: Any) -> str:
        match delta.type:
            case "text_delta":
                return self._text(delta.text)
            case "thinking_delta":
                self._streamed_chars += len(delta.thinking)
            case "input_json_delta":
                self._streamed_chars += len(delta.partial_json)
        return ""

    def _keep_container(self, said: Any) -> None:
        container = getattr(said, "container", None)
        self.container = _word(getattr(container, "id", None)) or self.container

    def _text(self, text: str) -> str:
        self._streamed_chars += len(text)
        return self._joiner.add(text)

    def _count(self, said: Any) -> None:
        """Take the counts of an event; each is a running total, and one that is left out stays as it was."""
        was = self._usage
        self._usage = Usage(
            input_tokens=_count(said, "input_tokens", was.input_tokens),
            output_tokens=_count(said, "output_tokens", was.output_tokens),
            cache_read_tokens=_count(said, "cache_read_input_tokens", was.cache_read_tokens),
            cache_write_tokens=_count(said, "cache_creation_input_tokens", was.cache_write_tokens),
            cache_write_1h_tokens=_count(
                getattr(said, "cache_creation", None), "ephemeral_1h_input_tokens", was.cache_write_1h_tokens
            ),
            server_tools=_uses(getattr(said, "server_tool_use", None), was.server_tools),
        )


def _count(said: Any, name: str, was: int) -> int:
    value = getattr(said, name, None)
    return was if value is None else min(max(int(value), 0), _COUNT_MAX)


def _uses(said: Any, was: dict[str, int]) -> dict[str, int]:
    """Return the uses of the provider's tools, of whatever tools it counts: those that were not used are left out."""
    if said is None:
        return was
    fields = [name for name in vars(said) if name.endswith(_USES)][:_TOOLS_MAX]
    # One that later releases of the SDK know may come among the extra fields of this one's types.
    extra = getattr(said, "__pydantic_extra__", None) or {}
    fields += [name for name in extra if name.endswith(_USES)][:_TOOLS_MAX]
    tools = {_word(name.removesuffix(_USES)): name for name in fields}
    counted = {tool: _count(said, name, was.get(tool, 0)) for tool, name in tools.items()}
    return was | {tool: count for tool, count in counted.items() if count}


def _word(value: object) -> str:
    return valid_text(str(value or ""))[:_WORD_CHARS_MAX]
