"""The calls of a handler's own client: each is answered from the record, or made, recorded, and then let out.

What is recorded are whole answers to `POST …/v1/messages`: a message, or a stream that came to its `message_stop`. All
else goes through as it is: errors are for the SDK, which tries again as its client was told to. Only where the provider
asks to wait (429, 529, overloaded) it is waited for here, in turn with the actor's other calls, before the SDK hears of
it; the attempt's clock stands still meanwhile.

A call goes from `Exchanges.send` to `call.py`, which makes it and passes its answer on (`bodies.py`), and to
`records.py`, which has the answer recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Self

from baton_actors.models.arriving import Arriving
from baton_actors.models.call import Call
from baton_actors.models.errors import ModelError
from baton_actors.models.heard import played
from baton_actors.models.providers import Where
from baton_actors.models.records import Records
from baton_actors.models.sent import Clock, ExchangeLog, NoClock, Sent, Stopped, model_named, object_of, question_of
from baton_schemas.wire.facts import Exchange

if TYPE_CHECKING:
    from baton_actors.models.client import Models
    from baton_actors.models.sdk import Pool

_LARGE_BYTES = 256 * 1024
"""A request from here on is hashed in a thread, as leases must be kept meanwhile."""


class Exchanges:
    """The exchanges of one attempt of one handler, in one event loop. Use it with `async with`."""

    def __init__(
        self,
        models: Models,
        log: ExchangeLog,
        attempt: int,
        busy: Callable[[], AbstractContextManager[None]] = nullcontext,
        *,
        flow: str = "",
    ) -> None:
        """`busy` gives what is open while a call is made; `flow` is that whose providers may be named."""
        self._models, self._log, self._busy, self._flow = models, log, busy, flow
        self.clock: Clock = NoClock()
        """That of the attempt, once it has begun."""
        self._records = Records(models, log, attempt)
        self._open: set[Arriving] = set()
        self._numbers: dict[str, _Numbers] = {}
        """By digest: how often the same is asked already."""
        self._stopped_by: BaseException | None = None

    @property
    def used(self) -> list[Exchange]:
        """What was answered, from the record or anew, without the bodies."""
        return self._records.used

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """End what is open. What was being recorded is, unless that takes long."""
        self._stopped_by = self._stopped_by or Stopped()
        await asyncio.gather(*(arriving.close(at_once=True) for arriving in self._open))
        await self._records.finish()

    def check(self) -> None:
        """Raise what the handler was stopped for, whatever it made of that: an error of the log's, or `Overtaken`."""
        if self._stopped_by is not None:
            raise self._stopped_by

    async def send(self, sent: Sent) -> Arriving:
        """Return the answer to a call, recorded or made, once it begins to come. Raises what making it raised, and
        `Stopped`.
        """
        if self._stopped_by is not None:
            raise Stopped
        if len(sent.body) > _LARGE_BYTES:
            asked = await asyncio.to_thread(question_of, sent, self._where)
        else:
            asked = question_of(sent, self._where)
        numbers = self._numbers.setdefault(asked.digest, _Numbers())
        number = numbers.take()
        try:
            with self.clock.stopped():
                known = await self._log.recalled(asked.digest, number)
        except BaseException as error:
            numbers.give_back(number)
            if isinstance(error, Exception):
                raise self._stop(error) from error
            raise
        if known is not None:
            sent.on_recalled()
            return self._recalled(known)
        call = Call(sent, asked, number, self._models, self._records, self.clock)
        arriving = call.arriving
        self._open.add(arriving)
        arriving.task = asyncio.create_task(self._make(call), name="model call")
        try:
            await arriving.begun()
        except BaseException:
            await arriving.close()
            raise
        return arriving

    def where_of(self, body: bytes) -> Where:
        """Return where a request with this body goes: by the model that it names."""
        return self._where(model_named(object_of(body)))

    async def pool(self) -> Pool:
        """Return the connections that calls are made over."""
        return await self._models.pool()

    def _where(self, model: str) -> Where:
        return self._models.where(self._flow, model)

    def _recalled(self, known: Exchange) -> Arriving:
        """Return a recorded answer, all of it there."""
        self._records.use(known)
        arriving = Arriving()
        arriving.begin(known.status, known.headers)
        arriving.put(played(bytes(known.body), streamed=known.streamed))
        arriving.end()
        return arriving

    async def _make(self, call: Call) -> None:
        """Make a call when the actor may, as often as the provider asks to wait; pass on what came of it."""
        arriving = call.arriving
        try:
            with self.clock.stopped(), self._busy():
                await self._log.in_turn(call.once, await self._models.priced(call.asked.bound, call.asked.where))
            arriving.end()
        except ModelError as error:  # the provider asks to wait, and the patience has run out
            if error.usage is not None:
                self._log.spent(error)
            call.pass_refusal_on()
        except Exception as error:  # of the log, or `Overtaken`
            arriving.fail(self._stop(error))
        except BaseException:
            arriving.fail(Stopped())
            raise
        finally:
            self._open.discard(arriving)
            if not call.is_recorded:  # what failed does not count
                self._numbers[call.asked.digest].give_back(call.number)

    def _stop(self, error: BaseException) -> Stopped:
        """Have the handler end; `check` says why."""
        self._stopped_by = self._stopped_by or error
        return Stopped()


class _Numbers:
    """Gives out the lowest numbers that nobody has."""

    def __init__(self) -> None:
        self._next, self._free = 0, list[int]()

    def take(self) -> int:
        if self._free:
            return heappop(self._free)
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        heappush(self._free, number)
