"""Flows within flows, before anything runs: found, part of one digest, checked with clear errors, played and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from baton_actors import Baton, Flow
from baton_actors.agents.checking import check_source
from baton_actors.agents.files import code_files
from baton_actors.agents.loading import SHIPPED, SameName, find_flow, load_handlers, with_nested
from baton_actors.cli.show.drawing import draw
from baton_actors.cli.show.mermaid import mermaid_of
from baton_actors.team.errors import OnlyInProcess
from baton_schemas.errors import FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.limits import NESTED_BYTES_MAX, NESTED_MAX
from baton_schemas.flow.tools import tools_of
from baton_schemas.wire.outcomes import Usage

from .commands import WAIT_S, baton

INNER = """
name = "inner"
input = { topic = "str", words = { type = "int", default = 100 } }
agents.write = { handler = "./inner.py:write" }
steps.write = {}
"""
OUTER = """
name = "outer"
input = { topics = "list[str]" }
agents.article = { flow = "./sub/inner.toml", given = { topic = "item" } }
agents.merge = { handler = "./outer.py:merge" }
steps.each = { agent = "article", each = "topics" }
steps.merge = { after = "each" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A flow, and one that it uses in a folder below, each with a handler beside it."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "outer.toml").write_text(OUTER, "utf-8")
    (tmp_path / "outer.py").write_text("def merge(each: list[str]) -> str:\n    return ' | '.join(each)\n", "utf-8")
    (tmp_path / "sub" / "inner.toml").write_text(INNER, "utf-8")
    inner = "def write(topic: str, words: int) -> str:\n    return f'{topic} in {words} words'\n"
    (tmp_path / "sub" / "inner.py").write_text(inner, "utf-8")
    return tmp_path


def change(folder: Path, old: str, new: str, file: str = "outer.toml") -> str:
    text = (folder / file).read_text("utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new), "utf-8")
    return str(folder / "outer.toml")


def test_flow_within_a_flow_is_part_of_it(folder: Path) -> None:
    found = find_flow(str(folder / "outer.toml"))
    nested = found.plan.nested["./sub/inner.toml"]
    alone = find_flow(str(folder / "sub" / "inner.toml"))
    assert nested.digest == alone.plan.digest
    assert found.plan.reads["each"] == frozenset()
    assert check_flow(decode_flow(found.plan.body), stored=True).digest == found.plan.digest
    before = found.plan.digest
    change(folder, "100", "200", "sub/inner.toml")
    assert find_flow(str(folder / "outer.toml")).plan.digest != before


def test_handlers_are_those_beside_each_flow(folder: Path) -> None:
    found = find_flow(str(folder / "outer.toml"))
    outer, inner = with_nested([found])
    assert (inner.folder, inner.source) == (folder / "sub", str(folder / "sub" / "inner.toml"))
    assert load_handlers(inner).keys() == {"./inner.py:write"}
    assert load_handlers(outer).keys() == {"./outer.py:merge"}
    assert folder / "sub" / "inner.toml" in code_files(outer)
    assert outer.plan.nested["./sub/inner.toml"].source == inner.source


def test_flow_that_two_use_is_played_once(folder: Path) -> None:
    outer, inner = find_flow(str(folder / "outer.toml")), find_flow(str(folder / "sub" / "inner.toml"))
    assert [each.name for each in with_nested([outer, inner])] == ["outer", "inner"]
    (folder / "inner.toml").write_text(INNER.replace("100", "200"), "utf-8")
    with pytest.raises(SameName):
        with_nested([outer, find_flow(str(folder / "inner.toml"))])


def test_shipped_flow_may_be_used_by_its_name(folder: Path) -> None:
    path = change(folder, '"./sub/inner.toml"', '"article"')
    _, article = with_nested([find_flow(path)])
    assert (article.name, article.folder, article.source) == ("article", SHIPPED, "article")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"./sub/inner.toml"', '"artcle"', "line 4, agents.article.flow: found 'artcle'; expected the name of a"),
        ('"./sub/inner.toml"', '"./nowhere.toml"', "there is no file"),
        ('"./sub/inner.toml"', '"sub/inner.toml"', "For a file beside this one, write './sub/inner.toml'."),
        ('"./sub/inner.toml"', '"./outer.toml"', "a flow that nests itself: outer → outer"),
        ('{ topic = "item" }', "{}", "which needs 'topic'; expected an input of this name, a step that comes before"),
        ('{ topic = "item" }', "{}", 'Add `given = { topic = "item" }`.'),
        ('{ topic = "item" }', '{ topik = "item", topic = "item" }', "Did you mean 'topic'?"),
        ('{ topic = "item" }', '{ topic = "itm" }', "Did you mean 'item'?"),
        ('{ topic = "item" }', '{ topic = "{item}" }', "a path such as 'item' or 'plan.topics', without braces"),
        ('{ topic = "item" }', '{ topic = "index" }', "'index' of type int for the input 'topic' of the flow 'inner'"),
        ('{ topic = "item" }', '{ topic = "topics" }', "'topics' of type list[str] for the input 'topic'"),
        ('{ topic = "item" }', '{ topic = "item.x" }', "item is of type str"),
        ('{ topic = "item" }', '{ topic = "merge" }', "an input, or a step that comes before 'each'"),
        ('given = { topic = "item" }', 'prompt = "x"', "agents.article.prompt: found both `flow` and `prompt`"),
        ('given = { topic = "item" }', "input = { a = { type = 'str' } }", "Its input is that of the flow."),
        ('given = { topic = "item" }', "given = 3", "a table of strings"),
        ('handler = "./outer.py:merge"', 'handler = "./outer.py:merge", given = { a = "b" }', "only with `flow`"),
        ('given = { topic = "item" }', "timeout_s = 3", "Give the flow 'inner' a `deadline_s`"),
        ('each = "topics" }', 'each = "topics", timeout_s = 3 }', "steps.each.timeout_s: found `timeout_s`"),
        ('name = "outer"', 'name = "outer"\nflows = {}', "the unknown key 'flows'"),
        ('name = "outer"', 'name = "inner"', "a flow that nests itself: inner → inner"),
    ],
)
def test_mistakes_are_told_with_their_place(folder: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(FlowError) as error:
        find_flow(change(folder, old, new))
    assert said in str(error.value)
    assert str(error.value).startswith(str(folder / "outer.toml"))


def test_mistake_within_is_told_with_its_own_file(folder: Path) -> None:
    path = change(folder, "words = ", "worsd: ", "sub/inner.toml")
    with pytest.raises(FlowError) as error:
        find_flow(path)
    assert str(error.value).startswith(f"{folder / 'sub' / 'inner.toml'}: line 3")
    assert "It is the flow of agents.article.flow in 'outer'." in str(error.value)


def test_circle_of_files_shows_the_chain(folder: Path) -> None:
    one = 'name = "NAME"\ninput = { topic = "str" }\nagents.next = { flow = "./NEXT.toml" }\nsteps.next = {}\n'
    for name, following in (("a", "b"), ("b", "c"), ("c", "a")):
        (folder / f"{name}.toml").write_text(one.replace("NAME", name).replace("NEXT", following), "utf-8")
    with pytest.raises(FlowError, match="nests itself: a → b → c → a"):
        find_flow(str(folder / "a.toml"))


def chain_of(folder: Path, count: int) -> str:
    for number in range(count):
        text = f'name = "f{number}"\ninput = {{ topic = "str" }}\n'
        text += f'agents.next = {{ flow = "./f{number + 1}.toml" }}\nsteps.next = {{}}\n'
        (folder / f"f{number}.toml").write_text(text, "utf-8")
    last = f'name = "f{count}"\ninput = {{ topic = "str" }}\n'
    last += 'agents.w = { prompt = "x", model = "worker" }\nsteps.w = {}\n'
    (folder / f"f{count}.toml").write_text(last, "utf-8")
    return str(folder / "f0.toml")


def test_depth_is_bounded(folder: Path) -> None:
    assert len(with_nested([find_flow(chain_of(folder, NESTED_MAX))])) == NESTED_MAX + 1
    with pytest.raises(FlowError, match=f"flows nested {NESTED_MAX + 1} deep"):
        find_flow(chain_of(folder, NESTED_MAX + 1))


def test_size_of_the_whole_is_bounded(folder: Path) -> None:
    long = "x" * NESTED_BYTES_MAX
    path = change(folder, 'name = "inner"', f'name = "inner"\ndescription = "{long}"', "sub/inner.toml")
    with pytest.raises(FlowError, match="bytes of flows within one another; expected at most"):
        find_flow(path)


def test_check_looks_at_all_of_it(folder: Path) -> None:
    checked = check_source(str(folder / "outer.toml"))
    assert (checked.problems, checked.flows) == ([], ["inner"])
    assert checked.handlers == ["./inner.py:write", "./outer.py:merge"]
    (folder / "sub" / "inner.py").write_text("def other() -> None: ...\n", "utf-8")
    (problem,) = check_source(str(folder / "outer.toml")).problems
    assert problem.message.startswith("flow 'inner', within it: agents.write.handler")


def test_it_is_drawn_as_a_flow(folder: Path) -> None:
    plan = find_flow(str(folder / "outer.toml")).plan
    assert any("a run of inner" in line for line in draw(plan, 80))
    assert '[["each: inner"]]' in mermaid_of(plan)
    shown = baton("graph", str(folder / "outer.toml"), "--deep", "--json", cwd=folder)
    assert [flow["flow"] for flow in json.loads(shown.stdout)["flows"]] == ["inner"]


def test_commands_run_a_flow_with_all_within_it(folder: Path) -> None:
    ran = baton("run", str(folder / "outer.toml"), "topics=a", "topics=b", "--json", cwd=folder)
    facts = json.loads(ran.stdout)
    assert facts["output"] == "a in 100 words | b in 100 words"
    listed = json.loads(baton("runs", "--json", cwd=folder).stdout)
    assert [each["run"] for each in listed] == [facts["run"]]
    children = json.loads(baton("runs", "--of", facts["run"], "--json", cwd=folder).stdout)
    assert [(each["flow"], each["parent"], each["status"]) for each in children] == [
        ("inner", facts["run"], "done")
    ] * 2


def building() -> tuple[Flow, Flow]:
    inner = Flow("inner", input={"text": str})

    @inner.step
    def shout(text: str) -> str:
        return text.upper()

    outer = Flow("outer", input={"texts": list[str]})
    outer.nest("each", inner, given={"text": "item"}, each="texts")

    @outer.step(after="each")
    def merge(each: list[str]) -> list[str]:
        return each

    return outer, inner


async def test_flow_that_is_built_in_python_may_run_another(tmp_path: Path) -> None:
    outer, inner = building()
    async with Baton.local(outer, inner, data_dir=tmp_path) as team:
        assert await team.run(outer, texts=["a", "b"]) == ["A", "B"]
        assert [head.flow for head in await team.runs()] == ["outer"]
    with pytest.raises(OnlyInProcess):
        Baton.connect("nats://127.0.0.1:1", outer)


async def test_answer_of_a_run_says_what_it_took(tmp_path: Path) -> None:
    """Its tokens, and that no model was asked for them: also where a handler made something of the answers.

    A run that asked is rehearsed when one that it asked for is; what that took is counted by that one.
    """
    inner = Flow("inner", input={"text": str})
    inner.ask("sum_up", "Sum up in a sentence: <text>{text}</text>", max_tokens=100)

    @inner.step(after="sum_up")
    def shout(sum_up: str) -> str:
        return sum_up.upper()

    middle = Flow("middle", input={"text": str})
    middle.nest("run", inner)
    outer = Flow("outer", input={"text": str})
    outer.nest("run", middle)
    async with Baton.local(outer, data_dir=tmp_path, rehearse=True) as team:
        run = await team.start(text="The lid leaks. It always has.")
        await run.result(WAIT_S)
        (child,) = await team.client.runs(parent=run.id)
        (grandchild,) = await team.client.runs(parent=child.run)
        states = [await team.get(each).state() for each in (run.id, child.run, grandchild.run)]
        assert [state.rehearsed for state in states] == [True] * 3
        assert states[2].usage.output_tokens > 0
        (answer,) = [step for step in states[1].steps.values() if step.asked == "flow"]
        assert answer.work is not None
        assert answer.work.usage == states[2].usage
        assert states[1].usage == states[0].usage == Usage()


def test_flow_that_is_built_in_python_cannot_run_itself() -> None:
    outer, inner = building()
    inner.nest("again", outer, given={"texts": "shout"}, after="shout")
    with pytest.raises(FlowError, match="nests itself: outer → inner → outer"):
        outer.check()
    other: Any = Flow("inner", input={"text": str})
    with pytest.raises(FlowError, match="another flow that is called 'inner'"):
        outer.nest("more", other, given={"text": "item"})


def test_model_is_told_of_a_flow_as_of_any_worker(folder: Path) -> None:
    """With the input of the flow, and what that says it is good for."""
    change(folder, 'name = "inner"', 'name = "inner"\ndescription = "Writes about a topic."', "sub/inner.toml")
    last = 'steps.merge = { after = "each" }\nsteps.last = { agent = "chief", after = "merge" }'
    change(folder, 'steps.merge = { after = "each" }', last)
    chief = 'agents.chief = { prompt = "{merge}", model = "worker", workers = ["article"] }\nagents.merge'
    flow = find_flow(change(folder, "agents.merge", chief)).flow
    (tool,) = tools_of(flow, flow.agents["chief"])
    assert (tool.name, tool.description) == ("article", "Writes about a topic.")
    assert list(tool.input_schema["properties"]) == ["topic", "words"]
    assert tool.input_schema["required"] == ["topic"]
