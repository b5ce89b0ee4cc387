"""Errors have codes: what programs tell them apart by, whatever becomes of class names and messages."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import baton_actors
import baton_bus
import baton_schemas
from baton_actors.cli.exits import code_of
from baton_bus.errors import LogFull
from baton_schemas.errors import Coded, snake_case

from .commands import here


def classes_of(base: type[Coded]) -> Iterator[type[Coded]]:
    for each in base.__subclasses__():
        yield each
        yield from classes_of(each)


@pytest.fixture(scope="module")
def coded() -> list[type[Coded]]:
    """Every class of errors of the three packages."""
    for package in (baton_schemas, baton_bus, baton_actors):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    packages = ("baton_schemas", "baton_bus", "baton_actors")
    return [each for each in set(classes_of(Coded)) if each.__module__.partition(".")[0] in packages]


def test_code_belongs_to_one_class_and_is_in_snake_case(coded: list[type[Coded]]) -> None:
    assert len(coded) > 40
    assert [code for code, count in Counter(each.code for each in coded).items() if count > 1] == []
    assert [each.code for each in coded if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", each.code)] == []


def test_code_is_explained_where_its_class_is(coded: list[type[Coded]]) -> None:
    assert [each.__name__ for each in coded if not vars(each).get("__doc__")] == []


def test_code_is_the_name_of_its_class_unless_that_says_otherwise() -> None:
    class OldName(LogFull):
        """Renamed later."""

        code = "a_name_that_stays"

    names = ["LogFull", "NoServer", "OSError"]
    assert list(map(snake_case, names)) == ["log_full", "no_server", "os_error"]
    assert OldName.code == code_of(OldName("log", "full")) == "a_name_that_stays"
    assert code_of(FileNotFoundError()) == "file_not_found_error"


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["runs", "--nats", "nats://127.0.0.1:1"], "no_server", 3),
        (["graph", "artcle"], "unknown_flow", 2),
        (["runs"], "no_runs_here", 2),
        (["show", "--nonsense"], "bad_argument", 2),
        (["replay", "no.jsonl"], "file_not_found_error", 2),
    ],
)
def test_command_tells_the_code_of_its_error(arguments: list[str], code: str, exit_code: int, tmp_path: Path) -> None:
    ended = here(*arguments, "--json", cwd=tmp_path, BATON_CONNECT_TIMEOUT_S="1")
    told = json.loads(ended.stdout)
    assert (told["error"]["code"], told["exit_code"], ended.returncode) == (code, exit_code, exit_code)
    assert told["error"].keys() == {"code", "type", "message"}
