"""What `output` may be: the same schema as the official SDK would send, checked when the flow is loaded."""

from __future__ import annotations

import copy
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import anthropic
import jsonschema_rs
import msgspec
import pytest
from msgspec import Raw

from baton_actors import Flow
from baton_actors.agents.files import code_files
from baton_actors.agents.fitting import misfits
from baton_actors.agents.loading import find_flow, load_handlers
from baton_schemas.errors import FlowError, InputError
from baton_schemas.flow.file import build_flow, load_flow
from baton_schemas.flow.flow import decode_flow, encode_flow, flow_digest
from baton_schemas.flow.inputs import check_input
from baton_schemas.flow.json_fit import fitted, type_of_schema
from baton_schemas.flow.json_schema import BadSchema, normal
from baton_schemas.flow.outputs import asked_schema, check_limits, for_api
from baton_schemas.flow.questions import BadAnswer, expects, output_of
from baton_schemas.flow.questions import fitted as answered
from baton_schemas.flow.schema import flow_schema
from baton_schemas.flow.tools import object_of
from baton_schemas.flow.types import Unfit
from baton_schemas.flow.versions import version_needed
from baton_schemas.wire.messages import ASKING, FIRST, Question


class Topic(msgspec.Struct):
    """What is to be looked into."""

    title: str
    weight: float = 1.0
    tags: list[str] = []


class Triage(msgspec.Struct):
    kind: Literal["refund", "complaint"]
    topics: list[Topic]
    note: str | None = None
    main: Topic | None = None


@dataclass
class Verdict:
    verdict: str


class Typed(TypedDict):
    verdict: str
    score: int


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


