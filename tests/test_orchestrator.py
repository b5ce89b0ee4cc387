"""The orchestrator: its model, over real HTTP, calls workers as tools until it answers. The workers are in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
import pytest
from msgspec import Raw
from pytest_httpserver import HTTPServer

from baton_actors.agents.agents import Agents
from baton_actors.agents.asks import AskFailed, AskRefused, NoAsks
from baton_actors.agents.context import Context
from baton_actors.agents.conversation import RESULT_CHARS_MAX, ROUND_CHARS_MAX
from baton_actors.agents.debugged import DebuggedAgents
from baton_actors.agents.kinds import Performed, StepTask
from baton_actors.agents.orchestrator import OrchestratorAgent
from baton_actors.agents.prompt import PromptAgent
from baton_actors.agents.raising import describe
from baton_actors.errors import TooManyAsks, TooManyRounds
from baton_actors.models import ModelAnswer, ModelError, Models, ModelSettings
from baton_actors.models.content import GO_ON
from baton_actors.models.types import Bound
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.outcomes import Error

from .agents import NoJournal
from .model_servers import ScriptedModel, calls, end, says, sse, start
from .servers import until

FLOW = """
name = "f"
input = { topic = "str" }
agents.chief = { model = "synthesis", system = "Decide.", prompt = "About {topic}.", workers = ["finder", "writer"] }
agents.finder = { model = "worker", prompt = "{question}", description = "Finds.", input = { question = "str" } }
agents.writer = { model = "worker", prompt = "{notes}", input = { notes = "str" } }
steps.chief = {}
"""
PLAN = Plan(load_flow(FLOW))


class Workers(NoAsks):
    """What asks are answered with; keeps what was asked, as a log would, and answers the same again."""

    def __init__(self, answer: Callable[[str, Mapping[str, Any]], Any] | None = None) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.answer = answer or (lambda agent, arguments: f"{agent}: {json.dumps(arguments)}")

    async def ask(self, agent: str, arguments: Mapping[str, Any], *, deadline_s: float | None = None) -> Raw:
        self.asked.append((agent, arguments))
        answer = self.answer(agent, arguments)
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        return Raw(msgspec.json.encode(answer))


T = TypeVar("T")


class Journal(NoJournal):
    """Keeps answers as the log does: as JSON."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}

    async def recall(self, digest: str) -> ModelAnswer | None:
        found = self.answers.get(digest)
        return msgspec.json.decode(found, type=ModelAnswer) if found is not None else None

    async def record(self, digest: str, answer: ModelAnswer) -> ModelAnswer:
        self.answers.setdefault(digest, msgspec.json.encode(answer))
        return answer

    async def in_turn(self, call: Callable[[], Awaitable[T]], bound: Bound) -> T:
        return await call()

    def spent(self, error: ModelError) -> None: ...


def task(asks: NoAsks, **changes: Any) -> StepTask:
    chief = msgspec.structs.replace(PLAN.flow.agents["chief"], **changes)
    plan = Plan(msgspec.structs.replace(PLAN.flow, agents={**PLAN.flow.agents, "chief": chief}))
    context = Context(run="r", step="chief", attempt=1)
    return StepTask(plan=plan, step="chief", values={"topic": Raw(b'"tea"')}, context=context, asks=asks)


async def perform(
    model: ScriptedModel, workers: Workers | None = None, journal: Journal | None = None, **changes: Any
) -> str:
    performed = await performing(model, workers, journal, **changes)
    return msgspec.json.decode(performed.output, type=str)


async def performing(
    model: ScriptedModel, workers: Workers | None = None, journal: Journal | None = None, **changes: Any
) -> Performed:
    async with Models(model.settings) as models:
        return await OrchestratorAgent(models).perform(task(workers or Workers(), **changes), journal or Journal())


def results(model: ScriptedModel) -> list[tuple[str, str, bool]]:
    """The results that the model was told of last: of which call, the text, and whether it is an error."""
    told = [block for block in model.told if block["type"] == "tool_result"]
    return [(block["tool_use_id"], block["content"], block.get("is_error", False)) for block in told]


# ---- asking --------------------------------------------------------------------------------------


async def test_workers_are_offered_as_tools_with_what_they_are_given(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says("Done."))
    assert await perform(model) == "Done."
    (asked,) = model.asked
    assert asked["messages"] == [{"role": "user", "content": "About tea."}]
    question = {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]}
    finder, writer = asked["tools"]
    assert finder == {
        "name": "finder",
        "description": "Finds.",
        "input_schema": question | {"additionalProperties": False},
    }
    assert (writer["name"], writer["description"]) == ("writer", "Asks the agent writer.")


