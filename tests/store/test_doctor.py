"""The doctor finds what is wrong with a store, says what to do, mends what is safe, and is silent where all is well."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from animaworks_tasks import Cause, OnInterrupt, Outcome, Registry, State, Task, TaskStore
from animaworks_tasks.fs import files as disk
from animaworks_tasks.fs import locks as file_locks
from animaworks_tasks.store import checks_place
from animaworks_tasks.store.doctor import Doctor
from animaworks_tasks.store.findings import Finding, Severity
from animaworks_tasks.store.protocol import SubmitOptions
from animaworks_tasks.task.states import Event
from tests.conftest import ManualClock, begin, die, own
from tests.processes import until

ID: Final = "0123456789ab"
DAY: Final = 86400.0


@pytest.fixture
def root(files: TaskStore) -> Path:
    return Path(files.layout.root)


@pytest.fixture
def doctor(files: TaskStore, clock: ManualClock) -> Doctor:
    return Doctor(files.location, language="en", clock=clock)


@pytest.fixture
def hosted(files: TaskStore) -> Iterator[None]:
    """Let somebody listen at the doorbell."""
    bell = files.doorbell()
    yield
    bell.close()


def age(path: Path, seconds: float = 2 * DAY) -> Path:
    """Let a file be so old."""
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)
    return path


def write(path: Path, text: str = "x", *, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return age(path)


def complete(files: TaskStore, *, key: str | None = None) -> Task:
    return files.finish(begin(files, key=key), Event.COMPLETE, result="ok")


def acknowledge(files: TaskStore) -> None:
    files.notifications.acknowledge(files.notifications.peek())


def said(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.severity.value, finding.what) for finding in findings]


def only(doctor: Doctor) -> Finding:
    """Return the one thing that is found; it names a next step."""
    findings = doctor.examine()
    assert 1 == len(findings), said(findings)
    [finding] = findings
    assert finding.todo
    assert finding.where
    return finding


def mend(doctor: Doctor) -> list[str]:
    """Mend, and see that nothing is left to be found."""
    done = doctor.repair()
    assert [] == said(doctor.examine())
    return done


# --- where it cannot be looked at ---


def test_what_is_mounted_for_reading_only_is_found(doctor: Doctor, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is looked for: that would need locks."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    finding = only(doctor)
    assert (Severity.PROBLEM, str(root)) == (finding.severity, finding.where)
    assert "mounted for reading only" in finding.what


# --- where all is well ---


@pytest.mark.usefixtures("hosted")
def test_of_a_healthy_store_at_work_nothing_is_found(files: TaskStore, doctor: Doctor) -> None:
    """Tasks of every kind, one of them running; a catalogue, logs, results, and notices read and unread."""
    # given
    registry = Registry()
    registry.tool("image_gen", "3d", expected_seconds=600)(lambda: None)
    files.publish_catalogue(registry.catalogue())
    files.submit("image_gen", "3d")
    running = begin(files, key="again")
    files.submit("image_gen", "3d", key="again")
    files.request_cancel(running.task.id)
    for task in (running.task, complete(files)):
        workspace = files.workspace(task.id)
        workspace.write_log(b"x")
        workspace.report_progress(0.5, "half")
        (workspace.scratch() / "made by a tool").write_bytes(b"x")
    acknowledge(files)
    complete(files)
    other = begin(files)

    # then
    assert [] == said(doctor.examine())
    assert [] == doctor.repair()
    assert other.lock, "held until here"


def test_where_nothing_was_ever_submitted_nothing_is_found_and_nothing_made(tmp_path: Path) -> None:
    assert ([], []) == (Doctor(tmp_path).examine(), Doctor(tmp_path).repair())
    assert [] == os.listdir(tmp_path)


def test_a_record_of_another_program_in_pending_is_nobodys_business(doctor: Doctor, root: Path) -> None:
    write(root / "pending" / f"{ID}.json", json.dumps({"task_type": "llm"}))
    write(root / "pending" / "llm-1.json", json.dumps({"task_type": "llm"}))
    write(root / f"{ID}.json", json.dumps({"task_id": ID, "status": "running"}))
    assert [] == said(doctor.examine())


def test_who_looks_at_a_store_changes_nothing(files: TaskStore, doctor: Doctor, root: Path) -> None:
    # given some damage
    die(begin(files))
    age(root / "done").chmod(0o755)
    write(root / "tmp" / "old")
    before = {path: path.lstat().st_mode for path in root.parent.rglob("*")}

    # when
    assert doctor.examine()

    # then
    assert before == {path: path.lstat().st_mode for path in root.parent.rglob("*")} | {
        path: mode for path, mode in before.items() if path.suffix == ".lock"
    }


# --- directories and permissions ---


def test_directories_that_are_missing_are_made(doctor: Doctor, root: Path) -> None:
    shutil.rmtree(root / "done")
    shutil.rmtree(root.parent / "background_notifications")
    finding = only(doctor)
    assert (Severity.PROBLEM, True) == (finding.severity, finding.fixable)
    assert "3 directories are missing: done, background_notifications, .read" == finding.what
    assert [f"made the directories that were missing: {root / 'done'}"] == mend(doctor)


@pytest.mark.parametrize(
    ("mode", "severity", "what"),
    [
        (0o755, Severity.NOTICE, "who can read there what tools said"),
        (0o770, Severity.PROBLEM, "who can write there, and so have tools run"),
        (0o600, Severity.PROBLEM, "is closed even to us"),
    ],
)
def test_a_directory_with_other_permissions_is_closed_to_others(
    doctor: Doctor, root: Path, mode: int, severity: Severity, what: str
) -> None:
    (root / "pending").chmod(mode)
    finding = only(doctor)
    assert severity is finding.severity
    assert what in finding.what
    assert [f"closed to other users: {root / 'pending'}"] == mend(doctor)
    assert 0o700 == stat.S_IMODE((root / "pending").stat().st_mode)


def test_files_with_other_permissions_are_closed_to_others(files: TaskStore, doctor: Doctor, root: Path) -> None:
    for name in (complete(files).id, complete(files).id):
        (root / "done" / f"{name}.json").chmod(0o644)
    write(root.parent / "background_notifications" / "of another program.md", mode=0o666)
    finding = only(doctor)
    assert f"2 files in {root / 'done'} are open to other users, who can read there what tools said" == finding.what
    [line] = mend(doctor)
    assert line.endswith(" and 1 more")
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in (root / "done").iterdir()}


def test_a_file_in_place_of_a_directory_is_left_to_a_person(doctor: Doctor, root: Path) -> None:
    (root / "logs").rmdir()
    write(root / "logs")
    finding = only(doctor)
    assert f"{root / 'logs'} is not a directory" == finding.what
    assert ([], [finding]) == (doctor.repair(), doctor.examine())


@pytest.mark.parametrize(
    ("field", "what"),
    [("st_uid", "belongs to another user (uid "), ("st_dev", "lies on another file system than the rest")],
)
def test_a_directory_that_is_not_ours_or_lies_elsewhere_is_left_to_a_person(
    doctor: Doctor, root: Path, monkeypatch: pytest.MonkeyPatch, field: str, what: str
) -> None:
    # given a store in which this is so of one directory
    look = os.lstat

    def lstat(path: str) -> os.stat_result:
        found = look(path)
        if str(path) != str(root / "tmp"):
            return found
        values = {name: getattr(found, name) for name in ("st_mode", "st_uid", "st_dev")}
        values[field] += 1
        return type("Status", (), values)()  # type: ignore[no-any-return]

    monkeypatch.setattr(checks_place.os, "lstat", lstat)

    # then
    finding = only(doctor)
    assert what in finding.what
    assert not finding.fixable


# --- the file system ---


def refuse(error: int) -> Callable[..., None]:
    def refused(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return refused


def test_locks_that_keep_nobody_out_are_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    take = file_locks.hold
    monkeypatch.setattr(file_locks, "hold", lambda path: take(f"{path}{os.urandom(2).hex()}"))
    finding = only(doctor)
    assert (Severity.PROBLEM, "locks do not work on its file system") == (finding.severity, finding.what)
    monkeypatch.setattr(file_locks, "hold", refuse(errno.ENOLCK))
    assert "its file system has no locks" in only(doctor).what
    monkeypatch.setattr(file_locks, "hold", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        doctor.examine()


def test_a_file_system_without_hard_links_or_without_fifos_is_found(
    doctor: Doctor, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refuse(errno.EPERM))
    monkeypatch.setattr(os, "mkfifo", refuse(errno.EPERM))
    links, fifos = doctor.examine()
    assert (Severity.PROBLEM, Severity.NOTICE) == (links.severity, fifos.severity)
    assert "has no hard links" in links.what
    assert "has no FIFOs" in fifos.what
    assert [] == os.listdir(root / "tmp")


def test_a_doorbell_that_is_no_fifo_is_put_aside(files: TaskStore, doctor: Doctor, root: Path) -> None:
    write(root / "doorbell", "not a bell")
    assert "is no FIFO" in only(doctor).what
    assert [f"moved into quarantine/, with the reason beside it: {root / 'doorbell'}"] == doctor.repair()
    assert (
        "quarantine/doorbell is in quarantine: it stood where the doorbell belongs, and is no FIFO" == only(doctor).what
    )
    files.doorbell().close()
    assert stat.S_ISFIFO((root / "doorbell").lstat().st_mode)


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_what_stands_where_a_lock_belongs_is_put_aside(files: TaskStore, doctor: Doctor, root: Path, kind: str) -> None:
    # given
    claim = begin(files)
    die(claim)
    path = root / "locks" / f"{claim.task.id}.lock"
    path.unlink()
    {"link": lambda: path.symlink_to("nowhere"), "directory": path.mkdir, "fifo": lambda: os.mkfifo(path)}[kind]()
    age(path)
    # when
    finding = only(doctor)
    # then
    assert (Severity.PROBLEM, str(path)) == (finding.severity, finding.where)
    assert f"locks/{claim.task.id}.lock is no file, so nobody can hold it" in finding.what
    # and when it is mended, all else is seen and mended too
    assert f"moved into quarantine/, with the reason beside it: {path}" in doctor.repair()
    assert Outcome.FAILED is files.get(claim.task.id).outcome


@pytest.mark.parametrize(
    ("status", "room"),
    [
        ({"f_bavail": 16 << 8, "f_favail": 10**6}, "16 MiB"),
        ({"f_bavail": 1 << 30, "f_favail": 3}, "3 more files"),
    ],
)
def test_a_disk_that_is_nearly_full_is_found(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, status: dict[str, int], room: str
) -> None:
    values = {"f_frsize": 4096, "f_files": 10**7, **status}
    monkeypatch.setattr(os, "statvfs", lambda _: type("Status", (), {**values, "f_flag": 0}))
    finding = only(doctor)
    assert f"the disk is nearly full: there is room for {room}" == finding.what


# --- records ---


def test_an_orphan_is_settled(files: TaskStore, doctor: Doctor) -> None:
    # given
    claim = begin(files)
    die(claim)
    finding = only(doctor)
    assert f"task {claim.task.id} is in running/, and whoever ran it has died" == finding.what

    # when
    [line] = mend(doctor)

    # then
    assert line.startswith("settled with a notice, or put back for another attempt: ")
    done = files.get(claim.task.id)
    assert (Outcome.FAILED, Cause.INTERRUPTED) == (done.outcome, done.cause)
    assert [done.id] == [notice.task_id for notice in files.notifications.peek()]


@pytest.mark.usefixtures("hosted")
def test_an_orphan_that_may_run_again_is_put_back(files: TaskStore, doctor: Doctor) -> None:
    claim = begin(files, on_interrupt=OnInterrupt.RETRY)
    die(claim)
    mend(doctor)
    assert State.PENDING is files.get(claim.task.id).state


@pytest.mark.usefixtures("hosted")
@pytest.mark.parametrize(
    ("options", "runs"), [({}, 3), ({"retries": 1}, 3), ({"retries": 4}, 5), ({"max_attempts": 1, "retries": 4}, 1)]
)
def test_an_orphan_is_put_back_as_often_as_a_host_would(
    files: TaskStore, doctor: Doctor, options: SubmitOptions, runs: int
) -> None:
    """The last run that it is allowed ends it, whoever finds out that its owner died."""
    task = files.submit("image_gen", "3d", on_interrupt=OnInterrupt.RETRY, **options)
    while files.waits(task.id):
        die(own(files, task.id))
        mend(doctor)
    done = files.get(task.id)
    assert (Cause.INTERRUPTED, runs) == (done.cause, done.attempt)


def test_an_orphan_that_had_ended_is_told_of_once(files: TaskStore, doctor: Doctor, root: Path) -> None:
    claim = begin(files)
    record = (root / "running" / f"{claim.task.id}.json").read_text()
    done = files.finish(claim, Event.COMPLETE)
    write(root / "running" / f"{done.id}.json", record)
    assert "; it is in done/ as well" in only(doctor).what
    mend(doctor)
    assert done == files.get(done.id)
    assert [done.id] == [notice.task_id for notice in files.notifications.peek()]


@pytest.mark.usefixtures("hosted")
def test_what_is_done_and_waits_to_run_again_is_taken_back(
    files: TaskStore, doctor: Doctor, root: Path, tmp_path: Path, clock: ManualClock
) -> None:
    # given a submit of a key that came while the first task with it was ending
    done = complete(files, key="once")
    other = TaskStore(tmp_path / "other", durability="process", clock=clock)
    waiting = other.submit("image_gen", "3d", key="once")
    shutil.copy(Path(other.layout.pending) / f"{waiting.id}.json", root / "pending")
    finding = only(doctor)
    assert f"task {done.id} is done, and waits in pending/ as well: it will not run again" == finding.what

    # then
    mend(doctor)
    assert (set(), done) == (files.pending_ids(), files.get(done.id))


@pytest.mark.usefixtures("hosted")
def test_a_pending_record_that_cannot_be_read_is_left_to_a_host(doctor: Doctor, root: Path) -> None:
    path = write(root / "pending" / f"{ID}.json", "{")
    finding = only(doctor)
    assert Severity.NOTICE is finding.severity
    assert f"pending task {ID} cannot be read: it is not JSON" in finding.what
    path.write_text("{")  # just now: it may still be being written
    assert [] == doctor.examine()


def test_a_done_record_that_cannot_be_read_is_put_aside_with_all_that_belongs_to_it(
    files: TaskStore, doctor: Doctor, root: Path
) -> None:
    # given
    done = complete(files)
    acknowledge(files)
    files.workspace(done.id).write_log(b"a trace")
    age(root / "logs" / f"{done.id}.log")
    write(root / "done" / f"{done.id}.json", "{}")
    (root / f"{done.id}.json").unlink()
    finding, view = doctor.examine()
    assert f"done task {done.id} cannot be read: task_id is missing" == finding.what
    assert finding.fixable

    # then
    assert [finding.remedy and finding.remedy.value, view.remedy and view.remedy.value] == [
        line.split(":")[0] for line in doctor.repair()
    ]
    left = only(doctor)
    assert f"quarantine/{done.id}.json is in quarantine: the outcome could not be read: task_id is missing" == left.what
    assert left.todo.startswith("its task has run, so do not repeat it")
    assert not left.fixable
    assert b"a trace" == files.read_log(done.id)


def test_what_is_in_quarantine_of_a_task_that_may_have_run_is_not_to_be_repeated_blindly(
    files: TaskStore, doctor: Doctor
) -> None:
    claim = begin(files)
    die(claim)
    Path(files.layout.running, f"{claim.task.id}.json").write_text("{")
    files.recover()
    files.notifications.acknowledge(files.notifications.peek())
    left = only(doctor)
    assert f"quarantine/{claim.task.id}.json is in quarantine: its task may have run: it is not JSON" in left.what
    assert left.todo.startswith("see what it did before you submit its call anew")


def test_a_record_in_done_that_is_not_done_is_put_aside_unless_the_task_lives(
    files: TaskStore, doctor: Doctor, root: Path
) -> None:
    claim = begin(files)
    shutil.copy(root / "running" / f"{claim.task.id}.owner.json", root / "done" / f"{claim.task.id}.json")
    finding = only(doctor)
    assert finding.what.endswith("cannot be read: it says that the task is running, and lies where it is not")
    assert not finding.fixable
    die(claim)
    (root / "running" / f"{claim.task.id}.json").unlink()
    (root / "running" / f"{claim.task.id}.owner.json").unlink()
    doctor.repair()
    assert [f"{claim.task.id}.json", f"{claim.task.id}.json.why.txt"] == sorted(os.listdir(root / "quarantine"))


def test_a_running_record_that_cannot_be_read_is_its_owners_business(
    files: TaskStore, doctor: Doctor, root: Path
) -> None:
    claim = begin(files)
    (root / "running" / f"{claim.task.id}.owner.json").unlink()
    write(root / "running" / f"{claim.task.id}.json", "{")
    finding = only(doctor)
    assert Severity.NOTICE is finding.severity
    assert "nothing: its owner lives" in finding.todo


@pytest.mark.parametrize(
    ("name", "severity", "todo"),
    [
        ("pending/0123456789ab.json.processing", Severity.PROBLEM, "turn off AnimaWorks' own watcher"),
        ("pending/my task.json", Severity.NOTICE, "start a host, which rejects it"),
        ("pending/README", Severity.NOTICE, "see whose it is"),
        ("running/0123456789ab.txt", Severity.NOTICE, "see whose it is"),
        ("done/0123.json", Severity.NOTICE, "see whose it is"),
        ("index.json", Severity.NOTICE, "move it away"),
    ],
)
def test_a_file_with_a_name_that_is_none_of_ours_is_named(
    doctor: Doctor, root: Path, name: str, severity: Severity, todo: str
) -> None:
    write(root / name)
    findings = [finding for finding in doctor.examine() if not finding.fixable]
    assert [severity] == [finding.severity for finding in findings]
    assert todo in findings[0].todo
    assert name.rpartition("/")[2] in findings[0].what


def test_a_task_that_waits_for_nobody_is_told_of(files: TaskStore, doctor: Doctor, clock: ManualClock) -> None:
    files.submit("image_gen", "3d", not_before=clock.now + timedelta(hours=1))
    assert [] == doctor.examine()
    files.submit("image_gen", "3d")
    assert "tasks wait, and no host is listening" == only(doctor).what


# --- who runs what ---


def test_a_task_is_overdue_and_then_past_its_limit(files: TaskStore, doctor: Doctor, clock: ManualClock) -> None:
    # given one with times of its own, one with its tool's, and one with none
    registry = Registry()
    registry.tool("image_gen", "3d", expected_seconds=50, timeout_seconds=100)(lambda: None)
    files.publish_catalogue(registry.catalogue())
    given = own(files, files.submit("other", expected_seconds=10, timeout_seconds=500).id)
    tools = begin(files)
    unknown = own(files, files.submit("unknown").id)

    # then
    clock.advance(20)
    assert f"task {given.task.id} (other) is overdue: 20 s of 10" == only(doctor).what
    clock.advance(200)
    late = {finding.where: finding for finding in doctor.examine()}
    finding = late[os.path.join(files.layout.running, f"{tools.task.id}.json")]
    assert Severity.PROBLEM is finding.severity
    assert finding.what.endswith(f"runs for 220 s and may for 100, as process {os.getpid()}")
    assert 2 == len(late)
    assert unknown.lock, "held until here"


def test_a_task_that_is_claimed_and_not_announced_has_not_begun(files: TaskStore, doctor: Doctor) -> None:
    claim = files.claim(files.submit("image_gen", "3d", expected_seconds=0).id)
    assert [] == said(doctor.examine())
    assert claim, "held until here"


def test_a_task_that_ends_while_we_look_is_no_orphan(
    files: TaskStore, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed as running, it is done, and its lock free, before it is looked at; or it ends after its lock was tried."""
    first, second = begin(files), begin(files)
    claims = iter([first, second])
    take = file_locks.hold

    def hold(path: str) -> object:
        found = take(path)
        for claim in (first, second):
            if path == files.layout.lock(claim.task.id) and claim.lock is not None:
                if found is not None:
                    found.release()
                files.finish(next(claims) if claim is first else second, Event.COMPLETE)
                return take(path) if claim is first else None
        return found

    monkeypatch.setattr(file_locks, "hold", hold)
    assert [] == said(doctor.examine())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux tells who has a file open")
