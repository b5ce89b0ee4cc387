"""Parameters that ask for the official client. It is recognised without importing it: whoever annotates it has."""

from __future__ import annotations

import ast
import types
import typing
from collections.abc import Iterator
from typing import Any

ASYNC, PLAIN = "AsyncAnthropic", "Anthropic"
_LIBRARY = "anthropic"
_NAMES = {"AsyncAnthropic": ASYNC, "AsyncClient": ASYNC, "Anthropic": PLAIN, "Client": PLAIN}
"""What the library calls its clients: each has two names."""


def client_asked_by(annotation: Any) -> str:
    """Return which client an annotation asks for, as its class is called; empty when it asks for none.

    `AsyncAnthropic | None` does too: whoever calls the function by hand may leave it out.
    """
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        several = [client_asked_by(each) for each in typing.get_args(annotation) if each is not type(None)]
        return several[0] if len(several) == 1 else ""
    if not isinstance(annotation, type) or annotation.__module__.partition(".")[0] != _LIBRARY:
        return ""
    return _NAMES.get(annotation.__qualname__, "")


def asks_for_client(annotation: ast.expr | None, tree: ast.Module) -> bool:
    """Say the same of an annotation in the source of a module, as far as that tells."""
    if annotation is None:
        return False
    classes, modules = _imported(tree)
    return any(_is_client(node, classes, modules) for node in _alternatives(annotation))


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    """Yield what an annotation may be: itself, or each side of `A | None`, `Optional[A]` and `"A"`."""
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            yield from _alternatives(left)
            yield from _alternatives(right)
        case ast.Subscript(value=ast.Name(id="Optional" | "Annotated" | "Union"), slice=inner):
            for part in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
                yield from _alternatives(part)
        case ast.Subscript(value=ast.Attribute(attr="Optional" | "Annotated" | "Union"), slice=inner):
            for part in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
                yield from _alternatives(part)
        case ast.Constant(value=str(text)):
            try:
                yield from _alternatives(ast.parse(text, mode="eval").body)
            except (SyntaxError, ValueError, RecursionError):
                return
        case _:
            yield node


def _is_client(node: ast.expr, classes: set[str], modules: set[str]) -> bool:
    match node:
        case ast.Name(id=name):
            return name in classes
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            return module in modules and name in _NAMES
        case _:
            return False


def _imported(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Return what a module calls the clients, and the library itself."""
    classes: set[str] = set()
    modules: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), names=names, level=0) if module.partition(".")[0] == _LIBRARY:
                classes |= {alias.asname or alias.name for alias in names if alias.name in _NAMES}
            case ast.Import(names=names):
                modules |= {alias.asname or alias.name for alias in names if alias.name == _LIBRARY}
            case _:
                pass
    return classes, modules
