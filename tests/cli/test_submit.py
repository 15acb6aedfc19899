"""``animaworks-tool submit``: queued and acknowledged, or refused with a reason; nothing in between, and fast."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from animaworks_tasks import Cause, Executor, InlineBackend, Outcome, Registry, State, Task, TaskStore
from animaworks_tasks.cli import main
from animaworks_tasks.fs import files
from animaworks_tasks.fs.layout import Layout
from animaworks_tasks.task.pending import SIZE_LIMIT
from animaworks_tasks.task.states import Event
from tests.conftest import own

# Imported by submit, and not by an interpreter that does nothing.
ALLOWED = {"__future__", "_json", "errno", "itertools"}


def stored(anima: Path) -> TaskStore:
    return TaskStore(anima, durability="process")


def receipt_of(output: str) -> dict[str, Any]:
    receipt: dict[str, Any] = json.loads(output)
    return receipt


def command(
    *words: str, program: str = "sys.exit(main())", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own."""
    program = f"import sys; from animaworks_tasks.cli import main; {program}"
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, check=False, env=environment)


def test_a_submit_is_acknowledged_with_a_receipt_and_stands_in_pending(
    anima: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 0 == main(["submit", "image_gen", "3d", "猫.png", "--size", "4"])

    output = capsys.readouterr().out
    task_id = receipt_of(output)["task_id"]
    assert (
        f"""\
{{
  "task_id": "{task_id}",
  "status": "submitted",
  "tool": "image_gen",
  "subcommand": "3d",
  "message": "バックグラウンドタスクを投入しました。完了時にinboxに通知されます。(task_id: {task_id})"
}}
"""
        == output
    )
    record = json.loads((anima / "state/background_tasks/pending" / f"{task_id}.json").read_text())
    assert ["task_id", "tool_name", "subcommand", "raw_args", "anima_name", "anima_dir", "submitted_at", "status"] == (
        list(record)[:8]
    )
    assert ["3d", "猫.png", "--size", "4"] == record["raw_args"]
    assert ("mei", str(anima), "pending") == (record["anima_name"], record["anima_dir"], record["status"])
    assert os.getcwd() == record["cwd"]


def test_the_installed_command_submits(anima: Path) -> None:
    script = Path(sys.executable).with_name("animaworks-tool")
    done = subprocess.run([script, "submit", "web", "fetch"], capture_output=True, check=True)
    assert [receipt_of(done.stdout.decode())["task_id"]] == [task.id for task in stored(anima).list()]


def test_submit_imports_next_to_nothing(anima: Path) -> None:
    """It must start in the time of a bare interpreter; one careless import costs more than all of its work."""
    stored(anima).publish_catalogue(_a_registry().catalogue())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    show = "print(*sys.modules, file=sys.stderr)"
    bare = subprocess.run(
        [sys.executable, "-c", f"import sys; {show}"], capture_output=True, check=True, env=environment
    ).stderr.split()
    options = ["--priority", "3", "--delay", "5", "--timeout", "60", "--retries", "1"]
    done = command(
        "submit", *options, "words", "count", "a.txt", program=f"main(sys.argv[1:]); {show}", environment=environment
    )

    imported = {name.decode() for name in done.stderr.split()} - {name.decode() for name in bare}
    foreign = {name for name in imported if name.partition(".")[0] != "animaworks_tasks"}
    assert done.stdout
    assert foreign <= ALLOWED


def _a_registry() -> Registry:
    registry = Registry()

    @registry.tool("words", "count", expected_seconds=60)
    def count(file: Path, *, longest: int = 20) -> None:
        """Count words."""

    return registry


argument = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(
    tool=argument.filter(lambda word: word != "" and not word.startswith("-") and ":" not in word),
    argv=st.lists(argument.filter(lambda word: word not in {"-h", "--help"}), max_size=4),
    key=st.none() | argument.filter(bool),
    priority=st.integers(-9, 9),
    timeout=st.none() | st.floats(0.001, 1e6),
    retries=st.none() | st.integers(0, 5),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_submit_writes_is_what_the_store_would_write(
    anima: Path,
    tmp_path_factory: pytest.TempPathFactory,
    tool: str,
    argv: list[str],
    key: str | None,
    priority: int,
    timeout: float | None,
    retries: int | None,
) -> None:
    """The fast way and the library's way leave the same record, byte for byte but for id, time and place."""
    ours, theirs = tmp_path_factory.mktemp(anima.name), tmp_path_factory.mktemp("store")
    given = {"--key": key, "--priority": priority, "--timeout": timeout, "--retries": retries}
    options = [f"{name}={value}" for name, value in given.items() if value is not None]
    assert 0 == main(["submit", f"--anima-dir={ours}", *options, tool, *argv])
    wanted = TaskStore(theirs, durability="process").submit(
        tool, *argv, key=key, priority=priority, timeout_seconds=timeout, retries=retries, cwd=os.getcwd()
    )

    (found,) = stored(ours).list()
    alike = {"id": wanted.id, "submitted_at": wanted.submitted_at, "anima_dir": str(theirs), "anima_name": theirs.name}
    assert wanted == attrs.evolve(found, **alike)
    assert _keys(theirs, wanted) == _keys(ours, found)
    assert _index(theirs) == _index(ours)


def _keys(anima: Path, task: Task) -> Sequence[str]:
    return list(json.loads((anima / f"state/background_tasks/pending/{task.id}.json").read_text()))


def _index(anima: Path) -> Sequence[str]:
    return os.listdir(Layout(anima).keys)


def test_a_delay_is_a_moment_before_which_it_is_not_started(anima: Path) -> None:
    before = time.time()
    assert 0 == main(["submit", "--delay", "100", "web", "fetch"])
    (task,) = stored(anima).list()
    assert task.not_before is not None
    assert before + 100 <= task.not_before.timestamp() <= time.time() + 100


def test_lengths_of_time_are_written_as_people_write_them(anima: Path) -> None:
    before = time.time()
    assert 0 == main(["submit", "--delay", "1h30m", "--timeout=15m", "web", "fetch"])
    (task,) = stored(anima).list()
    assert task.not_before is not None
    assert before + 5400 <= task.not_before.timestamp() <= time.time() + 5400
    assert 900 == task.timeout_seconds


@pytest.mark.parametrize("words", [["-q"], ["--quiet"], ["-jq"]])
def test_a_quiet_submit_prints_the_id_alone(anima: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert 0 == main(["submit", *words, "web", "fetch"])
    (task,) = stored(anima).list()
    assert (f"{task.id}\n", "") == capsys.readouterr()


@pytest.mark.parametrize("published", [True, False])
def test_a_tool_and_its_subcommand_may_be_written_as_notifications_write_them(anima: Path, *, published: bool) -> None:
    """The record is the one that two words make."""
    # given
    store = stored(anima)
    if published:
        store.publish_catalogue(_a_registry().catalogue())
    # when
    for words in (["words:count", "a"], ["words", "count", "a"]):
        assert 0 == main(["submit", *words])
    # then
    one, other = store.list()
    assert ("words", "count", ("count", "a")) == (one.tool, one.subcommand, one.argv)
    assert one == attrs.evolve(other, id=one.id, submitted_at=one.submitted_at)


def test_a_subcommand_that_is_not_typed_is_none_of_its_words(anima: Path, tmp_path: Path) -> None:
    # given a module whose parser has no subcommands, which a notification calls search:search
    source = "EXECUTION_PROFILE = {'search': {'background_eligible': True}}\n"
    (tmp_path / "search.py").write_text(
        f"{source}def cli_main(argv=None):\n argparse.ArgumentParser().parse_args(argv)"
    )
    registry = Registry()
    registry.add_module("search", tmp_path / "search.py")
    stored(anima).publish_catalogue(registry.catalogue())
    # when
    assert 0 == main(["submit", "search:search", "two words"])
    # then
    (task,) = stored(anima).list()
    assert ("search", "search", ("two words",)) == (task.tool, task.subcommand, task.argv)


@pytest.mark.parametrize("name", ["a:b", ":b", "a:"])
def test_a_tool_that_has_that_very_name_is_meant_by_it(anima: Path, name: str) -> None:
    """No registry has one, but anybody may publish a catalogue."""
    spec = {"long_running": True, "expected_seconds": 9, "gated": False, "summary": "", "parameters": None}
    stored(anima).publish_catalogue({"version": 1, "tools": {name: {"go": spec}, "a": {"b": spec}}})
    assert 0 == main(["submit", name, "go"])
    (task,) = stored(anima).list()
    assert (name, ("go",)) == (task.tool, task.argv)


def test_everything_after_the_tool_is_the_tools(anima: Path) -> None:
    assert 0 == main(["-j", "submit", "--json", "local_llm", "-q", "--key", "x", "--", "generate", "--help", "-h"])
    (task,) = stored(anima).list()
    assert ("-q", "--key", "x", "--", "generate", "--help", "-h") == task.argv
    assert ("x", None) == (task.subcommand, task.key)


def test_the_anima_may_be_named_before_the_command_and_after_it(tmp_path: Path, anima: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    assert 0 == main(["--anima-dir", str(tmp_path / "one"), "submit", "web", "fetch"])
    assert 0 == main(["submit", f"--anima-dir={tmp_path / 'two'}", "web", "fetch"])
    assert 0 == main(["--anima-dir", "x", "submit", "--anima-dir", str(tmp_path / "three"), "web", "fetch"])
    for name in ("one", "two", "three"):
        assert 1 == len(stored(tmp_path / name).list())
    assert not (anima / "state").exists()


# A key.


def _pending(store: TaskStore, key: str) -> Task:
    return store.submit("web", "fetch", key=key)


def _running(store: TaskStore, key: str) -> Task:
    return own(store, _pending(store, key).id).task


def _done(store: TaskStore, key: str) -> Task:
    return store.finish(own(store, _pending(store, key).id), Event.COMPLETE)


@pytest.mark.parametrize("earlier", [_pending, _running, _done])
def test_a_key_that_has_a_task_gets_its_receipt_and_no_second_task(
    anima: Path, capsys: pytest.CaptureFixture[str], earlier: Callable[[TaskStore, str], Task]
) -> None:
    task = earlier(stored(anima), "the one")
    assert 0 == main(["submit", "--key", "the one", "web", "fetch"])
    said = capsys.readouterr()
    assert task.id == receipt_of(said.out)["task_id"]
    assert f"nothing was queued: `animaworks-tool show {task.id}`" in said.err
    assert [(task.id, task.state)] == [(each.id, each.state) for each in stored(anima).list()]


@pytest.mark.parametrize("earlier", [_pending, _running, _done])
def test_a_key_that_has_another_call_gets_the_receipt_of_that_call(
    anima: Path, capsys: pytest.CaptureFixture[str], earlier: Callable[[TaskStore, str], Task]
) -> None:
    """Who submits something else under a name that is taken must not believe that it will be run."""
    task = earlier(stored(anima), "the one")
    assert 0 == main(["submit", "--key", "the one", "odd", "quick"])
    said = capsys.readouterr()
    receipt = receipt_of(said.out)
    assert (task.id, "web", "fetch") == (receipt["task_id"], receipt["tool"], receipt["subcommand"])
    assert "a task with this key, of another call ('web fetch'), is there already, and nothing was queued" in said.err


@pytest.mark.parametrize("found", ["{", "[]", '{"tool_name": 3}', '{"tool_name": "a", "tool_args": []}', "{}"])
def test_a_key_whose_task_cannot_be_read_is_taken_all_the_same(
    anima: Path, capsys: pytest.CaptureFixture[str], found: str
) -> None:
    store = stored(anima)
    task = _pending(store, "the one")
    Path(store.layout.tmp, "draft").write_text(found)  # an editor replaces a file, and writes to none that has its key
    os.replace(f"{store.layout.tmp}/draft", store.layout.pending_record(task.id))
    assert 0 == main(["submit", "--key", "the one", "odd", "quick"])
    said = capsys.readouterr()
    assert (task.id, "odd") == (receipt_of(said.out)["task_id"], receipt_of(said.out)["tool"])
    assert f"nothing was queued: `animaworks-tool show {task.id}`" in said.err


# Checked against what the host published.


def test_the_catalogue_tells_the_subcommand(anima: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = {"long_running": True, "expected_seconds": 9, "timeout_seconds": 9, "gated": False, "summary": ""}
    tools = {"local_llm": {"generate": {**spec, "parameters": None}}}
    stored(anima).publish_catalogue({"version": 1, "tools": tools})
    assert 0 == main(["submit", "local_llm", "-m", "llama3", "generate", "hello"])
    assert "generate" == receipt_of(capsys.readouterr().out)["subcommand"]


_OF_THE_TOOLS: Final = "usage: animaworks-tool submit words count FILE [--longest INT]\n"
_OF_A_FUNCTION: Final = f"""\
{_OF_THE_TOOLS}
Count words.

  FILE
  [--longest INT]          (default: 20)
"""
_OF_A_COMMAND: Final = "usage: animaworks-tool submit files pack ARCHIVE FILE...\n\nPack files.\n\nQuietly.\n"
_OF_A_MODULE: Final = "usage: animaworks-tool submit mod go ...\n\n`animaworks-tool mod go --help` shows more\n"


@pytest.mark.parametrize(
    ("call", "printed"),
    [
        (["words", "--help"], _OF_THE_TOOLS),
        (["words", "-h"], _OF_THE_TOOLS),
        (["words", "count", "--help"], _OF_A_FUNCTION),
        (["words:count", "--help"], _OF_A_FUNCTION),
        (["words", "count", "a", "-h", "--", "b"], _OF_A_FUNCTION),
        (["words", "count", "--longest", "--help"], _OF_A_FUNCTION),
        (["files", "pack", "--help", "letter.txt"], _OF_A_COMMAND),
        (["files", "list", "--help"], "usage: animaworks-tool submit files list ...\n"),
        (["mod", "go", "--help"], _OF_A_MODULE),
        (["mod", "elsewhere", "--help"], _OF_A_MODULE.replace(" go ", " elsewhere ")),
        (["host", "go", "x", "--help"], "usage: animaworks-tool submit host go ...\n"),
        (["host", "elsewhere", "--help"], "usage: animaworks-tool submit host elsewhere ...\n"),
    ],
)
def test_help_is_printed_and_never_queued(
    anima: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], call: list[str], printed: str
) -> None:
    """Whatever the tool is; what a module has to say itself, only a direct call can show."""
    # given a function, commands, and modules that a shell finds, and does not find
    registry, found = _a_registry(), Registry()
    registry.add_command("files", "pack", ["tar", "-czf"], usage="ARCHIVE FILE...\n\nQuietly.\n", summary="Pack files.")
    registry.add_command("files", "list", ["tar", "-tzf"])
    source = "EXECUTION_PROFILE = {'go': {'background_eligible': True}}\ndef cli_main(argv=None): ...\n"
    (tmp_path / "mod.py").write_text(source)
    found.add_module("mod", tmp_path / "mod.py")
    registry.add_registry(found, direct=True)
    registry.add_module("host", tmp_path / "mod.py")
    stored(anima).publish_catalogue(registry.catalogue())
    # when
    status = main(["submit", *call])
    # then
    assert (0, (printed, "")) == (status, capsys.readouterr())
    assert [] == stored(anima).list()


def test_help_needs_neither_a_host_nor_an_anima(
    anima: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is what `animaworks-tool` finds itself, then; and of what it does not find it says so, and queues nothing."""
    # given a tool for everybody, and no host yet
    common = anima.parent / "data/common_tools"
    common.mkdir(parents=True)
    source = "from animaworks_tasks import Registry\nregistry = Registry()\nregistry.add('odd', 'go', lambda x: x)\n"
    (common / "odd.py").write_text(source)
    for words in ([], ["ANIMAWORKS_ANIMA_DIR"]):
        for variable in words:
            monkeypatch.delenv(variable)
        # when, then
        assert 0 == main(["submit", "odd", "go", "--help"])
        assert "usage: animaworks-tool submit odd go X\n\n  X\n" == capsys.readouterr().out
        assert 2 == main(["submit", "even", "--help"])
        assert "nothing is known of 'even' before a host has published its tools" in capsys.readouterr().err
    assert not (anima / "state").exists()


def test_what_may_mean_something_else_is_the_tools(anima: Path) -> None:
    """``-h`` is no help to a program that means something else by it."""
    registry = Registry()
    registry.add_command("files", "size", ["du"])
    stored(anima).publish_catalogue(registry.catalogue())
    assert 0 == main(["submit", "files", "size", "-h", "x"])
    (task,) = stored(anima).list()
    assert ("size", "-h", "x") == task.argv


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (["word", "count", "a"], "there is no tool 'word' (`animaworks-tool tools` lists all): did you mean words?"),
        (["words", "cout", "a"], "words has no subcommand 'cout': did you mean count?\nusage: words {count} ..."),
        (["words", "count"], "missing: FILE\nusage: words count FILE [--longest INT]"),
        (
            ["words", "count", "a", "--longest", "x"],
            "--longest must be a whole number, not 'x'\nusage: words count FILE",
        ),
    ],
)
def test_a_call_that_no_tool_takes_is_refused_and_nothing_is_queued(
    anima: Path, capsys: pytest.CaptureFixture[str], call: list[str], reason: str
) -> None:
    store = stored(anima)
    store.publish_catalogue(_a_registry().catalogue())
    assert 2 == main(["submit", *call])
    said = capsys.readouterr()
    assert said.err.startswith(f"animaworks-tool: {reason}")
    assert "" == said.out
    assert [] == list(store.list())


@pytest.mark.parametrize("catalogue", [b"", b"{", b"[]", b'{"version": 99, "tools": {}}', b"\xff"])
def test_a_catalogue_that_nobody_understands_refuses_nothing(anima: Path, catalogue: bytes) -> None:
    store = stored(anima)
    Path(store.layout.catalogue).write_bytes(catalogue)
    assert 0 == main(["submit", "web", "fetch"])
    assert 1 == len(store.list())


@pytest.mark.parametrize("found", ["{", '{"version": 1, "tools": {"web": ', '{"a" 1}', '"a', ""])
def test_what_is_torn_or_damaged_stands_in_no_submits_way(anima: Path, found: str) -> None:
    """In a process of its own, which has not imported json: the parser fails in another way there."""
    # given a catalogue that a power cut tore, and a record that was damaged in place
    store = stored(anima)
    Path(store.layout.catalogue).write_text(found)
    damaged = _pending(store, "the one").id
    Path(store.layout.pending_record(damaged)).write_text(found)
    # when
    said = command("submit", "--key", "the one", "web", "fetch")
    # then the key still means the damaged one, which the host will report, and all else is queued
    assert b"a task with this key is there already" in said.stderr
    assert damaged == receipt_of(said.stdout.decode())["task_id"]
    assert 2 == len(store.pending_ids() | {receipt_of(command("submit", "web", "fetch").stdout.decode())["task_id"]})


# What people get wrong.


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "submit needs the name of a tool"),
        ([""], "submit needs the name of a tool"),
        (["--key"], "--key needs a value"),
        (["--wait", "web"], "there is no option --wait here"),
        (["--json=1", "web"], "--json takes no value"),
        (["--key", "", "web"], "--key must not be empty"),
        (["--priority", "high", "web"], "--priority must be a whole number, not 'high'"),
        (["--retries", "-1", "web"], "--retries must be at least 0, not -1"),
        (["--retries", "1.5", "web"], "--retries must be a whole number"),
        (["--delay", "soon", "web"], "--delay 'soon' is no length of time: write it as 90 (seconds), 5m, 1h30m, 2d"),
        (["--delay", "-1", "web"], "--delay '-1' is no length of time"),
        (["--delay", "9999999d", "web"], "--delay 9999999d is too long; at most 36500d, which is a century"),
        (["--timeout", "0", "web"], "--timeout must be at least 0.001, not 0"),
        (["web", os.fsdecode(b"caf\xe9")], "an argument is not UTF-8, and cannot be stored: caf\\xe9"),
        (["--key", os.fsdecode(b"\xff"), "web"], "an argument is not UTF-8"),
        ([os.fsdecode(b"\xff")], "an argument is not UTF-8"),
    ],
)
def test_wrong_usage_is_refused_with_the_usage_line(
    anima: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str
) -> None:
    assert 2 == main(["submit", *words])
    said = capsys.readouterr()
    assert said.err.startswith(f"animaworks-tool: {reason}")
    assert "\nusage: animaworks-tool [--anima-dir DIR] submit [OPTIONS] TOOL [ARGS...]\n" in said.err
    assert not (anima / "state").exists()


def test_help_is_printed_before_the_tool_only(anima: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["submit", "--help"], ["submit", "-h", "web"], ["--help", "submit"]):
        assert 0 == main(words)
        assert capsys.readouterr().out.startswith("usage: animaworks-tool [--anima-dir DIR] submit")
    assert not (anima / "state").exists()


def test_no_anima_is_an_error_that_says_what_to_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANIMAWORKS_ANIMA_DIR", raising=False)
    assert 1 == main(["submit", "web", "fetch"])
    wanted = "animaworks-tool: no Anima is named: set ANIMAWORKS_ANIMA_DIR to its directory, or give --anima-dir DIR"
    assert capsys.readouterr().err.startswith(wanted)


def test_a_misspelled_anima_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["--anima-dir", str(tmp_path / "mie"), "submit", "web", "fetch"])
    assert f"there is no directory {tmp_path / 'mie'}: correct --anima-dir" in capsys.readouterr().err
    assert [] == list(tmp_path.iterdir())


def test_arguments_that_no_record_holds_are_refused(anima: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 1 == main(["submit", "web", "post", *["x" * 100_000] * (SIZE_LIMIT // 100_000 + 1)])
    assert "nothing was queued: the arguments make a record of" in capsys.readouterr().err
    assert not (anima / "state").exists()


def test_a_directory_that_is_gone_is_no_place_to_submit_from(
    anima: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert 1 == main(["submit", "web", "fetch"])
    assert "nothing was queued: the current directory is gone; cd to another one" in capsys.readouterr().err
    assert not (anima / "state").exists()


@pytest.mark.usefixtures("anima")
def test_a_directory_without_a_utf8_name_is_no_place_to_submit_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(odd)
    monkeypatch.chdir(os.fsdecode(odd))
    assert 1 == main(["submit", "web", "fetch"])
    assert "nothing was queued: the current directory has a name that is not UTF-8" in capsys.readouterr().err


# When the disk or the reader fails.


def test_a_full_disk_queues_nothing_and_says_so(
    anima: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    assert 1 == main(["submit", "web", "fetch"])
    monkeypatch.undo()
    said = capsys.readouterr()
    assert said.err.startswith(
        "animaworks-tool: nothing was queued: No space left on device; see that the disk has room"
    )
    assert "" == said.out
    assert [] == list(stored(anima).list())


def test_a_task_that_is_queued_but_not_durably_is_not_to_be_submitted_again(
    anima: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a disk that takes the record, and not its name
    def broken(path: str) -> None:
        if path.endswith("/pending") and os.listdir(path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(files, "sync_directory", broken)

    # then
    assert 1 == main(["submit", "web", "fetch"])
    [task] = stored(anima).list()
    said = capsys.readouterr()
    assert f"task {task.id} is queued and will run, do not submit it again; but a power cut may" in said.err
    assert "Input/output error" in said.err
    assert f"`animaworks-tool show {task.id}` says" in said.err
    assert "" == said.out


def test_what_stands_in_the_way_of_the_store_is_named(anima: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (anima / "state").write_text("a file where a directory belongs")
    assert 1 == main(["submit", "web", "fetch"])
    assert f"nothing was queued: Not a directory ({anima}/state/background_tasks" in capsys.readouterr().err


def test_a_receipt_that_nobody_reads_is_no_failure(anima: Path) -> None:
    """A caller that takes a failure for "not queued" submits again, and has the work done twice."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from animaworks_tasks.cli import main; sys.exit(main())",
                "submit",
                "web",
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    (task,) = stored(anima).list()
    assert State.PENDING is task.state
    assert 0 == done.returncode
    assert f"task {task.id} is queued, do not submit it again" in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_process_without_a_console_can_submit(anima: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert 0 == main(["submit", "web", "fetch"])
    assert 1 == len(stored(anima).list())


def test_a_call_that_is_quick_is_queued_with_the_hint_that_submit_is_not_needed(
    anima: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the catalogue has it, and not where only the host could make the call."""
    # given tools in AnimaWorks' form that a shell finds, and one that it does not
    registry, found = _a_registry(), Registry()
    for name, profile, parser in (
        ("local_llm", {"generate": (300, True), "status": (5, False)}, "0"),
        ("web_search", {"search": (15, False)}, "argparse.ArgumentParser().parse_args(argv)"),
    ):
        facts = {each: {"expected_seconds": n, "background_eligible": slow} for each, (n, slow) in profile.items()}
        (tmp_path / f"{name}.py").write_text(f"EXECUTION_PROFILE = {facts}\ndef cli_main(argv=None):\n    {parser}\n")
        found.add_module(name, tmp_path / f"{name}.py")
    found.add("cat", "count", lambda: 1)
    registry.add_registry(found, direct=True)
    registry.add("host", "count", lambda: 1)
    stored(anima).publish_catalogue(registry.catalogue())

    def said(*words: str) -> str:
        assert 0 == main(["submit", *words])
        out, err = capsys.readouterr()
        assert "submitted" == receipt_of(out)["status"]
        return err

    # then
    needless = "animaworks-tool: {0} is quick: submit is not needed, `animaworks-tool {0} ...` returns its result\n"
    assert needless.format("local_llm status") == said("local_llm", "status")
    assert needless.format("web_search") == said("web_search", "two words")
    assert needless.format("cat count") == said("cat", "count")
    for words in (["local_llm", "generate", "x"], ["local_llm", "pull", "x"], ["host", "count"]):
        assert "" == said(*words)
    # and a call for help is no call
    assert 0 == main(["submit", "web_search", "--help"])
    wanted = "usage: animaworks-tool submit web_search ...\n\n`animaworks-tool web_search --help` shows more\n"
    assert (wanted, "") == capsys.readouterr()


def test_what_was_submitted_by_hand_runs(anima: Path) -> None:
    """From the shell to the outcome, with a host in between that knows nothing of the shell."""
    registry = Registry()
    registry.add("echo", "words", lambda *words: " ".join(words))
    store = stored(anima)
    executor = Executor(store, registry, backend=InlineBackend()).start()
    assert 0 == main(["submit", "echo", "words", "--", "-x", "日本語"])
    assert 0 == main(["submit", "ecco", "words"])
    executor.run_until_idle_sync()
    executor.stop()
    done = {task.tool: task for task in store.list()}
    assert (Outcome.COMPLETED, "-x 日本語") == (done["echo"].outcome, done["echo"].result)
    assert Cause.REJECTED is done["ecco"].cause
