"""Files in requests: what the API takes of them, what they take of it, and the content blocks that they become. Pure.

https://platform.claude.com/docs/en/build-with-claude/pdf-support and …/vision, as of November 2026.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from baton_actors.errors import FileRefused
from baton_actors.models.pdf import is_encrypted, pages_of_pdf, text_of_pdf
from baton_schemas.show.asked import Asked, Part
from baton_schemas.wire.files import FileRef
from baton_schemas.wire.media import PDF, PICTURES, is_text, media_type_of, why_no_text
from baton_schemas.wire.values import valid_text

REQUEST_MAX_BYTES = 32 * 1024 * 1024
"""Of a request, files in base64 and all: more is answered with 413."""
PAGES_MAX, PAGES_MAX_200K = 600, 100
"""Of all PDFs of a request; the second for models that hold 200,000 tokens in mind. Pictures have the same bound."""
PICTURE_MAX_BYTES = 5 * 1024 * 1024
"""Of a picture in base64."""
PICTURE_MAX_PX, MANY_PICTURES, MANY_MAX_PX = 8000, 20, 2000
"""On either side; and where there are more than so many in a request."""
PAGE_TOKENS = 3_000 + 1_600
"""Of a page at the most, as a rule: its text, 1,500 to 3,000, and its picture."""
_PICTURE_MAX_TOKENS = 4_784
_PIXELS_PER_TOKEN = 750
_BYTES_PER_TOKEN = 3
_LEAST_PAGE_TOKENS, _LEAST_LARGE_PICTURE_TOKENS, _LEAST_BYTES_PER_TOKEN = 1_500, 1_500, 4
_PAGE_BYTES = 20_000
"""A guess, for a PDF whose pages were not counted."""
_LARGE_PAGE_BYTES = 100_000
"""The same, where it must not be too many."""
_HOLDS_200K = re.compile(r"claude-(?:3|haiku|instant|2)|-4-[015]\b|-4-20\d{6}|(?:opus|sonnet)-4(?:-20\d{6})?$")
"""Models with a smaller context. Of one that is not known the larger bound is taken: the API has the last word."""
_NAMED_MAX = 3


def tokens_of(ref: FileRef) -> int:
    """Return how many tokens of input a file takes at the most, by what is known of it: an estimate."""
    if ref.media_type == PDF:
        return PAGE_TOKENS * (ref.pages or min(max(ref.size_bytes // _PAGE_BYTES, 1), PAGES_MAX))
    if ref.media_type in PICTURES:
        pixels = ref.width * ref.height
        return min(math.ceil(pixels / _PIXELS_PER_TOKEN), _PICTURE_MAX_TOKENS) if pixels else _PICTURE_MAX_TOKENS
    return ref.size_bytes // _BYTES_PER_TOKEN


def least_tokens_of(ref: FileRef) -> int:
    """Return how many tokens of input a file takes at the least, as a rule, by what is known of it."""
    if ref.media_type == PDF:
        return _LEAST_PAGE_TOKENS * (ref.pages or max(ref.size_bytes // _LARGE_PAGE_BYTES, 1))
    if ref.media_type in PICTURES:
        return min(ref.width * ref.height // _PIXELS_PER_TOKEN, _LEAST_LARGE_PICTURE_TOKENS)
    return ref.size_bytes // _LEAST_BYTES_PER_TOKEN


def check_files(asked: Asked) -> None:
    """Raise `FileRefused` for files that the API, or the model, would refuse: before anything is loaded or sent."""
    refs = asked.refs
    pictures = [ref for ref in refs if ref.media_type in PICTURES]
    for ref in refs:
        if why := _why_not(ref, many=len(pictures) > MANY_PICTURES):
            raise FileRefused(ref.label, why)
    _check_counts(asked, [ref.pages for ref in refs], len(pictures))
    size = sum(map(_in_base64, refs)) + len(asked.prompt) + len(asked.system)
    if size > REQUEST_MAX_BYTES:
        reason = f"{size:,} bytes as they are sent, in base64; a request has at most {REQUEST_MAX_BYTES:,}: split it"
        raise FileRefused(_named(refs), reason)


def _check_counts(asked: Asked, pages: Iterable[int], pictures: int) -> None:
    bound = _pages_max(asked.model)
    for count, what in ((sum(pages), "pages of PDF"), (pictures, "pictures")):
        if count > bound:
            reason = f"{count:,} {what} in one request; {asked.model} takes at most {bound}"
            raise FileRefused(_named(asked.refs), f"{reason}: split it, and fan out over the parts")


def _why_not(ref: FileRef, *, many: bool) -> str:
    """Return why no model takes a file; empty when one may."""
    if ref.media_type == PDF or is_text(ref.media_type):
        return ""
    if ref.media_type not in PICTURES:
        takes = "PDF, PNG, JPEG, GIF, WebP and text"
        return f"models take {takes}, and not {ref.media_type}; let a handler make text of it"
    if _in_base64(ref) > PICTURE_MAX_BYTES:
        return f"the API takes pictures of at most {PICTURE_MAX_BYTES * 3 // 4:,} bytes; make it smaller"
    most_px = MANY_MAX_PX if many else PICTURE_MAX_PX
    if max(ref.width, ref.height) > most_px:
        where = f" where there are more than {MANY_PICTURES}" if many else ""
        return f"the API takes pictures of at most {most_px:,} pixels a side{where}; make it smaller"
    return ""


def check_contents(asked: Asked, files: Mapping[str, bytes]) -> None:
    """Raise `FileRefused` for files whose bytes no model could take: no text, encrypted, another than was said.

    `files` are the bytes, by SHA-256. It takes PDFs apart, so let a thread do it.
    """
    if all(_is_blank(part, files) for part in asked.parts):
        raise FileRefused(asked.refs[0].label, "it is empty, and the prompt has nothing else")
    pages = 0
    for ref in asked.refs:
        data = files[ref.sha256]
        if why := _why_not_content(ref, data):
            raise FileRefused(ref.label, why)
        if ref.media_type == PDF:
            pages += ref.pages or pages_of_pdf(data)
    _check_counts(asked, [pages], 0)


def _is_blank(part: Part, files: Mapping[str, bytes]) -> bool:
    """Say whether nothing comes of a part of a prompt: the API refuses prompts of nothing."""
    if part.file is None:
        return not part.text.strip()
    return is_text(part.file.media_type) and not files[part.file.sha256].strip()


def _why_not_content(ref: FileRef, data: bytes) -> str:
    if is_text(ref.media_type):
        return why_no_text(data)
    found = media_type_of(data, ref.name)
    if found != ref.media_type:
        return f"by its content it is {found}, and not {ref.media_type}; give it again"
    if ref.media_type == PDF and is_encrypted(data):
        return "it is encrypted, which the API refuses; take its password away: qpdf --decrypt"
    return ""


def content_of(parts: Sequence[Part], files: Mapping[str, bytes]) -> str | list[dict[str, Any]]:
    """Return a prompt in parts as content blocks; as a text alone where all of it is text. See `blocks_of`."""
    blocks = blocks_of(parts, files)
    if any(part.file is not None for part in parts) and [block["type"] for block in blocks] == ["text"]:
        return str(blocks[0]["text"])
    return blocks


def blocks_of(parts: Sequence[Part], files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Return a prompt in parts as content blocks, each file in its place, text in as few as it takes.

    `files` are the bytes of the files, by SHA-256; what is not there is left empty, which is enough for a bound.
    """
    blocks: list[dict[str, Any]] = []
    for part in parts:
        ref = part.file
        if ref is not None and not is_text(ref.media_type):
            blocks.append(_block(ref, files.get(ref.sha256, b"")))
            continue
        text = valid_text(part.text) if ref is None else _text(files.get(ref.sha256, b""))
        # The text of a file is one with what stands around it, as any other value's is.
        if blocks and blocks[-1]["type"] == "text":
            blocks[-1]["text"] += text
        else:
            blocks.append({"type": "text", "text": text})
    return [block for block in blocks if block["type"] != "text" or block["text"].strip()]  # the API refuses those


