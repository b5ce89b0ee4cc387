"""A question to a person, to be read and answered."""

from __future__ import annotations

from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.forms import Filled, form_fields
from baton_actors.console.page import Page
from baton_bus.client.people import question_of
from baton_bus.client.runs import find_run
from baton_bus.engine.awaited import Open
from baton_schemas.flow.questions import expects, fields_of
from baton_schemas.wire.messages import Question


async def answer_page(console: Console, request: Request) -> Page:
    """Show the open question of a run that is meant: `?step=STEP`, or the question's own name, or its role."""
    head = await find_run(console.bus, request.path_params["run"])
    found = await question_of(console.client.engine, head.run, request.query_params.get("step", ""))
    return question_page(console, found, later="later" in request.query_params)


def question_page(
    console: Console, found: Open, *, filled: Filled | None = None, said: str = "", note: str = "", later: bool = False
) -> Page:
    """Return the page of a question; with what was filled in, and what is amiss with it.

    With `later` it was answered, and nobody has taken that yet.
    """
    question = found.cause.question or Question(text="")
    run, name = found.child.run, found.child.step
    filled = filled or Filled()
    return Page(
        template="answer.html",
        title=f"{found.name}: answer {run}",
        here="attention",
        facts={
            "run": run,
            "flow": found.child.flow,
            "step": found.cause.step,
            "name": name,
            "role": found.name,
            "question": question,
            "fields": form_fields(fields_of(question)) if question.output else [],
            "filled": filled,
            "said": said,
            "note": note,
            "later": later,
            "since": found.at,
            "expects": expects(question),
            "is_line": question.type.removesuffix("?") in ("int", "float", "bool"),
        },
        json={"run": run, "step": found.cause.step, "name": name, "role": found.name, "question": question},
        command=f"baton answer {run} {name} …",
        status=422 if filled.mistakes or said else 200,
    )
