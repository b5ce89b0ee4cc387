"""Flows are found by name or path, and a handler that does not fit is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton_actors.agents.loading import UnknownAgent, UnknownFlow, find_agent, find_flow, load_handlers, shipped_flows
from baton_actors.errors import BadHandler, HandlerNotFound
from baton_schemas.errors import FlowError

from .handlers_for_tests import flow_of

BESIDE = """
name = "beside"
[input]
text = "str"
[agents.writer]
handler = "./mine.py:write"
actor = "scribe"
[steps.write]
agent = "writer"
"""


def written(path: Path, text: str) -> str:
    path.write_text(text, "utf-8")
    return str(path)


@pytest.mark.parametrize("name", shipped_flows())
def test_shipped_flow_is_found_by_its_name_and_its_handlers_fit(name: str) -> None:
    found = find_flow(name)
    assert found.name == found.source == name
    agents = found.flow.agents.values()
    assert set(load_handlers(found)) == {agent.handler for agent in agents if agent.handler}


def test_unknown_flow_gets_the_nearest_shipped_name() -> None:
    with pytest.raises(UnknownFlow, match=r"no flow 'artcle' is shipped. Did you mean 'article'\? Or give the path"):
        find_flow("artcle")


def test_path_of_a_missing_file_is_no_unknown_name() -> None:
    with pytest.raises(FlowError, match="no such file"):
        find_flow("nowhere/flow.toml")


def test_source_of_a_file_finds_it_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "flow", flow_of("upper", field="text"))
    monkeypatch.chdir(tmp_path)
    source = find_flow("flow").source
    monkeypatch.chdir("/")
    assert find_flow(source).folder == tmp_path


def test_handler_file_is_relative_to_the_flow_file(tmp_path: Path) -> None:
    written(tmp_path / "mine.py", "async def write(text: str) -> str: return text")
    found = find_flow(written(tmp_path / "flow.toml", BESIDE))
    handlers = load_handlers(found)
    assert list(handlers) == ["./mine.py:write"]
    assert handlers["./mine.py:write"].is_async


def test_only_the_handlers_of_the_asked_agents_are_imported(tmp_path: Path) -> None:
    found = find_flow(written(tmp_path / "flow.toml", BESIDE))
    assert load_handlers(found, []) == {}
    with pytest.raises(HandlerNotFound, match=r"agents\.writer\.handler: .* there is no file"):
        load_handlers(found, ["writer"])


def test_handler_is_checked_against_every_step_of_its_agent(tmp_path: Path) -> None:
    written(tmp_path / "mine.py", "async def write(text: str) -> str: return text")
    second = '[steps.again]\nagent = "writer"\nafter = "write"\n'
    reads = BESIDE.replace('actor = "scribe"', 'reads = ["text"]')
    load_handlers(find_flow(written(tmp_path / "flow.toml", reads + second)))

    written(tmp_path / "more.py", "async def write(text: str, write: str) -> str: return text")
    more = BESIDE.replace("mine", "more") + second
    with pytest.raises(BadHandler, match="parameter 'write' is nothing that step 'write' reads"):
        load_handlers(find_flow(written(tmp_path / "flow.toml", more)))


def test_agent_is_found_by_its_name_and_by_its_actor(tmp_path: Path) -> None:
    found = find_flow(written(tmp_path / "flow.toml", BESIDE))
    assert find_agent(found, "writer") == find_agent(found, "scribe") == "writer"
    with pytest.raises(UnknownAgent, match=r"no agent or actor 'scribble'. Did you mean 'scribe'\?"):
        find_agent(found, "scribble")
