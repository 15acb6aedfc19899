"""Real file systems lose their power while a host works; after the next start all that was acknowledged ends, once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from tests.filesystems.conftest import Image, host
from tests.processes import PATIENCE, until
from tests.reliability.counts import count
from tests.reliability.invariants import problems

pytestmark = pytest.mark.slow

_ROUNDS = 20


def work_and_lose_power(disk: Image, said: list[str], lines: int, durability: str) -> list[str]:
    """Let a host work until it has said so many *lines*, cut the power, start the next; return what is wrong then."""
    anima, enough = disk.where / "mei", len(said) + lines
    with host(anima, 100_000, durability) as working:
        reading = threading.Thread(target=lambda: said.extend(line.strip() for line in working.stdout or ()))
        reading.start()
        until(lambda: len(said) >= enough)
        disk.cut()
        working.kill()
        reading.join(PATIENCE)
    disk.unmount()
    disk.mount()
    (anima / "state" / "background_tasks" / "boot").write_text("another one")  # the machine was not started again
    with host(anima, 0) as next_one:
        said += [line.strip() for line in next_one.stdout or ()]
    assert 0 == next_one.returncode
    return problems(anima, said, runs=lambda _: 3)


@pytest.mark.parametrize(("kind", "size"), [("ext4", 32), ("xfs", 320)])
def test_a_power_cut_loses_nothing_that_was_acknowledged(images: Callable[..., Image], kind: str, size: int) -> None:
    disk, chance, said = images(kind, size), random.Random(kind), list[str]()  # noqa: S311 - no secret
    for number in range(_ROUNDS):
        assert [] == work_and_lose_power(disk, said, chance.randrange(1, 40), "full"), f"round {number}"
        count(f"real power cuts on {kind}")


def test_without_fsync_it_does_and_that_is_found(images: Callable[..., Image]) -> None:
    disk = images()
    assert any(work_and_lose_power(disk, [], 40, "process") for _ in range(_ROUNDS))
