"""Content blocks, put together from the events of a stream."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from baton_actors.models.content import Content


def block_of(begun: dict[str, Any], *deltas: dict[str, Any]) -> dict[str, Any]:
    content = Content()
    content.begin(0, begun)
    for delta in deltas:
        content.add(0, SimpleNamespace(**delta))
    (block,) = content.blocks()
    return block


def test_text_has_its_pieces_and_its_citations() -> None:
    cited = [{"type": "citation_delta", "cited_text": text} for text in "ab"]
    block = block_of(
        {"type": "text", "text": "It ", "citations": None},
        {"type": "text_delta", "text": "is "},
        {"type": "citations_delta", "citation": cited[0]},
        {"type": "text_delta", "text": "so."},
        {"type": "citations_delta", "citation": cited[1]},
    )
    assert block == {"type": "text", "text": "It is so.", "citations": cited}


def test_halves_of_a_character_are_joined_and_lone_ones_replaced() -> None:
    pieces = [{"type": "text_delta", "text": text} for text in ("\ud83d", "\ude00 \ud83d")]
    assert block_of({"type": "text", "text": ""}, *pieces) == {"type": "text", "text": "\U0001f600 \ufffd"}
    pieces = [{"type": "input_json_delta", "partial_json": text} for text in ('{"a": "\ud83d', '\ude00"}')]
    begun = {"type": "tool_use", "id": "t", "name": "n", "input": {}}
    assert block_of(begun, *pieces) == {**begun, "input": {"a": "\U0001f600"}}


@pytest.mark.parametrize("text", ["", " \n"])
def test_arguments_that_do_not_come_are_those_that_it_began_with(text: str) -> None:
    begun = {"type": "tool_use", "id": "t", "name": "n", "input": {"a": 1}}
    assert block_of(begun, {"type": "input_json_delta", "partial_json": text}) == begun


def test_blocks_keep_their_order_whatever_order_their_pieces_come_in() -> None:
    content = Content()
    for index in (0, 1):
        content.begin(index, {"type": "text", "text": ""})
    for index in (1, 0, 1):
        content.add(index, SimpleNamespace(type="text_delta", text=str(index)))
    content.begin(1, {"type": "text", "text": "once more"})
    assert [block["text"] for block in content.blocks()] == ["0", "11", "once more"]


def test_pieces_of_an_unknown_kind_add_nothing() -> None:
    assert block_of({"type": "text", "text": "a"}, {"type": "new_delta", "x": 1}) == {"type": "text", "text": "a"}
