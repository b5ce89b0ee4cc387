"""Each entry of a log as one line for people: plain text; the CLI adds colours."""

from __future__ import annotations

from typing import assert_never

from baton_schemas.flow.tools import offered_tools
from baton_schemas.run.refs import asked_name, ended_by, indices, joined, parse, source_token
from baton_schemas.run.state import Entry
from baton_schemas.show.conversation import calls_in
from baton_schemas.show.errors import at
from baton_schemas.show.excerpt import in_words
from baton_schemas.wire.facts import (
    BatchEnded,
    BatchSending,
    BatchSent,
    Begun,
    Exchange,
    Fact,
    GivenBack,
    InBatch,
    ModelCall,
    Offered,
    Recorded,
    Rejected,
    Retry,
    Spent,
    ToolBegun,
    ToolCall,
    Unasked,
    Waits,
)
from baton_schemas.wire.messages import (
    After,
    Answer,
    Asked,
    Batch,
    Branch,
    Handoff,
    Join,
    Joined,
    Note,
    OutcomeRecord,
    Parked,
    Reply,
    Result,
    Say,
    Started,
    Task,
    Woken,
)
from baton_schemas.wire.names import BATCH, DEADLINE
from baton_schemas.wire.outcomes import Done, Error, Failed, Outcome, Skipped, Usage, Work

_TEXT_MAX = 160
"""Characters of an error or a reason in a line: about two rows of a terminal."""
_ASKED_MAX = 60
"""Characters of what a child was asked."""
_TOOLS_MAX = 8
"""Tools that are named in a line."""
_COPIED = "copied"
"""From the run that this one goes on from."""


def one_line(entry: Entry) -> str:
    """Return what an entry says, as `kind who   what`, without line breaks or control characters."""
    kind, who, what = _parts(entry)
    line = f"{kind:<8} {who}" + (f"   {what}" if what else "")
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def is_rehearsed(entry: Entry) -> bool:
    """Say whether an entry has an answer in it that no model gave."""
    match entry.message:
        case Note(fact=ModelCall(rehearsed=rehearsed) | Exchange(rehearsed=rehearsed)):
            return rehearsed
        case Note(fact=ToolCall(rehearsed=rehearsed)):
            return rehearsed
        case Handoff(cause=After(outcome=Done(work=work) | Failed(work=work))):
            return work.rehearsed
        case Reply(outcome=Done(work=work) | Failed(work=work)):
            return work.rehearsed
        case OutcomeRecord(outcome=Done(work=work) | Failed(work=work)):
            return work.rehearsed
        case Answer(outcome=Done(work=work) | Failed(work=work)):
            return work.rehearsed
        case Result(outcome=Done(work=work) | Failed(work=work)):
            return work.rehearsed
        case _:
            return False


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
            return "handoff", f"{source_token(message)} → {message.step}", _of_handoff(message)
        case Reply():
            ended = DEADLINE if message.source == DEADLINE else ended_by(message)
            return "reply", f"{ended} → {message.step}", _of_reply(message)
        case OutcomeRecord():
            return "outcome", message.step, _list(of_outcome(message.outcome), _COPIED if message.copied else "")
        case Join():
            return "join", message.step, _of_join(message)
        case Note():
            return "note", message.step, _of_fact(message.fact)
        case Answer(outcome=Done()) if asked_name(message.child) == BATCH:
            return "answer", f"{message.child} → {message.step}", "its batch has come"
        case Answer():
            answer = _list(of_outcome(message.outcome), f"by {_short(message.who)}" if message.who else "")
            return "answer", f"{message.child} → {message.step}", answer
        case Parked():
            batch = asked_name(message.child) == BATCH
            until = "its batch has come" if batch else f"{parse(message.child).name} has answered"
            return "parked", message.step, f"held by nobody until {until}"
        case Batch():
            of = f", a part of {message.root}" if message.root else ""
            return "batch", message.run, f"{message.count:,} model calls of {message.actor}{of}"
        case Say():
            return "say", entry.subject, _list(f"by {_short(message.who)}" if message.who else "", _short(message.note))
        case Result():
            return "result", message.status, _of_result(message)
        case _:
            assert_never(message)


def _of_handoff(handoff: Handoff) -> str:
    branch = _of_branch(handoff.branch) if handoff.branch else ""
    copied = _COPIED if handoff.copied else ""
    match handoff.cause:
        case Joined() as cause:
            return _of_closing(cause)
        case Woken(why=why, seq=seq):
            return _list(f"woken, waited for {why}" if why else "woken", f"its handoff is at sequence {seq}")
        case Asked(kind="batch"):
            return _list("its model call waits for others, to be sent as a batch", copied)
        case Asked(kind=kind, question=question):
            words = in_words({**handoff.state.input, **handoff.state.blobs}, _ASKED_MAX)
            asked = f"asked: {_short(question.text)}" if question else f"asked with {words}" if words else "asked"
            return _list("" if kind == "agent" else kind, asked, copied)
        case After(outcome=outcome):
            return _list(branch, of_outcome(outcome) if outcome else "", copied)
        case Started(begins=begins):
            origin = begins.origin if begins else None
            closing = joined(handoff)
            return _list(
                branch,
                _of_closing(closing) if closing else "",
                copied,
                f"goes on from {origin.run}" if origin else "",
            )
        case _:
            assert_never(handoff.cause)


def _of_branch(branch: Branch) -> str:
    return f"branch {branch.index + 1} of {branch.count}"


