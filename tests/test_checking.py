"""`baton check`: what keeps a flow from running is said without running it, handlers and their types included."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from msgspec import Raw

from baton_actors.agents.checking import CheckedFlow, check_models, check_source
from baton_actors.agents.fitting import kinds_of
from baton_actors.agents.loading import shipped_flows

from .commands import baton

FLOW = """
name = "bad"

[input]
topic = "str"
count = "int"

[agents.planner]
handler = "./bad.py:planner"

[agents.worker]
model = "claude-opus-9"
max_tokens = 100
prompt = "Do {item}"

[agents.merge]
handler = "./bad.py:merge"

[agents.last]
handler = "./bad.py:last"

[steps.planner]

[steps.worker]
each = "planner"

[steps.merge]
after = "worker"

[steps.last]
after = "merge"
"""
HANDLERS = """
print("imported")

def planner(topic: str) -> str: ...
def merge(worker: str, count: str) -> dict[str, int]: ...
def last(merge: int): ...
"""


def written(folder: Path, flow: str = FLOW, handlers: str = HANDLERS) -> str:
    (folder / "bad.py").write_text(handlers)
    (folder / "bad.toml").write_text(flow)
    return str(folder / "bad.toml")


def messages(checked: CheckedFlow) -> list[str]:
    return [problem.message for problem in checked.problems]


# ---- the command ---------------------------------------------------------------------------------


def test_all_that_is_wrong_with_handlers_and_models_is_said_at_once(tmp_path: Path) -> None:
    written(tmp_path)
    ended = baton("check", "bad.toml", "ask", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "imported\n")
    assert ended.stdout.splitlines() == [
        "✗ bad.toml  4 steps · 3 handlers · claude-opus-9",
        "  ✗ line 25, steps.worker.each: step 'planner' puts out a text, and no items: expected a list",
        "  ✗ line 27, steps.merge: parameter 'worker' of ./bad.py:merge takes a text; what step 'worker' puts out is "
        "a list",
        "  ✗ line 27, steps.merge: parameter 'count' of ./bad.py:merge takes a text; input 'count' is a number",
        "  ✗ line 30, steps.last: parameter 'merge' of ./bad.py:last takes a number; what step 'merge' puts out is "
        "an object",
        "  ! agents.worker: no price is known of the model 'claude-opus-9', so runs will not say what they cost. "
        "Did you mean 'claude-opus-5'? Else name a file of prices with BATON_PRICES.",
        "✓ ask  1 step · claude-sonnet-4-6",
        "models are rehearsed: set ANTHROPIC_API_KEY to ask Claude",
    ]
    assert not (tmp_path / ".baton").exists()


def test_facts_are_one_object_of_json_whatever_handlers_print(tmp_path: Path) -> None:
    written(tmp_path)
    ended = baton("check", "bad.toml", "nosuch", "--json", cwd=tmp_path, BATON_REHEARSE="0")
    facts = json.loads(ended.stdout)
    bad, unknown = facts["flows"]
    assert (ended.returncode, facts["ok"], bad["ok"], unknown["ok"]) == (2, False, False, False)
    assert [problem["code"] for problem in bad["problems"]] == ["misfit"] * 4 + ["unpriced_model"]
    assert [problem["code"] for problem in unknown["problems"]] == ["unknown_flow"]
    assert [problem["code"] for problem in facts["settings"]] == ["no_credentials"]
    assert bad["inputs"] == ["topic", "count"]


# ---- one flow ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_flows())
def test_shipped_flows_have_no_problem(name: str) -> None:
    checked = check_source(name)
    assert (checked.runs, checked.problems) == (True, [])


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("def merge", "def merged", "agents.merge.handler: cannot load './bad.py:merge': it has no 'merge'."),
        (
            "worker: str,",
            "wroker: str,",
            "parameter 'wroker' is nothing that step 'merge' reads. Did you mean 'worker'?",
        ),
        ("worker: str,", "*worker: str,", "parameter '*worker' names no value to read."),
        ("count: str", "count: object.__class__", "'count': type cannot come from JSON"),
        ('print("imported")', "import nosuch", "importing it raised ModuleNotFoundError: No module named 'nosuch'"),
        ('print("imported")', "raise SystemExit(3)", "importing it raised SystemExit: 3"),
        ('print("imported")', "def x(:", "importing it raised SyntaxError"),
    ],
)
def test_handler_that_cannot_work_is_told(tmp_path: Path, old: str, new: str, says: str) -> None:
    checked = check_source(written(tmp_path, handlers=HANDLERS.replace(old, new, 1)))
    assert not checked.runs
    assert any(says in message for message in messages(checked)), messages(checked)


def test_file_that_is_no_flow_is_told_with_its_line(tmp_path: Path) -> None:
    source = written(tmp_path, FLOW.replace('after = "worker"', 'after = "wroker"'))
    (message,) = messages(check_source(source))
    line = FLOW.splitlines().index('after = "worker"') + 1
    assert message.startswith(f"{source}: line {line}, steps.merge.after[0]: found the unknown step 'wroker'")


def test_flows_whose_modules_are_called_alike_are_checked_by_their_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "helpers.py").write_text(f"{name} = 1\n")
        (tmp_path / name / "parts").mkdir()
        (tmp_path / name / "parts" / "__init__.py").touch()
        (tmp_path / name / "parts" / "more.py").write_text(f"{name} = 1\n")
        handlers = f"from helpers import {name}\nfrom parts.more import {name}\ndef a() -> int: ...\n"
        flow = 'name = "a"\n[agents.a]\nhandler = "./bad.py:a"\n[steps.a]\n'
        assert messages(check_source(written(tmp_path / name, flow, handlers))) == []


def test_warnings_do_not_keep_a_flow_from_running(tmp_path: Path) -> None:
    flow = 'name = "a"\n[agents.a]\nmodel = "my-own-model"\nmax_tokens = 9\nprompt = "Go."\n[steps.a]\n'
    checked = check_source(written(tmp_path, flow))
    assert (checked.runs, [problem.level for problem in checked.problems]) == (True, ["warning"])


@pytest.mark.parametrize(
    ("environ", "host", "code"),
    [
        ({}, "", None),
        ({"ANTHROPIC_API_KEY": "k"}, "api.anthropic.com", None),
        ({"ANTHROPIC_BASE_URL": "http://localhost:8080"}, "localhost:8080", None),
        ({"ANTHROPIC_BASE_URL": "localhost"}, "", "bad_setting"),
        ({"BATON_REHEARSE": "0"}, "", "no_credentials"),
        ({"BATON_REHEARSE": "perhaps"}, "", "bad_setting"),
        ({"BATON_PRICES": "/no/such/file"}, "", "bad_setting"),
    ],
)
def test_settings_that_no_model_call_would_survive_are_told(
    environ: dict[str, str], host: str, code: str | None
) -> None:
    found, problem = check_models(environ)
    assert (found, problem.code if problem else None) == (host, code)


# ---- types ---------------------------------------------------------------------------------------


@dataclass
class Point:
    x: int


class Colour(enum.Enum):
    RED = "red"


class Tree(msgspec.Struct):
    below: list[Tree]


@pytest.mark.parametrize(
    ("annotation", "kinds"),
    [
        (str, {"string"}),
        (int, {"number"}),
        (float, {"number"}),
        (bool, {"boolean"}),
        (None, {"null"}),
        (list, {"array"}),
        (tuple[int, str], {"array"}),
        (set[int], {"array"}),
        (dict[str, int], {"object"}),
        (Point, {"object"}),
        (Tree, {"object"}),
        (Colour, {"string"}),
        (datetime, {"string"}),
        (Decimal, {"string", "number"}),
        (str | None, {"string", "null"}),
        (Point | list[int], {"object", "array"}),
        (Literal["a", 1], {"string", "number"}),
        (Any, None),
        (object, None),
        (Raw, None),
        (str | Any, None),
    ],
)
def test_types_in_json_of_an_annotation(annotation: Any, kinds: set[str] | None) -> None:
    assert kinds_of(annotation) == (None if kinds is None else frozenset(kinds))


@pytest.mark.parametrize(
    ("merge", "last"),
    [
        ("worker: list[str], count: float", "merge: dict"),
        ("worker, count: int | None", "merge"),
        ("worker: list, context: Context", "merge: Any"),
        ("worker: tuple[str, ...], errors: list[dict]", "merge: dict[str, int]"),
    ],
)
def test_types_that_may_fit_are_left_alone(tmp_path: Path, merge: str, last: str) -> None:
    handlers = f"""
