"""The input of a run, checked against the flow's `[input]`; and the lists that steps fan out over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from baton_schemas.errors import InputError, nearest
from baton_schemas.flow.flow import Field, Flow
from baton_schemas.flow.prompts import look_up
from baton_schemas.flow.types import Unfit, fit, json_type, type_of, wanted
from baton_schemas.wire.outcomes import NULL
from baton_schemas.wire.values import encode_value


def check_input(flow: Flow, given: Mapping[str, Raw]) -> dict[str, Raw]:
    """Return the input of a run: what was given, and defaults for what was not, also within records.

    Raises `InputError` for a field that is missing, unknown, or of a wrong type; its place says where (`emails[3].id`).
    """
    return check_fields(flow.name, "flow", flow.input, given)


def check_fields(of: str, kind: str, fields: Mapping[str, Field], given: Mapping[str, Raw]) -> dict[str, Raw]:
    """Return what was given for these fields, and defaults for what was not. Raises as `check_input`.

    They are those of the flow, or of the agent that is asked (`kind`), with the name `of`.
    """
    for name in given:
        if name not in fields:
            raise InputError(of, name, f"the {kind} has no such input.", hint=nearest(name, fields))
    checked: dict[str, Raw] = {}
    for name, field in fields.items():
        if name in given:
            checked[name] = _checked(of, name, field, given[name])
        elif field.required:
            what = f"; {field.description}" if field.description else ""
            raise InputError(of, name, f"missing; expected {wanted(type_of(field))}{what}")
        else:
            checked[name] = field.default if bytes(field.default) else NULL
    return checked


def _checked(of: str, name: str, field: Field, raw: Raw) -> Raw:
    try:
        value = msgspec.json.decode(raw)
        fitted = fit(value, type_of(field), name)
    except msgspec.DecodeError as error:
        raise InputError(of, name, f"no JSON: {error}") from error
    except Unfit as error:
        raise InputError(of, error.place, error.reason) from error
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
