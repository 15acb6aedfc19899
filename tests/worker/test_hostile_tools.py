"""Hostile tools: each costs its own task, which says what became of it; the next one finds everything in its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from animaworks_tasks import Cause, Executor, Outcome, ProcessBackend, State, Task, TaskStore
from animaworks_tasks.backends import process_tree
from tests.hostile_tools import registry
from tests.processes import PATIENCE, gone, state, until
from tests.reliability.counts import FULL, count

MIB: Final = 1 << 20
LARGE: Final = 1024 if FULL else 200  # MiB

pytestmark = pytest.mark.slow


class Host:
    """One executor with one supervisor, so that each task runs where the one before it has been."""

    def __init__(self, anima_dir: Path) -> None:
        self.store = TaskStore(anima_dir, language="en", durability="process")
        self.executor = Executor(
            self.store, registry, backend=ProcessBackend(), max_workers=1, scan_interval=0.05
        ).start()

    def submit(self, *argv: object, **options: Any) -> str:  # noqa: ANN401 - those of Executor.submit
        return self.executor.submit_sync("hostile", *map(str, argv), **options).id

    def wait(self, task_id: str) -> Task:
        return self.executor.wait_sync(task_id, timeout=PATIENCE)

    def run(self, *argv: object, **options: Any) -> Task:  # noqa: ANN401 - as above
        return self.wait(self.submit(*argv, **options))

    def log(self, task_id: str) -> bytes:
        return self.store.read_log(task_id)

    def notification(self, task_id: str) -> str:
        """Return the one notification of a task."""
        [notification] = [
            notification for notification in self.store.notifications.peek() if notification.task_id == task_id
        ]
        return notification.text


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("mei"))
    yield host
    host.executor.stop(drain_timeout=PATIENCE)


@attrs.frozen
class Fate:
    """How a task ends, with these words in its notification."""

    cause: Cause | None
    words: str
    timeout: float | None = None


CRASHED: Final = "the tool's process {} in the middle of the call"
BROKEN: Final = Fate(Cause.CRASHED, "invalid report on its connection")

ENDINGS: Final[dict[str, tuple[tuple[object, ...], Fate]]] = {
    # how it leaves
    "sys.exit(0)": (("exit", 0), Fate(None, "completed")),
    "sys.exit(3)": (("exit", 3), Fate(Cause.TOOL, "it ended with exit status 3 and said nothing")),
    "sys.exit with words": (("exit", "words"), Fate(Cause.TOOL, "words")),
    "sys.exit with half a character": (("exit-not-utf-8",), Fate(Cause.TOOL, r"\ud800 is half a character")),
    "os._exit(0)": (("_exit", 0), Fate(Cause.CRASHED, CRASHED.format("ended with exit status 0"))),
    "os._exit(3)": (("_exit", 3), Fate(Cause.CRASHED, CRASHED.format("ended with exit status 3"))),
    "a segmentation fault": (("segfault",), Fate(Cause.CRASHED, CRASHED.format("was killed by SIGSEGV"))),
    "abort": (("abort",), Fate(Cause.CRASHED, CRASHED.format("was killed by SIGABRT"))),
    "recursion without end": (("recurse",), Fate(Cause.TOOL, "RecursionError: maximum recursion depth exceeded")),
    "more memory than there is": (("eat",), Fate(Cause.TOOL, "MemoryError")),
    # what it prints
    "output without end": (("talk", r"\n"), Fate(Cause.TIMEOUT, "it was stopped: 1 process ended", 0.7)),
    "output without end and without a line end": (("talk", ""), Fate(Cause.TIMEOUT, "1 process ended", 0.7)),
    f"a result of {LARGE} MiB": (("large", LARGE), Fate(None, "Whole result: animaworks-tool show --result")),
    # what it returns
    "a result that cannot be pickled": (("return", "a lock"), Fate(None, "unlocked _thread.lock object")),
    "a result that has no words": (("return", "mute"), Fate(Cause.RESULT, "SystemError: no words")),
    "a result that never ends": (("return", "endless"), Fate(Cause.RESULT, "RecursionError")),
    "a result with something mute in it": (("return", "a mute in a list"), Fate(Cause.RESULT, "no words")),
    "a result that holds itself": (("return", "a ring"), Fate(None, "[[...]]")),
    "a result that is not UTF-8": (("return", "half a character"), Fate(None, r"\ud800")),
    "a result of bytes": (("return", "bytes"), Fate(None, "completed: \ufffd\ufffd")),
    "a result without end": (("return", "a number without end"), Fate(None, "inf")),
    # what it raises
    "an exception that has no words": (("raise", "dumb"), Fate(Cause.TOOL, "Dumb (which cannot be printed)")),
    "an exception that leaves": (("raise", "leaving"), Fate(Cause.TOOL, "Leaver (which cannot be printed)")),
    "an exception of 10 MB": (("raise", "10 MB"), Fate(Cause.TOOL, "ValueError: xxx")),
    "a group of exceptions": (("raise", "a group"), Fate(Cause.TOOL, "ValueError: one; Dumb (which cannot be")),
    "an exception that is not UTF-8": (("raise", "half a character"), Fate(Cause.TOOL, r"ValueError: \ud800")),
    "a hint that is none": (("raise", "a hint that is none"), Fate(Cause.TOOL, "What to do: (which cannot be")),
    "a hint of 10 MB": (("raise", "a hint of 10 MB"), Fate(Cause.TOOL, "What to do: xxx")),
    "an interrupt from no keyboard": (("raise", "an interrupt"), Fate(Cause.TOOL, "KeyboardInterrupt")),
    "the exit of a generator": (("raise", "a generator's exit"), Fate(Cause.TOOL, "GeneratorExit")),
    # what it closes
    "closed standard descriptors": (("close", "standard"), Fate(None, "closed")),
    "closed descriptors": (("close", "all"), Fate(Cause.CRASHED, CRASHED.format("ended with exit status 0"))),
    "closed streams": (("close", "streams"), Fate(None, "closed")),
    "replaced streams": (("close", "replaced"), Fate(None, "closed")),
    # what it says to its supervisor
    "half a line to the supervisor": (("babble", "half a line"), BROKEN),
    "a report and more": (
        ("babble", "a report and more"),
        Fate(Cause.CRASHED, "more than one report on its connection"),
    ),
    "no report": (("babble", "no report"), Fate(Cause.CRASHED, "on its connection")),
    "a pickle": (("babble", "no JSON"), Fate(Cause.CRASHED, "on its connection")),
    "100,000 levels of a report": (("babble", "deep"), Fate(Cause.CRASHED, "on its connection")),
    "2 MiB to the supervisor": (("babble", "a lot"), Fate(Cause.CRASHED, "more than one report on its connection")),
    # what it leaves behind
    "a child that comes back as well": (("fork",), Fate(None, "the parent")),
    "its own log unlinked": (("unlink-log",), Fate(None, "gone")),
    "everything changed": (("spoil",), Fate(None, "completed")),
}


@pytest.mark.parametrize(("call", "fate"), ENDINGS.values(), ids=ENDINGS)
def test_a_hostile_tool_costs_its_own_task_and_no_other(host: Host, call: tuple[object, ...], fate: Fate) -> None:
    count("hostile tools")
    # given a process that is warm, so that the time of the task is its own
    if fate.timeout is not None:
        host.run("echo", "warm")

    # when
    task = host.run(*call, timeout_seconds=fate.timeout)

    # then
    assert (Outcome.FAILED if fate.cause else Outcome.COMPLETED, fate.cause) == (task.outcome, task.cause), task.error
    assert fate.words in host.notification(task.id)
    assert len(host.notification(task.id).encode()) <= 20_000
    assert "fine" == host.run("echo", "fine").result


@pytest.mark.parametrize("how", ["return", "raise"])
def test_what_a_tool_forges_stays_in_its_fence(host: Host, how: str) -> None:
    # when
    text = host.notification(host.run("forge", how).id)

    # then
    outside, _, rest = text.partition("\n```````````text\n")
    inside, _, after = rest.partition("\n```````````\n")
    assert "" == after
    assert "bank:transfer" in inside
    assert not {"\x1b", "\u2028", "\u202e"} & set(text)
    assert 1 == sum(line.startswith("# ") for line in outside.splitlines())
    assert 1 == sum(line.startswith("- Task ID:") for line in outside.splitlines())


# --- what a tool uses up ---


def peak(pid: int) -> int:
    """Return the most memory that a process has had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.parametrize("call", [("large", 64), ("talk", "")], ids=["a large result", "endless output"])
