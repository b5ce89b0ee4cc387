"""The command `baton`: which commands there are. What each takes and does is in its module, imported when called."""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from baton_actors.cli.exits import USAGE, report

if TYPE_CHECKING:
    from typer._click import Command, Context

COMMANDS = {
    "run": ("run", "Run a flow and print its output."),
    "new": ("new", "Write a small team to begin with."),
    "check": ("check", "Say whether flows can run, without running them."),
    "graph": ("graph", "Draw the steps of a flow."),
    "schema": ("check", "Print the JSON Schema of flow files, for editors."),
    "up": ("up", "Keep the actors of flows running."),
    "actor": ("up", "Run one actor in this process."),
    "steward": ("up", "Turn the tasks of clients into runs."),
    "submit": ("send", "Start a run and print its id."),
    "cancel": ("send", "End a run that has not ended."),
    "inbox": ("people", "List what waits for people, and answer it."),
    "answer": ("people", "Answer a question that a run asks."),
    "say": ("people", "Tell a run of an event that it waits for, or will."),
    "runs": ("runs", "List the latest runs, the newest first; or those that fit."),
    "index": ("index", "Make, or keep up, the index that `runs` finds runs by."),
    "console": ("console", "Open the console: runs as they happen, in a browser."),
    "top": ("top", "Watch runs in this terminal, go into them, and act."),
    "show": ("look", "Show a run: its steps, and its output or error; or one step, with what it got and gave."),
    "log": ("look", "Print the messages of a run, one a line."),
    "replay": ("replay", "Step through a run, message by message."),
    "diff": ("diff", "Say where two runs part: input, flow, and the first step that differs."),
    "export": ("look", "Write a run as JSON lines, for `replay`."),
    "spend": ("spend", "Say what was spent on models, and what of it was in vain."),
    "doctor": ("doctor", "Say what the server can lose, and what stands still."),
    "retry": ("again", "Go on with a run that failed, from where it broke."),
    "fork": ("again", "Go on from an earlier point of a run."),
    "purge": ("purge", "Remove runs from the log, for good."),
    "dead": ("dead", "List failed steps and rejected messages, the newest first."),
    "schedule": ("schedules", "Run a flow at a time to come."),
    "schedules": ("schedules", "List what is scheduled."),
    "unschedule": ("schedules", "Remove a schedule."),
}
"""By name, in the order of the help: the module in `commands/`, and the first line of the command's docstring."""

_WITH_WORKERS = ("run", "up")


class _Commands(TyperGroup):
    """Knows of each command what the help says, and imports its module when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, (_, purpose) in COMMANDS.items():
            self.add_command(TyperCommand(name, help=purpose))

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        if name in _WITH_WORKERS and not ctx.resilient_parsing and not {"-h", "--help", "--debug"}.intersection(rest):
            _begin_imports()
        return name, load(name) if name in COMMANDS else command, rest


def load(name: str) -> Command:
    """Return a command, with its module imported."""
    from baton_actors.cli.command import registered

    importlib.import_module(f"baton_actors.cli.commands.{COMMANDS[name][0]}")
    return get_group(registered).commands[name]


def _begin_imports() -> None:
    """Have what workers import imported in another process, while we import what the command needs.

    Not where models are called: whether workers need the SDK too depends on the flow, which the command reads first.
    """
    from baton_actors.models.errors import ModelError
    from baton_actors.models.types import ModelSettings
    from baton_actors.processes.forks import REHEARSAL, begin_imports

    with contextlib.suppress(ModelError):
        if ModelSettings.from_environ().rehearses:
            begin_imports([REHEARSAL])


app = typer.Typer(
    cls=_Commands,
    name="baton",
    rich_markup_mode=None,  # plain help comes at once, and without boxes
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"baton {version('baton-bus')}")
        raise typer.Exit


@app.callback()
def _baton(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Teams of LLM agents as actors on NATS."""


def main() -> None:
    """Run the command that `sys.argv` names, and exit with its code."""
    arguments = sys.argv[1:]
    try:
        code = app(arguments, prog_name="baton", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        code = _usage(error, arguments)
    except (Exception, KeyboardInterrupt) as error:
        code = report(error, arguments)
    sys.exit(code)


def _usage(error: typer.TyperException, arguments: list[str]) -> int:
    """Tell a mistake in the arguments as other errors are told."""
    from baton_actors.cli.exits import BadArgument

    message = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    help_with = f"`{context.command_path} --help` shows how." if context is not None else ""
    return report(BadArgument(f"{message.rstrip('.')}. {help_with}".strip()), arguments) if message else USAGE
