"""Parking with everything that may go wrong, in any order: no answer is lost, and one worker at a time goes on.

The rules of parking and answering are the real ones (`Asking`); the log is a list, and every operation on it may be
delayed, or be the last of whoever makes it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator, Sequence
from datetime import UTC, datetime
from random import Random
from types import coroutine
from typing import Any, NamedTuple

import msgspec
import pytest

from baton_bus.engine import asking as engine_asking
from baton_bus.engine.asking import Asking
from baton_bus.subjects import Subjects
from baton_schemas.run.asking import answers_parked
from baton_schemas.run.refs import key_of_child
from baton_schemas.run.state import Entry
from baton_schemas.wire.codec import decode, encode
from baton_schemas.wire.messages import Answer, Handoff, Parked, Started
from baton_schemas.wire.outcomes import Done

ACTOR, STEP = "actor", "step"
CHILDREN = ("a--k1", "b--k2", "c--k3")
STORIES, STORIES_MAX = 5_000, 50_000
OPERATIONS_MAX = 20_000
"""More than any story takes that ends."""


@coroutine
def _later() -> Generator[None]:
    """Let others go first."""
    yield


class Log:
    """A log in memory, as far as asking uses one, with others between any two operations and before each answer."""

    inline_limit_bytes = 10**6

    def __init__(self) -> None:
        self.subjects = Subjects("n")
        self.log = self
        self.entries: list[tuple[str, bytes]] = []
        self._last: dict[str, int] = {}

    def store(self, subject: str, body: bytes) -> int:
        self.entries.append((subject, body))
        self._last[subject] = len(self.entries)
        return len(self.entries)

    def _entry(self, subject: str) -> Entry:
        seq = self._last[subject]
        data = self.entries[seq - 1][1]
        return Entry(seq=seq, at=datetime.now(UTC), subject=subject, data=data, message=decode(data, subject))

    async def create(self, subject: str, body: bytes) -> int | None:
        return await self.replace_last(subject, body, 0)

    async def replace_last(self, subject: str, body: bytes, last_seq: int) -> int | None:
        await _later()
        stored = self.store(subject, body) if self._last.get(subject, 0) == last_seq else None
        await _later()
        return stored

    async def matching_sure(self, subjects: Sequence[str]) -> list[Entry]:
        await _later()
        found = [self._entry(subject) for subject in subjects if subject in self._last]
        await _later()
        return found

    async def taken(self, subject: str) -> Entry:
        await _later()
        return self._entry(subject)


class Actor(NamedTuple):
    """A worker with a handoff in its hands, or somebody who answers."""

    doing: Coroutine[Any, Any, None]
    handoff: int
    child: str


class Story:
    """One step that needs some of the answers to what it asked, and all who have to do with it."""

    def __init__(self, random: Random, *, quiet: bool) -> None:
        """Nothing goes wrong in a `quiet` one."""
        self._random, self.bus = random, Log()
        self.asking = Asking(self.bus, None)  # type: ignore[arg-type]
        self.children = CHILDREN[: random.randrange(1, 4)]
        self.needed = random.randrange(1, len(self.children) + 1)
        """Of its answers; no more than these come."""
        self.unanswered = random.sample(self.children, self.needed)
        self._places = [self.bus.subjects.answer(ACTOR, "r", STEP, key_of_child(child)) for child in self.children]
        self._crashes, self._lapses = (0, 0) if quiet else (random.randrange(4), random.randrange(3))
        self._actors: dict[int, Actor] = {}
        self._acked: set[int] = set()
        self._count = 0
        self.is_done = False
        self.went_on: list[int] = []
        """Who did, each time that it saw what had come."""
        start = Handoff(run="r", flow="f", step=STEP, cause=Started())
        self.bus.store(self.bus.subjects.of(ACTOR, start), encode(start))

    async def _work(self, number: int, handoff: int) -> None:
        """Do the step, as often as it takes to end it or to park it."""
        while True:
            messages = [entry.message for entry in await self.bus.matching_sure(self._places)]
            found = {each.child for each in messages if isinstance(each, Answer)}
            self.went_on.append(number)
            if len(found) >= self.needed:
                await _later()
                self.is_done = True
                break
            upon = [child for child in self.children if child not in found]
            if self.needed == len(self.children) and self._random.random() < 0.2:
                upon = upon[:1]  # it needs all of them: one will do
            marks = [Parked(run="r", flow="f", step=STEP, child=child, seq=1) for child in upon]
            put = await self.asking.park(ACTOR, marks)
            if put.answers or not put.seq:
                continue
            if not put.is_whole or self._random.random() < 0.2:  # or something was heard meanwhile
                await self.asking.wake(ACTOR, marks[0], put.seq)
            await _later()
            break
        self._acked.add(handoff)

    async def _answer(self, child: str) -> None:
        await self.asking.answer(ACTOR, Answer(run="r", flow="f", step=STEP, child=child, outcome=Done()))

    def play(self) -> None:
        """Let it happen until nothing can any more."""
        random, favour = self._random, self._random.choice([0.0, 0.5, 0.9, 0.97])
        liking: dict[object, float] = {}
        for _ in range(OPERATIONS_MAX):
            can = self._can()
            if not can:
                return
            if self._crashes and self._actors and random.random() < 0.05:
                self._crash(random.choice(list(self._actors)))
                continue
            # Some are much faster than others, and that changes.
            for each in can:
                liking.setdefault(each, random.random())
            what = max(can, key=liking.__getitem__) if random.random() < favour else random.choice(can)
            if random.random() < 0.05:
                liking[what] = random.random()
            self._do(*what)
        raise AssertionError("it does not end")

    def _can(self) -> list[tuple[str, Any]]:
        can: list[tuple[str, Any]] = [("go on", number) for number in self._actors]
        held = [actor.handoff for actor in self._actors.values()]
        for seq, (subject, _) in enumerate(self.bus.entries, 1):
            if ".handoff." in subject and seq not in self._acked and held.count(seq) < (2 if self._lapses else 1):
                can.append(("hand out", seq))
        return can + [("answer", child) for child in self.unanswered]

    def _do(self, what: str, which: Any) -> None:
        self._count += 1
        match what:
            case "hand out":
                self._lapses -= any(actor.handoff == which for actor in self._actors.values())
                self._actors[self._count] = Actor(self._work(self._count, which), which, "")
            case "answer":
                if self._random.random() < 0.3:
                    self.unanswered.remove(which)
                    self._actors[self._count] = Actor(self._answer(which), 0, which)
            case _:
                try:
                    self._actors[which].doing.send(None)
                except StopIteration:
                    del self._actors[which]

    def _crash(self, number: int) -> None:
        actor = self._actors.pop(number)
        actor.doing.close()
        self._crashes -= 1
        if actor.child:  # whoever has its handoff next
            self.unanswered.append(actor.child)


def test_no_answer_is_lost_whatever_breaks() -> None:
    for seed in range(STORIES):
        story = Story(Random(seed), quiet=False)
        story.play()
        assert story.is_done, f"story {seed}"


def test_one_worker_at_a_time_goes_on_when_nothing_breaks() -> None:
    for seed in range(STORIES):
        story = Story(Random(seed), quiet=True)
        story.play()
        assert story.is_done, f"story {seed}"
        assert story.went_on == sorted(story.went_on), f"story {seed}"


# ---- what these find -----------------------------------------------------------------------------

_mark, _standing = Asking._mark, Asking._standing


async def _keeps(self: Asking, place: str, mark: Parked, seen: dict[str, int]) -> int | None:
    """Leave a mark of an earlier parking where it is."""
    return seen[place] if place in seen else await _mark(self, place, mark, seen)


async def _looks_late(self: Asking, place: str, mark: Parked, _: dict[str, int]) -> int | None:
    """Put a mark in the place of whatever is there now."""
    return await _mark(self, place, mark, (await _standing(self, [place]))[1])


async def _wakes_nobody(*_: object) -> None:
    """Let go of a step of which not all marks could be put."""


def _by_its_own_mark(answer: Answer, parked: Parked, seq: int) -> Answer:
    return answers_parked(answer, msgspec.structs.replace(parked, first=0), seq)


BROKEN: dict[str, tuple[object, str, object, bool]] = {
    "marks that are kept": (Asking, "_mark", _keeps, False),
    "places that are read when the parking has its name": (Asking, "_mark", _looks_late, False),
    "a parking that is not whole": (Asking, "wake", _wakes_nobody, False),
    "answers that each wake by themselves": (engine_asking, "answers_parked", _by_its_own_mark, True),
}


@pytest.mark.parametrize("what", BROKEN)
def test_another_rule_would_be_found_out(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, broken, quiet = BROKEN[what]
    monkeypatch.setattr(owner, name, broken)
    for seed in range(STORIES_MAX):
        story = Story(Random(seed), quiet=quiet)
        story.play()
        if not story.is_done or (quiet and story.went_on != sorted(story.went_on)):
            return
    pytest.fail("nothing was found")
