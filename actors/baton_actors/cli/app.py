"""The commands and their options. What they do is in the other modules, imported when a command runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from baton_actors.cli import app_more
from baton_actors.cli import options as o
from baton_actors.cli.exits import USAGE, report

app = typer.Typer(
    name="baton",
    help="Teams of LLM agents as actors on NATS.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help comes at once, and without boxes
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(app_more.app)


def main() -> None:
    """Run the command that `sys.argv` names, and exit with its code."""
    arguments = sys.argv[1:]
    try:
        code = app(arguments, prog_name="baton", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        code = _usage(error, arguments)
    except (Exception, KeyboardInterrupt) as error:
        code = report(error, arguments)
    sys.exit(code)


@app.command()
def run(
    flow: o.Flow,
    pairs: o.Pairs = None,
    run_id: o.RunId = "",
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", metavar="S", min=0, help="Cancel the run after so many seconds.", show_default=False),
    ] = 0,
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Run a flow and print its output.

    Starts what is needed here and stops it again. The output goes to stdout, progress to stderr. Exit codes:
    0 done, 1 the run failed, 2 bad usage, input or flow, 3 no server, 4 cancelled or expired.
    """
    from baton_actors.cli.run import run_flow
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: run_flow(place, stop, flow, pairs or [], run_id, timeout_s, json))


@app.command()
def up(
    flows: o.Flows,
    copies: Annotated[int, typer.Option("--copies", min=1, metavar="N", help="Processes per actor.")] = 1,
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Keep the actors of flows running.

    Until Ctrl-C or SIGTERM; one that dies is started again. Tasks that clients publish become runs.
    """
    from baton_actors.cli.up import keep_up
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: keep_up(place, flows, copies, json), until_stopped=True)


@app.command()
def actor(
    flow: o.Flow,
    actor: Annotated[str, typer.Argument(metavar="ACTOR", help="An agent of the flow, or its actor's name.")],
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Run one actor in this process.

    It needs a server that runs already: --nats, BATON_URL, or that of `baton up` in the data directory.
    """
    from baton_actors.cli.up import run_actor

    return run_actor(o.place(nats, namespace, data_dir), flow, actor)


@app.command()
def steward(
    flows: o.Flows,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Turn the tasks of clients into runs.

    Part of `run` and `up`; this is for actors that run one by one. It needs a server that runs already.
    """
    from baton_actors.cli.up import run_steward
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: run_steward(place, flows), until_stopped=True)


@app.command()
def submit(
    flow: o.Flow,
    pairs: o.Pairs = None,
    run_id: o.RunId = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and print the output.")] = False,
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Start a run and print its id.

    It is durable once the id is there; actors elsewhere do it, now or later.
    """
    from baton_actors.cli.send import submit_run
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: submit_run(place, flow, pairs or [], run_id, wait, json))


@app.command()
def cancel(
    run: Annotated[str, typer.Argument(metavar="RUN", help="An id, or its start or end.")],
    reason: Annotated[str, typer.Option("--reason", help="Kept in the log.")] = "cancelled by a client",
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """End a run that has not ended."""
    from baton_actors.cli.send import cancel_run
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: cancel_run(place, run, reason, json))


@app.command()
def runs(
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="How many.")] = 20,
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """List the latest runs, the newest first."""
    from baton_actors.cli.look import list_runs
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: list_runs(place, limit, json))


@app.command()
def show(
    run: o.Run = "",
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Show a run: its steps, and its output or error."""
    from baton_actors.cli.look import show_run
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: show_run(place, run, json))


@app.command()
def log(
    run: o.Run = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Print the messages of a run, one a line."""
    from baton_actors.cli.look import print_log
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: print_log(place, run, follow, json))


@app.command()
def replay(
    run: Annotated[str, typer.Argument(metavar="[RUN|FILE]", help="A run, or a file made by `baton export`.")] = "",
    until: Annotated[
        int | None, typer.Option("--until", min=0, metavar="N", help="The state after N messages.")
    ] = None,
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Step through a run, message by message.

    On a terminal keys go forward and back through the state after each message; elsewhere all are printed.
    """
    from baton_actors.cli.replay import replay_run

    return replay_run(o.place(nats, namespace, data_dir), run, until, json)


@app.command()
def export(
    run: o.Run = "",
    json: Annotated[bool, typer.Option("--json", help="The same: it is JSON lines always.")] = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Write a run as JSON lines, for `replay`."""
    from baton_actors.cli.look import export_run
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: export_run(place, run))


@app.command()
def graph(
    flow: o.Flow,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As text for Mermaid.")] = False,
    json: o.Json = False,
) -> int:
    """Draw the steps of a flow."""
    from baton_actors.cli.graph import print_graph

    return print_graph(flow, mermaid, json)


@app.command()
def doctor(
    monitor: Annotated[
        str, typer.Option("--monitor", metavar="URL", help="The http address of a nats-server, which tells more.")
    ] = "",
    json: o.Json = False,
    nats: o.Nats = "",
    namespace: o.Namespace = "",
    data_dir: o.DataDir = o.DATA_DIR,
) -> int:
    """Say what the server as it is set up can lose, and what stands still.

    Exit codes: 0 no errors, 1 errors, 3 no server.
    """
    from baton_actors.cli.doctor import examine_server
    from baton_actors.processes.signals import run_to_end

    place = o.place(nats, namespace, data_dir)
    return run_to_end(lambda stop: examine_server(place, monitor, json))


def _usage(error: typer.TyperException, arguments: list[str]) -> int:
    """Tell a mistake in the arguments as other errors are told."""
    from baton_actors.cli.exits import BadArgument

    message = getattr(error, "format_message", lambda: str(error))()
    context = getattr(error, "ctx", None)
    help_with = f"`{context.command_path} --help` shows how." if context is not None else ""
    return report(BadArgument(f"{message.rstrip('.')}. {help_with}".strip()), arguments) if message else USAGE
