"""What the suite has tried so far, how much of it this run is to try, and where its stores lie."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Final

FULL: Final = os.environ.get("RELIABILITY") == "full"

COUNTS: Final[Counter[str]] = Counter()

# Stores in memory where there is such a place: an fsync there costs nothing, and what it promises is simulated anyway.
MEMORY: Final = Path("/dev/shm")  # noqa: S108 - each test makes a directory of its own in it


def count(what: str, number: int = 1) -> None:
    """Add to what stands in the summary at the end of the test run."""
    COUNTS[what] += number
