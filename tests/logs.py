"""Logs written by hand, and any log at all, for the tests of what is made from logs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Raw

from baton_schemas.run.asking import child_of
from baton_schemas.run.refs import parse
from baton_schemas.run.state import Entry, read_entry
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import (
    Begun,
    Exchange,
    Fact,
    GivenBack,
    ModelCall,
    Recorded,
    Rejected,
    Retry,
    Spent,
    Unasked,
    Waits,
)
from baton_schemas.wire.messages import (
    After,
    Answer,
    Asked,
    AskedKind,
    Begins,
    Branch,
    Handoff,
    Join,
    Joined,
    Message,
    Note,
    Origin,
    OutcomeRecord,
    Parked,
    Question,
    Reply,
    Result,
    Say,
    Started,
    Task,
    Woken,
)
from baton_schemas.wire.outcomes import Blob, Done, Error, Failed, Outcome, Skipped, State, Usage, Work

FLOW = Raw(
    b'{"name":"report","input":{"topic":{}},"agents":{"a":{"handler":"m:f"}},"steps":{"split":{"agent":"a"},'
    b'"digest":{"agent":"a","each":"split"},"facts":{"agent":"a"},'
    b'"merge":{"agent":"a","after":["digest","facts"]}}}'
)
"""A fan-out over a list beside a single step, and a step that joins both."""

_HEAD: dict[str, Any] = {"flow": "report", "digest": "d1", "run": "r1", "start_seq": 1}
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


def handoff(source: str, step: str, ended: Outcome | None = None, *, of: int = 0, **more: Any) -> Handoff:
    """The handoff that `source` (`start` or a step) gives; of a branch, when `of` says how many there are."""
    cause = Started() if source == "start" else After(step=source, outcome=ended)
    branch = Branch(index=parse(step).index or 0, count=of) if of else None
    return Handoff(**{**_HEAD, "step": step, "cause": cause, "branch": branch, **more})


def first(step: str, *, forked_from: str = "", **more: Any) -> Handoff:
    """The handoff that a run begins with."""
    begins = Begins(flow_body=FLOW, origin=Origin(run=forked_from) if forked_from else None)
    state = State(input={"topic": Raw(b'"tea"')})
    return handoff("start", step, **{"cause": Started(begins=begins), "state": state, "start_seq": 0, **more})


def closing(step: str, branches: dict[str, str] | None = None, **more: Any) -> Handoff:
    """The handoff that closes a join; `more` is what else it says of it."""
    return Handoff(**_HEAD, step=step, cause=Joined(branches=branches or {}, **more))


def woken(step: str, seq: int, number: int = 1, why: str = "its retry") -> Handoff:
    """The handoff that wakes a step which was parked."""
    return Handoff(**_HEAD, step=step, cause=Woken(seq=seq, number=number, why=why))


def reply(branch: str, step: str, ended: Outcome, *, of: int | None = None, **more: Any) -> Reply:
    """The reply of a step, or of a branch out of `of`; with 0, of a fan-out over an empty list."""
    ref = parse(branch)
    place = {} if of is None else {"index": ref.index or 0, "count": of, "each": True}
    return Reply(**{**_HEAD, "step": step, "source": ref.name, "outcome": ended, **place, **more})


def outcome(step: str, ended: Outcome, *, of: int = 0, **more: Any) -> OutcomeRecord:
    branch = Branch(index=parse(step).index or 0, count=of) if of else None
    return OutcomeRecord(**{**_HEAD, "step": step, "outcome": ended, "branch": branch, **more})


def asked(step: str, name: str, number: int = 1, *, kind: AskedKind = "agent", **more: Any) -> Handoff:
    """The handoff of a child that `step` asks for; `more` are its arguments."""
    cause = Asked(
        step=step, kind=kind, number=number, due_s=more.pop("due_s", 0.0), question=more.pop("question", None)
    )
    state = State(input={key: Raw(msgspec.json.encode(value)) for key, value in more.items()})
    return Handoff(**_HEAD, step=child(step, name, number), cause=cause, state=state)


def child(step: str, name: str, number: int = 1) -> str:
    """The name of that child in logs."""
    return child_of(step, "agent", name, {}, number)


def answer(step: str, name: str, ended: Outcome, number: int = 1, **more: Any) -> Answer:
    """The answer to that child."""
    return Answer(**{**_HEAD, "step": step, "child": child(step, name, number), "outcome": ended, **more})


def parked(step: str, name: str, number: int = 1) -> Parked:
    """That a step is held by nobody until that child has answered."""
    return Parked(**_HEAD, step=step, child=child(step, name, number), seq=1)


def join(step: str, number: int = 1, **more: Any) -> Join:
    return Join(**_HEAD, step=step, number=number, **more)


def result(status: str, **more: Any) -> Result:
    return Result(**{**_HEAD, "status": status, **more})


def note(step: str, fact: Fact, worker: str = "w-1") -> Note:
    return Note(run="r1", step=step, fact=fact, worker=worker)


def done(output: str, **work: Any) -> Done:
    return Done(output=Raw(f'"{output}"'.encode()), work=Work(**work))


def failed(step: str, message: str = "no answer", **work: Any) -> Failed:
    attempts = work.get("attempt", 1)
    error = Error(step=step, type="Overloaded", message=message, attempts=attempts)
    return Failed(error=error, work=Work(**work))


_CHILDREN = ["a--kx0", "a--kx1", "split--kx2", "no-3--kx4"]
"""Names of children: one is asked with an agent's name, one has that of a step, one is an event of any name."""
_names = st.sampled_from(
    ["split", "digest", "digest-0", "digest-1", "facts", "merge", "start", "join", "deadline", "", *_CHILDREN]
)
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
_ranges = st.dictionaries(_names, st.sampled_from(["*", "0", "0-1", "0,2", "1-", "-", "x", "9" * 5000]), max_size=3)
_joined = st.builds(Joined, branches=_ranges, counts=_numbers, deadline=st.booleans(), error=st.none() | _errors)
_begins = st.builds(
    Begins, flow_body=_raws, deadline_s=st.floats(0, 9), origin=st.none() | st.builds(Origin, run=_names)
)
_causes = st.one_of(
    st.builds(Started, begins=st.none() | _begins, joined=st.none() | _joined),
    st.builds(After, step=_names, outcome=st.none() | _outcomes),
    _joined,
    st.builds(Woken, seq=_counts, number=_counts, why=_texts),
    st.builds(
        Asked,
        step=_names,
        kind=st.sampled_from(["agent", "flow", "person", "sleep", "event"]),
        due_s=st.floats(),
        question=st.none() | st.builds(Question, text=_texts),
    ),
)
_branches = st.none() | st.builds(Branch, index=_counts, count=_counts, item=_raws)
_contents = _raws | st.sampled_from(
    [
        Raw(b'[{"type":"text","text":"Hm."},{"type":"tool_use","id":"t","name":"digest","input":{"x":["y",1]}}]'),
        Raw(b'[{"type":"tool_use"},{"type":"tool_use","name":7,"input":[1]},{"type":null},{}]'),
    ]
)
_facts = st.one_of(
    st.builds(Begun, attempt=_counts, number=_counts),
    st.builds(Retry, attempt=_counts, error=_errors, delay_s=st.floats(0, 9), work=_works),
    st.builds(GivenBack, attempt=_counts, begun=_counts, reason=_texts),
    st.builds(Waits, what=_names, reason=_texts),
    st.builds(Spent, id=_texts, reason=_texts, work=_works),
    st.builds(Rejected, seq=_counts, subject=_texts, reason=_texts),
    st.builds(Recorded, name=_texts, number=_counts, value=_raws, blob=st.none() | _blobs),
    st.builds(Unasked, children=st.lists(_names, max_size=2), count=_counts),
    st.builds(ModelCall, request_sha256=_texts, text=_raws, content=_contents, model=_texts, usage=_usages),
    st.builds(Exchange, request_sha256=_texts, number=_counts, body=_raws, model=_texts, usage=_usages),
)

messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Task, input=st.dictionaries(_names, _raws, max_size=2), run=_names),
    st.builds(
        handoff,
        _names,
        _names,
        cause=_causes,
        state=_states,
        start_seq=_counts,
        branch=_branches,
        copied=st.booleans(),
    ),
    st.builds(reply, _names, _names, _outcomes, index=_counts, count=_counts, each=st.booleans()),
    st.builds(outcome, _names, _outcomes, branch=_branches, copied=st.booleans()),
    st.builds(
        lambda step, child, ended, who: Answer(**_HEAD, step=step, child=child, outcome=ended, who=who, note=who),
        _names,
        st.sampled_from(_CHILDREN),
        _outcomes,
        _texts,
    ),
    st.builds(lambda step, child: Parked(**_HEAD, step=step, child=child, seq=1), _names, st.sampled_from(_CHILDREN)),
    st.builds(Say, answer=_raws, who=_texts, note=_texts),
    st.builds(join, _names, _counts, came=_ranges, failed=_ranges, counts=_numbers, deadline=st.booleans()),
    st.builds(note, _names, _facts),
    st.builds(
        result,
        st.sampled_from(["done", "failed", "cancelled", "expired"]),
        flow=st.sampled_from(["report", "other"]),
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
