"""What a PDF says, by `pypdf`, where that is installed (`baton-bus[pdf]`): its text, pages, encryption.

All of it may take seconds: let a thread do it.
"""

from __future__ import annotations

import io
import logging
from typing import Any


def text_of_pdf(data: bytes) -> str | None:
    """Return the text of a PDF, page after page; None without pypdf, and for one that cannot be read."""
    reader = _reader(data)
    if reader is None:
        return None
    try:
        return "\n\n".join(str(page.extract_text()).strip() for page in reader.pages)
    except Exception:  # whatever a strange file makes of a parser
        return None


def pages_of_pdf(data: bytes) -> int:
    """Return how many pages a PDF has; 0 where that cannot be told."""
    reader = _reader(data)
    try:
        return 0 if reader is None or reader.is_encrypted else len(reader.pages)
    except Exception:  # as above
        return 0


def is_encrypted(data: bytes) -> bool:
    """Say whether a PDF is encrypted, as far as can be told: without pypdf none is."""
    if b"/Encrypt" not in data:  # it stands in the trailer, which is never compressed
        return False
    reader = _reader(data)
    return reader is not None and bool(reader.is_encrypted)


def _reader(data: bytes) -> Any:
    try:
        from pypdf import PdfReader
    except ImportError:
        return None
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what is odd about a file is not for the user's terminal
    try:
        return PdfReader(io.BytesIO(data))
    except Exception:  # whatever a strange file makes of a parser
        return None
