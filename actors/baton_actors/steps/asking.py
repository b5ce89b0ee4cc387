"""What one step asks for while it is done: children that are found again, waiting that holds no place, and parking."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Raw
from msgspec.structs import replace

from baton_actors.agents.asks import AskFailed, AskRefused
from baton_actors.agents.clock import Clock
from baton_actors.agents.questions import as_value
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_bus.errors import BlobMissing, BusError, PayloadTooLarge, RunExists
from baton_schemas.errors import BadContent, InputError, NewerMessage, nearest
from baton_schemas.flow.inputs import check_fields
from baton_schemas.flow.limits import DEADLINE_MAX_S
from baton_schemas.flow.nested import input_of
from baton_schemas.run.asking import by_itself, child_handoff, child_of, who_is_asked
from baton_schemas.run.child_runs import parent_in
from baton_schemas.run.refs import asked_name, key_of_child, parse
from baton_schemas.wire.codec import encode
from baton_schemas.wire.facts import Recorded, Unasked
from baton_schemas.wire.messages import NO_DEFAULT, Answer, Asked, AskedKind, Handoff, Note, Parked, Question
from baton_schemas.wire.outcomes import NULL, Blob, Done, Failed, State
from baton_schemas.wire.values import encode_value

from .claim import Claim
from .hearing import Answers
from .job import Job
from .memory import NotRecorded

T = TypeVar("T")
Begin = Callable[[Handoff], Awaitable[None]]

_AGAIN_S = 2.0
_PARK_AGAIN_S = 5.0
"""A step that cannot be parked now, as it records something or the bus refuses, is so after this many seconds."""
_FROM_OUTSIDE = frozenset({"person", "event"})
_PATIENCE: tuple[AskedKind, ...] = ("agent", "flow", "sleep", "event", "person")
"""Who is likely to have answered before whom."""
_PARKED_UPON_MAX = 20
"""People, events and sleeps any of which brings a step back: more than anybody asks to hear the first of."""
_LATER_S = 2.0
"""From when a run that was asked for is to expire to when it is not waited for any more: for its end to be told."""
STRAYS_MAX = 3
"""A step that asks for something new so often in a row, and not for what it asked before, would do so for ever."""
_NAMED_MAX = 20
"""Children that are named in a note on those that a step does not ask for any more."""

logger = structlog.get_logger("baton.worker")


class StepAsks:
    """The asking of one step, in one worker's hands, from its handler's beginning to its end."""

    def __init__(
        self, engine: Engine, answers: Answers, job: Job, work: Claim, journal: Journal, notes: Sequence[Note] | None
    ) -> None:
        """`notes` are those on the step; None when it is done for the first time, and nothing can have been asked."""
        self._engine, self._answers, self._journal = engine, answers, journal
        self._job, self._work = job, work
        self._actor = work.plan.actor(work.handoff.step)
        self._agent = work.plan.agent(work.handoff.step)
        self._notes, self._again = notes, notes is not None
        self._before: dict[str, Answer] = {}
        """What was answered when this step was done before."""
        self._read: asyncio.Task[None] | None = None
        self._asked: dict[str, bool] = {}
        """Children that were asked for this time, and whether nobody had before."""
        self._kinds: dict[str, AskedKind] = {}
        self._alike: Counter[tuple[str, ...]] = Counter()
        self._waiting: dict[str, asyncio.Future[Answer]] = {}
        self._is_held = False
        """Whether it waits, and is counted among those that this process holds."""
        self._sleeping: dict[str, Handoff] = {}
        """By child: what answers by itself here, and needs a timer when the step is parked upon it."""
        self._naps: dict[str, asyncio.TimerHandle] = {}
        self._clock: Clock | None = None
        self._in_thread = False
        self._park_alarm: Callable[[], None] | None = None
        self._parking: asyncio.Task[None] | None = None
        self._back: asyncio.Future[None] | None = None
        self._recording = 0
        """What is under way in it, and is not to be done again."""
        self._count = 0
        """Children that it asked for, those included that are being asked for."""
        self._closed = False

    # ---- as agents see it --------------------------------------------------------------------------

    def told(self, clock: Clock, *, in_thread: bool = False) -> None:
        """Take the clock of the step, which stands still while it waits, and whether a thread does the waiting."""
        self._clock, self._in_thread = clock, in_thread
        if in_thread:
            self._job.let_go = self.close

    def knows(self, notes: Sequence[Note]) -> None:
        """Take the notes on the step as they are now: others may have recorded something while it waited."""
        self._notes, self._again = notes, True

    async def ask(self, agent: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Ask an agent and return its output. Raises `AskFailed`, `AskRefused`, `NotRecorded`."""
        self._check_worker(agent)
        if self._work.plan.nested_of(agent) is not None:
            return await self._run(agent, arguments, deadline_s)
        values = self._fitting(agent, arguments)
        return await self.child("agent", agent, values, State(input=values), deadline_s=deadline_s)

    async def run(self, flow: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Have a flow run and return its output. Raises as `ask`."""
        return await self._run(self._agent_of_flow(flow), arguments, deadline_s)

    async def sleep(self, seconds: float) -> None:
        """Return so many seconds after it was called first. Raises `AskRefused`, `NotRecorded`."""
        seconds = _seconds("sleep", seconds, least=0.0)
        await self.child("sleep", "sleep", seconds, State(), deadline_s=seconds)

    async def person(
        self, role: str, question: Question, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT
    ) -> Raw:
        """Ask a person, with nobody waiting here. Raises `AskFailed`, `AskRefused`, `NotRecorded`."""
        cause = Asked(step="", question=question, default=default)
        return await self.child("person", role, as_value(question), State(), deadline_s=deadline_s, cause=cause)

    async def event(self, name: str, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT) -> Raw:
        """Wait for an event. Raises as `person`."""
        cause = Asked(step="", default=default)
        return await self.child("event", name, None, State(), deadline_s=deadline_s, cause=cause)

    async def record(self, name: str, make: Callable[[], Awaitable[Any]]) -> Raw:
        """Return what `make` gave when it was first called under this name.

        Raises `AskRefused`, `NotRecorded`, and what it raises.
        """
        if not isinstance(name, str) or not name:
            raise AskRefused(f"record: the name is {name!r}; expected a text that says what is recorded")
        self._alike["record", name] += 1
        number = self._alike["record", name]
        for note in self._notes or ():
            if isinstance(note.fact, Recorded) and (note.fact.name, note.fact.number) == (name, number):
                return await self._recorded(note.fact)
        with self.busy():
            value = await make()
            try:
                data = encode_value(value, name)
            except BadContent as error:
                raise AskRefused(f"record {name!r}: what it gave cannot be recorded: {error}") from error
            stored = await sure(lambda: self._engine.values.stored(data))
            fact = Recorded(
                name=name,
                number=number,
                value=NULL if isinstance(stored, Blob) else stored,
                blob=stored if isinstance(stored, Blob) else None,
            )
            written = await sure(lambda: self._journal.write(fact))
            return await self._recorded(written) if isinstance(written, Recorded) else Raw(data)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Do not park the step while the context is open: what is under way in it would be done again."""
        self._recording += 1
        try:
            yield
        finally:
            self._recording -= 1

    def close(self) -> None:
        """The step is done with: whoever still waits is let go."""
        self._closed = True
        self._answers.forget(self._job.run, self._job.step, self._heard)
        self._park_no_more()
        if self._parking is not None:
            self._parking.cancel()
        for waiting in self._waiting.values():
            waiting.cancel()
        for nap in self._naps.values():
            nap.cancel()
        if self._is_held:
            self._waits_no_more()
        if self._clock is not None and self._in_thread:  # what it still does, it is to do in its time
            self._clock.go_on()

    # ---- children ----------------------------------------------------------------------------------

    async def child(
        self,
        kind: AskedKind,
        name: str,
        asked: object,
        state: State,
        *,
        deadline_s: float | None = None,
        cause: Asked | None = None,
        begin: Begin | None = None,
    ) -> Raw:
        """Ask for a child, unless it was asked for before, and return its output once it has answered.

        `asked` is what makes it what it is, besides kind and name; `cause` says more of it. `begin` is called with its
        handoff, which is stored, and does what is to be done for it, again if need be. Raises `AskFailed`,
        `AskRefused`, `NotRecorded`.
        """
        if deadline_s is not None and kind != "sleep":
            deadline_s = _seconds("deadline_s", deadline_s, least=0.001)
        what = (kind, name, msgspec.json.encode(asked, order="sorted").decode())
        self._alike[what] += 1
        self._job.asks_outside = self._job.asks_outside or kind in _FROM_OUTSIDE
        token = child_of(self._job.step, kind, name, asked, self._alike[what])
        if self._again:
            await self._remember()
        self._check_more(name)
        if token in self._before:
            self._asked[token] = False
            answer = self._before[token]
        else:
            answer = await self._ask_for(token, kind, state, deadline_s, cause or Asked(step=""), what, begin)
        match answer.outcome:
            case Done():
                return await sure(lambda: self._engine.asking.value(answer))
            case Failed(error=error):
                raise AskFailed(name, error)
            case _:
                return NULL

    async def _ask_for(
        self,
        token: str,
        kind: AskedKind,
        state: State,
        deadline_s: float | None,
        more: Asked,
        what: tuple[str, ...],
        begin: Begin | None,
    ) -> Answer:
        engine, work = self._engine, self._work
        if self._closed:
            raise asyncio.CancelledError
        cause = replace(
            more,
            step=self._job.step,
            actor=self._actor if kind in _FROM_OUTSIDE else "",
            kind=kind,
            number=self._alike[what],
            depth=work.depth + 1,
            due_s=engine.bus.now_s() + deadline_s if deadline_s is not None else 0.0,
        )
        handoff = child_handoff(work.handoff, work.start_seq, token, cause, state)
        await sure(lambda: self._answers.begin(self._job.delivery.seq))
        self._kinds[token] = kind
        waiting = self._waits_for(token)
        try:
            async with self._answers.places:
                there = await sure(lambda: engine.asking.ask(who_is_asked(work.plan, handoff), handoff))
                if begin is not None:  # before anybody may park the step upon it
                    await begin(handoff)
            handoff = replace(handoff, cause=there or cause)
            if there is not None and not waiting.done():
                # It was asked by a worker that is gone, or by one that still goes on: its answer may be older than we.
                await self._look(token)
            if kind == "event" and not waiting.done():
                await self._hear(token, handoff)
            if cause.due_s and not waiting.done():
                await sure(lambda: self._until_due(token, handoff))
            # From here on it may be parked: what answers by itself when its time is up will do so with nobody here.
            self._asked[token] = there is None
            if kind == "person":
                self._park_soon()
            answer = await waiting
            if cause.due_s and kind != "sleep":  # its timer would come for nothing
                self._answers.in_background(engine.bus.timers.cancel(self._actor, self._job.run, token))
            return answer
        finally:
            await self._done_waiting(token)

    # ---- runs --------------------------------------------------------------------------------------

    async def _run(self, agent: str, arguments: Mapping[str, Any], deadline_s: float | None) -> Raw:
        """Ask for a run of the flow that an agent is. Raises as `ask`."""
        plan, values = self._work.plan.nested_of(agent), self._fitting(agent, arguments)
        assert plan is not None
        if deadline_s is not None:
            deadline_s = _seconds("deadline_s", deadline_s, least=0.001)

        async def begin(child: Handoff) -> None:
            parent = parent_in(child, self._actor, self._work.start_seq)

            async def start() -> bool:
                try:
                    return await self._engine.nesting.begin(plan, values, parent, deadline_s)
                except (InputError, RunExists) as error:
                    raise AskRefused(str(error)) from error

            if not await sure(start):  # our own run has ended
                self._job.cancel("run ended")

        # The run expires by itself, and says so. That the step goes on is not left to those who do the run.
        waits_s = None if deadline_s is None else min(deadline_s + _LATER_S, DEADLINE_MAX_S)
        return await self.child("flow", agent, values, State(input=values), deadline_s=waits_s, begin=begin)

    def _agent_of_flow(self, name: str) -> str:
        """Return the agent that is meant with a flow: one of the workers, by its own name or that of its flow."""
        plan, own = self._work.plan, self._work.plan.agent_of(self._job.step)
        if not name:
            return own
        flows = {worker: nested for worker in self._agent.workers if (nested := plan.nested_of(worker)) is not None}
        if name in flows:
            return name
        for worker, nested in flows.items():
            if nested.flow.name == name:
                return worker
        names = [*flows, *(nested.flow.name for nested in flows.values())]
        raise AskRefused(
            f"agent {own!r} runs {name!r}, which is no flow among its workers: name an agent with "
            f"`flow = …` in `workers` of [agents.{own}]. {nearest(str(name), names)}".rstrip()
        )

    async def _until_due(self, token: str, child: Handoff) -> None:
        """Have a child answered when its time is up: by us as long as we are here, else by a timer of the broker."""
        cause = child.cause
        assert isinstance(cause, Asked)
        if not cause.due_s:  # the one who asked first would have waited for ever
            return
        left_s = cause.due_s - self._engine.bus.now_s()
        sleeps = cause.kind == "sleep"
        if not sleeps or left_s > self._agent.park_after_s:
            await self._set_timer(child)
        if sleeps:
            self._sleeping[token] = child
            if left_s > self._agent.park_after_s:
                self._park_soon(0.0)
            else:
                self._naps[token] = asyncio.get_running_loop().call_later(max(left_s, 0.0), self._wake, token, child)

    async def _set_timer(self, child: Handoff) -> None:
        assert isinstance(child.cause, Asked)
        body = encode(by_itself(child, self._work.start_seq))
        await self._engine.bus.timers.at(self._actor, self._job.run, child.step, child.cause.due_s, body)

    def _wake(self, token: str, child: Handoff) -> None:
        self._answers.in_background(self._answer_itself(token, child))

    async def _answer_itself(self, token: str, child: Handoff) -> None:
        waiting = self._waiting.get(token)
        if waiting is None or waiting.done() or self._closed:
            return
        answer = by_itself(child, self._work.start_seq)
        self._heard(await sure(lambda: self._engine.asking.answer(self._actor, answer)))

    async def _look(self, token: str) -> None:
        job, key = self._job, key_of_child(token)
        for answer in await sure(lambda: self._engine.asking.some(self._actor, job.run, job.step, [key])):
            self._heard(answer)

    async def _hear(self, token: str, child: Handoff) -> None:
        """Take an event that came before anybody waited for it: the clerk looks for who waits, and we for what came."""
        answer = await sure(lambda: self._engine.saying.hear(child))
        if answer is not None:
            self._heard(answer)

    async def _remember(self) -> None:
        """Read once what was answered when this step was done before."""
        if self._read is None:
            self._read = asyncio.ensure_future(self._read_answers())
        await asyncio.shield(self._read)

    async def _read_answers(self) -> None:
        job = self._job
        await sure(lambda: self._answers.begin(job.delivery.seq))
        self._before = await sure(
            lambda: self._engine.asking.of_step(self._actor, job.run, job.step, self._work.start_seq)
        )

    # ---- waiting -----------------------------------------------------------------------------------

    def _waits_for(self, token: str) -> asyncio.Future[Answer]:
        waiting = asyncio.get_running_loop().create_future()
        if not self._waiting:
            self._answers.tell(self._job.run, self._job.step, self._heard)
            self._answers.held += 1
            self._job.waits = self._is_held = True
            self._job.delivery.lend()
            if self._clock is not None:
                self._clock.pause()
            self._park_soon()
        self._waiting[token] = waiting
        return waiting

    async def _done_waiting(self, token: str) -> None:
        """Take a wait as over; with the last, the step has a place again before it goes on."""
        if self._waiting.pop(token, None) is None or self._closed or self._job.cancelled is not None:
            return
        self._sleeping.pop(token, None)
        if (nap := self._naps.pop(token, None)) is not None:
            nap.cancel()
        if not self._waiting:
            self._waits_no_more()
            self._back = self._job.delivery.take_back()
        else:
            self._park_soon()
        if self._back is not None and not self._back.done():
            await asyncio.shield(self._back)
        if not self._waiting and self._clock is not None:
            self._clock.go_on()

    def _waits_no_more(self) -> None:
        self._answers.forget(self._job.run, self._job.step, self._heard)
        self._answers.held -= 1
        self._job.waits = self._is_held = False
        self._park_no_more()

    def _heard(self, answer: Answer) -> None:
        waiting = self._waiting.get(answer.child)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    # ---- parking -----------------------------------------------------------------------------------

    def _park_soon(self, after_s: float | None = None) -> None:
        """Park the step when nothing has come for a while; at once where it must not be held."""
        if after_s is None:
            # What may have killed its last worker is not to be charged with the deaths of a worker that it waits in.
            at_once = self._job.begun or self._answers.held > self._answers.held_max or self._waits_for_people_alone()
            after_s = 0.0 if at_once else self._agent.park_after_s
        self._park_no_more()
        self._park_alarm = self._answers.alarms.set(after_s, self._park)

    def _park_no_more(self) -> None:
        if self._park_alarm is not None:
            self._park_alarm()
            self._park_alarm = None

    def _waits_for_people_alone(self) -> bool:
        """Say whether nothing is to be expected soon."""
        kinds = {self._kinds[token] for token, waiting in self._waiting.items() if not waiting.done()}
        return kinds == {"person"}

    def _park(self) -> None:
        if self._parking is None or self._parking.done():
            self._parking = asyncio.create_task(self._try_to_park(), name=f"park {self._job.run} {self._job.step}")

    async def _try_to_park(self) -> None:
        waits = [token for token, waiting in self._waiting.items() if not waiting.done()]
        known = [token for token in waits if token in self._asked]  # the others are being asked for right now
        if not waits or self._closed:
            return
        if self._recording or len(known) < len(waits):
            self._park_soon(_PARK_AGAIN_S if self._recording else 0.05)
            return
        strays = self._strays()
        if strays >= STRAYS_MAX:
            self._refuse_strays()
            return
        upon = self._park_upon(waits)
        try:
            await self._note_unasked()
            for token in upon:
                if token in self._sleeping:
                    await self._set_timer(self._sleeping[token])
                parked = self._parked_upon(token, strays)
                answer = await self._engine.asking.park(self._actor, key_of_child(token), parked)
                if answer is not None:
                    self._heard(answer)
        except (BusError, NewerMessage) as error:
            logger.error("bus.refuses", error=str(error), child=token)
            self._park_soon(_PARK_AGAIN_S)
            return
        if any(token not in self._waiting or self._waiting[token].done() for token in waits):
            # Something has come meanwhile. What stands parked for us brings it back once more than is needed.
            self._park_soon()
        else:
            logger.info("step.parked", waits_for=asked_name(upon[-1]))
            self._job.cancel("parked")
            self.close()

    def _park_upon(self, waits: Sequence[str]) -> list[str]:
        """Return the children whose answers are to bring the step back, the one that may well be the first at the end.

        Of agents and flows it is one: all of them are expected soon. Whoever answers from outside may be the only one
        who ever does, and nobody knows which; so may a sleep that somebody else is asked beside.
        """
        found = sorted(waits, key=lambda token: _PATIENCE.index(self._kinds[token]))
        soon = [token for token in found if self._kinds[token] in ("agent", "flow")][:1]
        late = [token for token in found if self._kinds[token] not in ("agent", "flow")][:_PARKED_UPON_MAX]
        return [*reversed(late), *soon]

    def _parked_upon(self, token: str, strays: int) -> Parked:
        work = self._work
        return Parked(
            run=self._job.run,
            flow=work.handoff.flow,
            digest=work.handoff.digest,
            start_seq=work.start_seq,
            step=self._job.step,
            child=token,
            seq=work.seq,
            number=work.woken,
            strays=strays,
        )

    # ---- what it does not ask for any more ---------------------------------------------------------

    @property
    def _unasked(self) -> list[str]:
        return [token for token in self._before if token not in self._asked] if self._asked else []

    def _strays(self) -> int:
        is_stray = bool(self._unasked) and any(self._asked.values())
        return self._work.strays + 1 if is_stray else 0

    def _refuse_strays(self) -> None:
        name = parse(next(token for token, is_new in self._asked.items() if is_new)).name
        refused = AskRefused(
            f"it asks {name} for something else each time it runs, {STRAYS_MAX + 1} times by now, and never again for "
            f"what it asked before: is there a time, a random number or an unordered set in the arguments? What may "
            f"differ goes through context.record, which gives the same every time"
        )
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(refused)

    async def note_unasked(self) -> None:
        """Note what was asked before, and not this time. Raises the errors of the bus."""
        if self._again and self._read is not None and self._read.done():
            await self._note_unasked()

    async def _note_unasked(self) -> None:
        unasked = self._unasked
        if unasked:
            delivery = self._job.delivery
            logger.warning("step.asks_otherwise", before=[parse(token).name for token in unasked[:_NAMED_MAX]])
            fact = Unasked(
                children=unasked[:_NAMED_MAX], count=len(unasked), seq=delivery.seq, delivered=delivery.delivered
            )
            await self._journal.write(fact)

    # ---- what can be asked -------------------------------------------------------------------------

    def _check_worker(self, agent: str) -> None:
        own = self._work.plan.agent_of(self._job.step)
        if agent in self._agent.workers:
            return
        if not isinstance(agent, str) or agent not in self._work.plan.flow.agents:
            raise AskRefused(
                f"agent {own!r} asks {agent!r}, and the flow has no such agent. "
                f"{nearest(str(agent), self._agent.workers)}".rstrip()
            )
        raise AskRefused(
            f"agent {own!r} asks {agent!r}, which is none of its workers: add it to `workers` of [agents.{own}]"
        )

    def _check_more(self, name: str) -> None:
        own = self._work.plan.agent_of(self._job.step)
        self._count += 1
        if self._count > self._agent.max_asks:
            raise AskRefused(
                f"agent {own!r} asks {name} after {self._agent.max_asks} others: max_asks of [agents.{own}] is "
                f"{self._agent.max_asks}"
            )
        if self._work.depth >= self._agent.max_depth:
            raise AskRefused(
                f"agent {own!r} asks {name} at a depth of {self._work.depth + 1}: max_depth of [agents.{own}] is "
                f"{self._agent.max_depth}"
            )

    def _fitting(self, agent: str, arguments: Mapping[str, Any]) -> dict[str, Raw]:
        fields = input_of(self._work.plan.flow, agent)
        given: dict[str, Raw] = {}
        try:
            for name, value in arguments.items():
                given[name] = _in_order(encode_value(value, name))
            return check_fields(agent, "agent", fields, given)
        except BadContent as error:
            raise AskRefused(f"agent {agent!r} cannot be asked with this: {error}") from error
        except InputError as error:
            raise AskRefused(f"agent {agent!r}, input {error.place!r}: {error.reason} {error.hint}".rstrip()) from error

    async def _recorded(self, fact: Recorded) -> Raw:
        return await sure(lambda: self._engine.values.load(fact.blob or fact.value))


async def sure(do: Callable[[], Awaitable[T]]) -> T:
    """Do something on the bus until it lets us: the lease is held meanwhile, and no handler sees the bus's errors.

    Raises `AskRefused` for what no other try makes good, and `NotRecorded` for what a later release wrote.
    """
    while True:
        try:
            return await do()
        except (PayloadTooLarge, BlobMissing) as error:
            raise AskRefused(str(error)) from error
        except NewerMessage as error:
            raise NotRecorded(error) from error
        except BusError as error:
            logger.error("bus.refuses", error=str(error))
            await asyncio.sleep(_AGAIN_S)


def _in_order(data: bytes) -> Raw:
    """Return JSON with the keys of its objects in one order: the same arguments are the same however they are made."""
    return Raw(msgspec.json.encode(msgspec.json.decode(data), order="sorted") if b"{" in data else data)


def _seconds(what: str, given: float, *, least: float) -> float:
    if not isinstance(given, int | float) or not math.isfinite(given) or not least <= given <= DEADLINE_MAX_S:
        raise AskRefused(f"{what}: {given!r}; expected seconds, at most {DEADLINE_MAX_S:.0f} (a year)")
    return float(given)
