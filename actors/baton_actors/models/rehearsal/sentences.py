"""Texts out of prompts, and sentences out of texts. Pure, and linear in the length of the prompt."""

from __future__ import annotations

import re
from dataclasses import dataclass

from baton_actors.models.rehearsal.data import as_lines

_TAG = re.compile(r"<(/?)([A-Za-z][\w-]*)[^<>]{0,200}>")
_HTML = "a abbr b br code div em font hr i img li ol p span strong sub sup table td th tr u ul"
_INLINE = frozenset(_HTML.split())
"""HTML that occurs inside texts, and so marks nothing out as the text to work on."""
_INSTRUCTIVE = frozenset({"example", "examples", "format", "guidelines", "instructions", "output_format", "rules"})
"""Tags whose content is said to the model, and is not the text to work on."""

_CODE = re.compile(r"```.*?```", re.DOTALL)
_CODE_LIKE = re.compile(r"```|[{}]|\)\s*->|\s=\s|(?:^|\s)[$#]\s")
"""What is code although its fences are not both there: a text is cut into parts wherever a paragraph ends."""
_PARAGRAPH = re.compile(r"\n\s*\n")
_LINE_START = re.compile(r"\n(?=[ \t]*(?:[-*•>]\s|#|\||\d{1,3}[.)]\s))")
_MARKER = re.compile(r"(?:\[\d{1,4}\]\s+)?(?:(?:[-*•>]|\d{1,3}[.)])\s+)?")
_CLOSING, _OPENING = r"[\"'\u201d\u2019)\]]*", r"[\"'\u201c\u2018(\[]*"
_SENTENCE_END = re.compile(rf"(?<=[.!?]){_CLOSING}\s+(?={_OPENING}[A-Z0-9])|(?<=[\u3002\uff01\uff1f])")
_ABBREVIATION = re.compile(r"(?:\b[A-Z]|\b(?:e\.g|i\.e|etc|vs|cf|Mr|Mrs|Ms|Dr|Prof|St|No|Fig|approx))\.\Z")
_WORD = re.compile(r"[^\W_]{2,}")

_LABELLED = re.compile(
    r"\s*(?!answer|ask|choose|classify|example|format|give|list|note|options|output|reply|return|rules|say|use|write)"
    r"[A-Za-z][\w-]*(?: [\w-]+)?:[ \t]+(?P<text>(?:\S+[ \t]+){2,}\S.*)",
    re.IGNORECASE,
)
"""`Mail: I was charged twice.` in a prompt without tags: a label of at most two words, and a text of at least three."""
_MATERIAL_WORDS_MIN = 40
"""A paragraph without tags is text to work on from this many words; instructions are mostly shorter."""
_SENTENCE_WORDS_MIN = 3
_SENTENCE_CHARS_MAX = 400
"""Longer ones are cut: they are tables, code, or text without full stops."""

_COMMON = """
    about above after again all also am an and any are as at be because been before being below between both
    but by can could did do does doing down during each few for from further had has have having he her here
    hers him his how if in into is it its itself just may me might more most must my no nor not now of off on
    once only or other our out over own same she should so some such than that the their them then there these
    they this those through to too under until up upon very was we were what when where which while who whom
    why will with would you your
"""
_STOP_WORDS = frozenset(_COMMON.split())


@dataclass(frozen=True)
class Sentence:
    """One sentence of a text."""

    place: int
    """Its rank in the order of the prompt, from 0."""
    block: int
    """The tagged text, or the paragraph, that it is from."""
    text: str
    words: frozenset[str]
    """Its content words."""


def split_prompt(prompt: str) -> tuple[list[str], str]:
    """Return the texts to work on, and the rest of the prompt, which says what to do with them.

    The texts are what stands between tags (`<document>…</document>`), or else the long paragraphs.
    """
    blocks: list[str] = []
    rest: list[str] = []
    tags = [match for match in _TAG.finditer(prompt) if match[2].lower() not in _INLINE]
    last_close = {match[2]: match.start() for match in tags if match[1]}
    opened, end = None, 0
    for tag in tags:
        name, closes = tag[2], bool(tag[1])
        if opened is not None and closes and name == opened[2]:
            rest.append(prompt[end : opened.start()])
            blocks.append(prompt[opened.end() : tag.start()])
            opened, end = None, tag.end()
        elif closes or name.lower() in _INSTRUCTIVE or last_close.get(name, 0) < tag.start():
            continue
        elif opened is None or name == opened[2]:
            # Opened once more, the first was a mention of it: "the text in <document> tags".
            opened = tag
    rest.append(prompt[end:])
    if blocks:
        return blocks, "\n".join(rest)
    paragraphs = _PARAGRAPH.split(prompt)
    long = [place for place, paragraph in enumerate(paragraphs) if _is_long(paragraph)]
    if not long:
        return _short_texts(prompt, paragraphs)
    # The short ones in between belong to the text; those around it are what is asked for.
    texts, around = paragraphs[long[0] : long[-1] + 1], paragraphs[: long[0]] + paragraphs[long[-1] + 1 :]
    return texts, "\n".join(around)


