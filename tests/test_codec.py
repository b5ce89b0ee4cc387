"""What `decode` takes and what it refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given

from baton_schemas.errors import BadMessage, NewerMessage
from baton_schemas.wire.codec import decode, decode_task, encode
from baton_schemas.wire.messages import FIRST, VERSION, Handoff, Message, Task

from .logs import messages

HANDOFF: dict[str, Any] = {
    "kind": "handoff",
    "v": VERSION,
    "flow": "report",
    "digest": "d",
    "run": "r",
    "step": "write",
    "cause": {"by": "start"},
}


def as_json(**changes: Any) -> bytes:
    return msgspec.json.encode({**HANDOFF, **changes})


@given(messages)
def test_every_message_is_the_same_after_encoding_and_decoding(message: Message) -> None:
    assert decode(encode(message)) == message


@given(messages)
def test_every_message_begins_with_its_kind_and_the_version_of_its_schema(message: Message) -> None:
    assert list(msgspec.json.decode(encode(message)))[:2] == ["kind", "v"]


def test_unknown_fields_are_ignored() -> None:
    plain = decode(as_json())
    assert isinstance(plain, Handoff)
    assert decode(as_json(colour="blue", state={"mood": "good"}, cause={"by": "start", "of": 1})) == plain


def test_a_later_version_is_no_bad_message_and_says_which_is_read() -> None:
    with pytest.raises(NewerMessage, match=f"schema version {VERSION + 1}; .* up to {VERSION}: upgrade") as caught:
        decode(as_json(v=VERSION + 1), "baton.handoff.x")
    assert (caught.value.subject, caught.value.found, caught.value.known) == ("baton.handoff.x", VERSION + 1, VERSION)
    assert not isinstance(caught.value, BadMessage)


@pytest.mark.parametrize(
    "changes",
    [{"step": {"now": "an object"}}, {"kind": "dream"}, {"kind": None}, {"cause": {"by": "dream"}}, {"run": 7}],
)
def test_a_later_version_is_told_apart_from_a_wrong_type_or_kind(changes: dict[str, Any]) -> None:
    with pytest.raises(NewerMessage, match="schema version 99"):
        decode(as_json(v=99, **changes))


@pytest.mark.parametrize("version", [0, -1])
def test_an_unknown_older_version_is_refused(version: int) -> None:
    with pytest.raises(BadMessage, match=f"schema version {version} is unknown"):
        decode(as_json(v=version))
    with pytest.raises(BadMessage, match=f"schema version {version} is unknown"):
        decode_task(msgspec.json.encode({"v": version}))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step": 3}, r"Expected `str`, got `int` - at `\$\.step`"),
        ({"branch": {"index": "1", "count": 2}}, r"Expected `int`, got `str` - at `\$\.branch\.index`"),
        ({"state": []}, r"at `\$\.state`"),
        ({"cause": {"by": "after", "step": "a", "outcome": {"status": "fine"}}}, r"at `\$\.cause\.outcome\.status`"),
        ({"cause": {"by": "dream"}}, r"'dream' - at `\$\.cause\.by`"),
        ({"cause": {}}, "missing required field `by`"),
        ({"kind": "hand-off"}, "'hand-off'"),
        ({"kind": None}, "kind"),
        ({"v": "1"}, r"at `\$\.v`"),
    ],
)
def test_a_wrong_type_or_kind_is_refused_with_its_place(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadMessage, match=reason):
        decode(as_json(**changes))


def test_a_fact_of_a_kind_that_this_version_does_not_have_is_refused() -> None:
    body = {"kind": "note", "v": VERSION, "run": "r", "step": "s", "fact": {"type": "dream"}}
    with pytest.raises(BadMessage, match=r"'dream' - at `\$\.fact\.type`"):
        decode(msgspec.json.encode(body))
    with pytest.raises(NewerMessage):
        decode(msgspec.json.encode({**body, "v": VERSION + 1}))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"null",
        b'{"kind": "handoff"}',
        b"nonsense",
        b"[" * 99_999,
        b'{"kind":"task","run":"\xff"}',
    ],
    ids=lambda data: repr(data[:20]),
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(data)
    if data != b'{"kind": "handoff"}':
        with pytest.raises(BadMessage):
            decode_task(data)


def test_a_task_of_a_foreign_client_needs_nothing_but_the_input() -> None:
    task = decode_task(b'{"input": {"topic": "tides"}}')
    assert task.v == FIRST
    assert bytes(task.input["topic"]) == b'"tides"'
    assert decode(encode(task)) == task
    assert decode_task(b"{}") == Task()


def test_a_task_that_is_no_object_says_what_is_expected() -> None:
    with pytest.raises(BadMessage, match=r"expected .*input"):
        decode_task(b'"tides"')


@pytest.mark.parametrize("data", [b'{"v": 99}', b'{"v": 99, "input": ["of another type"]}'])
def test_a_task_of_a_later_version_is_no_bad_message(data: bytes) -> None:
    with pytest.raises(NewerMessage, match="up to"):
        decode_task(data)
