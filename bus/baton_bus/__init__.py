"""The bus: NATS JetStream as Baton uses it. `connect` opens it; everything that touches NATS is here."""

from .bus import Bus, connect
from .errors import BusError
from .settings import Settings

__all__ = ["Bus", "BusError", "Settings", "connect"]
