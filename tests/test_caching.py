"""What calls have in common is marked for the provider's cache, written once, and read by all others."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from nats.js.errors import NotFoundError
from rich.console import Console, RenderableType

from baton_actors import File, Flow
from baton_actors.agents.loading import FoundFlow, find_flow
from baton_actors.cli.show.costs import dollars
from baton_actors.cli.show.run_page import run_page
from baton_actors.cli.show.step_page import step_page
from baton_actors.models import Models, ModelSettings
from baton_actors.models.body import body_of
from baton_actors.models.caching import prefix_of
from baton_actors.models.run_facts import run_facts
from baton_actors.models.saved import saved_by_seen
from baton_actors.processes.hosting import hosting
from baton_bus import Client, Settings, connect
from baton_bus.client.runs import find_run
from baton_bus.client.seen import see_step
from baton_bus.engine.engine import Engine
from baton_schemas.errors import FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.versions import version_needed
from baton_schemas.show.asked import Asked, asked_by
from baton_schemas.show.plan import plan_of
from baton_schemas.show.rows import rows_of
from baton_schemas.show.step_facts import step_facts
from baton_schemas.wire.messages import ASKING, FIRST, Result

from .caching_server import CachingServer, caching_server
from .pdfs import pdf
from .prompt_cache import INPUT, READ, WRITTEN, PromptCache
from .servers import WAIT_S, NatsServer

LONG = "It was a dark and stormy night. " * 1_000
"""8,000 tokens."""
FLOW = """
name = "night"
input = { document = "str", topics = "list[str]" }

[agents.reader]
model = "claude-haiku-4-5"
max_tokens = 100
system = "Be brief."
prompt = "{document}\\n\\nOn {item}: {index}"

