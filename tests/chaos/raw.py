"""The log as it is, read message by message through the server's own API and decoded with `json` alone.

It shares no code with Baton: what the checker believes must not depend on what it checks.
"""

from __future__ import annotations

import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import nats


class Record(NamedTuple):
    """One message of the stream. `body` is None when its bytes are no JSON object."""

    seq: int
    at_s: float
    """When the server stored it, in seconds of Unix time."""
    kind: str
    who: str
    run: str
    rest: tuple[str, ...]
    """The tokens after the run: for a handoff its step and source."""
    subject: str
    data: bytes
    body: dict[str, Any] | None


async def read_stream(url: str, stream: str) -> list[Record]:
    """Read every message of a stream, the oldest first."""
    nc = await nats.connect(url)
    try:
        info = json.loads((await nc.request(f"$JS.API.STREAM.INFO.{stream}", timeout=10)).data)
        records = []
        for seq in range(info["state"]["first_seq"], info["state"]["last_seq"] + 1):
            query = json.dumps({"seq": seq}).encode()
            answer = json.loads((await nc.request(f"$JS.API.STREAM.MSG.GET.{stream}", query, timeout=10)).data)
            if "message" in answer:
                message = answer["message"]
                data = base64.b64decode(message.get("data", ""))
                records.append(record(message["seq"], message["subject"], data, message["time"]))
        assert len(records) == info["state"]["messages"], "the stream changed while it was read"
        return records
    finally:
        await nc.close()


def record(seq: int, subject: str, data: bytes, time: str) -> Record:
    """Make a record of what the server says of a message; `time` as in RFC 3339."""
    _, kind, who, *tokens = subject.split(".")
    run, *rest = tokens or [""]
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    at_s = datetime.fromisoformat(time).timestamp()
    return Record(seq, at_s, kind, who, run, tuple(rest), subject, data, body if isinstance(body, dict) else None)


def save(records: list[Record], path: Path) -> None:
    """Keep the records beside the store, a line each, for whoever looks into a failure."""
    with path.open("w", encoding="utf-8") as file:
        for each in records:
            text = each.data.decode("utf-8", "backslashreplace")
            file.write(json.dumps([each.seq, round(each.at_s, 6), each.subject, text]) + "\n")
