"""What a file is, by its bytes: its media type, and the size of a picture. The name has a word only where it is text.

https://www.iana.org/assignments/media-types
"""

from __future__ import annotations

import codecs
import struct

PDF = "application/pdf"
PICTURES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/gif": "GIF", "image/webp": "WebP"}
"""Those that models look at, and what people call them."""
HEAD_BYTES = 4096
"""So much of a file tells what it is."""
_PDF_WITHIN = 1024
"""Readers of PDF look for its mark so far into a file: scanners and mailers put something before it."""
_OTHERS = {
    b"PK\x03\x04": "application/zip",
    b"\x1f\x8b": "application/gzip",
    b"7z\xbc\xaf\x27\x1c": "application/x-7z-compressed",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "application/x-ole-storage",
    b"BM": "image/bmp",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
    b"ID3": "audio/mpeg",
    b"OggS": "audio/ogg",
    b"fLaC": "audio/flac",
}
_OFFICE = "application/vnd.openxmlformats-officedocument."
_ZIPPED = {
    "docx": f"{_OFFICE}wordprocessingml.document",
    "xlsx": f"{_OFFICE}spreadsheetml.sheet",
    "pptx": f"{_OFFICE}presentationml.presentation",
    "odt": "application/vnd.oasis.opendocument.text",
    "epub": "application/epub+zip",
}
_TEXTS = {
    "md": "text/markdown",
    "markdown": "text/markdown",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "html": "text/html",
    "htm": "text/html",
    "xml": "text/xml",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "ndjson": "application/x-ndjson",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "toml": "application/toml",
}
_TEXT_TYPES = frozenset(_TEXTS.values())
_BYTES = "application/octet-stream"
_ENCODINGS = ((codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r\f\x1b")
_NAMED = {"pdf": (PDF,), **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp"), tuple(PICTURES))}
"""What a file has to be that has such an ending; a picture of one kind may be called as another."""
_WORDS = {"png": "a picture", "jpg": "a picture", "jpeg": "a picture", "gif": "a picture", "webp": "a picture"}


def media_type_of(data: bytes, name: str) -> str:
    """Return what a file is; its first `HEAD_BYTES` are enough. What is no text and unknown is `octet-stream`."""
    ending = ending_of(name)
    if b"%PDF-" in data[:_PDF_WITHIN]:
        return PDF
    if (picture := _picture(data)) is not None:
        return picture
    for mark, found in _OTHERS.items():
        if data.startswith(mark) and not (len(mark) < 4 and _is_text(data)):
            return _ZIPPED.get(ending, found) if mark == b"PK\x03\x04" else found
    if data[4:8] == b"ftyp":
        return "video/mp4"
    return _TEXTS.get(ending, "text/plain") if _is_text(data) else _BYTES


def is_text(media_type: str) -> bool:
    """Say whether a file of this type is put into a prompt as text."""
    return media_type.startswith("text/") or media_type in _TEXT_TYPES


def why_misnamed(name: str, media_type: str) -> str:
    """Return what is wrong with the name of a file that is of this type; empty when nothing is."""
    ending = ending_of(name)
    if media_type in _NAMED.get(ending, (media_type,)):
        return ""
    is_what = {PDF: "a PDF"}.get(media_type) or ("text" if is_text(media_type) else media_type)
    return f"is named as {_WORDS.get(ending, 'a PDF')}, and is none: by its content it is {is_what}"


def picture_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a picture in pixels; 0, 0 where its bytes do not tell."""
    try:
        match _picture(data):
            case "image/png":
                return struct.unpack(">II", data[16:24])
            case "image/gif":
                return struct.unpack("<HH", data[6:10])
            case "image/jpeg":
                return _jpeg_size(data)
            case "image/webp":
                return _webp_size(data)
    except (struct.error, IndexError):
        pass
    return 0, 0


def why_no_text(data: bytes) -> str:
    """Return why bytes are no text in UTF-8, and what to do; empty when they are."""
    for mark, name in _ENCODINGS:
        if data.startswith(mark):
            return f"it is in {name}; make it UTF-8: iconv -f {name} -t UTF-8"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return (
            f"it is not UTF-8 (byte 0x{data[error.start]:02x} at {error.start:,}); if it is in Windows-1252, make it "
            "UTF-8: iconv -f WINDOWS-1252 -t UTF-8"
        )
    return ""


def ending_of(name: str) -> str:
    """Return the ending of a file's name, in lower case and without its dot; empty when it has none."""
    stem, dot, ending = name.rpartition(".")
    return ending.lower() if dot and stem else ""


def _picture(data: bytes) -> str | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def _is_text(data: bytes) -> bool:
    """Say whether bytes look like text, in whatever encoding: none of the control characters that text has not."""
    head = data[:HEAD_BYTES]
    if head.startswith(tuple(mark for mark, _ in _ENCODINGS)):
        return True
    return not head.translate(None, bytes(set(range(256)) - set(_CONTROLS)))


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Follow the segments to the frame header (ITU T.81, B.2.2)."""
    at = 2
    while at + 9 < len(data):
        if data[at] != 0xFF:
            return 0, 0
        kind = data[at + 1]
        if kind == 0xFF:  # a fill byte
            at += 1
            continue
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 if 0xD0 <= kind <= 0xD8 or kind == 1 else 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return 0, 0


def _webp_size(data: bytes) -> tuple[int, int]:
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack("<HH", data[26:30])
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack("<I", data[21:25])
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case _:
            return 0, 0