def text_with_files(parts: Sequence[Part], files: Mapping[str, bytes]) -> str:
    """Return a prompt in parts as text alone, as far as files can be read as text: what a rehearsal goes by."""
    return "".join(part.text if part.file is None else _as_text(part.file, files[part.file.sha256]) for part in parts)


def base64_tokens(source: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many bytes of a request a base64 source has, and about how many tokens these take at the most."""
    data, media_type = source.get("data"), source.get("media_type")
    if source.get("type") != "base64" or not isinstance(data, str):
        return 0, 0
    ref = FileRef(name="", media_type=str(media_type), sha256="", size_bytes=len(data) * 3 // 4)
    return len(data), tokens_of(ref) if data else 0


def _block(ref: FileRef, data: bytes) -> dict[str, Any]:
    source = {"type": "base64", "media_type": ref.media_type, "data": base64.b64encode(data).decode()}
    if ref.media_type == PDF:
        return {"type": "document", "source": source, "title": ref.name}
    return {"type": "image", "source": source}


def _text(data: bytes) -> str:
    return data.decode("utf-8-sig", "replace")  # it was checked; what is left empty is for a bound


def _as_text(ref: FileRef, data: bytes) -> str:
    if is_text(ref.media_type):
        return _text(data)
    if ref.media_type != PDF:
        return ref.label
    text = text_of_pdf(data)
    if text is None:
        return f"{ref.label} (a rehearsal has only its name: pip install 'baton-bus[pdf]' lets it read PDFs)"
    return text or f"{ref.label} (a rehearsal reads no text in it: its pages are pictures)"


def _in_base64(ref: FileRef) -> int:
    return ref.size_bytes if is_text(ref.media_type) else (ref.size_bytes + 2) // 3 * 4


def _pages_max(model: str) -> int:
    return PAGES_MAX_200K if _HOLDS_200K.search(model) else PAGES_MAX


def _named(refs: Sequence[FileRef]) -> str:
    more = f" and {len(refs) - _NAMED_MAX} more" if len(refs) > _NAMED_MAX else ""
    return ", ".join(ref.label for ref in refs[:_NAMED_MAX]) + more
