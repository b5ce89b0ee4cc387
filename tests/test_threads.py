"""Plain handlers run in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from baton_actors.agents.handlers import Handler
from baton_actors.agents.python import PythonAgent
from baton_actors.agents.threads import Threads
from baton_actors.errors import HandlerRaised
from baton_schemas.flow.flow import Field, Step

from .agents import NoJournal, task_of
from .servers import NatsServer, until
from .team import flow_of, team, value_of


class Hanging:
    """Calls that hang until they are let go."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), 0

    def call(self) -> str:
        self.begun += 1
        self.go.wait()
        return "late"


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    hanging = Hanging()
    yield hanging
    hanging.go.set()


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    threads = Threads(1, hung_max=2)
    yield threads
    threads.close()


async def abandoned(threads: Threads, call: Callable[[], object]) -> None:
    with pytest.raises(TimeoutError):
        async with threads.place(), asyncio.timeout(0.01):
            await threads.run(call)


async def test_call_that_hangs_is_abandoned_and_its_place_is_free_at_once(threads: Threads, hanging: Hanging) -> None:
    await abandoned(threads, hanging.call)
    async with threads.place():
        assert await threads.run(lambda: "next") == "next"
    assert threads.abandoned == 1


async def test_abandoned_call_that_ends_after_all_counts_no_more_and_its_thread_is_used_again(
    threads: Threads, hanging: Hanging
) -> None:
    await abandoned(threads, hanging.call)
    hanging.go.set()
    await until(lambda: threads.abandoned == 0)
    names = {await threads.run(lambda: threading.current_thread().name) for _ in range(3)}
    assert len(names) == 1


async def test_closed_threads_end_also_those_that_are_busy(threads: Threads, hanging: Hanging) -> None:
    await abandoned(threads, hanging.call)
    busy = await threads.run(threading.current_thread)
    threads.close()
    hanging.go.set()
    await until(lambda: threads.abandoned == 0)
    await until(lambda: not busy.is_alive())
    assert await threads.run(lambda: "still works") == "still works"


async def test_process_is_told_when_too_many_hang(threads: Threads, hanging: Hanging) -> None:
    for count in range(1, 4):
        assert not threads.too_many.is_set()
        await abandoned(threads, hanging.call)
        assert threads.abandoned == count
    await threads.too_many.wait()


async def test_cancelled_call_is_abandoned(threads: Threads, hanging: Hanging) -> None:
    calling = asyncio.create_task(threads.run(hanging.call))
    await until(lambda: hanging.begun == 1)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert threads.abandoned == 1


async def test_context_variables_of_the_caller_are_there(threads: Threads) -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")
    who.set("the caller")
    assert await threads.run(who.get) == "the caller"


@pytest.mark.parametrize("kind", [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_what_no_future_can_hold_comes_out_as_raised(threads: Threads, kind: type[BaseException]) -> None:
    def raises() -> None:
        raise kind("x")

    with pytest.raises(HandlerRaised) as caught:
        await threads.run(raises)
    assert isinstance(caught.value.original, kind)


async def test_waiting_for_a_thread_is_not_the_time_of_the_attempt(threads: Threads) -> None:
    free = asyncio.Event()

    async def holds() -> None:
        async with threads.place():
            await free.wait()

    holding = asyncio.create_task(holds())
    agent = PythonAgent(Handler(lambda: "done"), threads)
    waiting = asyncio.create_task(agent.perform(task_of(timeout_s=0.05), NoJournal()))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done, "it waits longer than timeout_s, and is not timed out"
    free.set()
    assert (await waiting).output == b'"done"'
    await holding


async def test_time_out_names_its_setting_and_frees_the_place(threads: Threads, hanging: Hanging) -> None:
    agent = PythonAgent(Handler(hanging.call), threads)
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"did not finish within 0\.05 s \(timeout_s\)"):
            await agent.perform(task_of(timeout_s=0.05), NoJournal())
    assert (threads.abandoned, hanging.begun) == (2, 2)


def test_process_ends_while_a_thread_hangs() -> None:
    program = """
import asyncio, time
from baton_actors.agents.threads import Threads

async def main():
    try:
        async with asyncio.timeout(0.05):
            await Threads().run(lambda: time.sleep(3600))
    except TimeoutError:
        print("abandoned")

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "abandoned")


async def test_steps_of_a_worker_go_on_beside_plain_handlers_that_hang(
    server: NatsServer, namespace: str, hanging: Hanging
) -> None:
    def hangs_or_not(text: str) -> str:
        return hanging.call() if text == "hang" else text

    steps, given = {"a": Step(agent="a")}, {"text": Field()}
    flow = flow_of(steps, given, {"a": {"concurrency": 1, "max_attempts": 1, "timeout_s": 0.1}})
    async with team(server.url, namespace, flow, {"a": hangs_or_not}) as t:
        hung, other = await t.submit(text="hang"), await t.submit(text="fine")
        assert value_of((await t.result(other)).outcome) == "fine"
        assert (await t.result(hung)).status == "failed"
