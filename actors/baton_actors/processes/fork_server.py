"""Importing this makes a process the fork server of workers: it holds nothing of the command's, and `ps` shows it.

The fork server preloads it. With the command's stderr in its hand, `baton run … 2>&1 | less` would end only once the
fork server had noticed that the command is gone; its workers have a pipe to their supervisor instead.
"""

from __future__ import annotations

import os

from setproctitle import setproctitle

for _fd in (1, 2):
    _nothing = os.open(os.devnull, os.O_RDWR)
    if _nothing != _fd:  # else the command had not given it to us
        os.dup2(_nothing, _fd)
        os.close(_nothing)
    os.set_inheritable(_fd, True)
setproctitle("baton: fork server of the workers")
