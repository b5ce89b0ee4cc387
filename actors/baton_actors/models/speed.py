"""How fast an actor may call its model: a pause, and a limit on calls in flight. Pure but for the dice.

Additive increase, multiplicative decrease, as TCP does it (RFC 5681): an overload halves what is in flight, to no less
than one; as many successes as the limit says allow one more. When overloads without a success between them brought
the limit further down, as an outage does, each success allows one more until it is back. Until the first overload
there is no limit.
Times are seconds of one monotonic clock, given by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable

PAUSE_BASE_S, PAUSE_MAX_S = 1.0, 60.0
"""The pause where the provider names none: limits are mostly per minute, so a longer one wastes what is free again."""

_JITTER = 0.1
"""Up to so much of a pause is added to it: never earlier than asked, and not all processes at one instant."""


class Speed:
    """What an actor's process learned from its provider. `dice` gives numbers from 0 to 1."""

    def __init__(
        self, dice: Callable[[], float], pause_base_s: float = PAUSE_BASE_S, pause_max_s: float = PAUSE_MAX_S
    ) -> None:
        self._dice, self._base_s, self._max_s = dice, pause_base_s, pause_max_s
        self.limit = math.inf
        self._quick_until = 0.0
        self.in_flight = 0
        self.paused_until = -math.inf
        self._slowed_at = -math.inf
        self._overloads = 0
        self._successes = 0

    def may_start(self, now_s: float) -> bool:
        """Whether a call may start now."""
        return now_s >= self.paused_until and self.in_flight < self.limit

    def start(self) -> None:
        """Count a call that starts. Each is followed by one `end`."""
        self.in_flight += 1

    def end(self) -> None:
        """Count a call that ended, however it did."""
        self.in_flight -= 1

    def succeeded(self, started_s: float) -> None:
        """Take that a call was answered."""
        if started_s >= self._slowed_at:
            self._overloads = 0
        self._successes += 1
        if self._successes >= self.limit or self.limit < self._quick_until:
            self.limit, self._successes = self.limit + 1, 0

    def overloaded(self, now_s: float, started_s: float, asked_s: float | None) -> float:
        """Take that the provider asked to wait; return how long the pause is from now.

        A burst that is told to wait as one counts once: only a call that started after the last slowing slows again.
        """
        if started_s >= self._slowed_at:
            self._overloads += 1
            self._slow(now_s)
            if self._overloads == 1:
                self._quick_until = self.limit
        backoff_s = min(self._max_s, self._base_s * 2.0 ** min(self._overloads - 1, 30))
        if asked_s is None:
            return self._pause(now_s, backoff_s)
        # A time that did not hold is not believed again: some servers always say "in 0 s".
        return self._pause(now_s, max(asked_s, backoff_s) if self._overloads > 1 else asked_s)

    def told(self, now_s: float, pause_s: float) -> None:
        """Take that another process of the actor was told to wait."""
        if now_s >= self.paused_until:
            self._slow(now_s)
        self._pause(now_s, pause_s)

    def _slow(self, now_s: float) -> None:
        self.limit = max(1, min(self.in_flight, self.limit) // 2)
        self._slowed_at, self._successes = now_s, 0

    def _pause(self, now_s: float, pause_s: float) -> float:
        spread_s = pause_s * (1 + _JITTER * self._dice())
        # A later word may only make the pause longer: the first one was the provider's too.
        self.paused_until = max(self.paused_until, now_s + spread_s)
        return self.paused_until - now_s
