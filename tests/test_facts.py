"""The keys of notes: what a fact is about decides where it is written, and nothing else does."""

from __future__ import annotations

import pytest
from msgspec import Raw
from msgspec.structs import replace

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
    key_of,
)
from baton_schemas.wire.names import TOKEN, short_hash
from baton_schemas.wire.outcomes import Error, Usage, Work

ERROR = Error(step="write", type="Overloaded", message="no answer")
KEYS: list[tuple[Fact, str]] = [
    (Begun(attempt=3, number=2), "begun-2"),
    (Retry(attempt=3, error=ERROR), "retry-3"),
    (GivenBack(attempt=3, seq=17, delivered=2), "back-17-2"),
    (Waits(what="provider", reason="429", attempt=3), "waits-provider-0"),
    (Spent(id="01kb", reason="cut off", work=Work()), "spent-01kb"),
    (Rejected(seq=17, subject="b.handoff.x", reason="no JSON"), "17"),
    (ModelCall(request_sha256="ab" * 32), "model-" + "ab" * 16),
    (Exchange(request_sha256="ab" * 32, number=2), "sdk-" + "ab" * 16 + "-2"),
    (Recorded(name="the time", number=2), "rec-" + short_hash("the time", "2")),
    (Unasked(children=["helper--kx"], count=1, seq=17, delivered=3), "unasked-17-3"),
]
SAME: list[tuple[Fact, Fact]] = [
    (Begun(attempt=1, number=2), Begun(attempt=3, number=2)),
    (
        Retry(attempt=3, error=ERROR),
        Retry(attempt=3, error=replace(ERROR, type="E"), delay_s=9.0, work=Work(attempt=3)),
    ),
    (GivenBack(attempt=1, seq=8, delivered=1), GivenBack(attempt=1, begun=2, reason="stops", seq=8, delivered=1)),
    (Waits(what="provider", reason="429"), Waits(what="provider", reason="529", attempt=2)),
    (Recorded(name="n", value=Raw(b"1")), Recorded(name="n", value=Raw(b"2"))),
    (Rejected(seq=1, subject="a", reason="a"), Rejected(seq=1, subject="b", reason="b")),
    (
        ModelCall(request_sha256="0" * 64, text=Raw(b'"a"')),
        ModelCall(request_sha256="0" * 64, text=Raw(b'"b"'), attempt=2, usage=Usage(input_tokens=1)),
    ),
]


@pytest.mark.parametrize(("fact", "key"), KEYS, ids=[key for _, key in KEYS])
def test_key_of_a_fact_is_a_token(fact: Fact, key: str) -> None:
    assert key_of(fact) == key
    assert TOKEN.match(key)


@pytest.mark.parametrize(("one", "other"), SAME, ids=[type(one).__name__ for one, _ in SAME])
def test_two_workers_that_tell_the_same_thing_differently_write_on_one_subject(one: Fact, other: Fact) -> None:
    assert one != other
    assert key_of(one) == key_of(other)


def test_facts_of_different_things_never_share_a_key() -> None:
    assert len({key_of(fact) for fact, _ in KEYS}) == len(KEYS)
    assert key_of(ModelCall(request_sha256="0" * 64)) != key_of(ModelCall(request_sha256="0" * 31 + "1" * 33))