def test_a_lock_that_outlives_its_owner_is_found_with_the_process_that_keeps_it(files: TaskStore, root: Path) -> None:
    # given a task whose owner has died, and a child of it that has inherited the lock
    task = files.submit("image_gen", "3d")
    script = (
        "import os, subprocess, sys\n"
        "from animaworks_tasks import TaskStore\n"
        "store = TaskStore(sys.argv[1], durability='process')\n"
        "claim = store.claim(sys.argv[2])\n"
        "store.announce(claim)\n"
        "fd = next(fd for fd in range(3, 50) if os.path.islink(f'/proc/self/fd/{fd}')"
        " and os.readlink(f'/proc/self/fd/{fd}').endswith('.lock'))\n"
        "child = subprocess.Popen(['cat'], stdin=0, pass_fds=[fd])\n"
        "print(child.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, files.location, task.id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        assert 0 == owner.wait()
        until(lambda: Path(f"/proc/{child}/cmdline").read_bytes())  # empty while the kernel makes it another program

        # then
        finding = only(Doctor(files.location))
        assert Severity.PROBLEM is finding.severity
        expected = f"task {task.id} was run by process {owner.pid}, and its lock is held by process {child} (cat)"
        assert expected == finding.what
        assert str(root / "locks" / f"{task.id}.lock") == finding.where


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux tells who has a file open")
@pytest.mark.usefixtures("hosted")
def test_two_programs_that_listen_at_once_are_named(files: TaskStore, doctor: Doctor) -> None:
    with (
        open(files.layout.doorbell, "r+b", buffering=0) as bell,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[bell.fileno()]) as other,
    ):
        finding = only(doctor)
        assert finding.what.startswith("2 programs listen for tasks at once: ")
        assert f"process {other.pid} (cat)" in finding.what
        assert f"process {os.getpid()} (" in finding.what
        assert other.stdin is not None
        other.stdin.close()


