"""A join that closed at its deadline, in a run that goes on: what is made anew rests on what its merger saw."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, JoinPolicy, Step
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.inputs import encode_input
from baton_schemas.run.carry import ERRORS, state_of_join
from baton_schemas.run.fork import copies, decided_by
from baton_schemas.run.joins import Chain
from baton_schemas.run.keeping import keeping, texts_needed
from baton_schemas.run.lifecycle import Begun, Create, Ended, SetTimer, Submitted, View, decide
from baton_schemas.run.past import Logged, Past, past_of
from baton_schemas.run.remaking import Texts, remade
from baton_schemas.wire.messages import Handoff, Message, Reply
from baton_schemas.wire.outcomes import Blob, Done, Error, State

PLANNED = Raw(b'"planned"')
GIVEN = State(input=encode_input({"topic": "tea", "tone": "dry"}))
EARLIER, LATER = (Error(step="plan", type="Oops", message=message) for message in ("earlier", "later"))
BESIDE = Blob(sha256="0" * 64, size_bytes=90)


def plan_of(*reads: str) -> Plan:
    """`merge` joins `dig`, which comes after `plan`, and `ask`, which is a first step; `write` reads what is said."""
    agents = {"x": Agent(handler="module:name", reads=[]), "last": Agent(handler="module:name", reads=[*reads])}
    steps = {
        "plan": Step(agent="x"),
        "dig": Step(agent="x", after=["plan"]),
        "ask": Step(agent="x"),
        "merge": Step(agent="x", after=["dig", "ask"], join=JoinPolicy(failed="skip", deadline_s=5.0)),
        "write": Step(agent="last", after=["merge"]),
    }
    return check_flow(Flow(name="any", input={"topic": Field(), "tone": Field()}, agents=agents, steps=steps))


def log_of(plan: Plan, **carried: Any) -> list[Logged]:
    """The log of a run whose join closed before any of its branches came; its deadline was set for `ask`."""

    def created(event: Any) -> Message:
        return next(each.message for each in decide(View(plan), event) if isinstance(each, Create))

    first = created(Submitted("run", GIVEN))
    assert isinstance(first, Handoff)
    (timer,) = [each for each in decide(View(plan), Begun(first, 1, 0.0)) if isinstance(each, SetTimer)]
    assert isinstance(timer.message, Reply)
    due = replace(timer.message, state=replace(timer.message.state, **carried))
    chain = Chain(plan, due)
    link = chain.link([due])
    assert link is not None
    chain.apply(link)
    closing = chain.closing()
    merged = created(Ended(closing, state_of_join(plan, closing, [due]), Done(output=Raw(b"1")), 1))
    planned = created(Ended(first, GIVEN, Done(output=PLANNED), 1))
    messages: list[Message] = [first, created(Begun(first, 1, 0.0)), planned, due, link, closing, merged]
    return [Logged(seq, "any--x", message) for seq, message in enumerate(messages, start=1)]


def made_of(past: Past, plan: Plan, texts: Texts | None = None, given: State = GIVEN) -> dict[str, Handoff]:
    """The handoffs that are made anew, by the step whose end they tell."""
    messages = [create.message for create in remade(past, plan, replace(past.first, state=given), 1, texts=texts)]
    return {decided_by(message): message for message in messages if isinstance(message, Handoff)}


def past_in(log: list[Logged]) -> Past:
    past = past_of(log)
    assert past is not None
    return past


def test_merger_saw_what_was_known_when_its_deadline_was_set() -> None:
    plan = plan_of("plan", "topic")
    log = log_of(plan)
    copied = {decided_by(create.message): create.message for create in copies(plan, log, "run", 1)}
    made = made_of(past_in(log), plan)
    assert made == {step: copied[step] for step in ("plan", "merge")}
    assert made["merge"].state == State(input={"topic": GIVEN.input["topic"]})


def test_what_is_newly_read_after_the_join_comes_from_the_branch_that_knows_it() -> None:
    made = made_of(past_in(log_of(plan_of())), plan_of("plan", "topic"))
    assert made["merge"].state == State(input={"topic": GIVEN.input["topic"]}, outputs={"plan": PLANNED})


def test_input_is_that_of_the_run_that_goes_on() -> None:
    plan = plan_of("topic", "tone")
    given = State(input={"topic": Raw(b'"coffee"')}, blobs={"tone": BESIDE})
    old = past_in(log_of(plan, input={"topic": GIVEN.input["topic"]}, blobs={"tone": replace(BESIDE, size_bytes=7)}))
    assert made_of(old, plan, given=given)["merge"].state == given


def test_errors_that_are_beside_the_log_are_carried_on_with_those_in_it() -> None:
    plan = plan_of("topic")
    past = past_in(log_of(plan, blobs={ERRORS: BESIDE}, errors=[LATER]))
    assert texts_needed(past, plan, keeping(past, plan, GIVEN)) == [BESIDE]
    made = made_of(past, plan, {BESIDE: Raw(msgspec.json.encode([EARLIER]))})
    assert made["merge"].state == State(input={"topic": GIVEN.input["topic"]}, errors=[EARLIER, LATER])


@pytest.mark.parametrize("text", [None, b"{}", b"\xff", b"[" * 100_000])
def test_join_is_done_again_when_nobody_can_read_the_errors_that_it_saw(text: bytes | None) -> None:
    past = past_in(log_of(plan_of("topic"), blobs={ERRORS: BESIDE}))
    assert made_of(past, plan_of("topic"), {} if text is None else {BESIDE: Raw(text)}).keys() == {"plan"}


def test_join_is_done_again_when_the_word_of_its_deadline_is_gone() -> None:
    log = [each for each in log_of(plan_of("topic")) if not isinstance(each.message, Reply)]
    assert made_of(past_in(log), plan_of("topic")).keys() == {"plan"}
