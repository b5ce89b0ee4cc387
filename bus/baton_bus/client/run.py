"""A run, as a program outside sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar, overload

import msgspec

from baton_bus.errors import RunCancelled, RunExpired, RunFailed, RunNotDone, UnexpectedOutput
from baton_schemas.flow.graph import Plan
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry, RunState
from baton_schemas.show.errors import at
from baton_schemas.wire.files import File
from baton_schemas.wire.messages import Result
from baton_schemas.wire.money import Budget
from baton_schemas.wire.outcomes import NULL, Done, Failed, Skipped
from baton_schemas.wire.words import Running, Word

from . import people
from .watching import follow_run, watch_all

if TYPE_CHECKING:
    from .client import Client

T = TypeVar("T")

_ERRORS: dict[str, type[RunNotDone]] = {"failed": RunFailed, "cancelled": RunCancelled, "expired": RunExpired}


class Run:
    """One run. `Client.start` and `Client.run` give it."""

    def __init__(self, client: Client, id: str, flow: str) -> None:
        """`flow` is `*` when it is not known."""
        self.id, self.flow = id, flow
        self._client = client

    @overload
    async def result(self, timeout_s: float | None = None, *, returns: type[T]) -> T: ...

    @overload
    async def result(self, timeout_s: float | None = None, *, returns: Any = Any) -> Any: ...

    async def result(self, timeout_s: float | None = None, *, returns: Any = Any) -> Any:
        """Wait for the end of the run and return its output, decoded, wherever it is kept.

        With `returns` it is decoded into that type: any that msgspec knows, and `File`. A run whose last step was
        skipped has nothing (null) to put out. Raises `RunFailed`, `RunCancelled`, `RunExpired`; `TimeoutError` after
        `timeout_s` seconds; `UnexpectedOutput`, `BlobMissing`, `BusUnavailable`. A run that does not exist yet is
        waited for.
        """
        # A type that cannot be decoded is told before anybody waits.
        decoder = msgspec.json.Decoder(returns, dec_hook=_file)
        result = await self.ended(timeout_s)
        if result.status == "done" and isinstance(result.outcome, Done | Skipped):
            try:
                return decoder.decode(await self.output(result.outcome))
            except msgspec.ValidationError as unfit:
                raise UnexpectedOutput(self.id, returns, str(unfit)) from unfit
        reason = result.reason
        if isinstance(result.outcome, Failed):
            error = result.outcome.error
            said = f"{error.type}: {error.message}" if not error.step else f"step {error.step!r}: {error.message}"
            reason = said + at(error.at)
        raise _ERRORS.get(result.status, RunNotDone)(self.id, reason, result)

    async def ended(self, timeout_s: float | None = None) -> Result:
        """Wait for the end of the run and return its result as the log has it. Raises `TimeoutError`, `BusUnavailable`.

        A run that does not exist yet is waited for.
        """
        waiting = self._client.results.wait(self.flow, self.id)
        if timeout_s is None:
            return await waiting
        async with asyncio.timeout(timeout_s):
            return await waiting

    async def output(self, done: Done | Skipped) -> bytes:
        """Return an output as JSON, wherever it is kept. Raises `BlobMissing`, `BusUnavailable`."""
        if isinstance(done, Skipped):
            return bytes(NULL)
        return bytes(done.output) if done.blob is None else await self._client.bus.blobs.get(done.blob)

    async def events(self) -> AsyncGenerator[Entry, None]:
        """Yield the messages of the run in their order, and then as they come, up to its result."""
        async with aclosing(follow_run(self._client.bus, self.id)) as entries:
            async for entry in entries:
                yield entry

    async def watch(self) -> AsyncGenerator[Entry | Running | Word, None]:
        """Yield the messages of the run as `events` does, and between them what its steps say while they are done.

        `Said` is a line of progress, `Wrote` a piece of a text, `Running` says that a step is being done. They are not
        stored and change nothing: what was said before is not heard, and some may be missing. Close it (`aclosing`)
        when you stop before the result.
        """
        async with aclosing(watch_all(self._client.bus, self.id)) as heard:
            async for event in heard:
                yield event

    async def state(self) -> RunState:
        """Return how the run stands. Raises `BusUnavailable`."""
        return fold(await self._client.bus.log.run(self.id))

    async def answer(
        self, step: str, value: Any, *, who: str = "", note: str = "", role: str = "", wait_s: float = people.WAIT_S
    ) -> bool:
        """Answer a question that this run asks people: of the step that asked, or by the question's own name.

        `who` answers and `note` are kept with it. It is durable once it is published; True when it was taken, False if
        nobody took it within `wait_s` seconds: a worker does once one is up, and may reject it then. Raises
        `AnswerRefused` for what is no answer to the one open question that is meant, or came too late; `BadContent` for
        what is no JSON, and the errors of `Publisher.create`.
        """
        return await people.answer(
            self._client.engine, self.id, step, value, who=who, note=note, role=role, wait_s=wait_s
        )

    async def say(
        self, event: str, value: Any = None, *, who: str = "", note: str = "", wait_s: float = people.WAIT_S
    ) -> bool:
        """Tell this run of an event, for the first of its steps that waits for one of this name, now or later.

        True when one has got it; False when none waits, or no worker took it within `wait_s` seconds: it is kept.
        Raises `UnknownRun`, `AnswerRefused` when the run has ended, and as `answer`.
        """
        return await people.say(self._client.engine, self.id, event, value, who=who, note=note, wait_s=wait_s)

    async def allow(self, budget: Budget | float, *, wait_s: float = people.WAIT_S) -> bool:
        """Allow this run to spend so much in all, from now on: a number is in USD. What is parked for it goes on.

        It is durable once it is published; True when it was taken, False if nobody took it within `wait_s` seconds: a
        worker does once one is up. Raises `FlowError` for a budget that allows nothing, `UnknownRun`, `AnswerRefused`
        when the run has ended, and the errors of `Publisher.create`.
        """
        return await people.allow(self._client.engine, self.id, budget, wait_s=wait_s)

    async def cancel(self, reason: str = "cancelled by a client") -> Result:
        """End the run if it has not ended; return the result that it then has, this one or an earlier one.

        Raises `UnknownRun` and the errors of `Publisher.create`.
        """
        entry, first = await self._client.engine.runs.first(self.id)
        return await self._client.engine.runs.stop(first, entry.seq, "cancelled", reason)

    async def fork(
        self,
        *,
        plan: Plan | None = None,
        until_seq: int = 0,
        failed: bool = False,
        run_id: str = "",
        budget: Budget | float | None = None,
    ) -> Run:
        """Start a run that goes on from this one, with the steps that it had finished.

        Steps whose failure ended this run are done again; with `failed`, those whose failure did not (`on_error =
        "continue"`) are too. With a `plan` it goes on under that version of the flow: a step that it changes is done
        again, with all that comes after it. With `until_seq` only what was recorded up to that stream sequence counts
        as finished. It has a budget of its own: `budget`, or as this run had one. Raises `UnknownRun`, `InputError`
        when that flow does not take this run's input, and as `Client.start`.
        """
        return await self._client.fork(
            self.id, plan=plan, until_seq=until_seq, failed=failed, run_id=run_id, budget=budget
        )


def _file(kind: type, value: Any) -> Any:
    """Turn plain data into a file: the hook of the decoder. Raises `TypeError`, `ValueError`."""
    if kind is File:
        return File.model_validate(value)
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")
