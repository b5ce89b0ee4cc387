"""What the README shows works: its flow, its handler, its commands, and each setting that there is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from baton_actors.agents.loading import FoundFlow, find_flow, load_handlers, shipped_flows
from baton_actors.cli.app import app
from baton_bus import Settings

from .commands import WAIT_S, baton, environ, start
from .maps import ROOT

README = (ROOT / "README.md").read_text("utf-8")
DOCS = sorted(ROOT.glob("*/docs/*.md"))
ALL = "\n".join([README, *(doc.read_text("utf-8") for doc in DOCS)])
SETTINGS = (ROOT / "deploy" / "docs" / "settings.md").read_text("utf-8")


def blocks(language: str, text: str = README) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


PROGRAMS = [block for block in dict.fromkeys(blocks("python", ALL)) if "Baton" in block]
"""What is shown in Python and is no handler."""


def save_files(folder: Path) -> None:
    """Save flows and handlers as the reader would."""
    for block in [*blocks("toml"), *blocks("python")]:
        name = re.match(r"# (\S+\.(?:toml|py))\n", block)
        if name:
            (folder / name[1]).write_text(block, "utf-8")


@pytest.fixture
def mails(tmp_path: Path) -> FoundFlow:
    """The README's flow and handlers."""
    save_files(tmp_path)
    return find_flow(str(tmp_path / "mails.toml"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the README's files in which `baton up article` runs."""
    home = tmp_path_factory.mktemp("home")
    save_files(home)
    up = start("up", "article", "--json", cwd=home)
    try:
        assert up.stdout is not None
        assert up.stdout.readline()
        yield home
    finally:
        up.terminate()
        up.communicate(timeout=WAIT_S)


def test_it_is_short() -> None:
    assert README.count("\n") <= 250


def test_the_flow_is_valid_and_its_handlers_fit(mails: FoundFlow) -> None:
    assert load_handlers(mails).keys() == {"./mails.py:cases"}
    assert mails.plan.order == ("classify", "cases", "reply", "reply--list")


def test_the_flow_whose_agents_decide_is_valid_too(tmp_path: Path) -> None:
    save_files(tmp_path)
    desk = find_flow(str(tmp_path / "desk.toml"))
    assert load_handlers(desk).keys() == {"./desk.py:publish"}
    assert {name for name, agent in desk.flow.agents.items() if agent.workers} == {"chief", "publish"}


def test_the_flow_with_models_for_real_runs_in_rehearsal(tmp_path: Path) -> None:
    save_files(tmp_path)
    (tmp_path / "paper.txt").write_text("Nobody paid late. The lid leaks.", "utf-8")
    questions = 'questions=["Who paid late?", "What leaks?"]'
    ended = baton("run", "./audit.toml", "paper=@paper.txt", questions, "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    output = json.loads(ended.stdout.splitlines()[-1])["output"]
    assert [answer.keys() for answer in output] == [{"answer", "page", "sure"}] * 2
    assert {answer["sure"] for answer in output} <= {"yes", "no"}


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_each_program_in_python_does_what_it_shows(home: Path, number: int) -> None:
    """Beside `baton up article`, and without a key: it prints something, and nothing on stderr."""
    program = [sys.executable, "-c", PROGRAMS[number]]
    ended = subprocess.run(program, cwd=home, env=environ(), capture_output=True, text=True, timeout=WAIT_S)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.strip()


def test_each_command_that_is_shown_exists() -> None:
    shown = set(re.findall(r"(?:\$ |`)baton ([a-z]+)", ALL))
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert shown <= known
    assert known <= shown, "the README, or what it leads to, names each command"


def test_each_shipped_flow_that_is_run_takes_the_input_that_is_shown() -> None:
    lines = re.findall(r"\$ baton (?:run|submit) ([\w-]+) (.*)$", README, re.MULTILINE)
    assert {name for name, _ in lines} == set(shipped_flows())
    for name, arguments in lines:
        flow = find_flow(name).flow
        given = set(re.findall(r"(\w+)=", arguments))
        assert given <= set(flow.input)
        assert given >= {key for key, field in flow.input.items() if field.required}


def test_each_setting_is_in_the_table() -> None:
    folders = [ROOT / "bus", ROOT / "actors"]
    texts = [module.read_text("utf-8") for folder in folders for module in folder.rglob("*.py")]
    named = {name for text in texts for name in re.findall(r"\"((?:BATON|ANTHROPIC)_[A-Z_]+[A-Z])\"", text)}
    settings = {f"BATON_{name.upper()}" for name in Settings.__struct_fields__}
    assert {name for name in named | settings if f"`{name}`" not in SETTINGS} == set()


def test_defaults_in_the_table_are_those_of_the_settings() -> None:
    rows = dict(re.findall(r"^\| `BATON_([A-Z_]+)` \| `?([\w.-]+)`? \|", SETTINGS, re.MULTILINE))
    shown = {name.lower(): value for name, value in rows.items() if name.lower() in Settings.__struct_fields__}
    assert shown == {name: f"{getattr(Settings(), name)}".removesuffix(".0") for name in shown}
    assert len(shown) > 5


@pytest.mark.parametrize("doc", [ROOT / "README.md", *DOCS], ids=lambda doc: str(doc.relative_to(ROOT)))
def test_links_lead_somewhere(doc: Path) -> None:
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", doc.read_text("utf-8"))]
    local = [target for target in targets if target and not target.startswith("https://")]
    assert [target for target in local if not (doc.parent / target).exists()] == []
