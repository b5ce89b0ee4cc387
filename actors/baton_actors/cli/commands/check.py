"""`baton check` and `baton schema`: whether flows can run, without running them; and their JSON Schema, for editors."""

from __future__ import annotations

from typing import Any

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from baton_actors.agents.checking import CheckedFlow, Problem, check_models, check_source
from baton_actors.cli import options as o
from baton_actors.cli.command import command
from baton_actors.cli.exits import OK, USAGE
from baton_actors.cli.output import print_json
from baton_actors.cli.show.console import console
from baton_actors.cli.text import plain_lines
from baton_schemas.flow.schema import flow_schema

_NAMED_MAX = 5
"""Agents that may be asked and are named."""
_MARKS = {"error": ("✗", "red"), "warning": ("!", "yellow")}


@command()
def check(flows: o.Flows, json: o.Json = False) -> int:
    """Say whether flows can run, without running them.

    The file, its handlers (which are imported) and whether they fit, its models, and the settings that it needs.
    Exit codes: 0 they can, perhaps with warnings, 2 one of them cannot.
    """
    checked = [check_source(flow) for flow in flows]
    host, wrong = check_models()
    if not any(each.models or each.has_clients for each in checked):
        wrong = None  # of models, which nobody asks
    if json:
        facts = [{**msgspec.to_builtins(each), "ok": each.runs} for each in checked]
        settings = msgspec.to_builtins([wrong] if wrong else [])
        print_json({"ok": _all_run(checked, wrong), "flows": facts, "models_at": host, "settings": settings})
    else:
        _tell(checked, host, wrong, console())
    return OK if _all_run(checked, wrong) else USAGE


@command()
def schema() -> int:
    """Print the JSON Schema of flow files, for editors.

    Kept beside a flow file whose first line is `#:schema ./flow.schema.json`, it has editors that know TOML
    (Even Better TOML, Taplo) complete and check the file.
    """
    print(schema_text(), end="")
    return OK


def schema_text() -> str:
    """Return the JSON Schema of flow files as text."""
    return msgspec.json.format(msgspec.json.encode(flow_schema()), indent=2).decode() + "\n"


def _all_run(checked: list[CheckedFlow], wrong: Problem | None) -> bool:
    return wrong is None and all(each.runs for each in checked)


def _tell(checked: list[CheckedFlow], host: str, wrong: Problem | None, out: Console) -> None:
    for each in checked:
        mark, style = ("✓", "green") if each.runs else _MARKS["error"]
        out.print(Text.assemble((f"{mark} ", style), (plain_lines(each.source), "bold"), _summary(each)))
        for problem in each.problems:
            _tell_problem(problem, out)
    if wrong is not None:
        out.print(Text.assemble(("✗ ", "red"), ("settings", "bold")))
        _tell_problem(wrong, out)
    elif any(each.models or each.has_clients for each in checked):
        calls = f"models answer at {host}" if host else "models are rehearsed: set ANTHROPIC_API_KEY to ask Claude"
        out.print(Text(calls, "dim"))


def _tell_problem(problem: Problem, out: Console) -> None:
    mark, style = _MARKS[problem.level]
    text = plain_lines(problem.message)
    if out.is_terminal:
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(Text(mark, style), Text(text))
        out.print(Padding(line, (0, 0, 0, 2), expand=False))
    else:  # a line each, for those who search in it
        out.print(Text(f"  {mark} {text}"), soft_wrap=True)


def _summary(each: CheckedFlow) -> Text:
    facts: list[Any] = [_count(each.steps, "step")] if each.flow else []
    facts += [f"may ask {_some(each.asked)}"] if each.asked else []
    facts += [_count(each.handlers, "handler")] if each.handlers else []
    facts += [_count(each.tools, "tool")] if each.tools else []
    facts += [", ".join(each.models)] if each.models else []
    facts += [f"within it {', '.join(each.flows)}"] if each.flows else []
    return Text(f"  {' · '.join(facts)}" if facts else "", "dim")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more


def _count(things: list[str], what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"