async def test_calls_of_one_answer_are_made_at_the_same_time_and_told_in_their_order(httpserver: HTTPServer) -> None:
    model = ScriptedModel(
        httpserver,
        says("I ask.", *(calls("finder", f"toolu_{n}", {"question": str(n)}) for n in range(3))),
        says("It is so."),
    )
    gate = asyncio.Barrier(3)

    async def answered(arguments: Mapping[str, Any]) -> str:
        await gate.wait()
        return f"about {arguments['question']}"

    workers = Workers(lambda _, arguments: answered(arguments))
    assert await perform(model, workers) == "It is so."
    assert results(model) == [(f"toolu_{n}", f"about {n}", False) for n in range(3)]
    _, said, _ = model.asked[1]["messages"]
    assert (said["role"], said["content"][0]) == ("assistant", {"type": "text", "text": "I ask."})
    assert said["content"][1] == {"type": "tool_use", "id": "toolu_0", "name": "finder", "input": {"question": "0"}}


async def test_rounds_are_cached_up_to_what_is_new(httpserver: HTTPServer) -> None:
    model = ScriptedModel(
        httpserver,
        says(calls("finder", "a", {"question": "x"})),
        says(calls("finder", "b", {"question": "y"})),
        says("Ok."),
    )
    await perform(model, system="Be sure of it. " * 2_000)
    marked = [[b for b in m["content"] if "cache_control" in b] for m in model.asked[2]["messages"]]
    assert [len(blocks) for blocks in marked] == [0, 0, 1, 0, 1]
    assert "cache_control" in model.asked[2]["messages"][4]["content"][-1]
    assert "cache_control" in model.asked[2]["system"][0]
    assert model.asked[0]["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}


async def test_failed_worker_is_told_to_the_model_which_goes_on(httpserver: HTTPServer) -> None:
    model = ScriptedModel(
        httpserver,
        says(calls("finder", "a", {"question": "x"}), calls("writer", "b", {"notes": "n"}), calls("writer", "c")),
        says("Without it."),
    )

    def answer(agent: str, arguments: Mapping[str, Any]) -> Any:
        if agent == "finder":
            return AskFailed("finder", Error(step="s", type="Timeout", message="too slow"))
        return "written" if arguments else AskRefused("input 'notes': missing; expected str")

    assert await perform(model, Workers(answer)) == "Without it."
    assert results(model) == [
        ("a", "finder failed with Timeout: too slow", True),
        ("b", "written", False),
        ("c", "input 'notes': missing; expected str", True),
    ]


async def test_output_that_is_no_text_is_told_as_json_and_nothing_as_nothing(httpserver: HTTPServer) -> None:
    outputs = {"0": {"a": [1, 2]}, "1": None, "2": "", "3": 4.5, "4": "é\n"}
    model = ScriptedModel(httpserver, says(*(calls("finder", f"t{n}", {"question": n}) for n in outputs)), says("Ok."))
    await perform(model, Workers(lambda _, arguments: outputs[arguments["question"]]))
    assert [text for _, text, _ in results(model)] == ['{"a":[1,2]}', "null", "(nothing)", "4.5", "é\n"]


async def test_what_all_calls_took_is_summed(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("finder", "a", {"question": "x"})), says("Ok."))
    performed = await performing(model)
    assert performed.usage is not None
    assert (performed.usage.input_tokens, performed.usage.output_tokens) == (20, 14)
    assert performed.cost_usd == pytest.approx((20 * 1 + 14 * 5) / 1e6)
    assert (performed.model, performed.rehearsed, performed.truncated) == ("claude-haiku-4-5-20251001", False, False)


async def test_agent_with_workers_is_an_orchestrator_and_one_without_is_not() -> None:
    async with Models(ModelSettings()) as models:
        agents = Agents(models)
        assert isinstance(agents.of(PLAN, "chief"), OrchestratorAgent)
        alone = load_flow('name = "g"\nagents.a = { model = "worker", prompt = "Go." }\nsteps.a = {}')
        assert isinstance(agents.of(Plan(alone), "a"), PromptAgent)


async def test_orchestrator_in_front_of_a_debugger_lets_its_workers_have_their_turn(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("finder", "a", {"question": "x"})), says("Ok."))
    async with Models(model.settings) as models:
        agents = DebuggedAgents(models)

        async def in_turn() -> str:
            async with agents.turn:
                return "found"

        chief = agents.of(PLAN, "chief")
        performed = await chief.perform(task(Workers(lambda *_: in_turn())), Journal())
    assert performed.output == b'"Ok."'
    assert results(model) == [("a", "found", False)]


