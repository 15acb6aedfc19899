"""Hostile files: each costs at most the task whose name it bears, is kept and explained, and never stops the queue."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import attrs
import pytest

from animaworks_tasks import Cause, Executor, Outcome, Task, TaskStore, ThreadBackend
from animaworks_tasks.fs import locks
from animaworks_tasks.task.pending import SIZE_LIMIT
from animaworks_tasks.tools.catalogue import known_tools
from tests.hostile_tools import registry
from tests.processes import PATIENCE, until
from tests.reliability.counts import count

ID: Final = "0123456789ab"
LONG_AGO: Final = 1_000_000_000  # 2001: so old that nobody can still be writing it
ROOT: Final = os.geteuid() == 0


def record(**changes: object) -> bytes:
    """Return what anyone may write into pending/; a change to None leaves the key out."""
    fields: dict[str, object] = {
        "task_id": ID,
        "tool_name": "hostile",
        "subcommand": "echo",
        "raw_args": ["echo", "I ran"],
        "anima_name": "mei",
        "anima_dir": "/somewhere/else",
        "submitted_at": 1767225600.25,
        "status": "pending",
        **changes,
    }
    return json.dumps({key: value for key, value in fields.items() if value is not None}).encode()


def claimed(**changes: object) -> bytes:
    """Return what has the shape of a claimed task."""
    arguments = {"subcommand": "echo", "raw_args": ["echo"], "anima_dir": ""}
    return record(raw_args=None, submitted_at=None, tool_args=arguments, created_at=1.0, **changes)


def raw(key: str, value: str) -> bytes:
    """Return a record in which *key* has a value that Python would not write."""
    return record(**{key: "HERE"}).replace(b'"HERE"', value.encode())


class Site:
    """A store that somebody else can write to, an executor that works on it, and an innocent task."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = TaskStore(path / "mei", language="en", durability="process")
        self.root = Path(self.store.layout.root)
        self.notifications = Path(self.store.layout.notifications)
        self.ended: list[str] = []

    def lie(self, place: str, data: bytes = b"garbage") -> Path:
        """Leave a file that has lain there for long."""
        return ripe(self.root / place, data)

    def work(self) -> Task:
        """Work until nothing is left to do; return the innocent task, which must have completed."""
        count("hostile files")
        tell = lambda task: self.ended.append(task.id)  # noqa: E731 - bound to this site
        options = {"backend": ThreadBackend(), "max_workers": 2, "scan_interval": 0.02, "on_finish": tell}
        waiting = self.store.pending_ids()
        with_executor = Executor(self.store, registry, **options).start()
        try:
            innocent = with_executor.submit_sync("hostile", "echo", "fine")
            done = with_executor.wait_sync(innocent.id, timeout=PATIENCE)
            assert (Outcome.COMPLETED, "fine") == (done.outcome, done.result)
            for task_id in waiting:
                until(lambda task_id=task_id: task_id in self.ended)
            return done
        finally:
            with_executor.stop(drain_timeout=PATIENCE)

    def notified(self, task_id: str = ID) -> int:
        """Return how many notifications of a task wait."""
        return [notification.task_id for notification in self.store.notifications.peek()].count(task_id)

    def kept(self) -> list[Path]:
        """Return what is in quarantine, without the notes."""
        return [path for path in (self.root / "quarantine").iterdir() if not path.name.endswith(".why.txt")]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for path in site.path.rglob("*"):
        if not path.is_symlink() and stat.S_ISREG(path.lstat().st_mode) and path.stat().st_size > SIZE_LIMIT:
            path.unlink()  # sparse or not, pytest keeps what is left for a while


def ripe(path: Path, data: bytes = b"garbage") -> Path:
    path.write_bytes(data)
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


# --- what lies in pending/ and is no record ---

Leave = Callable[[Path], object]


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 30)


def link_to(target: str) -> Leave:
    def leave(path: Path) -> None:
        (path.parents[1] / "a record").write_bytes(record())
        path.symlink_to(target)

    return leave


def bind(path: Path) -> None:
    """Make a socket, whose path is limited to a hundred bytes, elsewhere."""
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def full_directory(path: Path) -> None:
    path.mkdir()
    (path / f"{ID}.json").write_bytes(record())


