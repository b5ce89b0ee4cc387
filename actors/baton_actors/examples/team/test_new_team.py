"""Tests of new-team: its handler, and the whole flow in rehearsal, without a model. Run them with `pytest`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import new_team

FLOW = Path(__file__).with_name("new-team.toml")


def test_notes_are_numbered_and_empty_ones_left_out() -> None:
    assert new_team.count(["First.", " ", "Second.\n"]) == new_team.Notes(texts=2, notes=["1. First.", "2. Second."])


def test_flow_ends_well_in_rehearsal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "baton_actors.cli", "run", str(FLOW), "--json", "--data-dir", str(tmp_path)]
    environ = {**os.environ, "BATON_REHEARSE": "1", "BATON_URL": ""}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    run = json.loads(ended.stdout)
    assert (run["status"], run["rehearsed"]) == ("done", True), run
    assert "harbour" in run["output"]
