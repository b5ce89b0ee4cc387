"""The table of mutants is about the code as it is. `make mutants` shows that each is caught."""

from __future__ import annotations

import ast

import pytest

from .maps import ROOT
from .mutants.table import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_changes_text_that_is_there_once(mutant: Mutant) -> None:
    assert mutant.file(ROOT)
    assert mutant.put != mutant.text


def test_tests_that_are_to_catch_mutants_exist() -> None:
    named = {test for mutant in MUTANTS for test in mutant.caught_by}
    missing = []
    for test in sorted(named):
        file, _, name = test.partition("::")
        tree = ast.parse((ROOT / file).read_text("utf-8")) if (ROOT / file).exists() else ast.Module([], [])
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        if not functions or (name and name not in functions):
            missing.append(test)
    assert missing == []
    assert all(mutant.caught_by for mutant in MUTANTS)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
