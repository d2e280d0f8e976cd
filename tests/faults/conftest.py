"""The harness of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.faults.invariants")

from tests.faults.harness import Harness, Server  # noqa: E402 - the line above comes first

SEED = 20_250_131


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    with Harness(tmp_path, seed=SEED) as harness:
        yield harness


@pytest.fixture(scope="module")
def _server_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("faults"))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def server(_server_of_module: Server) -> Server:
    """A running server that nobody else uses meanwhile."""
    _server_of_module.start()
    return _server_of_module