def test_what_a_tool_fills_its_process_with_is_not_in_the_supervisor(host: Host, call: tuple[object, ...]) -> None:
    host.run("echo", "warm")
    supervisor = host.run(*call, timeout_seconds=0.7).owner_pid or 0
    assert peak(supervisor) < 64 * MIB


# --- what a tool leaves in its process ---


def test_a_process_is_as_it_was_after_a_tool_that_changed_all_of_it(host: Host) -> None:
    before = json.loads(host.run("look").result or "")
    host.run("spoil")
    assert before == json.loads(host.run("look").result or "")


@pytest.mark.parametrize("call", [("limit",), ("close", "streams")], ids=["a limit", "streams"])
def test_a_process_that_cannot_be_restored_is_not_used_again(host: Host, call: tuple[object, ...]) -> None:
    before = json.loads(host.run("look").result or "")
    host.run(*call)
    after = json.loads(host.run("look").result or "")
    assert before["process"] != after["process"]
    assert before | {"process": 0} == after | {"process": 0}


@pytest.mark.parametrize(
    ("what", "damage"),
    [
        ("print", "builtins.print was changed"),
        ("open", "builtins.open was changed"),
        ("os", "os.write was changed"),
        ("modules", "loaded modules were removed from sys.modules, or replaced"),
        ("a module", "loaded modules were removed from sys.modules, or replaced"),
        ("signal", None),
    ],
)
def test_what_a_tool_breaks_is_whole_for_the_next_one_and_said_in_its_log(
    host: Host, what: str, damage: str | None
) -> None:
    before = json.loads(host.run("look").result or "")
    broken = host.run("break", what)
    after = json.loads(host.run("look").result or "")
    assert (Outcome.COMPLETED, what) == (broken.outcome, broken.result)
    assert (damage is not None) == (before["process"] != after["process"])
    assert before | {"process": 0} == after | {"process": 0}
    said = "" if damage is None else f"the next call gets another process, because in this one {damage}\n"
    assert said == host.log(broken.id).decode()


