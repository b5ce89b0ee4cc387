"""`python -m tests.mutants`: break a copy of the code in one way after the other; show which test catches which."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from .table import MUTANTS, Broken, Mutant

ROOT = Path(__file__).parents[2]
TEST_TIMEOUT_S = 60
"""For one test: most mutants fail an assertion at once, some let a test wait for what never comes (20 s)."""
RUN_TIMEOUT_S = 300.0
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", ".baton*", "dist")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_TESTS_FAILED = 1
"""pytest's exit code for it; others say that tests could not be run, which catches nothing."""


AT_ONCE = 2
"""Mutants whose tests run at the same time: most of them wait, and two cores are what CI has."""


class Caught(NamedTuple):
    """What became of a mutant."""

    by: list[str]
    """The tests that failed; none when it survives."""
    took_s: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(mutant.name for mutant in MUTANTS)}")
    given = parser.parse_args()
    unknown = set(given.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no mutant is called {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not given.names or mutant.name in given.names]
    try:
        check_tests(chosen)
        survivors = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for mutant, caught in zip(chosen, pool.map(catching, chosen), strict=True):
                name = mutant.name.ljust(max(len(each.name) for each in chosen))
                print(f"{name}  {caught.took_s:5.1f} s  {', '.join(caught.by) or 'NOBODY'}", flush=True)
                if not caught.by:
                    survivors.append(mutant.name)
    except Broken as error:
        print(error)
        return 1
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught{''.join(f', not {name}' for name in survivors)}")
    return 1 if survivors else 0


def check_tests(mutants: Sequence[Mutant]) -> None:
    """Run the tests of all mutants on the code as it is: a test that fails anyway catches nothing."""
    tests = sorted({test for mutant in mutants for test in mutant.caught_by})
    with tempfile.TemporaryDirectory(prefix="baton-mutants-") as folder:
        code, failed, output = run_tests(copied(Path(folder)), tests)
    if code:
        raise Broken(f"These tests do not pass on the code as it is: {', '.join(failed) or output}")


def catching(mutant: Mutant) -> Caught:
    """Return which of its tests notice a mutant."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="baton-mutants-") as folder:
        tree = copied(Path(folder))
        apply(mutant, tree)
        code, failed, output = run_tests(tree, mutant.caught_by)
    if code not in (0, _TESTS_FAILED):
        raise Broken(f"{mutant.name}: its tests could not be run.\n{output}")
    return Caught(failed, time.monotonic() - started)


def copied(folder: Path) -> Path:
    """Copy the code and its tests."""
    return Path(shutil.copytree(ROOT, folder / "baton", ignore=_LEFT_OUT))


def apply(mutant: Mutant, tree: Path) -> None:
    """Change the file in the copy. Raises `Broken` when the text is not there once, or what comes out is no code."""
    file = mutant.file(tree)
    file.write_text(file.read_text("utf-8").replace(mutant.text, mutant.put), "utf-8")
    # A mutant that cannot run at all would be caught by any test.
    ruff = [sys.executable, "-m", "ruff", "check", "-q", "--isolated", "--select", "F821,E9", str(file)]
    checked = subprocess.run(ruff, capture_output=True, text=True, check=False)
    if checked.returncode:
        raise Broken(f"{mutant.name} is no code that could run.\n{checked.stdout}{checked.stderr}")


def run_tests(tree: Path, tests: Sequence[str]) -> tuple[int, list[str], str]:
    """Run tests in a copy, with its packages; return pytest's exit code, which failed, and what it said."""
    # Editable installs point at the original: what is in PYTHONPATH comes before them.
    packages = [tree / "schemas", tree / "bus", tree / "actors"]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, packages)), "PYTHONDONTWRITEBYTECODE": "1"}
    imported = subprocess.run(
        [sys.executable, "-c", "import baton_actors; print(baton_actors.__file__)"],
        env=environ,
        cwd=tree,
        capture_output=True,
        text=True,
        check=True,
    )
    if not imported.stdout.startswith(str(tree)):
        raise Broken(f"The packages that are imported are not those of the copy: {imported.stdout}")
    options = ["-q", "--tb=line", "-p", "no:cacheprovider", f"--timeout={TEST_TIMEOUT_S}"]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *tests],
        env=environ,
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    failed = dict.fromkeys(name.partition("::")[2] for name in _FAILED.findall(ran.stdout))
    return ran.returncode, list(failed), ran.stdout + ran.stderr


if __name__ == "__main__":
    sys.exit(main())
