"""`baton run`: a server, the workers, one run, its output; and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from baton_actors.cli import main

from .commands import BATON, WAIT_S, WORDS, all_gone, baton, descendants, environ, here, start
from .servers import NatsServer, until

TEXT = "one two three\nfour five\n\nsix\n"


def test_output_goes_to_stdout_and_progress_to_stderr(tmp_path: Path) -> None:
    ended = baton("run", WORDS, "text=@-", cwd=tmp_path, stdin=TEXT)
    assert (ended.returncode, ended.stdout) == (0, "6 words in 4 lines\n")
    lines = ended.stderr.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["✓", "split"],
        ["✓", "count"],
        ["✓", "add"],
        ["✓", "write"],
    ]
    assert "4/4" in lines[1]
    assert lines[4].startswith("✓ done in ")
    assert lines[4].endswith(" · 4 of 4 steps")
    assert lines[5].startswith("  baton show ")


def test_closed_stdout_is_no_output_and_no_traceback(tmp_path: Path) -> None:
    closed = ["sh", "-c", 'exec "$@" >&- <&-', "sh", *BATON, "run", WORDS, "text=a b"]
    ended = subprocess.run(closed, cwd=tmp_path, env=environ(), stderr=subprocess.PIPE, text=True, timeout=WAIT_S)
    assert ended.returncode == 0
    assert "✓ done in" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_failed_run_exits_with_1_and_names_the_step_that_broke(tmp_path: Path) -> None:
    ended = baton("run", WORDS, f"text={TEXT}", "breaks_on=five", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "✗ count-1  Retry: the line has 'five' in it at words.py:19 in count (2 tries)" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-2].endswith(" count-1"), "the command that shows the step"


def test_json_is_one_object_with_the_run_in_it(tmp_path: Path) -> None:
    ended = baton("run", WORDS, f"text={TEXT}", "--run", "r1", "--json", cwd=tmp_path)
    facts = json.loads(ended.stdout)
    assert (facts["run"], facts["status"], facts["output"]) == ("r1", "done", "6 words in 4 lines\n")
    assert [(row["step"], row["status"]) for row in facts["steps"]] == [
        ("split", "done"),
        ("count", "done"),
        ("add", "done"),
        ("write", "done"),
    ]
    assert (facts["error"], facts["rehearsed"], ended.stderr) == (None, False, "")


def test_output_that_is_too_large_for_a_message_is_printed_whole(tmp_path: Path) -> None:
    (tmp_path / "echo.py").write_text("def echo(n: int) -> list[str]:\n    return ['x' * 1000] * n\n")
    flow = tmp_path / "echo.toml"
    flow.write_text('name = "echo"\n[input]\nn = "int"\n[agents.a]\nhandler = "./echo.py:echo"\n[steps.a]\n')
    ended = baton("run", "echo.toml", "n=600", cwd=tmp_path)
    assert json.loads(ended.stdout) == ["x" * 1000] * 600
    assert json.loads(here("show", "--json", cwd=tmp_path).stdout)["output"] == ["x" * 1000] * 600


def test_same_run_id_runs_once(tmp_path: Path) -> None:
    first, second = (
        json.loads(baton("run", WORDS, "text=a b", "--run", "r1", "--json", cwd=tmp_path).stdout) for _ in "12"
    )
    assert second == first
    other = baton("run", WORDS, "text=c", "--run", "r1", cwd=tmp_path)
    assert (other.returncode, "take another id" in other.stderr) == (2, True)


def test_rehearsed_output_says_so_and_needs_no_sdk(tmp_path: Path) -> None:
    """Importing the SDK takes longer than all the rest."""
    (tmp_path / "anthropic.py").write_text("raise SystemExit('imported')\n")
    ended = baton("run", "ask", "question=What is NATS?", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert ended.returncode == 0
    assert "rehearsed: no model was called, set ANTHROPIC_API_KEY" in ended.stderr
    shown = here("show", cwd=tmp_path)
    assert "rehearsed: no model was called" in shown.stdout


def test_prompt_of_a_step_is_shown_and_proved(tmp_path: Path) -> None:
    ended = baton("run", "ask", "question=What is NATS?", "--run", "r1", cwd=tmp_path)
    shown = baton("show", "r1", "answer", cwd=tmp_path).stdout
    assert "prompt  as it was sent: its hash is the recorded one, " in shown
    assert " ".join(ended.stdout.split()) in " ".join(shown.split())
    facts = json.loads(baton("show", "r1", "answer", "--json", cwd=tmp_path).stdout)
    assert (facts["proved"], facts["values"]) == (True, {"question": "What is NATS?"})
    assert "What is NATS?" in facts["asked"]["prompt"]
    assert facts["output"] + "\n" == ended.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["wrods"],
            "no flow 'wrods' is shipped. Known: article, ask, deep-research, newsroom, panel, report. "
            "Or give the path of a flow file.",
        ),
        (
            ["artikle", "topic=x"],
            "no flow 'artikle' is shipped. Did you mean 'article'? Or give the path of a flow file.",
        ),
        ([WORDS], "flow 'words', input 'text': missing; expected str"),
        ([WORDS, "txt=a"], "flow 'words', input 'txt': the flow has no such input. Did you mean 'text'?"),
        ([WORDS, "text=a", "pause_s=x"], "flow 'words', input 'pause_s': found \"x\"; expected a number"),
        ([WORDS, "text"], "expected key=value, found 'text'. Flow 'words' takes text=… pause_s=… breaks_on=…"),
        (
            [WORDS, "text=@no.txt"],
            "input 'text': no.txt cannot be read: No such file or directory. Expected a file of text in UTF-8",
        ),
        ([WORDS, "text=a", "--run", "a.b"], "run id 'a.b' cannot be used in a subject: expected 1 to 64 characters"),
        ([WORDS, "text=a", "--namespace", "a b"], "BATON_NAMESPACE is 'a b': expected 1 to 64"),
        ([WORDS, "--frob"], "No such option: --frob. `baton run --help` shows how."),
    ],
)
def test_bad_argument_is_told_in_one_line_and_starts_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["baton", "run", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith(f"baton: {message}")
    assert err.count("\n") == 1
    assert not (tmp_path / ".baton").exists()


def test_bad_argument_is_an_object_with_json(tmp_path: Path) -> None:
    ended = here("run", WORDS, "txt=a", "--json", cwd=tmp_path)
    facts = json.loads(ended.stdout)
    assert (facts["exit_code"], facts["error"]["type"], ended.returncode, ended.stderr) == (2, "InputError", 2, "")


def test_file_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    ended = here("run", WORDS, "text=@latin.txt", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == "baton: input 'text': latin.txt is not UTF-8 (byte 3). Expected a file of text in UTF-8\n"


def test_handler_that_cannot_be_imported_ends_the_run_and_the_command(tmp_path: Path) -> None:
    flow = tmp_path / "lost.toml"
    flow.write_text('name = "lost"\n[agents.a]\nhandler = "./gone.py:f"\n[steps.a]\n')
    ended = baton("run", str(flow), cwd=tmp_path)
    assert ended.returncode == 2
    assert "cannot load './gone.py:f': there is no file" in ended.stderr
    assert "Traceback" not in ended.stderr
    # Workers begin while the run is handed in: one that cannot may say so before there is a run.
    assert {run["status"] for run in json.loads(baton("runs", "--json", cwd=tmp_path).stdout)} <= {"cancelled"}


def test_server_that_is_not_there_exits_with_3(tmp_path: Path) -> None:
    ended = here("run", WORDS, "text=a", "--nats", "nats://127.0.0.1:1", cwd=tmp_path)
    assert ended.returncode == 3
    assert ended.stderr.startswith("baton: no NATS server at nats://127.0.0.1:1: the connection was refused.")


def test_named_server_is_used_and_no_directory_made(tmp_path: Path, server: NatsServer, namespace: str) -> None:
    ended = baton("run", WORDS, "text=a b", cwd=tmp_path, BATON_URL=server.url, BATON_NAMESPACE=namespace)
    assert (ended.returncode, ended.stdout) == (0, "2 words in 1 lines\n")
    assert list(tmp_path.iterdir()) == []


def test_time_out_cancels_the_run_and_exits_with_4(tmp_path: Path) -> None:
    ended = baton("run", WORDS, "text=a", "pause_s=60", "--timeout", "1.5", "--json", cwd=tmp_path)
    facts = json.loads(ended.stdout)
    assert (ended.returncode, facts["status"], facts["reason"]) == (4, "cancelled", "not done within 1.5 s (--timeout)")


async def test_ctrl_c_cancels_the_run_and_leaves_nothing(tmp_path: Path) -> None:
    command, children = await working(tmp_path)
    command.send_signal(signal.SIGINT)
    assert command.wait(WAIT_S) == 130
    await until(lambda: all_gone(children))
    (run,) = json.loads(baton("runs", "--json", cwd=tmp_path).stdout)
    assert (run["status"], run["reason"]) == ("cancelled", "interrupted by Ctrl-C")


async def test_other_signals_leave_the_run_in_the_log_and_no_process(tmp_path: Path) -> None:
    async def end_with(number: int, code: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        command, children = await working(folder)
        command.send_signal(number)
        assert await asyncio.to_thread(command.wait, WAIT_S) == code
        await until(lambda: all_gone(children))
        (run,) = json.loads((await asyncio.to_thread(baton, "runs", "--json", cwd=folder)).stdout)
        assert run["status"] == "running"

    await asyncio.gather(end_with(signal.SIGTERM, 143), end_with(signal.SIGKILL, -9))


async def test_terminal_that_is_closed_leaves_no_process(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = start("run", WORDS, "text=a", "pause_s=60", cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs,
                    preexec_fn=lambda: _take_terminal(theirs))  # fmt: skip
    os.close(theirs)
    seen = b""
    while "●".encode() not in seen:  # the table says that a step is running
        seen += os.read(ours, 4096)
    children = descendants(command.pid)
    os.close(ours)
    command.wait(WAIT_S)
    await until(lambda: all_gone(children))
    assert len(children) >= 5, "a server, and a worker for each actor"


def _take_terminal(fd: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


async def working(cwd: Path) -> tuple[subprocess.Popen[str], set[int]]:
    """Start a run that would take a minute; return it, and its processes, once the long step has begun."""
    command = start("run", WORDS, "text=a", "pause_s=60", cwd=cwd)
    assert command.stderr is not None
    assert (await asyncio.to_thread(command.stderr.readline)).startswith("✓ split")
    await until(lambda: len(descendants(command.pid)) >= 7)  # a server, the fork server, a worker for each actor
    return command, descendants(command.pid)
