"""The bus: one connection, and all that a client or a worker does over it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from msgspec import Raw
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from baton_schemas.codec import decode, encode
from baton_schemas.errors import BadMessage, InputError
from baton_schemas.inputs import NotAList, check_input, encode_input, items_of
from baton_schemas.messages import VERSION, Handoff, Note, Reply, Result, State
from baton_schemas.names import check_token, sortable_id
from baton_schemas.plan import Plan
from baton_schemas.routing import Lists, Routed, spreads, start
from baton_schemas.state import Entry

from . import connection, topology
from .blobs import Blobs
from .deliveries import Delivery, Puller
from .errors import BusUnavailable, RunExists, UnknownRun
from .log import Log
from .publisher import Publisher
from .requests import Requests
from .settings import Settings
from .subjects import Subjects


class Bus:
    """Use `connect` to open one. Safe for one event loop."""

    def __init__(self, nc: Client, js: JetStreamContext, requests: Requests, settings: Settings) -> None:
        self.nc, self.js, self.settings = nc, js, settings
        self.subjects = Subjects(settings.namespace)
        self.publisher = Publisher(nc, requests, settings.namespace)
        self.log = Log(js, requests, settings, self.subjects)
        self.blobs = Blobs(js, settings)
        self.clock_ahead_s = 0.0
        """How far the broker's clock is ahead of ours, in seconds."""
        self._requests = requests
        self._pullers: set[Puller] = set()

    # ---- for clients -------------------------------------------------------------------------------

    async def submit(self, plan: Plan, given: Mapping[str, Any], *, run: str = "") -> str:
        """Start a run and return its id; it is durable once this returns.

        Submitting twice with the same `run` starts one run. Raises `InputError`, `BadToken`, `RunExists`
        (the id belongs to a run of another flow or input), and the errors of `Publisher.create`.
        """
        run = check_token("run id", run) if run else sortable_id()
        first = await self.first_handoff(plan, encode_input(given), run)
        await self.submit_handoff(first)
        return run

    async def first_handoff(self, plan: Plan, given: Mapping[str, Raw], run: str) -> Routed:
        """Return the handoff that starts a run, with large inputs in the object store. Raises `InputError`."""
        checked = check_input(plan.flow, given)
        lists: dict[str, list[Raw]] = {}
        for step, each in spreads(plan, None).items():
            try:
                lists[step] = items_of(each, checked[each.split(".")[0]])
            except NotAList as error:
                raise InputError(plan.flow.name, each, str(error)) from error
            if len(lists[step]) > self.settings.branches_max:
                limit = self.settings.branches_max
                raise InputError(
                    plan.flow.name, each, f"{len(lists[step])} items; at most {limit} (BATON_BRANCHES_MAX)"
                )
        state = await self.offload(State(input=checked))
        return start(plan, run, state, lists)[0]

    async def submit_handoff(self, first: Routed) -> None:
        """Write the handoff that starts a run. Raises `RunExists` and the errors of `Publisher.create`."""
        subject = self.subjects.of(first.actor, first.message)
        body = encode(first.message)
        stored = await self.publisher.create(subject, body, patience_s=self.settings.patience_s)
        if stored is None:
            there = await self.log.last(subject)
            if there is None or there.data != body:
                raise RunExists(first.message.run)

    async def result(self, run: str, *, flow: str = "*", timeout_s: float | None = None) -> Result:
        """Wait for the result of a run and return it; naming its `flow` makes it cheaper.

        Raises `TimeoutError` after `timeout_s` seconds. A run that does not exist yet is waited for.
        """
        subject = self.subjects.result(flow, run)
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def on_result(msg: Msg) -> None:
            heard.put_nowait(msg.data)

        subscription = await self.nc.subscribe(subject, cb=on_result)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    message = await self._stored_result(subject)
                    if message is not None:
                        return message
                    with contextlib.suppress(TimeoutError, BadMessage):
                        async with asyncio.timeout(_LOOK_AGAIN_S):
                            message = decode(await heard.get(), subject)  # type: ignore[assignment]
                        if isinstance(message, Result):
                            return message
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def watch(self, run: str, *, start_seq: int = 0) -> AsyncIterator[Entry]:
        """Yield the messages of a run in their order, and then as they come, up to its result."""
        async for entry in self.log.follow([self.subjects.run(run)], start_seq):
            yield entry
            if isinstance(entry.message, Result):
                return

    async def cancel(self, run: str, reason: str = "cancelled by a client") -> Result:
        """End a run that has not ended; return the result that it then has, ours or an earlier one.

        Raises `UnknownRun` and the errors of `Publisher.create`.
        """
        entries = await self.log.run(run)
        first = next((entry for entry in entries if isinstance(entry.message, Handoff)), None)
        if first is None or not isinstance(first.message, Handoff):
            raise UnknownRun(run)
        handoff = first.message
        result = Result(
            v=VERSION,
            flow=handoff.flow,
            digest=handoff.digest,
            run=run,
            status="cancelled",
            reason=reason,
            start_seq=handoff.start_seq or first.seq,
        )
        subject = self.subjects.of("", result)
        stored = await self.publisher.create(subject, encode(result), patience_s=self.settings.patience_s)
        if stored is not None:
            await self.announce_end(run)
            return result
        return await self._stored_result(subject) or result

    # ---- for workers -------------------------------------------------------------------------------

    async def announce_end(self, run: str) -> None:
        """Tell every worker that a run has ended, so that its handlers are cancelled. Not stored."""
        await self.nc.publish(self.subjects.live(run, "end"))

    @contextlib.asynccontextmanager
    async def hearing_ends(self, heard: Callable[[str], None]) -> AsyncIterator[None]:
        """Call `heard` with the id of each run whose end is announced, while the context is open."""

        async def on_end(msg: Msg) -> None:
            heard(self.subjects.run_of_live(msg.subject))

        subscription = await self.nc.subscribe(self.subjects.live("*", "end"), cb=on_end)
        try:
            yield
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def replies(self, merger: str, handoff: Handoff, branches: list[str]) -> list[Reply]:
        """Return the replies to a join: those of these branches, or all that there are."""
        subjects = [self.subjects.reply(merger, handoff.run, handoff.step, name) for name in branches or ["*"]]
        entries = await self.log.matching(subjects, handoff.start_seq)
        return [entry.message for entry in entries if isinstance(entry.message, Reply)]

    async def note(self, actor: str, note: Note) -> None:
        """Write a note on a step. Raises the errors of `Publisher.append`."""
        subject = self.subjects.note(actor, note.run, note.step, sortable_id())
        await self.publisher.append(subject, encode(note))

    async def notes(self, actor: str, run: str, step: str) -> list[Note]:
        """Return the notes on a step, in their order."""
        entries = await self.log.matching([self.subjects.note(actor, run, step, "*")])
        return [entry.message for entry in entries if isinstance(entry.message, Note)]

    async def say_running(self, run: str, step: str, attempt: int) -> None:
        """Tell whoever watches that a step is being done. Not stored."""
        await self.nc.publish(self.subjects.live(run, "running", step), b'{"attempt":%d}' % attempt)

    async def offload(self, state: State) -> State:
        """Return the state with values over the inline limit in the object store."""
        limit = self.settings.inline_limit_bytes
        values = {**state.input, **state.outputs}
        total = sum(len(bytes(value)) for value in values.values()) if values else 0
        if total <= limit:
            return state
        moved: dict[str, Any] = dict(state.blobs)
        for name, value in sorted(values.items(), key=lambda item: -len(bytes(item[1]))):
            size = len(bytes(value))
            if size <= limit and total <= 2 * limit:
                break
            moved[name] = await self.blobs.put(bytes(value))
            total -= size
        return State(
            input={name: value for name, value in state.input.items() if name not in moved},
            outputs={name: value for name, value in state.outputs.items() if name not in moved},
            blobs=moved,
            errors=state.errors,
        )

    @contextlib.asynccontextmanager
    async def pulling(
        self,
        consumer: str,
        filter_subject: str,
        in_hand_max: int,
        on_delivery: Callable[[Delivery], None],
        *,
        max_ack_pending: int,
    ) -> AsyncIterator[Puller]:
        """Take deliveries of a durable consumer, made if it is missing, while the context is open."""

        async def make() -> None:
            await topology.ensure_stream(self.js, self.settings, self.subjects)
            await topology.ensure_consumer(self.js, self.settings, consumer, filter_subject, max_ack_pending)

        await make()
        puller = Puller(
            self.nc,
            self.settings.namespace,
            consumer,
            in_hand_max,
            on_delivery,
            lease_s=self.settings.lease_s,
            on_gone=make,
        )
        self._pullers.add(puller)
        try:
            async with puller.pulling():
                yield puller
        finally:
            self._pullers.discard(puller)

    def now_s(self) -> float:
        """Return the time by the broker's clock, in seconds of Unix time."""
        return time.time() + self.clock_ahead_s

    # ---- inside ------------------------------------------------------------------------------------

    def on_lost(self) -> None:
        """The connection is gone: nothing that was asked will be answered."""
        self._requests.connected.clear()
        self._requests.lost()

    def on_back(self) -> None:
        """The connection is mended: ask for work again."""
        self._requests.connected.set()
        for puller in self._pullers:
            puller.reconnected()

    async def _stored_result(self, subject: str) -> Result | None:
        if "*" in subject:
            entry = next(iter(await self.log.matching([subject])), None)
        else:
            entry = await self.log.last(subject)
        return entry.message if entry is not None and isinstance(entry.message, Result) else None


_LOOK_AGAIN_S = 5.0
"""While a result is waited for, the log is read again this often: a subscription may miss a reconnect."""


@contextlib.asynccontextmanager
async def connect(settings: Settings | None = None, *, name: str = "") -> AsyncIterator[Bus]:
    """Open the bus: connect, check the server, make the stream if it is missing.

    Without settings they come from the environment. Raises `NoServer`, `ServerTooOld`, `JetStreamOff`,
    `StreamMismatch`.
    """
    settings = settings or Settings.from_environ()
    bus: Bus | None = None

    def on_lost() -> None:
        if bus is not None:
            bus.on_lost()

    def on_back() -> None:
        if bus is not None:
            bus.on_back()

    name = name or f"baton client {os.getpid()}"
    async with connection.opened(settings, name=name, on_lost=on_lost, on_back=on_back) as nc:
        requests = Requests(nc, settings.request_timeout_s)
        async with requests.opened():
            bus = Bus(nc, nc.jetstream(timeout=settings.request_timeout_s), requests, settings)
            await topology.ensure_stream(bus.js, settings, bus.subjects)
            yield bus


__all__ = ["Bus", "BusUnavailable", "Lists", "connect"]
