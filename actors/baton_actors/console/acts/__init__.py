"""What people can do, by the addresses of the forms that ask for it."""

from __future__ import annotations

from baton_actors.console.acting import FILES_MAX_BYTES, Acting

from .many import cancel_all, retry_all
from .marking import mark_seen
from .people import answer
from .runs import allow, cancel, fork, retry
from .schedules import add, remove, start_now
from .sending import send

ACTS: dict[str, Acting] = {
    "/runs/{run}/retry": Acting(retry),
    "/runs/{run}/fork": Acting(fork),
    "/runs/{run}/cancel": Acting(cancel),
    "/runs/{run}/allow": Acting(allow),
    "/runs/{run}/answer": Acting(answer),
    "/acts/cancel": Acting(cancel_all),
    "/acts/retry": Acting(retry_all),
    "/attention/seen": Acting(mark_seen),
    "/schedules/remove": Acting(remove),
    "/schedules/run": Acting(start_now),
    "/schedules/{flow}/new": Acting(add, FILES_MAX_BYTES),
    "/flows/{flow}/send": Acting(send, FILES_MAX_BYTES),
}
"""By path. All of them lead to a page that may be loaded again."""
