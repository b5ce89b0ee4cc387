"""The page that compares: where two runs part, a step of both side by side, two branches of one."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import Raw

from baton_schemas.flow.flow import Field, Step
from baton_schemas.run.fold import fold
from baton_schemas.show.bars import bars_of
from baton_schemas.show.plan import plan_of
from baton_schemas.show.timeline import timeline_of
from baton_schemas.wire.outcomes import Done

from .consoles import HOSTILE, served, served_alone, text_of_page
from .logs import closing, first, handoff, log, outcome, reply, second
from .servers import NatsServer
from .team import flow_of, team
from .test_console_steps import exported, log_of, raw


async def test_two_runs_are_shown_where_they_part_and_branches_of_one_beside_each_other(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async def split(text: str) -> list[str]:
        return text.split()

    async def shout(item: str) -> str:
        return f"{item.upper()} it is"

    async def merge(shout: list[str]) -> str:
        return " ".join(shout)

    steps = {
        "split": Step(agent="split"),
        "shout": Step(agent="shout", each="split"),
        "merge": Step(agent="merge", after=["shout"]),
    }
    flow = flow_of(steps, {"text": Field()})
    async with team(server.url, namespace, flow, {"split": split, "shout": shout, "merge": merge}) as t:
        old, new = await t.submit(text="tea leaves"), await t.submit(text="tea cups")
        for run in (old, new):
            assert (await t.result(run)).status == "done"
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:
            page = await console.get(f"/compare/{old}/{new}")
            text = " ".join(text_of_page(page.text).split())
            assert "They part at split , which read other values: text: message 1 before, message 1 after." in text
            assert "<del>leaves</del>" in page.text and "<ins>cups</ins>" in page.text
            assert page.text.count('<svg class="bars"') == 2
            facts = (await console.get(f"/compare/{old}/{new}.json")).json()
            assert facts["first"] == "split"
            merged = await console.get(f"/compare/{old}/{new}?step=merge")
            assert "<del>LEAVES</del>" in merged.text and "<ins>CUPS</ins>" in merged.text
            branches = await console.get(f"/compare/{old}/{old}?step=shout-0&with=shout-1")
            assert "<del>TEA</del>" in branches.text and "<ins>LEAVES</ins>" in branches.text
            alike = text_of_page((await console.get(f"/compare/{old}/{new}?step=shout-0")).text)
            assert "the same in both" in alike
            # Parts of ids, the form, and the last of the flow lead to the whole address.
            for path in (f"/compare/{old[-9:]}/{new}", f"/compare?a={old}&b={new}"):
                moved = await console.get(path)
                assert (moved.status_code, moved.headers["location"]) == (303, f"/compare/{old}/{new}")
            last = await console.get(f"/compare/{old}?with=last")
            assert last.headers["location"] == f"/compare/{new}/{old}"
            origin = await console.get(f"/compare/{old}")
            assert origin.headers["location"] == f"/compare?a={old}"
            assert (await console.get(f"/compare/{old}/nosuchrun")).status_code == 404
            nosuch = await console.get(f"/compare/{old}/{new}?step=zzz")
            assert "this run has no zzz" in nosuch.text


async def test_prompts_differ_word_by_word_and_what_is_long_is_cut_and_said_so() -> None:
    long = "word " * 60_000
    async with served_alone() as console:
        await console.open("one.jsonl", exported(log_of("tea", f"leaves {HOSTILE}", raw(long + "old"))))
        await console.open("two.jsonl", exported(log_of("tea", "cups", raw("new " + long))))
        began = time.monotonic()
        page = await console.get("/compare/file:one/file:two?step=write")
        assert time.monotonic() - began < 8
        text = text_of_page(page.text)
        assert "Compared up to 200,000 characters a side" in text
        assert "system prompt" in text and "the same in both" in text
        assert "<ins>cups</ins>" in page.text
        assert "<script>alert" in text
        moved = await console.get("/files/one/compare/file:two")
        assert moved.headers["location"] == "/compare/file:one/file:two"
        assert (await console.get("/compare/file:one/file:zzz")).status_code == 404


def test_bars_of_a_run_have_a_fan_out_as_one() -> None:
    entries = log(
        first("split"),
        handoff("start", "facts"),
        outcome("split", Done(output=Raw(b"[1, 2]"))),
        handoff("split", "digest-0", of=2),
        handoff("split", "digest-1", of=2),
        reply("digest-0", "merge", Done(output=Raw(b"1")), of=2),
        reply("digest-1", "merge", Done(output=Raw(b"1")), of=2),
        reply("facts", "merge", Done(output=Raw(b"1"))),
        closing("merge", {"digest": "0-1", "facts": "*"}),
    )
    state = fold(entries)
    bars = bars_of(timeline_of(entries, state), plan_of(state), second(20))
    assert [(bar.step, bar.count, bar.begin_s, bar.end_s) for bar in bars] == [
        ("split", 1, 0.0, 2.0),
        ("facts", 1, 1.0, 7.0),
        ("digest", 2, 3.0, 6.0),
        ("merge", 1, 5.0, 19.0),
    ]