SCHEMAS: list[dict[str, Any]] = [
    msgspec.json.schema(Triage),
    msgspec.json.schema(Typed),
    {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "title": "Mail",
        "properties": {
            "stars": {"type": "integer", "minimum": 1, "maximum": 5, "description": "of five"},
            "day": {"type": "string", "format": "date"},
            "code": {"type": "string", "pattern": "^[A-Z]{3}$", "minLength": 3},
            "color": {"type": "string", "format": "color"},
            "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3, "uniqueItems": True},
            "two": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
            "size": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
            "fixed": {"const": "mail"},
            "maybe": {"type": ["string", "null"], "description": "or none"},
            "mixed": {"enum": ["x", 1, None, True]},
        },
        "required": ["stars", "day", "code", "tags", "size", "maybe"],
        "additionalProperties": False,
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=["struct", "typed", "all"])
def test_the_sdk_would_send_the_same(schema: dict[str, Any]) -> None:
    sent = for_api(normal(schema))
    assert anthropic.transform_schema(copy.deepcopy(sent)) == sent, "nothing is left to be made fit"
    for name, part in normal(schema)["properties"].items():
        if not isinstance(part.get("type"), list):  # the SDK takes none
            want = anthropic.transform_schema(copy.deepcopy(part))
            assert anthropic.transform_schema(for_api(part)) == for_api(part)
            assert want.keys() == for_api(part).keys(), name


def test_parts_that_both_take_are_the_same_to_the_letter() -> None:
    (schema,) = SCHEMAS[2:]
    properties = {name: part for name, part in normal(schema)["properties"].items() if name not in ("maybe", "mixed")}
    part = {"type": "object", "properties": properties, "required": ["stars"], "description": "A mail."}
    assert for_api(part) == anthropic.transform_schema(copy.deepcopy(part))


@pytest.mark.parametrize(
    "value",
    [
        {"stars": 3, "day": "2026-01-31", "code": "ABC", "tags": ["a"], "size": 3, "maybe": None},
        {"stars": 6, "day": "2026-01-31", "code": "ABC", "tags": ["a"], "size": 3, "maybe": None},
        {"stars": 3, "day": "d", "code": "abc", "tags": ["a"], "size": "s", "maybe": "m", "fixed": "mail"},
        {"stars": 3, "day": "d", "code": "ABC", "tags": ["a", "a"], "size": "s", "maybe": "m"},
        {"stars": 3, "day": "d", "code": "ABC", "tags": [], "size": "s", "maybe": "m"},
        {"stars": 3, "day": "d", "code": "ABC", "tags": ["b"], "size": 1.5, "maybe": "m"},
        {"stars": 3, "day": "d", "code": "ABC", "tags": ["b"], "size": 1, "maybe": "m", "more": 1},
        {"stars": True, "day": "d", "code": "ABC", "tags": ["b"], "size": 1, "maybe": "m"},
        {"stars": 3, "day": "d", "code": "ABC", "tags": ["b"], "size": 1, "maybe": "m", "share": 1},
        {"stars": 3, "day": "d", "code": "ABC", "tags": ["b"], "size": 1, "maybe": "m", "share": 0.5, "mixed": True},
        {"stars": 3, "day": "d", "code": "ABC", "tags": ["b"], "size": 1, "maybe": "m", "mixed": 2},
        {"stars": 3, "day": "d", "code": "ABC", "tags": ["b"], "size": 1},
        {"stars": 3, "day": "d", "code": "ABC", "tags": ["b"], "size": 1, "maybe": "m", "two": [True]},
        {"stars": 3, "day": "d", "code": "ABC", "tags": ["b"], "size": 1, "maybe": "m", "two": [True, False]},
        [],
        None,
    ],
)
def test_what_fits_is_what_another_reader_of_json_schema_says_too(value: Any) -> None:
    (schema,) = SCHEMAS[2:]
    valid = jsonschema_rs.validator_for(schema).is_valid(value)
    try:
        found = fitted(normal(schema), value, "")
    except Unfit as error:
        assert not valid, error
        assert "expected" in error.reason
    else:
        assert valid and found == value


def test_type_of_a_schema_says_what_placeholders_may_name() -> None:
    kind = type_of_schema(normal(msgspec.json.schema(Triage)))
    assert kind.fields is not None
    assert {name: str(each) for name, each in kind.fields.items()} == {
        "kind": "str",
        "topics": "list[dict]",
        "note": "str?",
        "main": "dict?",
    }
    assert set(kind.fields["kind"].values) == {"refund", "complaint"}


# ---- schemas that no answer can be asked to fit --------------------------------------------------


def an_object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "place", "says"),
    [
        ({"type": "array", "items": {"type": "string"}}, "", "expected an object, with its keys in `properties`"),
        (an_object(a={"type": "object"}), "/properties/a", "an object whose keys are not known"),
        (an_object(a={"type": "array"}), "/properties/a/items", "a schema without a `type`"),
        (an_object(a={"type": "strin"}), "/properties/a", "the type 'strin'"),
        (an_object(a=True), "/properties/a", "a schema that takes anything"),
        (an_object(a={"not": {"type": "null"}}), "/properties/a", "the API has no `not`"),
        (an_object(a={"type": "string", "requierd": []}), "/properties/a", "unknown key `requierd`"),
        (an_object(a={"type": "string", "minLength": "3"}), "/properties/a/minLength", "a whole number"),
        (an_object(a={"type": "string", "pattern": "("}), "/properties/a/pattern", "a pattern"),
        (an_object(a={"enum": [{}]}), "/properties/a/enum", "texts, numbers, true, false or null"),
        (an_object(a={"enum": []}), "/properties/a/enum", "a list of 1 to"),
        (an_object(a={"allOf": [{"type": "string"}, {"type": "string"}]}), "/properties/a/allOf", "several schemas"),
        (an_object(a={"$ref": "https://example.com/x"}), "/properties/a", "one into this file"),
        (an_object(a=ref("Nobody")), "/properties/a", "leads to nothing"),
        ({**an_object(a={"type": "string"}), "required": ["b"]}, "/required", "names of `properties`"),
        (
            {**an_object(a=ref("N")), "$defs": {"N": an_object(n=ref("N"))}},
            "/properties/a/properties/n",
            "no recursive",
        ),
    ],
)
def test_schema_that_no_answer_can_be_asked_to_fit_is_refused(schema: Any, place: str, says: str) -> None:
    with pytest.raises(BadSchema) as caught:
        normal(schema)
    assert caught.value.place == place
    assert says in str(caught.value)


