"""The bus: NATS JetStream as Baton uses it. `connect` opens it; everything that touches NATS is here."""

from baton_bus.engine.bus import Bus, connect
from baton_bus.errors import BusError
from baton_bus.settings import Settings

__all__ = ["Bus", "BusError", "Settings", "connect"]
