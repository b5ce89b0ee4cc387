"""Tools in a conversation: the model over real HTTP, the functions in this process, what is recorded in memory."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace
from pytest_httpserver import HTTPServer

from baton_actors import Context, File, tool
from baton_actors.agents.asks import NoAsks
from baton_actors.agents.kinds import Performed, StepTask
from baton_actors.agents.orchestrator import OrchestratorAgent
from baton_actors.agents.threads import Threads
from baton_actors.agents.tools.function import made
from baton_actors.agents.tools.toolbox import Toolbox
from baton_actors.errors import ToolInDoubt, TooManyCalls
from baton_actors.models import Models, ModelSettings
from baton_schemas.flow.file import build_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.facts import ToolBegun, ToolCall
from baton_schemas.wire.messages import NO_DEFAULT, Question

from .model_servers import ScriptedModel, calls, says
from .pdfs import png
from .test_orchestrator import Journal, Workers, results


class Desk:
    """Tools that count their calls."""

    def __init__(self) -> None:
        self.searched: list[str] = []
        self.refunded: list[str] = []

    def tools(self) -> dict[str, Any]:
        @tool(idempotent=True)
        def search(query: str) -> list[str]:
            """Search."""
            self.searched.append(query)
            return [f"{query} 1", f"{query} 2"]

        @tool
        async def refund(order: str, context: Context) -> str:
            """Pay back."""
            self.refunded.append(order)
            return f"refunded {order} in {context.run}"

        return {"search": search, "refund": refund}


class Person(Workers):
    """Somebody who says whether a tool ran."""

    def __init__(self, **verdict: Any) -> None:
        super().__init__()
        self.verdict, self.questions = verdict, list[Question]()

    async def person(
        self, role: str, question: Question, *, deadline_s: float | None = None, default: Raw = NO_DEFAULT
    ) -> Raw:
        assert role == "editors"
        self.questions.append(question)
        return Raw(msgspec.json.encode(self.verdict))


async def perform(
    settings: ModelSettings, tools: dict[str, Any], journal: Journal, asks: NoAsks | None = None, /, **changes: Any
) -> Performed:
    chief: dict[str, Any] = {"model": "synthesis", "prompt": "About {topic}.", "max_tokens": 500}
    chief |= {"tools": [f"./t.py:{name}" for name in tools], "workers": ["finder"]} | changes
    finder = {"model": "worker", "prompt": "{question}", "input": {"question": "str"}}
    agents = {"chief": chief} | ({"finder": finder} if chief["workers"] else {})
    flow = {"name": "f", "input": {"topic": "str"}, "agents": agents, "steps": {"chief": {}}}
    plan = Plan(build_flow(flow))
    context = Context(run="r", step="chief", attempt=1)
    task = StepTask(plan=plan, step="chief", values={"topic": Raw(b'"tea"')}, context=context, asks=asks or Workers())
    threads = Threads()
    functions = {name: made(function, name) for name, function in tools.items()}
    toolbox = Toolbox(plan.agent("chief"), functions, {}, threads)
    try:
        async with Models(settings) as models:
            return await OrchestratorAgent(models, toolbox).perform(task, journal)
    finally:
        threads.close()


async def told_by(httpserver: HTTPServer, function: Any, arguments: Any, **changes: Any) -> tuple[str, bool]:
    """Return what the model is told of a call, and whether as an error."""
    name = made(function, "t").name
    model = ScriptedModel(httpserver, says(calls(name, "a", arguments)), says("Ok."))
    await perform(model.settings, {name: function}, Journal(), **changes)
    ((_, text, is_error),) = results(model)
    return text, is_error


async def test_functions_are_offered_beside_workers_and_called_at_the_same_time(httpserver: HTTPServer) -> None:
    blocks = [
        calls("search", "a", {"query": "tea"}),
        calls("finder", "b", {"question": "why"}),
        calls("refund", "c", {"order": "7"}),
    ]
    model = ScriptedModel(httpserver, says("I look.", *blocks), says("Done."))
    desk, workers, journal = Desk(), Workers(), Journal()
    performed = await perform(model.settings, desk.tools(), journal, workers)
    assert performed.output == b'"Done."'
    assert [offered["name"] for offered in model.asked[0]["tools"]] == ["finder", "search", "refund"]
    assert results(model) == [
        ("a", '["tea 1","tea 2"]', False),
        ("b", 'finder: {"question": "why"}', False),
        ("c", "refunded 7 in r", False),
    ]
    assert {call.name for call in journal.tools.calls.values()} == {"search", "refund"}
    assert [begun.name for begun in journal.tools.begins.values()] == ["refund"]


async def test_step_that_is_done_again_calls_nothing_again(httpserver: HTTPServer) -> None:
    model = ScriptedModel(
        httpserver, says(calls("search", "a", {"query": "x"}), calls("refund", "b", {"order": "1"})), says("Done.")
    )
    desk, journal = Desk(), Journal()
    first = await perform(model.settings, desk.tools(), journal)
    again = await perform(model.settings, desk.tools(), journal)
    assert first == again
    assert (desk.searched, desk.refunded, len(model.asked)) == (["x"], ["1"], 2)


async def test_what_is_offered_stays_what_it_was_when_the_step_was_first_done(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("refund", "a", {"order": "1"})), says("Done."))
    journal = Journal()
    await perform(model.settings, Desk().tools(), journal)
    offered = journal.tools.tools
    journal.answers.clear()

    @tool(idempotent=True)
    def search(query: str, page: int = 1) -> str:
        """Search otherwise."""
        return query

    await perform(model.settings, Desk().tools() | {"search": search}, journal)
    assert journal.tools.tools == offered
    assert model.asked[2] == model.asked[0]


async def test_wrong_arguments_are_told_to_the_model_and_nothing_is_called(httpserver: HTTPServer) -> None:
    model = ScriptedModel(
        httpserver, says(calls("refund", "a", {"order": 7}), calls("refund", "b", raw='{"order":')), says("Ok.")
    )
    desk = Desk()
    await perform(model.settings, desk.tools(), Journal())
    (_, first, wrong), (_, second, broken) = results(model)
    assert wrong and broken and desk.refunded == []
    assert first == "The arguments do not fit, so nothing was called: Expected `str`, got `int` - at `order`."
    assert second.startswith("The arguments are no JSON object, so nothing was called.")


async def test_tool_that_raises_is_told_with_what_it_raised(httpserver: HTTPServer) -> None:
    def broken(x: int) -> str:
        raise LookupError(f"no {x}")

    assert await told_by(httpserver, broken, {"x": 3}) == ("broken failed with LookupError: no 3", True)


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), KeyboardInterrupt()])
@pytest.mark.parametrize("is_async", [True, False])
async def test_tool_that_exits_or_cancels_itself_ends_nobody_else(
    is_async: bool, error: BaseException, httpserver: HTTPServer
) -> None:
    def exits() -> str:
        raise error

    async def async_exits() -> str:
        raise error

    text, is_error = await told_by(httpserver, async_exits if is_async else exits, {})
    assert is_error
    assert f"exits failed with {type(error).__name__}" in text


async def test_tool_that_gives_a_coroutine_in_place_of_a_value_is_told_as_an_error(httpserver: HTTPServer) -> None:
    async def later() -> str:
        return "x"

    def forgets() -> Any:
        coroutine = later()
        coroutine.close()
        return coroutine

    text, is_error = await told_by(httpserver, forgets, {})
    assert (is_error, text.startswith("forgets ran, and gave what is no JSON")) == (True, True)


async def test_async_tool_that_hangs_is_given_up(httpserver: HTTPServer) -> None:
    async def hangs() -> str:
        await asyncio.Event().wait()
        return ""

    text, is_error = await told_by(httpserver, hangs, {}, tool_timeout_s=0.05)
    assert is_error
    assert text == (
        "hangs did not finish within 0.05 s (tool_timeout_s). It may have done what it does: do not call it again "
        "lightly."
    )


async def test_plain_tool_that_hangs_is_given_up_and_its_thread_left(httpserver: HTTPServer) -> None:
    goes_on = threading.Event()

    @tool(idempotent=True)
    def hangs() -> str:
        goes_on.wait(20)
        return ""

    try:
        told = await told_by(httpserver, hangs, {}, tool_timeout_s=0.05)
    finally:
        goes_on.set()
    assert told == ("hangs did not finish within 0.05 s (tool_timeout_s).", True)


async def test_result_that_is_no_json_is_told_as_an_error(httpserver: HTTPServer) -> None:
    def odd() -> Any:
        return [1, threading.Lock()]

    text, is_error = await told_by(httpserver, odd, {})
    assert is_error
    assert text.startswith("odd ran, and gave what is no JSON, so it cannot be told: result[1]")


@pytest.mark.parametrize(
    ("given", "said", "fails"),
    [
        (lambda text, _: text, "Dear all", False),
        (lambda _, picture: picture, "letter ran, and gave [a.png, PNG, 2 x 3, ", True),
        (lambda text, _: {"letter": text}, "letter ran, and gave [a.txt, text, 8 bytes]: a tool tells text", True),
    ],
)
async def test_text_file_is_told_as_its_text_and_any_other_as_an_error(
    given: Any, said: str, fails: bool, httpserver: HTTPServer
) -> None:
    def letter() -> Any:
        return given(File.of("Dear all", name="a.txt"), File.of(png(2, 3), name="a.png"))

    text, is_error = await told_by(httpserver, letter, {})
    assert (text.startswith(said), is_error) == (True, fails)


async def test_result_of_ten_megabytes_is_cut_and_the_model_is_told_so(httpserver: HTTPServer) -> None:
    def large() -> str:
        return "é" * 5_000_000

    text, is_error = await told_by(httpserver, large, {}, tool_output_bytes=101)
    assert (text, is_error) == ("é" * 50 + "\n\n[cut here: the first 101 of 10,000,000 bytes]", False)


async def test_plain_tools_of_one_answer_run_at_the_same_time(httpserver: HTTPServer) -> None:
    both = threading.Barrier(2)

    @tool(idempotent=True)
    def meet(n: int) -> int:
        both.wait(10)
        return n

    model = ScriptedModel(httpserver, says(calls("meet", "a", {"n": 1}), calls("meet", "b", {"n": 2})), says("Ok."))
    await perform(model.settings, {"meet": meet}, Journal())
    assert results(model) == [("a", "1", False), ("b", "2", False)]


async def test_model_that_calls_too_often_fails_the_step_before_the_call(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("search", "a", {"query": "x"})))
    desk = Desk()
    with pytest.raises(TooManyCalls, match=r"the model calls tools 3 times, and may 2 times \(max_calls\)"):
        await perform(model.settings, desk.tools(), Journal(), max_calls=2)
    assert len(desk.searched) == 2


async def test_tool_may_not_ask_by_its_context_and_may_say_where_it_is(httpserver: HTTPServer) -> None:
    @tool(idempotent=True)
    async def asks(context: Context) -> Any:
        await context.say("half-way")
        return await context.ask("finder", question="why")

    text, is_error = await told_by(httpserver, asks, {})
    assert is_error
    assert "AskRefused: a tool cannot ask or record by its Context" in text


# ---- doubt ---------------------------------------------------------------------------------------


def begun_before(journal: Journal, seconds_left: float = -1.0) -> None:
    """Leave what a worker leaves that died while it called."""
    calls, journal.tools.calls = journal.tools.calls, {}
    assert calls
    begins = journal.tools.begins
    for key, begun in begins.items():
        begins[key] = replace(begun, id="theirs", until_s=time.time() + seconds_left)


async def in_doubt(httpserver: HTTPServer, seconds_left: float = -1.0) -> tuple[ScriptedModel, Desk, Journal]:
    model = ScriptedModel(httpserver, says(calls("refund", "a", {"order": "7"})), says("Done."))
    desk, journal = Desk(), Journal()
    await perform(model.settings, desk.tools(), journal)
    begun_before(journal, seconds_left)
    assert desk.refunded == ["7"]
    return model, desk, journal


async def test_tool_that_may_have_run_is_not_called_again_and_the_step_fails_for_good(httpserver: HTTPServer) -> None:
    model, desk, journal = await in_doubt(httpserver)
    with pytest.raises(ToolInDoubt) as caught:
        await perform(model.settings, desk.tools(), journal)
    said = str(caught.value)
    assert said.startswith("refund may have run: a worker began it, and died or was stopped before it recorded")
    assert 'it is not called again: refund(order="7"). Look whether it ran.' in said
    assert desk.refunded == ["7"]


async def test_person_who_says_that_it_ran_gives_what_the_model_is_told(httpserver: HTTPServer) -> None:
    model, desk, journal = await in_doubt(httpserver)
    person = Person(ran=True, result="paid back on Monday")
    await perform(model.settings, desk.tools(), journal, person, in_doubt="editors")
    assert results(model) == [("a", "paid back on Monday", False)]
    assert desk.refunded == ["7"]
    (question,) = person.questions
    assert question.text.startswith("Did refund run?")
    assert 'refund(order="7")' in question.text
    assert list(question.output) == ["ran", "result"]
    (call,) = journal.tools.calls.values()
    assert call.settled_by == "editors"


async def test_person_who_says_that_it_did_not_run_has_it_called(httpserver: HTTPServer) -> None:
    model, desk, journal = await in_doubt(httpserver)
    await perform(model.settings, desk.tools(), journal, Person(ran=False), in_doubt="editors")
    assert desk.refunded == ["7", "7"]
    assert results(model) == [("a", "refunded 7 in r", False)]
    assert [begun.number for begun in journal.tools.begins.values()] == [2]


async def test_worker_that_may_still_be_at_it_is_waited_for(httpserver: HTTPServer) -> None:
    model, desk, journal = await in_doubt(httpserver, seconds_left=20.0)
    (key,) = journal.tools.begins
    theirs = ToolCall(request_sha256=key[0], place=key[1], name="refund", result=Raw(b'"theirs"'))
    doing = asyncio.create_task(perform(model.settings, desk.tools(), journal))
    await asyncio.wait([doing], timeout=0.1)
    assert not doing.done()
    await journal.tools.record(theirs)
    await doing
    assert (desk.refunded, results(model)) == (["7"], [("a", "theirs", False)])


async def test_other_calls_of_the_answer_are_not_made_while_one_is_in_doubt(httpserver: HTTPServer) -> None:
    two = says(calls("refund", "a", {"order": "1"}), calls("refund", "b", {"order": "2"}))
    model = ScriptedModel(httpserver, two, says("Done."))
    desk, journal = Desk(), Journal()
    await perform(model.settings, desk.tools(), journal)
    begun_before(journal)
    first, second = journal.tools.begins
    del journal.tools.begins[second]
    with pytest.raises(ToolInDoubt):
        await perform(model.settings, desk.tools(), journal)
    assert desk.refunded == ["1", "2"]
    assert [*journal.tools.begins] == [first]


async def test_of_two_workers_that_hold_one_step_one_calls_the_tool(httpserver: HTTPServer) -> None:
    model = ScriptedModel(httpserver, says(calls("refund", "a", {"order": "7"})), says("Done."))
    desk, journal = Desk(), Journal()
    both = await asyncio.gather(*(perform(model.settings, desk.tools(), journal) for _ in range(2)))
    assert [performed.output for performed in both] == [b'"Done."', b'"Done."']
    assert desk.refunded == ["7"]
    (begun,) = journal.tools.begins.values()
    assert isinstance(begun, ToolBegun)


# ---- rehearsal -----------------------------------------------------------------------------------


async def test_rehearsal_calls_what_is_idempotent_and_makes_up_the_rest() -> None:
    desk, journal = Desk(), Journal()
    performed = await perform(ModelSettings(), desk.tools(), journal, workers=[])
    assert performed.rehearsed
    assert desk.searched and not desk.refunded
    found = {call.name: call for call in journal.tools.calls.values()}
    assert (found["search"].rehearsed, found["refund"].rehearsed) == (False, True)
    assert "[rehearsed: refund was not called, as it is not idempotent" in json.loads(bytes(found["refund"].result))
    assert journal.tools.begins == {}
