"""The files that a flow and its handlers come from, found without importing anything, and what is wrong with them."""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Iterator
from pathlib import Path

from baton_actors.agents.loading import SHIPPED, FoundFlow, shipped_flows, within
from baton_actors.agents.signatures import file_of
from baton_schemas.flow.flow import IN_PROCESS
from baton_schemas.flow.used_tools import functions_of

_FILES_MAX = 500
"""Files of one flow that are looked at: more than anybody writes beside a flow, and each is one `stat`."""


def flow_file(found: FoundFlow) -> Path:
    """Return the file of a flow."""
    return SHIPPED / f"{found.source}.toml" if found.source in shipped_flows() else Path(found.source)


def code_files(found: FoundFlow) -> dict[Path, set[str]]:
    """Return the files that handlers of a flow, and flows within it, come from, each with the agents that use it.

    They are those that `handler` and `tools` name, and what these import from beside them, near and far, the schema
    that `output` names, and the flow files that `flow` names; a file that is not there is among them, as it may come.
    """
    files: dict[Path, set[str]] = {}
    for name, agent in found.flow.agents.items():
        if agent.flow:
            for flow in _flow_files(within(found, agent.flow)):
                files.setdefault(flow, set()).add(name)
        if isinstance(agent.output, str) and not agent.output.startswith(IN_PROCESS):
            files.setdefault(found.folder / agent.output, set()).add(name)
        pending: list[Path] = []
        for named in [agent.handler, *functions_of(agent).values()]:
            where = named.rpartition(":")[0]
            file = found.folder / where if where.endswith(".py") else file_of(where) if where else None
            pending += [] if file is None else [file.resolve()]
        while pending and len(files) < _FILES_MAX:
            each = pending.pop()
            if name not in files.setdefault(each, set()):
                files[each].add(name)
                pending += _imported_beside(each)
    return files


def _flow_files(found: FoundFlow) -> Iterator[Path]:
    if found.source:  # else it was built in Python
        yield flow_file(found)
    for key in found.plan.nested:
        yield from _flow_files(within(found, key))


def syntax_error(file: Path) -> str:
    """Return what is wrong with the syntax of a file of Python, and where: `triage.py:31: …`; empty for nothing."""
    try:
        compile(file.read_bytes(), str(file), "exec", dont_inherit=True)
    except SyntaxError as error:
        return f"{file.name}:{error.lineno or 1}: {error.msg}"
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        return f"{file.name}: {error}"
    return ""


def _imported_beside(file: Path) -> Iterator[Path]:
    """Yield the modules of the same folder that a file imports, wherever in it."""
    tree = None
    with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree) if tree is not None else ():
        for name in _named(node):
            top = name.partition(".")[0]
            for path in (file.parent / f"{top}.py", file.parent / top / "__init__.py"):
                if top and path.is_file():
                    yield path.resolve()


def _named(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=None, names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(module=str(module), level=level) if level <= 1:
            return [module]
        case _:
            return []
