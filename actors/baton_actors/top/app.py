"""The application: which view is on top, its colours, and what is asked before something is done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.theme import Theme

from baton_schemas.show.plain import plain

from .asking import AskScreen
from .attention_view import AttentionView
from .doing import ASK, Ask
from .help_view import HelpScreen
from .looking import ERRORS
from .palette import DARK, LIGHT, Palette, first_palette
from .queues_view import QueuesView
from .runs_view import RunsView
from .view import View

if TYPE_CHECKING:
    from baton_actors.console.core import Console

_SAID_S = 4.0


class Top(App[None]):
    """The console in a terminal."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Toast { background: $shade; color: $ink; width: 76; max-width: 94%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c,ctrl+q", "quit", priority=True)]

    def __init__(self, console: Console, palette: Palette | None = None) -> None:
        """`console` is open; a Textual application has a `console` of its own."""
        self.palette = palette or first_palette()
        super().__init__()
        self.held = console
        self.animation_level = "none"
        self.error: BaseException | None = None
        """Why it ended, where that is a mistake of ours."""
        self.copied = ""
        """The command that was copied last: not every terminal lets us copy."""
        for each in (DARK, LIGHT):
            self.register_theme(_theme(each))
        self.theme = self.palette.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return the colours by the names that styles use."""
        return _variables(DARK)

    def on_mount(self) -> None:
        """Begin with the runs."""
        self.push_screen(RunsView(self.held, self.palette))

    def go(self, key: str) -> None:
        """Go to a view by its key: `r`, `q`, `a`."""
        while len(self.screen_stack) > 2:
            self.pop_screen()
        match key:
            case "q":
                self.push_screen(QueuesView(self.held, self.palette))
            case "a":
                self.push_screen(AttentionView(self.held, self.palette))
            case _:
                pass  # the runs are below all others

    def back(self) -> None:
        """Go back to the view before this one."""
        if len(self.screen_stack) > 2:
            self.pop_screen()

    def say(self, text: str) -> None:
        """Say something that is gone in a moment."""
        self.clear_notifications()
        self.notify(plain(text), timeout=_SAID_S, markup=False)

    def broken(self, error: BaseException) -> None:
        """End, as something of ours is broken: it is raised where the terminal is one again."""
        self.error = error
        self.exit()

    def copy_command(self, command: str) -> None:
        """Copy a command, and say it: not every terminal lets us copy."""
        self.copied = f"{command} {self.held.options.where}".rstrip()
        self.copy_to_clipboard(self.copied)
        self.say(self.copied)

    def ask(self, act: str, view: View) -> None:
        """Ask whether to do something with the run of a view."""
        if self.held.options.read_only:
            self.say("this is read-only: nothing can be changed here")
        elif run := view.act_run():
            self.run_worker(self._ask(act, run, view), name=f"ask {act}")
        else:
            self.say("no run is chosen")

    def action_turn_theme(self) -> None:
        """Go to the other colours."""
        self.palette = LIGHT if self.palette.is_dark else DARK
        self.theme = self.palette.name
        for screen in self.screen_stack:
            if isinstance(screen, View):
                screen.use(self.palette)

    def action_help(self) -> None:
        """Say which key does what."""
        self.push_screen(HelpScreen(self.palette, read_only=self.held.options.read_only))

    async def _ask(self, act: str, run: str, view: View) -> None:
        try:
            asked: Ask = await ASK[act](self.held, run, view.act_step())
        except ERRORS as error:
            self.say(str(error))
            return
        if self.screen is view:  # one may have gone on meanwhile
            self.push_screen(AskScreen(asked, self.palette), self._done)

    def _done(self, run: str | None) -> None:
        """Go where what was done can be seen."""
        from .run_view import RunView

        if run and not (isinstance(self.screen, RunView) and self.screen.run == run):
            self.push_screen(RunView(self.held, self.palette, run))
        elif run and isinstance(self.screen, View):
            self.screen.again()


async def run_top(console: Console, **given: Any) -> str:
    """Show the console in this terminal until it is left; return the command that was copied last."""
    app = Top(console)
    try:
        await app.run_async(**given)
    except asyncio.CancelledError:
        app.exit()
        raise
    if app.error is not None:
        raise app.error
    return app.copied


def _variables(palette: Palette) -> dict[str, str]:
    colours = ("paper", "ink", "dim", "line", "shade", "at")
    return {name: getattr(palette, name) for name in colours} | {"failed": palette.marks["failed"]}


def _theme(palette: Palette) -> Theme:
    return Theme(
        name=palette.name,
        primary=palette.marks["running"],
        error=palette.marks["failed"],
        success=palette.marks["done"],
        warning=palette.marks["retry"],
        foreground=palette.ink,
        background=palette.paper,
        surface=palette.paper,
        panel=palette.shade,
        dark=palette.is_dark,
        variables=_variables(palette)
        | {
            "scrollbar": palette.line,
            "scrollbar-background": palette.paper,
            "scrollbar-hover": palette.dim,
            "scrollbar-active": palette.dim,
            "scrollbar-background-hover": palette.paper,
            "scrollbar-background-active": palette.paper,
        },
    )