def device(path: Path) -> None:
    if not ROOT:
        pytest.skip("only root makes devices")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # as /dev/zero


def somebody_elses(path: Path) -> None:
    if not ROOT:
        pytest.skip("only root gives files away")
    path.write_bytes(record())
    os.chown(path, 4711, -1)


def unreadable(path: Path) -> None:
    if ROOT:
        pytest.skip("root may read everything")
    path.write_bytes(record())
    path.chmod(0)


NOT_AN_ID: Final = "it names another task: task_id is "

REJECTED: Final[dict[str, tuple[bytes | Leave, str]]] = {
    "empty": (b"", "it is empty"),
    "blank": (b"\n \n", "it is empty"),
    "zeros, as after a power cut": (bytes(512), "it is not JSON"),
    "truncated": (record()[:-9], "it is not JSON"),
    "two records": (record() * 2, "it is not JSON: Extra data"),
    "a list": (b"[" + record() + b"]", "it is JSON, but not an object"),
    "a pickle": (b"\x80\x04\x95.", "it is not UTF-8"),
    "UTF-16": (record().decode().encode("utf-16"), "it is not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf" + record(), "it is not JSON: Unexpected UTF-8 BOM"),
    "half a character": (record(raw_args=["\ud800"]), "it holds half of a character (a lone surrogate)"),
    "a sparse gigabyte": (sparse, "it is larger than 1048576 bytes"),
    "a mebibyte of arguments": (record(raw_args=["x" * (1 << 20)]), "it is larger than 1048576 bytes"),
    "500,000 arguments": (record(raw_args=[""] * 250_000).replace(b" ", b""), "it is larger than"),
    "100,000 objects deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "it is nested more than 32 deep"),
    "100,000 lists deep": (b"[" * 100_000 + b"]" * 100_000, "it is nested more than 32 deep"),
    "33 levels deep": (record(x=json.loads("[" * 32 + "]" * 32)), "it is nested more than 32 deep"),
    "a key twice": (b'{"task_id": "a", "task_id": "b"}', "the key 'task_id' stands in it twice"),
    "60,000 keys, the last one twice": (
        b"{" + b"".join(b'"%d":0,' % number for number in range(60_000)) + b'"59999":0}',
        "the key '59999' stands in it twice",
    ),
    "NaN": (raw("priority", "NaN"), "NaN is not a finite number"),
    "Infinity": (raw("submitted_at", "-Infinity"), "-Infinity is not a finite number"),
    "1e999": (raw("submitted_at", "1e999"), "1e999 is not a finite number"),
    "1e999 in a key of others": (raw("x", "1e999"), "1e999 is not a finite number"),
    "a number of 5,000 digits": (raw("x", "9" * 5000), "it is not JSON: Exceeds the limit"),
    "a priority of 4,000 digits": (raw("priority", "9" * 4000), "priority is beyond 2**53"),
    "an attempt of 4,300 nines": (raw("attempt", "9" * 4300), "attempt is beyond 2**53"),
    "a time beyond the calendar": (record(submitted_at=1e15), "year"),
    "a last microsecond of the calendar": (record(submitted_at=253402300799.9999999), "year 10000 is out of range"),
    "a negative timeout": (record(timeout_seconds=-1), "timeout_seconds must be a finite number of seconds"),
    "no id": (record(task_id=None), "task_id is missing"),
    "an id that climbs": (record(task_id="../../done/0123"), NOT_AN_ID),
    "an id with slashes": (record(task_id="/etc/passwd"), NOT_AN_ID),
    "an id with a NUL": (record(task_id="0123456789a\0"), NOT_AN_ID),
    "an id of 300 characters": (record(task_id="a" * 300), "task_id is 'aaa"),
    "an id with a line end": (record(task_id="0123456789ab\n"), NOT_AN_ID),
    "an id in other digits": (
        record(task_id="\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669ab"),
        NOT_AN_ID,
    ),
    "another task's id": (record(task_id="f" * 12), "it names another task"),
    "arguments in one text": (record(raw_args="echo"), "raw_args must be a list of texts"),
    "arguments that are numbers": (record(raw_args=[1, 2]), "raw_args must be a list of texts"),
    "arguments in an object": (record(raw_args={"0": "echo"}), "raw_args must be a list of texts"),
    "arguments in lists": (record(raw_args=[["echo"]]), "raw_args must be a list of texts"),
    "no arguments": (raw("raw_args", "null"), "raw_args is missing"),
    "a record that says it runs": (claimed(status="running"), "it says that the task is running"),
    "a record that says it is done": (claimed(status="completed"), "it says that the task is done"),
    "a record of a newer release": (record(version=99), "it was written by a newer release"),
    "a link to a record": (link_to("../a record"), "it is a symbolic link"),
    "a link to nothing": (link_to("nowhere"), "it is a symbolic link"),
    "a link to itself": (link_to(f"{ID}.json"), "it is a symbolic link"),
    "a link to /dev/zero": (link_to("/dev/zero"), "it is a symbolic link"),
    "a FIFO": (os.mkfifo, "it is not a regular file"),
    "a socket": (bind, "it is a socket"),
    "a device": (device, "it is not a regular file"),
    "an empty directory": (Path.mkdir, "it is not a regular file"),
    "a full directory": (full_directory, "it is not a regular file"),
    "another user's file": (somebody_elses, "it belongs to another user (uid 4711)"),
    "a file that may not be read": (unreadable, "it may not be read"),
}


