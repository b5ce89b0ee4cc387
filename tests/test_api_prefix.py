"""Where JetStream is asked: workers beside a leaf node use the streams of the hub's domain as if they were its own."""

from __future__ import annotations

from pathlib import Path

import nats

from baton_schemas.flow.flow import Step

from .clusters import free_ports
from .servers import nats_server
from .team import flow_of, team


async def test_streams_of_another_domain_are_used_through_a_leaf_node(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    hub = {"jetstream": {"domain": "hub"}, "leafnodes": {"listen": f"127.0.0.1:{port}"}}
    leaf = {"jetstream": {"domain": "leaf"}, "leafnodes": {"remotes": [{"url": f"nats://127.0.0.1:{port}"}]}}
    flow = flow_of({"a": Step(agent="a"), "b": Step(agent="b", after=["a"])})
    handlers = {"a": lambda: 1, "b": lambda: 2}
    async with (
        nats_server(tmp_path / "hub", **hub) as far,
        nats_server(tmp_path / "leaf", **leaf) as near,
        team(near.url, "baton", flow, handlers, api_prefix="$JS.hub.API") as t,
    ):
        run = await t.client.start(t.plan)
        assert await run.result(20) == 2
        assert [entry.seq async for entry in run.events()] == [1, 2, 3]
        found = {}
        for server in (far, near):
            nc = await nats.connect(server.url)
            found[server] = [info.config.name for info in await nc.jetstream().streams_info()]
            await nc.close()
    assert "baton" in found[far]
    assert found[near] == []
