"""Flow files: what they may say, and how a mistake in one is reported."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from baton_schemas.errors import FlowError
from baton_schemas.flow.file import load_flow, read_flow
from baton_schemas.flow.flow import DEFAULT_TIERS, JoinPolicy, Tier, decode_flow, encode_flow

REPORT = '''\
name = "report"

[input]
topic = "str"
topics = { type = "list[str]", default = ["tides", "moons"], description = "what to look up" }

[tiers]
worker = "claude-haiku-9"

[agents.research]
model = "worker"
prompt = """
max_tokens = 7
Find {topic}: {item}
"""

[agents.merge]
handler = "./merge.py:merge"
timeout_s = 5

[steps.research]
each = "topics"

[steps.merge]
after = "research"
join = 2
'''


def refused(old: str, new: str, file: str = "") -> FlowError:
    """The error of the report flow with a piece of its text replaced."""
    assert old in REPORT
    with pytest.raises(FlowError) as caught:
        load_flow(REPORT.replace(old, new, 1), file)
    return caught.value


def test_shorthand_is_written_out() -> None:
    flow = load_flow(REPORT)
    assert flow.input["topic"].type == "str"
    assert flow.input["topic"].required
    assert msgspec.json.decode(flow.input["topics"].default) == ["tides", "moons"]
    assert flow.steps["research"].agent == "research"
    assert flow.steps["merge"].after == ["research"]
    assert flow.steps["merge"].join == JoinPolicy(wait=2)


def test_a_tier_given_as_a_model_keeps_the_default_cap() -> None:
    tiers = load_flow(REPORT).tiers
    assert tiers["worker"] == Tier(model="claude-haiku-9", max_tokens=DEFAULT_TIERS["worker"].max_tokens)
    assert tiers["synthesis"] == DEFAULT_TIERS["synthesis"]


def test_a_tier_may_change_only_the_cap() -> None:
    flow = load_flow(REPORT.replace('worker = "claude-haiku-9"', "worker = { max_tokens = 50 }"))
    assert flow.tiers["worker"] == Tier(model=DEFAULT_TIERS["worker"].model, max_tokens=50)


def test_long_forms_and_shorthand_give_the_same_flow() -> None:
    long = REPORT
    for short, full in [
        ('topic = "str"', 'topic = { type = "str" }'),
        ('worker = "claude-haiku-9"', 'worker = { model = "claude-haiku-9", max_tokens = 1024 }'),
        ('after = "research"', 'after = ["research"]'),
        ("join = 2", "join = { wait = 2 }"),
        ("[steps.merge]", '[steps.merge]\nagent = "merge"'),
    ]:
        assert short in long
        long = long.replace(short, full)
    assert encode_flow(load_flow(long)) == encode_flow(load_flow(REPORT))


def test_a_flow_is_the_same_after_the_log_carried_it() -> None:
    flow = load_flow(REPORT)
    assert encode_flow(decode_flow(encode_flow(flow))) == encode_flow(flow)


def test_a_handler_stays_as_written_wherever_the_file_is(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "report.toml").write_text(REPORT, encoding="utf-8")
    one, two = (read_flow(tmp_path / folder / "report.toml") for folder in ("one", "two"))
    assert one.agents["merge"].handler == "./merge.py:merge"
    assert encode_flow(one) == encode_flow(two)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FlowError) as caught:
        read_flow(tmp_path / "missing.toml")
    assert caught.value.place == str(tmp_path / "missing.toml")
    assert caught.value.found == "no such file"
    assert "Check the path" in caught.value.hint


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "flow.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FlowError, match="can't be read") as caught:
        read_flow(path)
    assert caught.value.place == str(path)


def test_an_error_names_the_file() -> None:
    error = refused("timeout_s = 5", "timeout = 5", "flows/report.toml")
    assert error.file == "flows/report.toml"
    assert str(error).startswith("flows/report.toml: line 19, agents.merge.timeout: found")


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('name = "report"', "name = ", "line 1, column 8"),
        ("[steps.merge]", "[steps.merge", "line 24, column 13"),
        ("join = 2\n", 'join = """', "line 26, column 11"),
    ],
)
def test_bad_toml_is_reported_by_line_and_column(old: str, new: str, place: str) -> None:
    error = refused(old, new)
    assert error.place == place
    assert "not TOML" in error.found
    assert "(at " not in error.found