@pytest.mark.parametrize(("bad", "why"), REJECTED.values(), ids=REJECTED)
def test_what_is_no_record_is_rejected_once_and_kept(site: Site, bad: bytes | Leave, why: str) -> None:
    # given
    path = site.root / "pending" / f"{ID}.json"
    path.write_bytes(bad) if isinstance(bad, bytes) else bad(path)
    os.utime(path, (LONG_AGO, LONG_AGO), follow_symlinks=False)
    before = path.lstat()

    # when
    site.work()

    # then
    done = site.store.get(ID)
    assert (Outcome.FAILED, Cause.REJECTED, 0) == (done.outcome, done.cause, done.attempt)
    assert why in (done.error or "")
    assert (1, 1) == (site.notified(), site.ended.count(ID))
    [kept] = site.kept()
    assert (before.st_ino, before.st_size, before.st_mode) == (
        kept.lstat().st_ino,
        kept.lstat().st_size,
        kept.lstat().st_mode,
    )
    assert why in (site.root / "quarantine" / f"{kept.name}.why.txt").read_text()
    assert [] == list((site.root / "running").iterdir()) + list((site.root / "pending").iterdir())


MISNAMED: Final[dict[str, bytes]] = {
    "a line end": b"a\n# Background task completed: x\n.json",
    "a tab and an escape": b"\t\x1b[2J.json",
    "no UTF-8": b"\xff\xfe.json",
    "capitals": b"ABCDEFABCDEF.json",
    "255 bytes": b"a" * 250 + b".json",
    "an option": b"-rf.json",
    "a glob": b"*.json",
    "an id and more": ID.encode() + b".1.json",
    "Japanese": "メイ.json".encode(),
    "nothing but an end": b" .json",
}


@pytest.mark.parametrize("name", MISNAMED.values(), ids=MISNAMED)
@pytest.mark.parametrize("data", [record(), b"garbage"], ids=["a record", "garbage"])
def test_a_name_that_is_no_id_is_rejected_once_and_kept(site: Site, name: bytes, data: bytes) -> None:
    # given
    site.lie(os.path.join("pending", os.fsdecode(name)), data)

    # when
    innocent = site.work()

    # then
    [task] = [task for task in site.store.list() if task.id != innocent.id]
    assert Cause.REJECTED is task.cause
    assert "its name is not 12 lowercase hex digits and .json" in (task.error or "")
    assert [data] == [path.read_bytes() for path in site.kept()]
    [notification] = [
        notification for notification in site.store.notifications.peek() if notification.task_id == task.id
    ]
    assert 1 == sum(line.startswith("# ") for line in notification.text.splitlines())


LEFT_ALONE: Final[dict[str, tuple[str, bytes]]] = {
    "a task for a language model": (f"{ID}.json", record(task_type="llm")),
    "a task for a language model with a name of its own": ("cron-7.json", record(task_type="llm", task_id="cron-7")),
    "a hidden file": (".hidden.json", b"{"),
    "a file being written": (f"{ID}.json.tmp", b"{"),
    "another kind of file": ("notes.md", b"# notes"),
}


