"""Nothing that a tool said, or that a record says, controls the terminal on which it is shown."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from animaworks_tasks import Cause, Task, TaskStore
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.states import Event
from tests.processes import PATIENCE

HOSTILE = (
    "\x1b]0;title\x07", "\x1b[31mred", "\x1b[2J", "\x9b31m", "\x90q\x9c", "\u202eabc", "\u2066d", "\u200f", "\x7f",
    "\x08",
)  # fmt: skip
SAID = "x".join(HOSTILE)


def on_terminal(anima: Path, words: Sequence[str], *, seconds: float | None = None) -> bytes:
    """Return what ``animaworks-tool`` writes to a terminal that is its stdin, stdout and stderr."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "animaworks_tasks", "--anima-dir", str(anima), *words]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "200"}
    said = bytearray()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        try:
            while True:
                said += os.read(ours, 1 << 16)
                if seconds is not None and b"hostile" in said:  # it would go on
                    process.terminate()
        except OSError:  # EIO: nobody has the other end open
            pass
        process.wait(PATIENCE)
    os.close(ours)
    return bytes(said)


@pytest.fixture
def store(tmp_path: Path) -> TaskStore:
    return TaskStore(tmp_path / "mei", language="en")


@pytest.fixture
def failed(store: TaskStore) -> Task:
    task = store.submit("hostile", SAID, cwd=f"/{SAID}")
    store.workspace(task.id).write_log(f"é{SAID}\r\nnext\rover".encode() * 20_000)
    claim = store.claim(task.id)
    assert claim is not None
    return store.finish(claim, Event.FAIL, cause=Cause.TOOL, error=SAID, hint=SAID, result=SAID)


@pytest.mark.parametrize(
    "words",
    [
        ["logs"], ["logs", "-f"], ["show"], ["show", "--result"], ["wait"], ["events", "--task"], ["list"],
        ["list", "--all"], ["notifications"], ["report", "--html", "-"], ["show", "-j"], ["logs", "-j"], ["list", "-j"],
    ],
)  # fmt: skip
def test_what_a_task_has_said_controls_no_terminal(store: TaskStore, failed: Task, words: list[str]) -> None:
    ids = [failed.id] if words[0] in {"logs", "show", "wait", "events"} else []
    text = on_terminal(Path(store.location), [*words, *ids]).decode()
    assert "hostile" in text or "next" in text or "title" in text
    assert [] == [each for each in HOSTILE if each in text]
    assert set() == {character for character in text if character < " "} - {"\n", "\r", "\t"}
    assert "\\xc3" not in text, "no character is cut in two"
    assert "\r" not in text.replace("\r\n", ""), "the terminal's own, before each line end"


@pytest.mark.parametrize("words", [["list", "--watch"], ["run"]])
def test_nor_does_it_in_a_live_view(store: TaskStore, words: list[str]) -> None:
    store.submit("hostile", SAID, not_before=utc_now() + timedelta(hours=1))
    task = store.submit("hostile", SAID)
    claim = store.claim(task.id)
    assert claim is not None
    store.workspace(task.id).report_progress(0.5, SAID)
    tools = ["--registry", "tests.hostile_tools"] if words == ["run"] else []
    text = on_terminal(Path(store.location), [*words, *tools], seconds=PATIENCE).decode()
    assert "hostile" in text
    assert [] == [each for each in HOSTILE if each in text and each not in {"\x08", "\x1b[2J"}]


def test_piped_a_log_is_as_the_tool_wrote_it_and_json_escapes_what_controls(store: TaskStore, failed: Task) -> None:
    command = [sys.executable, "-m", "animaworks_tasks", "--anima-dir", store.location]
    log = subprocess.run([*command, "logs", failed.id], capture_output=True, check=True, timeout=PATIENCE).stdout
    assert store.read_log(failed.id) == log
    command += ["-j", "show", failed.id]
    shown = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE).stdout
    assert [] == [each for each in HOSTILE if each in shown.decode()]
    assert SAID == json.loads(shown)["error"]


def test_an_error_on_a_terminal_does_not_either(tmp_path: Path) -> None:
    text = on_terminal(tmp_path / SAID.replace("/", ""), ["list"]).decode()
    assert "there is no directory" in text
    assert [] == [each for each in HOSTILE if each in text]
