"""How many steps one worker process does at once: what the flow says, or what suits what does them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from baton_actors.agents.agents import Agents
from baton_actors.agents.kinds import COMPUTING, WAITING
from baton_actors.models import Models, ModelSettings
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step

from .servers import NatsServer
from .team import flow_of, team

TEXT = {"text": Field()}
STEPS = {"a": Step(agent="a")}


class AtOnce:
    """Counts how many do it at the same time."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def enter(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def leave(self) -> None:
        with self._lock:
            self.now -= 1

    async def wait(self, text: str) -> str:
        self.enter()
        await asyncio.sleep(0.2)
        self.leave()
        return text

    def compute(self, text: str) -> str:
        self.enter()
        time.sleep(0.02)
        self.leave()
        return text


async def most_at_once(server: NatsServer, namespace: str, handler: Any, at_once: AtOnce, **options: Any) -> int:
    async with team(server.url, namespace, flow_of(STEPS, TEXT, {"a": options}), {"a": handler}) as t:
        await asyncio.gather(*(t.run(text="x") for _ in range(150)))
    return at_once.most


async def test_async_handler_waits_for_a_hundred_at_once(server: NatsServer, namespace: str) -> None:
    at_once = AtOnce()
    assert await most_at_once(server, namespace, at_once.wait, at_once) == WAITING


async def test_plain_handler_computes_in_eight_threads(server: NatsServer, namespace: str) -> None:
    at_once = AtOnce()
    assert await most_at_once(server, namespace, at_once.compute, at_once) == COMPUTING


async def test_flow_says_how_many_and_neither_kind_matters(server: NatsServer, namespace: str) -> None:
    at_once = AtOnce()
    assert await most_at_once(server, namespace, at_once.compute, at_once, concurrency=16) == 16


def test_agent_that_asks_a_model_waits() -> None:
    asks = Agent(model="claude-haiku-4-5", prompt="{text}", max_tokens=10)
    plan = check_flow(Flow(name="asks", input=TEXT, agents={"asks": asks}, steps={"a": Step(agent="asks")}))
    assert Agents(Models(ModelSettings())).concurrency(plan, "asks") == WAITING
