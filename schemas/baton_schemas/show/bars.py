"""The steps of a run as bars of time, a fan-out as one: short enough to be drawn over those of another run. Pure."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.run.refs import key_of_child
from baton_schemas.run.state import StepStatus

from .spans import Timeline


class Bar(Struct, frozen=True, kw_only=True):
    """A step, or all branches of one, from when it first waited or worked to its end."""

    step: str
    status: StepStatus
    """`failed` if any branch did."""
    begin_s: float
    end_s: float
    """Since the run began."""
    works_s: float
    """From when somebody worked at it; `end_s` if nobody did."""
    count: int = 1
    """How many branches."""


def bars_of(timeline: Timeline, plan: Plan | None, now: datetime) -> list[Bar]:
    """Return a bar for each step of a run that has taken time, in the order of their beginnings."""
    zero = timeline.begin
    if zero is None:
        return []
    found: dict[str, Bar] = {}
    for name, lane in timeline.lanes.items():
        if lane.begin is None or key_of_child(name):
            continue
        step = plan.name_of(name) if plan is not None else name
        begin_s = max((lane.begin - zero).total_seconds(), 0.0)
        end_s = max(((lane.end or timeline.end or now) - zero).total_seconds(), begin_s)
        works = next((span.begin for span in lane.spans if span.kind == "working"), None)
        works_s = min(max((works - zero).total_seconds(), begin_s), end_s) if works is not None else end_s
        was = found.get(step)
        if was is None:
            found[step] = Bar(step=step, status=lane.status, begin_s=begin_s, end_s=end_s, works_s=works_s)
            continue
        found[step] = Bar(
            step=step,
            status="failed" if "failed" in (was.status, lane.status) else lane.status,
            begin_s=min(was.begin_s, begin_s),
            end_s=max(was.end_s, end_s),
            works_s=min(was.works_s, works_s),
            count=was.count + 1,
        )
    return sorted(found.values(), key=lambda bar: bar.begin_s)
