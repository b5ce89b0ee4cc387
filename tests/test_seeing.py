"""Seeing a step: what its log says that it got and gave, whatever became of it, and whatever else is in the log."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from msgspec import Raw
from msgspec.structs import replace
from rich.console import Console

from baton_actors.cli.output import print_json
from baton_actors.cli.show.step_page import step_page
from baton_actors.cli.show.values import brought_lines, brought_table
from baton_schemas.errors import UnknownStep
from baton_schemas.flow.check import check_flow
from baton_schemas.flow.flow import Agent, Field, Flow, Step
from baton_schemas.run.carry import carried, error_value, state_of_join, with_outcome
from baton_schemas.run.fold import fold
from baton_schemas.run.state import Entry
from baton_schemas.show.asked import asked_by
from baton_schemas.show.brought import blobs_named, brought_by
from baton_schemas.show.excerpt import excerpt, text_of
from baton_schemas.show.paid import paid_for
from baton_schemas.show.plan import plan_of
from baton_schemas.show.seeing import see, wanted
from baton_schemas.show.step import StepSeen, step_of
from baton_schemas.show.step_facts import brought_facts, step_facts
from baton_schemas.wire.facts import Begun, GivenBack, ModelCall, Retry, Spent, Waits
from baton_schemas.wire.messages import Begins, Branch, Handoff, Message, Origin, Started
from baton_schemas.wire.outcomes import Blob, Done, Error, Failed, Place, Skipped, State, Usage, Work

from .logs import closing, done, failed, first, handoff, join, log, logs, note, outcome, reply, result, second, woken

PLAN = check_flow(
    Flow(
        name="report",
        input={"topic": Field()},
        agents={
            "a": Agent(handler="m:f"),
            "m": Agent(model="some-model", system="On {topic}.", prompt="Digest {item} of {topic}.", max_tokens=9),
            "w": Agent(model="some-model", prompt="{digest}\n{errors}\n{facts}", max_tokens=9),
        },
        steps={
            "split": Step(agent="a"),
            "digest": Step(agent="m", each="split"),
            "facts": Step(agent="a"),
            "merge": Step(agent="w", after=["digest", "facts"]),
        },
        on_error="continue",
    )
)
TEA = State(input={"topic": Raw(b'"tea"')})
KEY_ERROR = Error(
    step="split",
    type="KeyError",
    message="'prio'",
    attempts=3,
    at=Place(file="triage.py", line=31, function="lookup"),
    traceback='  File "triage.py", line 31, in lookup\n    \x1b[31mreturn x["prio"]\nKeyError: \'prio\'',
)


def begins(step: str = "split", *, forked_from: str = "") -> Handoff:
    origin = Origin(run=forked_from) if forked_from else None
    return first(step, cause=Started(begins=Begins(flow_body=Raw(PLAN.body), origin=origin)))


def seen(entries: list[Entry], step: str, **more: Any) -> StepSeen:
    state = fold(entries)
    return see(PLAN, state, entries, step_of(PLAN, state, step), now=second(60), **more)


def page_of(step: StepSeen, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width, force_terminal=False, highlight=False, markup=False).print(step_page(step, width))
    return file.getvalue()


def digest(index: int, item: str = '"a leaf"', **more: Any) -> Handoff:
    branch = Branch(index=index, count=2, item=Raw(item.encode()))
    return replace(handoff("split", f"digest-{index}", of=2, **more), branch=branch, state=TEA)


SPLIT = outcome("split", Done(output=Raw(b"[1, 2]")))
RETRY = Retry(attempt=1, error=KEY_ERROR, delay_s=90.0, work=Work(attempt=1, elapsed_s=0.2, worker="w-1"), seq=1)
STANDS: list[tuple[str, list[Message], str, str]] = [
    ("waiting", [begins()], "digest", "has not begun: it comes after split (queued)"),
    ("joining", [begins(), join("merge"), reply("facts", "merge", done("f"))], "merge",
     "has not begun: 1 of the 2 that it waits for have ended"),
    ("waiting", [begins()], "merge", "has not begun: it comes after digest (has not begun), facts (has not begun)"),
    ("queued", [begins()], "split",
     "was handed to report--a 59.0 s ago; nobody has said yet what came of it"),
    ("queued", [begins(), note("split", RETRY)], "split", "waits for its retry, due in 32.0 s"),
    ("queued", [begins(), note("split", Waits(what="handler", reason="a worker that has 'm:f'"))], "split",
     "waits for a worker that has 'm:f'"),
    ("failed", [begins(), outcome("split", Failed(error=KEY_ERROR))], "split", "failed after 3 tries in 1.0 s"),
    ("done", [begins(), SPLIT], "split", "done in 1.0 s"),
    ("skipped", [begins(), outcome("split", Skipped(reason="nothing to do"))], "split", "skipped: nothing to do"),
    ("dropped", [begins(), result("cancelled")], "split",
     "dropped: the run was cancelled before it ended; it may not have begun"),
    ("dropped", [begins(), result("failed")], "merge", "never begun: the run failed before"),
    ("done", [begins(forked_from="r0"), outcome("split", done("x"), copied=True)], "split",
     "done in run r0, and reused here"),
    ("running", [begins(), SPLIT, digest(0), digest(1), reply("digest-1", "merge", failed("digest-1"), of=2)],
     "digest", "2 branches: 1 queued, 1 failed"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "messages", "step", "says"), STANDS, ids=[each[3][:50] for each in STANDS])
def test_each_way_in_which_a_step_stands_is_said(status: str, messages: list[Message], step: str, says: str) -> None:
    found = seen(log(*messages), step)
    assert (found.status, found.says) == (status, says)
    assert says in " ".join(page_of(found).split())


def test_step_that_a_worker_says_it_is_doing_runs_now() -> None:
    found = seen(log(begins()), "split", running=2)
    assert (found.status, found.says) == ("running", "is being done now, attempt 2, 59.0 s after its handoff")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("splitt", "has no step 'splitt'. Did you mean 'split'? Its steps: split, facts, digest, merge."),
        ("digest-7", "'digest' has 2 branches: digest-0 to digest-1. Its steps: "),
        ("split-0", "'split' is one step, without branches. Its steps: "),
        ("zzz", "has no step 'zzz'. Its steps: "),
    ],
)
def test_step_that_there_is_not_is_told_with_those_that_there_are(name: str, says: str) -> None:
    with pytest.raises(UnknownStep) as caught:
        step_of(PLAN, fold(log(begins(), SPLIT, digest(0), digest(1))), name)
    assert says in str(caught.value)


def call_of(step: str = "digest-0", rehearses: bool = True, **more: Any) -> ModelCall:
    asked = asked_by(PLAN, step, {"topic": Raw(b'"tea"'), "item": Raw(b'"a leaf"'), "errors": Raw(b"[]")}, {})
    return ModelCall(request_sha256=asked.digest(rehearses=rehearses), text=Raw(b'"Tea."'), model="some-model", **more)


@pytest.mark.parametrize("rehearses", [True, False])
def test_prompt_is_made_again_and_proved_by_the_recorded_hash(rehearses: bool) -> None:
    ended = reply("digest-0", "merge", done("Tea."), of=2)
    found = seen(log(begins(), SPLIT, digest(0), note("digest-0", call_of(rehearses=rehearses)), ended), "digest-0")
    assert found.asked is not None
    assert (found.asked.system, found.asked.prompt) == ("On tea.", "Digest a leaf of tea.")
    assert found.proof == call_of(rehearses=rehearses).request_sha256
    assert step_facts(found)["proved"] is True
    page = page_of(found)
    assert f"as it was sent: its hash is the recorded one, {call_of(rehearses=rehearses).request_sha256[:12]}" in page
    assert all(text in page for text in ("  Digest a leaf of tea.", "  Tea.", "  On tea."))


def test_prompt_that_the_recorded_hash_does_not_prove_is_said_to_be_none() -> None:
    other = replace(call_of(), request_sha256="5e" * 32)
    found = seen(log(begins(), SPLIT, digest(0), note("digest-0", other)), "digest-0")
    assert (found.proof, step_facts(found)["proved"]) == ("", False)
    assert "not what was sent, whose hash is 5e5e5e5e5e5e" in page_of(found)


def test_prompt_of_a_call_that_gave_no_answer_is_proved_too() -> None:
    work = Work(attempt=1, request_sha256=call_of(rehearses=False).request_sha256)
    error = Error(step="digest-0", type="not_found_error", message="no such model")
    found = seen(log(begins(), SPLIT, digest(0), outcome("digest-0", Failed(error=error, work=work))), "digest-0")
    assert found.proof == work.request_sha256
    bare = seen(log(begins(), SPLIT, digest(0), outcome("digest-0", Failed(error=error))), "digest-0")
    assert (bare.proof, step_facts(bare)["proved"]) == ("", None)
    assert "not proved: no hash is recorded" in page_of(bare)


BLOB = Blob(sha256="ab" * 32, size_bytes=3_000_000)


def test_values_beside_the_log_are_named_until_they_are_fetched() -> None:
    entries = log(begins(), SPLIT, replace(digest(0), branch=Branch(index=0, count=2, blob=BLOB)))
    assert wanted(PLAN, fold(entries), entries, "digest-0") == [BLOB]
    bare = seen(entries, "digest-0", lacking={BLOB.sha256: "gone"})
    assert (bare.values["item"], bare.asked) == (BLOB, None)
    assert "2.86 MiB kept beside the log, gone: abababababab" in page_of(bare)
    assert "cannot be shown" in page_of(bare)
    assert step_facts(bare)["lacking"] == {BLOB.sha256: "gone"}
    whole = seen(entries, "digest-0", fetched={BLOB.sha256: b'"a leaf"'})
    assert whole.asked is not None
    assert whole.asked.prompt == "Digest a leaf of tea."


def test_merger_reads_what_its_branches_brought_in_their_order() -> None:
    entries = log(
        begins(),
        SPLIT,
        digest(0),
        digest(1),
        reply("facts", "merge", failed("facts", "no facts")),
        reply("digest-1", "merge", done("two"), of=2),
        reply("digest-0", "merge", Done(blob=BLOB), of=2),
        closing("merge", {"digest": "0-1", "facts": "*"}, counts={"digest": 2}),
    )
    assert wanted(PLAN, fold(entries), entries, "merge") == [BLOB]
    found = seen(entries, "merge", fetched={BLOB.sha256: b'"one"'})
    assert bytes(found.values["digest"]) == b'["one","two"]'  # type: ignore[arg-type] # no blob
    assert found.asked is not None
    assert found.asked.prompt == ("[1] one\n\n[2] two\n[1] step facts failed: no facts\n(step facts failed: no facts)")
    assert seen(entries, "merge").asked is None, "one of its branches is not at hand"
    short = seen([entry for entry in entries if entry.seq != 6], "merge", fetched={BLOB.sha256: b'"one"'})
    assert (short.missing, short.asked) == (("digest-1",), None)
    assert "1 of its branches are not in the log: digest-1" in page_of(short)


def test_attempts_are_those_of_the_notes_and_of_the_outcome() -> None:
    messages: list[Message] = [
        begins(),
        note("split", RETRY),
        note("split", Begun(attempt=2, number=1), "w-2"),
        woken("split", 1),
        note("split", Begun(attempt=3, number=2), "w-3"),
        note("split", GivenBack(attempt=3, begun=2, reason="worker stops"), "w-3"),
        note("split", Begun(attempt=3, number=3), "w-4"),
        outcome("split", done("x", attempt=3, worker="w-4", elapsed_s=0.5)),
    ]
    attempts = seen(log(*messages), "split").attempts
    assert [(each.number, each.came_to, each.worker) for each in attempts] == [
        (1, "failed", "w-1"),
        (2, "died", "w-2"),
        (3, "given back", "w-3"),
        (3, "done", "w-4"),
    ]
    assert (attempts[0].error, attempts[0].retry_s) == (KEY_ERROR, 90.0)
    page = page_of(seen(log(*messages), "split"))
    assert "KeyError: 'prio' at triage.py:31 in lookup; again after 90.0 s" in " ".join(page.split())
    assert "2  died" in page
    assert "with its worker, w-2" in page
    begun = page_of(seen(log(*messages[:3]), "split"))
    assert "begun by w-2, which is at it, or died" in begun


def test_each_call_is_counted_once_whoever_tells_of_it() -> None:
    usage = Usage(input_tokens=10, output_tokens=2)
    in_vain = Retry(attempt=1, error=KEY_ERROR, work=Work(attempt=1, usage=usage, cost_usd=0.5, request_id="q1"))
    spent = Spent(id="s", reason="cut off", work=Work(usage=usage, cost_usd=0.25, request_id="q2"))
    call = call_of(usage=usage, cost_usd=1.0, request_id="q3")
    ended = done("Tea.", attempt=2, usage=usage, cost_usd=1.0, request_id="q3")
    found = seen(
        log(
            begins(),
            SPLIT,
            digest(0),
            *(note("digest-0", fact) for fact in (in_vain, spent, call)),
            reply("digest-0", "merge", ended, of=2),
        ),
        "digest-0",
    )
    paid = paid_for(found)
    assert paid is not None
    assert (paid.usage, paid.cost_usd, paid.rehearsed) == (Usage(input_tokens=30, output_tokens=6), 1.75, False)
    assert "30 tokens in · 6 out · $1.75 · request q3" in page_of(found)


def test_failed_step_shows_its_traceback_without_what_controls_a_terminal() -> None:
    page = page_of(seen(log(begins(), outcome("split", Failed(error=KEY_ERROR))), "split"))
    assert "KeyError: 'prio' at triage.py:31 in lookup (3 tries)" in page
    assert '    File "triage.py", line 31, in lookup' in page
    assert "\x1b" not in page


def test_traceback_stays_with_its_step_and_does_not_travel_on() -> None:
    assert with_outcome(State(), "split", Failed(error=KEY_ERROR)).errors == [replace(KEY_ERROR, traceback="")]
    brought = reply("digest-0", "merge", Failed(error=KEY_ERROR), of=1, state=State(errors=[carried(KEY_ERROR)]))
    merged = state_of_join(PLAN, closing("merge", {"digest": "0"}, counts={"digest": 1}), [brought])
    assert merged.errors == [replace(KEY_ERROR, traceback="")], "each once"
    assert msgspec.json.decode(error_value(KEY_ERROR)) == {
        "error": {"step": "split", "type": "KeyError", "message": "'prio'", "attempts": 3}
    }


def test_long_values_are_shown_with_their_head_and_their_size() -> None:
    shown = excerpt("a" * 1_000_000, lines_max=2, width=40)
    assert (len(shown.head), shown.rest) == (80, "977 KiB in all")
    shown = excerpt("é\n" * 100, lines_max=3, width=40)
    assert (shown.head, shown.rest) == ("é\né\né", "98 more lines, 300 bytes in all")
    assert (excerpt("short", lines_max=1, width=5).rest, excerpt("", lines_max=1, width=5).head) == ("", "")
    assert [text_of(Raw(value)) for value in (b'"a\\nb"', b'{"a":1}', b"\xff", b"[" * 9_999)] == [
        "a\nb",
        '{"a": 1}',
        "\ufffd",
        "[" * 9_999,
    ]
    item = '"' + "tea and " * 5_000 + '"'
    page = page_of(seen(log(begins(), SPLIT, digest(0, item)), "digest-0"))
    assert "39.1 KiB in all" in page
    assert "All of it: baton show r1 digest-0 --json" in page
    assert len(page.splitlines()) < 60


def test_messages_bring_values() -> None:
    entries = log(begins(), SPLIT, digest(0), note("digest-0", call_of()), note("split", RETRY), result("cancelled"))
    told = [[(each.step, each.what) for each in brought_by(PLAN, entries, n, {})] for n in range(1, 7)]
    assert told == [
        [("", "input topic")],
        [("split", "put out")],
        [("digest-0", "reads item"), ("digest-0", "reads topic")],
        [("digest-0", "answered")],
        [("split", "failed")],
        [],
    ]


@given(logs)
def test_no_log_is_too_odd_to_be_looked_at(entries: list[Entry]) -> None:
    entries = [*log(begins()), *(replace(entry, seq=entry.seq + 1) for entry in entries)]
    state = fold(entries)
    plan = plan_of(state)
    assert plan is not None
    for name in {*plan.order, *state.steps}:
        try:
            step = step_of(plan, state, name)
        except UnknownStep:
            continue
        wanted(plan, state, entries, step)
        found = see(plan, state, entries, step, now=second(60))
        page_of(found)
        msgspec.json.decode(msgspec.json.encode(step_facts(found)))
    for number in range(1, len(entries) + 1):
        blobs_named(entries[number - 1].message)
        brought = brought_by(plan, entries, number, {})
        assert len(brought_lines(brought, 80)) <= 9
        brought_table(brought)
        msgspec.json.encode([brought_facts(each) for each in brought])


def test_facts_are_json_whatever_was_published(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    found = seen(log(begins(), outcome("split", Done(output=Raw(b'"\xff"')))), "split")
    print_json(step_facts(found))
    assert msgspec.json.decode(capfdbinary.readouterr().out)["output"] in ("\ufffd", None)
