"""Pages as HTML: all text is text, whoever wrote it; parts that are sent anew are blocks of the same template."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from starlette.requests import Request

from .page import Page
from .words import FILTERS, between, visible

HERE = Path(__file__).parent
LIVE = "live_"
"""How the names of blocks begin that are sent anew when something came. Each has one root element with an id."""


class Rendering:
    """Makes HTML of pages."""

    def __init__(self, **shared: Any) -> None:
        """`shared` is what all templates are given."""
        self._jinja = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.do"],
            finalize=visible,
        )
        self._jinja.filters |= FILTERS
        self._jinja.globals |= {"between": between, **shared}
        # Blocks that are made by themselves see no imports of their template.
        self._jinja.globals["parts"] = self._jinja.get_template("parts.html").module
        self._jinja.globals["acts"] = self._jinja.get_template("acts.html").module

    def whole(self, page: Page, request: Request, **status: Any) -> str:
        """Return all of a page."""
        return self._jinja.get_template(page.template).render(self._given(page, request, status))

    def parts(
        self, page: Page, request: Request, wanted: Callable[[str], bool] = lambda _: True, **status: Any
    ) -> Iterator[tuple[str, str]]:
        """Yield the name and the HTML of each part that is sent anew, of those whose names are `wanted`."""
        template = self._jinja.get_template(page.template)
        context = template.new_context(self._given(page, request, status))
        for name, block in self._blocks(template):
            part = name.removeprefix(LIVE)
            if wanted(part):
                yield part, "".join(block(context)).strip()

    def macro(self, template: str, name: str, **given: Any) -> Markup:
        """Return what a macro of a template makes."""
        return Markup(getattr(self._jinja.get_template(template).module, name)(**given))

    def _blocks(self, template: jinja2.Template) -> Iterator[tuple[str, Any]]:
        """Yield the blocks that are sent anew, those of the templates that it extends included."""
        seen: set[str] = set()
        names: list[jinja2.Template] = [template, self._jinja.get_template("base.html")]
        for each in names:
            for name, block in each.blocks.items():
                if name.startswith(LIVE) and name not in seen:
                    seen.add(name)
                    yield name, block

    def _given(self, page: Page, request: Request, status: dict[str, Any]) -> dict[str, Any]:
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return {
            "page": page,
            "request": request,
            "nonce": getattr(request.state, "nonce", ""),
            "csrf": getattr(request.state, "csrf", ""),
            "path": path,
            **status,
            **page.facts,
        }