# --- notices ---


def test_a_notice_that_was_never_left_is_left(files: TaskStore, doctor: Doctor, root: Path) -> None:
    # given a disk that lost it
    done = complete(files)
    journal = root / "events.jsonl"
    lines = [line for line in journal.read_text().splitlines(keepends=True) if '"notified"' not in line]
    journal.write_text("".join(lines))
    (root.parent / f"background_notifications/{done.id}.md").unlink()
    finding = only(doctor)
    assert "of 1 task that ended, the notice was never left" == finding.what

    # then
    assert [f"left the notice that was missing: {done.id}"] == mend(doctor)
    assert [done.id] == [notice.task_id for notice in files.notifications.peek()]


def test_a_notice_that_is_just_being_left_is_not_missed(files: TaskStore, doctor: Doctor, root: Path) -> None:
    done = complete(files)
    (root.parent / f"background_notifications/{done.id}.md").unlink()
    (root / "events.jsonl").write_text(json.dumps({"at": 1, "event": "ended", "task_id": done.id}) + "\n")
    with file_locks.Holding(files.layout.lock(done.id)):
        assert [] == said(doctor.examine())


@pytest.mark.parametrize(
    ("journal", "what"),
    [
        (True, "of 2 tasks that ended, the notice was taken by another program, which does not say when"),
        (False, "of 2 tasks that ended, the notice is not there, and the journal says nothing of it"),
    ],
)
def test_notices_that_another_program_took_are_not_left_again(
    files: TaskStore, doctor: Doctor, root: Path, what: str, *, journal: bool
) -> None:
    for done in (complete(files), complete(files)):
        (root.parent / f"background_notifications/{done.id}.md").unlink()
    if not journal:
        (root / "events.jsonl").unlink()
    finding = only(doctor)
    assert finding.what.startswith(what)
    assert (Severity.NOTICE, False) == (finding.severity, finding.fixable)


