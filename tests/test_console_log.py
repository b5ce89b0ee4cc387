"""The page of the log: its end as it comes, parts of it, and what cannot be read."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from baton_actors.console.tail import SHOWN, View
from baton_bus.client.browsing import Sought, before, onward
from baton_bus.store.log import Stored
from baton_schemas.flow.flow import Field, Step

from .consoles import HOSTILE, served, text_of_page
from .logs import second
from .servers import NatsServer
from .team import flow_of, team


async def double(value: int) -> int:
    return value * 2


FLOW = flow_of({"do": Step(agent="do")}, {"value": Field(type="int")})


async def test_log_is_listed_filtered_paged_and_leads_to_the_message_in_its_run(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with team(server.url, namespace, FLOW, {"do": double}) as t:
        runs = [await t.submit(value=number) for number in range(3)]
        for run in runs:
            await t.result(run)
        garbage = f"\x00\x1b[31m{HOSTILE}".encode("utf-16")
        await t.bus.js.publish(f"{namespace}.note.x.y.z.w", garbage)
        end = await t.bus.log.end()
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:
            page = await console.get("/log")
            text = text_of_page(page.text)
            assert page.text.count('<li id="m') == end
            assert "bytes that this release cannot read" in text
            assert "ff fe 00 00 1b 00" in text
            listed = (await console.get("/log.json?kind=result")).json()
            assert {each["subject"].split(".")[3] for each in listed} == set(runs)
            assert len((await console.get("/log.json?kind=handoff&step=do&flow=flow")).json()) == 3
            assert (await console.get("/log.json?flow=other")).json() == []
            assert [each["seq"] for each in (await console.get(f"/log.json?text={runs[1].upper()}")).json()] == [
                entry.seq for entry in await t.log(runs[1])
            ]
            assert "No message fits" in (await console.get("/log?text=nosuchword")).text
            part = (await console.get("/log.json?from=3")).json()
            assert [each["seq"] for each in part] == list(range(3, end + 1))
            part = (await console.get("/log.json?before=3")).json()
            assert [each["seq"] for each in part] == [1, 2]
            entries = await t.log(runs[2])
            moved = await console.get(f"/log/{entries[1].seq}")
            assert moved.headers["location"] == f"/runs/{runs[2]}/messages/2"
            assert (await console.get("/log/999999")).status_code == 404
            for path in ("/log?from=x", "/log?before=-1", "/log?from=99999999999999999999"):
                assert (await console.get(path)).status_code == 400
            past = await console.get("/log?from=999999")
            assert past.status_code == 200
            hostile = await console.get("/log", params={"text": HOSTILE, "flow": HOSTILE, "step": HOSTILE, "kind": "x"})
            text_of_page(hostile.text)


async def test_what_is_stored_comes_to_the_page_and_rates_are_said(
    server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    async with team(server.url, namespace, FLOW, {"do": double}) as t:
        await t.run(value=1)
        async with served(t.bus.settings, tmp_path / "index.sqlite") as console:
            heard, run = "", ""
            async with console.http.stream("GET", "/live", params={"of": "/log?kind=result"}) as stream:
                async for data in stream.aiter_text():
                    heard += data
                    if not run and "m1" not in heard and 'id="lines"' in heard:
                        run = await t.submit(value=2)
                    if run and run[-8:] in heard and "/s" in heard.rpartition('id="rates"')[2]:
                        break
            assert run[-8:] in heard
            shown = heard.rpartition('id="lines"')[2]
            assert "handoff" not in shown.partition("</ol>")[0]


async def test_reading_on_and_back_meets_at_every_message(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, FLOW, {"do": double}) as t:
        await t.run(value=1)
        await t.run(value=2)
        end = await t.bus.log.end()
        for seq in range(1, end + 2):
            back = await before(t.bus.log, Sought(), seq, 500)
            on = await onward(t.bus.log, Sought(), seq, 500)
            assert [entry.seq for entry in (*back.entries, *on.entries)] == list(range(1, end + 1))
        few = await before(t.bus.log, Sought(kind="handoff"), end + 1, 1)
        assert len(few.entries) == 1
        again = await before(t.bus.log, Sought(kind="handoff"), few.first_seq, 1)
        assert again.entries[0].seq < few.entries[0].seq


def stored(seq: int, kind: str = "note") -> Stored:
    return Stored(seq=seq, at=second(seq % 60), subject=f"b.{kind}.a.r.s.k", header=b"", data=b"x")


def test_what_comes_faster_than_it_is_shown_is_counted() -> None:
    view = View(Sought(), [], 1, 10)
    view.take(deque(stored(seq) for seq in range(5, 20)))
    assert ([entry.seq for entry in view.entries], view.dropped) == (list(range(11, 20)), 0)
    view.take(deque(stored(seq) for seq in range(119, 130)))  # 99 have left the buffer
    assert (view.dropped, view.entries[-1].seq) == (99, 129)
    view.take(deque(stored(seq) for seq in range(130, 130 + SHOWN + 7)))
    assert (view.dropped, len(view.entries)) == (99 + 7, SHOWN)
    view.take(deque())
    assert view.dropped == 99 + 7
    results = View(Sought(kind="result"), [], 1, 0)
    results.take(deque([stored(1), stored(2, "result")]))
    assert [entry.seq for entry in results.entries] == [2]
