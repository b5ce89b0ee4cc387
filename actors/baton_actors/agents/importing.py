"""Importing the functions that an agent's `handler` and `tools` name: `module:name`, or `./file.py:name`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from baton_actors.agents.code_lines import keep_source
from baton_actors.agents.handlers import WRITTEN, Handler
from baton_actors.agents.raising import describe
from baton_actors.agents.tools.function import FunctionTool, made
from baton_actors.agents.tracebacks import place_of
from baton_actors.errors import HandlerNotFound
from baton_schemas.errors import nearest
from baton_schemas.flow.flow import IN_PROCESS, Agent
from baton_schemas.show.errors import at
from baton_schemas.wire.values import clean_text

_CODE_MAX = 120


def load_handler(agent_name: str, agent: Agent, folder: Path) -> Handler:
    """Import the handler of an agent; `./file.py:name` is relative to `folder`, where the flow file is.

    Raises `HandlerNotFound`, `BadHandler`.
    """
    found, name = _imported(agent_name, agent.handler, folder, "handler")
    if isinstance(found, Handler):
        return found
    if not callable(found):
        raise HandlerNotFound(agent_name, agent.handler, f"{name!r} is no function")
    return Handler(found)


def load_tool(agent_name: str, use: str, folder: Path) -> FunctionTool:
    """Import a function among the tools of an agent; `./file.py:name` is relative to `folder`.

    Raises `HandlerNotFound`, `BadTool`.
    """
    found, _ = _imported(agent_name, use, folder, "tools")
    return made(found, use)


def _imported(agent_name: str, named: str, folder: Path, key: str) -> tuple[Any, str]:
    """Return what a flow names, and its name. Raises `HandlerNotFound`."""
    if named.startswith(IN_PROCESS):
        reason = "it is a function of the Python program that built the flow, and only that can play it (`Baton.local`)"
        raise HandlerNotFound(agent_name, named, reason, key)
    where, _, name = named.rpartition(":")
    try:
        module = _import_file(folder / where, where) if where.endswith(".py") else importlib.import_module(where)
    except FileNotFoundError as error:
        missing = folder / where
        if not where.endswith(".py") or missing.exists():  # it is the module's own code that misses a file
            raise HandlerNotFound(agent_name, named, _import_raised(error), key) from error
        raise HandlerNotFound(agent_name, named, f"there is no file {missing}", key) from error
    except (Exception, SystemExit) as error:  # a script without `if __name__ == "__main__"` may exit
        raise HandlerNotFound(agent_name, named, _import_raised(error), key) from error
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            hint = nearest(part, [known for known in vars(module) if not known.startswith("_")])
            raise HandlerNotFound(agent_name, named, f"it has no {name!r}. {hint}".rstrip(". "), key)
        found = getattr(found, part)
    return found, name


def _import_raised(error: BaseException) -> str:
    kind, message = describe(error)
    if isinstance(error, SyntaxError) and isinstance(error.text, str) and error.text.strip():
        message += f": `{clean_text(error.text.strip(), _CODE_MAX)}`"
    return f"importing it raised {kind}: {message}{at(place_of(error))}"


def _import_file(path: Path, written: str) -> Any:
    path = path.resolve(strict=True)
    name = f"baton_handlers_{path.stem}_{abs(hash(str(path))):x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, WRITTEN, written)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # so that the file's own neighbours can be imported
    keep_source(str(path))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
