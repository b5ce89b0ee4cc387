"""A task that is sent by a form: with an id that was made with the form, so that pressed twice it is one run."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request

from baton_actors.console.core import Console
from baton_actors.console.forms import read_filled
from baton_actors.console.page import Page
from baton_actors.console.pages.send import send_page_of
from baton_bus.errors import RunExists
from baton_schemas.errors import BadContent, BadFile, FlowError, InputError
from baton_schemas.wire.names import check_token, sortable_id

from .runs import budget_in, path_of, text_in


async def send(console: Console, request: Request, form: FormData) -> str | Page:
    """Start a run; or return the form again, with what is amiss at its fields."""
    known = await console.flows.known(request.path_params["flow"])
    run, budget_text = check_token("run id", text_in(form, "run")), text_in(form, "budget")
    filled = await read_filled(known.plan.flow, form)
    said = ""
    if not filled.mistakes:
        try:
            started = await console.client.start(known.plan, filled.values, run_id=run, budget=budget_in(form))
        except InputError as error:
            filled.mistake(error)
        except FlowError as error:
            said = f"budget: {error}"
        except (BadFile, BadContent) as error:
            said = str(error)
        except RunExists:
            said = "This form was sent before with other values, and began the run"
            return send_page_of(console, known, filled, run=sortable_id(), budget=budget_text, said=said, before=run)
        else:
            return path_of(started.id)
    return send_page_of(console, known, filled, run=run, budget=budget_text, said=said)
