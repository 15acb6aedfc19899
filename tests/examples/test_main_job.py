"""The job that all of this is for, as the README tells it: the examples run, and say what their docstrings say."""

from __future__ import annotations

import ast
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from animaworks_tasks import State, TaskStore
from tests.processes import PATIENCE, until

EXAMPLES = Path(__file__).parents[2] / "examples"
TRANSCRIPT = "hello this is a message from the machine\nthe message is waiting for you"


def masked(text: str) -> list[str]:
    """Return the lines of *text* with ids and times blotted out, and what is said again and again said once."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "<id>", re.sub(r"\d+\.\d s", "<time> s", text))
    text = re.sub(r"\d+\.\d of", "<time> of", re.sub(r"host \d+", "host <pid>", text))
    lines = [line.strip() for line in text.strip().splitlines()]
    return [line for number, line in enumerate(lines) if number == 0 or line != lines[number - 1]]


@pytest.mark.slow
def test_an_example_prints_what_its_docstring_says() -> None:
    """Killing the host in the middle of a transcription."""
    # given
    script = EXAMPLES / "restart.py"
    docstring = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or ""
    said = docstring.partition("$ python examples/restart.py\n")[2]

    # when
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE, check=True)

    # then
    assert masked(said) == masked(done.stdout)
    assert "" == done.stderr


@pytest.mark.slow
def test_an_agent_submits_a_recording_goes_on_and_reads_the_transcript(tmp_path: Path) -> None:
    # when
    command = [sys.executable, "examples/anima.py", "examples/hello.wav", "--anima-dir", str(tmp_path), "--beat", "0.1"]
    done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=PATIENCE, check=True)

    # then it has got its receipt, beaten on, and read the notification
    receipt = re.search(r'"task_id": "([0-9a-f]{12})",\n  "status": "submitted"', done.stdout)
    assert receipt is not None, done.stdout
    assert done.stdout.count("beat ") > 3
    assert f"    - Task ID: {receipt[1]}\n    - Tool: transcribe:audio\n    - Status: completed\n" in done.stdout
    assert "".join(f"    {line}\n" for line in TRANSCRIPT.splitlines()) in done.stdout


def write_by_hand(store: TaskStore, audio: Path) -> str:
    """Write a pending record as anyone may: the eight keys that AnimaWorks has, in one write; return its id."""
    record = {
        "task_id": "0123456789ab",
        "tool_name": "transcribe",
        "subcommand": "audio",
        "raw_args": ["audio", str(audio)],
        "anima_name": "mei",
        "anima_dir": store.location,
        "submitted_at": time.time(),
        "status": "pending",
    }
    Path(store.layout.pending, "0123456789ab.json").write_text(json.dumps(record))
    return "0123456789ab"


@pytest.mark.slow
def test_a_record_written_by_hand_is_run_too_and_ctrl_c_ends_the_host(tmp_path: Path) -> None:
    # given a record that was written while no host lived
    store = TaskStore(tmp_path)
    task_id = write_by_hand(store, EXAMPLES / "hello.wav")

    # when the example beats on without an argument
    command = [sys.executable, str(EXAMPLES / "anima.py"), "--anima-dir", str(tmp_path), "--beat", "0.1"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as anima:
        try:
            until(lambda: store.get(task_id).state is State.DONE)
            until(lambda: [line for line in store.events(task_id) if line["event"] == "acknowledged"])
        finally:
            anima.send_signal(signal.SIGINT)
            out, err = anima.communicate(timeout=PATIENCE)

    # then
    assert TRANSCRIPT == store.get(task_id).result
    assert f"    - Task ID: {task_id}\n" in out
    assert ("bye; what still runs goes on, and its notifications wait for this Anima", "") == (
        out.splitlines()[-1],
        err,
    )
