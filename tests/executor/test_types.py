"""Type checkers know what a call of a tool's function takes and returns, and reject a wrong one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from collections.abc import Sequence
from typing import Any, assert_type

from animaworks_tasks import Executor, Task, ToolContext

def render(name: str, *, frames: int = 1) -> list[int]: ...
async def fetch(name: str, *, frames: int = 1) -> bytes | None: ...
def report(context: ToolContext, name: str, *, frames: int = 1) -> list[int]: ...
async def follow(context: ToolContext, name: str) -> str: ...
def late(name: str, context: ToolContext | None = None) -> int: ...

async def right(executor: Executor) -> None:
    assert_type(await executor.submit("x", "y", priority=3), Task[Any])
    task = await executor.submit(render, "s", frames=3)
    assert_type(task, Task[list[int]])
    assert_type(await executor.result(task), list[int])
    assert_type(await executor.result(await executor.submit(fetch, "s")), bytes | None)
    assert_type(await executor.result(await executor.submit(report, "s", frames=2)), list[int])
    assert_type(await executor.result(await executor.submit(follow, name="s"), timeout=5), str)
    assert_type(await executor.result(await executor.options(key="k").submit(late, "s")), int)
    assert_type(await executor.submit_many(follow, [("s",), {"name": "t"}]), Sequence[Task[str]])
    assert_type(await executor.wait_many([task]), Sequence[Task[list[int]]])
    plain: Task = await executor.wait(task.id)
    assert_type(await executor.result(plain.id), Any)

async def wrong(executor: Executor) -> None:
    await executor.submit(render, 5)  # wrong
    await executor.submit(fetch, "s", frame=3)  # wrong
    await executor.submit(report, "s", frames="3")  # wrong
    await executor.submit(follow)  # wrong
    await executor.submit("x", 5)  # wrong
    await executor.submit("x", "y", prio=5)  # wrong
    await executor.submit_many(render, ["s"])  # wrong
    text: str = await executor.result(await executor.submit(render, "s"))  # wrong
"""
CHECKERS = {
    "mypy": ["mypy", "--strict", "--hide-error-context", "--disable-error-code=empty-body"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_typed_calls_are_accepted_and_each_wrong_one_is_rejected(checker: str, tmp_path: Path) -> None:
    # given
    strictly = '{"typeCheckingMode": "strict", "reportUnusedVariable": false}'
    Path(tmp_path, "pyrightconfig.json").write_text(strictly)
    Path(tmp_path, "program.py").write_text(PROGRAM)

    # when
    command = [sys.executable, "-m", *CHECKERS[checker], "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    # then each line that is said to be wrong is, and no other
    marked = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}
    assert marked == {int(line) for line in re.findall(r"program\.py:(\d+):(?:\d+ -)? error", done.stdout)}, done.stdout
