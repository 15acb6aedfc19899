"""What changes is shown in place on a terminal that can, and line by line everywhere else; nobody's text steers it."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest
from rich.console import Console
from rich.text import Text

from animaworks_tasks import Cause, Outcome, State, Task, TaskStore
from animaworks_tasks.cli import live, main
from animaworks_tasks.cli.text import TaskView
from animaworks_tasks.store.protocol import Progress
from animaworks_tasks.store.rules import utc_now
from animaworks_tasks.task.states import Event
from tests.conftest import begin, own
from tests.processes import gone, until
from tests.terminals import TOOL, Terminal

HOSTILE = "[bold red]x[/] \x1b[2J\x1b]0;title\x07 \u202e猫 :smile: "
ALTERNATE, ORDINARY, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"

TOOLS = '''\
import time
from pathlib import Path
from animaworks_tasks import Registry, ToolContext

registry = Registry()

@registry.tool("gate", "wait", expected_seconds=0)
def wait(gate: Path, *, context: ToolContext) -> str:
    """Wait until a file is there."""
    context.progress(0.25, "[bold]before[/] the\\x1b[2J gate")
    while not gate.exists():
        context.raise_if_cancelled()
        time.sleep(0.01)
    return "through"
'''


@pytest.fixture
def anima(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mei/tools").mkdir(parents=True)
    (tmp_path / "mei/tools/gate.py").write_text(TOOLS)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody cuts the power in these tests
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(tmp_path / "mei"))
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path / "data"))
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "mei"


@pytest.fixture
def store(anima: Path) -> Iterator[TaskStore]:
    store = TaskStore(anima, durability="process", language="en")
    yield store
    for pid in {task.owner_pid for task in store.list()} - {None, os.getpid()}:
        until(lambda pid=pid: gone(pid))


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert capsys  # whose stdout it is, and another one in the test itself, of the same type
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda _: True)
    monkeypatch.setenv("TERM", "xterm")


# The picture.


def running(*, fraction: float | None = 0.4, message: str = "half way", expected: float | None = 600) -> TaskView:
    now = utc_now()
    task = Task(
        id="0123456789ab", tool="image_gen", subcommand="3d", submitted_at=now - timedelta(seconds=70), attempt=1,
        state=State.RUNNING, started_at=now - timedelta(seconds=64), owner_pid=1,
    )  # fmt: skip
    return TaskView(task=task, now=now, expected=expected, progress=Progress(fraction, message, now))


def pending(number: int) -> TaskView:
    task = Task(id=f"{number:012x}", tool=HOSTILE, submitted_at=utc_now())
    return TaskView(task=task, now=utc_now(), expected=None, progress=None)


def ended(number: int, outcome: Outcome, *, result: str | None = None) -> TaskView:
    now = utc_now()
    then = now - timedelta(seconds=64)
    task = Task(
        id=f"{number:012x}", tool="web", submitted_at=then, state=State.DONE, attempt=1, started_at=then,
        finished_at=now, outcome=outcome, result=result,
    )  # fmt: skip
    return TaskView(task=task, now=now, expected=None, progress=None)


def drawn(
    *views: TaskView, remarks: tuple[str, ...] = (), width: int = 110, height: int = 24, color: str | None = None
) -> list[str]:
    """Return the lines of the picture; with *color* as escape sequences."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, _environ={"TERM": "xterm"})
    if color is None:
        console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(live.picture(views, remarks, width, height))
    file = console.file
    assert isinstance(file, io.StringIO)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_task_is_shown_with_progress_and_with_its_time_against_what_was_expected() -> None:
    heading, line = drawn(running())
    assert ["ID", "TOOL", "STATE", "TIME", "PROGRESS"] == heading.split()
    assert re.fullmatch(r"0123456789ab  image_gen:3d  running  1 min 4 s of 10 min  ━{5}╸? +40% half way", line)


def test_what_colour_tells_a_word_tells_too() -> None:
    late = drawn(running(expected=60))[1]
    assert "1 min 4 s of 1 min" in late
    assert "overdue; 40% half way" in late
    coloured = drawn(running(expected=60), color="yes")[1]
    assert "\x1b[1;31moverdue\x1b[0m" in coloured
    assert "\x1b[1;31m" not in "".join(drawn(running(), color="yes"))