def test_schema_that_grows_by_its_references_is_refused() -> None:
    defs = {f"L{n}": an_object(a=ref(f"L{n + 1}"), b=ref(f"L{n + 1}")) for n in range(12)}
    with pytest.raises(BadSchema, match="more than 1000 schemas"):
        normal({**an_object(a=ref("L0")), "$defs": {**defs, "L12": {"type": "string"}}})


def test_limits_of_the_api_are_told_before_it_is_asked() -> None:
    text = {"type": "string"}
    with pytest.raises(BadSchema, match="found 25 keys that may be missing; expected at most 24"):
        check_limits(for_api(normal(an_object(**{f"k{n}": text for n in range(25)}))))
    either = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
    many = an_object(**{f"k{n}": either for n in range(17)}) | {"required": [f"k{n}" for n in range(17)]}
    with pytest.raises(BadSchema, match="found 17 parts of more than one type; expected at most 16"):
        check_limits(for_api(normal(many)))


# ---- flow files ----------------------------------------------------------------------------------

FLOW = """
name = "f"
[input]
mail = "str"
[agents.classify]
model = "worker"
prompt = "Sort: {mail}"
output = { kind = ["refund", "complaint"], note = "str?", topics = { type = "list", fields = { title = "str" } } }
[agents.write]
model = "worker"
prompt = "Write on {item.title}, of {classify.kind}. {classify.note?}"
[steps.classify]
[steps.write]
each = "classify.topics"
when = { "classify.kind" = "refund" }
"""


def refused(old: str, new: str) -> str:
    assert old in FLOW
    with pytest.raises(FlowError) as caught:
        load_flow(FLOW.replace(old, new))
    return str(caught.value)


def test_fields_are_known_to_what_comes_after() -> None:
    flow = load_flow(FLOW)
    assert flow.agents["classify"].output_fields["kind"].values == ["refund", "complaint"]
    assert decode_flow(encode_flow(flow)) == flow
    assert version_needed(flow) == ASKING


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("{classify.kind}", "{classify.knd}", "Did you mean {classify.kind}?"),
        (
            "{classify.note?}",
            "{classify.note}",
            "{classify.note?}, as classify.note is of type str? and",
        ),
        ("{item.title}", "{item.titel}", "Did you mean {item.title}?"),
        ('each = "classify.topics"', 'each = "classify.kind"', "'classify.kind', of type str; expected a list"),
        ('each = "classify.topics"', 'each = "classify.topic"', "Did you mean {classify.topics}?"),
        ('= "refund" }', '= "refnd" }', 'a value that classify.kind can have: "refund" or "complaint"'),
        ('= "refund" }', '= "refnd" }', "Did you mean 'refund'?"),
        ('"classify.kind" =', '"classify.sort" =', "a field that classify has: kind, note, topics"),
        ('["refund", "complaint"]', "[]", "line 8, agents.classify.output.kind.values: found an empty list"),
        ('["refund", "complaint"]', '["refund", 3]', "texts, or whole numbers"),
        ('["refund", "complaint"]', '["refund", "refund"]', 'the string "refund" twice'),
        ('["refund", "complaint"]', '{ type = "bool", values = ["a"] }', "`values` on the type 'bool'"),
        ('note = "str?"', 'note = "any"', "agents.classify.output.note: found the type 'any', of which nothing more"),
        ('note = "str?"', 'note = "file"', "agents.classify.output.note.type: found a file"),
        ('note = "str?"', 'note = "list"', "the items of a list, as 'list[str]'"),
        ('fields = { title = "str" }', 'fields = { title = "dict" }', "agents.classify.output.topics.fields.title"),
        ('note = "str?"', 'note = "strng"', "agents.classify.output.note.type"),
        ("output = {", "output = 'text' #", "a table of fields, or a file such as './triage.schema.json'"),
        ("output = {", "output = './triage.schema.json' #", "fields, where no files can be looked for"),
        ("output = {", "output = 3 #", "agents.classify.output: found 3; expected a table of types"),
        ('model = "worker"\nprompt = "Sort: {mail}"', 'handler = "./h.py:f"', "`output` on a handler"),
    ],
)
def test_mistake_is_told_when_the_flow_is_loaded(old: str, new: str, says: str) -> None:
    assert says in refused(old, new)


