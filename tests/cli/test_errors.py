"""
Every error of ``animaworks-tool``, read by somebody who asks: what do I do now?

A table for each state that an Anima can be in: what was typed, the exit status, and the words that answer. The first
words say what happened; the last ones, what to do. None of it is a traceback, and no answer goes to stdout.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import filelock
import pytest

from animaworks_tasks import Cause, Registry, Task, TaskStore
from animaworks_tasks.cli import main
from animaworks_tasks.task.states import Event
from animaworks_tasks.tools.catalogue import known_tools
from tests.conftest import begin, own

Errors = Sequence[tuple[str, int, Sequence[str]]]  # what is typed, the exit status, and what is said

UNKNOWN: Final = "0123456789ab"
READERS: Final = [f"show {UNKNOWN}", f"logs {UNKNOWN}", f"wait {UNKNOWN}", f"cancel {UNKNOWN}", f"retry {UNKNOWN}"]


@pytest.fixture
def anima(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Anima's directory, empty, named by the environment; and nobody else's tools."""
    (tmp_path / "mei").mkdir()
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody cuts the power in these tests
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(tmp_path / "mei"))
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "mei"


@pytest.fixture
def store(anima: Path) -> TaskStore:
    """An Anima whose host knows one tool."""
    registry = Registry()
    registry.add("words", "count", lambda file, size=3: (file, size), expected_seconds=60, summary="Count words.")
    registry.add("words", "list", lambda: None)
    found = TaskStore(anima, durability="process", language="en")
    found.publish_catalogue(registry.catalogue())
    return found


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[[Errors], None]:
    """Type each line, and see that what is said answers."""

    def check(errors: Errors) -> None:
        for line, status, answers in errors:
            capsys.readouterr()
            found = main(line.split())
            said = capsys.readouterr()
            assert (line, status, "") == (line, found, said.out)
            assert said.err.startswith("animaworks-tool: "), said.err
            assert "Traceback" not in said.err
            missing = [answer for answer in answers if answer not in said.err]
            assert [] == missing, said.err

    return check


Check = Callable[[Errors], None]


def errors(*table: tuple[str, int, Sequence[str]]) -> Errors:
    return table


