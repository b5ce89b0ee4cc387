"""The command `baton`. Modules are imported by the commands that need them, so that each starts at once."""

from baton_actors.cli.app import main

__all__ = ["main"]
