"""The page of a step: all that its log says of it, as text, whatever was written there."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from baton_actors.console.markdown import rendered
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.flow.prompts import Filled, filled
from baton_schemas.run.state import Entry
from baton_schemas.show.asked import asked_by
from baton_schemas.show.export import dump
from baton_schemas.show.slices import SLICE, hex_lines, slice_of
from baton_schemas.wire.facts import GivenBack, ModelCall, Retry, ToolCall
from baton_schemas.wire.messages import Begins, Question, Started
from baton_schemas.wire.outcomes import Blob, Done, Error, Place, State, Usage, Work
from baton_schemas.wire.words import Wrote

from .consoles import HOSTILE, served, served_alone, text_of_page
from .logs import answer, asked, first, handoff, log, note, outcome, result
from .servers import NatsServer
from .team import flow_of, team

PLAN = check_flow(
    Flow(
        name="report",
        input={"topic": Field()},
        agents={
            "a": Agent(handler="m:f"),
            "m": Agent(
                model="some-model", system="You know {topic}.", prompt="Write of {topic}: {find}!", max_tokens=9
            ),
        },
        steps={
            "find": Step(agent="a"),
            "write": Step(agent="m", after=["find"]),
            "check": Step(agent="a", after=["write"]),
        },
    )
)
ERROR = Error(
    step="write",
    type="Overloaded",
    message=HOSTILE,
    at=Place(file="/home/u/<i>.py", line=31, function="lookup"),
    traceback=f"Traceback\n{HOSTILE}",
)


def raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def log_of(topic: str, found: str, said: Raw, *, calls: bool = True) -> list[Entry]:
    """A run in which a model was asked twice, called a tool, and failed once."""
    state = State(input={"topic": raw(topic)})
    begins = Started(begins=Begins(flow_body=Raw(PLAN.body)))
    given = State(input={"topic": raw(topic)}, outputs={"find": raw(found)})
    request = asked_by(PLAN, "write", {"topic": raw(topic), "find": raw(found), "errors": Raw(b"[]")}, {})
    digest = request.digest(rehearses=False)
    used = [{"type": "text", "text": "Hm."}, {"type": "tool_use", "id": "t", "name": "look", "input": {"q": HOSTILE}}]
    call = ModelCall(
        request_sha256=digest,
        text=raw(HOSTILE),
        content=raw(used),
        model="some-model",
        usage=Usage(input_tokens=10, output_tokens=3, cache_read_tokens=7),
        cost_usd=0.25,
        request_id="req_7",
    )
    tool = ToolCall(request_sha256=digest, place=0, name="look", result=raw(HOSTILE), is_error=True, elapsed_s=0.5)
    last = ModelCall(request_sha256="f" * 64, attempt=2, text=said, model="some-model", content=Raw(b"[]"))
    notes = [
        note("write", Retry(attempt=1, error=ERROR, delay_s=2.0, work=Work(attempt=1, worker="w-1"), seq=1)),
        note("write", call),
        note("write", tool),
        note("write", last),
    ]
    ended = Done(output=said, truncated=True, work=Work(attempt=2, worker="w-2", elapsed_s=1.5, model="some-model"))
    return log(
        first("find", cause=begins, state=state, digest=PLAN.digest),
        outcome("find", Done(output=raw(found))),
        handoff("find", "write", Done(output=raw(found)), state=given),
        *(notes if calls else []),
        outcome("write", ended),
        result("done", outcome=ended, step="write"),
    )


def exported(entries: list[Entry]) -> bytes:
    return b"".join(map(dump, entries))


async def test_step_has_its_prompt_proved_its_conversation_its_attempts_and_what_it_took() -> None:
    async with served_alone() as console:
        opened = await console.open("run.jsonl", exported(log_of("tea", "leaves", raw("Tea is drunk."))))
        assert (opened.status_code, opened.headers["location"]) == (303, "/files/run")
        page = await console.get("/files/run/steps/write")
        text = " ".join(text_of_page(page.text).split())
        assert "proved: its sha-256 matches the log" in text
        assert 'Write of <mark title="{topic}">tea</mark>: <mark title="{find}">leaves</mark>!' in page.text
        assert "find from find" in text and 'href="/files/run/steps/find"' in page.text
        for said in (
            "tokens in 17",
            "cached 7",
            "tokens out 3",
            "$0.25",
            "cut off at max_tokens",
            "req_7",
            "Read by check",
        ):
            assert said in text, said
        assert "look failed in 500 ms" in text
        assert 'href="/files/run/messages/3"' in page.text
        assert "fork?" not in page.text  # nothing can be done with a file
        # Attempts are tabs by address; the last one is open.
        assert "worker w-2" in text and "wait before the next" not in text
        first_one = " ".join(text_of_page((await console.get("/files/run/steps/write?attempt=1")).text).split())
        assert "worker w-1" in first_one and "wait before the next 2.0 s" in first_one
        assert "at /home/u/<i>.py:31 in lookup" in first_one
        none = await console.get("/files/run/steps/write?attempt=9")
        assert none.status_code == 400 and "no attempt 9" in none.text
        facts = (await console.get("/files/run/steps/write.json")).json()
        assert (facts["proved"], facts["output"], facts["cost_usd"]) == (True, "Tea is drunk.", 0.25)
        handler = " ".join(text_of_page((await console.get("/files/run/steps/find")).text).split())
        assert "No prompt: it is done by the handler m:f" in handler


@pytest.mark.parametrize("as_", ["text", "rendered", "json"])
async def test_hostile_texts_are_text_wherever_they_stand_in_a_step(as_: str) -> None:
    written = (
        f"{HOSTILE}\n\n[link](javascript:alert(1)) ![pic](http://x/y.png) <javascript:alert(2)> [ok](https://a.b/c)"
    )
    async with served_alone() as console:
        await console.open(f"{HOSTILE}.jsonl", exported(log_of(HOSTILE, HOSTILE, raw(written))))
        (file,) = console.console.files
        for path in ("", "/steps/write", "/steps/write?attempt=1", "/steps/find", f"/steps/{'%3Cscript%3E'}"):
            page = await console.get(f"/files/{file.name}{path}{'&' if '?' in path else '?'}as={as_}")
            text = text_of_page(page.text)
            assert page.status_code in (200, 404)
        page = await console.get(f"/files/{file.name}/steps/write?as={as_}")
        text = text_of_page(page.text)
        assert "<script>alert(1)</script>" in text
        assert "\u241b[31mred\N{REPLACEMENT CHARACTER}evil\u2400nul" in text
        assert "{{ 7*7 }}" in text
        text_of_page((await console.get("/files")).text)
        text_of_page((await console.get(f"/compare/file:{file.name}/file:{file.name}?step=find&with=write")).text)


async def test_hostile_texts_of_a_real_run_are_text_in_step_log_and_download(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def echo(value: str) -> str:
        return value + "x" * 200_000

    async def breaks(echo: str) -> str:
        raise ValueError(HOSTILE)

    flow = flow_of(
        {"echo": Step(agent="echo"), "break": Step(agent="breaks", after=["echo"])},
        {"value": Field()},
        {"breaks": {"max_attempts": 2}},
    )
    async with team(server.url, namespace, flow, {"echo": echo, "breaks": breaks}, inline_limit_bytes=100_000) as t:
        run = await t.submit(value=HOSTILE)
        assert (await t.result(run)).status == "failed"
        garbage = b"\xff\xfe<script>\x00\x1b[31m" + HOSTILE.encode("utf-16-le")
        await t.bus.js.publish(f"{namespace}.note.nobody.{run}.echo.x", garbage)
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:
            broken = await console.get(f"/runs/{run}/steps/break")
            assert "<script>alert(1)</script>" in text_of_page(broken.text)
            assert f'href="/runs/{run}/fork?after=echo" data-key="F"' in broken.text
            echoed = await console.get(f"/runs/{run}/steps/echo")
            assert "<script>alert(1)</script>" in text_of_page(echoed.text)
            assert "ff fe 3c 73" in text_of_page((await console.get("/log")).text)
            # What is kept beside the log is had as bytes, and only what the run names.
            state = await t.state(run)
            blob = state.steps["echo"].blob
            assert blob is not None
            got = await console.get(f"/runs/{run}/blobs/{blob.sha256}")
            assert got.headers["content-disposition"].startswith("attachment;")
            assert got.headers["content-type"] == "application/octet-stream"
            assert got.headers["x-content-type-options"] == "nosniff"
            assert msgspec.json.decode(got.content) == HOSTILE + "x" * 200_000
            other = await t.bus.blobs.put(b'"not of this run"')
            assert (await console.get(f"/runs/{run}/blobs/{other.sha256}")).status_code == 404


async def test_long_text_is_shown_a_part_at_a_time_and_in_no_time() -> None:
    line = "<script>" + "x" * 10_000_000
    async with served_alone() as console:
        await console.open("long.jsonl", exported(log_of("tea", "leaves", raw(line))))
        began = time.monotonic()
        page = await console.get("/files/long/steps/write")
        assert time.monotonic() - began < 5
        assert len(page.text) < 6 * SLICE
        assert "<script>xxx" in text_of_page(page.text)
        more = await console.get("/files/long/steps/write?show=answer&from=65536")
        assert "the next 64 kB" in more.text and "the 64 kB before" in more.text
        last = await console.get("/files/long/steps/write?show=answer&from=99999999")
        assert "the next 64 kB" not in last.text and "the 64 kB before" in last.text
        for as_ in ("rendered", "json"):
            assert (await console.get(f"/files/long/steps/write?as={as_}")).status_code == 200


async def test_page_of_a_step_goes_on_with_its_run(server: NatsServer, namespace: str, tmp_path: Path) -> None:
    go = asyncio.Event()

    async def wait(value: int) -> int:
        await go.wait()
        return value * 2

    flow = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})
    async with team(server.url, namespace, flow, {"do": wait}) as t:
        run = await t.submit(value=21)
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:
            path = f"/runs/{run}/steps/do"
            events: list[str] = []
            async with console.http.stream("GET", "/live", params={"of": path}) as stream:
                async for data in stream.aiter_text():
                    events.append(data)
                    if not go.is_set() and run in console.console.feeds._watched:
                        feed = console.console.feeds._watched[run][0]
                        feed.hear(Wrote(step="do", attempt=1, text=f"It begins {HOSTILE}"))
                        feed.bell.ring()
                    heard = "".join(events)
                    if "It begins" in heard:
                        go.set()
                    if "42" in heard and "done in" in heard:
                        break
            assert "<script>alert(1)" not in heard
            assert "&lt;script&gt;alert(1)" in heard


async def test_value_beside_the_log_that_is_not_in_a_file_is_said_to_be_lacking() -> None:
    blob = Blob(sha256="a" * 64, size_bytes=3 << 20)
    entries = log(
        first("find", cause=Started(begins=Begins(flow_body=Raw(PLAN.body))), state=State(input={"topic": raw("t")})),
        note("find", GivenBack(attempt=1, seq=1, delivered=1, reason="it stops")),
        outcome("find", Done(blob=blob)),
    )
    async with served_alone() as console:
        await console.open("run.jsonl", exported(entries))
        text = text_of_page((await console.get("/files/run/steps/find")).text)
        assert "3 MiB kept beside the log, not in the file" in text
        assert "it stops" in text
        assert (await console.get(f"/files/run/blobs/{blob.sha256}")).status_code == 404


# ---- what it is made of ----------------------------------------------------------------------------------


def test_filled_prompt_is_the_prompt_with_what_came_from_placeholders_told() -> None:
    values = {"a": "x{b}", "b": ["one", "two"]}
    found = filled("{{ {a}{a} and {b}", values.get)
    assert found == [
        Filled("{ "),
        Filled("x{b}x{b}", "{a}"),
        Filled(" and "),
        Filled("[1] one\n\n[2] two", "{b}"),
    ]


@pytest.mark.parametrize("start", [0, 1, 4, 9, 10, 99])
def test_slices_of_a_text_make_all_of_it(start: int) -> None:
    pieces = [Filled("abcd"), Filled("efgh", "{x}"), Filled("ij")]
    part = slice_of(pieces, start, 4)
    assert part.text == "abcdefghij"[part.start : part.end]
    assert (part.total, part.next is None) == (10, part.end == 10)
    texts, at = "", 0
    while at is not None:
        part = slice_of(pieces, at, 4)
        texts, at = texts + part.text, part.next  # type: ignore[assignment] # None ends it
    assert texts == "abcdefghij"


def test_bytes_are_shown_in_hex_beside_what_of_them_is_text() -> None:
    (line, short) = hex_lines(b"<script>\x00\xff~\n123456789")
    assert line == "000000  3c 73 63 72 69 70 74 3e 00 ff 7e 0a 31 32 33 34  <script>..~.1234"
    assert short.split() == ["000010", "35", "36", "37", "38", "39", "56789"]


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        "[x](javascript:alert(1)) [x](JaVaScRiPt:1) [x](&#106;avascript:1) [x](data:text/html,x) [x](//evil.example)",
        "<javascript:alert(1)> <vbscript:x> [a]\n\n[a]: javascript:alert(1) 'onmouseover=x'",
        "![p](http://tracker.example/p.png) ![p][q]\n\n[q]: https://tracker.example/p.png",
        '[x](https://a.b/" onclick="alert(1)) [y](https://a.b "t\\" onclick=\\"x")',
        "```html onclick=x\n<script>alert(1)</script>\n```\n\n<div style=x>\n\n    <b>",
        "| a | b |\n|--:|:-:|\n| <img src=x onerror=y> | `<script>` |",
        "[x](/runs/x/cancel) [y](../acts) <https://a.b/<script>>",
    ],
)
def test_rendered_markdown_has_nothing_that_runs_loads_or_leads_to_our_own_pages(text: str) -> None:
    html = str(rendered(text))
    text_of_page(html)
    assert 'href="/' not in html


def test_rendered_markdown_is_rendered() -> None:
    html = rendered("# Tea\n\n- *hot*\n\n[b](https://a.b/c)\n\n| a |\n|--:|\n| 1 |")
    assert "<h1>Tea</h1>" in html and "<em>hot</em>" in html
    assert '<a href="https://a.b/c" rel="noreferrer noopener" target="_blank">b</a>' in html
    assert '<td class="n">1</td>' in html


async def test_what_a_step_asked_for_leads_to_it_and_back_with_who_answered_and_their_note() -> None:
    begins = Started(begins=Begins(flow_body=Raw(PLAN.body)))
    question = Question(text=f"Is it good? {HOSTILE}")
    entries = log(
        first("find", cause=begins, state=State(input={"topic": raw("tea")})),
        asked("find", "m", topic="leaves"),
        answer("find", "m", Done(output=raw("Green."))),
        asked("find", "editors", kind="person", question=question),
        answer("find", "editors", Done(output=raw(HOSTILE)), who="Ada", note=f"Fine. {HOSTILE}"),
        outcome("find", Done(output=raw("x"))),
    )
    async with served_alone() as console:
        await console.open("run.jsonl", exported(entries))
        page = await console.get("/files/run/steps/find")
        text = " ".join(text_of_page(page.text).split())
        for said in ("m #1", "Is it good?", "by Ada", "Note: Fine.", "Asked people"):
            assert said in text, said
        assert 'href="/files/run/steps/m%231"' in page.text
        child_page = await console.get("/files/run/steps/m%231")
        assert "asked by find" in text_of_page(child_page.text)
        assert 'href="/files/run/steps/find"' in child_page.text and "leaves" in child_page.text
        person = text_of_page((await console.get("/files/run/steps/editors%231")).text)
        assert "Is it good?" in person and "Ada" in person and "<script>alert(1)</script>" in person
