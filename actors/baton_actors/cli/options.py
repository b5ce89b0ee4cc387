"""The arguments and options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from baton_actors.cli import completing
from baton_actors.cli.place import Place

Flow = Annotated[
    str,
    typer.Argument(metavar="FLOW", help="A shipped flow, or the path of a flow file.", autocompletion=completing.flows),
]
Flows = Annotated[
    list[str],
    typer.Argument(metavar="FLOW...", help="Shipped flows, or paths of flow files.", autocompletion=completing.flows),
]
Pairs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE...",
        help="The input. KEY=@FILE takes a file, KEY=- takes stdin; JSON unless it is text. "
        "Repeat a KEY for the items of a list, or give JSON lines (@FILE.jsonl).",
    ),
]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="An id, or its start or end; the latest run without it.",
        show_default=False,
        autocompletion=completing.runs,
    ),
]
RunNeeded = Annotated[
    str, typer.Argument(metavar="RUN", help="An id, or its start or end.", autocompletion=completing.runs)
]
RunId = Annotated[str, typer.Option("--run", metavar="ID", help="The id of the run: the same id starts it once.")]
NewRunId = Annotated[
    str, typer.Option("--run", metavar="ID", help="The id of the new run: the same id starts it once.")
]
OtherFlow = Annotated[
    str,
    typer.Option(
        "--flow", metavar="FLOW", help="Go on with this flow, instead of the present version of the run's own."
    ),
]
Same = Annotated[bool, typer.Option("--same", help="Go on with the flow as the run has it, however its file is now.")]
Budget = Annotated[
    str,
    typer.Option(
        "--budget",
        metavar="AMOUNT",
        help="What the run may spend on models: 2.5 (USD), 200000tokens, or both with a comma between.",
        show_default=False,
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the result and print the output.")]
Stream = Annotated[
    bool, typer.Option("--stream", help="Print the last step's text as it is written; with --json: all that is said.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, metavar="N", help="How many.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors included.")]


def place_of(
    nats: Annotated[
        str, typer.Option("--nats", metavar="URL", help="Use this NATS server (BATON_URL), not the embedded one.")
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", metavar="NAME", help="First token of every subject (BATON_NAMESPACE).")
    ] = "",
    data_dir: Annotated[
        Path,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            envvar="BATON_DATA",
            show_envvar=True,
            help="Where the embedded server keeps its data.",
        ),
    ] = Path(".baton"),
) -> Place:
    """Return where a command finds the bus: each command with a `place` has these options, after its own."""
    return Place(url=nats, namespace=namespace, data_dir=data_dir)
