"""What a model wrote as Markdown, rendered: no HTML of its own, no pictures, and links to http and https alone.

All of the result is made by markdown-it of escaped text, so it is safe to stand in a page as it is; only here that is
said of a text. What is refused stands there as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from .words import visible

_SCHEMES = ("http://", "https://")


def rendered(text: str) -> Markup:
    """Return a text that is Markdown as HTML."""
    return Markup(_markdown.render(visible(text)))


def _leads_out(url: str) -> bool:
    return url.lower().startswith(_SCHEMES)


def _link(renderer: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
    """Return a link that tells the other side nothing, and has no hold of our page."""
    tokens[at].attrSet("rel", "noreferrer noopener")
    tokens[at].attrSet("target", "_blank")
    return renderer.renderToken(tokens, at, options, env)


def _cell(renderer: RendererHTML, tokens: Sequence[Token], at: int, options: OptionsDict, env: EnvType) -> str:
    """Return a cell of a table with a class where it would have a style of its own, which no page of ours may."""
    style = str(tokens[at].attrs.pop("style", ""))
    if style.endswith("right"):
        tokens[at].attrSet("class", "n")
    return renderer.renderToken(tokens, at, options, env)


def _made() -> MarkdownIt:
    made: Any = MarkdownIt("commonmark", {"html": False, "linkify": False, "typographer": False})
    made.enable("table").disable("image")
    made.validateLink = _leads_out
    made.add_render_rule("link_open", _link)
    made.add_render_rule("th_open", _cell)
    made.add_render_rule("td_open", _cell)
    assert isinstance(made, MarkdownIt)
    return made


_markdown = _made()
