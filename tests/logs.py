"""Logs written by hand, and any log at all, for the tests of what is made from logs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from msgspec import Raw

from baton_schemas.run.state import Entry, read_entry
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import (
    VERSION,
    Blob,
    Branch,
    Done,
    Error,
    Failed,
    Handoff,
    Join,
    Message,
    Note,
    OutcomeRecord,
    Reply,
    Result,
    Skipped,
    State,
    Task,
    Usage,
    Work,
)

FLOW = Raw(
    b'{"name":"report","input":{"topic":{}},"agents":{"a":{"handler":"m:f"}},"steps":{"split":{"agent":"a"},'
    b'"digest":{"agent":"a","each":"split"},"facts":{"agent":"a"},'
    b'"merge":{"agent":"a","after":["digest","facts"]}}}'
)
"""A fan-out over a list beside a single step, and a step that joins both."""

_HEAD: dict[str, Any] = {"v": VERSION, "flow": "report", "digest": "d1", "run": "r1"}
_BEGIN = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def second(number: int) -> datetime:
    """When the entry with this sequence was stored."""
    return _BEGIN + timedelta(seconds=number)


def log(*messages: Message | bytes) -> list[Entry]:
    """The log of these messages, one a second."""
    return [
        read_entry(seq, second(seq), "b.any.a.r1.s", body if isinstance(body, bytes) else encode(body))
        for seq, body in enumerate(messages, start=1)
    ]


def handoff(source: str, step: str, **more: Any) -> Handoff:
    return Handoff(**{**_HEAD, "source": source, "step": step, "start_seq": 1, **more})


def first(step: str, **more: Any) -> Handoff:
    """The handoff that a run begins with."""
    state = State(input={"topic": Raw(b'"tea"')})
    return handoff("start", step, state=state, flow_body=FLOW, start_seq=0, **more)


def reply(branch: str, step: str, **more: Any) -> Reply:
    return Reply(**{**_HEAD, "branch": branch, "step": step, "start_seq": 1, **more})


def outcome(step: str, ended: Done | Failed | Skipped, **more: Any) -> OutcomeRecord:
    return OutcomeRecord(**{**_HEAD, "step": step, "outcome": ended, "start_seq": 1, **more})


def join(step: str, **more: Any) -> Join:
    return Join(**{**_HEAD, "step": step, "start_seq": 1, **more})


def result(status: str, **more: Any) -> Result:
    return Result(**{**_HEAD, "status": status, "start_seq": 1, **more})


def note(step: str, type: str, **more: Any) -> Note:
    return Note(v=VERSION, run="r1", step=step, type=type, **more)


def done(output: str, **work: Any) -> Done:
    return Done(output=Raw(f'"{output}"'.encode()), work=Work(**work))


def failed(step: str, message: str = "no answer", **work: Any) -> Failed:
    attempts = work.get("attempt", 1)
    error = Error(step=step, type="Overloaded", message=message, attempts=attempts)
    return Failed(error=error, work=Work(**work))


_names = st.sampled_from(["split", "digest", "digest-0", "digest-1", "facts", "merge", "start", "join", "deadline", ""])
_counts = st.integers(0, 3)
_texts = st.text(max_size=12)
_raws = st.sampled_from([Raw(b"null"), Raw(b'"x"'), Raw(b"[1, 2]"), FLOW, Raw(b"3")])
_blobs = st.builds(Blob, sha256=st.just("0" * 64), size_bytes=_counts)
_usages = st.builds(Usage, input_tokens=_counts, output_tokens=_counts, cache_read_tokens=_counts)
_works = st.builds(
    Work,
    attempt=_counts,
    elapsed_s=st.floats(0, 1e6),
    rehearsed=st.booleans(),
    usage=st.none() | _usages,
    cost_usd=st.none() | st.floats(0, 1e3),
)
_errors = st.builds(Error, step=_names, type=_texts, message=_texts, attempts=_counts)
_outcomes = st.one_of(
    st.builds(Done, output=_raws, blob=st.none() | _blobs, truncated=st.booleans(), work=_works),
    st.builds(Failed, error=_errors, work=_works),
    st.builds(Skipped, reason=_texts),
)
_states = st.builds(
    State,
    input=st.dictionaries(_names, _raws, max_size=2),
    blobs=st.dictionaries(_names, _blobs, max_size=2),
)
_numbers = st.dictionaries(_names, _counts, max_size=3)

messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Task, input=st.dictionaries(_names, _raws, max_size=2), run=_names),
    st.builds(
        handoff,
        _names,
        _names,
        state=_states,
        outcome=st.none() | _outcomes,
        start_seq=_counts,
        flow_body=_raws,
        index=_counts,
        count=_counts,
        branches=st.lists(st.builds(Branch, name=_names, seq=_counts), max_size=3),
        error=st.none() | _errors,
    ),
    st.builds(reply, _names, _names, index=_counts, count=_counts, outcome=_outcomes),
    st.builds(outcome, _names, _outcomes, index=_counts, count=_counts),
    st.builds(join, _names, expected=_numbers, arrived=_numbers, closed=st.booleans()),
    st.builds(
        note,
        _names,
        st.sampled_from(["retry", "given_back", "rejected", "of a later release"]),
        attempt=_counts,
        error=st.none() | _errors,
    ),
    st.builds(
        result,
        st.sampled_from(["done", "failed", "cancelled", "expired"]),
        step=_names,
        outcome=st.none() | _outcomes,
        reason=_texts,
    ),
)
"""Any message, with few names, so that they meet."""

bodies: st.SearchStrategy[bytes] = st.one_of(
    messages.map(encode),
    messages.map(lambda message: b" " + encode(message).replace(b",", b",\n") + b"\n"),
    st.binary(max_size=40),
    st.sampled_from([b"", b"null", b'"a"', b'{"v":2,"kind":"new"}', b'{"kind":"task","x":"\xff"}', b"[" * 9999]),
)
"""The bytes of any message, and bytes that are none."""

logs: st.SearchStrategy[list[Entry]] = st.lists(bodies, max_size=12).map(lambda stored: log(*stored))
"""Any log of one run, in an order that no run would write."""
