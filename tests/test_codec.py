"""What `decode` takes and what it refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from baton_schemas.errors import BadMessage
from baton_schemas.wire.codec import decode, decode_task, encode
from baton_schemas.wire.messages import VERSION, Handoff, Task

HANDOFF: dict[str, Any] = {
    "kind": "handoff",
    "v": VERSION,
    "flow": "report",
    "digest": "d",
    "run": "r",
    "step": "write",
    "source": "start",
}


def as_json(**changes: Any) -> bytes:
    return msgspec.json.encode({**HANDOFF, **changes})


def test_unknown_fields_are_ignored() -> None:
    plain = decode(as_json())
    assert isinstance(plain, Handoff)
    assert decode(as_json(colour="blue", state={"mood": "good"})) == plain


def test_a_newer_version_is_refused_with_the_version_that_is_read() -> None:
    with pytest.raises(BadMessage, match=f"schema version {VERSION + 1}; .* up to {VERSION}: upgrade") as caught:
        decode(as_json(v=VERSION + 1), "baton.handoff.x")
    assert caught.value.subject == "baton.handoff.x"


def test_a_newer_version_is_told_apart_from_a_wrong_type() -> None:
    with pytest.raises(BadMessage, match="schema version 99"):
        decode(as_json(v=99, step={"now": "an object"}))


def test_an_unknown_older_version_is_refused() -> None:
    with pytest.raises(BadMessage, match="schema version 0 is unknown"):
        decode(as_json(v=0))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step": 3}, r"Expected `str`, got `int` - at `\$\.step`"),
        ({"index": "1"}, r"Expected `int`, got `str` - at `\$\.index`"),
        ({"state": []}, r"at `\$\.state`"),
        ({"outcome": {"status": "fine"}}, r"at `\$\.outcome\.status`"),
        ({"kind": "hand-off"}, "'hand-off'"),
        ({"kind": None}, "kind"),
    ],
)
def test_a_wrong_type_or_kind_is_refused_with_its_place(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadMessage, match=reason):
        decode(as_json(**changes))


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[]", b"null", b'{"kind": "handoff"}', b"nonsense"])
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(data)


def test_a_task_of_a_foreign_client_needs_nothing_but_the_input() -> None:
    task = decode_task(b'{"input": {"topic": "tides"}}')
    assert task.v == VERSION
    assert bytes(task.input["topic"]) == b'"tides"'
    assert decode(encode(task)) == task
    assert decode_task(b"{}") == Task()


def test_a_task_that_is_no_object_says_what_is_expected() -> None:
    with pytest.raises(BadMessage, match=r"expected .*input"):
        decode_task(b'"tides"')
    with pytest.raises(BadMessage, match="up to"):
        decode_task(b'{"v": 99}')
