"""Each entry of a log as one line for people: plain text; the CLI adds colours."""

from __future__ import annotations

from typing import assert_never

from baton_schemas.run.state import Entry
from baton_schemas.wire.messages import (
    Done,
    Error,
    Failed,
    Handoff,
    Join,
    Note,
    Outcome,
    OutcomeRecord,
    Reply,
    Result,
    Skipped,
    Task,
    Usage,
    Work,
)
from baton_schemas.wire.names import DEADLINE, JOIN

_TEXT_MAX = 160
"""Characters of an error or a reason in a line: about two rows of a terminal."""
_COPIED = "copied"
"""From the run that this one goes on from."""


def one_line(entry: Entry) -> str:
    """Return what an entry says, as `kind who   what`, without line breaks or control characters."""
    kind, who, what = _parts(entry)
    line = f"{kind:<8} {who}" + (f"   {what}" if what else "")
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def of_outcome(outcome: Outcome) -> str:
    """Return how a step ended, by what model, for how long and for what price."""
    match outcome:
        case Done(work=work):
            return _list(f"done in {seconds(work.elapsed_s)}", "cut off" if outcome.truncated else "", _of(work))
        case Failed(work=work, error=error):
            return _list("failed", _of(work)) + f": {_of_error(error)}"
        case Skipped():
            return f"skipped: {_short(outcome.reason)}"
        case _:
            assert_never(outcome)


def seconds(value_s: float) -> str:
    """Return a duration as people write it: `12 ms`, `1.2 s`, `3 min 5 s`."""
    if value_s < 1:
        return f"{value_s * 1000:.0f} ms"
    if value_s < 100:
        return f"{value_s:.1f} s"
    minutes, rest_s = divmod(round(value_s), 60)
    return f"{minutes} min {rest_s} s"


def _parts(entry: Entry) -> tuple[str, str, str]:
    message = entry.message
    match message:
        case None:
            return "unknown", entry.subject, f"{_count(len(entry.data), 'byte')} that this release cannot read"
        case Task():
            return "task", message.run, f"input: {', '.join(message.input) or 'none'}"
        case Handoff():
            return "handoff", f"{message.source} → {message.step}", _of_handoff(message)
        case Reply():
            return "reply", f"{message.branch} → {message.step}", _of_reply(message)
        case OutcomeRecord():
            return "outcome", message.step, _list(of_outcome(message.outcome), _COPIED if message.copied else "")
        case Join():
            return "join", message.step, _of_join(message)
        case Note():
            return "note", message.step, f"attempt {message.attempt}: {_of_note(message)}"
        case Result():
            return "result", message.status, _of_result(message)
        case _:
            assert_never(message)


def _of_handoff(handoff: Handoff) -> str:
    if handoff.source == JOIN:
        error = f": {_of_error(handoff.error)}" if handoff.error else ""
        return f"closes with {_count(len(handoff.branches), 'branch', 'branches')}{error}"
    return _list(
        f"branch {handoff.index + 1} of {handoff.count}" if handoff.count else "",
        of_outcome(handoff.outcome) if handoff.outcome else "",
        _COPIED if handoff.copied else "",
        f"goes on from {handoff.forked_from}" if handoff.forked_from else "",
    )


def _of_reply(reply: Reply) -> str:
    if reply.branch == DEADLINE:
        return "the join's time is up"
    branch = f"branch {reply.index + 1} of {reply.count}" if reply.count > 1 else ""
    return _list(branch, of_outcome(reply.outcome), _COPIED if reply.copied else "")


def _of_join(join: Join) -> str:
    arrived, expected = len(join.arrived), sum(max(count, 1) for count in join.expected.values())
    failed = f"{len(join.failed)} failed" if join.failed else ""
    if join.closed:
        return _list(f"closed with {arrived} of {expected}", failed)
    return _list(f"{arrived} arrived, {expected} expected so far", failed)


def _of_note(note: Note) -> str:
    why = _of_error(note.error) if note.error else _short(note.message)
    tail = f": {why}" if why else ""
    match note.type:
        case "retry":
            return f"retry in {seconds(note.delay_s)}{tail}"
        case "given_back":
            return f"given back to the bus{tail}"
        case "rejected":
            return f"rejected; its bytes are at sequence {note.seq}{tail}"
        case _:
            return f"{note.type}{tail}"


def _of_result(result: Result) -> str:
    ended = of_outcome(result.outcome) if result.outcome else ""
    return _list(f"step {result.step}: {ended}" if result.step and ended else ended, _short(result.reason))


def _of(work: Work) -> str:
    return _list(
        f"attempt {work.attempt}",
        work.model,
        "rehearsed" if work.rehearsed else "",
        _of_usage(work.usage) if work.usage else "",
        f"${work.cost_usd:.4f}" if work.cost_usd is not None else "",
    )


def _of_usage(usage: Usage) -> str:
    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    cached = f" ({usage.cache_read_tokens} cached)" if usage.cache_read_tokens else ""
    return f"{read}+{usage.output_tokens} tokens{cached}"


def _of_error(error: Error) -> str:
    return f"{error.type}: {_short(error.message)}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _list(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _TEXT_MAX else words[: _TEXT_MAX - 1] + "…"
