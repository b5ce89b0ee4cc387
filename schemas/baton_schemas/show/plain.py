"""Text from the log, from models and from arguments, made fit for a terminal. Pure."""

from __future__ import annotations


def plain(text: str) -> str:
    """Return text on one line, without what would control the terminal or turn its direction."""
    return "".join(char if char.isprintable() else " " for char in text)


def plain_lines(text: str) -> str:
    """Return text with its line breaks and tabs, and without what else would control the terminal."""
    return "\n".join(plain(line) for line in text.expandtabs().split("\n"))
