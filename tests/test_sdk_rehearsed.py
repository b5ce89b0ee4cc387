"""The official client in handlers without a key, what of it is traced, how it is asked for, and how it is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import anthropic
import msgspec
import pydantic
import pytest
from anthropic import Anthropic, AsyncAnthropic, beta_async_tool
from jsonschema_rs import validator_for
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from baton_actors import Context
from baton_actors.agents.handlers import Handler
from baton_actors.agents.loading import find_flow
from baton_actors.agents.signatures import asks_models, parameters_of
from baton_actors.errors import BadHandler
from baton_actors.models import ModelSettings
from baton_actors.models.rehearsal.schema_values import filled
from baton_bus import Settings
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.flow.flow import Agent
from baton_schemas.wire.outcomes import Done

from .commands import baton, environ
from .maps import ROOT
from .sdk_clients import ASK, HAIKU, Crew, Provider, flow_of, providing, work_of
from .servers import NatsServer
from .test_readme import blocks

REHEARSED = ModelSettings(rehearse=True)
SOURCE = "Tides are strong. Tidal power is predictable, as the moon is. Barrages cost a lot of money."
ABOUT: dict[str, Any] = {
    "model": HAIKU,
    "max_tokens": 200,
    "messages": [{"role": "user", "content": f"<text>\n{SOURCE}\n</text>\n\nSummarise this text in one sentence."}],
}


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace, lease_s=1.0)) as bus:
        yield bus
        await bus.js.delete_stream(namespace)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with providing() as provider:
        yield provider


# ---- in rehearsal ----------------------------------------------------------------------------------


class Part(pydantic.BaseModel):
    title: str
    pages: Annotated[int, pydantic.Field(ge=2, le=9)]


class Outline(pydantic.BaseModel):
    kind: Literal["bug", "praise"]
    parts: Annotated[list[Part], pydantic.Field(min_length=2, max_length=2)]
    urgent: bool
    note: str | None = None


async def test_each_kind_of_call_is_rehearsed_and_says_so(bus: Bus) -> None:
    async def write(client: AsyncAnthropic, context: Context) -> list[str]:
        said = (await client.messages.create(**ABOUT)).content[0].text
        async with client.messages.stream(**ABOUT) as stream:
            streamed = await stream.get_final_text()
        parsed = await client.messages.parse(**ABOUT, output_format=Outline)
        assert parsed.parsed_output is not None
        of_beta = await client.beta.messages.create(**ABOUT)
        if context.attempt == 1:
            raise RuntimeError("once")
        return [said, streamed, parsed.parsed_output.kind, of_beta.content[0].text]

    crew = Crew(bus, flow_of(write), REHEARSED)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    said, streamed, kind, of_beta = msgspec.json.decode(result.outcome.output)
    assert said == streamed == of_beta
    assert said in SOURCE
    assert kind in ("bug", "praise")
    exchanges = await crew.exchanges(run)
    assert [(exchange.rehearsed, exchange.cost_usd, exchange.attempt) for exchange in exchanges] == [(True, 0.0, 1)] * 4
    work = work_of(result)
    assert (work.rehearsed, work.cost_usd, work.attempt) == (True, 0.0, 2)
    assert work.request_id.startswith("req_rehearsal_")
    assert (await crew.state(run)).rehearsed


async def test_plain_handler_is_rehearsed(bus: Bus) -> None:
    def write(client: Anthropic) -> str:
        with client.messages.stream(**ABOUT) as stream:
            return stream.get_final_text()

    _, result = await Crew(bus, flow_of(write), REHEARSED).play()
    assert isinstance(result.outcome, Done), result.outcome
    assert msgspec.json.decode(result.outcome.output) in SOURCE


async def test_threads_of_the_sdk_are_rehearsed_with_all_that_was_said(bus: Bus) -> None:
    async def write(client: AsyncAnthropic) -> list[str]:
        thread = client.beta.messages.thread(**ABOUT)
        first = await thread.send()
        second = await thread.send({"role": "user", "content": "And in two sentences?"})
        return [first.content[0].text, second.content[0].text]  # type: ignore[union-attr]

    _, result = await Crew(bus, flow_of(write, max_attempts=1), REHEARSED).play()
    assert isinstance(result.outcome, Done), result.outcome
    assert all(msgspec.json.decode(result.outcome.output))


@pytest.mark.parametrize("threads", [False, True])
async def test_tool_runner_of_the_sdk_is_rehearsed(bus: Bus, threads: bool) -> None:
    looked: list[str] = []

    @beta_async_tool
    async def look_up(place: str) -> str:
        """Return the tide at a place."""
        looked.append(place)
        return f"The tide is high at {place}."

    async def write(client: AsyncAnthropic) -> str:
        more: Any = {} if threads else {"thread": False}
        runner = client.beta.messages.tool_runner(**ABOUT, **more, tools=[look_up])
        return str((await runner.until_done()).content[-1].text)

    crew = Crew(bus, flow_of(write, max_attempts=1), REHEARSED)
    run, result = await crew.play()
    assert isinstance(result.outcome, Done), result.outcome
    assert len(looked) == 1
    assert "The tide is high" in msgspec.json.decode(result.outcome.output)
    assert [exchange.rehearsed for exchange in await crew.exchanges(run)] == [True, True]


async def test_what_cannot_be_rehearsed_is_refused_with_what_to_do(bus: Bus) -> None:
    async def write(client: AsyncAnthropic) -> list[str]:
        said = []
        nonsense: Any = [{"role": "user", "content": 7}]
        for call in (
            client.messages.count_tokens(model=HAIKU, messages=ABOUT["messages"]),
            client.messages.batches.list(),
            client.messages.create(model=HAIKU, max_tokens=9, messages=nonsense),
        ):
            with pytest.raises(anthropic.APIStatusError) as caught:
                await call
            said.append(str(caught.value))
        return said

    def write_plainly(client: Anthropic) -> str:
        with pytest.raises(anthropic.NotFoundError) as caught:
            client.messages.count_tokens(model=HAIKU, messages=ABOUT["messages"])
        return str(caught.value)

    for handler in (write, write_plainly):
        crew = Crew(bus, flow_of(handler, max_attempts=1), REHEARSED)
        run, result = await crew.play()
        assert isinstance(result.outcome, Done), result.outcome
        assert b"set ANTHROPIC_API_KEY" in bytes(result.outcome.output)
        assert await crew.exchanges(run) == []


class Node(pydantic.BaseModel):
    name: str
    children: list[Node]
    next: Node | None


@pytest.mark.parametrize(
    "schema",
    [
        Outline.model_json_schema(),
        Node.model_json_schema(),
        {"type": "array", "items": {"enum": ["bug", "praise"]}, "minItems": 2, "maxItems": 2},
        {"type": ["string", "null"], "minLength": 300},
        {"allOf": [{"properties": {"a": {"const": 7}}, "required": ["a"]}, {"type": "object"}]},
        {"type": "number", "exclusiveMinimum": 4},
        {"type": "integer", "maximum": -3},
        {"type": "string", "format": "date"},
        {
            "type": "object",
            "properties": {"x": {"$ref": "#/$defs/x"}},
            "required": ["x"],
            "$defs": {"x": {"enum": [1]}},
        },
    ],
)
@pytest.mark.parametrize("prompt", [f"<text>\n{SOURCE}\n</text>\n\nSort it.", "", "Sort it."])
def test_rehearsed_value_fits_the_schema(schema: dict[str, Any], prompt: str) -> None:
    value = filled(schema, prompt)
    assert validator_for(schema).is_valid(value), value
    assert len(json.dumps(value)) < 200_000


# ---- what is traced --------------------------------------------------------------------------------


class Tracing(trace.TracerProvider):
    """Keeps the names of spans that were ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.started = 0

    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        return _Tracer(self)


