"""Live words: what a step says while it is done. They go out on core NATS and are not stored: advice, and no more.

Words change nothing in a run. Some may be missing, and anybody who may publish on the subject can have written one;
what cannot be read is no word.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from .names import TOKEN
from .values import clean_text

SAID_CHARS_MAX = 300
"""Of what is said at once: two lines of a terminal, and a little."""
WROTE_CHARS_MAX = 16_384
"""Of a text in one word: at 20 words a second more than any model writes, and 96 KiB at worst, as JSON."""
_SAID_READ_MAX = 4 * SAID_CHARS_MAX
_NAME_MAX = 255
"""What a host's name may have."""
ACTORS_MAX = 1_000
"""Actors of one process that are told of: the server allows no more consumers of a stream."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")
"""Line breaks too, and what turns the direction of writing round."""
_COUNT_MAX = 2**53 - 1
"""The largest whole number that every JSON reader keeps."""

_Number = Annotated[int, Meta(ge=0, le=_COUNT_MAX)]


class Running(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worker is doing a step: it says so every two seconds, once the step takes longer than a moment."""

    step: str = ""
    attempt: _Number
    says: Annotated[str, Meta(max_length=_SAID_READ_MAX)] = ""
    """What was said last, for those who did not hear it."""
    since_us: _Number = 0
    """When it came into this worker's hands: microseconds of Unix time by the server's clock. 0: it does not say."""


class Here(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A process says that it is there: when it is asked who is, and no more."""

    host: Annotated[str, Meta(max_length=_NAME_MAX)]
    pid: _Number
    actors: Annotated[tuple[Annotated[str, Meta(max_length=_NAME_MAX)], ...], Meta(max_length=ACTORS_MAX)] = ()
    """Those that it plays."""
    version: Annotated[str, Meta(max_length=_NAME_MAX)] = ""
    """Of Baton."""
    since_us: _Number = 0
    """When it began: microseconds of Unix time by the server's clock."""
    in_hand: _Number = 0
    """Steps that it is doing."""
    waits: _Number = 0
    """Steps beside these whose handlers wait for what they asked."""


class Said(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="said"):
    """A handler says how far it is: one line. It stands until the next one; an empty one takes it away."""

    step: str = ""
    """Is in the subject, and not in the body."""
    attempt: _Number
    text: Annotated[str, Meta(max_length=_SAID_READ_MAX)] = ""


class Wrote(Struct, frozen=True, kw_only=True, omit_defaults=True, tag="wrote"):
    """A piece of a text that a model writes, valid Unicode and otherwise as the model wrote it."""

    step: str = ""
    """Is in the subject, and not in the body."""
    attempt: _Number
    take: _Number = 0
    """Which call writes it: a later one of the same attempt has a larger number, and writes its text from the start."""
    of: Annotated[str, Meta(max_length=64)] = ""
    """Which of a step's texts it is, where there are several; empty for the one that becomes its output."""
    at: _Number = 0
    """The characters of the text before it. Whoever has not so many has missed some."""
    text: Annotated[str, Meta(max_length=WROTE_CHARS_MAX)] = ""


Word = Said | Wrote

_words: msgspec.json.Decoder[Word] = msgspec.json.Decoder(Word)
_running = msgspec.json.Decoder(Running)
_here = msgspec.json.Decoder(Here)
_encoder = msgspec.json.Encoder()


def encode_word(word: Word | Running | Here) -> bytes:
    """Return a word as it is published; its text is valid (see `said_text`, `clean_text`)."""
    return _encoder.encode(word)


def read_word(step: str, body: bytes) -> Word | None:
    """Return a word on a step as it was heard, or None when it is none of ours. Never raises."""
    if not TOKEN.match(step):
        return None
    try:
        word: Word = _words.decode(body)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None
    return replace(word, step=step, text=said_text(word.text) if isinstance(word, Said) else word.text)


def read_running(step: str, body: bytes) -> Running | None:
    """Return who is at work on a step as it was heard, or None when it is no word of ours. Never raises."""
    if not TOKEN.match(step):
        return None
    try:
        word = _running.decode(body)
    except (ValueError, RecursionError):
        return None
    return replace(word, step=step, says=said_text(word.says))


def read_here(body: bytes) -> Here | None:
    """Return who is there, or None when it is no word of ours: what is not a name is left out. Never raises."""
    try:
        word = _here.decode(body)
    except (ValueError, RecursionError):
        return None
    actors = tuple(actor for actor in word.actors if TOKEN.match(actor))
    return replace(word, host=said_text(word.host), version=said_text(word.version), actors=actors)


def said_text(text: str) -> str:
    """Return what can be said: valid text on one line, without control characters, the end of a long one left out."""
    return clean_text(_CONTROL.sub(" ", text[:_SAID_READ_MAX]).strip(), SAID_CHARS_MAX)
