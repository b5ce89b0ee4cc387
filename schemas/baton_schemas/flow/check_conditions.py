"""Whether conditions can hold: known names, values that there can be."""

from __future__ import annotations

import math
import re

from msgspec.structs import replace

from baton_schemas.errors import FlowError, nearest
from baton_schemas.flow.check_paths import hint_of_text, kind_of, part_of
from baton_schemas.flow.conditions import shown, values_in
from baton_schemas.flow.flow import Conditions, Scalar
from baton_schemas.flow.graph import Plan
from baton_schemas.flow.limits import check_parts
from baton_schemas.flow.prompts import Placeholder
from baton_schemas.flow.types import Type, listed, listed_values
from baton_schemas.wire.values import valid_text

_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")
_WHOLE_MAX = 2**63
"""Whole numbers beyond it are not the same to all who read JSON."""


def check_conditions(place: str, conditions: Conditions | None, known: frozenset[str], what: str) -> None:
    """Raise `FlowError` for the first condition that looks into nothing of `known`, or that no value meets.

    `what` says in words what is known.
    """
    if conditions is None:
        return
    if not conditions:
        expected = 'at least one condition, as { "classify.kind" = "refund" }'
        raise FlowError(place, "an empty table", expected, hint="Without a condition, leave it out.")
    check_parts(place, len(conditions))
    for path, wanted in conditions.items():
        here = f"{place}.{path}"
        if not _PATH.match(path):
            hint = "What is missing equals nothing, so no `?` is needed." if "?" in path else ""
            raise FlowError(here, repr(path), "a path such as 'classify.kind'", hint=hint, near=path)
        root = path.split(".")[0]
        if root not in known:
            raise FlowError(here, repr(path), what, hint=_hint_of(root, known), near=path)
        if wanted == []:
            raise FlowError(here, "an empty list", "a value, or a list of at least one", near=path)
        check_parts(here, len(values_in(wanted)))
        for value in values_in(wanted):
            _check_value(here, path, value)


def check_values(plan: Plan, step: str, place: str, conditions: Conditions | None) -> None:
    """Raise `FlowError` for the first condition that can never hold, as far as types tell before anything runs."""
    for path, wanted in (conditions or {}).items():
        kind = _kind_at(plan, step, f"{place}.{path}", path)
        for value in values_in(wanted):
            if not _may_be(value, kind):
                raise _never(plan, place, path, value, kind)


def _never(plan: Plan, place: str, path: str, value: Scalar, kind: Type) -> FlowError:
    here, found = f"{place}.{path}", _written(value)
    if kind.values:
        texts = [each for each in kind.values if isinstance(each, str)]
        hint = nearest(value, texts) if isinstance(value, str) else ""
        expected = f"a value that {path} can have: {listed_values(kind.values)}"
        return FlowError(here, found, expected, hint=hint if hint.startswith("Did") else "", near=path)
    hint = hint_of_text(plan, path.split(".")[0]) if kind.kind in ("list", "dict") else ""
    expected = f"{_phrase(kind)}: {path} is of type {replace(kind, optional=False)}"
    return FlowError(here, found, expected, hint=hint, near=path)


def _kind_at(plan: Plan, step: str, place: str, path: str) -> Type:
    root, *keys = path.split(".")
    kind = kind_of(plan, step, root)
    for number, key in enumerate(keys, 1):
        inner = part_of(kind, key)
        if inner is None:
            found = Placeholder(root, tuple(keys), 0)
            before = found.up_to(number)
            if kind.fields is not None:
                close = found.instead(number, kind.fields).replace("{", "'").replace("}", "'")
                expected = f"a field that {before} has: {listed(list(kind.fields))}"
                raise FlowError(place, repr(path), expected, hint=close, near=path)
            expected = f"{before!r} alone: it is of type {kind}, which has no keys"
            if kind.kind == "list":
                expected = f"the number of an item, as '{before}.0': {before} is a list"
            raise FlowError(place, repr(path), expected, hint=hint_of_text(plan, root), near=path)
        kind = inner
    return kind


def _check_value(place: str, path: str, value: Scalar) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise FlowError(place, str(value), "a finite number: nothing in JSON is that", near=path)
    if type(value) is int and not -_WHOLE_MAX <= value < _WHOLE_MAX:
        raise FlowError(place, f"a number of {len(str(abs(value)))} digits", "one of 64 bits at most", near=path)
    if isinstance(value, str) and valid_text(value) != value:
        raise FlowError(place, "a text that is not valid Unicode", "one that is", near=path)


def _may_be(value: Scalar, kind: Type) -> bool:
    if kind.values:
        return any(type(value) is type(each) and value == each for each in kind.values)
    match kind.kind:
        case "any":
            return True
        case "bool":
            return isinstance(value, bool)
        case "str":
            return isinstance(value, str)
        case "float":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "int":
            return isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        case _:
            return False


def _phrase(kind: Type) -> str:
    words = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}
    return words.get(kind.kind, "a path to a text, a number, or true or false")


def _written(value: Scalar) -> str:
    return f"the string {shown(value)}" if isinstance(value, str) else shown(value)


def _hint_of(root: str, known: frozenset[str]) -> str:
    if root in ("item", "index"):
        return "A condition is on the whole step, before there are items."
    if root == "errors":
        return (
            "Of a step that failed and whose run goes on (`on_error`), what it put out is missing: it equals nothing."
        )
    return nearest(root, known)
