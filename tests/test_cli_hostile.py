"""Reading commands over a log into which strangers published whatever they liked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from baton_bus import Settings
from baton_bus.store.bus import open_bus

from .commands import baton, here
from .servers import NatsServer

LONG = "L" * 200
RESULT = {"kind": "result", "v": 1, "flow": "f", "status": "failed", "reason": "x"}
HANDOFF = {"kind": "handoff", "v": 1, "flow": "f", "digest": "d", "step": "s"}


def body(base: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"run": "r", **base, **more}).encode()


def begins(flow: Any) -> dict[str, Any]:
    """The cause of a first handoff that carries this as its flow."""
    return {"by": "start", "begins": {"flow_body": flow}}


def output(raw: bytes) -> bytes:
    """A result whose output is this, JSON or not."""
    ours = body(RESULT, status="done", step="s", outcome={"status": "done", "output": "OUT"})
    return ours.replace(b'"OUT"', raw)


BODIES = {
    "garbage": b"\xff\xfe no message",
    "nothing": b"",
    "list": b"[1,2]",
    "newer": b'{"kind":"result","v":99,"run":"newer"}',
    "unknown": b'{"kind":"whatever","v":1}',
    "infinite": output(b"1e999"),
    "deep": output(b"[" * 900 + b"]" * 900),
    "latin": output(b'"\xe9"'),
    "surrogate": output(b'"\\ud800"'),
    "control": body(RESULT, flow="f\x1b[31m", reason="\x1b[2J\x07boo\r\n\udfff"),
    "large-number": body(RESULT, start_seq=10**30),
    "other-id": body(RESULT, run="o" * 100),
    "odd-id": body(RESULT, run="a.*.>\x00\n"),
    "bad-flow": body(HANDOFF, cause=begins({"name": 5, "steps": [1]})),
    "loop": body(HANDOFF, cause=begins({"name": "x", "agents": {}, "steps": {"s": {"agent": "z", "after": ["s"]}}})),
    LONG: body(RESULT),
}


@pytest.fixture(scope="module")
def place(server: NatsServer) -> list[str]:
    return ["--nats", server.url, "--namespace", "hostile"]


@pytest.fixture(autouse=True, scope="module")
def planted(server: NatsServer) -> None:
    """Each body as a result, a first handoff, a reply, an outcome, a join record and a note of the run of its name."""
    asyncio.run(plant(Settings(url=server.url, namespace="hostile")))


async def plant(settings: Settings) -> None:
    async with open_bus(settings) as bus:
        for name, data in BODIES.items():
            for subject in ("result.f.{}.end", "handoff.f-a.{}.s.start", "reply.f-a.{}.s.b-0", "outcome.f-a.{}.s",
                            "join.f-a.{}.s.1", "note.f-a.{}.s.1"):  # fmt: skip
                await bus.nc.request(f"hostile.{subject.format(name)}", data)
        for seq, data in enumerate((b'{"seq":99999999999999999999}', b'{"seq":-1}', b"\xff")):
            note = (
                b'{"kind":"note","v":1,"run":"\\u001b]0;x","step":"s","fact":{"type":"rejected","reason":"\\u001b[2J",'
            )
            await bus.nc.request(f"hostile.note.f-a.garbage.rejected.{seq}", note + data[1:] + b"}")


def assert_told(ended: Any) -> None:
    """It says what there is, in text that no terminal obeys."""
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    text = ended.stdout + ended.stderr
    assert [char for char in text if not char.isprintable() and char not in "\n\t"] == []


@pytest.mark.parametrize("command", ["runs", "dead", "schedules", "show", "log", "replay", "export"])
def test_command_survives_what_is_in_the_log(command: str, place: list[str], tmp_path: Path) -> None:
    assert_told(here(command, *place, cwd=tmp_path))


def test_command_with_pipes_of_its_own_survives_it_too(place: list[str], tmp_path: Path) -> None:
    assert_told(baton("export", *place, cwd=tmp_path))


@pytest.mark.parametrize("command", ["show", "log", "replay", "export"])
@pytest.mark.parametrize("run", sorted(BODIES.keys() - {LONG}))
def test_run_that_cannot_be_read_is_shown_as_far_as_it_can(
    run: str, command: str, place: list[str], tmp_path: Path
) -> None:
    ended = here(command, run, *place, cwd=tmp_path)
    assert_told(ended)
    assert command == "replay" or command == "log" or run in ended.stdout


def test_run_is_listed_once_and_under_the_id_of_its_subject(place: list[str], tmp_path: Path) -> None:
    listed = json.loads(here("runs", "--limit", "99", "--json", *place, cwd=tmp_path).stdout)
    runs = [run["run"] for run in listed]
    assert len(runs) == len(set(runs))
    assert {"other-id", "odd-id", "bad-flow", LONG} <= set(runs) <= set(BODIES)
    lines = here("runs", "--limit", "99", *place, cwd=tmp_path).stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)


def test_message_that_cannot_be_read_is_shown_as_such(place: list[str], tmp_path: Path) -> None:
    lines = here("log", "newer", *place, cwd=tmp_path).stdout.splitlines()
    assert len(lines) == 6
    assert all("that this release cannot read" in line for line in lines)


def test_argument_that_is_no_utf_8_is_refused_with_its_key(place: list[str], tmp_path: Path) -> None:
    ended = baton("submit", "ask", "question=a\udcff", *place, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (2, "baton: input 'question' is not UTF-8 (character 1)\n")
