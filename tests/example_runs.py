"""How the tests of the examples run them: submitted in a shell to a host of its own, or here in this process."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final
from unittest import mock

from animaworks_tasks import Cause, MemoryTaskStore, Registry, Task, TaskStore, run_task
from animaworks_tasks.cli import main
from animaworks_tasks.store.memory import MemoryWorkspace
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.tools.discovery import load_directory
from animaworks_tasks.worker.call import Report, call

TOOLS: Final = Path(__file__).parents[1] / "examples" / "tools"
PROGRAM: Final = [sys.executable, "-c", "import sys; from animaworks_tasks.cli import main; sys.exit(main())"]
QUICK: Final = {f"{tool}_{what}_SECONDS": value for tool in ("IMAGE_GEN", "LOCAL_LLM") for what, value in (
    ("POLL", "0.01"), ("RETRY", "0.01"), ("SILENCE", "1"))}  # fmt: skip


class Anima:
    """
    An Anima that has the examples as tools, and what its host has in its environment.

    Args:
        directory: Of the Anima. What is submitted begins in its ``work``.
        environment: Besides what any program has; there are no keys and no proxies from outside.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.work = directory / "work"
        self.work.mkdir(parents=True)
        self._environment = {
            "PATH": os.environ["PATH"],
            "ANIMAWORKS_ANIMA_DIR": str(directory),
            "ANIMAWORKS_DATA_DIR": str(directory / "data"),
            **{name: value for name, value in os.environ.items() if name.startswith(("COVERAGE", "PYTHON"))},
            **QUICK,
            **environment,
        }
        self.store = TaskStore(directory, language="en", durability="process")

    def submit(self, *words: str) -> str:
        """Submit a call as an agent does; return the id from its receipt."""
        # The program itself, without the process that it would be: there are many to submit.
        receipt = io.TextIOWrapper(io.BytesIO())
        with (
            mock.patch.dict(os.environ, self._environment, clear=True),
            contextlib.chdir(self.work),
            contextlib.redirect_stdout(receipt),
        ):
            assert 0 == main(["submit", *words])
        return str(json.loads(receipt.buffer.getvalue())["task_id"])

    def cancel(self, task_id: str) -> None:
        """Cancel a task as an agent does."""
        self._type("cancel", task_id)

    def run(self, *, at_once: int = 1) -> None:
        """Let a host do all that was submitted, in this order if one *at once*."""
        self._type("run", *self._host, "--max-workers", str(at_once))

    def host(self) -> subprocess.Popen[str]:
        """Start a host that leaves when all that was submitted is done."""
        return subprocess.Popen(
            [*PROGRAM, "run", *self._host], env=self._environment, stdout=-3, stderr=-3, text=True, cwd=self.work
        )

    _host = ("--until-idle", "--tools", str(TOOLS), "--language", "en")

    def notification(self, task_id: str) -> str:
        """Return what the agent reads."""
        return next(each.text for each in self.store.notifications.peek() if each.task_id == task_id)

    def log(self, task_id: str) -> str:
        """Return what the task has printed and logged."""
        return Path(self.store.layout.logs, f"{task_id}.log").read_text("utf-8")

    def _type(self, *words: str) -> str:
        done = subprocess.run(
            [*PROGRAM, *words], env=self._environment, capture_output=True, text=True, cwd=self.work, check=False
        )
        assert 0 == done.returncode, done.stderr
        return done.stdout


def assert_each_fails(anima: Anima, tool: str, failures: Sequence[tuple[str, Cause, str, str]]) -> dict[str, str]:
    """
    Run a call of *tool* for each of *failures*, and see that its notification has cause, error and advice.

    The last one is given no time, so that its tool is stopped from outside. Returns the ids, by what was submitted.
    """
    ids = {command: anima.submit(tool, *shlex.split(command)) for command, *_ in failures[:-1]}
    last, *_ = failures[-1]
    ids[last] = anima.submit("--timeout", "0.3", tool, *shlex.split(last))
    anima.run(at_once=2)
    for command, cause, said, advice in failures:
        notification = anima.notification(ids[command])
        assert f"\n- Cause: {cause.value}: " in notification, (command, notification)
        assert said in notification, (command, notification)
        assert advice in notification, (command, notification)
    return ids


class Recorder(MemoryWorkspace):
    """A workspace that remembers every progress report, and asks *cancelled* whether someone asks for a stop."""

    def __init__(self, cancelled: Callable[[Recorder], bool] = lambda _: False) -> None:
        super().__init__(lambda: cancelled(self), utc_now)
        self.reports: list[tuple[float | None, str]] = []

    def report_progress(self, fraction: float | None, message: str) -> None:
        self.reports.append((fraction, message))

    @property
    def lines(self) -> str:
        return self.log.decode()


@functools.cache
def examples() -> Registry:
    """Return the examples as a host has them; read once, because reading them takes as long as running one."""
    registry = Registry()
    load_directory(registry, TOOLS)
    assert [] == registry.problems
    return registry


def run_here(tool: str, *argv: str) -> tuple[Task, str]:
    """Run a call in this process; return the task that is done, and what the agent reads of it."""
    store = MemoryTaskStore(language="en")
    done = run_task(store, examples(), store.submit(tool, *argv).id)
    assert done is not None
    return done, store.notifications.peek()[0].text


def call_here(workspace: Recorder, tool: str, *argv: str, task: Task | None = None) -> tuple[Report, Task]:
    """Make a call in this process with a workspace of our own; return what came of it, and for which task."""
    task = task or MemoryTaskStore().submit(tool, *argv)
    return call(examples().resolve(tool, argv), task, workspace), task