# ---- going on in the middle ----------------------------------------------------------------------


async def test_orchestrator_that_is_done_again_goes_on_where_it_was(httpserver: HTTPServer) -> None:
    model = ScriptedModel(
        httpserver,
        says("First.", calls("finder", "a", {"question": "x"}), calls("finder", "a", raw="{")),
        says({"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}, calls("writer", "b", {"notes": 10**30})),
        says("Ok."),
    )
    journal = Journal()
    dying = Workers(lambda agent, _: f"from {agent}" if agent == "finder" else OSError("the worker dies"))
    with pytest.raises(OSError, match="dies"):
        await perform(model, dying, journal)
    assert len(model.asked) == 2
    workers = Workers(lambda agent, _: f"from {agent}")
    assert await perform(model, workers, journal) == "Ok."
    assert len(model.asked) == 3
    assert workers.asked == dying.asked == [("finder", {"question": "x"}), ("writer", {"notes": 10**30})]
    assert await perform(model, workers, journal) == "Ok."
    assert len(model.asked) == 3


async def test_error_that_is_no_answer_ends_the_calls_beside_it(httpserver: HTTPServer) -> None:
    model = ScriptedModel(
        httpserver, says(calls("finder", "a", {"question": "x"}), calls("writer", "b", {"notes": "n"}))
    )
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("writer")

    workers = Workers(lambda agent, _: ConnectionError("the bus is away") if agent == "finder" else waits())
    with pytest.raises(ConnectionError):
        await perform(model, workers)
    assert ended == ["writer"]


async def test_cancelled_orchestrator_leaves_no_call_behind(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(*(calls("finder", f"t{n}", {"question": f"{n}"}) for n in range(5))))
    begun, ended = list[int](), list[int]()

    async def waits() -> None:
        begun.append(1)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    performing = asyncio.ensure_future(perform(model, Workers(lambda *_: waits())))
    await until(lambda: len(begun) == 5)
    performing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await performing
    assert len(ended) == 5


# ---- what the API demands ------------------------------------------------------------------------


async def test_thinking_is_sent_back_to_the_letter(httpserver: HTTPServer) -> None:
    thinking = {"type": "thinking", "thinking": "Let me see…\n", "signature": "EqQBCkYIBRgCKkD+/=="}
    hidden = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix/LafPsn4="}
    model = ScriptedModel(httpserver, says(thinking, hidden, calls("finder", "a", {"question": "x"})), says("Ok."))
    assert await perform(model) == "Ok."
    assert model.asked[1]["messages"][1]["content"][:2] == [thinking, hidden]


async def test_blocks_that_are_not_known_are_sent_back_as_they_came(httpserver: HTTPServer) -> None:
    block = {"type": "from_the_future", "data": {"deep": [1, {"er": None}]}, "flag": True}
    model = ScriptedModel(httpserver, says(block, calls("finder", "a", {"question": "x"})), says("Ok."))
    await perform(model)
    assert model.asked[1]["messages"][1]["content"][0] == block


async def test_texts_without_text_are_not_sent_back_as_the_api_refuses_them(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says("", " \n", calls("finder", "a", {"question": "x"})), says("Ok."))
    await perform(model)
    assert [block["type"] for block in model.asked[1]["messages"][1]["content"]] == ["tool_use"]


async def test_paused_answer_is_sent_back_and_gone_on_with(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says("Searching.", stop="pause_turn"), says("Found."))
    journal = Journal()
    assert await perform(model, journal=journal) == "Found."
    assert [message["role"] for message in model.asked[1]["messages"]] == ["user", "assistant"]
    assert await perform(model, journal=journal) == "Found."
    assert len(model.asked) == 2


async def test_pauses_count_as_rounds(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says("Searching.", stop="pause_turn"))
    with pytest.raises(TooManyRounds, match="the model: Searching"):
        await perform(model, max_rounds=3)
    assert len(model.asked) == 3


async def test_arguments_that_come_whole_are_taken_as_those_that_come_in_pieces(httpserver: HTTPServer) -> None:
    block = {"type": "tool_use", "id": "a", "name": "finder", "input": {"question": "x"}}
    stream = [
        start(),
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        *end("tool_use"),
    ]
    workers = Workers()
    assert await perform(ScriptedModel(httpserver, sse(*stream), says("Ok.")), workers) == "Ok."
    assert workers.asked == [("finder", {"question": "x"})]


async def test_piece_of_a_block_that_has_not_begun_is_a_broken_answer(httpserver: HTTPServer) -> None:
    delta = {"type": "input_json_delta", "partial_json": "{}"}
    stream = [start(), {"type": "content_block_delta", "index": 3, "delta": delta}, *end("tool_use")]
    with pytest.raises(ModelError) as caught:
        await perform(ScriptedModel(httpserver, sse(*stream)))
    assert (caught.value.type, caught.value.retryable) == ("broken_answer", True)


# ---- models that go wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "told"),
    [
        (calls("ghost", "a", {"question": "x"}), "There is no tool 'ghost'. There are: finder, writer."),
        (calls("", "a"), "There is no tool ''."),
        (calls("finder", "a", raw='{"question": "x'), 'truncated: {"question": "x'),
        (calls("finder", "a", raw="not JSON" * 1000), "no JSON object"),
        (calls("finder", "a", raw='{"n": 1e999}'), "no JSON object"),
        (calls("finder", "a", raw="[" * 5000), "no JSON object"),
        (calls("finder", "a", raw='{"a":' * 100 + "1" + "}" * 100), "nested deeper than 64"),
        (calls("finder", "a", raw='{"a": "\\ud800"}'), "no JSON object"),
        (calls("finder", "a", raw="[1, 2]"), "The arguments are a list: expected an object"),
        (calls("finder", "a", raw='"x"'), "The arguments are a string: expected an object"),
        (calls("finder", "a", raw="null"), "The arguments are null: expected an object"),
    ],
)
async def test_call_that_cannot_be_made_is_told_as_an_error_and_asks_nobody(
    block: dict[str, Any], told: str, httpserver: HTTPServer
) -> None:
    model = ScriptedModel(httpserver, says(block), says("Ok."))
    workers = Workers()
    assert await perform(model, workers) == "Ok."
    assert workers.asked == []
    ((id, text, is_error),) = results(model)
    assert (id, is_error) == ("a", True)
    assert told in text
    assert len(text) < 1000
    (sent,) = model.asked[1]["messages"][1]["content"]
    assert isinstance(sent["input"], dict)
    assert set(sent) == {"type", "id", "name", "input"}
    assert 0 < len(sent["name"]) <= 64


@pytest.mark.parametrize("id", ["toolu_1", "", "bad id!", "x" * 500])
async def test_ids_that_are_taken_or_none_are_told_apart(id: str, httpserver: HTTPServer) -> None:
    twice = [calls("finder", id, {"question": str(n)}) for n in (1, 2)]
    model = ScriptedModel(httpserver, says(*twice), says(*twice), says("Ok."))
    await perform(model, Workers(lambda _, arguments: arguments["question"]))
    sent = [b["id"] for m in model.asked[2]["messages"][1::2] for b in m["content"] if b["type"] == "tool_use"]
    told = [b["tool_use_id"] for m in model.asked[2]["messages"][2::2] for b in m["content"]]
    assert sent == told
    assert len(set(sent)) == 4
    assert [text for _, text, _ in results(model)] == ["1", "2"]


async def test_two_hundred_calls_of_one_answer_are_all_made(httpserver: HTTPServer) -> None:
    model = ScriptedModel(
        httpserver, says(*(calls("finder", f"t{n}", {"question": f"{n}"}) for n in range(200))), says("Ok.")
    )
    workers = Workers(lambda _, arguments: arguments["question"] * 5_000)
    assert await perform(model, workers) == "Ok."
    assert len(workers.asked) == 200
    assert [text[:1] for _, text, _ in results(model)] == [f"{n}"[0] for n in range(200)]
    assert sum(len(text) for _, text, _ in results(model)) < 1.2 * ROUND_CHARS_MAX


async def test_large_results_are_cut_and_say_so(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("finder", "a", {"question": "x"})), says("Ok."))
    await perform(model, Workers(lambda *_: "word " * 200_000))
    ((_, text, _),) = results(model)
    assert len(text) < RESULT_CHARS_MAX + 100
    assert text.endswith("[cut here: the first 100,000 of 1,000,000 characters]")


