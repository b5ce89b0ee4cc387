"""PDFs for tests: pages with a line of text each, made by pypdf; and a PNG of any size that nobody need draw."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from pypdf import PdfReader, PdfWriter
from pypdf.generic import DictionaryObject, NameObject, StreamObject


def pdf(pages: int, said: str = "Ship {page} waited.", *, password: str = "") -> bytes:
    """Return a PDF of so many pages, each of which says its number; locked, if there is a password."""
    writer = PdfWriter()
    font = DictionaryObject({NameObject(key): NameObject(value) for key, value in _FONT.items()})
    fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
    for number in range(1, pages + 1):
        page, text = writer.add_blank_page(595, 842), StreamObject()
        text.set_data(f"BT /F1 12 Tf 50 750 Td ({said.format(page=number)}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(text)
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def pages_in(data: bytes) -> list[str]:
    """Return what each page of a PDF says."""
    return [page.extract_text().strip() for page in PdfReader(io.BytesIO(data)).pages]


def png(width: int, height: int) -> bytes:
    """Return a grey picture."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_FONT = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
