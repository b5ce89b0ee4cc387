"""What the floor does by hand: a pipeline, and a fan-out with its join."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from baton_bus.jetstream.consumer import Delivery

from .floor import Floor, Work

_AT_ONCE = 500


class Pipeline(Struct, frozen=True, tag=True):
    """Hops, three unless told: a, b, c, and the result."""

    hops: int = 3
    wait_s: float = 0.0
    in_hand_max: int = 256

    @property
    def actors(self) -> tuple[str, ...]:
        return ("a", "b", "c")[: self.hops]

    def works(self, floor: Floor) -> dict[str, Work]:
        def hop(following: str) -> Work:
            async def work(run: str, delivery: Delivery) -> None:
                if self.wait_s:
                    await asyncio.sleep(self.wait_s)
                await floor.create(following, run, body=delivery.data)
                await delivery.ack()

            return work

        following = [*self.actors[1:], "end"]
        return {actor: hop(name) for actor, name in zip(self.actors, following, strict=True)}


class FanOut(Struct, frozen=True, tag=True):
    """One step that hands out `branches`, a join with records of who has arrived, and the result.

    The step is `a`, a branch `b`; the merger takes replies as `r`, and its own handoff as `m`.
    """

    branches: int
    in_hand_max: int = 1024

    @property
    def actors(self) -> tuple[str, ...]:
        return ("a", "b", "rm")

    def works(self, floor: Floor) -> dict[str, Work]:
        arrived: dict[str, list[Delivery]] = {}
        counts: dict[str, int] = {}
        links: dict[str, int] = {}
        updating: set[str] = set()

        async def split(run: str, delivery: Delivery) -> None:
            await floor.create("outcome", run, body=delivery.data)
            for start in range(0, self.branches, _AT_ONCE):
                some = range(start, min(self.branches, start + _AT_ONCE))
                await asyncio.gather(*(floor.create("b", run, str(index), body=delivery.data) for index in some))
            await delivery.ack()

        async def branch(run: str, delivery: Delivery) -> None:
            await floor.create("r", run, delivery.subject.rpartition(".")[2], body=delivery.data)
            await delivery.ack()

        async def reply(run: str, delivery: Delivery) -> None:
            arrived.setdefault(run, []).append(delivery)
            if run in updating:
                return
            updating.add(run)
            while arrived[run]:
                some, arrived[run] = arrived[run], []
                counts[run] = counts.get(run, 0) + len(some)
                links[run] = links.get(run, 0) + 1
                await floor.create("join", run, str(links[run]), body=b"x" * 20)
                if counts[run] == self.branches:
                    await floor.create("m", run, body=b"x" * 20)
                for one in some:
                    await one.ack()
            updating.discard(run)

        async def merge(run: str, delivery: Delivery) -> None:
            await floor.create("end", run, body=delivery.data)
            await delivery.ack()

        return {"a": split, "b": branch, "r": reply, "m": merge}
