"""What can be wrong with how a program uses a team."""

from __future__ import annotations

from collections.abc import Iterable

from baton_actors.errors import ActorError
from baton_schemas.errors import nearest


class NoFlowGiven(ActorError):
    """A team plays several flows, or none that is known here, and nobody said which to run."""

    def __init__(self, known: Iterable[str]) -> None:
        """`known` are the flows that it plays."""
        self.known = tuple(known)
        flows = ", ".join(map(repr, self.known))
        which = f"this team plays {flows}" if self.known else "no flow was given to this team"
        super().__init__(f"{which}: say which to run, as in team.run({(self.known or ('article',))[0]!r}, …)")


class NotPlayed(ActorError):
    """A flow is to run that nobody in this team plays."""

    def __init__(self, flow: str, known: Iterable[str]) -> None:
        """`known` are the flows that it plays."""
        self.flow, self.known = flow, tuple(known)
        hint = nearest(flow, self.known)
        super().__init__(f"this team does not play {flow!r}. {hint}{' ' if hint else ''}Give it to Baton.local too.")


class OnlyInProcess(ActorError):
    """A flow has handlers or tools that are functions of this program, and is to be played by other processes."""

    def __init__(self, flow: str, agents: Iterable[str]) -> None:
        """`agents` are those with such handlers, and such tools by their own names."""
        self.flow, self.agents = flow, tuple(agents)
        functions = ", ".join(map(repr, self.agents))
        super().__init__(
            f"flow {flow!r}: {functions} {'is a function' if len(self.agents) == 1 else 'are functions'} of this "
            "program, which no other process can play. Play it here with Baton.local(flow), whose log may be on any "
            "server (url=…); or put the functions into a module and name them: flow.step('package.module:name')"
        )


class TeamClosed(ActorError):
    """A team is asked for something after it was closed, or before it was opened."""

    def __init__(self) -> None:
        super().__init__("this team is closed: use it inside `with Baton.local(…) as team:`")


class CalledFromItself(ActorError):
    """A call that blocks was made in the very thread that would have to answer it."""

    def __init__(self) -> None:
        super().__init__(
            "this would wait for itself: an async handler cannot call the team that plays it and block. "
            "Make the handler a plain function, or a step of the flow of what it asks for"
        )
