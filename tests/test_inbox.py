"""`baton inbox`, `answer` and `say`, and the same from Python: what waits for people, and what they say."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from baton_actors import Context
from baton_actors.cli.answers import read_answer, typed_answer
from baton_actors.cli.exits import BadArgument
from baton_actors.cli.show.answering import Answering, Given
from baton_bus.client.people import Waiting
from baton_bus.errors import AnswerRefused
from baton_schemas.errors import InputError
from baton_schemas.flow.flow import Step
from baton_schemas.run.asking import answer_to
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Handoff, Question
from baton_schemas.wire.outcomes import Done

from .commands import BATON, FLOWS, WAIT_S, environ, here, start
from .servers import NatsServer
from .team import Team, flow_of, value_of
from .test_people import BOSS, Counted, until_asked
from .timed import TEXT, process, timed, until_so

APPROVAL = str(FLOWS / "approval.toml")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in which `baton up approval` runs."""
    home = tmp_path_factory.mktemp("home")
    command = start("up", APPROVAL, "--json", cwd=home, stderr=subprocess.DEVNULL)
    assert command.stdout is not None
    try:
        assert command.stdout.readline()
        yield home
    finally:
        command.send_signal(signal.SIGTERM)
        assert command.wait(WAIT_S) == 0


def inbox(home: Path, run: str = "") -> list[dict[str, Any]]:
    """What waits, of one run or of all."""
    found = json.loads(here("inbox", "--json", cwd=home).stdout)
    return [each for each in found if run in ("", each["run"])]


def asked(home: Path, run: str, text: str = "it") -> dict[str, Any]:
    """Start a run and return what it asks."""
    here("submit", APPROVAL, f"text={text}", "--run", run, cwd=home)
    return until_waits(home, run)


def until_waits(home: Path, run: str, role: str = "editors") -> dict[str, Any]:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        for each in inbox(home, run):
            if each["role"] == role:
                return each
        time.sleep(0.05)
    raise AssertionError(f"{run} asks {role} nothing")


def test_question_is_listed_answered_and_shown(home: Path) -> None:
    question = asked(home, "listed")
    assert question["question"] == "Publish it?"
    assert question["answers"] == ["yes", "no", "later"]
    assert (question["flow"], question["step"], question["until"]) == ("approval", "approve", None)
    lines = here("inbox", "editors", cwd=home).stdout
    assert "? editors  Publish it?" in lines
    assert f"baton answer listed {question['name']} …" in lines
    assert here("inbox", "nobody", cwd=home).stderr == "nothing waits for nobody\n"
    assert "waits for editors" in here("runs", cwd=home).stdout
    shown = here("show", "listed", cwd=home).stdout
    assert "waits for editors" in shown
    assert '"yes" or' not in shown.splitlines()[0]

    said = here("answer", "listed", "approve", "yes", "--note", "well done", "--as", "ann", cwd=home)
    assert (said.returncode, said.stdout, said.stderr) == (0, "listed approve: editors answered\n", "")
    until_waits(home, "listed", "chiefs")
    shown = here("show", "listed", cwd=home).stdout
    assert '✓ editors  Publish it?  "yes", by ann, at ' in shown
    assert ": well done" in shown
    page = here("show", "listed", "approve", cwd=home).stdout
    assert "person editors" in page
    assert ", by ann, at " in page

    said = here("answer", "listed", "chiefs", "score=4", "why=short", "--json", cwd=home)
    assert json.loads(said.stdout)["answer"] == {"score": 4, "why": "short"}
    assert here("log", "listed", "--follow", cwd=home).stdout.splitlines()[-1].split()[3:5] == ["result", "done"]
    (run,) = [each for each in json.loads(here("runs", "--json", cwd=home).stdout) if each["run"] == "listed"]
    assert [(each["who"], each["answered_by"], each["answer"]) for each in run["people"]] == [
        ("editors", "ann", "yes"),
        ("chiefs", os.environ.get("USER") or run["people"][1]["answered_by"], {"score": 4, "why": "short"}),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["refused", "approve", "perhaps"], 2, 'found the string "perhaps"; expected "yes", "no" or "later"'),
        (["refused", "judge", "yes"], 1, "it has asked nobody; open there: approve asks editors"),
        (["refused", "nonsense", "yes"], 1, "open there: approve asks editors"),
        (["no-such-run", "approve", "yes"], 2, "no run 'no-such-run' in the log"),
    ],
)
def test_what_is_no_answer_is_told_before_anything_is_sent(
    home: Path, arguments: list[str], code: int, reason: str
) -> None:
    if not inbox(home, "refused"):
        asked(home, "refused")
    before = inbox(home, "refused")
    said = here("answer", *arguments, cwd=home)
    assert (said.returncode, said.stdout) == (code, "")
    assert reason in said.stderr
    assert inbox(home, "refused") == before


