"""The teams that `baton new` writes: a small one of a name of one's own, and the examples, as they are shipped."""

from __future__ import annotations

import keyword
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path

from baton_actors.agents.loading import shipped_flows
from baton_actors.cli.exits import CommandError
from baton_schemas.errors import nearest

EXAMPLES = Path(__file__).parent.parent / "examples"
_TEAM = "team"
"""The folder of the small one. Its flow is `new-team`, its module `new_team`: words that mean nothing else in it."""
_NAME_MAX = 50
"""Characters of a team's name: with that of an agent it is the name of an actor, which has 64 at most."""
_RULE = "expected a letter, then letters, digits, '_' or single '-', 50 in all at most"


class BadTeamName(CommandError):
    """A team cannot be called so."""

    def __init__(self, name: str, reason: str) -> None:
        """`reason` says why, and what to write instead."""
        self.name, self.reason = name, reason
        super().__init__(f"a team cannot be called {name!r}: {reason}")


class UnknownExample(CommandError):
    """No example of this name is shipped."""

    def __init__(self, name: str) -> None:
        """`name` is what was asked for."""
        self.name = name
        super().__init__(f"there is no example {name!r}. {nearest(name, examples())}".rstrip())


class FolderTaken(CommandError):
    """There is something already where the team was to be written."""

    def __init__(self, folder: str) -> None:
        """`folder` as it was given."""
        self.folder = folder
        super().__init__(f"{folder} is there already, and is left as it is. Give another name, or remove it first.")


def examples() -> list[str]:
    """Return the names of the examples, sorted."""
    return sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name not in (_TEAM, "__pycache__"))


def team_files(name: str) -> dict[str, str]:
    """Return the files of a small team that is called so, by their names. Raises `BadTeamName`."""
    check_name(name)
    module = _module_of(name)
    if module in sys.stdlib_module_names or _is_installed(module):
        raise BadTeamName(
            name, f"its handlers would be in {module}.py, which hides Python's module {module!r}. Try '{name}-team'"
        )
    return {_named(file, name): _named(text, name) for file, text in _files(EXAMPLES / _TEAM).items()}


def example_files(name: str) -> dict[str, str]:
    """Return the files of an example, by their paths in its folder. Raises `UnknownExample`."""
    if name not in examples():
        raise UnknownExample(name)
    return _files(EXAMPLES / name)


def check_name(name: str) -> None:
    """Raise `BadTeamName` unless a team, its folder, its flow and its module can be called so."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*(-[A-Za-z0-9_]+)*", name) or len(name) > _NAME_MAX:
        raise BadTeamName(name, _RULE)
    if keyword.iskeyword(_module_of(name)):
        raise BadTeamName(name, f"it is a word of Python's. Try '{name}-team'")
    if name in shipped_flows():
        raise BadTeamName(name, f"a flow of this name comes with Baton. Try '{name}-team'")


def write_team(folder: Path, files: dict[str, str]) -> None:
    """Write a team into a folder that is not there, or empty. Raises `FolderTaken`, `OSError`."""
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise FolderTaken(str(folder))
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        with (folder / name).open("x", encoding="utf-8") as file:
            file.write(text)


def _files(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: path.read_text("utf-8") for path in paths}


def _named(text: str, name: str) -> str:
    return text.replace("new-team", name).replace("new_team", _module_of(name))


def _module_of(name: str) -> str:
    return name.replace("-", "_")


def _is_installed(module: str) -> bool:
    """Say whether a module of this name can be imported from anywhere but the folder we are in."""
    here = Path.cwd()
    elsewhere = [path for path in sys.path if path and Path(path) != here]
    return PathFinder.find_spec(module, elsewhere) is not None
