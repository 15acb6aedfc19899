"""Where a store of files is: its directories, who may open it, and places that cannot hold one."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from animaworks_tasks import TaskStore
from animaworks_tasks.errors import StoreError
from animaworks_tasks.task.states import Event
from tests.conftest import begin, die, own
from tests.store.directory.conftest import synced, tree


def test_a_store_is_directories_for_our_eyes_only(tmp_path: Path, root: Path) -> None:
    directories = {"pending", "running", "done", "keys", "logs", "progress", "results", "quarantine", "tmp"}
    assert directories | {"format"} == set(os.listdir(root))
    for directory, _, _ in os.walk(tmp_path / "mei"):
        assert 0o700 == stat.S_IMODE(os.stat(directory).st_mode), directory


def test_a_store_says_which_format_it_has(files: TaskStore, root: Path) -> None:
    assert "animaworks_tasks 2\n" == (root / "format").read_text()
    before = (root / "format").stat()
    TaskStore(files.location)
    assert before == (root / "format").stat(), "and it is written once"


@pytest.mark.parametrize("found", ["animaworks_tasks 3\n", "animaworks_tasks 2", ""])
def test_a_format_that_we_do_not_know_is_refused_with_the_next_step_and_nothing_is_changed(
    files: TaskStore, root: Path, found: str
) -> None:
    # given
    files.submit("image_gen", "3d")
    (root / "format").write_text(found)
    before = sorted(root.rglob("*"))

    # then
    with pytest.raises(
        StoreError,
        match=r"cannot hold tasks: its format is '.*', which this release cannot read: use the one that made it$",
    ):
        TaskStore(files.location)
    assert (found, before) == ((root / "format").read_text(), sorted(root.rglob("*")))


def test_a_store_whose_format_was_not_written_yet_by_who_died_gets_it(files: TaskStore, root: Path) -> None:
    task = files.submit("image_gen", "3d", key="mei")
    (root / "format").unlink()
    again = TaskStore(files.location, durability="process")
    assert ("animaworks_tasks 2\n", task) == ((root / "format").read_text(), again.submit("x", "y", key="mei"))


def test_every_file_is_for_our_eyes_only_whatever_the_umask(files: TaskStore, root: Path) -> None:
    # given
    old = os.umask(0)
    try:
        # when something of every kind is left
        watch = files.watch()
        files.submit("image_gen", "3d")
        claim = begin(files)
        done = files.finish(begin(files), Event.COMPLETE, result="x")
        files.request_cancel(claim.task.id)
        workspace = files.workspace(claim.task.id)
        workspace.write_log(b"x")
        workspace.report_progress(None, "x")
        workspace.keep_result(b"x")
        files.publish_catalogue({})
        files.notifications.acknowledge(files.notifications.peek())
        watch.close()
    finally:
        os.umask(old)

    # then
    found = {path: path.lstat() for path in root.parent.rglob("*")}
    assert {0o600} == {stat.S_IMODE(s.st_mode) for s in found.values() if not stat.S_ISDIR(s.st_mode)}
    assert {0o700} == {stat.S_IMODE(s.st_mode) for s in found.values() if stat.S_ISDIR(s.st_mode)}
    assert root / f"results/{claim.task.id}/result.txt" in found
    assert root.parent / f"background_notifications/.read/{done.id}.md" in found


def test_a_record_lies_in_the_directory_of_its_state(files: TaskStore, root: Path) -> None:
    task = files.submit("image_gen", "3d")
    assert {f"pending/{task.id}.json"} == tree(root)
    submitted = (root / f"pending/{task.id}.json").stat()
    claim = files.claim(task.id)
    assert claim is not None
    assert {f"running/{task.id}.task"} == tree(root)
    assert submitted.st_ino == (root / f"running/{task.id}.task").stat().st_ino, "the record is its own lock"
    files.request_cancel(task.id)
    assert {f"running/{task.id}.task", f"running/{task.id}.cancel"} == tree(root)
    files.finish(claim, Event.COMPLETE)
    assert ({f"done/{task.id}.task"}, []) == (tree(root), os.listdir(root / "tmp"))


def test_a_store_for_processes_syncs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    TaskStore(tmp_path / "mei")  # the one that makes it does so for all that come later
    monkeypatch.setattr(os, "fsync", lambda fd: pytest.fail(f"fsync({fd})"))
    files = TaskStore(tmp_path / "mei", durability="process")
    files.finish(begin(files), Event.COMPLETE)
    die(begin(files))
    files.recover()
    with files.notifications.drain():
        pass
    files.prune(finished_before=files.list()[0].submitted_at + timedelta(days=1))


def test_a_durability_that_nobody_promised_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'full' or 'process', not 'sometimes'"):
        TaskStore(tmp_path, durability="sometimes")  # type: ignore[arg-type]


def test_a_language_that_we_do_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^language must be one of 'ja', 'en', 'ko', not 'fr'$"):
        TaskStore(tmp_path / "mei", language="fr")


def test_all_stores_on_a_directory_see_the_same_tasks(files: TaskStore) -> None:
    other = TaskStore(files.location, durability="process")
    task = files.submit("image_gen", "3d")
    claim = own(other, task.id)
    assert (None, (task.id,)) == (files.claim(task.id), files.recover().alive)
    assert claim.task == files.get(task.id)
    assert (os.getpid(), "mei", files.location) == (claim.task.owner_pid, task.anima_name, task.anima_dir)


def test_a_store_goes_to_another_process_as_its_directory(files: TaskStore, tmp_path: Path) -> None:
    store = pickle.loads(pickle.dumps(TaskStore(tmp_path / "mei", language="en", durability="process")))
    task = store.submit("image_gen", "3d")
    assert files.get(task.id).tool == "image_gen"
    store.finish(own(store, task.id), Event.COMPLETE)
    assert files.notifications.peek()[0].text.startswith("# Background task completed: image_gen:3d\n")
    assert (repr(files), files.location) == (repr(store), store.location)


def test_a_store_that_was_named_by_a_relative_path_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given two directories, and a store in the first
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "first")
    store = TaskStore("mei", durability="process")
    sent = pickle.dumps(store)

    # when
    monkeypatch.chdir(tmp_path / "second")

    # then
    assert store.location == pickle.loads(sent).location == pickle.loads(pickle.dumps(store)).location
    assert [] == os.listdir()


def test_a_file_cannot_hold_a_store(tmp_path: Path) -> None:
    (tmp_path / "mei").write_text("a file")
    with pytest.raises(StoreError, match="cannot hold tasks: Not a directory") as caught:
        TaskStore(tmp_path / "mei")
    assert str(tmp_path / "mei" / "state" / "background_tasks") == caught.value.directory
    assert isinstance(caught.value, OSError)


def test_where_no_directory_can_be_made_there_is_no_store() -> None:
    with pytest.raises(StoreError, match="/proc/mei/state/background_tasks"):
        TaskStore("/proc/mei")


def test_a_directory_that_may_not_be_written_cannot_hold_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdir(path: str, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", mkdir)  # root may write everywhere
    with pytest.raises(StoreError, match="cannot hold tasks: Permission denied"):
        TaskStore(tmp_path / "mei")


@pytest.mark.parametrize(
    ("flock", "why"),
    [
        (lambda *_: None, "locks do not work"),
        (lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSYS, "x")), "no locks"),
    ],
    ids=["that keep nobody out", "none"],
)
def test_a_file_system_without_working_locks_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Callable[..., None], why: str
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match=f"{why}.*use a local one"):
        TaskStore(tmp_path / "mei")


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_file_system_without_hard_links_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    # given
    def link(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    def is_refused(anima_dir: Path) -> None:
        with pytest.raises(StoreError, match=r"cannot hold tasks: its file system has no hard links; use a local one$"):
            TaskStore(anima_dir)
        assert [] == os.listdir(anima_dir / "state/background_tasks/tmp")

    # then it is refused for a new store, and for one that was copied there
    TaskStore(tmp_path / "copied")
    monkeypatch.setattr(os, "link", link)
    is_refused(tmp_path / "new")
    is_refused(tmp_path / "copied")


def test_directories_that_a_killed_process_made_become_durable_up_to_the_animas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mei" / "state").mkdir(parents=True)
    paths = synced(monkeypatch)
    store = TaskStore(tmp_path / "mei")
    assert {str(tmp_path), store.layout.anima, os.path.dirname(store.layout.root), store.layout.root} <= set(paths)


def test_a_start_leaves_no_probe_behind(files: TaskStore, root: Path) -> None:
    TaskStore(files.location, durability="process")
    assert [] == os.listdir(root / "tmp")
