"""Which of the answers that an instruction offers a rehearsal takes: "one of: bug, praise", "yes or no". Pure."""

from __future__ import annotations

import hashlib
import re

_OFFERS = (
    re.compile(r"\bone of(?: the following| these)?(?: [\w-]+){0,2}?:?\s+(?P<options>[^.\n]{3,200})", re.IGNORECASE),
    re.compile(
        r"\b(?:classify|categori[sz]e|label|sort|tag|rate)\b[^.\n]{0,80}?\b(?:as|into)\b:?\s+(?P<options>[^.\n]{3,200})",
        re.IGNORECASE,
    ),
    re.compile(r"\b(?:one|a single) word\b[^.:\n]{0,40}:\s*(?P<options>[^.\n]{3,200})", re.IGNORECASE),
    re.compile(r"\b(?:answer|reply|say|return|respond)\b[^.\n]{0,40}?\b(?P<options>yes or no)\b", re.IGNORECASE),
    re.compile(r"\beither\s+(?P<options>[\w-]+ or [\w-]+)", re.IGNORECASE),
)
_BETWEEN = re.compile(r"\s*(?:,\s*or\b|,\s*and\b|,|\||/|\bor\b)\s*", re.IGNORECASE)
_RANGE = re.compile(
    r"\b(?:number|score|scale|rating|priority)\b[^.\n]{0,30}?\b(\d{1,3})\s?(?:-|\u2013|to)\s?(\d{1,3})\b", re.IGNORECASE
)
_TRIM = " \t\"'`*:;()[]<>"
_WORDS_MAX = 3
_OPTIONS_MAX = 20


def options_of(instruction: str) -> list[str]:
    """Return the answers that the instruction offers, in their order; none where it does not."""
    for offer in _OFFERS:
        found = offer.search(instruction)
        if found is not None and (options := split_options(found["options"])):
            return options
    span = _RANGE.search(instruction)
    if span is not None and int(span[1]) < int(span[2]) < int(span[1]) + _OPTIONS_MAX:
        return [str(number) for number in range(int(span[1]), int(span[2]) + 1)]
    return []


def split_options(text: str) -> list[str]:
    """Return the options in `bug, praise or question`; none when it is no list of short ones."""
    options = [option.strip(_TRIM) for option in _BETWEEN.split(text)]
    options = [option for option in options if option]
    # What follows the last is often the end of the sentence: "... or question, nothing else".
    while len(options) > 2 and len(options[-1].split()) > _WORDS_MAX:
        options.pop()
    good = all(len(option.split()) <= _WORDS_MAX for option in options)
    return list(dict.fromkeys(options)) if good and 2 <= len(options) <= _OPTIONS_MAX else []


def chosen(options: list[str], text: str) -> str:
    """Return the option that the text names most often; else one that follows from the text, whichever it is."""
    low = text.lower()
    counts = [len(re.findall(rf"(?<!\w){re.escape(option.lower())}", low)) for option in options]
    if max(counts) > 0:
        return options[counts.index(max(counts))]
    return options[lot(text) % len(options)]


def lot(text: str) -> int:
    """Return a number that follows from a text, the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4], "big")
