"""The runs whose logs are kept: one of each kind of message, and of each way in which a run goes."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Raw
from msgspec.structs import replace

from baton_schemas.flow.flow import Agent, Field, Flow, JoinPolicy, Step
from baton_schemas.wire.facts import (
    BUDGET,
    BatchEnded,
    BatchSending,
    BatchSent,
    Begun,
    Exchange,
    GivenBack,
    InBatch,
    ModelCall,
    Offered,
    Recorded,
    Rejected,
    Retry,
    Spent,
    ToolBegun,
    ToolCall,
    Unasked,
    Waits,
)
from baton_schemas.wire.files import FileRef, as_value
from baton_schemas.wire.messages import Say
from baton_schemas.wire.names import BATCH, END, REJECTED
from baton_schemas.wire.outcomes import Blob, Done, Error, Failed, Usage

from .recorder import PRICES, Recorder, done, failed, flow_of, work

HAIKU, SONNET = PRICES
_REFUND = b'[{"name":"refund","description":"Pay back.","input_schema":{"type":"object"},"use":"./desk.py:refund"}]'
CHAIN = {
    "research": Step(agent="research"),
    "write": Step(agent="write", after=["research"]),
    "edit": Step(agent="edit", after=["write"]),
}


def pipeline() -> Recorder:
    run = Recorder(flow_of("report", CHAIN), "01kb000000000000000000pipe")
    run.start({})
    run.end("research", done(["tea is a leaf"], model=HAIKU))
    run.end("write", done("Tea is a leaf.", model=SONNET))
    run.end("edit", done("Tea: a leaf."))
    return run


def digest(join: JoinPolicy | None = None) -> Flow:
    """A fan-out beside a single step, and a step that joins both."""
    steps = {
        "split": Step(agent="split"),
        "digest": Step(agent="digest", each="split"),
        "facts": Step(agent="facts", after=["split"]),
        "merge": Step(agent="merge", after=["digest", "facts"], join=join),
    }
    return flow_of("digest", steps)


def fan_out() -> Recorder:
    run = Recorder(digest(JoinPolicy(failed="pass", min_done=2)), "01kb00000000000000000fanout")
    run.start({"topic": "one two three four"})
    run.end("split", done(["one", "two", "three", "four"]))
    run.end("digest-2", done("digest of three", model=HAIKU))
    run.end("digest-0", done("digest of one", model=HAIKU))
    run.join("merge")
    run.end("digest-1", failed("digest-1", "no answer"))
    run.end("facts", done(4))
    run.join("merge")
    run.end("digest-3", failed("digest-3", "no answer"))
    run.join("merge")
    run.end("merge", done("two of four", model=SONNET))
    return run


def join_deadline() -> Recorder:
    run = Recorder(digest(JoinPolicy(deadline_s=30.0)), "01kb0000000000000000deadline")
    run.start({})
    run.end("split", done(["one", "two", "three"]))
    run.end("digest-1", done("digest of two"))
    run.end("facts", done(3))
    run.join("merge")
    run.time_is_up("merge")
    run.join("merge")
    run.end("digest-0", done("digest of one, too late"))
    run.end("merge", done("what came in time"))
    return run


def nothing_to_do() -> Recorder:
    steps = {"part": Step(agent="part", each="parts"), "merge": Step(agent="merge", after=["part"])}
    run = Recorder(flow_of("parts", steps), "01kb000000000000000nothing")
    run.start({"parts": []})
    run.end("merge", done("nothing"))
    return run


def empty_list() -> Recorder:
    run = Recorder(digest(), "01kb0000000000000000000empty")
    run.start({})
    run.end("split", done([]))
    run.end("facts", done(0))
    run.join("merge")
    run.end("merge", done("no parts"))
    return run


def retry() -> Recorder:
    run = Recorder(flow_of("report", CHAIN), "01kb00000000000000000retry")
    run.start({})
    error = Error(step="research", type="BadOutput", message="expected a list, found a string", attempts=1)
    run.note("research", Retry(attempt=1, error=error, delay_s=1.5, work=work(model=HAIKU), seq=1, delivered=1))
    run.end("research", done([], model=HAIKU, attempt=2))
    run.end("write", failed("write", "529 overloaded"))
    return run


def parked() -> Recorder:
    run = Recorder(flow_of("report", CHAIN), "01kb0000000000000000parked")
    run.start({})
    run.note("research", Waits(what="handler", reason="no worker has 'agents:any'"))
    run.wake("research", 1, "a worker that can do it")
    run.wake("research", 2, "a worker that can do it")
    run.end("research", done([]))
    run.end("write", done("Tea."))
    run.end("edit", done("Tea"))
    return run


def suspect() -> Recorder:
    run = Recorder(flow_of("report", CHAIN), "01kb000000000000000suspect")
    run.start({})
    run.note("research", Begun(attempt=1, number=1))
    run.note("research", GivenBack(attempt=1, begun=1, reason="worker stops", seq=1, delivered=2))
    run.note("research", Begun(attempt=1, number=2))
    run.end("research", done([]))
    run.note(REJECTED, Rejected(seq=5, subject="baton.handoff.x.y.z.start", reason="flow 'report' has no step 'z'"))
    return run


def origin() -> Recorder:
    """The run that the fork goes on from: it failed at the join, with a finished fan-out."""
    run = Recorder(digest(), "01kb00000000000000000failed")
    run.start({})
    run.end("split", done(["one", "two"], model=HAIKU))
    run.end("digest-0", done("digest of one", model=HAIKU))
    run.end("digest-1", failed("digest-1", "no answer"))
    run.end("facts", done(2))
    return run


def fork() -> Recorder:
    run = Recorder(digest(), "01kb000000000000000000fork")
    run.fork(origin())
    run.join("merge")
    run.end("digest-1", done("digest of two", model=HAIKU))
    run.join("merge")
    run.end("merge", done("one and two", model=SONNET))
    return run


def model_call() -> Recorder:
    run = Recorder(flow_of("report", CHAIN), "01kb000000000000000000model")
    run.start({})
    answer = done(["tea is a leaf"], model=HAIKU)
    usage = answer.work.usage or Usage()
    call = ModelCall(
        request_sha256="5e" * 32,
        text=answer.output,
        model=HAIKU,
        request_id=answer.work.request_id,
        usage=usage,
        cost_usd=answer.work.cost_usd,
    )
    run.note("research", Spent(id="01kb0", reason="Overloaded: cut off", work=work(model=HAIKU)))
    run.note("research", call)
    run.end("research", answer)
    return run


def client() -> Recorder:
    """A handler's own client asked twice, one of the calls in vain."""
    run = Recorder(flow_of("report", CHAIN), "01kb00000000000000000client")
    run.start({})
    answer = done(["tea is a leaf"], model=HAIKU)
    call = Exchange(
        request_sha256="ab" * 32,
        headers={"content-type": "application/json", "request-id": "req_1"},
        body=answer.output,
        model=HAIKU,
        request_id="req_1",
        usage=answer.work.usage or Usage(),
        cost_usd=answer.work.cost_usd,
    )
    run.note("research", call)
    run.note("research", replace(call, number=1, attempt=2, streamed=True))
    run.note("research", Spent(id="01kb1", reason="broken_answer: it ended", work=work(model=HAIKU)))
    run.end("research", answer)
    return run