def test_a_notice_that_was_acknowledged_and_whose_prune_is_half_done_is_not_missed(
    files: TaskStore, doctor: Doctor, root: Path
) -> None:
    done = complete(files)
    acknowledge(files)
    (root.parent / f"background_notifications/.read/{done.id}.md").unlink()
    assert [] == said(doctor.examine())


def test_notices_that_nobody_reads_are_told_of_and_who_keeps_them(files: TaskStore, doctor: Doctor, root: Path) -> None:
    done = complete(files)
    complete(files)
    age(root.parent / f"background_notifications/{done.id}.md", 3 * DAY)
    write(root.parent / "background_notifications/of another program.md")
    assert "1 notice waits to be read for more than a day, one for 3 d" == only(doctor).what
    lock = file_locks.hold(files.layout.drain_lock)
    assert lock is not None
    if os.path.isdir("/proc/self/fd"):
        assert f"; process {os.getpid()} (" in only(doctor).what
    lock.release()


# --- what lies around ---


def test_what_dead_processes_left_is_swept(files: TaskStore, doctor: Doctor, root: Path) -> None:
    # given what is young as well, and may still be in use
    for name in (f"locks/{ID}.lock", f"running/{ID}.cancel", "tmp/a", "tmp/b"):
        write(root / name)
    for name in ("locks/0123456789ac.lock", "running/0123456789ac.cancel", "tmp/young"):
        (root / name).touch(0o600)
    held = file_locks.hold(str(write(root / "locks/0123456789ad.lock")))
    finding = only(doctor)
    assert f"dead processes left 4 files lying: locks/{ID}.lock, running/{ID}.cancel, tmp/a ..." == finding.what

    # then
    assert [f"swept: {root}/locks/{ID}.lock"] == mend(doctor)
    assert ["young"] == os.listdir(root / "tmp")
    assert held is not None
    held.release()
    assert files.recover()