@pytest.mark.parametrize(("name", "data"), LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_is_not_ours_is_left_alone(site: Site, name: str, data: bytes) -> None:
    # given
    path = site.lie(f"pending/{name}", data)
    executor = Executor(site.store, registry, backend=ThreadBackend(), scan_interval=0.02).start()

    # when
    innocent = executor.submit_sync("hostile", "echo", "fine")
    executor.wait_sync(innocent.id, timeout=PATIENCE)
    executor.stop(drain_timeout=PATIENCE)

    # then
    assert data == path.read_bytes()
    assert ([], [innocent.id]) == (site.kept(), [task.id for task in site.store.list()])


def hard_link(path: Path) -> None:
    (path.parents[3] / "elsewhere").write_bytes(record())
    path.hardlink_to(path.parents[3] / "elsewhere")


def dated(mtime: int, **changes: object) -> Leave:
    def leave(path: Path) -> None:
        path.write_bytes(record(**changes))
        os.utime(path, (mtime, mtime))

    return leave


RUNS: Final[dict[str, Leave]] = {
    "a hard link to a file elsewhere": hard_link,
    "a file from the future": dated(1 << 34),
    "a file from before 1970": dated(-1000),
    "a task submitted in the future": dated(LONG_AGO, submitted_at=1e11),
    "a task submitted before 1970": dated(LONG_AGO, submitted_at=-1e10),
    "a task with its whole room in arguments": dated(LONG_AGO, raw_args=["echo", "I ran", "x" * 990_000]),
    "a task in a directory that is no path": dated(LONG_AGO, cwd="a\0b"),
    "a task that has been tried very often": dated(LONG_AGO, attempt=1 << 52),
    "a task that has been requeued very often": dated(LONG_AGO, requeued=1 << 52),
    "a task with a priority beyond all": dated(LONG_AGO, priority=(1 << 53) - 1),
    "a task with results before it ran": dated(
        LONG_AGO, result="forged", error="forged", outcome="failed", completed_at=1.0
    ),
}


@pytest.mark.parametrize("leave", RUNS.values(), ids=RUNS)
def test_what_is_strange_and_in_order_runs(site: Site, leave: Leave) -> None:
    leave(site.root / "pending" / f"{ID}.json")
    site.work()
    done = site.store.get(ID)
    assert Outcome.COMPLETED is done.outcome, done.error
    assert (done.result or "").startswith("I ran")
    assert (1, 1) == (site.notified(), site.ended.count(ID))
    assert done.duration is not None
    assert done.duration >= timedelta()


def test_the_other_name_of_a_hard_link_keeps_its_bytes(site: Site) -> None:
    hard_link(site.root / "pending" / f"{ID}.json")
    site.work()
    assert record() == (site.root.parents[1] / "elsewhere").read_bytes()


NOT_RUN: Final[dict[str, tuple[bytes, Cause, str]]] = {
    "a tool that nobody registered": (record(tool_name="rm"), Cause.REJECTED, "rm"),
    "a tool with a name of 900 KB": (record(tool_name="x" * 450_000), Cause.REJECTED, "there is no tool 'xxx"),
    "a tool that climbs": (record(tool_name="../../tools/evil"), Cause.REJECTED, "../../tools/evil"),
    "a subcommand that is an option": (record(raw_args=["--help"]), Cause.REJECTED, "hostile needs a subcommand"),
    "an argument with a NUL for a number": (record(raw_args=["_exit", "\0"]), Cause.ARGUMENTS, "STATUS"),
}


@pytest.mark.parametrize(("data", "cause", "why"), NOT_RUN.values(), ids=NOT_RUN)
def test_a_record_that_asks_for_what_there_is_not_fails(site: Site, data: bytes, cause: Cause, why: str) -> None:
    site.lie(f"pending/{ID}.json", data)
    site.work()
    done = site.store.get(ID)
    assert cause is done.cause, done.error
    assert why in (done.error or "")
    assert 1 == site.notified()


# --- what lies elsewhere ---


@attrs.frozen
class Fate:
    """What becomes of the task ID, which has no outcome where *cause* and *outcome* are None."""

    outcome: Outcome | None = None
    cause: Cause | None = None
    error: str = ""
    notifications: int = 1


INTERRUPTED: Final = Fate(Outcome.FAILED, Cause.INTERRUPTED, "it may have partly run")
NONE: Final = Fate(notifications=0)
FINE: Final = Fate(Outcome.COMPLETED)


def rejected(error: str) -> Fate:
    return Fate(Outcome.FAILED, Cause.REJECTED, error)


def unread(error: str) -> Fate:
    return Fate(Outcome.FAILED, Cause.INTERRUPTED, f"cannot be read any more: {error}")


def submitted(site: Site, *argv: str) -> None:
    """Leave a plain record in pending/ that is in order."""
    site.lie(f"pending/{ID}.json", record(raw_args=list(argv or ("echo", "I ran"))))


def orphaned(site: Site, data: bytes = record()) -> None:
    site.lie(f"running/{ID}.task", data)


def directory(path: Path) -> None:
    """Make a directory that cannot just be removed, whatever is there now."""
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "inside").write_text("x")


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link_away(path: Path) -> None:
    """Make a link to a file that nobody may write to."""
    path.unlink(missing_ok=True)
    path.parents[0].joinpath("a victim").write_text("as it was")
    path.symlink_to("a victim")


