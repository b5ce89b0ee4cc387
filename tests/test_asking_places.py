"""What asking takes and gives back: places of `concurrency`, names of children, and values that are made once."""

from __future__ import annotations

import asyncio
from typing import Any

from baton_actors import Context
from baton_schemas.flow.flow import Step

from .servers import NatsServer
from .team import flow_of, team, value_of
from .test_asking import TOPIC, Helper, asking, children
from .timed import TEXT

RUNS = 4


async def test_step_goes_on_only_once_it_has_a_place_again(server: NatsServer, namespace: str) -> None:
    """They are all answered at once, and then run one after the other."""
    running = most = asked = 0
    all_asked = asyncio.Event()

    async def boss(text: str, context: Context) -> str:
        nonlocal running, most
        answer = await context.ask("helper", topic=text)
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return str(answer)

    async def helper(topic: str) -> str:
        nonlocal asked
        asked += 1
        if asked == RUNS:
            all_asked.set()
        await all_asked.wait()
        return topic

    flow = asking(concurrency=1)
    async with team(server.url, namespace, flow, {"boss": boss, "helper": helper}) as t:
        runs = [await t.submit(text=str(number)) for number in range(RUNS)]
        assert [value_of((await t.result(run)).outcome) for run in runs] == ["0", "1", "2", "3"]
        assert most == 1


async def test_what_is_recorded_is_made_once_however_often_the_step_is_done(server: NatsServer, namespace: str) -> None:
    made: list[int] = []
    attempts: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made)

    async def boss(text: str, context: Context) -> list[int]:
        attempts.append(1)
        numbers = [await context.record("number", make), await context.record("number", make)]
        if len(attempts) < 3:
            raise RuntimeError("again")
        return numbers

    async with team(server.url, namespace, asking(), {"boss": boss, "helper": Helper().helper}) as t:
        assert value_of((await t.run(text="a")).outcome) == [1, 2]
        assert len(made) == 2


async def test_two_steps_that_ask_the_same_have_each_a_child_of_their_own(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic=text))

    async def both(a: str, b: str) -> list[str]:
        return [a, b]

    agents: dict[str, Any] = {"boss": {"workers": ["helper"]}, "helper": {"input": TOPIC}}
    flow = flow_of(
        {"a": Step(agent="boss"), "b": Step(agent="boss"), "c": Step(agent="both", after=["a", "b"])}, TEXT, agents
    )
    helper = Helper()
    async with team(server.url, namespace, flow, {"boss": boss, "helper": helper.helper, "both": both}) as t:
        run = await t.submit(text="x")
        assert value_of((await t.result(run)).outcome) == ["X", "X"]
        assert len(set(await children(t, run))) == 2
        assert helper.asked == ["x", "x"]
