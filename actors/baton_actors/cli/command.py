"""The one way to make a command: `@command()` on a function in a module of `commands/` that `app.py` lists."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import typer

from baton_actors.cli.options import place_of
from baton_actors.processes.signals import interruptible, run_to_end

_OF_PLACE = inspect.signature(place_of, eval_str=True).parameters
_Function = TypeVar("_Function", bound=Callable[..., Any])

registered = typer.Typer(rich_markup_mode=None)
"""The commands of the modules that are imported."""


def command(*, until_stopped: bool = False) -> Callable[[_Function], _Function]:
    """Make a function the command of its name. It returns an exit code.

    Its docstring is the help, and its parameters are the arguments and options, but for two: `place`, where the bus
    is, stands for the options of `place_of`; `stop` says which signal has come. A coroutine is cancelled by a signal
    to stop; one that runs `until_stopped` has then ended well. The function itself stays as it is.
    """

    def register(function: _Function) -> _Function:
        registered.command()(_with_options(function, until_stopped))
        return function

    return register


def _with_options(function: Callable[..., Any], until_stopped: bool) -> Callable[..., int]:
    """Return what typer calls: the function with the options of the place instead of `place`, and without `stop`."""
    wanted = inspect.signature(function, eval_str=True).parameters
    own = [parameter for name, parameter in wanted.items() if name not in ("place", "stop")]
    options = [*own, *(_OF_PLACE.values() if "place" in wanted else ())]

    def call(**given: Any) -> int:
        arguments = {parameter.name: given[parameter.name] for parameter in own}
        if "place" in wanted:
            arguments["place"] = place_of(**{name: given[name] for name in _OF_PLACE})
        if not inspect.iscoroutinefunction(function):
            with interruptible():
                return int(function(**arguments))
        return run_to_end(
            lambda stop: function(**arguments, **({"stop": stop} if "stop" in wanted else {})),
            until_stopped=until_stopped,
        )

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined] # what `inspect.signature` returns
    call.__annotations__ = {option.name: option.annotation for option in options}
    return call
