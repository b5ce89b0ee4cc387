"""Exported runs in the console: the pages of a run with no server, files that are none, and what is kept of them."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from baton_actors.cli.commands.console import _opened
from baton_actors.cli.exits import BadArgument
from baton_actors.console.files import FILE_MAX_BYTES, OPEN_MAX, opened
from baton_bus import Settings
from baton_schemas.errors import BadMessage
from baton_schemas.run.state import read_entry

from .consoles import HOSTILE, served, served_alone, text_of_page
from .servers import NatsServer
from .test_console_steps import exported, log_of, raw

RUN = log_of("tea", "leaves", raw("Tea."))


async def test_file_is_opened_without_a_server_and_other_pages_say_that_none_is_used() -> None:
    async with served_alone(read_only=True) as console:
        assert "None is open yet" in (await console.get("/files")).text
        moved = await console.open("/home/me/my run.jsonl", exported(RUN))
        assert (moved.status_code, moved.headers["location"]) == (303, "/files/my-run")
        run = await console.get("/files/my-run")
        assert run.status_code == 200 and "connect=" not in run.text
        assert (await console.get("/files/my-run.json")).json()["status"] == "done"
        for path in ("?at=2", "/messages/3", "/steps/find"):
            page = await console.get(f"/files/my-run{path}")
            assert page.status_code == 200 and 'href="/runs/' not in page.text
            text_of_page(page.text)
        assert (await console.get("/files/my-run/export")).content == exported(RUN)
        listed = text_of_page((await console.get("/files")).text)
        assert "my run.jsonl" in listed and "files alone: no server is used" in listed
        for path in ("/", "/runs/r1", "/log", "/log/1", "/runs/r1/blobs/x", "/compare/r1"):
            page = await console.get(path)
            assert page.status_code == 503, path
            assert "uses no server" in page.text and 'href="/files"' in page.text
        assert (await console.get("/files/nosuch")).status_code == 404


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "has no messages in it"),
        (b"\x00\xff\xfe", "line 1 is no entry of a log"),
        (b'{"a": 1}\n', "line 1 is no entry of a log"),
        (exported(RUN) + b"{", f"line {len(RUN) + 1} is no entry of a log"),
        (exported(RUN) + exported(RUN).replace(b'"r1"', b'"r2"'), "has messages of 2 runs"),
    ],
    ids=["empty", "bytes", "other JSON", "cut off", "two runs"],
)
async def test_what_is_no_exported_run_has_a_page_that_says_so(data: bytes, says: str) -> None:
    async with served_alone() as console:
        page = await console.open("x.jsonl", data)
        assert page.status_code == 400
        text = text_of_page(page.text)
        assert says in text and "baton export" in text
        assert 'href="/files"' in page.text
        assert list(console.console.files) == []


async def test_run_of_a_newer_release_shows_what_can_be_read() -> None:
    newer = read_entry(99, RUN[-1].at, RUN[-1].subject, RUN[2].data.replace(b'"v":1', b'"v":99'))
    assert newer.message is None
    odd = read_entry(100, RUN[-1].at, RUN[-1].subject, b"\xff<script>")
    async with served_alone() as console:
        await console.open("x.jsonl", exported([*RUN, newer, odd]))
        assert "1 of a newer release" in text_of_page((await console.get("/files")).text)
        assert (await console.get("/files/x/steps/write")).status_code == 200
        assert "unknown" in text_of_page((await console.get("/files/x")).text)
        await console.open("y.jsonl", exported([newer]))
        unreadable = await console.get("/files/y/steps/write")
        assert unreadable.status_code >= 400
        assert (await console.get("/files/y")).status_code == 200


async def test_only_so_many_files_of_only_such_a_size_are_kept_and_the_same_once() -> None:
    async with served_alone() as console:
        for _ in range(2):
            assert (await console.open("same.jsonl", exported(RUN))).headers["location"] == "/files/same"
        for number in range(OPEN_MAX):
            moved = await console.open("other.jsonl", exported(RUN[: 1 + number % len(RUN)]) + b"\n" * number)
            assert moved.status_code == 303
        assert len(list(console.console.files)) == OPEN_MAX
        assert (await console.get("/files/same")).status_code == 404
        large = await console.open("large.jsonl", b"\n" * (FILE_MAX_BYTES + 100_000))
        assert large.status_code == 413
        assert "at most 32 MiB" in text_of_page(large.text)
    with pytest.raises(BadMessage, match="at most 32 MiB"):
        opened("x", b"\n" * (FILE_MAX_BYTES + 1))


async def test_file_is_not_opened_by_a_form_that_is_not_ours(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    settings = Settings(url=server.url, namespace=namespace)
    async with served(settings, tmp_path / "index.sqlite", read_only=True) as console:
        refused = await console.http.post(
            "/files",
            data={"csrf": "guessed"},
            files={"file": ("x", exported(RUN))},
            headers={"origin": console.address.url.rstrip("/")},
        )
        assert refused.status_code == 403
        assert (await console.post("/files")).status_code == 400
        assert (await console.open("", b"")).status_code == 400
        assert list(console.console.files) == []
        opened_too = await console.open("x.jsonl", exported(RUN))  # reading is not forbidden
        assert opened_too.headers["location"] == "/files/x"
        step = await console.get("/files/x/steps/write")
        assert "/fork" not in step.text


def test_command_opens_files_with_no_server(tmp_path: Path) -> None:
    file = tmp_path / "a run.jsonl"
    file.write_bytes(exported(RUN))
    command = [sys.executable, "-m", "baton_actors.cli", "console", "--no-open"]
    with subprocess.Popen([*command, str(file)], stdout=subprocess.PIPE, cwd=tmp_path, text=True) as process:
        assert process.stdout is not None
        try:
            assert "/files/a-run?token=" in process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
    assert not (tmp_path / ".baton").exists()
    broken = tmp_path / "broken.jsonl"
    broken.write_text(HOSTILE)
    for given, says in ((broken, "line 1 is no entry of a log"), (tmp_path / "nix.jsonl", "nix.jsonl cannot be read")):
        with pytest.raises((BadMessage, BadArgument), match=says):
            _opened(given)
