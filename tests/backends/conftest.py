"""A host for tests with real processes, shared because starting them takes longer than most of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.hosts import Host, in_an_hour
from tests.processes import PATIENCE


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One host with one worker for each file of tests."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KEPT_FOR_TESTS", "kept")
        host = Host(tmp_path_factory.mktemp("mei"), clock=in_an_hour)
        yield host
        host.executor.stop(drain_timeout=PATIENCE)