def _short_texts(prompt: str, paragraphs: list[str]) -> tuple[list[str], str]:
    """Return short texts that a prompt announces with a colon (`Classify this mail:`, `Mail: …`), and the rest."""
    texts = [place for place in range(1, len(paragraphs)) if paragraphs[place - 1].rstrip().endswith(":")]
    if texts:
        rest = [paragraph for place, paragraph in enumerate(paragraphs) if place not in texts]
        return [paragraphs[place] for place in texts], "\n".join(rest)
    lines = prompt.splitlines()
    labelled = {place: match for place, line in enumerate(lines) if (match := _LABELLED.match(line)) is not None}
    if labelled:
        rest = [line for place, line in enumerate(lines) if place not in labelled]
        return [match["text"] for match in labelled.values()], "\n".join(rest)
    return [], prompt


def sentences_of(blocks: list[str]) -> list[Sentence]:
    """Return the sentences of the texts in their order, each once; headings, tables, code and scraps are left out."""
    found: list[Sentence] = []
    seen: set[str] = set()
    for block, text in enumerate(blocks):
        for paragraph in _PARAGRAPH.split(_TAG.sub(" ", _CODE.sub("\n\n", text))):
            for line in _LINE_START.split(_readable(paragraph)):
                line = " ".join(line.split())
                if line.startswith(("#", "|")):
                    continue
                for sentence in _sentences(_unmarked(line)):
                    key = sentence.casefold()
                    if key in seen or _CODE_LIKE.search(sentence):
                        continue
                    if len(sentence.split()) >= _SENTENCE_WORDS_MIN:
                        seen.add(key)
                        found.append(Sentence(len(found), block, _clipped(sentence), words_of(sentence)))
    return found


def lines_of(blocks: list[str]) -> list[Sentence]:
    """Return the lines of texts too short to have a sentence, each once: `Battery dead.`"""
    lines = [" ".join(line.split()) for text in blocks for line in _TAG.sub(" ", text).splitlines()]
    texts = [text for text in dict.fromkeys(map(_unmarked, lines)) if _WORD.search(text)]
    return [Sentence(place, 0, _clipped(text), words_of(text)) for place, text in enumerate(texts)]


def words_of(text: str) -> frozenset[str]:
    """Return the content words of a text, in lower case."""
    return frozenset(_WORD.findall(text.lower())) - _STOP_WORDS


def _readable(paragraph: str) -> str:
    """Return a paragraph that is JSON, with or without a number before it, as lines of text."""
    stripped = paragraph.strip()
    return as_lines(_unmarked(stripped)) if stripped[-1:] in ("}", "]") else paragraph


def _unmarked(line: str) -> str:
    """Return a line without the hyphen or the number that it begins with."""
    marker = _MARKER.match(line)
    return line[marker.end() :] if marker else line


def _is_long(paragraph: str) -> bool:
    return len(paragraph.split(maxsplit=_MATERIAL_WORDS_MIN)) >= _MATERIAL_WORDS_MIN


def _sentences(line: str) -> list[str]:
    sentences: list[str] = []
    start = 0
    for gap in _SENTENCE_END.finditer(line):
        head = line[start : gap.end()].rstrip()
        if head and not _ABBREVIATION.search(head[-12:]):
            sentences.append(head)
            start = gap.end()
    return [*sentences, line[start:]] if line[start:] else sentences


def _clipped(sentence: str) -> str:
    if len(sentence) <= _SENTENCE_CHARS_MAX:
        return sentence
    head = sentence[:_SENTENCE_CHARS_MAX]
    return (head.rpartition(" ")[0] or head) + " …"
