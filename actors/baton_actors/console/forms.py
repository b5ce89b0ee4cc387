"""Forms of inputs: a field for each, as its type wants it, and what comes back: values, or mistakes at their fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec import field as made
from starlette.datastructures import FormData, UploadFile

from baton_schemas.errors import BadContent, BadFile, InputError
from baton_schemas.flow.flow import Field, Flow
from baton_schemas.flow.inputs import check_fields, encode_input
from baton_schemas.flow.typed import Typed, read_value
from baton_schemas.flow.types import FILE, SCALARS, BadType, Type, type_of
from baton_schemas.wire.files import File

PREFIX = "input."
"""Before the names of its fields: what a flow calls its inputs is its own affair."""
Widget = Literal["text", "line", "number", "choice", "choices", "lines", "json", "file", "files"]


class FormField(Struct, frozen=True, kw_only=True):
    """A field of a form."""

    name: str
    widget: Widget
    kind: str
    """Its type, as a flow file writes it."""
    required: bool
    about: str
    choices: list[str] = []
    default: str = ""
    """What is taken when nothing is given, as one would type it."""


class Filled(Struct, kw_only=True):
    """What was filled in."""

    texts: dict[str, list[str]] = made(default_factory=dict)
    """As it was typed."""
    values: dict[str, Any] = made(default_factory=dict)
    mistakes: dict[str, str] = made(default_factory=dict)

    def mistake(self, error: InputError) -> None:
        """Say what is amiss with a field, at that field."""
        name = error.place.split(".")[0].split("[")[0]
        where = "" if error.place == name else f"{error.place}: "
        self.mistakes[name] = f"{where}{error.reason}" + (f" {error.hint}" if error.hint else "")

    @property
    def first_wrong(self) -> str:
        """The first field, as the form has them, with which something is amiss: where one goes on typing."""
        return next((name for name in self.texts if name in self.mistakes), "")

    def text(self, name: str) -> str:
        """Return what was typed, in one piece."""
        return "\n".join(self.texts.get(name, ()))

    def as_json(self) -> str:
        """Return the values as one would write them as JSON."""
        return msgspec.json.encode(self.values).decode()


def form_fields(inputs: Mapping[str, Field]) -> list[FormField]:
    """Return a field for each input."""
    return [_field(name, each) for name, each in inputs.items()]


def _field(name: str, given: Field) -> FormField:
    try:
        kind = type_of(given)
    except BadType:  # a stranger's
        kind = Type("any")
    choices = kind.values or (kind.items.values if kind.items is not None else ())
    return FormField(
        name=name,
        widget=_widget(kind),
        kind=str(kind),
        required=given.required,
        about=given.description,
        choices=["true", "false"] if kind.kind == "bool" else [str(each) for each in choices],
        default=_shown(bytes(given.default)),
    )


def _widget(kind: Type) -> Widget:
    item = kind.items
    if kind.kind == FILE:
        return "file"
    if item is not None and item.kind == FILE:
        return "files"
    if kind.values or kind.kind == "bool":
        return "choice"
    if kind.kind in ("int", "float"):
        return "number"
    if kind.kind == "str":
        return "text"
    if item is not None and item.values:
        return "choices"
    return "lines" if kind.kind == "list" and item is not None and item.kind in SCALARS else "json"


def _shown(default: bytes) -> str:
    if not default:
        return ""
    value = msgspec.json.decode(default)
    if value is None:
        return ""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return "\n".join(value)
    return value if isinstance(value, str) else default.decode(errors="replace")


def prefilled(inputs: Mapping[str, Field], given: Mapping[str, str]) -> Filled:
    """Return what an address fills in."""
    return Filled(texts={name: [given[name]] for name in inputs if name in given})


async def read_filled(flow: Flow, form: FormData) -> Filled:
    """Return what came back of a form of this flow's inputs: each mistake is told, not only the first."""
    filled = Filled()
    for field in form_fields(flow.input):
        came = form.getlist(PREFIX + field.name)
        filled.texts[field.name] = [each.replace("\r\n", "\n") for each in came if isinstance(each, str)]
        try:
            if field.widget in ("file", "files"):
                await _files(field, [each for each in came if isinstance(each, UploadFile)], filled)
            else:
                _texts(flow, field, filled)
            _check(flow, field, filled)
        except InputError as error:
            filled.mistake(error)
        except (BadFile, BadContent) as error:
            filled.mistakes[field.name] = str(error)
    return filled


async def _files(field: FormField, uploads: list[UploadFile], filled: Filled) -> None:
    files = [File.of(await each.read(), name=each.filename or "file") for each in uploads if each.filename]
    text = filled.text(field.name)
    if files:
        filled.values[field.name] = files if field.widget == "files" else files[0]
    elif text.strip():  # the content itself
        one = File.of(text, name=f"{field.name}.txt")
        filled.values[field.name] = [one] if field.widget == "files" else one


def _texts(flow: Flow, field: FormField, filled: Filled) -> None:
    texts = filled.texts[field.name]
    if field.widget == "lines" and not filled.text(field.name).lstrip().startswith("["):
        texts = [line for text in texts for line in text.split("\n")]
    typed = [Typed(each) for each in texts if each.strip()]
    if typed:
        filled.values[field.name] = read_value(flow, field.name, type_of(flow.input[field.name]), typed)


def _check(flow: Flow, field: FormField, filled: Filled) -> None:
    """Raise `InputError` for what is missing, or does not fit."""
    has_file = field.widget in ("file", "files") and field.name in filled.values
    if not has_file:
        given = {name: value for name, value in filled.values.items() if name == field.name}
        check_fields(flow.name, "flow", {field.name: flow.input[field.name]}, encode_input(given))
