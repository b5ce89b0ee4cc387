"""A console beside `baton up`: a process of its own, so that nothing that happens to it touches the actors.

It ends with `up`, however that ends: it is told its token in the first line of its input, and goes when that is closed.
One that ends before is started again under the same address.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from baton_actors.cli.exits import BadArgument
from baton_actors.cli.place import Place

_ENDS_S = 3.0
"""For its streams to end; then it is killed."""
_AGAIN_S = 1.0
"""How soon it is started again; each time in vain doubles it."""
_AGAIN_MAX_S = 60.0
_TOKEN_BYTES = 24


@asynccontextmanager
async def console_beside(place: Place, port: int, say: Callable[[str], None]) -> AsyncIterator[str]:
    """Have a console while the context is open; yield its address, which lets in. `say` is told of its troubles.

    Raises `BadArgument` when it does not come up.
    """
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    process = await _started(place, port, token)
    address = await _address(process)
    if not address:
        assert process.stderr is not None
        said = (await process.stderr.read()).decode(errors="replace").strip()
        await _ended(process)
        raise BadArgument(f"the console did not come up: {said or f'it ended with code {process.returncode}'}")
    kept = asyncio.create_task(_kept(place, urlsplit(address).port or 0, token, process, say), name="keep the console")
    try:
        yield address
    finally:
        kept.cancel()
        await asyncio.gather(kept, return_exceptions=True)


async def _kept(
    place: Place, port: int, token: str, process: asyncio.subprocess.Process, say: Callable[[str], None]
) -> None:
    wait_s = _AGAIN_S
    try:
        while True:
            said = await _last_line(process)
            code = await process.wait()
            say(f"the console has ended (code {code}{f', {said}' if said else ''}); it is started again")
            await asyncio.sleep(wait_s)
            process = await _started(place, port, token)
            wait_s = _AGAIN_S if await _address(process) else min(wait_s * 2, _AGAIN_MAX_S)
    finally:
        await _ended(process)


async def _started(place: Place, port: int, token: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "baton_actors.cli", "console", "--tied", "--no-open", "--port", str(port)),
        *("--data-dir", str(place.data_dir)),
        *(("--namespace", place.namespace) if place.namespace else ()),
        # Not an argument: `ps` shows those, and it may have a login.
        env={**os.environ, **({"BATON_URL": place.url} if place.url else {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us
    )
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it has ended: whoever waits for it is told
        process.stdin.write(f"{token}\n".encode())
        await process.stdin.drain()
    return process


async def _address(process: asyncio.subprocess.Process) -> str:
    """Return where it is, once it says so; empty when it ended before."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode(errors="replace").strip().rpartition(" ")[2]


async def _last_line(process: asyncio.subprocess.Process) -> str:
    """Read what it says until it ends; return its last line. All of it goes where our own errors go."""
    assert process.stderr is not None
    last = ""
    while chunk := await process.stderr.read(1 << 16):
        text = chunk.decode(errors="replace")
        sys.stderr.write(text)
        last = next((line for line in reversed(text.splitlines()) if line.strip()), last)
    return last.strip()


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Have it end."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_ENDS_S):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
