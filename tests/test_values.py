"""Values are checked where they come in, and an error says where in the value it is wrong."""

from __future__ import annotations

import enum
import json
import math
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import FrameType
from typing import Any, NamedTuple

import hypothesis.strategies as st
import msgspec
import pydantic
import pytest
from hypothesis import example, given

from baton_schemas.errors import BadContent
from baton_schemas.wire.values import NESTING_MAX, check_json, clean_text, encode_value

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


class Name(str):
    def __str__(self) -> str:
        return "not what it holds"


class Count(int): ...


class Ratio(float): ...


class Colour(enum.Enum):
    RED = "red"


class Place(NamedTuple):
    x: int


class Model(pydantic.BaseModel):
    x: float


@dataclass
class Data:
    name: str


class Fields(msgspec.Struct):
    items: list[Any]


def nested(levels: int, inside: str = "") -> bytes:
    return ('{"a":[' * (levels // 2) + "[" * (levels % 2) + inside + "]" * (levels % 2) + "]}" * (levels // 2)).encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"items":[{"name":"fine"},{"name":"ab\xff"}]}', "input.items[1].name: the byte 0xff at character 2 is not"),
        (b'{"a":"\\ud83d"}', "input.a: a lone surrogate (U+D83D) at character 0"),
        (b'{"a":"x\\udc00y"}', "input.a: a lone surrogate (U+DC00) at character 1"),
        (b'{"\\ud83d":1}', "a key of input: a lone surrogate"),
        (b'{"a":"\xed\xa0\x80"}', "input.a: the byte 0xed at character 0 is not UTF-8"),
        (b'{"a b":["\xff"]}', "input['a b'][0]: the byte 0xff"),
        (b"[1,NaN]", "input[1]: nan is no number that JSON has"),
        (b"[1e999]", "input[0]: inf is no number"),
        (b"[" + b"9" * 5_000 + b"]", "input[0]: inf is no number"),
        (b"[1,", "input: no JSON"),
        (b"", "input: no JSON"),
        (b"\xff", "input: no JSON"),
        (b'{"a":1} x', "input: no JSON"),
        (nested(NESTING_MAX + 1), f"input: nested deeper than {NESTING_MAX}"),
        (nested(970), "input: nested deeper"),
        (nested(100_000), "input: nested deeper"),
    ],
)
def test_bytes_that_cannot_be_read_everywhere_are_refused_with_the_place(raw: bytes, message: str) -> None:
    with pytest.raises(BadContent) as caught:
        check_json(raw, "input")
    assert str(caught.value).startswith(message)
    str(caught.value).encode()  # the error itself can be written


@pytest.mark.parametrize(
    "raw",
    [
        b"null",
        b'"\\ud83d\\ude00"',
        '"é😀\x7f"'.encode(),
        nested(NESTING_MAX),
        nested(NESTING_MAX - 1, '"[[[[[[[[[[{{{{{{{{{\\"[[[[[[[[[\\\\"' + ',"["' * 80),
        b"[" + b"[]," * 1_000 + b"[]]",
        json.dumps(["\\", '\\"[', "[" * 100] * 20).encode(),
    ],
)
def test_bytes_that_everybody_can_read_pass(raw: bytes) -> None:
    check_json(raw, "input")
    check_json(msgspec.Raw(raw), "input")


@given(JSON)
@example(["[[" * 40, '"', "\\"])
def test_any_json_value_passes_both_ways(value: Any) -> None:
    check_json(json.dumps(value).encode(), "value")
    assert msgspec.json.decode(encode_value(value, "value")) == value


@given(st.integers(1, 130), st.lists(st.text(), max_size=5))
def test_nesting_is_counted_and_brackets_in_text_are_not(levels: int, texts: list[str]) -> None:
    raw = nested(levels, ",".join(json.dumps(text) for text in texts))
    if levels > NESTING_MAX:
        with pytest.raises(BadContent, match="nested deeper"):
            check_json(raw, "value")
    else:
        check_json(raw, "value")


def test_size_is_bounded() -> None:
    with pytest.raises(BadContent, match="input: 12 bytes as JSON; at most 10 are taken"):
        check_json(b'"0123456789"', "input", max_bytes=10)
    with pytest.raises(BadContent, match="output: 12 bytes"):
        encode_value("0123456789", "output", max_bytes=10)


