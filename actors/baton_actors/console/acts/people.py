"""What people answer."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.forms import Filled, read_filled
from baton_actors.console.page import Page
from baton_actors.console.pages.answer import question_page
from baton_actors.console.words import in_url
from baton_bus.client.people import question_of
from baton_schemas.errors import SchemaError
from baton_schemas.flow.answers import answer_in
from baton_schemas.flow.flow import Flow
from baton_schemas.flow.questions import BadAnswer, fields_of
from baton_schemas.wire.messages import Question

from .runs import NOTE_MAX, head_of, path_of, text_in


async def answer(console: Console, request: Request, form: FormData) -> str | Page:
    """Answer a question that a run asks; who was quicker has answered it, and the page says so."""
    head = await head_of(console, request.path_params["run"])
    step = text_in(form, "step")
    found = await question_of(console.client.engine, head.run, step)
    question = found.cause.question or Question(text="")
    note = text_in(form, "note")[:NOTE_MAX]
    try:
        value = await _value(question, form)
    except (BadAnswer, _Mistaken) as error:
        filled = error.filled if isinstance(error, _Mistaken) else Filled(texts={"value": [_typed(form)]})
        said = "" if isinstance(error, _Mistaken) else str(error)
        return question_page(console, found, filled=filled, said=said, note=note)
    taken = await console.client.run(head.run, head.flow).answer(found.child.step, value, who=console.who, note=note)
    console.needs.answered()
    if not taken:
        return f"{path_of(head.run)}/answer?step={in_url(found.child.step)}&later=yes"
    return "/attention" if text_in(form, "back") == "attention" else path_of(head.run)


class _Mistaken(Exception):
    def __init__(self, filled: Filled) -> None:
        self.filled = filled
        super().__init__("a field")


async def _value(question: Question, form: FormData) -> Any:
    """Return the answer that a form gives. Raises `BadAnswer`, `_Mistaken`."""
    if not question.output:
        return answer_in(question, _typed(form))
    record = Flow(name="answer", input=fields_of(question), agents={}, steps={})
    filled = await read_filled(record, form)
    if filled.mistakes:
        raise _Mistaken(filled)
    try:
        answer_in(question, filled.as_json())
    except (BadAnswer, SchemaError) as error:
        raise BadAnswer(str(error)) from error
    return filled.values


def _typed(form: FormData) -> str:
    value = form.get("value")
    return value.replace("\r\n", "\n") if isinstance(value, str) else ""