def test_no_anima_is_named(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANIMAWORKS_ANIMA_DIR", raising=False)
    answers = [
        "no Anima is named",
        "set ANIMAWORKS_ANIMA_DIR to its directory",
        "--anima-dir DIR",
        "`animaworks-tool run`",
    ]
    commands = ["submit web", "list", "notifications", "events", "doctor", "prune", "report --html x", *READERS]
    check([(command, 1, answers) for command in commands])


def test_the_anima_is_not_there_or_no_directory(check: Check, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nobody, file = tmp_path / "nobody", tmp_path / "file"
    for place, problem in ((nobody, f"there is no directory {nobody}"), (file, f"{file} is no directory")):
        answers = [problem, "correct --anima-dir or ANIMAWORKS_ANIMA_DIR", "make first"]
        check([(f"--anima-dir {place} {command}", 1, answers) for command in ("submit web", "list", "run", "doctor")])


@pytest.mark.usefixtures("store")
def test_a_call_that_no_tool_takes(check: Check) -> None:
    check(
        errors(
            ("submit", 2, ["submit needs the name of a tool", "`animaworks-tool tools` lists them", "usage: "]),
            ("submit word count a", 2, ["there is no tool 'word'", "`animaworks-tool tools`", "did you mean words?"]),
            ("submit zzz", 2, ["there is no tool 'zzz'", "choose from words"]),
            ("submit words", 2, ["words needs a subcommand: count, list", "usage: words {count,list} ..."]),
            ("submit words cuont a", 2, ["no subcommand 'cuont'", "did you mean count"]),
            ("submit words count", 2, ["missing: FILE", "usage: words count FILE"]),
            ("submit words count a b", 2, ["'b' is one word too many", "needs quotes", "usage: words count"]),
            ("submit words count a --siz 4", 2, ["unknown option --siz", "did you mean --size"]),
            ("submit words count a --size big", 2, ["--size must be a whole number, not 'big'", "usage: words count"]),
            ("submit words count a --size", 2, ["--size needs a value", "--size=VALUE"]),
            ("submit --wait words", 2, ["no option --wait here", "--help shows those", "usage: "]),
            (
                "submit --delay tomorrow words",
                2,
                ["--delay 'tomorrow' is no length of time: write it as 90 (seconds), 5m", "usage: "],
            ),
            ("submit --delay -1 words", 2, ["--delay '-1' is no length of time"]),
            ("submit --timeout 0 words", 2, ["--timeout must be at least 0.001, not 0"]),
            ("submit --priority high words", 2, ["--priority must be a whole number, not 'high'"]),
            ("submit --retries -1 words", 2, ["--retries must be at least 0, not -1"]),
            ("submit --key", 2, ["--key needs a value", "usage: "]),
            ("submot words", 2, ["neither a command nor a tool", "did you mean submit?"]),
            ("qqqq", 2, ["neither a command nor a tool", "`animaworks-tool tools` lists the tools"]),
            ("words count a", 1, ["only the host", "`animaworks-tool submit words count a`"]),
            ("words cuont a", 2, ["no subcommand 'cuont'", "did you mean count"]),
        )
    )


@pytest.mark.usefixtures("anima")
def test_a_wrong_command_line(check: Check) -> None:
    check(
        errors(
            ("", 2, ["name a command or a tool", "`animaworks-tool --help` lists them"]),
            ("list --state asleep", 2, ["--state cannot be 'asleep'", "pending", "failed", "usage: "]),
            ("list --limit x", 2, ["--limit must be a whole number, not 'x'", "usage: "]),
            (
                "list --wat",
                2,
                ["there is no option --wat here", "--help shows", "usage: animaworks-tool [--anima-dir DIR] list"],
            ),
            ("show", 2, ["required: ID", "as `list` shows it", "usage: animaworks-tool [--anima-dir DIR] show"]),
            (
                f"wait {UNKNOWN} --timeout soon",
                2,
                ["--timeout 'soon' is no length of time: write it as 90 (seconds), 5m"],
            ),
            ("prune --older-than 3w", 2, ["'3w' is no length of time: write it as 90 (seconds), 5m, 1h30m, 2d"]),
            ("prune --keep -1", 2, ["--keep must be at least 0, not -1"]),
            ("events --since yesterday", 2, ["write it as 90 (seconds), 5m, 1h30m, 2d"]),
            ("guide --language fr", 2, ["'fr'", "choose from ja, en"]),
            ("completion tcsh", 2, ["'tcsh'", "choose from bash, zsh, fish"]),
            ("report", 2, ["required: --html", "usage: "]),
            ("report --html /nowhere/x.html", 1, ["no directory /nowhere", "make it first, or name a file elsewhere"]),
            ("run --backend cloud", 2, ["'cloud'", "choose from process, thread"]),
            ("run", 1, ["nothing could be run: there are no tools in ", "put one there", "--tools or --registry"]),
            ("run --tools nowhere", 1, ["there is no directory nowhere: correct --tools"]),
            ("run --registry no_such_module", 1, ["does not load", "there is no module", "correct the tool"]),
            ("run --registry json", 1, ["neither EXECUTION_PROFILE and cli_main, nor a Registry", "or leave it out"]),
        )
    )


def test_a_task_that_is_unknown_or_not_the_only_one(check: Check, store: TaskStore) -> None:
    answers = [f"no task '{UNKNOWN}' in {store.location}", "`animaworks-tool list --all` shows what is left"]
    check([(command, 1, answers) for command in [*READERS, f"events --task {UNKNOWN}"]])
    check(errors(("show abc", 2, ["'abc' is too short", "at least its first 4 digits"])))
    ids = ["abcd00000001", "abcd00000002"]
    for task_id in ids:
        done = store.submit("words", "list")
        shutil.copy(f"{store.layout.pending}/{done.id}.json", f"{store.layout.pending}/{task_id}.json")
    check(errors(("cancel abcd", 2, ["the beginning of 2 ids", *ids, "write more of it"])))


def test_a_task_that_cannot_do_that_now(check: Check, store: TaskStore) -> None:
    pending, running = store.submit("words", "list"), own(store, store.submit("words", "list").id).task
    done = store.finish(begin(store), Event.COMPLETE, result="x")
    failed = store.finish(begin(store), Event.FAIL, cause=Cause.TOOL, error="no")
    check(
        errors(
            (f"cancel {done.id}", 1, ["had ended already: completed", "nothing was changed"]),
            (f"cancel {failed.id}", 1, ["had ended already: failed", "nothing was changed"]),
            *_not_yet(pending, "pending"),
            *_not_yet(running, "running"),
            (f"retry {done.id}", 2, ["there is no tool 'image_gen'", "`animaworks-tool tools`", "choose from words"]),
            (f"show --result {failed.id}", 1, ["has no result", f"`animaworks-tool show {failed.id}` says why"]),
            (f"wait {pending.id} --timeout 0", 3, ["no host is listening", "`animaworks-tool run`"]),
        )
    )


def _not_yet(task: Task, state: str) -> Errors:
    wait, cancel = f"`animaworks-tool wait {task.id}`", f"`animaworks-tool cancel {task.id}`"
    return errors(
        (f"retry {task.id}", 1, [f"task {task.id} is {state}", "only what is done", wait, cancel]),
        (f"show --result {task.id}", 1, [f"task {task.id} is {state}", wait, "then ask again"]),
    )


@pytest.mark.parametrize(
    "catalogue",
    [
        "", "{", "[]", '{"version": 99, "tools": {}}', '{"version": 1}', '{"version": 1, "tools": []}',
        '{"version": 1, "tools": {"words": 3}}', '{"version": 1, "tools": {"words": {"list": 3}}}',
        '{"version": 1, "tools": {"words": {"list": {}}}}',
        '{"version": 1, "tools": {"words": {"list": {"summary": ""}}}}',
        *(
            '{"version": 1, "tools": {"words": {"list": {"summary": "", "long_running": true, "gated": false, ' + fact
            for fact in (
                '"expected_seconds": 9}}}}', '"expected_seconds": "long", "parameters": null}}}}',
                '"expected_seconds": 9, "parameters": [{"name": "a"}]}}}}',
            )
        ),
    ],
)  # fmt: skip
def test_a_catalogue_that_nobody_understands_stops_nothing(
    store: TaskStore, catalogue: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The host checks what is submitted, and leaves a new one when it starts."""
    Path(store.layout.catalogue).write_text(catalogue)
    assert known_tools(store.layout) in (None, {})
    for line in ("submit words list", "list", "tools", "guide", "words --help", "words list"):
        status = main(line.split())
        said = capsys.readouterr()
        assert (line, 2 if line.startswith("words") else 0) == (line, status)
        assert "Traceback" not in said.err
    assert ["words"] == [task.tool for task in store.list()]


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Let no file of this process grow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_nothing(check: Check, store: TaskStore, tmp_path: Path) -> None:
    pending = store.submit("words", "list")
    done = store.finish(own(store, store.submit("words", "list").id), Event.COMPLETE)
    room = "see that the disk has room"
    with full_disk():
        check(
            errors(
                ("submit words list", 1, ["nothing was queued: File too large", room, "then submit again"]),
                (f"cancel {pending.id}", 1, ["File too large", room]),
                (f"retry {done.id}", 1, ["nothing was queued: File too large", room, "then submit again"]),
                (f"report --html {tmp_path}/x.html", 1, ["the report was not written", room, "name a file elsewhere"]),
            )
        )
    assert [pending.id, done.id] == sorted([task.id for task in store.list()], key=[pending.id, done.id].index)
    assert [] == os.listdir(store.layout.tmp)


@contextlib.contextmanager
def somebody_else(directory: Path, mode: int = 0o555) -> Iterator[None]:
    """Be somebody who may not write to *directory*, or not even look into it."""
    directory.chmod(mode)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)
        directory.chmod(0o755)


def test_a_directory_that_may_not_be_written(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    may = "see that you may read and write there"
    with tempfile.TemporaryDirectory() as open_to_all:  # a directory of pytest's may not even be looked into
        anima = Path(open_to_all, "mei")
        anima.mkdir()
        Path(open_to_all).chmod(0o755)
        monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(anima))
        assert 0 == main(["list", "--help"])  # what it needs is imported while we may read it
        assert 1 == main(["show", UNKNOWN])
        shutil.rmtree(anima / "state")
        with somebody_else(anima):
            check(
                errors(
                    ("submit web", 1, ["nothing was queued: Permission denied", f"({anima}/state", may]),
                    ("list", 1, ["cannot hold tasks: Permission denied", may, "or name another Anima"]),
                    (f"show {UNKNOWN}", 1, ["cannot hold tasks: Permission denied", may]),
                )
            )


def test_something_else_in_the_place_of_a_directory(check: Check, anima: Path) -> None:
    (anima / "state").touch()
    away = "move away what stands in its place"
    check(
        errors(
            ("submit web", 1, ["nothing was queued: Not a directory", f"{anima}/state", away]),
            ("list", 1, ["cannot hold tasks: Not a directory", away, "--anima-dir"]),
            ("notifications", 1, ["cannot hold tasks: Not a directory", away]),
        )
    )


def test_a_file_system_without_locks(check: Check, store: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> bool:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(filelock, "lock_descriptor", refuse)
    check(errors(("list", 1, [store.location, "has no locks", "use a local one", "name another Anima"])))
    monkeypatch.setattr(filelock, "lock_descriptor", lambda *_, **__: True)
    check(errors(("list", 1, [store.location, "locks do not work", "use a local one", "name another Anima"])))


def test_a_store_of_a_format_that_this_release_does_not_know(
    check: Check, store: TaskStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is to be done is not what would be if the disk had refused it."""
    Path(store.layout.format).write_text("animaworks_tasks 99\n")
    refused = [
        f"{store.layout.root} cannot hold tasks: its format is",
        "animaworks_tasks 99",
        "which this release cannot read",
    ]
    check(
        errors(
            ("submit words list", 1, ["nothing was queued", *refused]),
            ("list", 1, [*refused, ", or name another Anima"]),
        )
    )
    for command in (["submit", "words", "list"], ["list"]):
        assert 1 == main(command)
        assert "disk has room" not in capsys.readouterr().err


def test_a_store_in_which_an_earlier_release_is_at_work(check: Check, store: TaskStore) -> None:
    # given
    os.unlink(store.layout.format)
    os.mkdir(f"{store.layout.root}/locks")
    Path(store.layout.running, f"{UNKNOWN}.json").touch()
    # when, then
    refused = ["made by an earlier release", "cannot be converted while tasks run in it"]
    check(errors(("submit words list", 1, ["nothing was queued", *refused]), ("list", 1, refused)))
    assert not Path(store.layout.format).exists()


def test_any_other_error_of_the_system_is_reported_as_it_is(
    check: Check, store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "link", refuse)
    check(
        errors(("submit words list", 1, ["nothing was queued: Input/output error", "the disk has room and that you"]))
    )
    assert [] == list(store.list())


def test_a_record_that_cannot_be_read(check: Check, store: TaskStore) -> None:
    Path(store.layout.done_record(UNKNOWN)).write_text("{")
    check([(command, 1, [UNKNOWN, "not a task record", "`animaworks-tool doctor`"]) for command in READERS])


@pytest.mark.usefixtures("store")
def test_the_help_of_a_tool_that_only_the_host_has(capsys: pytest.CaptureFixture[str]) -> None:
    """The guide says to ask for it, and a host may have its tools in its own code."""
    for line in ("words --help", "--help words"):
        assert 0 == main(line.split())
        assert "usage: animaworks-tool submit words count FILE [--size INT]\n" in capsys.readouterr().out
    assert 0 == main(["words", "count", "--help"])
    assert "words count FILE [--size INT]\n\nCount words.\n\n  FILE\n  [--size INT]" in capsys.readouterr().out


def test_a_store_that_may_not_be_looked_at_is_not_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor is a place where nothing can be kept; and that its tools are not seen does not mean that there are none."""
    with tempfile.TemporaryDirectory() as open_to_all:
        # given
        anima = Path(open_to_all, "mei")
        anima.mkdir()
        Path(open_to_all).chmod(0o755)
        monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(anima))
        assert (0, 0) == (main(["doctor"]), main(["tools"]))
        capsys.readouterr()
        with somebody_else(anima):
            # when, then nothing was submitted there yet
            assert 1 == main(["doctor"])
            assert f"{anima} may not be written by this user" in capsys.readouterr().out
        TaskStore(anima)
        with somebody_else(anima / "state", 0):
            # when, then somebody else has a store there
            assert 1 == main(["doctor"])
            assert f"{anima}/state/background_tasks cannot be looked at: Permission denied" in capsys.readouterr().out
            assert 0 == main(["tools"])
            assert "the host's tools cannot be listed: " in capsys.readouterr().err