def asked() -> Recorder:
    """A step asks agents, a person, for time and for an event, records, is parked, and asks otherwise in the end."""
    flow = flow_of("report", CHAIN)
    researcher = Agent(handler="agents:any", input={"question": Field()})
    lead = replace(flow.agents["research"], workers=["researcher"])
    flow = replace(flow, agents={**flow.agents, "research": lead, "researcher": researcher})
    run = Recorder(flow, "01kb000000000000000000asked")
    run.start({})
    run.note("research", Recorded(name="today", value=Raw(b'"2026-11-25"')))
    one = run.ask("research", "agent", "researcher", question="What is tea?")
    two = run.ask("research", "agent", "researcher", 2, question="What is tea?")
    run.answer(two, failed(two, "no answer"))
    run.park("research", one)
    run.answer(one, done("a leaf", model=HAIKU))
    approves = run.ask("research", "person", "editors")
    run.park("research", approves)
    said = run.say("editors", approves, Say(answer=Raw(b'"yes"'), who="ann", note="go on"))
    run.answer(approves, done("yes"), who="ann", note="go on", say=said)
    run.answer(run.ask("research", "sleep", "sleep", seconds=60))
    run.answer(run.ask("research", "event", "paid"))
    run.note("research", Unasked(children=[two], count=1, seq=1, delivered=2))
    run.end("research", done(["tea is a leaf"]))
    return run


def files() -> Recorder:
    """A file in the input, files that a step puts out, and a large value that may name some."""
    flow = flow_of("report", CHAIN)
    run = Recorder(replace(flow, input={**flow.input, "paper": Field(type="file?")}), "01kb00000000000000000files")
    paper = FileRef(name="paper.pdf", media_type="application/pdf", sha256="ab" * 32, size_bytes=1_200_000, pages=12)
    crane = FileRef(name="crane.png", media_type="image/png", sha256="cd" * 32, size_bytes=900, width=40, height=30)
    run.start({"paper": as_value(paper)})
    run.end("research", done([as_value(crane)], model=HAIKU))
    run.end("write", replace(done(None), blob=Blob(sha256="ef" * 32, size_bytes=300_000, files=True)))
    run.end("edit", done(as_value(paper)))
    return run


