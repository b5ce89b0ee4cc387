"""`Branch`: how one branch of a fan-out ended, for a merger that asks for `list[Branch[T]]`."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

from baton_schemas.run.branches import BranchEnd
from baton_schemas.wire.outcomes import NULL, Error

T = TypeVar("T")


class Branch(Struct, Generic[T], frozen=True, kw_only=True):
    """One branch that a step with `each` had: its place in the list, the item there, and what became of it.

    A handler gets them all in the order of the list, those that failed too, when its parameter says so:
    `read: list[Branch[str]]`. One that had not ended when its join closed (a deadline, or `wait`) is not among them.
    """

    index: int
    """Its place in the list, from 0."""
    item: Any = None
    """What the list has there, as JSON has it."""
    value: T | None = None
    """What the branch put out; None when it failed."""
    error: Error | None = None
    """Why it failed (`type`, `message`, `attempts`; as text `KeyError: 'prio'`); None when it ended well."""


class _Wire(Struct, frozen=True, omit_defaults=True):
    index: int
    item: Raw = NULL
    value: Raw = NULL
    error: Error | None = None


def branches_value(ends: Iterable[BranchEnd], items: list[Raw]) -> Raw:
    """Return the JSON that a `list[Branch[T]]` is decoded from; `items` is the list that was fanned out over."""
    wired = [
        _Wire(end.index, items[end.index] if 0 <= end.index < len(items) else NULL, end.value or NULL, end.error)
        for end in ends
    ]
    return Raw(msgspec.json.encode(wired))


def asks_branches(annotation: Any) -> bool:
    """Say whether a parameter asks for a `list[Branch[T]]`, or may do so.

    Raises `TypeError` for a `Branch` anywhere else: no value is one.
    """
    found = _plain(annotation)
    if typing.get_origin(found) is list and all(_is_branch(each) for each in typing.get_args(found)):
        return True
    if _mentions(found):
        raise TypeError("a Branch comes in a list: write list[Branch[T]]")
    return False


def _plain(annotation: Any) -> Any:
    """Return what an `Annotated[…]`, or a `… | None`, is of."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _plain(args[0])
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in args if arg is not type(None)]
        return _plain(inner[0]) if len(inner) == 1 else annotation
    return annotation


def _is_branch(annotation: Any) -> bool:
    return annotation is Branch or typing.get_origin(annotation) is Branch


def _mentions(annotation: Any) -> bool:
    return _is_branch(annotation) or any(map(_mentions, typing.get_args(annotation)))
