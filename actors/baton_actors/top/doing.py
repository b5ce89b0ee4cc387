"""What may be done with a run: what is asked before, with what it would do, and the one call that does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from baton_actors.orders.again import Again, fork_of, go_on_once, retry_of
from baton_actors.orders.origins import CannotGoOn, Origin, read_origin
from baton_actors.orders.present import starts
from baton_bus.client.runs import find_run
from baton_bus.store.players import players
from baton_schemas.run.fork import reused
from baton_schemas.show.costs import dollars
from baton_schemas.show.excerpt import head_of
from baton_schemas.show.outlook import StepOutlook
from baton_schemas.show.why import why
from baton_schemas.wire.names import retry_run, sortable_id

from .drawn import one
from .palette import Cell

if TYPE_CHECKING:
    from baton_actors.console.core import Console

_STEPS_SHOWN = 12
_WHY_MAX = 300
"""Characters of why a run failed: its own view has all of it."""
_FATES = {"reused": "reused", "again": "done again", "partly": "partly reused", "first": "done for the first time"}


class Preview(Struct, frozen=True, kw_only=True):
    """What something would do, and the command that does it too."""

    lines: list[Cell]
    command: str
    again: Again | None = None


class Ask(Struct, frozen=True, kw_only=True):
    """A question before something is done."""

    title: str
    verb: str
    """What Enter does."""
    preview: Callable[[str], Awaitable[Preview]]
    """Says what it would do, with one of the choices."""
    do: Callable[[Preview], Awaitable[str]]
    """Does it, once however often it is called; returns the run in which that is seen."""
    choices: tuple[str, ...] = ()
    first: str = ""


async def ask_retry(console: Console, run: str, step: str) -> Ask:
    """Ask whether to go on with a run from where it broke. Raises `CannotGoOn`, and as `read_origin`."""
    old = await read_origin(console.bus, run)
    run = old.state.run
    again = retry_of(old)

    async def preview(choice: str) -> Preview:
        lines = (
            [one(head_of(why(old.state), _WHY_MAX), "failed")] if old.state.status not in ("running", "done") else []
        )
        return Preview(
            lines=[*lines, *_outlook_of(again), *await _who_plays(console, again)],
            command=f"baton retry {run}",
            again=again,
        )

    async def do(shown: Preview) -> str:
        return await go_on_once(console.client, again, retry_run(run))

    return Ask(title=f"Retry {old.plan.flow.name} {run}?", verb="retries it", preview=preview, do=do)


async def ask_fork(console: Console, run: str, step: str) -> Ask:
    """Ask after which step to go on anew. Raises `CannotGoOn`, and as `read_origin`."""
    old = await read_origin(console.bus, run)
    run = old.state.run
    new = sortable_id()  # made once: pressed twice it is one
    after = _points(old)
    if not after:
        raise CannotGoOn(run, "has no step that has ended, so there is nothing to go on from", "`r` retries it")

    async def preview(choice: str) -> Preview:
        again = await fork_of(console.bus, old, after=choice)
        return Preview(
            lines=[*_outlook_of(again), *await _who_plays(console, again)],
            command=f"baton fork {run} --after {choice}",
            again=again,
        )

    async def do(shown: Preview) -> str:
        assert shown.again is not None
        return await go_on_once(console.client, shown.again, new)

    return Ask(
        title=f"Fork {old.plan.flow.name} {run}: go on after which step?",
        verb="forks it after this step",
        preview=preview,
        do=do,
        choices=after,
        first=_first_of(old, step, after),
    )


async def ask_cancel(console: Console, run: str, step: str) -> Ask:
    """Ask whether to end a run. Raises `CannotGoOn` for one that has ended, and as `find_run`."""
    head = await find_run(console.bus, run)
    if head.status != "running":
        raise CannotGoOn(head.run, f"has ended: it is {head.status}", "There is nothing to cancel")

    async def preview(choice: str) -> Preview:
        state = (await console.feeds.read(head.run)).state
        open_steps = sum(step.status == "queued" for step in state.steps.values())
        count = f"{open_steps:,} of its steps {'is' if open_steps == 1 else 'are'} open: what they give counts no more."
        return Preview(
            lines=[one(count), one("What is done stays in the log, and `r` goes on from it later.", "dim")],
            command=f"baton cancel {head.run}",
        )

    async def do(shown: Preview) -> str:
        await console.client.run(head.run, head.flow).cancel(f"cancelled by {console.who}")
        return head.run

    return Ask(title=f"Cancel {head.flow} {head.run}?", verb="ends it", preview=preview, do=do)


ASK: dict[str, Callable[[Console, str, str], Awaitable[Ask]]]


def _points(old: Origin) -> tuple[str, ...]:
    """Return the steps of the flow after which one can go on."""
    ended = {old.plan.name_of(name) for name in reused(old.plan, old.log)}
    return tuple(step for step in old.plan.order if step in ended)


def _first_of(old: Origin, step: str, after: tuple[str, ...]) -> str:
    """Return after which step one most likely goes on: so that the chosen one is done again."""
    base = old.plan.name_of(step) if step else ""
    before = [each for each in old.plan.before(base) if each in after] if base in old.plan.steps else []
    return max(before, key=after.index) if before else after[-1]


def _outlook_of(again: Again) -> list[Cell]:
    found = again.outlook
    lines = [one(again.version.note, "mind")] if again.version.note else []
    if found is None:
        return lines
    lines += [_line_of(each) for each in found.steps[:_STEPS_SHOWN]]
    if len(found.steps) > _STEPS_SHOWN:
        lines.append(one(f"and {len(found.steps) - _STEPS_SHOWN:,} more steps", "dim"))
    if found.rehearsed:
        return [*lines, one("It was rehearsed, so that nothing in it had a price.", "dim")]
    unknown = f", and {', '.join(found.unknown)}, whose price nothing tells" if found.unknown else ""
    money = f"Saves {dollars(found.saved_usd)}; what is to be done costs about {dollars(found.about_usd)}{unknown}."
    return [*lines, one(money)]


def _line_of(each: StepOutlook) -> Cell:
    kind = "dim" if each.fate == "reused" else ""
    count = f" {each.reused:,} of {each.count:,}" if each.count > 1 else ""
    mark = ("✓ ", "mark.done") if each.fate == "reused" else ("· ", "")
    why_again = f": {each.why}" if each.why else ""
    return (mark, *one(f"{each.step}  {_FATES[each.fate]}{count}{why_again}", kind))


async def _who_plays(console: Console, again: Again) -> list[Cell]:
    """Say who is not up of those that would have to do it, and the command that starts them."""
    plan = again.version.plan or again.old.plan
    left = [each.actor for each in await players(console.bus, plan.actors()) if each.played in ("nobody", "silent")]
    if not left:
        return []
    where = f" {console.options.where}" if console.options.where else ""
    start = starts(plan, again.old.state.source, where)
    return [one(f"Nobody plays {', '.join(left)} now: it waits until they are up. {start} starts them.", "mind")]


ASK = {"retry": ask_retry, "fork": ask_fork, "cancel": ask_cancel}
