"""Fixtures that every test may use."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from .servers import NatsServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """The server that the suite shares; a test that stops its server runs one of its own."""
    shared = NatsServer(tmp_path_factory.mktemp("nats"))
    shared.start_now()
    yield shared
    shared.stop_now()


@pytest.fixture
def namespace() -> str:
    """A namespace of the test's own, so that tests share the server but no stream."""
    return f"t{uuid.uuid4().hex[:12]}"
