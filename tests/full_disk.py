"""An embedded server on a small disk that is filled and freed, run in a mount namespace of its own by a test."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import nats
from structlog.testing import capture_logs

from baton_bus.server import keeper
from baton_bus.server.embedded import embedded

from .servers import until


async def main(disk: Path) -> None:
    keeper.HEALTH_S, keeper.ROOM_BYTES = 0.2, 1024 * 1024
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(2 * 1024 * 1024))
    with capture_logs() as events:
        async with embedded(disk / "data") as server:
            client = await nats.connect(server.url, reconnect_time_wait=0.1)
            js = client.jetstream(timeout=0.5)
            await js.add_stream(name="log", subjects=["log"])
            stored = 0
            while not [event for event in events if event["event"] == "disk.full"]:
                try:
                    await js.publish("log", bytes(100_000))
                    stored += 1
                except (nats.errors.Error, TimeoutError):
                    await asyncio.sleep(0.05)
            ballast.unlink()
            await until(lambda: [event for event in events if event["event"] == "server.started_again"])
            await until(lambda: client.is_connected)
            kept = (await js.stream_info("log")).state.messages
            again = await js.publish("log", b"there is room")
            await client.close()
    names = [event["event"] for event in events]
    print(json.dumps({"stored": stored, "kept": kept, "again": again.seq, "said": names}))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
