"""The nats-server that Baton starts itself, so that a flow runs on a laptop with only Python installed.

There is one server per data directory. It holds `nats.lock` (flock) from its first instant to its last, so
the kernel says whether a directory is in use, whatever was killed, and two servers never share a store.
POSIX only.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog

from baton_bus.errors import ServerFailed, ServerNotFound

START_TIMEOUT_S = 30.0
"""A new server is ready in 20 ms; one that recovers a log needs 1.3 s per million messages."""
STOP_TIMEOUT_S = 5
"""From SIGTERM to SIGKILL. A stop takes a few ms; the rest is for a slow disk that still has to flush."""
PROBE_TIMEOUT_S = 1.0
"""For a connection to localhost and the line with which the server greets: 1 ms when it is well."""
POLL_S = 0.005
"""Between two looks at a server that starts or stops; a look costs some 50 µs."""
HEIR_POLL_S = 0.25
"""Between two looks at whether the server of another command is gone; clients mend connections in 0.2 s steps."""
MEMORY_LIMIT = "1GiB"
"""Soft limit of Go's heap. A log of a million messages is 360 MB of it live; at 400 MiB the collector then never rests,
and the log is at 0.7 of its speed."""
LOG_LINES = 10
"""How many lines of the server's log an error shows: the fatal line and what led to it."""

logger = structlog.get_logger("baton.bus")

# Ties a command to its starter. Stdin is the lifeline: a pipe whose write end only the starter has, so that
# it closes however the starter ends. Stdout is the lock: only this shell and the command keep it open. The
# last line takes the watcher, and the sleep it may be in, along; the shell leads a group of its own.
_TIED = """
exec 3<&0 4>&1 </dev/null >&2
grace_s=$1; shift
"$@" 3<&- & server=$!
{ exec 4>&-; read -r _ <&3; kill -TERM $server; sleep $grace_s; kill -KILL $server; } 2>/dev/null &
exec 3<&-
wait $server; code=$?
trap '' TERM; kill -TERM 0; exit $code
"""


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """A running nats-server of a data directory. `started` is False when another command started it."""

    url: str
    pid: int
    data_dir: Path
    started: bool


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """What `nats.lock` says about the server that holds it."""

    pid: int
    port: int
    server_id: str
    sync_always: bool

    def as_embedded(self, data_dir: Path, *, started: bool) -> Embedded:
        url = f"nats://127.0.0.1:{self.port}"
        return Embedded(url=url, pid=self.pid, data_dir=data_dir, started=started)


class _Ports(msgspec.Struct, frozen=True):
    """The file in which nats-server says which port it chose."""

    nats: list[str]


class _Info(msgspec.Struct, frozen=True):
    """What we need of the server's greeting; the id is new at each start."""

    server_id: str


def find_server(setting: str = "") -> Path:
    """Return the nats-server to start: the setting, else from PATH, else from this environment.

    Raises `ServerNotFound` if there is none; a setting that is wrong is never passed over.
    """
    environment = str(Path(sys.executable).parent)
    if setting:
        found, looked_in = shutil.which(Path(setting).expanduser()), [setting]
    else:
        found = shutil.which("nats-server") or shutil.which("nats-server", path=environment)
        looked_in = ["PATH", environment]
    if found is None:
        raise ServerNotFound(setting, looked_in)
    return Path(found)


@asynccontextmanager
async def embedded(data_dir: Path, *, server: str = "", sync_always: bool = False) -> AsyncIterator[Embedded]:
    """Run a nats-server over `data_dir`, or use the one that another command runs there.

    It listens on 127.0.0.1 only, on a port it chooses. Who started it stops it on leaving, and should the
    starter be killed, the server stops by itself; who only uses it never stops it. Who uses it longer than
    the one that started it starts it again, on the same port: connections mend themselves. `sync_always` has
    each message on disk before it is acknowledged.

    Raises `ServerNotFound`, or `ServerFailed` with the end of the server's log.
    """
    claim = await _claim(data_dir)
    if isinstance(claim, _Record):
        if sync_always and not claim.sync_always:
            advice = "Stop the command that started it, or leave the setting out."
            raise ServerFailed(data_dir, f"pid {claim.pid} runs without sync_always", advice)
        heir = asyncio.create_task(_inherit(data_dir, find_server(server), claim))
        try:
            yield claim.as_embedded(data_dir, started=False)
        finally:
            heir.cancel()
            await asyncio.gather(heir, return_exceptions=True)
        return
    process = _start(data_dir, find_server(server), claim, sync_always)
    try:
        record = await _ready(data_dir, process, sync_always)
        yield record.as_embedded(data_dir, started=True)
    finally:
        await _stop(process)


async def _inherit(data_dir: Path, server: Path, record: _Record) -> None:
    """Once the server of another command is gone, run one on its port until cancelled."""
    while True:
        lock = _try_lock(data_dir)
        if lock is not None:
            break
        await asyncio.sleep(HEIR_POLL_S)
    logger.info("server.inherited", data_dir=str(data_dir), port=record.port)
    process = _start(data_dir, server, lock, record.sync_always, record.port)
    try:
        await _ready(data_dir, process, record.sync_always)
        await asyncio.to_thread(process.wait)
    except ServerFailed as error:
        logger.error("server.not_inherited", error=str(error))
    finally:
        await _stop(process)


