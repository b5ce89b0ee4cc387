"""A run as facts: what its page answers as JSON is what `baton show --json` prints."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

from baton_bus import Settings
from baton_bus.client.runs import recent_runs
from baton_bus.store.bus import open_bus
from baton_schemas.flow.flow import Field, Step

from .commands import here
from .consoles import served
from .indexed import mixed, publish, recorded
from .servers import NatsServer
from .team import flow_of, team

OF_OTHERS = ("messages", "time", "lanes", "rejected")
"""What is told of messages that change nothing in how a run stands: others stand in their place, or no worker of its
flow would read them. The command reads no such, the page has them."""


def without_clock(facts: dict[str, Any]) -> dict[str, Any]:
    """What does not change from one looking to the next: of a run that goes on, how long it has is left out."""
    if facts["elapsed_s"] is not None:
        return facts
    steps = [{name: value for name, value in each.items() if name != "elapsed_s"} for each in facts["steps"]]
    return {**facts, "time": None, "steps": steps}


async def answers(settings: Settings, index: Path) -> dict[str, tuple[int, Any]]:
    """What the pages of all recorded runs answer as JSON, by run."""
    async with open_bus(settings) as bus, served(settings, index) as console:
        await publish(bus, mixed(recorded(settings.namespace), Random(1)))
        runs = [head.run for head in await recent_runs(bus, 1_000, children=True)]
        found = {run: await console.get(f"/runs/{run}.json") for run in runs}
        return {run: (answer.status_code, answer.json()) for run, answer in found.items()}


def test_page_of_each_recorded_run_is_as_json_what_the_command_prints(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    answered = asyncio.run(answers(Settings(url=server.url, namespace=namespace), tmp_path / "index.sqlite"))
    same = 0
    for run, (status, facts) in answered.items():
        printed = here("show", run, "--json", "--nats", server.url, "--namespace", namespace, cwd=tmp_path)
        if printed.returncode:  # what is kept beside the log is not kept with what was recorded
            assert status == 404 and facts["error"] in printed.stderr, printed.stderr
        else:
            said = json.loads(printed.stdout)
            same += (is_all := facts["messages"] == said["messages"])
            left_out = dict.fromkeys(() if is_all else OF_OTHERS)
            assert without_clock(facts | left_out) == without_clock(said | left_out), run
    assert same > 5


async def test_output_beside_the_log_is_in_it_and_of_a_file_it_is_said_why_it_is_not(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    large = "x" * 2_000_000
    flow = flow_of({"one": Step(agent="one")}, {"value": Field(type="int")})
    async with (
        team(server.url, namespace, flow, {"one": lambda value: large}) as t,
        served(t.bus.settings, tmp_path / "index.sqlite") as console,
    ):
        run = await t.submit(value=1)
        assert (await t.result(run)).status == "done"
        facts = (await console.get(f"/runs/{run}.json")).json()
        assert (facts["output"], facts["unplayed"], "missing" in facts) == (large, [], False)
        before = (await console.get(f"/runs/{run}.json", params={"at": 1})).json()
        assert (before["output"], before["status"], before["at"]) == (None, "running", 1)
        exported = (await console.get(f"/runs/{run}/export")).content
        await console.open("kept.jsonl", exported)
        kept = (await console.get("/files/kept.json")).json()
        assert kept["output"] is None and "kept beside the log" in kept["missing"]
        same = facts.keys() - {"output"}
        assert {name: kept[name] for name in same} == {name: facts[name] for name in same}
