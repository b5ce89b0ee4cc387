"""The handler of `report.toml`: a long document into parts that fit in a prompt, of text or of pages."""

from __future__ import annotations

import re
from typing import Any

from baton_actors import Fail, File, actor
from baton_actors.flows.pages import parts_of_pdf
from baton_schemas.wire.media import PDF, is_text, why_no_text

PART_CHARS = 10_000
"""Of one part, at most: some 2,500 tokens, short enough for a small model to miss nothing in it."""

_ENDS = (
    re.compile(r"\n\s*\n"),  # of a paragraph
    re.compile(r"[.!?][\"'\u201d\u2019)\]]*\s+|[\u3002\uff01\uff1f]"),  # of a sentence
    re.compile(r"\s+"),  # of a word
)
"""Where a text may be cut, best first."""


@actor
def split(document: File) -> list[Any]:
    """Return the parts of the document: texts of a text, PDFs of a PDF. Raises `Fail` when there is nothing in it."""
    if document.media_type == PDF:
        return parts_of_pdf(document.name, document.read())
    if not is_text(document.media_type):
        raise Fail(f"{document.name}: a report is made of a PDF or a text, and this is {document.media_type}")
    data = document.read()
    if why := why_no_text(data):
        raise Fail(f"{document.name}: {why}")
    text = data.decode("utf-8-sig")
    if not text.strip():
        raise Fail("the document is empty; give one with text in it, such as document=@FILE")
    return parts_of(text, PART_CHARS)


def parts_of(text: str, size: int) -> list[str]:
    """Cut a text into parts of at most `size` characters that make up the text again when put together.

    A cut is at the last end of a paragraph in the second half of a part; or else of a sentence, of a word, or
    after `size` characters. So all parts but the last have at least half the size: twice as many as
    needed is the worst that can happen.
    """
    parts: list[str] = []
    start = 0
    while len(text) - start > size:
        end = _cut(text, start + (size + 1) // 2, start + size)
        parts.append(text[start:end])
        start = end
    return [*parts, text[start:]] if text[start:] else parts


def _cut(text: str, first: int, last: int) -> int:
    for pattern in _ENDS:
        ends = [match.end() for match in pattern.finditer(text, first, last)]
        if ends:
            return ends[-1]
    return last
