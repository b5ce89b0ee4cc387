"""A step that kills its worker fails alone: those beside it, and other runs, are not charged for it."""

from __future__ import annotations

import signal
from pathlib import Path

from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.facts import Begun
from baton_schemas.wire.outcomes import Done, Failed

from .deadly_worker import FLOW, LEASE_S, POISON, deadly_worker
from .servers import NatsServer, until
from .slow_worker import FLOW as SLOW
from .slow_worker import slow_worker
from .team import Team, flow_of, team, value_of
from .test_worker_delivery import hand_out


async def merge(each: list[str]) -> list[str]:
    return each


async def work_of(t: Team, run: str) -> dict[str, int]:
    """At which attempt each branch of a run was done."""
    steps = (await t.state(run)).steps
    return {name: step.work.attempt for name, step in steps.items() if step.work is not None and "each-" in name}


async def test_step_that_kills_its_worker_fails_alone_after_its_attempts(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with team(server.url, namespace, FLOW, {"merge": merge}, start=False, lease_s=LEASE_S) as t:
        run = await t.submit(texts=["a", POISON, "b", "c"])
        beside = await t.submit(texts=["d", "e"])
        async with deadly_worker(server, namespace, tmp_path) as died, t.process("merge"):
            await until(lambda: len(list(tmp_path.glob("began-*"))) == 6)  # all are in the same hands
            (tmp_path / "go").touch()
            assert value_of((await t.result(run)).outcome) == ["A", "B", "C"]
            assert value_of((await t.result(beside)).outcome) == ["D", "E"]

        poisoned = (await t.state(run)).steps["each-1"]
        assert poisoned.error is not None
        assert (poisoned.error.type, poisoned.error.attempts) == ("WorkerLost", 2)
        assert "died 2 times while doing it" in poisoned.error.message
        # The first death could have been anyone's; from then on the poisoned step said that it began, alone.
        assert died == [7, 7, 7]
        assert await work_of(t, run) == {"each-0": 1, "each-1": 2, "each-2": 1, "each-3": 1}
        assert await work_of(t, beside) == {"each-0": 1, "each-1": 1}


async def test_stopped_worker_whose_handler_never_began_is_charged_nothing(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def quick(text: str) -> str:
        return "the quick one"

    flow = flow_of(SLOW.steps, {"text": Field()}, {"a": {"max_attempts": 1}})
    async with team(server.url, namespace, flow, {"a": quick}, start=False, lease_s=LEASE_S) as t:
        async with slow_worker(server, namespace, tmp_path) as slow:
            await until(lambda: (tmp_path / "ready").exists())
            slow.send_signal(signal.SIGSTOP)  # it asks for work, and cannot take what it is given
            run = await t.submit(text="x")
            for _ in range(2):
                await hand_out_again(t, run)
            async with t.process():
                result = await t.result(run)
        assert isinstance(result.outcome, Done)
        assert (value_of(result.outcome), result.outcome.work.attempt) == ("the quick one", 1)
        assert started(tmp_path) == 0


def started(folder: Path) -> int:
    return len(list(folder.glob("started-*")))


async def hand_out_again(t: Team, run: str) -> None:
    (delivery,) = await hand_out(t, "handoff", "a", 1)
    await t.bus.nc.publish(delivery.reply, b"-NAK")


async def test_suspect_that_fails_with_a_reason_is_charged_once(server: NatsServer, namespace: str) -> None:
    async def broken(text: str) -> str:
        raise ValueError("no")

    flow = flow_of({"a": Step(agent="a")}, {"text": Field()}, {"a": {"max_attempts": 2}})
    async with team(server.url, namespace, flow, {"a": broken}, start=False) as t:
        run = await t.submit(text="x")
        (delivery,) = await hand_out(t, "handoff", "a", 1)
        await t.bus.nc.publish(delivery.reply, b"-NAK")
        async with t.process():
            result = await t.result(run)
        assert isinstance(result.outcome, Failed)
        assert (result.outcome.error.type, result.outcome.error.attempts) == ("ValueError", 2)
        assert len([fact for fact in await t.facts(run) if isinstance(fact, Begun)]) == 1
