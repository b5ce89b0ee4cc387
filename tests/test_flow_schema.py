"""The JSON Schema of flow files: it takes what the checker takes, and refuses what a look at one key can tell."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given, settings

from baton_actors.agents.loading import SHIPPED
from baton_schemas.errors import FlowError
from baton_schemas.flow.file import NOT_WRITTEN, load_flow
from baton_schemas.flow.flow import Agent, Field, Flow, JoinPolicy, Step, Tier, encode_flow
from baton_schemas.flow.limits import DEADLINE_MAX_S, TIMEOUT_MAX_S
from baton_schemas.flow.schema import flow_schema

from .strategies import flows
from .test_flow_file import REPORT

SCHEMA = flow_schema()
VALIDATOR = jsonschema_rs.Draft7Validator(SCHEMA)
"""The validator of the TOML plug-ins of editors (Taplo, Even Better TOML)."""
FLOWS = sorted(
    path
    for folder in (SHIPPED.parent, Path(__file__).parent)
    for path in folder.rglob("*.toml")
    if "[steps." in path.read_text("utf-8")
)


def is_valid(text: str) -> bool:
    return VALIDATOR.is_valid(tomllib.loads(text))


@pytest.mark.parametrize("path", FLOWS, ids=lambda path: path.stem)
def test_flows_that_we_ship_fit_the_schema(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(tomllib.loads(path.read_text("utf-8")))] == []


@settings(max_examples=100, deadline=None)
@given(flows())
def test_whatever_flow_can_run_fits_the_schema(any_flow: Flow) -> None:
    table = json.loads(encode_flow(any_flow))
    assert [error.message for error in VALIDATOR.iter_errors(table)] == []


@pytest.mark.parametrize("kind", [Agent, Field, Flow, JoinPolicy, Step, Tier])
def test_each_key_is_in_the_schema_with_what_it_means(kind: type[msgspec.Struct]) -> None:
    names = {Agent: "agent", Field: "input", JoinPolicy: "join", Step: "step", Tier: "tier"}
    table = SCHEMA["definitions"][names[kind]] if kind in names else SCHEMA
    written = [key for key in kind.__struct_fields__ if key not in NOT_WRITTEN.get(kind, ())]
    assert list(table["properties"]) == written
    assert [key for key, schema in table["properties"].items() if not schema.get("description")] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "report"', ""),
        ('name = "report"', 'name = "my report"'),
        ('name = "report"', "name = 1"),
        ('topic = "str"', 'topic = "string"'),
        ('topic = "str"', "topic = { default = 1, kind = 2 }"),
        ('topic = "str"', 'errors = "str"'),
        ('worker = "claude-haiku-9"', 'worker = ""'),
        ('worker = "claude-haiku-9"', "other = { max_tokens = 5 }"),
        ('model = "worker"', 'modle = "worker"'),
        ('model = "worker"', ""),
        ('model = "worker"', 'model = "worker"\nhandler = "m:f"'),
        ("timeout_s = 5", 'timeout_s = "5"'),
        ("timeout_s = 5", "timeout = 5"),
        ("timeout_s = 5", 'workers = "merge"'),
        ("timeout_s = 5", 'workers = ["merge", "merge"]'),
        ("timeout_s = 5", 'input = { a = "string" }'),
        ("timeout_s = 5", 'input = { errors = "str" }'),
        ("timeout_s = 5", 'input = { a = { typ = "str" } }'),
        ("timeout_s = 5", 'input = "str"'),
        ('handler = "./merge.py:merge"', 'handler = "./merge.py"'),
        ('handler = "./merge.py:merge"', ""),
        ('after = "research"', "after = 1"),
        ("join = 2", 'join = "any"'),
        ("join = 2", 'join = { failed = "ignore" }'),
        ("join = 2", 'on_error = "ignore"'),
        ("[agents.research]", "[agent.research]"),
        ("[steps.merge]", "[steps.join]"),
    ],
)
def test_what_the_checker_refuses_of_one_key_the_schema_refuses_too(old: str, new: str) -> None:
    broken = REPORT.replace(old, new, 1)
    assert is_valid(REPORT)
    assert broken != REPORT
    assert not is_valid(broken)
    with pytest.raises(FlowError):
        load_flow(broken)


@pytest.mark.parametrize(
    ("line", "number", "fits"),
    [
        *(("concurrency = {}\ntimeout_s = 5", n, n >= 1) for n in (0, 1)),
        *(("max_in_flight = {}\ntimeout_s = 5", n, n >= 1) for n in (0, 1)),
        *(("max_rounds = {}\ntimeout_s = 5", n, n >= 1) for n in (0, 1)),
        *(("max_asks = {}\ntimeout_s = 5", n, n >= 1) for n in (0, 1)),
        *(("max_depth = {}\ntimeout_s = 5", n, n >= 1) for n in (0, 1)),
        *(("max_attempts = {}\ntimeout_s = 5", n, n >= 1) for n in (0, 1)),
        *(("timeout_s = {}", n, 0 < n <= TIMEOUT_MAX_S) for n in (0, 0.1, TIMEOUT_MAX_S, TIMEOUT_MAX_S + 1)),
        *(("overload_max_s = {}", n, 0 < n <= TIMEOUT_MAX_S) for n in (0, 0.1, TIMEOUT_MAX_S, TIMEOUT_MAX_S + 1)),
        *(("retry_base_s = {}\nretry_max_s = 60", n, n > 0) for n in (0, 0.1)),
    ],
)
def test_limits_of_agents_are_those_of_the_checker(line: str, number: float, fits: bool) -> None:
    agrees(REPORT.replace("timeout_s = 5", line.format(number), 1), fits)


@pytest.mark.parametrize(
    ("line", "number", "fits"),
    [
        *(("join = {}", n, n >= 1) for n in (0, 1)),
        *(("join = {{ min_done = {} }}", n, n >= 0) for n in (-1, 0)),
        *(("join = {{ deadline_s = {} }}", n, 0 < n <= DEADLINE_MAX_S) for n in (0, 1, DEADLINE_MAX_S + 1)),
        *(("timeout_s = {}", n, 0 < n <= TIMEOUT_MAX_S) for n in (0, 0.1, TIMEOUT_MAX_S, TIMEOUT_MAX_S + 1)),
    ],
)
def test_limits_of_steps_are_those_of_the_checker(line: str, number: float, fits: bool) -> None:
    agrees(REPORT.replace("join = 2", line.format(number), 1), fits)


@pytest.mark.parametrize(("number", "fits"), [(0, False), (0.1, True), (DEADLINE_MAX_S, True), (4e7, False)])
def test_limits_of_flows_are_those_of_the_checker(number: float, fits: bool) -> None:
    agrees(f"deadline_s = {number}\n{REPORT}", fits)


def agrees(text: str, fits: bool) -> None:
    try:
        load_flow(text)
        passes = True
    except FlowError:
        passes = False
    assert (is_valid(text), passes) == (fits, fits)
