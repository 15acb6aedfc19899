"""A fast directory for the stores of a test, and the counts at the end of the run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.counts import COUNTS, FULL, MEMORY


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Path]:
    """A directory of the test's own, in memory if the machine has such a place."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="reliability-", dir=MEMORY))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send what a process of pytest-xdist has counted to the one that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["counts"] = dict(COUNTS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - pytest-xdist has no types
    COUNTS.update(getattr(node, "workeroutput", {}).get("counts", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNTS:
        terminalreporter.section(f"reliability: {'full' if FULL else 'quick; RELIABILITY=full for all of it'}")
        for what, number in COUNTS.items():
            terminalreporter.write_line(f"{number:>9,} {what}")
