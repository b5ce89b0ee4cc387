"""Stepping through numbered messages by single keys, with a search: which key leads where. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

HELP = "→ next  ← back  Home End  / search  n N next found  q quit"

_FORWARD, _BACK = frozenset({"right", " ", "\r", "\n", "l", "j"}), frozenset({"left", "p", "\x7f", "h", "k"})
_QUIT = frozenset({"q", "\x1b", "\x04", ""})
_PAGE = 10
_PAGES = {"page-down": _PAGE, "page-up": -_PAGE}


class Stepping:
    """Where somebody is in a list of messages, from 1, and what they look for."""

    def __init__(self, texts: Sequence[str]) -> None:
        """`texts` are what a search looks at, one for each message."""
        self.at, self.last = 1, len(texts)
        self._texts = [text.casefold() for text in texts]
        self._typing: str | None = None
        self._wanted = ""
        self._found = True

    @property
    def line(self) -> str:
        """What stands where one types: the search as it is typed, what was not found, or the keys."""
        if self._typing is not None:
            return f"/{self._typing}▏"
        if not self._found:
            return f"no message has {self._wanted!r} in it"
        return HELP

    def press(self, key: str) -> bool:
        """Do what a key says, as `read_key` gives it; False to leave."""
        if self._typing is not None:
            return self._type(key)
        self._found = True
        match key:
            case key if key in _QUIT:
                return False
            case "/":
                self._typing = ""
            case "n" if self._wanted:
                self._search(range(self.at + 1, self.last + 1), range(1, self.at + 1))
            case "N" if self._wanted:
                self._search(range(self.at - 1, 0, -1), range(self.last, self.at - 1, -1))
            case "n":
                self._go(self.at + 1)
            case "g" | "home":
                self._go(1)
            case "G" | "end":
                self._go(self.last)
            case key if key in _PAGES:
                self._go(self.at + _PAGES[key])
            case key if key in _FORWARD:
                self._go(self.at + 1)
            case key if key in _BACK:
                self._go(self.at - 1)
        return True

    def _go(self, at: int) -> None:
        self.at = min(max(at, 1), self.last)

    def _type(self, key: str) -> bool:
        assert self._typing is not None
        match key:
            case "":
                return False
            case "\x1b" | "\x04":
                self._typing = None
            case "\r" | "\n":
                self._wanted, self._typing = self._typing or self._wanted, None
                if self._wanted:
                    self._search(range(self.at + 1, self.last + 1), range(1, self.at + 1))
            case "\x7f" | "\b":
                self._typing = self._typing[:-1] if self._typing else None
            case key if len(key) == 1 and key.isprintable():
                self._typing += key
        return True

    def _search(self, *ranges: range) -> None:
        """Go to the first message in these that has what is looked for; the last range goes round the end."""
        has: Callable[[int], bool] = lambda number: self._wanted.casefold() in self._texts[number - 1]  # noqa: E731
        found = next((number for numbers in ranges for number in numbers if has(number)), None)
        self._found = found is not None
        self._go(found or self.at)