def test_answer_that_comes_second_or_too_late_is_told(home: Path) -> None:
    asked(home, "second")
    assert here("answer", "second", "approve", "yes", "--as", "ann", cwd=home).returncode == 0
    said = here("answer", "second", "approve", "no", cwd=home)
    assert said.returncode == 1
    assert "answered already by ann at " in said.stderr
    here("cancel", "second", cwd=home)
    assert inbox(home, "second") == []
    said = here("answer", "second", "judge", "score=3", cwd=home)
    assert (said.returncode, "the run has ended: cancelled" in said.stderr) == (1, True)
    said = here("say", "second", "paid", cwd=home)
    assert (said.returncode, "the run has ended: cancelled" in said.stderr) == (1, True)


def test_event_is_kept_until_somebody_waits_for_it(home: Path) -> None:
    asked(home, "events")
    said = here("say", "events", "paid", '{"sum": 3}', "--as", "shop", cwd=home)
    assert (said.returncode, said.stdout) == (0, "")
    assert "it is kept" in said.stderr
    said = here("say", "events", "two--words", cwd=home)
    assert said.returncode == 1
    assert "it is no name of an event" in said.stderr


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.fd, theirs = pty.openpty()
        os.set_blocking(self.fd, False)
        self.command = subprocess.Popen(
            [*BATON, *arguments], cwd=cwd, env=environ(TERM="xterm"), stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self.shown = ""

    def until(self, text: str) -> None:
        """Wait until this is shown, and forget what was shown up to there."""
        until = time.monotonic() + WAIT_S
        while text not in self.shown:
            assert time.monotonic() < until, f"{text!r} is not in {self.shown!r}"
            self._read()
        self.shown = self.shown.partition(text)[2]

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def ended(self) -> int:
        until = time.monotonic() + WAIT_S
        while self.command.poll() is None and time.monotonic() < until:
            self._read()
        self.command.kill()
        self.command.wait()
        os.close(self.fd)
        return self.command.returncode

    def _read(self) -> None:
        if select.select([self.fd], [], [], 0.1)[0]:
            with contextlib.suppress(OSError):
                self.shown += os.read(self.fd, 65536).decode(errors="replace")


def test_question_is_read_and_answered_by_keys_on_a_terminal(home: Path) -> None:
    for each in inbox(home):
        if each["run"] != "refused":
            here("cancel", each["run"], cwd=home)
    others = len(inbox(home))
    asked(home, "keys-a", "first")
    asked(home, "keys-b", "second")
    terminal = Terminal("inbox", "--as", "eve", cwd=home)
    terminal.until(f"{others + 2} waiting")
    terminal.press("\x1b[B" * (others + 1) + "\r")  # down to the last, and read it
    terminal.until("Publish second?")
    terminal.until("1-9")
    terminal.press("n")
    terminal.until("note: ")
    terminal.press("good\r")
    terminal.press("2\r")
    terminal.until("answered 'no'")
    terminal.press("q")
    assert terminal.ended() == 0
    until_waits(home, "keys-b", "chiefs")
    shown = here("show", "keys-b", cwd=home).stdout
    assert '"no", by eve, at ' in shown
    assert ": good" in shown

    terminal = Terminal("inbox", "chiefs", cwd=home)
    terminal.until("1 waiting")
    terminal.press("\r")
    terminal.until("expected: score (int), why (str?)")
    terminal.press("score=many\r")
    terminal.until("not answered: ")
    terminal.press("\x7f" * 4 + "3\r")
    assert terminal.ended() == 0, "nothing waits any more"
    ended = here("log", "keys-b", "--follow", cwd=home).stdout
    assert "result   done" in ended


def test_who_waits_for_a_run_is_told_how_to_answer(tmp_path: Path) -> None:
    run = start("run", APPROVAL, "text=it", cwd=tmp_path)
    assert run.stderr is not None
    for words in (["yes"], ["score=1"]):
        while "baton answer" not in (line := run.stderr.readline()):
            assert line
        _, _, run_id, name, _ = line[line.index("baton answer") :].split()
        assert here("answer", run_id, name, *words, cwd=tmp_path).returncode == 0
    out, _ = run.communicate(timeout=WAIT_S)
    assert (run.returncode, json.loads(out)) == (0, {"score": 1})


# ---- in Python -----------------------------------------------------------------------------------------


async def test_program_looks_into_the_inbox_and_answers(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, BOSS, {"boss": Counted(deadline_s=600.0, default="no").boss}) as t:
        run = await t.submit(text="it")
        (question,) = await until_asked(t, run)
        (waiting,) = await t.client.inbox("editors")
        assert (waiting.run, waiting.step, waiting.name, waiting.role) == (run, "lead", question.name, "editors")
        assert waiting.until is not None
        assert await t.client.inbox("chiefs") == []
        ours = t.client.run(run)
        with pytest.raises(AnswerRefused, match='found the string "perhaps"'):
            await ours.answer("lead", "perhaps")
        assert await ours.answer("lead", "yes", who="ann")
        assert await ours.result() == "yes"
        with pytest.raises(AnswerRefused, match="answered already by ann"):
            await ours.answer("lead", "no")
        assert await t.client.inbox() == []


async def test_answer_that_no_worker_is_up_to_take_is_durable(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, BOSS, {"boss": Counted().boss}, start=False) as t:
        async with process(t):
            run = await t.submit(text="it")
            await t.until_settled("handoff", "boss")
        assert not await t.client.run(run).answer("lead", "yes", wait_s=0.1)
        assert len(await t.client.inbox()) == 1, "nobody has taken it"
        async with process(t):
            assert value_of((await t.result(run)).outcome) == "yes"


async def test_program_tells_of_an_event(server: NatsServer, namespace: str) -> None:
    async def boss(text: str, context: Context) -> list[Any]:
        return [await context.wait_for("paid"), await context.wait_for("paid")]

    async with timed(server, namespace, flow_of({"lead": Step(agent="boss")}, TEXT), {"boss": boss}) as t:
        run = await t.submit(text="a")
        told = [await t.client.run(run).say("paid", number) for number in range(2)]
        assert value_of((await t.result(run)).outcome) == [0, 1]
        assert set(told) <= {True, False}
        with pytest.raises(AnswerRefused, match="no name of an event"):
            await t.client.run(run).say("a b")


async def test_ten_thousand_old_questions_do_not_make_the_inbox_slow(server: NatsServer, namespace: str) -> None:
    async with timed(server, namespace, BOSS, {"boss": Counted().boss}) as t:
        run = await t.submit(text="it")
        await until_asked(t, run)
        (entry,) = await t.bus.log.matching_sure([t.bus.subjects.asked("-person")])
        assert isinstance(entry.message, Handoff)
        old = entry.data.replace(run.encode(), b"%s")
        js, subject = t.bus.nc, entry.subject.replace(run, "%s")
        for number in range(10_000):
            other = f"old-{number}"
            await js.publish(subject % other, old % other.encode())
            if number % 2:  # half of them belong to runs that have ended, the others are answered
                body = b'{"kind":"result","v":1,"run":"%s","flow":"flow","status":"done"}' % other.encode()
                await js.publish(t.bus.subjects.result("flow", other), body)
            else:
                answer = answer_to(entry.message, Done(), 1)
                ours = msgspec.structs.replace(answer, run=other)
                await js.publish(t.bus.subjects.of(t.actor("boss"), ours), encode(ours))
        await until_so(lambda: has_come(t, 20_000))
        began = time.monotonic()
        waiting = await t.client.inbox()
        took_s = time.monotonic() - began
        assert [each.run for each in waiting] == [run]
        assert took_s < 5, "it takes about a second"
        print(took_s)
        await t.client.run(run).cancel()


async def has_come(t: Team, seq: int) -> bool:
    return await t.bus.log.end() > seq


# ---- what is typed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "words", "answer"),
    [
        (Question(text="", answers=["yes", "no"]), ["yes"], "yes"),
        (Question(text="", type="str"), ["looks", "good"], "looks good"),
        (Question(text="", type="int"), ["3"], 3),
        (Question(text="", type="bool"), ["yes"], True),
        (Question(text=""), ["looks good"], "looks good"),
        (Question(text=""), ["3"], 3),
        (Question(text=""), ['"3"'], "3"),
        (Question(text=""), ['{"a": [1]}'], {"a": [1]}),
    ],
)
def test_answer_is_text_or_json_as_the_question_wants(question: Question, words: list[str], answer: Any) -> None:
    assert read_answer(question, words) == answer
    assert typed_answer(question, " ".join(words)) == answer


