"""When each process was out of reach, so that it could do nothing, or hear nothing, of what it should."""

from __future__ import annotations

import math
from collections import defaultdict

from .history import Event

_OF_ONE = {"worker.stopped": "worker.continued", "bus.lost": "bus.back"}
_OF_ALL = {
    "server.killed": "server.back",
    "server.stopped": "server.continued",
    "traffic.held": "traffic.flows",
    "disk.filled": "disk.freed",
}
"""Events that begin something, by what ends it. A server is known by its name, where there are several."""

Span = tuple[float, float]


class Away:
    """From the history: by process, and for all of them."""

    def __init__(self, history: list[Event]) -> None:
        self._all: list[Span] = []
        self._of: dict[int, list[Span]] = defaultdict(list)
        self._starved: list[Span] = []
        """When any process was, whichever."""
        self.died_at: dict[int, float] = {}
        self.died_with: dict[int, int] = {}
        self.killed: set[int] = set()
        """By the driver."""
        began: dict[tuple[str, object], float] = {}
        for event in history:
            self._note(event, began)
        for (what, whom), at_s in began.items():
            self._add(what, whom, (at_s, math.inf))

    def _note(self, event: Event, began: dict[tuple[str, object], float]) -> None:
        what, at_s = event["what"], event["at"]
        whom = event.get("victim", event.get("server", event["pid"]))
        if what in _OF_ALL and "server" not in event:
            whom = ""
        if what in _OF_ONE or what in _OF_ALL:
            began.setdefault((what, whom), at_s)
            return
        for begin, end in (_OF_ONE | _OF_ALL).items():
            if what == end:
                whom = "" if begin in _OF_ALL and "server" not in event else whom
                if (begin, whom) in began:
                    self._add(begin, whom, (began.pop((begin, whom)), at_s))
        if what == "process.starved":
            self._of[event["pid"]].append((at_s - event["lag_s"], at_s))
            self._starved.append((at_s - event["lag_s"], at_s))
        elif what == "connections.cut":
            self._all.append((at_s, at_s))
        elif what == "worker.killed":
            self.killed.add(event["victim"])
            self.died_at.setdefault(event["victim"], at_s)
        elif what == "worker.died":
            self.died_with[event["victim"]] = event["code"]
            self.died_at.setdefault(event["victim"], at_s)

    def _add(self, what: str, whom: object, span: Span) -> None:
        if what in _OF_ALL:
            self._all.append(span)
        else:
            assert isinstance(whom, int)
            self._of[whom].append(span)

    def spans(self, pid: int, begin_s: float, end_s: float) -> list[Span]:
        """Return when this process was out of reach, of what overlaps with this time."""
        return [span for span in [*self._all, *self._of[pid]] if span[0] <= end_s and span[1] >= begin_s]

    def was_hit(self, pid: int, begin_s: float, end_s: float) -> bool:
        """Say whether this process was out of reach, or died, in this time."""
        return bool(self.spans(pid, begin_s, end_s)) or begin_s <= self.died_at.get(pid, math.inf) <= end_s

    def was_busy(self, begin_s: float, end_s: float, at_least_s: float) -> bool:
        """Say whether the machine was: some process was starved for so long, and then the server may have been, too."""
        return any(end - begin >= at_least_s and begin <= end_s and end >= begin_s for begin, end in self._starved)

    def clock_off_s(self, at_s: float) -> float:
        """Return by how much a process may have been wrong of the server's clock then: half of what a question took.

        How long it took is not known; so as long as the longest time for which anybody stood still before.
        """
        spans = [*self._all, *self._starved, *(span for of in self._of.values() for span in of)]
        return max((min(end, at_s) - begin for begin, end in spans if begin < at_s), default=0.0) / 2

    def stood_still(self, before_s: float, within_s: float, at_least_s: float) -> bool:
        """Say whether some process was away by itself for so long, and came back within this time before."""
        spans = [span for of in self._of.values() for span in of]
        return any(end - begin >= at_least_s and before_s - within_s <= end <= before_s for begin, end in spans)