def test_a_lock_that_goes_while_we_look_is_no_litter(
    doctor: Doctor, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(root / f"locks/{ID}.lock")
    look = disk.age

    def then_gone(asked: str) -> float:
        found = look(asked)
        path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(disk, "age", then_gone)
    assert [] == said(doctor.examine())


@pytest.mark.parametrize("damage", ["missing", "torn", "old"])
def test_a_view_that_does_not_show_its_record_is_mended(
    files: TaskStore, doctor: Doctor, root: Path, damage: str
) -> None:
    # given
    done = complete(files)
    view = root / f"{done.id}.json"
    view.unlink()
    if damage != "missing":
        write(view, "{" if damage == "torn" else json.dumps({"task_id": done.id, "status": "running", "version": 1}))
    assert "1 task is not shown to AnimaWorks as it stands" == only(doctor).what

    # then
    assert [f"mended the view: {view}"] == mend(doctor)
    assert view.samefile(root / "done" / f"{done.id}.json")


@pytest.mark.parametrize("text", ["{", '{"version": 1}'])
def test_a_view_of_a_task_that_is_gone_is_taken_away(doctor: Doctor, root: Path, text: str) -> None:
    view = write(root / f"{ID}.json", text)
    assert "1 task is not shown to AnimaWorks as it stands" == only(doctor).what
    mend(doctor)
    assert not view.exists()


def test_a_view_with_the_same_bytes_shows_its_record(files: TaskStore, doctor: Doctor, root: Path) -> None:
    """As in a store that was copied."""
    done = complete(files)
    view = root / f"{done.id}.json"
    view.unlink()
    shutil.copy(root / "done" / f"{done.id}.json", view)
    assert [] == said(doctor.examine())


def test_a_view_that_is_just_being_made_is_not_missed(files: TaskStore, doctor: Doctor, root: Path) -> None:
    done = complete(files)
    (root / f"{done.id}.json").unlink()
    with file_locks.Holding(files.layout.lock(done.id)):
        assert [] == said(doctor.examine())


def test_what_a_prune_left_when_it_was_killed_is_removed(files: TaskStore, doctor: Doctor, root: Path) -> None:
    done = complete(files)
    acknowledge(files)
    files.workspace(done.id).write_log(b"x")
    files.workspace(done.id).keep_result(b"x")
    for path in (root / "done" / f"{done.id}.json", root / f"{done.id}.json"):
        path.unlink()
    for path in (root / "logs" / f"{done.id}.log", root / "results" / done.id):
        age(path)
    age(root.parent / f"background_notifications/.read/{done.id}.md")
    finding = only(doctor)
    assert "logs, results or read notices of 1 task that are gone are left" == finding.what
    mend(doctor)
    assert [] == [path for path in root.parent.rglob("*") if done.id in path.name]


def test_quarantine_says_of_each_file_why_it_is_there(doctor: Doctor, root: Path) -> None:
    write(root / "quarantine/a.json", "{")
    write(root / "quarantine/a.json.why.txt", "it is not\nJSON\n")
    write(root / "quarantine/b.json", "{")
    assert [
        "quarantine/a.json is in quarantine: it is not JSON",
        "quarantine/b.json is in quarantine: nobody noted why",
    ] == [finding.what for finding in doctor.examine()]
    # and that a file cannot be submitted: its task has ended
    assert all(finding.todo.startswith("submit its call anew, if") for finding in doctor.examine())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"version": 2, "tools": {}}', "it is of version 2, not 1"),
        ("[]", "it is of version None, not 1"),
        ('{"version": 1, "tools": {"image_gen": 5}}', "it does not describe 'image_gen' as a host would"),
        ('{"version": 1, "tools": {"image_gen": {"3d": {"timeout_seconds": "x"}}}}', "it does not describe"),
        ("{", "cannot be used: "),
    ],
)
def test_a_catalogue_that_cannot_be_used_is_found(
    files: TaskStore, doctor: Doctor, root: Path, text: str, reason: str
) -> None:
    """Also beside a task that runs, whose tool would be looked up there."""
    running = begin(files)
    write(root / "catalogue", text)
    assert reason in only(doctor).what
    assert running.lock, "held until here"


