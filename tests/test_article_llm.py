"""The shipped article flow as a user runs it, against a model server over real HTTP: output, cost, faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from llmock.scenarios import Fail
from llmock.testing import LLMockServer

from .commands import baton, here
from .model_servers import fresh_llmock as fresh_llmock  # fixtures
from .model_servers import start_llmock as start_llmock

TOPIC = "topic=Tidal power"


def run_article(llmock: LLMockServer, home: Path, *arguments: str) -> Any:
    """Run `article` to its end; return the ended process."""
    env = {"ANTHROPIC_BASE_URL": llmock.base_url("anthropic"), "ANTHROPIC_API_KEY": "test-key"}
    return baton("run", "article", TOPIC, *arguments, cwd=home, **env)


def test_article_has_its_output_usage_and_cost(llmock: LLMockServer, tmp_path: Path) -> None:
    ended = run_article(llmock, tmp_path, "--json")
    facts = json.loads(ended.stdout)
    assert (ended.returncode, facts["status"], facts["rehearsed"]) == (0, "done", False)
    assert "Tidal power" in facts["output"]
    assert [(row["step"], row["model"]) for row in facts["steps"]] == [
        ("research", "claude-haiku-4-5"),
        ("write", "claude-haiku-4-5"),
        ("edit", "claude-sonnet-4-6"),
    ]
    usd_per_mtok = {"claude-haiku-4-5": (1, 5), "claude-sonnet-4-6": (3, 15)}
    for row in facts["steps"]:
        read_usd, written_usd = usd_per_mtok[row["model"]]
        cost_usd = (row["input_tokens"] * read_usd + row["output_tokens"] * written_usd) / 1e6
        assert row["cost_usd"] == pytest.approx(cost_usd)
        assert cost_usd > 0
    assert facts["cost_usd"] == pytest.approx(sum(row["cost_usd"] for row in facts["steps"]))
    assert facts["usage"]["output_tokens"] == sum(row["output_tokens"] for row in facts["steps"])
    assert len(llmock.state.journal.records()) == 3


def test_refusal_with_retry_after_is_waited_for_and_is_no_attempt(llmock: LLMockServer, tmp_path: Path) -> None:
    llmock.state.scenarios.add(Fail(429, retry_after=1))
    ended = run_article(llmock, tmp_path)
    assert ended.returncode == 0
    (done,) = [line for line in ended.stderr.splitlines() if line.startswith("✓ research  done in ")]
    assert "retry" not in done
    (noted,) = [line for line in here("log", cwd=tmp_path).stdout.splitlines() if "waits" in line]
    assert "note     research   waits for the model's provider, which asks for 1 s" in noted
    assert len(llmock.state.journal.records()) == 4


def test_wrong_key_fails_the_run_at_once_and_names_its_variable(llmock: LLMockServer, tmp_path: Path) -> None:
    llmock.state.scenarios.add(Fail(401, times=None))
    ended = run_article(llmock, tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "✗ research" in ended.stderr
    assert "check ANTHROPIC_API_KEY" in ended.stderr
    assert len(llmock.state.journal.records()) == 1
    assert "check ANTHROPIC_API_KEY" in here("dead", cwd=tmp_path).stdout