async def test_huge_arguments_are_handed_on_whole(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("writer", "a", {"notes": "x" * 3_000_000})), says("Ok."))
    workers = Workers(lambda *_: "ok")
    assert await perform(model, workers) == "Ok."
    ((_, given),) = workers.asked
    assert len(given["notes"]) == 3_000_000


@pytest.mark.parametrize("raw", ["", '{"question": "wh'])
async def test_call_that_is_cut_off_at_max_tokens_is_not_made(raw: str, httpserver: HTTPServer) -> None:
    whole = calls("finder", "a", {"question": "x"})
    model = ScriptedModel(httpserver, says(whole, calls("finder", "b", raw=raw), stop="max_tokens"), says("Ok."))
    workers = Workers(lambda *_: "found")
    assert await perform(model, workers) == "Ok."
    assert len(workers.asked) == 1
    assert results(model)[0] == ("a", "found", False)
    assert results(model)[1][1].startswith("This call was cut off at max_tokens")


@pytest.mark.parametrize(
    ("said", "stop"), [([], "end_turn"), ([], "tool_use"), ([], "pause_turn"), ([" "], "tool_use")]
)
async def test_answer_without_content_is_an_error_that_may_go_away(
    said: list[str], stop: str, httpserver: HTTPServer
) -> None:
    model = ScriptedModel(httpserver, says(*said, stop=stop))
    with pytest.raises(ModelError) as caught:
        await perform(model)
    assert (caught.value.type, caught.value.retryable) == ("empty_answer", True)