@pytest.mark.parametrize("width", [20, 44, 79, 80, 99, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    done = ended(255, Outcome.COMPLETED, result="猫" * 99)
    views = [running(), running(expected=1), pending(1), done]
    lines = drawn(*views, remarks=("no host is listening, " * 4,), width=width)
    assert all(Text(line).cell_len <= width for line in lines)
    if width >= 44:
        assert "overdue" in "".join(lines)
        assert [view.task.id[:6] for view in views] == [line[:6] for line in lines[1:5]]


@pytest.mark.parametrize("width", [60, 80, 100, 150])
def test_tasks_of_one_tool_are_distinguished_by_their_arguments(width: int) -> None:
    """And where they run late, that stands before it; a row stays a row."""
    prompts = ("a red cat", "a tabby cat " * 50, HOSTILE)
    views = [attrs.evolve(running(expected=60), argv=("3d", prompt)) for prompt in prompts]
    _, *lines = drawn(*views, width=width)
    assert 3 == len(lines)
    assert all("overdue; '" in line for line in lines)
    assert 3 == len({line.partition("overdue; ")[2][:9] for line in lines})
    assert width < 100 or "'a red cat'; 40% " in lines[0]


def test_nothing_that_a_tool_or_a_submitter_wrote_steers_the_terminal() -> None:
    lines = drawn(running(message=HOSTILE), pending(1), remarks=(HOSTILE,), width=150)
    assert "\x1b" not in "".join(lines)
    assert "\u202e" not in "".join(lines)
    shown_text = "[bold red]x[/] [2J ]0;title 猫 :smile:"
    assert shown_text in lines[1]
    assert shown_text in lines[2]
    assert shown_text == lines[3]


def test_what_has_no_room_is_counted_and_what_was_done_last_keeps_some() -> None:
    done = [ended(number, Outcome.CANCELLED) for number in range(100, 110)]
    lines = drawn(running(), *map(pending, range(50)), *done, remarks=("more are done",), height=12)
    assert 11 == len(lines)
    assert "0123456789ab" == lines[1][:12]
    assert 2 == sum("cancelled" in line for line in lines)
    assert ["and 53 more, for which there is no room", "more are done"] == lines[-2:]
    assert ["and 9 more, for which there is no room"] == drawn(*map(pending, range(9)), height=1)


def test_a_picture_of_nothing_is_its_remarks() -> None:
    assert ["no tasks"] == drawn(remarks=("no tasks",))
    assert "PROGRESS" not in drawn(pending(1))[0]


def test_progress_without_an_end_has_no_bar() -> None:
    assert "━" not in drawn(running(fraction=None))[1]


# Where it is shown.


@pytest.mark.parametrize("term", [None, "dumb", "unknown"])
def test_a_terminal_that_can_only_print_lines_is_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, term: str | None
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    assert not isinstance(live.screen(whole=True), live.Screen)


@pytest.mark.usefixtures("on_a_terminal")
def test_without_rich_there_is_no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    assert isinstance(live.screen(whole=True), live.Screen)
    monkeypatch.setenv("TTY_INTERACTIVE", "0")
    assert not isinstance(live.screen(whole=True), live.Screen)
    _without_rich(monkeypatch)
    assert not isinstance(live.screen(whole=True), live.Screen)


def _without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)


@pytest.mark.parametrize("words", [["submit", "gate", "wait", "x"], ["list"], ["run", "--until-idle"], ["--help"]])
@pytest.mark.usefixtures("anima")
def test_rich_is_imported_for_a_picture_only(words: list[str]) -> None:
    program = "import sys; from animaworks_tasks.cli import main; main(sys.argv[1:]); print('rich' in sys.modules)"
    if words[0] == "run":
        words = [*words, "--backend", "thread"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
    assert "False" == done.stdout.splitlines()[-1]


@pytest.mark.usefixtures("on_a_terminal")
def test_a_line_is_printed_above_the_picture_by_any_thread(capsys: pytest.CaptureFixture[str]) -> None:
    # given
    screen = live.screen(whole=False)
    assert isinstance(screen, live.Screen)
    screen.put("before")
    with screen:
        screen.show([running()], ["one running"])
        capsys.readouterr()
        # when
        for act in (lambda: screen.put("a line [bold]of[/] 猫 " + "x" * 200), lambda: screen.say("a remark")):
            thread = threading.Thread(target=act)
            thread.start()
            thread.join()
        # then
        said = capsys.readouterr()
        assert re.search(r"a line \[bold\]of\[/\] 猫 x{200}\r?\n.*0123456789ab.*one running", said.out, re.DOTALL)
        assert re.search(r"animaworks-tool: a remark\r?\n.*0123456789ab.*one running", said.out, re.DOTALL)
        assert "" == said.err
    screen.put("after")
    assert capsys.readouterr().out.endswith("after\n")


@pytest.mark.usefixtures("on_a_terminal")
def test_a_remark_goes_to_stderr_where_that_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = live.screen(whole=False)
    assert isinstance(screen, live.Screen)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    with screen:
        screen.say("kept in a file")
    assert b"animaworks-tool: kept in a file\n" == sys.stderr.buffer.getvalue()  # type: ignore[attr-defined]  # BytesIO
    assert "kept" not in capsys.readouterr().out


# list --watch


def test_a_watch_shows_changes_in_place_and_leaves_the_terminal_as_it_was(store: TaskStore) -> None:
    task = store.submit("image_gen", "3d", expected_seconds=0)
    with Terminal([*TOOL, "list", "--watch"], columns=150) as terminal:
        terminal.sees(task.id, "pending", "no host is listening")
        assert ALTERNATE in terminal.raw
        store.workspace(task.id)
        claim = own(store, task.id)
        store.workspace(task.id).report_progress(0.5, HOSTILE)
        terminal.sees("running", "overdue; 50% [bold red]x[/] [2J ]0;title 猫 :smile:")
        store.finish(claim, Event.FAIL, cause=Cause.TOOL, error="no cat\x1b[2J")
        terminal.sees("failed", "tool: no cat [2J")
        terminal.type("\x03")
        assert 130 == terminal.end()
        assert ORDINARY in terminal.raw
        after = terminal.raw.rpartition(ORDINARY)[2]
    assert terminal.raw.rindex(CURSOR) > terminal.raw.index(ALTERNATE)
    assert re.search(rf"{task.id}  image_gen:3d  failed .*tool: no cat", after)
    assert "Traceback" not in terminal.text
    assert "]0;title\x07" not in terminal.raw


def test_a_watch_fits_a_terminal_whose_size_changes(store: TaskStore) -> None:
    task = own(store, store.submit("image_gen", "3d", expected_seconds=0).id).task
    with Terminal([*TOOL, "list", "--watch"], columns=150) as terminal:
        terminal.sees(f"{task.id}  image_gen:3d  running")
        for columns, words in ((60, f"{task.id[:6]}  image_gen:3d  "), (90, f"{task.id}  image_gen:3d  running")):
            terminal.resize(columns=columns)
            terminal.sees(words, "overdue")
        terminal.type("\x03")
        assert 130 == terminal.end()


def test_a_watch_without_colour_has_none(store: TaskStore) -> None:
    own(store, store.submit("image_gen", "3d", expected_seconds=0).id)
    with Terminal([*TOOL, "list", "--watch"], environment={"NO_COLOR": "1"}) as terminal:
        terminal.sees("overdue")
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]", terminal.raw)


def test_a_watch_that_is_terminated_leaves_the_terminal_in_order(store: TaskStore) -> None:
    task = store.submit("web", "fetch")
    with Terminal([*TOOL, "list", "--watch"]) as terminal:
        terminal.sees(task.id)
        terminal.process.send_signal(signal.SIGTERM)
        assert -signal.SIGTERM == terminal.end()
    assert terminal.raw.rindex(ORDINARY) > terminal.raw.rindex(ALTERNATE)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed, and job control is a shell's")
def test_a_watch_is_stopped_with_ctrl_z_and_goes_on(store: TaskStore) -> None:
    task = store.submit("web", "fetch")
    with Terminal(["bash", "--norc", "--noprofile", "-i"]) as terminal:
        program = "'import sys; from animaworks_tasks.cli import main; sys.exit(main())'"
        terminal.type(f"{sys.executable} -c {program} list --watch\n")
        terminal.sees(task.id)
        terminal.type("\x1a")
        terminal.sees("Stopped")
        assert terminal.raw.rindex(ORDINARY) > terminal.raw.rindex(ALTERNATE)
        terminal.type("fg\n")
        terminal.sees(task.id)
        until(lambda: terminal.sees("") is not None and terminal.raw.rindex(ALTERNATE) > terminal.raw.rindex(ORDINARY))
        terminal.type("\x03")
        terminal.sees("$ " if os.getuid() else "# ")
        terminal.type("echo status=$?\n")
        terminal.sees("status=130")


def test_where_there_is_no_terminal_a_watch_prints_the_list_when_it_has_changed(store: TaskStore) -> None:
    task = store.submit("image_gen", "3d")
    with subprocess.Popen(
        [*TOOL, "list", "--watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n", process.stdout.readline())
        assert "ID" in process.stdout.readline()
        assert f"{task.id}  image_gen:3d  pending" in process.stdout.readline()
        own(store, task.id)
        assert "\n" == process.stdout.readline()
        process.stdout.readline()
        process.stdout.readline()
        assert f"{task.id}  image_gen:3d  running" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert (130, "") == (process.returncode, out)
    assert 1 == err.count("no host is listening")
    assert "Traceback" not in err


def test_a_list_in_which_only_the_time_has_changed_is_not_printed_again(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is a signal that somebody ignores more than the end of the watch."""
    begin(store)
    rests = iter([lambda: None, lambda: store.submit("web", "fetch"), lambda: os.kill(os.getpid(), signal.SIGTERM)])
    monkeypatch.setattr(live.Signals, "rest", lambda *_: next(rests)())
    monkeypatch.setattr(signal, "raise_signal", lambda _: None)
    assert 0 == main(["list", "--watch"])
    assert 2 == capsys.readouterr().out.count("image_gen:3d")


@pytest.mark.usefixtures("on_a_terminal")
def test_a_watch_without_rich_says_how_to_have_more(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(store)
    _without_rich(monkeypatch)
    monkeypatch.setattr(TaskStore, "read_progress", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert 130 == main(["list", "--watch"])
    said = capsys.readouterr()
    assert "with rich: pip install 'animaworks_tasks[rich]'" in said.err
    assert 1 == said.out.count("image_gen:3d")


@pytest.mark.usefixtures("on_a_terminal")
def test_a_watch_in_this_process_ends_with_ctrl_c(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(store)
    monkeypatch.setattr(TaskStore, "read_progress", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    assert 130 == main(["list", "--watch"])
    before, _, after = capsys.readouterr().out.partition(ORDINARY)
    assert ALTERNATE in before
    assert "image_gen:3d" in after


@pytest.mark.usefixtures("anima")
def test_a_watch_has_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(["list", "--watch", "-j"])
    assert "--watch is for people, and -j for programs: leave out one" in capsys.readouterr().err


# run


def test_a_host_shows_what_runs_below_what_happened(store: TaskStore, tmp_path: Path) -> None:
    first, second = (store.submit("gate", "wait", str(tmp_path / "gate")) for _ in range(2))
    with Terminal([*TOOL, "run", "--max-workers", "1", "--backend", "thread"]) as terminal:
        terminal.sees("Ctrl-C waits for what runs", f"{first.id} gate:wait /", "/gate started")
        terminal.sees("PROGRESS", "overdue; /", "/gate; 25% [bold]", "1 running, 1 waiting")
        terminal.type("\x03")
        terminal.sees(
            f"starting nothing more, and waiting for {first.id} gate:wait", "1 waiting; starting nothing more"
        )
        (tmp_path / "gate").touch()
        assert 0 == terminal.end()
    assert re.search(rf"{first.id} gate:wait /\S+/gate completed in", terminal.text)
    assert "left pending, for the next host to run: 1 task" in terminal.text
    assert terminal.raw.rindex(CURSOR) > terminal.raw.rindex("starting nothing more")
    assert ALTERNATE not in terminal.raw
    assert State.PENDING is store.get(second.id).state


@pytest.mark.usefixtures("on_a_terminal")
def test_a_host_draws_a_picture_in_this_process_too(
    store: TaskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A look that the disk refuses, and Ctrl-Z, which nobody answers here, change nothing."""
    task = store.submit("gate", "wait", str(tmp_path / "gate"))
    shown = live.Screen.show
    looked = iter([True])
    waiting = TaskStore.pending_ids

    def pending_ids(store: TaskStore) -> set[str]:
        if threading.current_thread() is threading.main_thread():
            raise OSError
        return waiting(store)

    def show(screen: live.Screen, views: list[TaskView], remarks: list[str]) -> None:
        shown(screen, views, remarks)
        if views and views[0].progress is not None and next(looked, False):
            monkeypatch.setattr(TaskStore, "pending_ids", pending_ids)
            os.kill(os.getpid(), signal.SIGTSTP)
            (tmp_path / "gate").touch()

    paused: list[int] = []
    monkeypatch.setattr(live.Screen, "show", show)
    monkeypatch.setattr(signal, "raise_signal", paused.append)
    assert 0 == main(["run", "--until-idle", "--backend", "thread"])
    assert [signal.SIGTSTP] == paused
    out = capsys.readouterr().out
    assert re.search(rf"{task.id} gate:wait /\S+/gate completed in", out)
    assert "1 running, 0 waiting" in out


@pytest.mark.usefixtures("on_a_terminal")
def test_a_terminal_that_is_gone_is_an_error_and_no_traceback(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    begin(store)
    monkeypatch.setattr(sys.stdout, "write", refuse)
    assert 1 == main(["list", "--watch"])
    said = capsys.readouterr().err
    assert "Input/output error" in said
    assert "Traceback" not in said
