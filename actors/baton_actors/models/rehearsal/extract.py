"""What the rehearsal model answers: sentences picked from the prompt's own text. Pure and deterministic.

Sentences are ranked by how much of the text's vocabulary they carry (Nenkova and Vanderwende, "The impact
of frequency on summarization", 2005), which needs no model and no data. It shows how a flow behaves on real
input; it does not show how well a model would write.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import pairwise

from baton_actors.models.rehearsal.sentences import Sentence, sentences_of, split_prompt, words_of
from baton_actors.models.rehearsal.shape import Shape, shape_of

_FIRST_BONUS = 1.25
"""Texts say what they are about where they begin."""
_ASKED_BONUS = 4.0
"""For words that the instruction has too."""
_SMOOTHING = 4
"""Keeps a sentence of one frequent word from beating a sentence that says something about it."""
_REPEATS_MAX = 2 / 3
"""A sentence with more of its words in those already picked says nothing new."""


def answer_from(system: str, prompt: str) -> str:
    """Return an answer to the prompt made of sentences from the prompt, or one that says it has no text."""
    blocks, instruction = split_prompt(prompt)
    sentences = sentences_of(blocks)
    if not sentences:
        about = " ".join(prompt.split())[:120]
        return (
            f"There is no model behind this rehearsal, and the prompt gives no text to draw on ({about}). "
            "Put the text into the prompt between tags, such as <document>…</document>, "
            "or set ANTHROPIC_API_KEY for a real answer."
        )
    shape = shape_of(instruction, system)
    picked = pick(sentences, shape.sentences, asked=words_of(instruction))
    return _laid_out([sentence.text for sentence in picked], shape)


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
    if shape.kind == "bullets":
        return "\n".join(f"- {text}" for text in texts)
    groups = min(shape.groups, len(texts))
    bounds = [len(texts) * group // groups for group in range(groups + 1)]
    return "\n\n".join(" ".join(texts[start:end]) for start, end in pairwise(bounds))
