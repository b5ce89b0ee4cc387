"""What a client does: submit runs, wait for their results, watch, cancel and fork them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from msgspec import Raw
from msgspec.structs import replace
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from baton_bus.errors import RunExists, UnknownRun
from baton_bus.jetstream.publisher import Publisher
from baton_bus.jetstream.requests import Requests
from baton_bus.settings import Settings
from baton_bus.store.blobs import Blobs
from baton_bus.store.log import Log
from baton_bus.store.timers import Timers
from baton_bus.subjects import Subjects
from baton_schemas.errors import InputError
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import NotAList, check_input, encode_input, items_of
from baton_schemas.flow.limits import DEADLINE_MAX_S
from baton_schemas.run.fork import forked_start
from baton_schemas.run.lifecycle import Routed, spreads, start
from baton_schemas.run.state import Entry
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import VERSION, Blob, Handoff, Result, State
from baton_schemas.wire.names import check_token, sortable_id

_LOOK_FIRST_S = 0.02
"""A result may be heard before we listen and stored after we looked: so the log is read again this soon."""
_LOOK_AGAIN_S = 5.0
"""While a result is waited for, the log is read again this often: a subscription may miss a reconnect."""
_STORED_SOON_S = 0.001
"""After a result is heard the log is read again this soon, and then at twice the interval each time."""


class Client:
    """The client's half of a `Bus`: `connect` opens one."""

    def __init__(self, nc: NatsClient, js: JetStreamContext, requests: Requests, settings: Settings) -> None:
        self.nc, self.js, self.settings = nc, js, settings
        self.subjects = Subjects(settings.namespace)
        self.publisher = Publisher(nc, requests, settings.namespace)
        self.log = Log(js, requests, settings, self.subjects)
        self.blobs = Blobs(js, settings)
        self.timers = Timers(js, requests, settings, self.subjects)
        self._requests = requests

    async def submit(
        self, plan: Plan, given: Mapping[str, Any], *, run: str = "", deadline_s: float | None = None
    ) -> str:
        """Start a run and return its id; it is durable once this returns.

        Submitting twice with the same `run` starts one run. With `deadline_s` (seconds; the flow's unless
        given) it ends as `expired` if it has not ended by then.

        Raises `InputError`, `BadToken`, `RunExists` (the id belongs to a run of another flow or input), and
        the errors of `Publisher.create`.
        """
        if run:
            await self.check_unused(check_token("run id", run), plan)
        run = run or sortable_id()
        first = await self.first_handoff(plan, encode_input(given), run, deadline_s)
        await self.submit_handoff(first)
        return run

    async def check_unused(self, run: str, plan: Plan) -> None:
        """Raise `RunExists` when the id belongs to a run of another flow.

        The first messages of two flows have different subjects, so that the create-only publish, which tells two
        submits of one flow apart, cannot tell these. Two such submits at the very same time may still both pass.
        """
        for entry in await self.log.matching([self.subjects.run(run, kind="handoff")]):
            if isinstance(entry.message, Handoff) and entry.message.flow != plan.flow.name:
                raise RunExists(run)

    async def first_handoff(
        self, plan: Plan, given: Mapping[str, Raw], run: str, deadline_s: float | None = None
    ) -> Routed:
        """Return the handoff that starts a run, with large inputs in the object store. Raises `InputError`."""
        if deadline_s is not None and not 0 < deadline_s <= DEADLINE_MAX_S:
            reason = f"{deadline_s:g} s; expected more than 0 and at most {DEADLINE_MAX_S:.0f} (a year)"
            raise InputError(plan.flow.name, "deadline_s", reason)
        checked = check_input(plan.flow, given)
        lists: dict[str, list[Raw | Blob]] = {}
        for step, each in spreads(plan, None).items():
            try:
                lists[step] = [*items_of(each, checked[each.split(".")[0]])]
            except NotAList as error:
                raise InputError(plan.flow.name, each, str(error)) from error
            if len(lists[step]) > self.settings.branches_max:
                limit = self.settings.branches_max
                raise InputError(
                    plan.flow.name, each, f"{len(lists[step])} items; at most {limit} (BATON_BRANCHES_MAX)"
                )
            for item in lists[step][:1]:  # the only one that the first handoff carries
                if isinstance(item, Raw) and len(bytes(item)) > self.settings.inline_limit_bytes:
                    lists[step][0] = await self.blobs.put(bytes(item))
        state = await self.offload(State(input=checked))
        actor, first = start(plan, run, state, lists)[0]
        assert isinstance(first, Handoff)
        return Routed(actor, replace(first, deadline_s=deadline_s or plan.flow.deadline_s or 0.0))

    async def submit_handoff(self, first: Routed) -> None:
        """Write the handoff that starts a run. Raises `RunExists` and the errors of `Publisher.create`."""
        subject = self.subjects.of(first.actor, first.message)
        body = encode(first.message)
        stored = await self.publisher.create(subject, body, patience_s=self.settings.patience_s)
        if stored is None and (await self.log.taken(subject)).data != body:
            raise RunExists(first.message.run)

    async def result(self, run: str, *, flow: str = "*", timeout_s: float | None = None) -> Result:
        """Wait for the result of a run and return it; naming its `flow` makes it cheaper.

        Raises `TimeoutError` after `timeout_s` seconds. A run that does not exist yet is waited for.
        """
        subject = self.subjects.result(flow, run)
        heard = asyncio.Event()

        async def on_result(_: Msg) -> None:
            heard.set()

        subscription = await self.nc.subscribe(subject, cb=on_result)
        look_again_s = _LOOK_FIRST_S
        try:
            async with asyncio.timeout(timeout_s):
                # What is heard may not be stored yet, or never be: another was first, or the log is full.
                while (stored := await self._stored_result(subject)) is None:
                    try:
                        async with asyncio.timeout(look_again_s):
                            await heard.wait()
                        heard.clear()
                        look_again_s = _STORED_SOON_S
                    except TimeoutError:
                        look_again_s = min(2 * look_again_s, _LOOK_AGAIN_S)
                return stored
        finally:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def watch(self, run: str, *, start_seq: int = 0) -> AsyncGenerator[Entry, None]:
        """Yield the messages of a run in their order, and then as they come, up to its result."""
        async for entry in self.log.follow([self.subjects.run(run)], start_seq):
            yield entry
            if isinstance(entry.message, Result):
                return

    async def cancel(self, run: str, reason: str = "cancelled by a client") -> Result:
        """End a run that has not ended; return the result that it then has, ours or an earlier one.

        Raises `UnknownRun` and the errors of `Publisher.create`.
        """
        entry, handoff = await self._first(run)
        result = Result(
            v=VERSION,
            flow=handoff.flow,
            digest=handoff.digest,
            run=run,
            status="cancelled",
            reason=reason,
            start_seq=entry.seq,
        )
        subject = self.subjects.of("", result)
        stored = await self.publisher.create(subject, encode(result), patience_s=self.settings.patience_s)
        await self.announce_end(run)  # also if it is taken: that may have been an earlier try of ours
        return result if stored is not None else await self._stored_result(subject) or result

    async def fork(self, run: str, *, until_seq: int = 0, new_run: str = "") -> str:
        """Start a run that goes on from another, with the steps that it had finished; return its id.

        Steps whose failure ended the other run are done again. With `until_seq` only what was recorded up to
        that stream sequence counts as finished. Raises `UnknownRun` and as `submit`.
        """
        new_run = check_token("run id", new_run) if new_run else sortable_id()
        entry, first = await self._first(run)
        actor = self.subjects.split(entry.subject).who
        await self.submit_handoff(Routed(actor, forked_start(first, new_run, until_seq)))
        return new_run

    async def announce_end(self, run: str) -> None:
        """Tell every worker that a run has ended, so that its handlers are cancelled. Not stored."""
        await self.nc.publish(self.subjects.live(run, "end"))

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

    async def _first(self, run: str) -> tuple[Entry, Handoff]:
        """Return the first handoff of a run. Raises `UnknownRun`."""
        for entry in await self.log.matching([self.subjects.run(run, kind="handoff")]):
            if isinstance(entry.message, Handoff) and not entry.message.start_seq:
                return entry, entry.message
        raise UnknownRun(run)

    async def _stored_result(self, subject: str) -> Result | None:
        if "*" in subject:
            entry = next(iter(await self.log.matching([subject])), None)
        else:
            entry = await self.log.last(subject)
        return entry.message if entry is not None and isinstance(entry.message, Result) else None
