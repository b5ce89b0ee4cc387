"""A step as a text: how it stands, what it says and cost, error, attempts, prompt, answer, and what it read. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec
from msgspec import Raw

from baton_actors.console.feeds import LiveStep
from baton_schemas.show.attempts import Attempt
from baton_schemas.show.costs import dollars
from baton_schemas.show.errors import told
from baton_schemas.show.excerpt import size, text_of
from baton_schemas.show.lines import seconds
from baton_schemas.show.paid import paid_for
from baton_schemas.show.step import StepSeen
from baton_schemas.show.step_words import Said, came_of, has_prompt, proof_of_prompt, said_of, who_does
from baton_schemas.wire.outcomes import Blob, Value

from .drawn import one
from .palette import Cell, mark, state_of

_TEXT_MAX = 64 * 1024
"""Characters of a prompt, an answer, or a trace that are shown."""
_VALUE_MAX = 2_000
_LINE_MAX = 4_000
"""Characters of a line: longer ones are folded by force, so that one of 10 MB does no harm."""
_ATTEMPTS_MAX, _TOOLS_MAX = 50, 50
_TONES = {"good": "done", "bad": "failed", "mind": "mind", "": "dim"}


def text_of_step(seen: StepSeen, live: LiveStep | None) -> list[Cell]:
    """Return all that there is to say of a step; `live` is what is heard of it just now."""
    lines = [*_head(seen)]
    for title, note, body in _sections(seen, live):
        lines += [(), ((title, "bold"), *_noted(note)), *body]
    return lines


def text_lines(text: str, limit: int = _TEXT_MAX, kind: str = "", command: str = "") -> Iterator[Cell]:
    """Yield the lines of a text up to a limit, and how much there is of it in all."""
    for line in text[:limit].expandtabs().split("\n"):
        for start in range(0, max(len(line), 1), _LINE_MAX):
            yield (("  ", ""), *one(line[start : start + _LINE_MAX], kind))
    if len(text) > limit:
        more = f"  … {size(len(text.encode(errors='replace')))} in all"
        yield one(more + (f": {command} has it" if command else ""), "dim")


def _head(seen: StepSeen) -> Iterator[Cell]:
    kind = state_of(seen.status)
    yield (mark(seen.status), (" ", ""), *one(seen.label or seen.step, "bold"), ("  ", ""), *one(seen.says, kind))
    yield one(f"  {who_does(seen)}", "dim")
    paid = paid_for(seen)
    took = [f"{seconds(attempt.elapsed_s)}" for attempt in seen.attempts[-1:] if attempt.elapsed_s]
    if paid is not None:
        usage = paid.usage
        cached = f" ({usage.cache_read_tokens:,} cached)" if usage.cache_read_tokens else ""
        price = (
            "rehearsed" if paid.rehearsed else dollars(paid.cost_usd) if paid.cost_usd is not None else "no known price"
        )
        took = [f"{usage.prompt_tokens:,} tokens in{cached}", f"{usage.output_tokens:,} out", price, *took]
    if took:
        yield one("  " + " · ".join(took))
    if seen.state is not None and seen.state.question:
        yield one(f"  {seen.state.question}", "mind")


def _sections(seen: StepSeen, live: LiveStep | None) -> Iterator[tuple[str, Said | None, list[Cell]]]:
    command = f"baton show {seen.run} {seen.step} --json"
    if live is not None and (live.says or live.wrote):
        says = [(("  ", ""), *one(live.says, "running"))] if live.says else []
        yield "Just now", None, [*says, *(text_lines(live.wrote) if live.wrote else [])]
    if seen.error is not None:
        trace = list(text_lines(seen.error.traceback, kind="dim")) if seen.error.traceback else []
        body = [(("  ", ""), *one(told(seen.error), "failed")), *trace]
        yield "Error" if seen.status == "failed" else "Last error", None, body
    if len(seen.attempts) > 1 or any(each.came_to != "done" for each in seen.attempts):
        yield "Attempts", None, [_of_attempt(each) for each in seen.attempts[-_ATTEMPTS_MAX:]]
    if has_prompt(seen):
        if seen.asked is not None and seen.asked.system:
            yield "System prompt", None, list(text_lines(seen.asked.system, command=command))
        asked = list(text_lines(seen.asked.prompt, command=command)) if seen.asked is not None else []
        yield "Prompt", proof_of_prompt(seen), asked
    if seen.tools:
        yield "Tools", None, [line for tool in seen.tools[-_TOOLS_MAX:] for line in _of_tool(tool.name, came_of(tool))]
    if seen.output is not None and seen.kind != "sleep":
        title = "Put out" if (seen.handler or seen.person) and not seen.kind else "Answer"
        cut = Said("cut off at max_tokens", "mind") if seen.state is not None and seen.state.truncated else None
        yield title, cut, list(_of_value(seen, seen.output, _TEXT_MAX, command))
    elif seen.calls:
        last = seen.calls[-1].blob or seen.calls[-1].text
        yield "Last answer", Said("it is not what the step put out"), list(_of_value(seen, last, _TEXT_MAX, command))
    if seen.values:
        body = []
        for name, value in seen.values.items():
            first, *rest = [*_of_value(seen, value, _VALUE_MAX, command)]
            body += [(("  ", ""), *one(name, "bold"), ("  ", ""), *first[1:]), *rest]
        yield ("Was asked with" if seen.kind else "Read"), None, body
    if seen.runs:
        yield "Runs that it asked for", None, [(("  ", ""), *one(run)) for run in islice(seen.runs, 20)]
    ids = [attempt.request_id for attempt in seen.attempts if attempt.request_id]
    if ids:
        yield "Request", None, [(("  ", ""), *one(ids[-1], "dim"))]


def _noted(note: Said | None) -> Cell:
    return (("  ", ""), *one(note.text, _TONES[note.tone])) if note is not None and note.text else ()


def _of_attempt(attempt: Attempt) -> Cell:
    sign = {"done": mark("done"), "failed": mark("failed")}.get(attempt.came_to, ("↻", "mark.retry"))
    took = f" in {seconds(attempt.elapsed_s)}" if attempt.elapsed_s else ""
    cost = f" · {dollars(attempt.cost_usd)}" if attempt.cost_usd else ""
    said = said_of(attempt)
    words = f"{attempt.number}  {attempt.came_to}{took}{cost}" + (f" · {attempt.worker}" if attempt.worker else "")
    kind = "failed" if attempt.came_to == "failed" else "dim"
    return (("  ", ""), sign, (" ", ""), *one(words), *(one(f"  {said}", kind) if said else ()))


def _of_tool(name: str, came: Said) -> list[Cell]:
    sign = mark("failed") if came.tone == "bad" else mark("done")
    return [(("  ", ""), sign, (" ", ""), *one(name, "bold"), ("  ", ""), *one(came.text, _TONES[came.tone]))]


def _of_value(seen: StepSeen, value: Value, limit: int, command: str) -> Iterator[Cell]:
    if isinstance(value, Blob):
        why = seen.lacking.get(value.sha256, "not fetched")
        yield (("  ", ""), *one(f"{size(value.size_bytes)} kept beside the log, {why}", "mind"))
    else:
        yield from text_lines(_readable(value), limit, command=command)


def _readable(value: Raw) -> str:
    """Return a text as it is, and other values as JSON on several lines."""
    if bytes(value)[:1] in (b"{", b"[") and len(bytes(value)) <= _TEXT_MAX:
        try:
            return msgspec.json.format(bytes(value), indent=2).decode(errors="replace")
        except (ValueError, RecursionError):  # a stranger's
            pass
    return text_of(value)
