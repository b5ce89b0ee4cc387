"""Whether what stands in for a value that is left out is such a value: of inputs, and of what agents answer with."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import msgspec

from baton_schemas.errors import FlowError
from baton_schemas.flow.flow import Field
from baton_schemas.flow.types import BadType, Type, Unfit, fit, type_of, wanted


def check_defaults(place: str, fields: Mapping[str, Field]) -> None:
    """Raise `FlowError` for the first default of these fields, and of those within them, that does not fit its type."""
    for name, field in fields.items():
        here = f"{place}.{name}"
        check_defaults(f"{here}.fields", field.fields)
        if bytes(field.default):
            with contextlib.suppress(BadType):  # told with its place by the whole
                check_default(here, field, type_of(field))


def check_default(place: str, field: Field, kind: Type) -> None:
    """Raise `FlowError` for a default that does not fit its type."""
    found = bytes(field.default).decode(errors="replace")
    expected = wanted(kind) if kind.values else f"a value of type {field.type}"
    try:
        fit(msgspec.json.decode(field.default), kind, "default")
    except msgspec.DecodeError as error:
        raise FlowError(f"{place}.default", found, expected) from error
    except Unfit as error:
        where = "" if error.place == "default" else f"{error.place}: {error.reason}."
        raise FlowError(f"{place}.default", found, expected, hint=where) from error
