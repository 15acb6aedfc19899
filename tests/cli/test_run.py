"""``animaworks-tool run``: a host in the foreground, and how signals stop it."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from animaworks_tasks import Cause, Executor, Outcome, State, Task, TaskStore
from animaworks_tasks.cli import main
from animaworks_tasks.errors import ExecutorClosedError
from tests.conftest import begin, die
from tests.processes import gone, until

PROGRAM = [sys.executable, "-c", "import sys; from animaworks_tasks.cli import main; sys.exit(main())"]

TOOLS = '''\
"""Tools as somebody would put them into an Anima's directory."""

import time
from pathlib import Path

from animaworks_tasks import Registry, ToolContext, ToolError

registry = Registry()


@registry.tool("gate", "wait", expected_seconds=60)
def wait(gate: Path, *, context: ToolContext) -> str:
    """Wait until a file is there."""
    context.progress(0.25, "before the gate")
    while not gate.exists():
        context.raise_if_cancelled()
        time.sleep(0.01)
    return "through"


@registry.tool("gate", "refuse", retries=1)
def refuse() -> None:
    """Let nobody through."""
    raise ToolError("nobody", hint="go home")


@registry.tool("gate", "echo")
def echo(*words: str) -> str:
    """Say it again."""
    print("about to say it")
    return " ".join(words)
