"""Inputs: records with named fields, checked when a run starts, and how a command takes them as JSON."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from baton_actors.cli.exits import BadArgument
from baton_actors.cli.inputs import read_pairs
from baton_schemas.errors import FlowError, InputError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step, decode_flow, encode_flow
from baton_schemas.flow.inputs import check_input, encode_input
from baton_schemas.flow.types import PATTERN, python_type, type_of

EMAILS = Field(
    type="list",
    fields={
        "id": Field(type="int"),
        "body": Field(),
        "prio": Field(type="str?"),
        "lang": Field(default=Raw(b'"en"')),
        "sender": Field(type="dict?", fields={"name": Field(), "tags": Field(type="list[str]", default=Raw(b"[]"))}),
    },
)
GOOD = {"id": 1, "body": "hi"}


def flow_of(**fields: Field) -> Flow:
    return Flow(name="f", input=fields, agents={"a": Agent(handler="m:f")}, steps={"a": Step(agent="a")})


def checked(field: Field, value: Any) -> Any:
    return msgspec.json.decode(check_input(flow_of(emails=field), encode_input({"emails": value}))["emails"])


@pytest.mark.parametrize(
    ("value", "place", "reason"),
    [
        ([GOOD, GOOD, GOOD, {"id": 1}], "emails[3].body", "missing; expected str; it has: id"),
        ([{**GOOD, "id": "1"}], "emails[0].id", 'found the string "1"; expected int'),
        ([{**GOOD, "id": True}], "emails[0].id", "found true; expected int"),
        ([{**GOOD, "id": 1.5}], "emails[0].id", "found the number 1.5; expected int"),
        ([{**GOOD, "id": None}], "emails[0].id", "found null; expected int"),
        ([{**GOOD, "prio": 3}], "emails[0].prio", "found the number 3; expected str?"),
        ([{**GOOD, "sender": {}}], "emails[0].sender.name", "missing; expected str"),
        ([{**GOOD, "sender": {"name": "a", "tags": ["x", 3]}}], "emails[0].sender.tags[1]", "found the number 3"),
        ([GOOD, "text"], "emails[1]", 'found the string "text"; expected dict'),
        ([{}], "emails[0].id", "missing; expected int"),
        (GOOD, "emails", "found an object; expected list[dict]"),
    ],
)
def test_record_that_does_not_fit_is_refused_with_its_place(value: Any, place: str, reason: str) -> None:
    with pytest.raises(InputError) as raised:
        checked(EMAILS, value)
    assert raised.value.place == place
    assert raised.value.reason.startswith(reason)
    assert str(raised.value).startswith(f"flow 'f', input '{place}': {reason}")


def test_record_keeps_what_it_has_besides_and_gets_what_has_a_default() -> None:
    assert checked(EMAILS, [{**GOOD, "more": [1]}, {**GOOD, "lang": "de", "sender": {"name": "a"}}]) == [
        {**GOOD, "more": [1], "lang": "en"},
        {**GOOD, "lang": "de", "sender": {"name": "a", "tags": []}},
    ]
    raw = Raw(b'[ {"id": 1, "body": "hi", "lang": "en"} ]')
    assert bytes(check_input(flow_of(emails=EMAILS), {"emails": raw})["emails"]) == bytes(raw), "nothing was added"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("list[dict]", [{}], [1]),
        ("list[list[int]]", [[1], []], [[1.5]]),
        ("list[str?]", ["a", None], [1]),
        ("list[float]", [1, 1.5], ["a"]),
        ("int?", None, "x"),
        ("any", {"x": None}, ...),
        ("list[any]", [1, None, {}], {}),
        ("float", 1, True),
        ("bool", False, 0),
    ],
)
def test_types_take_what_they_say(kind: str, good: Any, bad: Any) -> None:
    assert checked(Field(type=kind), good) == good
    if bad is not ...:
        with pytest.raises(InputError):
            checked(Field(type=kind), bad)


@pytest.mark.parametrize(
    ("text", "python"),
    [("str", str), ("list", list), ("list[int?]", list[int | None]), ("dict?", dict | None),
     ("list[list[str]]", list[list[str]]),
     ("list[any]", list[Any]), ("any", Any), ("list[float]?", list[float] | None)],
)  # fmt: skip
def test_type_is_one_of_python_and_has_the_pattern(text: str, python: Any) -> None:
    assert python_type(type_of(Field(type=text))) == python
    assert re.match(PATTERN, text)
    assert not re.match(PATTERN, f"{text}x")


def test_optional_input_that_is_not_given_is_null() -> None:
    assert bytes(check_input(flow_of(note=Field(type="str?")), {})["note"]) == b"null"
    with pytest.raises(InputError, match="'note': missing; expected str"):
        check_input(flow_of(note=Field(type="str")), {})


@pytest.mark.parametrize(
    ("field", "place", "said"),
    [
        (Field(type="strr"), "type", "Did you mean 'str'?"),
        (Field(type="list[dct]"), "type", "found 'dct'; expected one of str, int, float, bool, dict, list, file, any"),
        (Field(type="str??"), "type", "found 'str??'"),
        (Field(type="list[" * 40 + "str" + "]" * 40), "type", "at most 16 within each other"),
        (Field(type="str", fields={"a": Field()}), "fields", "expected them on a dict, or on a list of dicts"),
        (Field(type="dict", fields={"a": Field(type="x")}), "fields.a.type", "found 'x'"),
        (Field(type="dict", fields={"a": Field(type="int", default=Raw(b'"x"'))}), "fields.a.default", "type int"),
        (Field(values=["a", "b"], default=Raw(b'"c"')), "default", 'expected "a" or "b"'),
        (Field(type="dict", fields={"": Field()}), "fields.", "a field without a name"),
        (Field(type="dict", fields={str(n): Field() for n in range(501)}), "fields", "at most 500"),
        (Field(type="list", fields={"a": Field()}, default=Raw(b'[{"b":1}]')), "default", "default[0].a"),
    ],
)  # fmt: skip
def test_type_that_is_none_is_refused_with_its_place(field: Field, place: str, said: str) -> None:
    with pytest.raises(FlowError) as raised:
        check_flow(flow_of(emails=field))
    assert raised.value.place == f"input.emails.{place}"
    assert said in str(raised.value)


def test_records_nested_too_deep_are_refused() -> None:
    field = Field()
    for _ in range(20):
        field = Field(type="dict", fields={"a": field})
    with pytest.raises(FlowError, match="records nested too deep"):
        check_flow(flow_of(emails=field))


def test_fields_are_written_in_a_line_or_as_a_table() -> None:
    rest = '[agents.a]\nhandler = "m:f"\n[steps.a]\n'
    line = load_flow(
        'name = "f"\n[input.mails]\ntype = "list"\nfields = { id = "int", who = { fields = { name = "str?" } } }\n'
        + rest
    )
    table = load_flow(
        'name = "f"\n[input.mails]\ntype = "list"\n[input.mails.fields]\nid = "int"\n'
        '[input.mails.fields.who.fields]\nname = "str?"\n' + rest
    )
    assert line == table == decode_flow(encode_flow(line))
    with pytest.raises(
        FlowError, match=r"line 4, input\.mails.fields: found the string 'id'; expected a table of types"
    ):
        load_flow('name = "f"\n[input.mails]\ntype = "list"\nfields = "id"\n' + rest)


def test_a_flow_of_before_is_the_same_flow() -> None:
    flow = flow_of(topic=Field(), topics=Field(type="list[str]", default=Raw(b"[]")))
    assert b"fields" not in encode_flow(flow), "its digest is the one that it had"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda t: st.lists(t) | st.dictionaries(st.text(), t)
    )
)
def test_whatever_is_given_is_taken_or_refused_with_a_place(value: Any) -> None:
    try:
        assert isinstance(checked(EMAILS, value), list)
    except InputError as error:
        assert error.place.startswith("emails")


def test_ten_thousand_records_are_checked_in_a_moment() -> None:
    assert len(checked(EMAILS, [GOOD] * 10_000)) == 10_000


# ---- on the command line ----------------------------------------------------------------------------


def given_by(argument: str, **fields: Field) -> Any:
    return read_pairs(flow_of(**(fields or {"emails": EMAILS})), [argument])


RECORDS = [{**GOOD, "lang": "en"}, {"id": 2, "body": "ho", "lang": "en"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mails.json", '[{"id": 1, "body": "hi"},\n {"id": 2, "body": "ho"}]'),
        ("mails.jsonl", '{"id": 1, "body": "hi"}\n\n{"id": 2, "body": "ho"}\r\n'),
        ("mails.txt", '\ufeff{"id": 1,\n "body": "hi"} {"id": 2, "body": "ho"}'),
    ],
)
def test_list_of_records_is_read_from_a_file(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    assert given_by(f"emails=@{tmp_path / name}")["emails"] == RECORDS


@pytest.mark.parametrize("argument", ["emails=-", "emails=@-"])
def test_hyphen_reads_standard_input(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(msgspec.json.encode(RECORDS))))
    assert given_by(argument)["emails"] == RECORDS


def test_items_may_be_given_one_by_one() -> None:
    pairs = ['emails={"id": 1, "body": "hi"}', 'emails={"id": 2, "body": "ho"}']
    assert read_pairs(flow_of(emails=EMAILS), pairs)["emails"] == RECORDS
    assert given_by("x=7", x=Field(type="int?")) == {"x": 7}
    assert given_by("x=null", x=Field(type="int?")) == {"x": None}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", '[{"id": 1},\n {"id": 2,, }]', "a.json, line 2, column 11: no JSON (expecting property name"),
        ("a.jsonl", '{"id": 1, "body": ""}\n{"id": }', "a.jsonl, line 2, column 8: no JSON (expecting value)"),
        ("a.json", "[1, 2", "a.json, line 1, column 6: no JSON (expecting ',' delimiter); expected list[dict] in JSON"),
        ("a.json", "[NaN]", "a.json: no JSON (NaN is no number that JSON has)"),
        ("a.json", "", "a.json is empty; expected list[dict] in JSON"),
        ("a.json", '[{"id": 1}]', "'emails[0].body': missing; expected str; it has: id (in "),
        ("a.jsonl", '{"id": 1}', "'emails[0].body': missing"),
        ("a.json", "[" * 100_000, "nested too deep"),
    ],
)
def test_json_that_is_none_is_refused_with_file_line_and_column(
    name: str, text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(InputError) as raised:
        given_by(f"emails=@{tmp_path / name}")
    assert said in str(raised.value)


def test_standard_input_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"text")))
    with pytest.raises(BadArgument, match="'b' is to be read from standard input, as 'a' was"):
        read_pairs(flow_of(a=Field(), b=Field()), ["a=-", "b=@-"])


def test_empty_json_lines_are_an_empty_list(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    assert given_by(f"emails=@{tmp_path}/none.jsonl")["emails"] == []
