"""The input of a run, checked against the flow's `[input]`; and the lists that steps fan out over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from baton_schemas.errors import InputError, nearest
from baton_schemas.flow.flow import Field, Flow
from baton_schemas.flow.prompts import look_up
from baton_schemas.flow.types import Unfit, fit, json_type, type_of
from baton_schemas.wire.outcomes import NULL
from baton_schemas.wire.values import encode_value


def check_input(flow: Flow, given: Mapping[str, Raw]) -> dict[str, Raw]:
    """Return the input of a run: what was given, and defaults for what was not, also within records.

    Raises `InputError` for a field that is missing, unknown, or of a wrong type; its place says where (`emails[3].id`).
    """
    for name in given:
        if name not in flow.input:
            raise InputError(flow.name, name, "the flow has no such input.", hint=nearest(name, flow.input))
    checked: dict[str, Raw] = {}
    for name, field in flow.input.items():
        if name in given:
            checked[name] = _checked(flow, name, field, given[name])
        elif field.required:
            what = f"; {field.description}" if field.description else ""
            raise InputError(flow.name, name, f"missing; expected {field.type}{what}")
        else:
            checked[name] = field.default if bytes(field.default) else NULL
    return checked


def _checked(flow: Flow, name: str, field: Field, raw: Raw) -> Raw:
    try:
        value = msgspec.json.decode(raw)
        fitted = fit(value, type_of(field), name)
    except msgspec.DecodeError as error:
        raise InputError(flow.name, name, f"no JSON: {error}") from error
    except Unfit as error:
        raise InputError(flow.name, error.place, error.reason) from error
    return raw if fitted is value else Raw(msgspec.json.encode(fitted))


def encode_input(values: Mapping[str, Any]) -> dict[str, Raw]:
    """Return Python values as the raw JSON that messages carry. Raises `BadContent` for what JSON can't hold."""
    return {name: Raw(encode_value(value, f"input.{name}")) for name, value in values.items()}


class NotAList(ValueError):
    """What a step is to fan out over is no list."""

    def __init__(self, each: str, found: str) -> None:
        """`each` as it is written in the flow; `found` is the JSON type that was there."""
        self.each, self.found = each, found
        super().__init__(f"{each!r} is to be fanned out over: expected a list, found {found}")


def items_of(each: str, value: Raw) -> list[Raw]:
    """Return the items of the list that `each` names within `value`. Raises `NotAList`."""
    path = each.split(".")[1:]
    if path:
        found = look_up(msgspec.json.decode(value), path)
        if not isinstance(found, list):
            raise NotAList(each, json_type(found))
        return [Raw(msgspec.json.encode(item)) for item in found]
    try:
        return msgspec.json.decode(value, type=list[Raw])
    except msgspec.DecodeError:
        raise NotAList(each, json_type(msgspec.json.decode(value))) from None
