"""Whoever reads an error of the command line asks: what do I do now? Each answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from animaworks_tasks import TaskStore
from animaworks_tasks._states import Event
from animaworks_tasks.cli import main
from tests.conftest import begin

Said = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TaskStore:
    monkeypatch.setenv("ANIMAWORKS_ANIMA_DIR", str(tmp_path / "mei"))
    monkeypatch.setenv("ANIMAWORKS_DATA_DIR", str(tmp_path / "data"))
    return TaskStore(tmp_path / "mei", durability="process", language="en")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Return what a command line says when it fails, which is one line and at most its usage."""

    def run(*words: str) -> str:
        capsys.readouterr()
        assert main(words) in {1, 2}
        out, err = capsys.readouterr()
        assert "" == out
        assert err.count("\n") == 1 + ("\nusage: " in err)
        return err

    return run


@pytest.mark.parametrize(
    ("words", "todo"),
    [
        (["show"], "required: ID; `animaworks-tool list` shows the ids"),
        (["wait"], "required: ID; `animaworks-tool list` shows the ids"),
        (["list", "--wat"], "unrecognized arguments: --wat; --help shows what can be given"),
        (["list", "--limit"], "argument --limit: expected one argument; --help shows which"),
        (["report"], "the following arguments are required: --html"),
        (["tools", "--registry", "no_such_module"], "; correct the tool, or what names it"),
    ],
)
@pytest.mark.usefixtures("store")
def test_a_wrong_command_line_is_told_where_the_right_one_is_found(said: Said, words: list[str], todo: str) -> None:
    assert todo in said(*words)


def test_a_record_that_cannot_be_read_is_a_case_for_the_doctor(store: TaskStore, said: Said) -> None:
    (Path(store.layout.done) / "0123456789ab.json").write_text("{")
    for command in ("show", "logs", "wait", "retry"):
        assert "; `animaworks-tool doctor` says what can be done" in said(command, "0123456789ab")


def test_a_result_that_is_gone_is_told_with_what_is_left_of_it(store: TaskStore, said: Said) -> None:
    claim = begin(store)
    kept = store.workspace(claim.task.id).keep_result(b"x" * 100_000)
    task = store.finish(claim, Event.COMPLETE, result="x", result_file=kept)
    os.unlink(os.path.join(store.layout.root, kept))
    told = said("show", "--result", task.id)
    assert f"the whole result cannot be read: No such file or directory: {store.layout.root}/{kept}" in told
    assert f"`animaworks-tool show {task.id}` prints what the record has of it, and `retry` makes it anew" in told


def test_a_result_that_is_somebody_elses_file_is_told_in_one_plain_line(store: TaskStore, said: Said) -> None:
    task = store.finish(begin(store), Event.COMPLETE, result="x", result_file="../../\x1b[2J\n../secret")
    told = said("show", "--result", task.id)
    assert "names a result that is none of its store's: ../../ [2J ../secret; `animaworks-tool show" in told


def test_where_there_are_no_tasks_it_is_said_how_there_will_be(
    store: TaskStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["list"])
    assert f"no tasks in {store.location}; `animaworks-tool submit TOOL ...` queues one\n" in capsys.readouterr().err