def _of_closing(cause: Joined) -> str:
    error = f": {_of_error(cause.error)}" if cause.error else ""
    there = {source: text for source, text in cause.branches.items() if source not in cause.left_out}
    closes = f"closes with {_count(_places(there, cause.counts), 'branch', 'branches')}"
    return _list(closes, f"{', '.join(cause.left_out)} skipped" if cause.left_out else "") + error


def _of_reply(reply: Reply) -> str:
    if reply.source == DEADLINE:
        return "the join's time is up"
    branch = f"branch {reply.index + 1} of {reply.count}" if reply.each and reply.count > 1 else ""
    return _list(branch, of_outcome(reply.outcome), _COPIED if reply.copied else "")


def _of_join(join: Join) -> str:
    there = {source: text for source, text in join.came.items() if source not in join.left_out}
    came, failed = _places(there, join.counts), _places(join.failed, join.counts)
    empty = [source for source in there if join.counts.get(source) == 0]
    return _list(
        f"{_count(came, 'branch', 'branches')} came" if came else "",
        f"{failed} failed" if failed else "",
        f"nothing to do for {', '.join(empty)}" if empty else "",
        f"{', '.join(join.left_out)} skipped" if join.left_out else "",
        "its time is up" if join.deadline else "",
    )


def _places(branches: dict[str, str], counts: dict[str, int]) -> int:
    """Count the branches that are named; those of a stranger's message may be no ranges at all."""
    try:
        return sum(len(indices(text)) for source, text in branches.items() if counts.get(source) != 0)
    except ValueError:
        return 0


def _of_fact(fact: Fact) -> str:
    match fact:
        case Retry():
            paid = _of(fact.work) if fact.work.usage else ""
            return f"attempt {fact.attempt}: retry in {seconds(fact.delay_s)}: {_list(_of_error(fact.error), paid)}"
        case Begun():
            return f"attempt {fact.attempt}: begins alone, as it may have killed its last worker"
        case GivenBack():
            return f"attempt {fact.attempt}: given back to the bus: {_short(fact.reason)}"
        case Waits():
            return f"waits for {_short(fact.reason)}"
        case Spent():
            return _list(f"spent on nothing: {_short(fact.reason)}", _of(fact.work))
        case Rejected():
            return f"rejected; its bytes are at sequence {fact.seq}: {_short(fact.reason)}"
        case Recorded():
            return f"recorded {_short(fact.name)}" + (f" ({fact.number})" if fact.number > 1 else "")
        case Unasked():
            others = f" and {fact.count - 1} more" if fact.count > 1 else ""
            return f"asked {fact.children[0] if fact.children else '?'}{others} before, and does not now"
        case Offered():
            return _of_offer(fact)
        case InBatch():
            return f"goes with {fact.batch}, a batch of {fact.count:,}"
        case BatchSending():
            again = f", for the {fact.number}. time" if fact.number > 1 else ""
            return f"{fact.count:,} model calls are sent{again}"
        case BatchEnded():
            return "all of its calls have come to something"
        case BatchSent():
            return f"{fact.count:,} model calls are " + ("rehearsed" if fact.rehearsed else f"out, as {fact.id}")
        case ToolBegun():
            again = f", for the {fact.number}. time" if fact.number > 1 else ""
            return f"attempt {fact.attempt}: calls tool {_short(fact.name)}{again}: once, as it is not idempotent"
        case ToolCall():
            return f"attempt {fact.attempt}: {_of_tool(fact)}"
        case ModelCall() | Exchange():
            said = "rehearsed" if fact.rehearsed else _of_usage(fact.usage)
            calls = calls_in(fact) if isinstance(fact, ModelCall) else ""
            batch = "by batch" if isinstance(fact, ModelCall) and fact.batch else ""
            return f"attempt {fact.attempt}: {_list(fact.model or 'model', said, batch, _short(calls))}"
        case _:
            assert_never(fact)


def _of_offer(offer: Offered) -> str:
    try:
        names = [tool.name for tool in offered_tools(offer.tools)] if offer.blob is None else []
    except (ValueError, RecursionError):  # a stranger's; msgspec's errors are ValueErrors
        names = []
    left = f" and {len(names) - _TOOLS_MAX} more" if len(names) > _TOOLS_MAX else ""
    return f"its model is offered {', '.join(map(_short, names[:_TOOLS_MAX])) or 'tools'}{left}"


def _of_tool(call: ToolCall) -> str:
    how = "failed" if call.is_error else "rehearsed, and not called" if call.rehearsed else "gave its result"
    by = f", as one of {_short(call.settled_by)} says" if call.settled_by else f" in {seconds(call.elapsed_s)}"
    return f"tool {_short(call.name)} {how}{'' if call.rehearsed else by}"


def _of_result(result: Result) -> str:
    ended = of_outcome(result.outcome) if result.outcome else ""
    return _list(f"step {result.step}: {ended}" if result.step and ended else ended, _short(result.reason))


def _of(work: Work) -> str:
    return _list(
        f"attempt {work.attempt}",
        work.model,
        "rehearsed" if work.rehearsed else "",
        _of_usage(work.usage) if work.usage else "",
        f"${work.cost_usd:.4f}" if work.cost_usd is not None and not work.rehearsed else "",
    )


def _of_usage(usage: Usage) -> str:
    read = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    cached = f" ({usage.cache_read_tokens} cached)" if usage.cache_read_tokens else ""
    return f"{read}+{usage.output_tokens} tokens{cached}"


def _of_error(error: Error) -> str:
    return f"{error.type}: {_short(error.message)}{at(error.at)}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _list(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _TEXT_MAX else words[: _TEXT_MAX - 1] + "…"
