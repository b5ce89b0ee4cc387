"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings

from .again import record
from .commands import close_pipes
from .hanging import bound
from .longest import longest_first
from .servers import NatsServer

if TYPE_CHECKING:
    from playwright.async_api import Browser

# How long an example takes says how busy the machine is: whether it is too slow, others measure (`make bench`).
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell starts what it runs in the background: what tests start would not hear Ctrl-C either.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as under `nohup`: nor that their terminal is closed


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """The server that the suite shares; a test that stops its server runs one of its own."""
    shared = NatsServer(tmp_path_factory.mktemp("nats"))
    shared.start_now()
    yield shared
    shared.stop_now()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """The browser that the tests of a file share; each has a session of its own in it."""
    from .browsers import launched  # what few files need is imported by them

    async with launched() as browser:
        yield browser


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """What a test says of logs holds for that test: loggers are bound once, to what was said when they first spoke."""
    configured = structlog.get_config()
    yield
    structlog.configure(**configured)
    for name, module in sys.modules.copy().items():  # a copy in one go: what is collected meanwhile may import
        logger = getattr(module, "logger", None) if name.startswith("baton_") else None
        if isinstance(logger, type(structlog.get_logger())):
            vars(logger).pop("bind", None)


_imported = 0


@pytest.fixture(autouse=True)
def imported_once() -> None:
    """What is imported stays: collecting after each test need not look at it.

    Some of it is imported by a test, as the SDK of the models is, whose three thousand modules take longer to look at
    than most tests run. What that test itself left is gone by the time the next one begins.
    """
    global _imported
    if len(sys.modules) != _imported:
        _imported = len(sys.modules)
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def own_litter() -> Iterator[None]:
    """What a test leaves open is told in that test, and not in whichever runs when it is collected."""
    yield
    close_pipes()
    gc.collect()


@pytest.fixture
def namespace() -> str:
    """A namespace of the test's own, so that tests share the server but no stream."""
    return f"t{uuid.uuid4().hex[:12]}"


def pytest_configure(config: pytest.Config) -> None:
    record(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    longest_first(items)
    if not config.option.usepdb and (timeout_s := float(config.getini("timeout") or 0)):
        bound(items, timeout_s)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how to have the tests in the same order again: `-q` does not show the first lines, where it stands too."""
    seed = getattr(config.option, "randomly_seed", None)  # None without pytest-randomly
    if isinstance(seed, int):
        terminalreporter.write_line(f"The order of the tests was that of --randomly-seed={seed}")
