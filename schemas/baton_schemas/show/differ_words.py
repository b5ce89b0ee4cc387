"""How two runs differ, in words: what of a step does, how it ended, what has changed of an agent. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from baton_schemas.run.changes import Change
from baton_schemas.wire.outcomes import Blob, Value

from .compared import Run
from .differ import FlowDiffers, Side, StepDiffers
from .errors import told
from .excerpt import size, text_of

_NAMED = 3
"""Values that differ and are named in a sentence."""
_SHOWN_MAX = 40
"""Characters of a value that is shown as it was and is; one that is longer is only named."""
_TEXTS = frozenset({"system", "prompt"})
"""What is only named, however short it is."""


def what_differs(step: StepDiffers) -> str:
    """Return in a sentence's end what differs of a step: what it was given before what became of it."""
    if step.is_alone:
        return "only the later run has" if step.before is None else "only the earlier run has"
    if step.reads:
        names = [pair.name for pair in step.reads]
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        return f"read other values: {', '.join(names[:_NAMED])}{more}"
    if step.asked == 1:
        return "asked its model something else"
    if step.asked:
        return f"asked something else in its request {step.asked}"
    if step.answered:
        return "was answered something else" + (f" to its request {step.answered}" if step.answered > 1 else "")
    assert step.before is not None and step.after is not None
    if step.before.status != step.after.status:
        return f"was {step.before.status} before, and is {step.after.status}"
    return "failed otherwise" if step.after.status == "failed" else "put out something else"


def end_of(side: Side) -> str:
    """Return what a step came to: its error, the text of its output, or how it stands and why."""
    if side.error is not None and side.status == "failed":
        return told(side.error)
    return text_in(side.output) if side.status == "done" else f"{side.status}: {side.reason}".rstrip(": ")


def text_in(value: Value | None) -> str:
    """Return a value as text to be compared; of one that was not fetched, its size and the start of its hash."""
    if value is None:
        return "(nothing)"
    if isinstance(value, Blob):
        return f"({size(value.size_bytes)} beside the log, {value.sha256[:12]}…)"
    return text_of(value)


def prompts_of(before: Run, after: Run, first: StepDiffers | None) -> list[dict[str, str]]:
    """Return what the models of the step were asked where the runs part, as far as it differs: `system`, `prompt`."""
    if first is None or first.asked != 1:
        return []
    old, new = before.asked(first.step), after.asked(first.step)
    if old is None or new is None:
        return []
    texts = [("model", old.model, new.model), ("system", old.system, new.system), ("prompt", old.prompt, new.prompt)]
    return [{"name": name, "before": was, "after": is_} for name, was, is_ in texts if was != is_]


def changes_of(flow: FlowDiffers) -> list[str]:
    """Return what of the flow is another in the later run, each in a few words: `agent editor (prompt)`."""
    parts = [f"agent {name} ({told_change(changes)})" for name, changes in flow.agents.items()]
    parts += [f"step {name} ({told_change(changes)})" for name, changes in flow.steps.items()]
    return parts + [f"step {name} (gone)" for name in flow.gone]


def told_change(changes: Sequence[Change]) -> str:
    """Return what has changed of an agent or a step, in a few words; that it is new, where nothing of it was there."""
    return ", ".join(map(_change, changes)) if changes else "new"


def _change(change: Change) -> str:
    before, after = _short(change.before), _short(change.after)
    if change.key in _TEXTS or before is None or after is None:
        return change.key
    return f"{change.key} {before or 'as by default'} → {after or 'as by default'}"


def _short(value: object) -> str | None:
    """Return a value in a few words; None for one that is too long to stand in a line."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str("" if value is None else value)
    return text if len(text) <= _SHOWN_MAX and "\n" not in text else None
