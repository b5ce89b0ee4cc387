"""Files that handlers are given and put out, that any client gives, and what becomes of their bytes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from baton_actors import Baton, Context, File, Flow, Team
from baton_actors.errors import FileRefused
from baton_bus import Settings
from baton_bus.client.files import read_file
from baton_bus.client.purge import Choice, plan_purge, purge
from baton_bus.client.survey import survey
from baton_bus.errors import RunFailed
from baton_bus.jetstream.publisher import EXPECTED
from baton_bus.store.bus import Bus
from baton_schemas.errors import BadFile, InputError
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Task
from baton_schemas.wire.names import run_of_task

from .pdfs import pdf, png, written
from .servers import WAIT_S, NatsServer

LATER = datetime.now(UTC) + timedelta(hours=10)
"""By then nobody is about to name what is put now."""


@pytest.fixture
def address(server: NatsServer, namespace: str) -> Settings:
    return Settings(url=server.url, namespace=namespace)


@asynccontextmanager
async def team(address: Settings, *flows: Flow) -> AsyncIterator[Team]:
    async with Baton.local(*flows, url=address.url, namespace=address.namespace, data_dir=None) as opened:
        yield opened
        await opened.client.bus.js.delete_stream(address.namespace)


def reading() -> Flow:
    """A flow that says of its file what it is, and what is in it."""
    flow = Flow("reading", input={"paper": "file", "others": {"type": "list[file]", "default": []}})

    @flow.step
    async def say(paper: File, others: list[File]) -> dict[str, Any]:
        data = await paper.read()
        return {
            "name": paper.name,
            "media_type": paper.media_type,
            "size_bytes": [paper.size_bytes, len(data)],
            "sha256": [paper.sha256, hashlib.sha256(data).hexdigest()],
            "pages": paper.pages,
            "others": [(await other.read()).decode() for other in others],
        }

    return flow


def cutting() -> Flow:
    """A flow whose first step makes files of one, whose branches make files of those, and whose last reads them."""
    flow = Flow("cutting", input={"paper": "file"})

    @flow.step
    def cut(paper: File) -> list[File]:
        words = paper.read().decode().split()
        return [File.of(word, name=f"{number}.txt") for number, word in enumerate(words)]

    @flow.step(each="cut")
    async def shout(item: File) -> File:
        return File.of((await item.read()).upper(), name=item.name)

    @flow.step(after="shout")
    def glue(shout: list[File]) -> File:
        return File.of(b" ".join(each.read() for each in shout), name="joined.txt")

    return flow


async def test_handler_gets_a_file_with_what_is_known_of_it(address: Settings, tmp_path: Path) -> None:
    data = pdf(3)
    async with team(address, reading()) as ours:
        path = written(tmp_path / "paper.pdf", data)
        said = await ours.run("reading", paper=path, others=[File.of("a", name="a.txt"), "b"])
    sha256 = hashlib.sha256(data).hexdigest()
    assert said == {
        "name": "paper.pdf",
        "media_type": "application/pdf",
        "size_bytes": [len(data), len(data)],
        "sha256": [sha256, sha256],
        "pages": 3,
        "others": ["a", "b"],
    }


async def test_steps_put_out_files_that_branches_and_clients_read(address: Settings) -> None:
    async with team(address, cutting()) as ours:
        output = await ours.run("cutting", paper="ships wait here")
        assert await ours.client.download(output) == b"SHIPS WAIT HERE"
        typed = await ours.run("cutting", paper=File.of("ships", name="a.txt"), returns=File)
        assert (typed.name, await ours.download(typed)) == ("joined.txt", b"SHIPS")


async def test_same_bytes_are_stored_once_whoever_gives_them(address: Settings) -> None:
    async with team(address, reading()) as ours:
        file = await ours.client.upload(b"x" * 300_000, name="a.txt")
        for name in ("a.txt", "b.txt"):
            said = await ours.run("reading", paper=File.of(b"x" * 300_000, name=name))
            assert (said["name"], said["sha256"][0]) == (name, file.sha256)
        assert list(await ours.client.bus.blobs.kept()) == [file.sha256]


async def test_input_of_ten_thousand_files_is_one_run(address: Settings, tmp_path: Path) -> None:
    flow = Flow("many", input={"docs": "list[file]"})

    @flow.step
    async def last(docs: list[File]) -> list[Any]:
        return [len(docs), docs[-1].name, (await docs[-1].read()).decode()]

    paths = [tmp_path / f"{number}.txt" for number in range(10_000)]
    for path in paths:  # links to ten: what a file is called is not what is stored
        os.link(_one_of_ten(tmp_path, int(path.stem)), path)
    async with team(address, flow) as ours:
        assert await ours.run("many", docs=paths) == [10_000, "9999.txt", "text 9"]


def _one_of_ten(folder: Path, number: int) -> Path:
    path = folder / f"text-{number % 10}"
    if not path.exists():
        path.write_text(f"text {number % 10}")
    return path


# ---- from any client -------------------------------------------------------------------------------


async def task_of(bus: Bus, flow: str, given: dict[str, Any]) -> str:
    return run_of_task(await bus.publisher.append(bus.subjects.task(flow), json.dumps({"input": given}).encode()))


@pytest.mark.parametrize(
    "others",
    [
        [{"file": {"name": "b.txt", "base64": base64.b64encode(b"b").decode()}}],
        [{"file": {"name": "b.txt", "text": "b"}}],
        ["b"],
    ],
    ids=["base64", "text", "a text alone"],
)
async def test_any_client_gives_a_file_within_its_task(address: Settings, others: list[Any]) -> None:
    async with team(address, reading()) as ours:
        run = await task_of(ours.client.bus, "reading", {"paper": "a", "others": others})
        assert (await ours.get(run).result(WAIT_S))["others"] == ["b"]


async def test_any_client_stores_a_large_file_first_in_chunks(address: Settings) -> None:
    data = pdf(1) + b"%" * 500_000
    sha256, name = hashlib.sha256(data).hexdigest(), f"{address.namespace}-blobs"
    given = {"paper": {"file": {"name": "paper.pdf", "sha256": sha256, "size_bytes": len(data)}}}
    async with team(address, reading()) as ours:
        await ours.client.upload(b"the first of all makes the stream", name="a.txt")
        js, chunks = ours.client.bus.js, [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
        for number, chunk in enumerate(chunks, start=1):
            await js.publish(f"{name}.{sha256}.{number}", chunk, headers={EXPECTED: "0"})
        head = json.dumps({"size_bytes": len(data), "chunks": len(chunks)}).encode()
        await js.publish(f"{name}.{sha256}.0", head, headers={EXPECTED: "0"})
        run = await task_of(ours.client.bus, "reading", given)
        said = await ours.get(run).result(WAIT_S)
    assert (said["sha256"], said["media_type"], said["pages"]) == ([sha256, sha256], "application/pdf", 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (7, "found the number 7; expected a file: "),
        ({"file": {"name": "a.txt", "base64": "!!"}}, "Invalid base64"),
        ({"file": {"name": "a.txt"}}, "it has none of base64, text, sha256"),
        ({"file": {"name": "a.txt", "text": "a", "base64": "YQ=="}}, "it has more than one of base64, text, sha256"),
        ({"file": {"text": "a"}}, "it has no `name`, such as paper.pdf"),
        ({"file": {"name": "a.pdf", "sha256": "abc", "size_bytes": 1}}, "expected 64 characters of 0-9a-f"),
        ({"file": {"name": "a.pdf", "sha256": "a" * 64}}, "its size_bytes is -1; expected 0 to 100000000"),
        (
            {"file": {"name": "a.pdf", "text": "hello"}},
            "is named as a PDF, and is none: by its content it is text",
        ),
        ("reports/paper.pdf", "looks like a path, and a text would be taken as the content. Give the file itself: @"),
    ],
)
async def test_bad_file_in_a_task_is_told_in_its_result(address: Settings, given: Any, said: str) -> None:
    async with team(address, reading()) as ours:
        run = await task_of(ours.client.bus, "reading", {"paper": given})
        with pytest.raises(RunFailed) as failed:
            await ours.get(run).result(WAIT_S)
    assert said in str(failed.value)
    assert "'paper'" in str(failed.value)


# ---- files of this machine -------------------------------------------------------------------------


def _loop(folder: Path) -> Path:
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def _large(folder: Path) -> Path:
    with (folder / "large.txt").open("wb") as file:
        file.truncate(100_000_001)
    return folder / "large.txt"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder, "is a folder; name the files in it"),
        (_pipe, "is a pipe; give what comes out of it on standard input"),
        (_loop, "its links lead around in a circle"),
        (_large, "has 100 MB; at most 100 MB are taken"),
        (lambda _: Path("/dev/zero"), "is a device; expected a file"),
        (lambda folder: folder / "gone.pdf", "cannot be opened: No such file or directory"),
        (lambda folder: folder / "a\0b", "cannot be opened: embedded null"),
        (lambda folder: written(folder / "a.pdf", b""), "a.pdf is empty"),
        (lambda folder: written(folder / "a.png", pdf(1)), "a.png is named as a picture, and is none: by its content"),
    ],
    ids=["folder", "pipe", "loop", "large", "device", "gone", "null", "empty", "misnamed"],
)
async def test_what_is_no_file_is_refused_before_a_run_starts(
    make: Any, said: str, address: Settings, tmp_path: Path
) -> None:
    async with team(address, reading()) as ours:
        with pytest.raises(BadFile, match=said):
            await ours.start("reading", paper=make(tmp_path))
        assert [run async for run in _runs(ours)] == []


@pytest.mark.parametrize("given", [b"%PDF-1.4", bytearray(b"a"), memoryview(b"a")])
async def test_bytes_in_place_of_a_file_are_refused_with_what_to_give(given: Any, address: Settings) -> None:
    async with team(address, reading()) as ours:
        with pytest.raises(InputError, match=r"found bytes; expected a file: File.of\(data, name=…\), or a Path"):
            await ours.start("reading", paper=given)


async def _runs(ours: Team) -> AsyncIterator[Any]:
    for run in (await survey(ours.client.bus)).runs:
        yield run


def test_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = written(tmp_path / "log.txt", b"a" * 10), os.read

    def read_while_others_write(file: int, size: int) -> bytes:
        with path.open("ab") as more:
            more.write(b"b")
        return read(file, size)

    monkeypatch.setattr(os, "read", read_while_others_write)
    with pytest.raises(BadFile, match="changed while it was read"):
        read_file(path)


# ---- purging, and what is gone ---------------------------------------------------------------------


async def test_purge_takes_the_bytes_of_files_that_no_other_run_names(address: Settings) -> None:
    shared, own = File.of(b"shared", name="a.txt"), File.of(b"own", name="b.txt")
    async with team(address, reading()) as ours:
        bus = ours.client.bus
        for run, files in (("keeps", [shared]), ("goes", [shared, own])):
            await (await ours.start("reading", run_id=run, paper="text", others=files)).result(WAIT_S)
        await purge(bus, plan_purge(await survey(bus), Choice(runs=("goes",)), LATER))
        kept = await bus.blobs.kept()
    assert own.sha256 not in kept
    assert shared.sha256 in kept


async def test_files_in_a_list_that_is_beside_the_log_itself_are_kept_with_it(address: Settings) -> None:
    flow = Flow("lists", input={"docs": "list[file]"})
    flow.step(lambda docs: len(docs), name="count")
    files = [File.of(f"text {number}", name=f"{number}-{'x' * 100}.txt") for number in range(2_000)]
    async with team(address, flow) as ours:
        bus = ours.client.bus
        for run, given in (("keeps", files[:1_500]), ("goes", files)):
            await (await ours.start("lists", run_id=run, docs=given)).result(WAIT_S)
        await purge(bus, plan_purge(await survey(bus), Choice(runs=("goes",)), LATER))
        kept = await bus.blobs.kept()
    assert {file.sha256 for file in files[:1_500]} <= kept.keys()
    assert not {file.sha256 for file in files[1_500:]} & kept.keys()


async def test_purge_leaves_the_files_of_runs_to_come(address: Settings) -> None:
    file = File.of(b"for tomorrow", name="a.txt")
    async with team(address, reading()) as ours:
        bus = ours.client.bus
        task = Task(input=await ours.client.encoded({"paper": file}))
        await bus.timers.once("reading", "tomorrow", LATER.timestamp() + 86_400, encode(task))
        await (await ours.start("reading", run_id="goes", paper="text")).result(WAIT_S)
        await purge(bus, plan_purge(await survey(bus), Choice(runs=("goes",)), LATER))
        assert list(await bus.blobs.kept()) == [file.sha256]


async def test_fork_shares_the_files_of_its_run(address: Settings) -> None:
    async with team(address, reading()) as ours:
        run = await ours.start("reading", paper=File.of(png(2, 2), name="a.png"))
        first = await run.result(WAIT_S)
        again = await (await run.fork()).result(WAIT_S)
        kept = await ours.client.bus.blobs.kept()
    assert again == first
    assert list(kept) == first["sha256"][:1]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_handler_asks_with_a_file_and_reads_the_one_that_comes_back(is_async: bool, address: Settings) -> None:
    flow = Flow("asking", input={"word": str})

    @flow.agent(input={"text": "file"}, name="shouter")
    async def shout(text: File) -> File:
        return File.of((await text.read()).upper(), name=text.name)

    async def ask(word: str, ctx: Context) -> str:
        back = await ctx.ask("shouter", text=File.of(word, name="a.txt"), returns=File)
        recorded = await ctx.record("kept", lambda: File.of(word, name="b.txt"), returns=File)
        return f"{back.name}: {(await back.read()).decode()}, {(await recorded.read()).decode()}"

    def ask_plainly(word: str, ctx: Context) -> str:
        back = ctx.ask("shouter", text=File.of(word, name="a.txt"), returns=File)
        return f"{back.name}: {back.read().decode()}, {word}"

    flow.step(ask if is_async else ask_plainly, name="begin", workers="shouter")
    async with team(address, flow) as ours:
        assert await ours.run("asking", word="ships") == "a.txt: SHIPS, ships"


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "plain"])
async def test_file_that_is_read_after_its_handler_has_ended_says_so(is_async: bool, address: Settings) -> None:
    """And holds nothing of the step, whatever of the handler is still there."""
    flow, kept = Flow("late", input={"text": "file"}), []

    async def keep(text: File) -> str:
        kept.append(text)
        return "kept"

    def keep_plainly(text: File) -> str:
        kept.append(text)
        return "kept"

    flow.step(keep if is_async else keep_plainly, name="keep")
    async with team(address, flow) as ours:
        assert await ours.run("late", text="ships") == "kept"
        with pytest.raises(FileRefused, match="read when its handler has ended; read it before"):
            await kept[0].read() if is_async else await asyncio.to_thread(kept[0].read)
