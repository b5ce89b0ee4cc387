"""Seeing a step: all that a log says of it, put together from its entries. Pure; who has a bus fetches the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.graph import Plan
from baton_schemas.flow.prompts import Filled, MissingValue
from baton_schemas.run.branches import ends_seen, fan_outs
from baton_schemas.run.carry import find, state_at
from baton_schemas.run.child_runs import runs_asked
from baton_schemas.run.refs import parse, whole
from baton_schemas.run.state import Entry, RunState, StepState
from baton_schemas.wire.facts import Exchange, Fact, ModelCall, Offered, Recorded, Spent, ToolCall
from baton_schemas.wire.messages import Note
from baton_schemas.wire.names import child_run
from baton_schemas.wire.outcomes import Blob, Value

from .asked import Asked, asked_by, filled_by, proof_of
from .attempts import attempts_of
from .children import Children, is_child
from .given import Fetched, Given, blobs_of, given_to, replies_of, values_of
from .given import inline as inlined
from .standing import says_of, status_of
from .step import RecordedSeen, StepSeen, branches_of, children_of, count_of
from .tool_calls import offered_in, tools_seen

_NO_ERRORS = Raw(b"[]")
_Parts = tuple[tuple[Filled, ...], tuple[Filled, ...]]
_NO_PARTS: _Parts = ((), ())


def see(
    plan: Plan,
    state: RunState,
    entries: Sequence[Entry],
    step: str,
    *,
    fetched: Fetched | None = None,
    lacking: Mapping[str, str] | None = None,
    running: int = 0,
    now: datetime | None = None,
) -> StepSeen:
    """Return what `entries`, whose fold is `state`, say of a step that `step_of` gave.

    `fetched` are values from beside the log (see `wanted`), `lacking` says why others were not; `running` is the
    attempt that a worker says it is making.
    """
    child = is_child(step)
    base, own = step if child else plan.name_of(step), state.steps.get(step)
    given = given_to(entries, step)
    facts = [entry.message.fact for entry in entries if isinstance(entry.message, Note) and entry.message.step == step]
    calls = [_whole(fact, fetched or {}) for fact in facts if isinstance(fact, ModelCall)]
    values, asked, parts = _read_and_asked(plan, step, given, facts, fetched or {})
    attempts = attempts_of(entries, own) if own is not None else []
    hashes = [*(each.request_sha256 for each in attempts), *(call.request_sha256 for call in calls)]
    recorded = tuple(dict.fromkeys(found for found in reversed(hashes) if found))
    branches = branches_of(state, step) if not child and plan.step(base).each and step == whole(step) else []
    children = Children(state)
    agent = _agent_of(plan, step, own)
    reused_from = state.forked_from if own is not None and own.reused else ""
    seen = StepSeen(
        run=state.run,
        flow=plan.flow.name,
        step=step,
        of=base,
        status=status_of(state, own, branches, running),
        says="",
        agent=agent,
        handler=plan.flow.agents[agent].handler if agent else "",
        person=plan.flow.agents[agent].person if agent else "",
        runs_flow=nested.flow.name if agent and (nested := plan.nested_of(agent)) is not None else "",
        actor=plan.actor_of_agent(agent) if agent else "",
        index=parse(step).index if step != base else None,
        count=len(branches) if branches else count_of(state, whole(step)) if step != whole(step) else 0,
        state=own,
        values=values,
        missing=given.missing if given is not None else (),
        asked=asked,
        filled=parts,
        recorded=recorded,
        proof=proof_of(asked, recorded) if asked is not None else "",
        calls=calls,
        tools=tools_seen(facts, calls, fetched or {}),
        exchanges=[_with_body(fact, fetched or {}) for fact in facts if isinstance(fact, Exchange)],
        spent=[fact for fact in facts if isinstance(fact, Spent)],
        attempts=attempts,
        branches=branches,
        people=[each for each in state.steps.values() if each.asked in ("person", "event") and each.source == step],
        output=_output(own, fetched or {}),
        error=own.error if own is not None else None,
        runs=runs_asked(state).get(step, []),
        reused_from=reused_from,
        label=children.label(step) if child else "",
        kind=(own.asked or "agent") if child and own is not None else None,
        asked_by=children.label(own.source) if child and own is not None else "",
        asker=own.source if child and own is not None else "",
        child_run=child_run(state.run, parse(step).key) if own is not None and own.asked == "flow" else "",
        answered_by=own.answered_by if own is not None else "",
        answer_note=own.note if own is not None else "",
        children=children_of(children, step),
        unasked=own.unasked if own is not None else 0,
        recorded_values=[_recorded(fact, fetched or {}) for fact in facts if isinstance(fact, Recorded)],
        lacking=dict(lacking or {}),
    )
    return replace(seen, says=says_of(plan, state, seen, running, now))


def _agent_of(plan: Plan, step: str, own: StepState | None) -> str:
    """Return the agent that does a step; none of a child that no worker does, or that the flow has no agent for."""
    if is_child(step) and own is not None and own.asked not in (None, "agent", "person"):
        return ""
    name = plan.agent_of(step)
    return name if name in plan.flow.agents else ""


def _recorded(fact: Recorded, fetched: Fetched) -> RecordedSeen:
    return RecordedSeen(name=fact.name, number=fact.number, value=inlined(fact.blob or fact.value, fetched))


def _whole(call: ModelCall, fetched: Fetched) -> ModelCall:
    text = fetched.get(call.blob.sha256) if call.blob is not None else None
    content = fetched.get(call.content_blob.sha256) if call.content_blob is not None else None
    call = replace(call, text=Raw(text), blob=None) if text is not None else call
    return replace(call, content=Raw(content), content_blob=None) if content is not None else call


def _with_body(exchange: Exchange, fetched: Fetched) -> Exchange:
    data = fetched.get(exchange.blob.sha256) if exchange.blob is not None else None
    return replace(exchange, body=Raw(data), blob=None) if data is not None else exchange


def wanted(plan: Plan, state: RunState, entries: Sequence[Entry], step: str) -> list[Blob]:
    """Return what is to be fetched from beside the log to see all of a step: what it reads, and its output."""
    given, own = given_to(entries, step), state.steps.get(step)
    found = _blobs_of(plan, given) if given is not None else []
    if own is not None and own.blob is not None:
        found.append(own.blob)
    calls = [entry.message.fact for entry in entries if isinstance(entry.message, Note) and entry.message.step == step]
    of_calls = [blob for call in calls if isinstance(call, ModelCall) for blob in (call.blob, call.content_blob)]
    of_calls += [call.blob for call in calls if isinstance(call, Exchange | Recorded | ToolCall | Offered)]
    found += [blob for blob in of_calls if blob is not None]
    return list({blob.sha256: blob for blob in found}.values())


def _blobs_of(plan: Plan, given: Given) -> list[Blob]:
    try:
        return blobs_of(plan, given)
    except KeyError:  # a stranger's handoff, which names what the flow has not
        return []


def _read_and_asked(
    plan: Plan, step: str, given: Given | None, facts: Sequence[Fact], fetched: Fetched
) -> tuple[dict[str, Value], Asked | None, _Parts]:
    if given is None:
        return {}, None, _NO_PARTS
    try:
        values = values_of(plan, given, fetched)
    except KeyError:
        return {}, None, _NO_PARTS
    inline = {name: value for name, value in values.items() if not isinstance(value, Blob)}
    agent = plan.flow.agents.get(plan.agent_of(step))
    if agent is None or not agent.asks_models or len(inline) < len(values) or given.missing or _lacks(given, fetched):
        return values, None, _NO_PARTS
    try:
        branches = {}
        if not is_child(step):
            base = plan.name_of(step)
            wanted = fan_outs(plan, base) & plan.reads[base]
            came = find(state_at(given.handoff), plan.opening(base))
            came = inlined(came, fetched) if came is not None else None
            if isinstance(came, Blob):
                return values, None, _NO_PARTS
            branches = ends_seen(plan, base, replies_of(given, fetched), came, inline, wanted)
        offered = offered_in(facts, fetched)
        if isinstance(offered, Blob):
            return values, None, _NO_PARTS
        known = {"errors": _NO_ERRORS, **inline}
        asked = asked_by(plan, step, known, branches, offered or ())
        system, prompt = filled_by(plan, step, known, branches)
        return values, asked, (tuple(system), tuple(prompt))
    except MissingValue:  # then nothing was asked
        return values, None, _NO_PARTS
    except (ValueError, TypeError, KeyError, RecursionError):  # msgspec's errors are ValueErrors
        return values, None, _NO_PARTS


def _lacks(given: Given, fetched: Fetched) -> bool:
    """Say whether a branch's output, or errors that came with it, are beside the log and were not fetched."""
    blobs = [getattr(reply.outcome, "blob", None) for reply in given.replies]
    blobs += [reply.state.blobs.get("errors") for reply in given.replies]
    blobs.append(given.handoff.state.blobs.get("errors"))
    return any(blob is not None and blob.sha256 not in fetched for blob in blobs)


def _output(own: StepState | None, fetched: Fetched) -> Value | None:
    if own is None or own.status != "done":
        return None
    if own.blob is None:
        return own.output
    data = fetched.get(own.blob.sha256)
    return Raw(data) if data is not None else own.blob
