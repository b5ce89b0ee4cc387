"""The arguments and options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from baton_actors.cli.place import Place

Flow = Annotated[str, typer.Argument(metavar="FLOW", help="A shipped flow, or the path of a flow file.")]
Flows = Annotated[list[str], typer.Argument(metavar="FLOW...", help="Shipped flows, or paths of flow files.")]
Pairs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE...",
        help="The input. KEY=@FILE takes a file, KEY=@- takes stdin; repeat a KEY for the items of a list.",
    ),
]
Run = Annotated[
    str,
    typer.Argument(metavar="[RUN]", help="An id, or its start or end; the latest run without it.", show_default=False),
]
RunId = Annotated[str, typer.Option("--run", metavar="ID", help="The id of the run: the same id starts it once.")]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, errors included.")]
Nats = Annotated[
    str, typer.Option("--nats", metavar="URL", help="Use this NATS server (BATON_URL), not the embedded one.")
]
Namespace = Annotated[
    str, typer.Option("--namespace", metavar="NAME", help="First token of every subject (BATON_NAMESPACE).")
]
DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        envvar="BATON_DATA",
        show_envvar=True,
        help="Where the embedded server keeps its data.",
    ),
]
DATA_DIR = Path(".baton")


def place(nats: str, namespace: str, data_dir: Path) -> Place:
    """Return where the command finds the bus."""
    from baton_actors.cli.place import Place

    return Place(url=nats, namespace=namespace, data_dir=data_dir)
