"""In a cluster a server may lag behind the log: what a worker does not find there it asks of the leader."""

from __future__ import annotations

from pathlib import Path

from baton_bus import Settings, connect
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import After, Handoff

from .clusters import cluster
from .overheard import overhearing
from .team import Team, flow_of

PLAN = check_flow(flow_of({"a": Step(agent="a"), "b": Step(agent="b", after=["a"])}, {"text": Field()}))
LATER = 1_000_000
"""A sequence that no server has yet."""


async def read_a(a: str) -> str:
    return a


async def test_handoff_of_a_run_that_is_not_found_is_rejected_on_the_leaders_word_only(tmp_path: Path) -> None:
    stray = Handoff(run="r1", flow="flow", digest="unknown", step="b", cause=After(step="a"), start_seq=LATER)
    async with (
        cluster(tmp_path) as three,
        connect(Settings(url=three.url, namespace="log", replicas=3)) as client,
        Team(client, PLAN, {"b": read_a}).process("b"),
        overhearing(client.bus) as heard,
    ):
        (actor,) = [actor for actor, agent in PLAN.actors().items() if agent == "b"]
        await client.bus.publisher.create(client.bus.subjects.of(actor, stray), encode(stray))
        await heard.until_settled(f"handoff-{actor}")
        assert heard.words(f"handoff-{actor}") == [b"+TERM"]
        assert heard.sent("$JS.API.STREAM.MSG.GET.log") < heard.sent(f"log.note.{actor}.r1.>")
