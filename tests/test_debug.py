"""`baton run --debug`: all actors in one process, one step at a time, with the terminal for the debugger."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from .commands import WAIT_S, baton, environ, start

HANDLERS = """
import os, pdb, subprocess, threading

def look_up(item: str, index: int) -> str:
    assert threading.current_thread() is threading.main_thread()
    print("order", item)
    if index == 1:
        breakpoint()
    return item.upper()

async def report(look_up: list[str]) -> str:
    subprocess.run(["echo", "from a subprocess"], check=True)
    total = len(look_up)
    pdb.set_trace()
    return f"{total} orders by {os.getpid()}"
"""
FLOW = """
name = "bug"
[input]
orders = "list[str]"
[agents.look-up]
handler = "./bug.py:look_up"
timeout_s = 0.2
max_attempts = 1
[agents.report]
handler = "./bug.py:report"
timeout_s = 0.2
max_attempts = 1
[steps.look-up]
agent = "look-up"
each = "orders"
[steps.report]
after = "look-up"
"""


def debugged(folder: Path, *more: str, **env: str) -> subprocess.Popen[str]:
    """Start it, and return it once it is at its first breakpoint."""
    (folder / "bug.py").write_text(HANDLERS)
    (folder / "bug.toml").write_text(FLOW)
    arguments = ("run", "bug.toml", "orders=a", "orders=b", "orders=c", "--run", "r1", "--debug", *more)
    command = start(*arguments, cwd=folder, stdin=subprocess.PIPE, env=environ(**env))
    assert "-> return item.upper()" in read_until(command, "(Pdb) ")
    return command


def await_asleep(pid: int) -> None:
    """Wait until the process waits for something: a signal between its last look and that would wait as well."""
    while not subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True).stdout.startswith(b"S"):
        pass


def read_until(command: subprocess.Popen[str], text: str) -> str:
    """Return what the command says on stderr up to this text."""
    assert command.stderr is not None
    said = ""
    while not said.endswith(text):
        char = command.stderr.read(1)
        assert char, f"the command has ended: {said}"
        said += char
    return said


def test_breakpoint_stops_for_as_long_as_it_takes_and_stdout_stays_the_runs_own(tmp_path: Path) -> None:
    command = debugged(tmp_path, "--json", BATON_LEASE_S="0.5")
    assert command.stdin is not None
    # Longer than the time limit of an attempt, and than some leases.
    command.stdin.write("p item\n!import time; time.sleep(1.2)\nc\n")
    command.stdin.flush()
    seen = read_until(command, "(Pdb) ") + read_until(command, "(Pdb) ") + read_until(command, "(Pdb) ")
    assert "'b'" in seen
    assert "● report  ./bug.py:report\nfrom a subprocess\n" in seen
    out, _ = command.communicate("p total\nc\n", timeout=WAIT_S)
    facts = json.loads(out)
    assert (command.returncode, facts["output"]) == (0, f"3 orders by {command.pid}")
    assert [(row["status"], row["attempts"], row.get("retries")) for row in facts["steps"]] == [("done", 1, None)] * 2


def test_ctrl_c_at_the_prompt_is_the_debuggers_and_leaving_it_cancels_the_run(tmp_path: Path) -> None:
    command = debugged(tmp_path)
    await_asleep(command.pid)
    command.send_signal(signal.SIGINT)
    assert "--KeyboardInterrupt--" in read_until(command, "(Pdb) ")
    out, err = command.communicate("q\n", timeout=WAIT_S)
    assert (command.returncode, out) == (130, "")
    assert "cancelled r1" in err
    assert "Traceback" not in err
    (run,) = json.loads(baton("runs", "--json", cwd=tmp_path).stdout)
    assert (run["status"], run["reason"]) == ("cancelled", "interrupted by Ctrl-C")


def test_ctrl_c_in_a_handler_ends_it_and_the_command(tmp_path: Path) -> None:
    command = debugged(tmp_path)
    assert command.stdin is not None
    command.stdin.write("!import time; print('sleeps', flush=True); time.sleep(60)\n")
    command.stdin.flush()
    read_until(command, "sleeps\n")
    await_asleep(command.pid)
    command.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in read_until(command, "(Pdb) ")
    command.communicate("q\n", timeout=WAIT_S)
    assert command.returncode == 130


ASKING = """
import asyncio
from baton_actors import Context

def look_up(topic: str) -> str:
    print("looks up", topic)
    breakpoint()
    return topic.upper()

async def boss(item: str, context: Context) -> str:
    print("begins", item)
    found = await context.ask("look-up", topic=item)
    print("goes on", item)
    more = await context.gather(*(context.ask("look-up", topic=item + end) for end in "12"))
    print("ends", item)
    return " ".join([found, *more])

async def merge(each: list[str]) -> list[str]:
    return each
"""
ASKING_FLOW = """
name = "bug"
[input]
texts = "list[str]"
[agents.look-up]
handler = "./bug.py:look_up"
input = { topic = "str" }
[agents.boss]
handler = "./bug.py:boss"
workers = ["look-up"]
[agents.merge]
handler = "./bug.py:merge"
[steps.each]
agent = "boss"
each = "texts"
[steps.merge]
after = "each"
"""


def test_handler_that_waits_for_what_it_asked_lets_others_have_their_turn(tmp_path: Path) -> None:
    (tmp_path / "bug.py").write_text(ASKING)
    (tmp_path / "bug.toml").write_text(ASKING_FLOW)
    arguments = ("run", "bug.toml", "texts=a", "texts=b", "--run", "r1", "--debug", "--json")
    command = start(*arguments, cwd=tmp_path, stdin=subprocess.PIPE)
    assert command.stdin is not None
    said = read_until(command, "(Pdb) ")
    for _ in range(5):
        command.stdin.write("c\n")
        command.stdin.flush()
        said += read_until(command, "(Pdb) ")
    out, last = command.communicate("c\n", timeout=WAIT_S)
    assert json.loads(out)["output"] == ["A A1 A2", "B B1 B2"]
    lines = (said + last).replace("(Pdb) ", "").splitlines()
    for text in "ab":
        own = [line for line in lines if line.split()[-1:] and line.split()[-1].startswith(text)]
        did = [line for line in own if line.startswith(("begins", "looks up", "goes on", "ends"))]
        assert did[:3] == [f"begins {text}", f"looks up {text}", f"goes on {text}"]
        assert sorted(did[3:5]) == [f"looks up {text}1", f"looks up {text}2"]
        assert did[5:] == [f"ends {text}"]
