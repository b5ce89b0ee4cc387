"""The log as it is, read message by message through the server's own API and decoded with `json` alone.

It shares no code with Baton: what the checker believes must not depend on what it checks.
"""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import nats
from nats.aio.client import Client

_AT_ONCE = 64


class StreamChanged(Exception):
    """Messages of a stream came or went while it was read."""


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


async def read_stream(url: str | list[str], stream: str, *, missing_is_empty: bool = False) -> list[Record]:
    """Read every message of a stream, the oldest first, by the word of its leader. Raises `StreamChanged`."""
    nc = await nats.connect(url)
    try:
        info = json.loads((await nc.request(f"$JS.API.STREAM.INFO.{stream}", timeout=10)).data)
        if "error" in info and missing_is_empty:
            return []
        seqs = range(info["state"]["first_seq"], info["state"]["last_seq"] + 1)
        records: list[Record] = []
        for start in range(0, len(seqs), _AT_ONCE):
            found = await asyncio.gather(*(_read(nc, stream, seq) for seq in seqs[start : start + _AT_ONCE]))
            records += [each for each in found if each is not None]
        if len(records) != info["state"]["messages"]:
            raise StreamChanged(stream)
        return records
    finally:
        await nc.close()


async def _read(nc: Client, stream: str, seq: int) -> Record | None:
    query = json.dumps({"seq": seq}).encode()
    answer = json.loads((await nc.request(f"$JS.API.STREAM.MSG.GET.{stream}", query, timeout=10)).data)
    if "message" not in answer:
        return None
    message = answer["message"]
    return record(
        message["seq"], message["subject"], base64.b64decode(message.get("data", "")), _seconds(message["time"])
    )


def _seconds(time: str) -> float:
    """Return a time as the server says it (RFC 3339) in seconds of Unix time."""
    return datetime.fromisoformat(time).timestamp()


def record(seq: int, subject: str, data: bytes, at_s: float) -> Record:
    """Make a record of what the server says of a message."""
    _, kind, who, *tokens = [*subject.split("."), ""]
    run, *rest = [token for token in tokens if token] or [""]
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    return Record(seq, at_s, kind, who, run, tuple(rest), subject, data, body if isinstance(body, dict) else None)


class Seen(NamedTuple):
    """All that the server has of a namespace."""

    records: list[Record]
    timers: list[Record]
    blobs: dict[str, bytes]
    """What is stored under each hash: its chunks put together, in their order, whether or not they fit it."""
    spent: list[Record]
    """What was added to the counters of money."""


async def read_all(url: str | list[str], namespace: str) -> Seen:
    """Read the streams of a namespace."""
    records = await read_stream(url, namespace)
    timers = await read_stream(url, f"{namespace}-timers", missing_is_empty=True)
    chunks: dict[str, dict[int, bytes]] = {}
    for each in await read_stream(url, f"{namespace}-blobs", missing_is_empty=True):
        _, sha256, index = each.subject.split(".")
        if index.isdigit():  # else a mark: somebody is about to name it, or to remove it
            chunks.setdefault(sha256, {})[int(index)] = each.data
    blobs = {
        sha256: b"".join(data for index, data in sorted(found.items()) if index)
        for sha256, found in chunks.items()
        if 0 in found
    }
    return Seen(records, timers, blobs, await read_stream(url, f"{namespace}-spend", missing_is_empty=True))


def save(seen: Seen, folder: Path) -> None:
    """Keep it beside the store for whoever looks into a failure: a line each, bytes as Latin-1."""
    for name, records in (("log", seen.records), ("timers", seen.timers), ("spend", seen.spent)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for each in records:
                file.write(json.dumps([each.seq, each.at_s, each.subject, each.data.decode("latin-1")]) + "\n")
    blobs = {sha256: data.decode("latin-1") for sha256, data in seen.blobs.items()}
    (folder / "blobs.json").write_text(json.dumps(blobs), "utf-8")


def load(folder: Path) -> Seen:
    """Return what `save` kept."""
    streams = []
    for name in ("log", "timers", "spend"):
        rows = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]
        streams.append([record(seq, subject, data.encode("latin-1"), at_s) for seq, at_s, subject, data in rows])
    blobs = json.loads((folder / "blobs.json").read_text("utf-8"))
    found = {sha256: data.encode("latin-1") for sha256, data in blobs.items()}
    return Seen(streams[0], streams[1], found, streams[2])
