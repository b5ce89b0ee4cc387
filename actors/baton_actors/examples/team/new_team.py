"""The handlers of new-team: Python functions that do a step in place of a model."""

from __future__ import annotations

from dataclasses import dataclass

from baton_actors import Fail, actor


@dataclass
class Notes:
    """What the readers noted."""

    texts: int
    notes: list[str]


@actor
def count(read: list[str]) -> Notes:
    """Number the notes. `read` is what the step `read` put out: a list, as it runs once per text."""
    notes = [note.strip() for note in read if note.strip()]
    if not notes:
        raise Fail("there is no note to write from: give at least one text")
    return Notes(texts=len(notes), notes=[f"{number}. {note}" for number, note in enumerate(notes, 1)])
