"""The graph of a run's page: steps that are runs lead to these and back, and large graphs have a small picture."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from baton_schemas.flow.flow import Field, Step

from .consoles import served
from .nested_teams import Hands, nested_team, one, over_texts
from .servers import NatsServer
from .team import flow_of, team


async def test_steps_and_branches_that_are_runs_of_a_flow_open_these_and_lead_back(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with (
        nested_team(server, namespace, over_texts(), Hands().all) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(texts=["a", "b", "c"])
        assert (await t.ended(run)).status == "done"
        children = await t.child_runs(run)
        state = await t.client.run(run).state()
        (fan_out,) = {step.source.rpartition("-")[0] for step in state.steps.values() if step.asked == "flow"}
        page = (await console.get(f"/runs/{run}")).text
        graph = page.split('id="graph"')[1].split("</section>")[0]
        assert set(re.findall(r'href="(/runs/[^"/]+)"', graph)) == {f"/runs/{child}" for child in children}
        assert f'href="/runs/{run}/steps/{fan_out}"' in graph
        branches = (await console.get(f"/runs/{run}/steps/{fan_out}")).text
        assert all(f'data-href="/runs/{child}"' in branches for child in children)
        for child in children:
            own = (await console.get(f"/runs/{child}")).text
            back = re.search(rf'href="(/runs/{run}/steps/[^"]+)"', own)
            assert back is not None
            assert f'Its run: <a href="/runs/{child}"' in (await console.get(back[1])).text
        # In a file there is nothing of what a run asked for.
        await console.open("kept.jsonl", (await console.get(f"/runs/{run}/export")).content)
        kept = (await console.get("/files/kept")).text.split('id="graph"')[1].split("</section>")[0]
        assert "/runs/" not in kept


async def test_step_that_is_a_run_opens_it_as_soon_as_there_is_one(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    hands = Hands()
    async with (
        nested_team(server, namespace, one(), hands.all) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(text="a")
        assert (await t.ended(run)).status == "done"
        (child,) = await t.child_runs(run)
        before = (await console.get(f"/runs/{run}", params={"at": 1})).text
        assert f'data-href="/runs/{run}/steps/whole"' in before and f"/runs/{child}" not in before
        after = (await console.get(f"/runs/{run}")).text
        assert after.count(f'data-href="/runs/{child}"') >= 1
        assert f'<a href="/runs/{child}" aria-label="whole' in after


async def test_large_graph_has_a_small_picture_that_leads_into_it_and_is_fitted(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def does() -> int:
        return 1

    for count, has_mini in ((39, False), (40, True)):
        steps = {f"s{n}": Step(agent="a", after=[f"s{n - 1}"] if n else []) for n in range(count)}
        space = f"{namespace}{count}"
        async with (
            team(server.url, space, flow_of(steps, {"value": Field(type="int")}), {"a": does}, start=False) as t,
            served(t.bus.settings, tmp_path / f"{space}.sqlite") as console,
        ):
            run = await t.submit(value=1)
            page, fitted = await asyncio.gather(
                console.get(f"/runs/{run}"), console.get(f"/runs/{run}", params={"fit": "yes", "at": 1})
            )
            targets = re.findall(r'href="#(box-s\d+)"', page.text)
            assert targets == ([f"box-s{n}" for n in range(count)] if has_mini else [])
            assert all(page.text.count(f'id="{target}"') == 1 for target in targets)
            assert f'data-key="0" href="/runs/{run}?fit=yes#graph"' in page.text
            assert f'data-key="0" href="/runs/{run}?at=1&amp;#graph"' in fitted.text
            assert '<svg width="100%" viewBox="0 0 ' in fitted.text and '<svg width="100%"' not in page.text
