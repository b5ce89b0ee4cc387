"""Asking, as an agent does it for its step: other agents, flows, people, time and events, and what is to be recorded.

What is asked for is a child (`children.py`); the step waits for its answer (`waiting.py`), and is let go of when that
takes long (`parking.py`). When it is done again, its children are found again (`asked_before.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from msgspec import Raw

from baton_actors.agents.asks import AskRefused
from baton_actors.agents.clock import Clock
from baton_actors.agents.questions import as_value
from baton_bus.engine.engine import Engine
from baton_bus.engine.journal import Journal
from baton_schemas.errors import BadContent
from baton_schemas.wire.facts import Recorded
from baton_schemas.wire.files import with_made
from baton_schemas.wire.messages import NO_DEFAULT, Asked, Note, Question
from baton_schemas.wire.names import BATCH
from baton_schemas.wire.outcomes import NULL, Blob, State
from baton_schemas.wire.values import encode_value

from .allowed import check_worker, flow_agent, seconds_of
from .arguments import given_with
from .children import Children
from .claim import Claim
from .hearing import Answers
from .job import Job
from .sure import sure


class StepAsks:
    """The asking of one step, in one worker's hands, from its handler's beginning to its end."""

    def __init__(
        self, engine: Engine, answers: Answers, job: Job, work: Claim, journal: Journal, notes: Sequence[Note] | None
    ) -> None:
        """`notes` are those on the step; None when it is done for the first time, and nothing can have been asked."""
        self._engine, self._answers, self._journal = engine, answers, journal
        self._job, self._work, self._notes = job, work, notes
        self._clock: Clock | None = None
        self._in_thread = self._is_closed = False
        self._made: Children | None = None
        self._named: dict[str, int] = {}
        """How often something was recorded under a name."""

    @property
    def _children(self) -> Children:
        """What it asks for: made with the first, as most that may ask do not."""
        if self._made is None:
            again = self._notes is not None
            self._made = Children(self._engine, self._answers, self._job, self._work, self._journal, again=again)
            self._made.waiting.told(self._clock, in_thread=self._in_thread)
            if self._is_closed:
                self._made.waiting.close()
        return self._made

    def told(self, clock: Clock, *, in_thread: bool = False) -> None:
        """Take the clock of the step, which stands still while it waits, and whether a thread does the waiting."""
        self._clock, self._in_thread = clock, in_thread
        if self._made is not None:
            self._made.waiting.told(clock, in_thread=in_thread)
        if in_thread:
            self._job.let_go = self.close

    def knows(self, notes: Sequence[Note]) -> None:
        """Take the notes on the step as they are now: others may have recorded something while it waited."""
        self._notes = notes

    async def ask(self, agent: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Ask an agent and return its output. Raises `AskFailed`, `AskRefused`, `NotRecorded`."""
        check_worker(self._work, agent)
        if self._work.plan.nested_of(agent) is not None:
            return await self._children.run(agent, arguments, deadline_s)
        values = await given_with(self._engine, self._work, agent, arguments)
        return await self._children.ask("agent", agent, values, State(input=values), deadline_s=deadline_s)

    async def run(self, flow: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        """Have a flow run and return its output. Raises as `ask`."""
        return await self._children.run(flow_agent(self._work, flow), arguments, deadline_s)

    async def sleep(self, seconds: float) -> None:
        """Return so many seconds after it was called first. Raises `AskRefused`, `NotRecorded`."""
        seconds = seconds_of("sleep", seconds, least=0.0)
        await self._children.ask("sleep", "sleep", seconds, State(), deadline_s=seconds)

    async def person(
        self, role: str, question: Question, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT
    ) -> Raw:
        """Ask a person, with nobody waiting here. Raises `AskFailed`, `AskRefused`, `NotRecorded`."""
        cause = Asked(step="", question=question, default=default)
        return await self._children.ask("person", role, as_value(question), State(), deadline_s=deadline_s, cause=cause)

    async def event(self, name: str, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT) -> Raw:
        """Wait for an event. Raises as `person`."""
        cause = Asked(step="", default=default)
        return await self._children.ask("event", name, None, State(), deadline_s=deadline_s, cause=cause)

    async def batched(self, asked: object, state: State) -> None:
        """Have a model call made in a batch; what comes of it is in the journal then.

        `asked` is what makes it what it is. Raises `AskFailed`, `AskRefused`, `NotRecorded`.
        """
        await self._children.ask("batch", BATCH, asked, state)

    async def record(self, name: str, make: Callable[[], Awaitable[Any]]) -> Raw:
        """Return what `make` gave when it was first called under this name.

        Raises `AskRefused`, `NotRecorded`, and what it raises.
        """
        if not isinstance(name, str) or not name:
            raise AskRefused(f"record: the name is {name!r}; expected a text that says what is recorded")
        number = self._named[name] = self._named.get(name, 0) + 1
        for note in self._notes or ():
            if isinstance(note.fact, Recorded) and (note.fact.name, note.fact.number) == (name, number):
                return await self._recorded(note.fact)
        with self.busy():
            value = await make()
            try:
                data, made = with_made(encode_value, value, name)
            except BadContent as error:
                raise AskRefused(f"record {name!r}: what it gave cannot be recorded: {error}") from error
            if made:
                await sure(lambda: self._engine.files.keep(made))
            stored = await sure(lambda: self._engine.values.stored(data))
            fact = Recorded(
                name=name,
                number=number,
                value=NULL if isinstance(stored, Blob) else stored,
                blob=stored if isinstance(stored, Blob) else None,
            )
            written = await sure(lambda: self._journal.write(fact))
            return await self._recorded(written) if isinstance(written, Recorded) else Raw(data)

    async def _recorded(self, fact: Recorded) -> Raw:
        return await sure(lambda: self._engine.values.load(fact.blob or fact.value))

    def busy(self) -> AbstractContextManager[None]:
        """Do not park the step while the context is open: what is under way in it would be done again."""
        return self._children.waiting.parking.put_off()

    def close(self) -> None:
        """The step is done with: whoever still waits is let go."""
        self._is_closed = True
        if self._made is not None:
            self._made.waiting.close()

    async def note_unasked(self) -> None:
        """The step is done: note what it asked before, and not this time. Raises the errors of the bus."""
        if self._made is not None:
            await self._made.before.note_unasked_if_read()