def start_tied(command: Sequence[str | Path], *, lock: int, log: int) -> subprocess.Popen[bytes]:
    """Start a command that gets SIGTERM, then SIGKILL, once the returned `stdin` closes or we die.

    It has a session of its own: a Ctrl-C in the terminal reaches us, not it. `lock` and `log` are open file
    descriptors; the command keeps `lock` open as long as it lives, and writes its output to `log`.
    The returned process ends when the command does, with its exit code.
    """
    return subprocess.Popen(
        ["sh", "-c", _TIED, "sh", str(STOP_TIMEOUT_S), *command],
        stdin=subprocess.PIPE,
        stdout=lock,
        stderr=log,
        env={"GOMEMLIMIT": MEMORY_LIMIT, **os.environ},
        start_new_session=True,
    )


async def _claim(data_dir: Path) -> int | _Record:
    """Return the lock, held, when we are to start the server; else the record of the one that answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if (lock := _try_lock(data_dir)) is not None:
            return lock
        record = _read_record(data_dir)
        # The id tells our server from one that came to the port of a server that is gone.
        if record is not None and await _greeting(record.port) == record.server_id:
            return record
        await asyncio.sleep(POLL_S)
    record = _read_record(data_dir)
    who = f"pid {record.pid}" if record else "another command"
    raise ServerFailed(
        data_dir,
        f"{who} holds the directory but did not answer within {START_TIMEOUT_S:g} s",
        "Stop that process, or use another data directory.",
        _log_tail(data_dir),
    )


def _try_lock(data_dir: Path) -> int | None:
    """Return the lock as an open file descriptor, or None while a server has it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(data_dir / "nats.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        advice = "Use a data directory that this user can write to."
        raise ServerFailed(data_dir, str(error), advice) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.ftruncate(lock, 0)  # what it says is about a server that is gone
    return lock


def _read_record(data_dir: Path) -> _Record | None:
    try:
        return msgspec.json.decode((data_dir / "nats.lock").read_bytes(), type=_Record)
    except (OSError, msgspec.DecodeError):
        return None  # the server is still starting


async def _greeting(port: int) -> str | None:
    """Return the id of the nats-server that answers on the port, or None."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                line = await reader.readline()
            finally:
                writer.close()
        return msgspec.json.decode(line.removeprefix(b"INFO "), type=_Info).server_id
    except (OSError, ValueError):  # TimeoutError is an OSError, a message that does not decode a ValueError
        return None


def _start(data_dir: Path, server: Path, lock: int, sync_always: bool, port: int = -1) -> subprocess.Popen[bytes]:
    """Write the configuration and start the server, which takes the lock over; it chooses a port unless told."""
    jetstream: dict[str, Any] = {"store_dir": str(data_dir)}  # the server adds `jetstream` to it
    if sync_always:
        jetstream["sync_interval"] = "always"
    config = {"listen": f"127.0.0.1:{port}", "ports_file_dir": str(data_dir), "jetstream": jetstream}
    log = data_dir / "nats.log"
    try:
        for left_over in data_dir.glob("*.ports"):  # by a server that was killed
            left_over.unlink()
        (data_dir / "nats.conf").write_bytes(msgspec.json.format(msgspec.json.encode(config)))
        with contextlib.suppress(FileNotFoundError):
            log.rename(data_dir / "nats.log.1")
        with log.open("wb") as output:
            return start_tied([server, "-c", data_dir / "nats.conf"], lock=lock, log=output.fileno())
    except OSError as error:
        raise ServerFailed(data_dir, str(error), "Make this path writable, or use another.") from error
    finally:
        os.close(lock)


async def _ready(data_dir: Path, process: subprocess.Popen[bytes], sync_always: bool) -> _Record:
    """Wait until the server answers, and say in the lock file where."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            advice = "Its last words say why; put that right, or use another data directory."
            reason = f"it ended with exit code {process.returncode}"
            raise ServerFailed(data_dir, reason, advice, _log_tail(data_dir))
        if (chosen := _read_ports(data_dir)) is not None:
            pid, port = chosen
            if (server_id := await _greeting(port)) is not None:
                record = _Record(pid=pid, port=port, server_id=server_id, sync_always=sync_always)
                (data_dir / "nats.lock").write_bytes(msgspec.json.encode(record))
                return record
        await asyncio.sleep(POLL_S)
    reason = f"it was not ready within {START_TIMEOUT_S:g} s"
    advice = "If it was recovering a large log, run it as a server of its own and give its URL."
    raise ServerFailed(data_dir, reason, advice, _log_tail(data_dir))


def _read_ports(data_dir: Path) -> tuple[int, int] | None:
    """Return the server's pid and port from `{executable}_{pid}.ports`, or None before it is there."""
    for path in data_dir.glob("*.ports"):
        with contextlib.suppress(OSError, ValueError):  # the server is just writing or removing it
            url = msgspec.json.decode(path.read_bytes(), type=_Ports).nats[0]
            return int(path.stem.rpartition("_")[2]), urlsplit(url).port or 0
    return None


def _log_tail(data_dir: Path) -> list[str]:
    try:
        return (data_dir / "nats.log").read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []


async def _stop(process: subprocess.Popen[bytes]) -> None:
    """Let go of the lifeline and wait for the end. The shell sends the signals; if it does not, we do."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.to_thread(process.wait, STOP_TIMEOUT_S + 1)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
