"""What one message of a log brought: what a step was given by it, put out, was answered or failed with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from msgspec import Struct

from baton_schemas.flow.graph import Plan
from baton_schemas.run.fork import decided_by
from baton_schemas.run.refs import joined
from baton_schemas.run.state import Entry
from baton_schemas.wire.facts import Exchange, ModelCall, Offered, Recorded, Retry, ToolCall
from baton_schemas.wire.messages import (
    Answer,
    Handoff,
    Message,
    Note,
    OutcomeRecord,
    Reply,
    Result,
    Say,
    Started,
    Task,
    Woken,
)
from baton_schemas.wire.outcomes import Blob, Done, Error, Failed, Outcome, State, Value

from .conversation import calls_in
from .given import Fetched, Given, given_to, inline, values_of


class Brought(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One value, or one error, and whose it is."""

    step: str
    what: str
    """`input topic`, `reads item`, `put out`, `answered`, `failed`."""
    value: Value | None = None
    error: Error | None = None


def brought_by(plan: Plan | None, entries: Sequence[Entry], number: int, fetched: Fetched) -> list[Brought]:
    """Return what an entry brought: the one with this number, from 1, among those of its run.

    Without a plan only what is in the message itself. A value that was not fetched is a `Blob`.
    """
    match entries[number - 1].message:
        case Handoff(cause=Woken()):
            return []
        case Handoff() as handoff:
            return [*_ended(handoff, fetched), *_given(plan, islice(entries, number), handoff, fetched)]
        case Reply() | OutcomeRecord() | Answer() | Result() as message:
            return _ended(message, fetched)
        case Note(fact=Recorded() as fact) as note:
            value = inline(fact.blob or fact.value, fetched)
            return [Brought(step=note.step, what=f"recorded {fact.name}", value=value)]
        case Note(fact=ToolCall() as tool) as note:
            return [Brought(step=note.step, what=f"tool {tool.name}", value=inline(tool.blob or tool.result, fetched))]
        case Note(fact=Offered() as offer) as note:
            return [Brought(step=note.step, what="offered tools", value=inline(offer.blob or offer.tools, fetched))]
        case Say(answer=answer):
            return [Brought(step="", what="said", value=answer)]
        case Note(fact=Retry(error=error)) as note:
            return [Brought(step=note.step, what="failed", error=error)]
        case Note(fact=ModelCall() as call) as note:
            # Where it called somebody, its text is the least of it.
            calls = call.content_blob or (call.content if calls_in(call) else None)
            return [Brought(step=note.step, what="answered", value=inline(calls or call.blob or call.text, fetched))]
        case Note(fact=Exchange() as exchange) as note:
            return [Brought(step=note.step, what="answered", value=inline(exchange.blob or exchange.body, fetched))]
        case Task() as task:
            return [Brought(step="", what=f"input {name}", value=value) for name, value in task.input.items()]
        case _:
            return []


def blobs_named(message: Message | None) -> list[Blob]:
    """Return what a message says is kept beside the log."""
    found: list[Blob] = []
    match message:
        case Handoff() | Reply() | OutcomeRecord():
            found += message.state.blobs.values()
        case Note(fact=ModelCall() as call):
            found += [blob for blob in (call.blob, call.content_blob) if blob is not None]
        case Note(fact=Recorded() | Exchange() | ToolCall() | Offered() as fact) if fact.blob is not None:
            found.append(fact.blob)
        case _:
            pass
    if isinstance(message, Handoff) and message.branch is not None and message.branch.blob is not None:
        found.append(message.branch.blob)
    outcome = _outcome(message)
    if isinstance(outcome, Done) and outcome.blob is not None:
        found.append(outcome.blob)
    return found


def _outcome(message: Message | None) -> Outcome | None:
    match message:
        case Handoff():
            return getattr(message.cause, "outcome", None)
        case Reply() | OutcomeRecord() | Answer() | Result():
            return message.outcome
        case _:
            return None


def _ended(message: Message, fetched: Fetched) -> list[Brought]:
    step = message.child if isinstance(message, Answer) else decided_by(message)
    match _outcome(message):
        case Done() as done:
            return [Brought(step=step, what="put out", value=inline(done.blob or done.output, fetched))]
        case Failed(error=error):
            return [Brought(step=step, what="failed", error=error)]
        case _:
            return []


def _given(plan: Plan | None, entries: Iterable[Entry], handoff: Handoff, fetched: Fetched) -> list[Brought]:
    values = _read(plan, entries, handoff, fetched)
    brought: list[Brought] = []
    if isinstance(handoff.cause, Started) and handoff.cause.begins is not None:
        given = _all_of(handoff.state, fetched)
        brought = [Brought(step="", what=f"input {name}", value=value) for name, value in given.items()]
        values = {name: value for name, value in values.items() if name not in given}
    reads = {name: value for name, value in values.items() if name != "index"}  # the branch's name says it
    return brought + [Brought(step=handoff.step, what=f"reads {name}", value=value) for name, value in reads.items()]


def _read(plan: Plan | None, entries: Iterable[Entry], handoff: Handoff, fetched: Fetched) -> dict[str, Value]:
    if plan is None:
        return _all_of(handoff.state, fetched)
    given = given_to(entries, handoff.step) if joined(handoff) is not None else Given(handoff=handoff)
    try:
        return values_of(plan, given, fetched) if given is not None else {}
    except KeyError:  # a stranger's, which names what the flow has not
        return {}


def _all_of(state: State, fetched: Fetched) -> dict[str, Value]:
    values: dict[str, Value] = {**state.input, **state.outputs, **state.blobs}
    return {name: inline(value, fetched) for name, value in values.items()}
