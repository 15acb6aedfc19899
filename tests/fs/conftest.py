"""A directory for what is published, and a kernel that refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def final(tmp_path: Path) -> Path:
    (tmp_path / "final").mkdir()
    return tmp_path / "final"


def refuse(patch: pytest.MonkeyPatch, call: str, code: int, *, after: int = 0) -> None:
    """Let ``os.<call>`` fail once it was called *after* times."""
    real: Callable[..., object] = getattr(os, call)
    left = [after]

    def refusing(*args: object, **options: object) -> object:
        if left[0] == 0:
            raise OSError(code, os.strerror(code))
        left[0] -= 1
        return real(*args, **options)

    patch.setattr(os, call, refusing)