from typing import Any
from baton_actors import Context
def planner(topic: str) -> list[str]: ...
def merge({merge}) -> dict[str, int]: ...
def last({last}): ...
"""
    flow = FLOW.replace("claude-opus-9", "worker")
    assert messages(check_source(written(tmp_path, flow, handlers))) == []


def test_worker_of_which_a_model_is_told_nothing_is_a_warning(tmp_path: Path) -> None:
    flow = """
    name = "f"
    agents.chief = { model = "worker", prompt = "Go.", workers = ["finder", "writer"] }
    agents.finder = { model = "worker", prompt = "Find.", workers = ["finder"] }
    agents.writer = { model = "worker", prompt = "Write.", description = "Writes." }
    steps.chief = {}
    """
    (tmp_path / "f.toml").write_text(flow)
    checked = check_source(str(tmp_path / "f.toml"))
    (problem,) = checked.problems
    assert (problem.level, problem.code, checked.runs) == ("warning", "no_description", True)
    assert problem.message.startswith(
        "agents.finder: no `description`, which is what the model of chief, finder goes by"
    )


@pytest.mark.parametrize(
    ("after", "prompt", "more", "said"),
    [
        ('"refund"', "{refund?}", "", ['after = ["sort", "refund"]']),
        ('["sort", "refund"]', "{refund?}", "", []),
        ('"refund"', "{refund}", "", []),
        ('"refund"', "{refund?}", 'on_error = "continue"', []),
        ('"refund"', "{refund?} {sort?}", "", ['after = ["sort", "refund"]']),
    ],
)
def test_step_that_is_skipped_with_what_its_prompt_says_may_be_missing_is_a_warning(
    after: str, prompt: str, more: str, said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "f.toml").write_text(f"""
    name = "f"
    {more}
    [agents]
    sort = {{ model = "worker", prompt = "Sort.", output = {{ kind = ["refund", "other"] }} }}
    refund = {{ model = "worker", prompt = "Refund." }}
    reply = {{ model = "worker", prompt = "Reply. {prompt}" }}
    [steps]
    sort = {{}}
    refund = {{ after = "sort", when = {{ "sort.kind" = "refund" }} }}
    reply = {{ after = {after} }}
    """)
    found = check_source(str(tmp_path / "f.toml")).problems
    assert [(problem.code, problem.level) for problem in found] == [("left_out", "warning")] * len(said)
    assert all(part in problem.message for part, problem in zip(said, found, strict=True))
