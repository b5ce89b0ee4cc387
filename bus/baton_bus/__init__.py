"""The bus: NATS JetStream as Baton uses it. `connect` opens it; everything that touches NATS is here."""

from baton_bus.client.client import Client, connect
from baton_bus.client.run import Run
from baton_bus.errors import BusError, RunCancelled, RunExpired, RunFailed
from baton_bus.settings import Settings

__all__ = ["BusError", "Client", "Run", "RunCancelled", "RunExpired", "RunFailed", "Settings", "connect"]