THOUGHT = {"type": "thinking", "thinking": "All is said.", "signature": "s"}


@pytest.mark.parametrize("said", [[], [" \n"], [THOUGHT]])
async def test_model_that_says_nothing_after_results_is_told_to_go_on(said: list[Any], httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("finder", "a", {"question": "x"})), says(*said), says("It is x."))
    workers = Workers()
    assert await perform(model, workers) == "It is x."
    assert len(workers.asked) == 1
    *_, results_turn, told = model.asked[2]["messages"]
    assert [block["type"] for block in results_turn["content"]] == ["tool_result"]
    assert [block["text"] for block in told["content"]] == [GO_ON]


async def test_model_that_goes_on_saying_nothing_after_results_is_an_error(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("finder", "a", {"question": "x"})), says())
    with pytest.raises(ModelError) as caught:
        await perform(model)
    assert (caught.value.type, caught.value.retryable, len(model.asked)) == ("empty_answer", True, 3)


async def test_calls_count_whatever_the_stop_reason_says(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("finder", "a", {"question": "x"}), stop="end_turn"), says("Ok."))
    workers = Workers()
    assert await perform(model, workers) == "Ok."
    assert len(workers.asked) == 1


async def test_model_that_never_stops_fails_and_shows_the_conversation(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says("More!", calls("finder", "a", {"question": "why " * 50})))
    workers = Workers(lambda *_: "because " * 500)
    with pytest.raises(TooManyRounds) as caught:
        await perform(model, workers)
    assert len(model.asked) == 12
    assert len(workers.asked) == 11
    kind, message = describe(caught.value)
    assert kind == "TooManyRounds"
    assert message.startswith("no answer after 12 rounds (max_rounds)")
    assert "round 1, the model: More!\nround 1, finder(question=" in message
    assert "… 16 more …" in message
    assert message.endswith("not asked")
    assert len(message) < 2_000


async def test_model_is_told_of_its_last_round(httpserver: HTTPServer) -> None:
    call = calls("finder", "a", {"question": "x"})
    model = ScriptedModel(httpserver, says(call), says(call), says("Ok."))
    assert await perform(model, max_rounds=3) == "Ok."
    last_words = [m["messages"][-1]["content"][-1].get("text", "") for m in model.asked[1:]]
    assert last_words[0] == ""
    assert last_words[1].startswith("This was the last round of calls. Answer now")


async def test_more_calls_than_max_asks_are_not_made(httpserver: HTTPServer) -> None:
    model = ScriptedModel(
        httpserver,
        says(calls("finder", "a", {"question": "x"}), calls("ghost", "b")),
        says(*(calls("finder", f"t{n}", {"question": f"{n}"}) for n in range(3))),
    )
    workers = Workers()
    with pytest.raises(TooManyAsks, match="calls for its workers 4 times, and may 3 times"):
        await perform(model, workers, max_asks=3)
    assert len(workers.asked) == 1


async def test_step_without_a_run_around_it_has_its_calls_refused(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("finder", "a", {"question": "x"})), says("Ok."))
    async with Models(model.settings) as models:
        performed = await OrchestratorAgent(models).perform(task(NoAsks()), Journal())
    assert performed.output == b'"Ok."'
    assert "nobody does this step" in results(model)[0][1]
