"""Handlers: what is accepted and refused at load, what they get, what they return, and whatever they raise."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import functools
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar

import msgspec
import pydantic
import pytest
from msgspec import Raw

from baton_actors.agents.agents import Agents
from baton_actors.agents.contained import contained
from baton_actors.agents.handlers import Context, Handler, actor
from baton_actors.agents.prompt import PromptAgent, request_of
from baton_actors.agents.python import PythonAgent
from baton_actors.agents.raising import MESSAGE_MAX, describe
from baton_actors.agents.threads import Threads
from baton_actors.agents.tracebacks import place_of
from baton_actors.errors import BadHandler, BadOutput, BadValue, Fail, HandlerMissing, HandlerRaised
from baton_actors.models import ModelAnswer, ModelRequest, Models, ModelSettings, request_digest
from baton_actors.models.types import Bound
from baton_schemas.flow.flow import Field, Step
from baton_schemas.wire.outcomes import Failed, Usage

from .agents import CONTEXT, NoJournal, plan_of, task_of
from .servers import NatsServer
from .team import flow_of, team, value_of


async def output_of(function: Callable[..., Any], **values: Any) -> Any:
    """What a function puts out as a handler, decoded."""
    return msgspec.json.decode(await performed(function, **values))


async def performed(function: Callable[..., Any], **values: Any) -> bytes:
    threads = Threads()
    try:
        return (await PythonAgent(Handler(function), threads).perform(task_of(**values), NoJournal())).output
    finally:
        threads.close()


# ---- signatures ------------------------------------------------------------------------------------


class Point(pydantic.BaseModel):
    x: int


class Name(str): ...


class Colour(enum.Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: int


@dataclasses.dataclass
class Data:
    at: datetime
    cost: Decimal
    key: uuid.UUID
    raw: bytes


class Item(msgspec.Struct):
    name: str
    parts: list[Item] = []


class Shouter:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    async def __call__(self, text: str) -> str:
        return text + self.mark

    def method(self, text: str) -> str:
        return self.mark + text


def doubled(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def asynchronous(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def plain(text: str, mark: str = "") -> str:
    return text + mark


async def later(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("function", "output"),
    [
        (plain, "a"),
        (later, "a"),
        (actor(plain).function, "a"),
        (functools.partial(plain, mark="!"), "a!"),
        (lambda text: text * 2, "aa"),
        (Shouter("!"), "a!"),
        (Shouter("!").method, "!a"),
        (doubled(plain), "a"),
        (doubled(later), "a"),
        (asynchronous(plain), "a"),
    ],
)
async def test_anything_that_can_be_called_by_name_is_a_handler(function: Callable[..., Any], output: str) -> None:
    assert await output_of(function, text="a") == output


def yields(text: str) -> Iterator[str]:
    yield text


async def yields_later(text: str) -> AsyncIterator[str]:
    yield text


def any_args(*args: str) -> str: ...  # type: ignore[empty-body]
def any_names(**kwargs: str) -> str: ...  # type: ignore[empty-body]
def by_place(text: str, /) -> str: ...  # type: ignore[empty-body]
def takes_an_object(text: object) -> str: ...  # type: ignore[empty-body]
def takes_an_iterator(text: list[Iterator[int]]) -> str: ...  # type: ignore[empty-body]
def takes_a_union(text: Point | int) -> str: ...  # type: ignore[empty-body]
def returns_an_iterator(text: str) -> Iterator[str]: ...  # type: ignore[empty-body]
def returns_a_function(text: str) -> dict[str, Callable[[], int]]: ...  # type: ignore[empty-body]
def unresolved(text: Nowhere) -> str: ...  # type: ignore[name-defined,empty-body] # noqa: F821


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (yields, "it yields; expected a function that returns"),
        (yields_later, "it yields"),
        (Shouter, "it is a class"),
        (any_args, r"parameter '\*args' names no value to read. Name each value"),
        (any_names, r"parameter '\*\*kwargs' names no value"),
        (by_place, "parameter 'text' is positional-only"),
        (takes_an_object, "parameter 'text': object cannot come from JSON: use a Struct"),
        (takes_an_iterator, "parameter 'text': Iterator cannot come from JSON"),
        (takes_a_union, "parameter 'text': Type unions"),
        (returns_an_iterator, "what it returns: Iterator cannot come"),
        (returns_a_function, "what it returns: Callable cannot come"),
        (unresolved, "an annotation does not resolve"),
        (len, "positional-only|signature"),
    ],
)
def test_what_cannot_work_is_refused_at_load(function: Callable[..., Any], reason: str) -> None:
    with pytest.raises(BadHandler, match=reason):
        Handler(function)


# ---- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Point, {"x": 1}),
        (list[Point], [{"x": 1}]),
        (Point | None, None),
        (Name, "n"),
        (dict[str, list[Name]], {"a": ["n"]}),
        (Colour, "red"),
        (Pair, [1, 2]),
        (Item, {"name": "n", "parts": [{"name": "m", "parts": []}]}),
        (Annotated[int, msgspec.Meta(gt=3)], 4),
        (Data, {"at": "2026-01-02T00:00:00Z", "cost": "1.5", "key": str(uuid.UUID(int=1)), "raw": "eA=="}),
        (frozenset[int], [1]),
        (Any, {"a": None}),
    ],
)
async def test_value_comes_in_its_annotated_type_and_goes_out_again(kind: Any, value: Any) -> None:
    def same(given: Any) -> Any:
        return given

    same.__annotations__ = {"given": kind, "return": kind}
    assert await output_of(same, given=value) == value


async def test_models_of_pydantic_are_made_and_taken() -> None:
    async def move(point: Point) -> Point:
        assert type(point) is Point
        return Point(x=point.x + 1)

    assert await output_of(move, point={"x": 1}) == {"x": 2}
    with pytest.raises(BadValue, match=r"parameter 'point' of .*move: 1 validation error for Point"):
        await performed(move, point={"x": "no"})


async def test_value_that_does_not_fit_is_told_with_its_place() -> None:
    async def read(items: list[Item]) -> None: ...

    with pytest.raises(BadValue, match=r"parameter 'items' of .*: Expected `str`, got `int` - at `items\[1\].name`"):
        await performed(read, items=[{"name": "a"}, {"name": 1}])


def returns(annotation: Any, value: Any) -> Callable[[], Any]:
    async def function() -> Any:
        return value

    function.__annotations__ = {"return": annotation}
    return function


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        (str, 1, "Expected `str`, got `int`"),
        (Annotated[int, msgspec.Meta(gt=3)], 1, "Expected `int` >= 4"),
        (Item, Item(name=1), r"Expected `str`, got `int` - at `output\.name`"),  # type: ignore[arg-type]
        (list[int], [1, "a"], r"at `output\[1\]`"),
        (Point, [Point(x=1)], "validation error for Point|Input should be a valid dictionary"),
        (None, 1, "Expected `null`, got `int`"),
        (Any, Raw(b"[1,"), "output: no JSON"),
        (Any, {"a": Raw(b"[1,")}, "does not fit"),
        (Any, object(), "output: object cannot be JSON"),
        (Any, {"a": [{1, 1j}]}, r"output\.a\[0\]\[.\]: complex cannot be JSON"),
        (float, math.nan, "output: nan is no number"),
        (list[float], [1.0, math.inf], r"output\[1\]: inf"),
        (str, "a\ud83d", "output: a lone surrogate"),
        (Any, (x for x in "ab"), "returned a generator; expected its output"),
        (Any, yields_later("a"), "returned a async_generator"),
    ],
)
async def test_output_that_is_not_as_annotated_or_no_json_is_refused(annotation: Any, value: Any, reason: str) -> None:
    with pytest.raises(BadOutput, match=reason):
        await performed(returns(annotation, value))


@pytest.mark.parametrize("value", [None, "", [], {}, 0, False])
async def test_empty_outputs_are_outputs(value: Any) -> None:
    assert await output_of(returns(Any, value)) == value
    assert await output_of(returns(type(value), value)) == value


async def test_coroutine_that_a_plain_handler_returns_is_refused() -> None:
    with pytest.raises(BadOutput, match="returned a coroutine; expected its output, all of it"):
        await performed(lambda: later("a"))


async def test_context_says_who_and_where() -> None:
    async def where(context: Context) -> list[Any]:
        return [context.run, context.step, context.attempt]

    assert await output_of(where) == [CONTEXT.run, CONTEXT.step, CONTEXT.attempt]


# ---- what is raised ----------------------------------------------------------------------------------


class Custom(BaseException): ...


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")

    __repr__ = __str__


RAISED: dict[str, Callable[[], BaseException]] = {
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "CancelledError": asyncio.CancelledError,
    "StopIteration": lambda: StopIteration("x"),
    "StopAsyncIteration": StopAsyncIteration,
    "a BaseException": lambda: Custom("x"),
    "without words": Unspeakable,
    "a group": lambda: ExceptionGroup("several", [ValueError("a"), ExceptionGroup("inner", [KeyError("b")])]),
    "a group of what ends processes": lambda: BaseExceptionGroup("worse", [SystemExit(1)]),
    "a long text": lambda: RuntimeError("x" * 1_000_000),
    "text that is none": lambda: RuntimeError("\ud83d\0\n"),
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
}


@pytest.mark.parametrize("name", RAISED)
@pytest.mark.parametrize("is_async", [True, False])
async def test_whatever_a_handler_raises_comes_out_as_an_exception_of_its_own(name: str, is_async: bool) -> None:
    error = RAISED[name]()

    def raises() -> NoReturn:
        raise error

    async def raises_later() -> NoReturn:
        raise error

    function = raises_later if is_async else raises
    with pytest.raises(Exception) as caught:
        await performed(function)
    kind, message = describe(caught.value)
    # A coroutine may not raise StopIteration: Python says so with a RuntimeError.
    assert kind == ("RuntimeError" if is_async and name == "StopIteration" else type(error).__name__)
    assert len(message) <= MESSAGE_MAX
    message.encode()
    if kind == type(error).__name__:
        at = place_of(caught.value)
        assert at is not None
        assert at.file.endswith("test_handlers.py")
        assert (at.line, at.function) == (function.__code__.co_firstlineno + 1, function.__name__)


async def test_real_cancellation_stays_one_whatever_the_clean_up_does() -> None:
    async def raises_in_clean_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("in the clean-up")

    async def goes_on() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "done after all"

    for function in (raises_in_clean_up, goes_on):
        task = asyncio.create_task(contained(function, 30))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_handler_that_goes_on_after_its_time_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("baton_actors.agents.contained.CLEAN_UP_S", 0.01)
    enough, ended = asyncio.Event(), asyncio.Event()

    async def goes_on() -> None:
        while not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await enough.wait()
        ended.set()

    with pytest.raises(TimeoutError, match="timeout_s"):
        await contained(goes_on, 0.01)
    assert not ended.is_set()
    enough.set()
    await ended.wait()


async def test_time_out_is_told_as_one_though_the_clean_up_raises() -> None:
    async def raises_in_clean_up() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("in the clean-up")

    agent = PythonAgent(Handler(raises_in_clean_up), Threads())
    with pytest.raises(TimeoutError, match=r"did not finish within 0\.01 s \(timeout_s\)"):
        await agent.perform(task_of(timeout_s=0.01), NoJournal())


async def test_failed_task_group_is_no_cancellation() -> None:
    async def fails() -> None:
        raise ValueError("in a group")

    async def gathers() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())

    async def goes_on() -> str:
        with contextlib.suppress(ExceptionGroup):
            await gathers()
        return "done"

    with pytest.raises(ExceptionGroup):
        await performed(gathers)
    assert await output_of(goes_on) == "done"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_time_out_of_the_handlers_own_is_its_own() -> None:
    async def gives_up() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError) as caught:
        await performed(gives_up)
    assert "timeout_s" not in str(caught.value)


async def test_task_of_a_handler_cannot_end_the_loop() -> None:
    left: list[asyncio.Task[None]] = []

    async def exits() -> None:
        raise SystemExit(3)

    async def leaves_a_task() -> str:
        left.append(asyncio.create_task(exits(), name="left behind"))
        return "done"

    async def gathers() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(exits())

    assert await output_of(leaves_a_task) == "done"
    await asyncio.wait(left)
    assert isinstance(left[0].exception(), HandlerRaised)
    assert left[0].get_name() == "left behind"
    with pytest.raises(ExceptionGroup) as caught:
        await performed(gathers)
    assert "SystemExit: 3" in describe(caught.value)[1]


async def test_tasks_of_handlers_are_cancelled_before_they_begin_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    async def cancels_at_once() -> str:
        task = asyncio.create_task(asyncio.sleep(60, "never"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return "done"

    assert await output_of(cancels_at_once) == "done"
    assert [str(warning.message) for warning in recwarn] == []


def test_error_group_is_described_with_what_is_in_it() -> None:
    inner = ExceptionGroup("inner", [KeyError("b")])
    kind, message = describe(ExceptionGroup("several", [ValueError("a"), inner, HandlerRaised(SystemExit(3))]))
    assert kind == "ExceptionGroup"
    for part in ("ValueError: a", "ExceptionGroup: inner", "KeyError: 'b'", "SystemExit: 3"):
        assert part in message
    assert "and 980 more" in describe(ExceptionGroup("x", [ValueError("y" * 10)] * 1_000))[1]
    assert len(describe(ExceptionGroup("x", [ValueError("y" * 9_999)] * 30))[1]) <= MESSAGE_MAX


def test_error_on_purpose_says_only_what_its_author_wrote() -> None:
    with pytest.raises(Fail) as caught:
        raise Fail("of no use")
    assert describe(caught.value) == ("Fail", "of no use")


def test_name_of_an_error_is_bounded() -> None:
    class Meta(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise ValueError("no name today")

    assert describe(Meta("Odd", (Exception,), {})("said"))[0] == "Exception"
    named = type("Odd" * 100, (Exception,), {})
    assert describe(named())[0] == ("Odd" * 100)[:99] + "…"


# ---- whose agent it is -------------------------------------------------------------------------------


def test_flows_that_name_their_handlers_alike_never_run_each_others_code() -> None:
    agents, news, sport = Agents(), plan_of("news"), plan_of("sport")
    ours, theirs = Handler(lambda: "news"), Handler(lambda: "sport")
    agents.add(news, {"./h.py:f": ours})
    agents.add(sport, {"./h.py:f": theirs})
    found = [agents.of(plan, "a") for plan in (news, sport)]
    assert [agent.handler for agent in found if isinstance(agent, PythonAgent)] == [ours, theirs]
    with pytest.raises(HandlerMissing):
        agents.of(plan_of("weather"), "a")


def test_another_version_of_the_flow_is_done_if_the_handler_fits() -> None:
    agents = Agents()
    agents.add(plan_of(fields={"text": "str"}), {"./h.py:f": Handler(lambda text: text)})
    assert agents.of(plan_of(fields={"text": "str", "more": "str"}), "a")
    with pytest.raises(HandlerMissing, match=r"does not fit .parameter 'text' is nothing that step 'a' reads"):
        agents.of(plan_of(fields={"title": "str"}), "a")


def test_missing_handler_is_told_with_what_there_is() -> None:
    agents = Agents()
    agents.add(plan_of(handler="./h.py:g"), {"./h.py:g": Handler(lambda: 1)})
    plan = plan_of()
    with pytest.raises(HandlerMissing, match=r"lacks the handler './h\.py:f' for agent 'a' of flow 'flow'") as caught:
        agents.of(plan, "a")
    missing = caught.value
    assert (missing.flow, missing.digest, missing.agent, missing.handler) == ("flow", plan.digest, "a", "./h.py:f")
    assert missing.known == ("./h.py:g",)


def test_model_agent_needs_models() -> None:
    with pytest.raises(HandlerMissing, match=r"lacks models for agent 'a' .* started without models"):
        Agents().of(plan_of(handler=""), "a")
    assert Agents(Models(ModelSettings())).of(plan_of(handler=""), "a")


async def test_agents_do_a_task_of_their_flow() -> None:
    agents = Agents()
    task = task_of(text="a")
    agents.add(task.plan, {"./h.py:f": Handler(plain_text)})
    assert (await agents.of(task.plan, "a").perform(task, NoJournal())).output == b'"a"'
    await_free = msgspec.structs.replace(task, values={"text": Raw(b"1")})
    with pytest.raises(BadValue):
        await agents.of(task.plan, "a").perform(await_free, NoJournal())


def plain_text(text: str) -> str:
    return text


class Model(Models):
    """A model that gives one answer, and counts how often it was asked."""

    def __init__(self, text: str) -> None:
        super().__init__(ModelSettings())
        self.text, self.asked = text, 0

    async def complete(
        self, request: ModelRequest, on_chunk: Any = None, on_cut: Any = None, on_begun: Any = None
    ) -> ModelAnswer:
        self.asked += 1
        return answer(self.text)


T = TypeVar("T")


class FirstWins(NoJournal):
    """A journal in which the first answer to a request stays, as in the log."""

    def __init__(self) -> None:
        self.answers: dict[str, ModelAnswer] = {}

    async def recall(self, digest: str) -> ModelAnswer | None:
        return self.answers.get(digest)

    async def record(self, digest: str, answer: ModelAnswer) -> ModelAnswer:
        return self.answers.setdefault(digest, answer)

    async def in_turn(self, call: Callable[[], Awaitable[T]], bound: Bound) -> T:
        return await call()


def answer(text: str) -> ModelAnswer:
    return ModelAnswer(
        text=text,
        model="m",
        stop_reason="end_turn",
        usage=Usage(input_tokens=1, output_tokens=1),
        cost_usd=0.0,
        truncated=False,
        rehearsed=False,
        request_id="",
    )


async def test_prompt_agent_puts_out_the_answer_that_is_recorded() -> None:
    model, journal, task = Model("ours"), FirstWins(), task_of(plan_of(handler=""))
    agent = PromptAgent(model)
    journal.answers[request_digest(request_of(task), model.settings)] = answer("theirs")
    assert (await agent.perform(task, journal)).output == b'"theirs"'
    assert model.asked == 0

    class Late(FirstWins):
        async def recall(self, digest: str) -> ModelAnswer | None:
            return None  # another worker's comes between

    late = Late()
    late.answers = journal.answers
    assert (await agent.perform(task, late)).output == b'"theirs"'
    assert model.asked == 1


async def test_answer_with_half_a_character_is_recorded_and_put_out_as_valid_text() -> None:
    journal, task = FirstWins(), task_of(plan_of(handler=""))
    performed = await PromptAgent(Model("caf\ud83d \ud83d\ude00")).perform(task, journal)
    assert msgspec.json.decode(performed.output) == "caf\ufffd 😀"
    assert [stored.text for stored in journal.answers.values()] == ["caf\ufffd 😀"]


# ---- in a worker -------------------------------------------------------------------------------------

ONE = {"a": Step(agent="a")}
TEXT = {"text": Field()}


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration])
async def test_worker_goes_on_after_a_handler_that_raises_what_ends_processes(
    server: NatsServer, namespace: str, kind: type[BaseException]
) -> None:
    async def raises(text: str) -> str:
        if text == "raise":
            raise kind("x")
        return text

    def raises_plainly(a: str) -> str:
        if a == "raise plainly":
            raise kind("x")
        return a

    flow = flow_of({**ONE, "b": Step(agent="b", after=["a"])}, TEXT, {name: {"max_attempts": 2} for name in "ab"})
    async with team(server.url, namespace, flow, {"a": raises, "b": raises_plainly}) as t:
        for text in ("raise", "raise plainly"):
            result = await t.run(text=text)
            assert isinstance(result.outcome, Failed)
            assert result.outcome.error.attempts == 2
        assert value_of((await t.run(text="fine")).outcome) == "fine"
