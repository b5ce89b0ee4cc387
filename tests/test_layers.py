"""The rules of the layout: imports point one way, each outside library has its place, and the maps are true."""

from __future__ import annotations

import ast
import fnmatch
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .maps import FOLDERS, ROOT, make_map, read_map

PACKAGES = {
    "baton_schemas": ROOT / "schemas" / "baton_schemas",
    "baton_bus": ROOT / "bus" / "baton_bus",
    "baton_actors": ROOT / "actors" / "baton_actors",
}
BELOW = {
    "baton_schemas": set(),
    "baton_bus": {"baton_schemas"},
    "baton_actors": {"baton_schemas", "baton_bus"},
}
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "actors", "bus", "schemas", "tests", "deploy"),
    *("Makefile", "LICENSE", "CHANGELOG.md", "requirements.lock", ".ci", ".git", ".gitignore"),
}
NO_AGENTS = ("baton_bus", "nats", "baton_actors.steps", "baton_actors.services", "baton_actors.processes")
"""What the kinds of agents must not know: the bus, and what stands on it."""
ROOMS = {
    "baton_schemas": {
        "errors": set(),
        "wire": {"errors"},
        "flow": {"errors", "wire", "run.refs"},
        "run": {"errors", "wire", "flow"},
        "show": {"errors", "wire", "flow", "run"},
    },
    "baton_bus": {
        "errors": set(),
        "jetstream": {"errors", "settings", "subjects"},
        "store": {"errors", "settings", "subjects", "jetstream"},
        "engine": {"errors", "settings", "subjects", "jetstream", "store"},
        "client": {"errors", "settings", "subjects", "store", "engine", "server"},
        "index": {"errors", "store", "client.runs", "jetstream.gets"},
        "doctor": {"errors", "addresses", "settings", "subjects", "jetstream", "store"},
        "server": {"errors"},
    },
    "baton_actors": {
        "errors": set(),
        "models": {"errors"},
        "agents": {"errors", "models"},
        "steps": {"errors", "models", "agents"},
        "services": {"errors", "steps"},
        "batches": {"errors", "models", "steps"},
        "processes": {"errors", "models", "agents", "steps", "services", "batches"},
        "team": {"errors", "models", "agents", "steps", "services", "processes"},
        "orders": {"errors", "agents"},
        "console": {"errors", "models", "agents", "steps", "services", "processes", "orders"},
        "top": {
            "errors",
            "orders",
            *(f"console.{name}" for name in ("bell", "core", "failing", "feeds", "listing", "needs", "words")),
            "console.queue_facts",
        },
        "cli": {"errors", "models", "agents", "steps", "services", "processes", "orders", "console", "top"},
        "flows": {"actor", "AskFailed", "AskRefused", "Branch", "Fail", "File", "Retry", "Context", "tool"},
        "examples": {"actor", "AskFailed", "AskRefused", "Branch", "Fail", "File", "Retry", "Context", "tool"},
    },
}
"""What each room may use of its own package, besides itself: one way, and no more than it needs."""
SUBJECT = re.compile(r"(^|\*|baton)\.(task|handoff|reply|answer|outcome|join|note|timer|result|live)\.")
"""The beginning of a subject: something before it, a kind, something after it."""


def modules(package: str) -> list[Path]:
    return sorted(PACKAGES[package].rglob("*.py"))


@functools.cache
def tree_of(module: Path) -> ast.Module:
    return ast.parse(module.read_text("utf-8"))


@functools.cache
def imports(module: Path) -> frozenset[str]:
    """Return the top-level names of the packages that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return frozenset(found)


@functools.cache
def full_imports(module: Path) -> frozenset[str]:
    """Return the full names of the modules that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def uses(module: Path, package: str) -> set[str]:
    """Return what a module imports of its package beyond its own room, by its name within the package."""
    room = module.relative_to(PACKAGES[package]).parts[0].removesuffix(".py")
    names = {name.removeprefix(f"{package}.") for name in full_imports(module) if name.startswith(f"{package}.")}
    return {name for name in names if name.split(".")[0] != room}


def importers(library: str) -> set[str]:
    """Return the modules of all packages that import a library, as paths within the layers' folders."""
    return {
        str(module.relative_to(folder.parent))
        for package, folder in PACKAGES.items()
        for module in modules(package)
        if library in imports(module)
    }


def strings(module: Path) -> Iterator[str]:
    """Yield the strings of a module, docstrings left out; what an f-string fills in is an asterisk."""
    tree = tree_of(module)
    skipped = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.value


