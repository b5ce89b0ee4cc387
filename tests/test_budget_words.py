"""Budgets as people write and read them: in files, options, tasks and settings; `baton spend`, the doctor, a purge."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from baton_actors import Flow
from baton_actors.agents.checking import check_source
from baton_actors.services.steward import Steward
from baton_bus import Settings
from baton_bus.client.purge import Choice, plan_purge, purge
from baton_bus.client.spending import spent_calls
from baton_bus.client.survey import survey
from baton_bus.doctor.doctor import examine
from baton_bus.engine.budgets import RUN
from baton_bus.engine.engine import Engine
from baton_bus.errors import BusError
from baton_schemas.errors import FlowError
from baton_schemas.flow.budgets import lower, read_budget, with_budget
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.flow import Flow as FlowOfWire
from baton_schemas.flow.versions import version_needed
from baton_schemas.wire.messages import ASKING
from baton_schemas.wire.money import Budget, shown, shown_usd

from .clients import client_on
from .commands import here
from .sdk_clients import HAIKU, providing, said_by, streamed
from .servers import WAIT_S, NatsServer
from .test_budgets import COST, asking, crewed, until_settled, until_waits, usd

FILE = """
name = "story"
{budget}

[agents.write]
model = "{model}"
max_tokens = 100
prompt = "Write of tides."