'''


@pytest.fixture
def anima(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Anima with tools, named by the environment."""
    (tmp_path / "mei/tools").mkdir(parents=True)
    (tmp_path / "mei/tools/gate.py").write_text(TOOLS)
    (tmp_path / "mei/tools/bad.py").write_text("def (\n")
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody cuts the power in these tests
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(tmp_path / "mei"))
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "mei"


@pytest.fixture
def store(anima: Path) -> Iterator[TaskStore]:
    """Its store; what a host left running has ended when the test has."""
    store = TaskStore(anima, durability="process")
    yield store
    for pid in {task.owner_pid for task in store.list()} - {None, os.getpid()}:
        until(lambda pid=pid: gone(pid))


class Host:
    """``animaworks-tool run`` in a process of its own."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, "run", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert "serving" in self.process.stdout.readline()

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return exit status, stdout and stderr."""
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err

    def said(self, words: str) -> str:
        """Read its stderr up to the line with these words, and return that."""
        assert self.process.stderr is not None
        return next(line for line in self.process.stderr if words in line)


@pytest.fixture
def start(store: TaskStore) -> Iterator[Callable[..., Host]]:
    """Start hosts; none of them outlives the test."""
    hosts: list[Host] = []

    def start(*words: str) -> Host:
        hosts.append(Host(*words))
        return hosts[-1]

    assert store
    yield start
    for host in hosts:
        with host.process:
            host.process.kill()


def running(store: TaskStore, task: Task) -> bool:
    """Return whether the tool itself runs, not only its supervisor."""
    return store.get(task.id).state is State.RUNNING and store.read_progress(task.id) is not None


@pytest.mark.slow
def test_until_idle_runs_everything_in_processes_and_leaves(store: TaskStore, start: Callable[..., Host]) -> None:
    """Retries are waited for; what somebody delayed is left to the next host."""
    good = store.submit("gate", "echo", "日本語")
    bad = store.submit("gate", "refuse")
    unknown = store.submit("door", "open")
    late = store.submit("gate", "echo", not_before=good.submitted_at.replace(year=2100))
    host = start("--until-idle", "--language", "en")
    status, out, err = host.end()

    assert 0 == status
    assert f"{good.id} gate:echo '日本語' completed in" in out
    assert f"{bad.id} gate:refuse failed in" in out
    assert "did not load" in err
    assert "bad.py" in err
    assert "Traceback" not in err
    assert "left pending, for the next host to run: 1 task" in err
    ended = {task.id: task for task in store.list(State.DONE)}
    assert ("日本語", 2, Cause.REJECTED) == (ended[good.id].result, ended[bad.id].attempt, ended[unknown.id].cause)
    assert State.PENDING is store.get(late.id).state
    assert b"about to say it\n" == store.read_log(good.id)
    assert "# Background task" in store.notifications.peek()[0].text


def test_ctrl_c_waits_for_what_runs_and_leaves_the_rest(
    store: TaskStore, start: Callable[..., Host], tmp_path: Path
) -> None:
    first = store.submit("gate", "wait", str(tmp_path / "gate"))
    second = store.submit("gate", "wait", str(tmp_path / "gate"))
    host = start("--max-workers", "1")
    until(lambda: running(store, first))
    assert host.process.stdout is not None
    assert "⚠ gate wait, gate refuse, gate echo" in host.process.stdout.readline()
    assert re.search(rf"{first.id} gate:wait /\S+…\S+/gate started\n", host.process.stdout.readline())
    host.process.send_signal(signal.SIGINT)
    assert f"waiting for {first.id} gate:wait; Ctrl-C again leaves it running" in host.said("starting nothing more")
    (tmp_path / "gate").touch()
    status, out, err = host.end()

    assert 0 == status
    assert re.search(rf"{first.id} gate:wait /\S+/gate completed in .* s: through\n", out)
    assert "left pending, for the next host to run: 1 task" in err
    assert (Outcome.COMPLETED, State.PENDING) == (store.get(first.id).outcome, store.get(second.id).state)


@pytest.mark.parametrize("signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_a_second_signal_leaves_the_task_running_and_it_ends_by_itself(
    store: TaskStore, start: Callable[..., Host], tmp_path: Path, signals: list[signal.Signals]
) -> None:
    task = store.submit("gate", "wait", str(tmp_path / "gate"))
    host = start()
    until(lambda: running(store, task))
    host.process.send_signal(signals[0])
    for number in signals[1:]:
        host.said("Ctrl-C again leaves it running")
        host.process.send_signal(number)
    status, _, err = host.end()
    assert 0 == status
    assert f"left running, until its tool ends: {task.id} gate:wait" in err
    assert State.RUNNING is store.get(task.id).state

    (tmp_path / "gate").touch()
    done = until(lambda: (found := store.get(task.id)).outcome and found)
    assert "through" == done.result
    until(lambda: [task.id] == [each.task_id for each in store.notifications.peek()])


def test_a_host_whose_reader_has_left_leaves_too(store: TaskStore, start: Callable[..., Host]) -> None:
    task = store.submit("gate", "wait", "/no/such/gate")
    host = start("--json")
    assert host.process.stdout is not None
    host.process.stdout.close()
    assert host.process.stderr is not None
    with host.process:
        err = host.process.stderr.read()
    assert 141 == host.process.returncode
    assert "Traceback" not in err
    store.request_cancel(task.id)
    until(lambda: store.get(task.id).state is State.DONE)


# In this process, with threads: what is printed.


@pytest.fixture
def patched_signals() -> Iterator[None]:
    """Check that a host gives the signals back."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    yield
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


@pytest.mark.usefixtures("patched_signals")
def test_json_tells_each_event_in_a_line(
    store: TaskStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = store.submit("gate", "wait", str(tmp_path / "gate"))
    _when(monkeypatch, lambda: running(store, task), (tmp_path / "gate").touch)
    assert 0 == main(["run", "--json", "--until-idle", "--backend", "thread"])
    serving, *events = map(json.loads, capsys.readouterr().out.splitlines())
    assert ("serving", ["gate:wait", "gate:refuse", "gate:echo"], 1) == (
        serving["event"],
        serving["tools"],
        serving["pending"],
    )
    assert {task.id} == {event["task"]["task_id"] for event in events}
    assert ["started", "progress", "ended"] == [event["event"] for event in events]
    assert ("before the gate", "completed") == (
        events[1]["task"]["progress"]["message"],
        events[2]["task"]["outcome"],
    )


@pytest.mark.usefixtures("patched_signals")
def test_on_a_terminal_that_shows_only_lines_progress_is_printed_once_per_step(
    store: TaskStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = store.submit("gate", "wait", str(tmp_path / "gate"))
    looks = iter(range(100))
    _when(monkeypatch, lambda: running(store, task) and next(looks) == 1, (tmp_path / "gate").touch)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert 0 == main(["run", "--until-idle", "--backend", "thread"])
    said = capsys.readouterr()
    assert 1 == len(re.findall(rf"{task.id} gate:wait /\S+/gate 25% before the gate\n", said.out))
    assert "Ctrl-C waits for what runs and leaves; a second one does not wait" in said.err


@pytest.mark.usefixtures("patched_signals")
def test_a_second_ctrl_c_interrupts_what_runs_in_threads_and_says_so(
    store: TaskStore, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = store.submit("gate", "wait", str(tmp_path / "gate"))

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    _when(monkeypatch, lambda: running(store, task), interrupt)
    assert 0 == main(["run", "--backend", "thread"])
    said = capsys.readouterr()
    assert f"waiting for {task.id} gate:wait; Ctrl-C again interrupts it" in said.err
    assert f"interrupted, and left for the next host to finish: {task.id} gate:wait" in said.err
    (tmp_path / "gate").touch()  # its thread is still in this process
    until(lambda: store.get(task.id).state is State.DONE)


def _when(monkeypatch: pytest.MonkeyPatch, condition: Callable[[], bool], act: Callable[[], None]) -> None:
    """Let a host's look at what runs do *act* each time *condition* holds."""
    listed = TaskStore.list

    def look(store: TaskStore, state: State | None = None, *, limit: int | None = None) -> object:
        found = listed(store, state, limit=limit)
        if state is State.RUNNING and condition():
            act()
        return found

    monkeypatch.setattr(TaskStore, "list", look)


def test_a_disk_that_says_no_is_a_line_and_not_the_end(
    store: TaskStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both what the executor logs and what the host itself cannot see."""
    task = store.submit("gate", "echo")
    listed, failures = TaskStore.list, iter([True, True])

    def look(store: TaskStore, state: State | None = None, *, limit: int | None = None) -> object:
        if next(failures, False):
            logging.getLogger("animaworks_tasks").error("a look failed", exc_info=OSError("disk\non fire"))
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return listed(store, state, limit=limit)

    monkeypatch.setattr(TaskStore, "list", look)
    assert 0 == main(["run", "--backend", "thread", "--until-idle"])
    assert "animaworks-tool: a look failed: disk on fire\n" in capsys.readouterr().err
    assert Outcome.COMPLETED is store.get(task.id).outcome


def test_a_tool_that_no_process_could_find_is_refused_at_the_start(
    anima: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (anima / "tools/odd.py").write_text(
        "from animaworks_tasks import Registry\nregistry = Registry()\nregistry.add('odd', 'one', lambda: None)\n"
    )
    assert 1 == main(["run", "--until-idle"])
    assert "tool 'odd one' cannot be found by another process" in capsys.readouterr().err
    assert 0 == main(["run", "--until-idle", "--backend", "thread"])


@pytest.mark.usefixtures("store")
def test_a_signal_that_comes_before_idle_ends_the_waiting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:

    def interrupted(_: Executor) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise ExecutorClosedError

    monkeypatch.setattr(Executor, "run_until_idle_sync", interrupted)
    assert 0 == main(["run", "--until-idle", "--backend", "thread"])
    assert "closed" not in capsys.readouterr().err


def test_an_orphan_of_another_host_is_not_reported_as_started(store: TaskStore, start: Callable[..., Host]) -> None:
    # given
    claim = begin(store, tool="gate")
    die(claim)
    # when
    status, out, _ = start("--until-idle").end()
    # then
    assert 0 == status
    assert f"{claim.task.id} gate:3d failed: its process died" in out
    assert "started" not in out


def test_what_is_no_task_does_not_wait(store: TaskStore, start: Callable[..., Host]) -> None:
    # given what others left in pending/
    task = store.submit("gate", "echo", "x")
    Path(store.layout.pending, "0123456789ab.json").write_text('{"task_type": "llm"}')
    # when
    process = subprocess.run([*PROGRAM, "run", "--until-idle"], capture_output=True, text=True, timeout=30, check=True)
    # then
    assert start
    assert ": 3 tools, 1 waiting\n" in process.stdout
    assert task.id in process.stdout
