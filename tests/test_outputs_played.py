"""Answers that are JSON, from the flow file in the docs to the steps that read them: rehearsed, and shown as sent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import msgspec

from baton_actors import Baton, Context, Flow

from .commands import baton, here

DOCS = Path(__file__).parent.parent / "schemas" / "docs" / "models.md"
MAIL = "The lamp of order 4711 is broken. I want my money back. When will it come?"


def documented() -> str:
    (text,) = [
        block for block in re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL) if 'name = "mails"' in block
    ]
    return str(text)


def test_example_of_the_docs_runs_in_rehearsal_and_shows_what_was_asked(tmp_path: Path) -> None:
    (tmp_path / "mails.toml").write_text(documented())
    checked = baton("check", "./mails.toml", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = baton("run", "./mails.toml", f"mail={MAIL}", "--json", "--data-dir", ".baton", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = here("show", "--json", "--data-dir", ".baton", cwd=tmp_path)
    run = json.loads(shown.stdout)
    step = json.loads(here("show", run["run"], "classify", "--json", "--data-dir", ".baton", cwd=tmp_path).stdout)
    assert step["proved"] is True, "the schema is in what was recorded to be sent"
    assert step["asked"]["output"]["properties"]["kind"] == {"enum": ["refund", "complaint", "question"]}
    assert step["output"]["kind"] in ("refund", "complaint", "question")
    assert isinstance(step["output"]["urgent"], bool) and step["output"]["language"]
    page = here("show", run["run"], "classify", "--data-dir", ".baton", cwd=tmp_path).stdout
    assert "answers with kind, urgent, points, orders, language" in page and '"urgent"' in page
    assert "The lamp of order 4711 is broken" in page.partition("answer\n")[2], "rehearsed of the mail's own text"


class Topic(msgspec.Struct):
    title: str


class Plan(msgspec.Struct):
    kind: Literal["refund", "complaint"]
    topics: list[Topic]


async def test_handlers_get_an_answer_as_the_record_that_it_is() -> None:
    flow = Flow("planned", input={"mail": str})
    flow.ask("plan", "What is in this mail?\n\n{mail}", output=Plan)
    flow.agent(name="judge", prompt="Judge: {text}", input={"text": str}, output={"good": bool, "why": "str?"})

    @flow.step(each="plan.topics", after="plan", workers="judge")
    async def weigh(item: Topic, plan: Plan, context: Context) -> str:
        found = await context.ask("judge", text=item.title, returns=dict[str, bool | str])
        return f"{plan.kind}: {item.title} is {'good' if found['good'] else 'bad'}"

    async with Baton.local(flow, data_dir=None) as team:
        said = await team.run(mail=MAIL, returns=list[str])
    assert said and all(re.match(r"(refund|complaint): .+ is (good|bad)\Z", line) for line in said)
