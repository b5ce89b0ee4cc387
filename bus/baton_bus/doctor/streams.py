"""What the doctor says of how our streams are made: what drops or refuses, what is missing, and what is too much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from baton_bus.doctor.facts import Stream, Vitals
from baton_bus.doctor.findings import Finding, Level, size, span
from baton_bus.jetstream.streams import Lack
from baton_bus.settings import Settings
from baton_bus.store.timers import KEPT_S

_MENDS = "`baton up` of this release puts it right when it starts, if its user may; else `nats stream edit`."
_PURGEABLE = "allowed: whoever may publish there can purge all of it, with a header of one message"


def judge_streams(vitals: Vitals, settings: Settings) -> Iterator[Finding]:
    """Say what is not as Baton makes it."""
    if vitals.mismatch:
        yield Finding("error", "the log", vitals.mismatch)
    yield from _dropping(vitals, settings)
    yield from judge_lacking(vitals.lacks)
    yield from _purgeable(vitals)
    if vitals.counters is not None and not vitals.counters.config.allow_msg_counter:
        says = "allow_msg_counter is off: no call is made that a budget is kept of"
        yield Finding("error", "the counters", says, "Delete their stream; it is made anew with the next call.")


def judge_no_log(vitals: Vitals, settings: Settings) -> Iterator[Finding]:
    """Say that there is no log of this namespace, and which there are."""
    if "the log" in vitals.silent:
        return
    if vitals.others:
        says = f"there is none of the namespace {settings.namespace!r}; there are of {', '.join(vitals.others)}"
        yield Finding("error", "the log", says, "Correct --namespace or BATON_NAMESPACE, if one of these is meant.")
    else:
        says = f"there is none yet of the namespace {settings.namespace!r}, nor of another"
        yield Finding("note", "the log", says, "`baton up`, `baton run` or `baton submit` makes it.")


def judge_lacking(lacks: Sequence[Lack]) -> Iterator[Finding]:
    """Say what the log lacks of what this release would make."""
    for lack in lacks:
        level, what, says = _lacking(lack)
        yield Finding(level, what, says, _MENDS)


def _lacking(lack: Lack) -> tuple[Level, str, str]:
    match lack.field:
        case "subjects":
            missing = ", ".join(map(str, lack.needed)) if isinstance(lack.needed, list) else str(lack.needed)
            return "error", "subjects of the log", f"takes no {missing}: what is published there is lost"
        case "discard":
            return "error", "limits of the log", "discard = old: a full log would drop accepted work and not refuse new"
        case "allow_direct":
            return "error", "reading", "allow_direct is off: workers and commands cannot read the log"
        case "allow_rollup_hdrs":
            return "warning", "rollups of the log", _PURGEABLE
        case "republish":
            says = "republish is missing: results and answers are heard only when somebody looks for them"
            return "warning", "republish of the log", says
        case field:
            return "warning", f"{field} of the log", f"is {lack.found}; this release makes it {lack.needed}"


def _purgeable(vitals: Vitals) -> Iterator[Finding]:
    for name, stream in streams_of(vitals):
        if name == "the blobs" and stream.config.allow_rollup_hdrs:  # schedules need them; the log's are told above
            advice = "Make the stream anew without them, or let nobody but workers publish to it."
            yield Finding("warning", f"rollups of {name}", _PURGEABLE, advice)


def _dropping(vitals: Vitals, settings: Settings) -> Iterator[Finding]:
    """Limits that somebody set on our streams, by which the server drops or refuses what must be kept."""
    found = [
        Finding("error", f"limits of {name}", says, "Take it away: `nats stream edit`.")
        for name, stream in streams_of(vitals)
        for says in _limits(name, stream, settings)
    ]
    yield from found
    if not found and not any(lack.field == "discard" for lack in vitals.lacks):
        yield Finding("ok", "limits", "no stream drops or refuses what must be kept")


def _limits(name: str, stream: Stream, settings: Settings) -> Iterator[str]:
    config, state, loses = stream.config, stream.state, _loses(name)
    if config.max_age:
        yield f"max_age = {span(config.max_age_s)} drops messages{_next_drop(stream)}: {loses}"
    if config.max_msgs_per_subject > 0:
        yield f"max_msgs_per_subject = {config.max_msgs_per_subject} drops or refuses tasks and versions: {loses}"
    if config.discard == "old" and config.max_msgs > 0:
        yield f"discard = old drops the oldest of {config.max_msgs:,} messages (now {state.messages:,}): {loses}"
    if config.discard == "old" and config.max_bytes > 0:
        yield f"discard = old drops the oldest of {size(config.max_bytes)} (now {size(state.bytes)}): {loses}"
    if config.sealed:
        yield "sealed: nothing can be written"
    if 0 < config.max_msg_size < 2 * settings.inline_limit_bytes:
        yield f"max_msg_size = {size(config.max_msg_size)} refuses messages that Baton writes"


def _next_drop(stream: Stream) -> str:
    if stream.state.first_ts is None or stream.ts is None or not stream.state.messages:
        return ""
    left_s = stream.config.max_age_s - (stream.ts - stream.state.first_ts).total_seconds()
    return f", the next in {span(max(left_s, 0.0))}"


def streams_of(vitals: Vitals) -> Iterator[tuple[str, Stream]]:
    """Yield our streams that are there, with what people call them."""
    ours = {"log": vitals.log, "timers": vitals.timers, "blobs": vitals.blobs, "counters": vitals.counters}
    for name, stream in ((f"the {name}", stream) for name, stream in ours.items()):
        if stream is not None:
            yield name, stream


def holds(name: str) -> str:
    """Return what is in the stream of this name."""
    return {
        "the log": "every run",
        "the timers": "every deadline",
        "the blobs": "every large value",
        "the counters": "what was spent of budgets",
    }[name]


def _loses(name: str) -> str:
    return {
        "the log": "runs that are not done by then never end, and finished ones cannot be read or replayed",
        "the timers": f"deadlines and schedules that are later never come (what is due is kept {span(KEPT_S)})",
        "the blobs": "steps that read an older large value fail with BlobMissing",
        "the counters": "budgets forget what was spent, and begin anew",
    }[name]
