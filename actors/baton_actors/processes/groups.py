"""Ending what a handler has started: its subprocesses must not outlive the worker.

A worker that has a supervisor leads a session and process group of its own, which its children are born into. Its
supervisor ends the group once the worker is gone, and a guardian does so when the supervisor was killed. What leaves
the group (`start_new_session=True`, a daemon) is not found by this. A worker on its own shares the group of its
terminal, or Ctrl-C would not reach it; it ends its descendants, which are looked up in `/proc`: on macOS there is
none, and they are left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

GROUP_GRACE_S = 1.0
"""From SIGTERM to SIGKILL. Handlers had the worker's own grace before; this is for a child to remove its files."""
_POLL_S = 0.02
_KILLED_S = 1.0
"""After SIGKILL: how long to wait until they are gone. A longer wait would be for a disk that does not answer."""


# Its stdin is a pipe whose write end only the supervisor has: the loop ends however that one ends. What is then left
# of the groups it was told of had `$1` seconds to stop by itself.
_GUARDIAN = """
trap '' HUP INT TERM
left=' '
while read -r sign leader; do
  case $sign in
    +) left="$left$leader " ;;
    -) left="${left%% $leader *} ${left#* $leader }" ;;
  esac
done
[ -n "${left%% }" ] || exit 0
sleep "$1"
for leader in $left; do kill -s TERM -- "-$leader"; done
sleep "$2"
for leader in $left; do kill -s KILL -- "-$leader"; done
"""


class Groups:
    """The groups that a supervisor's workers lead. They end with the context, and when the supervisor is killed.

    A small process, the guardian, sees to the latter: of workers that hang too, and of what dead ones have left.
    """

    def __init__(self, wait_s: float) -> None:
        """`wait_s` is what workers have to stop by themselves, once their supervisor was killed."""
        name = "baton: guardian of what handlers start"
        self._command = ["sh", "-c", 'eval "$baton_guardian"', name, str(wait_s), str(GROUP_GRACE_S)]
        self._leaders: set[int] = set()

    def __enter__(self) -> Self:
        self._guardian = subprocess.Popen(
            self._command,
            bufsize=0,
            env={**os.environ, "baton_guardian": _GUARDIAN},  # not an argument: `ps` shows those
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.end(*list(self._leaders))
        assert self._guardian.stdin is not None
        self._guardian.stdin.close()
        if not _within(_KILLED_S, lambda: self._guardian.poll() is not None):
            self._guardian.kill()  # somebody has stopped it
            self._guardian.wait()

    def add(self, leader: int) -> None:
        """Answer for the group of this worker from now on."""
        self._leaders.add(leader)
        self._tell(f"+ {leader}\n")

    def end(self, *leaders: int) -> None:
        """End the groups that these dead workers led: SIGTERM, and SIGKILL for what is left after the grace. Blocks.

        A group's number is not given to another process before the group is empty.
        """
        for number, wait_s in ((signal.SIGTERM, GROUP_GRACE_S), (signal.SIGKILL, _KILLED_S)):
            left = [leader for leader in leaders if _signal_group(leader, number)]
            if not left or _within(wait_s, lambda left=left: not any(map(_group_lives, left))):  # type: ignore[misc]
                break
        for leader in leaders:
            if leader in self._leaders:
                self._leaders.discard(leader)
                self._tell(f"- {leader}\n")

    def _tell(self, line: str) -> None:
        assert self._guardian.stdin is not None
        with contextlib.suppress(OSError):  # somebody has killed it; workers still end with their parent
            self._guardian.stdin.write(line.encode())


def lead() -> None:
    """Lead a session and a group from now on, without a terminal: neither Ctrl-C nor `stty tostop` reaches it."""
    os.setsid()


def end_descendants() -> None:
    """End what this process has started, and what that has: SIGTERM, and SIGKILL after the grace. Linux only."""
    for number, wait_s in ((signal.SIGTERM, GROUP_GRACE_S), (signal.SIGKILL, _KILLED_S)):
        left = _descendants(os.getpid())
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        if not left or _within(wait_s, lambda: not _descendants(os.getpid())):
            return


def _signal_group(leader: int, number: int) -> bool:
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):  # nobody is in it; on macOS, nobody but the dead
        return False
    return True


def _group_lives(leader: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # in a container we may be process 1, and so the heir of orphans
        os.waitpid(-leader, os.WNOHANG)
    return _signal_group(leader, 0)


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _descendants(pid: int) -> set[int]:
    """Return the processes below this one that live; those that have ended and wait for their parent are left out."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, parent = path.read_text("utf-8", "replace").rpartition(")")[2].split()[:2]  # proc(5)
            if state != "Z":
                parents[int(path.parent.name)] = int(parent)
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= new
    return found
