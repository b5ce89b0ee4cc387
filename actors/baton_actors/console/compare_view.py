"""Two runs as their page shows them: a step of both side by side, and their times one over the other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import NamedTuple
from urllib.parse import quote, urlencode

from baton_schemas.run.state import StepState
from baton_schemas.show.bars import Bar, bars_of
from baton_schemas.show.compared import Run
from baton_schemas.show.differ import Difference, Side, StepDiffers, side_of
from baton_schemas.show.differ_words import changes_of, end_of, text_in, what_differs
from baton_schemas.show.lines import seconds
from baton_schemas.show.text_diff import Piece, pieces
from baton_schemas.show.timeline import timeline_of
from baton_schemas.wire.outcomes import Usage

from .sources import Source

SIDE_MAX = 200_000
"""Characters of a text that are compared; what comes after is left out, and that is said."""
STEPS_SHOWN = 200
PAIRS_SHOWN = 20
BARS_SHOWN = 40
_ROW, _LABEL, _WIDE = 16, 160, 1_000


class TextDiffers(NamedTuple):
    """A text of both runs."""

    name: str
    found: list[Piece]
    cut: int
    """Characters that are left out of both together."""
    is_same: bool


class SideShown(NamedTuple):
    """A step of one of the runs; None for `side` where that run has not got it."""

    step: str
    path: str
    side: Side | None
    usage: Usage


class BarDrawn(NamedTuple):
    """A bar in a picture."""

    name: str
    said: str
    status: str
    y: int
    x: float
    wide: float
    works_x: float
    works_wide: float
    path: str


class Picture(NamedTuple):
    """The times of one run, at the scale of both."""

    bars: list[BarDrawn]
    wide: int
    high: int
    left_out: int


class Compared:
    """Two runs beside each other."""

    def __init__(
        self,
        one: Source,
        other: Source,
        before: Run,
        after: Run,
        found: Difference,
        steps: tuple[str, str],
        now: datetime,
        *,
        is_chosen: bool,
    ) -> None:
        self.one, self.other, self.found, self.now = one, other, found, now
        self._before, self._after = before, after
        self.step, self.other_step = steps
        self.is_chosen = is_chosen
        self.path = f"/compare/{quote(one.name, safe=':')}/{quote(other.name, safe=':')}"
        # What takes long is done here, where it may.
        self.texts = self._texts() if self.step else []
        self.input = [_text(pair.name, text_in(pair.before), text_in(pair.after)) for pair in found.input[:PAIRS_SHOWN]]
        self.pictures = self._pictures()

    # ---- where they part -------------------------------------------------------------------------------

    @property
    def changes(self) -> list[str]:
        """What of the flow is another in the later run."""
        return changes_of(self.found.flow)

    @property
    def parts_at(self) -> tuple[int, int] | None:
        """The numbers of the messages, in both, that are the first about the step where they part."""
        first = self.found.first
        if first is None:
            return None
        return _number(self._before, first.step), _number(self._after, first.step)

    @property
    def shown_steps(self) -> list[StepDiffers]:
        """The first of the steps that differ."""
        return self.found.steps[:STEPS_SHOWN]

    def what(self, step: StepDiffers) -> str:
        """Return what of a step differs."""
        return what_differs(step)

    def told(self, side: Side | None) -> str:
        """Return how a step stands in one of the runs, in a few words."""
        if side is None:
            return "\N{EN DASH}"
        took = seconds(side.elapsed_s) if side.elapsed_s is not None and not side.reused else ""
        return " ".join(word for word in ("reused" if side.reused else side.status, took) if word)

    def step_path(self, step: str) -> str:
        """Return the address with another step."""
        return f"{self.path}?{urlencode({'step': step})}#step"

    # ---- a step ----------------------------------------------------------------------------------------

    @cached_property
    def sides(self) -> tuple[SideShown, SideShown]:
        """The step in both."""
        return (
            _shown(self.one, self._before, self.step),
            _shown(self.other, self._after, self.other_step),
        )

    def _texts(self) -> list[TextDiffers]:
        before, after = self._before, self._after
        old, new = before.state.steps.get(self.step), after.state.steps.get(self.other_step)
        if old is None or new is None:
            return []
        found: list[TextDiffers] = []
        asked, asked_later = before.asked(self.step), after.asked(self.other_step)
        if asked is not None and asked_later is not None:
            for name, was, now in (
                ("model", asked.model, asked_later.model),
                ("system prompt", asked.system, asked_later.system),
                ("prompt", asked.prompt, asked_later.prompt),
            ):
                if was or now:
                    found.append(_text(name, was, now))
        else:
            read, read_later = before.values(self.step), after.values(self.other_step)
            names = [name for name in {**read, **read_later} if name != "index"]
            found += [
                _text(f"read {name}", text_in(read.get(name)), text_in(read_later.get(name)))
                for name in names[:PAIRS_SHOWN]
            ]
        found.append(_text("came to", end_of(side_of(before, old)), end_of(side_of(after, new))))
        return found

    # ---- time ------------------------------------------------------------------------------------------

    def _pictures(self) -> tuple[Picture, Picture]:
        runs = ((self.one, self._before), (self.other, self._after))
        bars = [bars_of(timeline_of(run.entries, run.state), run.plan, self.now) for _, run in runs]
        most_s = max((bar.end_s for each in bars for bar in each), default=0.0) or 1.0
        return (_picture(bars[0], most_s, self.one), _picture(bars[1], most_s, self.other))


def _shown(source: Source, run: Run, name: str) -> SideShown:
    step: StepState | None = run.state.steps.get(name)
    side = side_of(run, step) if step is not None else None
    return SideShown(name, f"{source.base}/steps/{quote(name, safe='')}", side, run.usage_of(name))


def _text(name: str, before: str, after: str) -> TextDiffers:
    """Return where two texts differ, as far as they are compared."""
    cut = max(len(before) - SIDE_MAX, 0) + max(len(after) - SIDE_MAX, 0)
    if before == after:
        return TextDiffers(
            name, [Piece("same", before[:SIDE_MAX])] if before else [], max(len(before) - SIDE_MAX, 0), True
        )
    return TextDiffers(name, pieces(before[:SIDE_MAX], after[:SIDE_MAX]), cut, False)


def _number(run: Run, step: str) -> int:
    """Return which message of a run is the first about a step; 0 when none is."""
    return next(
        (number for number, entry in enumerate(run.entries, 1) if getattr(entry.message, "step", "") == step), 0
    )


def _picture(bars: Sequence[Bar], most_s: float, source: Source) -> Picture:
    scale = (_WIDE - _LABEL - 80) / most_s
    drawn = [
        BarDrawn(
            name=bar.step if len(bar.step) <= 20 else bar.step[:19] + "…",
            said=f"{bar.step}: {bar.status}, {seconds(bar.end_s - bar.begin_s)}"
            + (f", {bar.count:,} branches" if bar.count > 1 else ""),
            status=bar.status,
            y=number * _ROW,
            x=round(_LABEL + bar.begin_s * scale, 1),
            wide=round(max((bar.end_s - bar.begin_s) * scale, 1.0), 1),
            works_x=round(_LABEL + bar.works_s * scale, 1),
            works_wide=round(max((bar.end_s - bar.works_s) * scale, 1.0), 1),
            path=f"{source.base}/steps/{quote(bar.step, safe='')}",
        )
        for number, bar in enumerate(bars[:BARS_SHOWN])
    ]
    return Picture(drawn, _WIDE, max(len(drawn) * _ROW, _ROW), max(len(bars) - BARS_SHOWN, 0))
