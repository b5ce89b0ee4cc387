"""How a command ends: exit codes that scripts can use, and errors that are told in one line."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence

from baton_actors.cli.text import plain_lines, wrapped
from baton_schemas.errors import Coded, snake_case

OK, FAILED, USAGE, NO_BUS, ENDED = 0, 1, 2, 3, 4
"""Done; the run failed; bad usage, input or flow; no server or no answer; the run was cancelled or expired."""


class CommandError(Coded, Exception):
    """What a command itself has to say."""

    exit_code = USAGE


class BadArgument(CommandError):
    """An argument that is no `key=value`, or does not fit the flow's input."""


class BadInputFile(CommandError):
    """The file of `key=@file` cannot be read as text."""

    def __init__(self, key: str, path: str, reason: str) -> None:
        """`reason` says what was found."""
        self.key, self.path, self.reason = key, path, reason
        super().__init__(f"input {key!r}: {path} {reason}. Expected a file of text in UTF-8")


class NoRunsHere(CommandError):
    """There is no data directory, so there can be no runs."""

    def __init__(self, data_dir: str) -> None:
        """`data_dir` is where was looked."""
        self.data_dir = data_dir
        super().__init__(
            f"no runs here: there is no directory {data_dir}. `baton run FLOW` makes it; "
            "or name another with --data-dir (BATON_DATA), or a server with --nats (BATON_URL)"
        )


class NoServerRuns(CommandError):
    """The command needs a server that goes on running, and none does."""

    exit_code = NO_BUS

    def __init__(self, data_dir: str) -> None:
        """`data_dir` is whose server does not run."""
        self.data_dir = data_dir
        super().__init__(
            f"no server runs in {data_dir}. Start one with `baton up FLOW`, or name one with --nats (BATON_URL)"
        )


def report(error: BaseException, arguments: Sequence[str]) -> int:
    """Tell an expected error in one line (with `--json`, as an object on stdout); return its exit code.

    Raises an error again that is not expected: that is a bug, and its traceback helps.
    """
    from baton_actors.processes.signals import Interrupted

    exit_code = _exit_code(error)
    if exit_code is None:
        raise error
    try:
        if "--json" in arguments:
            facts = {"code": code_of(error), "type": type(error).__name__, "message": _sentence(error)}
            print(json.dumps({"error": facts, "exit_code": exit_code}), flush=True)
        elif not isinstance(error, Interrupted):
            said = f"baton: {plain_lines(_sentence(error))}"
            if sys.stderr.isatty():
                said = wrapped(said, shutil.get_terminal_size().columns)
            print(said, file=sys.stderr, flush=True)
    except OSError:
        pass  # whoever would read it is gone
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still in the buffers
    return exit_code


def code_of(error: BaseException) -> str:
    """Return the code of an error, for programs: that of its class, or the name of a class that is not ours."""
    return error.code if isinstance(error, Coded) else snake_case(type(error).__name__)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _exit_code(error: BaseException) -> int | None:
    from baton_actors.errors import ActorError
    from baton_actors.models.errors import ModelError
    from baton_actors.processes.errors import WorkersKeepDying
    from baton_actors.processes.signals import Interrupted
    from baton_bus.client.runs import AmbiguousRun
    from baton_bus.errors import AnswerRefused, BadSchedule, BusError, RunExists, RunNeeded, RunUnended, UnknownRun
    from baton_bus.index.errors import IndexUnusable, NoWords
    from baton_schemas.errors import SchemaError

    match error:
        case CommandError() | Interrupted():
            return error.exit_code
        case KeyboardInterrupt():
            return 130
        case WorkersKeepDying() | BrokenPipeError() | AnswerRefused():
            return FAILED
        case IndexUnusable() | NoWords():
            return USAGE
        case UnknownRun() | AmbiguousRun() | RunExists() | RunUnended() | RunNeeded() | BadSchedule():
            return USAGE
        case SchemaError() | ActorError() | ModelError():
            return USAGE
        case BusError():
            return NO_BUS
        case OSError():
            return USAGE
        case _:
            return None
