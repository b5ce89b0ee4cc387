"""`baton new`: a small team to begin with, or a copy of an example."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.commands.check import schema_text
from baton_actors.cli.exits import OK, BadArgument
from baton_actors.cli.output import print_json
from baton_actors.cli.show.console import console
from baton_actors.cli.teams import check_name, example_files, examples, team_files, write_team

_SCHEMA = "flow.schema.json"
"""What the first line of the flow files names, for editors."""
_IGNORED = ".baton/\n__pycache__/\n"
"""What running a team leaves in its folder, and nobody wants in a repository."""


@command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="What it is called; its folder too.", show_default=False)
    ] = "",
    example: Annotated[
        str,
        typer.Option(
            "--example", metavar="EXAMPLE", help=f"Copy an example: {', '.join(examples())}.", autocompletion=examples
        ),
    ] = "",
    json: o.Json = False,
) -> int:
    """Write a small team to begin with.

    A folder NAME with a flow, a handler, a test and a README, which runs as it is; or a copy of an example.
    Nothing that is there is written over.
    """
    if not name and not example:
        raise BadArgument(f"expected a name, such as `baton new my-team`, or `--example {examples()[0]}`")
    if example:
        files = example_files(example)
        if name:
            check_name(name)
    else:
        files = team_files(name)
    folder = Path(name or example)
    write_team(folder, {**files, _SCHEMA: schema_text(), ".gitignore": _IGNORED})
    flow = next(file for file in files if file.endswith(".toml"))
    if json:
        print_json({"folder": str(folder.absolute()), "flow": flow, "files": sorted({*files, _SCHEMA, ".gitignore"})})
    else:
        _tell(folder, flow, files)
    return OK


def _tell(folder: Path, flow: str, files: dict[str, str]) -> None:
    out = console()
    out.print(Text.assemble(("✓ ", "green"), ("wrote ", ""), (f"{folder}/", "bold")))
    names = textwrap.wrap("  ".join([*files, _SCHEMA]), out.width - 2, break_on_hyphens=False)
    out.print(Text(textwrap.indent("\n".join(names), "  "), "dim"))
    out.print()
    lines = {
        f"cd {folder}": "",
        _run_line(files, flow): "a run, rehearsed without a key",
        f"baton check ./{flow}": "a check, without running it",
        "pytest": "its tests (pip install pytest)",
    }
    width = max(map(len, lines)) + 3
    for line, what in lines.items():
        fits = what and len(what) + width + 2 <= out.width
        out.print(Text.assemble(f"  {line.ljust(width)}", (what, "dim")) if fits else Text(f"  {line}"), soft_wrap=True)


def _run_line(files: dict[str, str], flow: str) -> str:
    """Return the command that runs the flow: the first that its file shows."""
    lines = [line.removeprefix("#").partition(" #")[0].strip() for line in files[flow].splitlines()]
    return next(line for line in lines if line.startswith("baton run"))