@pytest.mark.parametrize("package", PACKAGES)
def test_layers_import_only_from_below(package: str) -> None:
    allowed = BELOW[package] | {package}
    used = {str(module): (imports(module) & PACKAGES.keys()) - allowed for module in modules(package)}
    assert {module: names for module, names in used.items() if names} == {}


def test_schemas_need_only_msgspec_and_the_standard_library() -> None:
    outside = set().union(*(imports(module) for module in modules("baton_schemas"))) - sys.stdlib_module_names
    assert outside - {"baton_schemas"} == {"msgspec"}


def test_only_the_bus_imports_nats() -> None:
    assert importers("nats") != set()
    assert all(module.startswith("baton_bus/") for module in importers("nats"))


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_use_only_the_rooms_below_them(package: str) -> None:
    wrong = {
        (room, name)
        for room, allowed in ROOMS[package].items()
        for module in modules(package)
        if module.relative_to(PACKAGES[package]).parts[0].removesuffix(".py") == room
        for name in uses(module, package)
        if not any(f"{name}.".startswith(f"{each}.") for each in allowed)
    }
    assert wrong == set()


@pytest.mark.parametrize("package", ROOMS)
def test_each_room_has_its_rule(package: str) -> None:
    rooms = {path.name for path in PACKAGES[package].iterdir() if (path / "__init__.py").exists()}
    assert rooms <= ROOMS[package].keys()


def test_only_commands_and_processes_start_workers() -> None:
    supervisor = "baton_actors.processes.supervisor"
    users = {
        module.relative_to(PACKAGES["baton_actors"]).parts[0]
        for module in modules("baton_actors")
        if any(name.startswith(supervisor) for name in full_imports(module))
    }
    assert users == {"cli"}


def test_kinds_of_agents_know_no_bus() -> None:
    agents = sorted((PACKAGES["baton_actors"] / "agents").glob("*.py"))
    assert agents
    known = {module.name: {name for name in full_imports(module) if name.startswith(NO_AGENTS)} for module in agents}
    assert {module: names for module, names in known.items() if names} == {}


def test_one_module_imports_anthropic() -> None:
    assert importers("anthropic") == {"baton_actors/models/sdk.py"}


def test_textual_is_imported_for_the_terminal_alone() -> None:
    assert importers("textual") != set()
    assert all(module.startswith("baton_actors/top/") for module in importers("textual"))
    assert importers("starlette") != set()
    assert not any(module.startswith("baton_actors/top/") for module in importers("starlette"))


def test_http_is_only_under_the_sdk_and_under_the_client_of_mcp_servers() -> None:
    assert importers("httpx2") == {"baton_actors/models/sdk.py", "baton_actors/agents/tools/mcp_client.py"}


def test_package_of_mcp_is_imported_by_one_module() -> None:
    assert importers("mcp") == importers("mcp_types") == {"baton_actors/agents/tools/mcp_client.py"}


@pytest.mark.parametrize("package", ["baton_bus", "baton_actors"])
def test_one_module_joins_subject_tokens(package: str) -> None:
    joined = {module.name: [text for text in strings(module) if SUBJECT.search(text)] for module in modules(package)}
    assert {module for module, texts in joined.items() if texts} <= {"subjects.py"}


def test_subjects_are_recognised_where_they_are_made() -> None:
    assert any(SUBJECT.search(text) for text in strings(PACKAGES["baton_bus"] / "subjects.py"))


def test_top_level_is_the_fixed_list() -> None:
    ignored = [line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines()]
    found = {path.name for path in ROOT.iterdir()}
    kept = {name for name in found if not any(fnmatch.fnmatch(name, pattern) for pattern in ignored)}
    assert kept - TOP_LEVEL == set()


@pytest.mark.parametrize("folder", FOLDERS)
def test_map_of_a_folder_says_what_its_files_say(folder: str) -> None:
    assert read_map(folder) == make_map(folder), "run `make maps`"


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_begins_with_what_it_is_for(package: str) -> None:
    silent = [str(module) for module in modules(package) if not ast.get_docstring(tree_of(module))]
    assert silent == []


def test_readme_names_each_folder_and_each_shipped_flow() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    flows = [file.stem for file in (PACKAGES["baton_actors"] / "flows").glob("*.toml")]
    missing = [name for name in [*(f"{folder}/" for folder in (*FOLDERS, "deploy")), *flows] if f"`{name}`" not in text]
    assert missing == []


def test_one_module_says_where_jetstream_is_asked() -> None:
    """In an account that has imported its questions they begin with other words: see `Settings.api_prefix`."""
    naming = {
        str(module) for package in PACKAGES for module in modules(package) if "$JS.API" in module.read_text("utf-8")
    }
    assert naming == {str(PACKAGES["baton_bus"] / "jetstream" / "api.py")}
