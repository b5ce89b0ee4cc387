"""Between JSON and the types that a handler's annotations name: decoders, made when the handler is loaded."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import msgspec

_EXACT = (str, bool, int, type(None))
"""Types whose values need no second look when they are exactly what is annotated."""
_BASES = (str, int, float)


def decoder_of(annotation: Any) -> msgspec.json.Decoder[Any]:
    """Return a decoder into an annotated type. Raises `TypeError` when the type cannot come from JSON.

    Besides what msgspec knows: pydantic models, and subclasses of str, int and float.
    """
    decoder = msgspec.json.Decoder(annotation, dec_hook=from_json)
    _refuse_others(msgspec.inspect.type_info(annotation), set())
    return decoder


def from_json(kind: type, value: Any) -> Any:
    """Turn plain data into what msgspec does not know: the hook of decoders. Raises `TypeError`, `ValueError`."""
    validate = getattr(kind, "model_validate", None)
    if validate is not None:
        return validate(value)
    for base in _BASES:
        if issubclass(kind, base):
            if type(value) is base or (base is float and type(value) is int):
                return kind(value)
            raise TypeError(f"Expected `{base.__name__}`, got `{type(value).__name__}`")
    raise TypeError(f"{kind.__qualname__} cannot come from JSON")


def is_exact(value: Any, annotation: Any) -> bool:
    """Say whether a value is what its annotation says beyond doubt, so that nothing need be checked."""
    kind = type(value)
    return kind in _EXACT and (annotation is kind or annotation is Any)


def return_annotation(hints: dict[str, Any]) -> Any:
    """Return what a function says it returns; Any when it says nothing or never returns."""
    annotation = hints.get("return", Any)
    return Any if annotation in (typing.NoReturn, typing.Never) else annotation


def _refuse_others(info: Any, seen: set[int]) -> None:
    """Walk the types in a type: each class that msgspec leaves to the hook is one that the hook knows."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        kind = info.cls
        known = inspect.isclass(kind) and (hasattr(kind, "model_validate") or issubclass(kind, _BASES))
        if not known:
            name = getattr(kind, "__qualname__", kind)
            raise TypeError(
                f"{name} cannot come from JSON: use a Struct, dataclass, pydantic model, or a type that msgspec knows"
            )
    if isinstance(info, tuple | list):
        for part in info:
            _refuse_others(part, seen)
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        for name in info.__struct_fields__:
            _refuse_others(getattr(info, name), seen)
