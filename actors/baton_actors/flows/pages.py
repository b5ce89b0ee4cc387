"""A PDF into PDFs of a few pages each, by `pypdf` (`baton-bus[pdf]`). It may take seconds: a thread does it."""

from __future__ import annotations

import io
import logging
import shlex
from typing import Any

from baton_actors import Fail, File

PAGES = 5
"""Of one part: some 2,500 words, short enough for a small model to miss nothing in it."""
PAGES_MAX = 1_000
"""Of a document: 200 parts, whose digests together still fit in one prompt."""


def parts_of_pdf(name: str, data: bytes, pages: int = PAGES) -> list[File]:
    """Return PDFs of so many consecutive pages each, the last of what is left. Raises `Fail` where that cannot be.

    The same PDF comes to the same bytes each time.
    """
    try:
        from pypdf import PdfReader, PdfWriter
    except ImportError as error:
        said = f"{name} is a PDF, which only pypdf can split: pip install 'baton-bus[pdf]', and start its workers again"
        raise Fail(said) from error
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what is odd about a file is not for the user's terminal
    try:
        reader = PdfReader(io.BytesIO(data))
        count = 0 if reader.is_encrypted else len(reader.pages)
    except Exception as error:  # whatever a strange file makes of a parser
        raise _broken(name, error) from error
    if reader.is_encrypted:
        raise Fail(f"{name} is encrypted; take its password away first: qpdf --decrypt {shlex.quote(name)} plain.pdf")
    if not count:
        raise Fail(f"{name} is a PDF without pages; give one that has some")
    if count > PAGES_MAX:
        raise Fail(f"{name} has {count:,} pages; a report is made of at most {PAGES_MAX:,}: split it into several")
    stem = name.removesuffix(".pdf").removesuffix(".PDF")
    parts: list[File] = []
    for first in range(0, count, pages):
        last = min(first + pages, count)
        try:
            part = _bytes_of(PdfWriter(), reader, first, last)
        except Exception as error:  # as above
            raise _broken(name, error) from error
        which = f"page {last}" if last == first + 1 else f"pages {first + 1}-{last}"
        parts.append(File.of(part, name=f"{stem}, {which}.pdf", pages=last - first))
    return parts


def _bytes_of(writer: Any, reader: Any, first: int, last: int) -> bytes:
    writer.append(reader, pages=(first, last), import_outline=False)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def _broken(name: str, error: Exception) -> Fail:
    why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Fail(
        f"{name} is a PDF that cannot be read ({why[:200]}); write it anew: qpdf {shlex.quote(name)} mended.pdf"
    )
