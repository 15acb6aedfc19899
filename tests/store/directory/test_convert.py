"""A store of the format before this one becomes one of this; where it is at work, it is refused and stays as it is."""

from __future__ import annotations

import itertools
import json
import os
import stat
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from animaworks_tasks import Outcome, State, TaskStore
from animaworks_tasks.errors import StoreError
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.task.states import Event
from tests.conftest import own
from tests.processes import PATIENCE
from tests.store.directory.conftest import before, kill_after, plain, synced, tree

FORMAT: Final = "animaworks_tasks 2\n"
DIRECTORIES: Final = "pending", "running", "done", "locks", "logs", "progress", "results", "quarantine", "tmp"
UNREAD, READ, KEYED_DONE = "aaaaaaaaaaaa", "bbbbbbbbbbbb", sha256(b"ended").hexdigest()[:12]  # ids came from keys
WAITS, KEYED, PLAIN = "cccccccccccc", sha256(b"waiting").hexdigest()[:12], "dddddddddddd"


def pending(task_id: str, **more: object) -> bytes:
    """Return the record of a task that waits, as the earlier release wrote it."""
    fields = {**plain(task_id=task_id, anima_name="mei", anima_dir="/mei"), "version": 1, "priority": 3, **more}
    return json.dumps(fields, indent=2).encode() + b"\n"


def done(task_id: str, **more: object) -> bytes:
    """Return the record of a task that ended, likewise."""
    fields: dict[str, object] = {
        "task_id": task_id,
        "anima_name": "mei",
        "tool_name": "image_gen:3d",
        "tool_args": {"subcommand": "3d", "raw_args": ["3d"], "anima_dir": "/mei"},
        "status": "completed",
        "created_at": 1767225600.25,
        "completed_at": 1767225660.5,
        "result": f"the result of {task_id}",
        "error": None,
        "version": 1,
        "submitted_at": 1767225600.0,
        "attempt": 1,
        "outcome": "completed",
        **more,
    }
    return json.dumps(fields, indent=2).encode() + b"\n"


@attrs.frozen
class Earlier:
    """A store as the earlier release left it, with something of everything."""

    root: Path

    def submit(self, data: bytes) -> None:
        (self.root / f"pending/{json.loads(data)['task_id']}.json").write_bytes(data)

    def end(self, data: bytes, notification: str) -> None:
        """Leave an outcome, its view, which is another name of the same file, and its notification."""
        task_id = json.loads(data)["task_id"]
        record = self.root / f"done/{task_id}.json"
        record.write_bytes(data)
        os.utime(record, (1767225660.5, 1767225660.5))
        os.link(record, self.root / f"{task_id}.json")
        (self.root.parent / "background_notifications" / notification / f"{task_id}.md").write_text(
            f"notification of {task_id}"
        )

    def open(self) -> TaskStore:
        return TaskStore(self.root.parents[1], language="en", durability="process")

    def everything(self) -> dict[str, Any]:
        """Return all that is there: what each name stands for."""
        found = {}
        for path in [self.root, *self.root.parent.rglob("*")]:
            status = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(status.st_mode) else None
            found[str(path.relative_to(self.root.parent))] = (status.st_ino, status.st_mode, content)
        return found


def make(anima: Path) -> Earlier:
    root = anima / "state/background_tasks"
    for name in (*DIRECTORIES, "../background_notifications/.read"):
        (root / name).mkdir(parents=True, mode=0o700)
    store = Earlier(root)
    store.submit(pending(WAITS))
    store.submit(pending(KEYED, key="waiting"))
    store.submit(json.dumps(plain(task_id=PLAIN)).encode())
    store.end(done(UNREAD), "")
    store.end(done(READ), ".read")
    store.end(done(KEYED_DONE, key="ended"), "")
    os.mkfifo(root / "doorbell")
    for name in ("ages", "events.jsonl", "catalogue", "boot", f"locks/{WAITS}.lock", f"logs/{UNREAD}.log"):
        (root / name).write_text("{}\n")
    return store


@pytest.fixture
def earlier(tmp_path: Path) -> Earlier:
    return make(tmp_path / "mei")


def check(earlier: Earlier, store: TaskStore) -> None:
    """Hold against a converted store what was in the earlier one."""
    root = earlier.root
    assert FORMAT == (root / "format").read_text()
    assert [] == [name for name in ("locks", "ages", "doorbell") if (root / name).exists()]
    assert {f"pending/{i}.json" for i in (WAITS, KEYED, PLAIN)} | {
        f"done/{i}.task" for i in (UNREAD, READ, KEYED_DONE)
    } == tree(root)
    # each task is as it was
    assert {WAITS, KEYED, PLAIN} == {task.id for task in store.list(State.PENDING)}
    for task_id in (UNREAD, READ, KEYED_DONE):
        assert (Outcome.COMPLETED, f"the result of {task_id}") == (
            store.get(task_id).outcome,
            store.read_result(task_id),
        )
    assert ({UNREAD, KEYED_DONE}, {READ}) == (
        {notification.task_id for notification in store.notifications.peek()},
        {name.removesuffix(".md") for name in os.listdir(store.layout.read)},
    )
    assert b"{}\n" == store.read_log(UNREAD)
    # each key names the task that it named
    assert KEYED == store.submit("image_gen", "3d", key="waiting").id
    assert KEYED_DONE == store.submit("image_gen", "3d", key="ended").id
    # each view is a file of its own, and says what it said
    for task_id in (UNREAD, READ, KEYED_DONE):
        view = root / f"{task_id}.json"
        assert (1, "completed") == (view.stat().st_nlink, json.loads(view.read_bytes())["status"])


