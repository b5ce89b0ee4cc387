"""The file maps in the folders' READMEs: one line per file, its docstring's first. `make maps` writes them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("schemas", "bus", "actors", "tests")

_BEGIN = "<!-- `make maps` writes the lines from here on from the docstrings -->"
_END = "<!-- up to here -->"


def read_map(folder: str) -> str:
    """Return the map that the folder's README has now."""
    match = _within().search(_readme(folder).read_text("utf-8"))
    assert match is not None, f"{folder}/README.md: put the lines {_BEGIN!r} and {_END!r} where the map belongs"
    return match[1]


def make_map(folder: str) -> str:
    """Return the map that the files of the folder make."""
    files = sorted(
        (file for file in (ROOT / folder).rglob("*") if file.suffix in (".py", ".toml") and _first_line(file)),
        key=lambda file: (len(file.parts), file.parts),
    )
    rows = [f"| `{file.relative_to(ROOT / folder)}` | {_cell(_first_line(file))} |\n" for file in files]
    return f"| file | what is in it |\n|---|---|\n{''.join(rows)}"


def write_map(folder: str) -> None:
    """Put the map into the folder's README, in place of the one that is there."""
    readme = _readme(folder)
    text = readme.read_text("utf-8")
    readme.write_text(text.replace(read_map(folder), make_map(folder)), "utf-8")


def _first_line(file: Path) -> str:
    """Return what a module's docstring, or the comment at the head of another file, says first."""
    text = file.read_text("utf-8")
    if file.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return text.partition("\n")[0].removeprefix("#").strip() if text.startswith("#") else ""


def _cell(line: str) -> str:
    return line.replace("|", "\\|")


def _readme(folder: str) -> Path:
    return ROOT / folder / "README.md"


def _within() -> re.Pattern[str]:
    return re.compile(f"{re.escape(_BEGIN)}\n(.*?){re.escape(_END)}", re.DOTALL)


if __name__ == "__main__":
    for each in FOLDERS:
        write_map(each)
