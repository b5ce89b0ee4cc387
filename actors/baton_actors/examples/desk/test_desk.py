"""Tests of the desk: its tools, and the whole flow in rehearsal, without a model. Run them with `pytest`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import desk
import pytest

HERE = Path(__file__).parent


def test_order_is_found_however_its_number_is_written() -> None:
    assert desk.find_order(" a-1002 ") == desk.Order(number="A-1002", item="kettle", price_eur=39, days_ago=12)
    assert desk.find_order("A-9999") is None


def test_no_more_is_paid_back_than_the_order_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "REFUNDS", tmp_path / "refunds.jsonl")
    assert desk.refund("A-1002", 39) == "39 EUR were paid back on A-1002."
    with pytest.raises(ValueError, match="40 EUR on A-1002"):
        desk.refund("A-1002", 40)
    assert [json.loads(line)["eur"] for line in desk.REFUNDS.read_text("utf-8").splitlines()] == [39]


def test_flow_rehearses_and_pays_nobody(tmp_path: Path) -> None:
    letter = "letter=The kettle from order A-1002 leaks. I want my money back."
    command = [sys.executable, "-m", "baton_actors.cli", "run", str(HERE / "desk.toml"), letter]
    environ = {**os.environ, "BATON_REHEARSE": "1", "BATON_URL": ""}
    options = ["--json", "--data-dir", str(tmp_path)]
    ended = subprocess.run([*command, *options], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    run = json.loads(ended.stdout)
    assert (run["status"], run["rehearsed"]) == ("done", True), run
    assert not (tmp_path / "refunds.jsonl").exists()
