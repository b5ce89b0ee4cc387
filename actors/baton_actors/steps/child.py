"""A child that a step waits for: what it asked, and the answer that is to come."""

from __future__ import annotations

import asyncio

from baton_actors.agents.asks import together
from baton_schemas.wire.messages import Answer, AskedKind, Handoff


class Child:
    """One child, from when it is asked to its answer, in the loop of the worker that asks."""

    def __init__(self, token: str, kind: AskedKind) -> None:
        self.token, self.kind = token, kind
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.together = together.get()
        """What it shares with others of which every answer is needed; None when another may do instead."""
        self.is_asked = False
        """Whether it is written, with all that it needs to be answered though nobody is here: it may be parked upon."""
        self.sleep: Handoff | None = None
        """Its handoff, where it is a sleep: that answers by itself here, and needs a timer when it is parked upon."""
        self.nap: asyncio.TimerHandle | None = None
        """Rings when it is to answer by itself."""
        self._came: Answer | None = None
        self._is_held_back = False

    @property
    def is_open(self) -> bool:
        """Whether it has no answer yet, and somebody waits for that."""
        return self._came is None and not self.answer.done()

    def heard(self, answer: Answer) -> None:
        """Take its answer; only the first counts."""
        if self.is_open:
            self._came = answer
            self._tell()

    def hold_back(self) -> None:
        """Tell nobody of an answer, until `let_through`: the step is being parked."""
        self._is_held_back = True

    def let_through(self) -> None:
        """Tell of it, if it has come: the step is not parked after all."""
        self._is_held_back = False
        self._tell()

    def _tell(self) -> None:
        if self._came is not None and not self._is_held_back and not self.answer.done():
            self.answer.set_result(self._came)

    def end_nap(self) -> None:
        """Have it not answer by itself here."""
        if self.nap is not None:
            self.nap.cancel()
