"""Models of several providers in one flow: each is asked where it is, with its own key, and no other is told that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic
from msgspec.structs import replace

from baton_actors import Flow
from baton_actors.agents.agents import Agents
from baton_actors.agents.checking import check_source
from baton_actors.errors import HandlerMissing
from baton_actors.models import ModelError, Models, ModelSettings, request_digest
from baton_actors.models.providers import Providers
from baton_actors.processes.hosting import hosting
from baton_bus import Settings
from baton_bus.engine.engine import Engine
from baton_bus.store.bus import Bus, open_bus
from baton_schemas.errors import FlowError
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.file import load_flow
from baton_schemas.flow.flow import Provider as Named
from baton_schemas.flow.flow import decode_flow
from baton_schemas.flow.graph import Plan
from baton_schemas.wire.facts import Exchange, ModelCall
from baton_schemas.wire.messages import Note, Result
from baton_schemas.wire.outcomes import Done, Failed

from .clients import result_of, start_run
from .model_servers import request_for
from .sdk_clients import HAIKU, Provider, error_answer, providing
from .servers import WAIT_S, NatsServer

MAIN_KEY, OWN_KEY = "main-key-9d1f", "own-key-77aa"
SECRETS = (MAIN_KEY.encode(), OWN_KEY.encode())
CALL: dict[str, Any] = {"max_tokens": 50, "messages": [{"role": "user", "content": "How are the tides?"}]}


@pytest.fixture
async def bus(server: NatsServer, namespace: str) -> AsyncIterator[Bus]:
    async with open_bus(Settings(url=server.url, namespace=namespace, lease_s=2.0)) as bus:
        yield bus
        await bus.js.delete_stream(namespace)


@pytest.fixture
async def main() -> AsyncIterator[Provider]:
    async with providing() as provider:
        yield provider


@pytest.fixture
async def own() -> AsyncIterator[Provider]:
    async with providing() as provider:
        yield provider


def flow_with(own: Provider, **more: Any) -> Flow:
    """A flow that may ask `own/…` besides what the environment names."""
    table = {"base_url": f"{own.url}/gateway", "key_env": "OWN_KEY"} | more
    return Flow("two", input={"topic": "str"}, providers={"own": {k: v for k, v in table.items() if v is not None}})


async def play(bus: Bus, flow: Flow, main: Provider, environ: Mapping[str, str], **settings: Any) -> tuple[str, Result]:
    found = flow.found()
    asked = ModelSettings(**({"api_key": MAIN_KEY, "base_url": main.url} | settings))
    run = await start_run(bus, found.plan, {"topic": "tides"})
    async with (
        Models(asked, environ) as models,
        hosting(Engine(bus), found, list(found.flow.agents), models=models, grace_s=0.05),
    ):
        return run, await result_of(bus, run, timeout_s=WAIT_S)


async def facts(bus: Bus, run: str) -> list[Any]:
    return [entry.message.fact for entry in await bus.log.run(run) if isinstance(entry.message, Note)]


# ---- agents ----------------------------------------------------------------------------------------


async def test_two_agents_ask_two_providers_each_with_its_own_key(bus: Bus, main: Provider, own: Provider) -> None:
    flow = flow_with(own)
    flow.ask("first", "Say something about {topic}.", max_tokens=50)
    flow.ask("second", "Correct: {first}", model="own/llama-3.1", max_tokens=50, after="first")
    run, result = await play(bus, flow, main, {"OWN_KEY": OWN_KEY})
    assert isinstance(result.outcome, Done), result
    (to_main,), (to_own,) = main.asked, own.asked
    assert (to_main.path.partition("?")[0], to_main.body["model"]) == ("/v1/messages", HAIKU)
    assert (to_own.path.partition("?")[0], to_own.body["model"]) == ("/gateway/v1/messages", "llama-3.1")
    assert (to_main.headers["authorization"], to_own.headers["x-api-key"]) == (f"Bearer {MAIN_KEY}", OWN_KEY)
    assert not any(secret in str(asked) for secret, asked in ((OWN_KEY, to_main), (MAIN_KEY, to_own)))
    calls = [fact for fact in await facts(bus, run) if isinstance(fact, ModelCall)]
    assert sorted(call.model for call in calls) == ["claude-haiku-4-5-20251001", "own/claude-haiku-4-5-20251001"]
    # What a model costs elsewhere says nothing of what it costs at this provider.
    assert {call.model[:3]: call.cost_usd is None for call in calls} == {"cla": False, "own": True}


async def test_key_is_sent_as_a_token_where_the_provider_wants_that(bus: Bus, main: Provider, own: Provider) -> None:
    flow = flow_with(own, auth="bearer")
    flow.ask("write", "{topic}", model="own/m", max_tokens=50)
    _, result = await play(bus, flow, main, {"OWN_KEY": OWN_KEY})
    assert isinstance(result.outcome, Done), result
    assert own.asked[0].headers["authorization"] == f"Bearer {OWN_KEY}"
    assert "x-api-key" not in own.asked[0].headers


async def test_server_that_needs_no_key_is_not_sent_that_of_another(bus: Bus, main: Provider, own: Provider) -> None:
    flow = flow_with(own, key_env=None)
    flow.ask("write", "{topic}", model="own/m", max_tokens=50)
    _, result = await play(bus, flow, main, {"OWN_KEY": OWN_KEY})
    assert isinstance(result.outcome, Done), result
    assert not any(secret.decode() in str(own.asked) for secret in SECRETS)
    assert main.asked == []


async def test_no_key_is_in_the_log_of_a_run_that_a_provider_fails(bus: Bus, main: Provider, own: Provider) -> None:
    own.script = [lambda _: error_answer("401 Unauthorized", f"bad_key_{OWN_KEY}")] * 9
    flow = flow_with(own)
    flow.ask("write", "{topic}", model="own/m", max_tokens=50, max_attempts=1)
    _, result = await play(bus, flow, main, {"OWN_KEY": OWN_KEY})
    assert isinstance(result.outcome, Failed)
    assert "check OWN_KEY" in result.outcome.error.message
    assert own.url.removeprefix("http://") in result.outcome.error.message
    async with aclosing(bus.log.raw()) as read:
        stored = [each.data async for each in read]
    assert any(b"check OWN_KEY" in data for data in stored)
    assert not any(secret in data for secret in SECRETS for data in stored)


async def test_provider_whose_key_is_not_set_is_refused_with_what_to_set(
    bus: Bus, main: Provider, own: Provider
) -> None:
    flow = flow_with(own)
    flow.ask("write", "{topic}", model="own/m", max_tokens=50)
    _, result = await play(bus, flow, main, {})
    assert isinstance(result.outcome, Failed)
    assert "set OWN_KEY in the environment of its workers" in result.outcome.error.message
    assert result.outcome.error.attempts == 1
    assert (main.asked, own.asked) == ([], [])


async def test_all_is_rehearsed_without_any_key_and_a_provider_is_asked_once_it_has_one(
    bus: Bus, main: Provider, own: Provider
) -> None:
    flow = flow_with(own)
    flow.ask("first", "Say something about {topic}.", max_tokens=50)
    flow.ask("second", "Correct: {first}", model="own/m", max_tokens=50, after="first")
    run, result = await play(bus, flow, main, {}, api_key="", base_url="")
    assert isinstance(result.outcome, Done), result
    assert [fact.rehearsed for fact in await facts(bus, run) if isinstance(fact, ModelCall)] == [True, True]
    run, result = await play(bus, flow, main, {"OWN_KEY": OWN_KEY}, api_key="", base_url="")
    assert [fact.rehearsed for fact in await facts(bus, run) if isinstance(fact, ModelCall)] == [True, False]
    assert len(own.asked) == 1
    run, result = await play(bus, flow, main, {"OWN_KEY": OWN_KEY}, api_key="", base_url="", rehearse=True)
    assert len(own.asked) == 1


# ---- clients of handlers ----------------------------------------------------------------------------


async def of_both(topic: str, client: AsyncAnthropic) -> str:
    first = await client.messages.create(model=HAIKU, **CALL)
    async with client.messages.stream(model="own/llama-3.1", **CALL) as stream:
        second = await stream.get_final_message()
    count = await client.messages.count_tokens(model="own/llama-3.1", messages=CALL["messages"])
    return f"{first.content[0].text}, {second.content[0].text}, {count.input_tokens}"  # type: ignore[union-attr]


def of_both_plain(topic: str, client: Anthropic) -> str:
    first = client.messages.create(model=HAIKU, **CALL)
    second = client.messages.create(model="own/llama-3.1", **CALL)
    count = client.messages.count_tokens(model="own/llama-3.1", messages=CALL["messages"])
    return f"{first.content[0].text}, {second.content[0].text}, {count.input_tokens}"


@pytest.mark.parametrize("handler", [of_both, of_both_plain])
async def test_client_of_a_handler_asks_the_provider_that_its_model_names(
    bus: Bus, main: Provider, own: Provider, handler: Any
) -> None:
    flow = flow_with(own)
    flow.step(handler, name="write")
    run, result = await play(bus, flow, main, {"OWN_KEY": OWN_KEY})
    assert isinstance(result.outcome, Done), result
    assert bytes(result.outcome.output) == b'"answer 1, answer 1, 42"'
    assert [asked.body["model"] for asked in own.asked] == ["llama-3.1", "llama-3.1"]
    assert [asked.path.partition("?")[0] for asked in own.asked] == [
        "/gateway/v1/messages",
        "/gateway/v1/messages/count_tokens",
    ]
    assert {asked.headers["x-api-key"] for asked in own.asked} == {OWN_KEY}
    assert not any(MAIN_KEY in str(asked) for asked in own.asked)
    assert not any(OWN_KEY in str(asked) for asked in main.asked)
    exchanges = [fact for fact in await facts(bus, run) if isinstance(fact, Exchange)]
    assert [each.model for each in exchanges] == ["claude-haiku-4-5-20251001", "own/claude-haiku-4-5-20251001"]


async def refused(topic: str, client: AsyncAnthropic) -> str:
    await client.messages.create(model="own/m", **CALL)
    return "answered"


async def test_client_of_a_handler_is_told_at_once_what_to_set(bus: Bus, main: Provider, own: Provider) -> None:
    flow = flow_with(own)
    flow.step(refused, name="write", max_attempts=1)
    _, result = await play(bus, flow, main, {})
    assert isinstance(result.outcome, Failed)
    assert result.outcome.error.type.endswith("AuthenticationError")
    assert "set OWN_KEY" in result.outcome.error.message
    assert own.asked == []


# ---- whom a worker believes -------------------------------------------------------------------------


def plan_of(url: str, *, providers: bool = True) -> Plan:
    table = f'[providers.own]\nbase_url = "{url}"\nkey_env = "OWN_KEY"\n' if providers else ""
    model = "own/m" if providers else HAIKU
    agent = f'[agents.a]\nmodel = "{model}"\nprompt = "hi"\nmax_tokens = 9\n[steps.a]\n'
    return Plan(load_flow(f'name = "two"\n{table}{agent}'))


def test_flow_that_a_run_brings_cannot_say_where_a_key_is_sent() -> None:
    providers = Providers(ModelSettings(api_key=MAIN_KEY), {"OWN_KEY": OWN_KEY})
    ours, forged = plan_of("https://own.example.com"), plan_of("https://evil.example.com")
    providers.know("two", ours.flow.providers)
    assert providers.lacks("two", forged.flow.providers, "own/m") == ""
    assert providers.where("two", "own/m").settings.base_url == "https://own.example.com"


async def test_run_whose_provider_nobody_here_knows_is_given_back(server: NatsServer) -> None:
    async with Models(ModelSettings(api_key=MAIN_KEY), {"OWN_KEY": OWN_KEY}) as models:
        agents = Agents(models)
        agents.add(plan_of("", providers=False), {})
        with pytest.raises(HandlerMissing, match=r"lacks the provider 'own'") as caught:
            agents.of(plan_of("https://evil.example.com"), "a")
    assert caught.value.waits_for == "a worker whose flow has [providers.own]"


def test_answers_of_two_providers_are_told_apart_by_what_was_asked() -> None:
    settings = ModelSettings(api_key=MAIN_KEY)
    asked = [request_digest(request_for(model=model), settings) for model in ("m", "own/m", "other/m")]
    assert len(set(asked)) == 3


def test_id_with_a_slash_in_it_is_whole_where_no_provider_is_called_so() -> None:
    where = Providers(ModelSettings(api_key=MAIN_KEY)).where("two", "meta/llama-3.1")
    assert (where.provider, where.model) == ("", "meta/llama-3.1")


def test_key_that_cannot_be_sent_is_said_by_its_variable_and_not_shown() -> None:
    providers = Providers(ModelSettings(api_key=MAIN_KEY), {"OWN_KEY": "two words"})
    with pytest.raises(ModelError, match="OWN_KEY has a space") as caught:
        providers.know("two", {"own": Named(base_url="https://own.example.com", key_env="OWN_KEY")})
    assert "two words" not in str(caught.value)


# ---- flow files --------------------------------------------------------------------------------------

GOOD = """
name = "two"
[providers.own]
base_url = "https://own.example.com"
key_env = "OWN_KEY"
[agents.a]
model = "own/m-1"
prompt = "hi"
max_tokens = 9
fallback = ["worker", "own/m-2"]
[steps.a]
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("own/m-1", "onw/m-1", r"agents\.a\.model: found the unknown provider 'onw'.*Did you mean 'own'\?"),
        ("own/m-1", "own/", r"agents\.a\.model: .*the id of a model behind the slash"),
        ("OWN_KEY", "sk-ant-abc", r"providers\.own\.key_env: found what is no name of a variable"),
        ("https://own", "https://me:secret@own", r"base_url: found a login in the URL"),
        ("https://own", "own", r"base_url: found 'own\.example\.com'; expected http\(s\)://"),
        ("key_env", "key_evn", r"providers\.own\.key_evn: .*Did you mean 'key_env'\?"),
        ("providers.own", "providers.worker", r"providers\.worker: found a tier that is called 'worker' too"),
        ('"worker", ', '"wroker", ', r"fallback\[0\]: found the unknown tier 'wroker'.*Did you mean 'worker'\?"),
        ("own/m-2", "own/m-1", r"fallback\[1\]: found 'own/m-1' once more"),
        ('"OWN_KEY"', '""\nauth = "bearer"', r"auth: found 'bearer' without a key"),
    ],
)
def test_mistake_in_a_provider_is_told_with_its_place_and_without_secrets(old: str, new: str, said: str) -> None:
    with pytest.raises(FlowError, match=said) as caught:
        load_flow(GOOD.replace(old, new), "two.toml")
    assert "line" in str(caught.value)
    assert "sk-ant" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_flow_with_providers_is_one_that_the_first_release_gives_back() -> None:
    from baton_schemas.flow.graph import Plan as Worked

    plain = load_flow('name = "two"\n[agents.a]\nmodel = "worker"\nprompt = "hi"\n[steps.a]\n')
    assert (Worked(plain).version, Worked(load_flow(GOOD)).version) == (1, 2)
    assert check_flow(decode_flow(Worked(load_flow(GOOD)).body), stored=True).flow == load_flow(GOOD)
    assert b"providers" not in Worked(plain).body
    assert b"fallback" not in Worked(replace(plain, providers={})).body


def test_check_says_which_keys_are_not_set(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OWN_KEY", raising=False)
    file = tmp_path / "two.toml"
    file.write_text(GOOD)
    checked = check_source(str(file))
    assert checked.runs
    assert any("OWN_KEY is not set" in problem.message for problem in checked.problems), checked.problems
    assert checked.models == ["claude-haiku-4-5", "own/m-1", "own/m-2"]
    monkeypatch.setenv("OWN_KEY", OWN_KEY)
    assert not any("OWN_KEY" in problem.message for problem in check_source(str(file)).problems)
