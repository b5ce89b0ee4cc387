"""`baton purge` and the size that `baton runs` tells, through the command."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from baton_actors import Baton, Flow
from baton_actors.cli.commands.purge import _choice, _lines
from baton_actors.cli.exits import BadArgument
from baton_actors.cli.show.size import size_line
from baton_bus.client.purge import Choice, Plan
from baton_bus.client.size import LogSize
from baton_bus.client.survey import Counted, Survey
from baton_schemas.show.times import BadTime, read_age

from .commands import BATON, WAIT_S, baton, environ

NOW = datetime(2026, 11, 25, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory whose server runs, with twelve runs of one flow, and some of others, which tests remove."""
    home = tmp_path_factory.mktemp("home")
    flows = [Flow(name, input={"word": str}) for name in ("echo", "short", "asked")]
    for flow in flows:
        flow.step(lambda word: word, name="say")
    with Baton.local(*flows, data_dir=home / ".baton", namespace="baton") as team:
        for number in range(12):
            team.run("echo", word="secret", run_id=f"run-{number:02d}")
        for name in ("named", "old", "new"):
            team.run("short", word="secret", run_id=name)
        team.run("asked", word="secret", run_id="asked")
        yield home


def test_runs_says_how_large_the_log_is(home: Path) -> None:
    last = baton("runs", "--limit", "2", cwd=home).stdout.splitlines()[-1]
    assert re.fullmatch(r"log: \d+ messages?, [\d.]+ KiB · [\d.]+ [GT]iB free", last)


def test_what_would_go_is_said_and_nobody_is_asked_where_nobody_is(home: Path) -> None:
    shown = baton("purge", "--older", "0s", "--flow", "echo", "--dry-run", cwd=home)
    assert shown.returncode == 0
    assert re.search(r"✓ run-00 +echo .* 2 +\d+ bytes", shown.stderr)
    assert "… 2 more" in shown.stderr
    assert re.search(r"\n12 runs: 24 messages of [\d.]+ KiB to go\n$", shown.stderr)
    refused = baton("purge", "--older", "0s", cwd=home)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("baton: nothing was purged: give --yes, or --dry-run")


def test_question_is_answered_by_the_word_and_by_nothing_else(home: Path) -> None:
    for answer, code, said in [("yes", 2, "nothing was purged"), ("purge 1", 0, "purged 1 run: 2 messages")]:
        ours, theirs = pty.openpty()
        command = subprocess.Popen([*BATON, "purge", "asked"], cwd=home, env=environ(TERM="dumb"), stdin=theirs,
                                   stdout=theirs, stderr=theirs)  # fmt: skip
        os.close(theirs)
        seen = ""
        while "to go on: " not in seen:
            seen += os.read(ours, 4096).decode()
        assert 'There is no way back. Type "purge 1"' in seen
        os.write(ours, f"{answer}\n".encode())
        while said not in seen:
            seen += os.read(ours, 4096).decode()
        with os.fdopen(ours, "rb", buffering=0) as rest:
            assert command.wait(WAIT_S) == code
            assert rest.fileno() == ours


def test_runs_go_for_good_and_others_stay(home: Path) -> None:
    gone = baton("purge", "named", "--yes", "--json", cwd=home)
    facts = json.loads(gone.stdout)
    assert (facts["runs"], facts["purged"]["runs"], facts["purged"]["messages"]) == (["named"], 1, 2)
    assert baton("purge", "--keep-last", "1", "--flow", "short", "--yes", cwd=home).stdout.startswith("purged ")
    runs = {run["run"] for run in json.loads(baton("runs", "--json", cwd=home).stdout)}
    assert runs >= {"new", "run-00", "run-11"}
    assert not runs & {"named", "old"}


def test_choice_that_means_nothing_is_refused() -> None:
    def choose(*runs: str, older: str = "", keep_last: int | None = None) -> Choice:
        return _choice([*runs], older, keep_last, "", False, NOW)

    with pytest.raises(BadArgument, match="say which runs: `baton purge RUN`, --older 30d, or --keep-last 100"):
        choose()
    with pytest.raises(BadArgument, match="not both"):
        choose("run", keep_last=3)
    with pytest.raises(BadTime, match="cannot be read as an age. Expected 30d, 12h, 90m, or 1d12h".replace(".", r"\.")):
        choose(older="a month")
    assert choose(older="2d").ended_before == NOW - timedelta(days=2)
    assert choose(older="999999d").ended_before == datetime.min.replace(tzinfo=UTC)


def test_ages_are_read_as_people_write_them() -> None:
    read = {text: read_age(text) for text in ("30d", "12h", "1d12h", "90m", "0s")}
    assert [age.total_seconds() for age in read.values()] == [2_592_000, 43_200, 129_600, 5_400, 0]
    for text in ("", "30", "d", "-1d", "1y", "9" * 30 + "d"):
        with pytest.raises(BadTime):
            read_age(text)


def test_question_says_what_stays_though_it_was_meant() -> None:
    run = Counted(run="a", started_at=NOW, last_at=NOW + timedelta(1), start_seq=1, messages=3, size_bytes=2048)
    found = Survey(runs={"a": run}, end_seq=3, blobs={}, named_by_others=set())
    plan = Plan(survey=found, runs=[run], blobs={}, spared=1, unended=2, needed=1)
    assert _lines(plan) == [
        "1 run: 3 messages of 2 KiB to go",
        "1 run of them has not ended and will be cancelled",
        "2 runs have not ended and stay: see --force",
        "1 run stays: a run that has not ended goes on from there",
        "1 large value stays for now, as a run may be about to name it: purge again later",
    ]


def test_size_is_told_of_its_limit_where_there_is_one() -> None:
    size = LogSize(messages=1, size_bytes=512 << 20, values_bytes=3 << 20, limit_bytes=1 << 30)
    assert size_line(size, 1 << 40) == ("log: 1 message, 512 MiB of 1 GiB (50%) · large values: 3 MiB · 1 TiB free")
    of_account = LogSize(messages=2, size_bytes=10, limit_bytes=1 << 30, limits_account=True)
    assert size_line(of_account, None) == "log: 2 messages, 10 bytes · limit of the account: 1 GiB"