def test_answer_of_a_model_without_output_is_text_and_that_is_said() -> None:
    said = refused("output = {", "# output = {")
    assert "let a handler take it apart, or set `output` of agents.classify" in said


SCHEMA = an_object(
    kind={"enum": ["refund", "complaint"]}, topics={"type": "array", "items": an_object(title={"type": "string"})}
)
SCHEMA = {**SCHEMA, "required": ["kind", "topics"]}
SCHEMA["properties"]["topics"]["items"]["required"] = ["title"]


def with_file(folder: Path, content: Any = SCHEMA) -> Path:
    lines = FLOW.replace(" {classify.note?}", "").splitlines()
    lines = ['output = "./triage.schema.json"' if line.startswith("output") else line for line in lines]
    (folder / "f.toml").write_text("\n".join(lines))
    data = content if isinstance(content, str) else json.dumps(content)
    (folder / "triage.schema.json").write_text(data)
    return folder / "f.toml"


def test_schema_file_is_part_of_the_flow_and_its_digest(tmp_path: Path) -> None:
    found = find_flow(str(with_file(tmp_path)))
    agent = found.flow.agents["classify"]
    assert agent.output == "./triage.schema.json"
    assert asked_schema(agent)["properties"]["kind"] == {"enum": ["refund", "complaint"]}
    assert (tmp_path / "triage.schema.json") in code_files(found), "its workers begin anew when it changes"
    changed = {**SCHEMA, "properties": {**SCHEMA["properties"], "more": {"type": "string"}}}
    after = find_flow(str(with_file(tmp_path, changed)))
    assert flow_digest(encode_flow(after.flow)) != found.plan.digest
    assert decode_flow(encode_flow(found.flow)).agents["classify"].output_schema == agent.output_schema


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "which is no JSON"),
        ("[1]", "in which is a list; expected a JSON Schema of an object"),
        ({"type": "string"}, "the type 'string' at the top of './triage.schema.json'; expected an object"),
        (an_object(kind={"type": "object"}), "an object whose keys are not known at /properties/kind"),
        (an_object(kind={"type": "string"}), "found 'classify.topics'; expected a field that classify has: kind"),
        ({"x": "y" * 70_000}, "at most 65536"),
    ],
)
def test_mistake_in_a_schema_file_is_told_when_the_flow_is_loaded(tmp_path: Path, content: Any, says: str) -> None:
    path = with_file(tmp_path, content)
    with pytest.raises(FlowError) as caught:
        find_flow(str(path))
    assert says in str(caught.value)
    assert str(path) in str(caught.value) and "line " in str(caught.value)


def test_missing_schema_file_is_told_with_its_place(tmp_path: Path) -> None:
    path = with_file(tmp_path)
    (tmp_path / "triage.schema.json").unlink()
    with pytest.raises(FlowError, match=r"line \d+, agents.classify.output: found './triage.schema.json', and no such"):
        find_flow(str(path))


def test_handler_whose_parameter_never_takes_the_output_is_told(tmp_path: Path) -> None:
    (tmp_path / "h.py").write_text("def use(classify: list[str]) -> str:\n    return ''\n")
    path = with_file(tmp_path)
    text = path.read_text().replace(
        'model = "worker"\nprompt = "Write on {item.title}, of {classify.kind}."', 'handler = "./h.py:use"'
    )
    path.write_text(text.replace('each = "classify.topics"\n', 'after = "classify"\n'))
    found = find_flow(str(path))
    ((place, said),) = misfits(found.plan, load_handlers(found))
    assert place == "steps.write"
    assert "takes a list; what step 'classify' puts out is an object" in said


