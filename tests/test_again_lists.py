"""`when` and `again` with lists: fan-outs that join, that are last, and of which only so many branches go at once."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from baton_actors import Branch
from baton_schemas.flow.flow import Again, Field, Step

from .servers import NatsServer
from .team import flow_of, team, value_of

TOPICS = {"topics": Field(type="list[str]"), "go": Field(type="str", default=Raw(b'"yes"'))}


async def split(topics: list[str], merge: list[str] | None = None) -> list[str]:
    return [*merge, "new"] if merge else topics


async def note(topics: list[str]) -> str:
    return f"{len(topics)} topics"


async def upper(item: str, note: str = "") -> str:
    return item + "!"


async def merge(upper: list[Branch[str]]) -> list[str]:
    assert all(branch.item + "!" == branch.value for branch in upper)
    return [branch.value or "" for branch in upper]


async def each_of(item: str) -> str:
    return item.upper()


HANDLERS = {"split": split, "note": note, "upper": upper, "merge": merge, "each_of": each_of}
AGENTS = {"split": {"reads": ["topics"]}, "note": {"reads": ["topics"]}, "upper": {"reads": ["note"]}}
LOOPING = AGENTS | {"split": {"reads": ["topics", "merge"]}}


def steps_of(**more: Step) -> dict[str, Step]:
    again = Again(start="split", when={"merge.0": ["a!", "a!!"]}, max_rounds=5)
    return {
        "split": Step(agent="split"),
        "note": Step(agent="note", after=["split"]),
        "upper": Step(agent="upper", after=["split", "note"], each="split", concurrency=1),
        "merge": Step(agent="merge", after=["upper"], again=again),
        **more,
    }


async def test_fan_out_that_joins_and_goes_one_by_one_has_its_own_list_in_each_round(
    server: NatsServer, namespace: str
) -> None:
    last = Step(agent="each_of", after=["merge"], each="merge", concurrency=1)
    async with team(server.url, namespace, flow_of(steps_of(last=last), TOPICS, LOOPING), HANDLERS) as t:
        run = await t.submit(topics=["a", "b"])
        found: Any = value_of((await t.result(run)).outcome)
        # The list after the loop is that of its last round.
        assert found == ["A!!!", "B!!!", "NEW!!", "NEW!"]
        steps = (await t.state(run)).steps
        assert {"upper--join", "upper--join--r2", "upper--join--r3", "last--list", "last-3"} <= steps.keys()
        assert {f"upper-{index}--r3" for index in range(4)} <= steps.keys()
        assert "merge--r4" not in steps


async def test_fan_out_that_joins_and_is_left_out_leaves_its_join_to_be_done(
    server: NatsServer, namespace: str
) -> None:
    steps = {
        "split": Step(agent="split"),
        "note": Step(agent="note", after=["split"]),
        "upper": Step(agent="upper", after=["split", "note"], each="split", when={"go": "yes", "note": "2 topics"}),
    }
    async with team(server.url, namespace, flow_of(steps, TOPICS, AGENTS), HANDLERS) as t:
        assert value_of((await t.result(await t.submit(topics=["a", "b"]))).outcome) == ["a!", "b!"]
        for given, why in (({"go": "no"}, "go is 'no'"), ({"topics": ["a"]}, "note is '1 topics'")):
            run = await t.submit(**{"topics": ["a", "b"], **given})
            result = await t.result(run)
            assert result.status == "done"
            steps_ = (await t.state(run)).steps
            assert steps_["upper--join"].status == "done"
            assert (steps_["upper"].status, steps_["upper"].reason) == ("skipped", why)
            assert (steps_["upper--list"].status, steps_["upper--list"].reason) == ("skipped", "upper was skipped")


async def test_what_was_left_out_before_a_join_that_a_fan_out_implies_leaves_out_all_of_it(
    server: NatsServer, namespace: str
) -> None:
    steps = {
        "split": Step(agent="split", when={"go": "yes"}),
        "note": Step(agent="note", when={"go": "yes"}),
        "upper": Step(agent="upper", after=["split", "note"], each="topics"),
    }
    async with team(server.url, namespace, flow_of(steps, TOPICS, AGENTS), HANDLERS) as t:
        run = await t.submit(topics=["a"], go="no")
        assert (await t.result(run)).status == "done"
        found = (await t.state(run)).steps
        reasons = {name: found[name].reason for name in ("upper--join", "upper", "upper--list")}
        both = "split and note were skipped"
        assert reasons == {"upper--join": both, "upper": both, "upper--list": "upper was skipped"}
