"""That the bus did not let a step record something: the step is tried again, and is not charged."""

from __future__ import annotations

from baton_bus.errors import BusError
from baton_schemas.errors import NewerMessage


class NotRecorded(Exception):
    """The bus did not let us record something: no failure of the step's."""

    def __init__(self, because: BusError | NewerMessage) -> None:
        """`because` is the error of the bus, or says that a later release has recorded something there."""
        self.because = because
        super().__init__(str(because))