def test_values_are_told_to_whoever_is_asked_and_nothing_else_is_taken() -> None:
    text = FLOW.replace(
        'mail = "str"', 'mail = "str"\nprio = ["low", "high"]\nstars = { type = "list[int]", values = [1, 2, 3] }'
    )
    flow = load_flow(text)
    given = {"mail": Raw(b'"m"'), "prio": Raw(b'"low"'), "stars": Raw(b"[1, 3]")}
    assert check_input(flow, given) == given
    with pytest.raises(InputError, match=r'input .prio.: found the string "mid"; expected "low" or "high"'):
        check_input(flow, {**given, "prio": Raw(b'"mid"')})
    with pytest.raises(InputError, match=r"input .stars\[1\].: found the number 4; expected 1, 2 or 3"):
        check_input(flow, {**given, "stars": Raw(b"[1, 4]")})
    with pytest.raises(InputError, match=r'missing; expected "low" or "high"'):
        check_input(flow, {"mail": given["mail"], "stars": given["stars"]})
    assert object_of(flow.input)["properties"]["stars"] == {
        "type": "array",
        "items": {"type": "integer", "enum": [1, 2, 3]},
    }
    question = Question(text="Which?", output=output_of({"prio": flow.input["prio"]}))
    assert expects(question) == 'prio ("low" or "high")'
    with pytest.raises(BadAnswer, match='expected "low" or "high"'):
        answered(question, Raw(b'{"prio": "mid"}'))


def test_flow_that_names_values_of_its_input_is_given_back_by_the_first_release() -> None:
    one = 'name = "f"\ninput = { a = %s }\nagents.w = { model = "worker", prompt = "{a}" }\nsteps.w = {}\n'
    assert version_needed(load_flow(one % '"str"')) == FIRST
    assert version_needed(load_flow(one % '["x", "y"]')) == ASKING
    assert version_needed(load_flow(one % '{ fields = { b = ["x", "y"] } }')) == ASKING


def test_editors_know_what_an_output_may_be() -> None:
    validator = jsonschema_rs.Draft7Validator(flow_schema())
    assert validator.is_valid(tomllib.loads(FLOW))
    assert validator.is_valid(tomllib.loads(FLOW.replace("output = {", 'output = "./x.json" #')))
    assert not validator.is_valid(tomllib.loads(FLOW.replace("output = {", "output = 3 #")))
    assert not validator.is_valid(tomllib.loads(FLOW.replace('["refund", "complaint"]', "[]")))


# ---- from Python ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [Verdict, Typed, {"verdict": str, "score": "int?"}, {"verdict": Literal["yes", "no"]}, {"verdict": ["yes", "no"]}],
)
def test_output_may_be_a_record_of_python(output: Any) -> None:
    flow = Flow("f", input={"mail": str})
    flow.ask("judge", "Judge {mail}", output=output)
    flow.ask("say", "Say {judge.verdict}", after="judge")
    sent = asked_schema(flow.check().flow.agents["judge"])
    assert "verdict" in sent["properties"] and sent["additionalProperties"] is False


def test_type_that_has_no_schema_is_refused_with_the_name_of_the_step() -> None:
    flow = Flow("f")
    with pytest.raises(FlowError, match=r"agents.judge.output: found Path, of which no JSON Schema can be made"):
        flow.ask("judge", "Judge", output=Path)


def test_whole_number_may_be_written_as_any_number_of_json() -> None:
    schema = normal({"type": "object", "properties": {"n": {"type": "integer", "maximum": 3}}})
    assert repr(fitted(schema, {"n": 3.0}, "")) == "{'n': 3}"
    with pytest.raises(Unfit, match="expected a whole number"):
        fitted(schema, {"n": 2.5}, "")


@pytest.mark.parametrize("kind", [{"model": "worker"}, {"person": "editors"}])
def test_default_of_an_answer_is_one_of_its_values(kind: dict[str, str]) -> None:
    output = {"sort": {"values": ["a", "b"], "default": "c"}}
    agents = {"a": {**kind, "prompt": "Sort.", "output": output}}
    with pytest.raises(FlowError) as caught:
        build_flow({"name": "f", "agents": agents, "steps": {"a": {}}})
    error = caught.value
    assert (error.place, error.found, error.expected) == ("agents.a.output.sort.default", '"c"', '"a" or "b"')
