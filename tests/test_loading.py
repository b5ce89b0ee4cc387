"""Flows are found by name or path, and a handler that does not fit is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton_actors.agents.loading import (
    UnknownAgent,
    UnknownFlow,
    find_agent,
    find_flow,
    load_agents,
    load_handlers,
    shipped_flows,
)
from baton_actors.errors import BadHandler, BadValue, HandlerNotFound
from baton_actors.processes.hosting import hosting
from baton_bus import Settings
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import open_bus
from baton_schemas.errors import FlowError

from .agents import NoJournal, task_of
from .clients import result_of, start_run
from .handlers_for_tests import flow_of
from .servers import WAIT_S, NatsServer
from .team import value_of

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


def test_agent_of_a_step_that_is_asked_too_has_defaults_for_what_it_is_given_then(tmp_path: Path) -> None:
    asked = BESIDE.replace('actor = "scribe"', 'reads = ["text"]\nworkers = ["writer"]\ninput = { topic = "str" }')
    written(tmp_path / "mine.py", "async def write(text: str = '', topic: str = '') -> str: return text or topic")
    assert list(load_handlers(find_flow(written(tmp_path / "flow.toml", asked)))) == ["./mine.py:write"]

    written(tmp_path / "more.py", "async def write(topic: str, text: str = '') -> str: return text or topic")
    with pytest.raises(BadHandler, match="parameter 'topic' is nothing that step 'write' reads"):
        load_handlers(find_flow(written(tmp_path / "flow.toml", asked.replace("mine", "more"))))


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


# ---- what handlers read ------------------------------------------------------------------------------

FAN_OUT = """
name = "fan-out"
[input]
text = "str"
big-text = "str"
[agents.split]
handler = "./mine.py:split"
[agents.work]
handler = "./mine.py:work"
[agents.merge]
handler = "./mine.py:merge"
[steps.split]
[steps.work]
each = "split"
[steps.merge]
after = "work"
"""

HANDLERS = """
from baton_actors import Context, actor
from baton_actors import Context as Who

