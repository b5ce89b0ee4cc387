"""What handlers print and log under `baton run` and `up`: it reaches the person, and never the command's stdout."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from .commands import BATON as COMMAND
from .commands import WAIT_S, baton, descendants, environ, start
from .servers import until

HANDLERS = """
import ctypes, logging, os, signal, subprocess, sys, threading, time
from pathlib import Path
import structlog

print("loading")
logger, events = logging.getLogger("mine"), structlog.get_logger("mine")

def look_up(item: str, index: int) -> str:
    print("order", item)
    print("to stderr", file=sys.stderr)
    logger.info("too quiet")
    logger.warning("odd order %s", item, extra={"order": index})
    events.info("seen", order=index)
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()
    print("without an end", end="")
    return item

async def report(look_up: list[str]) -> int:
    subprocess.run(["sh", "-c", "echo from a subprocess; echo and its stderr >&2"], check=True)
    libc = ctypes.CDLL(None)
    libc.puts(b"from C")
    libc.fflush(None)
    breakpoint()
    return len(look_up)

def die_once(item: str, index: int) -> str:
    if Path("died").exists():
        return item
    Path(f"begun-{index}").touch()
    while not all(Path(f"begun-{each}").exists() for each in (0, 1)) or index == 0:
        time.sleep(0.01)
    Path("died").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
FLOW = """
name = "noisy"
[input]
orders = "list[str]"
[agents.look-up]
handler = "./noisy.py:{handler}"
[agents.report]
handler = "./noisy.py:{report}"
reads = ["look-up"]
[steps.look-up]
agent = "look-up"
each = "orders"
[steps.report]
after = "look-up"
"""


def written(folder: Path, handler: str = "look_up", report: str = "report") -> Path:
    (folder / "noisy.py").write_text(HANDLERS)
    (folder / "noisy.toml").write_text(FLOW.format(handler=handler, report=report))
    return folder


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """A run of noisy handlers with `--json`, at its end."""
    folder = written(tmp_path_factory.mktemp("noisy"))
    return baton("run", "noisy.toml", "orders=a", "orders=b", "--run", "r1", "--json", cwd=folder)


def events_of(stderr: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in stderr.splitlines() if line.startswith("{")]


def titles_of(pids: set[int]) -> set[str]:
    """Return what `ps` calls those of these processes that have a name of ours."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    ours = [line for line in listed.splitlines() if int(line.split()[0]) in pids]
    return {title.strip() for line in ours for title in re.findall(r"baton: .*?(?= \d|$)", line)}


def test_stdout_is_the_runs_own_whatever_handlers_print(said: subprocess.CompletedProcess[str]) -> None:
    facts = json.loads(said.stdout)
    assert (said.returncode, facts["output"]) == (0, 2)


def test_what_handlers_print_is_on_stderr_marked_with_the_step(said: subprocess.CompletedProcess[str]) -> None:
    lines = said.stderr.splitlines()
    for step, item in (("look-up-0", "a"), ("look-up-1", "b")):
        mine = [line for line in lines if line.startswith(f"{step} | ")]
        assert mine == [f"{step} | {text}" for text in (f"order {item}", "to stderr", "without an end")] or mine == [
            f"{step} | {text}" for text in (f"order {item}", "to stderr", "from a thread", "without an end")
        ]
    assert sum("from a thread" in line for line in lines) == 2
    assert lines.count("look-up | loading") == lines.count("report | loading") == 1


def test_what_subprocesses_and_c_code_write_comes_too(said: subprocess.CompletedProcess[str]) -> None:
    lines = said.stderr.splitlines()
    for text in ("from a subprocess", "and its stderr", "from C"):
        assert f"report | {text}" in lines


def test_breakpoint_where_no_terminal_is_says_where_one_is(said: subprocess.CompletedProcess[str]) -> None:
    where = re.escape("breakpoint() at noisy.py:") + r"\d+ is passed over: no terminal here. `baton run --debug` stops"
    assert re.search(f"report \\| {where}", said.stderr)


def test_logging_and_structlog_of_a_plain_handler_carry_run_step_and_actor(
    said: subprocess.CompletedProcess[str],
) -> None:
    events = events_of(said.stderr)
    for index, item in enumerate("ab"):
        about = {"run": "r1", "step": f"look-up-{index}", "actor": "noisy--look-up", "order": index}
        for event, level in ((f"odd order {item}", "warning"), ("seen", "info")):
            (found,) = [each for each in events if each["event"] == event and each["step"] == about["step"]]
            assert found.items() >= (about | {"level": level}).items()
    assert not any(event["event"] == "too quiet" for event in events)


def test_pipe_closes_when_the_command_ends(tmp_path: Path) -> None:
    written(tmp_path)
    heard, said = os.pipe()
    command = subprocess.Popen(
        [*COMMAND, "run", "noisy.toml", "orders=a"], cwd=tmp_path, env=environ(), stdout=said, stderr=subprocess.DEVNULL
    )
    os.close(said)
    text = b""
    os.set_blocking(heard, False)
    assert command.wait(WAIT_S) == 0
    while part := os.read(heard, 65_536):  # it would block if anybody still had the other end
        text += part
    os.close(heard)
    assert text == b"1\n"


async def test_worker_that_dies_is_said_at_once_with_what_it_held(tmp_path: Path) -> None:
    written(tmp_path, "die_once")
    with (tmp_path / "stderr").open("w") as stderr:
        arguments = ("run", "noisy.toml", "orders=a", "orders=b", "--run", "r1")
        env = {"BATON_LEASE_S": "1"}
        command = start(*arguments, cwd=tmp_path, stderr=stderr, env=environ(**env))
        assert command.wait(WAIT_S) == 0
    text = (tmp_path / "stderr").read_text()
    held = r"look-up-0, look-up-1|look-up-1, look-up-0"
    assert re.search(rf"✗ look-up  its worker died while doing ({held}): signal 9 \(SIGKILL\)\n", text)
    assert "  another starts in 500 ms, and what it held goes on within 1 s\n" in text
    assert text.index("its worker died") < text.index("✓ look-up  2/2")


async def test_up_has_what_handlers_print_in_its_lines_and_ps_says_who_is_who(tmp_path: Path) -> None:
    written(tmp_path)
    with (tmp_path / "stderr").open("w") as stderr:
        command = start("up", "noisy.toml", cwd=tmp_path, stderr=stderr)
        await until(lambda: "up at nats://" in (tmp_path / "stderr").read_text())
        assert baton("submit", "noisy.toml", "orders=a", "--run", "r1", "--wait", cwd=tmp_path).stdout == "1\n"
        titles = titles_of(descendants(command.pid))
        command.terminate()
        command.wait(WAIT_S)
    assert sorted(titles) == [
        "baton: fork server of the workers",
        "baton: guardian of what handlers start",
        "baton: keeper of nats-server",
        "baton: worker of noisy--look-up",
        "baton: worker of noisy--report",
    ]
    printed = [event for event in events_of((tmp_path / "stderr").read_text()) if event["event"] == "handler.printed"]
    assert {(event.get("step"), event["text"]) for event in printed} >= {
        (None, "loading"),
        ("look-up-0", "order a"),
        ("look-up-0", "without an end"),
    }
    assert all(event["run"] == "r1" for event in printed if "step" in event)
