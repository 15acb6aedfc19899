"""A store is refused where it could not keep its promises, by each way in, and nothing is queued there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from animaworks_tasks import TaskStore
from animaworks_tasks.errors import StoreError
from animaworks_tasks.store.check import check
from animaworks_tasks.store.place import Place
from tests.filesystems.conftest import Mount

pytestmark = pytest.mark.slow


def tool(anima: Path, *words: str, user: int = 0) -> subprocess.CompletedProcess[str]:
    """Run ``animaworks-tool`` as *user*."""
    command = [sys.executable, "-m", "animaworks_tasks", "--anima-dir", str(anima), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, user=user or None, check=False)


def refused(anima: Path, *options: str) -> str:
    """Return why a store is refused there: by the library and by ``submit`` with the same words, and none is made."""
    anima.mkdir(exist_ok=True)
    with pytest.raises(StoreError) as error:
        TaskStore(anima, shared="--shared" in options)
    receipt = tool(anima, *options, "submit", "words", "list")
    assert (1, "") == (receipt.returncode, receipt.stdout)
    assert f"animaworks-tool: nothing was queued: {error.value}\n" == receipt.stderr
    assert not [*anima.glob("state/*/pending/*")]
    return error.value.reason


def test_two_mounts_by_sshfs_whose_locks_exclude_nobody(tmp_path: Path, sshfs: Mount) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("one", "two"):
        reason = refused(sshfs(source, name) / "mei")
        assert "its file system is fuse.sshfs, whose locks may not keep other machines out" in reason
        assert "or, if you know that its locks do, TaskStore(..., shared=True) or --shared" in reason


def test_what_its_user_answers_for_is_taken(tmp_path: Path, bindfs: Mount) -> None:
    source = tmp_path / "source"
    source.mkdir()
    anima = bindfs(source, "other") / "mei"
    assert "its file system is fuse" in refused(anima)
    assert 0 == tool(anima, "--shared", "submit", "words", "list").returncode
    (task,) = TaskStore(anima, shared=True).list()
    assert "words" in tool(anima, "--shared", "list").stdout
    assert 1 == tool(anima, "show", task.id).returncode, "it is said each time"


@pytest.mark.parametrize("options", [["--force-user=nobody"], ["--create-for-user=nobody"], ["--perms=0777"]])
def test_a_mount_that_gives_our_files_to_others(tmp_path: Path, bindfs: Mount, options: list[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    reason = refused(bindfs(source, "other", *options) / "mei", "--shared")
    assert "belongs to another user" in reason or "anybody may write to" in reason or "what we make there" in reason


@pytest.mark.parametrize("option", ["--create-for-user=nobody", "--create-with-perms=0644"])
def test_a_mount_that_gives_what_we_make_to_others(tmp_path: Path, bindfs: Mount, option: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    TaskStore(source / "mei")
    reason = refused(bindfs(source, "other", option) / "mei", "--shared")
    assert "what we make there belongs to user " in reason
    assert 1 == len([*source.glob("mei/state/*/tmp/*")]) + 1, "and no probe is left"


@pytest.mark.parametrize("kind", ["vfat", "exfat"])
def test_file_systems_without_links_and_modes(image: Mount, kind: str) -> None:
    assert refused(image(kind) / "mei", "--shared").startswith(f"its file system is {kind}, which has no hard links")


@pytest.fixture
def shared_directory(tmp_path: Path) -> Path:
    """A directory that root owns, with the sticky bit, in which everybody may write: as /tmp."""
    (tmp_path / "everybodys").mkdir()
    (tmp_path / "everybodys").chmod(0o1777)
    return tmp_path / "everybodys"


OTHER = 4711


def gives_away(path: Path) -> None:
    os.chown(path, OTHER, OTHER, follow_symlinks=False)


def theirs_above(anima: Path) -> None:
    anima.mkdir()
    gives_away(anima)


def their_link(anima: Path) -> None:
    (anima.parent / "trap").mkdir()
    anima.mkdir()
    (anima / "state").symlink_to(anima.parent / "trap")
    gives_away(anima / "state")


def their_directory_behind_a_link(anima: Path) -> None:
    (anima.parent / "trap" / "state").mkdir(parents=True)
    gives_away(anima.parent / "trap")
    anima.mkdir()
    (anima / "state").symlink_to(anima.parent / "trap" / "state")


def their_pending(anima: Path) -> None:
    store = TaskStore(anima)
    gives_away(Path(store.layout.pending))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
@pytest.mark.parametrize("plant", [theirs_above, their_link, their_directory_behind_a_link, their_pending])
def test_what_another_user_owns_on_the_way(shared_directory: Path, plant: Callable[[Path], None]) -> None:
    plant(shared_directory / "mei")
    assert f" belongs to another user (uid {OTHER}), who can replace the whole store; move the Anima to" in refused(
        shared_directory / "mei"
    )


@pytest.mark.parametrize("place", [".", "state", "state/background_tasks", "state/background_tasks/pending"])
def test_where_anybody_may_write(tmp_path: Path, place: str) -> None:
    TaskStore(tmp_path / "mei")
    where = tmp_path.resolve() / "mei" / place
    where.chmod(0o777)
    assert refused(tmp_path / "mei").endswith(
        f"anybody may write to {where}, and so can replace the whole store; `chmod go-w {where}`"
    )
    where.chmod(0o700)
    TaskStore(tmp_path / "mei")


def test_a_sticky_directory_of_root_is_taken_where_the_next_one_is_ours(shared_directory: Path) -> None:
    store = TaskStore(shared_directory / "mei")
    assert 0 == tool(shared_directory / "mei", "submit", "words", "list").returncode
    assert 1 == len(store.list())


def test_in_the_store_itself_sticky_will_not_do(tmp_path: Path) -> None:
    store = TaskStore(tmp_path / "mei")
    Path(store.layout.pending).chmod(0o1777)
    assert "anybody may write to" in refused(tmp_path / "mei")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives directories away")
def test_where_a_group_may_write_is_a_warning_and_a_finding(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mei").mkdir()
    os.chown(tmp_path / "mei", 0, OTHER)
    (tmp_path / "mei").chmod(0o770)
    what = f"its group may write to {tmp_path / 'mei'}, and so can replace the whole store"
    store = TaskStore(tmp_path / "mei")
    assert [f"{what}; `chmod go-w {tmp_path / 'mei'}`"] == caplog.messages
    assert [("warning", what)] == [(found.severity, found.what) for found in check(place_of(store))]


def place_of(store: TaskStore) -> Place:
    return store.place
