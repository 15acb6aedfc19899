"""A check finds what is wrong with a store and names the next step; a fix loses nothing."""

from __future__ import annotations

import contextlib
import errno
import grp
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from animaworks_tasks import Cause, Executor, OnInterrupt, Outcome, Registry, Task, TaskStore, ThreadBackend
from animaworks_tasks.fs import locks
from animaworks_tasks.store.check import check, fix
from animaworks_tasks.store.finding import Finding
from animaworks_tasks.store.protocol import Changes
from animaworks_tasks.store.rules import SubmitOptions
from animaworks_tasks.store.watch import is_hosted
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin, die, own
from tests.processes import PATIENCE, gone, until

ID: Final = "0123456789ab"
INBOX: Final = "../background_notifications"


@pytest.fixture
def root(files: TaskStore) -> Path:
    return Path(files.layout.root)


def write(path: Path, text: str = "x", *, mode: int = 0o600) -> Path:
    """Write a file as it has been for two days."""
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    os.utime(path, (time.time() - 2 * 86400,) * 2)
    return path


def complete(files: TaskStore) -> Task:
    return files.finish(begin(files), Event.COMPLETE, result="ok")


def acknowledge(files: TaskStore) -> None:
    files.notifications.acknowledge(files.notifications.peek())


def notified(files: TaskStore) -> list[str | None]:
    return [notification.task_id for notification in files.notifications.peek()]


def said(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.what) for finding in findings]


def only(files: TaskStore) -> Finding:
    """Return the one thing that is found; it names a next step."""
    findings = check(files.place)
    assert 1 == len(findings), said(findings)
    assert findings[0].todo
    assert findings[0].where
    return findings[0]


def mend(files: TaskStore) -> list[str]:
    """Mend, and see that nothing is left to be found."""
    done = fix(files.place)
    assert [] == said(check(files.place))
    return done


def contents(root: Path) -> dict[Path, tuple[int, int]]:
    """Return what a store consists of: each path with its mode and its time."""
    found = {path: path.lstat() for path in root.parent.rglob("*") if path != root / "tmp"}
    return {path: (status.st_mode, status.st_mtime_ns) for path, status in found.items()}


