"""Events from outside: the first word of a name goes to the first who waits for it, whichever of them came first."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton_actors import Context
from baton_actors.agents.asks import AskFailed, AskRefused
from baton_bus.client.dead import rejected_messages
from baton_bus.engine.awaited import Open
from baton_bus.engine.engine import Engine
from baton_schemas.flow.flow import Step
from baton_schemas.run.asking import by_itself, child_of
from baton_schemas.run.words import words_of
from baton_schemas.wire.messages import Answer, Asked, Handoff
from baton_schemas.wire.outcomes import Failed

from .servers import NatsServer
from .team import Team, flow_of, team, value_of
from .test_people import rejected, say, until_parked
from .timed import TEXT, TEXTS, process, timed, until_so

FLOW = flow_of({"lead": Step(agent="boss")}, TEXT)
SOON = flow_of({"lead": Step(agent="boss")}, TEXT, {"boss": {"park_after_s": 0.1}})


async def event(t: Team, run: str, word: Any, name: str = "paid") -> int:
    return await say(t, run, word, role=name, step="-")


async def answers(t: Team, run: str) -> list[Answer]:
    return [entry.message for entry in await t.log(run) if isinstance(entry.message, Answer)]


async def until_waits(t: Team, run: str, count: int = 1) -> None:
    async def are_there() -> bool:
        found = [entry.message for entry in await t.log(run) if isinstance(entry.message, Handoff)]
        return sum(isinstance(each.cause, Asked) for each in found) >= count

    await until_so(are_there)


async def until_taken(t: Team, count: int) -> None:
    """Wait until the clerk is done with so many words."""

    async def are_acked() -> bool:
        info = await t.bus.js.consumer_info(t.bus.settings.namespace, "say")
        return info.ack_floor is not None and info.ack_floor.consumer_seq >= count

    await until_so(are_acked)


async def wait_twice(text: str, context: Context) -> list[Any]:
    return [await context.wait_for("paid"), await context.wait_for("paid", returns=dict[str, int])]


async def test_events_come_in_their_order(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, FLOW, {"boss": wait_twice}) as t:
        run = await t.submit(text="a")
        await until_waits(t, run)
        first = await event(t, run, {"answer": "one", "who": "shop"})
        second = await event(t, run, {"answer": {"two": 2}})
        assert value_of((await t.result(run)).outcome) == ["one", {"two": 2}]
        assert [(answer.say, answer.who) for answer in await answers(t, run)] == [(first, "shop"), (second, "")]
        assert await rejected_messages(t.bus, 1) == []


async def test_events_that_come_before_they_are_waited_for_are_kept(server: NatsServer, namespace: str) -> None:
    begin = asyncio.Event()

    async def boss(text: str, context: Context) -> list[Any]:
        await begin.wait()
        return [await context.wait_for("paid") for _ in range(3)]

    async with timed(server, namespace, FLOW, {"boss": boss}) as t:
        run = await t.submit(text="a")
        for number in range(2):
            await event(t, run, {"answer": number})
        await until_taken(t, 2)
        begin.set()
        await until_waits(t, run, 3)
        await event(t, run, {})
        assert value_of((await t.result(run)).outcome) == [0, 1, None]


async def test_plain_handler_waits_for_an_event(server: NatsServer, namespace: str) -> None:
    def boss(text: str, context: Context) -> int:
        return int(context.wait_for("order-007", returns=int))

    async with timed(server, namespace, FLOW, {"boss": boss}) as t:
        run = await t.submit(text="a")
        await until_waits(t, run)
        await event(t, run, {"answer": 5}, name="order-007")
        assert value_of((await t.result(run)).outcome) == 5


async def test_step_that_waits_long_for_an_event_is_parked_and_outlives_its_worker(
    server: NatsServer, namespace: str
) -> None:
    async with timed(server, namespace, SOON, {"boss": wait_twice}, start=False) as t:
        async with process(t):
            run = await t.submit(text="a")
            await until_parked(t, run)
            await t.until_settled("handoff", "boss")
            assert (await t.state(run)).steps["lead"].waits == "the event paid"
        await event(t, run, {"answer": 1})
        await event(t, run, {"answer": {"two": 2}})
        async with process(t):
            assert value_of((await t.result(run)).outcome) == [1, {"two": 2}]


async def test_time_is_up_and_the_event_is_for_the_next_who_waits(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> list[Any]:
        try:
            await context.wait_for("paid", deadline_s=0.2)
        except AskFailed as error:
            first = error.error.type
        second = await context.wait_for("paid", deadline_s=0.2, default=None)
        return [first, second, await context.wait_for("paid")]

    async with timed(server, namespace, FLOW, {"boss": boss}) as t:
        run = await t.submit(text="a")
        await until_waits(t, run, 3)
        await event(t, run, {"answer": "late"})
        assert value_of((await t.result(run)).outcome) == ["DeadlinePassed", None, "late"]


async def test_steps_beside_each_other_get_one_event_each(server: NatsServer, namespace: str) -> None:
    async def boss(item: str, context: Context) -> Any:
        return await context.wait_for("paid")

    async def merge(lead: list[int]) -> list[int]:
        return sorted(lead)

    steps = {"lead": Step(agent="boss", each="texts"), "merge": Step(agent="merge", after=["lead"])}
    flow = flow_of(steps, TEXTS, {"merge": {"reads": ["lead"]}})
    async with timed(server, namespace, flow, {"boss": boss, "merge": merge}) as t:
        run = await t.submit(texts=[str(number) for number in range(20)], title="")
        await asyncio.gather(*(event(t, run, {"answer": number}) for number in range(20)))
        assert value_of((await t.result(run)).outcome) == list(range(20))
        assert len({answer.say for answer in await answers(t, run)}) == 20


@pytest.mark.parametrize("first", ["word", "child"])
@pytest.mark.parametrize("looks", ["before", "after"])
async def test_word_and_who_waits_for_it_meet_in_whatever_order_they_write_and_read(
    server: NatsServer, namespace: str, first: str, looks: str
) -> None:
    """Each writes, then looks for the other: there is no order in which both have looked and neither has seen."""
    async with timed(server, namespace, FLOW, {"boss": wait_twice}, start=False) as t:
        run = await t.submit(text="a")
        engine = Engine(t.bus)
        entry, lead = await engine.runs.first(run)
        cause = Asked(step="lead", actor=t.actor("boss"), kind="event")
        child = Handoff(
            run=run,
            flow="flow",
            digest=lead.digest,
            start_seq=entry.seq,
            step="paid--kaaaaaaaaaaaaaaaaaaaa",
            cause=cause,
        )

        async def asks() -> None:
            await engine.asking.ask("-event", child)

        seqs: list[int] = []

        async def says() -> None:
            seqs.append(await event(t, run, {"answer": 1}))

        async def clerk() -> None:
            await engine.saying.take(seqs[0], f"{namespace}.say.paid.{run}.-", b'{"answer": 1}')

        writes = {"word": [says, asks], "child": [asks, says]}[first]

        async def hears() -> None:
            await engine.saying.hear(child)

        reads = {"word": clerk, "child": hears}
        other = {"word": "child", "child": "word"}[first]
        await writes[0]()
        if looks == "before":  # it looks when the other has not written: it cannot see it
            await reads[first]()
            assert await answers(t, run) == []
        await writes[1]()
        await reads[other]()  # the other looks last: it must see what was written before
        assert [answer.say for answer in await answers(t, run)] == seqs
        await reads[first]()  # and whoever looks again changes nothing
        assert [answer.say for answer in await answers(t, run)] == seqs
        await t.client.run(run).cancel()


async def test_step_that_is_done_again_hears_the_event_that_came_when_nobody_was_there(
    server: NatsServer, namespace: str
) -> None:
    """Its first worker had asked and died, and no clerk was up: whoever comes next looks for what came."""

    async def boss(text: str, context: Context) -> Any:
        return await context.wait_for("paid")

    async with team(server.url, namespace, FLOW, {"boss": boss}, start=False) as t:
        run = await t.submit(text="a")
        engine = Engine(t.bus)
        entry, lead = await engine.runs.first(run)
        cause = Asked(step="lead", actor=t.actor("boss"), kind="event", number=1)
        token = child_of("lead", "event", "paid", None, 1)
        child = Handoff(run=run, flow="flow", digest=lead.digest, start_seq=entry.seq, step=token, cause=cause)
        assert await engine.asking.ask("-event", child) is None
        seq = await event(t, run, {"answer": 1})
        async with t.process(grace_s=0.1):
            assert value_of((await t.result(run)).outcome) == 1
        assert [answer.say for answer in await answers(t, run)] == [seq]


async def test_clerk_loses_the_race_against_a_deadline_and_gives_the_word_to_the_next(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with timed(server, namespace, FLOW, {"boss": wait_twice}, start=False) as t:
        run = await t.submit(text="a")
        engine = Engine(t.bus)
        entry, lead = await engine.runs.first(run)
        children = [
            Handoff(
                run=run,
                flow="flow",
                digest=lead.digest,
                start_seq=entry.seq,
                step=f"paid--k{letter * 20}",
                cause=Asked(step="lead", actor=t.actor("boss"), kind="event", number=number),
            )
            for number, letter in enumerate("ab", 1)
        ]
        for child in children:
            await engine.asking.ask("-event", child)
        seq = await event(t, run, {"answer": 1})
        write = engine.saying._answer

        async def time_is_up_first(found: Open, *rest: Any) -> Answer:
            monkeypatch.setattr(engine.saying, "_answer", write)
            assert found.child.step == children[0].step
            await engine.asking.answer(t.actor("boss"), by_itself(found.child, entry.seq))
            return await write(found, *rest)

        monkeypatch.setattr(engine.saying, "_answer", time_is_up_first)
        await engine.saying.take(seq, f"{namespace}.say.paid.{run}.-", b'{"answer": 1}')
        first, second = await answers(t, run)
        assert isinstance(first.outcome, Failed)
        assert (second.child, second.say) == (children[1].step, seq)
        await t.client.run(run).cancel()


async def test_event_of_a_run_that_is_not_there_or_has_ended_is_rejected(server: NatsServer, namespace: str) -> None:
    async def boss(text: str) -> str:
        return text

    async with timed(server, namespace, FLOW, {"boss": boss}) as t:
        run = await t.submit(text="a")
        await t.result(run)
        await event(t, run, {"answer": 1})
        await event(t, "nothing", {"answer": 1})
        assert set(await rejected(t, 2)) == {
            "the run has ended: done",
            "there is no run nothing, or it had not begun",
        }


async def test_event_that_comes_before_its_run_is_rejected_though_the_run_is_there_when_somebody_looks(
    server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, FLOW, {"boss": wait_twice}, start=False) as t:
        await event(t, "later", {"answer": "early"})
        run = await t.submit("later", text="a")
        async with process(t):
            assert set(await rejected(t, 1)) == {"there is no run later, or it had not begun"}
            await event(t, run, {"answer": "one"})
            await event(t, run, {"answer": {"two": 2}})
            assert value_of((await t.result(run)).outcome) == ["one", {"two": 2}]


async def test_event_that_comes_before_all_first_steps_are_handed_on_is_kept(
    server: NatsServer, namespace: str
) -> None:
    async def beside(text: str) -> str:
        return text

    steps = {
        "lead": Step(agent="boss"),
        "beside": Step(agent="beside"),
        "close": Step(agent="close", after=["lead", "beside"]),
    }
    agents = {"close": {"reads": ["lead", "beside"]}}

    async def close(lead: list[Any], beside: str) -> list[Any]:
        return [*lead, beside]

    handlers = {"boss": wait_twice, "beside": beside, "close": close}
    async with team(server.url, namespace, flow_of(steps, TEXT, agents), handlers, start=False) as t:
        run = await t.submit(text="a")  # the handoff to the second is written when the first is taken
        seqs = [await event(t, run, {"answer": "one"}), await event(t, run, {"answer": {"two": 2}})]
        async with process(t):
            assert value_of((await t.result(run)).outcome) == ["one", {"two": 2}, "a"]
        assert [answer.say for answer in await answers(t, run)] == seqs
        assert await rejected_messages(t.bus, 1) == []


async def test_word_that_comes_again_when_its_run_has_ended_by_it_is_not_rejected(
    server: NatsServer, namespace: str
) -> None:
    async def boss(text: str, context: Context) -> Any:
        return await context.wait_for("paid")

    async with timed(server, namespace, FLOW, {"boss": boss}) as t:
        run = await t.submit(text="a")
        await until_waits(t, run)
        seq = await event(t, run, {"answer": 1})
        assert value_of((await t.result(run)).outcome) == 1
        await Engine(t.bus).saying.take(seq, f"{namespace}.say.paid.{run}.-", b'{"answer": 1}')
        assert [answer.say for answer in await answers(t, run)] == [seq]


async def test_unreadable_word_counts_for_nothing(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, FLOW, {"boss": wait_twice}) as t:
        run = await t.submit(text="a")
        await until_waits(t, run)
        await event(t, run, b"{")
        await event(t, run, b'{"answer": "\xff"}')
        await event(t, run, {"answer": "one"})
        await event(t, run, {"answer": {"two": 2}})
        assert value_of((await t.result(run)).outcome) == ["one", {"two": 2}]
        assert len(await rejected(t, 2)) == 2


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a--b", "-a", "a-", "x" * 65, 7, None])
async def test_name_that_is_none_is_refused(server: NatsServer, namespace: str, name: Any) -> None:
    async def boss(text: str, context: Context) -> str:
        with pytest.raises(AskRefused, match="expected 1 to 64 characters"):
            await context.wait_for(name)
        return "refused"

    async with team(server.url, namespace, FLOW, {"boss": boss}) as t:
        assert value_of((await t.run(text="a")).outcome) == "refused"


async def test_event_that_does_not_fit_is_an_error_that_may_be_caught(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> str:
        try:
            return str(await context.wait_for("paid", returns=int))
        except AskRefused as error:
            return str(error)

    async with timed(server, namespace, FLOW, {"boss": boss}) as t:
        run = await t.submit(text="a")
        await event(t, run, {"answer": "one"})
        assert "what paid gave does not fit `returns`" in value_of((await t.result(run)).outcome)


# ---- who gets which ----------------------------------------------------------------------------------


def test_words_go_to_those_who_wait_in_the_order_of_the_log() -> None:
    assert words_of([(1, "a"), (2, "b")], [3, 4], {}) == {"a": 3, "b": 4}
    assert words_of([(3, "a"), (4, "b")], [1, 2], {}) == {"a": 1, "b": 2}
    assert words_of([(1, "a"), (4, "b")], [3], {"a": (2, 0)}) == {"b": 3}, "whose time was up waits no more"
    assert words_of([(1, "a"), (2, "b")], [3], {"a": (4, 0)}) == {"b": 3}, "the word that was meant for it is free"
    assert words_of([(1, "a")], [3], {"a": (4, 3)}) == {"a": 3}


@given(st.lists(st.sampled_from(["asks", "word", "gone", "answered"]), max_size=14), st.randoms())
def test_whatever_is_written_by_whoever_last_looked_no_word_is_given_twice(moments: list[str], dice: Any) -> None:
    """Writers act on what they saw at any earlier moment; only the first answer to a child is stored."""
    children: list[tuple[int, str]] = []
    words: list[int] = []
    answers: dict[str, tuple[int, int]] = {}
    views: list[dict[str, int]] = []
    for seq, what in enumerate(moments, 1):
        still = [key for _, key in children if key not in answers]
        if what == "asks":
            children.append((seq, f"c{seq}"))
        elif what == "word":
            words.append(seq)
        elif what == "gone" and still:
            answers[dice.choice(still)] = (seq, 0)
        elif what == "answered" and views:
            key, word = dice.choice([(key, word) for view in views for key, word in view.items()] or [("", 0)])
            if key and key not in answers:  # the write is create-only
                answers[key] = (seq, word)
        views.append(words_of(children, words, answers))
        used = [word for _, word in answers.values() if word]
        assert len(used) == len(set(used))
        assert all(views[-1].get(key) == word for key, (_, word) in answers.items() if word)
        assert len(set(views[-1].values())) == len(views[-1])
        waiting = [key for _, key in children if key not in answers and key not in views[-1]]
        assert not waiting or set(words) <= set(views[-1].values()), "nobody waits while there is a word"
