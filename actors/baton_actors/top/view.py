"""What all views have: a line that says where one is, what is amiss, a search, and a line that says how live it is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input, Static

from baton_actors.console.failing import page_of_error
from baton_schemas.show.lines import seconds
from baton_schemas.show.plain import plain

from .drawn import one
from .lines import Lines
from .looking import Looking
from .palette import Cell, Palette
from .rows import Rows

if TYPE_CHECKING:
    from baton_actors.console.core import Console


_SAID_MAX = 600
"""Characters of a line that says what is amiss."""
_CHORD_S = 1.5
"""How long after `g` another key says where to go."""


class View(Looking):
    """A view of the console."""

    CSS = """
    View { background: $paper; color: $ink; }
    View > Static { height: auto; padding: 0 1; color: $ink; background: $paper; }
    View > #title { height: 1; background: $shade; }
    View > #said { max-height: 10; }
    View > #status { height: 1; background: $shade; dock: bottom; }
    View > #search { height: 1; border: none; padding: 0 1; background: $at; color: $ink; dock: bottom; }
    View.away #status { background: $failed; color: $paper; }
    View > Rows { margin: 0 1; }
    View > Lines { margin: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)"),
        Binding("k,up", "move(-1)"),
        Binding("pagedown,ctrl+d", "page(1)"),
        Binding("pageup,ctrl+u", "page(-1)"),
        Binding("home", "move(-1000000)"),
        Binding("end,G", "move(1000000)"),
        Binding("enter,l,right", "open"),
        Binding("escape,h,left", "back"),
        Binding("slash", "search"),
        Binding("n", "failure(1)"),
        Binding("N", "failure(-1)"),
        Binding("g", "go"),
        Binding("a", "go_to('a')"),
        Binding("r", "go_to('r')"),
        Binding("F", "ask('fork')"),
        Binding("X", "ask('cancel')"),
        Binding("f", "follow"),
        Binding("space", "freeze"),
        Binding("tab", "turn(1)"),
        Binding("shift+tab", "turn(-1)"),
        Binding("c", "copy"),
        Binding("t", "app.turn_theme"),
        Binding("question_mark", "app.help"),
        Binding("q", "go_to('q')"),
    ]
    here = ""
    hint = "runs, failed, steps"
    """What the search is for."""

    def __init__(self, console: Console, palette: Palette) -> None:
        super().__init__(console)
        self.palette = palette
        self.command = "baton runs"
        """What says the same."""
        self.sought = ""
        self._put: dict[str, list[Cell]] = {}
        self._went_at = -1e9

    # ---- what each view says of itself ---------------------------------------------------------------------

    def body(self) -> Sequence[Widget]:
        """Return what is between the title and the status."""
        raise NotImplementedError

    def act_run(self) -> str:
        """Return the run that keys act on; empty where there is none."""
        return ""

    def act_step(self) -> str:
        """Return the step that is chosen in it; empty where none is."""
        return ""

    def opened(self, key: str) -> None:
        """Go into the line that has this key."""

    def found(self, text: str) -> None:
        """Search for this; nothing takes the search away."""
        self.again()

    # ---- how it is live ------------------------------------------------------------------------------------

    def compose(self) -> ComposeResult:
        """Make its parts."""
        yield Static(id="title", markup=False)
        said = Static(id="said", markup=False)
        said.display = False
        yield said
        yield from self.body()
        search = Input(id="search", placeholder=self.hint, compact=True)
        search.display = False
        yield search
        yield Static(id="status", markup=False)

    def on_mount(self) -> None:
        """Begin to look."""
        for table in self.query(Rows):
            table.focus()
            break
        self.begin()

    def on_resize(self) -> None:
        """Fit into another size."""
        self._put.pop("title", None)
        self.again()

    def on_screen_suspend(self) -> None:
        """Another view is on top of it."""
        self._awake.clear()

    def on_screen_resume(self) -> None:
        """It is seen again."""
        self.use(self.app.palette)
        self._awake.set()
        self.again()

    # ---- what is written on it -----------------------------------------------------------------------------

    def put(self, where: str, lines: list[Cell]) -> None:
        """Write lines on one of its texts, if they are others; none takes it away."""
        if self._put.get(where) == lines:
            return
        widget = self.query_one(f"#{where}", Static)
        is_bar = where in ("title", "status")
        styles = self.palette.styles
        text = Text("\n", end="").join(
            Text.assemble(*((plain(part), styles.get(kind, styles[""])) for part, kind in line)) for line in lines
        )
        text.no_wrap, text.overflow = is_bar, "ellipsis" if is_bar else "fold"
        before = self._put.get(where)
        self._put[where] = lines
        if not is_bar:
            widget.display = bool(lines)
        widget.update(text, layout=(not is_bar and len(before or ()) != len(lines)) or not is_bar)

    def tell(self, error: BaseException) -> None:
        """Say what is amiss, and what to do next."""
        page = page_of_error(error) if isinstance(error, Exception) else None
        said = str(page.facts["said"]) if page is not None else str(error)
        title = page.title if page is not None else "Broken"
        lines = [(("✗ ", "mark.failed"), (title, "failed")), *(one(line[:_SAID_MAX]) for line in said.split("\n"))]
        self.put("said", [*lines, one("Esc goes back; it is tried again every second.", "dim")])
        self.paint_status()

    def entitle(self, *cell: tuple[str, str]) -> None:
        """Say where one is."""
        count = self.console.needs.count()
        right = f"g r runs  g q queues  g a attention{f' {count}' if count else ''}"
        left = [(plain(text), kind) for text, kind in cell]
        space = self.size.width - 2 - sum(len(text) for text, _ in left) - len(right)
        if space >= 2:
            left += [(" " * space, ""), (right, "dim")]
        self.put("title", [tuple(left)])

    def paint_status(self) -> None:
        """Say how live it is."""
        if not self.is_mounted:
            return
        status = self.console.status()
        if self._lost_at is not None:
            at = f", as it was at {self._painted_at.astimezone():%H:%M:%S}" if self._painted_at else ""
            since = seconds(time.monotonic() - self._lost_at)
            self.put(
                "status", [((f"connection lost {since} ago: it is tried again. Nothing here is live{at}", "away"),)]
            )
            return
        lag = f" · {self._lag_ms:.0f} ms behind" if self._lag_ms is not None else ""
        how = ("frozen: space goes on", "retry") if self.frozen else (f"live{lag}", "dim")
        parts = [status.index, status.workers, "read-only" if self.console.options.read_only else ""]
        said = "".join(f" · {part}" for part in parts if part)
        right = f"{self.command}   ? keys" if self.size.width >= 100 else "? keys"
        room = self.size.width - 2 - len(how[0]) - len(said)
        if room < len(right) + 2:
            right = "? keys"
        space = max(room - len(right), 1)
        self.put("status", [(how, (said, "dim"), (" " * space, ""), (right, "dim"))])

    def use(self, palette: Palette) -> None:
        """Draw in these colours."""
        if palette is self.palette:
            return
        self.palette = palette
        for table in self.query(Rows):
            table.use(palette)
        for lines in self.query(Lines):
            lines.use(palette)
        put, self._put = self._put, {}
        for where, written in put.items():
            self.put(where, written)
        self.again()

    # ---- keys ----------------------------------------------------------------------------------------------

    @property
    def panes(self) -> list[Rows | Lines]:
        """What keys may be for, from above."""
        return [each for each in self.query("Rows, Lines") if isinstance(each, Rows | Lines) and each.display]

    @property
    def pane(self) -> Rows | Lines | None:
        """What they are for."""
        focused = self.focused
        return focused if isinstance(focused, Rows | Lines) else next(iter(self.panes), None)

    def action_move(self, by: int) -> None:
        """Go to the next line, or scroll by one."""
        if self.pane is not None:
            self.pane.move(by)

    def action_page(self, by: int) -> None:
        """Go on by a page."""
        if self.pane is not None:
            self.pane.move(by * max(self.pane.size.height - 2, 1))

    def action_turn(self, by: int) -> None:
        """Have the keys for another part."""
        panes = self.panes
        if panes and self.pane is not None:
            panes[(panes.index(self.pane) + by) % len(panes)].focus()

    def action_open(self) -> None:
        """Go into the chosen line."""
        if isinstance(self.pane, Rows):
            self.pane.open()

    def action_back(self) -> None:
        """Go back: out of a search, or out of the view."""
        if self.sought:
            self._seek("")
        else:
            self.app.back()

    async def action_failure(self, by: int) -> None:
        """Go to the next failure, or to the next place that was sought."""
        pane = self.pane
        if isinstance(pane, Lines):
            is_there = pane.go_to(self.sought, by) if self.sought else pane.go_to("✗", by)
        else:
            is_there = pane is not None and pane.go_to_failure(by)
        if not is_there:
            self.app.say("no further failure here" if by > 0 else "no failure before this one")

    def action_follow(self) -> None:
        """Stay with what comes."""
        if self.frozen:
            self.action_freeze()
        if self.pane is not None:
            self.pane.follow()

    def action_freeze(self) -> None:
        """Stay as it is, or go on."""
        self.frozen = not self.frozen
        if self.frozen:
            self._thawed.clear()
        else:
            self._thawed.set()
            self.again()
        self.paint_status()

    def action_search(self) -> None:
        """Open the search."""
        search = self.query_one("#search", Input)
        search.value, search.display = self.sought, True
        search.focus()

    def action_copy(self) -> None:
        """Copy the command that says the same."""
        self.app.copy_command(self.command)

    def action_go(self) -> None:
        """Wait for the key that says where to go."""
        self._went_at = time.monotonic()

    def action_go_to(self, key: str) -> None:
        """Go to another view, after `g`; else do what the key does."""
        went, self._went_at = time.monotonic() - self._went_at < _CHORD_S, -1e9
        if went:
            self.app.go(key)
        elif key == "q":
            self.app.exit()
        elif key == "r":
            self.action_ask("retry")

    def action_ask(self, act: str) -> None:
        """Ask whether to do something with the run."""
        self.app.ask(act, self)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Search."""
        event.stop()
        self._close_search()
        self._seek(event.value.strip())

    def on_key(self, event: Any) -> None:
        """Leave the search without searching."""
        search = self.query_one("#search", Input)
        if search.has_focus and event.key == "escape":
            event.stop()
            event.prevent_default()
            self._close_search()

    def on_rows_opened(self, event: Rows.Opened) -> None:
        """Go into a line."""
        event.stop()
        self.opened(event.key)

    def _close_search(self) -> None:
        self.query_one("#search", Input).display = False
        if self.panes:
            self.panes[0].focus()

    def _seek(self, text: str) -> None:
        self.sought = text
        self.found(text)