def test_a_store_of_the_format_before_is_converted_when_it_is_opened(earlier: Earlier) -> None:
    store = earlier.open()
    check(earlier, store)
    check(earlier, earlier.open())


def test_what_was_converted_lives_on_like_anything_else(earlier: Earlier) -> None:
    # given
    store = earlier.open()

    # then what waits runs, what has ended is notified of once, and is pruned by when it ended
    for task_id in (WAITS, KEYED, PLAIN):
        assert Outcome.COMPLETED is store.finish(own(store, task_id), Event.COMPLETE).outcome
    assert ((), (), ()) == attrs.astuple(store.recover())
    with store.notifications.drain() as drained:
        assert {UNREAD, KEYED_DONE, WAITS, KEYED, PLAIN} == {
            notification.task_id for notification in drained.notifications
        }
    ended = store.get(READ).finished_at
    assert ended is not None
    assert [] == store.prune(finished_before=ended)
    assert {UNREAD, READ, KEYED_DONE} == set(store.prune(finished_before=ended + timedelta(seconds=1)))
    assert KEYED_DONE != store.submit("image_gen", "3d", key="ended").id


@pytest.mark.parametrize("name", [f"running/{WAITS}.json", "running/torn.json"])
def test_a_store_in_which_something_runs_is_refused_with_the_next_step_and_nothing_is_changed(
    earlier: Earlier, name: str
) -> None:
    # given
    (earlier.root / name).write_bytes(pending(WAITS))
    there = earlier.everything()

    # then
    with pytest.raises(
        StoreError,
        match=r"cannot be converted while tasks run in it.*: `animaworks-tool run --until-idle` of that release",
    ):
        earlier.open()
    assert there == earlier.everything()


def test_a_store_at_which_a_host_listens_is_refused_with_the_next_step_and_nothing_is_changed(earlier: Earlier) -> None:
    # given a host of the earlier release, which has the FIFO open as long as it lives
    host = os.open(earlier.root / "doorbell", os.O_RDWR | os.O_NONBLOCK)
    there = earlier.everything()

    # then
    with pytest.raises(StoreError, match="while a host of that release is at work in it: stop that first"):
        earlier.open()
    assert there == earlier.everything()

    # and converted when it has gone
    os.close(host)
    check(earlier, earlier.open())


def test_requests_and_owners_without_a_task_do_not_stand_in_the_way(earlier: Earlier) -> None:
    for name in (f"{READ}.cancel", f"{READ}.owner.json"):
        (earlier.root / "running" / name).touch()
    check(earlier, earlier.open())


@pytest.mark.parametrize("gone", ["tmp", "pending", "done", "quarantine", "../background_notifications"])
def test_a_store_of_which_a_directory_is_missing_is_converted_too(earlier: Earlier, gone: str) -> None:
    """The process that made it may have died before it was whole, or somebody has cleared it away."""
    (earlier.root / gone).rename(earlier.root / "../elsewhere")
    store = earlier.open()
    assert FORMAT == (earlier.root / "format").read_text()
    assert store.submit("image_gen", "3d").id in store.pending_ids()


def test_what_cannot_be_read_is_converted_as_what_it_is(earlier: Earlier) -> None:
    # given
    (earlier.root / "pending/eeeeeeeeeeee.json").write_text("{")
    (earlier.root / "done/ffffffffffff.json").write_text("{")
    (earlier.root / "pending/notes.json").mkdir()

    # then
    store = earlier.open()
    assert (earlier.root / "done/ffffffffffff.task").exists()
    assert 6 == len(store.list())
    assert KEYED == store.submit("image_gen", "3d", key="waiting").id


def test_of_two_tasks_of_a_key_the_one_that_waits_has_it(earlier: Earlier) -> None:
    """The one that ended had it earlier: a release that pruned in between gave both the same id, or none."""
    earlier.submit(pending("eeeeeeeeeeee", key="ended"))
    assert "eeeeeeeeeeee" == earlier.open().submit("image_gen", "3d", key="ended").id


def test_killed_after_any_step_the_next_one_does_the_rest(tmp_path: Path) -> None:
    for steps in itertools.count():
        # given
        earlier = make(tmp_path / str(steps))

        # when
        killed = kill_after(steps, earlier.open)

        # then
        check(earlier, earlier.open())
        if not killed:
            assert steps > 30
            break


def test_the_format_is_written_when_all_that_went_before_is_durable(
    earlier: Earlier, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    layout = Layout(earlier.root.parents[1])
    everything = {
        layout.pending, layout.running, layout.done, layout.keys, layout.notifications, layout.read
    }  # fmt: skip

    # when
    paths = synced(monkeypatch)
    before(monkeypatch, "create.link", lambda: paths.append("written"))
    TaskStore(layout.anima)

    # then
    assert everything <= set(paths[: paths.index("written")])


def test_of_two_that_open_it_at_once_one_converts_it(earlier: Earlier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one waits, and finds it done."""
    # given
    others: list[Future[TaskStore]] = []
    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            before(patch, "convert.link", lambda: others.append(pool.submit(earlier.open)))
            store = earlier.open()
        check(earlier, others[0].result(PATIENCE))

    # then
    check(earlier, store)