def orphan_with(place: str, leave: Leave) -> Callable[[Site], None]:
    def spoil(site: Site) -> None:
        orphaned(site)
        leave(site.root / place)

    return spoil


def task_with(place: str, leave: Leave, *argv: str) -> Callable[[Site], None]:
    def spoil(site: Site) -> None:
        submitted(site, *argv)
        leave(site.root / place)

    return spoil


def two_of_garbage(site: Site) -> None:
    orphaned(site, b"{")
    site.lie(f"done/{ID}.task", b"]")


def outcome_of_garbage(site: Site) -> None:
    submitted(site)
    site.lie(f"done/{ID}.task")


def rejected_half_way(site: Site) -> None:
    """Leave what somebody was rejecting when he died: its explanation stands there already."""
    orphaned(site, b"{")
    note = f"it is not a task record: pending/{ID}.json: it is not JSON\n".encode()
    site.lie(f"quarantine/{ID}.json.why.txt", note)


def results_elsewhere(site: Site) -> None:
    submitted(site, "large", "1")
    (site.path / "elsewhere").mkdir()
    (site.root / "results" / ID).symlink_to(site.path / "elsewhere")


def results_nowhere(site: Site) -> None:
    submitted(site, "large", "1")
    (site.root / "results").rmdir()
    (site.root / "results").symlink_to("nowhere")


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff{garbage")


def put(data: bytes) -> Leave:
    return lambda path: path.write_bytes(data)


UNSTORED: Final = Fate(Outcome.FAILED, Cause.RESULT, "was not stored")

ELSEWHERE: Final[dict[str, tuple[Callable[[Site], object], Fate]]] = {
    # running/
    "a running record of garbage": (lambda site: orphaned(site, b"{"), unread("it is not JSON")),
    "a running record of garbage that was being rejected": (rejected_half_way, rejected("it is not JSON")),
    "a running record too large to be ended": (
        lambda site: orphaned(site, record(raw_args=["x" * (SIZE_LIMIT - len(record()) + 2)])),
        unread("it is larger than 1048576 bytes"),
    ),
    "a running record that leaves no room for its end": (
        lambda site: orphaned(site, record(raw_args=["x" * (SIZE_LIMIT - len(record()) - 100)])),
        unread("it is larger than 1048576 bytes"),
    ),
    "a running record of 1e999": (
        lambda site: orphaned(site, raw("x", "1e999")),
        unread("it is not JSON: 1e999 is not a finite number"),
    ),
    "a running record that says it is done": (
        lambda site: orphaned(site, claimed(status="completed")),
        unread("it says that the task is done"),
    ),
    "a running record that is a FIFO": (
        lambda site: os.mkfifo(site.root / f"running/{ID}.task"),
        unread("it is not a regular file"),
    ),
    "a running record that is a directory": (
        lambda site: directory(site.root / f"running/{ID}.task"),
        unread("it is not a regular file"),
    ),
    "a running record that is a link": (
        lambda site: (site.root / f"running/{ID}.task").symlink_to("nowhere"),
        unread("it is a symbolic link"),
    ),
    "a running record of a name that is no id": (lambda site: site.lie("running/notes.task"), NONE),
    "a running and a done record of garbage": (two_of_garbage, unread("it is not JSON")),
    "a request to cancel that is a directory": (
        orphan_with(f"running/{ID}.cancel", directory),
        Fate(Outcome.CANCELLED, None, "its process died"),
    ),
    "a request for no task": (task_with("running/ffffffffffff.cancel", directory), FINE),
    # done/
    "an outcome of garbage": (lambda site: site.lie(f"done/{ID}.task"), NONE),
    "an outcome of garbage beside a task that waits": (outcome_of_garbage, INTERRUPTED),
    "an outcome that is a directory": (orphan_with(f"done/{ID}.task", directory), INTERRUPTED),
    "an outcome that says the task waits": (orphan_with(f"done/{ID}.task", put(record())), INTERRUPTED),
    # keys/
    "a key of garbage": (task_with("keys/" + 32 * "f", garbage), FINE),
    "a key of a task that is nowhere": (task_with("keys/" + 32 * "f", put(record(task_id="f" * 12))), FINE),
    "a key that is a directory": (task_with("keys/" + 32 * "f", directory), FINE),
    "a key that is a FIFO": (task_with("keys/" + 32 * "f", fifo), FINE),
    "a key that is a link": (task_with("keys/" + 32 * "f", link_away), FINE),
    # logs/, progress/, results/, views
    "a log that is a directory": (task_with(f"logs/{ID}.log", directory), FINE),
    "a log that is a link": (task_with(f"logs/{ID}.log", link_away), FINE),
    "a log that is a FIFO": (task_with(f"logs/{ID}.log", fifo, "forge", "return"), FINE),
    "a progress report of garbage": (task_with(f"progress/{ID}.json", garbage), FINE),
    "a progress report that is a FIFO": (task_with(f"progress/{ID}.json", fifo), FINE),
    "a progress report 100,000 levels deep": (task_with(f"progress/{ID}.json", put(b"[" * 100_000)), FINE),
    "results that are a link elsewhere": (results_elsewhere, UNSTORED),
    "results of all tasks that are a link to nothing": (results_nowhere, UNSTORED),
    "results that are a file": (task_with(f"results/{ID}", garbage, "large", "1"), UNSTORED),
    "a view that is a directory": (task_with(f"{ID}.json", directory), FINE),
    "a view of garbage": (orphan_with(f"{ID}.json", garbage), INTERRUPTED),
    "a view that says it is done": (orphan_with(f"{ID}.json", put(claimed(status="completed"))), INTERRUPTED),
    "a view of an orphan that is a directory": (orphan_with(f"{ID}.json", directory), INTERRUPTED),
    "a view of an orphan that is a FIFO": (orphan_with(f"{ID}.json", fifo), INTERRUPTED),
    "a view that names an owner of nonsense": (
        orphan_with(f"{ID}.json", put(claimed(status="running", attempt=1, owner={"pid": -1, "session": 1e300}))),
        INTERRUPTED,
    ),
    "a view that is a link": (task_with(f"{ID}.json", link_away), FINE),
    # the rest
    "a catalogue of garbage": (task_with("catalogue", garbage), FINE),
    "a catalogue that is a directory": (task_with("catalogue", directory), FINE),
    "a catalogue that is a FIFO": (task_with("catalogue", fifo), FINE),
    "a journal that is a FIFO": (task_with("events.jsonl", fifo), FINE),
    "a journal that is a directory": (task_with("events.jsonl", directory), FINE),
    "a journal that is a link": (task_with("events.jsonl", link_away), FINE),
    "a journal of garbage": (task_with("events.jsonl", put(b"\xff\n" + b"[" * 100_000 + b"\n[]\n")), FINE),
    "a note of the boot that is a directory": (task_with("boot", directory), FINE),
    "drafts of all kinds": (task_with("tmp/draft", directory), FINE),
    # notifications
    "a notification in the place of ours": (task_with(f"../background_notifications/{ID}.md", put(b"mine")), FINE),
    "a notification that is not UTF-8": (task_with("../background_notifications/x.md", put(b"\xff\xfe")), FINE),
    "a notification that is huge": (task_with("../background_notifications/x.md", sparse), FINE),
    "a notification that is a FIFO": (task_with("../background_notifications/x.md", fifo), FINE),
    "a notification that is a directory": (task_with("../background_notifications/x.md", directory), FINE),
    "a notification that is a link": (task_with("../background_notifications/x.md", link_away), FINE),
}


@pytest.mark.parametrize(("spoil", "fate"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_what_is_spoilt_costs_one_task_at_most_and_is_told_once(
    site: Site, spoil: Callable[[Site], object], fate: Fate
) -> None:
    # given
    spoil(site)

    # when
    innocent = site.work()
    site.store.recover()

    # then
    if fate.outcome is None:
        assert ID not in site.ended
    else:
        done = site.store.get(ID)
        assert (fate.outcome, fate.cause) == (done.outcome, done.cause), done.error
        assert fate.error in (done.error or "")
        assert [] == list((site.root / "running").iterdir()) + list((site.root / "pending").iterdir())
    assert (fate.notifications, 1) == (site.notified(), site.notified(innocent.id))
    site.store.read_log(ID)
    site.store.read_progress(ID)
    known_tools(site.store.layout)
    list(site.store.events())
    for victim in site.path.rglob("a victim"):
        assert "as it was" == victim.read_text()
    if (site.path / "elsewhere").exists():
        assert [] == list((site.path / "elsewhere").iterdir())

    # and all of it can be acknowledged and forgotten
    with site.store.notifications.drain() as drained:
        drained.text.encode()
    assert innocent.id in site.store.prune(finished_before=datetime.now(UTC) + timedelta(days=1))


def test_a_running_record_of_garbage_whose_owner_lives_is_left_to_it(site: Site) -> None:
    # given
    orphaned(site, b"{")
    lock = locks.hold(str(site.root / f"running/{ID}.task"))
    assert lock is not None

    # when
    site.work()

    # then
    assert (b"{", 0) == ((site.root / f"running/{ID}.task").read_bytes(), site.notified())
    lock.release()
    assert [ID] == [task.id for task in site.store.recover().finished]


def test_a_link_in_the_place_of_a_log_is_not_read(site: Site) -> None:
    secret = site.path / "secret"
    secret.write_text("secret")
    (site.root / f"logs/{ID}.log").symlink_to(secret)
    assert b"" == site.store.read_log(ID)


def test_a_name_of_a_notice_cannot_forge_a_line_of_its_headline(site: Site) -> None:
    (site.notifications / "a\n# Background task completed\udcff.md").write_text("")
    with site.store.notifications.drain(200) as drained:
        assert 1 == len(drained.text.splitlines())
        drained.text.encode()


# --- a clock that goes back ---


class FallingClock:
    """Tells an earlier time whenever it is asked."""

    def __init__(self, start: datetime, step: timedelta) -> None:
        self.now, self.step = start, step

    def __call__(self) -> datetime:
        self.now -= self.step
        return self.now


@pytest.mark.parametrize(
    ("start", "step"),
    [
        (datetime(2026, 1, 1, tzinfo=UTC), timedelta(days=1)),
        (datetime(1970, 1, 2, tzinfo=UTC), timedelta(hours=20)),
        (datetime(1960, 1, 1, tzinfo=UTC), timedelta(days=300)),
    ],
    ids=["by days", "past 1970", "before 1970"],
)
def test_a_clock_that_goes_back_loses_nothing(tmp_path: Path, start: datetime, step: timedelta) -> None:
    # given
    store = TaskStore(tmp_path, language="en", durability="process", clock=FallingClock(start, step))
    executor = Executor(store, registry, backend=ThreadBackend(), scan_interval=0.02, clock=store.place.clock).start()

    # when
    ids = [executor.submit_sync("hostile", "echo", str(number)).id for number in range(3)]
    ended = [executor.wait_sync(task_id, timeout=PATIENCE) for task_id in ids]
    executor.stop(drain_timeout=PATIENCE)

    # then
    for task in ended:
        assert Outcome.COMPLETED is task.outcome
        assert timedelta() == task.duration
    with store.notifications.drain() as drained:
        assert set(ids) == {notification.task_id for notification in drained.notifications}
        assert "Took: 0.0 s" in drained.text
    assert [] == store.prune(finished_before=start - timedelta(days=20_000))
    assert set(ids) == set(store.prune(finished_before=start))
