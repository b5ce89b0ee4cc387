"""The flows that come with Baton: they load, say how to be run, and the report loses nothing of a document."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import baton_actors.flows
from baton_actors import Fail, File
from baton_actors.agents.importing import load_handler
from baton_actors.flows.report import PART_CHARS, parts_of, split
from baton_schemas.flow.file import read_flow
from baton_schemas.flow.graph import Plan

FOLDER = Path(baton_actors.flows.__file__).parent
FILES = sorted(FOLDER.glob("*.toml"))

TEXTS = st.text(st.sampled_from("ab .!?\n\r\t\u3002\u201dé"), max_size=300)


def test_the_flows_that_the_readme_names_are_shipped() -> None:
    assert [file.stem for file in FILES] == ["article", "ask", "deep-research", "newsroom", "panel", "report"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_flow_is_valid_and_called_as_its_file(file: Path) -> None:
    flow = read_flow(file)
    assert flow.name == file.stem
    assert flow.description


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_file_says_how_to_run_its_flow(file: Path) -> None:
    required = [name for name, field in read_flow(file).input.items() if field.required]
    command = next(line for line in file.read_text("utf-8").splitlines() if f"baton run {file.stem} " in line)
    assert all(f"{name}=" in command for name in required)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_model_call_has_bounds_of_its_own(file: Path) -> None:
    agents = [agent for agent in read_flow(file).agents.values() if not agent.handler]
    assert agents
    assert all(0 < agent.max_tokens <= 4096 and agent.timeout_s <= 300 for agent in agents)


def test_the_handler_of_report_fits_its_step() -> None:
    plan = Plan(read_flow(FOLDER / "report.toml"))
    load_handler("splitter", plan.flow.agents["splitter"], FOLDER).check(plan, "split")
    assert plan.reads["split"] == {"document"}


def test_writer_reads_topic_and_research_and_editor_the_draft() -> None:
    plan = Plan(read_flow(FOLDER / "article.toml"))
    assert plan.reads["write"] == {"topic", "research"}
    assert plan.reads["edit"] == {"topic", "write"}


def test_failing_expert_does_not_sink_the_panel() -> None:
    plan = Plan(read_flow(FOLDER / "panel.toml"))
    assert plan.on_failed_branch("merge", "consult-0") == "skip"
    assert plan.join_policy("merge").min_done == 1


@given(TEXTS, st.integers(1, 40))
def test_parts_make_up_the_text_again(text: str, size: int) -> None:
    assert "".join(parts_of(text, size)) == text


@given(TEXTS, st.integers(1, 40))
def test_parts_are_never_longer_than_asked_nor_shorter_than_half(text: str, size: int) -> None:
    parts = parts_of(text, size)
    assert all(0 < len(part) <= size for part in parts)
    assert all(len(part) >= size / 2 for part in parts[:-1])


def test_cuts_are_at_the_ends_of_paragraphs_if_there_are_any() -> None:
    text = "".join(f"Paragraph {number}. " + "It goes on. " * 30 + "\n\n" for number in range(100))
    assert all(part.endswith("\n\n") for part in parts_of(text, PART_CHARS))


def test_paragraph_longer_than_a_part_is_cut_at_the_ends_of_sentences() -> None:
    parts = parts_of("It goes on and on. " * 5_000, PART_CHARS)
    assert all(part.endswith(". ") for part in parts)


def test_text_without_any_spaces_is_cut_at_the_size() -> None:
    assert [len(part) for part in parts_of("x" * 25_000, 10_000)] == [10_000, 10_000, 5_000]


def test_document_of_600_000_characters_is_split_whole() -> None:
    words = itertools.cycle(["Tides", "rise", "and", "fall.", "Nobody", "stops", "them.\n\n"])
    document = " ".join(itertools.islice(words, 120_000))[:600_000]
    parts = split(document=File.of(document, name="big.txt"))
    assert len(document) == 600_000
    assert "".join(parts) == document
    assert 60 <= len(parts) <= 62


@pytest.mark.parametrize("document", ["", " \n\t "])
def test_empty_document_fails_at_once_and_says_what_to_give(document: str) -> None:
    with pytest.raises(Fail, match="document=@FILE"):
        split(document=File.of(document, name="big.txt"))
