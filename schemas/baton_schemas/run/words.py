"""Events from outside: which word of a run goes to whom that waits for it. Pure.

The words of one name queue up, as do those who wait for it, and both stay in the log: the first word goes to the first
who waits, whichever of them came first. Who has had an answer that is no word (the time was up) waits no more; a word
that had been meant for them goes to the next.

This is a function of what is in the log up to a sequence, so it does not matter who works it out, nor how often: for as
long as nobody has answered the one to whom a word goes, everybody who looks says the same, and once somebody else has,
writing it there is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def words_of(
    children: Iterable[tuple[int, str]], words: Sequence[int], answers: Mapping[str, tuple[int, int]]
) -> dict[str, int]:
    """Return which word each child gets that has one: the sequence of the word, by the key of the child.

    `children` are those who wait for the event, as the sequence at which each began to and its key; `words` the
    sequences of all words of the name; `answers` where the answer is of each child that has one, and the word that it
    is made of, 0 for none. All as the log has them up to one sequence.
    """
    theirs = set(words)
    moments: list[tuple[int, str, str]] = [(seq, "asks", key) for seq, key in children]
    moments += [(seq, "word", "") for seq in words]
    moments += [(seq, "gone", key) for key, (seq, word) in answers.items() if word not in theirs]
    waiting: list[str] = []
    unheard: list[int] = []
    got: dict[str, int] = {}
    for seq, what, key in sorted(moments):
        match what:
            case "asks":
                waiting.append(key)
            case "word":
                unheard.append(seq)
            case _ if key in got:
                unheard = sorted([*unheard, got.pop(key)])
            case _ if key in waiting:
                waiting.remove(key)
        while waiting and unheard:
            got[waiting.pop(0)] = unheard.pop(0)
    return got