def tools() -> Recorder:
    """A model that is offered tools, calls one of them, and answers; a budget that the run waited for."""
    run = Recorder(flow_of("report", CHAIN), "01kb00000000000000000tools")
    run.start({})
    run.note("research", Offered(tools=Raw(_REFUND)))
    asks, answers = "3" * 64, "4" * 64
    call = Raw(b'[{"type":"tool_use","id":"toolu_1","name":"refund","input":{"order":7}}]')
    run.note("research", ModelCall(request_sha256=asks, text=Raw(b'""'), content=call, stop_reason="tool_use"))
    run.note("research", ToolBegun(request_sha256=asks, place=0, name="refund", id="01kb2", until_s=1_795_600_000.0))
    run.note("research", ToolCall(request_sha256=asks, place=0, name="refund", result=Raw(b'"paid"'), elapsed_s=0.2))
    usage = Usage(input_tokens=900, output_tokens=20, server_tools={"web_search": 2})
    run.note("research", ModelCall(request_sha256=answers, text=Raw(b'"It is paid."'), usage=usage, cost_usd=0.02))
    run.end("research", done("It is paid.", model=HAIKU))
    waits = Waits(what=BUDGET, reason="all is spent", attempt=1, since_s=1_795_600_000.0, seq=9, of_run=run.run)
    run.note("write", waits)
    run.end("write", done("Paid.", model=SONNET))
    run.end("edit", done("Paid."))
    return run


def batch() -> Recorder:
    """A step whose model is asked in a batch, at the second time with an answer."""
    run = Recorder(flow_of("report", CHAIN), "01kb00000000000000000batch")
    run.start({})
    actor, digest = run.plan.actor("research"), "5" * 64
    for number, failure in enumerate((Failed(error=Error(step="", type="batch_expired", message="late")), None), 1):
        call = {"request_sha256": digest, "model": HAIKU, "attempt": number, "count": 100, "seconds": 60.0}
        child = run.ask("research", "batch", BATCH, number, call={**call, "timeout_s": 300.0}, request={"model": HAIKU})
        run.park("research", child)
        run.note(child, InBatch(batch=f"batch-01kb{number}", actor=actor, count=83))
        if failure is None:
            answered = ModelCall(request_sha256=digest, text=Raw(b'"leaf"'), model=HAIKU, batch=f"batch-01kb{number}")
            run.note("research", replace(answered, attempt=number, cost_usd=0.01, usage=Usage(input_tokens=9)))
        run.answer(child, failure or Done())
        if failure is not None:
            run.note("research", Retry(attempt=1, error=replace(failure.error, step="research"), delay_s=1.0))
    run.end("research", done(["tea is a leaf"], model=HAIKU, attempt=2))
    run.end("write", done("Leaf.", model=SONNET))
    run.end("edit", done("Leaf."))
    return run


def sent() -> Recorder:
    """A batch: no run, and read as one."""
    run = Recorder(flow_of("report", CHAIN), "batch-01kb1")
    run.gather("report--research", [3, 7, 8])
    at_s = 1_795_600_000.0
    run.note(BATCH, BatchSending(number=1, count=3, id="01kb3", at_s=at_s, until_s=at_s + 315.0))
    run.note(BATCH, BatchSent(id="msgbatch_1", count=3, at_s=at_s + 1.0))
    run.note(BATCH, BatchEnded(at_s=at_s + 900.0))
    return run


def cancelled() -> Recorder:
    run = Recorder(flow_of("report", CHAIN), "01kb00000000000000cancelled")
    run.start({})
    run.end("research", done([]))
    run.stop("cancelled", "no longer needed")
    return run


def expired() -> Recorder:
    run = Recorder(flow_of("report", CHAIN, deadline_s=60.0), "01kb0000000000000000expired")
    run.start({}, deadline_s=60.0)
    run.time_is_up(END)
    return run


RUNS: dict[str, Callable[[], Recorder]] = {
    "pipeline": pipeline,
    "fan-out": fan_out,
    "join-deadline": join_deadline,
    "nothing-to-do": nothing_to_do,
    "empty-list": empty_list,
    "retry": retry,
    "parked": parked,
    "suspect": suspect,
    "failed": origin,
    "fork": fork,
    "model-call": model_call,
    "client": client,
    "asked": asked,
    "files": files,
    "tools": tools,
    "batch": batch,
    "sent": sent,
    "cancelled": cancelled,
    "expired": expired,
}
