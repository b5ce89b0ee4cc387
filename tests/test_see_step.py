"""Seeing a step on a bus: values are fetched, who is at it is heard, and what was reused is seen where it was done."""

from __future__ import annotations

import asyncio

import pytest

from baton_actors import Baton, Flow
from baton_actors.errors import Fail
from baton_bus import Settings, connect
from baton_bus.client.runs import find_run
from baton_bus.client.seen import LISTEN_S, fetch_small, see_step
from baton_schemas.errors import FlowUnreadable, UnknownStep
from baton_schemas.flow.flow import Field, Step
from baton_schemas.show.step import StepSeen
from baton_schemas.wire.codec import encode
from baton_schemas.wire.messages import Result
from baton_schemas.wire.outcomes import Blob, Failed

from .servers import NatsServer
from .team import Team, flow_of, team

TEXT = {"text": Field()}
STEPS = {"large": Step(agent="large"), "breaks": Step(agent="breaks", after=["large"])}


async def large(text: str) -> str:
    return text * 100_000


async def breaks(large: str) -> int:
    raise Fail(f"{len(large)} characters")


async def seen(t: Team, run: str, step: str, fetch_max_bytes: int | None = None, listen_s: float = 0.0) -> StepSeen:
    head = await find_run(t.bus, run)
    return await see_step(t.bus, head, step, fetch_max_bytes=fetch_max_bytes, listen_s=listen_s)


async def test_values_beside_the_log_are_fetched_up_to_a_limit_and_told_when_they_are_gone(
    server: NatsServer, namespace: str
) -> None:
    async with team(server.url, namespace, flow_of(STEPS, TEXT), {"large": large, "breaks": breaks}) as t:
        run = await t.submit(text="word ")
        result = await t.result(run)
        assert isinstance(result.outcome, Failed)
        whole = await seen(t, run, "breaks")
        assert len(bytes(whole.values["large"])) == 500_002  # type: ignore[arg-type] # no blob: it was fetched
        assert whole.error is not None
        assert whole.error.at is not None
        assert (whole.error.message, whole.error.at.function, whole.error.traceback) == (
            "500000 characters",
            "breaks",
            "",
        )
        cut = await seen(t, run, "breaks", fetch_max_bytes=1_000)
        blob = cut.values["large"]
        assert isinstance(blob, Blob)
        assert cut.lacking == {blob.sha256: "not fetched"}
        assert await fetch_small(t.bus, [blob], 1_000) == {}
        assert len((await fetch_small(t.bus, [blob], 1_000_000))[blob.sha256]) == 500_002

        await t.bus.js.delete_stream(f"{namespace}-blobs")
        t.bus.blobs._cache.clear()  # what another process would not have
        gone = await seen(t, run, "large")
        assert (gone.output, gone.lacking) == (blob, {blob.sha256: "gone"})


async def test_step_that_was_reused_is_seen_in_the_run_in_which_it_was_done(server: NatsServer, namespace: str) -> None:
    mended = False

    async def first(text: str) -> str:
        return text.upper()

    async def second(first: str) -> str:
        if not mended:
            raise Fail("not yet")
        return first

    steps = {"first": Step(agent="first"), "second": Step(agent="second", after=["first"])}
    async with team(server.url, namespace, flow_of(steps, TEXT), {"first": first, "second": second}) as t:
        run = (await t.client.start(t.plan, text="a")).id
        await t.result(run)
        again = await t.client.run(run, "flow").fork()
        await again.ended(30)
        mended = True
        third = await t.client.run(again.id, "flow").fork()
        await third.ended(30)
        found = await seen(t, third.id, "first")
        assert (found.run, found.reused_from, found.says) == (third.id, run, f"done in run {run}, and reused here")
        assert bytes(found.values["text"]) == b'"a"'  # type: ignore[arg-type] # no blob
        assert [attempt.came_to for attempt in found.attempts] == ["done"]
        assert (await seen(t, third.id, "second")).reused_from == ""

        await t.bus.js.purge_stream(namespace, subject=t.bus.subjects.run(run))
        left = await seen(t, third.id, "first")
        assert left.output is not None
        assert bytes(left.output) == b'"A"'  # type: ignore[arg-type] # no blob
        assert (left.reused_from, "not in the log any more" in left.says) == (run, True)


async def test_prompt_of_a_merger_is_proved_where_a_branch_failed(server: NatsServer, namespace: str) -> None:
    flow = Flow("gaps", input={"mails": list[dict]})  # type: ignore[type-arg]
    flow.ask("read", "<mail>{item.body}</mail> Say it in a line.", each="mails", on_error="continue", max_tokens=50)
    flow.ask("merge", "<lines>{read}</lines> Say it in a line.", after="read", max_tokens=50)
    async with Baton.local(flow, url=server.url, namespace=namespace, rehearse=True) as t:
        run = await t.start(mails=[{"body": "It leaks."}, {"subject": "no body"}, {"body": "It is loud."}])
        await run.result(30)
    async with connect(Settings(url=server.url, namespace=namespace)) as client:
        found = await see_step(client.bus, await find_run(client.bus, run.id), "merge")
        assert found.asked is not None
        assert found.asked.prompt.startswith("<lines>[1] It leaks.\n\n[3] It is loud.</lines>")
        assert found.proof in found.recorded
        branch = await see_step(client.bus, await find_run(client.bus, run.id), "read-1")
        assert (branch.asked, branch.recorded) == (None, ())


async def test_step_that_a_worker_is_at_is_heard(server: NatsServer, namespace: str) -> None:
    enough = asyncio.Event()

    async def waits(text: str) -> str:
        await enough.wait()
        return text

    async with team(server.url, namespace, flow_of({"a": Step(agent="waits")}, TEXT), {"waits": waits}) as t:
        run = await t.submit(text="x")
        found = await seen(t, run, "a", listen_s=10 * LISTEN_S)
        assert (found.status, found.says.split(",")[0]) == ("running", "is being done now")
        enough.set()
        await t.result(run)
        assert (await seen(t, run, "a", listen_s=LISTEN_S)).status == "done"


async def test_run_without_a_flow_and_step_without_a_run_are_told(server: NatsServer, namespace: str) -> None:
    async with team(server.url, namespace, flow_of({"a": Step(agent="large")}, TEXT), {"large": large}) as t:
        refused = Result(flow="flow", run="refused", status="failed", reason="there is no such input")
        await t.bus.create(t.bus.subjects.of("", refused), encode(refused))
        with pytest.raises(FlowUnreadable, match=r"\(there is no such input\): `baton log refused`"):
            await seen(t, "refused", "a")
        run = await t.submit(text="x")
        await t.result(run)
        with pytest.raises(UnknownStep, match="has no step 'b'"):
            await seen(t, run, "b")