def lines_run(rows: int) -> int:
    """Return how many lines of Python a check of so many rows runs."""
    table = [{"name": f"row [{i}]", "text": 'a "quoted" \\ [text] ' * 5, "tags": [[i], {}]} for i in range(rows)]
    raw, lines = json.dumps(table).encode(), 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        lines += event == "line" and frame.f_code.co_filename == check_json.__code__.co_filename
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        check_json(raw, "input")
    finally:
        sys.settrace(before)
    return lines


def test_megabytes_are_checked_without_a_loop_in_python() -> None:
    assert lines_run(20_000) == lines_run(100) > 5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"items": [1, {"name": "0123456789abcdef \ud83d"}]}, "output.items[1].name: a lone surrogate (U+D83D) at"),
        ({"\ud83d": 1}, "a key of output: a lone surrogate"),
        ("a\udcff", "output: the byte 0xff at character 1 is not UTF-8"),
        ({"a": [1.0, math.nan]}, "output.a[1]: nan is no number"),
        ({"a": [None, -math.inf]}, "output.a[1]: -inf is no number"),
        (Fields(items=[Data(name="\ud83d")]), "output.items[0].name: a lone surrogate"),
        (Fields(items=[math.inf]), "output.items[0]: inf is no number"),
        ([Model(x=math.inf)], "output[0].x: inf is no number"),
        ([Ratio("nan")], "output[0]: nan is no number"),
        ([{"a": object()}], "output[0].a: object cannot be JSON"),
        ({"a": {"b": {1, 1j}}}, "output.a.b["),
        ({"a": {None: 1}}, "output.a: a key is a NoneType; keys are text or numbers"),
        ({"a": {(1, 2): 1}}, "output.a: a key is a tuple; keys are text or numbers"),
        ([Data], "output[0]: type cannot be JSON"),
        pytest.param(10**5_000, "output: int cannot be JSON", id="a long number"),
    ],
)
def test_python_value_that_json_cannot_hold_is_refused_with_the_place(value: Any, message: str) -> None:
    with pytest.raises(BadContent) as caught:
        encode_value(value, "output")
    assert str(caught.value).startswith(message)


def test_value_within_itself_and_one_too_deep_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(NESTING_MAX):
        deep = [deep]
    for value in (loop, deep):
        with pytest.raises(BadContent, match="nested deeper"):
            encode_value(value, "output")


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (None, b"null"),
        ("", b'""'),
        ("null", b'"null"'),
        (Name("a"), b'"a"'),
        ({Name("k"): Count(3)}, b'{"k":3}'),
        ([Ratio(2.5)], b"[2.5]"),
        (Colour.RED, b'"red"'),
        (Place(1), b"[1]"),
        (Model(x=1), b'{"x":1.0}'),
        (Data(name="n"), b'{"name":"n"}'),
        (b"x", b'"eA=="'),
        (Decimal("1.5"), b'"1.5"'),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (datetime(2026, 1, 2, tzinfo=UTC), b'"2026-01-02T00:00:00Z"'),
        ({1, 2}, b"[1,2]"),
        (type("float64", (), {"__module__": "numpy", "tolist": lambda self: 1.5})(), b"1.5"),
        (msgspec.Raw(b'{"a": 1}'), b'{"a": 1}'),
    ],
)
def test_types_beyond_plain_data_have_a_form_in_json(value: Any, encoded: bytes) -> None:
    assert encode_value(value, "output") == encoded


def test_what_a_value_raises_while_it_is_encoded_is_said() -> None:
    class Broken:
        def model_dump(self, mode: str) -> Any:
            raise RuntimeError("no form today \ud83d")

    with pytest.raises(BadContent, match=r"output\[0\]: .*Broken cannot be JSON: no form today"):
        encode_value([Broken()], "output")


@given(st.text(st.characters(exclude_categories=())), st.integers(1, 50))
def test_clean_text_is_valid_and_bounded(text: str, limit: int) -> None:
    clean = clean_text(text, limit)
    assert len(clean) <= limit
    assert "\0" not in clean
    clean.encode()


def test_clean_text_keeps_what_is_fine_and_joins_the_halves_of_a_character() -> None:
    assert clean_text("a\nb", 10) == "a\nb"
    assert clean_text("\ud83d" + "\ude00", 10) == "😀"
    assert clean_text("\ud83d!\0", 10) == "\ufffd!\ufffd"
    assert clean_text("x" * 11, 10) == "x" * 9 + "…"
