"""What is in deploy/users.conf: each user can do its work, and what it must not do is refused and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nats
import nats.errors
import pytest
from msgspec import Raw
from nats.aio.client import Client as NatsClient
from nats.js.api import DiscardPolicy, StreamConfig

from baton_actors.agents.loading import find_flow
from baton_bus import Client, Run, Settings, connect
from baton_bus.engine import runs as runs_module
from baton_bus.errors import AnswerRefused, BusError, NoStream, NotAllowed
from baton_bus.server.embedded import find_server
from baton_bus.store.bus import open_bus
from baton_schemas.flow.check import check_flow
from baton_schemas.run.child_runs import run_of_child
from baton_schemas.wire.messages import Parent, Result
from baton_schemas.wire.outcomes import Failed

from .clusters import free_ports
from .commands import FLOWS, here, start
from .maps import ROOT
from .nested_teams import inner
from .servers import WAIT_S, nats_server, subscribed, until
from .timed import until_so

DEPLOY = ROOT / "deploy"
USERS = ("admin", "worker", "operator", "submitter", "observer")
WALLED = ("submitter", "observer")
TEXT = "text=one two\nthree"
OUTPUT = "3 words in 2 lines\n"
WORDS = find_flow(str(FLOWS / "words.toml")).plan
MORE_FOR_THERE = "baton.say.-budget.there.-"
"""Where a run is allowed to spend more."""
SOON_S = 8.0
"""An answer within this was not waited for with a patience of half a minute, however busy the machine is."""
API = "baton-api"
"""Where users of an account of their own ask what others ask on `$JS.API`."""


class Guarded(NamedTuple):
    """A server with the users of users.conf."""

    port: int
    log: Path

    def url(self, user: str) -> str:
        return f"nats://{user}:secret@127.0.0.1:{self.port}"

    def violations(self, *users: str, after: int = 0) -> list[str]:
        """What the server refused to these users, as it says it, after so many characters of its log."""
        found = re.findall(r'/user:(\w+)" - (\w+ Violation - .*)', self.log.read_text("utf-8")[after:])
        return [what for user, what in found if user in users]


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server started from deploy/nats.conf with its line for users.conf made one that counts."""
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copy(DEPLOY / "users.conf", folder)
    text = (DEPLOY / "nats.conf").read_text("utf-8")
    text, counted = re.subn(r"^# (include ./users\.conf)$", r"\1", text, flags=re.MULTILINE)
    assert counted == 1
    (folder / "nats.conf").write_text(text.replace("/var/lib/nats", str(folder / "store")), "utf-8")
    port, monitor = free_ports(2)
    ours = Guarded(port, folder / "nats.log")
    environ = os.environ | {f"BATON_{user.upper()}_PASSWORD": "secret" for user in USERS}
    command = [str(find_server()), "-c", str(folder / "nats.conf"), "-p", str(port), "-m", str(monitor)]
    with ours.log.open("wb") as log:
        process = subprocess.Popen(command, env=environ, stderr=log)
    try:
        asyncio.run(until(lambda: listens(port)))
        yield ours
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module")
def working(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """The server, with workers of two flows: `words`, and one that ends too late."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copy(FLOWS / "words.py", folder)
    late = (FLOWS / "words.toml").read_text("utf-8").replace('name = "words"', 'name = "late"\ndeadline_s = 0.5')
    (folder / "late.toml").write_text(late, "utf-8")
    flows = [str(FLOWS / "words.toml"), "late.toml"]
    process = start("up", *flows, "--json", "--nats", guarded.url("worker"), cwd=folder)
    assert process.stdout is not None
    try:
        assert process.stdout.readline(), process.stderr and process.stderr.read()
        yield guarded
    finally:
        process.terminate()
        process.communicate(timeout=30)


Refused = Callable[..., list[str]]


@pytest.fixture
def refused(working: Guarded) -> Refused:
    """Return what the server has refused to users since the test began."""
    return partial(working.violations, after=len(working.log.read_text("utf-8")))


@contextlib.asynccontextmanager
async def connected(guarded: Guarded, user: str) -> AsyncIterator[NatsClient]:
    async def say_nothing(_: Exception) -> None:
        pass

    async with asyncio.timeout(WAIT_S):
        nc = await nats.connect(guarded.url(user), error_cb=say_nothing)
    try:
        yield nc
    finally:
        await nc.close()


@contextlib.asynccontextmanager
async def client_of(guarded: Guarded, user: str, **settings: Any) -> AsyncIterator[Client]:
    """Open a Python client as its user would."""
    prefix: dict[str, Any] = {"api_prefix": API} if user in WALLED else {}
    async with connect(Settings(url=guarded.url(user), **prefix, **settings)) as client:
        yield client


async def facts(admin: NatsClient) -> dict[str, Any]:
    """All that a forger could change, once nothing is in work: what streams hold, how they are set up, consumers."""
    js = admin.jetstream()
    found: dict[str, Any] = {}
    is_settled = False
    async with asyncio.timeout(WAIT_S):
        while not is_settled:
            is_settled = True
            for info in await js.streams_info():
                listed = await js.consumers_info(str(info.config.name))
                consumers = [each for each in listed if each.config.durable_name]  # others are readers', and expire
                is_settled = is_settled and not any(each.num_pending or each.num_ack_pending for each in consumers)
                configs = sorted(((each.name, each.config) for each in consumers), key=lambda pair: str(pair[0]))
                found[str(info.config.name)] = (info.config, info.state.last_seq, info.state.messages, configs)
    return found


def test_operator_has_every_command(working: Guarded, refused: Refused, tmp_path: Path) -> None:
    def do(*arguments: str, **env: str) -> str:
        done = here(*arguments, "--nats", working.url("operator"), cwd=tmp_path, **env)
        assert done.returncode == 0, (arguments, done.stderr, refused("operator", "worker"))
        return done.stdout

    words, late = str(FLOWS / "words.toml"), str(tmp_path / "late.toml")
    shutil.copy(FLOWS / "words.py", tmp_path)
    Path(late).write_text((FLOWS / "words.toml").read_text("utf-8").replace('"words"', '"late"\ndeadline_s = 0.5'))
    assert do("submit", words, TEXT, "--run", "first", "--wait") == OUTPUT
    large = "text=" + "one two three\n" * 100
    assert "300 words" in do("submit", words, large, "--run", "large", "--wait", BATON_INLINE_LIMIT_BYTES="500")
    ended = here("submit", late, TEXT, "pause_s=60", "--wait", "--nats", working.url("operator"), cwd=tmp_path)
    assert ended.returncode != 0
    assert "deadline" in ended.stderr + ended.stdout
    do("submit", words, TEXT, "pause_s=60", "--run", "cancelled")
    do("cancel", "cancelled")
    assert "cancelled" in do("runs")
    assert "300 words" in do("show", "large")
    do("log", "first")
    do("export", "first")
    do("fork", "first", "--after", "add", "--wait")
    do("schedule", words, TEXT, "--at", "+10m", "--name", "later")
    assert "later" in do("schedules")
    do("unschedule", "words/later")
    do("doctor")
    assert refused("operator", "worker") == []


async def test_operator_ends_a_run_that_another_asked_for_and_a_clerk_tells_that_one(
    working: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "STOPPED_AFTER_S", 0.2)
    child = "whole--k0123456789abcdefghjk"
    run = run_of_child("asker", child)
    parent = Parent(run="asker", flow="outer", digest="0", start_seq=1, actor="outer--whole", step="whole", child=child)
    async with client_of(working, "admin") as admin, client_of(working, "operator") as operator:
        await admin.engine.runs.start(check_flow(inner()), {"text": Raw(b'"a"')}, run, parent=parent)
        assert (await operator.run(run).cancel()).status == "cancelled"

        async def is_told() -> bool:
            return bool(await admin.engine.asking.of_step("outer--whole", "asker", "whole"))

        await until_so(is_told)
        outcome = (await admin.engine.asking.of_step("outer--whole", "asker", "whole"))[child].outcome
        assert isinstance(outcome, Failed)
        assert outcome.error.type == "RunCancelled"


def test_purging_is_for_the_admin_and_an_operator_is_told_before_anything_is_written(
    working: Guarded, tmp_path: Path
) -> None:
    words = str(FLOWS / "words.toml")

    def do(user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return here(*arguments, "--nats", working.url(user), cwd=tmp_path)

    assert do("operator", "submit", words, TEXT, "--run", "to-purge", "--wait").stdout == OUTPUT
    refused = do("operator", "purge", "to-purge", "--yes")
    assert refused.returncode == 3
    assert "stream.purge.baton" in refused.stderr.lower()
    assert OUTPUT in do("operator", "show", "to-purge").stdout
    assert do("admin", "purge", "to-purge", "--yes").stdout.startswith("purged 1 run: ")
    assert "It was purged" in do("operator", "show", "to-purge").stderr


async def test_submitter_hands_in_a_task_and_waits_for_its_result(working: Guarded, refused: Refused) -> None:
    async with client_of(working, "submitter") as client:
        run = await client.start("words", text="one two\nthree")
        assert await run.result(WAIT_S) == OUTPUT
        again = client.run(run.id, "words")
        assert await again.result(WAIT_S) == OUTPUT, "read by who was not there when it was said"
        assert (await again.state()).status == "done"
        large = await client.start("words", text="one two three\n" * 100)
        assert "300 words" in await large.result(WAIT_S)
    assert refused("submitter") == []


async def test_observer_sees_what_runs_there_are_and_what_they_do(working: Guarded, refused: Refused) -> None:
    async with client_of(working, "submitter") as submitter, client_of(working, "observer") as client:
        run = await submitter.start("words", text="one two\nthree", pause_s=0.5)
        async with asyncio.timeout(WAIT_S):
            seen = [entry async for entry in client.run(run.id).events()]  # from before it began to its end
        assert isinstance(seen[-1].message, Result)
        assert {type(entry.message).__name__ for entry in seen} >= {"Handoff", "Reply", "Result"}
        assert [entry.seq for entry in seen] == sorted({entry.seq for entry in seen})
        newest = (await client.runs(1))[0]
        assert (newest.run, newest.flow, newest.status) == (run.id, "words", "done")
        assert (await client.run(run.id).state()).status == "done"
        assert await client.run(run.id).result(WAIT_S) == OUTPUT
        heard: asyncio.Queue[str] = asyncio.Queue()
        async with client.bus.hearing("baton.live.>", lambda subject, _: heard.put_nowait(subject)):
            slow = await submitter.start("words", text="one", pause_s=1.0)
            assert (await asyncio.wait_for(heard.get(), WAIT_S)).startswith("baton.live.")
            await slow.result(WAIT_S)
    assert refused("observer") == []


def test_observer_has_the_commands_that_read(working: Guarded, refused: Refused, tmp_path: Path) -> None:
    def do(*arguments: str, user: str = "observer") -> str:
        done = here(*arguments, "--nats", working.url(user), cwd=tmp_path, BATON_API_PREFIX=API)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr, refused(user))
        return done.stdout

    words = str(FLOWS / "words.toml")
    made = here("submit", words, TEXT, "--run", "seen", "--wait", "--nats", working.url("operator"), cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "seen" in do("runs")
    assert "3 words" in do("show", "seen")
    assert "split" in do("log", "seen")
    assert "split" in do("log", "seen", "--follow")
    assert '"result"' in do("export", "seen")
    examined = do("doctor")
    assert "not for this user" in examined
    assert "not for this user" in do("doctor", user="submitter")
    assert refused("observer", "submitter") == []


@pytest.mark.parametrize(
    ("user", "does", "subject"),
    [
        ("observer", lambda client: client.start("words", text="one"), "baton.task.words"),
        ("observer", lambda client: client.run("there").cancel(), "baton.result.words.there.end"),
        ("submitter", lambda client: client.start(WORDS, text="one", run_id="forged"), "baton.handoff.words--splitter"),
        ("submitter", lambda client: client.run("there").cancel(), "baton.result.words.there.end"),
        ("submitter", lambda client: client.fork("there"), "baton.handoff.words--splitter"),
        ("submitter", lambda client: client.bus.publisher.append(MORE_FOR_THERE, b"{}"), "baton.say.-budget.there"),
        ("submitter", lambda client: client.bus.timers.cancel("task", "words", "n"), "baton-api.STREAM.PURGE"),
        ("submitter", lambda client: client.bus.timers.once("words", "n", 4e9, b"{}"), "baton.timer.task.words.n"),
    ],
)
async def test_what_a_role_lacks_is_told_at_once_by_its_subject(
    working: Guarded, user: str, does: Callable[[Client], Awaitable[object]], subject: str
) -> None:
    async with client_of(working, "operator") as operator:
        await (await operator.start(WORDS, text="one", run_id="there")).result(WAIT_S)
        with contextlib.suppress(BusError):
            await operator.bus.timers.ensure()
    async with client_of(working, user) as client:
        started = time.monotonic()
        with pytest.raises(NotAllowed) as caught:
            await does(client)
        assert time.monotonic() - started < SOON_S
    assert caught.value.subject.lower().startswith(subject.lower())
    assert "log in as" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("user", WALLED)
async def test_whoever_is_walled_off_makes_no_log_and_is_told_that_there_is_none(guarded: Guarded, user: str) -> None:
    settings = Settings(url=guarded.url(user), api_prefix=API, namespace="baton-other")
    started = time.monotonic()
    with pytest.raises(NoStream, match="does not exist"):
        async with connect(settings):
            pass
    assert time.monotonic() - started < SOON_S


@pytest.mark.parametrize("user", WALLED)
async def test_log_that_lacks_something_is_used_as_it_is_by_who_may_not_mend_it(working: Guarded, user: str) -> None:
    async with connected(working, "admin") as admin:
        js = admin.jetstream()
        before = (await js.stream_info("baton")).config
        await js.update_stream(before.evolve(discard=DiscardPolicy.OLD))
        try:
            async with client_of(working, user, replicas=3) as client:
                assert await client.runs(1) is not None
            assert (await js.stream_info("baton")).config.discard == DiscardPolicy.OLD
        finally:
            await js.update_stream(before)


async def test_worker_keeps_to_limits_with_all_others(working: Guarded, refused: Refused) -> None:
    async with client_of(working, "worker") as client:
        bus = client.bus
        first, second = [await bus.rates.take(("m", "requests"), 1, 60) for _ in range(2)]
        assert second.at_s - first.at_s == pytest.approx(1.0)
        await second.took(0.0)
        slot = await bus.slots.take("m", 1)
        assert slot is not None
        assert await bus.slots.renew(slot)
        await bus.slots.free(slot)
        assert await bus.slots.take("m", 1) is not None
    assert refused() == []


async def test_worker_that_would_have_to_change_a_stream_is_told_so_at_once(working: Guarded) -> None:
    started = time.monotonic()
    with pytest.raises(NotAllowed, match=r"publish to \$js\.api\.stream\.update\.baton"):
        async with open_bus(Settings(url=working.url("worker"), replicas=3)):
            pass
    assert time.monotonic() - started < SOON_S


WORDS_OF_WORKERS = (
    "baton.reply.merger.r.step.0",
    "baton.handoff.actor.r.step.before",
    "baton.answer.actor.r.step.key",
    "baton.outcome.actor.r.step",
    "baton.join.merger.r.step.0",
    "baton.note.actor.r.step.n",
    "baton.timer.actor.r.step",
    "baton.due.actor.r.step",
)
HEARD = ("baton-stored.result.words.r.end", "baton-stored.answer.actor.r.step.key")
"""Words that only the server says, of what it has stored."""
CHANGES = (
    "$JS.API.STREAM.PURGE.baton",
    "$JS.API.STREAM.DELETE.baton",
    "$JS.API.STREAM.UPDATE.baton",
    "$JS.API.STREAM.MSG.DELETE.baton",
    "$JS.API.STREAM.DELETE.baton-timers",
)
STEALS = (
    "$JS.API.CONSUMER.CREATE.baton",
    "$JS.API.CONSUMER.MSG.NEXT.baton.handoff-words--counter",
    "$JS.API.CONSUMER.DELETE.baton.handoff-words--counter",
    "$JS.API.CONSUMER.PAUSE.baton.handoff-words--counter",
    "$JS.ACK.baton.handoff-words--counter.1.1.1.1.0",
)
OPERATES = (
    "baton.handoff.actor.r.step.start",
    "baton.result.words.r.end",
    "baton.live.r.end",
    "baton.live.r.roll.-",
    "baton.timer.task.f.n",
    "baton.timer.words.r.end--stopped",
)
IN_PLACE_OF_API = tuple(subject.replace("$JS.API", API) for subject in (*CHANGES, *STEALS) if "$JS.API" in subject)
FORBIDDEN = {
    "worker": (*HEARD, *CHANGES),
    "operator": (*WORDS_OF_WORKERS, *HEARD, *CHANGES, *STEALS[3:]),
    "submitter": (*WORDS_OF_WORKERS, *HEARD, *CHANGES, *STEALS, *OPERATES),
    "observer": (
        *WORDS_OF_WORKERS,
        *HEARD,
        *CHANGES,
        *STEALS,
        *OPERATES,
        "baton.task.words",
        "baton.say.editors.r.step",
    ),
}


@pytest.mark.parametrize("user", FORBIDDEN)
async def test_forbidden_is_refused_and_changes_nothing(working: Guarded, user: str) -> None:
    async with connected(working, "admin") as admin, connected(working, user) as forger:
        heard = await subscribed(admin, "baton-stored.>")
        before = await facts(admin)
        for subject in FORBIDDEN[user]:
            await forger.publish(subject, b'{"forged":true}', headers={"Nats-Rollup": "all"})
        await forger.flush()
        refused = [f'Publish Violation - Subject "{subject}"' for subject in FORBIDDEN[user]]
        await until(lambda: set(refused) <= set(working.violations(user)))
        assert await facts(admin) == before
        assert heard.pending_msgs == 0


@pytest.mark.parametrize("user", WALLED)
async def test_what_workers_alone_may_ask_gets_no_answer_from_elsewhere(working: Guarded, user: str) -> None:
    async with connected(working, "admin") as admin, connected(working, user) as forger:
        before = await facts(admin)
        for subject in IN_PLACE_OF_API:
            with pytest.raises(nats.errors.NoRespondersError):
                await forger.request(subject, b"{}", WAIT_S)
        assert await facts(admin) == before


@pytest.mark.parametrize("user", WALLED)
async def test_answer_cannot_be_sent_to_where_it_would_be_a_forged_message(working: Guarded, user: str) -> None:
    questions = {
        f"{API}.STREAM.INFO.baton": b"",
        f"{API}.STREAM.MSG.GET.baton": b'{"seq":1}',
        f"{API}.DIRECT.GET.baton": b'{"seq":1}',
        f"{API}.DIRECT.GET.baton.baton.result.words.first.end": b"",
    }
    async with connected(working, "admin") as admin, connected(working, user) as forger:
        heard = await subscribed(admin, "baton-stored.>")
        before = await facts(admin)
        for subject, question in questions.items():
            for target in (*WORDS_OF_WORKERS, *HEARD, *OPERATES):
                await forger.publish(subject, question, reply=target)
            await forger.request(subject, question, WAIT_S)  # by then those before have been answered
        assert await facts(admin) == before
        assert heard.pending_msgs == 0


async def test_within_one_account_such_an_answer_is_stored(guarded: Guarded) -> None:
    """Why submitters and observers are walled off: should a server refuse it one day, permissions alone would do."""
    async with connected(guarded, "admin") as admin:
        js = admin.jetstream()
        await js.add_stream(StreamConfig(name="tried", subjects=["tried.*"]))
        await admin.publish("$JS.API.STREAM.INFO.tried", b"", reply="tried.forged")
        async with asyncio.timeout(WAIT_S):
            while (await js.stream_info("tried")).state.messages != 1:  # noqa: ASYNC110 (the server sets no event)
                await asyncio.sleep(0.01)
        await js.delete_stream("tried")


async def test_task_that_would_remove_all_others_is_refused_by_the_log(working: Guarded) -> None:
    async with connected(working, "admin") as admin, connected(working, "submitter") as submitter:
        before = await facts(admin)
        for rolls_up in ("all", "sub"):
            answer = await submitter.request("baton.task.words", b"{}", WAIT_S, headers={"Nats-Rollup": rolls_up})
            assert "rollup not permitted" in json.loads(answer.data)["error"]["description"]
        assert await facts(admin) == before


@pytest.mark.parametrize("name", ["nats.conf", "cluster/a.conf"])
def test_server_accepts_the_users_for_another_namespace(tmp_path: Path, name: str) -> None:
    """As the file says to change it, and included from where the server's own file says."""
    ours = Path(shutil.copytree(DEPLOY, tmp_path / "deploy"))
    users = (ours / "users.conf").read_text("utf-8").replace("baton", "news")
    (ours / "users.conf").write_text(users, "utf-8")
    for path in (ours / "nats.conf", ours / "cluster" / "common.conf"):
        text = re.sub(r"^# (include \S*users\.conf)$", r"\1", path.read_text("utf-8"), flags=re.MULTILINE)
        path.write_text(text, "utf-8")
    environ = os.environ | {f"BATON_{user.upper()}_PASSWORD": "secret" for user in USERS}
    command = [str(find_server()), "-t", "-c", str(ours / name)]
    environ["NATS_ROUTE_PASSWORD"] = "secret"
    checked = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    without = {key: value for key, value in environ.items() if key != "BATON_WORKER_PASSWORD"}
    refused = subprocess.run(command, env=without, capture_output=True, text=True, check=False)
    assert "BATON_WORKER_PASSWORD" in refused.stderr
    subjects = re.findall(r'"([^"]*)"', users)
    assert not [subject for subject in subjects if "baton" in subject]


async def test_server_that_ran_without_users_keeps_its_log_under_the_account(tmp_path: Path) -> None:
    """As the README says to move it."""
    async with nats_server(tmp_path) as server:
        nc = await nats.connect(server.url)
        await nc.jetstream().add_stream(name="baton", subjects=["baton.task.*"])
        await nc.jetstream().publish("baton.task.f", b"kept")
        await nc.close()
    (tmp_path / "jetstream" / "$G").rename(tmp_path / "jetstream" / "BATON")
    users = [{"user": "worker", "password": "secret"}]
    async with nats_server(tmp_path, accounts={"BATON": {"jetstream": "enabled", "users": users}}) as server:
        nc = await nats.connect(server.url, user="worker", password="secret")
        assert (await nc.jetstream().get_msg("baton", seq=1)).data == b"kept"
        await nc.close()


async def test_whoever_has_no_login_gets_no_connection(guarded: Guarded) -> None:
    async def say_nothing(_: Exception) -> None:
        pass

    url = f"nats://127.0.0.1:{guarded.port}"
    client = NatsClient()
    try:
        with pytest.raises(nats.errors.Error, match="Authorization"):
            await client.connect(url, allow_reconnect=False, max_reconnect_attempts=1, error_cb=say_nothing)
    finally:
        await client.close()


async def has_begun(run: Run) -> bool:
    return bool((await run.state()).steps)


async def test_submitter_says_what_people_say(working: Guarded, refused: Refused) -> None:
    async with client_of(working, "submitter") as client:
        run = await client.start("words", text="one two\nthree", pause_s=0.5)
        await until_so(partial(has_begun, run))
        assert not await run.say("paid", {"sum": 3}), "nobody waits for it"
        assert await client.inbox() == []
        with pytest.raises(AnswerRefused, match="no question is open there"):
            await run.answer("count", "yes")
        assert await run.result(WAIT_S) == OUTPUT
    assert refused("submitter") == []
