"""The pages of the console over HTTP: what they say is what the log says."""

from __future__ import annotations

from pathlib import Path

from baton_bus import Settings
from baton_schemas.flow.flow import Field, Step

from .consoles import served
from .servers import NatsServer
from .team import flow_of, team


async def test_run_is_listed_and_shown_as_html_and_as_json(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    async def double(value: int) -> int:
        return value * 2

    flow = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})
    async with team(server.url, namespace, flow, {"do": double}) as t:
        run = await t.submit(value=4)
        await t.result(run)
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:
            listed = (await console.get("/runs.json")).json()
            assert [(each["run"], each["status"]) for each in listed] == [(run, "done")]
            page = await console.get(f"/runs/{run}")
            assert page.status_code == 200
            assert run in page.text
            assert (await console.get(f"/runs/{run}.json")).json()["status"] == "done"
            moved = await console.get(f"/runs/{run[-8:]}")
            assert (moved.status_code, moved.headers["location"]) == (303, f"/runs/{run}")


async def test_page_of_a_run_that_is_none_says_so_and_where_to_go(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with served(Settings(url=server.url, namespace=namespace), tmp_path / "index.sqlite") as console:
        page = await console.get("/runs/nosuchrun")
        assert page.status_code == 404
        assert "nosuchrun" in page.text
        assert 'href="/"' in page.text
        listed = await console.get("/")
        assert "No runs yet" in listed.text
