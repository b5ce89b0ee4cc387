"""The file maps in the folders' READMEs: one line per file, its docstring's first. `make maps` writes them."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("schemas", "bus", "actors", "tests")

_BEGIN = "<!-- `make maps` writes the lines from here on from the docstrings -->\n"
_END = "<!-- up to here -->\n"


def read_map(folder: str) -> str:
    """Return the map that the folder's README has now."""
    return _parts(folder)[1]


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
    before, _, after = _parts(folder)
    (ROOT / folder / "README.md").write_text(before + make_map(folder) + after, "utf-8")


@functools.cache
def _first_line(file: Path) -> str:
    """Return what a module's docstring, or the comment at the head of another file, says first."""
    text = file.read_text("utf-8")
    if file.suffix == ".py":
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return text.partition("\n")[0].removeprefix("#").strip() if text.startswith("#") else ""


def _cell(line: str) -> str:
    return line.replace("|", "\\|")


def _parts(folder: str) -> tuple[str, str, str]:
    """Return a README's text before its map, the map, and the text after it, marks left outside the map."""
    text = (ROOT / folder / "README.md").read_text("utf-8")
    before, begin, rest = text.partition(_BEGIN)
    now, end, after = rest.partition(_END)
    assert begin and end, f"{folder}/README.md: put the lines {_BEGIN!r} and {_END!r} where the map belongs"
    return before + begin, now, end + after


if __name__ == "__main__":
    for each in FOLDERS:
        write_map(each)
