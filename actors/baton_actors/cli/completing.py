"""What the shell completes: flows, runs, steps and agents. Quick, and silent when there is nothing to find them in.

Each is called with what is typed so far, in a process of its own for each Tab: so it imports only what it needs. No
server is started for it, and whatever goes wrong completes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from baton_actors.agents.loading import FoundFlow
    from baton_bus import Settings
    from baton_bus.store.bus import Bus

WAIT_S = 1.0
"""For all that the bus is asked: who presses Tab would rather type on."""
_RUNS_MAX = 50
"""The latest runs, among which is the one that is meant."""
_FLOW_BYTES_MAX = 1_000_000

Found = list[str] | list[tuple[str, str]]
"""What may be typed; or that, and what it is, for shells that show it."""


def flows(incomplete: str) -> Found:
    """Return the shipped flows, and flow files, that begin so."""
    with _quietly():
        from baton_actors.agents.loading import shipped_flows

        shipped = [name for name in shipped_flows() if name.startswith(incomplete)]
        return shipped + list(_files(incomplete))
    return []


def agents(ctx: typer.Context, incomplete: str) -> Found:
    """Return the agents of the flow that is typed before."""
    found = _flow_of(ctx)
    return [name for name in found.flow.agents if name.startswith(incomplete)] if found else []


def runs(ctx: typer.Context, incomplete: str) -> Found:
    """Return the latest runs whose ids begin so, each with its flow and how it stands; to cancel, those that go on."""

    async def asked(bus: Bus) -> Found:
        from baton_bus.client.runs import recent_runs

        heads = await recent_runs(bus, _RUNS_MAX, status="running" if ctx.info_name == "cancel" else None)
        return [(head.run, f"{head.flow}, {head.status}") for head in heads if head.run.startswith(incomplete)]

    return _asked(ctx, asked)


def steps(ctx: typer.Context, incomplete: str) -> Found:
    """Return the steps of the run that is typed before; of the latest run when none is."""

    async def asked(bus: Bus) -> Found:
        from baton_bus.client.runs import find_run, read_last
        from baton_schemas.run.fold import fold
        from baton_schemas.show.plan import plan_of

        # With an option whose value is being typed, what stands before it has not become a parameter yet.
        run = ctx.params.get("run") or next(iter(ctx.args), "")
        plan = plan_of(fold(await read_last(bus, await find_run(bus, run))))
        return [name for name in plan.order if name.startswith(incomplete)] if plan else []

    return _asked(ctx, asked)


def _asked(ctx: typer.Context, ask: Callable[[Bus], Awaitable[Found]]) -> Found:
    """Return what the bus answers: the one that is named, or the embedded one if it runs."""
    with _quietly():
        return asyncio.run(_within(ctx, ask))
    return []


async def _within(ctx: typer.Context, ask: Callable[[Bus], Awaitable[Found]]) -> Found:
    from baton_bus.store.bus import open_bus

    async with asyncio.timeout(WAIT_S):
        settings = await _settings(ctx.params)
        if settings is None:
            return []
        async with open_bus(settings, name="baton completion", reads=True) as bus:
            return await ask(bus)


async def _settings(given: dict[str, Any]) -> Settings | None:
    """Return where the bus is, as the options before say it; None when no server runs there."""
    from baton_actors.cli.place import Place
    from baton_bus.server.health import greeting
    from baton_bus.server.lock import read_record

    data_dir = Path(given.get("data_dir") or os.environ.get("BATON_DATA") or ".baton")
    place = Place(url=given.get("nats") or "", namespace=given.get("namespace") or "", data_dir=data_dir)
    if place.named:
        return place.settings()
    record = read_record(place.data_dir)
    if record is None or await greeting(record.port) != record.server_id:
        return None
    return place.settings(record.url)


def _flow_of(ctx: typer.Context) -> FoundFlow | None:
    with _quietly():
        from baton_actors.agents.loading import find_flow

        return find_flow(str(ctx.params.get("flow") or ""))
    return None


def _files(incomplete: str) -> Iterator[str]:
    """Yield the flow files whose paths begin so, written as they were begun."""
    folder, slash, begun = incomplete.rpartition("/")
    for path in sorted(Path(f"{folder}{slash}").expanduser().iterdir()):
        if path.name.startswith(begun) and path.suffix == ".toml" and _is_flow(path):
            yield f"{folder}{slash}{path.name}"


def _is_flow(path: Path) -> bool:
    """Say whether a file is likely to be a flow, without reading it as one: it may be half written."""
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size <= _FLOW_BYTES_MAX:
            return b"[steps." in path.read_bytes()
    return False


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Let nothing out: neither errors nor words, which the shell would take for completions."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        contextlib.suppress(Exception),
    ):
        yield