@pytest.mark.parametrize(
    ("old", "new", "place", "hint"),
    [
        ("timeout_s = 5", "timeout = 5", "line 19, agents.merge.timeout", "Did you mean 'timeout_s'?"),
        ("[tiers]", "[tier]", "line 7, tier", "Did you mean 'tiers'?"),
        ('{ type = "list[str]"', '{ typ = "list[str]"', "line 5, input.topics.typ", "Did you mean 'type'?"),
        ("join = 2", "join = { waits = 2 }", "line 26, steps.merge.join.waits", "Did you mean 'wait'?"),
        ("join = 2", "xyz = 2", "line 26, steps.merge.xyz", ""),
        (
            "max_tokens = 7",
            '"""\nmax_tokns = 7\nsystem = """',
            "line 14, agents.research.max_tokns",
            "Did you mean 'max_tokens'?",
        ),
    ],
)
def test_an_unknown_key_is_reported_with_the_nearest(old: str, new: str, place: str, hint: str) -> None:
    error = refused(old, new)
    assert error.place == place
    assert "unknown key" in error.found
    assert error.expected.startswith("one of ")
    assert error.hint == hint


@pytest.mark.parametrize(
    ("old", "new", "place", "found", "expected"),
    [
        ("timeout_s = 5", 'timeout_s = "5"', "line 19, agents.merge.timeout_s", "the string '5'", "a number"),
        ("timeout_s = 5", "timeout_s = true", "line 19, agents.merge.timeout_s", "true", "a number"),
        ("timeout_s = 5", "concurrency = 1.5", "line 19, agents.merge.concurrency", "1.5", "a whole number"),
        ("timeout_s = 5", "reads = [1]", "line 19, agents.merge.reads", "the list [1]", "a list of strings"),
        ('name = "report"', "name = 3", "line 1, name", "3", "a string"),
        ('topic = "str"', "topic = 3", "line 4, input.topic", "3", "a type such as 'str', or a table"),
        ("join = 2", "join = true", "line 26, steps.merge.join.wait", "true", "'all' or a whole number"),
        ("join = 2", "on_error = 'skip'", "line 26, steps.merge.on_error", "the string 'skip'", "'fail' or 'continue'"),
        ("join = 2", "join = ['a']", "line 26, steps.merge.join", "the list ['a']", "'all', a number, or a table"),
        ("[input]", "[[input]]", "line 3, input", "the list", "a table, as [input]"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_reported_by_key(old: str, new: str, place: str, found: str, expected: str) -> None:
    error = refused(old, new)
    assert error.place == place
    assert error.found.startswith(found)
    assert error.expected.startswith(expected)


@pytest.mark.parametrize(
    ("old", "new", "place", "found", "expected"),
    [
        ('name = "report"', "", "name", "no 'name'", "name = a string"),
        ("[tiers]", "[tiers.fast]\nmax_tokens = 3\n[tiers]", "line 7, tiers.fast", "no 'model'", "model = a string"),
    ],
)  # fmt: skip
def test_a_missing_key_is_reported(old: str, new: str, place: str, found: str, expected: str) -> None:
    error = refused(old, new)
    assert (error.place, error.found, error.expected) == (place, found, expected)


def test_a_mistake_in_the_graph_has_its_line_too() -> None:
    error = refused('after = "research"', 'after = "reserch"')
    assert error.place == "line 25, steps.merge.after[0]"
    assert error.hint == "Did you mean 'research'?"


def test_a_key_in_a_prompt_is_not_taken_for_a_key_of_the_file() -> None:
    error = refused('model = "worker"', 'model = "claude-x-1"')
    assert error.place == "line 10, agents.research.max_tokens"
