"""What is known of a text that comes in live words: only what is certain is shown, and nothing twice. Pure."""

from __future__ import annotations

from typing import NamedTuple

from baton_schemas.wire.words import Wrote


class Piece(NamedTuple):
    """What is to be shown next."""

    text: str = ""
    anew: bool = False
    """What was shown before is no part of the text: `text` is its beginning."""
    attempt: int = 0


class Hearing:
    """Follows one text. `shown` is what all pieces since the last `anew` come to."""

    def __init__(self) -> None:
        self.shown = ""
        self._call = (-1, -1)
        self._heard = 0
        self._missed = False

    def hear(self, word: Wrote) -> Piece:
        """Take a word in, and return what it adds.

        After a gap nothing is added until the text is begun anew, or is there as a whole. A text that is begun anew
        and says the same as far as was shown goes on from there.
        """
        call = (word.attempt, word.take)
        if call < self._call:  # of a worker that does not know that another has begun
            return Piece()
        if call > self._call:
            self._call, self._heard, self._missed = call, 0, False
        if self._missed or word.at != self._heard:
            self._missed = self._missed or word.at > self._heard
            return Piece()
        known = self.shown[self._heard : self._heard + len(word.text)]
        if not word.text.startswith(known):
            text = self.shown[: self._heard] + word.text
            self._heard = len(text)
            self.shown = text
            return Piece(text, anew=True, attempt=word.attempt)
        self._heard += len(word.text)
        return self._more(word.text[len(known) :])

    def end(self, whole: str) -> Piece:
        """Take the text as it was recorded, and return what is left to show of it."""
        if whole.startswith(self.shown):
            return self._more(whole[len(self.shown) :])
        self.shown = whole
        return Piece(whole, anew=True)

    def _more(self, text: str) -> Piece:
        self.shown += text
        return Piece(text)