[steps.write]
agent = "write"
"""


def flow(budget: str, model: str = HAIKU) -> FlowOfWire:
    return load_flow(FILE.format(budget=budget, model=model), "story.toml")


def refused(budget: str) -> str:
    with pytest.raises(FlowError) as caught:
        flow(budget)
    return str(caught.value)


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ("budget = { usd = 0 }", "budget.usd: found 0; expected USD: a number more than 0"),
        ("budget = { usd = -1.5 }", "found -1.5"),
        ("budget = { usd = nan }", "found nan"),
        ("budget = { usd_per_day = inf }", "budget.usd_per_day: found inf"),
        ("budget = { tokens = 0 }", "expected tokens: a whole number of at least 1"),
        ("budget = { tokens = 1.5 }", "budget.tokens"),
        ("budget = { }", "a budget that says nothing"),
        ("budget = { usd = 5, usd_per_day = 2 }", "found 5, and usd_per_day = 2"),
        ("budget = { eur = 5 }", "budget"),
        ("budget = 5", "budget"),
        ('on_budget = "wait"', "on_budget"),
    ],
)
def test_budget_that_cannot_be_kept_is_refused_with_its_place(budget: str, says: str) -> None:
    said = refused(budget)
    assert "story.toml" in said
    assert says in said


def test_flow_with_a_budget_needs_workers_that_keep_it() -> None:
    assert version_needed(flow('budget = { usd = 2.0, tokens_per_day = 1_000_000 }\non_budget = "park"')) == ASKING


def test_budgets_are_read_as_people_write_them() -> None:
    assert read_budget("2.5") == read_budget("$2.5") == read_budget("2.5usd") == Budget(usd=2.5)
    assert read_budget("200_000tokens") == read_budget("200000 tokens") == Budget(tokens=200_000)
    assert read_budget("2, 5000tokens") == Budget(usd=2.0, tokens=5_000)
    for nonsense in ("", "0", "-1", "nan", "much", "1.5tokens", "0tokens", "2,much", "1e400"):
        with pytest.raises(FlowError):
            read_budget(nonsense)


def test_amounts_are_shown_so_that_small_ones_can_be_told_from_nothing() -> None:
    assert [shown_usd(usd) for usd in (0, 0.1, 2, 1234.5)] == ["$0.00", "$0.10", "$2.00", "$1,234.50"]
    assert shown_usd(0.00015) == "$0.000150"
    assert shown("tokens", 1_200_000) == "1,200,000 tokens"


def test_what_is_given_goes_over_the_flow_and_a_task_only_below_it() -> None:
    plan = check_flow(flow("budget = { usd = 2.0, tokens = 900 }"))
    assert with_budget(plan, Budget(usd=5.0)).flow.budget == Budget(usd=5.0, tokens=900)
    assert with_budget(plan, None) is plan
    assert lower(plan, Budget(usd=5.0, tokens=100, usd_per_day=3.0)) == Budget(usd=2.0, tokens=100, usd_per_day=3.0)
    with pytest.raises(FlowError):
        with_budget(plan, Budget(usd=-1.0))


@pytest.mark.parametrize("given", [{"budget_usd_per_day": 0}, {"budget_tokens_per_day": 0}])
def test_setting_that_allows_nothing_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BusError, match="more than 0, or -1 for no limit"):
        Settings(**given)


def test_settings_of_a_day_come_from_the_environment() -> None:
    found = Settings.from_environ({"BATON_BUDGET_USD_PER_DAY": "2.5", "BATON_BUDGET_TOKENS_PER_DAY": "1000"})
    assert (found.budget_usd_per_day, found.budget_tokens_per_day) == (2.5, 1000)


def test_model_without_a_price_is_an_error_where_the_budget_is_in_usd(tmp_path: Path) -> None:
    for budget, level in (("budget = { usd = 1 }", "error"), ("budget = { tokens = 10 }", "warning")):
        path = tmp_path / "story.toml"
        path.write_text(FILE.format(budget=budget, model="claude-unheard-of-9"), "utf-8")
        (problem,) = [each for each in check_source(str(path)).problems if each.code == "unpriced_model"]
        assert problem.level == level


@pytest.mark.parametrize(
    ("budget", "tool", "codes"),
    [
        ("{ usd = 1 }", "'web_search'", ["unpriced_model"]),
        ("{ usd = 1 }", "{ use = 'web_search', max_uses = 2 }", []),
        ("{ usd = 1 }", "'web_fetch'", []),
        ("{ tokens = 10 }", "'web_search'", []),
    ],
)
def test_tool_with_a_price_and_no_end_is_an_error_where_the_budget_is_in_usd(
    budget: str, tool: str, codes: list[str], tmp_path: Path
) -> None:
    agent = f"[agents.write]\nmodel = 'worker'\nprompt = 'Go.'\ntools = [{tool}]\n"
    (tmp_path / "story.toml").write_text(f"name = 'story'\nbudget = {budget}\nsteps.write = {{}}\n{agent}")
    assert [each.code for each in check_source(str(tmp_path / "story.toml")).problems] == codes


async def test_task_may_ask_for_less_than_its_flow_allows(server: NatsServer, namespace: str) -> None:
    found = asking(1, budget=usd(1))
    async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
        steward = Steward(Engine(crew.bus), {found.name: found.plan}, answers_unknown=False)
        async with client_on(crew.bus) as client, steward.working(), crew.working():
            run = await client.start(found.name, budget=0.000_1)
            assert (await run.ended(WAIT_S)).status == "failed"
            more = await client.start(found.name, budget=99.0)
            assert (await more.ended(WAIT_S)).status == "done"
            _, first = await client.engine.runs.first(more.id)
            assert b'"usd":99' not in bytes(first.cause.begins.flow_body)  # type: ignore[union-attr]


def test_spending_is_told_by_flow_agent_model_and_day_with_what_was_in_vain(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def spends() -> str:
        async with providing() as provider, crewed(server, namespace, asking(2), provider.settings) as crew:
            broken = streamed(*said_by("a long answer")[:4], whole=False)
            flow = Flow("sdk")
            flow.ask("write", "Write of tides.", model=HAIKU, max_tokens=100, retry_base_s=0.01)
            crew.found = flow.found()
            provider.script = [lambda _: broken]
            run, result = await crew.play()
            assert result.status == "done"
            calls = [each async for each in spent_calls(crew.bus)]
            assert {(each.flow, each.agent, each.call.run) for each in calls} == {("sdk", "write", run)}
            later = calls[-1].call.at + timedelta(seconds=1)
            assert [each async for each in spent_calls(crew.bus, later)] == []
            return run

    asyncio.run(spends())
    env = {"BATON_URL": server.url, "BATON_NAMESPACE": namespace}
    for by, key in (("flow", "sdk"), ("agent", "sdk: write"), ("model", "claude-haiku-4-5-20251001")):
        (found,) = json.loads(here("spend", "--by", by, "--json", cwd=tmp_path, **env).stdout)["sums"]
        assert (found[by], found["calls"], found["unpriced"]) == (key, 2, 0)
        assert found["cost_usd"] > COST / 10**9 > found["waste_usd"] > 0
    told = here("spend", "--by", "day", "--since", "1d", cwd=tmp_path, **env)
    assert told.returncode == 0, told.stderr
    assert "in vain" in told.stdout
    assert "$0.000" in told.stdout
    assert here("spend", "--since", "tomorrow", cwd=tmp_path, **env).returncode == 2
    nothing = here("spend", "--since", "0s", cwd=tmp_path, **env)
    assert "nothing was asked of a model since then" in nothing.stderr


def test_run_that_is_parked_is_told_by_the_doctor_and_goes_on_by_a_command(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    found = asking(3, budget=usd(1), on_budget="park")

    async def parks() -> str:
        async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew:
            run = await crew.start()
            async with crew.working(), client_on(crew.bus) as client:
                await until_waits(client, run)
                assert any("1 run is parked, as a budget" in finding.says for finding in await examine(crew.bus))
            return run

    async def goes_on() -> str:
        async with providing() as provider, crewed(server, namespace, found, provider.settings) as crew, crew.working():
            return (await crew.result(run)).status

    run = asyncio.run(parks())
    env = {"BATON_URL": server.url, "BATON_NAMESPACE": namespace}
    assert "has spent $0.000150 already" in here("retry", run, "--budget", "0.0001", cwd=tmp_path, **env).stderr
    assert here("retry", run, "--budget", "nothing", cwd=tmp_path, **env).returncode == 2
    more = here("retry", run, "--budget", "0.01", cwd=tmp_path, **env)
    assert more.stdout == f"{run} may spend $0.0100 in all: 1 step goes on once workers are up\n"
    assert asyncio.run(goes_on()) == "done"


async def test_counters_of_a_run_go_with_it_when_it_is_purged(server: NatsServer, namespace: str) -> None:
    async with providing() as provider, crewed(server, namespace, asking(1, budget=usd(1)), provider.settings) as crew:
        run, _ = await crew.play()
        assert await until_settled(crew.bus, run) == COST
        found = await survey(crew.bus)
        now = max(each.last_at for each in found.runs.values())
        await purge(crew.bus, plan_purge(found, Choice(runs=(run,)), now))
        assert [entry async for entry in crew.bus.counters.entries((RUN, run, "*"))] == []


async def test_stream_of_counters_that_does_not_count_is_told_and_no_call_is_made(
    server: NatsServer, namespace: str
) -> None:
    found = asking(1, budget=usd(1))
    async with providing() as provider, crewed(server, namespace, found, provider.settings, lease_s=1.0) as crew:
        await crew.bus.js.add_stream(name=f"{namespace}-spend", subjects=[f"{namespace}-spend.>"])
        run = await crew.start()
        async with crew.working():
            findings = await examine(crew.bus)
            assert any("allow_msg_counter is off" in finding.says for finding in findings)
            assert (await crew.state(run)).status == "running"
            assert provider.asked == []
        await crew.bus.js.delete_stream(f"{namespace}-spend")
        async with crew.working():
            assert (await crew.result(run)).status == "done"
