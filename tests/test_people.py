"""Questions to people: asked with nobody waiting, answered by anybody who may, once."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from msgspec import UNSET

from baton_actors import Context
from baton_actors.agents.asks import AskRefused
from baton_actors.services.clerk import Clerk
from baton_bus.client import people
from baton_bus.client.dead import rejected_messages
from baton_bus.engine.asking import Asking
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import open_bus
from baton_schemas.flow.flow import Again, Field, Step
from baton_schemas.run.asking import TIME_IS_UP
from baton_schemas.run.state import StepState
from baton_schemas.wire.messages import VERSION, Answer, Parked
from baton_schemas.wire.outcomes import Failed

from .servers import NatsServer, nats_server
from .team import Team, flow_of, team, value_of
from .timed import TEXT, process, timed, until_so

BOSS = flow_of({"lead": Step(agent="boss")}, TEXT)
YES_NO = ["yes", "no"]


class Counted:
    """A handler that asks editors once, and how often it was run."""

    def __init__(self, **asked: Any) -> None:
        self.calls, self._asked = 0, {"answers": YES_NO, **asked}

    async def boss(self, text: str, context: Context) -> Any:
        self.calls += 1
        return await context.ask_person("editors", f"Publish {text}?", **self._asked)


async def say(t: Team, run: str, word: Any, role: str = "editors", step: str = "lead") -> int:
    """Say something as a program does that knows only NATS; return the sequence of the word."""
    body = word if isinstance(word, bytes) else json.dumps(word).encode()
    ack = await t.bus.js.publish(f"{t.bus.settings.namespace}.say.{role}.{run}.{step}", body)
    return ack.seq


async def asked(t: Team, run: str) -> list[StepState]:
    """The questions of a run to people, as its state has them."""
    return [step for step in (await t.state(run)).steps.values() if step.asked == "person"]


async def until_asked(t: Team, run: str, count: int = 1) -> list[StepState]:
    async def are_there() -> bool:
        return len(await asked(t, run)) >= count

    await until_so(are_there)
    return await asked(t, run)


async def until_parked(t: Team, run: str) -> None:
    async def is_parked() -> bool:
        return any(isinstance(entry.message, Parked) for entry in await t.log(run))

    await until_so(is_parked)


async def rejected(t: Team, count: int = 1) -> list[str]:
    """Why words were rejected, once so many were, the newest first."""

    async def are_there() -> bool:
        return len(await rejected_messages(t.bus, count + 1)) >= count

    await until_so(are_there)
    return [each.reason for each in await rejected_messages(t.bus, count + 1)]


async def test_person_is_asked_with_nobody_waiting_and_answers(server: NatsServer, namespace: str) -> None:
    counted = Counted()
    async with timed(server, namespace, BOSS, {"boss": counted.boss}) as t:
        run = await t.submit(text="it")
        await until_parked(t, run)
        await t.until_settled("handoff", "boss")
        assert (await t.state(run)).steps["lead"].waits == "editors"
        await say(t, run, {"answer": "yes", "who": "ann", "note": "fine"})
        assert value_of((await t.result(run)).outcome) == "yes"
        assert counted.calls == 2
        (question,) = await asked(t, run)
        assert (question.question, question.expects) == ("Publish it?", '"yes" or "no"')
        assert (question.answered_by, question.note, question.source) == ("ann", "fine", "lead")


async def test_plain_handler_asks_a_person(server: NatsServer, namespace: str) -> None:
    def boss(text: str, context: Context) -> bool:
        return bool(context.ask_person("editors", text, returns=bool))

    async with timed(server, namespace, BOSS, {"boss": boss}) as t:
        run = await t.submit(text="Really?")
        await until_parked(t, run)
        await say(t, run, {"answer": "yes"})
        (reason,) = await rejected(t)
        assert reason == 'it is no answer to what editors are asked: found the string "yes"; expected bool'
        await say(t, run, {"answer": True})
        assert value_of((await t.result(run)).outcome) is True


class Verdict(msgspec.Struct):
    good: bool
    score: int
    why: str = "as ever"


async def test_answer_is_a_record_of_the_type_that_the_handler_wants(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> list[Any]:
        verdict = await context.ask_person("editors", text, returns=Verdict)
        chosen = await context.ask_person("editors", "Which?", returns=Literal["left", "right"])
        return [verdict, chosen]

    async with timed(server, namespace, BOSS, {"boss": boss}) as t:
        run = await t.submit(text="Judge!")
        (question,) = await until_asked(t, run)
        assert question.expects == "good (bool), score (int), why (str)"
        await say(t, run, {"answer": {"good": True}}, step=question.name)
        assert "answer.score: missing; expected int; it has: good" in (await rejected(t))[0]
        await say(t, run, {"answer": {"good": True, "score": 3}}, step=question.name)
        second = (await until_asked(t, run, 2))[1]
        await say(t, run, {"answer": "left"}, step=second.name)
        assert value_of((await t.result(run)).outcome) == [{"good": True, "score": 3, "why": "as ever"}, "left"]


async def test_first_who_answers_is_heard_and_the_second_is_told(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, BOSS, {"boss": Counted().boss}) as t:
        run = await t.submit(text="it")
        await until_parked(t, run)
        await say(t, run, {"answer": "no", "who": "ann"})
        await t.result(run)
        await say(t, run, {"answer": "yes", "who": "bob"})
        (reason,) = await rejected(t)
        assert reason.startswith("answered already by ann at 20")
        assert [each.reason for each in (await t.state(run)).rejected] == [reason]


@pytest.mark.parametrize("words", [1, 2, 8])
async def test_answers_at_the_very_moment_of_parking(server: NatsServer, namespace: str, words: int) -> None:
    """Whoever comes first, the run goes on with one of them, and all others are told."""
    async with timed(server, namespace, BOSS, {"boss": Counted().boss}) as t:
        runs = [await t.submit(text=str(number)) for number in range(20)]

        async def answer(run: str) -> None:
            (question,) = await until_asked(t, run)  # parked in this moment, or about to be
            given = [say(t, run, {"answer": "yes", "who": str(n)}, step=question.name) for n in range(words)]
            await asyncio.gather(*given)

        await asyncio.gather(*map(answer, runs))
        for run in runs:
            assert value_of((await t.result(run)).outcome) == "yes"
        assert len(await rejected(t, len(runs) * (words - 1))) == len(runs) * (words - 1)


async def test_run_that_waits_for_a_person_outlives_its_server_and_workers(tmp_path: Path, namespace: str) -> None:
    counted = Counted()
    async with (
        nats_server(tmp_path) as server,
        timed(server, namespace, BOSS, {"boss": counted.boss}, start=False) as t,
    ):
        async with process(t):
            run = await t.submit(text="it")
            await t.until_settled("handoff", "boss")
        await server.restart()
        await say(t, run, {"answer": "yes", "who": "ann"})  # nobody is up to take it
        async with process(t):
            assert value_of((await t.result(run)).outcome) == "yes"
        assert counted.calls == 2


async def test_clerk_that_dies_between_the_answer_and_the_wake_is_finished_by_another(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted()
    async with timed(server, namespace, BOSS, {"boss": counted.boss}, start=False, lease_s=1.0) as t:
        async with process(t):
            run = await t.submit(text="it")
            await t.until_settled("handoff", "boss")
        async with dying_clerk(t, monkeypatch) as died:
            seq = await say(t, run, {"answer": "yes"})
            await died.wait()
        (answer,) = [entry.message for entry in await t.log(run) if isinstance(entry.message, Answer)]
        assert answer.say == seq
        assert answer.wakes
        async with process(t):  # what is said is handed out again
            assert value_of((await t.result(run)).outcome) == "yes"
        assert await rejected_messages(t.bus, 1) == []


async def test_worker_that_dies_between_asking_and_parking_leaves_it_to_another(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, hangs = Counted(), asyncio.Event()

    async def park(*_: Any) -> None:
        hangs.set()
        await asyncio.Event().wait()

    async with timed(server, namespace, BOSS, {"boss": counted.boss}, start=False, lease_s=1.0) as t:
        with monkeypatch.context() as patch:
            patch.setattr(Asking, "park", park)
            async with process(t):
                run = await t.submit(text="it")
                await hangs.wait()
        async with process(t):
            await until_parked(t, run)
            assert len(await asked(t, run)) == 1, "it is asked once"
            await say(t, run, {"answer": "yes"})
            assert value_of((await t.result(run)).outcome) == "yes"


async def test_large_answer_is_kept_beside_the_log(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> int:
        return len(await context.ask_person("editors", text, returns=str))

    async with timed(server, namespace, BOSS, {"boss": boss}) as t:
        run = await t.submit(text="How much?")
        await until_parked(t, run)
        await say(t, run, {"answer": "x" * 500_000, "note": "y" * 5_000})
        assert value_of((await t.result(run)).outcome) == 500_000
        (question,) = await asked(t, run)
        assert question.blob is not None
        assert len(question.note) == 4_000


class Died(Exception):
    """A clerk is gone."""


def mortal(engine: Engine, dies_at: int, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> list[str]:
    """Let an engine die at an operation on the bus, by its number, before or after it; return those that it came to."""
    came_to: list[str] = []

    def wrap(owner: Any, name: str) -> None:
        do = getattr(owner, name)

        async def do_or_die(*given: Any) -> Any:
            came_to.append(name)
            if len(came_to) == dies_at and not after:
                raise Died
            found = await do(*given)
            if len(came_to) == dies_at and after:
                raise Died
            return found

        monkeypatch.setattr(owner, name, do_or_die)

    for name in ("create", "replace_last"):
        wrap(engine.bus, name)
    for name in ("last_sure", "matching_sure", "taken", "end"):
        wrap(engine.bus.log, name)
    return came_to


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", ["person", "event"])
async def test_clerk_that_dies_at_any_operation_leaves_nothing_undone(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, kind: str, after: bool
) -> None:
    async def boss(text: str, context: Context) -> Any:
        return await (context.ask_person("editors", text) if kind == "person" else context.wait_for("editors"))

    flow = flow_of({"lead": Step(agent="boss")}, TEXT, {"boss": {"park_after_s": 0.01}})
    async with team(server.url, namespace, flow, {"boss": boss}) as t:
        dies_at, came_to = 0, [""]
        while len(came_to) >= dies_at:
            dies_at += 1
            run = await t.submit(text="it")
            await until_parked(t, run)
            await t.until_settled("handoff", "boss")
            seq = await say(t, run, {"answer": dies_at}, step="lead" if kind == "person" else "-")
            subject = f"{namespace}.say.editors.{run}.{'lead' if kind == 'person' else '-'}"
            word = (seq, subject, json.dumps({"answer": dies_at}).encode())
            async with open_bus(t.bus.settings) as bus:
                with monkeypatch.context() as patch:
                    came_to = mortal(engine := Engine(bus), dies_at, patch, after=after)
                    with contextlib.suppress(Died):
                        await engine.saying.take(*word)
            await Engine(t.bus).saying.take(*word)  # it is handed out again
            assert value_of((await t.result(run)).outcome) == dies_at
            (answer,) = [entry.message for entry in await t.log(run) if isinstance(entry.message, Answer)]
            assert answer.say == seq
        assert dies_at > 6, came_to


@contextlib.asynccontextmanager
async def dying_clerk(t: Team, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[asyncio.Event]:
    """A clerk that is gone once it has written an answer: nothing follows, and nothing is acked."""
    died = asyncio.Event()
    engine = Engine(t.bus)
    record = engine.asking.record

    async def record_and_die(subject: str, answer: Answer) -> Answer:
        await record(subject, answer)
        died.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(engine.asking, "record", record_and_die)
    clerk = Clerk(engine)

    async def work() -> None:
        async with clerk.working():
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    yield died
    for task in asyncio.all_tasks():
        if task.get_coro().__qualname__ == "Words._take":  # type: ignore[union-attr]
            task.cancel()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)


@pytest.mark.parametrize("default", [UNSET, "no"])
async def test_nobody_answers_in_time(server: NatsServer, namespace: str, default: Any) -> None:
    counted = Counted(deadline_s=0.3, default=default)
    async with timed(server, namespace, BOSS, {"boss": counted.boss}) as t:
        run = await t.submit(text="it")
        result = await t.result(run)
        if default is UNSET:
            assert isinstance(result.outcome, Failed)
            assert TIME_IS_UP in result.outcome.error.message
        else:
            assert value_of(result.outcome) == "no"
        (question,) = await asked(t, run)
        assert question.by_itself
        assert counted.calls == 2
        await say(t, run, {"answer": "yes"})
        assert (await rejected(t))[0].startswith("its time was up at 20")


def person(**more: Any) -> dict[str, Any]:
    return {"handler": "", "person": "editors", "prompt": "Publish {text}?", "park_after_s": 60.0, **more}


@pytest.mark.parametrize(
    ("role", "step", "word", "reason"),
    [
        ("chiefs", "lead", {"answer": "yes"}, "'lead' asks editors, and not chiefs"),
        ("editors", "else", {"answer": "yes"}, "nothing that 'else' has asked editors is there"),
        ("editors", "editors--kaaaaaaaaaaaaaaaaaaaa", {"answer": "yes"}, "nobody has asked, or not yet"),
        ("editors", "lead", {"answer": "perhaps"}, 'found the string "perhaps"; expected "yes" or "no"'),
        ("editors", "lead", {"answer": ["yes"]}, 'found a list; expected "yes" or "no"'),
        ("editors", "lead", {"anwser": "yes"}, 'found null; expected "yes" or "no"'),
        ("editors", "lead", {"answer": "yes", "who": 7}, "Expected `str`, got `int` - at `$.who`"),
        ("editors", "lead", b"yes", "word: no JSON: JSON is malformed"),
        ("editors", "lead", b'{"answer": "\xff"}', "word.answer: the byte 0xff"),
        ("editors", "lead", b'{"answer": ' + b"[" * 9_000 + b"]" * 9_000 + b"}", "nested"),
        ("editors", "lead", {"kind": "result", "answer": "yes"}, "no word: Invalid value 'result'"),
        ("editors", "lead", {"v": 0, "answer": "yes"}, "no word: schema version 0 is unknown"),
        ("ed\N{LATIN SMALL LETTER I WITH DIAERESIS}tors", "lead", {"answer": "yes"}, "no valid names"),
    ],
)
async def test_word_that_is_no_answer_is_rejected_and_holds_nobody_up(
    server: NatsServer, namespace: str, role: str, step: str, word: Any, reason: str
) -> None:
    async with timed(server, namespace, BOSS, {"boss": Counted().boss}) as t:
        run = await t.submit(text="it")
        await until_asked(t, run)
        await say(t, run, word, role=role, step=step)
        (found,) = await rejected(t)
        assert reason in found
        await say(t, run, {"answer": "yes", "kind": "say", "v": 1})
        assert value_of((await t.result(run)).outcome) == "yes"


async def test_word_to_a_run_that_has_ended_or_never_was_is_rejected(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, BOSS, {"boss": Counted().boss}) as t:
        run = await t.submit(text="it")
        await until_asked(t, run)
        await t.client.run(run).cancel()
        await say(t, run, {"answer": "yes"})
        await say(t, "nothing", {"answer": "yes"})
        assert set(await rejected(t, 2)) == {"the run has ended: cancelled", "there is no run nothing"}
        assert not [entry for entry in await t.log(run) if isinstance(entry.message, Answer)]


async def test_word_of_a_later_release_is_given_back_and_not_rejected(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, BOSS, {"boss": Counted().boss}) as t:
        run = await t.submit(text="it")
        await until_asked(t, run)
        await say(t, run, {"v": VERSION + 1, "answer": "yes"})

        async def is_given_back() -> bool:
            info = await t.bus.js.consumer_info(t.bus.settings.namespace, "say")
            return info.num_ack_pending == 1 and info.delivered is not None and info.delivered.consumer_seq == 1

        await until_so(is_given_back)
        await say(t, run, {"answer": "no"})
        assert value_of((await t.result(run)).outcome) == "no"
        assert await rejected_messages(t.bus, 1) == []


async def test_step_with_two_open_questions_has_them_named(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> list[str]:
        asked = [context.ask_person("editors", f"{text} {number}") for number in range(2)]
        return list(await context.gather(*asked))

    async with timed(server, namespace, BOSS, {"boss": boss}) as t:
        run = await t.submit(text="it")
        first, second = await until_asked(t, run, 2)
        await say(t, run, {"answer": 1})
        (reason,) = await rejected(t)
        assert "has 2 open questions to editors; name one of them in its place: " in reason
        assert first.name in reason
        given = {first.question[-1]: "a", second.question[-1]: "b"}
        await say(t, run, {"answer": given[second.question[-1]]}, step=second.name)
        await until_so(lambda: _answered(t, run, 1))
        await say(t, run, {"answer": given[first.question[-1]]})  # now it is clear which is meant
        assert value_of((await t.result(run)).outcome) == [given["0"], given["1"]]


async def _answered(t: Team, run: str, count: int) -> bool:
    return sum(isinstance(entry.message, Answer) for entry in await t.log(run)) >= count


async def test_agent_that_is_asked_beside_a_person_is_not_kept_waiting(server: NatsServer, namespace: str) -> None:
    """Parked upon both, the step comes back with whoever may well be the first."""
    then: list[str] = []

    async def boss(text: str, context: Context) -> list[Any]:
        async def first_and_then() -> str:
            found = str(await context.ask("helper", topic=text))
            then.append(found)
            return found

        return list(await context.gather(context.ask_person("editors", text), first_and_then()))

    gate = asyncio.Event()

    async def helper(topic: str) -> str:
        await gate.wait()
        return topic.upper()

    agents: dict[str, Any] = {
        "boss": {"workers": ["helper"], "park_after_s": 0.1},
        "helper": {"input": {"topic": Field()}},
    }
    flow = flow_of({"lead": Step(agent="boss")}, TEXT, agents)
    async with timed(server, namespace, flow, {"boss": boss, "helper": helper}) as t:
        run = await t.submit(text="a")
        await t.until_settled("handoff", "boss")
        gate.set()
        await until_so(lambda: _is(then, ["A"]))
        await say(t, run, {"answer": "yes"})
        assert value_of((await t.result(run)).outcome) == ["yes", "A"]


async def _is(found: list[str], wanted: list[str]) -> bool:
    return found == wanted


@pytest.mark.parametrize("answers_first", ["editors", "chiefs", "event", "clock"])
async def test_whoever_answers_first_brings_the_step_back(
    server: NatsServer, namespace: str, answers_first: str
) -> None:
    """Nobody can know who will be the only one that ever answers."""

    async def boss(text: str, context: Context) -> Any:
        asked = [context.ask_person(role, text) for role in ("editors", "chiefs")]
        if answers_first == "clock":
            asked.append(context.sleep(0.4))
        asked.append(context.wait_for("event"))
        tasks = [asyncio.ensure_future(each) for each in asked]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return done.pop().result()

    flow = flow_of({"lead": Step(agent="boss")}, TEXT, {"boss": {"park_after_s": 0.1}})
    async with timed(server, namespace, flow, {"boss": boss}) as t:
        run = await t.submit(text="Who?")
        await until_parked(t, run)
        await t.until_settled("handoff", "boss")
        if answers_first != "clock":
            await say(t, run, {"answer": 1}, role=answers_first, step="-" if answers_first == "event" else "lead")
        assert value_of((await t.result(run)).outcome) == (None if answers_first == "clock" else 1)


async def test_question_is_withdrawn_when_its_step_has_ended_without_it(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        asked = [context.ask_person(role, text) for role in ("editors", "chiefs")] + [context.wait_for("paid")]
        tasks = [asyncio.ensure_future(each) for each in asked]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return str(done.pop().result())

    async def after(lead: str, context: Context) -> list[Any]:
        return [lead, await context.wait_for("paid")]

    steps = {"lead": Step(agent="boss"), "then": Step(agent="after", after=["lead"])}
    flow = flow_of(steps, TEXT, {"boss": {"park_after_s": 0.1}, "after": {"reads": ["lead"], "park_after_s": 0.1}})
    async with timed(server, namespace, flow, {"boss": boss, "after": after}) as t:
        run = await t.submit(text="Who?")
        await until_parked(t, run)
        await t.until_settled("handoff", "boss")
        assert len(await t.client.inbox()) == 2
        await say(t, run, {"answer": "mine"}, role="chiefs")
        await until_so(lambda: _nothing_waits(t))
        await say(t, run, {"answer": "late"})
        assert "not to be answered any more since" in (await rejected(t))[0]
        await say(t, run, {"answer": 3}, role="paid", step="-")
        assert value_of((await t.result(run)).outcome) == ["mine", 3]
        assert {step.error.type for step in await asked(t, run) if step.error} == {"Withdrawn"}


async def _nothing_waits(t: Team) -> bool:
    return not await t.client.inbox()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"role": "the editors"}, "found 'the editors'; expected 1 to 64 characters"),
        ({"role": "a--b"}, "without a double hyphen"),
        ({"role": ""}, "expected 1 to 64 characters"),
        ({"question": " "}, "found no text"),
        ({"question": "\ud800"}, "a lone surrogate"),
        ({"answers": []}, "found []"),
        ({"answers": "yes"}, "found 'yes'"),
        ({"answers": ["a", "a"]}, "found 'a' twice"),
        ({"answers": [1, 2]}, "found 1; expected texts"),
        ({"default": "yes"}, "it needs a `deadline_s`"),
        ({"default": "perhaps", "deadline_s": 1}, 'expected an answer: found the string "perhaps"'),
        ({"deadline_s": -1}, "deadline_s: -1; expected seconds"),
        ({"deadline_s": float("nan")}, "deadline_s: nan; expected seconds"),
        ({"question": "x" * 2_000_000}, "bytes"),
    ],
)
async def test_question_that_cannot_be_asked_is_refused(
    server: NatsServer, namespace: str, arguments: dict[str, Any], reason: str
) -> None:
    async def boss(text: str, context: Context) -> str:
        given: dict[str, Any] = {"answers": YES_NO, **arguments}
        role, question = given.pop("role", "editors"), given.pop("question", "Yes?")
        with pytest.raises(AskRefused) as refused:
            await context.ask_person(role, question, **given)
        return str(refused.value)

    async with team(server.url, namespace, BOSS, {"boss": boss}) as t:
        assert reason in value_of((await t.run(text="it")).outcome)


# ---- people in flows ---------------------------------------------------------------------------------


async def test_step_of_a_flow_is_a_person(server: NatsServer, namespace: str) -> None:
    async def write(text: str) -> str:
        return text.upper()

    async def publish(approve: str, write: str) -> str:
        return f"{write}: {approve}"

    steps = {
        "write": Step(agent="write"),
        "approve": Step(agent="approve", after=["write"]),
        "publish": Step(agent="publish", after=["approve"]),
    }
    agents = {
        "write": {"reads": ["text"]},
        "approve": person(prompt="Publish {write}?", answers=YES_NO),
        "publish": {"reads": ["approve", "write"]},
    }
    flow = flow_of(steps, TEXT, agents)
    async with timed(server, namespace, flow, {"write": write, "publish": publish}) as t:
        run = await t.submit(text="news")
        (question,) = await until_asked(t, run)
        await t.until_settled("handoff", "approve")
        assert question.question == "Publish NEWS?"
        state = await t.state(run)
        assert state.steps["approve"].waits == "editors"
        await say(t, run, {"answer": "yes", "who": "ann"}, step="approve")
        assert value_of((await t.result(run)).outcome) == "NEWS: yes"


async def test_person_is_asked_in_each_round_of_a_loop(server: NatsServer, namespace: str) -> None:
    async def write(text: str, approve: str | None = None) -> str:
        return f"{text}, as the last was {approve}" if approve else text

    again = Again(start="write", when={"approve": "no"}, max_rounds=3)
    steps = {
        "write": Step(agent="write"),
        "approve": Step(agent="approve", after=["write"], again=again),
    }
    agents = {
        "write": {"reads": ["text", "approve"]},
        "approve": person(prompt="Publish {write}?", answers=YES_NO),
    }
    async with timed(server, namespace, flow_of(steps, TEXT, agents), {"write": write}) as t:
        run = await t.submit(text="news")
        for count, word in enumerate(["no", "yes"], 1):
            await until_asked(t, run, count)
            assert await people.answer(Engine(t.bus), run, "approve", word, who="ann", note="", role="", wait_s=5)
        assert value_of((await t.result(run)).outcome) == "yes"
        questions = [(each.source, each.question) for each in await asked(t, run)]
        assert questions == [("approve", "Publish news?"), ("approve--r2", "Publish news, as the last was no?")]


async def test_person_is_one_of_the_workers_of_an_agent(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        return str(await context.ask("chief", topic=text))

    agents: dict[str, Any] = {
        "boss": {"workers": ["chief"], "park_after_s": 0.1},
        "chief": person(prompt="What of {topic}?", input={"topic": Field()}),
    }
    flow = flow_of({"lead": Step(agent="boss")}, TEXT, agents)
    async with timed(server, namespace, flow, {"boss": boss}) as t:
        run = await t.submit(text="it")
        (question,) = await until_asked(t, run)
        assert question.question == "What of it?"
        assert question.source.startswith("chief--k")
        await t.until_settled("handoff", "chief")
        await t.until_settled("handoff", "boss")
        await say(t, run, {"answer": "fine"}, step=question.source)
        assert value_of((await t.result(run)).outcome) == "fine"


async def test_person_is_asked_for_each_item(server: NatsServer, namespace: str) -> None:
    async def merge(judge: list[dict[str, Any]]) -> list[Any]:
        return [each["score"] for each in judge]

    steps = {"judge": Step(agent="judge", each="texts"), "merge": Step(agent="merge", after=["judge"])}
    agents = {"judge": person(prompt="How is {item}?", output={"score": Field(type="int")})}
    flow = flow_of(steps, {"texts": Field(type="list[str]")}, agents)
    async with timed(server, namespace, flow, {"merge": merge}) as t:
        run = await t.submit(texts=["0", "1", "2"])
        for question in await until_asked(t, run, 3):
            index = int(question.question[-2])
            assert question.source == f"judge-{index}"
            await say(t, run, {"answer": {"score": index * 10}}, step=question.source)
        assert value_of((await t.result(run)).outcome) == [0, 10, 20]


async def test_hostile_words_by_the_thousand_hold_nobody_up(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, BOSS, {"boss": Counted().boss}) as t:
        run = await t.submit(text="it")
        await until_asked(t, run)
        bodies = [b"\xff\xfe", b"[]", b'{"answer": "maybe"}', b'{"answer": 1e999}', b"{" * 500, b'{"who": null}']
        steps = ["lead", "-", "editors--kaaaaaaaaaaaaaaaaaaaa", "x" * 300, "\N{SNOWMAN}"]
        flood = [
            t.bus.nc.publish(f"{namespace}.say.{role}.{at}.{steps[number % 5]}", bodies[number % 6])
            for number in range(2_500)
            for role, at in [(("editors", "x", "a b")[number % 3].replace(" ", "_"), (run, "r")[number % 2])]
        ]
        await asyncio.gather(*flood)
        await say(t, run, {"answer": "yes", "who": "ann"})
        result = await asyncio.wait_for(t.result(run), 60)
        assert value_of(result.outcome) == "yes"
        answers = [entry.message for entry in await t.log(run) if isinstance(entry.message, Answer)]
        assert [answer.who for answer in answers] == ["ann"]
        assert len((await t.state(run)).rejected) <= 20
