"""`Baton`: where a program begins. Teams inside this process, and teams elsewhere."""

from __future__ import annotations

import itertools
from functools import partial

from baton_actors.agents.loading import SameName
from baton_actors.team.errors import NoFlowGiven
from baton_actors.team.opening import Opening
from baton_actors.team.playing import DataDir, asking, playing
from baton_actors.team.team import WhichFlow, elsewhere, found_of
from baton_bus import Settings

GRACE_S = 1.0
"""How long steps in hand may go on when a team is closed, in seconds. What is not done by then is in the log."""


class Baton:
    """`async with Baton.local(flow) as team` has a `Team`; `with Baton.local(flow) as team` has one without `await`."""

    @staticmethod
    def local(
        *flows: WhichFlow,
        url: str = "",
        data_dir: DataDir = ...,
        namespace: str = "",
        rehearse: bool | None = None,
        grace_s: float = GRACE_S,
    ) -> Opening:
        """Play flows inside this process: the name of a shipped one, the path of a flow file, or a `Flow`.

        All of it is in this process, in the event loop that opens it, plain handlers in threads; no other process is
        started but the server. The log is where that of commands is: on the server of `url` (or `BATON_URL`), else on
        an embedded one in `data_dir` (or `BATON_DATA`, else `.baton`), which is shared with whoever runs one there.
        With `data_dir=None` it is in a temporary directory, which is removed in the end.

        What has not ended when the team is closed stays in the log, and goes on once the flow is played again. Models
        are rehearsed as by commands, or as `rehearse` says. Raises `UnknownFlow`, `FlowError`, `BadHandler` at once;
        opening it raises `HandlerNotFound`, `BusError` and `ModelError`.
        """
        found = [found_of(flow) for flow in flows]
        if not found:
            raise NoFlowGiven(())
        for one, other in itertools.combinations(found, 2):
            if one.name == other.name:
                raise SameName(one.name)
        given = {"url": url, "data_dir": data_dir, "namespace": namespace, "rehearse": rehearse, "grace_s": grace_s}
        return Opening(partial(playing, found, **given))  # type: ignore[arg-type]

    @staticmethod
    def connect(url: str = "", *flows: WhichFlow, namespace: str = "", settings: Settings | None = None) -> Opening:
        """Use flows that others play (`baton up`), on the server of `url`.

        Without one it is that of `BATON_URL`, or the embedded one that a command runs in the data directory; `settings`
        say all by themselves. A flow may be named here for calls that leave it out. Raises `OnlyInProcess` for one that
        nobody else can play; opening it raises `NoServer` and other `BusError`s.
        """
        found = [elsewhere(found_of(flow)) for flow in flows]
        return Opening(partial(asking, found, url, namespace, settings))
