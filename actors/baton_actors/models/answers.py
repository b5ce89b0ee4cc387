"""Which answers are answers. Pure.

| stop reason | text | becomes |
|---|---|---|
| none, or no `message_stop` | any | error `broken_answer`, retryable (of `sdk.chunks`: the stream was cut) |
| `refusal` | any | error `refusal`, final |
| `tool_use`, `pause_turn`, no tools were offered | any | error `unasked_tool`, final: a server between adds them |
| any other, tools were offered, and one is called | any | the answer; `truncated` where cut |
| `pause_turn`, tools were offered, not only thinking | any | the answer; asked again, the model goes on with it |
| `max_tokens`, `model_context_window_exceeded` | some | the answer, `truncated` |
| `max_tokens`, `model_context_window_exceeded` | none | error `empty_answer`, final: the same call ends there again |
| `end_turn`, `stop_sequence`, or one that is not known yet | some | the answer |
| the same, right after results of tools | none, or thinking only | the answer: the model is told to go on, once |
| the same | none, or thinking only | error `empty_answer`, retryable: models differ from call to call |

`tool_use` without a call is as `end_turn`. White space alone is no text. Thinking, tool blocks and kinds of blocks that
are not known yet are no part of the text.
"""

from __future__ import annotations

from collections.abc import Sequence

from baton_actors.models.content import Block
from baton_actors.models.errors import ModelError
from baton_actors.models.reading import Reading
from baton_actors.models.types import ModelRequest

_TRUNCATED = frozenset({"max_tokens", "model_context_window_exceeded"})
_TOOLS = frozenset({"tool_use", "pause_turn"})
_NOT_WORK = frozenset({"text", "thinking", "redacted_thinking"})
"""Blocks that a paused answer has to have more than, to be gone on with, unless it has text."""


def is_truncated(reading: Reading) -> bool:
    """Whether the answer was cut by a limit of tokens."""
    return reading.stop_reason in _TRUNCATED


def check_answer(request: ModelRequest, reading: Reading, text: str, content: Sequence[Block] = ()) -> None:
    """Raise `ModelError` unless this whole stream is an answer, by the table above.

    `content` are its blocks, where tools were offered.
    """
    stop, model = reading.stop_reason, request.model
    if stop == "refusal":
        why = f" ({reading.refusal.rstrip('.')})" if reading.refusal else ""
        raise _error("refusal", f"{model} refused to answer{why}; change the prompt, or try another model", reading)
    if stop in _TOOLS and not request.converses:
        message = f"{model} stopped for a tool ({stop}), and none was offered to it"
        raise _error("unasked_tool", f"{message}; check what ANTHROPIC_BASE_URL adds to requests", reading)
    if text.strip() or any(block.get("type") == "tool_use" for block in content):
        return
    if stop == "pause_turn" and any(block.get("type") not in _NOT_WORK for block in content):
        return
    if stop not in _TRUNCATED and stop != "pause_turn" and _was_told_results(request):
        return
    thinking = ", only thinking" if reading.thought else ""
    if stop == "max_tokens":
        message = f"{model} reached max_tokens ({request.max_tokens}) without any text{thinking}"
        raise _error("empty_answer", f"{message}; raise max_tokens of the agent", reading)
    if stop in _TRUNCATED:
        message = f"the prompt left {model} no room for an answer ({stop}{thinking})"
        raise _error("empty_answer", f"{message}; give the step less text, or take a model with more context", reading)
    raise _error(
        "empty_answer",
        f"{model} answered without any text ({stop}{thinking}); "
        "if this goes on, let the prompt ask for a word such as 'none' where there is nothing to say",
        reading,
        retryable=True,
    )


def _was_told_results(request: ModelRequest) -> bool:
    """Whether the last that a model was told is what its calls gave: asked the same, it would say nothing again."""
    return bool(request.turns) and any(block.get("type") == "tool_result" for block in request.turns[-1].content)


def _error(type: str, message: str, reading: Reading, *, retryable: bool = False) -> ModelError:
    return ModelError(type=type, message=message, retryable=retryable, request_id=reading.request_id)