@pytest.mark.parametrize("kind", ["daemon", "other"])
def test_a_thread_that_a_tool_left_behind_is_not_heard_in_the_next_task(host: Host, tmp_path: Path, kind: str) -> None:
    # given
    said = tmp_path / "said"
    first = host.run("thread", kind, said)
    assert "early words" == first.result

    # when it speaks while the next task runs
    second = host.run("listen", said)

    # then
    assert ("mine", b"mine\n", b"") == (second.result, host.log(second.id), host.log(first.id))


def test_a_thread_that_a_tool_left_behind_does_not_keep_the_process(tmp_path: Path) -> None:
    # given
    host = Host(tmp_path)
    host.run("thread", "other", tmp_path / "said")
    process = json.loads(host.run("look").result or "")["process"]

    # when
    host.executor.stop(drain_timeout=PATIENCE)

    # then
    until(partial(gone, process))


def test_a_daemon_lives_on_until_its_process_tree_is_ended(tmp_path: Path) -> None:
    # given
    host = Host(tmp_path / "mei")
    daemon = int(host.run("daemon", tmp_path / "pid").result or "")
    assert not gone(daemon)
    assert "fine" == host.run("echo", "fine").result

    # when
    host.executor.stop(drain_timeout=PATIENCE)

    # then
    until(partial(gone, daemon))


def test_a_tool_that_dies_and_leaves_its_socket_to_a_child_has_crashed_at_once(host: Host, tmp_path: Path) -> None:
    task = host.run("fork-and-die", tmp_path / "pid")
    assert "ended with exit status 3" in (task.error or "")
    assert gone(int((tmp_path / "pid").read_text()))


# --- what a tool does to its supervisor ---


def test_a_tool_that_kills_its_supervisor_is_finished_by_the_host_and_notified_once(host: Host) -> None:
    task = host.run("kill-parent")
    assert (Outcome.FAILED, Cause.INTERRUPTED) == (task.outcome, task.cause)
    assert "may have partly run" in host.notification(task.id)
    assert "fine" == host.run("echo", "fine").result


def test_a_supervisor_that_was_stopped_keeps_its_task_until_it_goes_on(host: Host, tmp_path: Path) -> None:
    """Its lock is held, so it lives; nobody else can know better. What it was asked meanwhile, it does then."""
    # given
    task_id = host.submit("stop-parent", tmp_path / "pid")
    until((tmp_path / "pid").exists)
    supervisor = int((tmp_path / "pid").read_text())
    until(lambda: state(supervisor) == "T")

    # when
    host.store.request_cancel(task_id)

    # then
    assert (task_id,) == host.store.recover().alive
    assert State.RUNNING is host.store.get(task_id).state
    os.kill(supervisor, signal.SIGCONT)
    assert Outcome.CANCELLED is host.wait(task_id).outcome