class _Tracer(trace.Tracer):
    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def start_span(self, name: str, *_: Any, **__: Any) -> trace.Span:
        self._tracing.started += 1
        return _Span(self._tracing, name)

    def start_as_current_span(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError


class _Span(NonRecordingSpan):
    def __init__(self, tracing: Tracing, name: str) -> None:
        super().__init__(SpanContext(0xABC, tracing.started, is_remote=False, trace_flags=TraceFlags(1)))
        self._tracing, self._name = tracing, name

    def is_recording(self) -> bool:
        return True

    def end(self, end_time: int | None = None) -> None:
        self._tracing.ended.append(self._name)


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracing]:
    tracing = Tracing()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", tracing)
    yield tracing


@pytest.mark.parametrize("sends", [False, True])
async def test_only_calls_that_are_made_are_traced_and_traceparent_is_a_setting(
    bus: Bus, provider: Provider, tracing: Tracing, sends: bool
) -> None:
    async def write(client: AsyncAnthropic, context: Context) -> str:
        async with client.messages.stream(**ASK) as stream:
            await stream.get_final_text()
        await client.messages.create(**ASK)
        if context.attempt == 1:
            raise RuntimeError("once")
        return "done"

    def write_plainly(client: Anthropic, context: Context) -> str:
        client.messages.create(**ASK)
        if context.attempt == 1:
            raise RuntimeError("once")
        return "done"

    settings = msgspec.structs.replace(provider.settings, traceparent=sends)
    for handler, calls in ((write, 2), (write_plainly, 1)):
        tracing.ended.clear()
        provider.asked.clear()
        _, result = await Crew(bus, flow_of(handler), settings).play()
        assert isinstance(result.outcome, Done), result.outcome
        assert tracing.ended == ["anthropic.messages.create"] * calls
        assert ["traceparent" in asked.headers for asked in provider.asked] == [sends] * calls