@actor
def split(text: str, context: Context) -> list[str]: return text.split()
async def work(item: str, index: int, errors: list, who: Who) -> str: return item
def merge(work: list, *, split: list, big_text: str = "") -> int: return len(work)
"""


def reads_of(tmp_path: Path, source: str, flow: str = BESIDE, agent: str = "writer") -> list[str] | None:
    written(tmp_path / "mine.py", source)
    return find_flow(written(tmp_path / "flow.toml", flow)).flow.agents[agent].reads


def test_handlers_read_what_their_parameters_name_and_branches_carry_no_more(tmp_path: Path) -> None:
    written(tmp_path / "mine.py", HANDLERS)
    found = find_flow(written(tmp_path / "flow.toml", FAN_OUT))
    assert {name: agent.reads for name, agent in found.flow.agents.items()} == {
        "split": ["text"],
        "work": [],
        "merge": ["big-text", "split", "work"],
    }
    load_handlers(found)

    without = HANDLERS.replace(', *, split: list, big_text: str = ""', "")
    written(tmp_path / "mine.py", without)
    lean = find_flow(written(tmp_path / "flow.toml", FAN_OUT))
    assert lean.plan.carried["work"] == frozenset()


def test_what_a_handler_reads_is_part_of_the_flow_whoever_finds_it_and_nothing_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = []
    for name in ("client", "worker"):
        folder = tmp_path / name
        folder.mkdir()
        written(folder / "mine.py", HANDLERS + "\nimport nothing_of_this_name\nraise SystemExit\n")
        monkeypatch.chdir(folder)
        digests.append(find_flow(written(folder / "flow.toml", FAN_OUT)).plan.digest)
    assert digests[0] == digests[1]


def test_parameters_may_be_ordered_anew_without_a_new_version_of_the_flow(tmp_path: Path) -> None:
    found = []
    for parameters in ("text: str, other: str", "other: str, text: str"):
        written(tmp_path / "mine.py", f"def write({parameters}): ...")
        found.append(find_flow(written(tmp_path / "flow.toml", BESIDE.replace("[agents", 'other = "str"\n[agents'))))
    assert found[0].plan.digest == found[1].plan.digest
    assert found[0].flow.agents["writer"].reads == ["other", "text"]


@pytest.mark.parametrize(
    "source",
    [
        "def write(**kwargs): ...",
        "def write(*args): ...",
        "def write(text, /): ...",
        "import functools\n@functools.cache\ndef write(text): ...",
        "def write(text): ...\nwrite = print",
        "if True:\n    def write(text): ...\nelse:\n    def write(): ...",
        "from os.path import join as write",
        "class write: ...",
        "def other(text): ...",
        "def write(text: ...",
        "def write(nothing_like_it): ...",
        "\0",
    ],
)
def test_handler_whose_parameters_are_unclear_reads_all_as_before(tmp_path: Path, source: str) -> None:
    assert reads_of(tmp_path, source) is None


def test_handler_without_a_file_reads_all(tmp_path: Path) -> None:
    found = find_flow(written(tmp_path / "flow.toml", BESIDE))
    assert found.flow.agents["writer"].reads is None


def test_reads_that_are_written_stay(tmp_path: Path) -> None:
    flow = BESIDE.replace('actor = "scribe"', "reads = []")
    assert reads_of(tmp_path, "def write(text): ...", flow) == []


def test_module_is_found_without_importing_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pack_of_mine" / "inner"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        written(folder / "__init__.py", "raise SystemExit('imported')")
    written(package / "handlers.py", "def write(text): ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    flow = BESIDE.replace("./mine.py:write", "pack_of_mine.inner.handlers:write")
    assert find_flow(written(tmp_path / "flow.toml", flow)).flow.agents["writer"].reads == ["text"]
    for missing in ("pack_of_mine.nowhere:write", "pack_of_mine.inner:nothing", "nowhere_at_all.x:write", "sys:exit"):
        text = BESIDE.replace("./mine.py:write", missing)
        assert find_flow(written(tmp_path / "flow.toml", text)).flow.agents["writer"].reads is None


def test_agent_of_several_steps_reads_what_all_of_them_can(tmp_path: Path) -> None:
    second = '[steps.again]\nagent = "writer"\nafter = "write"\n'
    assert reads_of(tmp_path, "def write(text: str): ...", BESIDE + second) == ["text"]
    assert reads_of(tmp_path, "def write(text: str, write: str = ''): ...", BESIDE + second) is None


# ---- what is imported --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise SystemExit('no main here')", "importing it raised SystemExit: no main here"),
        ("open('/nowhere/at/all')", "importing it raised FileNotFoundError"),
        ("import nothing_of_this_name", "importing it raised ModuleNotFoundError"),
        ("write = 3", "'write' is no function"),
        ("def wrote(text): ...", r"it has no 'write'. Did you mean 'wrote'\?"),
    ],
)
def test_file_that_cannot_be_imported_is_told(tmp_path: Path, source: str, reason: str) -> None:
    written(tmp_path / "mine.py", source)
    with pytest.raises(HandlerNotFound, match=reason):
        load_handlers(find_flow(written(tmp_path / "flow.toml", BESIDE)))


@pytest.mark.parametrize("decorated", ["", "from baton_actors import actor\n@actor\n"])
async def test_handler_is_called_as_the_flow_writes_it(tmp_path: Path, decorated: str) -> None:
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub" / "mine.py", f"{decorated}def write(text: int) -> str: return str(text)")
    found = find_flow(written(tmp_path / "flow.toml", BESIDE.replace("./mine.py", "./sub/mine.py")))
    agents = load_agents(found)
    with pytest.raises(BadValue, match=r"parameter 'text' of \./sub/mine\.py:write: Expected `int`"):
        await agents.of(found.plan, "write").perform(task_of(found.plan, step="write", text="a"), NoJournal())


async def test_agents_of_a_flow_are_loaded_to_be_played(tmp_path: Path) -> None:
    written(tmp_path / "mine.py", "def write(text: str) -> str: return text.upper()")
    found = find_flow(written(tmp_path / "flow.toml", BESIDE))
    agents = load_agents(found)
    performed = await agents.of(found.plan, "write").perform(task_of(found.plan, step="write", text="a"), NoJournal())
    assert performed.output == b'"A"'


async def test_branches_of_a_handler_that_reads_only_its_item_carry_no_input(
    tmp_path: Path, server: NatsServer, namespace: str
) -> None:
    written(tmp_path / "mine.py", HANDLERS.replace(', *, split: list, big_text: str = ""', ""))
    found = find_flow(written(tmp_path / "flow.toml", FAN_OUT))
    big = "not for the branches " * 1_000
    async with open_bus(Settings(url=server.url, namespace=namespace)) as bus:
        async with hosting(Engine(bus), found, list(found.flow.agents), grace_s=0.5):
            run = await start_run(bus, found.plan, {"text": "a b c", "big-text": big})
            result = await result_of(bus, run, flow=found.name, timeout_s=WAIT_S)
        log = [entry async for entry in bus.log.read([bus.subjects.run(run)])]
        await bus.js.delete_stream(namespace)
    assert value_of(result.outcome) == 3
    branches = [entry for entry in log if ".work-" in entry.subject]
    assert len(branches) >= 3
    assert all(b"not for the branches" not in entry.data for entry in branches)