# --- what does not want to be stopped ---


def marked(marker: str) -> list[int]:
    """Return the processes that have *marker* among their arguments."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if marker.encode() in words:
            found.append(int(name))
    return found


@pytest.mark.parametrize("how", ["cancel", "timeout"])
@pytest.mark.parametrize(("tool", "at_least"), [("scatter", 5), ("breed", 2), ("flee", 2)])
def test_nothing_of_a_tool_is_left_once_it_was_stopped(
    host: Host, tmp_path: Path, tool: str, how: str, at_least: int
) -> None:
    # given
    host.run("echo", "warm")
    marker, begun = f"marker-{tmp_path.name}-{os.getpid()}", tmp_path / "begun"
    task_id = host.submit(tool, marker, begun, timeout_seconds=0.8 if how == "timeout" else None)
    until(begun.exists)
    until(lambda: marked(marker))

    # when
    if how == "cancel":
        host.store.request_cancel(task_id)
    task = host.wait(task_id)

    # then
    assert (Outcome.CANCELLED if how == "cancel" else Outcome.FAILED) is task.outcome
    words = (task.error or "").partition("it was stopped: ")[2]
    assert words.endswith(" processes ended")
    assert int(words.split()[0]) >= at_least
    assert [] == marked(marker)
    assert "fine" == host.run("echo", "fine").result


def test_a_process_that_was_given_the_id_of_another_is_not_signalled() -> None:
    """We ourselves play the stranger, and would not survive it."""
    stranger = process_tree._Process(os.getpid(), started=0)
    process_tree._signal(stranger, signal.SIGKILL)
    process_tree._kill(stranger)


def test_a_kernel_that_keeps_no_lists_of_children_is_asked_for_all_processes() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        assert [child.pid] == [pid for pid in process_tree._children_of(os.getpid()) if pid == child.pid]
        assert child.pid in process_tree._table_of_processes()[os.getpid()]
        child.kill()


def test_where_there_is_no_pidfd_signals_go_by_id(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    sent: list[tuple[int, int]] = []
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, number)))

    # then
    process_tree._signal(process_tree._Process(4711, 0), signal.SIGTERM)
    assert [(4711, signal.SIGTERM)] == sent


def test_where_only_the_tool_process_is_known_it_is_ended_together_with_its_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given what macOS lacks, and a process that leads a session and has started another
    monkeypatch.setattr(process_tree, "_ON_LINUX", False)
    monkeypatch.delattr(os, "waitid")
    monkeypatch.delattr(os, "pidfd_open")
    monkeypatch.setattr(process_tree, "_stat", lambda _: pytest.fail("there is no /proc"))
    script = "trap '' TERM; sleep 600 & echo begun; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as started:
        assert started.stdout is not None
        assert b"begun\n" == started.stdout.readline()
        child = process_tree.Child(started.pid)

        # when
        process_tree.reap(child)
        assert "1 process ended" == process_tree.stop_all(child, 0.1)

        # then
        assert -signal.SIGKILL == child.returncode
        assert b"" == started.stdout.read(), "both have ended, and with them the pipe"


@pytest.mark.parametrize(
    ("ended", "stuck", "words"),
    [
        ([7], [], "1 process ended"),
        ([7, 8, 9], [], "3 processes ended"),
        ([], [7, 9], "0 processes ended, but not 7, 9"),
    ],
)
def test_a_record_says_how_many_were_stopped_and_which_were_not(
    ended: list[int], stuck: list[int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given what the first look finds, and what every other one does, however often it was killed
    looks = chain([ended], repeat(stuck))
    monkeypatch.setattr(process_tree, "_alive", lambda _: [process_tree._Process(pid, 0) for pid in next(looks)])
    monkeypatch.setattr(process_tree, "_signal", lambda *_: None)
    monkeypatch.setattr(process_tree, "_kill", lambda _: None)
    monkeypatch.setattr(process_tree, "_has_children", lambda: False)
    monkeypatch.setattr(process_tree, "_KILLING", 0.0)

    # then
    assert words == process_tree.stop_all(process_tree.Child(7), 0.0)
