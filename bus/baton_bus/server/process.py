"""The process of an embedded nats-server: found, started tied to us, waited for, and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from baton_bus.errors import ServerFailed, ServerNotFound
from baton_bus.server.health import greeting
from baton_bus.server.lock import Record, close_to_others, write_record

START_TIMEOUT_S = 30.0
"""A new server is ready in 20 ms; one that recovers a log needs 1.3 s per million messages."""
STOP_TIMEOUT_S = 5
"""From SIGTERM to SIGKILL. A stop takes a few ms; the rest is for a slow disk that still has to flush."""
POLL_S = 0.005
"""Between two looks at a server that starts; a look costs some 50 µs."""
MEMORY_LIMIT = "1GiB"
"""Soft limit of Go's heap. A log of a million messages is 360 MB of it live; at 400 MiB the collector then never rests,
and the log is at 0.7 of its speed."""
STORE_BYTES = 2**50
"""The disk is the limit, and the keeper looks after that. Left to itself the server takes three quarters of what is
free when it starts: space that is freed later is no use to it, and after a restart a large log on a small rest is over
its limit."""
LOG_LINES = 10
"""How many lines of the server's log an error shows: the fatal line and what led to it."""
USER, KEEPER = "baton", "keeper"
"""Who uses the log, and who asks the server how it is. They share the directory's password."""

# Ties a command to its starter. Stdin is the lifeline: a pipe whose write end only the starter has, so that
# it closes however the starter ends. Stdout is the lock: only this shell and the command keep it open. The
# last line takes the watcher, and the sleep it may be in, along; the shell leads a group of its own.
_TIED = """
unset baton_tied
exec 3<&0 4>&1 </dev/null >&2
grace_s=$1; shift
"$@" 3<&- & server=$!
{ exec 4>&-; read -r _ <&3; kill -TERM $server; sleep $grace_s; kill -KILL $server; } 2>/dev/null &
exec 3<&-
wait $server; code=$?
trap '' TERM; kill -TERM 0; exit $code
"""


class _Ports(msgspec.Struct, frozen=True):
    """The file in which nats-server says which port it chose."""

    nats: list[str]


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


def start_tied(command: Sequence[str | Path], *, lock: int, log: int) -> subprocess.Popen[bytes]:
    """Start a command that gets SIGTERM, then SIGKILL, once the returned `stdin` closes or we die.

    It has a session of its own: a Ctrl-C in the terminal reaches us, not it. `lock` and `log` are open file
    descriptors; the command keeps `lock` open as long as it lives, and writes its output to `log`. What it
    writes is for this user alone. The returned process ends when the command does, with its exit code.
    """
    return subprocess.Popen(
        ["sh", "-c", 'eval "$baton_tied"', "baton: keeper of nats-server", str(STOP_TIMEOUT_S), *command],
        stdin=subprocess.PIPE,
        stdout=lock,
        stderr=log,
        env={"GOMEMLIMIT": MEMORY_LIMIT, **os.environ, "baton_tied": _TIED},  # not an argument: `ps` shows those
        start_new_session=True,
        umask=0o077,
    )


def start_server(
    data_dir: Path, server: Path, lock: int, *, password: str, sync_always: bool, port: int = -1
) -> subprocess.Popen[bytes]:
    """Write the configuration and start the server, which takes the lock over; it chooses a port unless told.

    Without a password it has no login: only in place of one that an older version started so. Raises `ServerFailed`.
    """
    log = data_dir / "nats.log"
    try:
        for left_over in data_dir.glob("*.ports"):  # by a server that was killed
            left_over.unlink()
        _write_private(data_dir / "nats.conf", _configuration(data_dir, password, sync_always, port))
        with contextlib.suppress(FileNotFoundError):
            log.rename(data_dir / "nats.log.1")
        close_to_others(data_dir)
        with open(log, "wb", opener=_private) as output:
            return start_tied([server, "-c", data_dir / "nats.conf"], lock=lock, log=output.fileno())
    except OSError as error:
        raise ServerFailed(data_dir, str(error), "Make this path writable, or use another.") from error
    finally:
        os.close(lock)


async def await_ready(data_dir: Path, process: subprocess.Popen[bytes], *, password: str, sync_always: bool) -> Record:
    """Wait until the server answers, and say in the lock file where. Raises `ServerFailed`."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            advice = "Its last words say why; put that right, or use another data directory."
            reason = f"it ended with exit code {process.returncode}"
            raise ServerFailed(data_dir, reason, advice, log_tail(data_dir))
        if (chosen := _read_ports(data_dir)) is not None:
            pid, port = chosen
            if (server_id := await greeting(port)) is not None:
                record = Record(
                    pid=pid, port=port, server_id=server_id, sync_always=sync_always, user=USER, password=password
                )
                write_record(data_dir, record)
                return record
        await asyncio.sleep(POLL_S)
    reason = f"it was not ready within {START_TIMEOUT_S:g} s"
    advice = "If it was recovering a large log, run it as a server of its own and give its URL."
    raise ServerFailed(data_dir, reason, advice, log_tail(data_dir))


async def stop_server(process: subprocess.Popen[bytes]) -> None:
    """Let go of the lifeline and wait for the end. The shell sends the signals; if it does not, we do."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        await asyncio.to_thread(process.wait, STOP_TIMEOUT_S + 1)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def log_tail(data_dir: Path) -> list[str]:
    """Return the last lines of the server's log; none when there is no log."""
    try:
        return (data_dir / "nats.log").read_text(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []


def _configuration(data_dir: Path, password: str, sync_always: bool, port: int) -> bytes:
    # The server adds `jetstream` to the directory.
    jetstream: dict[str, Any] = {"store_dir": str(data_dir), "max_file_store": STORE_BYTES}
    if sync_always:
        jetstream["sync_interval"] = "always"
    config: dict[str, Any] = {
        "listen": f"127.0.0.1:{port}",
        "ports_file_dir": str(data_dir),
        "jetstream": jetstream,
    }
    if password:
        # Streams stay in the account in which they are without any login, so that older directories go on.
        config["authorization"] = {"users": [{"user": USER, "password": password}]}
        # The health of the server is asked over NATS, as a monitoring port would be open to every local user.
        config["accounts"] = {"$SYS": {"users": [{"user": KEEPER, "password": password}]}}
    return msgspec.json.format(msgspec.json.encode(config))


def _write_private(path: Path, content: bytes) -> None:
    with open(path, "wb", opener=_private) as file:
        os.fchmod(file.fileno(), 0o600)  # one from before may be open to others
        file.write(content)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read_ports(data_dir: Path) -> tuple[int, int] | None:
    """Return the server's pid and port from `{executable}_{pid}.ports`, or None before it is there."""
    for path in data_dir.glob("*.ports"):
        with contextlib.suppress(OSError, ValueError):  # the server is just writing or removing it
            url = msgspec.json.decode(path.read_bytes(), type=_Ports).nats[0]
            return int(path.stem.rpartition("_")[2]), urlsplit(url).port or 0
    return None
