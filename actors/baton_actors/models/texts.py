"""Text that can be stored: pairs of surrogates joined over chunks, lone ones replaced, secrets left out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from baton_schemas.wire.values import valid_text

_USER_INFO = re.compile(r"(?<=//)[^\s/?#@]*@")
_API_KEY = re.compile(r"\bsk-[A-Za-z0-9_-]{8,}")
_SECRET_NAME = re.compile(r"(API_?KEY|ACCESS_KEY|SECRET(_KEY)?|TOKEN|PASSWORD|PASSWD)\Z", re.IGNORECASE)
_SECRET_CHARS_MIN = 6
"""A shorter one is no secret (`none`, `test`), and hiding it would garble what is said."""


class Joiner:
    """Makes valid text of chunks that may be cut in the middle of a pair of surrogates (`\\ud83d`, `\\ude00`)."""

    def __init__(self) -> None:
        self._held = ""

    def add(self, chunk: str) -> str:
        """Return what is certain by now; the first half of a pair waits for the next chunk."""
        text, self._held = self._held + chunk, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return valid_text(text)

    def end(self) -> str:
        """Return what still waits, as nothing comes after it."""
        text, self._held = self._held, ""
        return valid_text(text)


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return the text without these secrets, anything that looks like an API key, and the user of any URL."""
    for secret in secrets:
        if len(secret) >= _SECRET_CHARS_MIN:
            text = text.replace(secret, "***")
    return _API_KEY.sub("sk-***", _USER_INFO.sub("***@", text))


def secrets_of(environ: Mapping[str, str]) -> list[str]:
    """Return the values of the variables whose names say that they are secret, the longest first; paths are none."""
    found = {value.strip() for name, value in environ.items() if _SECRET_NAME.search(name)}
    return sorted((value for value in found if not value.startswith(("/", "./"))), key=len, reverse=True)
