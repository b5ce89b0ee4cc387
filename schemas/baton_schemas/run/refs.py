"""References to steps: one codec turns a step, its branch, round and key into a token of a subject and back.

A step's own name has no double hyphen, and ends neither in a hyphen nor in a hyphen and digits; numbers are written
without leading zeros. So a reference has one token, and a token one meaning. Steps that others imply (`flow.implied`)
are called `{step}--list` and `{step}--join`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from baton_schemas.wire.messages import After, Asked, Handoff, Joined, OutcomeRecord, Reply, Started, Woken
from baton_schemas.wire.names import DEADLINE, JOIN, LIST, START

_BRANCH = re.compile(r"(.+)-([0-9]+)\Z")
ITSELF = "*"
"""In place of ranges: the source replied itself, as it is no fan-out, or as its list was empty."""
INDEX_MAX = 1_000_000
"""More than any setting allows: what a stranger writes must not fill our memory."""
_DIGITS_MAX = 9
"""Of a number in a token: a stranger's may have so many that Python does not read it."""
_ROUND = re.compile(r"r([0-9]+)\Z")
_RANGE = re.compile(r"([0-9]{1,7})(?:-([0-9]{1,7}))?\Z")


class StepRef(Struct, frozen=True):
    """A step of a flow, or one branch, round or child of it."""

    name: str
    index: int | None = None
    """Of a fan-out's branch, from 0."""
    round: int = 0
    """Of a step that is done again and again: from 1; 0 for one that is not."""
    key: str = ""
    """Of a child that a handler asked for: a hash of what was asked."""

    @property
    def token(self) -> str:
        """The reference as one token."""
        return token_of(self.name, self.index, self.round, self.key)


def token_of(name: str, index: int | None = None, round: int = 0, key: str = "") -> str:
    """Return the token of the `StepRef` with these."""
    token = name if index is None else f"{name}-{index}"
    if round:
        token += f"--r{round}"
    return f"{token}--k{key}" if key else token


@lru_cache(maxsize=16_384)
def parse(token: str) -> StepRef:
    """Return the reference that a token stands for. One that we would write otherwise is the name of a step."""
    own, *parts = token.split("--")
    if parts and parts[0] in (LIST, JOIN):  # the name of a step that another implies
        own, parts = f"{own}--{parts[0]}", parts[1:]
    match = _BRANCH.match(own)
    ref = StepRef(match[1], int(match[2])) if match and len(match[2]) <= _DIGITS_MAX else StepRef(own)
    for part in parts:
        if (round_ := _ROUND.match(part)) and len(round_[1]) <= _DIGITS_MAX:
            ref = replace(ref, round=int(round_[1]))
        elif part.startswith("k"):
            ref = replace(ref, key=part[1:])
    if ref.token == token:
        return ref
    as_named = StepRef(own, key=ref.key)  # a child called after an event: `order-007`
    return as_named if ref.key and as_named.token == token else StepRef(token)


def name_of(token: str) -> str:
    """Return the step that a token refers to, without branch, round and key."""
    return parse(token).name


def key_of_child(token: str) -> str:
    """Return the key in the token of a child step; empty for any other."""
    return parse(token).key


def asked_name(token: str) -> str:
    """Return what a child is called after: the agent, the flow, the role or the event, which may end in digits."""
    name, _, key = token.rpartition("--k")
    return name if name and key else token


def is_word(name: str) -> bool:
    """Say whether a role or an event may be called so: the token of a child that is called after it has one meaning."""
    return "--" not in name and not name.startswith("-") and not name.endswith("-")


def is_plain(name: str) -> bool:
    """Say whether a step may be called so: no token made from its name means anything else."""
    return "--" not in name and not name.endswith("-") and not _BRANCH.match(name)


def whole(token: str) -> str:
    """Return the token of a step in its round, without the index of a branch."""
    ref = parse(token)
    return token if ref.index is None else token_of(ref.name, None, ref.round, ref.key)


def ended_by(reply: Reply) -> str:
    """Return the token of the step or branch whose end a reply tells: as its own handoff calls it."""
    return token_of(reply.source, reply.index if reply.each and reply.count else None, reply.round)


def replied(reply: Reply) -> str:
    """Return how the join calls the branch that a reply is about; the source itself when its list was empty.

    That is its token without its round: a join waits for one round of what comes before it.
    """
    return token_of(reply.source, reply.index if reply.each and reply.count else None)


def tokens(source: str, text: str) -> list[str]:
    """Return the tokens of the branches that a join names by source and `ranges`. Raises ValueError."""
    return [source] if text == ITSELF else [token_of(source, index) for index in indices(text)]


def named(closing: Joined) -> list[str]:
    """Return the last tokens of the replies that a join closed with, in the order of the flow, its deadline's last.

    All of them carry what the merger reads, also word of an empty list and of the deadline. Raises ValueError.
    """
    found = [token for source, text in closing.branches.items() for token in tokens(source, text)]
    return [*found, DEADLINE] if closing.deadline else found


def source_token(handoff: Handoff) -> str:
    """Return the last token of a handoff's subject: what handed it on."""
    match handoff.cause:
        case After(step=step):
            return step
        case Started():
            return START
        case Joined():
            return JOIN
        case Asked(step=step):
            return step
        case Woken(parked=parked) if parked:
            return f"wake-s{parked}"
        case Woken(number=number):
            return f"wake-{number}"


def joined(handoff: Handoff) -> Joined | None:
    """Return what a handoff says of the join before its step, if there was one."""
    match handoff.cause:
        case Joined() as cause:
            return cause
        case Started(joined=nothing):
            return nothing
        case _:
            return None


def base_of(message: Handoff | OutcomeRecord) -> str:
    """Return the step of a message, without the index of a branch."""
    return parse(message.step).name


def ranges(indices: Iterable[int]) -> str:
    """Return indices as ranges: `0-4,7`. Bounded: ten thousand of which every other is there take 25 kB."""
    parts: list[str] = []
    first = last = -2
    for index in [*sorted(set(indices)), -2]:
        if index == last + 1 and first >= 0:
            last = index
            continue
        if first >= 0:
            parts.append(str(first) if first == last else f"{first}-{last}")
        first = last = index
    return ",".join(parts)


def indices(text: str) -> list[int]:
    """Return the indices that `ranges` wrote, in their order; `*` stands for one. Raises ValueError for other text."""
    if text == ITSELF:
        return [0]
    found: list[int] = []
    for part in text.split(",") if text else ():
        match = _RANGE.match(part)
        if not match:
            raise ValueError(f"{part!r} is no range of indices")
        first, last = int(match[1]), int(match[2] or match[1])
        if last > INDEX_MAX:
            raise ValueError(f"{part!r}: an index is at most {INDEX_MAX}")
        if first > last or (found and first <= found[-1]):
            raise ValueError(f"{part!r}: indices must rise")
        found += range(first, last + 1)
    return found