@pytest.mark.parametrize(
    ("question", "words", "reason"),
    [
        (Question(text="", answers=["yes", "no"]), ["YES"], 'expected "yes" or "no"'),
        (Question(text="", type="int"), ["three"], "no JSON"),
        (Question(text="", type="int"), ["3.5"], "expected int"),
        (Question(text=""), ["null"], "there is no answer in it"),
        (Question(text=""), ["\udcff"], "UTF-8"),
    ],
)
def test_answer_that_does_not_fit_is_refused(question: Question, words: list[str], reason: str) -> None:
    with pytest.raises((BadArgument, InputError), match=reason):
        read_answer(question, words)


def waiting(name: str, **question: Any) -> Waiting:
    from datetime import UTC, datetime

    asked = Question(text=f"{name}?", **question)
    return Waiting(role="r", run="run", flow="f", step="s", name=name, question=asked, since=datetime.now(UTC))


def pressed(*keys: str) -> tuple[Answering, Given | None]:
    answering = Answering([waiting("a", answers=["yes", "no"]), waiting("b")])
    given = None
    for key in keys:
        given = answering.press(key)
    return answering, given


def test_keys_lead_through_the_questions() -> None:
    assert pressed("right", "right")[0].at == 1
    assert pressed("right", "left", "k")[0].at == 0
    assert pressed("\r")[0].open
    assert not pressed("\r", "\x1b")[0].open
    assert pressed("q")[0].left
    assert pressed("\r", "")[0].left
    assert pressed("\r", "\r")[1] is None, "nothing is chosen"
    assert pressed("\r", "9", "\r")[1] is None
    given = pressed("\r", "n", *"so q", "\r", "right", "right", "left", "2", "\r")[1]
    assert given is not None
    assert (given.waiting.name, given.text, given.note) == ("a", "no", "so q")
    given = pressed("right", "\r", *"nq x", "\x7f", "\t", *"hm", "\t", "!", "\r")[1]
    assert given is not None
    assert (given.waiting.name, given.text, given.note) == ("b", "nq !", "hm")
    assert pressed("right", "\r", " ", "\r")[1] is None


def test_after_an_answer_the_list_is_what_waits_now() -> None:
    answering, _ = pressed("right", "\r", *"x", "\r")
    answering.goes_on_with([waiting("a")], "answered 'x'")
    assert (answering.open, answering.at, answering.said, answering.left) == (False, 0, "answered 'x'", False)
    answering, _ = pressed("right", "\r", *"x", "\r")
    answering.goes_on_with([waiting("a"), waiting("b")], "not answered")
    assert (answering.open, answering.text, answering.said) == (True, "x", "not answered")
    answering.goes_on_with([], "answered")
    assert answering.left
