"""Kinds of agents, and loading them. Knows no bus.

A new kind is a module with a class that is an `AgentKind` (`kinds.py`), and a line in `Agents.of` (`agents.py`), which
says whose steps it does. What it must not pay for twice goes through the `Journal` that it is given.
"""