def refuse(error: int) -> Callable[..., None]:
    def refused(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return refused


def test_of_a_healthy_store_at_work_nothing_is_found(files: TaskStore, root: Path) -> None:
    """Tasks of every kind, a catalogue, logs, results, notifications, and what other programs have there."""
    # given
    registry = Registry()
    registry.tool("image_gen", "3d", expected_seconds=600)(lambda: None)
    files.publish_catalogue(registry.catalogue())
    files.submit("image_gen", "3d", key="again")
    running, ended, claimed = begin(files, key="now"), begin(files), files.claim(files.submit("image_gen", "3d").id)
    files.request_cancel(running.task.id)
    for claim in (running, ended):
        workspace = files.workspace(claim.task.id)
        workspace.write_log(b"x")
        workspace.report_progress(0.5, "half")
        (workspace.scratch() / "made by a tool").touch(0o644)
    files.finish(ended, Event.COMPLETE, result="x", result_file=files.workspace(ended.task.id).keep_result(b"xx"))
    acknowledge(files)
    complete(files)
    write(root / f"pending/{ID}.json", json.dumps({"task_type": "llm"}), mode=0o644)
    write(root / f"{ID}.json", json.dumps({"task_id": ID, "status": "running"}), mode=0o644)
    write(root / INBOX / "of another program.md", mode=0o644)
    (root / INBOX / ".half written.md").symlink_to("x")
    # then
    with contextlib.closing(files.watch()):
        assert ([], []) == (said(check(files.place)), fix(files.place))
    assert claimed, "held until here"


def test_where_nothing_was_ever_submitted_nothing_is_found_and_nothing_made(files: TaskStore, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "mei" / "state")
    assert ([], []) == (check(files.place), fix(files.place))
    assert [] == os.listdir(tmp_path / "mei")


def test_who_checks_a_store_changes_nothing_and_wakes_nobody(files: TaskStore, root: Path) -> None:
    die(begin(files))
    (root / "done").chmod(0o755)
    write(root / f"pending/{ID}.json", "{")
    complete(files)
    before = contents(root)
    with contextlib.closing(files.watch()) as watch:
        assert check(files.place)
        assert Changes() == watch.wait(0.0)
    assert (before, []) == (contents(root), os.listdir(root / "tmp"))


def test_a_host_at_work_is_neither_found_to_be_wrong_nor_held_up(files: TaskStore) -> None:
    """What moves on between two looks is no finding, and no look keeps a host from a lock."""
    registry = Registry()
    registry.tool("nap", "short")(lambda: time.sleep(0.001))
    executor = Executor(files, registry, backend=ThreadBackend(), max_workers=8)
    executor.start()
    try:
        until(lambda: is_hosted(files.layout))
        tasks, found = files.submit_many("nap", [["short"]] * 200), []
        while len(os.listdir(files.layout.done)) < len(tasks):
            found += said(check(files.place))
            acknowledge(files)
        ends = [executor.wait_sync(task.id, timeout=PATIENCE) for task in tasks]
    finally:
        executor.stop()
    assert [] == found
    assert {(Outcome.COMPLETED, 1)} == {(task.outcome, task.attempt) for task in ends}


def test_a_host_that_starts_while_somebody_looks_is_seen_at_its_next_look(files: TaskStore) -> None:
    with locks.directory(files.layout.running):
        watch = files.watch()
    with contextlib.closing(watch):
        watch.refresh()
        assert is_hosted(files.layout)


def test_a_task_that_ends_while_we_look_is_no_orphan(files: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    die(begin(files))
    hold = locks.hold
    monkeypatch.setattr(locks, "hold", lambda path: (hold(path), os.unlink(path))[0])
    monkeypatch.setattr(locks, "lock_trouble", lambda _: None)
    assert [] == said(check(files.place))


def test_where_nothing_can_be_written_all_is_checked(files: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    die(orphan := begin(files))
    opened, refused, writing = os.open, refuse(errno.EROFS), os.O_CREAT | os.O_ACCMODE
    monkeypatch.setattr(os, "open", lambda path, flags, *_: (refused if flags & writing else opened)(path, flags))
    place, left = check(files.place)
    assert ("problem", files.layout.root, None) == (place.severity, place.where, place.mend)
    assert "cannot be written: Read-only file system; so no task is submitted, run or ended" in place.what
    assert orphan.task.id == left.where
    assert [f"not mended: {orphan.task.id}: Read-only file system"] == fix(files.place)


FINDINGS: Final[Sequence[tuple[str, Callable[[Path], object], str, str]]] = (
    # where, how it comes there, severity, the beginning of what is said of it
    ("tmp", Path.rmdir, "problem", "missing, so what belongs there cannot be kept: background_tasks/tmp"),
    ("logs", lambda path: (path.rmdir(), write(path)), "problem", "{} is not a directory"),
    ("format", lambda path: write(path, "animaworks_tasks 3\n"), "problem", "the format of "),
    ("format", lambda path: (path.unlink(), path.mkdir()), "problem", "{} cannot be looked at: it is not a regular "),
    ("done", lambda path: path.chmod(0o755), "warning", "{} has mode 0755: others can read there what tools said"),
    ("done", lambda path: path.chmod(0o770), "problem", "{} has mode 0770: others can write there, and so have tools"),
    ("done", lambda path: path.chmod(0o500), "problem", "{} has mode 0500: we cannot use it"),
    (f"pending/{ID}.json", Path.touch, "warning", f"pending/{ID}.json cannot be read: it is empty"),
    (f"{INBOX}/a.md", lambda path: path.symlink_to("x"), "problem", "background_notifications/a.md cannot be read: "),
    (f"{INBOX}/{ID}.md", Path.mkdir, "problem", f"background_notifications/{ID}.md cannot be read: "),
    ("catalogue", lambda path: write(path, "{"), "problem", "the catalogue of tools cannot be used: "),
    ("catalogue", lambda path: write(path, "[]"), "problem", "the catalogue of tools cannot be used: it is of v"),
    (f"pending/{ID}.json.processing", write, "problem", "another watcher takes tasks out of pending/"),
    ("pending/README", write, "warning", "nobody here reads it: pending/README"),
    (f"running/{ID}.txt", write, "warning", "nobody here reads it: "),
    (f"done/{ID}.json", write, "problem", "an earlier release has been at work here since the store was converted"),
    ("doorbell", write, "problem", "an earlier release has been at work here"),
    ("quarantine/a.json", write, "warning", "kept, because it could not be read: quarantine/a.json"),
)


@pytest.mark.parametrize(("where", "make", "severity", "what"), FINDINGS)
def test_one_thing_is_found_and_mended_where_that_loses_nothing(
    files: TaskStore, root: Path, where: str, make: Callable[[Path], object], severity: str, what: str
) -> None:
    path = Path(os.path.normpath(root / where))
    make(path)
    before = contents(root)
    finding = only(files)
    assert (severity, str(path)) == (finding.severity, finding.where)
    assert finding.what.startswith(what.format(path)), finding.what
    done = fix(files.place)
    if finding.mend is None:
        assert ([], before) == (done, contents(root))
    else:
        assert done
        assert finding not in check(files.place)
        assert {path.name for path in before} <= {path.name for path in contents(root)}


@pytest.mark.parametrize(("mode", "severity", "who"), [(0o777, "problem", "anybody"), (0o775, "warning", "its group")])
def test_who_may_write_above_the_store_is_found(
    files: TaskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, severity: str, who: str
) -> None:
    """In the Anima's own directories that is mended; outside of them a person decides."""
    monkeypatch.setattr(grp, "getgrgid", lambda _: SimpleNamespace(gr_name="staff", gr_mem=[]))
    for above, is_ours in ((tmp_path / "mei" / "state", True), (tmp_path, False)):
        above.chmod(mode | stat.S_ISVTX)
        assert [] == check(files.place)  # who may write there cannot rename what is ours
        above.chmod(mode)
        assert (severity, str(above)) == (only(files).severity, only(files).where)
        assert f"{who} may write to {above}, and so can replace the whole store" == only(files).what
        assert (f"`chmod go-w {above}`" in only(files).todo, is_ours) == (True, "--fix" in only(files).todo)
        assert is_ours == bool(fix(files.place))
        assert mode & ~0o022 == stat.S_IMODE(above.stat().st_mode) or not is_ours


def test_a_directory_that_is_none_of_ours_is_found(files: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    look = os.lstat

    def lstat(path: str, field: str) -> SimpleNamespace:
        values = {name: getattr(look(path), name) for name in ("st_mode", "st_uid", "st_dev")}
        return SimpleNamespace(**{**values, field: values[field] + (path == files.layout.tmp)})

    for field, what in (("st_uid", "belongs to another user"), ("st_dev", "lies on another file system than the rest")):
        monkeypatch.setattr(os, "lstat", partial(lstat, field=field))  # to give it away, or mount there, is root's
        assert only(files).what.startswith(f"{files.layout.tmp} {what}")
        assert only(files).mend is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_a_directory_of_another_user_above_the_store_is_found(files: TaskStore, tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, -1)
    assert f"{tmp_path} belongs to another user (uid 4711), who can replace the whole store" == only(files).what
    assert only(files).mend is None


def test_what_the_file_system_cannot_do_is_found(files: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no probe is left."""
    room = partial(SimpleNamespace, f_frsize=4096, f_files=10**7, f_bavail=1 << 30, f_favail=10**6)
    hold, other = locks.hold, write(Path(files.location) / "other")
    for name, replacement, what in (
        ("hold", lambda path: hold(str(other)) if os.unlink(other) or write(other) else path, "locks do not work on"),
        ("hold", refuse(errno.ENOLCK), "its file system has no locks"),
        ("hold", refuse(errno.EIO), f"{files.layout.root} cannot be written: Input/output error"),
        ("link", refuse(errno.EPERM), "its file system has no hard links"),
        ("statvfs", lambda _: room(f_bavail=16 << 8), "the disk is nearly full: there is room for 16 MiB"),
        ("statvfs", lambda _: room(f_favail=3), "the disk is nearly full: there is room for 3 more files"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(locks if name == "hold" else os, name, replacement)
            assert only(files).what.startswith(what)
    assert [] == os.listdir(files.layout.tmp)


def test_a_store_of_an_earlier_release_is_converted(files: TaskStore, root: Path) -> None:
    # given one of the format before, in which a task ended and another one runs
    done = complete(files)
    (root / f"done/{done.id}.task").rename(root / f"done/{done.id}.json")
    (root / "format").unlink()
    (root / "locks").mkdir(0o700)
    (root / f"running/{ID}.json").touch(0o600)
    assert "in the format of an earlier release, so nothing in it is seen" in only(files).what
    # when, then
    [line] = fix(files.place)
    assert line.startswith(f"not mended: {root}: ")
    assert "of that release ends them" in line
    # and when none runs
    (root / f"running/{ID}.json").unlink()
    assert [f"made all that belongs to {root}"] == mend(files)
    assert done == files.get(done.id)


def test_a_pending_record_that_cannot_be_read_is_rejected_unless_it_was_corrected(files: TaskStore, root: Path) -> None:
    task = files.submit("image_gen", "3d")
    path = root / f"pending/{task.id}.json"
    record = path.read_text()
    write(path, '{"argv":')
    finding = only(files)
    assert f"pending/{task.id}.json cannot be read: it is not JSON" in finding.what
    assert finding.mend is not None
    # when it was corrected
    write(path, record)
    assert f"recovered task {task.id}: it is in pending/ now" == finding.mend(files.place)
    assert task == files.get(task.id)
    # and when it was not
    write(path, '{"argv":')
    assert [f"recovered task {task.id}: it is in done/ now"] == fix(files.place)
    assert (Cause.REJECTED, [task.id]) == (files.get(task.id).cause, notified(files))
    assert '{"argv":' == (root / f"quarantine/{task.id}.json").read_text()


def test_an_outcome_that_cannot_be_read_is_kept_in_quarantine(files: TaskStore, root: Path) -> None:
    done = complete(files)
    acknowledge(files)
    files.workspace(done.id).write_log(b"a trace")
    write(root / f"done/{done.id}.task", "{}")
    assert f"done/{done.id}.task cannot be read: task_id is missing; so nobody learns" in only(files).what
    assert [f"recovered task {done.id}: it is in quarantine/ now"] == fix(files.place)
    assert f"kept, because it could not be read: quarantine/{done.id}.task" == only(files).what
    assert "{}" == (root / f"quarantine/{done.id}.task").read_text()
    assert "the outcome could not be read" in (root / f"quarantine/{done.id}.task.why.txt").read_text()
    assert b"a trace" == files.read_log(done.id)


def test_a_task_whose_outcome_cannot_be_read_is_not_run_again(files: TaskStore, root: Path) -> None:
    # given one whose record came back to pending/ with a power cut
    task = files.submit("image_gen", "3d")
    record = (root / f"pending/{task.id}.json").read_text()
    files.finish(own(files, task.id), Event.COMPLETE)
    write(root / f"pending/{task.id}.json", record)
    write(root / f"done/{task.id}.task", "{")
    assert [f"recovered task {task.id}: it is in done/ now"] == fix(files.place)
    assert (set(), Cause.INTERRUPTED) == (files.pending_ids(), files.get(task.id).cause)


def test_a_running_record_that_cannot_be_read_is_its_owners_business(files: TaskStore, root: Path) -> None:
    claim = begin(files)
    path = root / f"running/{claim.task.id}.task"
    path.write_text("{")
    assert ("warning", None) == (only(files).severity, only(files).mend)
    assert "nothing: its owner lives" in only(files).todo
    # and where nobody can own it, recovery's
    path.unlink()
    path.symlink_to("nowhere")
    assert ("problem", claim.task.id) == (only(files).severity, only(files).where)
    fix(files.place)
    assert Cause.INTERRUPTED is files.get(claim.task.id).cause
    assert (root / f"quarantine/{claim.task.id}.json").is_symlink()


def test_a_notification_that_no_agent_can_see_is_left_anew(files: TaskStore, root: Path) -> None:
    done = complete(files)
    path = root / INBOX / f"{done.id}.md"
    path.unlink()
    os.mkfifo(path)
    assert "cannot be read: it is not a regular file; so no agent sees it" in only(files).what
    assert [f"recovered task {done.id}: it is in done/ now"] == fix(files.place)
    assert [done.id] == notified(files)
    assert (root / f"quarantine/{done.id}.md").is_fifo()


def test_an_orphan_is_recovered_where_no_host_does(files: TaskStore) -> None:
    die(claim := begin(files))
    with contextlib.closing(files.watch()):
        assert [] == check(files.place)  # a host does that anyway, and knows what its tool wishes
    assert ("problem", claim.task.id) == (only(files).severity, only(files).where)
    assert f"task {claim.task.id} is in running/, and its owner died, so it does not end" == only(files).what
    assert [f"recovered task {claim.task.id}: it is in done/ now"] == mend(files)
    assert (Cause.INTERRUPTED, [claim.task.id]) == (files.get(claim.task.id).cause, notified(files))


@pytest.mark.parametrize(
    ("options", "runs"), [({}, 3), ({"retries": 1}, 3), ({"retries": 4}, 5), ({"max_attempts": 1, "retries": 4}, 1)]
)
def test_an_orphan_is_put_back_as_often_as_a_host_would(files: TaskStore, options: SubmitOptions, runs: int) -> None:
    """The last run that it is allowed ends it, in any process that finds its owner dead."""
    task = files.submit("image_gen", "3d", on_interrupt=OnInterrupt.RETRY, **options)
    while files.waits(task.id):
        die(own(files, task.id))
        fix(files.place)
    assert (Cause.INTERRUPTED, runs) == (files.get(task.id).cause, files.get(task.id).attempt)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux tells who has a file open")
def test_what_a_dead_owner_had_started_and_that_keeps_its_lock_is_killed(files: TaskStore) -> None:
    # given a task whose owner has died, and a child of it that has inherited the lock
    task = files.submit("image_gen", "3d")
    script = (
        "import os, subprocess, sys; from animaworks_tasks import TaskStore\n"
        "store = TaskStore(sys.argv[1], durability='process'); claim = store.claim(sys.argv[2])\n"
        "store.publish_view(claim)\n"
        "print(subprocess.Popen(['cat'], stdin=0, pass_fds=[claim.fileno()]).pid, flush=True); os._exit(0)\n"
    )
    command = [sys.executable, "-c", script, files.location, task.id]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        assert (0, False) == (owner.wait(), gone(child))
        # then
        assert ("problem", task.id) in [(finding.severity, finding.where) for finding in check(files.place)]
        mend(files)
        until(lambda: gone(child))
    assert Cause.INTERRUPTED is files.get(task.id).cause


def test_a_task_is_late_and_then_past_its_limit(files: TaskStore, clock: ManualClock) -> None:
    registry = Registry()
    registry.tool("image_gen", "3d", expected_seconds=50, timeout_seconds=100)(lambda: None)
    files.publish_catalogue(registry.catalogue())
    given = own(files, files.submit("other", expected_seconds=10, timeout_seconds=500).id)
    tools = begin(files)
    clock.advance(20)
    assert f"task {given.task.id} (other) has been running for 20 s, not 10" == only(files).what
    clock.advance(100)  # its tool may still be being stopped
    assert ["warning", "warning"] == [finding.severity for finding in check(files.place)]
    clock.advance(100)
    [late] = [finding for finding in check(files.place) if finding.severity == "problem"]
    assert tools.task.id == late.where
    assert late.what.endswith(f"running for 220 s and may for 100, as process {os.getpid()}")


def test_a_task_that_nobody_starts_is_found(files: TaskStore, clock: ManualClock) -> None:
    files.submit("image_gen", "3d", not_before=clock.now + timedelta(hours=1))
    assert [] == check(files.place)
    task = files.submit("image_gen", "3d")
    assert [("warning", f"no host is here to start what waits: {task.id}")] == said(check(files.place))


def test_a_notification_that_was_never_left_is_left(files: TaskStore, root: Path) -> None:
    done = complete(files)
    write(root / "events.jsonl", json.dumps({"event": "ended", "task_id": done.id}) + "\n")
    (root / INBOX / f"{done.id}.md").unlink()
    with contextlib.closing(files.watch()):
        running = write(root / f"running/{done.id}.task")
        assert [] == check(files.place)  # the process that ends it is about to leave it
        running.unlink()
    assert f"the notification of task {done.id} was never left, so no agent learns of its end" == only(files).what
    theirs = write(root / f"pending/{done.id}.json", json.dumps({"task_type": "llm"}))
    assert [f"recovered task {done.id}: it is in pending/ now"] == mend(files)
    assert ([done.id], True) == (notified(files), theirs.exists())


def test_notifications_that_another_program_took_are_not_left_again(files: TaskStore, root: Path) -> None:
    for task in (complete(files), complete(files)):
        (root / INBOX / f"{task.id}.md").unlink()
    assert only(files).what.startswith("the notification was taken by another program, which does not say when: ")
    (root / "events.jsonl").unlink()
    assert only(files).what.startswith("the notification is not there, and the journal says nothing of it: ")
    assert ("warning", []) == (only(files).severity, fix(files.place))


def test_notifications_that_nobody_reads_are_found(files: TaskStore, root: Path) -> None:
    done, _ = complete(files), complete(files)
    write(root / INBOX / f"{done.id}.md")
    write(root / INBOX / "of another program.md")
    assert f"nobody has read the notification for more than a day: {done.id}" == only(files).what


def test_what_cannot_be_true_of_a_task_is_found(files: TaskStore, root: Path, clock: ManualClock) -> None:
    clock.advance(3600)
    done, running = complete(files), begin(files)
    clock.advance(-3600)
    assert only(files).what.startswith("from the future, so order and ages are wrong: ")
    assert all(task_id in only(files).what for task_id in (done.id, running.task.id))
    clock.advance(3600)
    # and
    far = files.submit("image_gen", "3d", not_before=clock.now + timedelta(days=1000))
    assert f"not to be started for a year: {far.id}" == only(files).what
    files.request_cancel(far.id)
    # and
    kept = files.workspace(running.task.id).keep_result(b"all of it")
    files.finish(running, Event.COMPLETE, result="all", result_file=kept)
    (root / kept).unlink()
    assert f"the file of the result is missing: {running.task.id}" == only(files).what


def test_what_cannot_be_mended_is_said_once(files: TaskStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is mended, also what is hidden at first, here by a directory that is missing."""
    die(orphan := begin(files))
    (root / "done").chmod(0o755)
    (root / "keys").rmdir()
    monkeypatch.setattr(os, "chmod", refuse(errno.EPERM))
    assert [
        f"made all that belongs to {root}",
        f"not mended: {root}/done: Operation not permitted",
        f"recovered task {orphan.task.id}: it is in done/ now",
    ] == fix(files.place)
