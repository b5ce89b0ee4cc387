"""Values as people see them: the head of each, and how large it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from baton_actors.cli.text import plain, plain_lines
from baton_schemas.show.brought import Brought
from baton_schemas.show.children import asked_name
from baton_schemas.show.errors import told
from baton_schemas.show.excerpt import excerpt, size, text_of
from baton_schemas.wire.outcomes import Blob, Value

_LINES_MAX, _TRACEBACK_LINES = 2, 14
_SHOWN_MAX = 8
"""Values of one message that are shown: about what a screen has room for beside the steps."""
_NAME_WIDE = 28


def brought_table(brought: Sequence[Brought], width: int = 80) -> Table:
    """Return what a message brought, a value below the other."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=_NAME_WIDE)
    table.add_column(overflow="fold")
    room = max(width - _NAME_WIDE - 2, 20)
    for each in brought[:_SHOWN_MAX]:
        table.add_row(_whose(each), _told(each, room))
    if len(brought) > _SHOWN_MAX:
        table.add_row("", Text(f"and {len(brought) - _SHOWN_MAX:,} more", "dim"))
    return table


def brought_lines(brought: Sequence[Brought], width: int) -> list[Text]:
    """Return the same with one line each, for where all messages are printed; what failed is told by the message."""
    lines: list[Text] = []
    brought = [each for each in brought if each.error is None]
    for each in brought[:_SHOWN_MAX]:
        whose = _whose(each)
        lines.append(Text.assemble(whose, "  ", plain(one_line(each.value, max(width - len(whose) - 2, 20)))))
    if len(brought) > _SHOWN_MAX:
        lines.append(Text(f"and {len(brought) - _SHOWN_MAX:,} more", "dim"))
    return lines


def one_line(value: Value | None, width: int) -> str:
    """Return the head of a value on one line, and its size where that is not all of it."""
    if value is None or isinstance(value, Blob):
        return beside(value) if value is not None else ""
    text = text_of(value)
    head = " ".join(text[: 8 * width].split())
    if len(head) <= width and len(text) <= 8 * width:
        return head
    tail = f"… ({size(len(bytes(value)))})"
    return head[: max(width - len(tail), 1)] + tail


def beside(blob: Blob) -> str:
    """Say of a value that it is kept beside the log, and was not fetched."""
    return f"{size(blob.size_bytes)}, kept beside the log"


def _whose(brought: Brought) -> Text:
    style = "red" if brought.error is not None else "cyan"
    return Text(plain(f"{asked_name(brought.step)} {brought.what}".strip()), style)


def _told(brought: Brought, width: int) -> Text:
    if brought.error is not None:
        text = Text(plain(told(brought.error)))
        if brought.error.traceback:
            shown = excerpt(plain_lines(brought.error.traceback), lines_max=_TRACEBACK_LINES, width=width)
            text.append(f"\n{shown.head}", "dim")
        return text
    if brought.value is None or isinstance(brought.value, Blob):
        return Text(beside(brought.value) if brought.value is not None else "", "yellow")
    shown = excerpt(text_of(brought.value), lines_max=_LINES_MAX, width=width)
    return Text.assemble(plain_lines(shown.head), (f"\n… {shown.rest}" if shown.rest else "", "dim"))
