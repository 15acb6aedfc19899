"""What dead owners left running: real processes, which are killed before their task is finished or run again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import pytest

from animaworks_tasks import Cause, TaskStore
from animaworks_tasks.store import leftovers
from animaworks_tasks.store.leftovers import Owner
from tests.conftest import begin, die, own
from tests.processes import gone, until
from tests.store.directory.conftest import before

OWNER: Final = """
import os, subprocess, sys
from animaworks_tasks import TaskStore
from tests.conftest import own

store = TaskStore(sys.argv[1], durability="process")
claim = own(store, sys.argv[2])
if "forked" in sys.argv:
    copy = os.dup(claim.fileno())
    if os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        sys.stdin.read()
        os._exit(0)
if "started" in sys.argv:
    os.write(1, b"%d\\n" % subprocess.Popen(["cat"], stdin=sys.stdin, pass_fds=[claim.fileno()]).pid)
if "session" in sys.argv:
    stdin = os.dup(0)
    tool = subprocess.Popen(
        ["sh", "-c", f"read go; cat <&{stdin} >/dev/null & echo $!"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, pass_fds=[stdin],
    )
    store.publish_view(claim, session=tool.pid)
    os.write(1, tool.communicate("go\\n")[0].encode())
    tool.wait()
os.write(1, b"ready\\n")
sys.stdin.read()
"""


@attrs.frozen
class Left:
    """A task whose owner was killed, and what it had started."""

    task_id: str
    owner: int
    pid: int


@contextlib.contextmanager
def owner_killed(files: TaskStore, *what: str) -> Iterator[Left]:
    """Let a process own a task, start *what*, and be killed; what is left of it in the end is killed too."""
    task = files.submit("image_gen", "3d")
    # Nobody's stdin is closed before the end, so nothing ends by itself.
    inside, outside = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, files.location, task.id, *what], stdin=inside, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        said = {owner.stdout.readline().strip() for _ in range(len(what) + 1)} - {"ready"}
        owner.kill()
    pid = int(*said)
    try:
        assert not gone(pid)
        yield Left(task.id, owner.pid, pid)
    finally:
        os.close(inside)
        os.close(outside)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["forked", "started"])
def test_what_holds_a_copy_of_a_dead_owners_lock_is_killed_and_the_task_ends_at_the_same_look(
    files: TaskStore, how: str
) -> None:
    with owner_killed(files, how) as left:
        # when
        [done] = files.recover().finished

        # then
        assert (Cause.INTERRUPTED, left.task_id) == (done.cause, done.id)
        assert gone(left.pid)


def test_what_is_left_of_a_dead_owners_session_is_killed_before_the_task_may_run_again(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a program that a tool had started, which knows nothing of locks
    with owner_killed(files, "session") as left:
        was_gone: list[bool] = []
        before(monkeypatch, "requeue.rename", lambda: was_gone.append(gone(left.pid)))

        # when
        [task] = files.recover(lambda _: True).requeued

        # then
        assert (left.task_id, [True]) == (task.id, was_gone)


def test_a_task_that_has_ended_does_not_wait_for_what_holds_its_lock(files: TaskStore) -> None:
    """A daemon that a tool leaves behind in order may have the descriptor open for as long as it likes."""
    # given
    claim = begin(files)
    copy = os.dup(claim.fileno() or -1)

    # when
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leftovers, "kill_holders", lambda _: pytest.fail("nobody is to be killed"))
        files.requeue(claim)
        done = files.request_cancel(claim.task.id)

    # then
    assert done == files.get(claim.task.id)
    os.close(copy)


LOOKER: Final = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY if sys.argv[2] == "reads" else os.O_RDWR)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("looks", ["reads", "is about to claim"])
def test_who_only_has_the_record_open_is_not_touched(files: TaskStore, looks: str) -> None:
    with owner_killed(files, "forked") as left:
        # given a process that reads the record, or has opened it for a claim that comes too late
        record = files.layout.running_record(left.task_id)
        with subprocess.Popen(
            [sys.executable, "-c", LOOKER, record, looks], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as looker:
            assert looker.stdout is not None
            assert b"open\n" == looker.stdout.readline()

            # when
            assert [left.task_id] == [task.id for task in files.recover().finished]

            # then
            assert looker.poll() is None
            looker.communicate()
        assert 0 == looker.returncode


def test_nobody_is_killed_while_the_owner_lives(files: TaskStore) -> None:
    # given an owner, and a process that has a copy of its descriptor
    claim = begin(files)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[claim.fileno() or -1]) as helper:
        files.publish_view(claim, session=helper.pid)
        assert (claim.task.id,) == files.recover().alive
        assert helper.poll() is None
        files.requeue(claim)
        helper.communicate()
    assert 0 == helper.returncode


def test_where_no_view_says_who_the_owner_was_a_lock_that_is_held_is_waited_for(files: TaskStore) -> None:
    with owner_killed(files, "forked") as left:
        # given
        os.unlink(files.layout.view(left.task_id))
        assert (left.task_id,) == files.recover().alive

        # when what holds it ends
        os.kill(left.pid, signal.SIGKILL)
        until(lambda: gone(left.pid))

        # then
        assert [left.task_id] == [task.id for task in files.recover().finished]


def test_a_process_that_got_the_number_of_a_dead_tools_process_is_not_touched(files: TaskStore) -> None:
    """A number names a process together with the moment at which that started."""
    # given an orphan whose view names a session that is another's by now
    claim = begin(files)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True) as stranger:
        files.publish_view(claim, session=stranger.pid)
        view = Path(files.layout.view(claim.task.id))
        shown = json.loads(view.read_bytes())
        shown["owner"]["session_started"] -= 1
        view.write_text(json.dumps(shown))
        die(claim)

        # then
        assert [claim.task.id] == [task.id for task in files.recover().finished]
        assert stranger.poll() is None
        stranger.communicate()
    assert 0 == stranger.returncode


def test_of_an_earlier_run_of_the_machine_nothing_is_left(files: TaskStore) -> None:
    # given
    claim = begin(files)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True) as stranger:
        files.publish_view(claim, session=stranger.pid)
        view = Path(files.layout.view(claim.task.id))
        view.write_text(view.read_text().replace(leftovers.boot(), "of yesterday"))
        die(claim)

        # then
        assert [claim.task.id] == [task.id for task in files.recover().finished]
        assert stranger.poll() is None
        stranger.communicate()
    assert 0 == stranger.returncode


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": "1"},
        {"pid": True},
        {"pid": -1},
        {"pid": None},
        {"started": 1.5},
        {"boot": None},
        {"session": 0.5},
        {"session": -1},
        {"session_started": "now"},
    ],
    ids=str,
)
def test_an_owner_that_anybody_has_written_is_none(changes: dict[str, object]) -> None:
    me = Owner.me(os.getpid())
    assert me is not None
    assert me == Owner.of(attrs.asdict(me))
    assert Owner.of({**attrs.asdict(me), **changes}) is None


@pytest.mark.parametrize("facts", [None, [], "pid", 5, {}])
def test_what_is_no_owner_is_none(facts: object) -> None:
    assert Owner.of(facts) is None


def test_a_process_is_dead_when_it_has_ended_or_another_one_has_its_number() -> None:
    me = Owner.me()
    assert me is not None
    assert not me.is_dead()
    assert attrs.evolve(me, started=me.started + 1).is_dead()
    # and of one on another machine, or in a container, whose processes are not seen from here, nobody knows
    assert not attrs.evolve(me, boot="of another machine", started=me.started + 1).is_dead()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        other = attrs.evolve(me, pid=process.pid, started=Owner.me(process.pid).session_started)  # type: ignore[union-attr]
        assert not other.is_dead()
    assert other.is_dead()


def test_where_there_is_no_proc_nothing_is_killed_and_an_orphan_with_a_free_lock_ends(
    files: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    real = os.scandir

    def no_proc(path: str = ".") -> Iterator[os.DirEntry[str]]:
        if str(path).startswith("/proc"):
            raise FileNotFoundError(path)
        return real(path)

    monkeypatch.setattr(os, "scandir", no_proc)
    monkeypatch.setattr(leftovers, "_my_start", leftovers._my_start.__wrapped__)  # as in a process that begins there
    monkeypatch.setattr(leftovers, "_stat", lambda _: None)
    monkeypatch.setattr(leftovers, "_my_start", lambda _: None)  # it may have been asked for before

    # then
    claim = own(files, files.submit("image_gen", "3d").id)
    assert Owner.me() is None
    assert "owner" not in json.loads(Path(files.layout.view(claim.task.id)).read_bytes())
    die(claim)
    assert [claim.task.id] == [task.id for task in files.recover().finished]