async def test_rehearsal_is_not_traced(bus: Bus, tracing: Tracing) -> None:
    @beta_async_tool
    async def look_up(place: str) -> str:
        """Return the tide at a place."""
        return "high"

    async def write(client: AsyncAnthropic) -> str:
        await client.messages.create(**ABOUT)
        return str(await client.beta.messages.tool_runner(**ABOUT, tools=[look_up]).until_done())[:9]

    _, result = await Crew(bus, flow_of(write, max_attempts=1), REHEARSED).play()
    assert isinstance(result.outcome, Done), result.outcome
    assert tracing.started == 0


async def test_llm_agents_send_traceparent_by_the_same_setting(provider: Provider, tracing: Tracing) -> None:
    from .model_servers import complete, request_for

    for sends in (False, True):
        settings = msgspec.structs.replace(provider.settings, traceparent=sends)
        await complete(settings, request_for())
        assert ("traceparent" in provider.asked[-1].headers) is sends


def test_setting_is_read_from_the_environment() -> None:
    assert not ModelSettings.from_environ({}).traceparent
    assert ModelSettings.from_environ({"BATON_TRACEPARENT": "1"}).traceparent
    with pytest.raises(Exception, match="BATON_TRACEPARENT is 'maybe': expected 1 or 0"):
        ModelSettings.from_environ({"BATON_TRACEPARENT": "maybe"})


# ---- how it is asked for ---------------------------------------------------------------------------


def of_async(topic: str, client: anthropic.AsyncAnthropic) -> str:
    return topic


async def of_plain(topic: str, asks: Anthropic | None = None) -> str:
    return topic


def test_wrong_pairing_says_what_to_write() -> None:
    with pytest.raises(BadHandler, match=r"Write `client: anthropic\.Anthropic`, or make it a `async def` function"):
        Handler(of_async)
    with pytest.raises(BadHandler, match=r"Write `asks: anthropic\.AsyncAnthropic`, or make it a `def` function"):
        Handler(of_plain)


@pytest.mark.parametrize(
    ("imports", "annotation"),
    [
        ("from anthropic import AsyncAnthropic", "AsyncAnthropic"),
        ("from anthropic import AsyncAnthropic as A", "A"),
        ("from anthropic import AsyncClient", "AsyncClient"),
        ("from anthropic import AsyncAnthropic", "'AsyncAnthropic'"),
        ("from anthropic import AsyncAnthropic", "AsyncAnthropic | None"),
        ("from anthropic import AsyncAnthropic\nfrom typing import Optional", "Optional[AsyncAnthropic]"),
        ("from anthropic import AsyncAnthropic\nimport typing as t", "t.Annotated[AsyncAnthropic, 'x']"),
        ("import anthropic", "anthropic.AsyncAnthropic"),
        ("import anthropic as a", "a.AsyncAnthropic"),
        ("import anthropic as a", "'a.AsyncAnthropic | None'"),
    ],
)
def test_client_is_no_value_that_the_flow_carries_however_it_is_called(
    tmp_path: Path, imports: str, annotation: str
) -> None:
    """By the source, without importing it; and by the function itself."""
    file = tmp_path / "h.py"
    file.write_text(f"{imports}\nasync def write(topic: str, by: {annotation} = None) -> str:\n    return topic\n")
    handler = f"{file}:write"
    assert parameters_of(handler, tmp_path) == ["topic"]
    assert asks_models(Agent(handler=handler), tmp_path)
    scope: dict[str, Any] = {"__name__": "h"}
    exec(file.read_text(), scope)
    made = Handler(scope["write"])
    assert made.asks_models
    assert [parameter.name for parameter in made.parameters if parameter.decoder is not None] == ["topic"]


