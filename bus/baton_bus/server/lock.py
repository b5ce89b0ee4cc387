"""The lock of a data directory: who runs its server, where that answers, and with which login. POSIX only.

`nats.lock` is held (flock) by a server from its first instant to its last, so the kernel says whether a directory
is in use, whatever was killed, and two servers never share a store. What the file says is for this user alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import secrets
from pathlib import Path

import msgspec

from baton_bus.errors import ServerFailed

_LOCK = "nats.lock"
_PASSWORD = "nats.password"
_OURS = ("nats.*", "*.ports", "jetstream", "index-*.sqlite*")
"""What we and nats-server put into a data directory."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What the lock says about the server that holds it."""

    pid: int
    port: int
    server_id: str
    """New at each start: it tells our server from one that came to the port of a server that is gone."""
    sync_always: bool
    user: str = ""
    password: str = ""
    """Empty for a server that an older version started, without a login."""

    def __repr__(self) -> str:
        return f"Record(pid={self.pid}, port={self.port})"  # never the password

    @property
    def url(self) -> str:
        """The URL of the server, login included: to be used, and never shown."""
        login = f"{self.user}:{self.password}@" if self.password else ""
        return f"nats://{login}127.0.0.1:{self.port}"


def try_lock(data_dir: Path) -> int | None:
    """Return the lock as an open file descriptor, or None while a server has it.

    The record stays, as those who used the server that is gone still call at its port. Raises `ServerFailed`.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ServerFailed(data_dir, str(error), "Use a data directory that this user can write to.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def read_record(data_dir: Path) -> Record | None:
    """Return what the lock says; None before the first server is ready, or when it is no record."""
    try:
        return msgspec.json.decode((data_dir / _LOCK).read_bytes(), type=Record)
    except (OSError, msgspec.DecodeError):
        return None


def write_record(data_dir: Path, record: Record) -> None:
    """Say where the server that holds the lock answers."""
    (data_dir / _LOCK).write_bytes(msgspec.json.encode(record))


def password_of(data_dir: Path) -> str:
    """Return the directory's password, made at its first use: whoever holds the lock may call this.

    It stays the same, so that those who use a server find the one that takes its place. Raises `ServerFailed`.
    """
    path = data_dir / _PASSWORD
    try:
        with contextlib.suppress(FileNotFoundError):
            if password := path.read_text("ascii", errors="replace").strip():
                return password
        password = secrets.token_hex(16)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "w") as output:
            output.write(password)
    except OSError as error:
        raise ServerFailed(data_dir, str(error), "Make this path readable for this user, or use another.") from error
    return password


def close_to_others(data_dir: Path) -> None:
    """Take from other users what an older version, or a looser umask, left open to them.

    A directory in which somebody keeps other things too stays as open as it is; what is ours in it does not.
    """
    ours = [path for path in data_dir.iterdir() if any(fnmatch.fnmatch(path.name, kind) for kind in _OURS)]
    for path in ours:
        if not path.is_symlink():  # a store may be elsewhere, and is then its owner's affair
            path.chmod(0o700 if path.is_dir() else 0o600)
    if len(ours) == len(list(data_dir.iterdir())):
        data_dir.chmod(0o700)
