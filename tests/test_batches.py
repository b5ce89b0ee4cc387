"""Batches: model calls that are gathered and sent as one, each settled as if it had been made at once."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from baton_actors import Flow
from baton_actors.agents.loading import FoundFlow
from baton_actors.batches import one, sending
from baton_actors.models import ModelRequest, Models, ModelSettings
from baton_bus import Settings
from baton_bus.client.purge import Choice, plan_purge, purge
from baton_bus.client.survey import survey
from baton_bus.engine.journal import Journal
from baton_bus.store.bus import open_bus
from baton_schemas.errors import FlowError
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.show.children import Children
from baton_schemas.show.lines import one_line
from baton_schemas.wire.facts import BatchEnded, BatchSending, BatchSent, InBatch, ModelCall, Retry, Spent
from baton_schemas.wire.messages import Batch, Handoff, Note, Parked, Result
from baton_schemas.wire.names import BATCH, sender_of
from baton_schemas.wire.outcomes import Done, Failed

from .batch_server import BatchApi, batching, errored
from .clients import cancel_run, fork_run
from .sdk_clients import HAIKU, Crew, error_answer, message
from .servers import NatsServer, until
from .test_budgets import until_settled, until_true

ITEMS = ["a", "b", "c", "d", "e"]
HALF = (100 * 1.0 + 10 * 5.0) / 1e6 / 2
"""What a call of the stand-in costs in a batch, in USD."""


@pytest.fixture(autouse=True)
def looks_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (one, sending):
        monkeypatch.setattr(module, "LOOK_S", (0.05, 0.1))
        monkeypatch.setattr(module, "_RETRY_S", 0.05)


def asks(of_flow: dict[str, Any] | None = None, **options: Any) -> FoundFlow:
    """A flow that asks a model about each item of a list, in batches."""
    usual: dict[str, Any] = {"retry_base_s": 0.01, "retry_max_s": 0.02, "on_error": "continue"}
    usual |= {"delivery": "batch", "batch": {"count": 5, "seconds": 0.2}, "timeout_s": 0.5}
    flow = Flow("many", input={"items": "list[str]"}, **(of_flow or {}))
    flow.ask("tell", "Of {item}", each="items", model=HAIKU, max_tokens=100, **(usual | options))
    return flow.found()


@contextlib.asynccontextmanager
async def crewed(
    server: NatsServer, namespace: str, found: FoundFlow, settings: ModelSettings, **more: Any
) -> AsyncIterator[Crew]:
    async with open_bus(Settings(url=server.url, namespace=namespace, **({"lease_s": 1.0} | more))) as bus:
        yield Crew(bus, found, settings)


@contextlib.asynccontextmanager
async def batched(server: NatsServer, namespace: str, **options: Any) -> AsyncIterator[tuple[BatchApi, Crew]]:
    async with batching() as api, crewed(server, namespace, asks(**options), api.settings) as crew:
        yield api, crew


def output_of(result: Result) -> Any:
    assert isinstance(result.outcome, Done), result
    return msgspec.json.decode(result.outcome.output)


async def calls_of(crew: Crew, run: str) -> list[ModelCall]:
    return [fact for fact in await crew.facts(run) if isinstance(fact, ModelCall)]


async def retries_of(crew: Crew, run: str) -> list[str]:
    return [fact.error.type for fact in await crew.facts(run) if isinstance(fact, Retry)]


# ---- gathering -------------------------------------------------------------------------------------


async def test_calls_of_a_fan_out_go_as_one_batch_at_half_the_price(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace) as (api, crew):
        run, result = await crew.play(items=ITEMS)
        assert output_of(result) == [f"Of {item}: yes" for item in ITEMS]
        assert api.sizes == [5]
        calls = await calls_of(crew, run)
        assert [call.cost_usd for call in calls] == [HALF] * 5
        assert len({call.batch for call in calls}) == 1
        state = await crew.state(run)
        assert [state.steps[f"tell-{n}"].attempts for n in range(5)] == [1] * 5
        assert state.cost_usd == pytest.approx(5 * HALF)


async def test_batch_is_sent_once_the_first_call_has_waited_so_long(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace, batch={"count": 100, "seconds": 0.3}) as (api, crew):
        _, result = await crew.play(items=ITEMS[:2])
        assert result.status == "done"
        assert api.sizes == [2]


async def test_no_batch_has_more_calls_than_the_flow_says(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace, batch={"count": 2, "seconds": 0.2}) as (api, crew):
        _, result = await crew.play(items=ITEMS)
        assert result.status == "done"
        assert sorted(api.sizes) == [1, 2, 2]


async def test_nothing_holds_a_step_that_waits_for_its_batch(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace) as (api, crew):
        api.ends.clear()
        run = await crew.start(items=ITEMS)
        async with crew.working():
            await until(lambda: api.batches)
            await until_waiting(crew, run, 5)

            async def is_free() -> bool:
                info = await crew.bus.js.consumer_info(namespace, "handoff-many--tell")
                return bool(info.num_ack_pending == 0)

            await until_true(is_free)
            state = await crew.state(run)
            assert {state.steps[f"tell-{n}"].waits[:26] for n in range(5)} == {"a batch of 5, gathered at "}
            assert Children(state).by_token == {}  # its model is nobody whom it asked
            api.ends.set()
            assert (await crew.result(run)).status == "done"


def test_step_may_be_live_where_its_agent_goes_in_batches_and_the_other_way_round() -> None:
    text = """
    name = "two"
    [agents.writer]
    prompt = "Write."
    model = "worker"
    delivery = "batch"
    batch = { count = 7 }
    [steps.draft]
    agent = "writer"
    delivery = "live"
    [steps.edit]
    agent = "writer"
    after = "draft"
    batch = { seconds = 5 }
    """
    plan = Plan(load_flow(text))
    assert plan.by_batch("draft") is None
    policy = plan.by_batch("edit")
    assert policy is not None
    assert (policy.count, policy.seconds) == (100, 5.0)


@pytest.mark.parametrize(
    ("agent", "step", "said"),
    [
        ('delivery = "later"', "", "agents.a.delivery: found the string 'later'; expected 'live' or 'batch'"),
        ("batch = { count = 3 }", "", "agents.a.batch: found `batch` on agent whose calls are live"),
        ('delivery = "batch"', 'each = "l"\nwarm = true', "steps.s.warm: found `warm` on a step whose calls go in"),
        ("", "batch = { count = 3 }", "steps.s.batch: found `batch` on step whose calls are live"),
        ('delivery = "batch"\nbatch = { count = 0 }', "", "agents.a.batch.count: found 0; expected calls: from 1 to"),
        ('delivery = "batch"\nbatch = { seconds = -1 }', "", "agents.a.batch.seconds: found -1; expected seconds"),
        ('delivery = "batch"\nbatch = { size = 1 }', "", "agents.a.batch.size: found the unknown key 'size'"),
        ('delivery = "batch"\nbatch = 5', "", "agents.a.batch: found 5; expected a table"),
    ],
)
def test_what_cannot_be_gathered_so_is_said_with_its_place(agent: str, step: str, said: str) -> None:
    head = 'name = "f"\ninput = { l = "list" }\n[agents.a]\nprompt = "p"\nmodel = "worker"\n'
    text = f'{head}{agent}\n[steps.s]\nagent = "a"\n{step}\n'
    with pytest.raises(FlowError) as caught:
        load_flow(text)
    assert said in str(caught.value)


def test_handler_cannot_be_delivered_by_batch() -> None:
    text = 'name = "f"\n[agents.a]\nhandler = "m:f"\n[steps.s]\nagent = "a"\ndelivery = "batch"\n'
    with pytest.raises(FlowError, match=r"steps\.s\.delivery: found `delivery` where no LLM agent is"):
        load_flow(text)


# ---- results ---------------------------------------------------------------------------------------


async def test_items_that_failed_are_gathered_again_and_others_are_done(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace) as (api, crew):
        api.results = {"Of b": [errored()], "Of d": [{"type": "expired"}], "Of e": [{"type": "canceled"}]}
        run, result = await crew.play(items=ITEMS)
        assert output_of(result) == [f"Of {item}: yes" for item in ITEMS]
        assert sum(api.sizes) == 8
        assert sorted(await retries_of(crew, run)) == ["api_error", "batch_canceled", "batch_expired"]
        assert len(await calls_of(crew, run)) == 5


async def test_item_that_fails_each_time_fails_after_its_attempts(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace, max_attempts=2, on_error="fail") as (api, crew):
        api.results = {"Of a": [errored("overloaded_error")] * 2}
        _, result = await crew.play(items=["a"])
        assert isinstance(result.outcome, Failed)
        assert (result.outcome.error.type, result.outcome.error.attempts) == ("overloaded_error", 2)
        assert api.sizes == [1, 1]


async def test_refusal_is_final_and_what_it_took_is_counted(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace, on_error="fail") as (api, crew):
        api.results = {"Of a": [{"type": "succeeded", "message": message("", stop_reason="refusal", content=[])}]}
        run, result = await crew.play(items=["a"])
        assert isinstance(result.outcome, Failed)
        assert result.outcome.error.type == "refusal"
        assert api.sizes == [1]
        (spent,) = [fact for fact in await crew.facts(run) if isinstance(fact, Spent)]
        assert spent.work.cost_usd == HALF
        assert (await crew.state(run)).wasted_usd == pytest.approx(HALF)


async def test_answer_that_is_cut_off_is_one_that_is_truncated(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace) as (api, crew):
        api.results = {"Of a": [{"type": "succeeded", "message": message("so far", stop_reason="max_tokens")}]}
        run, result = await crew.play(items=["a"])
        assert output_of(result) == ["so far"]
        assert (await crew.state(run)).steps["tell-0"].truncated


async def test_provider_that_forgets_a_batch_is_asked_again(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace) as (api, crew):
        api.forgotten = {"msgbatch_1"}
        run, result = await crew.play(items=ITEMS[:2])
        assert result.status == "done"
        assert api.sizes == [2, 2]
        assert await retries_of(crew, run) == ["batch_lost"] * 2


async def test_results_that_are_gone_are_asked_for_again(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace) as (api, crew):
        api.on_sent = lambda: setattr(api.batches["msgbatch_1"], "has_results", False)
        run, result = await crew.play(items=ITEMS[:2])
        assert result.status == "done"
        assert await retries_of(crew, run) == ["batch_lost"] * 2


# ---- sending ---------------------------------------------------------------------------------------


async def test_call_for_which_a_batch_is_refused_is_found_and_fails_alone(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace) as (api, crew):
        api.refuses = "Of c"
        run, result = await crew.play(items=ITEMS)
        assert output_of(result) == [f"Of {item}: yes" for item in ITEMS if item != "c"]
        assert api.refused[0] == 5
        assert api.refused[-1] == 1
        assert sum(api.sizes) == 4
        error = (await crew.state(run)).steps["tell-2"].error
        assert error is not None
        assert (error.type, error.attempts) == ("invalid_request_error", 1)
        batch = next(fact.batch for fact in await crew.facts(run) if isinstance(fact, InBatch))
        said = [one_line(entry) for entry in await crew.bus.log.run(batch)]
        assert any("the provider refuses it as a whole: it goes in halves" in line for line in said)


async def test_provider_that_asks_to_wait_costs_no_attempt(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace, max_attempts=1) as (api, crew):
        busy = error_answer("429 Too Many Requests", "rate_limit_error", retry_after_ms="50")
        api.script = [lambda _: busy, lambda _: busy]
        run, result = await crew.play(items=ITEMS)
        assert output_of(result) == [f"Of {item}: yes" for item in ITEMS]
        assert api.sizes == [5]
        assert await retries_of(crew, run) == []


@pytest.mark.parametrize("answer", [None, error_answer("500 Internal Server Error")])
@pytest.mark.parametrize("arrived", [True, False])
async def test_batch_whose_sending_got_no_answer_is_looked_for_before_it_is_sent_again(
    server: NatsServer, namespace: str, answer: list[bytes] | None, arrived: bool
) -> None:
    async with batched(server, namespace, max_attempts=1) as (api, crew):
        api.script, api.keeps_first = [lambda _: answer], arrived
        _, result = await crew.play(items=ITEMS)
        assert output_of(result) == [f"Of {item}: yes" for item in ITEMS]
        assert set(api.asked.values()) == {1}
        assert api.calls.count(("GET", "/v1/messages/batches")) == 1


async def test_batch_that_another_worker_records_while_it_is_in_doubt_is_not_sent_again(
    server: NatsServer, namespace: str
) -> None:
    async with batched(server, namespace, max_attempts=1) as (api, crew):
        api.script, api.keeps_first = [lambda _: None], True
        run = await crew.start(items=ITEMS)
        async with crew.working():
            await until(lambda: api.batches)
            # Whose lease had passed to this one goes on: it hears from the provider only now, or found the batch first.
            (sending,) = await crew.bus.log.matching_sure([crew.bus.subjects.note("*", "*", BATCH, "sending-1")])
            assert isinstance(sending.message, Note)
            actor = sender_of(crew.found.plan.actor("tell"))
            other = Journal(crew.bus, actor, sending.message.run, BATCH, "another")
            fact = BatchSent(id="msgbatch_1", count=len(ITEMS), at_s=crew.bus.now_s())
            assert await other.write(fact) == fact
            assert output_of(await crew.result(run)) == [f"Of {item}: yes" for item in ITEMS]
        assert api.sizes == [5]


async def test_batch_of_others_with_as_many_calls_is_not_taken_for_ours(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace, max_attempts=1) as (api, crew):
        body = {"model": HAIKU, "max_tokens": 1, "messages": [{"role": "user", "content": "others"}]}
        api._create([{"custom_id": f"other-{n}", "params": body} for n in range(5)])
        api.script = [lambda _: None]
        _, result = await crew.play(items=ITEMS)
        assert output_of(result) == [f"Of {item}: yes" for item in ITEMS]
        assert api.sizes == [5, 5]


async def test_batch_in_doubt_is_known_for_ours_by_any_of_its_calls(server: NatsServer, namespace: str) -> None:
    """The others were sent with it, and what they ask is gone since."""
    async with batched(server, namespace) as (api, crew), Models(api.settings) as models:
        body = {"model": HAIKU, "max_tokens": 1, "messages": [{"role": "user", "content": "of ours"}]}
        api._create([{"custom_id": f"call-{n}", "params": body} for n in range(20)])
        provider = await models.batches(models.where("many", HAIKU))
        journal = Journal(crew.bus, sender_of(crew.found.plan.actor("tell")), "batch-1", BATCH, "another")
        await journal.write(BatchSending(number=1, count=20, at_s=crew.bus.now_s()))
        doubt = [note.fact for note in await journal.read() if isinstance(note.fact, BatchSending)]
        asks = {"call-7": ModelRequest(model=HAIKU, system="", prompt="of ours", max_tokens=1, timeout_s=1.0)}
        sent = await sending.Sending(crew.bus, provider, "batch-1", 1, journal, 1.0).send(asks, doubt)
        assert sent == ("msgbatch_1", 20)
        assert api.sizes == [20]


async def test_batch_in_doubt_fails_where_the_provider_lists_none(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace, on_error="fail") as (api, crew):
        api.script, api.keeps_first, api.lists = [lambda _: None], True, False
        _, result = await crew.play(items=ITEMS)
        assert isinstance(result.outcome, Failed)
        assert result.outcome.error.type == "batch_in_doubt"
        assert set(api.asked.values()) == {1}


async def test_two_workers_share_the_calls_and_send_each_once(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace, batch={"count": 10, "seconds": 0.3}) as (api, crew):
        run = await crew.start(items=[f"item {n}" for n in range(40)])
        async with crew.working(), crew.working():
            assert len(output_of(await crew.result(run))) == 40
        assert len(api.asked) == 40
        assert set(api.asked.values()) == {1}


async def test_batch_that_is_out_goes_on_with_another_worker(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace) as (api, crew):
        api.ends.clear()
        run = await crew.start(items=ITEMS)
        async with crew.working():
            await until(lambda: api.batches and api.batches["msgbatch_1"].looks)
        api.ends.set()
        async with crew.working():
            assert (await crew.result(run)).status == "done"
        assert api.sizes == [5]


# ---- runs that end ---------------------------------------------------------------------------------


async def test_batch_that_nobody_waits_for_is_cancelled_and_what_it_took_is_counted(
    server: NatsServer, namespace: str
) -> None:
    async with batched(server, namespace, of_flow={"budget": {"usd": 1.0}}) as (api, crew):
        api.ends.clear()
        api.results = {"Of a": [{"type": "succeeded", "message": message("late")}]}
        run = await crew.start(items=ITEMS)
        async with crew.working():
            await until(lambda: api.batches and api.batches["msgbatch_1"].looks)
            await cancel_run(crew.bus, run)
            await until(lambda: api.batches["msgbatch_1"].is_canceled)

            async def is_spent() -> bool:
                return bool(await crew.spent(run))

            await until_true(is_spent)
            assert await until_settled(crew.bus, run) == round(HALF * 1e9)
        assert await calls_of(crew, run) == []


async def test_calls_of_a_run_that_has_ended_are_not_sent(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace, batch={"count": 5, "seconds": 60}) as (api, crew):
        first = await crew.start(items=["a", "b"])
        async with crew.working():
            await until_waiting(crew, first, 2)
            await cancel_run(crew.bus, first)
            second = await crew.start(items=["c", "d", "e"])
            assert output_of(await crew.result(second)) == ["Of c: yes", "Of d: yes", "Of e: yes"]
        assert api.sizes == [3]


@pytest.mark.parametrize("arrived", [True, False])
async def test_calls_that_stayed_out_of_a_batch_are_not_in_it_for_whoever_goes_on_with_it(
    server: NatsServer, namespace: str, arrived: bool
) -> None:
    async with batched(server, namespace, batch={"count": 5, "seconds": 60}, max_attempts=1) as (api, crew):
        api.script, api.keeps_first = [lambda _: None], arrived
        first = await crew.start(items=["a", "b"])
        async with crew.working():
            await until_waiting(crew, first, 2)
            await cancel_run(crew.bus, first)
            second = await crew.start(items=["c", "d", "e"])
            await until(lambda: not api.script)
        async with crew.working():
            assert output_of(await crew.result(second)) == ["Of c: yes", "Of d: yes", "Of e: yes"]
        assert api.sizes == [3]
        (sent,) = await crew.bus.log.matching_sure([crew.bus.subjects.note("*", "*", BATCH, "sent")])
        assert isinstance(sent.message, Note)
        assert isinstance(sent.message.fact, BatchSent)
        assert (sent.message.fact.id, sent.message.fact.count) == ("msgbatch_1", 3)
        assert not [fact for fact in await crew.facts(first) if isinstance(fact, InBatch)]


@pytest.mark.parametrize("restarts", [False, True])
async def test_what_was_held_for_calls_that_are_not_sent_is_given_back(
    server: NatsServer, namespace: str, restarts: bool
) -> None:
    """Their run has ended when their batch is to be sent, or while no worker was there to gather them."""
    of_flow = {"budget": {"usd": 1.0, "usd_per_day": 1.0}}
    async with batched(server, namespace, batch={"count": 2, "seconds": 60}, of_flow=of_flow) as (api, crew):

        async def until_given_back(run: str, of_day: int) -> None:
            assert await until_settled(crew.bus, run) == 0

            async def is_so() -> bool:
                entries = [entry async for entry in crew.bus.counters.entries(("flow", "many", "*", "usd"))]
                return entries[-1].total == of_day

            await until_true(is_so)

        run = await crew.start(items=["a"])
        async with crew.working():
            await until_waiting(crew, run, 1)
            await cancel_run(crew.bus, run)
            if not restarts:
                assert output_of(await crew.result(await crew.start(items=["b"]))) == ["Of b: yes"]
                await until_given_back(run, round(HALF * 1e9))
        if restarts:
            async with crew.working():
                await until_given_back(run, 0)
        assert api.sizes == ([] if restarts else [1])


async def until_waiting(crew: Crew, run: str, count: int) -> None:
    """Wait until so many steps of a run are parked."""

    async def is_so() -> bool:
        return sum(isinstance(entry.message, Parked) for entry in await crew.bus.log.run(run)) == count

    await until_true(is_so)


# ---- what else -------------------------------------------------------------------------------------


async def test_budget_holds_for_batches_at_their_price(server: NatsServer, namespace: str) -> None:
    # Held is what a call may cost in a batch: five of them, but not six.
    async with batched(server, namespace, of_flow={"budget": {"usd": 0.002}}) as (api, crew):
        run, result = await crew.play(items=ITEMS)
        assert result.status == "done"
        assert api.sizes == [5]
        assert await until_settled(crew.bus, run) == round(5 * HALF * 1e9)


async def test_rehearsed_batch_is_answered_once_gathered_and_costs_nothing(server: NatsServer, namespace: str) -> None:
    async with crewed(server, namespace, asks(), ModelSettings(rehearse=True)) as crew:
        run, result = await crew.play(items=ITEMS)
        assert len(output_of(result)) == 5
        calls = await calls_of(crew, run)
        assert [(call.rehearsed, call.cost_usd) for call in calls] == [(True, 0.0)] * 5
        batch = calls[0].batch
        notes = await crew.facts(batch)
        assert [fact.rehearsed for fact in notes if isinstance(fact, BatchSent)] == [True]


async def test_log_says_which_batch_a_call_went_with_and_when_that_was_sent(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace) as (api, crew):
        run, _ = await crew.play(items=ITEMS)
        facts = await crew.facts(run)
        claims = {fact.batch for fact in facts if isinstance(fact, InBatch)}
        (batch,) = claims
        about = await crew.facts(batch)
        assert [type(fact) for fact in about][:2] == [BatchSending, BatchSent]  # its end is noted last
        assert [fact.id for fact in about if isinstance(fact, BatchSent)] == list(api.batches)
        # What the first release cannot read says so.
        said = "\n".join(map(one_line, await crew.bus.log.run(run)))
        assert f"goes with {batch}, a batch of 5" in said
        assert "attempt 1: claude-haiku-4-5-20251001, 100+10 tokens, by batch" in said
        entries = [*await crew.bus.log.run(run), *await crew.bus.log.run(batch)]
        later = [entry for entry in entries if isinstance(entry.message, Batch) or _is_child(entry.message)]
        assert len(later) == 6
        assert {entry.message.v for entry in later if entry.message} == {2}


def _is_child(message: object) -> bool:
    return isinstance(message, Handoff) and message.step.startswith("-batch--k")


async def test_flow_that_is_live_now_still_has_the_batches_of_its_older_runs(
    server: NatsServer, namespace: str
) -> None:
    async with batched(server, namespace, batch={"count": 100, "seconds": 1.0}) as (api, crew):
        run = await crew.start(items=ITEMS)
        async with crew.working():
            await until_waiting(crew, run, 5)
        changed = Crew(crew.bus, asks(delivery="live", batch=None), api.settings)
        async with changed.working():
            assert (await crew.result(run)).status == "done"
        assert api.sizes == [5]


async def test_call_that_could_cost_more_than_is_left_is_gathered_by_nobody(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace, of_flow={"budget": {"usd": 0.0001}}) as (api, crew):
        _, result = await crew.play(items=ITEMS)
        assert isinstance(result.outcome, Failed)
        assert result.outcome.error.type == "over_budget"
        assert api.sizes == []


async def test_answer_that_does_not_fit_goes_into_another_batch_with_what_was_wrong(
    server: NatsServer, namespace: str
) -> None:
    async with batched(server, namespace, output={"kind": ["bug", "praise"]}) as (api, crew):
        bad, good = message('{"kind": "rant"}'), message('{"kind": "bug"}')
        api.results = {"Of a": [{"type": "succeeded", "message": each} for each in (bad, good)]}
        run, result = await crew.play(items=["a"])
        assert output_of(result) == [{"kind": "bug"}]
        assert api.sizes == [1, 1]
        assert len({call.batch for call in await calls_of(crew, run)}) == 2


async def test_run_that_goes_on_from_one_whose_batch_is_out_asks_anew(server: NatsServer, namespace: str) -> None:
    async with batched(server, namespace) as (api, crew):
        api.ends.clear()
        first = await crew.start(items=["a", "b"])
        async with crew.working():
            await until(lambda: api.batches)
            await until_waiting(crew, first, 2)
            second = await fork_run(crew.bus, first)
            await until(lambda: len(api.batches) == 2)
            api.ends.set()
            assert output_of(await crew.result(first)) == output_of(await crew.result(second))
        assert set(api.asked.values()) == {1}


async def test_purge_leaves_a_batch_that_is_out_and_removes_one_that_has_ended(
    server: NatsServer, namespace: str
) -> None:
    async with batched(server, namespace) as (api, crew):
        api.ends.clear()
        run = await crew.start(items=ITEMS)

        async def purged() -> list[str]:
            choice = Choice(ended_before=datetime.now(UTC) + timedelta(hours=1))
            plan = plan_purge(await survey(crew.bus), choice, datetime.now(UTC) + timedelta(days=1))
            await purge(crew.bus, plan)
            return [each.run for each in plan.runs]

        async with crew.working():
            await until(lambda: api.batches and api.batches["msgbatch_1"].looks)
            assert await purged() == []
            api.ends.set()
            assert (await crew.result(run)).status == "done"
            (batch,) = {call.batch for call in await calls_of(crew, run)}

            async def has_ended() -> bool:
                return any(isinstance(fact, BatchEnded) for fact in await crew.facts(batch))

            await until_true(has_ended)
        assert sorted(await purged()) == sorted([run, batch])
        assert await crew.facts(batch) == []