[steps.read]
agent = "reader"
each = "topics"
"""


def asked(flow: str = FLOW, *, item: str = "tea", index: int = 1, **values: Any) -> Asked:
    given = {"document": LONG, "topics": ["tea", "milk"], **values, "item": item, "index": index}
    raw = {name: Raw(msgspec.json.encode(value)) for name, value in given.items()}
    return asked_by(Plan(load_flow(flow)), f"read-{index}", raw, {})


def marked(body: dict[str, Any]) -> list[dict[str, Any]]:
    """All blocks of a body that are marked."""
    blocks = [*body.get("tools", []), *body.get("system", [])]
    for message in body["messages"]:
        blocks += message["content"] if isinstance(message["content"], list) else []
    return [block for block in blocks if "cache_control" in block]


# ---- what is marked ------------------------------------------------------------------------------


def test_what_branches_have_in_common_is_marked_up_to_where_they_differ() -> None:
    body = body_of(asked())
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": f"{LONG}\n\nOn ", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "tea: 1"},
    ]
    assert len(marked(body)) == 1, "a system prompt of two words is not kept by itself"
    assert prefix_of(asked()) == prefix_of(asked(item="milk", index=0))
    assert prefix_of(asked()) != prefix_of(asked(document=LONG + "!"))


def test_what_is_too_short_to_be_kept_is_sent_as_it_was() -> None:
    body = body_of(asked(document="A long story."))
    assert body["messages"] == [{"role": "user", "content": "A long story.\n\nOn tea: 1"}]
    assert not marked(body)
    assert prefix_of(asked(document="A long story.")) is None


@pytest.mark.parametrize(("model", "is_kept"), [("opus-5", True), ("sonnet-5", False), ("opus-5-20260801", True)])
def test_how_much_is_kept_at_the_least_depends_on_the_model(model: str, is_kept: bool) -> None:
    body = body_of(asked(FLOW.replace("haiku-4-5", model), document="x" * 4 * 600))
    assert bool(marked(body)) == is_kept


def test_question_has_the_hash_that_it_had_before_it_was_split() -> None:
    question = asked(document="A long story.")
    assert [part.shared for part in question.parts] == [True, False]
    assert question.digest(rehearses=False) == "ec7ddf6e389c403f108068bb1ef6e9f78158656fe674bc8517bdcef2d5a9c29b"
    hour = asked(FLOW.replace("max_tokens", 'cache = "1h"\nmax_tokens'), document="A long story.")
    assert hour.digest(rehearses=False) == question.digest(rehearses=False)


def test_hour_is_asked_for_where_the_agent_says_so_and_off_marks_nothing() -> None:
    hour = body_of(asked(FLOW.replace("max_tokens", 'cache = "1h"\nmax_tokens')))
    assert [block["cache_control"] for block in marked(hour)] == [{"type": "ephemeral", "ttl": "1h"}]
    off = FLOW.replace("max_tokens", 'cache = "off"\nmax_tokens')
    assert not marked(body_of(asked(off)))
    assert prefix_of(asked(off)) is None


def test_long_system_prompt_is_marked_unless_it_differs_by_branch() -> None:
    same = FLOW.replace("Be brief.", "Be brief. " * 2_000)
    assert [block["type"] for block in marked(body_of(asked(same, document="x")))] == ["text", "text"]
    assert "cache_control" in body_of(asked(same, document="x"))["system"][0]
    differs = FLOW.replace("Be brief.", "Write on {item}. " + "Be brief. " * 2_000)
    assert not marked(body_of(asked(differs)))


def test_document_that_branches_share_is_marked_as_what_it_is() -> None:
    flow = FLOW.replace('document = "str"', 'document = "file"')
    file = msgspec.structs.replace(File.of(pdf(9), name="paper.pdf").ref, pages=9)
    content = body_of(asked(flow, document={"file": msgspec.to_builtins(file)}))["messages"][0]["content"]
    assert [(block["type"], "cache_control" in block) for block in content] == [
        ("document", False),
        ("text", True),
        ("text", False),
    ]


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("max_tokens", 'cache = "2h"\nmax_tokens', "agents.reader.cache", "'5m' or '1h' or 'off'"),
        ('each = "topics"', "warm = true", "steps.read.warm", "without `each`"),
        ("each", "warm = 1\neach", "steps.read.warm", "true or false"),
        ("each", "wram = true\neach", "steps.read.wram", "Did you mean 'warm'?"),
    ],
)
def test_mistakes_are_told_with_their_place(old: str, new: str, place: str, said: str) -> None:
    with pytest.raises(FlowError) as caught:
        find_checked(FLOW.replace(old, new))
    assert caught.value.place.endswith(place)
    assert said in str(caught.value)


def test_nothing_is_warmed_that_is_not_cached_or_asked_of_a_model() -> None:
    with pytest.raises(FlowError, match="nothing is cached"):
        find_checked(FLOW.replace("each", "warm = true\neach").replace("max_tokens", 'cache = "off"\nmax_tokens'))
    handler = FLOW.partition("[agents.reader]")[0] + '[agents.reader]\nhandler = "./a.py:f"\n[steps.read]\n'
    with pytest.raises(FlowError, match="no LLM agent"):
        find_checked(handler + 'agent = "reader"\neach = "topics"\nwarm = true')
    with pytest.raises(FlowError, match="`cache` on what is no LLM agent"):
        find_checked(handler.replace("[steps", 'cache = "1h"\n[steps') + 'agent = "reader"\neach = "topics"')


def find_checked(flow: str) -> None:
    check_flow(load_flow(flow))


def test_flow_that_says_something_of_caching_is_not_given_to_the_first_release() -> None:
    assert version_needed(load_flow(FLOW)) == FIRST
    for new in (FLOW + "warm = true\n", FLOW.replace("max_tokens", 'cache = "1h"\nmax_tokens')):
        assert version_needed(load_flow(new)) == ASKING


def test_flow_in_python_says_the_same() -> None:
    flow = Flow("night", input={"document": str, "topics": list[str]})
    options: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 100, "each": "topics"}
    flow.ask("read", "{document} {item}", cache="1h", warm=True, **options)
    plan = flow.check()
    assert (plan.step("read").warm, plan.agent("read").cache) == (True, "1h")


# ---- over HTTP, as the API counts ----------------------------------------------------------------


@pytest.fixture
def settings(server: NatsServer, namespace: str) -> Settings:
    return Settings(url=server.url, namespace=namespace, lease_s=1.0)


@contextlib.asynccontextmanager
async def playing(
    settings: Settings, found: FoundFlow, api: CachingServer, processes: int = 1
) -> AsyncIterator[Client]:
    """Play a flow in as many processes, as far as they know of each other; give a client."""
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(settings))
        for _ in range(processes):
            own = await stack.enter_async_context(connect(settings))
            models = await stack.enter_async_context(Models(api.settings))
            engine = Engine(own.bus)
            await stack.enter_async_context(hosting(engine, found, list(found.flow.agents), models=models, grace_s=0.1))
        yield client
        for stream in (settings.namespace, client.bus.slots.stream):
            with contextlib.suppress(Exception):
                await client.bus.js.delete_stream(stream)


def flow_in(folder: Path, flow: str = FLOW, *, warm: bool = True, **keys: str) -> FoundFlow:
    more = "".join(f"\n{key} = {value}" for key, value in keys.items())
    path = folder / "night.toml"
    path.write_text(flow.replace("\nmax_tokens", f"{more}\nmax_tokens") + ("warm = true\n" if warm else ""))
    return find_flow(str(path))


async def ended(client: Client, found: FoundFlow, count: int = 8, **given: Any) -> Result:
    given = {"document": LONG, "topics": [str(number) for number in range(count)], **given}
    return await (await client.start(found.plan, given)).ended(WAIT_S)


async def test_first_branch_writes_and_all_others_read(settings: Settings, tmp_path: Path) -> None:
    found = flow_in(tmp_path)
    async with caching_server() as api, playing(settings, found, api) as client:
        assert (await ended(client, found)).status == "done"
    assert [bool(took.written) for took in api.took] == [True, *[False] * 7]
    assert all(took.read == api.took[0].written for took in api.took[1:])


async def test_without_it_all_that_begin_at_once_write(settings: Settings, tmp_path: Path) -> None:
    found = flow_in(tmp_path, warm=False)
    async with caching_server(0.5) as api, playing(settings, found, api) as client:
        assert (await ended(client, found)).status == "done"
    assert api.writes == 8


async def test_one_branch_is_first_over_all_processes(settings: Settings, tmp_path: Path) -> None:
    found = flow_in(tmp_path, concurrency="4")
    async with caching_server(0.3) as api, playing(settings, found, api, processes=3) as client:
        assert (await ended(client, found, 12)).status == "done"
    assert (api.writes, len(api.took)) == (1, 12)


async def test_another_branch_is_first_when_the_first_one_fails(settings: Settings, tmp_path: Path) -> None:
    found = flow_in(tmp_path, retry_base_s="0.1")
    async with caching_server() as api, playing(settings, found, api) as client:
        api.fail_next = 2
        assert (await ended(client, found)).status == "done"
    assert (api.writes, len(api.took)) == (1, 8)


async def test_branches_go_on_when_the_first_one_died_with_its_process(settings: Settings, tmp_path: Path) -> None:
    found = flow_in(tmp_path)
    async with caching_server() as api, playing(settings, found, api) as client:
        prefix = prefix_of(asked())
        assert prefix is not None
        slots = client.bus.slots
        dead = await slots.take(f"prefix-{prefix.name}", 1)
        assert dead is not None
        await slots.leave(dead, b"", 1)  # held for a second more, in place of HELD_S
        began = asyncio.get_running_loop().time()
        assert (await ended(client, found)).status == "done"
        assert asyncio.get_running_loop().time() - began >= 0.5
    assert (api.writes, len(api.took)) == (1, 8)


async def test_branches_that_wait_for_the_first_are_not_in_its_way_to_a_model_with_limits(
    settings: Settings, tmp_path: Path
) -> None:
    limits = '[limits."claude-haiku-4-5"]\nconcurrency = 2\nrequests_per_minute = 6_000\n\n[steps.read]'
    found = flow_in(tmp_path, FLOW.replace("[steps.read]", limits))
    async with caching_server() as api, playing(settings, found, api, processes=2) as client:
        api.fail_next = 1
        assert (await ended(client, found, 6)).status == "done"
    assert (api.writes, len(api.took)) == (1, 6)


async def test_step_with_nothing_to_keep_waits_for_nobody(settings: Settings, tmp_path: Path) -> None:
    found = flow_in(tmp_path)
    async with caching_server() as api, playing(settings, found, api) as client:
        assert (await ended(client, found, document="Short.")).status == "done"
        with pytest.raises(NotFoundError):
            await client.bus.js.stream_info(client.bus.slots.stream)
    assert api.writes == 0


async def test_rehearsal_waits_for_nobody(settings: Settings, tmp_path: Path) -> None:
    found = flow_in(tmp_path)
    rehearsing = Models(ModelSettings())
    async with connect(settings) as client, rehearsing, hosting(client.engine, found, ["reader"], models=rehearsing):
        result = await ended(client, found)
        assert result.status == "done"
        with pytest.raises(NotFoundError):
            await client.bus.js.stream_info(client.bus.slots.stream)
        await client.bus.js.delete_stream(settings.namespace)


async def test_shared_pdf_is_written_once_for_an_hour(settings: Settings, tmp_path: Path) -> None:
    flow = FLOW.replace('document = "str"', 'document = "file"')
    found = flow_in(tmp_path, flow, cache='"1h"')
    async with caching_server() as api, playing(settings, found, api) as client:
        paper = File.of(pdf(60), name="paper.pdf")
        assert (await ended(client, found, 4, document=paper)).status == "done"
    assert [bool(took.written_1h) for took in api.took] == [True, False, False, False]


async def test_what_was_saved_is_shown_with_what_was_read_and_written(settings: Settings, tmp_path: Path) -> None:
    found = flow_in(tmp_path)
    async with caching_server() as api, playing(settings, found, api) as client:
        run = await client.start(found.plan, {"document": LONG, "topics": ["a", "b", "c"]})
        await run.ended(WAIT_S)
        state, head = await run.state(), await find_run(client.bus, run.id)
        steps = [await see_step(client.bus, head, f"read-{number}") for number in range(3)]
    written = api.took[0].written
    saved_usd = written * (2 * (INPUT - READ) - (WRITTEN - INPUT)) / 1e6
    assert run_facts(state, [])["saved_usd"] == pytest.approx(saved_usd)
    page = shown(run_page(state, rows_of(state, plan_of(state))))
    assert f"({2 * written:,} cached, {written:,} written to the cache)" in page
    assert f"caching saved {dollars(saved_usd)}" in page
    wrote, *others = sorted(steps, key=lambda seen: saved_by_seen(seen) or 0.0)
    assert f"caching cost {dollars(written * (WRITTEN - INPUT) / 1e6)} more" in shown(step_page(wrote, 160))
    for seen in others:
        assert step_facts(seen, saved_by_seen(seen))["saved_usd"] == pytest.approx(written * (INPUT - READ) / 1e6)


def shown(page: RenderableType) -> str:
    file = io.StringIO()
    Console(file=file, width=160, force_terminal=False, highlight=False).print(page)
    return file.getvalue()


# ---- the stand-in itself -------------------------------------------------------------------------


def ask(cache: PromptCache, *texts: str, marks: tuple[int, ...], at_s: float = 0.0, begins: bool = True) -> Any:
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
    for index in marks:
        blocks[index]["cache_control"] = {"type": "ephemeral"}
    took, written = cache.take({"model": "m", "messages": [{"role": "user", "content": blocks}]}, at_s)
    if begins:
        cache.begun(written, at_s)
    return took


def test_stand_in_keeps_a_prefix_from_its_first_answer_on_for_five_minutes() -> None:
    cache = PromptCache(least_tokens=100)
    assert ask(cache, "x" * 400, "a", marks=(0,), begins=False)[:3] == (1, 0, 100)
    assert ask(cache, "x" * 400, "b", marks=(0,))[:3] == (1, 0, 100), "no answer had begun"
    assert ask(cache, "x" * 400, "c", marks=(0,), at_s=299)[:3] == (1, 100, 0)
    assert ask(cache, "x" * 400, "c", marks=(0,), at_s=598)[:3] == (1, 100, 0), "its use keeps it"
    assert ask(cache, "x" * 400, "c", marks=(0,), at_s=899)[:3] == (1, 0, 100)
    assert ask(cache, "x" * 396, "c", marks=(0,))[:3] == (100, 0, 0), "it is too short"


def test_stand_in_looks_back_twenty_blocks() -> None:
    for more, read in ((19, 100), (20, 0)):
        cache = PromptCache(least_tokens=100)
        ask(cache, "x" * 400, marks=(0,))
        assert ask(cache, "x" * 400, *["y"] * more, marks=(more,)).read == read