def test_tasks_from_the_future_are_found(files: TaskStore, doctor: Doctor, clock: ManualClock) -> None:
    clock.advance(3600)
    complete(files)
    running = begin(files)
    clock.advance(-3600)
    assert "2 tasks come from the future, one by 3600 s" == only(doctor).what
    assert running.lock, "held until here"


# --- mending ---


def test_what_cannot_be_mended_is_said_once_and_the_rest_is_mended(
    files: TaskStore, doctor: Doctor, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "done").chmod(0o755)
    die(begin(files))
    monkeypatch.setattr(os, "chmod", refuse(errno.EPERM))
    failed, settled = doctor.repair()
    assert f"not mended: {root / 'done'}: Operation not permitted" == failed
    assert settled.startswith("settled")


def test_what_another_has_in_hand_is_not_touched(files: TaskStore, doctor: Doctor, root: Path) -> None:
    """Between the look and the remedy, somebody took the task."""
    done = complete(files)
    write(root / "done" / f"{done.id}.json", "{}")
    findings = [finding for finding in doctor.examine() if finding.fixable]
    with file_locks.Holding(files.layout.lock(done.id)):
        for name in ("_put_aside", "_drop", "_notify", "_forget", "_mend_views"):
            getattr(doctor, name)(
                Finding(what="", where="", severity=Severity.NOTICE, todo="", reason="", subjects=findings[0].subjects)
                if name == "_put_aside"
                else Finding(what="", where="", severity=Severity.NOTICE, todo="", subjects=(done.id,))
            )
    assert (root / "done" / f"{done.id}.json").exists()
    assert [] == os.listdir(root / "quarantine")
