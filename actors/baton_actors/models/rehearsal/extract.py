"""What the rehearsal model answers: sentences picked from the prompt's own text. Pure and deterministic.

Sentences are ranked by how much of the text's vocabulary they carry (Nenkova and Vanderwende, "The impact
of frequency on summarization", 2005), which needs no model and no data. It shows how a flow behaves on real
input; it does not show how well a model would write.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from itertools import pairwise

from baton_actors.models.rehearsal.choice import chosen, options_of
from baton_actors.models.rehearsal.objects import object_of
from baton_actors.models.rehearsal.sentences import Sentence, lines_of, sentences_of, split_prompt, words_of
from baton_actors.models.rehearsal.shape import Shape, shape_of

_FIRST_BONUS = 1.25
"""Texts say what they are about where they begin."""
_ASKED_BONUS = 4.0
"""For words that the instruction has too."""
_SMOOTHING = 4
"""Keeps a sentence of one frequent word from beating a sentence that says something about it."""
_REPEATS_MAX = 2 / 3
"""A sentence with more of its words in those already picked says nothing new."""
_FAULT = re.compile(
    r"\b(?:(?:can|could|do|does|did|is|was|were|wo|would)(?:n['\u2019]t|not)|not|never|nobody|nothing|without|too|only|"
    r"bad|bug|brok|break|charged|crash|damag|dead|defect|delay|die|disappoint|dirty|error|expensive|fail|fault|hard|"
    r"impossible|lack|late|leak|lost|loud|miss|poor|problem|refund|rude|slow|stop|terribl|unhappy|unus|useless|wait|"
    r"weak|worse|worst|wrong)",
    re.IGNORECASE,
)
"""Words of complaint. There is no sense in it, only a rehearsal that does not list praise as a fault."""
_QUOTED = re.compile(r"[\"\u201c](?P<text>[^\"\u201c\u201d\n]{3,200})[\"\u201d]")
_FIRST = re.compile(r".*?(?:[.?!](?=\s|\Z)|\Z)")
_SUBJECT_MAX = 100


def answer_from(system: str, prompt: str) -> str:
    """Return an answer of the form that is asked for, made of sentences from the prompt.

    Where the prompt has no text to pick from, it says so, or counts through what was asked for.
    """
    blocks, instruction = split_prompt(prompt)
    sentences = sentences_of(blocks) or lines_of(blocks)
    shape = shape_of(instruction, system)
    text = "\n".join(blocks) or prompt
    asked_for = f"{instruction}\n{system}"
    picked = [sentence.text for sentence in _picked(sentences, shape, instruction)]
    filled = object_of(asked_for, text, picked)
    if filled is not None and shape.kind == "json":
        several = [object_of(asked_for, text, [sentence]) for sentence in picked] or [filled] * shape.sentences
        return json.dumps(several, ensure_ascii=False)
    if filled is not None:
        return json.dumps(filled, ensure_ascii=False)
    options = options_of(instruction) or options_of(system)
    if options and shape.kind != "json":
        return chosen(options, text)
    if picked:
        return _laid_out(picked, shape)
    return _without_text(instruction, shape)


def _picked(sentences: list[Sentence], shape: Shape, instruction: str) -> list[Sentence]:
    if shape.faults:
        faults = [sentence for sentence in sentences if _FAULT.search(sentence.text)]
        return (faults or pick(sentences, 1))[: shape.sentences]
    return pick(sentences, shape.sentences, asked=words_of(instruction))


def _without_text(instruction: str, shape: Shape) -> str:
    """Return what stands for an answer to a question that no text in the prompt tells anything about."""
    about = _subject(instruction)
    if shape.kind == "paragraphs":
        return (
            f"This stands for an answer to: {about} It is rehearsed: no model was asked, and the prompt has no text to "
            "draw on. Set ANTHROPIC_API_KEY to have a real answer."
        )
    points = [f"Rehearsed point {number} of {shape.sentences} on: {about}" for number in range(1, shape.sentences + 1)]
    return _laid_out(points, shape)


def _subject(instruction: str) -> str:
    """Return what an instruction is about: what it quotes, else its first sentence, cut where it is long."""
    quoted = _QUOTED.search(instruction)
    words = " ".join((quoted["text"] if quoted else instruction).split()) or "an empty prompt"
    if not quoted:
        words = _FIRST.match(words)[0]  # type: ignore[index]  # it matches any text
    cut = (
        words
        if len(words) <= _SUBJECT_MAX
        else f"{words[: _SUBJECT_MAX - 1].rpartition(' ')[0] or words[:_SUBJECT_MAX]}…"
    )
    return cut if cut[-1:] in "?!.…" else f"{cut}."


def pick(sentences: list[Sentence], count: int, asked: frozenset[str] = frozenset()) -> list[Sentence]:
    """Return up to `count` sentences, in the order of the text; words in `asked` weigh more.

    First the best of each block, so that a merger draws on every part; then the best of those that say
    something new; then the best of the rest.
    """
    ranked = _ranked(sentences, asked)
    picked: dict[int, Sentence] = {}
    blocks: set[int] = set()
    covered: set[str] = set()

    def is_new_block(sentence: Sentence) -> bool:
        return sentence.block not in blocks

    def is_new(sentence: Sentence) -> bool:
        return len(sentence.words & covered) <= len(sentence.words) * _REPEATS_MAX

    for wanted in (is_new_block, is_new, lambda _: True):
        for sentence in ranked:
            if len(picked) >= count:
                break
            if sentence.place not in picked and wanted(sentence):
                picked[sentence.place] = sentence
                blocks.add(sentence.block)
                covered |= sentence.words
    return [picked[place] for place in sorted(picked)]


def _ranked(sentences: list[Sentence], asked: frozenset[str]) -> list[Sentence]:
    frequency = Counter(word for sentence in sentences for word in sentence.words)
    weight = {word: math.sqrt(n) * (_ASKED_BONUS if word in asked else 1) for word, n in frequency.items()}
    score: dict[int, float] = {}
    begun: set[int] = set()
    for sentence in sentences:
        # fsum is exact in any order; a plain sum over a set would differ from process to process.
        total = math.fsum(weight[word] for word in sentence.words)
        bonus = 1 if sentence.block in begun else _FIRST_BONUS
        score[sentence.place] = bonus * total / (len(sentence.words) + _SMOOTHING)
        begun.add(sentence.block)
    return sorted(sentences, key=lambda sentence: (-score[sentence.place], sentence.place))


def _laid_out(texts: list[str], shape: Shape) -> str:
    if shape.kind == "json":
        return json.dumps(texts, ensure_ascii=False)
    if shape.kind in ("bullets", "lines"):
        return "\n".join(f"- {text}" if shape.kind == "bullets" else text for text in texts)
    groups = min(shape.groups, len(texts))
    bounds = [len(texts) * group // groups for group in range(groups + 1)]
    return "\n\n".join(" ".join(texts[start:end]) for start, end in pairwise(bounds))
