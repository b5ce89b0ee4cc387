"""The bus: NATS JetStream as Baton uses it. `connect` opens it; everything that touches NATS is here."""

from baton_bus.client.client import Client, connect
from baton_bus.client.run import Run
from baton_bus.errors import BusError, RunCancelled, RunExpired, RunFailed
from baton_bus.settings import Settings
from baton_schemas.wire.files import File
from baton_schemas.wire.words import Running, Said, Wrote

__all__ = [
    "BusError",
    "Client",
    "File",
    "Run",
    "RunCancelled",
    "RunExpired",
    "RunFailed",
    "Running",
    "Said",
    "Settings",
    "Wrote",
    "connect",
]
