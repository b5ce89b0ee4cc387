"""How many pages a PDF has, where `pypdf` is installed (`baton-bus[pdf]`): without it nobody counts them."""

from __future__ import annotations

import io
import logging


def pages_of(data: bytes) -> int:
    """Return how many pages a PDF has; 0 where that cannot be told: it is broken, or encrypted, or there is no pypdf.

    It reads all of a broken file, so let a thread do it.
    """
    try:
        from pypdf import PdfReader
    except ImportError:
        return 0
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what is odd about a file is not for the user's terminal
    try:
        reader = PdfReader(io.BytesIO(data))
        return 0 if reader.is_encrypted else len(reader.pages)
    except Exception:  # whatever a strange file makes of a parser
        return 0
