"""Tests of triage: its handlers, and the whole flow in rehearsal, without a model. Run them with `pytest`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import carrier
import triage

HERE = Path(__file__).parent
EMAILS = [triage.Email(**email) for email in json.loads((HERE / "emails.json").read_text("utf-8"))]


def test_order_is_found_in_the_subject_or_the_body_and_unknown_ones_are_none() -> None:
    found = triage.orders(EMAILS)
    assert [order.number if order else None for order in found][:2] == ["A-1001", "A-1002"]
    assert (found[7], found[9]) == (None, None)


def test_answer_of_a_model_becomes_one_of_the_kinds() -> None:
    assert [triage.kind_of(answer) for answer in ("Refund.", "It is about an invoice", "Hm?")] == [
        "refund",
        "invoice",
        "question",
    ]


def test_flow_reports_every_email_in_rehearsal_with_what_the_carrier_says(tmp_path: Path) -> None:
    with carrier.serve(port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        run = rehearse(tmp_path, f"emails=@{HERE / 'emails.json'}", f"carrier_url={url}")
        server.shutdown()
    assert run["output"].startswith("# 12 emails, ")
    assert "parcel P-501, held at the depot since Monday" in run["output"]
    assert all(email.sender in run["output"] for email in EMAILS)


def test_carrier_that_is_away_holds_nothing_up(tmp_path: Path) -> None:
    run = rehearse(tmp_path, f"emails=@{HERE / 'emails.json'}", "carrier_url=http://127.0.0.1:9")
    assert "where it is is not known: the carrier at http://127.0.0.1:9 cannot be reached" in run["output"]


def rehearse(data_dir: Path, *pairs: str) -> dict[str, str]:
    command = [sys.executable, "-m", "baton_actors.cli", "run", str(HERE / "triage.toml"), *pairs]
    environ = {**os.environ, "BATON_REHEARSE": "1", "BATON_URL": ""}
    options = ["--json", "--data-dir", str(data_dir)]
    ended = subprocess.run([*command, *options], env=environ, capture_output=True, text=True, timeout=60)
    run: dict[str, str] = json.loads(ended.stdout)
    assert (run["status"], run["rehearsed"]) == ("done", True), run
    return run
