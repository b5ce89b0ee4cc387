"""Whether workers are older than their files: what is looked at, what counts as a change, and when it is told."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from rich.text import Text

from baton_actors.agents.files import code_files, flow_file, syntax_error
from baton_actors.agents.loading import find_flow
from baton_actors.cli.reloading import telling_of_changes
from baton_actors.processes import freshness
from baton_actors.processes.freshness import FilesChanged, Freshness

from .test_cli_mended import desk_in, mend


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A flow whose handlers import a module beside them, which imports another."""
    desk_in(tmp_path)
    mend(tmp_path)
    code = (tmp_path / "desk.py").read_text()
    (tmp_path / "desk.py").write_text(f"import json\nimport words\n{code}")
    (tmp_path / "words.py").write_text("def word():\n    from more import deep\n    return deep\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "__init__.py").write_text("deep = 1\n")
    (tmp_path / "unrelated.py").write_text("nobody = 'imports it'\n")
    return tmp_path


def later(file: Path, text: str | None = None) -> None:
    """Save a file, a moment later than whatever was saved before."""
    stat = file.stat()
    file.write_text(file.read_text() if text is None else text)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))


def told(flow: Freshness) -> FilesChanged | None:
    """What is told of a file that has come to rest."""
    assert flow.look() is None
    return flow.look()


def test_files_of_a_flow_are_those_that_its_handlers_come_from(desk: Path) -> None:
    found = find_flow(str(desk / "desk.toml"))
    assert flow_file(found) == desk / "desk.toml"
    files = [desk / "desk.py", desk / "words.py", desk / "more" / "__init__.py"]
    assert code_files(found) == {file: {"split", "check", "merge"} for file in files}
    assert flow_file(find_flow("report")).name == "report.toml"
    assert [file.name for file in code_files(find_flow("report"))] == ["report.py"]
    assert code_files(find_flow("ask")) == {}


def test_change_is_told_once_and_only_when_the_file_rests(desk: Path) -> None:
    flow = Freshness(find_flow(str(desk / "desk.toml")))
    assert told(flow) is None
    later(desk / "unrelated.py")
    assert told(flow) is None
    later(desk / "words.py")
    assert flow.look() is None
    later(desk / "words.py")
    assert flow.look() is None, "it is still being written"
    changed = flow.look()
    assert changed is not None
    assert changed.names == "words.py"
    assert changed.agents == {"split", "check", "merge"}
    assert told(flow) is None


def test_what_was_not_taken_up_is_told_with_the_next_change(desk: Path) -> None:
    flow = Freshness(find_flow(str(desk / "desk.toml")))
    later(desk / "words.py", "a mistake")
    assert (changed := told(flow)) is not None
    assert changed.names == "words.py"
    later(desk / "desk.toml")
    assert (changed := told(flow)) is not None
    assert changed.names == "desk.toml, words.py"
    flow.took_up(flow.found)
    later(desk / "desk.py")
    assert (changed := told(flow)) is not None
    assert changed.names == "desk.py"


def test_file_that_is_gone_and_comes_back_is_a_change(desk: Path) -> None:
    flow = Freshness(find_flow(str(desk / "desk.toml")))
    text = (desk / "desk.py").read_text()
    (desk / "desk.py").unlink()
    assert (changed := told(flow)) is not None
    assert changed.names == "desk.py"
    (desk / "desk.py").write_text(text)
    assert told(flow) is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n\ndef f(:\n", "a.py:3: invalid syntax"),
        ("x = 1\n", ""),
        ("x = '\0'\n", "a.py:"),
        ("return 1\n", "a.py:1: 'return' outside function"),
    ],
)
def test_mistake_in_the_syntax_is_told_with_its_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(text)
    assert syntax_error(tmp_path / "a.py").startswith(says)
    assert bool(syntax_error(tmp_path / "a.py")) == bool(says)


async def test_workers_that_are_older_than_their_file_are_told_of_once_per_change(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "LOOKS_S", 0.01)
    lines: asyncio.Queue[Text] = asyncio.Queue()
    async with telling_of_changes([find_flow(str(desk / "desk.toml"))], "they go on", lines.put_nowait):
        for name in ("words.py", "desk.toml"):
            later(desk / name)
            line = await asyncio.wait_for(lines.get(), 30)
            assert str(line) == f"· {name} has changed since its workers began: they go on"
    assert lines.empty()
