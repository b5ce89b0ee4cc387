"""What a failure costs: retries with notes and backoff, a failed outcome at the end, and who else is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from baton_actors.errors import Fail, Retry
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire import facts
from baton_schemas.wire.outcomes import Error, Failed

from .servers import NatsServer
from .team import Team, flow_of, kind_of, team, value_of

TEXT = {"text": Field()}
ONE = {"a": Step(agent="a")}


async def echo(text: str) -> str:
    return text


async def broken(text: str) -> str:
    raise ValueError(f"no {text}")


async def retries_of(t: Team, run: str) -> list[facts.Retry]:
    return [fact for fact in await t.facts(run) if isinstance(fact, facts.Retry)]


async def test_failed_attempts_are_noted_and_tried_again_later(server: NatsServer, namespace: str) -> None:
    calls: list[float] = []

    async def third_time_lucky(text: str) -> str:
        calls.append(time.monotonic())
        if len(calls) < 3:
            raise ValueError(f"call {len(calls)}")
        return text

    flow = flow_of(ONE, TEXT, {"a": {"retry_base_s": 0.1, "retry_max_s": 1.0}})
    async with team(server.url, namespace, flow, {"a": third_time_lucky}) as t:
        run = await t.submit(text="x")
        result = await t.result(run)

        assert value_of(result.outcome) == "x"
        first, second = await retries_of(t, run)
        assert [(retry.attempt, retry.error.message) for retry in (first, second)] == [
            (1, "call 1"),
            (2, "call 2"),
        ]
        assert 0.05 <= first.delay_s <= 0.1 <= second.delay_s <= 0.2
        assert calls[1] - calls[0] >= first.delay_s
        assert calls[2] - calls[1] >= second.delay_s
        assert (await t.state(run)).steps["a"].attempts == 3


async def test_step_fails_after_its_last_attempt(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, flow_of(ONE, TEXT, {"a": {"max_attempts": 2}}), {"a": broken}) as t:
        run = await t.submit(text="luck")
        result = await t.result(run)

        assert result.status == "failed"
        assert isinstance(result.outcome, Failed)
        error = result.outcome.error
        assert (error.step, error.type, error.attempts) == ("a", "ValueError", 2)
        assert (error.message, error.at and error.at.function) == ("no luck", "broken")
        assert error.traceback.splitlines()[-1] == "ValueError: no luck"
        assert await t.kinds(run) == ["handoff", "note", "result"]


async def test_handler_may_say_how_long_to_wait_before_the_next_attempt(server: NatsServer, namespace: str) -> None:
    calls: list[float] = []

    async def busy(text: str) -> str:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise Retry("busy", after_s=0.4)
        return text

    async with team(server.url, namespace, flow_of(ONE, TEXT), {"a": busy}) as t:
        run = await t.submit(text="x")
        assert (await t.result(run)).status == "done"
        assert calls[1] - calls[0] >= 0.4
        assert [retry.delay_s for retry in await retries_of(t, run)] == [0.4]


async def gives_up(text: str) -> str:
    raise Fail("of no use")


async def returns_a_number(text: str) -> str:
    return 3  # type: ignore[return-value]


async def returns_no_json(text: str) -> Any:
    return object()


async def wants_a_number(text: int) -> int:
    return text


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [
        (gives_up, "Fail", "of no use"),
        (returns_a_number, "BadOutput", "Expected `str`, got `int`"),
        (returns_no_json, "BadOutput", "unsupported"),
        (wants_a_number, "BadValue", "parameter 'text'"),
    ],
)
async def test_failure_that_another_attempt_cannot_mend_is_final(
    handler: Callable[..., Any], kind: str, message: str, server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, flow_of(ONE, TEXT), {"a": handler}) as t:
        run = await t.submit(text="x")
        result = await t.result(run)

        assert isinstance(result.outcome, Failed)
        assert (result.outcome.error.type, result.outcome.error.attempts) == (kind, 1)
        assert message in result.outcome.error.message
        assert await t.kinds(run) == ["handoff", "result"]


async def test_list_that_is_none_fails_the_step_that_put_it_out(server: NatsServer, namespace: str) -> None:
    async def upper(item: str) -> str:
        return item

    async def merge(each: list[str]) -> int:
        return len(each)

    steps = {"a": Step(agent="a"), "each": Step(agent="upper", each="a"), "merge": Step(agent="merge", after=["each"])}
    async with team(server.url, namespace, flow_of(steps, TEXT), {"a": echo, "upper": upper, "merge": merge}) as t:
        result = await t.run(text="x")

        assert isinstance(result.outcome, Failed)
        assert (result.step, result.outcome.error.type) == ("a", "BadOutput")
        assert "expected a list, found a string" in result.outcome.error.message


async def test_attempt_that_takes_too_long_is_cancelled(server: NatsServer, namespace: str) -> None:
    cancelled = asyncio.Event()

    async def slow(text: str) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        return text

    steps = {"a": Step(agent="a", timeout_s=0.1)}
    async with team(server.url, namespace, flow_of(steps, TEXT, {"a": {"max_attempts": 1}}), {"a": slow}) as t:
        result = await t.run(text="x")

        assert cancelled.is_set()
        assert isinstance(result.outcome, Failed)
        assert result.outcome.error.type == "Timeout"
        assert "0.1 s" in result.outcome.error.message


async def test_handler_that_is_cancelled_from_within_has_failed(server: NatsServer, namespace: str) -> None:
    async def awaits_a_cancelled_task(text: str) -> str:
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task
        return text

    flow = flow_of(ONE, TEXT, {"a": {"max_attempts": 2}})
    async with team(server.url, namespace, flow, {"a": awaits_a_cancelled_task}) as t:
        run = await t.submit(text="x")
        result = await t.result(run)

        assert isinstance(result.outcome, Failed)
        assert (result.outcome.error.type, result.outcome.error.attempts) == ("CancelledError", 2)


async def test_long_error_is_cut_short(server: NatsServer, namespace: str) -> None:
    async def quotes(text: str) -> str:
        raise Fail("x" * 100_000)

    async with team(server.url, namespace, flow_of(ONE, TEXT), {"a": quotes}) as t:
        result = await t.run(text="x")
        assert isinstance(result.outcome, Failed)
        assert result.outcome.error.message == "x" * 1_999 + "…"


async def test_failure_ends_the_run_and_its_other_branches_at_once(server: NatsServer, namespace: str) -> None:
    waiting, cancelled = asyncio.Event(), asyncio.Event()
    started: list[str] = []

    async def waits(text: str) -> str:
        waiting.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()
        return text

    async def fails(text: str) -> str:
        await waiting.wait()
        raise Fail("no")

    async def later(b: str) -> str:
        started.append("later")
        return b

    async def join(a: str, later: str) -> str:
        started.append("join")
        return a

    steps = {
        "a": Step(agent="fails"),
        "b": Step(agent="waits"),
        "later": Step(agent="later", after=["b"]),
        "both": Step(agent="join", after=["a", "later"]),
    }
    handlers = {"fails": fails, "waits": waits, "later": later, "join": join}
    async with team(server.url, namespace, flow_of(steps, TEXT), handlers) as t:
        run = await t.submit(text="x")
        result = await t.result(run)
        async with asyncio.timeout(1.0):
            await cancelled.wait()

        assert (result.status, result.step) == ("failed", "a")
        for agent in handlers:
            await t.until_settled("handoff", agent)
        assert started == []
        assert (await t.state(run)).steps["b"].status == "dropped"


async def test_error_travels_on_to_the_steps_that_follow(server: NatsServer, namespace: str) -> None:
    async def reads_errors(errors: list[Error], a: str) -> list[str]:
        return [a, *(f"{error.step}: {error.message.split(' (')[0]}" for error in errors)]

    steps = {
        "a": Step(agent="a"),
        "b": Step(agent="b", after=["a"]),
        "c": Step(agent="b", after=["b"]),
        "d": Step(agent="d", after=["c"]),
    }
    agents: dict[str, dict[str, Any]] = {"b": {"max_attempts": 1, "reads": ["text"]}, "d": {"reads": ["a"]}}
    flow = flow_of(steps, TEXT, agents, on_error="continue")
    async with team(server.url, namespace, flow, {"a": echo, "b": broken, "d": reads_errors}) as t:
        run = await t.submit(text="x")
        assert value_of((await t.result(run)).outcome) == ["x", "b: no x", "c: no x"]
        assert [kind_of(entry) for entry in await t.log(run)] == ["handoff"] * 4 + ["result"]


async def test_failure_of_the_last_step_fails_the_run_under_either_policy(server: NatsServer, namespace: str) -> None:
    flow = flow_of(ONE, TEXT, {"a": {"max_attempts": 1}}, on_error="continue")
    async with team(server.url, namespace, flow, {"a": broken}) as t:
        result = await t.run(text="x")
        assert (result.status, result.step) == ("failed", "a")


async def test_fan_out_after_a_failed_step_does_not_hang_on_what_is_no_list(server: NatsServer, namespace: str) -> None:
    async def same(item: str) -> str:
        return item

    async def merge(each: list[str]) -> int:
        return len(each)

    steps = {
        "a": Step(agent="a"),
        "check": Step(agent="broken", after=["a"]),
        "each": Step(agent="same", each="a", after=["check"]),
        "merge": Step(agent="merge", after=["each"]),
    }
    agents = {"broken": {"max_attempts": 1, "reads": ["text"]}}
    flow = flow_of(steps, TEXT, agents, on_error="continue")
    async with team(server.url, namespace, flow, {"a": echo, "broken": broken, "same": same, "merge": merge}) as t:
        run = await t.submit(text="x")
        result = await t.result(run)
        assert value_of(result.outcome) == 0