@pytest.mark.parametrize(
    ("imports", "annotation"),
    [("class Anthropic: ...", "Anthropic"), ("from mine import Client", "Client"), ("import mine", "mine.Anthropic")],
)
def test_class_of_the_users_that_is_called_alike_is_none(tmp_path: Path, imports: str, annotation: str) -> None:
    (tmp_path / "h.py").write_text(f"{imports}\ndef write(topic: str, by: {annotation}) -> str: ...\n")
    assert parameters_of("./h.py:write", tmp_path) == ["topic", "by"]
    assert not asks_models(Agent(handler="./h.py:write"), tmp_path)


async def test_handler_can_be_called_as_the_function_that_it_is() -> None:
    async def write(topic: str, client: AsyncAnthropic | None = None) -> str:
        return topic

    made = Handler(write)
    assert made.asks_models
    assert await made("tides") == "tides"
    assert not Handler(test_setting_is_read_from_the_environment).asks_models


def test_process_that_needs_no_client_does_not_import_the_sdk(tmp_path: Path) -> None:
    (tmp_path / "h.py").write_text("from anthropic import Anthropic\ndef write(by: Anthropic) -> str: ...\n")
    (tmp_path / "f.toml").write_text('name = "f"\nagents.w = { handler = "./h.py:write" }\nsteps.w = { agent = "w" }\n')
    code = (
        "import sys; from baton_actors.agents.loading import find_flow; from baton_actors.agents.agents import Agents; "
        "from baton_actors.processes.supervisor import preload_of; "
        f"found = find_flow({str(tmp_path / 'f.toml')!r}); assert found.flow.agents['w'].reads == []; "
        "assert preload_of([found]); print('anthropic' in sys.modules, 'opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ())
    assert done.stdout.split() == ["False", "False"]


# ---- the example of the README, and how it is shown ------------------------------------------------


def files_of(text: str, folder: Path) -> Sequence[str]:
    saved = []
    for block in [*blocks("toml", text), *blocks("python", text)]:
        first = block.split("\n", 1)[0].removeprefix("# ")
        if first.startswith("tutorial."):
            (folder / first).write_text(block, "utf-8")
            saved.append(first)
    return sorted(saved)


def test_example_runs_in_rehearsal_and_shows_its_calls(tmp_path: Path) -> None:
    text = (ROOT / "actors" / "docs" / "handlers.md").read_text("utf-8")
    assert files_of(text, tmp_path) == ["tutorial.py", "tutorial.toml"]
    assert find_flow(str(tmp_path / "tutorial.toml")).flow.agents["author"].reads == ["topic"]
    run = baton("run", "tutorial.toml", "topic=Tidal power", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["rehearsed"] is True
    assert "Edit this text" in told["output"]
    shown = baton("show", told["run"], "article", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("rehearsed") >= 3
    assert "req_rehearsal_" in shown.stdout
    facts = json.loads(baton("show", told["run"], "article", "--json", cwd=tmp_path).stdout)
    assert [call["rehearsed"] for call in facts["calls"]] == [True] * 3
    assert facts["calls"][0]["answer"]["type"] == "message"
    assert facts["usage"]["input_tokens"] == sum(call["usage"]["input_tokens"] for call in facts["calls"])


def test_check_says_who_answers_a_handlers_client(tmp_path: Path) -> None:
    files_of((ROOT / "actors" / "docs" / "handlers.md").read_text("utf-8"), tmp_path)
    said = baton("check", "tutorial.toml", cwd=tmp_path)
    assert (said.returncode, "models are rehearsed" in said.stdout) == (0, True)
    wrong = baton("check", "tutorial.toml", cwd=tmp_path, BATON_REHEARSE="0")
    assert (wrong.returncode, "no credentials for the model API" in wrong.stdout) == (2, True)


def test_plain_handler_with_a_client_runs_under_the_debugger(tmp_path: Path) -> None:
    text = (ROOT / "actors" / "docs" / "handlers.md").read_text("utf-8")
    files_of(text, tmp_path)
    run = baton("run", "tutorial.toml", "topic=Tidal power", "--debug", "--json", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "Edit this text" in json.loads(run.stdout)["output"]
