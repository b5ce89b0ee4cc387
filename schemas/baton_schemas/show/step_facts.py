"""A step as the object that `baton show RUN STEP --json` prints: all of it, nothing cut. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from baton_schemas.run.refs import asked_name
from baton_schemas.run.state import StepState
from baton_schemas.wire.facts import Exchange, ModelCall
from baton_schemas.wire.outcomes import Blob, Value

from .brought import Brought
from .paid import paid_for
from .step import StepSeen
from .tool_calls import ToolSeen


def step_facts(seen: StepSeen, saved_usd: float | None = None) -> dict[str, Any]:
    """Return a step as JSON has it. A value that is kept beside the log and was not fetched is its `Blob`.

    `saved_usd` is what caching saved, which only who has the prices can tell.
    """
    state, asked, paid = seen.state, seen.asked, paid_for(seen)
    return {
        "run": seen.run,
        "flow": seen.flow,
        "step": seen.step,
        "of": seen.of,
        "index": seen.index,
        "count": seen.count,
        "status": seen.status,
        "says": seen.says,
        "reused_from": seen.reused_from,
        "agent": seen.agent,
        "handler": seen.handler,
        "person": seen.person,
        "people": [person_facts(each) for each in seen.people],
        "actor": seen.actor,
        "queued_at": state.queued_at if state is not None else None,
        "ended_at": state.ended_at if state is not None else None,
        "values": {name: plain_value(value) for name, value in seen.values.items()},
        "missing": seen.missing,
        "asked": asked,
        "proved": bool(seen.proof) if asked is not None and seen.recorded else None,
        "request_sha256": seen.proof,
        "output": plain_value(seen.output) if seen.output is not None else None,
        "truncated": state.truncated if state is not None else False,
        "error": seen.error,
        "usage": paid.usage if paid is not None else None,
        "cost_usd": paid.cost_usd if paid is not None else None,
        "saved_usd": saved_usd,
        "rehearsed": paid.rehearsed if paid is not None else False,
        "attempts": seen.attempts,
        "calls": [_call(seen, call) for call in seen.calls] + [_exchange(exchange) for exchange in seen.exchanges],
        "tools": [_tool(call) for call in seen.tools],
        "spent": seen.spent,
        "branches": seen.branches,
        "runs": seen.runs,
        "label": seen.label,
        "kind": seen.kind,
        "asked_by": seen.asked_by,
        "asker": seen.asker,
        "child_run": seen.child_run,
        "answered_by": seen.answered_by,
        "answer_note": seen.answer_note,
        "children": seen.children,
        "unasked": seen.unasked,
        "recorded": [
            {"name": each.name, "number": each.number, "value": plain_value(each.value)}
            for each in seen.recorded_values
        ],
        "lacking": seen.lacking,
    }


def person_facts(step: StepState) -> dict[str, Any]:
    """Return what a person was asked, or an event that is waited for, as JSON has it."""
    value = step.blob or step.output
    return {
        "asked": step.asked,
        "who": asked_name(step.name),
        "name": step.name,
        "step": step.source,
        "question": step.question,
        "expects": step.expects,
        "status": step.status,
        "since": step.queued_at,
        "answer": plain_value(value) if step.status == "done" and value is not None else None,
        "answered_by": step.answered_by,
        "note": step.note,
        "answered_at": step.ended_at,
        "by_itself": step.by_itself,
    }


def brought_facts(brought: Brought) -> dict[str, Any]:
    """Return what a message brought as JSON has it."""
    facts: dict[str, Any] = {"step": brought.step, "what": brought.what}
    if brought.error is not None:
        return {**facts, "error": brought.error}
    return {**facts, "value": plain_value(brought.value) if brought.value is not None else None}


def plain_value(value: Value) -> Raw | Blob:
    """Return a value as JSON that is valid UTF-8, whatever a stranger may have published."""
    return value if isinstance(value, Blob) else Raw(bytes(value).decode(errors="replace").encode())


def _exchange(exchange: Exchange) -> dict[str, Any]:
    return {
        "attempt": exchange.attempt,
        "request_sha256": exchange.request_sha256,
        "number": exchange.number,
        "answer": plain_value(exchange.blob or exchange.body),
        "status": exchange.status,
        "streamed": exchange.streamed,
        "model": exchange.model,
        "rehearsed": exchange.rehearsed,
        "request_id": exchange.request_id,
        "usage": exchange.usage,
        "cost_usd": exchange.cost_usd,
    }


def _tool(call: ToolSeen) -> dict[str, Any]:
    return {
        "name": call.name,
        "arguments": call.arguments,
        "request_sha256": call.request_sha256,
        "place": call.place,
        "attempt": call.attempt,
        "begun": call.begun,
        "result": plain_value(call.result) if call.result is not None else None,
        "is_error": call.is_error,
        "cut_bytes": call.cut_bytes,
        "elapsed_s": call.elapsed_s,
        "rehearsed": call.rehearsed,
        "settled_by": call.settled_by,
    }


def _call(seen: StepSeen, call: ModelCall) -> dict[str, Any]:
    has_content = call.content_blob is not None or bytes(call.content) != b"null"
    content = {"content": plain_value(call.content_blob or call.content), "stop_reason": call.stop_reason}
    return {
        **(content if has_content else {}),
        "attempt": call.attempt,
        "request_sha256": call.request_sha256,
        "answer": plain_value(call.blob or call.text),
        "model": call.model,
        "truncated": call.truncated,
        "rehearsed": call.rehearsed,
        "request_id": call.request_id,
        "usage": call.usage,
        "cost_usd": call.cost_usd,
    }
