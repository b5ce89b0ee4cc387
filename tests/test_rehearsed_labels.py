"""What no model answered is labelled at every place that shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from baton_actors.agents.loading import find_flow
from baton_actors.cli.commands.up import tell
from baton_actors.cli.place import Place
from baton_actors.cli.show.costs import cost_of
from baton_bus import Settings
from baton_schemas.run.fold import fold

from .commands import WAIT_S, baton, start
from .test_readme import blocks

LABEL = "rehearsed: no model was called, set ANTHROPIC_API_KEY to ask Claude"
EMAILS = [
    {"id": "m-1", "body": "Where is my parcel? I ordered it on Monday."},
    {"id": "m-2", "body": "The mirror came broken. I want my money back."},
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the README's flow and its handlers in it."""
    folder = tmp_path_factory.mktemp("mails")
    for block in [*blocks("toml"), *blocks("python")]:
        for name in ("mails.toml", "mails.py"):
            if block.startswith(f"# {name}\n"):
                (folder / name).write_text(block, "utf-8")
    (folder / "emails.json").write_text(json.dumps(EMAILS))
    return folder


@pytest.fixture(scope="module")
def up(home: Path) -> Iterator[str]:
    """What `up` says on stderr once it is up; its server is the one of all these commands."""
    process = start("up", "./mails.toml", "--json", cwd=home)
    assert process.stdout is not None
    yield process.stdout.readline()
    process.terminate()
    process.communicate(timeout=WAIT_S)


def test_readme_example_rehearses_to_something_sensible_and_labelled(home: Path, up: str) -> None:
    assert json.loads(up)["rehearses"] is True
    waited = baton("submit", "./mails.toml", "emails=@emails.json", "--wait", cwd=home)
    first, second = json.loads(waited.stdout)
    assert first == "Where is my parcel? I ordered it on Monday."
    assert second == "The mirror came broken. I want my money back."
    assert LABEL in waited.stderr
    assert json.loads(baton("runs", "--json", cwd=home).stdout)[0]["rehearsed"] is True
    for command in ("show", "log", "replay", "export"):
        shown = baton(command, cwd=home)
        assert shown.returncode == 0, shown.stderr
        assert LABEL in shown.stdout + shown.stderr, command
        assert "rehearsed" in shown.stdout
    assert "rehearsed" in baton("runs", cwd=home).stdout
    assert baton("export", "--json", cwd=home).stderr == ""


@pytest.mark.parametrize(
    ("cost_usd", "unpriced", "rehearsed", "said"),
    [
        (0.5, 0, True, "$0.5000, partly rehearsed"),
        (None, 0, True, "rehearsed"),
        (0.0, 0, True, "rehearsed"),
        (0.0, 1, True, "at least $0.0000, partly rehearsed"),
        (0.5, 0, False, "$0.5000"),
        (None, 0, False, ""),
    ],
)
def test_price_of_a_run_says_how_much_of_it_is_rehearsed(
    cost_usd: float | None, unpriced: int, rehearsed: bool, said: str
) -> None:
    state = replace(fold([]), cost_usd=cost_usd, unpriced=unpriced, rehearsed=rehearsed)
    assert cost_of(state) == said


def test_up_says_that_it_rehearses(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL", "BATON_REHEARSE"):
        monkeypatch.delenv(name, raising=False)
    place = Place(url="", namespace="", data_dir=Path(".baton"))
    tell([find_flow("ask"), find_flow("report")], Settings(), place, 1)
    told = capsys.readouterr().err
    assert "ask--answerer      claude-sonnet-4-6, rehearsed" in told
    assert "baton_actors.flows.report:split\n" in told
    assert "rehearses: no model is called, set ANTHROPIC_API_KEY to ask Claude\n" in told
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
    tell([find_flow("ask")], Settings(), place, 1)
    assert "rehears" not in capsys.readouterr().err
