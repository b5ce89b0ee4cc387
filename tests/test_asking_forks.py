"""Going on from a run in which a step asked: what it was answered is taken over, what failed is asked again."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from baton_actors import Context
from baton_actors.agents.asks import AskFailed
from baton_schemas.flow.check import check_flow
from baton_schemas.wire.messages import Answer
from baton_schemas.wire.names import sortable_id

from .servers import NatsServer
from .team import team, value_of
from .test_asking import Helper, asking


class Once(Helper):
    """Fails at what is called `bad` the first time, after all attempts of it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_mended = False

    async def helper(self, topic: str) -> str:
        self.asked.append(topic)
        if topic == "bad" and not self.is_mended:
            raise ValueError(topic)
        return topic.upper()


async def test_retry_asks_only_what_failed(server: NatsServer, namespace: str) -> None:
    calls: list[int] = []

    async def boss(text: str, context: Context) -> Any:
        number = await context.record("number", lambda: len(calls))
        calls.append(number)
        return await context.gather(*(context.ask("helper", topic=each) for each in (f"good{number}", "fine", "bad")))

    helper = Once()
    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        result = await t.result(run)
        assert result.status == "failed"
        assert sorted(helper.asked) == ["bad", "bad", "bad", "fine", "good0"]
        helper.asked.clear()
        helper.is_mended = True
        again = sortable_id()
        await t.client.engine.runs.fork(run, again)
        assert value_of((await t.result(again)).outcome) == ["GOOD0", "FINE", "BAD"]
        assert helper.asked == ["bad"]
        assert calls == [0, 0]
        answers = [entry.message for entry in await t.log(again) if isinstance(entry.message, Answer)]
        assert sorted(answer.copied for answer in answers) == [False, True, True]


async def test_retry_with_another_agent_asks_it_anew(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> Any:
        found = await context.gather(("helper", {"topic": "good"}), ("helper", {"topic": "bad"}), failed="return")
        if any(isinstance(each, AskFailed) for each in found):
            raise RuntimeError("not all of it")
        return found

    helper = Once()
    flow = asking(max_attempts=1)
    handlers = {"boss": boss, "helper": helper.helper, "other": helper.helper}
    async with team(server.url, namespace, flow, handlers) as t:
        run = await t.submit(text="a")
        assert (await t.result(run)).status == "failed"
        helper.asked.clear()
        helper.is_mended = True
        for more, asked in (({"timeout_s": 7.0}, ["bad"]), ({"handler": "team:other"}, ["bad", "good"])):
            helper.asked.clear()
            changed = check_flow(
                replace(flow, agents={**flow.agents, "helper": replace(flow.agents["helper"], **more)})
            )
            again = sortable_id()
            await t.client.engine.runs.fork(run, again, plan=changed)
            assert value_of((await t.result(again)).outcome) == ["GOOD", "BAD"]
            assert sorted(helper.asked) == asked


async def test_step_that_is_kept_brings_no_answers_along(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("helper", topic=text))

    helper = Helper()
    async with team(server.url, namespace, asking(), {"boss": boss, "helper": helper.helper}) as t:
        run = await t.submit(text="a")
        assert value_of((await t.result(run)).outcome) == "A"
        again = sortable_id()
        await t.client.engine.runs.fork(run, again, until_seq=1)
        assert value_of((await t.result(again)).outcome) == "A"
        assert helper.asked == ["a", "a"]
