"""`@tool`: what a model is told of a function, and what of its arguments is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Struct

from baton_actors import Context, tool
from baton_actors.agents.tools.function import FunctionTool, made
from baton_actors.errors import BadTool, BadToolCall

from .agents import CONTEXT


class Item(Struct):
    name: str
    count: int = 1


@tool(idempotent=True)
def search(query: str, limit: int = 5, kind: Literal["new", "old"] = "new", tags: list[str] = []) -> list[str]:  # noqa: B006
    """Search the shop.

    By words.

    Args:
        query: What to look for,
            in words.
        limit: How many.

    Returns:
        Their names.
    """
    return [query] * limit


def as_tool(function: Any) -> FunctionTool:
    return made(function, "use")


def schema_of(function: Any) -> Any:
    return as_tool(function).offer("it").input_schema


def test_model_is_told_name_docstring_and_parameters() -> None:
    offered = as_tool(search).offer("search")
    assert (offered.name, offered.description) == ("search", "Search the shop.\n\nBy words.\n\nReturns: Their names.")
    assert offered.input_schema == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What to look for, in words."},
            "limit": {"type": "integer", "description": "How many.", "default": 5},
            "kind": {"enum": ["new", "old"], "default": "new"},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        },
        "required": ["query"],
        "additionalProperties": False,
    }


def test_structs_and_annotations_are_in_the_schema_and_the_context_is_not() -> None:
    def order(
        items: list[Item], price: Annotated[float, msgspec.Meta(ge=0, description="In EUR.")], context: Context
    ) -> str:
        """Order."""
        return f"{items} {price} {context.run}"

    schema = schema_of(order)
    assert schema["properties"] == {
        "items": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
        "price": {"type": "number", "minimum": 0, "description": "In EUR."},
    }
    assert schema["$defs"]["Item"]["required"] == ["name"]
    call = as_tool(order).call({"items": [{"name": "a"}], "price": 2}, CONTEXT)
    assert call() == "[Item(name='a', count=1)] 2.0 r1"


def test_function_without_docstring_or_parameters_is_told_of_too() -> None:
    def ping() -> str:
        return "pong"

    assert as_tool(ping).offer("ping").description == "Calls ping."
    assert schema_of(ping) == {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def test_tool_is_not_idempotent_unless_it_says_so_and_can_be_called_as_the_function_that_it_is() -> None:
    @tool
    async def plain(x: int) -> int:
        return x

    assert (as_tool(plain).idempotent, as_tool(plain).is_async) == (False, True)
    assert (as_tool(search).idempotent, as_tool(search).is_async) == (True, False)
    assert search("tea", limit=2) == ["tea", "tea"]


def test_default_that_may_change_is_made_anew_for_each_call() -> None:
    def add(word: str, to: list[str] = ["a"]) -> list[str]:  # noqa: B006
        to.append(word)
        return to

    assert [as_tool(add).call({"word": word}, CONTEXT)() for word in "bc"] == [["a", "b"], ["a", "c"]]


def test_parameter_that_is_none_by_default_may_be_null() -> None:
    def find(query: str = None) -> str:  # type: ignore[assignment]  # noqa: RUF013
        return query or "nothing"

    assert as_tool(find).call({"query": None}, CONTEXT)() == "nothing"
    assert as_tool(find).call({}, CONTEXT)() == "nothing"


def test_default_may_be_a_record_and_the_context_may_be_left_out_in_tests() -> None:
    def order(item: Item = Item("tea"), context: Context | None = None) -> str:  # noqa: B008
        return f"{item.name} {context.run if context else ''}"

    assert list(schema_of(order)["properties"]) == ["item"]
    assert as_tool(order).call({}, CONTEXT)() == "tea r1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "Object missing required field `query`"),
        ({"query": 1}, "Expected `str`, got `int` - at `query`"),
        ({"query": "a", "limit": "5"}, "Expected `int`, got `str` - at `limit`"),
        ({"query": "a", "kind": "odd"}, "Invalid enum value 'odd' - at `kind`"),
        ({"query": "a", "page": 2}, "Object contains unknown field `page`"),
        ({"query": "a", "tags": ["x", None]}, "Expected `str`, got `null` - at `tags[1]`"),
    ],
)
def test_arguments_that_do_not_fit_are_told_with_their_place(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(BadToolCall, match="so nothing was called") as caught:
        as_tool(search).call(arguments, CONTEXT)
    assert said in str(caught.value)


def untyped(x): ...  # type: ignore[no-untyped-def]


def starred(*words: str) -> None: ...


def keywords(**words: str) -> None: ...


def positional(x: int, /) -> None: ...


def strange(x: Callable[[], int]) -> None: ...


def unresolved(x: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def yields() -> Iterator[int]:
    yield 1


def umlaut(größe: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (untyped, "parameter 'x' has no type, so a model cannot be told what it is. Write `x: str`, say."),
        (starred, "parameter 'words' has no name that a model could fill"),
        (keywords, "parameter 'words' has no name that a model could fill"),
        (positional, "parameter 'x' has no name that a model could fill"),
        (strange, "parameter 'x' has a type that no JSON can be: type <class 'collections.abc.Callable'>"),
        (unresolved, "an annotation does not resolve: name 'Missing' is not defined"),
        (yields, "it yields; expected a function that returns what the model is told"),
        (umlaut, "parameter 'größe': expected 1 to 64 letters of ASCII"),
        (Item, "it is no function"),
        (42, "it is int, and no function"),
    ],
)
def test_function_that_cannot_be_a_tool_is_refused_with_its_place(function: Any, said: str) -> None:
    with pytest.raises(BadTool) as caught:
        as_tool(function)
    assert said in str(caught.value)
