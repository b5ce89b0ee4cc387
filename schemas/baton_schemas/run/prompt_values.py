"""What a prompt shows for a name: its value, errors as sentences, a failed step as its error, branches in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from baton_schemas.flow.prompts import Absent, Places
from baton_schemas.run.branches import BranchEnds
from baton_schemas.run.carry import error_value
from baton_schemas.run.refs import parse
from baton_schemas.wire.outcomes import Error

_decode_errors = msgspec.json.Decoder(list[Error]).decode


class PromptValues:
    """The values of one step by name, each decoded once. For `prompts.render`."""

    def __init__(
        self, values: Mapping[str, Raw], branches: Mapping[str, BranchEnds], why_missing: Callable[[str], str]
    ) -> None:
        """`values` are those that the step reads, and its `errors`; `branches` those of the fan-outs that it joins.

        `why_missing` says why there is nothing under a name, where no error does: `was skipped`.
        """
        self._values, self._branches, self._why_missing = values, branches, why_missing
        self._errors = _decode_errors(values["errors"]) if "errors" in values else []
        self._decoded: dict[str, Any] = {}

    def of(self, name: str) -> Any:
        """Return what stands for a name, None for null. Raises `msgspec.DecodeError` for what is no JSON."""
        if name not in self._decoded:
            self._decoded[name] = self._of(name)
        return self._decoded[name]

    def _of(self, name: str) -> Any:
        if name == "errors":
            return [_sentence(error) for error in self._errors]
        if name in self._branches and not self._branches[name].whole:
            return _in_places(self._branches[name])
        if name in self._values:
            return msgspec.json.decode(self._values[name])
        for error in self._errors:
            ref = parse(error.step)
            if ref.name == name and ref.index is None:
                return Absent(f"failed ({error})", f"({_sentence(error)})")
        return Absent(self._why_missing(name))


def _in_places(branches: BranchEnds) -> Places:
    """Return the results of a fan-out some of whose branches failed or did not come, each in its place.

    The error of one that failed stands in its place in words, where the join says so (`failed = "pass"`); else its
    number is left out.
    """
    found: dict[int, Any] = {}
    for end in branches.ends:
        if end.error is not None:
            shown, parts = "", None
            if branches.passes:
                shown, parts = f"({_sentence(end.error)})", msgspec.json.decode(error_value(end.error))
            found[end.index] = Absent(f"failed ({end.error})", shown, parts)
        elif end.value is not None:
            found[end.index] = msgspec.json.decode(end.value)
    return Places(found, branches.count)


def _sentence(error: Error) -> str:
    return f"step {error.step} failed: {error.message}"
